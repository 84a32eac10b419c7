"""Training that starts from a weights file."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model
from kbdenoise.models.weights import load_weights, read_card
from kbdenoise.progress import Event, Note
from kbdenoise.runs.folder import find_run
from kbdenoise.training.train import TrainResult, train

SHORT: dict[str, Any] = {
    "patch": 16,
    "batch": 2,
    "steps": 6,
    "val_every": 3,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """An authors' file of a DnCNN for colour, wrapped as training codes do."""
    torch.manual_seed(7)
    model = build_model("dncnn", channels=3, depth=3, width=6)
    nn.init.normal_(model.get_parameter("model.5.weight"), std=0.01)
    torch.save({"params": model.state_dict(), "iter": 9}, tmp_path / "start.pth")
    return tmp_path / "start.pth"


def train_from(start: Path, contest: LocalContest, runs: Path, **changes: Any) -> TrainResult:
    return train(contest.folder, runs=runs, **(SHORT | {"init": str(start)} | changes))


def killed_at_its_first_step(start: Path, contest: LocalContest, runs: Path, **changes: Any) -> Any:
    """A run that is saved at step 0 and dies in its first validation."""

    def die(event: Event) -> None:
        if isinstance(event, Note):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_from(start, contest, runs, progress=die, **changes)
    return find_run("last", runs)


def test_the_model_is_the_file_s_and_its_weights_are_the_start(
    start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    # No learning: what is saved is what was begun with, but for batch norm's running statistics.
    result = train_from(start, contest, tmp_path / "runs", lr=0.0, min_lr=0.0)

    begun, _ = load_weights(start)
    ended = safetensors.torch.load_file(result.run / "last.safetensors")
    for name, parameter in begun.named_parameters():
        assert torch.allclose(ended[name], parameter, atol=1e-7), name
    card = read_card(result.run / "last.safetensors")
    assert card.model == "dncnn"
    assert (card.hyperparameters["depth"], card.hyperparameters["width"]) == (3, 6)
    assert result.steps == 6


def test_training_from_a_file_goes_on_from_there(
    start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    result = train_from(start, contest, tmp_path / "runs")

    begun, _ = load_weights(start)
    ended = safetensors.torch.load_file(result.run / "last.safetensors")
    moved = [float((ended[n] - p).detach().abs().max()) for n, p in begun.named_parameters()]
    assert 0 < max(moved) < 0.05  # six steps of at most 0.001 each


def test_the_run_s_settings_name_the_model_and_the_whole_path(
    start: Path, contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(start.parent)

    result = train_from(Path("start.pth"), contest, tmp_path / "runs")

    settings = tomllib.loads((result.run / "config.toml").read_text())
    assert settings["model"]["model"] == "dncnn"
    assert settings["model"]["init"] == str(start)
    assert "_dncnn_" in result.run.name


def test_settings_tuned_for_the_file_s_model_apply(contest: LocalContest, tmp_path: Path) -> None:
    options = {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)}
    torch.save(build_model("res-unet", channels=3, **options).state_dict(), tmp_path / "r.pth")
    torch.save(build_model("dncnn", channels=3, depth=3).state_dict(), tmp_path / "d.pth")

    runs = [train_from(tmp_path / f"{x}.pth", contest, tmp_path / x).run for x in "rd"]

    flips = [tomllib.loads((r / "config.toml").read_text())["augmentation"]["flips"] for r in runs]
    assert flips == [False, True]


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resumed_run_needs_neither_the_file_nor_its_settings_again(
    ema: float, start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    whole = train_from(start, contest, tmp_path / "whole", ema=ema)
    cut = killed_at_its_first_step(start, contest, tmp_path / "cut", ema=ema)
    start.unlink()

    resumed = train(resume=cut.name, runs=tmp_path / "cut")

    assert resumed.steps == 6
    one, other = (
        safetensors.torch.load_file(r / "last.safetensors") for r in (whole.run, cut.path)
    )
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_resumed_run_is_of_the_model_it_was_begun_with_whatever_sizes_are_called(
    start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    cut = killed_at_its_first_step(
        start, contest, tmp_path / "runs", init="", model="dncnn", hyper="depth=4 width=5"
    )
    text = cut.config_file.read_text().replace('hyper = "depth=4 width=5"', 'hyper = ""')
    cut.config_file.write_text(text.replace('size = ""', 'size = "no longer there"'))

    train(resume="last", runs=tmp_path / "runs")

    assert read_card(cut.last).hyperparameters["depth"] == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "unet"}, r"--model unet contradicts --init .*start\.pth, which holds a dncnn"),
        ({"width": 8}, r"--width 8: width=8 .*start\.pth.* with width=6"),
        ({"size": "blind"}, r"--size blind: depth=20 .*start\.pth.* with depth=3"),
        ({"hyper": "depth=9"}, r"--hyper depth=9: depth=9 .* with depth=3"),
        ({"hyper": "norm=none"}, r"norm=none .* with norm=batch"),
        ({"hyper": "dept=9"}, r"dncnn has no hyper-parameter 'dept'"),
        ({"size": "huge"}, r"dncnn has no size called 'huge'"),
    ],
    ids=str,
)
def test_what_contradicts_the_file_is_refused_with_both_values(
    changes: dict[str, Any], words: str, start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        train_from(start, contest, tmp_path / "runs", **changes)

    assert refused.value.hint
    assert not (tmp_path / "runs").exists()


def test_what_agrees_with_the_file_may_be_said(
    start: Path, contest: LocalContest, tmp_path: Path
) -> None:
    said = {"model": "dncnn", "width": 6, "hyper": "depth=3, norm=batch"}

    result = train_from(start, contest, tmp_path / "runs", dry_run=True, **said)

    assert result.stopped_by == "dry run"


def test_weights_for_gray_are_refused_for_a_contest_in_colour(
    contest: LocalContest, tmp_path: Path
) -> None:
    torch.save(build_model("dncnn", channels=1, depth=3).state_dict(), tmp_path / "gray.pth")

    with pytest.raises(SettingsError, match=r"gray pictures, but the contest tiny has colour"):
        train_from(tmp_path / "gray.pth", contest, tmp_path / "runs")


def test_a_missing_file_to_start_from_is_named(contest: LocalContest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no weights file .*nowhere\.pth"):
        train_from(tmp_path / "nowhere.pth", contest, tmp_path / "runs")


@pytest.mark.parametrize("way", ["option", "file"])
def test_any_hyperparameter_can_be_set_and_wins_over_the_size(
    way: str, contest: LocalContest, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "model": "dncnn",
        "size": "blind",
        "hyper": "depth=3 norm=none width=4",
    }
    file = None
    if way == "file":
        file = tmp_path / "mine.toml"
        file.write_text("[model]\n" + "".join(f'{k} = "{v}"\n' for k, v in given.items()))
        given = {}

    result = train(contest.folder, runs=tmp_path / "runs", config=file, **SHORT, **given)

    built = read_card(result.run / "last.safetensors").hyperparameters
    assert (built["depth"], built["norm"], built["width"]) == (3, "none", 4)


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ("dept=3", "no hyper-parameter 'dept'"),
        ("depth=3.5", "depth of dncnn is 3.5"),
        ("norm=non", "norm of dncnn is 'non'"),
        ("depth", "cannot be read from 'depth'"),
    ],
)
def test_a_wrong_hyperparameter_is_refused_before_a_run_begins(
    hyper: str, words: str, contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        train(contest.folder, runs=tmp_path / "runs", model="dncnn", hyper=hyper, **SHORT)

    assert refused.value.hint
    assert not (tmp_path / "runs").exists()
