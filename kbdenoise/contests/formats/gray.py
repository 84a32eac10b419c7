"""Gray values as a submission writes them: texts of a few decimals, looked up in a table.

A picture becomes whole numbers first: its gray levels, or, from a float image, steps of the last
decimal. Each has one text and one value, so that what is read back is what was written.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from kbdenoise.contests.formats.pages import Source
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import FloatImage, Pixels, to_float
from kbdenoise.imaging.luma import plane, plane_of_pixels

Codes = npt.NDArray[np.integer]
"""Gray levels uint8 or uint16, or steps of the last decimal int32: [H, W]."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GrayTable:
    """The text and the value of every code."""

    texts: tuple[str, ...]
    """Shortest form: no zeros behind the last decimal that counts."""
    values: FloatImage
    """What each text says, as float32 in [0, 1]."""


def gray_codes(image: FloatImage, pixels: Pixels, *, options: Options, source: Source) -> Codes:
    """The codes [H, W] of a picture, from its stored pixels or from its float image."""
    if source == "pixels":
        return plane_of_pixels(pixels, options.space)
    # Float luma may round to a hair above 1, which would be a code that has no text.
    gray = np.minimum(plane(image, options.space), 1.0)
    return np.rint(gray * np.float32(_steps(options))).astype(np.int32)


def gray_values(codes: Codes, *, options: Options) -> FloatImage:
    """What the texts of codes say: float32 in [0, 1], of the same shape."""
    if codes.dtype == np.uint16:  # stored pictures of 16 bits are compared with as they are
        return to_float(codes.astype(np.uint16, copy=False))
    return gray_table(options, levels=codes.dtype == np.uint8).values[codes]


def gray_table(options: Options, *, levels: bool) -> GrayTable:
    """Texts and values of the 256 gray levels, or of the steps of the last decimal."""
    return _table(255 if levels else _steps(options), options.scale, options.decimals)


def in_unit(values: npt.NDArray[np.float64], *, options: Options) -> FloatImage:
    """Values as a submission holds them, as float32 in [0, 1]."""
    return (values / options.scale).astype(np.float32)


@lru_cache(maxsize=8)
def _table(top: int, scale: int, decimals: int) -> GrayTable:
    exact = (code / top * scale if top != 255 else code * scale / 255 for code in range(top + 1))
    texts = tuple(_short(f"{value:.{decimals}f}") for value in exact)
    values = np.array([float(text) for text in texts])
    return GrayTable(texts=texts, values=(values / scale).astype(np.float32))


def _short(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _steps(options: Options) -> int:
    return int(options.scale * 10**options.decimals)


def pixel_order(options: Options) -> Literal["C", "F"]:
    """How numpy calls the order in which a picture's pixels follow each other."""
    return "C" if options.order == "row" else "F"
