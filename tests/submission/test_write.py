"""Writing a submission: whole and valid, or not at all."""

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests import formats
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats import FORMATS, Restored, Written, expected_pages
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import read_image
from kbdenoise.imaging.luma import mean_luma, mean_luma_of_pixels
from kbdenoise.submission.check import check_submission
from kbdenoise.submission.write import Submission, submission_order, write_submission


def restored(contest: LocalContest) -> Iterator[Restored]:
    pages = expected_pages(contest)
    for page in submission_order(contest=contest, pages=pages):
        yield Restored(stem=page.stem, name=page.name, image=read_image(page.path))


def submitted(contest: LocalContest, path: Path, **options: object) -> Submission:
    pages = expected_pages(contest)
    return write_submission(
        restored(contest),
        contest=contest,
        pages=pages,
        path=path,
        **options,  # type: ignore[arg-type]
    )


def untouchable() -> Iterator[Restored]:
    pytest.fail("no picture may be restored before the request is found sound")
    yield


@pytest.fixture
def small_disk() -> Iterator[None]:
    """The system refuses to let any file grow beyond 20 kB, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("name", "metric", "rows"),
    [
        ("mean-luma", "mae-mean-luma", 4),
        ("pixels-long", "rmse", 4 * 48 * 40),
        ("pixels-wide", "psnr", 4),
        ("raw-b64", "psnr", 4),
        ("png-b64", "ssim", 4),
        ("rle-zlib-b64", "psnr", 4),
        ("mask-rle", "rmse", 4),
        ("zip", "psnr", 4),
    ],
)
def test_a_submission_is_written_checked_and_scored(
    make_contest, tmp_path: Path, name: str, metric: str, rows: int
) -> None:
    contest = make_contest(format=name, metric=metric)
    path = tmp_path / "submissions" / f"first{FORMATS[name].suffix}"

    result = submitted(contest, path)

    assert (result.path, result.rows, result.metric) == (path, rows, metric)
    assert result.checked.path == path
    assert result.checked.valid
    assert result.local_score is not None
    assert result.local_score > 0
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert check_submission(path, contest=contest, pages=expected_pages(contest)) == result.checked


def test_both_mean_lumas_are_at_hand(contest: LocalContest, tmp_path: Path) -> None:
    page = expected_pages(contest)[0]
    pixels = np.rint(read_image(page.path) * 255).astype(np.uint8)

    result = submitted(contest, tmp_path / "s.csv", source="float")

    assert result.pages[0].stem == page.stem
    assert result.pages[0].luma_of_pixels == mean_luma_of_pixels(pixels)
    assert result.pages[0].luma_of_float == mean_luma(read_image(page.path))
    assert result.checked.mean == np.mean([p.luma_of_float for p in result.pages])


def test_without_a_truth_there_is_no_score(make_contest, tmp_path: Path) -> None:
    contest = make_contest(truth="")

    result = submitted(contest, tmp_path / "s.csv")

    assert result.score is None
    assert result.local_score is None


def test_nothing_is_overwritten_unless_forced(contest: LocalContest, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("mine")
    pages = expected_pages(contest)

    with pytest.raises(SettingsError, match=r"s\.csv is there already"):
        write_submission(untouchable(), contest=contest, pages=pages, path=path)
    assert path.read_text() == "mine"
    submitted(contest, path, force=True)
    assert path.read_text().startswith("Image File,")


@pytest.mark.parametrize("name", ["s.txt", "s.zip", "s.csv.gz"])
def test_a_wrong_ending_is_refused_at_once(
    contest: LocalContest, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SettingsError, match="cannot be called") as caught:
        write_submission(
            untouchable(), contest=contest, pages=expected_pages(contest), path=tmp_path / name
        )

    assert caught.value.hint == "give it a name ending in .csv"


def test_missing_truths_are_found_before_the_first_picture_is_restored(
    contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="cannot list the folder"):
        write_submission(
            untouchable(),
            contest=contest,
            pages=expected_pages(contest),
            path=tmp_path / "s.csv",
            truth=tmp_path / "nowhere",
        )


def test_a_file_or_folder_in_the_way_is_named(contest: LocalContest, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match=r"folder\.csv is a folder"):
        submitted(contest, tmp_path / "folder.csv", force=True)
    with pytest.raises(DataError, match=r"/file is not a folder"):
        submitted(contest, tmp_path / "file" / "deeper" / "s.csv")


@pytest.mark.parametrize(
    ("format_name", "name"),
    [
        ("pixels-long", "s.csv"),
        ("pixels-long", "s.csv.gz"),
        ("raw-b64", "s.csv"),
        ("zip", "s.zip"),
    ],
)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    make_contest, tmp_path: Path, small_disk: None, format_name: str, name: str
) -> None:
    contest = make_contest(format=format_name, metric="rmse", height=96, width=96, pages=1)
    path = tmp_path / "out" / name
    path.parent.mkdir()
    path.write_text("old")

    with pytest.raises(DataError, match=rf"no space left on the disk while writing .*/out/{name}"):
        submitted(contest, path, force=True)

    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_a_file_that_does_not_give_back_what_was_written_is_not_kept(
    make_contest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = make_contest(truth="")
    sound = FORMATS["mean-luma"]

    def failing_disk(path: Path, *args: object, **options: object) -> Written:
        written = sound.write(path, *args, **options)  # type: ignore[arg-type]
        header, first, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, first.split(",")[0] + ",1.5", *rows]) + "\n")
        return written

    monkeypatch.setitem(formats.FORMATS, "mean-luma", replace(sound, write=failing_disk))

    with pytest.raises(DataError, match=r"does not give back .* the page Page\.00100\.01"):
        submitted(contest, tmp_path / "out" / "s.csv")

    assert list((tmp_path / "out").iterdir()) == []


def test_writing_a_submission_needs_no_torch() -> None:
    code = (
        "import sys, kbdenoise.submission.write, kbdenoise.submission.log\n"
        "print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_what_a_killed_submit_left_is_removed(contest: LocalContest, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    parent = os.getppid()
    kept = [f".unchecked-{parent}-s.csv", f"..unchecked-{parent}-s.csv.part-1f", ".unchecked-x"]
    stale = [f".unchecked-{ended.pid}-a-b.csv", f"..unchecked-{ended.pid}-a-b.csv.part-1f"]
    for name in (*kept, *stale):
        (tmp_path / name).write_text("half")

    submitted(contest, tmp_path / "s.csv")

    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {*kept, "s.csv"}
