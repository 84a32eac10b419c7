"""Parameters to the unit and multiply-accumulates to a thousandth, as published and measured."""

from typing import Any

import pytest
import torch
from torch import nn

from kbdenoise.models.cost import count_macs, count_parameters
from kbdenoise.models.zoo import (
    build_model,
    complete_hyperparameters,
    describe_model,
    named_size,
)

BIG = {"encoder_blocks": (2, 2, 4, 8), "middle_blocks": 12, "decoder_blocks": (2, 2, 2, 2)}
FOUR = {"encoder_blocks": (2, 2, 2, 2), "middle_blocks": 4, "decoder_blocks": (4, 2, 2, 2)}
THREE = {"encoder_blocks": (2, 3, 4), "middle_blocks": 4, "decoder_blocks": (4, 3, 2)}
EVEN = {"encoder_blocks": (2, 2, 2), "middle_blocks": 4, "decoder_blocks": (4, 3, 2)}
LIGHT = {"lightweight": True, "ffn_scale": 1.5}

# hyper-parameters, channels, parameters, GMAC of convolutions and of kernel bases at 256 px
KBNET_S = [
    ({"width": 64, **BIG, **LIGHT}, 3, 128_403_395, 57.81, 48.61),
    ({"width": 64, **BIG}, 3, 141_966_659, 68.68, 48.61),
    ({"width": 64, **BIG}, 1, 141_964_353, 68.53, 48.61),
    ({"width": 32, **BIG}, 3, 42_163_107, 18.86, 24.31),
    ({"width": 32, **BIG, **LIGHT}, 3, 38_321_379, 15.24, 24.31),
    ({"width": 16, **FOUR}, 3, 6_060_179, 3.911, 10.23),
    ({"width": 16, **FOUR, "lightweight": True}, 3, 5_856_339, 3.148, 10.23),
    ({"width": 16, **THREE}, 3, 2_566_419, 4.103, 12.15),
    ({"width": 16, **THREE, "lightweight": True}, 3, 2_449_939, 3.197, 12.15),
    ({"width": 16, **EVEN}, 3, 2_283_987, 3.631, 10.87),
    ({"width": 16, **EVEN, "lightweight": True}, 3, 2_182_067, 2.820, 10.87),
]


@pytest.mark.parametrize(("options", "channels", "parameters", "conv", "basis"), KBNET_S, ids=str)
def test_kbnet_s_costs_what_is_published(
    options: dict[str, Any], channels: int, parameters: int, conv: float, basis: float
) -> None:
    info = describe_model("kbnet-s", channels=channels, **options)

    assert info.parameters == parameters
    assert info.conv_macs / 1e9 == pytest.approx(conv, rel=1e-3)
    assert info.kernel_basis_macs / 1e9 == pytest.approx(basis, rel=1e-3)


@pytest.mark.parametrize(
    ("channels", "depth", "parameters"), [(1, 17, 557_057), (1, 20, 668_225), (3, 20, 670_531)]
)
def test_dncnn_has_the_published_number_of_parameters(
    channels: int, depth: int, parameters: int
) -> None:
    info = describe_model("dncnn", channels=channels, depth=depth)

    assert info.parameters == parameters
    assert info.kernel_basis_macs == 0


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ("sidd", {"width": 64, **BIG, **LIGHT}),
        ("gaussian", {"width": 64, **BIG}),
        ("deck", {"width": 16, **THREE}),
        ("deck-4-levels", {"width": 16, **FOUR}),
    ],
)
def test_named_sizes_are_the_published_networks(size: str, options: dict[str, Any]) -> None:
    named = complete_hyperparameters("kbnet-s", **named_size("kbnet-s", size))

    assert named == complete_hyperparameters("kbnet-s", **options)


def test_layers_are_counted_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2),  # 5x5 outputs of 6 * 1 * 9
        nn.ConvTranspose2d(6, 4, 2, stride=2),  # 5x5 inputs of 6 * 4 * 4
        nn.Flatten(2),
        nn.Linear(100, 7),  # 4 rows of 100 * 7
    )

    macs = count_macs(model, channels=2, side=10)

    assert macs.conv == 25 * 54 + 25 * 96 + 4 * 700
    assert macs.total == macs.conv
    assert count_parameters(model) == 54 + 6 + 96 + 4 + 707


def test_counting_leaves_the_model_alone() -> None:
    model = build_model("dncnn", channels=1, depth=3, width=4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    count_macs(model, channels=1, side=8)

    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(module._forward_hooks for module in model.modules())
