"""SRResNet: counts, every ablation's reach, identity, and refusal of networks that enlarge."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.srresnet import ARCHITECTURE, InstanceNorm, ResidualBlock, SRResNet

Act = Callable[[Tensor, Any], Tensor]

BLOCKS = ("basic", "bottleneck")
NORMS = ("none", "batch", "instance")
ACTIVATIONS = ("relu", "prelu", "gelu", "glu")

# By hand: 3x3 and 1x1 kernels over 64 channels, twice the outputs before a gate, 16 blocks.
HEAD, TAIL = 3 * 64 * 81 + 64, 64 * 3 * 81 + 3
THREE, ONE, BOTH = 64 * 64 * 9 + 64, 64 * 64 + 64, 2 * 64


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 1_254_036),
        ({"input_skip": False}, 1_254_036),
        ({"norm": "instance"}, 1_254_036),
        ({"norm": "none"}, HEAD + 1 + 16 * (2 * THREE + 1) + THREE + TAIL),
        (
            {"block": "bottleneck"},
            HEAD + 1 + 16 * (THREE + 2 * ONE + 3 * BOTH + 2) + THREE + BOTH + TAIL,
        ),
        (
            {"activation": "glu", "norm": "none"},
            2 * HEAD + 16 * (2 * THREE + THREE) + THREE + TAIL,
        ),
        ({"activation": "gelu", "norm": "none"}, HEAD + 33 * THREE + TAIL),
    ],
    ids=str,
)
def test_it_has_as_many_parameters_as_counted_by_hand(
    options: dict[str, Any], parameters: int
) -> None:
    assert describe_model("srresnet", channels=3, **options).parameters == parameters


def test_it_costs_as_many_products_as_measured() -> None:
    info = describe_model("srresnet", channels=3, side=256)

    assert info.macs / 1e9 == pytest.approx(81.8, rel=1e-3)


def by_hand(image: Tensor, state: dict[str, Tensor], *, kernels: int, act: Act) -> Tensor:
    """The network of two blocks without its input skip, from its tensors, in evaluation mode."""

    def layer(x: Tensor, name: str, *, rectified: bool = False) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, state[f"{name}.conv.bias"], padding=weight.shape[2] // 2)
        if f"{name}.norm.weight" in state:
            mean, variance = (state[f"{name}.norm.running_{which}"] for which in ("mean", "var"))
            gain, offset = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
            x = F.batch_norm(x, mean, variance, gain, offset)
        return act(x, state.get(f"{name}.activation.weight")) if rectified else x

    x = head = layer(image, "head", rectified=True)
    for j in range(2):
        branch = x
        for i in range(kernels):
            branch = layer(branch, f"blocks.{j}.branch.{i}", rectified=i < kernels - 1)
        x = x + branch
    x = layer(x, "bridge") + head
    return F.conv2d(x, state["tail.weight"], state["tail.bias"], padding=4)


@pytest.mark.parametrize("input_skip", [True, False])
@pytest.mark.parametrize(
    ("options", "kernels", "act"),
    [
        ({}, 2, lambda x, slope: torch.where(x > 0, x, slope * x)),
        (
            {"block": "bottleneck", "norm": "none", "activation": "glu"},
            3,
            lambda x, _: x[:, :6] * x[:, 6:].sigmoid(),
        ),
        ({"activation": "relu"}, 2, lambda x, _: x.clamp(min=0)),
        ({"norm": "none", "activation": "gelu"}, 2, lambda x, _: x * (1 + (x / 2**0.5).erf()) / 2),
    ],
    ids=["paper", "bottleneck-glu", "relu", "gelu"],
)
def test_the_output_is_that_of_the_layers_taken_one_by_one(
    options: dict[str, Any], kernels: int, act: Act, input_skip: bool, randomised: Any
) -> None:
    model = randomised(SRResNet(width=6, blocks=2, input_skip=input_skip, **options))
    image = torch.rand(2, 3, 9, 14)

    out = model(image)

    expected = by_hand(image, model.state_dict(), kernels=kernels, act=act)
    expected = image + expected if input_skip else expected
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("block", "norm"), list(product(BLOCKS, NORMS)))
def test_fresh_residual_blocks_are_the_identity(block: Any, norm: Any) -> None:
    fresh = ResidualBlock(4, block=block, norm=norm, activation="prelu")
    x = torch.randn(2, 4, 5, 3)

    assert torch.equal(fresh(x), x)


def opened(**options: Any) -> nn.Module:
    """A tiny network in exact numbers, with which no rectifier is shut and nothing cancels."""
    model = SRResNet(channels=1, width=2, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 + 0.2 * torch.rand_like(parameter))
    return model


@pytest.mark.parametrize("input_skip", [True, False])
@pytest.mark.parametrize(("block", "activation"), list(product(BLOCKS, ACTIVATIONS)))
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_declared_radius_is_exact_for_every_option(
    block: str, norm: str, activation: str, input_skip: bool
) -> None:
    options = {"block": block, "norm": norm, "activation": activation, "input_skip": input_skip}
    info = describe_model("srresnet", channels=1, blocks=2, width=2, **options)
    radius = info.receptive_field
    assert radius == (13 if block == "basic" else 11)
    side = 2 * radius + 5
    image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)

    opened(blocks=2, **options)(image)[0, 0, side // 2, side // 2].backward()

    reached = image.grad[0, 0].nonzero() - side // 2
    assert reached.abs().amax(0).tolist() == [radius, radius]
    assert len(reached) == (2 * radius + 1) ** 2


@pytest.mark.parametrize(("block", "activation"), list(product(BLOCKS, ACTIVATIONS)))
def test_with_instance_norm_every_pixel_reaches_every_other(block: str, activation: str) -> None:
    options = {"block": block, "norm": "instance", "activation": activation}
    image = torch.rand(1, 1, 70, 5, dtype=torch.float64, requires_grad=True)

    opened(blocks=1, **options)(image)[0, 0, 0, 0].backward()

    assert describe_model("srresnet", channels=1, **options).receptive_field is None
    assert image.grad.count_nonzero() == image.numel()


def test_instance_norm_equals_torchs_and_takes_a_single_pixel() -> None:
    norm = InstanceNorm(3)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    x = 5 + 3 * torch.randn(2, 3, 7, 6)

    out = norm(x)

    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    single = norm(x[:1, :, :1, :1]).flatten()  # torch's rounding is magnified by 1 / sqrt(eps)
    torch.testing.assert_close(single, norm.bias, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("block", "norm"), list(product(BLOCKS, NORMS)))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_an_untrained_network_with_a_skip_returns_its_input(
    block: Any, norm: Any, activation: Any, training: bool
) -> None:
    model = SRResNet(width=4, blocks=2, block=block, norm=norm, activation=activation)
    image = torch.rand(2, 3, 6, 5)

    assert torch.equal(model.train(training)(image), image)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_without_a_skip_it_still_learns_the_identity(norm: Any) -> None:
    torch.manual_seed(0)
    model = SRResNet(channels=1, width=8, blocks=1, norm=norm, input_skip=False)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=400)
    before = (model(smooth(8)) - smooth(8)).abs().mean()

    for _ in range(400):
        image = smooth(2)
        (model(image) - image).square().mean().backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()

    image = smooth(8)
    assert before > 0.2
    assert (model.eval()(image) - image).abs().mean() < 0.03


def smooth(batch: int) -> Tensor:
    return F.interpolate(torch.rand(batch, 1, 4, 4), size=(20, 20), mode="bilinear")


def published(trunk: str, last: str, *, upconvs: int) -> dict[str, Tensor]:
    """The names of BasicSR and KAIR, at width 4."""
    names = ["conv_first", *(f"{trunk}.{j}.conv{i}" for j in (0, 1) for i in (1, 2))]
    names += [f"upconv{i + 1}" for i in range(upconvs)] + [last, "conv_last"]
    return {f"{name}.weight": torch.zeros(4, 4, 3, 3) for name in names}


KAIR_OLDER = {
    "model.0.weight": torch.zeros(4, 3, 3, 3),
    "model.1.sub.0.res.0.weight": torch.zeros(4, 4, 3, 3),
    "model.3.weight": torch.zeros(4, 4, 3, 3),
}


@pytest.mark.parametrize(
    "state",
    [
        published("body", "conv_hr", upconvs=2),
        published("recon_trunk", "HRconv", upconvs=1),
        KAIR_OLDER,
    ],
    ids=["BasicSR", "KAIR", "KAIR, older"],
)
def test_published_networks_that_enlarge_are_refused_in_words(state: dict[str, Tensor]) -> None:
    with pytest.raises(DataError) as refused:
        detect(state)

    assert "a published SRResNet, which enlarges" in refused.value.message


def test_networks_with_more_than_its_parts_are_left_to_others() -> None:
    state = published("recon_trunk", "HRconv", upconvs=2) | {"tsa_fusion.weight": torch.zeros(1)}

    assert ARCHITECTURE.recognise(state) is None
    assert ARCHITECTURE.recognise({}) is None


def test_tensors_that_contradict_each_other_are_refused() -> None:
    state = SRResNet(channels=3, width=4, blocks=1).state_dict()
    state["head.conv.weight"] = torch.zeros(4, 1, 9, 9)

    with pytest.raises(ValueError, match="1 channels go in and 3 come out"):
        ARCHITECTURE.recognise(state)


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"block": "bottle"}, "block of srresnet is 'bottle'", "bottleneck"),
        ({"norm": "layer"}, "norm of srresnet is 'layer'", "batch"),
        ({"activation": "prelu6"}, "activation of srresnet is 'prelu6'", "prelu"),
        ({"blocks": 0}, "blocks of srresnet is 0", "at least 1"),
        ({"width": 0}, "width of srresnet is 0", "at least 1"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(
    options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        SRResNet(**options)

    assert message in refused.value.message
    assert hint in refused.value.hint
