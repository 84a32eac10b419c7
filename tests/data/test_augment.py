from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.data.augment import (
    Augmentation,
    Noise,
    Sample,
    Tones,
    draw_noise,
    mixed,
    noised,
    rescanned,
    rescanned_page,
    to_sixteen_bits,
    tones_of,
)
from kbdenoise.data.batches import Batch, to_images
from kbdenoise.data.patches import PatchSampler
from kbdenoise.data.store import Store
from kbdenoise.imaging.files import FloatImage, to_pixels
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.scanner import Scanner, draw_scanner, print_and_scan
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

EACH = {
    "mixup": Augmentation(mixup=1.0),
    "noise": Augmentation(noise=0.2),
    "camera_noise": Augmentation(camera_noise=0.2),
    "print_scan": Augmentation(print_scan=1.0),
}
KINDS = [(1, 8), (3, 8), (1, 16), (3, 16)]


def flat(value: float, *, side: int = 200, channels: int = 3, page: bool = False) -> Sample:
    image = np.full((side, side, channels), value, np.float32)
    small = np.full((PAGE_SIDE, PAGE_SIDE, channels), value, np.float32) if page else None
    return Sample(noisy=image, clean=image.copy(), page=small)


def batch_of(store: Store, augmentation: Augmentation, *, step: int = 5, **more) -> Batch:
    sampler = PatchSampler(
        store, range(4), patch=14, batch=6, seed=3, augmentation=augmentation, **more
    )
    return sampler.batch(step)


