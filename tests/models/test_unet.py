"""U-Net: the textbook's counts, old files, every option's reach, identity, and refusals."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.unet import ARCHITECTURE, UNet
from kbdenoise.models.weights import load_weights
from kbdenoise.models.zoo import named_size

SKIPS, NORMS, DOWNS = ("concat", "add"), ("none", "batch", "instance"), ("conv", "pool")
EVERY_KIND = list(product(SKIPS, NORMS, DOWNS))

# The textbook's stages as (channels in, channels out), two convolutions each.
CLASSIC = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1024)]
CLASSIC_BACK = [(1024, 512), (512, 256), (256, 128), (128, 64)]


def test_the_classic_size_has_the_textbooks_parameters() -> None:
    stages = sum(9 * (i * o + o * o) + 2 * 2 * o for i, o in CLASSIC + CLASSIC_BACK)
    ups = sum(4 * i * o + o for i, o in CLASSIC_BACK)

    info = describe_model("unet", channels=3, **named_size("unet", "classic"))

    assert info.parameters == stages + ups + (64 * 3 + 3) == 31_037_763


def test_the_classic_size_has_the_textbooks_products() -> None:
    macs = 256**2 * 64 * 3
    for level, (i, o) in enumerate(CLASSIC):
        macs += (256 >> level) ** 2 * 9 * (i * o + o * o)
    for level, (i, o) in zip((3, 2, 1, 0), CLASSIC_BACK, strict=True):
        macs += (256 >> level) ** 2 * (i * o + 9 * (i * o + o * o))

    info = describe_model("unet", channels=3, side=256, **named_size("unet", "classic"))

    assert info.macs == macs
    assert info.macs / 1e9 == pytest.approx(48.2, rel=1e-3)
    assert info.multiple == 16


def test_names_and_shapes_of_plain_tensors_never_change() -> None:
    layers = {
        "encoders.0.0": (4, 1, 3, 3),
        "encoders.0.2": (4, 4, 3, 3),
        "downs.0": (8, 4, 2, 2),
        "middle.0": (8, 8, 3, 3),
        "middle.2": (8, 8, 3, 3),
        "ups.0": (8, 4, 2, 2),
        "decoders.0.0": (4, 8, 3, 3),
        "decoders.0.2": (4, 4, 3, 3),
        "ending": (1, 4, 1, 1),
    }
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        outputs = shape[1] if name == "ups.0" else shape[0]
        expected |= {f"{name}.weight": shape, f"{name}.bias": (outputs,)}

    state = UNet(channels=1, width=4, levels=1).state_dict()

    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_a_file_from_before_norms_and_pooling_still_loads(tmp_path: Path, randomised: Any) -> None:
    options = {"width": 4, "levels": 2, "convs": 1, "skip": "add"}
    model = randomised(UNet(**options))
    card = {"model": "unet", "channels": 3, "hyperparameters": options, "domain": [0.0, 1.0]}
    header = {"kbdenoise": json.dumps({**card, "package_version": "0.1", "metadata": {}})}
    safetensors.torch.save_file(model.state_dict(), tmp_path / "old.safetensors", metadata=header)

    loaded, found = load_weights(tmp_path / "old.safetensors")

    image = torch.rand(1, 3, 8, 12)
    assert torch.equal(loaded(image), model(image))
    assert found.hyperparameters == {**options, "norm": "none", "down": "conv", "input_skip": True}


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("input_skip", [True, False])
def test_a_pooled_network_equals_the_textbook_written_out(
    norm: str, input_skip: bool, randomised: Any
) -> None:
    model = randomised(
        UNet(width=4, levels=1, down="pool", norm=norm, convs=1, input_skip=input_skip)
    )
    p = model.state_dict()

    def stage(x: Tensor, name: str) -> Tensor:
        x = F.conv2d(x, p[f"{name}.0.weight"], padding=1)
        affine = {"weight": p[f"{name}.1.weight"], "bias": p[f"{name}.1.bias"]}
        if norm == "instance":
            return F.instance_norm(x, **affine).relu()
        running = p[f"{name}.1.running_mean"], p[f"{name}.1.running_var"]
        return F.batch_norm(x, *running, **affine).relu()

    image = torch.rand(2, 3, 6, 10)
    fine = stage(image, "encoders.0")
    coarse = stage(F.max_pool2d(fine, 2), "middle")
    up = F.conv_transpose2d(coarse, p["ups.0.weight"], p["ups.0.bias"], stride=2)
    joined = stage(torch.cat([up, fine], dim=1), "decoders.0")
    expected = F.conv2d(joined, p["ending.weight"], p["ending.bias"]) + image * input_skip

    torch.testing.assert_close(model(image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("skip", "norm", "down"), EVERY_KIND)
@pytest.mark.parametrize("training", [True, False])
def test_an_untrained_network_with_a_skip_returns_its_input(
    skip: Any, norm: Any, down: Any, training: bool
) -> None:
    model = UNet(width=4, levels=2, skip=skip, norm=norm, down=down).train(training)
    image = torch.rand(2, 3, 8, 12)

    assert torch.equal(model(image), image)


def error_after_learning_identity(model: nn.Module) -> tuple[float, float]:
    """Mean absolute error on smooth pictures that it never saw, before and after training."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, total_iters=150)
    coarse, coarse_fresh = torch.rand(8, 1, 4, 4), torch.rand(2, 1, 4, 6)
    images, fresh = (
        F.interpolate(c, scale_factor=4, mode="bilinear") for c in (coarse, coarse_fresh)
    )

    def error() -> float:
        with torch.no_grad():
            return float((model.eval()(fresh) - fresh).abs().mean())

    before = error()
    model.train()
    for _ in range(150):
        optimiser.zero_grad()
        F.mse_loss(model(images), images).backward()
        optimiser.step()
        schedule.step()
    return before, error()


