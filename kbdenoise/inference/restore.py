"""Restore pictures of any size: whole where they fit, else tile by tile, with flat memory.

A picture is worked off in horizontal bands: as soon as no later tile touches a row, the row is
finished and handed on. Memory holds one row of tiles, whatever the height.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kbdenoise.config import TileSettings
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, Pixels, as_float, to_pixels
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.imaging.tiles import TilePlan, tile_starts, turn, turn_back, window
from kbdenoise.inference.engines import Restorer
from kbdenoise.models.spec import PAGE_SIDE

SMALLEST_TILE = 64
_RAMP = 16  # px over which neighbouring tiles are blended, beside their margins
_GLOBAL_MARGIN = 24  # px thrown away where a network sees the whole tile and no margin is exact
_MEMORY_SHARE = 0.4  # of the free memory
_MEMORY_CAP_BYTES = 512 * 1024**2  # larger tiles are no faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Finished rows of a picture."""

    start: int
    """First row."""
    image: FloatImage
    """float32 [rows, W, C], clipped to [0, 1]."""


def plan_tiles(
    restorer: Restorer, *, height: int, width: int, settings: TileSettings, memory_bytes: int
) -> TilePlan:
    """Whole when the picture fits into its share of memory, else the largest tile that does.

    A tile given in `settings` is taken, rounded up to the network's multiple. The overlap covers
    the receptive field of both neighbours where that is bounded and fits.
    """
    multiple = restorer.multiple
    budget = min(_MEMORY_SHARE * memory_bytes, _MEMORY_CAP_BYTES)
    if settings.tile:
        tile = _up(max(settings.tile, SMALLEST_TILE), multiple)
    elif height * width * restorer.bytes_per_pixel <= budget:
        return TilePlan(tile=0, overlap=0)
    else:
        side = int((budget / restorer.bytes_per_pixel) ** 0.5)
        tile = max(_up(SMALLEST_TILE, multiple), side // multiple * multiple)
    if tile >= max(height, width):
        return TilePlan(tile=0, overlap=0)
    margin = _GLOBAL_MARGIN if restorer.radius is None else restorer.radius
    overlap = settings.overlap if settings.overlap >= 0 else 2 * margin + _RAMP
    overlap = min(overlap, tile // 2 // multiple * multiple)
    if not settings.tile:
        tile = _evened(tile, overlap=overlap, sides=(height, width), multiple=multiple)
    return TilePlan(
        tile=tile,
        overlap=overlap,
        margin=min(margin, max(0, overlap - _RAMP) // 2),
        needed=restorer.radius,
    )


def _evened(tile: int, *, overlap: int, sides: tuple[int, int], multiple: int) -> int:
    """The smallest tile that needs no more rows and columns of tiles than `tile` does.

    A picture a little larger than a tile would else be restored nearly four times over.
    """
    shared = -(-overlap // multiple)  # this and what follows count in multiples
    smallest = 2 * shared
    for side in sides:
        whole = -(-side // multiple)
        count = max(1, -(-(whole - shared) // (tile // multiple - shared)))
        smallest = max(smallest, -(-(whole + (count - 1) * shared) // count))
    return min(tile, smallest * multiple)


def restore_image(
    image: FloatImage, restorer: Restorer, *, plan: TilePlan, tta: bool = False
) -> FloatImage:
    """Restore a float image [H, W, 1 or 3] in [0, 1]; the result has the same shape and range."""
    restored = np.empty_like(image, dtype=np.float32)
    for band in restored_bands(image, restorer, plan=plan, tta=tta):
        restored[band.start : band.start + len(band.image)] = band.image
    return restored


def restoring(restorer: Restorer, *, memory_bytes: int) -> Callable[[FloatImage], FloatImage]:
    """`restore_image` for pictures of any size, each cut as the default settings say."""

    def restore(image: FloatImage) -> FloatImage:
        height, width = image.shape[:2]
        plan = plan_tiles(
            restorer,
            height=height,
            width=width,
            settings=TileSettings(),
            memory_bytes=memory_bytes,
        )
        return restore_image(image, restorer, plan=plan)

    return restore


def restore_pixels(
    pixels: Pixels,
    restorer: Restorer,
    *,
    plan: TilePlan,
    tta: bool = False,
    bit_depth: int = 8,
) -> Pixels:
    """Restore stored pixels [H, W, 1 or 3] and round the result to `bit_depth`.

    Beside input and output only one row of tiles is held in memory.
    """
    restored: Pixels | None = None
    for band in restored_bands(pixels, restorer, plan=plan, tta=tta):
        rows = to_pixels(band.image, bit_depth=bit_depth)
        if restored is None:
            restored = np.empty(pixels.shape, dtype=rows.dtype)
        restored[band.start : band.start + len(rows)] = rows
    assert restored is not None
    return restored


def restored_bands(
    source: Pixels | FloatImage, restorer: Restorer, *, plan: TilePlan, tta: bool = False
) -> Iterator[Band]:
    """Restore a picture from top to bottom, yielding its finished rows.

    `source` is uint8, uint16 or float32 [H, W, 1 or 3]. A network for luma restores each channel
    of a colour picture by itself; a network for colour gets a gray picture three times and returns
    the luma of its answer. A restorer that sees the page gets the whole picture's thumbnail with
    every tile.
    """
    page = thumbnail(source, side=PAGE_SIDE) if restorer.sees_page else None  # [T, T, C]
    height, width, channels = source.shape
    tile = plan.tile or _up(max(height, width), restorer.multiple)
    rows = tile_starts(height, tile=tile, overlap=plan.overlap, multiple=restorer.multiple)
    columns = tile_starts(width, tile=tile, overlap=plan.overlap, multiple=restorer.multiple)
    across = [_window(x, width, tile, plan) for x in columns]
    down = [_window(y, height, tile, plan) for y in rows]
    column_sum = _overlap_add(across, columns, width)  # [W]
    row_sum = _overlap_add(down, rows, height)  # [H]

    pending = np.zeros((0, width, channels), dtype=np.float32)
    for index, y in enumerate(rows):
        size = len(down[index])
        grown = np.zeros((size, width, channels), dtype=np.float32)
        grown[: len(pending)] = pending
        for x, weights in zip(columns, across, strict=True):
            cut = as_float(source[y : y + size, x : x + len(weights)])
            restored = _restore_tile(cut, page, restorer, tta=tta)
            weight = down[index][:, None, None] * weights[None, :, None]  # [h, w, 1]
            grown[:, x : x + len(weights)] += restored * weight
        finished = (rows[index + 1] if index + 1 < len(rows) else height) - y
        norm = row_sum[y : y + finished, None, None] * column_sum[None, :, None]
        yield Band(start=y, image=np.clip(grown[:finished] / norm, 0.0, 1.0))
        pending = grown[finished:]


def _restore_tile(
    image: FloatImage, page: FloatImage | None, restorer: Restorer, *, tta: bool
) -> FloatImage:
    """Restore one tile [h, w, C] of any size: pad by reflection, run, cut back.

    `page` is the whole picture's thumbnail, for a restorer that sees it.
    """
    height, width, channels = image.shape
    pad = (-height % restorer.multiple, -width % restorer.multiple)
    padded = np.pad(image, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="reflect")
    if restorer.channels == 1 and channels == 3:
        pages = [None if page is None else page[..., c : c + 1] for c in range(3)]
        planes = [
            _restore_tile(padded[..., c : c + 1], pages[c], restorer, tta=tta) for c in range(3)
        ]
        return np.concatenate(planes, axis=2)[:height, :width]
    images = [padded] if page is None else [padded, page]
    batches = [_to_network(one, restorer.channels) for one in images]  # [1, h, w, C]
    if tta:
        # Turned copies go one after the other: they differ in shape and would double the memory.
        total = sum(turn_back(restorer(*_turned(batches, k)), k) for k in range(8))
        restored: FloatImage = np.asarray(total, dtype=np.float32) / np.float32(8)
    else:
        restored = restorer(*batches)
    if not np.isfinite(restored).all():
        raise DataError(
            "the model answers with values that are not finite (NaN or infinity)",
            hint="its weights are damaged, or half precision overflowed: try --no-amp",
        )
    return _from_network(restored, channels)[:height, :width]


def _turned(batches: list[FloatImage], index: int) -> list[FloatImage]:
    return [np.ascontiguousarray(turn(batch, index)) for batch in batches]


def _to_network(image: FloatImage, channels: int) -> FloatImage:
    """[h, w, C] -> [1, h, w, channels]; gray is repeated."""
    return (image if image.shape[2] == channels else np.repeat(image, channels, axis=2))[None]


def _from_network(batch: FloatImage, channels: int) -> FloatImage:
    """[1, h, w, c] -> [h, w, channels], the inverse of `_to_network`."""
    return batch[0] if batch.shape[3] == channels else luma(batch[0])[..., None]


def _window(start: int, length: int, tile: int, plan: TilePlan) -> npt.NDArray[np.float32]:
    return window(start, length=length, tile=tile, overlap=plan.overlap, margin=plan.margin)


def _overlap_add(
    windows: list[npt.NDArray[np.float32]], starts: list[int], length: int
) -> npt.NDArray[np.float32]:
    total = np.zeros(length, dtype=np.float32)
    for start, weights in zip(starts, windows, strict=True):
        total[start : start + len(weights)] += weights
    return total


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
