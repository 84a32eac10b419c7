"""Kernel-basis attention in torch's own operations, one tap at a time.

A tap's own kernels, `groups * o * i` values a pixel, are one matrix product of the attention; they
meet the input shifted by that tap and are forgotten. Nothing of size `k*k` is ever held, no unfold
is needed, and the result is exact.

* `per_tap` is plain operations on whole images: it exports to other engines.
* `forward` and `backward` walk the image in blocks that stay in the processor's cache, and the
  backward pass makes every tap's kernels again instead of keeping them. For one tap with matrix M,
  shifted input s and output gradient d, with z = d (outer) s per group: grad A += M^T z,
  grad M += z A^T, grad x(p + tap) += sum_o kernels[o, i] d[o].
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.models.kba_shape import Shape, tap_rows

# Pixels handled at once. On a CPU a tap's kernels for 4096 pixels of 16 channels are 1 MiB; for
# eight images of 128x128, 1024 took 1.8 times as long and 16384 1.5 times. Other devices want few,
# large launches.
_BLOCK_PIXELS_CPU = 4096
_BLOCK_PIXELS = 2**18


def per_tap(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """[B, C, H, W] from tensors as `kernel_basis_attention` takes them; differentiates itself."""
    batch, channels, height, width = x.shape
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = tap_rows(weight, shape)
    out = F.conv2d(attention, bias[0].t()[:, :, None, None])
    for (dy, dx), matrix in zip(shape.taps, matrices, strict=True):
        kernels = F.conv2d(attention, matrix[:, :, None, None])  # [B, C*gc, H, W]
        shifted = padded[:, :, dy : dy + height, dx : dx + width]
        products = kernels.view(batch, g, gc, gc, height, width) * shifted.reshape(
            batch, g, 1, gc, height, width
        )  # [B, G, o, i, H, W]
        out = out + products.sum(3).view(batch, channels, height, width)
    return out


def forward(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """[B, C, H, W]; x and attention of one type, in which products run; sums are in fp32."""
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = tap_rows(weight.to(x.dtype), shape)
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


def backward(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, attention, weight and bias."""
    grad = grad.to(x.dtype)
    g, gc = shape.groups, shape.group_channels
    padded = _zero_padded(x, shape)
    matrices = tap_rows(weight.to(x.dtype), shape)
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


def _zero_padded(x: Tensor, shape: Shape) -> Tensor:
    r = shape.kernel // 2
    return F.pad(x, (r, r, r, r))
