import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError
from kbdenoise.progress import Event, Note
from kbdenoise.runs.folder import Run
from kbdenoise.runs.history import read_history
from kbdenoise.training import loop, validation
from kbdenoise.training.guard import Watch
from kbdenoise.training.train import TrainResult, train

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "patch": 16,
    "batch": 2,
    "steps": 60,
    "val_every": 10,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
    "loss": "mse",
}


def watched(errors: list[float], *, nothing: float = 0.02) -> Watch:
    watch = Watch()
    for error in errors:
        watch.note(error=error, nothing=nothing)
    return watch


def test_an_error_that_falls_and_varies_is_no_cause_for_alarm() -> None:
    torch.manual_seed(0)
    spread = (0.7 * torch.randn(2000)).exp().tolist()
    watch = Watch()

    for step, factor in enumerate(spread):
        watch.note(error=factor * 0.02 / (1 + step / 50), nothing=0.02)
        assert not watch.alarm(10.0), step
    assert watch.is_calm()


def test_an_error_far_above_its_level_and_worse_than_nothing_is() -> None:
    watch = watched([0.001] * 300)

    for _ in range(3):
        watch.note(error=0.5, nothing=0.02)

    assert "times its level" in watch.alarm(10.0)
    assert not watch.is_calm()
    assert not watch.alarm(0.0)


def test_what_is_still_better_than_doing_nothing_is_left_alone() -> None:
    watch = watched([1e-5] * 300)

    for _ in range(50):
        watch.note(error=0.01, nothing=0.02)

    assert not watch.alarm(10.0)


def test_a_young_run_is_measured_by_its_first_error() -> None:
    """A network without an input skip begins far worse than doing nothing."""
    begun = watched([0.3] * 30)
    burst = watched([0.02] * 10 + [50.0])

    assert not begun.alarm(10.0)
    assert burst.alarm(10.0)


def test_an_error_that_is_no_number_is_an_alarm() -> None:
    assert "finite" in watched([0.01, math.inf]).alarm(10.0)


def test_a_lasting_lack_of_finite_gradients_is_an_alarm_even_without_the_guard() -> None:
    watch = watched([0.01] * 5)

    for _ in range(49):
        watch.note_skipped()
    assert not watch.alarm(0.0)
    watch.note_skipped()

    assert "50 steps in a row" in watch.alarm(0.0)
    watch.note(error=0.01, nothing=0.02)
    assert not watch.alarm(0.0)


def told(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Note) and "diverged" in e.text]


def poisoning(at_steps: set[int], monkeypatch: Any) -> None:
    """After each of these steps, counted over all, the weights are thrown far away."""
    take_step, count = loop.take_step, [0]

    def poisoned(session: Any, batch: Any, **words: Any) -> Any:
        pulse = take_step(session, batch, **words)
        count[0] += 1
        if count[0] in at_steps:
            with torch.no_grad():
                for parameter in session.model.parameters():
                    parameter.add_(100.0)
        return pulse

    monkeypatch.setattr(loop, "take_step", poisoned)


def run(contest: LocalContest, runs: Path, **changes: Any) -> tuple[TrainResult, list[Event]]:
    events: list[Event] = []
    settings = TINY | changes
    return train(contest.folder, runs=runs, progress=events.append, **settings), events


