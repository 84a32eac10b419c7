"""A residual U-Net behind a pixel-unshuffle stem: the network for a CPU.

After Zhang et al., 'Plug-and-Play Image Restoration with Deep Denoiser Prior', 2021
(arXiv:2008.13751), whose DRUNet joins residual blocks without normalisation to a U-Net with
additive skips, and Shi et al., 2016 (arXiv:1609.05158), for the pixel shuffle. What differs: the
picture is folded first, so that no convolution runs at full resolution and nothing is lost; the
input is added to the output; there are offsets; blocks start as the identity. No public
checkpoint has these names.
"""

from itertools import pairwise
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, relu_conv, zeroed
from kbdenoise.models.reading import has_all, length, numbered
from kbdenoise.models.spec import Architecture, Hyperparameters, Recognised, State

# Pages are mostly white: their values are brought to about zero mean and unit deviation.
_MEAN, _SCALE = 0.75, 0.2


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(x)))` with 3x3 convolutions; the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = relu_conv(channels, channels)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class ResUNet(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `fold * 2 ** len(encoder_blocks)`. Each `fold` x `fold` block of
    pixels becomes one position. Level i has `width * 2**i` channels, at most `widest`; levels are
    listed from the finest.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 24,
        widest: int = 128,
        encoder_blocks: tuple[int, ...] = (1, 1, 1),
        middle_blocks: int = 1,
        decoder_blocks: tuple[int, ...] = (2, 1, 1),
        fold: int = 2,
    ) -> None:
        super().__init__()
        check_counts("res-unet", channels=channels, width=width, widest=widest, fold=fold)
        if len(encoder_blocks) != len(decoder_blocks) or not encoder_blocks:
            raise SettingsError(
                f"res-unet has {len(encoder_blocks)} encoders but {len(decoder_blocks)} decoders",
                hint="give encoder_blocks and decoder_blocks as many levels each",
            )
        levels = len(encoder_blocks)
        widths = [min(width * 2**level, widest) for level in range(levels + 1)]
        steps = list(pairwise(widths))
        self.channels = channels
        self.fold = fold
        self.multiple = fold * 2**levels
        self.intro = relu_conv(channels * fold**2, width)
        self.encoders = nn.ModuleList(map(_stage, widths, encoder_blocks))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.middle = _stage(widths[-1], middle_blocks)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps
        )
        self.decoders = nn.ModuleList(map(_stage, widths, decoder_blocks))
        self.ending = zeroed(nn.Conv2d(width, channels * fold**2, 3, padding=1))

    def forward(self, noisy: Tensor) -> Tensor:
        """Add the predicted correction: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model="res-unet")
        x = F.pixel_unshuffle((noisy - _MEAN) / _SCALE, self.fold)  # [B, C*f*f, H/f, W/f]
        # Channels last is the layout in which small convolutions train fastest on a CPU.
        x = self.intro(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # [B, c, h, w] -> [B, c', h/2, w/2]
        x = self.middle(x)
        for level in reversed(range(len(skips))):
            x = self.decoders[level](self.ups[level](x) + skips[level])
        return noisy + _SCALE * F.pixel_shuffle(self.ending(x), self.fold)


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def _recognise(state: State) -> Recognised | None:
    if not has_all(state, "intro.weight", "downs.0.weight", "middle.0.conv1.weight"):
        return None
    width = state["intro.weight"].shape[0]
    widths = [width, *(down.shape[0] for down in numbered(state, "downs.{}.weight"))]
    levels = len(widths) - 1
    capped = [w for level, w in enumerate(widths) if w < width * 2**level]
    folded = state["intro.weight"].shape[1]
    # The number of colours is 1 or 3, so the fold follows from their product.
    channels = 1 if isqrt(folded) ** 2 == folded else 3
    return Recognised(
        channels=channels,
        hyperparameters={
            "width": width,
            "widest": capped[0] if capped else max(widths),
            "encoder_blocks": _blocks(state, "encoders", levels),
            "middle_blocks": length(state, "middle.{}.conv1.weight"),
            "decoder_blocks": _blocks(state, "decoders", levels),
            "fold": isqrt(folded // channels),
        },
        state=state,
    )


def _blocks(state: State, side: str, levels: int) -> tuple[int, ...]:
    return tuple(length(state, f"{side}.{i}.{{}}.conv1.weight") for i in range(levels))


def _radius(h: Hyperparameters) -> int:
    """From the middle outwards: two 3x3 convolutions a block, then the two outer ones, the fold."""
    radius: int = 2 * h["middle_blocks"]
    for down, up in zip(reversed(h["encoder_blocks"]), reversed(h["decoder_blocks"]), strict=True):
        radius = 2 * radius + 1 + 2 * (down + up)
    fold: int = h["fold"]
    return fold * (radius + 2) + fold - 1


ARCHITECTURE = Architecture(
    build=ResUNet,
    recognise=_recognise,
    receptive_field=_radius,
    multiple=lambda h: int(h["fold"] * 2 ** len(h["encoder_blocks"])),
)
