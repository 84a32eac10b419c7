"""DRUNet: the authors' names and counts, scaling, the noise map, identity, and refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.drunet import ARCHITECTURE, DRUNet
from kbdenoise.models.weights import load_weights
from kbdenoise.models.zoo import named_size

TINY = {"width": 4, "levels": 2, "blocks": 2}


@pytest.mark.parametrize(
    ("channels", "noise_map", "parameters"),
    [(3, True, 32_640_960), (1, True, 32_638_656), (3, False, 32_640_384)],
)
def test_it_has_as_many_parameters_as_counted_by_hand(
    channels: int, noise_map: bool, parameters: int
) -> None:
    block = sum(2 * 4 * 2 * 9 * c * c for c in (64, 128, 256)) + 4 * 2 * 9 * 512**2
    steps = sum(2 * 4 * c * 2 * c for c in (64, 128, 256))
    ends = 9 * 64 * (channels + noise_map) + 9 * 64 * channels

    info = describe_model("drunet", channels=channels, noise_map=noise_map)

    assert info.parameters == block + steps + ends == parameters


def test_it_costs_as_many_products_as_counted_by_hand() -> None:
    macs = 256**2 * 9 * 64 * (4 + 3) + 32**2 * 8 * 9 * 512**2
    for level, c in enumerate((64, 128, 256)):
        macs += (256 >> level) ** 2 * 16 * 9 * c * c  # blocks on both sides
        macs += (128 >> level) ** 2 * 2 * 4 * c * 2 * c  # down and up

    info = describe_model("drunet", channels=3, side=256, **named_size("drunet", "paper"))

    assert info.macs == macs
    assert info.macs / 1e9 == pytest.approx(138.8, rel=1e-3)
    assert (info.multiple, info.receptive_field) == (8, 185)


def test_names_and_shapes_of_tensors_are_the_authors() -> None:
    expected: dict[str, tuple[int, ...]] = {
        "m_head.weight": (64, 2, 3, 3),
        "m_tail.weight": (1, 64, 3, 3),
    }
    for level, c in enumerate((64, 128, 256), start=1):
        for j in range(4):
            for i in (0, 2):
                expected[f"m_down{level}.{j}.res.{i}.weight"] = (c, c, 3, 3)
                expected[f"m_up{level}.{j + 1}.res.{i}.weight"] = (c, c, 3, 3)
        expected[f"m_down{level}.4.weight"] = (2 * c, c, 2, 2)
        expected[f"m_up{level}.0.weight"] = (2 * c, c, 2, 2)
    for j in range(4):
        expected |= {f"m_body.{j}.res.{i}.weight": (512, 512, 3, 3) for i in (0, 2)}

    with torch.device("meta"):
        state = build_model("drunet", channels=1).state_dict()

    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_scaled_values_and_noise_give_scaled_results(scale: float, randomised: Any) -> None:
    quiet, loud = (
        randomised(DRUNet(**TINY, noise_level=level).double()) for level in (20.0, 20.0 * scale)
    )
    image = torch.rand(2, 3, 8, 12, dtype=torch.float64)

    once = quiet(image)

    torch.testing.assert_close(loud(scale * image), scale * once, atol=1e-6, rtol=1e-6)
    assert (quiet(scale * image) - scale * once).abs().max() > 1e-3


@torch.no_grad()
def test_the_noise_level_is_one_more_constant_channel(randomised: Any) -> None:
    mapped = randomised(DRUNet(**TINY, channels=1, noise_level=51.0))
    blind = randomised(DRUNet(**TINY, channels=1, noise_map=False))
    image = torch.rand(1, 1, 8, 12)
    into_head: list[torch.Tensor] = []
    mapped.m_head.register_forward_pre_hook(lambda _, inputs: into_head.append(inputs[0]))

    mapped(image)
    weight = mapped.m_head.weight
    blind.m_head.weight.copy_(weight[:, :1])

    torch.testing.assert_close(into_head[0], torch.cat([image, torch.full_like(image, 0.2)], 1))
    assert (mapped(image) - blind(image)).abs().max() > 1e-3
    weight[:, 1:] = 0
    torch.testing.assert_close(mapped(image), blind(image))


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


@pytest.mark.parametrize("noise_map", [True, False])
def test_trained_on_identity_it_returns_the_image(noise_map: bool) -> None:
    torch.manual_seed(0)
    model = DRUNet(channels=1, width=8, levels=1, blocks=1, noise_map=noise_map)

    before, after = error_after_learning_identity(model)

    assert before > 0.1
    assert after < 0.04


@pytest.mark.parametrize(("levels", "blocks", "radius"), [(1, 1, 11), (2, 1, 25), (3, 2, 97)])
def test_the_declared_radius_is_exact(
    levels: int, blocks: int, radius: int, randomised: Any
) -> None:
    options = {"width": 2, "levels": levels, "blocks": blocks}
    model = randomised(DRUNet(channels=1, **options)).double()
    for parameter in model.parameters():
        parameter.data.abs_()  # no rectifier is shut and nothing cancels
    period = 2**levels
    middle = period * (radius // period + 2)
    image = torch.rand(1, 1, 8, 2 * middle, dtype=torch.float64, requires_grad=True)
    out = model(image)

    def reach(column: int) -> int:
        (gradient,) = torch.autograd.grad(out[..., column].sum(), image, retain_graph=True)
        return int((gradient.abs().sum((0, 1, 2)).nonzero() - column).abs().max())

    assert max(reach(middle + phase) for phase in range(period)) == radius
    assert describe_model("drunet", channels=1, **options).receptive_field == radius


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"noise_level": -1.0}, "noise_level of drunet is -1.0", "from 0 to 255"),
        ({"noise_level": 256.0}, "noise_level of drunet is 256.0", "such as 15"),
        ({"noise_level": float("nan")}, "noise_level of drunet is nan", "from 0 to 255"),
        ({"noise_map": False, "noise_level": 25.0}, "is 25, but without a noise map", "noise_map"),
        ({"blocks": 0}, "blocks of drunet is 0", "at least 1"),
        ({"levels": 0}, "levels of drunet is 0", "at least 1"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        DRUNet(**options)

    assert message in refused.value.message
    assert hint in refused.value.hint


def test_the_noise_level_of_a_foreign_file_can_be_set(tmp_path: Path, randomised: Any) -> None:
    model = randomised(DRUNet(**TINY, noise_level=40.0))
    torch.save(model.state_dict(), tmp_path / "w.pth")
    image = torch.rand(1, 3, 8, 8)

    loaded, card = load_weights(tmp_path / "w.pth", noise_level=40.0)

    assert torch.equal(loaded(image), model(image))
    assert card.hyperparameters["noise_level"] == 40.0
    assert load_weights(tmp_path / "w.pth")[1].hyperparameters["noise_level"] == 15.0


def test_a_noise_level_for_a_blind_file_is_refused(tmp_path: Path) -> None:
    torch.save(DRUNet(**TINY, noise_map=False).state_dict(), tmp_path / "w.pth")

    with pytest.raises(SettingsError, match="without a noise map it is never seen"):
        load_weights(tmp_path / "w.pth", noise_level=40.0)


def renamed(changes: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    """A tiny network's tensors, some under another name and in another shape."""
    state = DRUNet(**TINY).state_dict()
    for name, (other, shape) in changes.items():
        del state[name]
        state[other] = torch.zeros(shape)
    return state


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"m_down1.2.weight": ("m_down1.3.weight", (8, 4, 3, 3))}, "level 1 shrinks by pooling"),
        ({"m_up2.0.weight": ("m_up2.1.weight", (8, 16, 3, 3))}, "enlarges by interpolation"),
        ({"m_up2.0.weight": ("m_up2.0.weight", (32, 16, 3, 3))}, "enlarges by pixel shuffle"),
        ({"m_down2.2.weight": ("m_down2.2.weight", (16, 8, 4, 4))}, r"\[4, 4\] instead of \[2, 2"),
        ({"m_up1.0.weight": ("other", (1,))}, "m_up1.0.weight is missing"),
        ({"m_head.weight": ("m_head.weight", (4, 6, 3, 3))}, "6 channels go in and 3 come out"),
    ],
    ids=str,
)
def test_the_authors_other_kinds_are_refused_in_words(
    changes: dict[str, tuple[str, tuple[int, ...]]], words: str
) -> None:
    with pytest.raises(DataError, match=f"look like drunet.*{words}"):
        detect(renamed(changes))


