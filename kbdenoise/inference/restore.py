"""Restore pictures of any size, whole or tile by tile, with flat memory.

Pictures are worked off in horizontal bands: as soon as no later tile touches a row, the row is
finished and handed on. Memory holds one row of tiles, whatever the height. Pictures of one size go
side by side, so that small ones, too, keep a large device busy.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from kbdenoise.ahead import ahead
from kbdenoise.errors import NotFiniteError
from kbdenoise.imaging.files import FloatImage, Pixels, as_float, to_pixels
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.imaging.tiles import (
    TilePlan,
    Weights,
    round_up,
    tile_starts,
    turn,
    turn_back,
    window,
)
from kbdenoise.inference.engines import Restorer
from kbdenoise.models.spec import PAGE_SIDE

Made = TypeVar("Made", Pixels, FloatImage)
_ROWS_AT_ONCE = 64  # of a band, small enough for the processor's caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Finished rows of some pictures."""

    start: int
    """First row."""
    images: FloatImage
    """float32 [N, rows, W, C], clipped to [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Tiles along one side of a picture."""

    length: int
    starts: list[int]
    windows: list[Weights]
    """Of each tile, the weight of every pixel; its length is the tile's."""

    @classmethod
    def cut(cls, length: int, *, tile: int, multiple: int, plan: TilePlan) -> "_Side":
        starts = tile_starts(length, tile=tile, overlap=plan.overlap, multiple=multiple)
        windows = [
            window(start, length=length, tile=tile, overlap=plan.overlap, margin=plan.margin)
            for start in starts
        ]
        return cls(length=length, starts=starts, windows=windows)

    def slice(self, index: int) -> slice:
        """The pixels of a tile."""
        return slice(self.starts[index], self.starts[index] + len(self.windows[index]))

    @property
    def sums(self) -> Weights:
        """The weights that each pixel has in all tiles together."""
        total = np.zeros(self.length, dtype=np.float32)
        for index, weights in enumerate(self.windows):
            total[self.slice(index)] += weights
        return total


def restore_image(
    image: FloatImage, restorer: Restorer, *, plan: TilePlan, tta: bool = False
) -> FloatImage:
    """Restore a float image [H, W, 1 or 3] in [0, 1]; the result has the same shape and range."""
    return restore_together([image], restorer, plan=plan, tta=tta, finish=unchanged)[0]


def restore_together(
    sources: Sequence[Pixels | FloatImage],
    restorer: Restorer,
    *,
    plan: TilePlan,
    finish: Callable[[FloatImage], Made],
    tta: bool = False,
    in_place: bool = False,
    advance: Callable[[float], None] = lambda share: None,
) -> list[Made]:
    """Restore pictures of one size, [H, W, 1 or 3] each, side by side.

    `finish` makes of float32 [N, rows, W, C] in [0, 1] what is kept. With `in_place`, restored rows
    may take the place of those of `sources` that are needed no more, where the types allow it: a
    huge picture is then in memory once. `advance` is called with the share of rows that are done.
    """
    made: list[Made] = []
    height = len(sources[0])
    for band in restored_bands(sources, restorer, plan=plan, tta=tta):
        rows = finish(band.images)
        if rows.shape[1] == height:
            return list(rows)
        if not made and in_place and sources[0].dtype == rows.dtype:
            made = cast(list[Made], list(sources))
        elif not made:
            made = [np.empty(s.shape, dtype=rows.dtype) for s in sources]
        stop = band.start + rows.shape[1]
        for picture, part in zip(made, rows, strict=True):
            picture[band.start : stop] = part
        advance(stop / height)
    return made


def unchanged(images: FloatImage) -> FloatImage:
    """A `finish` that keeps the floats."""
    return images


def rounding(bit_depth: int) -> Callable[[FloatImage], Pixels]:
    """A `finish` that rounds to stored pixels of 8 or 16 bits."""
    return lambda images: to_pixels(images, bit_depth=bit_depth)


def restored_bands(
    sources: Sequence[Pixels | FloatImage],
    restorer: Restorer,
    *,
    plan: TilePlan,
    tta: bool = False,
) -> Iterator[Band]:
    """Restore pictures of one size from top to bottom, yielding their finished rows.

    A source is uint8, uint16 or float32 [H, W, 1 or 3]. A network for luma restores each channel
    of a colour picture by itself; a network for colour gets a gray picture three times and returns
    the luma of its answer. A restorer that sees the page gets each picture's thumbnail with every
    tile of it.
    """
    height, width, channels = sources[0].shape
    tile = plan.tile or round_up(max(height, width), restorer.multiple)
    down = _Side.cut(height, tile=tile, multiple=restorer.multiple, plan=plan)
    across = _Side.cut(width, tile=tile, multiple=restorer.multiple, plan=plan)
    tiles = [(p, x) for x in range(len(across.starts)) for p in range(len(sources))]
    batches = [tiles[i : i + plan.batch] for i in range(0, len(tiles), plan.batch)]
    restored = _restored_batches(sources, restorer, down, across, batches, tta=tta)
    if len(down.starts) == len(across.starts) == 1:
        yield Band(start=0, images=np.clip([p for parts in restored for p in parts], 0.0, 1.0))
        return
    if restorer.pace.beside_host:  # blend one batch while the next one is restored
        restored = ahead(restored)
    yield from _blended(restored, batches, down, across, channels=channels, count=len(sources))


