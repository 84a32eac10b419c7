import csv
import json
import math
import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import write_image
from kbdenoise.imaging.metrics import metric
from kbdenoise.inference.evaluate import evaluate
from kbdenoise.progress import Advance, Event, Fact, Note
from kbdenoise.runs.folder import list_runs, read_json, write_json
from kbdenoise.training.result import FoldsResult
from kbdenoise.training.train import train

MakeContest = Callable[..., LocalContest]
StartChild = Callable[..., Any]

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "steps": 4,
    "val_every": 2,
    "folds": 3,
    "device": "cpu",
    "threads": 1,
}


def train_folds(contest: LocalContest, runs: Path, **changes: Any) -> FoldsResult:
    result = train(contest.folder, runs=runs, **({"run_name": "otter"} | TINY | changes))
    assert isinstance(result, FoldsResult)
    return result


def go_on(runs: Path, name: str = "otter-folds", **changes: Any) -> FoldsResult:
    result = train(resume=name, runs=runs, **changes)
    assert isinstance(result, FoldsResult)
    return result


def rows_of(result: FoldsResult) -> list[dict[str, str]]:
    with result.scores_file.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_outcome(first: FoldsResult, second: FoldsResult) -> None:
    """Weights, scores of all pictures and of the whole, to the last bit."""
    for one, other in zip(first.folds, second.folds, strict=True):
        for name in ("best", "last"):
            a, b = (
                safetensors.torch.load_file(f.run / f"{name}.safetensors") for f in (one, other)
            )
            assert a.keys() == b.keys()
            assert all(torch.equal(a[key], b[key]) for key in a), (one.fold, name)
    assert rows_of(first) == rows_of(second)
    assert first.out_of_fold_score == second.out_of_fold_score
    assert (first.mean_score, first.spread) == (second.mean_score, second.spread)


@pytest.fixture(scope="module")
def kept() -> dict[str, FoldsResult]:
    """What is trained once for all tests."""
    return {}


@pytest.fixture
def whole(
    contest: LocalContest, kept: dict[str, FoldsResult], tmp_path_factory: pytest.TempPathFactory
) -> FoldsResult:
    """Folds that were never stopped; contests of the same name are the same in all tests."""
    if not kept:
        kept["whole"] = train_folds(contest, tmp_path_factory.mktemp("whole"))
    return kept["whole"]


def in_fold(fold: int, then: Callable[[Event], None]) -> Callable[[Event], None]:
    """A progress callback that does something at every event from the beginning of a fold on."""
    begun = False

    def progress(event: Event) -> None:
        nonlocal begun
        begun |= isinstance(event, Fact) and f"fold {fold} of" in event.text
        if begun:
            then(event)

    return progress


def ctrl_c_at(step: int) -> Callable[[Event], None]:
    def then(event: Event) -> None:
        if isinstance(event, Note) and f"validation at step {step}" in event.text:
            os.kill(os.getpid(), signal.SIGINT)

    return then


