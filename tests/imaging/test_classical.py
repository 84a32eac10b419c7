import subprocess
import sys
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
from skimage.filters import median as skimage_median
from skimage.restoration import denoise_tv_chambolle

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.classical.choosing import check_fixed, choose
from kbdenoise.imaging.classical.paper import background_division, background_subtraction
from kbdenoise.imaging.classical.smoothing import bilateral, gaussian, median, nlm, tv
from kbdenoise.imaging.classical.table import FILTERS, find_filter
from kbdenoise.imaging.classical.tone import fit_tone_curves, tone_curve
from kbdenoise.imaging.classical.wavelet import wavelet
from kbdenoise.imaging.files import to_float, to_pixels
from kbdenoise.imaging.metrics import METRICS

Pair = tuple[np.ndarray, np.ndarray]
CURVES = [[0.1, 0.7, 0.1], [0.0, 1.0], [-0.1, 1.2]]


def points(name: str) -> list[dict[str, Any]]:
    """Every point of a filter's grid, as parameters of its function."""
    chosen = FILTERS[name]
    if chosen.fit:
        return [{"curves": CURVES}]
    values = product(*(grid.values for grid in chosen.grid.values()))
    return [dict(zip(chosen.grid, point, strict=True)) for point in values]


def salt_and_pepper(share: float = 0.05) -> Pair:
    rng = np.random.default_rng(0)
    clean = np.full((40, 40, 1), 0.5, np.float32)
    noisy = np.where(rng.random(clean.shape) < share, rng.integers(0, 2, clean.shape), clean)
    return noisy.astype(np.float32), clean


def noisy_step(*, deviation: float = 0.05, channels: int = 3, seed: int = 0) -> Pair:
    """A light and a dark half with Gaussian noise, on 8 bits."""
    clean = np.full((60, 64, channels), 0.25, np.float32)
    clean[:, 32:] = 0.75
    noise = np.random.default_rng(seed).normal(0, deviation, clean.shape)
    return to_float(to_pixels(clean + noise.astype(np.float32))), clean


def error(image: np.ndarray, clean: np.ndarray) -> float:
    return METRICS["rmse"].score(image, clean)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 40), (40, 2), (3, 5), (31, 45)])
