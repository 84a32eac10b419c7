"""When training stops early, and which weights it keeps, with scores written by hand."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.models.weights import read_card
from kbdenoise.runs.history import read_history
from kbdenoise.training.result import TrainResult
from kbdenoise.training.train import train

MakeContest = Callable[..., LocalContest]

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "steps": 40,
    "val_every": 2,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
    "threads": 1,
    "ema": 0.9,
}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that decides what validations find, one value for each set of weights scored."""

    def put(*values: float) -> None:
        script: Iterator[float] = iter(values)
        monkeypatch.setattr("kbdenoise.training.validation.pooled", lambda *_: next(script))

    return put


def train_tiny(contest: LocalContest, runs: Path, **changes: Any) -> TrainResult:
    result = train(contest.folder, runs=runs, **(TINY | changes))
    assert isinstance(result, TrainResult)
    return result


def best_is(result: TrainResult) -> str:
    """Whether the best weights of a run of one validation are its averaged or its raw ones."""
    best = safetensors.torch.load_file(result.run / "best.safetensors")
    last = safetensors.torch.load_file(result.run / "last.safetensors")
    state = torch.load(result.run / "state.pt", weights_only=True)
    same = {
        "averaged": all(torch.equal(best[key], last[key]) for key in last),
        "raw": all(torch.equal(best[key], state["model"][key]) for key in last),
    }
    (which,) = (name for name, equal in same.items() if equal)
    return which


def test_patience_counts_validations_since_the_best(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(5, 6, 4, 5, 3, 3, 4)  # one that is worse, twice; then two in a row that are no better

    result = train_tiny(contest, tmp_path / "runs", patience=2, val_raw=False)

    assert result.stopped_by == "patience"
    assert (result.steps, result.best_step, result.best_score) == (14, 10, 3)
    steps = [row["step"] for row in read_history(result.run / "history.csv")]
    assert steps == [2, 4, 6, 8, 10, 12, 14]


def test_a_better_score_of_the_raw_weights_is_worth_waiting_for_too(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(5, 5, 5, 4, 5, 3, 5, 3)

    result = train_tiny(contest, tmp_path / "runs", patience=1)

    assert (result.stopped_by, result.steps, result.best_step) == ("patience", 8, 6)


def test_without_patience_nothing_but_the_steps_ends_a_run_that_learns_nothing(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(1, *[2] * 19)

    result = train_tiny(contest, tmp_path / "runs", val_raw=False)

    assert (result.stopped_by, result.steps, result.best_step) == ("steps", 40, 2)


def test_weights_that_do_not_change_are_given_up_for_real(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_tiny(contest, tmp_path / "runs", patience=3, lr=0.0, min_lr=0.0)

    assert (result.stopped_by, result.steps, result.best_step) == ("patience", 8, 2)


def test_a_run_out_of_patience_can_be_given_more(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(1, *[2] * 19)
    train_tiny(contest, tmp_path / "runs", patience=2, val_raw=False)

    result = train(resume="last", runs=tmp_path / "runs", patience=4)

    assert isinstance(result, TrainResult)
    assert (result.stopped_by, result.steps) == ("patience", 10)


@pytest.mark.parametrize(
    ("metric", "averaged", "raw", "which"),
    [
        ("mae-mean-luma", 5.0, 3.0, "raw"),
        ("mae-mean-luma", 3.0, 5.0, "averaged"),
        ("mae-mean-luma", 4.0, 4.0, "averaged"),
        ("psnr", 20.0, 25.0, "raw"),
        ("psnr", 25.0, 20.0, "averaged"),
    ],
)
def test_the_best_weights_are_the_better_of_averaged_and_raw(
    make_contest: MakeContest,
    tmp_path: Path,
    scores: Callable[..., None],
    metric: str,
    averaged: float,
    raw: float,
    which: str,
) -> None:
    scores(averaged, raw)

    result = train_tiny(make_contest(metric=metric), tmp_path / "runs", steps=4, val_every=4)

    row = read_history(result.run / "history.csv")[-1]
    assert best_is(result) == which
    assert read_card(result.run / "best.safetensors").metadata["weights"] == which
    assert result.best_score == {"averaged": averaged, "raw": raw}[which]
    assert (row["val_score"], row["val_raw_score"]) == (averaged, raw)


def test_best_weights_stay_until_either_kind_beats_them(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(5, 3, 4, 4, 2, 6)

    result = train_tiny(contest, tmp_path / "runs", steps=4)
    assert (result.best_step, result.best_score) == (2, 3)
    assert read_card(result.run / "best.safetensors").metadata["step"] == 2
    resumed = train(resume="last", runs=tmp_path / "runs", steps=6)

    assert isinstance(resumed, TrainResult)
    assert (resumed.best_step, resumed.best_score) == (6, 2)
    assert read_card(result.run / "best.safetensors").metadata["weights"] == "averaged"


def test_raw_weights_that_are_not_scored_are_never_the_best(
    contest: LocalContest, tmp_path: Path, scores: Callable[..., None]
) -> None:
    scores(5)

    result = train_tiny(contest, tmp_path / "runs", steps=4, val_every=4, val_raw=False)

    assert best_is(result) == "averaged"
