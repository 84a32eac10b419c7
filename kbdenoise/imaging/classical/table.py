"""The table of filters: what each does, its parameters and the values worth trying."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.imaging.classical import paper, smoothing, tone, wavelet
from kbdenoise.imaging.classical.summaries import SUMMARIES
from kbdenoise.imaging.files import FloatImage

Parameters = Mapping[str, Any]
Pair = tuple[FloatImage, FloatImage]
"""Noisy and clean, float32 [H, W, C] in [0, 1]."""
Fit = Callable[[Iterable[Pair], Sequence[dict[str, Any]]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The values of a parameter that are worth trying, rising, and what they mean."""

    values: tuple[float, ...]
    words: str
    kind: Literal["odd", "whole", "real"]
    least: float = 0.0
    """Values below make no sense, nor do those above `most`."""
    most: float = math.inf

    def between(self, first: float, second: float) -> float:
        """A value half-way in proportion, or in the middle where one of them is zero."""
        middle = math.sqrt(first * second) if first and second else (first + second) / 2
        if self.kind == "real":
            return float(f"{middle:.3g}")
        return 2 * round((middle - 1) / 2) + 1 if self.kind == "odd" else round(middle)

    def checked(self, value: Any, *, where: str) -> float:
        """The value as a number of this kind. Raises SettingsError naming `where` it came from."""
        need = {"odd": "an odd whole number", "whole": "a whole number", "real": "a number"}
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and math.isfinite(value) and self.least <= value <= self.most:
            if self.kind == "real":
                return float(value)
            if value == int(value) and (self.kind == "whole" or value % 2 == 1):
                return int(value)
        limit = f"at least {self.least:g}"
        if math.isfinite(self.most):
            limit = f"between {self.least:g} and {self.most:g}"
        raise SettingsError(
            f"{where} is {value!r}", hint=f"give {need[self.kind]}, {limit}: {self.words}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter, and how to choose its parameters."""

    apply: Callable[..., FloatImage]
    """Takes the picture and the parameters by name."""
    grid: Mapping[str, Grid]
    summary: str
    paper: str
    reach: Callable[[Parameters], int | None]
    """How far, in px, an output pixel sees; None means the whole picture."""
    seconds_per_megavalue: float
    """Rough time for 10^6 values (H*W*C) on one core: how many pictures can be tried."""
    slowdown_16_bit: float = 1.0
    """How many times as long 16-bit values take."""
    multiple: int = 1
    """Tiles start at multiples of this, in px."""
    fit: Fit | None = None
    """Turns points of the grid into parameters of `apply`; None where they are the same."""

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters that are chosen, each with its meaning in words."""
        return {name: grid.words for name, grid in self.grid.items()}


def find_filter(name: str) -> Filter:
    """The entry of `FILTERS`. Raises SettingsError, with the nearest name, when there is none."""
    if name not in FILTERS:
        raise SettingsError(f"there is no filter called {name!r}", hint=nearest(name, FILTERS))
    return FILTERS[name]


_SIDE = Grid(
    values=(17, 33, 65, 129), words="side of the window in px", kind="odd", least=1, most=1001
)

FILTERS: dict[str, Filter] = {
    "median": Filter(
        apply=smoothing.median,
        grid={
            "side": Grid(
                values=(3, 5, 7, 11),
                words="side of the window in px",
                kind="odd",
                least=1,
                most=255,
            )
        },
        summary=SUMMARIES["median"],
        paper="Tukey, 'Exploratory Data Analysis', 1977",
        reach=lambda p: int(p["side"]) // 2,
        seconds_per_megavalue=0.05,
        slowdown_16_bit=60.0,
    ),
    "gaussian": Filter(
        apply=smoothing.gaussian,
        grid={
            "sigma": Grid(
                values=(0.4, 0.6, 0.9, 1.4, 2.0),
                words="standard deviation in px",
                kind="real",
                least=0.05,
                most=50.0,
            )
        },
        summary=SUMMARIES["gaussian"],
        paper="Marr and Hildreth, 'Theory of Edge Detection', 1980",
        reach=lambda p: smoothing.gaussian_reach(p["sigma"]),
        seconds_per_megavalue=0.01,
    ),
    "bilateral": Filter(
        apply=smoothing.bilateral,
        grid={
            "sigma_space": Grid(
                values=(1.0, 2.0, 3.0),
                words="standard deviation in px",
                kind="real",
                least=0.1,
                most=20.0,
            ),
            "sigma_colour": Grid(
                values=(0.03, 0.06, 0.12, 0.24),
                words="difference that still counts as alike, 0..1",
                kind="real",
                least=0.001,
                most=2.0,
            ),
        },
        summary=SUMMARIES["bilateral"],
        paper="Tomasi and Manduchi, 'Bilateral Filtering for Gray and Color Images', 1998",
        reach=lambda p: smoothing.bilateral_reach(p["sigma_space"]),
        seconds_per_megavalue=0.1,
    ),
    "nlm": Filter(
        apply=smoothing.nlm,
        grid={
            "strength": Grid(
                values=(0.02, 0.04, 0.08, 0.16),
                words="difference of patches that still counts as alike, 0..1",
                kind="real",
                least=0.001,
                most=2.0,
            ),
            "search": Grid(
                values=(3, 5),
                words="how far alike patches are sought, px",
                kind="whole",
                least=1,
                most=32,
            ),
        },
        summary=SUMMARIES["nlm"],
        paper="Buades et al., 'A Non-Local Algorithm for Image Denoising', 2005",
        reach=lambda p: int(p["search"]) + smoothing.NLM_PATCH // 2,
        seconds_per_megavalue=0.9,
    ),
    "tv": Filter(
        apply=smoothing.tv,
        grid={
            "weight": Grid(
                values=(0.01, 0.03, 0.06, 0.12, 0.24),
                words="how much flatness counts against likeness",
                kind="real",
                least=0.0001,
                most=10.0,
            )
        },
        summary=SUMMARIES["tv"],
        paper="Chambolle, 'An Algorithm for Total Variation Minimization and Applications', 2004",
        reach=lambda p: smoothing.TV_STEPS + 1,
        seconds_per_megavalue=0.4,
    ),
    "wavelet": Filter(
        apply=wavelet.wavelet,
        grid={
            "threshold": Grid(
                values=(0.03, 0.06, 0.12, 0.24),
                words="shrinkage of the finest differences, halved at each scale, 0..1",
                kind="real",
                least=0.0,
                most=2.0,
            ),
            "levels": Grid(
                values=(1, 2, 4), words="scales, each twice the last", kind="whole", least=1, most=6
            ),
        },
        summary=SUMMARIES["wavelet"],
        paper="Coifman and Donoho, 'Translation-Invariant De-Noising', 1995",
        reach=lambda p: wavelet.wavelet_reach(int(p["levels"])),
        seconds_per_megavalue=0.15,
    ),
    "background-division": Filter(
        apply=paper.background_division,
        grid={
            "side": _SIDE,
            "white": Grid(
                values=(0.7, 0.8, 0.9, 0.95, 1.0),
                words="share of the paper's lightness that counts as white, 0..1",
                kind="real",
                least=0.05,
                most=1.0,
            ),
        },
        summary=SUMMARIES["background-division"],
        paper="after the flat-field correction of photography; nothing to cite",
        reach=lambda p: paper.background_reach(int(p["side"])),
        seconds_per_megavalue=0.01,
        multiple=paper.SCALE,
    ),
    "background-subtraction": Filter(
        apply=paper.background_subtraction,
        grid={
            "side": _SIDE,
            "gain": Grid(
                values=(1.0, 1.3, 1.7, 2.2),
                words="contrast of the print",
                kind="real",
                least=0.1,
                most=10.0,
            ),
            "tolerance": Grid(
                values=(0.0, 0.03, 0.06, 0.1, 0.15),
                words="darkness that still counts as paper, 0..1",
                kind="real",
                least=0.0,
                most=1.0,
            ),
        },
        summary=SUMMARIES["background-subtraction"],
        paper="after the top-hat transform of mathematical morphology (Serra, 1982)",
        reach=lambda p: paper.background_reach(int(p["side"])),
        seconds_per_megavalue=0.01,
        multiple=paper.SCALE,
    ),
    "tone-fit": Filter(
        apply=tone.tone_curve,
        grid={
            "degree": Grid(
                values=(1, 2, 3, 4, 5), words="of the polynomials", kind="whole", least=1, most=9
            )
        },
        summary=SUMMARIES["tone-fit"],
        paper="least squares; nothing to cite",
        reach=lambda p: 0,
        seconds_per_megavalue=0.05,
        fit=tone.fit_tone_curves,
    ),
}