def _blended(
    restored: Iterator[list[FloatImage]],
    batches: Sequence[Sequence[tuple[int, int]]],
    down: _Side,
    across: _Side,
    *,
    channels: int,
    count: int,
) -> Iterator[Band]:
    """Add up weighted tiles, row of tiles by row of tiles, and yield the rows that are finished.

    Columns and channels are one axis here: numpy is ten times as fast along a long axis as along
    three channels.
    """
    tallest = max(len(weights) for weights in down.windows)
    sums = np.zeros((count, tallest, across.length * channels), dtype=np.float32)
    norm_down, norm_across = down.sums[:, None], np.repeat(across.sums, channels)
    columns = [np.repeat(weights, channels) for weights in across.windows]
    for row, weights in enumerate(down.windows):
        size, start = len(weights), down.starts[row]
        for batch in batches:
            for (picture, column), part in zip(batch, next(restored), strict=True):
                values = part.reshape(size, -1) * weights[:, None]
                values *= columns[column]
                place = across.slice(column)
                sums[picture, :size, place.start * channels : place.stop * channels] += values
        stop = down.starts[row + 1] if row + 1 < len(down.starts) else down.length
        for first in range(start, stop, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, stop)
            rows = sums[:, first - start : last - start]
            images = np.clip(rows / (norm_down[first:last] * norm_across), 0.0, 1.0)
            yield Band(start=first, images=images.reshape(count, last - first, -1, channels))
        sums[:, : size - (stop - start)] = sums[:, stop - start : size].copy()
        sums[:, size - (stop - start) :] = 0.0


def _restored_batches(
    sources: Sequence[Pixels | FloatImage],
    restorer: Restorer,
    down: _Side,
    across: _Side,
    batches: Sequence[Sequence[tuple[int, int]]],
    *,
    tta: bool,
) -> Iterator[list[FloatImage]]:
    """Batch by batch of every row of tiles: float32 [h, w, C] each.

    A batch is a list of tiles, each named by its picture and its column.
    """
    pages = None
    if restorer.sees_page:
        pages = [thumbnail(source, side=PAGE_SIDE) for source in sources]  # [T, T, C] each
    for row in range(len(down.starts)):
        for batch in batches:
            cuts = [sources[p][down.slice(row), across.slice(x)] for p, x in batch]
            padded = np.stack([_padded(as_float(cut), restorer) for cut in cuts])
            seen = None if pages is None else np.stack([pages[p] for p, _ in batch])
            restored = _restored(padded, seen, restorer, tta=tta)
            yield [
                part[: len(cut), : cut.shape[1]] for part, cut in zip(restored, cuts, strict=True)
            ]


def _padded(image: FloatImage, restorer: Restorer) -> FloatImage:
    """[h, w, C] mirrored at its lower and right border up to sides that the network takes."""
    sides = image.shape[:2]
    wanted = [restorer.fixed_tile or round_up(side, restorer.multiple) for side in sides]
    if wanted == list(sides):
        return image
    more = [(0, side - own) for side, own in zip(wanted, sides, strict=True)]
    return np.pad(image, (*more, (0, 0)), mode="reflect")


def _restored(
    images: FloatImage, pages: FloatImage | None, restorer: Restorer, *, tta: bool
) -> FloatImage:
    """Restore tiles [B, h, w, C] of any number of channels.

    `pages` [B, T, T, C] are thumbnails of their pictures, for a restorer that sees them.
    """
    channels = images.shape[3]
    if restorer.channels == 1 and channels == 3:
        planes = []
        for c in range(3):
            page = None if pages is None else pages[..., c : c + 1]
            planes.append(_restored(images[..., c : c + 1], page, restorer, tta=tta))
        return np.concatenate(planes, axis=3)
    seen = [_to_network(i, restorer.channels) for i in (images, pages) if i is not None]
    if tta:
        # Turned copies go one after the other: they differ in shape and would double the memory.
        total = sum(turn_back(restorer(*_turned(seen, k)), k) for k in range(8))
        restored: FloatImage = np.asarray(total, dtype=np.float32) / np.float32(8)
    else:
        restored = restorer(*seen)
    if not np.isfinite(restored).all():
        raise NotFiniteError(
            "the model answers with values that are not finite (NaN or infinity)",
            hint="its weights are damaged, or half precision overflowed: try --precision fp32",
        )
    return _from_network(restored, channels)


def _turned(batches: list[FloatImage], index: int) -> list[FloatImage]:
    return [np.ascontiguousarray(turn(batch, index)) for batch in batches]


def _to_network(images: FloatImage, channels: int) -> FloatImage:
    """[B, h, w, C] -> [B, h, w, channels]; gray is repeated."""
    return images if images.shape[3] == channels else np.repeat(images, channels, axis=3)


def _from_network(images: FloatImage, channels: int) -> FloatImage:
    """[B, h, w, c] -> [B, h, w, channels], the inverse of `_to_network`."""
    return images if images.shape[3] == channels else luma(images)[..., None]