def test_a_lone_block_of_the_body_may_be_without_its_number() -> None:
    state = DRUNet(width=4, levels=1, blocks=1).state_dict()
    authors = {name.replace("m_body.0.", "m_body."): tensor for name, tensor in state.items()}

    name, found = detect(authors)

    assert name == "drunet"
    assert found.hyperparameters["blocks"] == 1
    assert found.state.keys() == state.keys()


def test_offsets_and_other_widths_do_not_fit(tmp_path: Path) -> None:
    torch.save(DRUNet(**TINY).state_dict() | {"m_head.bias": torch.zeros(4)}, tmp_path / "b.pth")
    torch.save(renamed({"m_tail.weight": ("m_tail.weight", (3, 5, 3, 3))}), tmp_path / "width.pth")

    with pytest.raises(DataError, match=r"does not fit its model, drunet; unknown: m_head\.bias"):
        load_weights(tmp_path / "b.pth")
    with pytest.raises(DataError, match=r"m_tail\.weight is \[3, 5, 3, 3\] instead of"):
        load_weights(tmp_path / "width.pth")


def test_other_models_tensors_are_none_of_its_own() -> None:
    assert ARCHITECTURE.recognise({}) is None
    assert ARCHITECTURE.recognise({"m_head.0.weight": torch.zeros(1)}) is None
