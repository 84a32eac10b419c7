"""Luma, in one place: full-range BT.601, Y = 0.299 R + 0.587 G + 0.114 B.

It equals channel 0 of OpenCV's `BGR2YUV`. Not Rec.709, not the 16..235 range, not a channel mean:
each of those costs a contest score up to 16 grey levels. A contest that scores one of those names
it, and `plane` makes it.
"""

from typing import Literal

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, Pixels, to_float, to_pixels, with_channels

BT601 = np.array([0.299, 0.587, 0.114], dtype=np.float64)
BT709 = np.array([0.2126, 0.7152, 0.0722], dtype=np.float64)

Space = Literal["y601", "y601-limited", "gray709", "r", "g", "b"]
"""What a gray value is: full-range luma, luma in 16..235, Rec.709 luma, or one channel."""

_BLACK, _WHITE = 16 / 255, 235 / 255  # of the limited range


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


def plane(image: FloatImage, space: Space) -> FloatImage:
    """Gray values in [0, 1] of a float image [H, W, 1 or 3]: float32 [H, W]."""
    if space == "y601":
        return luma(image)
    if space == "y601-limited":
        return np.float32(_BLACK) + luma(image) * np.float32(_WHITE - _BLACK)
    if image.shape[2] == 1:
        return image[..., 0]
    if space == "gray709":
        return (image @ BT709.astype(image.dtype)).astype(np.float32)  # [H, W, 3] -> [H, W]
    return image[..., "rgb".index(space)]


def plane_of_pixels(pixels: Pixels, space: Space) -> Pixels:
    """Gray values of stored pixels [H, W, 1 or 3], rounded at their own bit depth: [H, W]."""
    if space == "y601":
        return with_channels(pixels, 1)[..., 0]
    if space in ("r", "g", "b"):
        return pixels[..., "rgb".index(space) if pixels.shape[2] == 3 else 0]
    return to_pixels(plane(to_float(pixels), space), bit_depth=8 * pixels.itemsize)
