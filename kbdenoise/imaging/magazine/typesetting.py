"""Typesetting: words in several faces, lines and paragraphs, drawn onto a float page.

A page is a float32 RGB array [H, W, 3] in [0, 1] that these functions paint on in place; sizes and
places are in its pixels. Faces come with OpenCV (5: outline fonts; 4: its stroke fonts instead) and
with Pillow, so nothing is looked up on the system and a page does not depend on the machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kbdenoise.imaging.files import FloatImage

Colour = tuple[float, float, float]
Coverage = npt.NDArray[np.uint8]
"""How much of each pixel ink covers, [h, w] in 0..255."""
Painter = Callable[[str, int, int], Coverage]
"""Draws (text, size, weight) on a strip STRIP ems high, BASELINE ems above its base line."""

OVERSAMPLING = 3
STRIP = 1.5
BASELINE = 1.1

# Stand-ins for characters that a face lacks, or draws as wide as an ideograph.
_QUOTES = {"\u2019": "'", "\u201c": '"', "\u201d": '"'}
_HUMANIST_LACKS = str.maketrans(_QUOTES)
_PILLOW_LACKS = str.maketrans({"\u2013": "-", "£": "$"})
_STROKES_LACK = str.maketrans({**_QUOTES, "\u2013": "-", "£": "$"})


class Box(NamedTuple):
    """A rectangle on the page, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def bottom(self) -> int:
        """The first row below the box."""
        return self.y + self.height

    @property
    def right(self) -> int:
        """The first column right of the box."""
        return self.x + self.width

    def inset(self, by: int) -> "Box":
        """The box without a margin of `by` pixels on every side."""
        return Box(self.x + by, self.y + by, self.width - 2 * by, self.height - 2 * by)

    def below(self, y: int) -> "Box":
        """What is left of the box from row `y` on."""
        return Box(self.x, y, self.width, self.bottom - y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How text looks."""

    face: str
    """A key of `faces()`."""
    size: float
    """The em, in pixels."""
    colour: Colour
    weight: int = 400
    """From 200 (light) to 900 (black); faces without weights know regular and bold."""
    width: float = 1.0
    """Letters are set this much narrower or wider than drawn."""
    leading: float = 1.32
    """From one base line to the next, in ems."""

    @property
    def pitch(self) -> int:
        """From one base line to the next, in pixels."""
        return round(self.size * self.leading)


@lru_cache(maxsize=1)
def faces() -> dict[str, Painter]:
    """The faces at hand: upright, italic and humanist from OpenCV, geometric from Pillow."""
    if hasattr(cv2, "FontFace"):
        upright, italic = _outline("sans"), _outline("italic")
        humanist = _outline("uni", lacks=_HUMANIST_LACKS)
    else:
        upright = _strokes(cv2.FONT_HERSHEY_SIMPLEX)
        italic = _strokes(cv2.FONT_HERSHEY_COMPLEX | cv2.FONT_ITALIC)
        humanist = _strokes(cv2.FONT_HERSHEY_COMPLEX)
    return {
        "upright": upright,
        "italic": italic,
        "humanist": humanist,
        "geometric": _paint_with_pillow if _pillow_has_outlines() else upright,
    }


def text_width(text: str, style: Style) -> float:
    """The width of a line of text, in page pixels."""
    return sum(_line_steps(text.split(" "), style)) * style.width / OVERSAMPLING


def fill(page: FloatImage, box: Box, colour: Colour) -> None:
    """Paint a box; what lies outside the page is left out."""
    page[max(box.y, 0) : max(box.bottom, 0), max(box.x, 0) : max(box.right, 0)] = colour


def draw_line(page: FloatImage, text: str, *, x: float, baseline: int, style: Style) -> None:
    """Set one line of text whose first letter begins at `x`; it may run off the page."""
    coverage = _set_line(text, style)
    top = baseline - round(BASELINE * style.size)
    left = round(x)
    height, width = page.shape[:2]
    rows = slice(max(0, -top), max(0, min(coverage.shape[0], height - top)))
    columns = slice(max(0, -left), max(0, min(coverage.shape[1], width - left)))
    ink = coverage[rows, columns]
    if ink.size == 0:
        return
    place = (
        slice(top + rows.start, top + rows.stop),
        slice(left + columns.start, left + columns.stop),
    )
    for channel, tone in enumerate(style.colour):  # three times as fast as all three at once
        plane = page[..., channel][place]  # a view
        plane += (np.float32(tone) - plane) * ink


def break_lines(text: str, *, width: float, style: Style, indent: float = 0.0) -> list[str]:
    """Break a text at spaces so that each line fits `width` pixels; a longer word stands alone.

    `indent` pixels of the first line are taken already.
    """
    lines: list[str] = []
    current, taken = "", indent
    for word in text.split():
        longer = f"{current} {word}" if current else word
        if current and taken + text_width(longer, style) > width:
            lines.append(current)
            current, taken = word, 0.0
        else:
            current = longer
    return [*lines, current] if current else lines


def draw_paragraph(
    page: FloatImage, text: str, *, box: Box, style: Style, indent: float = 0.0
) -> int:
    """Set a text ragged right from the top of `box`, as many lines as fit.

    `indent` pixels are kept free before the first line. Returns the row where the next block may
    begin.
    """
    y = box.y
    for line in break_lines(text, width=box.width, style=style, indent=indent):
        if y + style.pitch > box.bottom:
            break
        x = box.x + (indent if y == box.y else 0.0)
        draw_line(page, line, x=x, baseline=y + round(style.size), style=style)
        y += style.pitch
    return y


def draw_listing(page: FloatImage, lines: list[str], *, box: Box, style: Style) -> int:
    """Set lines of code, every character on the same pitch; returns the row below them."""
    pitch = 0.6 * style.size * style.width
    y = box.y
    for line in lines:
        if y + style.pitch > box.bottom:
            break
        for column, character in enumerate(line[: int(box.width / pitch)]):
            if character != " ":
                x = box.x + column * pitch + (pitch - text_width(character, style)) / 2
                draw_line(page, character, x=x, baseline=y + round(style.size), style=style)
        y += style.pitch
    return y


def _set_line(text: str, style: Style) -> npt.NDArray[np.float32]:
    """The coverage of a line at page size, [h, w] in [0, 1]."""
    words = text.split(" ")
    steps = _line_steps(words, style)
    size = round(style.size * OVERSAMPLING)
    strip = np.zeros((ceil(STRIP * size), ceil(sum(steps)) + size // 2), dtype=np.uint8)
    at = 0.0
    for word, step in zip(words, steps, strict=True):
        ink = _word(word, style.face, size, style.weight)
        place = strip[: ink.shape[0], round(at) : round(at) + ink.shape[1]]
        np.maximum(place, ink[: place.shape[0], : place.shape[1]], out=place)
        at += step
    fine_height, fine_width = strip.shape
    small = (
        max(1, round(fine_width * style.width / OVERSAMPLING)),
        max(1, round(fine_height / OVERSAMPLING)),
    )
    coverage = cv2.resize(strip, small, interpolation=cv2.INTER_AREA)
    return coverage.astype(np.float32) * np.float32(1 / 255)


def _line_steps(words: list[str], style: Style) -> list[float]:
    """From the start of each word to the start of the next, in fine pixels; the last has no gap."""
    size = round(style.size * OVERSAMPLING)
    gap = 0.26 * size
    steps = [_word(word, style.face, size, style.weight).shape[1] + gap for word in words]
    steps[-1] -= gap
    return steps


@lru_cache(maxsize=4096)
def _word(word: str, face: str, size: int, weight: int) -> Coverage:
    """A word's coverage at `size` fine pixels an em; its width is what the pen advances."""
    if not word:
        return np.zeros((1, 0), dtype=np.uint8)
    coverage = faces()[face](word, size, weight)
    coverage.setflags(write=False)
    return coverage


def _outline(name: str, *, lacks: Mapping[int, str] | None = None) -> Painter:
    # OpenCV 5's FontFace is missing from OpenCV 4, and so from the types of either.
    font: Any = cv2.FontFace(name)

    def paint(text: str, size: int, weight: int) -> Coverage:
        strip = np.zeros((ceil(STRIP * size), (len(text) + 2) * size), dtype=np.uint8)
        baseline = round(BASELINE * size)
        plain = text.translate(lacks or {})
        (advance, _), _ = cv2.putText(strip, plain, (0, baseline), (255,), font, size, weight)
        return np.ascontiguousarray(strip[:, :advance])

    return paint


def _strokes(font: int) -> Painter:
    def paint(text: str, size: int, weight: int) -> Coverage:
        plain = text.translate(_STROKES_LACK)
        scale, thickness = size / 32, max(1, round(size * weight / 8000))
        (advance, _), _ = cv2.getTextSize(plain, font, scale, thickness)
        strip = np.zeros((ceil(STRIP * size), max(1, advance)), dtype=np.uint8)
        start = (0, round(BASELINE * size))
        cv2.putText(strip, plain, start, font, scale, (255,), thickness, cv2.LINE_AA)
        return strip

    return paint


def _paint_with_pillow(text: str, size: int, weight: int) -> Coverage:
    font = _pillow_font(size)
    text = text.translate(_PILLOW_LACKS)
    # The face has one weight; a heavier one is drawn with an outline of its own colour.
    outline = round(size * max(0, weight - 400) / 12000)
    advance = ceil(font.getlength(text)) + 2 * outline
    strip = Image.new("L", (advance, ceil(STRIP * size)))
    ImageDraw.Draw(strip).text(
        (outline, BASELINE * size), text, fill=255, font=font, anchor="ls", stroke_width=outline
    )
    return np.asarray(strip).copy()


@lru_cache(maxsize=64)
def _pillow_font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _pillow_has_outlines() -> bool:
    return isinstance(ImageFont.load_default(12), ImageFont.FreeTypeFont)
