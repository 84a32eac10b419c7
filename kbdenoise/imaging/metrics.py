"""Image quality in one definition each, used by training, evaluation and the report alike.

Images are float32 [H, W, C] in [0, 1]; every metric takes (restored, clean) of one shape.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.luma import mean_luma

_SSIM_WINDOW = 11  # px
_PERFECT_DB = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score per image and the way in which a contest pools it over a test set."""

    name: str
    score: Callable[[FloatImage, FloatImage], float]
    pool: Callable[[Sequence[float], Sequence[int]], float]
    """Takes the scores of all images and their sizes in values (H*W*C)."""
    lower_is_better: bool
    unit: str

    def better(self, first: float, second: float) -> bool:
        """Whether `first` is strictly the better of two scores; NaN is never better."""
        return first < second if self.lower_is_better else first > second

    @property
    def worst(self) -> float:
        """The score that every real score beats."""
        return float("inf") if self.lower_is_better else float("-inf")


def rmse(restored: FloatImage, clean: FloatImage) -> float:
    """Root of the mean squared error over all values of an image."""
    return float(np.sqrt(_mean_square(restored, clean)))


def psnr(restored: FloatImage, clean: FloatImage) -> float:
    """Peak signal-to-noise ratio in dB for a data range of 1; infinite for equal images."""
    mean_square = _mean_square(restored, clean)
    return float("inf") if mean_square == 0 else float(-10.0 * np.log10(mean_square))


def ssim(restored: FloatImage, clean: FloatImage) -> float:
    """Structural similarity with data range 1, averaged over channels (Wang et al., 2004).

    Gaussian window of 11 pixels, sigma 1.5, as in the paper; NaN for an image smaller than it.
    """
    if min(clean.shape[:2]) < _SSIM_WINDOW:
        return float("nan")
    from skimage.metrics import structural_similarity  # a quarter of a second that few need

    return float(
        structural_similarity(
            restored,
            clean,
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def mean_luma_error(restored: FloatImage, clean: FloatImage) -> float:
    """Absolute difference of the two images' mean lumas, in grey levels 0..255."""
    return abs(mean_luma(restored) - mean_luma(clean))


def metric(name: str) -> Metric:
    """Look a metric up by name; raises SettingsError with the nearest name."""
    if name not in METRICS:
        raise SettingsError(f"no metric is called '{name}'", hint=nearest(name, METRICS))
    return METRICS[name]


def _mean_square(restored: FloatImage, clean: FloatImage) -> float:
    difference = restored.astype(np.float64) - clean.astype(np.float64)
    return float(np.mean(np.square(difference)))


def _mean(scores: Sequence[float], sizes: Sequence[int]) -> float:
    """The mean over the pictures that have a score; NaN when none has."""
    known = [score for score in scores if not math.isnan(score)]
    return float(np.mean(known)) if known else math.nan


def _mean_capped(scores: Sequence[float], sizes: Sequence[int]) -> float:
    """The mean PSNR, where a picture restored exactly counts 100 dB instead of infinity."""
    return _mean([min(score, _PERFECT_DB) for score in scores], sizes)


def _pooled_root(scores: Sequence[float], sizes: Sequence[int]) -> float:
    """RMSE over the values of all images together, from each image's own RMSE."""
    return float(np.sqrt(np.average(np.square(scores), weights=sizes)))


METRICS: dict[str, Metric] = {
    "mae-mean-luma": Metric(
        name="mae-mean-luma",
        score=mean_luma_error,
        pool=_mean,
        lower_is_better=True,
        unit="grey levels",
    ),
    "rmse": Metric(name="rmse", score=rmse, pool=_pooled_root, lower_is_better=True, unit="0..1"),
    "psnr": Metric(name="psnr", score=psnr, pool=_mean_capped, lower_is_better=False, unit="dB"),
    "ssim": Metric(name="ssim", score=ssim, pool=_mean, lower_is_better=False, unit="0..1"),
}
