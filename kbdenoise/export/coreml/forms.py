"""Networks as another engine likes them: other operations, the same function.

Modules are exchanged in a copy, for export alone. Three things decide the forms:

* Rank 4, fixed sizes and convolutions are what a Neural Engine may take.
* Half precision: its smallest normal number is 6.1e-5, and what is smaller may count as zero. A
  norm with an eps of 1e-6 then divides zero by zero where its input is constant. Norms do not care
  for the scale of their input, so it is multiplied by a power of two, which is exact, and eps by
  its square. Sums of squares over a tile become means, which stay below 65504, the largest number.
* A norm written as (d / deviation + offset / gain) * gain becomes one operation in the converter;
  the usual order leaves a batch norm behind, with a gain that is off by 5e-6.

In float64 every form agrees with the module that it stands for up to rounding.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.config import KbaForm
from kbdenoise.export.coreml.kba_forms import bake_kernel_bases
from kbdenoise.export.coreml.tone_form import ToneForm
from kbdenoise.models.channel_attention import ChannelAttention
from kbdenoise.models.layers import InstanceNorm, LayerNorm2d, MeanPool
from kbdenoise.models.restormer import BiasFreeNorm2d
from kbdenoise.models.tone import Tone

SMALLEST_NORMAL = 2.0**-14
"""Of half precision; smaller numbers lose digits, or are taken for zero."""

_LARGEST_OFFSET = 2.0**10  # of a norm, in units of its gain, up to which the gain may stand outside


def exportable(model: nn.Module, *, kba_form: KbaForm = "tap") -> nn.Module:
    """A copy of `model`, which must be in evaluation mode, in the forms for export."""
    copy = deepcopy(model)
    for parameter in copy.parameters():
        parameter.requires_grad_(False)
    bake_kernel_bases(copy, form=kba_form)
    for parent in list(copy.modules()):
        for name, child in parent.named_children():
            if type(child) in _FORMS:
                setattr(parent, name, _FORMS[type(child)](child))
    return _FORMS[type(copy)](copy) if type(copy) in _FORMS else copy


def scale_for(eps: float) -> float:
    """The least power of two by which an input is multiplied for its eps to be a normal number."""
    scale = 1.0
    while eps * scale**2 < SMALLEST_NORMAL:
        scale *= 2
    return scale


class NormForm(nn.Module):
    """Zero mean and unit variance along `axes`, then a gain and an offset a channel.

    [B, C, H, W] -> [B, C, H, W]; over the channels a layer norm, over the pixels an instance norm.
    """

    weight: Tensor
    bias: Tensor
    offset: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, *, eps: float, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes
        self.scale = scale_for(eps)
        self.eps = eps * self.scale**2
        self.register_buffer("weight", weight.detach()[:, None, None])
        self.register_buffer("bias", bias.detach()[:, None, None])
        offset = self.bias / self.weight
        self.gain_outside = bool((offset.abs() <= _LARGEST_OFFSET).all())  # False for NaN
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        x = x if self.scale == 1 else x * self.scale
        centred = x - x.mean(self.axes, keepdim=True)
        variance = centred.square().mean(self.axes, keepdim=True)
        unit = centred * torch.rsqrt(variance + self.eps)
        if self.gain_outside:
            return (unit + self.offset) * self.weight
        return unit * self.weight + self.bias  # where a gain is all but zero


class BiasFreeForm(nn.Module):
    """`BiasFreeNorm2d`, its input scaled."""

    weight: Tensor

    def __init__(self, norm: BiasFreeNorm2d) -> None:
        super().__init__()
        self.scale = scale_for(norm.eps)
        self.eps = norm.eps * self.scale**2
        self.register_buffer("weight", norm.weight.detach()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        x = x if self.scale == 1 else x * self.scale
        variance = (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        return x * torch.rsqrt(variance + self.eps) * self.weight


class AttentionForm(nn.Module):
    """`ChannelAttention` for one picture: cosines from means of squares instead of from sums.

    Queries and keys get a mean square of 1 / sqrt(pixels), so that neither they nor the sums of
    their products leave half precision however large the tile is. A query that is zero stays so.
    """

    # Of queries and keys: below a root mean square of 1/256 they count as silent; squares of
    # those beyond 128 overflow.
    _SCALE = 2.0

    def forward(self, query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> Tensor:
        """Mix the channels of `value` [1, C, H, W]."""
        _, channels, height, width = value.shape
        heads, pixels = temperature.shape[0], height * width
        shape = (1, heads, channels // heads, pixels)
        q, k = (self._unit(x.reshape(shape), sqrt(sqrt(pixels))) for x in (query, key))
        similarity = q @ k.transpose(-2, -1)  # [1, heads, C/heads, C/heads], sqrt(pixels) * cosine
        shares = (similarity * (temperature / sqrt(pixels))[None]).softmax(-1)
        return (shares @ value.reshape(shape)).reshape(value.shape)

    def _unit(self, x: Tensor, divisor: float) -> Tensor:
        """Rows of root mean square 1 / divisor: [1, heads, c, P] -> the same."""
        x = x * self._SCALE
        square = x.square().mean(-1, keepdim=True).clamp(min=SMALLEST_NORMAL)
        return x * (torch.rsqrt(square) / divisor)


class WindowPool(nn.Module):
    """`MeanPool` over a window, as average pooling: running sums would outgrow half precision."""

    def __init__(self, *, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Average [B, C, H, W]; an axis no longer than the window becomes 1 long."""
        height, width = x.shape[2:]
        tall, wide = min(self.window, height), min(self.window, width)
        if (tall, wide) == (height, width):
            return x.mean((2, 3), keepdim=True)
        means = F.avg_pool2d(x, (tall, wide), stride=1)
        before = (self.window - 1) // 2
        down = (before, self.window - 1 - before) if tall < height else (0, 0)
        across = (before, self.window - 1 - before) if wide < width else (0, 0)
        return F.pad(means, (*across, *down), mode="replicate")


def _layer_norm(norm: LayerNorm2d) -> nn.Module:
    return NormForm(norm.weight, norm.bias, eps=norm.eps, axes=(1,))


def _instance_norm(norm: InstanceNorm | nn.InstanceNorm2d) -> nn.Module:
    if isinstance(norm, InstanceNorm):
        return NormForm(norm.weight, norm.bias, eps=norm.eps, axes=(2, 3))
    ones = torch.ones(norm.num_features)  # torch's own, which has neither gain nor offset here
    return NormForm(ones, torch.zeros_like(ones), eps=norm.eps, axes=(2, 3))


_FORMS: Mapping[type, Callable[..., nn.Module]] = {
    LayerNorm2d: _layer_norm,
    InstanceNorm: _instance_norm,
    nn.InstanceNorm2d: _instance_norm,
    BiasFreeNorm2d: BiasFreeForm,
    ChannelAttention: lambda attention: AttentionForm(),
    MeanPool: lambda pool: WindowPool(window=pool.window) if pool.window else pool,
    Tone: ToneForm,
}