@pytest.mark.parametrize("name", FILTERS)
def test_filters_keep_shape_and_range_of_any_picture(
    name: str, height: int, width: int, channels: int
) -> None:
    noise = np.random.default_rng(0).random((height, width, channels), dtype=np.float32)
    image = to_float(to_pixels(noise))
    before = image.copy()

    for parameters in points(name)[:: max(1, len(points(name)) - 1)]:  # the first and the last
        filtered = FILTERS[name].apply(image, **parameters)

        assert filtered.shape == image.shape
        assert filtered.dtype == np.float32
        assert np.isfinite(filtered).all()
        assert 0 <= filtered.min() <= filtered.max() <= 1
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", FILTERS)
def test_no_output_pixel_sees_beyond_the_declared_reach(name: str) -> None:
    """A change at one pixel shows nowhere outside the reach around it."""
    rng = np.random.default_rng(0)
    image = to_float(to_pixels(0.3 + 0.4 * rng.random((160, 168, 1), dtype=np.float32)))
    parameters = points(name)[len(points(name)) // 2]
    reach = FILTERS[name].reach(parameters)
    assert reach is not None
    changed = image.copy()
    changed[80:84, 84:88] = 0.0  # a pixel of the background's small picture as well

    rows, columns, _ = np.nonzero(
        np.abs(
            FILTERS[name].apply(image, **parameters) - FILTERS[name].apply(changed, **parameters)
        )
        > 1e-5
    )

    assert len(rows)
    assert 80 - reach <= rows.min() <= rows.max() <= 83 + reach
    assert 84 - reach <= columns.min() <= columns.max() <= 87 + reach


@pytest.mark.parametrize("name", [n for n in FILTERS if n not in ("median", "tone-fit")])
def test_flat_gray_stays_as_it_is_or_becomes_white_paper(name: str) -> None:
    image = np.full((40, 44, 3), 0.6, np.float32)

    for parameters in points(name)[::3]:
        filtered = FILTERS[name].apply(image, **parameters)

        expected = 1.0 if name.startswith("background") else 0.6
        # The background is known to half a grey level of 0.6, and a gain doubles that.
        np.testing.assert_allclose(filtered, expected, atol=0.005)


def test_a_median_removes_lone_pixels() -> None:
    noisy, clean = salt_and_pepper()

    assert np.abs(median(noisy, side=5) - clean).mean() < 0.01 < np.abs(noisy - clean).mean()


@pytest.mark.parametrize("side", [3, 5, 7, 9])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_a_median_is_exact_at_both_bit_depths(side: int, bit_depth: int) -> None:
    noise = np.random.default_rng(1).random((23, 30, 3), dtype=np.float32)
    image = to_float(to_pixels(noise, bit_depth=bit_depth))

    filtered = median(image, side=side)

    for c in range(3):
        oracle = skimage_median(image[..., c], np.ones((side, side)), mode="nearest")
        np.testing.assert_array_equal(filtered[..., c], oracle)


def test_a_gaussian_equals_the_convolution() -> None:
    image = np.random.default_rng(2).random((20, 24, 1), dtype=np.float32)
    sigma, radius = 1.3, 4
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2

    filtered = gaussian(image, sigma=sigma)

    patch = image[6:15, 6:15, 0]
    assert filtered[10, 10, 0] == pytest.approx(float((patch * kernel).sum()), abs=1e-6)


def test_a_bilateral_filter_equals_the_slow_loop() -> None:
    image = np.random.default_rng(3).random((15, 15, 3), dtype=np.float32)
    total, weight = np.zeros(3), 0.0
    for dy, dx in product(range(-4, 5), repeat=2):
        if dy * dy + dx * dx <= 16:  # OpenCV takes a disc
            other = image[7 + dy, 7 + dx]
            unlike = float(np.abs(other - image[7, 7]).sum())
            w = np.exp(-0.5 * (dy * dy + dx * dx) / 2.0**2 - 0.5 * unlike**2 / 0.3**2)
            total, weight = total + w * other, weight + w

    filtered = bilateral(image, sigma_space=2.0, sigma_colour=0.3)

    np.testing.assert_allclose(filtered[7, 7], total / weight, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_that_keep_edges_remove_noise_beside_one(channels: int) -> None:
    noisy, clean = noisy_step(channels=channels)

    for filtered in (
        nlm(noisy, strength=0.08, search=5),
        tv(noisy, weight=0.1),
        wavelet(noisy, threshold=0.12, levels=3),
        bilateral(noisy, sigma_space=2.0, sigma_colour=0.2),
    ):
        assert error(filtered, clean) < 0.5 * error(noisy, clean)


def test_total_variation_is_converged_enough() -> None:
    noisy, _clean = noisy_step()

    long = denoise_tv_chambolle(noisy, weight=0.1, eps=0, max_num_iter=2000, channel_axis=2)

    assert np.abs(tv(noisy, weight=0.1) - long).mean() < 0.005


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_wavelets_without_a_threshold_give_the_picture_back(levels: int) -> None:
    image = np.random.default_rng(4).random((37, 29, 3), dtype=np.float32)

    np.testing.assert_allclose(wavelet(image, threshold=0.0, levels=levels), image, atol=1e-6)


def test_wavelets_do_not_care_where_the_corner_lies() -> None:
    image = np.random.default_rng(5).random((64, 64, 1), dtype=np.float32)

    whole = wavelet(image, threshold=0.2, levels=3)
    cut = wavelet(image[5:, 3:], threshold=0.2, levels=3)

    np.testing.assert_allclose(cut[8:, 8:], whole[13:, 11:], atol=1e-6)


def test_wavelets_keep_what_16_bits_hold() -> None:
    """A slope finer than 8 bits is not made into steps."""
    slope = np.linspace(0.500, 0.504, 256, dtype=np.float32)[None, :, None].repeat(16, axis=0)

    smooth = wavelet(slope, threshold=0.001, levels=2)

    assert len(np.unique(smooth)) > 100


def shaded_page() -> np.ndarray:
    shade = np.linspace(0.5, 0.9, 200, dtype=np.float32)[None, :, None] * np.ones((200, 1, 1))
    page = shade.astype(np.float32)
    page[90:96, 20:180] *= 0.1
    return page


def test_background_division_makes_shaded_paper_white() -> None:
    flat = background_division(shaded_page(), side=51, white=1.0)

    assert np.median(flat) > 0.97
    assert flat[90:96, 20:180].mean() < 0.2


def test_background_subtraction_makes_shaded_paper_white() -> None:
    flat = background_subtraction(shaded_page(), side=51, gain=1.0, tolerance=0.02)

    assert np.median(flat) == 1.0
    assert flat[90:96, 20:100].mean() == pytest.approx(0.52, abs=0.1)


def scanned(clean: np.ndarray, seed: int = 0) -> np.ndarray:
    """A smooth tone curve for each channel, and noise, on 8 bits."""
    noise = np.random.default_rng(seed).normal(0, 0.02, clean.shape)
    bent = np.stack([0.1 + 0.8 * clean[..., c] ** (1.2 - 0.2 * c) for c in range(3)], axis=2)
    return to_float(to_pixels((bent + noise).astype(np.float32)))


def test_tone_curves_equal_the_least_squares_of_all_pixels() -> None:
    clean = 0.2 + 0.6 * np.random.default_rng(6).random((50, 60, 3), dtype=np.float32)
    noisy = scanned(clean)

    fitted = fit_tone_curves([(noisy, clean)], [{"degree": 2}])

    for c in range(3):
        oracle = np.polynomial.polynomial.polyfit(noisy[..., c].ravel(), clean[..., c].ravel(), 2)
        np.testing.assert_allclose(fitted[0]["curves"][c], oracle, atol=1e-3)


def test_tone_curves_are_applied_a_channel_each() -> None:
    image = np.random.default_rng(7).random((5, 6, 3), dtype=np.float32)

    toned = tone_curve(image, curves=CURVES)

    for c, curve in enumerate(CURVES):
        oracle = np.polynomial.polynomial.polyval(image[..., c], curve).clip(0, 1)
        np.testing.assert_allclose(toned[..., c], oracle, atol=1e-6)


def test_white_pixels_in_masses_do_not_bend_the_mid_tones() -> None:
    """Scans are half as light as they should be, and the lighter half is white for certain."""
    noisy = to_float(np.arange(256, dtype=np.uint8).reshape(16, 16, 1))
    clean = np.clip(2 * noisy, 0, 1)
    white = (np.full((100, 100, 1), 1.0, np.float32), np.full((100, 100, 1), 1.0, np.float32))

    line = fit_tone_curves([(noisy, clean), white], [{"degree": 1}])[0]["curves"]

    np.testing.assert_allclose(tone_curve(noisy, curves=line), clean, atol=0.02)


def test_curves_that_fall_are_left_out() -> None:
    noisy = to_float(np.arange(256, dtype=np.uint8).reshape(16, 16, 1))
    clean = 4 * (noisy - 0.5) ** 2  # falls, then rises

    fitted = fit_tone_curves([(noisy, clean)], [{"degree": d} for d in (1, 2, 4)])

    assert [len(f["curves"][0]) - 1 for f in fitted] == [1]


@pytest.mark.parametrize("value", [0.0, 0.6, 1.0])
def test_pairs_of_one_grey_level_have_a_curve_too(value: float) -> None:
    noisy = to_float(to_pixels(np.full((9, 9, 3), value, np.float32)))
    clean = np.full((9, 9, 3), 0.5, np.float32)

    fitted = fit_tone_curves([(noisy, clean)], [{"degree": d} for d in (1, 2, 3)])

    assert len(fitted) == 1
    np.testing.assert_allclose(tone_curve(noisy, curves=fitted[0]["curves"]), clean, atol=1e-4)


def test_the_parameters_are_the_ones_that_score_best() -> None:
    noisy, clean = salt_and_pepper(0.6)
    chosen = FILTERS["median"]

    found = choose(chosen, [(noisy, clean)], metric=METRICS["psnr"])

    scores = {
        side: METRICS["psnr"].score(chosen.apply(noisy, side=side), clean)
        for side in (3, 5, 7, 9, 11)
    }
    assert scores[found.parameters["side"]] == max(scores.values())
    assert found.score == max(scores.values())
    assert found.whole


def test_values_between_those_of_the_grid_are_found() -> None:
    pairs = [noisy_step(deviation=0.035, seed=s) for s in range(2)]
    grid = FILTERS["tv"].grid["weight"].values

    found = choose(FILTERS["tv"], pairs[:1], pairs, metric=METRICS["rmse"])

    def score(weight: float) -> float:
        scores = [error(tv(noisy, weight=weight), clean) for noisy, clean in pairs]
        return METRICS["rmse"].pool(scores, [1, 1])

    assert found.score < min(map(score, grid))
    assert found.score == pytest.approx(score(found.parameters["weight"]))


def test_the_same_pairs_give_the_same_choice() -> None:
    pairs = [noisy_step(channels=1, seed=s) for s in range(3)]

    first, second = (
        choose(FILTERS["bilateral"], pairs[:1], pairs, metric=METRICS["rmse"]) for _ in range(2)
    )

    assert first == second


def test_a_fixed_parameter_is_not_chosen() -> None:
    pairs = [noisy_step(channels=1)]

    found = choose(FILTERS["bilateral"], pairs, metric=METRICS["rmse"], fixed={"sigma_space": 1.5})

    assert found.parameters["sigma_space"] == 1.5


def test_a_search_that_is_stopped_hands_back_the_best_so_far() -> None:
    pairs = [noisy_step(channels=1)]

    found = choose(
        FILTERS["gaussian"], pairs, pairs, metric=METRICS["rmse"], asked_to_stop=lambda: True
    )

    assert (found.tried, found.whole) == (1, False)
    assert found.parameters == {"sigma": FILTERS["gaussian"].grid["sigma"].values[0]}


def test_progress_counts_to_its_end() -> None:
    told: list[tuple[int, int]] = []

    choose(
        FILTERS["gaussian"],
        [noisy_step(channels=1)],
        metric=METRICS["rmse"],
        after_each=lambda done, total, score: told.append((done, total)),
    )

    assert [done for done, _ in told[:-1]] == list(range(1, len(told)))
    assert told[-1][0] == told[-1][1]


def test_a_metric_without_a_value_chooses_something_all_the_same() -> None:
    tiny = np.zeros((4, 4, 1), np.float32)  # too small for SSIM

    found = choose(FILTERS["median"], [(tiny, tiny)], metric=METRICS["ssim"])

    assert found.parameters["side"] == 3


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"sides": 3}, "no parameter 'sides'"),
        ({"side": 4}, "side is 4"),
        ({"side": 3.5}, "side is 3.5"),
        ({"side": -1}, "side is -1"),
        ({"side": 257}, "side is 257"),
        ({"side": True}, "side is True"),
        ({"side": "wide"}, "side is 'wide'"),
        ({"side": float("nan")}, "side is nan"),
    ],
)
def test_impossible_parameters_are_refused_by_name(fixed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        check_fixed(FILTERS["median"], fixed)


def test_an_unknown_filter_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="'medain'") as caught:
        find_filter("medain")

    assert "median" in caught.value.hint


