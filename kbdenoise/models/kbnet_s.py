"""KBNet-S: a NAFNet-like U-shape whose blocks hold kernel-basis attention.

Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).
Authors' code and weights: https://github.com/zhangyi-3/KBNet (MIT).

Names of parameters and their shapes are the authors', so their checkpoints load. What differs:
the network does not pad (the authors pad with zeros at the right and bottom, which the global
pooling then sees); basis size, group width and kernel are arguments; kernel-basis attention runs
under mixed precision; block counts are plain numbers and no class name is evaluated.
"""

from math import isfinite

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.kba import KernelBasisAttention
from kbdenoise.models.layers import LayerNorm2d, SimpleGate, check_counts, check_image_batch

_ATTENTION_WIDTH = 32  # most channels of the 3x3 convolution that makes the attention
_INITIAL_SCALE = 0.01  # of every learned branch weight: a new block is nearly the identity


class KBNetS(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `2 ** len(encoder_blocks)`. Level i of the U has
    `width * 2**i` channels and `encoder_blocks[i]` blocks on the way down; `decoder_blocks` are
    listed from the coarsest level up. `ffn_scale` is the widening of the feed-forward part,
    `lightweight` swaps its sibling's grouped 5x5 for a depthwise 3x3. `nset` kernels of side
    `kernel` form the basis of a block, each group of which mixes `group_channels` channels.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        _check_levels(encoder_blocks, middle_blocks, decoder_blocks)
        check_counts("kbnet-s", channels=channels, width=width, nset=nset, kernel=kernel)
        self.channels = channels
        self.multiple = 2 ** len(encoder_blocks)

        def blocks(count: int, at_width: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    KBBlock(
                        at_width,
                        lightweight=lightweight,
                        ffn_scale=ffn_scale,
                        nset=nset,
                        group_channels=group_channels,
                        kernel=kernel,
                    )
                    for _ in range(count)
                )
            )

        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        c = width
        for count in encoder_blocks:
            self.encoders.append(blocks(count, c))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, stride=2))
            c *= 2
        self.middle_blks = blocks(middle_blocks, c)
        for count in decoder_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)))
            c //= 2
            self.decoders.append(blocks(count, c))

    def forward(self, noisy: Tensor) -> Tensor:
        """Restore a batch: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model="kbnet-s")
        x = self.intro(noisy)
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # [B, c, h, w] -> [B, 2c, h/2, w/2]
        x = self.middle_blks(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = up(x) + skip  # [B, 2c, h/2, w/2] -> [B, c, h, w]
            x = decoder(x)
        return self.ending(x) + noisy


class KBBlock(nn.Module):
    """Multi-axis feature fusion, then a gated feed-forward part, both as residuals.

    [B, c, H, W] -> [B, c, H, W]. Shapes and names follow the authors' block.
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
        self.attgamma = _scale(nset)
        self.ga1, self.beta, self.gamma = _scale(c), _scale(c), _scale(c)
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)

        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
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
        attention = self.conv2(n) * self.attgamma + self.conv211(
            n
        )  # [B, c, .., ..] -> [B, nset, ..]
        u = self.conv21(self.conv1(n))
        mixed = self.kba(u, attention, self.w, self.b) * self.ga1 + u
        x = x + self.conv3(mixed * convolved * pooled) * self.beta
        return x + self.conv5(self.gate(self.conv4(self.norm2(x)))) * self.gamma


def _scale(channels: int) -> nn.Parameter:
    return nn.Parameter(torch.full((1, channels, 1, 1), _INITIAL_SCALE))


def _check_levels(
    encoder_blocks: tuple[int, ...], middle_blocks: int, decoder_blocks: tuple[int, ...]
) -> None:
    counts = (*encoder_blocks, middle_blocks, *decoder_blocks)
    if len(encoder_blocks) != len(decoder_blocks) or not encoder_blocks:
        raise SettingsError(
            f"kbnet-s has {len(encoder_blocks)} encoder_blocks and {len(decoder_blocks)} "
            "decoder_blocks",
            hint="give one number a level to each, and at least one level",
        )
    if min(counts) < 0 or max(counts) == 0:
        raise SettingsError(
            f"kbnet-s cannot have {list(counts)} blocks on its levels",
            hint="give numbers from 0 up, not all of them 0",
        )


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
