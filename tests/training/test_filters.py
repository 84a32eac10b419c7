import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.imaging.files import read_picture, to_float, write_image
from kbdenoise.inference.evaluate import evaluate
from kbdenoise.inference.filters import BASELINES, read_filter
from kbdenoise.inference.predict import predict
from kbdenoise.progress import Advance, Event, Fact, Note
from kbdenoise.runs.folder import Run, compare_runs, find_run, list_runs, read_json
from kbdenoise.runs.history import read_history
from kbdenoise.submission.submit import submit
from kbdenoise.team import Team
from kbdenoise.training.train import TrainResult, train


def train_filter(
    contest: LocalContest, tmp_path: Path, model: str = "gaussian", **changes: Any
) -> TrainResult:
    given = {"model": model, "folds": 4, "fold": 0, "device": "cpu", "threads": 1} | changes
    return train(contest.folder, runs=tmp_path / "runs", **given)


def test_a_filters_run_is_a_folder_that_tells_everything(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_filter(contest, tmp_path)

    run = Run(path=result.run)
    record = run.read_record()
    assert {p.name for p in result.run.iterdir()} == {
        "config.toml",
        "run.json",
        "split.json",
        "history.csv",
        "filter.toml",
    }
    assert (record.status, record.stopped_by, record.model) == ("finished", "steps", "gaussian")
    assert record.parameters == 1
    assert record.best_score == result.best_score
    assert record.steps == result.steps >= result.best_step >= 1
    assert record.untouched_score == pytest.approx(result.untouched_score)
    assert 'model = "gaussian"' in run.config_file.read_text()
    [row] = read_history(run.history_file)
    assert (row["step"], row["val_score"]) == (result.best_step, pytest.approx(result.best_score))
    assert not result.resumable


@pytest.mark.parametrize(
    ("model", "channels"), [(name, 1 + 2 * (i % 2)) for i, name in enumerate(FILTERS)]
)
def test_every_filter_is_trained_evaluated_and_submitted_like_a_network(
    model: str, channels: int, make_contest: Any, tmp_path: Path
) -> None:
    contest = make_contest(pages=4, height=33, width=26, channels=channels)
    runs = tmp_path / "runs"

    result = train_filter(contest, tmp_path, model)
    evaluation = evaluate("last", runs=runs)
    prediction = predict("last", runs=runs, out=tmp_path / "out")
    submission = submit("last", runs=runs, submissions=tmp_path / "submissions", dry_run=True)

    assert evaluation.score == pytest.approx(result.best_score, rel=1e-6)
    assert evaluation.untouched == pytest.approx(result.untouched_score, rel=1e-6)
    assert evaluation.table[-1].method == model
    assert prediction.pictures == submission.rows == 4
    assert submission.local_score is not None


class Leader(Team):
    """The first of two processes, whose other one is not there to be told anything."""

    def told(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize(
    "words", [{"fold": 0, "folds": 3}, {"folds": 3}, {"resume": "otter-folds", "model": None}]
)
def test_a_filter_is_refused_by_several_processes_on_folds_too(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    if "resume" in words:
        train(contest.folder, runs=runs, run_name="otter", model="tone-fit", folds=3)
    before = sorted(runs.rglob("*"))
    monkeypatch.setattr(
        "kbdenoise.training.train.joined", lambda: contextlib.nullcontext(Leader(size=2))
    )

    with pytest.raises(SettingsError, match="one process chooses in seconds"):
        train(contest.folder, runs=runs, **({"model": "tone-fit"} | words))

    assert sorted(runs.rglob("*")) == before


def test_a_tone_fit_undoes_the_scanners_tone(contest: LocalContest, tmp_path: Path) -> None:
    result = train_filter(contest, tmp_path, "tone-fit")

    assert result.best_score < 0.1 * result.untouched_score
    assert Run(path=result.run).read_record().parameters >= 6


def test_the_same_contest_gives_the_same_filter(contest: LocalContest, tmp_path: Path) -> None:
    first, second = (train_filter(contest, tmp_path, "bilateral") for _ in range(2))

    assert (first.run / "filter.toml").read_text() == (second.run / "filter.toml").read_text()
    assert first.best_score == second.best_score


def test_held_out_pictures_are_those_of_a_networks_run(
    contest: LocalContest, tmp_path: Path
) -> None:
    tiny = {"width": 4, "patch": 16, "batch": 2, "steps": 1}
    network = train_filter(contest, tmp_path, "unet", **tiny)

    result = train_filter(contest, tmp_path)

    assert read_json(result.run / "split.json") == read_json(network.run / "split.json")
    assert result.untouched_score == pytest.approx(network.untouched_score, rel=1e-5)


def test_filters_and_networks_are_listed_and_compared_alike(
    contest: LocalContest, tmp_path: Path
) -> None:
    first = train_filter(contest, tmp_path, "median", run_name="one")
    second = train_filter(contest, tmp_path, "tone-fit", run_name="two")

    rows = {d.setting: d.values for d in compare_runs([Run(path=r.run) for r in (first, second)])}

    assert rows["model"] == ("median", "tone-fit")
    assert {info.model for info in list_runs(tmp_path / "runs")} == {"median", "tone-fit"}
    assert find_run("best", tmp_path / "runs").path == second.run


def test_hyper_fixes_a_parameter(contest: LocalContest, tmp_path: Path) -> None:
    result = train_filter(contest, tmp_path, "median", hyper="side=9")

    assert read_filter(result.run / "filter.toml").parameters == {"side": 9}


def test_a_degree_can_be_fixed_too(contest: LocalContest, tmp_path: Path) -> None:
    result = train_filter(contest, tmp_path, "tone-fit", hyper="degree=3")

    assert Run(path=result.run).read_record().parameters == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "small"}, "--size small is for networks"),
        ({"width": 8}, "--width 8 is for networks"),
        ({"hyper": "sides=3"}, r"--hyper: there is no parameter 'sides' \(median\)"),
        ({"hyper": "side=4"}, "--hyper: side is 4"),
        ({"model": "tone+median"}, "tone.median cannot be trained"),
        ({"model": "median+unet"}, "median.unet cannot be trained"),
        ({"model": "medain"}, "no model called 'medain'"),
    ],
)
def test_what_only_networks_know_is_refused_in_words(
    changes: dict[str, Any], message: str, contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        train_filter(contest, tmp_path, **({"model": "median"} | changes))

    assert not (tmp_path / "runs").exists()


def test_weights_to_start_from_are_refused(contest: LocalContest, tmp_path: Path) -> None:
    tiny = {"width": 4, "patch": 16, "batch": 2, "steps": 1}
    network = train_filter(contest, tmp_path, "unet", **tiny)

    with pytest.raises(SettingsError, match="is for networks, and median"):
        train_filter(contest, tmp_path, "median", init=str(network.run / "last.safetensors"))


def test_a_filter_is_not_resumed(contest: LocalContest, tmp_path: Path) -> None:
    result = train_filter(contest, tmp_path)

    with pytest.raises(SettingsError, match="filter gaussian, which cannot be resumed") as caught:
        train(resume=result.run.name, runs=tmp_path / "runs")

    assert "kbdenoise train --model gaussian" in caught.value.hint


def test_a_dry_run_writes_no_run(contest: LocalContest, tmp_path: Path) -> None:
    facts: list[Event] = []

    result = train_filter(contest, tmp_path, dry_run=True, progress=facts.append)

    assert result.stopped_by == "dry run"
    assert result.untouched_score > 0
    assert {"data", "model", "device"} <= {f.label for f in facts if isinstance(f, Fact)}
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("task", ["choose", "score"])
def test_ctrl_c_leaves_an_interrupted_run(task: str, contest: LocalContest, tmp_path: Path) -> None:
    def progress(event: Event) -> None:
        if isinstance(event, Advance) and event.task == task and event.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    result = train_filter(contest, tmp_path, progress=progress)

    record = Run(path=result.run).read_record()
    assert (result.stopped_by, record.status) == ("interrupt", "interrupted")
    assert not result.resumable
    assert np.isnan(result.best_score)
    if task == "score":  # the choice is made and kept
        assert predict("last", runs=tmp_path / "runs", out=tmp_path / "out").pictures
        return
    with pytest.raises(DataError, match="choosing the filter was not finished") as caught:
        predict("last", runs=tmp_path / "runs")
    assert "kbdenoise train --model gaussian" in caught.value.hint


def test_a_second_ctrl_c_stops_at_once(contest: LocalContest, tmp_path: Path) -> None:
    def progress(event: Event) -> None:
        if isinstance(event, Advance) and event.task == "choose":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_filter(contest, tmp_path, progress=progress)

    assert find_run("last", tmp_path / "runs").read_record().status == "interrupted"


def test_a_run_that_fails_says_so(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("kbdenoise.training.filters.write_filter", full)

    with pytest.raises(OSError, match="disk full"):
        train_filter(contest, tmp_path)

    record = find_run("last", tmp_path / "runs").read_record()
    assert (record.status, record.stopped_by) == ("failed", "OSError")


def test_a_time_limit_that_is_over_still_leaves_a_filter(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kbdenoise.training.filters._CHOOSING_SHARE", 1e-9)
    monkeypatch.setattr("kbdenoise.training.filters._affordable", lambda *_: 1)
    notes: list[Event] = []

    result = train_filter(contest, tmp_path, time_limit="1h", progress=notes.append)

    assert (result.stopped_by, result.steps) == ("time limit", 1)
    assert np.isfinite(result.best_score)
    assert any(isinstance(n, Note) and "allows 1 of 2 held-out" in n.text for n in notes)
    assert evaluate("last", runs=tmp_path / "runs").score > 0


def test_16_bit_pictures_are_restored_with_16_bits(contest: LocalContest, tmp_path: Path) -> None:
    train_filter(contest, tmp_path, "tone-fit", hyper="degree=1")
    slope = np.linspace(0.4, 0.5, 4096, dtype=np.float32).reshape(64, 64, 1)
    write_image(tmp_path / "slope.png", slope, bit_depth=16)

    predict("last", [tmp_path / "slope.png"], runs=tmp_path / "runs", out=tmp_path / "out")

    restored = read_picture(tmp_path / "out" / "slope.png")
    assert restored.bit_depth == 16
    assert len(np.unique(to_float(restored.pixels))) > 2000


def test_a_device_that_is_asked_for_does_not_matter(contest: LocalContest, tmp_path: Path) -> None:
    train_filter(contest, tmp_path)

    assert predict("last", runs=tmp_path / "runs", out=tmp_path / "out", tta=True).device == "cpu"


def test_hyper_is_refused_where_a_filter_restores(contest: LocalContest, tmp_path: Path) -> None:
    train_filter(contest, tmp_path)

    with pytest.raises(SettingsError, match="--hyper is for networks"):
        evaluate("last", runs=tmp_path / "runs", hyper="sigma=2")


def test_a_filter_is_not_its_own_baseline(contest: LocalContest, tmp_path: Path) -> None:
    train_filter(contest, tmp_path, "median")

    table = evaluate("last", runs=tmp_path / "runs", baselines=True).table

    methods = [line.method.split(" (")[0] for line in table]
    assert methods == ["doing nothing", *(b for b in BASELINES if b != "median"), "median"]