def test_trained_on_identity_without_a_skip_it_returns_the_image() -> None:
    torch.manual_seed(0)
    model = UNet(channels=1, width=8, levels=1, convs=1, input_skip=False)

    before, after = error_after_learning_identity(model)

    assert before > 0.1
    assert after < 0.04


def opened(**options: Any) -> nn.Module:
    """A tiny network in exact numbers, with which no rectifier is shut and nothing cancels."""
    model = UNet(channels=1, width=2, **options).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(0.1 + 0.1 * drawn if parameter.ndim == 4 else 1 + drawn)
    return model


@pytest.mark.parametrize(("skip", "norm", "down"), [k for k in EVERY_KIND if k[1] != "instance"])
@pytest.mark.parametrize(("levels", "convs", "radius"), [(1, 1, 5), (2, 1, 13), (2, 2, 23)])
def test_the_declared_radius_is_exact_for_every_option(
    skip: str, norm: str, down: str, levels: int, convs: int, radius: int
) -> None:
    options = {"skip": skip, "norm": norm, "down": down, "levels": levels, "convs": convs}
    period = 2**levels
    side = 2 * period * (radius // period + 2)

    reached = [
        _reach(opened(**options), side=side, column=side // 2 + phase) for phase in range(period)
    ]

    assert max(reached) == radius
    assert describe_model("unet", channels=1, width=2, **options).receptive_field == radius


def _reach(model: nn.Module, *, side: int, column: int) -> int:
    """The farthest column that moves an output. Bright ends of rows win where a network pools."""
    ramp = (torch.arange(side, dtype=torch.float64) - column).abs()
    image = ramp.expand(1, 1, 16, side).clone().requires_grad_()

    model(image)[0, 0, :, column].sum().backward()

    return int((image.grad.abs().sum((0, 1, 2)).nonzero() - column).abs().max())


@pytest.mark.parametrize("down", DOWNS)
def test_with_instance_norm_every_side_reaches_every_other(down: str) -> None:
    image = torch.rand(1, 1, 8, 64, dtype=torch.float64, requires_grad=True)

    opened(levels=1, convs=1, norm="instance", down=down)(image)[..., 20].sum().backward()

    assert image.grad[..., -2:].abs().max() > 0
    assert describe_model("unet", channels=1, norm="instance").receptive_field is None


def test_batch_norm_cannot_learn_from_a_single_position() -> None:
    model = UNet(width=4, levels=2, norm="batch").train()

    with pytest.raises(SettingsError) as refused:
        model(torch.rand(1, 3, 4, 4))

    assert refused.value.message == "unet with batch norm cannot be trained on one patch of 4 px"
    assert "8 px" in refused.value.hint
    assert model(torch.rand(2, 3, 4, 4)).shape == (2, 3, 4, 4)
    assert model.eval()(torch.rand(1, 3, 4, 4)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"norm": "group"}, "norm of unet is 'group'", "none, batch, instance"),
        ({"down": "mean"}, "down of unet is 'mean'", "conv, pool"),
        ({"skip": "none"}, "skip of unet is 'none'", "concat, add"),
        ({"convs": 0}, "convs of unet is 0", "at least 1"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        UNet(**options)

    assert refused.value.message == message
    assert hint in refused.value.hint


def test_tensors_that_contradict_each_other_are_refused_in_words() -> None:
    state = UNet(width=4, levels=1).state_dict()

    with pytest.raises(DataError, match=r"look like unet.*3 channels go in and 2 come out"):
        detect(state | {"ending.weight": torch.zeros(2, 4, 1, 1)})
    with pytest.raises(DataError, match=r"look like unet.*ending\.weight is missing"):
        detect({name: tensor for name, tensor in state.items() if "ending" not in name})
    with pytest.raises(DataError, match="look like unet"):
        detect(state | {"encoders.0.0.weight": torch.zeros(4)})


def test_other_models_tensors_are_none_of_its_own() -> None:
    assert ARCHITECTURE.recognise({}) is None
    assert ARCHITECTURE.recognise({"encoders.0.0.weight": torch.zeros(())}) is None
