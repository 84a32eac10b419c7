"""The look of a magazine title, and the sheet that a page of it is drawn on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.luma import BT601
from kbdenoise.imaging.magazine.typesetting import Colour, Style

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
ACCENTS: tuple[Colour, ...] = (
    (0.91, 0.30, 0.16),
    (0.80, 0.10, 0.33),
    (0.00, 0.45, 0.70),
    (0.00, 0.55, 0.44),
    (0.93, 0.62, 0.05),
    (0.42, 0.25, 0.60),
    (0.20, 0.24, 0.30),
    (0.46, 0.65, 0.18),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """The look that all pages of one title share."""

    title: str
    body: Style
    heading: Style
    accent: Colour
    second: Colour
    columns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A page under way, with the colours that hold on it."""

    pixels: FloatImage
    house: House
    rng: np.random.Generator
    paper: Colour
    ink: Colour
    tint: Colour
    """Behind boxes: a little off the paper."""
    photographs: Iterator[str]
    """Which photograph comes next; none comes twice before all have come."""

    @property
    def body(self) -> Style:
        """The text style in this page's ink."""
        return replace(self.house.body, colour=self.ink)


def draw_house(title: str, rng: np.random.Generator) -> House:
    """A look for a title."""
    accent, second = rng.choice(len(ACCENTS), size=2, replace=False)
    body = Style(
        face=str(rng.choice(["upright", "humanist", "geometric"])),
        size=float(rng.uniform(13.0, 15.5)),
        colour=BLACK,
        weight=int(rng.choice([250, 350, 400])),
        width=float(rng.uniform(0.84, 1.0)),
        leading=float(rng.uniform(1.25, 1.42)),
    )
    heading = Style(
        face=str(rng.choice(["upright", "italic", "geometric"])),
        size=float(rng.uniform(38.0, 56.0)),
        colour=BLACK,
        weight=int(rng.choice([300, 600, 800])),
        width=float(rng.uniform(0.85, 1.0)),
        leading=1.08,
    )
    return House(
        title=title,
        body=body,
        heading=heading,
        accent=ACCENTS[accent],
        second=ACCENTS[second],
        columns=int(rng.choice([2, 2, 3])),
    )


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with a share of `second`, 0 to 1."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def readable(wanted: Colour, paper: Colour) -> Colour:
    """The wanted colour where it stands out from the paper, else black or white."""
    behind = float(BT601 @ paper)
    if abs(float(BT601 @ wanted) - behind) > 0.4:
        return wanted
    return BLACK if behind > 0.5 else WHITE
