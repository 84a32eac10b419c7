"""The U-shape that Restormer and KBNet-L share; they differ in its blocks alone.

Zamir et al., 'Restormer: Efficient Transformer for High-Resolution Image Restoration', 2022
(arXiv:2111.09881), figure 2, and Zhang et al., 'KBNet: Kernel Basis Network for Image
Restoration', 2023 (arXiv:2303.02881). Written from the papers' descriptions; names of parameters
and their shapes are those of the published weights.

What differs: the last convolution starts at zero, so that an untrained network returns its input.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, zeroed
from kbdenoise.models.reading import length
from kbdenoise.models.spec import State

MULTIPLE = 8  # three halvings
_DOWN = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
_UP = ("decoder_level1", "decoder_level2", "decoder_level3")


class TransformerU(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of 8. Level i of the four has `width * 2**i` channels, `blocks[i]`
    blocks on the way down, as many on the way up, and `heads[i]` heads in each. The finest level
    of the way up keeps `2 * width` channels; so do the `refinement_blocks` behind it.
    `block(c, heads)` makes one block, [B, c, h, w] -> the same shape. `bias` gives convolutions of
    the skeleton an offset where the authors' have one. `name` stands in error texts.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        name: str,
        channels: int,
        width: int,
        blocks: tuple[int, ...],
        refinement_blocks: int,
        heads: tuple[int, ...],
        bias: bool,
        block: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        check_counts(name, channels=channels, width=width)
        check_counts(name, least=0, refinement_blocks=refinement_blocks)
        _check_levels(name, width=width, blocks=blocks, heads=heads)
        self.name = name
        self.channels = channels

        def stage(count: int, c: int, level_heads: int) -> nn.Sequential:
            return nn.Sequential(*(block(c, level_heads) for _ in range(count)))

        c1, c2, c3, c4 = (width * 2**level for level in range(4))
        n1, n2, n3, n4 = blocks
        h1, h2, h3, h4 = heads
        self.patch_embed = named(proj=nn.Conv2d(channels, c1, 3, padding=1, bias=False))
        self.encoder_level1 = stage(n1, c1, h1)
        self.down1_2 = _down(c1)
        self.encoder_level2 = stage(n2, c2, h2)
        self.down2_3 = _down(c2)
        self.encoder_level3 = stage(n3, c3, h3)
        self.down3_4 = _down(c3)
        self.latent = stage(n4, c4, h4)
        self.up4_3 = _up(c4)
        self.reduce_chan_level3 = nn.Conv2d(c4, c3, 1, bias=bias)
        self.decoder_level3 = stage(n3, c3, h3)
        self.up3_2 = _up(c3)
        self.reduce_chan_level2 = nn.Conv2d(c3, c2, 1, bias=bias)
        self.decoder_level2 = stage(n2, c2, h2)
        self.up2_1 = _up(c2)
        self.decoder_level1 = stage(n1, c2, h1)
        self.refinement = stage(refinement_blocks, c2, h1)
        self.output = zeroed(nn.Conv2d(c2, channels, 3, padding=1, bias=bias))

    def forward(self, noisy: Tensor) -> Tensor:
        """Restore a batch: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=MULTIPLE, model=self.name)
        x1 = self.encoder_level1(self.patch_embed(noisy))  # [B, w, H, W]
        x2 = self.encoder_level2(self.down1_2(x1))  # [B, 2w, H/2, W/2]
        x3 = self.encoder_level3(self.down2_3(x2))  # [B, 4w, H/4, W/4]
        x4 = self.latent(self.down3_4(x3))  # [B, 8w, H/8, W/8]
        x = torch.cat([self.up4_3(x4), x3], dim=1)  # [B, 8w, H/4, W/4]
        x = self.decoder_level3(self.reduce_chan_level3(x))  # [B, 4w, H/4, W/4]
        x = torch.cat([self.up3_2(x), x2], dim=1)  # [B, 4w, H/2, W/2]
        x = self.decoder_level2(self.reduce_chan_level2(x))  # [B, 2w, H/2, W/2]
        x = torch.cat([self.up2_1(x), x1], dim=1)  # [B, 2w, H, W]
        return self.output(self.refinement(self.decoder_level1(x))) + noisy


def named(**modules: nn.Module) -> nn.Sequential:
    """Modules one after the other, whose parameters are called after the keywords."""
    return nn.Sequential(OrderedDict(modules))


def _down(c: int) -> nn.Sequential:
    """[B, c, h, w] -> [B, 2c, h/2, w/2]."""
    conv = nn.Conv2d(c, c // 2, 3, padding=1, bias=False)
    return named(body=nn.Sequential(conv, nn.PixelUnshuffle(2)))


def _up(c: int) -> nn.Sequential:
    """[B, c, h, w] -> [B, c/2, 2h, 2w]."""
    conv = nn.Conv2d(c, 2 * c, 3, padding=1, bias=False)
    return named(body=nn.Sequential(conv, nn.PixelShuffle(2)))


def _check_levels(
    name: str, *, width: int, blocks: tuple[int, ...], heads: tuple[int, ...]
) -> None:
    if len(blocks) != 4 or len(heads) != 4:
        raise SettingsError(
            f"{name} has four levels, but got {len(blocks)} numbers of blocks and {len(heads)} "
            "of heads",
            hint="give four numbers to each, the finest level first",
        )
    if min(blocks) < 1 or min(heads) < 1:
        raise SettingsError(
            f"{name} cannot have {list(blocks)} blocks with {list(heads)} heads on its levels",
            hint="give every level at least one block, and its blocks at least one head",
        )
    if width % 2:
        raise SettingsError(f"width of {name} is {width}", hint="choose an even width")
    for level, count in enumerate(heads):
        if width * 2**level % count:
            raise SettingsError(
                f"{name} cannot share {width * 2**level} channels among {count} heads",
                hint="choose heads that divide the channels of their level: the width, and twice "
                "as many from one level to the next",
            )


def read_transformer_u(state: State, *, temperature: str) -> tuple[int, dict[str, Any]]:
    """Channels, and the hyper-parameters of the skeleton, of tensors that have its names.

    `temperature` is what a block calls its heads' temperatures, such as `attn.temperature`.
    Raises KeyError, IndexError or ValueError where the tensors contradict each other.
    """
    width, channels = state["patch_embed.proj.weight"].shape[:2]
    if state["output.weight"].shape[0] != channels:
        raise ValueError(
            f"{channels} channels go in and {state['output.weight'].shape[0]} come out"
        )
    blocks = tuple(length(state, f"{stage}.{{}}.{temperature}") for stage in _DOWN)
    mirrored = tuple(length(state, f"{stage}.{{}}.{temperature}") for stage in _UP)
    if blocks[:3] != mirrored:
        raise ValueError(f"{list(blocks[:3])} blocks on the way down and {list(mirrored)} up")
    hyperparameters = {
        "width": width,
        "blocks": blocks,
        "refinement_blocks": length(state, f"refinement.{{}}.{temperature}"),
        "heads": tuple(state[f"{stage}.0.{temperature}"].shape[0] for stage in _DOWN),
        "bias": "output.bias" in state,
    }
    return channels, hyperparameters
