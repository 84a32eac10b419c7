"""Wavelet shrinkage, written out: undecimated Haar wavelets with soft thresholds.

Nothing is left out between the scales, so that the result does not depend on where the picture's
corner lies (Coifman and Donoho, 'Translation-Invariant De-Noising', 1995); that removes the blocks
which a decimated transform leaves. scikit-image's `denoise_wavelet` decimates, measures the noise
over the whole picture, so that tiles would differ, and needs another package for its transform.
"""

import numpy as np

from kbdenoise.imaging.files import FloatImage

_AXES = (0, 1)


def wavelet(image: FloatImage, *, threshold: float, levels: int) -> FloatImage:
    """Shrink the differences at `levels` scales: those of noise vanish, edges lose a little.

    `threshold` is in standard deviations' unit of the picture's pixels, 0..1; at each scale it is
    weakened as white noise is there. Takes and returns float32 [H, W, C] in [0, 1].
    """
    border = wavelet_reach(levels)
    size = [slice(border, border + length) for length in image.shape[:2]]
    mean = np.pad(image, ((border, border), (border, border), (0, 0)), mode="symmetric")
    details = []
    for level in range(levels):
        mean, *differences = _split(mean, step=2**level)
        # A coefficient averages 4^(level + 1) pixels with equal weights, signs aside.
        limit = np.float32(threshold / 2 ** (level + 1))
        details.append([_shrunk(difference, limit) for difference in differences])
    for level in reversed(range(levels)):
        mean = _joined(mean, details.pop(), step=2**level)
    return np.clip(mean[size[0], size[1]], 0.0, 1.0)


def wavelet_reach(levels: int) -> int:
    """How far, in px, an output pixel sees."""
    return int(2**levels - 1)


def _split(image: FloatImage, *, step: int) -> list[FloatImage]:
    """Means and differences of pixels `step` apart, along both axes: four bands, the mean first."""
    bands = [image]
    for axis in _AXES:
        shifted = [np.roll(band, -step, axis=axis) for band in bands]
        pairs = list(zip(bands, shifted, strict=True))
        bands = [(a + b) * np.float32(0.5) for a, b in pairs]
        bands += [(a - b) * np.float32(0.5) for a, b in pairs]
    return bands


def _joined(mean: FloatImage, differences: list[FloatImage], *, step: int) -> FloatImage:
    """The inverse of `_split`: each pixel is the average of the two ways to get it back."""
    bands = [mean, *differences]
    for axis in reversed(_AXES):
        half = len(bands) // 2
        bands = [
            (low + high + np.roll(low - high, step, axis=axis)) * np.float32(0.5)
            for low, high in zip(bands[:half], bands[half:], strict=True)
        ]
    return bands[0]


def _shrunk(difference: FloatImage, limit: np.float32) -> FloatImage:
    """Soft threshold: nearer to zero by `limit`, and zero within it."""
    shrunk: FloatImage = difference - np.clip(difference, -limit, limit)
    return shrunk
