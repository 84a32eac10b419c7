"""KBNet-L: Restormer's U-shape with kernel-basis attention in place of its feed-forward parts.

Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).
Authors' code and weights: https://github.com/zhangyi-3/KBNet (MIT). The skeleton is Restormer's,
whose code is not free: both are written here from descriptions and hold none of it.

Names of parameters and their shapes are the authors', so their checkpoints load; in them `attn` is
the kernel-basis part and `ffn` the attention across channels. What differs: see `transformer_u`
for the skeleton; basis size, group width and kernel are arguments; widths that 24 does not divide
can be built, with fewer channels behind the attention's 3x3 convolution; kernel-basis attention
runs under mixed precision.
"""

from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.channel_attention import TransposedAttention
from kbdenoise.models.kba import KernelBasisAttention, fold_into_basis
from kbdenoise.models.layers import (
    LayerNorm2d,
    MeanPool,
    SimpleGate,
    check_counts,
    fold_scale,
    scaled,
)
from kbdenoise.models.reading import basis_shape, has_all, shortest_scale
from kbdenoise.models.spec import Architecture, Recognised, State
from kbdenoise.models.transformer_u import MULTIPLE, TransformerU, read_transformer_u

_ATTENTION_WIDTH = 24  # most channels of the 3x3 convolution that makes the attention
_INITIAL_SCALE = 0.01  # of the learned weights of the kernel basis: it starts almost silent
_WIDENED = ".attn.project_out.weight"  # [c, hidden, 1, 1]


def kbnet_l(
    *,
    channels: int = 3,
    width: int = 48,
    blocks: tuple[int, ...] = (4, 6, 6, 8),
    refinement_blocks: int = 4,
    heads: tuple[int, ...] = (1, 2, 4, 8),
    ffn_scale: float = 1.5,
    bias: bool = False,
    nset: int = 32,
    group_channels: int = 2,
    kernel: int = 3,
) -> TransformerU:
    """KBNet-L with fresh weights; see `TransformerU` for the numbers of the skeleton.

    `ffn_scale` is the widening of the kernel-basis part; `bias` gives convolutions an offset where
    the authors' choose. `nset` kernels of side `kernel` form the basis of a block, each group of
    which mixes `group_channels` channels.

    Raises SettingsError for a combination that cannot be built.
    """
    check_counts("kbnet-l", nset=nset, kernel=kernel, group_channels=group_channels)
    if kernel % 2 == 0:
        raise SettingsError(f"kernel of kbnet-l is {kernel}", hint="choose an odd kernel")

    def block(c: int, level_heads: int) -> KBBlockL:
        fusion = FeatureFusion(
            c,
            hidden=_hidden(c, ffn_scale=ffn_scale, group_channels=group_channels),
            bias=bias,
            nset=nset,
            group_channels=group_channels,
            kernel=kernel,
        )
        return KBBlockL(c, attn=fusion, ffn=TransposedAttention(c, heads=level_heads, bias=bias))

    return TransformerU(
        name="kbnet-l",
        channels=channels,
        width=width,
        blocks=blocks,
        refinement_blocks=refinement_blocks,
        heads=heads,
        bias=bias,
        block=block,
    )


