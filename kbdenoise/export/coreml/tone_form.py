"""The tone stage for export: tensors of rank 4, 1x1 convolutions, sums that keep half precision.

`models.tone` adds a bend at every knot of its curve to what it has, so that rounding in half
precision adds up over sixteen steps. Here each piece is clipped out of the input, multiplied by its
slope, and one convolution of ones adds the pieces up, rounding once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.models.tone import BINS, SLOPE_1, Tone

_FAR = 2.0**12  # beyond any pixel: the first and the last piece go on for ever


class ToneForm(nn.Module):
    """`Tone` for one picture and the thumbnail of its page."""

    low: Tensor
    high: Tensor
    ones: Tensor

    def __init__(self, tone: Tone) -> None:
        super().__init__()
        self.channels = c = tone.channels
        self.encoder = tone.encoder
        dtype = tone.mix.weight.dtype
        self.bins = _spread(c, BINS + 1, scale=float(BINS), step=1.0, dtype=dtype)
        self.mean_bins = float(BINS + 1)
        self.mix = _pointwise(tone.mix.weight, tone.mix.bias)
        last = tone.curve if tone.kind == "curve" else tone.affine
        weight = last.weight.unflatten(0, (c, -1))  # [C, n, inputs], the offset first
        bias = last.bias.unflatten(0, (c, -1))
        self.offset = _pointwise(weight[:, 0], bias[:, 0])
        self.is_curve = tone.kind == "curve"
        rest = bias[:, 1:] + (SLOPE_1 if self.is_curve else 1.0)
        self.slopes = _pointwise(weight[:, 1:].flatten(0, 1), rest.flatten())
        n = weight.shape[1] - 1
        self.pieces = _spread(c, n, scale=1.0, step=1.0 / n, dtype=dtype)
        low, high = torch.zeros(c, n, dtype=dtype), torch.full((c, n), 1.0 / n, dtype=dtype)
        low[:, 0], high[:, -1] = -_FAR, _FAR
        self.register_buffer("low", low.flatten()[None, :, None, None])
        self.register_buffer("high", high.flatten()[None, :, None, None])
        self.register_buffer("ones", torch.ones(c, n, 1, 1, dtype=dtype))

    def forward(self, noisy: Tensor, page: Tensor) -> Tensor:
        """Map the colours of [1, C, H, W] as the thumbnail [1, C, PAGE_SIDE, PAGE_SIDE] says."""
        seen = self.encoder(2 * page - 1).mean((2, 3), keepdim=True)  # [1, 4 * width, 1, 1]
        shares = F.relu(1 - self.bins(page).abs()).mean((2, 3), keepdim=True)
        known = torch.cat([seen, self.mean_bins * shares], dim=1)
        mixed = F.relu(self.mix(known))
        offset, slopes = self.offset(mixed), self.slopes(mixed)  # [1, C, 1, 1], [1, C * n, 1, 1]
        if not self.is_curve:
            gained: Tensor = offset + slopes * noisy
            return gained
        inside = torch.minimum(torch.maximum(self.pieces(noisy), self.low), self.high)
        rises = inside * F.softplus(slopes)  # [1, C * n, H, W]
        curved: Tensor = F.conv2d(rises, self.ones, groups=self.channels) + offset
        return curved


def _spread(
    channels: int, copies: int, *, scale: float, step: float, dtype: torch.dtype
) -> nn.Conv2d:
    """Channel copies scale * x - i * step: [B, C, H, W] -> [B, C * copies, H, W]."""
    offsets = -step * torch.arange(copies, dtype=dtype).repeat(channels)
    weight = torch.full((channels * copies, 1), scale, dtype=dtype)
    return _pointwise(weight, offsets, groups=channels)


def _pointwise(weight: Tensor, bias: Tensor, *, groups: int = 1) -> nn.Conv2d:
    """A linear layer, of weight [outputs, inputs / groups], as a 1x1 convolution."""
    outputs, inputs = weight.shape
    conv = nn.Conv2d(inputs * groups, outputs, 1, groups=groups, dtype=weight.dtype)
    state = {"weight": weight.detach()[:, :, None, None], "bias": bias.detach()}
    conv.load_state_dict(state)
    return conv.requires_grad_(False)
