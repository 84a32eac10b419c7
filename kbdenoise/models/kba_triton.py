"""Kernel-basis attention on CUDA, fused in Triton: mixed kernels live in registers only.

What is computed, and in which words, stands in kba.py. A program holds a block of pixels and a
block of channels. For each tap and each input channel of a group it forms the pixels' kernel values
with one small matrix product, [channels, nset] x [nset, pixels], and multiplies them with the image
at once. The gradient of the image is the same program with the basis transposed and the attention
taken where the tap looks; so nothing is scattered, no atomic addition is needed, and every gradient
is the same in each run. Products take the image's type, sums are fp32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kbdenoise.models.kba_shape import Shape, tap_rows, transposed

_PARTS = 512  # programs that the weight gradient should at least keep busy
_LEAST = 16  # of every side of a matrix product


@triton.jit
def _mix_kernel(
    x_ptr,
    attention_ptr,
    basis_ptr,  # [taps, gc, C, NSET]
    bias_ptr,  # [C, NSET]
    out_ptr,
    height,
    width,
    channels,
    nset,
    GC: tl.constexpr,
    KERNEL: tl.constexpr,
    NSET: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    GRADIENT: tl.constexpr,  # look through each tap from the other side, and add no bias
    PRECISION: tl.constexpr,
):
    """out(p) = sum_t kernel_t(p) x(p + t)."""
    size = height * width
    sample = tl.program_id(2).to(tl.int64)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, NSET)
    row, column = p // width, p % width
    image = x_ptr + sample * channels * size
    maps = attention_ptr + (sample * nset + n[:, None]) * size
    known = (n < nset)[:, None]
    total = tl.zeros((CHANNELS, PIXELS), tl.float32)
    attention = tl.load(maps + p[None, :], mask=known & (p < size)[None, :], other=0.0)
    if not GRADIENT:
        offsets = bias_ptr + c[:, None] * NSET + n[None, :]
        bias = tl.load(offsets, mask=(c < channels)[:, None], other=0.0)
        total += tl.dot(bias, attention, input_precision=PRECISION)
    for tap in range(KERNEL * KERNEL):
        dy, dx = tap // KERNEL - KERNEL // 2, tap % KERNEL - KERNEL // 2
        if GRADIENT:
            dy, dx = -dy, -dx
        inside = (row + dy >= 0) & (row + dy < height) & (column + dx >= 0) & (column + dx < width)
        inside = (inside & (p < size))[None, :]
        q = (p + dy * width + dx)[None, :]
        if GRADIENT:
            attention = tl.load(maps + q, mask=known & inside, other=0.0)
        for i in tl.static_range(GC):
            values = basis_ptr + ((tap * GC + i) * channels + c[:, None]) * NSET + n[None, :]
            basis = tl.load(values, mask=(c < channels)[:, None], other=0.0)
            kernel = tl.dot(basis, attention, input_precision=PRECISION)
            seen = image + (c // GC * GC + i)[:, None].to(tl.int64) * size + q
            pixels = tl.load(seen, mask=(c < channels)[:, None] & inside, other=0.0)
            total += kernel * pixels.to(tl.float32)
    out = out_ptr + (sample * channels + c[:, None]) * size + p[None, :]
    tl.store(out, total, mask=(c < channels)[:, None] & (p < size)[None, :])


@triton.jit
def _products(
    x_ptr,
    grad_ptr,
    p,
    dy,
    dx,
    channel,
    source,
    valid,
    height,
    width,
):
    """grad(channel)(p) * x(source)(p + tap), fp32 [rows, pixels]."""
    size = height * width
    row, column = p // width, p % width
    inside = (row + dy >= 0) & (row + dy < height) & (column + dx >= 0) & (column + dx < width)
    there = valid[:, None] & (p < size)[None, :]
    q = p + dy * width + dx
    grad = tl.load(grad_ptr + channel[:, None] * size + p[None, :], mask=there, other=0.0)
    seen = x_ptr + source[:, None] * size + q[None, :]
    pixels = tl.load(seen, mask=there & inside[None, :], other=0.0)
    return grad.to(tl.float32) * pixels.to(tl.float32)


@triton.jit
def _attention_kernel(
    x_ptr,
    grad_ptr,
    basis_ptr,  # [taps, C*gc, NSET]
    bias_ptr,  # [C, NSET]
    out_ptr,
    height,
    width,
    channels,
    nset,
    GC: tl.constexpr,
    KERNEL: tl.constexpr,
    NSET: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of the attention: each basis against what it was multiplied with."""
    size = height * width
    sample = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    n = tl.arange(0, NSET)
    image = x_ptr + sample * channels * size
    upstream = grad_ptr + sample * channels * size
    dtype = basis_ptr.dtype.element_ty
    total = tl.zeros((NSET, PIXELS), tl.float32)
    for first in range(0, channels, ROWS):
        c = first + tl.arange(0, ROWS)
        there = (c < channels)[:, None] & (p < size)[None, :]
        places = upstream + c[:, None].to(tl.int64) * size + p[None, :]
        grad = tl.load(places, mask=there, other=0.0).to(dtype)
        values = bias_ptr + c[None, :] * NSET + n[:, None]
        bias = tl.load(values, mask=(c < channels)[None, :], other=0.0)
        total += tl.dot(bias, grad, input_precision=PRECISION)
    rows = channels * GC
    for first in range(0, rows, ROWS):
        r = first + tl.arange(0, ROWS)
        channel = (r // GC).to(tl.int64)
        source = channel // GC * GC + r % GC
        for tap in range(KERNEL * KERNEL):
            dy, dx = tap // KERNEL - KERNEL // 2, tap % KERNEL - KERNEL // 2
            products = _products(
                image, upstream, p, dy, dx, channel, source, r < rows, height, width
            )
            values = basis_ptr + (tap * rows + r[None, :]) * NSET + n[:, None]
            basis = tl.load(values, mask=(r < rows)[None, :], other=0.0)
            total += tl.dot(basis, products.to(dtype), input_precision=PRECISION)
    out = out_ptr + (sample * nset + n[:, None]) * size + p[None, :]
    tl.store(out, total, mask=(n < nset)[:, None] & (p < size)[None, :])


@triton.jit
def _weight_kernel(
    x_ptr,
    grad_ptr,
    attention_ptr,
    out_ptr,  # [parts, taps, C*gc, NSET]
    height,
    width,
    channels,
    nset,
    blocks,  # of pixels in all samples
    blocks_each,  # of which one part takes so many
    GC: tl.constexpr,
    KERNEL: tl.constexpr,
    NSET: tl.constexpr,
    ROWS: tl.constexpr,
    PIXELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of the basis for one tap and some rows, over one part of the pixels."""
    size = height * width
    tap = tl.program_id(0)
    dy, dx = tap // KERNEL - KERNEL // 2, tap % KERNEL - KERNEL // 2
    rows = channels * GC
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(2)
    channel = (r // GC).to(tl.int64)
    source = channel // GC * GC + r % GC
    n = tl.arange(0, NSET)
    blocks_a_sample = tl.cdiv(size, PIXELS)
    total = tl.zeros((ROWS, NSET), tl.float32)
    for block in range(part * blocks_each, tl.minimum((part + 1) * blocks_each, blocks)):
        sample = (block // blocks_a_sample).to(tl.int64)
        p = block % blocks_a_sample * PIXELS + tl.arange(0, PIXELS)
        start = sample * channels * size
        products = _products(
            x_ptr + start, grad_ptr + start, p, dy, dx, channel, source, r < rows, height, width
        )
        maps = attention_ptr + (sample * nset + n[None, :]) * size + p[:, None]
        attention = tl.load(maps, mask=(n < nset)[None, :] & (p < size)[:, None], other=0.0)
        total += tl.dot(products.to(attention.dtype), attention, input_precision=PRECISION)
    taps = KERNEL * KERNEL
    out = out_ptr + ((part * taps + tap) * rows + r[:, None]).to(tl.int64) * NSET + n[None, :]
    tl.store(out, total, mask=(r < rows)[:, None])


# ------------------------------------------------------------------------ how they are called


def forward(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """Kernel-basis attention: [B, C, H, W] -> the same, in the type of `x`."""
    x, attention = x.contiguous(), attention.contiguous()
    taps = _filled(tap_rows(weight, shape), shape, dtype=x.dtype)
    return _mixed(x, attention, taps, _filled(bias[0].t(), shape, dtype=x.dtype), shape)


def backward(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, attention, weight and bias, each in its own type."""
    x, attention, grad = x.contiguous(), attention.contiguous(), grad.to(x.dtype).contiguous()
    taps = _filled(tap_rows(weight, shape), shape, dtype=x.dtype)
    grad_x = _mixed(grad, attention, transposed(taps, shape), None, shape)
    grad_attention = _attention_gradient(x, grad, taps, bias, shape)
    grad_taps = _weight_gradient(x, grad, attention, shape)  # [k*k, C*gc, nset]
    flat = attention.flatten(2).float(), grad.flatten(2).float()
    grad_bias = torch.einsum("bnp,bcp->nc", *flat)[None]
    return (
        grad_x,
        grad_attention.to(attention.dtype),
        grad_taps.permute(2, 1, 0).reshape(weight.shape).to(weight.dtype),
        grad_bias.to(bias.dtype),
    )


def _mixed(x: Tensor, attention: Tensor, taps: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    batch, channels, height, width = x.shape
    gc = shape.group_channels
    basis = taps.unflatten(1, (-1, gc)).transpose(1, 2).contiguous()  # [k*k, gc, C, NSET]
    out = torch.empty_like(x)
    pixels, most = _block(x)
    block = min(most, 32, _power_of_two(channels))
    grid = (triton.cdiv(height * width, pixels), triton.cdiv(channels, block), batch)
    _mix_kernel[grid](
        x,
        attention,
        basis,
        basis if bias is None else bias,
        out,
        height,
        width,
        channels,
        shape.nset,
        CHANNELS=block,
        GRADIENT=bias is None,
        **_constants(x, shape),
    )
    return out


def _attention_gradient(
    x: Tensor, grad: Tensor, taps: Tensor, bias: Tensor, shape: Shape
) -> Tensor:
    batch, channels, height, width = x.shape
    out = x.new_empty(batch, shape.nset, height, width)
    pixels, most = _block(x)
    _attention_kernel[(triton.cdiv(height * width, pixels), batch)](
        x,
        grad,
        taps,
        _filled(bias[0].t(), shape, dtype=x.dtype),
        out,
        height,
        width,
        channels,
        shape.nset,
        ROWS=min(most, _power_of_two(channels * shape.group_channels)),
        **_constants(x, shape),
    )
    return out


def _weight_gradient(x: Tensor, grad: Tensor, attention: Tensor, shape: Shape) -> Tensor:
    batch, channels, height, width = x.shape
    rows, taps = channels * shape.group_channels, len(shape.taps)
    pixels, most = _block(x)
    block = min(most, _power_of_two(rows))
    blocks = batch * triton.cdiv(height * width, pixels)
    parts = max(1, min(blocks, _PARTS // (taps * triton.cdiv(rows, block))))
    constants = _constants(x, shape)
    out = x.new_empty(parts, taps, rows, constants["NSET"], dtype=torch.float32)
    _weight_kernel[(taps, triton.cdiv(rows, block), parts)](
        x,
        grad,
        attention,
        out,
        height,
        width,
        channels,
        shape.nset,
        blocks,
        triton.cdiv(blocks, parts),
        ROWS=block,
        **constants,
    )
    return out.sum(0)[:, :, : shape.nset]


def _constants(x: Tensor, shape: Shape) -> dict[str, Any]:
    loose = x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return {
        "GC": shape.group_channels,
        "KERNEL": shape.kernel,
        "NSET": _power_of_two(shape.nset),
        "PIXELS": _block(x)[0],
        "PRECISION": "tf32" if loose else "ieee",
    }


def _block(x: Tensor) -> tuple[int, int]:
    """Pixels, and most channels or rows, of a program: as many as the registers can hold."""
    halves = x.dtype.itemsize == 2
    new = not x.is_cuda or torch.cuda.get_device_capability(x.device) >= (8, 0)
    return (64, 64) if halves and new else (32, 32)


def _power_of_two(count: int) -> int:
    return max(_LEAST, 1 << (count - 1).bit_length())


def _filled(matrix: Tensor, shape: Shape, *, dtype: torch.dtype) -> Tensor:
    """[..., nset] -> [..., NSET], zeros behind, as a kernel reads it."""
    missing = _power_of_two(shape.nset) - shape.nset
    return torch.nn.functional.pad(matrix.to(dtype), (0, missing)).contiguous()
