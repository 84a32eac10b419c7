"""Kernel-basis attention against a literal transcription of its formula."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from kbdenoise.errors import SettingsError
from kbdenoise.models import kba_taps
from kbdenoise.models.kba import KernelBasisAttention, kernel_basis_attention
from kbdenoise.models.kba_shape import shape_of

# batch, groups, gc, nset, k, height, width
SHAPES = [
    (1, 2, 4, 32, 3, 5, 7),
    (2, 3, 2, 5, 3, 4, 3),
    (1, 4, 1, 3, 3, 1, 6),
    (1, 1, 4, 2, 5, 3, 2),
    (2, 2, 3, 4, 1, 3, 5),
]


def reference(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The formula, one pixel and one group after the other, zeros outside the image."""
    batch, channels, height, width = x.shape
    gc = channels // groups
    k = round((weight.shape[2] / (channels * gc)) ** 0.5)
    r = k // 2
    w = weight.detach().double().numpy().reshape(-1, groups, gc, gc, k, k)  # n, G, o, i, ky, kx
    b = bias.detach().double().numpy().reshape(-1, groups, gc)  # n, G, o
    a = attention.detach().double().numpy()
    values = x.detach().double().numpy().reshape(batch, groups, gc, height, width)
    out = np.zeros_like(values)
    for s, group, y, x_ in itertools.product(
        range(batch), range(groups), range(height), range(width)
    ):
        for n, o in itertools.product(range(w.shape[0]), range(gc)):
            response = b[n, group, o]
            for i, ky, kx in itertools.product(range(gc), range(k), range(k)):
                row, column = y + ky - r, x_ + kx - r
                if 0 <= row < height and 0 <= column < width:
                    response += w[n, group, o, i, ky, kx] * values[s, group, i, row, column]
            out[s, group, o, y, x_] += a[s, n, y, x_] * response
    return torch.from_numpy(out.reshape(batch, channels, height, width))


