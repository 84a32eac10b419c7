from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import booleans, integers

from kbdenoise.data.batches import (
    Batch,
    floats,
    pieces,
    to_images,
    turn_into,
    turned_one_by_one,
    turned_together,
)
from kbdenoise.imaging.files import Pixels


def positioned(picture: Pixels, turn: int) -> Pixels:
    """The oracle of the eight positions."""
    return np.rot90(picture if turn < 4 else picture[:, ::-1], turn % 4)


def random_pixels(*shape: int, dtype: type = np.uint8) -> Pixels:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def batch_of_all_turns(*, channels: int, dtype: type, page: bool) -> Batch:
    turns = torch.tensor([5, 0, 3, 7, 1, 6, 2, 4, 5])
    noisy = torch.from_numpy(random_pixels(9, 12, 12, channels, dtype=dtype))
    clean = torch.from_numpy(np.iinfo(dtype).max - noisy.numpy())
    small = torch.from_numpy(random_pixels(9, 5, 5, channels, dtype=np.uint16)) if page else None
    return Batch(noisy=noisy, clean=clean, turns=turns, page=small)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_turns_agree_with_numpy_and_invent_no_value(channels: int, dtype: type) -> None:
    patch = random_pixels(20, 23, channels, dtype=dtype)[3:12, 5:14]
    for turn in range(8):
        out = np.zeros((2, 9, 9, channels), dtype)

        turn_into(out[1], patch, turn=turn)

        np.testing.assert_array_equal(out[1], positioned(patch, turn))
        assert not out[0].any()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("way", [turned_one_by_one, turned_together])
def test_a_batch_is_turned_alike_one_by_one_and_together(
    way: Any, dtype: type, channels: int, channels_last: bool
) -> None:
    patches = random_pixels(9, 11, 11, channels, dtype=dtype)
    turns = torch.tensor([5, 0, 3, 7, 1, 6, 2, 4, 5])

    result = way(torch.from_numpy(patches), turns, channels_last=channels_last)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert result.is_contiguous(memory_format=layout)
    for one, patch, turn in zip(result, patches, turns.tolist(), strict=True):
        np.testing.assert_array_equal(one.permute(1, 2, 0), positioned(patch, turn))


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_every_stored_value_becomes_its_share_of_the_highest(bit_depth: int) -> None:
    top = 2**bit_depth - 1
    stored = torch.from_numpy(np.arange(top + 1).astype(np.uint8 if bit_depth == 8 else np.int16))

    result = floats(stored, bit_depth=bit_depth)

    assert result.dtype == torch.float32
    np.testing.assert_array_equal(result, np.arange(top + 1, dtype=np.float32) / np.float32(top))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_both_sides_and_the_page_are_turned_alike(dtype: type, channels_last: bool) -> None:
    batch = batch_of_all_turns(channels=3, dtype=dtype, page=True)

    images = to_images(batch, channels_last=channels_last)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.noisy.is_contiguous(memory_format=layout)
    assert images.noisy.dtype == images.page.dtype == torch.float32
    assert images.seen == [images.noisy, images.page]
    np.testing.assert_allclose(images.noisy + images.clean, 1.0, rtol=0, atol=1e-6)
    for i, turn in enumerate(batch.turns.tolist()):
        for made, stored, top in (
            (images.noisy, batch.noisy, np.iinfo(dtype).max),
            (images.page, batch.page, 65535),
        ):
            expected = positioned(stored.numpy()[i], turn) / top
            np.testing.assert_allclose(made[i].permute(1, 2, 0), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_rectangle_is_turned_as_by_numpy(dtype: type) -> None:
    patch = random_pixels(20, 23, 3, dtype=dtype)[3:12, 5:19]
    for turn in range(8):
        expected = positioned(patch, turn)
        out = np.zeros(expected.shape, dtype)

        turn_into(out, patch, turn=turn)

        np.testing.assert_array_equal(out, expected)


def test_a_rectangle_does_not_fit_into_its_own_place_on_its_side() -> None:
    patch = random_pixels(9, 14, 3)

    for turn in (1, 3, 5, 7):
        with pytest.raises(AssertionError):
            turn_into(np.zeros_like(patch), patch, turn=turn)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_that_are_not_square_become_images(
    dtype: type, channels: int, channels_last: bool
) -> None:
    noisy = torch.from_numpy(random_pixels(3, 7, 12, channels, dtype=dtype))
    clean = torch.from_numpy(np.iinfo(dtype).max - noisy.numpy())
    batch = Batch(noisy=noisy, clean=clean, turns=torch.zeros(3, dtype=torch.int64))

    images = to_images(batch, channels_last=channels_last)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert images.noisy.is_contiguous(memory_format=layout)
    expected = noisy.numpy() / np.float32(np.iinfo(dtype).max)
    np.testing.assert_allclose(images.noisy.permute(0, 2, 3, 1), expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(images.noisy + images.clean, 1.0, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(count=integers(1, 12), length=integers(0, 9), page=booleans())
def test_pieces_are_nearly_equal_and_make_up_the_batch(count: int, length: int, page: bool) -> None:
    whole = batch_of_all_turns(channels=1, dtype=np.uint8, page=page)
    batch = Batch(*(None if t is None else t[:length] for t in whole))

    parts = pieces(batch, count)

    lengths = [part.length for part in parts]
    assert len(parts) == min(count, length) and sum(lengths) == length
    assert not parts or max(lengths) - min(lengths) <= 1
    for number, stored in enumerate(batch):
        got = [part[number] for part in parts]
        if stored is None:
            assert got == [None] * len(parts)
        elif parts:
            torch.testing.assert_close(torch.cat(got), stored, rtol=0, atol=0)
            assert got[0].data_ptr() == stored.data_ptr()


def test_a_network_that_sees_no_page_is_given_none() -> None:
    images = to_images(batch_of_all_turns(channels=1, dtype=np.uint8, page=False))

    assert images.page is None and images.seen == [images.noisy]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_gpu_makes_the_same_images(dtype: type) -> None:
    batch = batch_of_all_turns(channels=3, dtype=dtype, page=True)

    for ours, theirs in zip(to_images(batch), to_images(batch, device="cuda"), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=0, atol=1e-7)
