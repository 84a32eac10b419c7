from dataclasses import replace
from pathlib import Path

import pytest

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.runs.folder import (
    Run,
    RunRecord,
    compare_runs,
    create_run,
    find_run,
    list_runs,
)
from kbdenoise.runs.history import COLUMNS, read_history, write_history

RECORD = RunRecord(
    contest="tiny",
    contest_folder="/data/tiny",
    metric="rmse",
    model="unet",
    channels=3,
    parameters=1234,
    device="cpu",
    data_checksum="abc",
)


def make_run(runs: Path, name: str, *, started_at: str, score: float, lr: float = 1e-3) -> Run:
    run = create_run(runs, model="unet", name=name)
    run.write_record(replace(RECORD, started_at=started_at, best_score=score))
    run.config_file.write_text(f"[optimiser]\nlr = {lr}\nsteps = 10\n")
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path, "calm-otter", started_at="2026-01-01", score=0.2)
    make_run(tmp_path, "calm-heron", started_at="2026-01-02", score=0.1, lr=2e-3)
    make_run(tmp_path, "keen-wren", started_at="2026-01-03", score=0.3)
    return tmp_path


def test_runs_are_listed_newest_last(runs: Path) -> None:
    assert [info.name.split("_")[-1] for info in list_runs(runs)] == [
        "calm-otter",
        "calm-heron",
        "keen-wren",
    ]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("last", "keen-wren"),
        ("best", "calm-heron"),
        ("keen", "keen-wren"),
        ("calm-o", "calm-otter"),
        ("calm-heron", "calm-heron"),
    ],
)
def test_a_run_is_found_by_many_names(runs: Path, asked: str, found: str) -> None:
    assert find_run(asked, runs).name.endswith(found)


def test_a_run_is_found_by_its_path(runs: Path) -> None:
    path = list_runs(runs)[0].path

    assert find_run(str(path), Path("elsewhere")).path == path


def test_best_follows_the_direction_of_the_metric(runs: Path) -> None:
    for info in list_runs(runs):
        run = Run(path=info.path)
        run.write_record(replace(run.read_record(), metric="psnr"))

    assert find_run("best", runs).name.endswith("keen-wren")


def test_an_ambiguous_or_unknown_name_is_answered_with_names(runs: Path) -> None:
    with pytest.raises(SettingsError, match="2 runs") as ambiguous:
        find_run("calm", runs)
    with pytest.raises(SettingsError) as unknown:
        find_run("keen-wrn", runs)

    assert "calm-otter" in ambiguous.value.hint
    assert "keen-wren" in unknown.value.hint


def test_no_run_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_run("last", tmp_path)

    assert "train" in caught.value.hint


def test_comparison_shows_only_what_differs(runs: Path) -> None:
    rows = compare_runs([find_run("calm-otter", runs), find_run("calm-heron", runs)])

    table = {row.setting: row.values for row in rows}
    assert table["lr"] == ("0.001", "0.002")
    assert table["best rmse"] == ("0.2000", "0.1000")
    assert "steps" not in table


def test_a_damaged_run_is_listed_as_such(runs: Path) -> None:
    info = list_runs(runs)[0]
    (info.path / "run.json").write_text("{")

    assert [i.status for i in list_runs(runs)].count("damaged") == 1


def test_a_name_that_is_taken_or_unfit_is_refused(tmp_path: Path) -> None:
    create_run(tmp_path, model="unet", name="mine")

    with pytest.raises(SettingsError, match="there already"):
        create_run(tmp_path, model="unet", name="mine")
    with pytest.raises(SettingsError, match="cannot name"):
        create_run(tmp_path, model="unet", name="../mine")


def test_history_survives_the_trip_to_csv(tmp_path: Path) -> None:
    rows = [dict.fromkeys(COLUMNS, 0.5), dict.fromkeys(COLUMNS, 1e-7)]

    write_history(tmp_path / "h.csv", rows)

    assert read_history(tmp_path / "h.csv") == rows
    assert read_history(tmp_path / "none.csv") == []


def test_a_damaged_history_is_named(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("step,loss\n1,abc\n")

    with pytest.raises(DataError, match=r"h\.csv"):
        read_history(tmp_path / "h.csv")