def test_the_table_is_imported_without_torch_and_scikit_image() -> None:
    code = (
        "import sys; from kbdenoise.imaging.classical.table import FILTERS; "
        "sys.exit(' '.join({'torch', 'skimage', 'scipy'} & set(sys.modules)) or 0)"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr


def test_opencv_is_not_given_more_than_it_takes() -> None:
    largest = FILTERS["median"].grid["side"].most

    assert cv2.medianBlur(np.zeros((3, 3), np.uint8), int(largest)).shape == (3, 3)
    background_division(np.full((8, 8, 3), 0.5, np.float32), side=1001, white=1.0)


def test_a_fixed_parameter_keeps_its_last_digit() -> None:
    picture = np.random.default_rng(0).random((16, 16, 1), dtype=np.float32)

    found = choose(
        find_filter("gaussian"),
        [(picture, picture)],
        [],
        metric=METRICS["rmse"],
        fixed={"sigma": 1.2345},
    )

    assert found.parameters == {"sigma": 1.2345}


@pytest.mark.parametrize(("name", "parameter"), [("bilateral", "sigma_space"), ("nlm", "search")])
def test_a_parameter_that_would_take_hours_is_refused(name: str, parameter: str) -> None:
    with pytest.raises(SettingsError, match=f"{parameter} is 100000"):
        check_fixed(find_filter(name), {parameter: 100_000})
