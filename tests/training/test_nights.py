"""What happens in the night: full disks, half precision, weights that are better raw."""

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.devices import DeviceChoice, suited
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.weights import read_card
from kbdenoise.progress import Advance, Event, Note
from kbdenoise.runs.folder import Run, find_run
from kbdenoise.runs.history import read_history
from kbdenoise.training import loop, state, validation
from kbdenoise.training.state import read_state
from kbdenoise.training.train import train
from tests.training.test_train import TINY, assert_equal_weights, stop_at, weights


def no_space(path: Path) -> DataError:
    return DataError(f"no space left on the disk while writing {path}", hint="free some space")


def is_full(path: Path) -> DataError:
    """As `no_space`, with the cause that tells a full disk from others."""
    error = no_space(path)
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


def notes(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


def test_a_full_disk_on_the_way_is_told_and_training_goes_on(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(contest.folder, runs=tmp_path / "whole", **TINY)
    write_bytes, saves = state.write_bytes, [0]
    events: list[Event] = []

    def full_at_times(path: Path, content: bytes) -> None:
        saves[0] += 1
        if saves[0] in (2, 3):  # the first is that of step 0
            raise no_space(path)
        write_bytes(path, content)

    monkeypatch.setattr(state, "write_bytes", full_at_times)
    result = train(contest.folder, runs=tmp_path / "cut", progress=events.append, **TINY)

    assert result.steps == 12
    assert sum("no space left" in text and "goes on" in text for text in notes(events)) == 2
    assert_equal_weights(whole.run, result.run)


def test_a_full_disk_at_the_end_is_told_with_what_is_saved_and_how_to_go_on(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(contest.folder, runs=tmp_path / "whole", **TINY)
    write_bytes, saves = state.write_bytes, [0]

    def full_for_good(path: Path, content: bytes) -> None:
        saves[0] += 1
        if saves[0] > 2:  # those of steps 0 and 5 are written
            raise is_full(path)
        write_bytes(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(state, "write_bytes", full_for_good)
        with pytest.raises(DataError, match=r"no space left .*state\.pt") as caught:
            train(contest.folder, runs=tmp_path / "cut", **TINY)
    run = find_run("last", tmp_path / "cut")

    assert "training came to step 12 (ended by: steps)" in caught.value.message
    for saved in (
        f"best weights (step {whole.best_step})",
        "last weights (step 12)",
        "state of step 5",
    ):
        assert saved in caught.value.message
    assert caught.value.hint == (
        f"free some space; then go on from step 5: kbdenoise train --resume {run.name}"
    )
    assert run.read_record().status == "failed"
    for name in ("best", "last"):
        assert_equal_weights(whole.run, run.path, name)
    assert_equal_weights(whole.run, train(resume="last", runs=tmp_path / "cut").run)
    assert run.read_record().status == "finished"


def stop_in_validation(event: Event) -> None:
    """A progress callback that asks to stop when the first picture is scored."""
    if isinstance(event, Advance) and event.task == "validate":
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("ask", "saved"),
    [
        pytest.param(stop_at(5), 5, id="between steps"),
        pytest.param(stop_in_validation, 0, id="in a validation"),
    ],
)
def test_a_stop_on_a_full_disk_says_the_same(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Any, saved: int
) -> None:
    write_bytes = state.write_bytes

    def full_at_the_end(path: Path, content: bytes) -> None:
        if path.is_file() and read_state(path)["now"]["step"] == saved:
            raise is_full(path)
        write_bytes(path, content)

    monkeypatch.setattr(state, "write_bytes", full_at_the_end)
    with pytest.raises(DataError, match=r"step 5 \(ended by: interrupt\)") as caught:
        train(contest.folder, runs=tmp_path / "runs", progress=ask, **TINY)

    assert f"go on from step {saved}: kbdenoise train --resume" in caught.value.hint


def test_a_full_disk_takes_the_room_of_the_state_to_go_back_to(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is room for two states: that on the disk and the one that takes its place."""
    write_bytes, saved, events = state.write_bytes, [], list[Event]()
    monkeypatch.setattr(loop, "_wants_saving", lambda *_: True)

    def full_beside_two(path: Path, content: bytes) -> None:
        good = path.with_name("good.pt")
        if good.is_file() and not good.samefile(path):
            raise is_full(path)
        write_bytes(path, content)
        saved.append(read_state(path)["now"]["step"])

    monkeypatch.setattr(state, "write_bytes", full_beside_two)
    train(contest.folder, runs=tmp_path / "runs", progress=events.append, **TINY)

    assert not [text for text in notes(events) if "no space" in text]
    assert saved == [*range(13), 12, 12]


def test_best_weights_take_the_room_of_the_state_to_go_back_to(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights, events = validation.save_weights, list[Event]()
    monkeypatch.setattr(loop, "_wants_saving", lambda *_: True)

    def full_beside_two(path: Path, *words: Any, **options: Any) -> None:
        good = path.with_name("good.pt")
        if good.is_file() and not good.samefile(path.with_name("state.pt")):
            raise is_full(path)
        save_weights(path, *words, **options)

    monkeypatch.setattr(validation, "save_weights", full_beside_two)
    result = train(contest.folder, runs=tmp_path / "runs", progress=events.append, **TINY)

    assert not [text for text in notes(events) if "no space" in text]
    assert read_card(result.run / "best.safetensors").metadata["step"] == result.best_step


def test_best_weights_that_cannot_be_written_are_not_called_best(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights, count = validation.save_weights, [0]
    events: list[Event] = []

    def full_at_first(path: Path, *words: Any, **options: Any) -> None:
        count[0] += 1
        if count[0] == 1:
            raise no_space(path)
        save_weights(path, *words, **options)

    monkeypatch.setattr(validation, "save_weights", full_at_first)
    result = train(contest.folder, runs=tmp_path / "runs", progress=events.append, **TINY)

    assert any("not kept" in text for text in notes(events))
    assert result.best_step > 5
    assert read_card(result.run / "best.safetensors").metadata["step"] == result.best_step


@pytest.mark.parametrize("better", ["raw", "averaged"])
def test_the_better_of_raw_and_averaged_weights_is_kept(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, better: str
) -> None:
    pooled, calls = validation.pooled, [0]

    def scored(rows: Any, metric: Any) -> float:
        calls[0] += 1  # averaged, raw, averaged, raw, ...
        is_raw = calls[0] % 2 == 0
        return pooled(rows, metric) + (0.0 if is_raw == (better == "raw") else 100.0)

    monkeypatch.setattr(validation, "pooled", scored)
    result = train(contest.folder, runs=tmp_path / "runs", **(TINY | {"ema": 0.5, "steps": 10}))

    card = read_card(result.run / "best.safetensors")
    assert card.metadata["weights"] == better
    rows = read_history(result.run / "history.csv")
    low, high = (
        ("val_raw_score", "val_score") if better == "raw" else ("val_score", "val_raw_score")
    )
    assert all(row[low] < row[high] for row in rows)
    assert result.best_score == pytest.approx(min(row[low] for row in rows))
    kept = read_state(result.run / "state.pt")["model" if better == "raw" else "average"]
    best = weights(result.run, "best")
    if result.best_step == 10:
        assert all(torch.equal(kept[name], best[name]) for name in best)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_half_precision_in_pieces_resumes_exactly(
    contest: LocalContest, tmp_path: Path, precision: str, accumulate: int
) -> None:
    changes = TINY | {"precision": precision, "accumulate": accumulate, "batch": 4, "ema": 0.9}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)
    single = train(contest.folder, runs=tmp_path / "fp32", **(changes | {"precision": "fp32"}))
    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)

    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    with pytest.raises(AssertionError):
        assert_equal_weights(whole.run, single.run)
    scales = [read_state(r.run / "state.pt")["scaler"] for r in (whole, resumed)]
    assert scales[0] == scales[1]
    assert bool(scales[0]) == (precision == "fp16")


def test_a_run_without_a_better_score_for_long_enough_stops(
    contest: LocalContest, tmp_path: Path
) -> None:
    changes = TINY | {"lr": 0.0, "min_lr": 0.0, "steps": 50, "val_every": 2, "patience": 3}

    result = train(contest.folder, runs=tmp_path / "runs", **changes)

    assert result.stopped_by == "patience"
    assert [row["step"] for row in read_history(result.run / "history.csv")] == [2, 4, 6, 8]
    assert Run(path=result.run).read_record().status == "finished"


def choice(autocast: Any, reason: str = "this GPU has no native bfloat16") -> DeviceChoice:
    return DeviceChoice(kind="cpu", reason="test", autocast=autocast, precision_reason=reason)


def test_a_model_that_is_not_safe_in_half_precision_is_computed_in_float32() -> None:
    safe = suited(choice("float16"), model="m", fp16=False, bf16=True)

    assert safe.autocast == "" and "m is not safe in float16" in safe.text
    assert suited(choice("bfloat16"), model="m", fp16=False, bf16=True).autocast == "bfloat16"
    with pytest.raises(SettingsError, match="m is not safe in float16"):
        suited(choice("float16", "as asked"), model="m", fp16=False, bf16=True)


def test_two_processes_cannot_train_one_run_at_once(contest: LocalContest, tmp_path: Path) -> None:
    def second(event: Event) -> None:
        if isinstance(event, Note) and "step 5" in event.text:
            with pytest.raises(DataError, match="trained by another process"):
                train(resume="last", runs=tmp_path / "runs")

    result = train(contest.folder, runs=tmp_path / "runs", progress=second, **TINY)

    assert result.steps == 12
    assert not (result.run / ".lock").exists()
