import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans, integers, sampled_from

from kbdenoise.data.augment import Augmentation
from kbdenoise.data.patches import PatchSampler, prefetch
from kbdenoise.data.store import Store
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import Pixels
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

# (flips, turns) -> the positions that a patch may take
ALLOWED = {
    (False, False): {0},
    (True, False): {0, 2, 4, 6},
    (False, True): {0, 1, 2, 3},
    (True, True): set(range(8)),
}


@pytest.fixture
def store(make_store) -> Store:
    return make_store()


def origin(patch: Pixels, store: Store) -> tuple[int, int, int]:
    """Picture, top and left of a noisy patch, found by looking everywhere."""
    side = patch.shape[0]
    for i in range(len(store)):
        picture = store.noisy(i)
        rows, columns = (length - side + 1 for length in picture.shape[:2])
        corners = (picture[:rows, :columns] == patch[0, 0]).all(axis=2)
        for top, left in np.argwhere(corners).tolist():
            if (picture[top : top + side, left : left + side] == patch).all():
                return i, top, left
    raise AssertionError(f"no picture holds this patch of {side} px")


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    step=integers(0, 10**9),
    seed=integers(0, 2**63),
    patch=integers(8, 16),
    flips=booleans(),
    turns=booleans(),
)
def test_every_patch_is_a_window_of_a_picture(store, step, seed, patch, flips, turns):
    sampler = PatchSampler(
        store, range(4), patch=patch, batch=3, seed=seed, flips=flips, turns=turns
    )

    batch = sampler.batch(step)

    np.testing.assert_array_equal(batch.clean, 255 - batch.noisy)
    assert all(origin(one, store) for one in batch.noisy.numpy())
    assert set(batch.turns.tolist()) <= ALLOWED[flips, turns]


@pytest.mark.parametrize(("flips", "turns"), ALLOWED)
def test_every_allowed_turn_comes_up(store, flips, turns):
    sampler = PatchSampler(store, [3], patch=16, batch=100, seed=0, flips=flips, turns=turns)

    assert set(sampler.batch(0).turns.tolist()) == ALLOWED[flips, turns]


def test_every_place_comes_up(store):
    sampler = PatchSampler(store, [3], patch=16, batch=300, seed=0, flips=False, turns=False)

    places = [origin(one, store)[1:] for one in sampler.batch(0).noisy.numpy()]

    assert {top for top, _ in places} == set(range(10))
    assert {left for _, left in places} == set(range(14))


def test_a_batch_repeats_by_seed_and_step_whatever_came_before(store):
    first = PatchSampler(store, range(4), patch=12, batch=5, seed=7)
    second = PatchSampler(store, range(4), patch=12, batch=5, seed=7)
    for step in (4, 0, 9):
        first.batch(step)

    for step in (9, 3):
        for a, b in zip(first.batch(step), second.batch(step), strict=True):
            np.testing.assert_array_equal(a, b)


def test_seeds_and_steps_give_different_patches(store):
    def noisy(seed: int, step: int) -> bytes:
        sampler = PatchSampler(store, [3], patch=12, batch=5, seed=seed)
        return sampler.batch(step).noisy.numpy().tobytes()

    assert len({noisy(seed, step) for seed in range(5) for step in range(5)}) == 25


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_every_picture_is_drawn_once_a_pass(store, batch):
    sampler = PatchSampler(store, [0, 1, 3], patch=16, batch=batch, seed=1)

    patches = [one for step in range(24 // batch) for one in sampler.batch(step).noisy.numpy()]
    drawn = [origin(one, store)[0] for one in patches]

    passes = [drawn[i : i + 3] for i in range(0, 24, 3)]
    assert all(sorted(one) == [0, 1, 3] for one in passes)
    assert len({tuple(one) for one in passes}) > 1


def test_patches_are_those_of_runs_before_there_were_stages(store):
    seed, step = 2**40 + 3, 11

    batch = PatchSampler(store, range(4), patch=9, batch=6, seed=seed).batch(step)

    draws = np.random.default_rng([seed, 0, step]).random((6, 3))
    for slot, (down, along, turn) in enumerate(draws):
        done, position = divmod(step * 6 + slot, 4)
        picture = int(np.random.default_rng([seed, 1, done]).permutation(4)[position])
        height, width = store.size(picture)
        top, left = int(down * (height - 8)), int(along * (width - 8))
        window = np.s_[top : top + 9, left : left + 9]
        np.testing.assert_array_equal(batch.noisy[slot], store.noisy(picture)[window])
        np.testing.assert_array_equal(batch.clean[slot], store.clean(picture)[window])
        assert batch.turns[slot] == int(8 * turn)


@pytest.mark.parametrize("stage", [0, 2])
def test_a_stage_counts_its_passes_from_its_first_step(store, stage):
    sampler = PatchSampler(store, [0, 1, 3], patch=16, batch=2, seed=1, stage=stage, first_step=101)

    patches = [one for step in range(101, 113) for one in sampler.batch(step).noisy.numpy()]
    drawn = [origin(one, store)[0] for one in patches]

    assert all(sorted(drawn[i : i + 3]) == [0, 1, 3] for i in range(0, 24, 3))


def test_stages_draw_different_patches_in_different_orders(store):
    batches = [
        PatchSampler(store, range(4), patch=12, batch=16, seed=1, stage=stage, first_step=5).batch(
            5
        )
        for stage in range(3)
    ]

    places = [[origin(one, store) for one in batch.noisy.numpy()] for batch in batches]
    orders = [tuple(picture for picture, _, _ in one) for one in places]
    assert len(set(orders)) == 3
    assert len({tuple(batch.turns.tolist()) for batch in batches}) == 3
    assert not set(places[0]) & set(places[1]) & set(places[2])


ALL = Augmentation(mixup=0.5, noise=0.1, camera_noise=0.1, print_scan=0.5)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch=integers(1, 7),
    size=integers(1, 5),
    step=integers(0, 10**6),
    stage=integers(0, 3),
    pages=booleans(),
    augmentation=sampled_from([Augmentation(), ALL]),
)
def test_shares_are_slots_of_the_whole_batch(store, batch, size, step, stage, pages, augmentation):
    def sampler(share: tuple[int, int]) -> PatchSampler:
        return PatchSampler(
            store,
            range(4),
            patch=13,
            batch=batch,
            seed=3,
            pages=pages,
            augmentation=augmentation,
            share=share,
            stage=stage,
        )

    whole = sampler((0, 1)).batch(step)
    shares = [sampler((rank, size)).batch(step) for rank in range(size)]

    assert sum(share.length for share in shares) == whole.length == batch
    for rank, share in enumerate(shares):
        for mine, everyones in zip(share, whole, strict=True):
            assert (mine is None) == (everyones is None)
            if mine is not None:
                np.testing.assert_array_equal(mine.numpy(), everyones.numpy()[rank::size])


def test_a_picture_smaller_than_the_patch_is_named_with_a_cure(store):
    with pytest.raises(SettingsError) as caught:
        PatchSampler(store, range(4), patch=20, batch=1, seed=0)

    assert caught.value.message == (
        "0.png is 16x16 px, smaller than a patch of 20 px (and 2 more are too small)"
    )
    assert "--patch 16 or smaller" in caught.value.hint and "skip.txt" in caught.value.hint
    PatchSampler(store, [3], patch=20, batch=1, seed=0)


def test_no_pictures_are_an_error(store):
    with pytest.raises(SettingsError, match="no pictures"):
        PatchSampler(store, [], patch=16, batch=1, seed=0)


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (3, 16)])
def test_every_patch_comes_with_its_whole_picture(make_store, channels, bits):
    store = make_store(channels=channels, bits=bits)
    sampler = PatchSampler(store, range(4), patch=16, batch=40, seed=3, pages=True)

    batch = sampler.batch(5)

    assert batch.page.shape == (40, PAGE_SIDE, PAGE_SIDE, channels)
    for patch, page in zip(batch.noisy.numpy(), batch.page.numpy(), strict=True):
        small = thumbnail(store.noisy(origin(patch, store)[0]), side=PAGE_SIDE)
        np.testing.assert_allclose(page / 65535, small, rtol=0, atol=1e-5)


