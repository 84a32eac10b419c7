"""The installed program, driven as a new user would, on a small demo contest."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import CONTEST_FILE, write_contest
from kbdenoise.contests.demo import make_demo_contest
from kbdenoise.imaging.files import read_picture, write_pixels

ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",
}

QUICK = [
    "--model",
    "res-unet",
    "--width",
    "8",
    "--patch",
    "48",
    "--lr",
    "0.004",
    "--device",
    "cpu",
    "--threads",
    "1",
]

CUT = ["--val-every", "20", "--val-images", "2", *QUICK, "--patch", "32", "--batch", "4"]

Answer = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a demo contest of a few pages and one trained run."""
    folder = tmp_path_factory.mktemp("home")
    make_demo_contest(folder / "data" / "demo", train_pages=2, test_pages=2)
    write_contest(folder / "data" / "demo" / CONTEST_FILE, CONTESTS["demo"])
    kbdenoise(
        folder,
        "train",
        "--steps",
        "60",
        "--val-every",
        "30",
        "--folds",
        "2",
        "--fold",
        "0",
        *QUICK,
    )
    return folder


def kbdenoise(folder: Path, *arguments: str) -> Answer:
    """Run the program as it is, from the start of Python on."""
    answer = subprocess.run(
        [sys.executable, "-m", "kbdenoise", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | ENVIRONMENT,
    )
    return orderly(answer)


@pytest.fixture
def at_once(home: Path, start_program: Callable[..., Any]) -> Callable[..., Answer]:
    """A function that runs the program in a process that has torch already."""

    def run(*arguments: str, code: int = 0) -> Answer:
        return orderly(start_program(*arguments, cwd=home, env=ENVIRONMENT).wait(), code=code)

    return run


def orderly(answer: Answer, *, code: int = 0) -> Answer:
    assert answer.returncode == code, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    return answer


def as_json(answer: Answer) -> dict[str, Any]:
    assert answer.stdout.count("\n") == 1
    return json.loads(answer.stdout)


def test_the_way_from_training_to_a_scored_file(home: Path, at_once: Callable[..., Answer]) -> None:
    at_once("inspect")
    evaluation = as_json(at_once("evaluate", "last", "--baselines", "--json"))
    prediction = as_json(kbdenoise(home, "predict", "last", "--json"))
    submission = as_json(kbdenoise(home, "submit", "last", "--json", "--message", "first"))

    assert evaluation["score"] < 0.8 * evaluation["untouched"]
    assert next(line["method"] for line in evaluation["table"]) == "doing nothing"
    assert prediction["pictures"] == 4
    assert submission["rows"] == 4
    assert submission["local_score"] > 0
    rows = (home / submission["path"]).read_text().splitlines()
    assert rows[0] == "Image File,Y Channel Value"
    assert len((home / "submissions" / "log.csv").read_text().splitlines()) == 2


def test_a_dry_run_is_scored_but_not_logged(home: Path, at_once: Callable[..., Answer]) -> None:
    log = home / "submissions" / "log.csv"
    before = log.read_text() if log.exists() else ""

    submission = as_json(at_once("submit", "last", "--dry-run", "--json"))

    assert submission["local_score"] > 0
    assert (log.read_text() if log.exists() else "") == before


def test_interrupted_training_goes_on_with_the_command_it_prints(
    home: Path, start_program: Callable[..., Any], at_once: Callable[..., Answer]
) -> None:
    words = ["train", "--name", "cut", "--steps", "60", *CUT]
    training = start_program(*words, cwd=home, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/*_cut/state.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(training.process.pid, signal.SIGTERM)
    stopped = training.wait()

    assert stopped.returncode == 130
    assert "kbdenoise train --resume" in stopped.stderr
    resumed = as_json(at_once("train", "--resume", "cut", "--json"))
    assert resumed["steps"] == 60


def test_scans_from_anywhere_are_restored(tmp_path: Path, at_once: Callable[..., Answer]) -> None:
    rng = np.random.default_rng(0)
    for name, shape in (("a b.png", (70, 33, 1)), ("ü.tif", (45, 91, 3))):
        write_pixels(tmp_path / name, rng.integers(0, 256, shape, dtype=np.uint8))

    files = [str(tmp_path / "a b.png"), str(tmp_path / "ü.tif")]
    at_once("predict", "last", *files, "--out", str(tmp_path / "out"), "--tile", "64")

    assert read_picture(tmp_path / "out" / "a b.png").pixels.shape == (70, 33, 1)
    assert read_picture(tmp_path / "out" / "ü.tif").pixels.shape == (45, 91, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--model", "kbnet_s"], 2, ["kbnet-s"]),
        (["train", "--patch", "1024"], 2, ["patch"]),
        (["train", "nowhere"], 1, ["nowhere"]),
        (["evaluate", "no-such-run"], 2, ["no-such-run", "last"]),
        (["predict", "last", "missing.png", "--out", "o"], 1, ["missing.png"]),
        (["fetch", "x y"], 2, ["x y"]),
        (["frobnicate"], 2, ["frobnicate"]),
        (["train", "--config", "none.toml"], 2, ["none.toml"]),
    ],
)
def test_bad_requests_end_in_a_sentence_and_a_cure(
    at_once: Callable[..., Answer], arguments: list[str], code: int, words: list[str]
) -> None:
    answer = at_once(*arguments, code=code)

    for word in words:
        assert word in answer.stderr
    assert answer.stdout == ""


def test_a_perfect_model_scores_nothing_and_doing_nothing_scores_the_gap(home: Path) -> None:
    """The value domain, end to end: truths and scans themselves, through the contest's own CSV."""
    from kbdenoise.contests.contest import open_contest
    from kbdenoise.contests.formats import Restored, expected_pages
    from kbdenoise.imaging.files import read_image
    from kbdenoise.imaging.luma import mean_luma_of_pixels
    from kbdenoise.submission.write import write_submission

    local = open_contest("demo", data=home / "data")
    pages = expected_pages(local)
    assert local.truth is not None
    scores = {}
    for name, folder in (("perfect", local.truth), ("untouched", local.test)):
        written = write_submission(
            (Restored(stem=p.stem, name=p.name, image=read_image(folder / p.name)) for p in pages),
            contest=local,
            pages=pages,
            path=home / f"{name}.csv",
        )
        scores[name] = written.local_score

    gaps = [
        abs(
            mean_luma_of_pixels(read_picture(local.test / p.name).pixels)
            - mean_luma_of_pixels(read_picture(local.truth / p.name).pixels)
        )
        for p in pages
    ]
    assert scores["perfect"] < 0.01
    assert scores["untouched"] == pytest.approx(np.mean(gaps), abs=1e-9)
