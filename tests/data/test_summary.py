import json
from dataclasses import asdict

import numpy as np
import pytest

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.summary import grain, residual_noise, summarise
from kbdenoise.imaging.files import read_image, write_image, write_pixels
from kbdenoise.imaging.luma import mean_luma
from kbdenoise.imaging.metrics import metric


def flat(level: int, *, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
    return np.full((height, width, channels), level, np.uint8)


def test_a_sound_contest_is_described(contest):
    summary = summarise(contest)

    assert (summary.pairs, summary.test_pictures, summary.groups) == (8, 4, 4)
    assert summary.broken == summary.noisy_orphans == summary.duplicates == ()
    for side in (summary.noisy, summary.clean):
        assert side.sizes == {"40x48": 8}
        assert side.channels == {"3": 8} and side.bit_depths == {"8": 8}
        assert len(side.darkest) == len(side.brightest) == 3


@pytest.mark.parametrize("name", ["mae-mean-luma", "rmse", "psnr", "ssim"])
def test_doing_nothing_scores_as_the_metric_itself_says(make_contest, name):
    local = make_contest(metric=name)
    pictures = [(read_image(p.noisy), read_image(p.clean)) for p in find_pairs(local)]

    summary = summarise(local)

    scores = [metric(name).score(noisy, clean) for noisy, clean in pictures]
    expected = metric(name).pool(scores, [noisy.size for noisy, _ in pictures])
    assert summary.doing_nothing == pytest.approx(expected, rel=1e-9)
    assert summary.unit == metric(name).unit


def test_the_gap_is_noisy_less_clean_in_grey_levels(contest):
    pairs = find_pairs(contest)
    gaps = [mean_luma(read_image(p.noisy)) - mean_luma(read_image(p.clean)) for p in pairs]

    gap = summarise(contest).gap

    assert gap.mean == pytest.approx(np.mean(gaps), abs=1e-9)
    assert (gap.low, gap.high) == pytest.approx((min(gaps), max(gaps)), abs=1e-9)
    assert gap.median == pytest.approx(np.median(gaps), abs=1e-9)


def test_the_summary_is_plain_json(contest):
    summary = summarise(contest)

    assert json.loads(json.dumps(asdict(summary), allow_nan=False))["pairs"] == 8


def test_ranges_are_in_grey_levels_at_any_depth_and_gray_counts_as_rgb(make_contest):
    local = make_contest(pages=0, tests=0)
    colour = flat(100)
    colour[0, 0] = (3, 4, 5)
    colour[1, 1] = (200, 201, 202)
    write_pixels(local.noisy / "a.png", colour)
    write_pixels(local.clean / "a.png", flat(50, channels=1))
    deep = np.full((12, 10, 1), 257 * 210, np.uint16)
    write_pixels(local.noisy / "b.png", deep)
    write_pixels(local.clean / "b.png", flat(60))

    noisy = summarise(local).noisy

    assert noisy.darkest == (3.0, 4.0, 5.0)
    assert noisy.brightest == pytest.approx((210.0, 210.0, 210.0))
    assert noisy.channels == {"1": 1, "3": 1} and noisy.bit_depths == {"16": 1, "8": 1}


def test_bad_pictures_are_listed_with_their_errors_and_the_rest_is_measured(contest):
    (contest.noisy / "Page.00001.01.png").write_bytes(b"")
    write_pixels(contest.clean / "Page.00002.02.png", flat(9))
    next(contest.test.iterdir()).write_bytes(b"<html>")
    (contest.clean / "Page.00003.01.png").rename(contest.clean / "lone.png")

    summary = summarise(contest)

    told = " ".join(item.error for item in summary.broken)
    assert len(summary.broken) == 3 and all(item.hint for item in summary.broken)
    assert "is empty (0 bytes)" in told and "is not an image" in told
    assert "is 40x48 px but its clean partner" in told
    assert summary.noisy_orphans == ("Page.00003.01.png",)
    assert summary.clean_orphans == ("lone.png",)
    assert summary.noisy.sizes == {"40x48": 5}


def test_equal_and_untouched_pictures_are_noticed(contest):
    pairs = find_pairs(contest)
    pairs[0].clean.write_bytes(pairs[5].clean.read_bytes())
    pairs[2].noisy.write_bytes(pairs[2].clean.read_bytes())

    summary = summarise(contest)

    assert summary.clean.equal == ((pairs[0].stem, pairs[5].stem),)
    assert summary.noisy.equal == ()
    assert summary.identical == (pairs[2].stem,)


def test_groups_that_cannot_be_told_are_a_finding(make_contest):
    summary = summarise(make_contest(group_by="noisyoffice-text"))

    assert summary.groups == 0
    assert "is not numbered as NoisyOffice" in summary.broken[0].error


def test_a_missing_test_folder_is_a_finding(make_contest):
    summary = summarise(make_contest(test="test/nowhere"))

    assert summary.test_pictures == 0 and "nowhere" in summary.broken[0].error


def test_empty_folders_give_an_empty_summary(make_contest):
    local = make_contest(pages=0, tests=0)
    for folder in (local.noisy, local.clean, local.test):
        folder.mkdir(parents=True)

    summary = summarise(local)

    assert summary.pairs == 0
    assert summary.noisy is summary.gap is summary.doing_nothing is None


def test_a_perfect_contest_has_no_infinity_in_its_summary(make_contest):
    local = make_contest(pages=0, tests=0, metric="psnr", test="")
    for side in (local.noisy, local.clean):
        write_pixels(side / "a.png", flat(7))

    assert summarise(local).doing_nothing == 100.0


def test_progress_counts_pairs_and_test_pictures(contest):
    seen = []

    summarise(contest, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(i, 12) for i in range(1, 13)]


@pytest.mark.parametrize("level", [2.0, 10.0, 30.0])
def test_noise_estimates_find_the_noise_that_was_added(level):
    generator = np.random.default_rng(0)
    slope = np.linspace(0.3, 0.7, 200, dtype=np.float32)
    clean = np.broadcast_to(slope[:, None, None], (200, 180, 1)).copy()
    clean[50:60] = 0.2  # an edge
    noisy = (clean + 0.1 + generator.normal(0, level / 255, clean.shape)).astype(np.float32)

    assert residual_noise(noisy, clean) == pytest.approx(level, rel=0.05)
    assert grain(noisy) == pytest.approx(level, rel=0.05)


def test_a_picture_without_noise_has_no_grain(tmp_path):
    slope = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32)[:, None, None], (64, 64, 3))
    write_image(tmp_path / "slope.png", slope, bit_depth=16)

    assert grain(read_image(tmp_path / "slope.png")) < 0.02
    assert grain(np.zeros((2, 9, 1), np.float32)) == 0.0


def test_the_real_pages_agree_with_what_is_known_of_them(shared):
    contest = Contest(
        slug="descan", root=str(shared / "descan-samples"), noisy="scan", clean="clean", test="test"
    )

    summary = summarise(LocalContest(folder=shared, contest=contest))

    assert (summary.pairs, summary.test_pictures, summary.broken) == (1, 2, ())
    assert summary.noisy.sizes == {"512x512": 1}
    assert summary.noisy.darkest[0] > 20  # a scan's lifted blacks