def text_page(seed: int, *, height: int = 260, width: int = 340) -> FloatImage:
    """Paper, a tint and strokes of ink narrower than a thumbnail's cell."""
    rng = np.random.default_rng(seed)
    page = np.ones((height, width, 3), np.float32)
    page[height // 2 :, width // 2 :] = (0.8, 0.8, 1.0)
    for top, left in zip(rng.integers(0, height, 300), rng.integers(0, width, 300), strict=True):
        page[top : top + 2, left : left + 15] = rng.choice([0.0, 0.2])
    return page


@pytest.mark.parametrize(("channels", "bits"), KINDS)
def test_nothing_switched_on_leaves_stored_bytes(make_store, channels, bits):
    store = make_store(channels=channels, bits=bits)

    batch = batch_of(store, Augmentation())

    assert not Augmentation().on
    assert batch.noisy.numpy().dtype == batch.clean.numpy().dtype == store.dtype


@pytest.mark.parametrize(("channels", "bits"), KINDS)
@pytest.mark.parametrize("name", EACH)
def test_changed_patches_come_in_sixteen_bits_and_repeat(make_store, channels, bits, name):
    store = make_store(channels=channels, bits=bits)

    first, again, other = (batch_of(store, EACH[name], step=step) for step in (5, 5, 6))

    assert EACH[name].on
    assert first.noisy.numpy().dtype == first.clean.numpy().dtype == np.uint16
    assert first.noisy.shape == (6, 14, 14, channels)
    np.testing.assert_array_equal(first.noisy, again.noisy)
    np.testing.assert_array_equal(first.clean, again.clean)
    assert not np.array_equal(first.noisy.numpy(), other.noisy.numpy())


@pytest.mark.parametrize(("channels", "bits"), KINDS)
@pytest.mark.parametrize("name", ["noise", "camera_noise", "print_scan"])
def test_the_noisy_side_alone_is_changed_and_in_every_patch(make_store, channels, bits, name):
    store = make_store(channels=channels, bits=bits)

    changed, stored = batch_of(store, EACH[name]), batch_of(store, Augmentation())

    assert changed.turns.tolist() == stored.turns.tolist()
    new, old = to_images(changed), to_images(stored)
    np.testing.assert_array_equal(new.clean, old.clean)
    for one, before in zip(new.noisy, old.noisy, strict=True):
        assert not np.array_equal(one, before)
        assert one.min() >= 0 and one.max() <= 1


def test_each_change_draws_for_itself(make_store):
    """Noise on top neither moves a patch nor chooses another one to mix with."""
    store = make_store()
    scanned = Augmentation(mixup=0.5, print_scan=0.5)
    noisy_too = Augmentation(mixup=0.5, print_scan=0.5, noise=0.01)

    alone, both = batch_of(store, scanned), batch_of(store, noisy_too)

    np.testing.assert_array_equal(alone.clean, both.clean)
    apart = alone.noisy.numpy().astype(int) - both.noisy.numpy()
    assert 0 < np.abs(apart).max() < 0.06 * 65535


def test_mixing_and_scanning_choose_patches_apart_and_anew_at_each_step(make_store):
    store = make_store(sizes=[(16, 16)] * 2)

    def chosen(name: str, step: int) -> tuple[bool, ...]:
        sampler = PatchSampler(
            store, range(2), patch=16, batch=40, seed=0, augmentation=Augmentation(**{name: 0.5})
        )
        return tuple((one % 257 != 0).any() for one in sampler.batch(step).noisy.numpy())

    assert len({chosen(name, step) for name in ("mixup", "print_scan") for step in (0, 1)}) == 4


def test_mixing_mixes_both_sides_alike(make_store):
    store = make_store()

    batch = batch_of(store, Augmentation(mixup=1.0))

    total = batch.noisy.numpy().astype(int) + batch.clean.numpy()  # clean = top - noisy
    assert np.abs(total - 65535).max() <= 1
    # No patch is a stored one any longer: between two values of 8 bits lie 256 others.
    shares = [np.mean(one % 257 != 0) for one in batch.clean.numpy()]
    assert min(shares) > 0.9


@pytest.mark.parametrize("name", ["noise", "camera_noise", "print_scan"])
def test_equal_windows_of_a_batch_are_changed_each_in_its_own_way(make_store, name):
    store = make_store(sizes=[(16, 16)])

    batch = PatchSampler(store, [0], patch=16, batch=5, seed=0, augmentation=EACH[name]).batch(0)

    assert len({patch.tobytes() for patch in batch.clean.numpy()}) == 1
    assert len({patch.tobytes() for patch in batch.noisy.numpy()}) == 5


@pytest.mark.parametrize("share", [0.2, 0.7])
@pytest.mark.parametrize("name", ["mixup", "print_scan"])
def test_the_share_of_changed_patches_is_the_one_asked_for(make_store, name, share):
    store = make_store(sizes=[(16, 16)] * 3)
    sampler = PatchSampler(
        store, range(3), patch=16, batch=200, seed=0, augmentation=Augmentation(**{name: share})
    )

    noisy = sampler.batch(0).noisy.numpy()

    changed = np.mean([(one % 257 != 0).any() for one in noisy])
    assert changed == pytest.approx(share, abs=0.12)


def test_a_single_picture_is_mixed_with_itself_and_is_its_own_back(make_store):
    store = make_store(sizes=[(30, 30)])
    both = Augmentation(mixup=1.0, print_scan=1.0)

    batch = PatchSampler(store, [0], patch=14, batch=3, seed=0, augmentation=both).batch(0)

    assert batch.noisy.shape == (3, 14, 14, 3)


def test_mixing_takes_its_weight_of_each_the_page_too():
    black, white = flat(0.0, page=True), flat(1.0, page=True)

    result = mixed(white, black, weight=0.3)

    for image in result:
        np.testing.assert_allclose(image, 0.3, rtol=0, atol=1e-6)
    assert mixed(flat(1.0, channels=1), flat(0.0, channels=1), weight=0.3).clean.shape[2] == 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value", [0.3, 0.7])
def test_noise_has_the_variance_of_its_gain_and_floor(value, channels):
    noise = Noise(gain=0.01, floor=0.0009)
    sample = flat(value, channels=channels)

    result = noised(sample, noise, np.random.default_rng(0))

    apart = result.noisy - sample.noisy
    assert apart.std() == pytest.approx((0.01 * value + 0.0009) ** 0.5, rel=0.03)
    assert abs(apart.mean()) < 2e-3
    assert result.clean is sample.clean
    assert (sample.noisy == np.float32(value)).all()


@given(seed=st.integers(0, 10**6), noise=st.floats(0, 1), camera=st.floats(0, 1))
@settings(deadline=None)
def test_drawn_noise_is_below_both_limits(seed, noise, camera):
    drawn = draw_noise(np.random.default_rng(seed), noise=noise, camera_noise=camera)

    assert drawn.gain >= 0 and drawn.floor >= 0
    assert drawn.gain + drawn.floor <= noise**2 + camera**2 + 1e-12
    assert drawn.floor <= noise**2 + 0.09 * camera**2 + 1e-12
    assert noise or drawn.floor <= 0.1 * (drawn.gain + drawn.floor) + 1e-300
    assert camera or not drawn.gain


def test_strengths_of_noise_are_spread_evenly():
    rng = np.random.default_rng(0)

    at_white = [sum(draw_noise(rng, noise=0.0, camera_noise=0.4)) ** 0.5 for _ in range(2000)]
    sigmas = [draw_noise(rng, noise=0.4, camera_noise=0.0).floor ** 0.5 for _ in range(2000)]

    for strengths in (at_white, sigmas):
        counts, _ = np.histogram(strengths, bins=4, range=(0, 0.4))
        assert counts.min() > 400 and max(strengths) <= 0.4


@pytest.mark.parametrize("value", [0.0, 0.02, 0.5, 1.0])
def test_a_noisy_page_is_as_bright_as_its_clipped_patches(value):
    sample = flat(value, page=True)

    result = noised(sample, Noise(gain=0.005, floor=0.01), np.random.default_rng(1))

    assert result.noisy.min() >= 0 and result.noisy.max() <= 1
    assert result.page.mean() == pytest.approx(float(result.noisy.mean()), abs=2e-3)
    assert result.page.std() < 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_a_window_is_scanned_in_its_own_channels(channels):
    clean = text_page(0)[:60, :50, :channels]

    scan = rescanned(
        clean,
        back=clean[::-1],
        scanner=draw_scanner(np.random.default_rng(1)),
        page=(260, 340),
        left=0,
        rng=np.random.default_rng(2),
    )

    assert scan.shape == clean.shape and scan.dtype == np.float32
    assert scan.min() >= 0 and scan.max() <= 1
    assert scan.min() > 0.1  # a scanner lifts the blacks


def test_what_is_counted_by_the_page_is_rare_in_a_window_of_it():
    clean = np.ones((64, 64, 3), np.float32)
    counts = {"dust": 0, "marks": 0}
    for seed in range(200):
        for name, scanner in {
            "dust": Scanner(dust=16),
            "marks": Scanner(hairs=2, lines=2, stains=1),
        }.items():
            scan = rescanned(
                clean,
                back=clean,
                scanner=scanner,
                page=(512, 512),
                left=0,
                rng=np.random.default_rng(seed),
            )
            counts[name] += not np.array_equal(scan, clean)

    assert 20 < counts["dust"] < 80  # 16 specks on the page are a quarter of one here
    assert 20 < counts["marks"] < 100


@pytest.mark.parametrize("channels", [1, 3])
def test_the_page_of_a_scanned_patch_is_that_of_the_whole_page_scanned(channels):
    clean, back = text_page(1), text_page(2)
    if channels == 1:
        clean, back = luma(clean)[..., None], luma(back)[..., None]
    tones, behind = (tones_of(to_pixels(page)) for page in (clean, back))
    colours = [np.repeat(p, 3, axis=2) if channels == 1 else p for p in (clean, back)]
    apart, shifted, untouched = [], [], []
    for seed in range(6):
        scanner = replace(draw_scanner(np.random.default_rng(seed)), stains=0)

        page = rescanned_page(tones, back=behind, scanner=scanner)

        rng = np.random.default_rng(seed)
        scan = print_and_scan(colours[0], back=colours[1], scanner=scanner, rng=rng)
        truth = thumbnail(scan if channels == 3 else luma(scan)[..., None], side=PAGE_SIDE)
        assert page.shape == truth.shape and page.dtype == np.float32
        apart.append(255 * np.abs(page - truth).mean())
        shifted.append(255 * float((page - truth).mean()))
        untouched.append(255 * np.abs(tones.mean - truth).mean())

    assert max(apart) < 2.5
    assert max(map(abs, shifted)) < 0.6
    assert min(untouched) > 5


def test_the_variance_within_cells_counts_for_the_pages_tone():
    clean = text_page(1)
    tones, scanner = tones_of(to_pixels(clean)), Scanner(bend=(-0.4,) * 3)
    truth = thumbnail(
        print_and_scan(clean, back=None, scanner=scanner, rng=np.random.default_rng(0)),
        side=PAGE_SIDE,
    )
    blank = Tones(mean=np.ones_like(tones.mean), variance=np.zeros_like(tones.mean))

    page = rescanned_page(tones, back=blank, scanner=scanner)

    np.testing.assert_allclose(page, truth, rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["mixup", "print_scan"])
def test_the_page_is_changed_with_its_patch(make_store, name):
    store = make_store(sizes=[(90, 100)] * 4)

    changed = batch_of(store, EACH[name], pages=True)
    stored = batch_of(store, Augmentation(), pages=True)

    for page, before in zip(changed.page.numpy(), stored.page.numpy(), strict=True):
        assert not np.array_equal(page, before)


@given(
    value=st.floats(-0.5, 1.5, width=32),
    channels=st.sampled_from([1, 3]),
)
@settings(deadline=None)
def test_sixteen_bits_clip_and_round_to_the_nearest(value, channels):
    pixels = to_sixteen_bits(np.full((2, 3, channels), value, np.float32))

    assert pixels.dtype == np.uint16 and pixels.shape == (2, 3, channels)
    assert abs(int(pixels[0, 0, 0]) - min(max(float(value), 0.0), 1.0) * 65535) <= 0.51


def test_all_eight_and_sixteen_bit_values_survive_the_way_to_floats_and_back():
    for top, factor in ((255, 257), (65535, 1)):
        stored = np.arange(top + 1, dtype=np.uint16)
        image = (stored / np.float32(top)).astype(np.float32).reshape(1, -1, 1)

        np.testing.assert_array_equal(to_sixteen_bits(image).ravel(), stored * factor)