def test_every_picture_is_scored_once_by_the_model_that_did_not_see_it(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_folds(contest, tmp_path / "runs")

    rows = rows_of(result)
    stems = sorted(path.stem for path in contest.noisy.iterdir())
    assert sorted(row["stem"] for row in rows) == stems
    assert len(result.folds) == 3
    for fold in result.folds:
        split = read_json(fold.run / "split.json")
        mine = {row["stem"] for row in rows if int(row["fold"]) == fold.fold}
        assert mine == set(split["held_out"])
        assert not mine & set(split["train"])
        assert fold.pictures == len(mine)
    folds_of_group: dict[str, set[str]] = {}
    for row in rows:
        folds_of_group.setdefault(row["group"], set()).add(row["fold"])
    assert all(len(folds) == 1 for folds in folds_of_group.values())


def test_the_scores_are_those_that_evaluate_gives_each_run(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_folds(contest, tmp_path / "runs")

    rows = {row["stem"]: row for row in rows_of(result)}
    for fold in result.folds:
        evaluation = evaluate(str(fold.run), device="cpu", threads=1)
        assert fold.score == evaluation.score
        assert fold.untouched_score == evaluation.untouched
        for row in evaluation.rows:
            assert float(rows[row.stem]["score"]) == row.score
            assert float(rows[row.stem]["untouched"]) == row.untouched
            assert float(rows[row.stem]["psnr_db"]) == row.psnr_db


def test_the_whole_is_pooled_by_the_metric_over_pictures_of_all_sizes(
    make_contest: MakeContest, tmp_path: Path
) -> None:
    """RMSE weighs a picture by its size, so that neither the mean nor unweighted rows would do."""
    contest = make_contest(metric="rmse")
    rng = np.random.default_rng(0)
    for folder in (contest.noisy, contest.clean):
        large = rng.random((96, 80, 3)).astype(np.float32)
        write_image(folder / "Page.00009.01.png", large)

    result = train_folds(contest, tmp_path / "runs")

    rows = rows_of(result)
    sizes = [96 * 80 if "00009" in row["stem"] else 48 * 40 for row in rows]
    scores = [float(row["score"]) for row in rows]
    by_fold = [fold.score for fold in result.folds]
    assert result.out_of_fold_score == pytest.approx(metric("rmse").pool(scores, sizes))
    assert result.out_of_fold_score != pytest.approx(metric("rmse").pool(scores, [1] * 9), rel=1e-3)
    assert result.mean_score == pytest.approx(sum(by_fold) / 3)
    assert result.spread == pytest.approx(np.std(by_fold, ddof=1))


def test_the_folder_tells_everything_and_the_runs_stand_beside_it(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_folds(contest, tmp_path / "runs")

    record = json.loads((result.run / "folds.json").read_text())
    names = sorted(path.name.split("_")[-1] for path in (tmp_path / "runs").iterdir())
    assert names == ["otter-fold0", "otter-fold1", "otter-fold2", "otter-folds"]
    files = {path.name for path in result.run.iterdir()}
    assert files == {"config.toml", "folds.json", "out_of_fold.csv"}
    assert (record["status"], record["stopped_by"]) == ("finished", "steps")
    assert record["out_of_fold_score"] == result.out_of_fold_score
    assert record["untouched_score"] == result.untouched_score
    assert [fold["run"] for fold in record["folds"]] == [f.run.name for f in result.folds]
    assert [info.name for info in list_runs(tmp_path / "runs")] == [
        f.run.name for f in result.folds
    ]
    assert result.seconds > 0


def test_the_runs_of_the_folds_are_those_of_single_trainings(
    contest: LocalContest, tmp_path: Path
) -> None:
    result = train_folds(contest, tmp_path / "runs")
    alone = train(contest.folder, runs=tmp_path / "alone", **(TINY | {"fold": 1}))

    a, b = (
        safetensors.torch.load_file(p / "best.safetensors")
        for p in (result.folds[1].run, alone.run)
    )
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not isinstance(alone, FoldsResult)


def test_ctrl_c_saves_the_fold_in_hand_and_resuming_changes_nothing(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult
) -> None:
    stopped = train_folds(contest, tmp_path / "cut", progress=in_fold(1, ctrl_c_at(2)))
    record = read_json(stopped.run / "folds.json")
    kept = (stopped.folds[0].run / "best.safetensors").stat().st_mtime_ns
    resumed = go_on(tmp_path / "cut")

    assert (stopped.stopped_by, record["status"]) == ("interrupt", "interrupted")
    assert read_json(stopped.folds[1].run / "run.json")["steps"] == 4  # by now
    assert not math.isnan(stopped.folds[0].score) and math.isnan(stopped.folds[1].score)
    assert math.isnan(stopped.out_of_fold_score)
    assert (resumed.folds[0].run / "best.safetensors").stat().st_mtime_ns == kept
    assert resumed.stopped_by == "steps"
    assert_same_outcome(whole, resumed)


def test_a_kill_in_the_middle_of_a_fold_changes_nothing(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult, start_child: StartChild
) -> None:
    program = textwrap.dedent(f"""
        import os
        from pathlib import Path
        from kbdenoise.progress import Advance, Fact, Note
        from kbdenoise.training.train import train
        seen = []
        def dying(event):
            seen.append(event)
            second = any(isinstance(e, Fact) and "fold 1 of" in e.text for e in seen)
            if second and isinstance(event, Note) and "step 4" in event.text:
                os._exit(9)
        train(Path({str(contest.folder)!r}), runs=Path({str(tmp_path / "cut")!r}),
              run_name="otter", progress=dying, **{TINY!r})
    """)

    child = start_child(program).wait()
    resumed = go_on(tmp_path / "cut", "last")

    assert child.returncode == 9, child.stderr
    assert_same_outcome(whole, resumed)


@pytest.mark.parametrize(
    ("fold", "moment"),
    [
        pytest.param(0, "score out of fold", id="while pictures are scored"),
        pytest.param(1, "otter-fold1", id="as the next run begins"),
        pytest.param(2, "fold 2 of 3 out of fold", id="when all is scored"),
    ],
)
def test_a_stop_at_any_other_moment_changes_nothing_either(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult, fold: int, moment: str
) -> None:
    def then(event: Event) -> None:
        if moment in (event.task if isinstance(event, Advance) else event.text):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_folds(contest, tmp_path / "cut", progress=in_fold(fold, then))
    (folder,) = (tmp_path / "cut").glob("*-folds")
    status = read_json(folder / "folds.json")["status"]
    resumed = go_on(tmp_path / "cut", "otter")

    assert status == "interrupted"
    assert_same_outcome(whole, resumed)


@pytest.mark.parametrize(
    ("fold", "moment", "done"),
    [
        pytest.param(0, "validation at step 4", 0, id="in the last validation"),
        pytest.param(0, "score out of fold", 0, id="while pictures are scored"),
        pytest.param(0, "fold 0 of 3 out of fold", 1, id="when a fold is scored"),
        pytest.param(1, "fold 1 of 3", 1, id="as the next fold is prepared"),
    ],
)
def test_ctrl_c_between_steps_stops_the_whole_and_begins_nothing_more(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult, fold: int, moment: str, done: int
) -> None:
    asked: list[str] = []
    later: list[str] = []

    def then(event: Event) -> None:
        text = event.task if isinstance(event, Advance) else event.text
        if asked:
            later.append(text)
        elif moment in text:
            asked.append(text)
            os.kill(os.getpid(), signal.SIGINT)

    stopped = train_folds(contest, tmp_path / "cut", progress=in_fold(fold, then))
    resumed = go_on(tmp_path / "cut")

    assert stopped.stopped_by == "interrupt"
    assert not {"train", "validate", "score out of fold"} & set(later)
    assert sum(not math.isnan(one.score) for one in stopped.folds) == done
    assert_same_outcome(whole, resumed)


def test_a_fold_that_fails_leaves_the_true_status_and_can_be_gone_on_with(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult
) -> None:
    def full(event: Event) -> None:
        if isinstance(event, Note) and "validation at step 2" in event.text:
            raise DataError("the disk is full")

    with pytest.raises(DataError, match="the disk is full"):
        train_folds(contest, tmp_path / "cut", progress=in_fold(2, full))
    (folder,) = (tmp_path / "cut").glob("*-folds")
    record = read_json(folder / "folds.json")
    resumed = go_on(tmp_path / "cut")

    assert (record["status"], record["stopped_by"]) == ("failed", "DataError")
    assert_same_outcome(whole, resumed)


def test_going_on_with_what_is_finished_keeps_all_and_scores_only_new_weights(
    contest: LocalContest, tmp_path: Path
) -> None:
    first = train_folds(contest, tmp_path / "runs")
    scored: list[Event] = []

    def note(event: Event) -> None:
        if isinstance(event, Note) and "out of fold" in event.text:
            scored.append(event)

    again = go_on(tmp_path / "runs", progress=note)
    assert_same_outcome(first, again)
    assert not scored
    train(resume="otter-fold1", runs=tmp_path / "runs", steps=6)
    anew = go_on(tmp_path / "runs", progress=note)

    assert len(scored) == 1
    assert [fold.steps for fold in anew.folds] == [4, 6, 4]
    assert anew.folds[1].score == evaluate(str(anew.folds[1].run), device="cpu", threads=1).score
    assert anew.folds[0] == again.folds[0]


def test_the_time_limit_is_shared_evenly_by_all_folds_and_a_longer_one_trains_them_on(
    contest: LocalContest, tmp_path: Path, whole: FoldsResult
) -> None:
    """After another training, so that nothing is loaded in the time."""
    long = {"folds": 2, "steps": 10**6, "val_every": 10**6, "time_limit": "6s"}
    result = train_folds(contest, tmp_path / "runs", **long)

    assert result.stopped_by == "time limit"
    assert all(fold.steps > 0 for fold in result.folds)
    assert 'time_limit = "6s"' in (result.run / "config.toml").read_text()
    assert 'time_limit = "3s"' in (result.folds[0].run / "config.toml").read_text()
    again = go_on(tmp_path / "runs")
    assert [fold.steps for fold in again.folds] == [fold.steps for fold in result.folds]

    rates = []

    def ask(event: Event) -> None:
        if isinstance(event, Advance) and event.task == "train":
            rates.append(event.values["lr"])
            os.kill(os.getpid(), signal.SIGINT)

    record = read_json(result.run / "folds.json")
    for fold in record["folds"]:
        fold["scoring_seconds"] = 5.0
    write_json(result.run / "folds.json", record)
    longer = go_on(tmp_path / "runs", time_limit="101s", progress=ask)

    first, second = (read_json(fold.run / "run.json") for fold in longer.folds)
    assert longer.stopped_by == "interrupt"
    assert first["steps"] > result.folds[0].steps
    assert rates[0] > 1e-4  # far from its end of 1e-6: the schedule ends with the longer time
    # 101 s, less two scorings of 5 s before and two to come, for two folds
    assert 'time_limit = "40s"' in (result.folds[0].run / "config.toml").read_text()
    assert (second["status"], second["steps"]) == ("interrupted", result.folds[1].steps)


def test_a_time_that_earlier_sittings_have_used_up_is_told(
    contest: LocalContest, tmp_path: Path
) -> None:
    train_folds(contest, tmp_path / "runs", progress=in_fold(1, ctrl_c_at(2)))

    with pytest.raises(SettingsError, match="used up its --time-limit 1s") as caught:
        go_on(tmp_path / "runs", time_limit="1s")

    assert "--resume" in caught.value.hint
    assert go_on(tmp_path / "runs", time_limit="5m").stopped_by == "steps"


def test_a_contest_s_own_hold_out_is_fold_0_and_the_others_divide_the_rest(
    make_contest: MakeContest, tmp_path: Path
) -> None:
    contest = make_contest(pages=4, holdout=["Page.00001", "Page.00002"])

    result = train_folds(contest, tmp_path / "runs")

    rows = rows_of(result)
    assert [fold.pictures for fold in result.folds] == [4, 2, 2]
    assert {row["group"] for row in rows if row["fold"] == "0"} == {"Page.00001", "Page.00002"}
    assert len(rows) == 8


def test_a_dry_run_of_folds_writes_nothing(contest: LocalContest, tmp_path: Path) -> None:
    facts: list[Event] = []

    result = train_folds(contest, tmp_path / "runs", dry_run=True, progress=facts.append)

    assert result.stopped_by == "dry run"
    assert [fold.pictures for fold in result.folds] == [4, 2, 2]
    assert result.untouched_score > 0
    assert any(isinstance(fact, Fact) and "3 parts of 4, 2, 2" in fact.text for fact in facts)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"folds": 5}, "--folds 5 needs as many groups"),
        ({"patch": 21}, "multiple"),
        ({"time_limit": "2s"}, "too short for 3 models"),
        ({"model": "median", "width": 0, "hyper": "", "size": "huge"}, "for networks"),
        ({"run_name": "a/b"}, "cannot name a run"),
    ],
)
def test_folds_that_make_no_sense_leave_nothing_behind(
    contest: LocalContest, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        train_folds(contest, tmp_path / "runs", **changes)

    assert words in caught.value.message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("taken", ["otter", "otter-fold2", "otter-folds"])
def test_names_that_are_taken_are_refused(
    contest: LocalContest, tmp_path: Path, taken: str
) -> None:
    made = train(contest.folder, runs=tmp_path / "runs", run_name="x", **(TINY | {"fold": 0}))
    theirs = made.run.with_name(made.run.name.replace("_x", f"_{taken}"))
    made.run.rename(theirs)

    with pytest.raises(SettingsError, match=f"{taken} is there already"):
        train_folds(contest, tmp_path / "runs")

    assert [path.name for path in (tmp_path / "runs").iterdir()] == [theirs.name]


@pytest.mark.parametrize("change", [{"steps": 6}, {"patience": 1}, {"lr": 0.5}, {"fold": 1}])
def test_settings_that_would_make_folds_unlike_are_refused_on_resuming(
    contest: LocalContest, tmp_path: Path, change: dict[str, Any]
) -> None:
    train_folds(contest, tmp_path / "runs", progress=in_fold(1, ctrl_c_at(2)))

    with pytest.raises(SettingsError, match="cannot be changed"):
        go_on(tmp_path / "runs", **change)


def test_folds_of_changed_pictures_are_not_gone_on_with(
    contest: LocalContest, tmp_path: Path
) -> None:
    train_folds(contest, tmp_path / "runs", progress=in_fold(1, ctrl_c_at(2)))
    picture = next(contest.noisy.iterdir())
    write_image(picture, np.full((48, 40, 3), 0.5, np.float32))

    with pytest.raises(DataError, match="have changed since"):
        go_on(tmp_path / "runs")


def test_a_filter_is_chosen_on_each_fold(contest: LocalContest, tmp_path: Path) -> None:
    result = train_folds(contest, tmp_path / "runs", model="tone-fit", width=0, hyper="")

    assert all((fold.run / "filter.toml").is_file() for fold in result.folds)
    assert len(rows_of(result)) == 8
    assert result.out_of_fold_score < 0.5 * result.untouched_score


@pytest.mark.slow
def test_two_machines_train_the_same_folds_whose_runs_are_on_the_first_one_only(
    contest: LocalContest, tmp_path: Path, team: Callable[..., list[Any]]
) -> None:
    """With batch norms, of which each process has its own."""
    settings = TINY | {"folds": 2, "hyper": "levels=1 convs=1 norm=batch", "ema": 0.9}
    words = ["train", str(contest.folder), "--runs", "runs", "--name", "otter"]
    words += [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    (tmp_path / "second").mkdir()

    ended, silent = team(*words, "--json", places=(tmp_path, tmp_path / "second"))

    assert (ended.returncode, silent.returncode) == (0, 0), ended.stderr + silent.stderr
    assert "batch norms each see their own share" in ended.stderr
    assert not list((tmp_path / "second").iterdir())
    assert silent.stdout == ""
    content = json.loads(ended.stdout)
    result = go_on(tmp_path / "runs")
    assert content["out_of_fold_score"] == result.out_of_fold_score
    for fold in result.folds:
        evaluation = evaluate(str(fold.run), device="cpu", threads=1)
        assert fold.score == pytest.approx(evaluation.score, rel=1e-6)
        validated = read_json(fold.run / "run.json")["best_score"]
        assert validated == pytest.approx(evaluation.score, rel=1e-6)
    assert len(rows_of(result)) == 8
