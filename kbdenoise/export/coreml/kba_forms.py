"""Kernel-basis attention in operations of rank 4 that a Neural Engine may take.

Both forms compute what `models.kba` does, without an unfold and without a tensor of rank 5 or 6:

* `TapAttention`: a tap at a time, one matrix product of the attention gives its kernels, which meet
  the shifted input. No work is wasted and every tensor is at most `group_channels` times as wide as
  the input, but a block has some 70 operations.
* `ChunkAttention`: many kernels of the basis at a time, one grouped convolution, weighted by the
  attention and added up. A third fewer operations and more of them wasted on zeros; its tensors are
  up to 32 times as wide, so that it is for the coarse levels of a network.

Replicating and adding up channels are convolutions of zeros and ones, which are exact and which
every engine knows. Which form is faster on a device is not known: nobody has measured it.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.config import KbaForm
from kbdenoise.models.kba import KernelBasisAttention
from kbdenoise.models.kba_shape import Shape, shape_of, tap_rows
from kbdenoise.models.kbnet_l import FeatureFusion
from kbdenoise.models.kbnet_s import KBBlock

_CHUNK = 32  # kernels of the basis at a time
_COARSE = 4  # times the channels of the finest level, from which on a level takes the chunked form


def bake_kernel_bases(model: nn.Module, *, form: KbaForm) -> None:
    """Give every block of `model` that has kernel-basis attention one with its basis inside.

    "tap" takes the tap form everywhere, "chunk" the chunked one on the coarse levels, whose
    channels are at least four times those of the finest.
    """
    blocks = [b for b in model.modules() if isinstance(b, KBBlock | FeatureFusion)]
    narrowest = min((block.b.shape[2] for block in blocks), default=0)
    for block in blocks:
        assert isinstance(block.kba, KernelBasisAttention)
        coarse = block.b.shape[2] >= _COARSE * narrowest
        made = ChunkAttention if form == "chunk" and coarse else TapAttention
        basis = (block.w.detach(), block.b.detach())
        setattr(block, "kba", made(*basis, groups=block.kba.groups))  # noqa: B010


class TapAttention(nn.Module):
    """The tap form, with its basis: see `kernel_basis_attention` for the shapes.

    The parameters that a block passes to its operator are not looked at.
    """

    replicate: Tensor
    add_up: Tensor
    kernels: Tensor
    offset: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, groups: int) -> None:
        super().__init__()
        self.shape = shape = _shape(weight, bias, groups)
        gc = shape.group_channels
        same = torch.eye(gc, dtype=weight.dtype)
        # Channels of a product are (group, output, input), as are the rows of `tap_rows`.
        self.register_buffer("replicate", _pointwise(same.repeat(shape.channels, 1)))
        self.register_buffer(
            "add_up", _pointwise(same.repeat_interleave(gc, dim=1).repeat(groups, 1))
        )
        self.register_buffer("kernels", tap_rows(weight, shape)[..., None, None])
        self.register_buffer("offset", _pointwise(bias[0].t()))

    def forward(self, x: Tensor, attention: Tensor, *_basis: Tensor) -> Tensor:
        """Filter [B, C, H, W] by [B, nset, H, W]."""
        g = self.shape.groups
        replicated = F.conv2d(x, self.replicate, groups=g)  # [B, C, H, W] -> [B, C*gc, H, W]
        total: Tensor | None = None
        for shifted, kernel in zip(self._shifted(replicated), self.kernels, strict=True):
            product = F.conv2d(attention, kernel) * shifted  # [B, C*gc, H, W]
            total = product if total is None else total + product
        assert total is not None
        return F.conv2d(total, self.add_up, groups=g) + F.conv2d(attention, self.offset)

    def _shifted(self, x: Tensor) -> Iterator[Tensor]:
        """What every tap sees of [B, C, H, W]. One that shifts nothing slices nothing, either."""
        if self.shape.kernel == 1:
            yield x
            return
        r, (height, width) = self.shape.kernel // 2, x.shape[2:]
        padded = F.pad(x, (r, r, r, r))
        for dy, dx in self.shape.taps:
            yield padded[:, :, dy : dy + height, dx : dx + width]


class ChunkAttention(nn.Module):
    """The chunked form, with its basis: see `kernel_basis_attention` for the shapes.

    The parameters that a block passes to its operator are not looked at.
    """

    offset: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, groups: int) -> None:
        super().__init__()
        self.shape = shape = _shape(weight, bias, groups)
        gc, k = shape.group_channels, shape.kernel
        basis = weight.view(shape.nset, groups, gc, gc, k, k)  # [n, G, o, i, k, k]
        choose, same = (torch.eye(n, dtype=weight.dtype) for n in (shape.nset, gc))
        for i, chunk in enumerate(self._chunks()):
            # Channels of a product are (group, kernel of the basis, output).
            kernels = basis[chunk].transpose(0, 1).reshape(-1, gc, k, k)
            spread = choose[chunk].repeat_interleave(gc, dim=0).repeat(groups, 1)
            add_up = same.repeat(1, len(choose[chunk])).repeat(groups, 1)
            self.register_buffer(f"kernels{i}", kernels)  # [G*n*o, i, k, k]
            self.register_buffer(f"spread{i}", _pointwise(spread))
            self.register_buffer(f"add_up{i}", _pointwise(add_up))
        self.register_buffer("offset", _pointwise(bias[0].t()))

    def forward(self, x: Tensor, attention: Tensor, *_basis: Tensor) -> Tensor:
        """Filter [B, C, H, W] by [B, nset, H, W]."""
        r, g = self.shape.kernel // 2, self.shape.groups
        out = F.conv2d(attention, self.offset)
        for i, _ in enumerate(self._chunks()):
            filtered = F.conv2d(x, self.get_buffer(f"kernels{i}"), padding=r, groups=g)
            shares = F.conv2d(attention, self.get_buffer(f"spread{i}"))
            out = out + F.conv2d(filtered * shares, self.get_buffer(f"add_up{i}"), groups=g)
        return out

    def _chunks(self) -> Iterator[slice]:
        for first in range(0, self.shape.nset, _CHUNK):
            yield slice(first, first + _CHUNK)


def _shape(weight: Tensor, bias: Tensor, groups: int) -> Shape:
    """The shape of a basis alone: that of its image and attention follows from it."""
    _, nset, channels = bias.shape
    x, attention = (bias.new_empty(1, c, 1, 1) for c in (channels, nset))
    return shape_of(x, attention, weight, bias, groups=groups)


def _pointwise(matrix: Tensor) -> Tensor:
    """[outputs, inputs] -> the weight of a 1x1 convolution."""
    return matrix[:, :, None, None].contiguous()
