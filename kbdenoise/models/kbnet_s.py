"""KBNet-S: a NAFNet-like U-shape whose blocks hold kernel-basis attention.

Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).
Authors' code and weights: https://github.com/zhangyi-3/KBNet (MIT).

Names of parameters and their shapes are the authors', so their checkpoints load. What differs:
see `u_shape` for the skeleton; basis size, group width, kernel and pooling window are arguments;
kernel-basis attention runs under mixed precision; no class name is evaluated.
"""

from itertools import product
from math import isfinite

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.kba import KernelBasisAttention, fold_into_basis
from kbdenoise.models.layers import (
    LayerNorm2d,
    MeanPool,
    SimpleGate,
    check_counts,
    fold_scale,
    scaled,
)
from kbdenoise.models.reading import basis_shape, shortest_scale
from kbdenoise.models.spec import Architecture, Recognised, State
from kbdenoise.models.u_shape import (
    UShape,
    check_pool_window,
    read_u_shape,
    u_shape_blocks,
    u_shape_multiple,
)

_ATTENTION_WIDTH = 32  # most channels of the 3x3 convolution that makes the attention
_MARKS = ("w", "b", "ga1", "attgamma", "conv211.weight")  # tensors that NAFNet's blocks lack
_INITIAL_SCALE = 0.01  # of every learned branch weight: a new block is nearly the identity


def kbnet_s(
    *,
    channels: int = 3,
    width: int = 16,
    encoder_blocks: tuple[int, ...] = (2, 3, 4),
    middle_blocks: int = 4,
    decoder_blocks: tuple[int, ...] = (4, 3, 2),
    lightweight: bool = False,
    ffn_scale: float = 2.0,
    nset: int = 32,
    group_channels: int = 4,
    kernel: int = 3,
    pool_window: int = 0,
) -> UShape:
    """KBNet-S with fresh weights; see `UShape` for the numbers of the skeleton.

    `ffn_scale` is the widening of the feed-forward part, `lightweight` swaps its sibling's grouped
    5x5 for a depthwise 3x3. `nset` kernels of side `kernel` form the basis of a block, each group
    of which mixes `group_channels` channels. `pool_window` px, at full resolution, is the side of
    the window over which the channel attention pools in evaluation; 0 pools the whole image, as
    training always does.

    Raises SettingsError for a combination that cannot be built.
    """
    check_counts("kbnet-s", nset=nset, kernel=kernel)
    check_pool_window("kbnet-s", pool_window, levels=len(encoder_blocks))

    def block(c: int) -> KBBlock:
        return KBBlock(
            c,
            lightweight=lightweight,
            ffn_scale=ffn_scale,
            nset=nset,
            group_channels=group_channels,
            kernel=kernel,
            pool_window=pool_window * width // c,
        )

    return UShape(
        name="kbnet-s",
        channels=channels,
        width=width,
        encoder_blocks=encoder_blocks,
        middle_blocks=middle_blocks,
        decoder_blocks=decoder_blocks,
        block=block,
    )


