"""What `bench` measures and refuses; that speeds are right is for benchmarks to say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.cli.app import main
from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.training import bench as module
from kbdenoise.training.bench import bench

TINY: dict[str, Any] = {"patch": 16, "batch": 2, "steps": 100, "folds": 4, "device": "cpu"}


@pytest.fixture(autouse=True)
def small_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHAPES", ((4, 8),))
    monkeypatch.setattr(module, "_MATRIX", 64)


@pytest.mark.parametrize("model", ["unet", "kbnet-s", "tone+unet"])
def test_every_rate_is_of_the_settings_asked_for(model: str, contest: LocalContest) -> None:
    result = bench(contest.folder, model=model, width=4, duration="1s", **TINY)

    assert (result.model, result.patch, result.batch, result.steps) == (model, 16, 2, 100)
    assert result.picture == (48, 40)
    rates = (result.loader_patches_per_s, result.step_ms, result.restore_ms)
    assert all(0 < rate < 1e7 for rate in rates)
    assert result.training_hours == pytest.approx(
        100 * max(result.step_ms, 2e3 / result.loader_patches_per_s) / 3.6e6
    )
    assert result.restore_mpix_per_s == pytest.approx(48 * 40 / 1e3 / result.restore_ms)
    (row,) = result.operator
    assert row.forward_gflops == pytest.approx(2 * 1152 * 4 * 64 / 1e6 / row.forward_ms)


def test_nothing_is_left_behind(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bench(contest.folder, model="unet", width=4, duration="1s", **TINY)
    before = sorted(tmp_path.rglob("*"))

    bench(contest.folder, model="unet", width=4, duration="1s", **TINY)

    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "median"}, "median is a classical filter"),
        ({"duration": "0"}, "measures nothing"),
        ({"duration": "soon"}, "--duration 'soon' is no duration"),
        ({"patch": 4096}, "smaller than a patch"),
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str, contest: LocalContest
) -> None:
    asked = {"model": "unet", "width": 4, "duration": "1s", **TINY} | changes

    with pytest.raises((SettingsError, DataError), match=message):
        bench(contest.folder, **asked)


def test_the_command_shows_a_page_and_json(
    contest: LocalContest, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    words = [
        *("bench", str(contest.folder), "--model", "unet", "--width", "4", "--duration", "1s"),
        *("--patch", "16", "--batch", "2", "--folds", "4", "--steps", "100", "--device", "cpu"),
    ]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)

    assert "patches of 16 px" in text and "GFLOP/s" in text
    assert content["contest"] == "tiny" and content["step_ms"] > 0
    assert content["operator"][0]["channels"] == 4