def test_pages_change_nothing_about_the_patches(store):
    with_pages = PatchSampler(store, range(4), patch=12, batch=5, seed=7, pages=True)
    without = PatchSampler(store, range(4), patch=12, batch=5, seed=7)

    for step in (3, 0):
        seeing, blind = with_pages.batch(step), without.batch(step)

        np.testing.assert_array_equal(seeing.noisy, blind.noisy)
        np.testing.assert_array_equal(seeing.clean, blind.clean)
        assert blind.page is None


def test_batches_with_pages_repeat_by_seed_and_step_whatever_came_before(store):
    first = PatchSampler(store, range(4), patch=12, batch=5, seed=7, pages=True)
    second = PatchSampler(store, range(4), patch=12, batch=5, seed=7, pages=True)
    for step in (4, 0, 9):
        first.batch(step)

    np.testing.assert_array_equal(first.batch(3).page, second.batch(3).page)


def test_a_pictures_page_is_made_once(store, monkeypatch):
    made = []
    monkeypatch.setattr(
        "kbdenoise.data.cutting.thumbnail",
        lambda pixels, side: made.append(pixels.shape) or thumbnail(pixels, side=side),
    )
    sampler = PatchSampler(store, [0, 1, 3], patch=16, batch=4, seed=1, pages=True)

    for step in range(6):
        sampler.batch(step)

    assert sorted(made) == sorted(store.noisy(i).shape for i in (0, 1, 3))


class Numbers:
    """A sampler whose batches are their steps; some steps are slow, one may fail."""

    def __init__(self, broken: int = -1) -> None:
        self.broken, self.made = broken, []

    def batch(self, step: int) -> int:
        if step == self.broken:
            raise DataError(f"step {step}")
        time.sleep(0.002 * (step % 3))
        self.made.append(step)
        return step


def threads_of_prefetch() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_batches_made_ahead_come_in_order(depth):
    batches = list(prefetch(Numbers(), start=5, stop=40, depth=depth, workers=3))

    assert batches == list(range(5, 40))
    assert not threads_of_prefetch()


def test_no_more_is_made_ahead_than_asked_for():
    numbers = Numbers()
    batches = prefetch(numbers, start=0, stop=100, depth=3)

    assert next(batches) == 0
    time.sleep(0.05)
    assert max(numbers.made) <= 3
    batches.close()


def test_an_error_ahead_is_raised_at_its_step():
    batches = prefetch(Numbers(broken=3), start=0, stop=10, depth=8)

    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="step 3"):
        next(batches)
    assert not threads_of_prefetch()


def test_closing_early_ends_the_threads():
    batches = prefetch(Numbers(), start=0, stop=10**6, depth=4)
    next(batches)

    batches.close()

    assert not threads_of_prefetch()


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
def test_prefetched_patches_are_those_of_their_steps(store, augmentation):
    def sampler() -> PatchSampler:
        return PatchSampler(
            store, range(4), patch=12, batch=5, seed=7, pages=True, augmentation=augmentation
        )

    alone = sampler()

    for step, batch in enumerate(prefetch(sampler(), start=3, stop=30), start=3):
        for ahead, expected in zip(batch, alone.batch(step), strict=True):
            np.testing.assert_array_equal(ahead.numpy(), expected.numpy())
