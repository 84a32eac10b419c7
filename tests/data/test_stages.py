from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans, integers, sampled_from

from kbdenoise.data.augment import Augmentation
from kbdenoise.data.batches import to_images
from kbdenoise.data.patches import PatchSampler, prefetch
from kbdenoise.data.stages import PageSampler, Samplers
from kbdenoise.data.store import Store
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import Pixels
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.notation import parse_stages

ALL = Augmentation(mixup=0.5, noise=0.1, camera_noise=0.1, print_scan=0.5)


@pytest.fixture
def store(make_store) -> Store:
    return make_store()


def origin(page: Pixels, store: Store) -> tuple[int, int, int, int]:
    """Picture, top, left and turn of a page, found by looking everywhere."""
    for turn in range(8):
        upright = np.rot90(page, -(turn % 4))
        upright = upright if turn < 4 else upright[:, ::-1]
        height, width = upright.shape[:2]
        for i in range(len(store)):
            rows, columns = (a - b + 1 for a, b in zip(store.size(i), (height, width), strict=True))
            if rows < 1 or columns < 1:
                continue
            corners = (store.noisy(i)[:rows, :columns] == upright[0, 0]).all(axis=2)
            for top, left in np.argwhere(corners).tolist():
                if (store.noisy(i)[top : top + height, left : left + width] == upright).all():
                    return i, top, left, turn
    raise AssertionError(f"no picture holds this page of {page.shape[1]}x{page.shape[0]} px")


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    step=integers(0, 10**6),
    batch=integers(1, 3),
    multiple=sampled_from([1, 3, 8, 16]),
    largest=sampled_from([0, 16, 20, 24, 1000]),
    flips=booleans(),
    turns=booleans(),
)
def test_pages_are_turned_windows_of_one_size(store, step, batch, multiple, largest, flips, turns):
    sampler = PageSampler(
        store,
        range(4),
        batch=batch,
        seed=2,
        multiple=multiple,
        largest=largest,
        flips=flips,
        turns=turns,
    )

    made = sampler.batch(step)

    np.testing.assert_array_equal(made.clean, 255 - made.noisy)
    assert not made.turns.any()
    found = [origin(page, store) for page in made.noisy.numpy()]
    sizes = np.array([store.size(i) for i, *_ in found])
    expected = np.minimum(sizes.min(axis=0), largest or 1000) // multiple * multiple
    assert made.noisy.shape == (batch, *expected, 3)
    allowed = {(0, 0): {0}, (1, 0): {0, 2, 4, 6}, (0, 1): {0, 1, 2, 3}, (1, 1): set(range(8))}
    positions = allowed[flips, turns]
    if expected[0] != expected[1]:
        positions = positions & {0, 2, 4, 6}
    assert {turn for *_, turn in found} <= positions


def test_every_turn_that_keeps_the_shape_and_every_place_come_up(make_store):
    for size, positions in (((25, 37), {0, 2, 4, 6}), ((25, 25), set(range(8)))):
        store = make_store(sizes=[size])
        sampler = PageSampler(store, [0], batch=100, seed=0, multiple=8)

        found = [origin(page, store) for page in sampler.batch(0).noisy.numpy()]

        assert {turn for *_, turn in found} == positions
        assert {top for _, top, _, _ in found} == {0, 1}
        assert {left for _, _, left, _ in found} == set(range(size[1] % 8 + 1))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_page_is_seen_once_a_pass(store, batch):
    sampler = PageSampler(store, [0, 1, 3], batch=batch, seed=1, stage=2, first_step=7)

    pages = [page for step in range(7, 7 + 30 // batch) for page in sampler.batch(step).noisy]
    drawn = [origin(page.numpy(), store)[0] for page in pages]

    assert all(sorted(drawn[i : i + 3]) == [0, 1, 3] for i in range(0, 30, 3))


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
def test_shares_of_pages_are_slots_of_the_whole_batch(store, augmentation):
    def sampler(rank: int, size: int) -> PageSampler:
        return PageSampler(
            store,
            range(4),
            batch=5,
            seed=1,
            pages=True,
            share=(rank, size),
            augmentation=augmentation,
        )

    for step in range(4):
        whole = sampler(0, 1).batch(step)
        for rank in range(3):
            for mine, everyones in zip(sampler(rank, 3).batch(step), whole, strict=True):
                np.testing.assert_array_equal(mine.numpy(), everyones.numpy()[rank::3])


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL])
@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 16)])
def test_prefetched_pages_are_those_of_their_steps(make_store, channels, bits, augmentation):
    store = make_store(channels=channels, bits=bits)

    def sampler() -> PageSampler:
        return PageSampler(
            store, range(4), batch=2, seed=1, pages=True, augmentation=augmentation, stage=1
        )

    alone = sampler()

    for step, batch in enumerate(prefetch(sampler(), start=3, stop=15), start=3):
        assert batch.noisy.numpy().dtype == (np.uint16 if augmentation.on else store.dtype)
        for ahead, expected in zip(batch, alone.batch(step), strict=True):
            np.testing.assert_array_equal(ahead.numpy(), expected.numpy())


