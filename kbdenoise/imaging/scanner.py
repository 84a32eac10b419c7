"""A print-and-scan simulator: one scanner with one sheet, and the order in which things happen.

A `Scanner` holds the parameters of every degradation; `draw_scanner` draws a plausible one and
`print_and_scan` applies it. Use both to make synthetic pairs, or to augment real ones.

The ranges follow measurements of published samples of the Descanning data (arXiv:2402.05350):
black lifted to 43-61 of 255, paper at 235-255, channels shifted unequally, registration within
0.1 px, a standard deviation of 2 to 3 grey levels in flat tints.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.degradations import (
    Colour,
    add_banding,
    add_dust,
    add_grain,
    add_hairs,
    add_lines,
    add_sensor_noise,
    add_stains,
    bleed_through,
    blur_optics,
    colour_transition,
    halftone,
    shade_spine,
    warp,
)
from kbdenoise.imaging.files import FloatImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One scanner with one sheet in it; zero switches a degradation off.

    Tone values are in image units: 0 is black, 1 is white. The defaults do nothing at all.
    """

    black: Colour = (0.0, 0.0, 0.0)
    """What full ink is scanned as, per channel."""
    white: Colour = (1.0, 1.0, 1.0)
    """What bare paper is scanned as, per channel; above 1 it clips."""
    bend: Colour = (0.0, 0.0, 0.0)
    """Mid-tones move by `bend / 4`, per channel; in -1..1."""
    impurity: float = 0.0
    """Share of each channel that the inks leak into the others."""
    screen: tuple[int, int] = (0, 0)
    """Cyan's halftone cell, in pixels of the fine grid; (0, 0) prints continuous tone."""
    bleed: float = 0.0
    """How far the back page darkens the front one where it is black."""
    grain: float = 0.0
    """Standard deviation of the paper's reflectance."""
    spine: float = 0.0
    """Loss of light at the spine; negative when the spine is on the right."""
    warp: float = 0.0
    """Largest displacement, in pixels."""
    stains: int = 0
    dust: int = 0
    """Specks per 512x512 pixels."""
    hairs: int = 0
    blur: float = 0.0
    """Standard deviation of the optical blur, in pixels."""
    noise: float = 0.0
    """Standard deviation of the sensor noise."""
    banding: float = 0.0
    """Standard deviation of the gain from sensor column to column."""
    lines: int = 0
    """Faint lines one pixel wide, across the whole page, in each direction."""


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A plausible scanner and sheet; pages of one sheet should share one."""
    lift = rng.uniform(0.175, 0.228)
    paper = rng.uniform(0.945, 1.03)
    warmth = rng.normal(0.35, 0.6)
    # A scanner that lifts its blacks more bends its mid-tones down more, to look as contrasty;
    # tying the two also lets a restorer read the curve from the text.
    bend = -0.27 - 3.0 * (lift - 0.2) + rng.normal(0.0, 0.02)
    return Scanner(
        black=_triple(lift + rng.normal(0.0, 0.007, 3)),
        white=_triple(paper + warmth * np.array([0.006, 0.0, -0.016]) + rng.normal(0.0, 0.003, 3)),
        bend=_triple(bend + rng.normal(0.0, 0.03, 3)),
        impurity=float(rng.uniform(0.0, 0.07)),
        screen=((3, 1), (3, 2), (4, 1), (4, 2))[int(rng.integers(4))],
        bleed=float(0.05 + 0.1 * rng.random() ** 2 if rng.random() < 0.5 else 0.0),
        grain=float(rng.uniform(0.001, 0.005)),
        spine=float(rng.choice([-1, 0, 1]) * rng.uniform(0.02, 0.12)),
        warp=float(rng.uniform(0.0, 0.08)),
        stains=int(rng.random() < 0.15),
        dust=int(rng.poisson(3.0)),
        hairs=int(rng.poisson(0.4)),
        blur=float(rng.uniform(0.4, 0.62)),
        noise=float(rng.uniform(0.003, 0.009)),
        banding=float(rng.uniform(0.0, 0.004)),
        lines=int(rng.integers(1, 4) if rng.random() < 0.35 else 0),
    )


def print_and_scan(
    clean: FloatImage,
    *,
    back: FloatImage | None,
    scanner: Scanner,
    rng: np.random.Generator,
    place: tuple[int, int] | None = None,
) -> FloatImage:
    """The scan of a clean page whose sheet carries `back` (same shape) on its other side.

    Both are float32 [H, W, 3] in [0, 1], and so is the result. `back` None is a blank back. Where
    `clean` is a window of a page, `place` is its left edge and the page's width, in pixels.
    Raises SettingsError for a page that is not RGB, or a back of another shape.
    """
    _check_page(clean, back)
    page = warp(clean, reach=scanner.warp, rng=rng)
    page = halftone(page, screen=scanner.screen, rng=rng)
    if back is not None:
        page = bleed_through(page, back=back, weight=scanner.bleed)
    page = add_grain(page, strength=scanner.grain, rng=rng)
    page = add_stains(page, count=scanner.stains, rng=rng)
    page = shade_spine(page, strength=scanner.spine, place=place)
    page = colour_transition(
        page,
        black=scanner.black,
        white=scanner.white,
        bend=scanner.bend,
        impurity=scanner.impurity,
    )
    specks = round(scanner.dust * clean.shape[0] * clean.shape[1] / 512**2)
    page = add_dust(page, count=specks, rng=rng)
    page = add_hairs(page, count=scanner.hairs, rng=rng)
    page = blur_optics(page, sigma=scanner.blur)
    page = add_banding(page, strength=scanner.banding, rng=rng)
    page = add_lines(page, count=scanner.lines, rng=rng)
    page = add_sensor_noise(page, sigma=scanner.noise, rng=rng)
    return np.clip(page, 0.0, 1.0, out=page)


def _check_page(clean: FloatImage, back: FloatImage | None) -> None:
    if clean.ndim != 3 or clean.shape[2] != 3:
        raise SettingsError(
            f"a page to print must be RGB [H, W, 3], not an array of shape {clean.shape}",
            hint="repeat a gray page's channel three times",
        )
    if back is not None and back.shape != clean.shape:
        raise SettingsError(
            f"the back of the sheet is {back.shape} but its front is {clean.shape}",
            hint="draw both pages at one size",
        )


def _triple(values: npt.NDArray[np.float64]) -> Colour:
    red, green, blue = (float(v) for v in values)
    return red, green, blue
