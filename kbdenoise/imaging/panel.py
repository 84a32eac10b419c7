"""Pictures of pictures: labelled strips and sheets, for the eye."""

from collections.abc import Sequence

import cv2
import numpy as np

from kbdenoise.imaging.files import FloatImage, to_float

SHEET_ROWS = 6  # pictures on a contact sheet
SHEET_SIDE = 256  # px of one cell on it
DIFFERENCE_SCALE = 0.25  # of the full range, shown at full colour on it

_GAP = 6  # px of white between pictures
_GREY = np.array([0.5, 0.5, 0.5], dtype=np.float32)
_ORANGE = np.array([1.0, 0.55, 0.0], dtype=np.float32)
_BLUE = np.array([0.0, 0.35, 1.0], dtype=np.float32)
_LABEL = 18  # px of height for a line of words


def cell(image: FloatImage, *, side: int) -> FloatImage:
    """Shrink (never enlarge) an image [H, W, 1 or 3] into a white square of `side` px, RGB."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.atleast_3d(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    square = np.ones((side, side, 3), dtype=np.float32)
    square[: size[1], : size[0]] = small  # a gray picture fills all three channels
    return square


def difference(first: FloatImage, second: FloatImage, *, scale: float) -> FloatImage:
    """A signed map of first - second, RGB: grey is 0, blue negative, orange positive.

    `scale` is the difference shown at full colour. Blue and orange are told apart by colour-blind
    eyes as well.
    """
    signed = np.clip((first - second).mean(axis=2) / scale, -1.0, 1.0)[..., None]  # [H, W, 1]
    towards = np.where(signed > 0, _ORANGE, _BLUE)  # [H, W, 3]
    shown: FloatImage = _GREY + np.abs(signed) * (towards - _GREY)
    return shown


def strip(images: Sequence[FloatImage], labels: Sequence[str], *, side: int) -> FloatImage:
    """Images side by side in cells of `side` px, each with a line of words above it.

    What is not printable ASCII in a label is drawn as a question mark.
    """
    cells = []
    for image, label in zip(images, labels, strict=True):
        head = np.full((_LABEL, side, 3), 255, dtype=np.uint8)
        words = "".join(c if " " <= c <= "~" else "?" for c in label)  # OpenCV crashes on some
        cv2.putText(head, words, (1, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(np.vstack([to_float(head), cell(image, side=side)]))
    gap = np.ones((cells[0].shape[0], _GAP, 3), dtype=np.float32)
    parts = [part for one in cells for part in (one, gap)]
    return np.hstack(parts[:-1])


def stack(strips: Sequence[FloatImage]) -> FloatImage:
    """Strips of one width, one below the other."""
    gap = np.ones((_GAP, strips[0].shape[1], 3), dtype=np.float32)
    parts = [part for one in strips for part in (one, gap)]
    return np.vstack(parts[:-1])
