"""The sizes of one kernel-basis attention, read from its tensors."""

from math import isqrt
from typing import NamedTuple

from torch import Tensor

from kbdenoise.errors import SettingsError


class Shape(NamedTuple):
    """C channels in groups of gc, `nset` kernels of side `kernel` in the basis."""

    channels: int
    groups: int
    group_channels: int
    nset: int
    kernel: int

    @property
    def taps(self) -> list[tuple[int, int]]:
        """Offsets of the taps into the zero-padded image, rows first."""
        return [(y, x) for y in range(self.kernel) for x in range(self.kernel)]


def pointwise(shape: Shape) -> Shape:
    """The same of kernels of one tap that see their own channel only: what a bias is of ones."""
    return shape._replace(groups=shape.channels, group_channels=1, kernel=1)


def tap_rows(weight: Tensor, shape: Shape) -> Tensor:
    """The basis as one matrix a tap: [1, nset, C*gc*k*k] -> [k*k, C*gc, nset], rows (G, o, i)."""
    return weight.reshape(shape.nset, -1, len(shape.taps)).permute(2, 1, 0).contiguous()


def transposed(taps: Tensor, shape: Shape) -> Tensor:
    """Rows (G, o, i) -> rows (G, i, o): what an input channel gives to each output channel."""
    gc = shape.group_channels
    return taps.unflatten(1, (-1, gc, gc)).transpose(2, 3).flatten(1, 3)


def shape_of(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int) -> Shape:
    """Raises SettingsError when the tensors do not fit each other."""
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
    return Shape(channels, groups, group_channels, nset, kernel)
