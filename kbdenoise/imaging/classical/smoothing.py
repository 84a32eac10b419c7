"""Filters that smooth: each pixel becomes an average or a median of pixels around it.

All take and return float32 [H, W, 1 or 3] in [0, 1]. What they see is bounded and fixed by their
parameters, never by the picture's size, so that tiles give what the whole picture gives.
"""

import math

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, to_float, to_pixels

NLM_PATCH = 5  # px, side of the patches that non-local means compares
TV_STEPS = 50  # of Chambolle's iteration; each one reaches one pixel further

_FLOAT_MEDIAN = 5  # px, the largest side for which OpenCV's median takes floats


def median(image: FloatImage, *, side: int) -> FloatImage:
    """Median over a square of `side` px (odd), each channel by itself.

    Exact for 8-bit and 16-bit pictures alike; the latter take long where `side` is above 5.
    """
    if side <= _FLOAT_MEDIAN:
        return _channels_kept(cv2.medianBlur(_for_opencv(image), side))
    pixels = to_pixels(image)
    if np.array_equal(to_float(pixels), image):
        filtered = np.asarray(cv2.medianBlur(_for_opencv(pixels), side), dtype=np.uint8)
        return _channels_kept(to_float(filtered))
    from skimage.filters import median as any_median  # a second that most commands can do without

    window = np.ones((side, side), dtype=np.uint8)
    planes = [any_median(plane, window, mode="nearest") for plane in np.moveaxis(image, 2, 0)]
    return np.stack(planes, axis=2).astype(np.float32)


def gaussian(image: FloatImage, *, sigma: float) -> FloatImage:
    """Convolution with a Gaussian of standard deviation `sigma` px, cut off at `reach`."""
    side = 2 * gaussian_reach(sigma) + 1
    return _within(cv2.GaussianBlur(_for_opencv(image), (side, side), sigma))


def gaussian_reach(sigma: float) -> int:
    """Radius in px beyond which a Gaussian is taken for zero."""
    return max(1, math.ceil(3 * sigma))


def bilateral(image: FloatImage, *, sigma_space: float, sigma_colour: float) -> FloatImage:
    """Average of pixels that are near (`sigma_space`, px) and alike (`sigma_colour`, 0..1)."""
    side = 2 * bilateral_reach(sigma_space) + 1
    return _within(cv2.bilateralFilter(_for_opencv(image), side, sigma_colour, sigma_space))


def bilateral_reach(sigma_space: float) -> int:
    """Radius in px of the window of `bilateral`."""
    return max(1, math.ceil(2 * sigma_space))


def nlm(image: FloatImage, *, strength: float, search: int) -> FloatImage:
    """Non-local means: average of pixels whose surroundings look alike, `search` px far around.

    `strength` in image units is how much patches may differ; near 0.8 of the noise's standard
    deviation. The channels of a colour picture are compared together.
    """
    from skimage.restoration import denoise_nl_means

    smoothed = denoise_nl_means(
        image,
        patch_size=NLM_PATCH,
        patch_distance=search,
        h=strength,
        fast_mode=True,
        channel_axis=-1,
    )
    return _within(np.reshape(smoothed, image.shape))  # axes of length 1 get lost on the way


def tv(image: FloatImage, *, weight: float) -> FloatImage:
    """Least total variation near the picture, each channel by itself; more `weight`, flatter.

    Always TV_STEPS steps: a stop by tolerance would make a pixel depend on the whole picture.
    """
    from skimage.restoration import denoise_tv_chambolle

    return _within(
        denoise_tv_chambolle(image, weight=weight, eps=0.0, max_num_iter=TV_STEPS, channel_axis=2)
    )


def _for_opencv(image: np.ndarray) -> np.ndarray:
    """[H, W, C] -> [H, W] or [H, W, 3], in one piece."""
    return np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)


def _channels_kept(image: np.ndarray) -> FloatImage:
    return np.atleast_3d(image).astype(np.float32, copy=False)


def _within(image: np.ndarray) -> FloatImage:
    """Clipped to [0, 1], which averages leave by rounding only."""
    return np.clip(_channels_kept(image), 0.0, 1.0)
