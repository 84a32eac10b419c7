"""Classical filters, as the yardstick that a network has to beat.

Each takes and returns float32 [H, W, 1 or 3] in [0, 1]. `choose` picks a filter's parameter on
training pairs with the contest's own metric, so that the comparison is fair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, to_pixels
from kbdenoise.imaging.metrics import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A filter with one parameter and the values worth trying."""

    apply: Callable[[FloatImage, float], FloatImage]
    values: tuple[float, ...]
    parameter: str


def median(image: FloatImage, side: float) -> FloatImage:
    """Median over a square of `side` px (odd), each channel by itself."""
    return _median(image, int(side))


def background_division(image: FloatImage, side: float) -> FloatImage:
    """Divide by the background, a median over a large square of `side` px: paper becomes white.

    Made for dark text on light paper; the background is never taken for darker than 0.2.
    """
    height, width = image.shape[:2]
    across, down = max(0.25, 1 / width), max(0.25, 1 / height)  # at least one pixel is left
    small = cv2.resize(image, None, fx=across, fy=down, interpolation=cv2.INTER_AREA)
    blurred = _median(np.atleast_3d(small), max(3, int(side / 4) | 1))
    background = np.atleast_3d(cv2.resize(blurred, (width, height)))
    return np.clip(image / np.maximum(background, 0.2), 0.0, 1.0).astype(np.float32)


def choose(
    chosen: Filter, pairs: Sequence[tuple[FloatImage, FloatImage]], *, metric: Metric
) -> float:
    """The parameter value that scores best on (noisy, clean) pairs."""
    sizes = [clean.size for _, clean in pairs]
    best, best_score = chosen.values[0], metric.worst
    for value in chosen.values:
        scores = [metric.score(chosen.apply(noisy, value), clean) for noisy, clean in pairs]
        score = metric.pool(scores, sizes)
        if metric.better(score, best_score):
            best, best_score = value, score
    return best


def _median(image: FloatImage, side: int) -> FloatImage:
    filtered = cv2.medianBlur(
        np.squeeze(to_pixels(image), axis=2) if image.shape[2] == 1 else to_pixels(image), side
    )
    return np.atleast_3d(filtered).astype(np.float32) / np.float32(255.0)


FILTERS: dict[str, Filter] = {
    "median": Filter(apply=median, values=(3, 5, 7), parameter="side in px"),
    "background division": Filter(
        apply=background_division, values=(25, 51, 101, 201), parameter="side in px"
    ),
}
