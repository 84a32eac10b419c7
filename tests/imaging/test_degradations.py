import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.errors import SettingsError
from kbdenoise.imaging import degradations as d

BLACK, WHITE, STRAIGHT = (0.2, 0.18, 0.22), (0.98, 0.96, 0.91), (0.0, 0.0, 0.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def flat(tone, shape=(96, 120)):
    return np.full((*shape, 3), tone, dtype=np.float32)


@pytest.fixture(scope="module")
def page():
    """A smooth colour picture with a few hard-edged bars, 131 x 90: awkward sides."""
    noise = rng(5).uniform(0.0, 1.0, (131, 90, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 3.0)
    picture = (picture - picture.min()) / (picture.max() - picture.min())
    picture[20:30, 10:80] = 0.0
    picture[60:90, 40:44] = (1.0, 0.1, 0.2)
    return picture


EACH = {
    "colour_transition": lambda page, r: d.colour_transition(
        page, black=BLACK, white=WHITE, bend=(-0.2, -0.1, -0.3), impurity=0.05
    ),
    "halftone": lambda page, r: d.halftone(page, screen=(4, 1), rng=r),
    "bleed_through": lambda page, r: d.bleed_through(page, back=page[::-1], weight=0.1),
    "add_grain": lambda page, r: d.add_grain(page, strength=0.01, rng=r),
    "shade_spine": lambda page, r: d.shade_spine(page, strength=0.1),
    "warp": lambda page, r: d.warp(page, reach=0.1, rng=r),
    "add_stains": lambda page, r: d.add_stains(page, count=2, rng=r),
    "add_dust": lambda page, r: d.add_dust(page, count=20, rng=r),
    "add_hairs": lambda page, r: d.add_hairs(page, count=2, rng=r),
    "blur_optics": lambda page, r: d.blur_optics(page, sigma=0.5),
    "add_banding": lambda page, r: d.add_banding(page, strength=0.01, rng=r),
    "add_lines": lambda page, r: d.add_lines(page, count=2, rng=r),
    "add_sensor_noise": lambda page, r: d.add_sensor_noise(page, sigma=0.01, rng=r),
}
CHANCELESS = {"colour_transition", "bleed_through", "shade_spine", "blur_optics"}


@pytest.mark.parametrize("name", EACH)
def test_a_degradation_keeps_shape_and_type_changes_the_page_and_not_its_input(name, page):
    before = page.copy()

    result = EACH[name](page, rng())

    assert result.shape == page.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()
    assert result.min() > -0.1
    assert result.max() < 1.1
    assert not np.array_equal(result, page)
    assert np.array_equal(page, before)


@pytest.mark.parametrize("name", EACH)
def test_a_degradation_repeats_with_its_seed_and_only_with_it(name, page):
    first, again, other = (EACH[name](page, rng(seed)) for seed in (3, 3, 4))

    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name in CHANCELESS)


@pytest.mark.parametrize(
    "apply",
    [
        lambda page: d.halftone(page, screen=(0, 0), rng=rng()),
        lambda page: d.bleed_through(page, back=page, weight=0.0),
        lambda page: d.add_grain(page, strength=0.0, rng=rng()),
        lambda page: d.shade_spine(page, strength=0.0),
        lambda page: d.warp(page, reach=0.0, rng=rng()),
        lambda page: d.add_stains(page, count=0, rng=rng()),
        lambda page: d.add_dust(page, count=0, rng=rng()),
        lambda page: d.add_hairs(page, count=0, rng=rng()),
        lambda page: d.blur_optics(page, sigma=0.0),
        lambda page: d.add_banding(page, strength=0.0, rng=rng()),
        lambda page: d.add_lines(page, count=0, rng=rng()),
        lambda page: d.add_sensor_noise(page, sigma=0.0, rng=rng()),
        lambda page: d.colour_transition(
            page, black=(0.0,) * 3, white=(1.0,) * 3, bend=STRAIGHT, impurity=0.0
        ),
    ],
)
def test_a_strength_of_zero_leaves_the_page(apply, page):
    assert np.array_equal(apply(page), page)


def test_black_becomes_the_black_point_and_white_the_paper():
    options = {"black": BLACK, "white": WHITE, "bend": (-0.3, 0.2, 0.1), "impurity": 0.1}

    black = d.colour_transition(flat(0.0), **options)
    white = d.colour_transition(flat(1.0), **options)

    assert np.allclose(black, BLACK, atol=1e-6)
    assert np.allclose(white, WHITE, atol=1e-6)


def test_bend_moves_the_middle_by_a_quarter_of_it_and_channels_apart():
    bent = d.colour_transition(flat(0.5), black=(0.0,) * 3, white=(1.0,) * 3, bend=(-0.2, 0.0, 0.4))

    assert np.allclose(bent, (0.45, 0.5, 0.6), atol=1e-6)


@given(bend=st.floats(-1.0, 1.0), impurity=st.floats(0.0, 0.3))
@settings(max_examples=30, deadline=None)
def test_the_colour_transition_keeps_the_order_of_tones(bend, impurity):
    ramp = np.linspace(0.0, 1.0, 64, dtype=np.float32)[None, :, None].repeat(3, axis=2)

    result = d.colour_transition(
        ramp, black=BLACK, white=WHITE, bend=(bend,) * 3, impurity=impurity
    )

    assert (np.diff(result, axis=1) > -1e-6).all()


def test_impurity_keeps_grays_and_pulls_colours_together():
    red = flat((0.9, 0.3, 0.3))
    options = {"black": (0.0,) * 3, "white": (1.0,) * 3, "bend": STRAIGHT, "impurity": 0.1}

    assert np.allclose(d.colour_transition(red, **options)[0, 0], (0.86, 0.32, 0.32), atol=1e-6)
    assert np.allclose(d.colour_transition(flat(0.4), **options), 0.4, atol=1e-6)


@given(
    tone=st.tuples(*[st.floats(0.0, 1.0)] * 3),
    screen=st.sampled_from([(3, 1), (3, 2), (4, 1), (4, 2), (5, 2)]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_halftone_keeps_the_mean_of_any_flat_colour(tone, screen, seed):
    printed = d.halftone(flat(tone), screen=screen, rng=rng(seed), contrast=1.0)

    assert np.abs(printed.mean(axis=(0, 1)) - np.float32(tone)).max() < 0.012


def test_halftone_prints_tints_as_dots_but_not_solid_ink_or_bare_paper():
    white, black, tint = (
        d.halftone(flat(tone), screen=(4, 1), rng=rng()) for tone in (1.0, 0.0, 0.8)
    )

    assert np.array_equal(white, flat(1.0))
    assert np.array_equal(black, flat(0.0))
    assert 0.005 < tint.std() < 0.1


def test_halftone_screens_of_different_inks_stand_at_different_angles():
    def main_frequency(plane):
        spectrum = np.abs(np.fft.rfft2(plane - plane.mean()))
        return np.unravel_index(int(spectrum.argmax()), spectrum.shape)

    cyan = d.halftone(flat((0.7, 1.0, 1.0)), screen=(4, 1), rng=rng(), contrast=1.0)[..., 0]
    magenta = d.halftone(flat((1.0, 0.7, 1.0)), screen=(4, 1), rng=rng(), contrast=1.0)[..., 1]

    assert main_frequency(cyan) != main_frequency(magenta)


def test_bleed_through_shows_the_back_mirrored_with_its_weight():
    back = flat(1.0)
    back[:, :40] = 0.0

    seen = d.bleed_through(flat(1.0), back=back, weight=0.12)

    assert np.allclose(seen[:, :60], 1.0, atol=1e-4)
    assert np.allclose(seen[:, 90:], 0.88, atol=1e-4)


def test_bleed_through_does_not_change_black_ink():
    assert np.array_equal(d.bleed_through(flat(0.0), back=flat(0.0), weight=0.15), flat(0.0))


def test_grain_has_its_strength_and_one_gray_for_all_channels():
    grain = d.add_grain(flat(1.0, (300, 300)), strength=0.02, rng=rng()) - 1.0

    assert grain.std() == pytest.approx(0.02, rel=0.02)
    assert abs(grain.mean()) < 1e-3
    assert np.array_equal(grain[..., 0], grain[..., 2])


@pytest.mark.parametrize("strength", [0.1, -0.1])
def test_the_spine_is_dark_on_its_side_and_the_far_side_is_not(strength):
    columns = d.shade_spine(flat(1.0), strength=strength)[0, :, 0]
    if strength < 0:
        columns = columns[::-1]

    assert columns[0] == pytest.approx(0.9, abs=1e-3)
    assert columns[-1] > 0.999
    assert (np.diff(columns) >= 0).all()


@pytest.mark.parametrize("strength", [0.1, -0.1])
def test_a_window_of_a_page_has_the_pages_spine(strength):
    whole = d.shade_spine(flat(1.0), strength=strength)
    width = whole.shape[1]

    part = d.shade_spine(flat(1.0)[:, 10:30], strength=strength, place=(10, width))

    assert np.array_equal(part, whole[:, 10:30])


def test_a_warp_of_a_slope_stays_within_its_reach():
    slope = np.linspace(0.2, 0.8, 200, dtype=np.float32)[None, :, None]
    page = np.broadcast_to(slope, (150, 200, 3)).copy()

    moved_by = (d.warp(page, reach=0.1, rng=rng()) - page) / (slope[0, 1] - slope[0, 0])

    assert 0.01 < np.abs(moved_by).max() <= 0.1


def test_a_warp_beyond_a_tenth_of_a_pixel_is_refused():
    with pytest.raises(SettingsError, match=r"0\.2 px is not within 0 to 0\.1 px"):
        d.warp(flat(0.5), reach=0.2, rng=rng())


@pytest.mark.parametrize("name", ["add_dust", "add_hairs", "add_stains", "shade_spine"])
def test_what_lies_on_the_glass_or_paper_only_darkens(name, page):
    assert (EACH[name](page, rng()) <= page + 1e-6).all()


@given(count=st.integers(1, 12), seed=st.integers(0, 1000), largest=st.floats(0.5, 6.0))
@settings(max_examples=30, deadline=None)
def test_dust_stays_inside_its_discs(count, seed, largest):
    page = flat(0.9)

    changed = (d.add_dust(page, count=count, rng=rng(seed), largest=largest) != page).any(axis=2)

    assert changed.sum() <= count * np.pi * (largest + 1.3) ** 2
    _, _, boxes, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8))
    assert len(boxes) - 1 <= count
    assert boxes[1:, 2:4].max(initial=0) <= count * (2 * largest + 3)


def test_a_single_speck_is_round_and_dark():
    changed = 0.9 - d.add_dust(flat(0.9), count=1, rng=rng(1), largest=5.0)[..., 0]
    ys, xs = np.nonzero(changed > 0.2)

    assert abs(np.ptp(ys) - np.ptp(xs)) <= 1
    assert changed.max() > 0.25


def test_hairs_are_thin():
    changed = d.add_hairs(flat(0.9, (200, 200)), count=1, rng=rng()) != np.float32(0.9)

    assert 0 < changed.any(axis=2).sum() < 60 * 2**0.5 * 4


def test_stains_are_yellowish():
    stain = d.add_stains(flat(1.0, (200, 200)), count=1, rng=rng())
    red, green, blue = stain.reshape(-1, 3).min(axis=0)

    assert blue < green < red < 1.0


def test_lines_cross_the_whole_page_and_leave_the_rest():
    marked = d.add_lines(flat(0.5), count=1, rng=rng()) != 0.5
    rows, columns = marked.any(axis=2).all(axis=1), marked.any(axis=2).all(axis=0)

    assert (rows.sum(), columns.sum()) == (1, 1)
    assert marked.any(axis=2).sum() == 96 + 120 - 1


def test_banding_is_stronger_from_column_to_column_than_from_row_to_row():
    banded = d.add_banding(flat(1.0, (256, 256)), strength=0.01, rng=rng())[..., 0]

    assert banded.mean(axis=0).std() == pytest.approx(0.01, rel=0.2)
    assert 0 < banded.mean(axis=1).std() < 0.005


def test_sensor_noise_has_its_sigma_and_does_not_repeat_between_channels():
    noise = d.add_sensor_noise(flat(0.5, (200, 201)), sigma=0.01, rng=rng()) - 0.5

    assert noise.std(axis=(0, 1)) == pytest.approx([0.01] * 3, rel=0.03)
    correlation = np.corrcoef(noise.reshape(-1, 3).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(noise[:, :-1, 0].ravel(), noise[:, 1:, 0].ravel())[0, 1]) < 0.03


def test_optical_blur_keeps_the_mean_and_softens_edges(page):
    blurred = d.blur_optics(page, sigma=1.0)

    assert blurred.mean() == pytest.approx(page.mean(), abs=2e-3)
    assert np.abs(np.diff(blurred, axis=0)).max() < np.abs(np.diff(page, axis=0)).max()
