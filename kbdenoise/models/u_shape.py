"""The U-shape that KBNet-S and NAFNet share; they differ in its blocks alone.

Chen et al., 'Simple Baselines for Image Restoration', 2022 (arXiv:2204.04676), and
Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).

Names of parameters and their shapes are those of both authors. What differs: the network does not
pad (the authors pad with zeros at the right and bottom, which the global pooling then sees), and
its last convolution starts at zero, so that an untrained network returns its input (it also learns
faster: a NAFNet of width 16 stood at 28.4 instead of 27.4 dB after 200 steps of Adam at 1e-3).
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, zeroed
from kbdenoise.models.reading import has_all, length
from kbdenoise.models.spec import Hyperparameters, State


class UShape(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `2 ** len(encoder_blocks)`. Level i of the U has
    `width * 2**i` channels and `encoder_blocks[i]` blocks on the way down; `decoder_blocks` are
    listed from the coarsest level up. `block(c)` makes one block, [B, c, h, w] -> the same shape.
    `name` stands in error texts.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        name: str,
        channels: int,
        width: int,
        encoder_blocks: tuple[int, ...],
        middle_blocks: int,
        decoder_blocks: tuple[int, ...],
        block: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        check_counts(name, channels=channels, width=width)
        _check_levels(name, encoder_blocks, middle_blocks, decoder_blocks)
        self.name = name
        self.channels = channels
        self.multiple = 2 ** len(encoder_blocks)

        def blocks(count: int, c: int) -> nn.Sequential:
            return nn.Sequential(*(block(c) for _ in range(count)))

        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.ending = zeroed(nn.Conv2d(width, channels, 3, padding=1))
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
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model=self.name)
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


def u_shape_multiple(hyperparameters: Hyperparameters) -> int:
    """Sides must be multiples of this, in px."""
    return int(2 ** len(hyperparameters["encoder_blocks"]))


def check_pool_window(name: str, pool_window: int, *, levels: int) -> None:
    """Raises SettingsError unless the window is 0 or holds a position of the coarsest level."""
    if pool_window < 0 or 0 < pool_window < 2**levels:
        raise SettingsError(
            f"pool_window of {name} is {pool_window}",
            hint=f"choose 0 to pool the whole image, or at least {2**levels} px: "
            f"the size of a position after {levels} halvings",
        )


def _check_levels(
    name: str, encoder_blocks: tuple[int, ...], middle_blocks: int, decoder_blocks: tuple[int, ...]
) -> None:
    counts = (*encoder_blocks, middle_blocks, *decoder_blocks)
    if len(encoder_blocks) != len(decoder_blocks) or not encoder_blocks:
        raise SettingsError(
            f"{name} has {len(encoder_blocks)} encoder_blocks and {len(decoder_blocks)} "
            "decoder_blocks",
            hint="give one number a level to each, and at least one level",
        )
    if min(counts) < 0 or max(counts) == 0:
        raise SettingsError(
            f"{name} cannot have {list(counts)} blocks on its levels",
            hint="give numbers from 0 up, not all of them 0",
        )


def u_shape_blocks(state: State) -> list[str]:
    """Where the tensors have blocks, such as `encoders.0.1`; none, if they are no such U-shape."""
    if not has_all(state, "intro.weight", "ending.weight", "downs.0.weight"):
        return []
    return [name.removesuffix(".norm1.weight") for name in state if name.endswith(".norm1.weight")]


def read_u_shape(state: State) -> tuple[int, dict[str, Any]]:
    """Channels, and the hyper-parameters of the skeleton, of tensors that have such blocks.

    Raises KeyError, IndexError or ValueError where the tensors contradict each other.
    """
    width, channels = state["intro.weight"].shape[:2]
    levels = length(state, "downs.{}.weight")
    if length(state, "ups.{}.0.weight") != levels:
        raise ValueError(f"{levels} downs and {length(state, 'ups.{}.0.weight')} ups")
    hyperparameters = {
        "width": width,
        "encoder_blocks": _counts(state, "encoders", levels),
        "middle_blocks": length(state, "middle_blks.{}.norm1.weight"),
        "decoder_blocks": _counts(state, "decoders", levels),
    }
    return channels, hyperparameters


def _counts(state: State, side: str, levels: int) -> tuple[int, ...]:
    return tuple(length(state, f"{side}.{i}.{{}}.norm1.weight") for i in range(levels))
