from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis.strategies import DataObject, data, integers, sampled_from

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.tiles import TilePlan, tile_starts, turn, turn_back, window

MULTIPLES = sampled_from([1, 2, 8, 16])


def cut(source: DataObject, *, length: int, multiple: int) -> tuple[int, int, list[int]]:
    tile = multiple * source.draw(integers(1, 40))
    overlap = source.draw(integers(0, tile - 1))
    assume(-(-overlap // multiple) * multiple < tile)
    return tile, overlap, tile_starts(length, tile=tile, overlap=overlap, multiple=multiple)


@given(length=integers(1, 5000), multiple=MULTIPLES, source=data())
def test_tiles_cover_every_pixel_and_share_at_least_the_overlap(
    length: int, multiple: int, source: DataObject
) -> None:
    tile, overlap, starts = cut(source, length=length, multiple=multiple)

    assert starts[0] == 0
    assert starts[-1] < length <= starts[-1] + tile
    assert all(start % multiple == 0 for start in starts)
    assert all(0 < b - a <= tile - overlap for a, b in pairwise(starts))


@given(length=integers(1, 900), multiple=MULTIPLES, margin=integers(0, 60), source=data())
def test_every_pixel_is_weighed_by_some_tile(
    length: int, multiple: int, margin: int, source: DataObject
) -> None:
    tile, overlap, starts = cut(source, length=length, multiple=multiple)

    total = np.zeros(length)
    for start in starts:
        weights = window(start, length=length, tile=tile, overlap=overlap, margin=margin)
        total[start : start + len(weights)] += weights

    assert total.min() > 1e-6


def test_a_margin_counts_for_nothing_at_inner_borders_and_fully_at_the_pictures() -> None:
    weights = window(0, length=100, tile=60, overlap=30, margin=10)

    assert weights[0] == 1
    assert (weights[-10:] == 0).all()
    assert (np.diff(weights[30:50]) <= 0).all()


def test_an_overlap_that_leaves_no_step_is_refused() -> None:
    with pytest.raises(SettingsError, match="overlap"):
        tile_starts(100, tile=16, overlap=9, multiple=8)
    with pytest.raises(SettingsError, match="overlap"):
        TilePlan(tile=16, overlap=16)


@pytest.mark.parametrize("index", range(8))
def test_turning_back_undoes_every_turn(index: int) -> None:
    image = np.random.default_rng(0).random((2, 3, 5, 1))

    np.testing.assert_array_equal(turn_back(turn(image, index), index), image)


def test_the_eight_turns_are_all_different() -> None:
    image = np.arange(12.0).reshape(3, 4, 1)

    turned = {turn(image, k).tobytes() + bytes(turn(image, k).shape) for k in range(8)}

    assert len(turned) == 8
