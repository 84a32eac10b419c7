"""Batches of patches as they come from the store, and what a device makes of them.

Pixels travel as stored, one or two bytes a value, and are turned and made floats by the device.
"""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from kbdenoise.imaging.files import Pixels

# turn -> OpenCV's code; it turns three-byte pixels ten times as fast as numpy's strided copy does.
_ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_MIRRORS = {4: 1, 6: 0}


class Batch(NamedTuple):
    """Patches cut alike from both sides, not turned yet: uint8 or uint16 [B, P, P, C].

    Whole pages are [B, H, W, C] and have been turned already; their turns are 0.
    """

    noisy: Tensor
    clean: Tensor
    turns: Tensor
    """int64 [B]: 0 to 3 count quarter turns anticlockwise; 4 to 7 are those of the mirror image."""
    page: Tensor | None = None
    """Of each patch its whole noisy picture, small and not turned either: uint16 [B, T, T, C]."""

    @property
    def length(self) -> int:
        """How many patches there are; len() of a tuple counts its fields."""
        return len(self.noisy)


class Images(NamedTuple):
    """A batch as a network takes it: float32 [B, C, P, P], or [B, C, H, W], in [0, 1]."""

    noisy: Tensor
    clean: Tensor
    page: Tensor | None
    """[B, C, T, T], or None where the network sees no page."""

    @property
    def seen(self) -> list[Tensor]:
        """What the network is given."""
        return [self.noisy] if self.page is None else [self.noisy, self.page]


def pieces(batch: Batch, count: int) -> list[Batch]:
    """Divide a batch into `count` consecutive parts, or as many as it has patches.

    They are views, whose lengths differ by one at most.
    """
    count = min(count, batch.length)
    if not count:
        return []
    fields = [[None] * count if t is None else t.tensor_split(count) for t in batch]
    return [Batch(*part) for part in zip(*fields, strict=True)]


def to_images(
    batch: Batch, *, device: torch.device | str = "cpu", channels_last: bool = False
) -> Images:
    """Send a batch to a device, turn its patches there and make them floats.

    With `channels_last` the channels of a pixel stay side by side in memory, as they are stored.
    """
    # Known on the host, where looking costs no wait for the device.
    turns = batch.turns.to(device, non_blocking=True) if batch.turns.any() else None

    def made(stored: Tensor) -> Tensor:
        planes = turned(_sent(stored, device), turns, channels_last=channels_last)
        return floats(planes, bit_depth=8 * stored.itemsize)

    return Images(
        noisy=made(batch.noisy),
        clean=made(batch.clean),
        page=None if batch.page is None else made(batch.page),
    )


def turned(patches: Tensor, turns: Tensor | None, *, channels_last: bool = False) -> Tensor:
    """Square patches [B, P, P, C], each in one of its eight positions, as [B, C, P, P].

    `turns` is int64 [B], as in `Batch`, or None, with which patches may be of any shape.
    """
    if patches.device.type == "cpu":
        upright = torch.zeros(len(patches), dtype=torch.int64) if turns is None else turns
        return turned_one_by_one(patches, upright, channels_last=channels_last)
    if turns is None:
        planes = patches.permute(0, 3, 1, 2)
        return planes if channels_last else planes.contiguous()
    return turned_together(patches, turns, channels_last=channels_last)


def turned_one_by_one(patches: Tensor, turns: Tensor, *, channels_last: bool) -> Tensor:
    """`turned` by OpenCV, patch by patch: ten times as fast on a CPU as the other way."""
    count, height, width, channels = patches.shape
    stored = zip(patches.numpy(), turns.tolist(), strict=True)
    if channels_last or channels == 1:
        out = torch.empty_like(patches)
        for slot, (patch, turn) in zip(out.numpy(), stored, strict=True):
            turn_into(slot, patch, turn=turn)
        return out.permute(0, 3, 1, 2)
    planes = torch.empty((count, channels, height, width), dtype=patches.dtype)
    upright = np.empty((height, width, channels), patches.numpy().dtype)
    for slot, (patch, turn) in zip(planes.numpy(), stored, strict=True):
        turn_into(upright, patch, turn=turn)
        cv2.split(upright, list(slot))
    return planes


def turned_together(patches: Tensor, turns: Tensor, *, channels_last: bool) -> Tensor:
    """`turned` in one operation, whatever the turns: what a GPU is good at."""
    count, side, _, channels = patches.shape
    places = _places(side, patches.device)[turns]  # [B, P*P]
    pixels = patches.view(count, side * side, channels)
    moved = pixels.gather(1, places[..., None].expand(-1, -1, channels))
    planes = moved.view(patches.shape).permute(0, 3, 1, 2)
    return planes if channels_last else planes.contiguous()


def floats(planes: Tensor, *, bit_depth: int) -> Tensor:
    """Stored values, of 16 bits as int16, as float32 in [0, 1]."""
    if bit_depth == 8:
        return planes.to(torch.float32).div_(255.0)
    return planes.to(torch.int32).bitwise_and_(0xFFFF).to(torch.float32).div_(65535.0)


def turn_into(out: Pixels, patch: Pixels, *, turn: int) -> None:
    """Write a patch [H, W, C] into `out` in one of its eight positions.

    `turn` 0 to 3 counts quarter turns anticlockwise, as in `np.rot90`; 4 to 7 are the same of the
    mirror image, left and right exchanged. Odd ones exchange the sides: `out` is [W, H, C] then.
    """
    shape = patch.shape if turn % 2 == 0 else patch.swapaxes(0, 1).shape
    assert out.shape == shape, "OpenCV would leave `out` as it was"
    if turn == 0:
        out[...] = patch
    elif turn in _ROTATIONS:
        cv2.rotate(patch, _ROTATIONS[turn], dst=out)
    elif turn in _MIRRORS:
        cv2.flip(patch, _MIRRORS[turn], dst=out)
    elif turn == 5:
        cv2.transpose(patch, dst=out)
    else:
        cv2.flip(cv2.transpose(patch), -1, dst=out)


@lru_cache(maxsize=8)
def _places(side: int, device: torch.device) -> Tensor:
    """Of each of the eight positions, which pixel comes to which place: int64 [8, side * side]."""
    upright = np.arange(side * side).reshape(side, side)
    positions = [np.rot90(p, k) for p in (upright, upright[:, ::-1]) for k in range(4)]
    return torch.from_numpy(np.stack(positions).reshape(8, -1)).to(device)


def _sent(pixels: Tensor, device: torch.device | str) -> Tensor:
    """On the device, without waiting where that is possible; sixteen bits as int16."""
    bits = pixels.view(torch.int16) if pixels.dtype == torch.uint16 else pixels
    return bits.to(device, non_blocking=True)