def test_a_pages_thumbnail_is_turned_with_it(make_store):
    store = make_store(sizes=[(24, 24)])
    small = thumbnail(store.noisy(0), side=PAGE_SIDE)

    images = to_images(PageSampler(store, [0], batch=30, seed=0, pages=True).batch(0))

    seen = images.noisy.permute(0, 2, 3, 1).numpy()
    for page, whole in zip(images.page.permute(0, 2, 3, 1).numpy(), seen, strict=True):
        np.testing.assert_allclose(page, thumbnail(whole, side=PAGE_SIDE), rtol=0, atol=1e-5)
        assert page.shape == small.shape


def test_pages_smaller_than_the_models_multiple_are_named_with_a_cure(store):
    with pytest.raises(SettingsError) as caught:
        PageSampler(store, range(4), batch=1, seed=0, multiple=17)

    assert caught.value.message == "0.png is 16x16 px, but the model's sides are multiples of 17 px"
    assert "--stages" in caught.value.hint and "skip.txt" in caught.value.hint
    with pytest.raises(SettingsError, match="at most 10 px do not suit"):
        PageSampler(store, range(4), batch=1, seed=0, multiple=16, largest=10)
    with pytest.raises(SettingsError, match="no pictures"):
        PageSampler(store, [], batch=1, seed=0)


@pytest.fixture
def make_samplers(store) -> Callable[..., Samplers]:
    def make(text: str, *, multiple: int = 1) -> Samplers:
        return Samplers(
            store=store,
            indices=range(4),
            stages=parse_stages(text, patch=12, batch=3),
            seed=4,
            flips=True,
            turns=True,
            augmentation=ALL,
            multiple=multiple,
            pages=True,
            pinned=False,
            option="--stages with sides of" if text else "--patch",
        )

    return make


def test_each_stage_has_its_own_size_and_patches(make_samplers):
    samplers = make_samplers("16x4:50% 16x2:40% pagex2:10%", multiple=8)

    first, second, pages = (samplers.of(n, first_step=9).batch(9) for n in range(3))

    assert first.noisy.shape == (4, 16, 16, 3) and second.noisy.shape == (2, 16, 16, 3)
    assert pages.noisy.shape[0] == 2 and not pages.turns.any()
    assert not np.array_equal(first.clean[:2].numpy(), second.clean.numpy())
    again = samplers.of(2, first_step=9).batch(9)
    np.testing.assert_array_equal(again.noisy, pages.noisy)


def test_stages_of_equal_pages_draw_them_apart(make_samplers):
    samplers = make_samplers("pagex4:50% pagex4:50%")

    first, second = (samplers.of(n).batch(9) for n in range(2))

    assert not np.array_equal(first.clean.numpy(), second.clean.numpy())


def test_a_run_without_stages_has_one_of_patch_and_batch(store, make_samplers):
    staged = make_samplers("").of(0).batch(7)
    plain = PatchSampler(
        store, range(4), patch=12, batch=3, seed=4, augmentation=ALL, pages=True
    ).batch(7)

    for mine, expected in zip(staged, plain, strict=True):
        np.testing.assert_array_equal(mine.numpy(), expected.numpy())


def test_a_later_stage_that_does_not_suit_is_refused_at_once(make_samplers):
    with pytest.raises(SettingsError, match="smaller than a patch of 24 px") as caught:
        make_samplers("16x4:50% 24x2:50%", multiple=8)
    assert caught.value.hint.startswith("use --stages with sides of 16 or smaller")

    with pytest.raises(SettingsError, match="multiples of 18 px"):
        make_samplers("16x4:50% page:50%", multiple=18)
