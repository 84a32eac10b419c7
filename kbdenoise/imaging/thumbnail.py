"""A whole page, small: what a model that judges the page as a whole is given beside its tile."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kbdenoise.imaging.files import FloatImage, Pixels

_ROWS_AT_ONCE = 64  # so that a thin slice of a huge picture is widened to floats at a time


def thumbnail(source: Pixels | FloatImage, *, side: int) -> FloatImage:
    """Shrink a picture [H, W, C] of any size and aspect to float32 [side, side, C] in [0, 1].

    `source` is uint8, uint16 or float32 in [0, 1]. A value is the mean over its share of the
    picture, rounded outwards to whole pixels, as in torch's adaptive average pooling; a side
    shorter than `side` repeats pixels. Memory grows with the width alone.
    """
    height, width, channels = source.shape
    top = _TOPS[source.dtype.name]
    rows = np.empty((side, width, channels), np.float64)
    for row, (start, end) in zip(rows, _windows(height, side), strict=True):
        row[...] = _sum_of_rows(source[start:end]) / ((end - start) * top)
    running = np.zeros((side, width + 1, channels), np.float64)
    np.cumsum(rows, axis=1, out=running[:, 1:])
    starts, ends = np.array(_windows(width, side)).T
    means = (running[:, ends] - running[:, starts]) / (ends - starts)[:, None]
    small: FloatImage = means.astype(np.float32)
    return small


def _sum_of_rows(rows: Pixels | FloatImage) -> npt.NDArray[np.float64]:
    """[h, W, C] -> [W, C]."""
    total = np.zeros(rows.shape[1:], np.float64)
    cuts = [*range(0, len(rows), _ROWS_AT_ONCE), len(rows)]
    for start, end in pairwise(cuts):
        total += rows[start:end].sum(axis=0, dtype=_SUMS[rows.dtype.name])
    return total


def _windows(length: int, parts: int) -> list[tuple[int, int]]:
    """First pixel and the one after the last of each part; parts may share a pixel."""
    return [(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]


_TOPS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
# 64 rows of 16 bits fit into 32; sums of floats need the width.
_SUMS: dict[str, type[np.generic]] = {
    "uint8": np.uint32,
    "uint16": np.uint32,
    "float32": np.float64,
}