class KBBlock(nn.Module):
    """Multi-axis feature fusion, then a gated feed-forward part, both as residuals.

    [B, c, H, W] -> [B, c, H, W]. Shapes and names follow the authors' block. `pool_window` counts
    positions of the block's own level.
    """

    def __init__(
        self,
        c: int,
        *,
        lightweight: bool,
        ffn_scale: float,
        nset: int,
        group_channels: int,
        kernel: int,
        pool_window: int,
    ) -> None:
        super().__init__()
        hidden = int(ffn_scale * c) if isfinite(ffn_scale) else 0
        attention = min(c, _ATTENTION_WIDTH)
        _check_block(c, hidden=hidden, attention=attention, group_channels=group_channels)
        if kernel % 2 == 0:
            raise SettingsError(f"kernel of kbnet-s is {kernel}", hint="choose an odd kernel")

        fan = nset * c * group_channels * kernel**2
        self.w = nn.Parameter(torch.empty(1, nset, c * group_channels * kernel**2))
        self.b = nn.Parameter(torch.empty(1, nset, c))
        nn.init.uniform_(self.w, -(fan**-0.5), fan**-0.5)
        nn.init.uniform_(self.b, -(fan**-0.5), fan**-0.5)
        self.attgamma: nn.Parameter | None = _scale(nset)
        self.ga1: nn.Parameter | None = _scale(c)
        self.beta: nn.Parameter | None = _scale(c)
        self.gamma: nn.Parameter | None = _scale(c)
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)

        self.sca = nn.Sequential(MeanPool(window=pool_window), nn.Conv2d(c, c, 1))
        spatial = (
            nn.Conv2d(c, c, 3, padding=1, groups=c)
            if lightweight
            else nn.Conv2d(c, c, 5, padding=2, groups=c // 4)
        )
        self.conv11 = nn.Sequential(nn.Conv2d(c, c, 1), spatial)
        self.conv1 = nn.Conv2d(c, c, 1)
        self.conv21 = nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.conv2 = nn.Sequential(
            nn.Conv2d(c, attention, 3, padding=1, groups=attention),
            SimpleGate(),
            nn.Conv2d(attention // 2, nset, 1),
        )
        self.conv211 = nn.Conv2d(c, nset, 1)
        self.kba = KernelBasisAttention(groups=c // group_channels)
        self.conv3 = nn.Conv2d(c, c, 1)
        self.conv4 = nn.Conv2d(c, hidden, 1)
        self.gate = SimpleGate()
        self.conv5 = nn.Conv2d(hidden // 2, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both residual steps."""
        n = self.norm1(x)
        pooled = self.sca(n)  # [B, c, H, W] -> [B, c, 1, 1]
        convolved = self.conv11(n)
        # [B, c, H, W] -> [B, nset, H, W]
        attention = scaled(self.conv2(n), self.attgamma) + self.conv211(n)
        u = self.conv21(self.conv1(n))
        mixed = scaled(self.kba(u, attention, self.w, self.b), self.ga1) + u
        x = x + scaled(self.conv3(mixed * convolved * pooled), self.beta)
        return x + scaled(self.conv5(self.gate(self.conv4(self.norm2(x)))), self.gamma)

    def fold_scales(self) -> None:
        """Multiply the four scales into the convolutions before them and into the basis."""
        fold_scale(self.conv2[2], self.attgamma)
        fold_scale(self.conv3, self.beta)
        fold_scale(self.conv5, self.gamma)
        fold_into_basis(self.w, self.b, self.ga1)
        self.attgamma = self.beta = self.gamma = self.ga1 = None


def _scale(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.full((1, channels, 1, 1), _INITIAL_SCALE))


def _check_block(c: int, *, hidden: int, attention: int, group_channels: int) -> None:
    """Every grouped convolution of a block needs its channels to divide."""
    needs = {4, group_channels, attention, 2}
    if group_channels < 1 or any(c % need for need in needs):
        raise SettingsError(
            f"kbnet-s cannot have a level of {c} channels with group_channels={group_channels}",
            hint=f"choose a width such as 8, 16, 32 or 64: every level up to {_ATTENTION_WIDTH} "
            f"channels a multiple of 4 and of group_channels, wider ones of {_ATTENTION_WIDTH} too",
        )
    if hidden < 2 or hidden % 2:
        raise SettingsError(
            f"ffn_scale gives kbnet-s {hidden} hidden channels at a level of {c}",
            hint="choose an ffn_scale that gives an even number at every level, such as 1.5 or 2",
        )


def _recognise(state: State) -> Recognised | None:
    blocks = u_shape_blocks(state)
    if not any(f"{block}.{mark}" in state for block in blocks for mark in _MARKS):
        return None
    channels, hyperparameters = read_u_shape(state)
    for block, mark in product(blocks, _MARKS):
        if f"{block}.{mark}" not in state:
            raise KeyError(f"{block}.{mark}")
    block = blocks[0]
    group_channels, kernel = basis_shape(
        {(state[f"{b}.ga1"].shape[1], state[f"{b}.w"].shape[2]) for b in blocks}
    )
    expansions = [state[f"{b}.conv4.weight"].shape for b in blocks]
    hyperparameters |= {
        "lightweight": state[f"{block}.conv11.1.weight"].shape[-1] == 3,
        "ffn_scale": shortest_scale({(shape[1], shape[0]) for shape in expansions}),
        "nset": state[f"{block}.attgamma"].shape[1],
        "group_channels": group_channels,
        "kernel": kernel,
    }
    return Recognised(channels=channels, hyperparameters=hyperparameters, state=state)


ARCHITECTURE = Architecture(
    build=kbnet_s,
    recognise=_recognise,
    receptive_field=lambda h: None,
    multiple=u_shape_multiple,
)
