"""Cut a picture into overlapping tiles and blend them back without seams.

One dimension at a time: a tile is an interval, its window a weight per pixel. The window is zero
over a margin at inner borders, where the network lacks its surroundings, then rises as half a
cosine through the rest of the overlap. At the picture's own border it stays one.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kbdenoise.errors import SettingsError

Weights = npt.NDArray[np.float32]

RAMP = 16
"""Pixels over which neighbouring tiles are blended, beside their margins."""
_GLOBAL_MARGIN = 24  # px thrown away where a network sees the whole tile and no margin is exact


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """How a picture is cut: `tile` px squares sharing `overlap` px, or whole when tile is 0."""

    tile: int
    overlap: int
    batch: int = 1
    """Tiles, or whole pictures of one size, that are restored together."""
    margin: int = 0
    """Pixels at a tile's inner borders that do not count, for want of surroundings."""
    needed: int | None = 0
    """The margin that would make tiles equal the whole; None: no margin does (global pooling)."""

    def __post_init__(self) -> None:
        if self.tile and not 0 <= self.overlap < self.tile:
            raise SettingsError(
                f"tiles of {self.tile} px cannot overlap by {self.overlap} px",
                hint="the overlap must be smaller than the tile",
            )

    @property
    def text(self) -> str:
        """For the screen: `whole`, or the tiles and whether they could be told from the whole."""
        if not self.tile:
            return "whole"
        tiles = f"tiles of {self.tile} px, overlap {self.overlap} px"
        if self.needed is None:
            return f"{tiles}; the network pools over each tile, so results differ from the whole"
        if self.margin < self.needed:
            return f"{tiles}; it sees {self.needed} px far, so larger tiles would be more exact"
        return tiles


def usual_margin(radius: int | None) -> int:
    """Pixels at a tile's inner borders that do not count, for a network that sees `radius` px."""
    return _GLOBAL_MARGIN if radius is None else radius


def usual_overlap(radius: int | None, *, tile: int, multiple: int) -> int:
    """Pixels that neighbours share, both margins and a ramp, but never more than half a tile."""
    return min(2 * usual_margin(radius) + RAMP, tile // 2 // multiple * multiple)


def tile_starts(length: int, *, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """First pixels of the tiles along one side of `length` px.

    Neighbours share at least `overlap` px; tiles are spread evenly, start at multiples of
    `multiple` (of which `tile` must be one), and the last reaches the picture's end. A side no
    longer than a tile gets one tile, starting at 0.
    """
    units, tile_units = math.ceil(length / multiple), tile // multiple
    step = tile_units - math.ceil(overlap / multiple)
    if step < 1 or tile % multiple:
        raise SettingsError(
            f"tiles of {tile} px cannot overlap by {overlap} px in steps of {multiple} px",
            hint=f"use a larger tile, a multiple of {multiple}, or a smaller overlap",
        )
    if units <= tile_units:
        return [0]
    count = math.ceil((units - tile_units) / step) + 1
    return [multiple * (i * (units - tile_units) // (count - 1)) for i in range(count)]


def window(start: int, *, length: int, tile: int, overlap: int, margin: int) -> Weights:
    """Blending weights [min(tile, length - start)] of the tile at `start` along a side.

    `margin` pixels at each inner border get a weight of zero (less where the overlap is too small
    for it); the rest of the overlap rises smoothly.
    """
    size = min(tile, length - start)
    weights = np.ones(size, dtype=np.float32)
    margin = min(margin, max(0, (overlap - 1) // 2))
    ramp = overlap - 2 * margin
    if ramp <= 0:
        return weights
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
    edge = np.concatenate([np.zeros(margin), rise]).astype(np.float32)
    if start > 0:
        weights[: edge.size] = edge[:size]
    if start + size < length:
        weights[-edge.size :] = np.minimum(weights[-edge.size :], edge[::-1])
    return weights


def round_up(length: int, multiple: int) -> int:
    """The least multiple that is no shorter than `length`."""
    return -(-length // multiple) * multiple


def turn(image: npt.NDArray[np.generic], index: int) -> npt.NDArray[np.generic]:
    """One of the eight right-angle turns and mirrorings (0..7) of [..., H, W, C] or [H, W, C]."""
    turned = np.rot90(image, index % 4, axes=(-3, -2))
    return turned[..., ::-1, :] if index >= 4 else turned


def turn_back(image: npt.NDArray[np.generic], index: int) -> npt.NDArray[np.generic]:
    """The inverse of `turn`."""
    unflipped = image[..., ::-1, :] if index >= 4 else image
    return np.rot90(unflipped, -(index % 4), axes=(-3, -2))
