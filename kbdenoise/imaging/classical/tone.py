"""One polynomial a channel from noisy to clean: the scanner's tone curve undone.

Fitted by least squares over all pixels of the pairs. Only the pixels' number, mean and mean clean
value at each of 256 noisy levels are kept, which is all that least squares asks for: memory does
not grow with the pictures.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kbdenoise.imaging.files import FloatImage

_LEVELS = 256
_SATURATED = 0.02  # a mean clean value this near to 0 or 1 may be overshot, for clipping mends it
_ROUNDS = 5

Table = npt.NDArray[np.float64]


def tone_curve(image: FloatImage, *, curves: Sequence[Sequence[float]]) -> FloatImage:
    """Put each channel through its polynomial; `curves[c]` begins with the constant.

    A single curve does for all channels. Takes and returns float32 [H, W, C] in [0, 1].
    """
    toned = np.empty_like(image)
    for c in range(image.shape[2]):
        value = np.zeros(image.shape[:2], dtype=np.float32)
        for coefficient in reversed(curves[c if len(curves) > 1 else 0]):
            value = value * image[..., c] + np.float32(coefficient)
        toned[..., c] = np.clip(value, 0.0, 1.0)
    return toned


def fit_tone_curves(
    pairs: Iterable[tuple[FloatImage, FloatImage]], candidates: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The curves of every candidate `degree`, fitted to (noisy, clean) pairs.

    Curves that fall somewhere are left out, because they would turn print into its negative; so
    are degrees that the pairs have too few grey levels for. The lowest degree always stays.
    """
    sums = _sums(pairs)
    degrees = sorted(candidate["degree"] for candidate in candidates)
    fitted = []
    for degree in degrees:
        curves = [_curve(channel, degree) for channel in sums]
        known = min(np.count_nonzero(channel[0]) for channel in sums) > degree
        if degree == degrees[0] or (known and all(_rises(curve) for curve in curves)):
            fitted.append({"curves": [[float(v) for v in curve] for curve in curves]})
    return fitted


def _sums(pairs: Iterable[tuple[FloatImage, FloatImage]]) -> npt.NDArray[np.float64]:
    """Number of pixels, sum of noisy and sum of clean at each noisy level: [C, 3, 256]."""
    sums: npt.NDArray[np.float64] | None = None
    for noisy, clean in pairs:
        channels = noisy.shape[2]
        if sums is None:
            sums = np.zeros((channels, 3, _LEVELS))
        for c in range(channels):
            x, y = noisy[..., c].ravel(), clean[..., c].ravel()
            level = np.rint(x * (_LEVELS - 1)).astype(np.intp)
            for row, weights in enumerate((None, x, y)):
                sums[c, row] += np.bincount(level, weights=weights, minlength=_LEVELS)
    assert sums is not None
    return sums


def _curve(sums: Table, degree: int) -> Table:
    """Coefficients of the polynomial with the least squared error after clipping.

    Where clean is white or black, a prediction beyond that costs nothing. Those levels are left out
    and the others fitted again, as long as that helps: otherwise the many white pixels of a page
    would bend the curve of its mid-tones.
    """
    count, noisy_sum, clean_sum = (row[sums[0] > 0] for row in sums)
    noisy, clean = noisy_sum / count, clean_sum / count
    powers = np.vander(noisy, degree + 1, increasing=True)  # [levels, degree + 1]
    counted = np.ones(len(count), dtype=bool)
    best, least = np.zeros(degree + 1), np.inf
    for _ in range(_ROUNDS):
        weights = np.sqrt(count * counted)
        curve = np.linalg.lstsq(powers * weights[:, None], clean * weights, rcond=None)[0]
        value = powers @ curve
        error = float(count @ (np.clip(value, 0.0, 1.0) - clean) ** 2)
        if not error < least:
            break
        best, least = curve, error
        beyond_white = (value > 1) & (clean > 1 - _SATURATED)
        beyond_black = (value < 0) & (clean < _SATURATED)
        counted = ~(beyond_white | beyond_black)
        if not counted.any():
            break
    return best


def _rises(curve: Table) -> bool:
    """Whether the clipped curve falls nowhere between black and white."""
    levels = np.linspace(0.0, 1.0, _LEVELS)
    value = np.clip(np.polynomial.polynomial.polyval(levels, curve), 0.0, 1.0)
    return bool((np.diff(value) >= -1e-6).all())