def tensors(
    shape: tuple[int, ...], *, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, groups, gc, nset, k, height, width = shape
    generator = torch.Generator().manual_seed(7)
    c = groups * gc

    def draw(*size: int) -> Tensor:
        drawn = torch.randn(size, generator=generator, dtype=torch.float64)
        return drawn.to(dtype).requires_grad_()

    return (
        draw(batch, c, height, width),
        draw(batch, nset, height, width),
        draw(1, nset, c * gc * k * k),
        draw(1, nset, c),
    )


def plain(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    shape = shape_of(x, attention, weight, bias, groups=groups)
    return kba_taps.per_tap(x, attention, weight, bias, shape)


@pytest.fixture(params=[10**6, 6], ids=["one-block", "many-blocks"])
def block_pixels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kba_taps, "_BLOCK_PIXELS_CPU", request.param)
    return int(request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_forms_equal_the_formula(shape: tuple[int, ...], block_pixels: int) -> None:
    inputs = tensors(shape)

    expected = reference(*inputs, shape[1])

    torch.testing.assert_close(kernel_basis_attention(*inputs, groups=shape[1]), expected)
    torch.testing.assert_close(plain(*inputs, shape[1]), expected)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_the_manual_backward_is_the_derivative(shape: tuple[int, ...], block_pixels: int) -> None:
    inputs = tensors(shape)

    assert torch.autograd.gradcheck(
        lambda *t: kernel_basis_attention(*t, groups=shape[1]), inputs, fast_mode=True
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_of_both_forms_agree(shape: tuple[int, ...], block_pixels: int) -> None:
    inputs = tensors(shape)
    upstream = torch.randn_like(inputs[0])

    manual = torch.autograd.grad(kernel_basis_attention(*inputs, groups=shape[1]), inputs, upstream)
    automatic = torch.autograd.grad(plain(*inputs, shape[1]), inputs, upstream)

    for mine, theirs in zip(manual, automatic, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_strided_inputs_give_the_same_as_contiguous_ones() -> None:
    x, attention, weight, bias = tensors(SHAPES[1])
    expected = kernel_basis_attention(x, attention, weight, bias, groups=3)

    last = x.detach().to(memory_format=torch.channels_last)
    strided = attention.detach().transpose(2, 3).contiguous().transpose(2, 3)
    weight_view = torch.stack([weight.detach()] * 2, dim=-1)[..., 0]

    found = kernel_basis_attention(last, strided, weight_view, bias, groups=3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_gradient_of_any_strides_will_do(batch: int) -> None:
    x = torch.rand(batch, 4, 6, 5, requires_grad=True)
    attention, weight, bias = (
        torch.rand(batch, 3, 6, 5),
        torch.rand(1, 3, 4 * 2 * 9),
        torch.rand(1, 3, 4),
    )
    gradient = torch.rand(batch, 4, 6, 5)

    def of_x(grad: torch.Tensor) -> torch.Tensor:
        out = kernel_basis_attention(x, attention, weight, bias, groups=2)
        return torch.autograd.grad(out, x, grad)[0]

    expected = of_x(gradient)

    spread = torch.rand(batch, 5, 6, 4).permute(0, 3, 2, 1)
    spread.copy_(gradient)
    torch.testing.assert_close(of_x(spread), expected)
    torch.testing.assert_close(
        of_x(torch.ones(1).expand(batch, 4, 6, 5)), of_x(torch.ones(batch, 4, 6, 5))
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)], ids=str
)
def test_it_trains_under_autocast(dtype: torch.dtype, tolerance: float) -> None:
    inputs = tensors((2, 2, 4, 8, 3, 6, 5), dtype=torch.float32)
    upstream = torch.randn_like(inputs[0])
    out = kernel_basis_attention(*inputs, groups=2)
    expected = (out, *torch.autograd.grad(out, inputs, upstream))

    with torch.autocast("cpu", dtype=dtype):
        out = kernel_basis_attention(*inputs, groups=2)
    found = (out, *torch.autograd.grad(out, inputs, upstream))

    assert out.dtype == dtype
    assert all(gradient.dtype == torch.float32 for gradient in found[1:])
    for low, full in zip(found, expected, strict=True):
        error = (low.float() - full).abs().max() / full.abs().max()
        assert 0 < error < tolerance


def test_the_exported_graph_holds_plain_operations_only() -> None:
    inputs = tuple(t.detach() for t in tensors(SHAPES[0], dtype=torch.float32))

    program = torch.export.export(KernelBasisAttention(groups=2), inputs)

    called = {
        str(node.target).split(".")[1] if "aten" in str(node.target) else str(node.target)
        for node in program.graph.nodes
        if node.op == "call_function"
    }
    arithmetic = {"conv2d", "pad", "mul", "sum", "add"}
    views = {"view", "reshape", "slice", "select", "permute", "t", "contiguous", "unsqueeze"}
    assert called - arithmetic - views - {"unbind", "<built-in function getitem>"} == set()
    torch.testing.assert_close(program.module()(*inputs), kernel_basis_attention(*inputs, groups=2))


def test_only_the_inputs_are_kept_for_the_backward_pass() -> None:
    inputs = tensors((1, 4, 4, 32, 3, 16, 16))
    kept: list[int] = []

    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: (kept.append(t.numel()), t)[1], lambda t: t
    ):
        kernel_basis_attention(*inputs, groups=4)

    assert sum(kept) == sum(t.numel() for t in inputs)


@pytest.mark.parametrize("limit", [1, 4, 7, 12, 24, 1000])
def test_blocks_cover_every_pixel_once(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kba_taps, "_BLOCK_PIXELS_CPU", limit)
    x = torch.zeros(5, 1, 3, 4)

    for samples, rows in kba_taps._blocks(x):
        x[samples, :, rows] += 1
        assert x[samples, :, rows].numel() <= max(limit, 4)

    assert (x == 1).all()


@pytest.mark.parametrize(
    "broken",
    [
        {"groups": 3},
        {"groups": 100},
        {"attention": (1, 32, 5, 6)},
        {"attention": (2, 32, 5, 7)},
        {"weight": (1, 32, 8 * 4 * 4)},  # k = 2
        {"weight": (1, 32, 8 * 4 * 9 - 1)},
        {"bias": (1, 32, 7)},
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused(broken: dict[str, object]) -> None:
    shapes = {
        "x": (1, 8, 5, 7),
        "attention": (1, 32, 5, 7),
        "weight": (1, 32, 8 * 4 * 9),
        "bias": (1, 32, 8),
    } | {key: size for key, size in broken.items() if key != "groups"}
    inputs = {name: torch.zeros(size) for name, size in shapes.items()}

    with pytest.raises(SettingsError, match="kernel-basis attention of"):
        kernel_basis_attention(**inputs, groups=broken.get("groups", 2))
