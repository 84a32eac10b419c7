"""Checking and scoring submission files against pictures and truths."""

from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats import FORMATS, Restored, Source, expected_pages
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import (
    FloatImage,
    Pixels,
    list_images,
    read_image,
    read_opaque,
    write_image,
)
from kbdenoise.imaging.luma import mean_luma_of_pixels
from kbdenoise.imaging.metrics import METRICS
from kbdenoise.submission.check import (
    check_submission,
    compare_with_pictures,
    match_pictures,
    score_submission,
)

CASES = [
    ("mean-luma", "mae-mean-luma", 3),
    ("mean-luma", "mae-mean-luma", 1),
    ("pixels-long", "rmse", 1),
    ("pixels-long", "rmse", 3),
    ("zip", "psnr", 3),
    ("zip", "mae-mean-luma", 3),
    ("pixels-wide", "rmse", 1),
    ("pixels-wide", "psnr", 3),
    ("raw-b64", "psnr", 3),
    ("png-b64", "ssim", 3),
    ("rle-zlib-b64", "rmse", 1),
]


def hand_in(contest: LocalContest, folder: Path, source: Source = "pixels") -> Path:
    """Write the pictures of a folder as the submission of a contest."""
    chosen = FORMATS[contest.contest.format]
    pages = expected_pages(contest)
    pictures = (
        Restored(stem=p.stem, name=p.name, image=read_image(folder / p.name)) for p in pages
    )
    path = contest.folder / f"submission{chosen.suffix}"
    chosen.write(path, pictures, contest=contest, pages=pages, source=source)
    return path


def score_of(contest: LocalContest, path: Path, truth: Path) -> float:
    return score_submission(path, contest=contest, pages=expected_pages(contest), truth=truth).value


def truth_of(contest: LocalContest) -> Path:
    assert contest.truth is not None
    return contest.truth


