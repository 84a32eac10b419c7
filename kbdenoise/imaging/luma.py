"""Luma, in one place: full-range BT.601, Y = 0.299 R + 0.587 G + 0.114 B.

It equals channel 0 of OpenCV's `BGR2YUV`. Not Rec.709, not the 16..235 range, not a channel mean:
each of those costs a contest score up to 16 grey levels.
"""

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, Pixels

BT601 = np.array([0.299, 0.587, 0.114], dtype=np.float64)


def luma(image: FloatImage) -> FloatImage:
    """Luma of float images [..., H, W, 3] RGB or [..., H, W, 1] in [0, 1]: float32 [..., H, W]."""
    if image.shape[-1] == 1:
        return image[..., 0]
    return (image @ BT601.astype(image.dtype)).astype(np.float32)  # [..., H, W, 3] -> [..., H, W]


def mean_luma(image: FloatImage) -> float:
    """Mean luma of a float image in [0, 1], in grey levels 0..255, without rounding a pixel."""
    means = image.mean(axis=(0, 1), dtype=np.float64)  # [H, W, C] -> [C]
    return float(255.0 * (means[0] if means.size == 1 else means @ BT601))


def mean_luma_of_pixels(pixels: Pixels) -> float:
    """Mean luma of stored pixels [H, W, 1 or 3], in grey levels 0..255.

    For 8-bit RGB this is OpenCV's rounded Y, pixel by pixel, as the contest's scorer computes it.
    """
    if pixels.dtype == np.uint16:
        return mean_luma(pixels.astype(np.float32) / np.float32(65535.0))
    if pixels.shape[2] == 1:
        return float(pixels.mean(dtype=np.float64))
    y = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2YUV)[..., 0]
    return float(y.mean(dtype=np.float64))
