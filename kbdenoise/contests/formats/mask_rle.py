"""The format `mask-rle`: one row a picture, where its white pixels begin and how many follow.

Segmentation contests ask for it: header `img,pixels`; pairs of start and length, counted from 1, go
down the columns (column-major). A pixel belongs to the mask from a threshold of gray on; a picture
without any has an empty cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.formats.coded_rows import BadCell, Stored
from kbdenoise.contests.formats.csv_bytes import unquoted
from kbdenoise.contests.formats.gray import pixel_order
from kbdenoise.contests.formats.pages import Page, Source
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import FloatImage, Pixels, to_float
from kbdenoise.imaging.luma import plane_of_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRuns:
    """Codec of masks (`formats.coded_rows.Codec`)."""

    options: Options
    floats: bool = False

    def columns(self, pages: Sequence[Page]) -> tuple[str, ...]:
        """The name of the one column of masks."""
        return (self.options.value,)

    def stored(self, image: FloatImage, pixels: Pixels, *, source: Source) -> npt.NDArray[np.bool_]:
        """The mask [H, W]."""
        gray = to_float(plane_of_pixels(pixels, self.options.space))
        return gray >= np.float32(self.options.threshold)

    def shown(self, stored: Stored) -> FloatImage:
        """The mask as an image [H, W, 1] of 0 and 1."""
        return stored[..., None].astype(np.float32)

    def encode(self, stored: Stored) -> bytes:
        """Starts and lengths, with a space between them."""
        flat = stored.ravel(order=pixel_order(self.options))  # [H, W] -> [H*W]
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
        starts, ends = edges[0::2], edges[1::2]
        pairs = np.stack([starts + self.options.base, ends - starts], axis=1)  # [runs, 2]
        return " ".join(map(str, pairs.ravel().tolist())).encode()

    def decode(self, cells: bytes, *, height: int, width: int) -> FloatImage:
        """The mask in a cell; raises BadCell."""
        words = unquoted(cells).split()
        if len(words) % 2 or not all(word.isdigit() and len(word) < 16 for word in words):
            raise BadCell(
                "runs",
                f"{cells[:40].decode(errors='replace')!r} is no list of pairs 'start length'; "
                "write the file again",
            )
        numbers = np.array([int(word) for word in words], np.int64).reshape(-1, 2)
        starts, ends = numbers[:, 0] - self.options.base, numbers.sum(axis=1) - self.options.base
        sound = (starts >= 0) & (ends <= height * width) & (numbers[:, 1] > 0)
        sound[1:] &= starts[1:] >= ends[:-1]
        if not sound.all():
            start, length = numbers[np.flatnonzero(~sound)[0]]
            raise BadCell(
                "runs",
                f"the run '{start} {length}' overlaps the one before it or leaves the "
                f"{width}x{height} px of the picture, counted from {self.options.base}; write the "
                "file again",
            )
        steps = np.zeros(height * width + 1, np.int8)
        steps[starts] += 1
        steps[ends] -= 1
        flat = np.cumsum(steps[:-1], dtype=np.int8).astype(np.float32)
        return flat.reshape((height, width, 1), order=pixel_order(self.options))


def codec(contest: Contest) -> MaskRuns:
    """The codec of a contest."""
    return MaskRuns(options=contest.options)
