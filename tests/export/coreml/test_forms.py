"""Forms for export, in float64, against the modules that they stand for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kbdenoise.export.coreml.forms import SMALLEST_NORMAL, NormForm, exportable, scale_for
from kbdenoise.export.coreml.kba_forms import ChunkAttention, TapAttention
from kbdenoise.models.kba import kernel_basis_attention
from kbdenoise.models.layers import LayerNorm2d
from kbdenoise.models.spec import PAGE_SIDE
from tests.export.coreml.conftest import TOYS, Toy

SIDE = 16
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "kbnet-s of three levels": (
        "kbnet-s",
        {
            "width": 8,
            "encoder_blocks": (1, 0),
            "decoder_blocks": (0, 1),
            "middle_blocks": 1,
            "nset": 40,
        },
    ),
    "nafnet with local pooling": (
        "nafnet",
        {
            "width": 4,
            "encoder_blocks": (1,),
            "decoder_blocks": (0,),
            "middle_blocks": 1,
            "pool_window": 6,
        },
    ),
    "restormer with offsets": ("restormer", {**TOYS["restormer"], "norm": "with-bias"}),
    "srresnet with instance norm": ("srresnet", {"width": 4, "blocks": 1, "norm": "instance"}),
    "pix2pix with instance norm": ("pix2pix", {"width": 4, "levels": 3, "norm": "instance"}),
    "affine tone": ("tone", {"width": 4, "kind": "affine"}),
}


def images(model: nn.Module, name: str, *, side: int = SIDE) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    sides = (side, PAGE_SIDE) if "tone" in name else (side,)
    return tuple(torch.rand(1, 3, s, s, generator=generator, dtype=torch.float64) for s in sides)


@torch.no_grad()
def assert_form_agrees(model: nn.Module, name: str, *, form: str = "tap") -> None:
    model = model.double()
    given = images(model, name)

    found = exportable(model, kba_form=form)(*given)  # type: ignore[arg-type]

    expected = model(*given)
    assert not torch.equal(expected, given[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TOYS)
def test_the_form_of_an_architecture_computes_the_same(name: str, toy: Toy) -> None:
    assert_form_agrees(toy(name), name)


@pytest.mark.parametrize("case", OTHERS)
def test_the_form_of_a_variant_computes_the_same(case: str, toy: Toy) -> None:
    name, hyperparameters = OTHERS[case]

    assert_form_agrees(toy(name, **hyperparameters), name)


@pytest.mark.parametrize("name", ["kbnet-l", "kbnet-s of three levels"])
def test_the_chunked_form_computes_the_same_and_is_for_coarse_levels(name: str, toy: Toy) -> None:
    name, hyperparameters = OTHERS.get(name, (name, TOYS.get(name, {})))
    model = toy(name, **hyperparameters)

    assert_form_agrees(model, name, form="chunk")
    kinds = [type(m).__name__ for m in exportable(model, kba_form="chunk").modules()]
    assert {"TapAttention", "ChunkAttention"} <= set(kinds)


def test_a_form_leaves_its_network_alone(toy: Toy) -> None:
    model = toy("kbnet-s")
    before = repr(model)

    exportable(model)

    assert repr(model) == before


@pytest.mark.parametrize("form", [TapAttention, ChunkAttention])
@pytest.mark.parametrize(("gc", "kernel", "nset"), [(4, 3, 32), (1, 5, 3), (2, 1, 33)])
def test_a_form_of_the_operator_computes_it(
    form: type[TapAttention], gc: int, kernel: int, nset: int
) -> None:
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    groups = 3
    channels = groups * gc
    x, attention = drawn(1, channels, 7, 6), drawn(1, nset, 7, 6)
    weight, bias = drawn(1, nset, channels * gc * kernel**2), drawn(1, nset, channels)

    found = form(weight, bias, groups=groups)(x, attention)

    expected = kernel_basis_attention(x, attention, weight, bias, groups=groups)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    silent = form(torch.zeros_like(weight), bias, groups=groups)(x, attention)
    assert (silent - found).abs().max() > 1  # the weights count, so a lost one would show


def test_a_tiny_eps_becomes_a_normal_number_of_half_precision() -> None:
    assert scale_for(1e-6) == 8
    assert scale_for(1e-5) == 4
    assert scale_for(1e-4) == 1
    for eps in (1e-6, 1e-5, 1e-9):
        assert eps * scale_for(eps) ** 2 >= SMALLEST_NORMAL > eps * (scale_for(eps) / 2) ** 2


def test_a_norm_whose_gain_is_all_but_zero_takes_the_usual_order() -> None:
    norm = LayerNorm2d(3).double()
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
        for gain in (0.0, 1e-4):
            norm.weight.copy_(torch.tensor([1.0, 0.5, gain]))
            form = NormForm(norm.weight, norm.bias, eps=norm.eps, axes=(1,))

            assert not form.gain_outside
            torch.testing.assert_close(form(x), norm(x), rtol=0, atol=1e-13)
