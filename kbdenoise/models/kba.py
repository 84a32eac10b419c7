"""Kernel-basis attention (KBA): a per-pixel mixture of learned grouped convolutions.

Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).

With the basis viewed as w[n, G, o, i, ky, kx] (n a basis, G a group, o and i its output and input
channels), zeros outside the image and r = k // 2, pixel p of output channel (G, o) is

    sum_n A_n(p) * ( b[n, G, o] + sum_{i,ky,kx} w[n, G, o, i, ky, kx] * x[G, i](p + (ky-r, kx-r)) )

Both forms below take one tap (ky, kx) at a time: the tap's own kernels, `groups * o * i` values a
pixel, are one matrix product of the attention; they meet the input shifted by that tap and are
forgotten. Nothing of size `k*k` is ever held, no unfold is needed, and the result is exact.

* `_per_tap` is plain torch operations: it exports and differentiates itself, but autograd keeps
  every tap's kernels for the backward pass.
* `_PerTap` recomputes them instead and walks the image in blocks that stay in the processor's
  cache. One CPU thread, forward and backward, 16 channels of 128x128: 1.3 times as fast as
  `_per_tap` for one image, 2.7 times for eight.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from kbdenoise.errors import SettingsError

# Pixels handled at once. On a CPU a tap's kernels for 4096 pixels of 16 channels are 1 MiB; for
# eight images of 128x128, 1024 took 1.8 times as long and 16384 1.5 times. Other devices want few,
# large launches.
_BLOCK_PIXELS_CPU = 4096
_BLOCK_PIXELS = 2**18


class KernelBasisAttention(nn.Module):
    """`kernel_basis_attention` without parameters of its own, to be hooked or swapped."""

    def __init__(self, *, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `kernel_basis_attention`."""
        return kernel_basis_attention(x, attention, weight, bias, groups=self.groups)


def kernel_basis_attention(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int
) -> Tensor:
    """Filter every pixel of `x` with its own mixture of `nset` grouped convolutions.

    x: [B, C, H, W], attention: [B, nset, H, W] (any real values, no softmax),
    weight: [1, nset, C * gc * k * k] with gc = C / groups and k odd, bias: [1, nset, C].
    Returns [B, C, H, W], zeros being assumed outside the image. Under autocast the products run in
    autocast's dtype and are summed in fp32. Differentiable once.

    Raises SettingsError when the shapes do not fit each other.
    """
    shape = _shape_of(x, attention, weight, bias, groups=groups)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return _per_tap(x, attention, weight, bias, shape)
    if x.is_meta:  # shapes only; nine taps of bookkeeping would be half of counting a model's cost
        return torch.empty_like(x)
    device = x.device.type
    dtype = (
        torch.get_autocast_dtype(device)
        if torch.is_autocast_enabled(device)
        else torch.promote_types(x.dtype, weight.dtype)
    )
    result: Tensor = _PerTap.apply(x, attention, weight, bias, shape, dtype)
    return result


class _Shape(NamedTuple):
    channels: int
    groups: int
    group_channels: int
    nset: int
    kernel: int

    @property
    def taps(self) -> list[tuple[int, int]]:
        """Offsets of the taps into the zero-padded image, rows first."""
        return [(y, x) for y in range(self.kernel) for x in range(self.kernel)]