@pytest.mark.parametrize(("name", "metric", "channels"), CASES)
def test_a_perfect_model_scores_almost_nothing_to_improve(
    make_contest, name: str, metric: str, channels: int
) -> None:
    contest = make_contest(format=name, metric=metric, channels=channels)

    score = score_of(contest, hand_in(contest, truth_of(contest)), truth_of(contest))

    best = {"psnr": 100.0, "ssim": 1.0}.get(metric, 0.0)
    assert score == pytest.approx(best, abs=0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_handing_in_the_scans_scores_exactly_the_gap(make_contest, channels: int) -> None:
    contest = make_contest(channels=channels)
    gaps = [
        abs(mean_luma_of_pixels(read_opaque(scan)) - mean_luma_of_pixels(read_opaque(clean)))
        for scan, clean in zip(
            list_images(contest.test), list_images(truth_of(contest)), strict=True
        )
    ]

    score = score_of(contest, hand_in(contest, contest.test), truth_of(contest))

    assert score == np.mean(gaps)
    assert score > 5


@pytest.mark.parametrize(("name", "metric", "channels"), CASES[2:])
def test_the_score_of_a_file_is_the_metric_of_its_pictures(
    make_contest, name: str, metric: str, channels: int
) -> None:
    contest = make_contest(format=name, metric=metric, channels=channels)
    compared = 1 if name.startswith("pixels") else channels
    chosen, scores, sizes = METRICS[metric], [], []
    for page in expected_pages(contest):
        scan = read_image(page.path, channels=compared)
        scores.append(
            chosen.score(scan, read_image(truth_of(contest) / page.name, channels=compared))
        )
        sizes.append(scan.size)

    result = score_submission(
        hand_in(contest, contest.test),
        contest=contest,
        pages=expected_pages(contest),
        truth=truth_of(contest),
    )

    assert result.metric == metric
    assert result.value == pytest.approx(chosen.pool(scores, sizes), abs=1e-5)
    assert [score for _, score in result.per_image] == pytest.approx(scores, abs=1e-5)


def test_pages_of_unequal_size_are_pooled_by_their_pixels(make_contest) -> None:
    contest = make_contest(format="pixels-long", metric="rmse", channels=1, tests=1)
    small, large = expected_pages(contest)
    for path, side, level in ((small.path, 4, 0.0), (large.path, 12, 0.2)):
        write_image(path, np.full((side, side, 1), level, np.float32))
        write_image(truth_of(contest) / path.name, np.zeros((side, side, 1), np.float32))

    score = score_of(contest, hand_in(contest, contest.test), truth_of(contest))

    assert score == pytest.approx(0.2 * np.sqrt(144 / 160), abs=1e-5)


def test_a_file_with_a_problem_is_not_scored(contest: LocalContest) -> None:
    path = hand_in(contest, contest.test)
    path.write_text(path.read_text().replace("Page.00100.01,", "Page.00100,"))

    with pytest.raises(DataError, match=r"line 2: no row has the id 'Page\.00100'"):
        score_of(contest, path, truth_of(contest))


def test_require_valid_raises_with_the_first_problems(contest: LocalContest) -> None:
    path = hand_in(contest, contest.test)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    pages = expected_pages(contest)

    report = check_submission(path, contest=contest, pages=pages)

    assert not report.valid
    with pytest.raises(DataError, match=r"the id 'Page\.00101\.02' is missing"):
        check_submission(path, contest=contest, pages=pages, require_valid=True)


def test_a_format_that_tells_too_little_for_the_metric_is_refused(make_contest) -> None:
    contest = make_contest(format="mean-luma", metric="psnr")

    with pytest.raises(SettingsError, match="cannot be scored by psnr"):
        score_of(contest, hand_in(contest, contest.test), truth_of(contest))


@pytest.mark.parametrize("metric", ["psnr", "rmse"])
def test_pixels_that_are_left_out_are_left_out_of_the_score(make_contest, metric: str) -> None:
    contest = make_contest(
        format="pixels-wide", metric=metric, channels=1, submission={"stride": 8}
    )
    chosen, scores = METRICS[metric], []
    for page in expected_pages(contest):
        scan, clean = (read_image(f / page.name) for f in (contest.test, truth_of(contest)))
        scores.append(chosen.score(scan.reshape(-1, 1, 1)[::8], clean.reshape(-1, 1, 1)[::8]))

    score = score_of(contest, hand_in(contest, contest.test), truth_of(contest))

    assert score == pytest.approx(chosen.pool(scores, [1] * len(scores)), abs=1e-5)


def test_scattered_pixels_have_no_ssim(make_contest) -> None:
    contest = make_contest(format="pixels-wide", metric="ssim", submission={"stride": 8})

    with pytest.raises(SettingsError, match="cannot be scored by ssim"):
        score_of(contest, hand_in(contest, contest.test), truth_of(contest))


def test_masks_are_scored_against_the_masks_of_the_truths(make_contest) -> None:
    contest = make_contest(format="mask-rle", metric="rmse", channels=1)
    wrong = [
        (read_opaque(page.path) >= 128) != (read_opaque(truth_of(contest) / page.name) >= 128)
        for page in expected_pages(contest)
    ]

    score = score_of(contest, hand_in(contest, contest.test), truth_of(contest))

    assert 0 < score == pytest.approx(np.sqrt(np.mean(wrong)))
    assert score_of(contest, hand_in(contest, truth_of(contest)), truth_of(contest)) == 0


@pytest.mark.parametrize(
    "options", [{"statistic": "median"}, {"space": "r", "scale": 1}, {"space": "y601-limited"}]
)
def test_another_number_of_a_page_is_scored_by_the_same_number(
    make_contest, options: dict[str, object]
) -> None:
    contest = make_contest(submission=options)

    def number(pixels: Pixels) -> float:
        flat = pixels.reshape(-1, 3).astype(np.float64)
        luma = np.rint(flat @ [0.299, 0.587, 0.114])
        if "statistic" in options:
            return float(np.median(luma))
        return float(flat[:, 0].mean() if "scale" in options else (16 + luma * 219 / 255).mean())

    gaps = [
        abs(number(read_opaque(page.path)) - number(read_opaque(truth_of(contest) / page.name)))
        for page in expected_pages(contest)
    ]

    score = score_of(contest, hand_in(contest, contest.test), truth_of(contest))

    assert score == pytest.approx(np.mean(gaps), abs=0.05)
    assert score > 5


def test_a_truth_that_is_missing_or_of_another_size_is_named(contest: LocalContest) -> None:
    path = hand_in(contest, contest.test)
    first = list_images(truth_of(contest))[0]
    write_image(first, np.zeros((5, 6, 3), np.float32))

    with pytest.raises(DataError, match=r"Page\.00100\.01\.png is 6x5 px but the test picture"):
        score_of(contest, path, truth_of(contest))
    first.unlink()
    with pytest.raises(DataError, match=r"has no picture for Page\.00100\.01$"):
        score_of(contest, path, truth_of(contest))


def test_truths_are_found_with_the_contests_ending_and_never_twice(make_contest) -> None:
    contest = make_contest(clean_ending="_clean")
    pages = expected_pages(contest)
    for path in list_images(truth_of(contest)):
        path.rename(path.with_name(f"{path.stem}_clean.png"))

    found = match_pictures(pages, truth_of(contest), contest=contest)

    assert found[pages[0].stem].name == "Page.00100.01_clean.png"
    write_image(truth_of(contest) / "Page.00100.01.tif", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(DataError, match=r"both .* belong to the test page Page\.00100\.01"):
        match_pictures(pages, truth_of(contest), contest=contest)


@pytest.mark.parametrize("source", ["pixels", "float"])
@pytest.mark.parametrize(("name", "metric", "channels"), [*CASES[:4], *CASES[6:8]])
def test_a_submission_agrees_with_the_pictures_that_it_was_made_from(
    make_contest, name: str, metric: str, channels: int, source: Source
) -> None:
    contest = make_contest(format=name, metric=metric, channels=channels)
    path = hand_in(contest, contest.test, source)
    pages = expected_pages(contest)

    def compared() -> tuple[str, ...]:
        return compare_with_pictures(
            path, contest=contest, pages=pages, pictures=contest.test, source=source
        )

    assert compared() == ()
    brighter: FloatImage = np.clip(read_image(pages[1].path) + np.float32(2 / 255), 0, 1)
    write_image(pages[1].path, brighter)
    assert len(compared()) == 1
    assert compared()[0].startswith(f"{pages[1].stem}: the submission differs from")