class KBBlockL(nn.Module):
    """Two parts, each behind a norm and as a residual: [B, c, H, W] -> [B, c, H, W]."""

    def __init__(self, c: int, *, attn: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn = LayerNorm2d(c), attn
        self.norm2, self.ffn = LayerNorm2d(c), ffn

    def forward(self, x: Tensor) -> Tensor:
        """Both residual steps."""
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class FeatureFusion(nn.Module):
    """Multi-axis feature fusion: the product of a depthwise, a kernel-basis and a pooled branch.

    [B, c, H, W] -> [B, c, H, W], with `hidden` channels in between. Shapes and names follow the
    authors' block.
    """

    def __init__(
        self, c: int, *, hidden: int, bias: bool, nset: int, group_channels: int, kernel: int
    ) -> None:
        super().__init__()
        attention = _attention_width(c)
        values = hidden * group_channels * kernel**2
        bound = (nset * values) ** -0.5
        self.w = nn.Parameter(torch.empty(1, nset, values).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.empty(1, nset, hidden).uniform_(-bound, bound))
        self.attgamma: nn.Parameter | None = nn.Parameter(
            torch.full((1, nset, 1, 1), _INITIAL_SCALE)
        )
        self.ga1: nn.Parameter | None = nn.Parameter(torch.full((1, hidden, 1, 1), _INITIAL_SCALE))
        self.sca = nn.Sequential(MeanPool(), nn.Conv2d(c, hidden, 1))
        self.dwconv = _widen(c, hidden, bias=bias)
        self.conv1 = _widen(c, hidden, bias=bias)
        self.conv2 = nn.Sequential(
            nn.Conv2d(c, attention, 3, padding=1, groups=attention),
            SimpleGate(),
            nn.Conv2d(attention // 2, nset, 1),
        )
        self.conv211 = nn.Conv2d(c, nset, 1)
        self.kba = KernelBasisAttention(groups=hidden // group_channels)
        self.project_out = nn.Conv2d(hidden, c, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse."""
        pooled = self.sca(x)  # [B, c, H, W] -> [B, hidden, 1, 1]
        convolved = F.gelu(self.dwconv(x))  # [B, c, H, W] -> [B, hidden, H, W]
        attention = scaled(self.conv2(x), self.attgamma) + self.conv211(x)  # -> [B, nset, H, W]
        u = self.conv1(x)  # -> [B, hidden, H, W]
        mixed = scaled(self.kba(u, attention, self.w, self.b), self.ga1) + u
        return self.project_out(convolved * mixed * pooled)

    def fold_scales(self) -> None:
        """Multiply the two scales into the convolution before and into the basis."""
        fold_scale(self.conv2[2], self.attgamma)
        fold_into_basis(self.w, self.b, self.ga1)
        self.attgamma = self.ga1 = None


def _widen(c: int, hidden: int, *, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c, hidden, 1, bias=bias),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=bias),
    )


def _attention_width(c: int) -> int:
    """The authors' 24 where it divides c; else the most below it that does, in two halves."""
    return max(n for n in range(2, _ATTENTION_WIDTH + 1, 2) if c % n == 0)


def _hidden(c: int, *, ffn_scale: float, group_channels: int) -> int:
    hidden = int(ffn_scale * c) if isfinite(ffn_scale) else 0
    if hidden < 1 or hidden % group_channels:
        raise SettingsError(
            f"ffn_scale gives kbnet-l {hidden} hidden channels at a level of {c}, "
            f"with group_channels={group_channels}",
            hint="choose an ffn_scale that gives a multiple of group_channels at every level, "
            "such as 1.5 or 2",
        )
    return hidden


def _recognise(state: State) -> Recognised | None:
    if not has_all(state, "patch_embed.proj.weight", "encoder_level1.0.ffn.temperature"):
        return None
    channels, hyperparameters = read_transformer_u(state, temperature="ffn.temperature")
    blocks = [name.removesuffix(_WIDENED) for name in state if name.endswith(_WIDENED)]
    widened = {block: state[block + _WIDENED].shape[:2] for block in blocks}
    group_channels, kernel = basis_shape(
        {(hidden, state[f"{block}.attn.w"].shape[2]) for block, (_, hidden) in widened.items()}
    )
    hyperparameters |= {
        "ffn_scale": shortest_scale({(c, hidden) for c, hidden in widened.values()}),
        "nset": state[f"{blocks[0]}.attn.attgamma"].shape[1],
        "group_channels": group_channels,
        "kernel": kernel,
    }
    return Recognised(channels=channels, hyperparameters=hyperparameters, state=state)


ARCHITECTURE = Architecture(
    build=kbnet_l,
    recognise=_recognise,
    receptive_field=lambda h: None,
    multiple=lambda h: MULTIPLE,
)
