"""Structural similarity as a loss, at one scale or several.

Images are float32 [B, C, H, W] with a data range of 1; channels are compared one by one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.errors import SettingsError

WINDOW = 11
"""Side in px of the Gaussian window; a picture has to hold one."""

_SIGMA = 1.5  # px
_C1, _C2 = 0.01**2, 0.03**2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest first
_LEAST_LIKENESS = 0.05
_HALF = WINDOW // 2
_BELLS = [math.exp(-0.5 * (distance / _SIGMA) ** 2) for distance in range(_HALF + 1)]
_TAPS = [bell / (2 * sum(_BELLS) - _BELLS[0]) for bell in _BELLS]  # by distance from the centre


def ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """1 - SSIM of each picture, [B]; raises SettingsError for one smaller than the window.

    Windows lie wholly inside the picture, as in scikit-image with Gaussian weights.

    Source: Wang et al., 'Image Quality Assessment: From Error Visibility to Structural Similarity',
    2004, equation 13 with its window and constants.
    """
    _check_side(restored)
    lightness, structure = _maps(restored, clean)
    return 1 - (lightness * structure).mean(dim=(1, 2, 3))


def ms_ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """1 - MS-SSIM of each picture, [B]; raises SettingsError for one smaller than the window.

    Five scales need 176 px; below that the coarser ones are left out, and the weights of the others
    sum to one again. A likeness x below 0.05 at any scale counts as 0.05^2 / (0.1 - x), as the
    product of powers has no value for a negative one; so it keeps a gradient.

    Source: Wang et al., 'Multi-scale Structural Similarity for Image Quality Assessment', 2003,
    equation 7, of each channel, halved by the mean of 2x2 px.
    """
    _check_side(restored)
    scales = min(len(_SCALE_WEIGHTS), 1 + int(math.log2(min(restored.shape[2:]) // WINDOW)))
    weights = _SCALE_WEIGHTS[:scales]
    total = restored.new_zeros(restored.shape[:2])  # [B, C]
    for scale, weight in enumerate(weights, start=1):
        lightness, structure = _maps(restored, clean)
        likeness = lightness * structure if scale == scales else structure
        mean = likeness.mean(dim=(2, 3))  # [B, C, h, w] -> [B, C]
        total = total + weight / sum(weights) * _log(mean)
        if scale < scales:
            restored, clean = F.avg_pool2d(restored, 2), F.avg_pool2d(clean, 2)
    return 1 - total.exp().mean(dim=1)  # [B, C] -> [B]


def _maps(restored: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Likeness of lightness, and of contrast and structure, at every window: [B, C, H-10, W-10]."""
    mean_r, mean_c = _blurred(restored), _blurred(clean)
    product, squares = mean_r * mean_c, mean_r.square() + mean_c.square()
    covariance = _blurred(restored * clean) - product
    variances = _blurred(restored.square() + clean.square()) - squares
    lightness = (2 * product + _C1) / (squares + _C1)
    return lightness, (2 * covariance + _C2) / (variances + _C2)


def _blurred(image: Tensor) -> Tensor:
    """Gaussian means of all windows inside the picture: [B, C, H, W] -> [B, C, H-10, W-10].

    Sums of shifted pictures: on a CPU twice as fast as a convolution, and in full float32 on every
    GPU, where a convolution may round to TF32, too coarse for differences of squares.
    """
    for dim in (2, 3):
        length = image.shape[dim] - 2 * _HALF
        total = _TAPS[0] * image.narrow(dim, _HALF, length)
        for distance in range(1, _HALF + 1):
            before = image.narrow(dim, _HALF - distance, length)
            after = image.narrow(dim, _HALF + distance, length)
            total = torch.add(total, before + after, alpha=_TAPS[distance])
        image = total
    return image


def _log(likeness: Tensor) -> Tensor:
    """The logarithm of x, or below low = _LEAST_LIKENESS that of low^2 / (2 low - x)."""
    low = _LEAST_LIKENESS
    far = (2 * low - likeness.clamp(max=low)) / low  # 1 from `low` up
    return likeness.clamp(min=low).log() - far.log()


def _check_side(image: Tensor) -> None:
    height, width = image.shape[2:]
    if min(height, width) < WINDOW:
        raise SettingsError(
            f"structural similarity needs at least {WINDOW}x{WINDOW} px, but got {width}x{height}",
            hint="take larger patches, or another loss",
        )
