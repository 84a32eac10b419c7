import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from kbdenoise.atomic import writing_to
from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, KbdenoiseError, SettingsError
from kbdenoise.imaging.files import read_picture, write_pixels
from kbdenoise.inference.engines import PACES, Pace
from kbdenoise.inference.evaluate import evaluate
from kbdenoise.inference.filters import BASELINES
from kbdenoise.inference.predict import LEDGER_FILE, predict
from kbdenoise.progress import Advance, Event
from kbdenoise.runs.folder import find_run
from kbdenoise.training.train import train

TINY: dict[str, Any] = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "steps": 3,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def kept() -> list[Path]:
    """Where the run that is trained once for all tests is kept."""
    return []


@pytest.fixture
def runs(
    contest: LocalContest,
    kept: list[Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with one short run on the tiny contest, which is the same in all tests."""
    if not kept:
        kept.append(tmp_path_factory.mktemp("kept") / "runs")
        train(contest.folder, runs=kept[0], **TINY)
    shutil.copytree(kept[0], tmp_path / "runs")
    run = find_run("last", tmp_path / "runs")
    run.write_record(replace(run.read_record(), contest_folder=str(contest.folder)))
    return tmp_path / "runs"


def make_identity(runs: Path) -> None:
    """Zero the last convolution, so that only the network's input skip is left."""
    weights = find_run("last", runs).best
    with safetensors.safe_open(weights, "pt") as file:
        header = file.metadata()
    state = safetensors.torch.load_file(weights)
    last = [name for name in state if name.startswith("ending")]
    assert last
    for name in last:
        state[name] = torch.zeros_like(state[name])
    safetensors.torch.save_file(state, weights, metadata=header)


def noise(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def test_the_test_set_is_restored_under_its_own_names(
    runs: Path, contest: LocalContest, tmp_path: Path
) -> None:
    result = predict("last", runs=runs, out=tmp_path / "out")

    names = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert names == {p.name for p in contest.test.iterdir()}
    assert result.pictures == 4
    assert result.tiles == "whole"


def test_the_first_picture_does_not_wait_for_torch_s_compiler(runs: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from kbdenoise.inference.predict import predict\n"
        f"predict('last', runs=Path({str(runs)!r}), out=Path({str(tmp_path / 'out')!r}))\n"
        "print({'sympy', 'torch._dynamo'} & set(sys.modules))"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (answer.returncode, answer.stdout) == (0, "set()\n"), answer.stderr


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_depth_channels_and_alpha_stay_as_they_are(
    runs: Path, tmp_path: Path, suffix: str, dtype: type, channels: int
) -> None:
    make_identity(runs)
    pixels = np.repeat(noise((21, 35, 1), dtype), channels, axis=2)
    alpha = noise((21, 35), dtype) if channels == 3 else None
    write_pixels(tmp_path / f"scan{suffix}", pixels, alpha=alpha)

    predict("last", [tmp_path / f"scan{suffix}"], runs=runs, out=tmp_path / "out")

    restored = read_picture(tmp_path / "out" / f"scan{suffix}")
    np.testing.assert_allclose(
        restored.pixels.astype(int), pixels.astype(int), atol=1 if dtype == np.uint16 else 0
    )
    assert restored.pixels.dtype == dtype
    if alpha is not None:
        np.testing.assert_array_equal(restored.alpha, alpha)


def test_a_folder_means_the_pictures_in_it(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        write_pixels(folder / name, noise((40, 30, 3)))
    (folder / "notes.txt").write_text("not a picture")

    result = predict("last", [folder], runs=runs, out=tmp_path / "out", tile=64)

    assert result.pictures == 2
    assert (tmp_path / "out" / "b.jpg").exists()


def test_nothing_is_overwritten_unless_asked(runs: Path, tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", noise((16, 16, 3)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")

    with pytest.raises(SettingsError, match="there already"):
        predict("last", [tmp_path / "a.png"], runs=runs, out=tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_text() == "mine"
    predict("last", [tmp_path / "a.png"], runs=runs, out=tmp_path / "out", force=True)
    assert read_picture(tmp_path / "out" / "a.png").pixels.shape == (16, 16, 3)


def test_a_call_that_was_stopped_goes_on_where_it_was(runs: Path, tmp_path: Path) -> None:
    predict("last", runs=runs, out=tmp_path / "out")
    removed = next((tmp_path / "out").glob("*.png"))
    removed.unlink()

    result = predict("last", runs=runs, out=tmp_path / "out")

    assert (result.pictures, result.kept) == (1, 3)
    assert removed.exists()


def test_other_settings_do_not_count_as_the_same_work(runs: Path, tmp_path: Path) -> None:
    predict("last", runs=runs, out=tmp_path / "out")

    with pytest.raises(SettingsError, match="there already"):
        predict("last", runs=runs, out=tmp_path / "out", tta=True)


def test_another_picture_of_a_name_is_not_taken_for_the_first(runs: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_pixels(tmp_path / folder / "scan.png", noise((16, 16, 3)))
    predict("last", [tmp_path / "a" / "scan.png"], runs=runs, out=tmp_path / "out")

    with pytest.raises(SettingsError, match="there already"):
        predict("last", [tmp_path / "b" / "scan.png"], runs=runs, out=tmp_path / "out")


def test_an_interrupted_overwrite_does_not_pass_old_pictures_for_new(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACES, "cpu", Pace(pixels=1, most_bytes=1e9))  # one picture at a time
    predict("last", runs=runs, out=tmp_path / "out")

    def stop(event: Event) -> None:
        if isinstance(event, Advance) and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict("last", runs=runs, out=tmp_path / "out", force=True, tta=True, progress=stop)
    with pytest.raises(SettingsError, match="and 1 more"):
        predict("last", runs=runs, out=tmp_path / "out", tta=True)


def test_a_dry_run_writes_nothing(runs: Path, tmp_path: Path) -> None:
    result = predict("last", runs=runs, out=tmp_path / "out", dry_run=True)

    assert result.pictures == 4
    assert not (tmp_path / "out").exists()


def test_a_broken_picture_is_named_before_any_is_restored(runs: Path, tmp_path: Path) -> None:
    write_pixels(tmp_path / "good.png", noise((16, 16, 3)))
    (tmp_path / "bad.png").write_bytes(b"hello")

    with pytest.raises(DataError, match=r"bad\.png"):
        predict(
            "last",
            [tmp_path / "good.png", tmp_path / "bad.png"],
            runs=runs,
            out=tmp_path / "out",
        )

    assert not (tmp_path / "out").exists()


def test_damage_inside_a_picture_costs_no_other_its_restoration(runs: Path, tmp_path: Path) -> None:
    for number in range(5):
        write_pixels(tmp_path / "in" / f"{number}.png", noise((16, 16, 3)))
    for number in (1, 3):
        path = tmp_path / "in" / f"{number}.png"
        path.write_bytes(path.read_bytes()[:-20])  # the header is whole

    with pytest.raises(DataError, match=r"1\.png.* and 1 more.* all other pictures are restored"):
        predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")

    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"0.png", "2.png", "4.png"}
    write_pixels(tmp_path / "in" / "1.png", noise((16, 16, 3)))
    (tmp_path / "in" / "3.png").unlink()
    assert predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out").kept == 3


CHANGES: dict[str, np.ndarray] = {
    "larger": noise((40, 36, 3)),
    "gray": noise((16, 16, 1)),
    "sixteen bits": noise((16, 16, 3), np.uint16),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_that_changes_during_the_call_is_named_and_costs_no_other(
    runs: Path, tmp_path: Path, number: int, change: str
) -> None:
    for other in range(4):
        write_pixels(tmp_path / "in" / f"{other}.png", noise((16, 16, 3)))
    alone = predict("last", [tmp_path / "in" / "3.png"], runs=runs, out=tmp_path / "alone").out

    def meddle(event: Event) -> None:
        if isinstance(event, Advance) and event.done == 0:
            write_pixels(tmp_path / "in" / f"{number}.png", CHANGES[change])

    with pytest.raises(DataError, match=rf"{number}\.png changed while"):
        predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out", progress=meddle)

    names = {p.name for p in (tmp_path / "out").glob("*.png")}
    assert names == {f"{other}.png" for other in range(4) if other != number}
    for name in names:
        restored = read_picture(tmp_path / "out" / name).pixels
        np.testing.assert_array_equal(restored, read_picture(alone / "3.png").pixels)
    again = predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")
    assert (again.pictures, again.kept) == (1, 3)


@pytest.mark.parametrize(
    "tail", ["[" * 200_000, '{"picture": "0.png", "begun": true}', '{"picture": 7}', "[1]", "\x00"]
)
def test_a_garbled_ledger_counts_for_nothing(runs: Path, tmp_path: Path, tail: str) -> None:
    write_pixels(tmp_path / "in" / "0.png", noise((16, 16, 3)))
    predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")
    ledger = tmp_path / "out" / LEDGER_FILE
    head = ledger.read_text().splitlines()[0]
    ledger.write_text(f"{head}\n{tail}\n")

    with pytest.raises(SettingsError, match="there already"):
        predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")
    predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out", force=True)
    assert predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out").kept == 1


@pytest.mark.parametrize("name", ["0.png", LEDGER_FILE])
def test_a_folder_in_the_way_is_found_before_the_work(
    runs: Path, tmp_path: Path, name: str
) -> None:
    write_pixels(tmp_path / "in" / "0.png", noise((16, 16, 3)))
    (tmp_path / "out" / name).mkdir(parents=True)

    with pytest.raises(SettingsError, match="is a folder"):
        predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out", force=True)


def test_a_disk_that_fills_up_keeps_what_was_restored(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbdenoise.inference import restore_files

    monkeypatch.setitem(PACES, "cpu", Pace(pixels=1, most_bytes=1e9))
    for number in range(30):
        write_pixels(tmp_path / "in" / f"{number:02}.png", noise((16, 16, 3)))

    def full(path: Path, pixels: np.ndarray, **options: Any) -> None:
        if path.stem >= "10":
            with writing_to(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        write_pixels(path, pixels, **options)

    monkeypatch.setattr(restore_files, "write_pixels", full)
    with pytest.raises(DataError, match="no space left"):
        predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")
    monkeypatch.undo()

    result = predict("last", [tmp_path / "in"], runs=runs, out=tmp_path / "out")
    assert (result.kept, result.pictures) == (10, 20)


@pytest.mark.parametrize("lost", [2, 30, 120, 250])
def test_a_call_killed_while_it_wrote_its_ledger_goes_on(
    runs: Path, tmp_path: Path, lost: int, monkeypatch: pytest.MonkeyPatch, no_power_failure: Any
) -> None:
    """The pictures are there, but the lines that tell so are lost or cut short."""
    monkeypatch.setattr(os, "fsync", no_power_failure)  # lines come in a real disk's order
    count = predict("last", runs=runs, out=tmp_path / "out").pictures
    ledger = tmp_path / "out" / LEDGER_FILE
    ledger.write_bytes(ledger.read_bytes()[:-lost])

    first = predict("last", runs=runs, out=tmp_path / "out")
    again = predict("last", runs=runs, out=tmp_path / "out")

    assert 0 < first.pictures < count and first.kept == count - first.pictures
    assert (again.pictures, again.kept) == (0, count)
    assert all(json.loads(line) for line in ledger.read_text().splitlines())


def test_a_name_that_does_not_fit_the_content_is_found_before_the_work(
    runs: Path, tmp_path: Path
) -> None:
    write_pixels(tmp_path / "a.png", noise((16, 16, 3)))
    write_pixels(tmp_path / "deep.png", noise((16, 16, 3), np.uint16))
    (tmp_path / "deep.png").rename(tmp_path / "deep.jpg")

    with pytest.raises(DataError, match=r"deep\.jpg holds 16-bit"):
        predict(
            "last", [tmp_path / "a.png", tmp_path / "deep.jpg"], runs=runs, out=tmp_path / "out"
        )

    assert not (tmp_path / "out").exists()


def test_a_missing_picture_is_named_in_full(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nosuch"):
        predict("last", [tmp_path / "nosuch"], runs=runs, out=tmp_path / "out")


def test_a_picture_is_never_written_over_itself(runs: Path, tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", noise((16, 16, 3)))

    with pytest.raises(SettingsError, match="its own restoration"):
        predict("last", [tmp_path / "a.png"], runs=runs, out=tmp_path, force=True)


def test_two_pictures_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_pixels(tmp_path / folder / "a.png", noise((16, 16, 3)))

    with pytest.raises(SettingsError, match="both"):
        predict(
            "last",
            [tmp_path / "x" / "a.png", tmp_path / "y" / "a.png"],
            runs=runs,
            out=tmp_path / "out",
        )


@pytest.mark.parametrize("target", ["missing.png", "page.gif", "empty"])
def test_what_cannot_be_restored_is_a_clear_error(runs: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.gif").write_bytes(b"GIF89a")

    with pytest.raises(KbdenoiseError) as caught:
        predict("last", [tmp_path / target], runs=runs, out=tmp_path / "out")

    assert caught.value.hint


def test_the_identity_scores_exactly_the_gap(runs: Path, contest: LocalContest) -> None:
    make_identity(runs)

    result = evaluate("last", runs=runs, baselines=True)

    assert result.score == pytest.approx(result.untouched, abs=1e-6)
    assert result.table[0].method == "doing nothing"
    assert result.table[-1].method == "unet"
    assert len(result.table) == 2 + len(BASELINES)
    assert result.table[-1].share_of_untouched == pytest.approx(1.0)


def test_evaluation_is_worst_first_and_leaves_a_table_and_a_sheet(runs: Path) -> None:
    result = evaluate("last", runs=runs)

    scores = [row.score for row in result.rows]
    assert scores == sorted(scores, reverse=True)
    assert result.low <= result.score <= result.high
    assert result.scores_file.read_text().splitlines()[1].startswith(result.rows[0].stem)
    assert read_picture(result.sheet_file).pixels.shape[2] == 3


def test_weights_that_are_damaged_are_named(runs: Path) -> None:
    weights = find_run("last", runs).best
    weights.write_bytes(weights.read_bytes()[:100])

    with pytest.raises(DataError, match=r"best\.safetensors"):
        evaluate("last", runs=runs)