def test_a_run_that_diverges_goes_back_to_its_last_good_state_and_lowers_the_rate(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning({25}, monkeypatch)

    result, events = run(contest, tmp_path / "runs", lr_decay=1.0)

    (text,) = told(events)
    assert "back to step 20" in text and "0.5 times" in text
    rows = read_history(result.run / "history.csv")
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert [row["went_back"] for row in rows] == [0, 0, 1, 1, 1, 1]
    assert Run(path=result.run).read_record().went_back == 1
    assert result.best_score < result.untouched_score
    assert not (result.run / "good.pt").exists()


def test_a_run_that_goes_on_diverging_is_given_up_with_a_cure(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning(set(range(15, 1000, 5)), monkeypatch)
    events: list[Event] = []

    with pytest.raises(DataError, match="diverged again, for time 3") as caught:
        train(
            contest.folder,
            runs=tmp_path / "runs",
            progress=events.append,
            guard_times=2,
            **TINY,
        )

    assert len(told(events)) == 2
    assert "--lr" in caught.value.hint and "best.safetensors" in caught.value.hint


def test_without_the_guard_a_run_that_diverges_ends_with_a_cure(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning({25}, monkeypatch)

    with pytest.raises(DataError, match="diverged at step 30") as caught:
        run(contest, tmp_path / "runs", guard=0.0)

    assert "--lr" in caught.value.hint


def test_a_run_stopped_after_it_went_back_resumes_with_the_lower_rate(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Note) and "validation at step 40" in event.text:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        poisoning({25}, patch)
        whole, _ = run(contest, tmp_path / "whole")
    with monkeypatch.context() as patch:
        poisoning({25}, patch)
        train(contest.folder, runs=tmp_path / "cut", progress=stop, **TINY)

    resumed = train(resume="last", runs=tmp_path / "cut")

    rows = [read_history(r.run / "history.csv") for r in (whole, resumed)]
    assert [row["lr"] for row in rows[0]] == [row["lr"] for row in rows[1]]
    assert [row["val_score"] for row in rows[0]] == [row["val_score"] for row in rows[1]]


def test_a_validation_that_finds_no_numbers_leaves_the_network_in_training(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning({20}, monkeypatch)
    modes: list[bool] = []
    scored, take_step, calls = validation._scored, loop.take_step, [0]

    def without_numbers(*words: Any) -> Any:
        calls[0] += 1
        rows = scored(*words)
        return [] if calls[0] == 2 else rows

    def watched(session: Any, batch: Any, **words: Any) -> Any:
        modes.append(session.model.training)
        return take_step(session, batch, **words)

    monkeypatch.setattr(validation, "_scored", without_numbers)
    monkeypatch.setattr(loop, "take_step", watched)
    _, events = run(contest, tmp_path / "runs", ema=0.0)

    assert "not finite" in told(events)[0]
    assert len(modes) > 60 and all(modes)


def test_a_full_disk_does_not_end_a_run_that_goes_back(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning({25}, monkeypatch)
    save, has_gone_back = loop.save, [False]

    def full_once(session: Any, **words: Any) -> None:
        if session.now.went_back and not has_gone_back[0]:
            has_gone_back[0] = True
            raise DataError("no space left on the disk")
        save(session, **words)

    monkeypatch.setattr(loop, "save", full_once)
    result, events = run(contest, tmp_path / "runs")

    assert has_gone_back[0] and result.steps == 60
    assert any("not saved: no space left" in e.text for e in events if isinstance(e, Note))


def test_a_full_disk_that_takes_no_good_state_does_not_end_the_run(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, calls = loop.keep_as_good, [0]

    def full_at_times(session: Any) -> None:
        calls[0] += 1
        if calls[0] == 2:  # the first is that of step 0
            raise DataError("no space left on the disk")
        keep(session)

    monkeypatch.setattr(loop, "keep_as_good", full_at_times)
    result, events = run(contest, tmp_path / "runs")

    assert result.steps == 60 and calls[0] > 2
    assert any("no newer state to go back to" in e.text for e in events if isinstance(e, Note))


def test_a_run_that_has_no_state_to_go_back_to_says_why(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoning({25}, monkeypatch)
    monkeypatch.setattr(loop, "keep_as_good", lambda session: None)  # as with_room gives it up

    with pytest.raises(DataError, match="given up on a full disk") as caught:
        run(contest, tmp_path / "runs")

    assert "diverged at step" in caught.value.message
    assert "--lr" in caught.value.hint and "best.safetensors" in caught.value.hint
