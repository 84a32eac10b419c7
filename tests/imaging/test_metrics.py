import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.metrics import METRICS, mean_luma_error, metric, psnr, rmse, ssim


def pair(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(channels)
    clean = rng.random((33, 29, channels), dtype=np.float32)
    return np.clip(clean + rng.normal(0, 0.1, clean.shape), 0, 1).astype(np.float32), clean


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_agree_with_scikit_image(channels: int) -> None:
    restored, clean = pair(channels)

    assert psnr(restored, clean) == pytest.approx(
        peak_signal_noise_ratio(clean, restored, data_range=1.0), abs=1e-4
    )
    expected = structural_similarity(
        clean.astype(np.float64),
        restored.astype(np.float64),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(restored, clean) == pytest.approx(expected, abs=1e-4)


def test_equal_images_are_perfect_by_every_metric() -> None:
    _, clean = pair()

    assert psnr(clean, clean) == math.inf
    assert rmse(clean, clean) == 0
    assert ssim(clean, clean) == pytest.approx(1.0)
    assert mean_luma_error(clean, clean) == 0


def test_pooled_rmse_weighs_values_and_not_pictures() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.random((h, 7, 1), dtype=np.float32) for h in (4, 40)]
    truths = [rng.random(p.shape, dtype=np.float32) for p in pictures]
    scores = [rmse(p, t) for p, t in zip(pictures, truths, strict=True)]

    pooled = METRICS["rmse"].pool(scores, [t.size for t in truths])

    everything = np.concatenate(
        [(p - t).ravel() for p, t in zip(pictures, truths, strict=True)]
    ).astype(np.float64)
    assert pooled == pytest.approx(np.sqrt(np.mean(everything**2)), rel=1e-6)
    assert pooled != pytest.approx(np.mean(scores), rel=1e-3)


def test_better_follows_the_direction_and_never_likes_nan() -> None:
    assert metric("rmse").better(0.1, 0.2)
    assert not metric("rmse").better(0.2, 0.2)
    assert metric("psnr").better(30.0, 20.0)
    for one in METRICS.values():
        assert not one.better(math.nan, 1.0)
        assert one.better(1.0, one.worst)


def test_an_unknown_metric_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        metric("mae-mean-lume")

    assert "mae-mean-luma" in caught.value.hint


def test_one_perfect_picture_does_not_make_all_scores_infinite() -> None:
    pooled = METRICS["psnr"].pool([math.inf, 20.0], [1, 1])

    assert pooled == pytest.approx(60.0)


def test_a_picture_smaller_than_the_window_has_no_ssim_and_is_left_out() -> None:
    tiny = np.zeros((5, 50, 1), np.float32)

    assert math.isnan(ssim(tiny, tiny))
    assert METRICS["ssim"].pool([math.nan, 0.5], [1, 1]) == 0.5
