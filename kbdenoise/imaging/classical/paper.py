"""The paper behind dark print, estimated as a large median, and taken away.

A stain, a fold or a shadow is wider than a stroke of the pen: a median over a window that is mostly
paper shows the page without its print. It is computed on a quarter of the size and on 8 bits, so it
is right to half a grey level; the picture itself keeps its precision.
"""

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, to_float, to_pixels

SCALE = 4  # px of the picture for one of the background's

_DARKEST = 0.2  # paper is never taken for darker; a photograph would turn white


def background_division(image: FloatImage, *, side: int, white: float) -> FloatImage:
    """Divide by the background seen through a window of `side` px: the paper becomes white.

    Whatever is at least `white` (0..1) times as light as its background becomes white as well,
    which removes the paper's grain.
    """
    background = np.maximum(background_of(image, side=side), np.float32(_DARKEST))
    flat: FloatImage = np.clip(image / (background * np.float32(white)), 0.0, 1.0)
    return flat


def background_subtraction(
    image: FloatImage, *, side: int, gain: float, tolerance: float
) -> FloatImage:
    """White minus how much darker a pixel is than the background, times `gain`.

    Pixels darker by less than `tolerance` (0..1) are taken for paper.
    """
    darker = background_of(image, side=side) - image - np.float32(tolerance)
    flat: FloatImage = np.clip(1 - np.float32(gain) * np.maximum(darker, 0), 0.0, 1.0)
    return flat


def background_of(image: FloatImage, *, side: int) -> FloatImage:
    """The picture's median over squares of about `side` px; float32 [H, W, C]."""
    height, width, channels = image.shape
    # As pictures are padded before they are restored, so that both ways give the same.
    padding = ((0, -height % SCALE), (0, -width % SCALE), (0, 0))
    padded = np.pad(image, padding, mode="reflect")
    size = (padded.shape[1], padded.shape[0])
    small = cv2.resize(padded, (size[0] // SCALE, size[1] // SCALE), interpolation=cv2.INTER_AREA)
    pixels = to_pixels(small.astype(np.float32, copy=False))
    seen = np.asarray(cv2.medianBlur(pixels, _small_side(side)), dtype=np.uint8)
    large = cv2.resize(to_float(seen), size, interpolation=cv2.INTER_LINEAR)
    background = np.asarray(large, dtype=np.float32).reshape(size[1], size[0], channels)
    return background[:height, :width]


def background_reach(side: int) -> int:
    """How far, in px, the background of a pixel sees: the window, and what interpolation adds."""
    return SCALE * (_small_side(side) // 2 + 2)


def _small_side(side: int) -> int:
    """The median's window on the small picture: odd, at least 3 px."""
    return max(3, side // SCALE | 1)