def _shape_of(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int) -> _Shape:
    channels, nset = x.shape[1], attention.shape[1]
    group_channels = channels // groups
    kernel = isqrt(weight.shape[-1] // (channels * group_channels)) if group_channels else 0
    fits = (
        channels == groups * group_channels
        and kernel % 2 == 1
        and weight.shape == (1, nset, channels * group_channels * kernel**2)
        and bias.shape == (1, nset, channels)
        and (x.shape[0], *x.shape[2:]) == (attention.shape[0], *attention.shape[2:])
    )
    if not fits:
        raise SettingsError(
            f"kernel-basis attention of {groups} groups cannot combine an input of shape "
            f"{tuple(x.shape)}, attention {tuple(attention.shape)}, weight {tuple(weight.shape)} "
            f"and bias {tuple(bias.shape)}",
            hint="see the shapes in the documentation of kernel_basis_attention",
        )
    return _Shape(channels, groups, group_channels, nset, kernel)


def _tap_matrices(weight: Tensor, shape: _Shape) -> Tensor:
    """The basis as one matrix a tap: [1, nset, C*gc*k*k] -> [k*k, C*gc, nset], rows (G, o, i)."""
    n, k = shape.nset, shape.kernel
    taps_last = weight.view(n, -1, k * k)  # [nset, C*gc, k*k]
    return taps_last.permute(2, 1, 0).contiguous()


def _zero_padded(x: Tensor, shape: _Shape) -> Tensor:
    r = shape.kernel // 2
    return F.pad(x, (r, r, r, r))


# ---------------------------------------------------------------------------- plain operations


def _per_tap(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: _Shape) -> Tensor:
    batch, channels, height, width = x.shape
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = _tap_matrices(weight, shape)
    out = F.conv2d(attention, bias[0].t()[:, :, None, None])
    for (dy, dx), matrix in zip(shape.taps, matrices, strict=True):
        kernels = F.conv2d(attention, matrix[:, :, None, None])  # [B, C*gc, H, W]
        shifted = padded[:, :, dy : dy + height, dx : dx + width]
        products = kernels.view(batch, g, gc, gc, height, width) * shifted.reshape(
            batch, g, 1, gc, height, width
        )  # [B, G, o, i, H, W]
        out = out + products.sum(3).view(batch, channels, height, width)
    return out


# ------------------------------------------------------------------- blocks and manual backward


class _PerTap(torch.autograd.Function):
    """The same sum with a backward pass that recomputes each tap's kernels instead of saving them.

    For one tap with matrix M, shifted input s and output gradient d, z = d (outer) s per group:
    grad A += M^T z, grad M += z A^T, grad x(p + tap) += sum_o kernels[o, i] d[o].
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        attention: Tensor,
        weight: Tensor,
        bias: Tensor,
        shape: _Shape,
        dtype: torch.dtype,
    ) -> Tensor:
        x, attention = x.to(dtype), attention.to(dtype)
        ctx.save_for_backward(x, attention, weight, bias)
        ctx.shape = shape
        with torch.autocast(x.device.type, enabled=False):
            return _forward_in_blocks(x, attention, weight, bias, shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, attention, weight, bias = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grads = _backward_in_blocks(grad.to(x.dtype), x, attention, weight, bias, ctx.shape)
        return *grads, None, None


def _forward_in_blocks(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: _Shape
) -> Tensor:
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = _tap_matrices(weight.to(x.dtype), shape)
    offsets = bias[0].t().to(x.dtype)  # [C, nset]
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for samples, rows in _blocks(x):
        a = _pixels(attention[samples, :, rows])  # [nset, P]
        total = (offsets @ a).to(_sum_dtype(x)).view(g, gc, -1)  # [G, o, P]
        for tap, matrix in zip(shape.taps, matrices, strict=True):
            kernels = (matrix @ a).view(g, gc, gc, -1)  # [G, o, i, P]
            shifted = _shifted(padded, x, samples, rows, tap).view(g, 1, gc, -1)
            for i in range(gc):
                total.addcmul_(kernels[:, :, i], shifted[:, :, i])
        _write_pixels(out[samples, :, rows], total)
    return out


def _backward_in_blocks(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: _Shape
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = _tap_matrices(weight.to(x.dtype), shape)
    offsets = bias[0].to(x.dtype)  # [nset, C]
    wide = _sum_dtype(x)
    grad_padded = torch.zeros_like(padded, dtype=wide)
    grad_matrices = torch.zeros_like(matrices, dtype=wide)
    grad_offsets = torch.zeros_like(offsets, dtype=wide)
    grad_attention = torch.empty_like(attention, memory_format=torch.contiguous_format)
    for samples, rows in _blocks(x):
        a = _pixels(attention[samples, :, rows])  # [nset, P]
        a_t = a.t().contiguous()  # a quarter faster as the right factor than a view of `a`
        d = _pixels(grad[samples, :, rows])  # [C, P]
        d_out = d.reshape(g, gc, 1, -1)  # [G, o, 1, P]
        grad_a = (offsets @ d).to(wide)
        _add_product(grad_offsets, a, d.t())
        for t, (tap, matrix) in enumerate(zip(shape.taps, matrices, strict=True)):
            shifted = _shifted(padded, x, samples, rows, tap).view(g, 1, gc, -1)
            z = (d_out * shifted).reshape(shape.channels * gc, -1)  # [C*gc, P], rows (G, o, i)
            _add_product(grad_a, matrix.t(), z)
            _add_product(grad_matrices[t], z, a_t)
            kernels = (matrix @ a).view(g, gc, gc, -1)  # [G, o, i, P]
            grad_shifted = torch.zeros_like(kernels[:, 0], dtype=wide)  # [G, i, P]
            for o in range(gc):
                grad_shifted.addcmul_(kernels[:, o], d_out[:, o])
            _add_pixels(_window(grad_padded, x, samples, rows, tap), grad_shifted)
        _write_pixels(grad_attention[samples, :, rows], grad_a)
    r = shape.kernel // 2
    grad_x = grad_padded[:, :, r : r + x.shape[2], r : r + x.shape[3]]
    grad_weight = grad_matrices.permute(2, 1, 0).reshape(weight.shape)
    return grad_x, grad_attention, grad_weight, grad_offsets.view(bias.shape)


def _blocks(x: Tensor) -> Iterator[tuple[slice, slice]]:
    """Ranges of samples and of rows that cover `x` once, each of about the device's block size."""
    batch, _, height, width = x.shape
    limit = _BLOCK_PIXELS_CPU if x.device.type == "cpu" else _BLOCK_PIXELS
    samples = max(1, limit // (height * width))
    rows = min(height, max(1, limit // width))
    for first in range(0, batch, samples):
        for top in range(0, height, rows):
            yield slice(first, min(first + samples, batch)), slice(top, min(top + rows, height))


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _window(padded: Tensor, x: Tensor, samples: slice, rows: slice, tap: tuple[int, int]) -> Tensor:
    """What the block's pixels see through one tap, as a view: [b, C, h, W]."""
    dy, dx = tap
    return padded[samples, :, rows.start + dy : rows.stop + dy, dx : dx + x.shape[3]]


def _shifted(
    padded: Tensor, x: Tensor, samples: slice, rows: slice, tap: tuple[int, int]
) -> Tensor:
    return _pixels(_window(padded, x, samples, rows, tap))


def _pixels(block: Tensor) -> Tensor:
    """[b, C, h, W] -> [C, b*h*W]."""
    return block.transpose(0, 1).reshape(block.shape[1], -1)


def _write_pixels(block: Tensor, pixels: Tensor) -> None:
    """The way back from `_pixels`, into a view of the whole."""
    b, c, h, w = block.shape
    block.copy_(pixels.view(c, b, h, w).transpose(0, 1))


def _add_pixels(block: Tensor, pixels: Tensor) -> None:
    b, c, h, w = block.shape
    block.add_(pixels.view(c, b, h, w).transpose(0, 1))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to `total`, which may be of a wider type than the factors."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
