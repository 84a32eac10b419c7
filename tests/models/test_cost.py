"""Parameters to the unit and multiply-accumulates to a thousandth, as published and measured."""

from typing import Any

import pytest
import torch
from torch import nn

from kbdenoise.models.build import build_model, complete_hyperparameters, describe_model
from kbdenoise.models.cost import count_macs, count_parameters
from kbdenoise.models.zoo import named_size

LIGHT = {"lightweight": True, "ffn_scale": 1.5}
SIDD, DECK, DECK_4 = (named_size("kbnet-s", size) for size in ("sidd", "deck", "deck-4-levels"))
EVEN = {**DECK, "encoder_blocks": (2, 2, 2)}

# hyper-parameters, channels, parameters, GMAC of convolutions and of kernel bases at 256 px
KBNET_S = [
    (SIDD, 3, 128_403_395, 57.81, 48.61),
    (named_size("kbnet-s", "gaussian-colour"), 3, 141_966_659, 68.68, 48.61),
    (named_size("kbnet-s", "gaussian-gray"), 1, 141_964_353, 68.53, 48.61),
    ({**SIDD, "width": 32, "lightweight": False, "ffn_scale": 2.0}, 3, 42_163_107, 18.86, 24.31),
    ({**SIDD, "width": 32}, 3, 38_321_379, 15.24, 24.31),
    (DECK_4, 3, 6_060_179, 3.91, 10.23),
    ({**DECK_4, "lightweight": True}, 3, 5_856_339, 3.15, 10.23),
    (DECK, 3, 2_566_419, 4.10, 12.15),
    ({**DECK, "lightweight": True}, 3, 2_449_939, 3.197, 12.15),
    (EVEN, 3, 2_283_987, 3.63, 10.87),
    ({**EVEN, "lightweight": True}, 3, 2_182_067, 2.82, 10.87),
]
NAFNET = [
    ("sidd-32", 29_159_715, 16.05),
    ("sidd-64", 115_982_915, 63.24),
    ("gopro-32", 17_111_907, 15.96),
    ("gopro-64", 67_888_835, 63.05),
    ("gopro-32-local", 17_111_907, 15.96),
    ("gopro-64-local", 67_888_835, 63.05),
    ("deck", 3_097_107, 2.69),
]


@pytest.mark.parametrize(("options", "channels", "parameters", "conv", "basis"), KBNET_S, ids=str)
def test_kbnet_s_costs_what_is_published(
    options: dict[str, Any], channels: int, parameters: int, conv: float, basis: float
) -> None:
    info = describe_model("kbnet-s", channels=channels, **options)

    assert info.parameters == parameters
    assert info.conv_macs / 1e9 == pytest.approx(conv, rel=1e-3)
    assert info.kernel_basis_macs / 1e9 == pytest.approx(basis, rel=1e-3)


@pytest.mark.parametrize(("size", "parameters", "conv"), NAFNET)
def test_nafnet_costs_what_is_published(size: str, parameters: int, conv: float) -> None:
    info = describe_model("nafnet", channels=3, **named_size("nafnet", size))

    assert info.parameters == parameters
    assert info.macs / 1e9 == pytest.approx(conv, rel=1e-3)
    assert info.macs == info.conv_macs


@pytest.mark.parametrize(
    ("channels", "depth", "parameters"), [(1, 17, 557_057), (1, 20, 668_225), (3, 20, 670_531)]
)
def test_dncnn_has_the_published_number_of_parameters(
    channels: int, depth: int, parameters: int
) -> None:
    info = describe_model("dncnn", channels=channels, depth=depth)

    assert info.parameters == parameters
    assert info.kernel_basis_macs == 0


BIG = {"encoder_blocks": (2, 2, 4, 8), "middle_blocks": 12, "decoder_blocks": (2, 2, 2, 2)}
GOPRO = {"encoder_blocks": (1, 1, 1, 28), "middle_blocks": 1, "decoder_blocks": (1, 1, 1, 1)}
FOUR = {"encoder_blocks": (2, 2, 2, 2), "middle_blocks": 4, "decoder_blocks": (4, 2, 2, 2)}
THREE = {"encoder_blocks": (2, 3, 4), "middle_blocks": 4, "decoder_blocks": (4, 3, 2)}


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("kbnet-s", "sidd", {"width": 64, **BIG, **LIGHT}),
        ("kbnet-s", "gaussian-colour", {"width": 64, **BIG}),
        ("kbnet-s", "gaussian-gray", {"width": 64, **BIG}),
        ("kbnet-s", "deck", {"width": 16, **THREE}),
        ("kbnet-s", "deck-4-levels", {"width": 16, **FOUR}),
        ("nafnet", "sidd-32", {"width": 32, **BIG}),
        ("nafnet", "sidd-64", {"width": 64, **BIG}),
        ("nafnet", "gopro-32", {"width": 32, **GOPRO}),
        ("nafnet", "gopro-64-local", {"width": 64, **GOPRO, "pool_window": 384}),
        ("nafnet", "deck", {"width": 16, **FOUR}),
    ],
)
def test_named_sizes_are_the_published_networks(
    name: str, size: str, options: dict[str, Any]
) -> None:
    named = complete_hyperparameters(name, **named_size(name, size))

    assert named == complete_hyperparameters(name, **options)


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
