import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as npst

from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.luma import luma, mean_luma, mean_luma_of_pixels


@given(npst.arrays(np.uint8, (5, 6, 3)))
def test_luma_equals_opencvs_full_range_y(pixels: np.ndarray) -> None:
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    expected = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)[..., 0]

    assert np.abs(255 * luma(to_float(pixels)) - expected).max() <= 0.501
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
