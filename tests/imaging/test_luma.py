import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.luma import (
    Space,
    luma,
    mean_luma,
    mean_luma_of_pixels,
    plane,
    plane_of_pixels,
)


@given(npst.arrays(np.uint8, (5, 6, 3)))
def test_luma_equals_opencvs_full_range_y(pixels: np.ndarray) -> None:
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)[..., 0]

    # OpenCV rounds, and its coefficients have 14 bits: that of green is 0.408 / 2**14 too small.
    assert np.abs(255 * luma(to_float(pixels)) - expected).max() < 0.507
    assert mean_luma_of_pixels(pixels) == pytest.approx(expected.mean(), abs=1e-9)


def test_the_mean_of_many_pixels_agrees_with_opencv_to_a_hundredth() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    bgr = np.ascontiguousarray(pixels[..., ::-1])

    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)[..., 0].mean()

    assert mean_luma(to_float(pixels)) == pytest.approx(expected, abs=0.01)
    assert mean_luma_of_pixels(pixels) == pytest.approx(expected, abs=0.01)


def test_swapped_channels_and_other_weights_are_told_apart() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200

    assert mean_luma_of_pixels(red) == pytest.approx(0.299 * 200, abs=0.5)
    assert mean_luma(to_float(red)) == pytest.approx(0.299 * 200, abs=1e-4)


def test_gray_is_its_own_luma_at_both_depths() -> None:
    gray = np.full((3, 3, 1), 77, np.uint8)

    assert mean_luma_of_pixels(gray) == 77
    assert mean_luma_of_pixels(gray.astype(np.uint16) * 257) == pytest.approx(77, abs=1e-4)
    assert luma(to_float(gray)).shape == (3, 3)


@pytest.mark.parametrize(
    ("space", "weights", "black", "white"),
    [
        ("y601", (0.299, 0.587, 0.114), 0, 255),
        ("y601-limited", (0.299, 0.587, 0.114), 16, 235),
        ("gray709", (0.2126, 0.7152, 0.0722), 0, 255),
        ("r", (1, 0, 0), 0, 255),
        ("g", (0, 1, 0), 0, 255),
        ("b", (0, 0, 1), 0, 255),
    ],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_every_gray_is_the_weighted_sum_it_is_called_after(
    space: Space, weights: tuple[float, ...], black: int, white: int, bits: int
) -> None:
    top = 2**bits - 1
    pixels = np.random.default_rng(0).integers(0, top + 1, (5, 6, 3), dtype=f"uint{bits}")
    expected = (black + (white - black) * (pixels / top @ np.array(weights))) / 255

    assert np.abs(plane(to_float(pixels), space) - expected).max() < 1e-6
    rounding = (0.51 if bits == 8 else 1.5) / top  # OpenCV's 16-bit luma is no finer
    stored = plane_of_pixels(pixels, space)
    assert stored.dtype == pixels.dtype
    assert np.abs(stored / top - expected).max() <= rounding
    gray = pixels[..., :1]
    black_and_white = (black + (white - black) * (gray[..., 0] / top)) / 255
    assert np.abs(plane(to_float(gray), space) - black_and_white).max() < 1e-6
    assert np.abs(plane_of_pixels(gray, space) / top - black_and_white).max() <= rounding
