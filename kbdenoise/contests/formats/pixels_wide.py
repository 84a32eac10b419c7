"""The format `pixels-wide`: one row a picture, a column a pixel.

A course contest in Madras asks for it: header `ID,pixel_0,pixel_1,...`, gray levels as whole
numbers, row by row, every eighth pixel only. All pictures must have one size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.formats.coded_rows import BadCell, Stored
from kbdenoise.contests.formats.csv_bytes import cell_numbers, number
from kbdenoise.contests.formats.gray import (
    Codes,
    gray_codes,
    gray_table,
    gray_values,
    in_unit,
    pixel_order,
)
from kbdenoise.contests.formats.pages import Page, Source
from kbdenoise.contests.options import Options
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class WidePixels:
    """Codec of rows of gray values (`formats.coded_rows.Codec`)."""

    options: Options
    floats: bool = True

    def columns(self, pages: Sequence[Page]) -> tuple[str, ...]:
        """A name for every pixel that is handed in; raises DataError for pages of two sizes."""
        first = pages[0]
        for page in pages:
            if (page.height, page.width) != (first.height, first.width):
                raise DataError(
                    f"{page.name} is {page.width}x{page.height} px and {first.name} "
                    f"{first.width}x{first.height} px",
                    hint="pixels-wide has one column a pixel, so all pictures must have one size; "
                    "correct `format` in the contest's contest.toml",
                )
        count = -(-first.height * first.width // self.options.stride)
        return _names(self.options.value, self.options.base, count)

    def stored(self, image: FloatImage, pixels: Pixels, *, source: Source) -> Codes:
        """The codes of the pixels that are handed in: [N, 1], or [H, W] if those are all."""
        codes = gray_codes(image, pixels, options=self.options, source=source)
        if self.options.stride == 1:
            return codes
        flat = codes.ravel(order=pixel_order(self.options))  # [H, W] -> [H*W]
        return flat[:: self.options.stride, None]

    def shown(self, stored: Stored) -> FloatImage:
        """Gray values in [0, 1]: [H, W, 1], or [N, 1, 1] where pixels are left out."""
        return gray_values(stored, options=self.options)[..., None]

    def encode(self, stored: Stored) -> bytes:
        """All values, with commas between them."""
        texts = _texts(self.options, levels=stored.dtype == np.uint8)
        padded = texts[stored.ravel(order=pixel_order(self.options))].view(np.uint8)
        return bytes(padded[padded != 0][:-1])

    def decode(self, cells: bytes, *, height: int, width: int) -> FloatImage:
        """The gray values of a row; raises BadCell."""
        wanted = -(-height * width // self.options.stride)
        count = cells.count(b",") + 1
        if count != wanted:
            raise BadCell(
                "fields",
                f"there are {count:,} values, not {wanted:,} (of {width}x{height} px every "
                f"{self.options.stride}.); write the file again",
            )
        values = cell_numbers(cells)
        if values is None:
            raise BadCell("no number", self._first_odd(cells))
        whole = self.options.decimals > 0 or (values == np.rint(values))
        sound = (values >= 0) & (values <= self.options.scale) & whole  # False for NaN
        if not sound.all():
            at = int(np.flatnonzero(~sound)[0])
            kind = "whole number" if self.options.decimals == 0 else "number"
            raise BadCell(
                "value",
                f"the value {values[at]:g} of {self._name(at)} is no {kind} from 0 to "
                f"{self.options.scale}; restore that picture again",
            )
        unit = in_unit(values, options=self.options)
        if self.options.stride > 1:
            return unit[:, None, None]
        return unit.reshape((height, width, 1), order=pixel_order(self.options))

    def _first_odd(self, cells: bytes) -> str:
        for at, cell in enumerate(cells.decode(errors="replace").split(",")):
            if number(cell) is None:
                return f"{cell[:40]!r} of {self._name(at)} is not a number; write the file again"
        return "the values are not plain numbers; write the file again"

    def _name(self, at: int) -> str:
        return f"{self.options.value}{at + self.options.base}"


def codec(contest: Contest) -> WidePixels:
    """The codec of a contest."""
    return WidePixels(options=contest.options)


@lru_cache(maxsize=2)
def _names(prefix: str, base: int, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in range(base, base + count))


@lru_cache(maxsize=4)
def _texts(options: Options, *, levels: bool) -> "np.ndarray[tuple[int], np.dtype[np.bytes_]]":
    """The text of every code with a comma behind it, null-padded."""
    table = gray_table(options, levels=levels)
    return np.array([f"{text},".encode() for text in table.texts])
