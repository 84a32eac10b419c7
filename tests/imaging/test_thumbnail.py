import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.imaging.files import Pixels, to_float
from kbdenoise.imaging.thumbnail import thumbnail


def pixels(height: int, width: int, channels: int = 3, *, bits: int = 8) -> Pixels:
    dtype = np.uint8 if bits == 8 else np.uint16
    shape = (height, width, channels)
    return np.random.default_rng(height).integers(0, 2**bits, shape, dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    side=st.sampled_from([1, 7, 64]),
    bits=st.sampled_from([8, 16]),
)
def test_it_is_torchs_adaptive_pooling(height: int, width: int, side: int, bits: int) -> None:
    source = pixels(height, width, bits=bits)

    small = thumbnail(source, side=side)

    planes = torch.from_numpy(source / (2.0**bits - 1)).permute(2, 0, 1)
    expected = torch.nn.functional.adaptive_avg_pool2d(planes, side).permute(1, 2, 0)
    np.testing.assert_allclose(small, expected.numpy(), rtol=0, atol=1e-6)
    assert small.dtype == np.float32


def test_pixels_and_floats_give_the_same() -> None:
    source = pixels(130, 75, 1)

    np.testing.assert_allclose(
        thumbnail(source, side=64), thumbnail(to_float(source), side=64), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_white_page_is_exactly_white(bits: int) -> None:
    white = np.full((5000, 70, 3), 2**bits - 1, np.uint8 if bits == 8 else np.uint16)

    small = thumbnail(white, side=64)

    np.testing.assert_allclose(small, 1.0, rtol=0, atol=1e-7)


def test_the_thumbnail_of_a_turned_page_is_the_turned_thumbnail() -> None:
    source = pixels(131, 202)

    turned = thumbnail(np.rot90(source[:, ::-1]), side=64)

    np.testing.assert_allclose(
        turned, np.rot90(thumbnail(source, side=64)[:, ::-1]), rtol=0, atol=1e-6
    )


def test_memory_does_not_grow_with_the_height() -> None:
    peaks = []
    for height in (1000, 40_000):
        source = pixels(height, 100)
        tracemalloc.start()
        thumbnail(source, side=64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 1.5 * peaks[0]
