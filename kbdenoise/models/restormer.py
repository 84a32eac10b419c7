"""Restormer: a U-shape of attention across channels and gated feed-forward parts.

Zamir et al., 'Restormer: Efficient Transformer for High-Resolution Image Restoration', 2022
(arXiv:2111.09881).
Authors' code and weights: https://github.com/swz30/Restormer, for academic, non-commercial use.
This file was written from the paper's formulas alone and holds nothing of that code; weights of
theirs that it loads stay under their terms.

Names of parameters and their shapes are those of the published weights. What differs: see
`transformer_u` for the skeleton; statistics and softmax are taken in fp32, so that mixed precision
trains; images of two views (dual-pixel defocus deblurring) are not taken.
"""

from math import isfinite
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.channel_attention import TransposedAttention
from kbdenoise.models.layers import LayerNorm2d, check_choice, widened
from kbdenoise.models.reading import has_all, shortest_scale
from kbdenoise.models.spec import Architecture, Recognised, State
from kbdenoise.models.transformer_u import MULTIPLE, TransformerU, named, read_transformer_u

_EPS = 1e-5  # of the norms
_WIDENED = ".ffn.project_out.weight"  # [c, hidden, 1, 1]

Norm = Literal["bias-free", "with-bias"]


def restormer(
    *,
    channels: int = 3,
    width: int = 48,
    blocks: tuple[int, ...] = (4, 6, 6, 8),
    refinement_blocks: int = 4,
    heads: tuple[int, ...] = (1, 2, 4, 8),
    ffn_scale: float = 2.66,
    bias: bool = False,
    norm: Norm = "bias-free",
) -> TransformerU:
    """Restormer with fresh weights; see `TransformerU` for the numbers of the skeleton.

    `ffn_scale` is the widening of the feed-forward part; `bias` gives convolutions an offset.
    `norm` is "bias-free" in the authors' networks for denoising, "with-bias" in their others.

    Raises SettingsError for a combination that cannot be built.
    """
    check_choice("restormer", "norm", norm, get_args(Norm))
    return TransformerU(
        name="restormer",
        channels=channels,
        width=width,
        blocks=blocks,
        refinement_blocks=refinement_blocks,
        heads=heads,
        bias=bias,
        block=lambda c, h: RestormerBlock(c, heads=h, ffn_scale=ffn_scale, bias=bias, norm=norm),
    )


class RestormerBlock(nn.Module):
    """Attention across channels, then a gated feed-forward part, both as residuals.

    [B, c, H, W] -> [B, c, H, W].
    """

    def __init__(self, c: int, *, heads: int, ffn_scale: float, bias: bool, norm: Norm) -> None:
        super().__init__()
        hidden = int(ffn_scale * c) if isfinite(ffn_scale) else 0
        if hidden < 1:
            raise SettingsError(
                f"ffn_scale gives restormer {hidden} hidden channels at a level of {c}",
                hint="choose a larger ffn_scale, such as 2.66",
            )
        self.norm1 = _norm(c, kind=norm)
        self.attn = TransposedAttention(c, heads=heads, bias=bias)
        self.norm2 = _norm(c, kind=norm)
        self.ffn = GatedFeedForward(c, hidden=hidden, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Both residual steps."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class GatedFeedForward(nn.Module):
    """Widen, look at the neighbours, and let one half of the channels gate the other.

    [B, c, H, W] -> [B, c, H, W], with `hidden` channels a half in between. Section 3.2.
    """

    def __init__(self, c: int, *, hidden: int, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(c, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, c, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Gate."""
        gate, content = self.dwconv(self.project_in(x)).chunk(2, dim=1)  # [B, hidden, H, W] each
        return self.project_out(F.gelu(gate) * content)


class BiasFreeNorm2d(nn.Module):
    """Divide every pixel by the deviation of its channels, whose mean stays where it is.

    [B, C, H, W] -> [B, C, H, W] in the input's type, times a learned gain a channel; the statistics
    are taken in fp32 (or fp64). The variance is around the mean, biased.
    """

    def __init__(self, channels: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        wide = widened(x)
        variance = (wide - wide.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        out = wide * torch.rsqrt(variance + self.eps) * self.weight[:, None, None]
        return out if wide is x else out.to(x.dtype)  # exported graphs then hold no casts


def _norm(c: int, *, kind: Norm) -> nn.Sequential:
    body = BiasFreeNorm2d(c, eps=_EPS) if kind == "bias-free" else LayerNorm2d(c, eps=_EPS)
    return named(body=body)


def _recognise(state: State) -> Recognised | None:
    if not has_all(state, "patch_embed.proj.weight", "encoder_level1.0.attn.temperature"):
        return None
    if "skip_conv.weight" in state:
        raise DataError(
            "this is Restormer for dual-pixel defocus deblurring, which takes two views of a scene",
            hint="use its weights for denoising, deraining or single images",
        )
    channels, hyperparameters = read_transformer_u(state, temperature="attn.temperature")
    widened = [tensor.shape[:2] for name, tensor in state.items() if name.endswith(_WIDENED)]
    offset = "encoder_level1.0.norm1.body.bias" in state
    hyperparameters |= {
        "ffn_scale": shortest_scale({(c, hidden) for c, hidden in widened}),
        "norm": "with-bias" if offset else "bias-free",
    }
    return Recognised(channels=channels, hyperparameters=hyperparameters, state=state)


ARCHITECTURE = Architecture(
    build=restormer,
    recognise=_recognise,
    receptive_field=lambda h: None,
    multiple=lambda h: MULTIPLE,
)
