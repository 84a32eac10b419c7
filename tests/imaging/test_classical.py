import numpy as np
import pytest

from kbdenoise.imaging.classical import FILTERS, background_division, choose, median
from kbdenoise.imaging.metrics import METRICS


def salt_and_pepper(side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = np.full((side, side, 1), 0.5, np.float32)
    noisy = np.where(rng.random(clean.shape) < 0.05, rng.integers(0, 2, clean.shape), clean)
    return noisy.astype(np.float32), clean


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILTERS)
def test_filters_keep_shape_and_range(name: str, channels: int) -> None:
    image = np.random.default_rng(0).random((31, 45, channels), dtype=np.float32)

    for value in FILTERS[name].values:
        filtered = FILTERS[name].apply(image, value)

        assert filtered.shape == image.shape
        assert filtered.dtype == np.float32
        assert filtered.min() >= 0
        assert filtered.max() <= 1


def test_a_median_removes_lone_pixels() -> None:
    noisy, clean = salt_and_pepper()

    assert np.abs(median(noisy, 5) - clean).mean() < 0.01 < np.abs(noisy - clean).mean()


def test_background_division_makes_shaded_paper_white() -> None:
    shade = np.linspace(0.5, 0.9, 200, dtype=np.float32)[None, :, None] * np.ones((200, 1, 1))
    page = shade.astype(np.float32).copy()
    page[90:96, 20:180] *= 0.1

    flat = background_division(page, 51)

    assert np.median(flat) > 0.97
    assert flat[90:96, 20:180].mean() < 0.2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 40), (40, 2), (3, 5)])
def test_background_division_takes_pictures_of_a_pixel_or_two(
    height: int, width: int, channels: int
) -> None:
    page = np.full((height, width, channels), 0.6, np.float32)

    flat = background_division(page, 25)

    assert flat.shape == page.shape
    np.testing.assert_allclose(flat, 1.0, atol=1e-6)


def test_the_parameter_is_the_one_that_scores_best() -> None:
    noisy, clean = salt_and_pepper()
    chosen = FILTERS["median"]

    value = choose(chosen, [(noisy, clean)], metric=METRICS["psnr"])

    scores = {v: METRICS["psnr"].score(chosen.apply(noisy, v), clean) for v in chosen.values}
    assert scores[value] == max(scores.values())
