import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kbdenoise.cli.app import main
from kbdenoise.config import TrainConfig
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.models.build import describe_model
from kbdenoise.models.widest import parameters_of
from kbdenoise.models.zoo import MODELS, named_size
from kbdenoise.notation import parameter_count
from kbdenoise.resolving import resolve

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def said(capsys: Captured, *words: str, code: int = 0) -> tuple[str, str]:
    """What a command writes to stdout and stderr, having ended with this code."""
    ended = main(list(words))
    out, err = capsys.readouterr()
    assert ended == code, err
    return out, err


def in_json(capsys: Captured, *words: str) -> dict[str, Any]:
    content = json.loads(said(capsys, *words, "--json")[0])
    assert isinstance(content, dict)
    return content


def test_the_table_lists_every_model_with_its_parameters_and_every_filter(
    capsys: Captured,
) -> None:
    models, filters = said(capsys, "models")[0].rstrip("\n").split("\n\n")

    unet = next(line for line in models.splitlines() if line.split()[0] == "unet")
    expected = parameters_of("unet", channels=3, **named_size("unet", "small"))
    assert [line.split()[0] for line in models.splitlines()[1:]] == list(MODELS)
    assert unet.split()[1] == f"{expected:,}"
    assert unet.endswith(MODELS["unet"].summary)
    names = [line.split("   ")[0].strip() for line in filters.splitlines()[1:]]
    assert names == list(FILTERS)
    assert all(chosen.summary in filters for chosen in FILTERS.values())


def test_quiet_gives_names_only(capsys: Captured) -> None:
    assert said(capsys, "models", "-q") == ("\n".join([*MODELS, *FILTERS]) + "\n", "")


def test_the_tables_json_holds_all_that_is_known_of_a_model_and_its_sizes(
    capsys: Captured,
) -> None:
    entries = {entry["name"]: entry for entry in in_json(capsys, "models")["models"]}

    dncnn, median = entries["dncnn"], entries["median"]
    info = describe_model("dncnn", channels=3, **named_size("dncnn", "blind"))
    assert list(entries) == [*MODELS, *FILTERS]
    assert dncnn["kind"] == "model" and median["kind"] == "filter"
    assert dncnn["licence"] == MODELS["dncnn"].licence
    assert dncnn["sizes"]["blind"] == {
        "channels": 3,
        "hyperparameters": {"depth": 20},
        "parameters": info.parameters,
        "conv_macs": info.conv_macs,
        "kernel_basis_macs": 0,
        "attention_macs": 0,
    }
    assert entries["kbnet-s"]["sizes"]["gaussian-gray"]["channels"] == 1
    assert entries["kbnet-s"]["sizes"]["gaussian-gray"]["parameters"] == 141_964_353
    assert median["parameters"]["side"]["values"] == list(FILTERS["median"].grid["side"].values)


def test_a_model_is_shown_with_its_numbers_and_those_of_all_its_sizes(capsys: Captured) -> None:
    out, err = said(capsys, "models", "show", "res-unet")

    info = describe_model("res-unet", channels=3, **named_size("res-unet", "fine"))
    assert f"parameters       {info.parameters:,}" in out
    for words in (MODELS["res-unet"].paper, "licence", "encoder_blocks", "  size   ", "large"):
        assert words in out
    assert "memory, estimated: patch 128, batch 8, mixed precision" in out
    assert err == "  next: kbdenoise train --model res-unet --size fine\n"


def test_a_size_with_hyperparameters_of_ones_own_is_shown_alone(capsys: Captured) -> None:
    words = ["models", "show", "unet", "--size", "medium", "--width", "8", "--hyper", "convs=3"]

    content = in_json(capsys, *words, "--channels", "1", "--side", "100")
    out, err = said(capsys, *words)

    built = describe_model("unet", channels=1, side=100, width=8, levels=3, convs=3)
    assert content["hyperparameters"]["convs"] == 3
    assert content["parameters"] == built.parameters
    assert (content["macs_side"], content["macs"]) == (104, built.macs)
    assert "classic" not in out
    assert err.endswith("train --model unet --size medium --width 8 --hyper convs=3\n")


def test_the_json_of_a_model_mirrors_memory_and_parts(capsys: Captured) -> None:
    words = ["models", "show", "unet", "--width", "8", "--batch", "2", "--patch", "60"]

    content = in_json(capsys, *words, "--no-amp")
    halved = in_json(capsys, *words)

    memory = content["training_memory"]
    parts = sum(
        memory[f"{kind}_bytes"]
        for kind in ("weights", "moments", "average", "gradients", "activations", "temporaries")
    )
    assert (memory["patch"], memory["batch"], memory["amp"]) == (64, 2, False)
    assert memory["total_bytes"] == parts > halved["training_memory"]["total_bytes"]
    assert content["restoring_bytes_per_mpix"] > halved["restoring_bytes_per_mpix"]
    assert sum(layer["parameters"] for layer in content["layers"]) == content["parameters"]
    assert sum(layer["macs"] for layer in content["layers"]) == content["macs"]
    assert content["layers"][0]["output"] == [8, 256, 256]


def test_work_is_told_with_and_without_the_kernel_basis(capsys: Captured) -> None:
    out = said(capsys, "models", "show", "kbnet-s", "--size", "small", "--side", "64")[0]

    info = describe_model("kbnet-s", channels=3, side=64, **named_size("kbnet-s", "small"))
    assert f"{info.macs / 1e9:.4f}" in out
    assert "kernel basis (KBA)" in out and "total without KBA" in out


def test_every_layer_is_listed_on_request(capsys: Captured) -> None:
    few = in_json(capsys, "models", "show", "res-unet", "--size", "small")["layers"]

    every = in_json(capsys, "models", "show", "res-unet", "--size", "small", "--layers")["layers"]

    assert len(every) > len(few)
    assert {layer["kind"] for layer in every} <= {"Conv2d", "ConvTranspose2d"}


def test_the_parts_fit_a_narrow_screen(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    from kbdenoise.cli.console import Console

    monkeypatch.setattr(Console, "width", property(lambda self: 80))

    out = said(capsys, "models", "show", "kbnet-s", "--size", "small")[0]

    parts = out.split("\n\n")[-1].splitlines()
    assert parts[0].split() == ["part", "parameters", "share", "GMACs", "output"]
    assert max(map(len, parts)) <= 80


def test_a_filter_is_shown_with_the_values_tried(capsys: Captured) -> None:
    out, _ = said(capsys, "models", "show", "median")

    assert out.startswith(f"  median: {FILTERS['median'].summary}\n")
    assert ", ".join(f"{value:g}" for value in FILTERS["median"].grid["side"].values) in out
    assert in_json(capsys, "models", "show", "median")["kind"] == "filter"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["medain"], "error: there is no model called 'medain'\n hint: did you mean 'median'?\n"),
        (["unet", "--size", "mediun"], "no size called 'mediun'\n hint: did you mean 'medium'?"),
        (
            ["unet", "--hyper", "convz=3"],
            "no hyper-parameter 'convz'\n hint: did you mean 'convs'?",
        ),
        (["unet", "--hyper", "convs="], "--hyper cannot be read"),
        (["unet", "--width", "8", "--hyper", "width=4"], "--width 8 contradicts width=4"),
        (["kbnet-s", "--width", "5"], "cannot have a level of 5 channels"),
        (["unet", "--batch", "0"], "--batch"),
        (["unet", "--side", "1000000"], "--side"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(
    capsys: Captured, words: list[str], expected: str
) -> None:
    out, err = said(capsys, "models", "show", *words, code=2)

    assert out == ""
    assert expected in err


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10M", 10_000_000),
        ("500k", 500_000),
        ("1.5M", 1_500_000),
        ("10_000_000", 10_000_000),
        ("1,000", 1_000),
        ("7", 7),
        ("0", 0),
        ("2g", 2_000_000_000),
    ],
)
def test_numbers_of_parameters_are_read_as_people_write_them(text: str, count: int) -> None:
    config = resolve(TrainConfig(), ("settings", {"max_params": text}))

    assert parameter_count(text) == config.model.max_params == count


@pytest.mark.parametrize("text", ["", "ten", "-5", "1.5", "10 M M", "1e7", "nan", "M", "0x10"])
def test_what_is_no_number_of_parameters_is_refused_in_words(text: str) -> None:
    with pytest.raises(SettingsError, match="is no number of parameters") as caught:
        resolve(TrainConfig(), ("settings", {"max_params": text}))

    assert "write 10M, 500k" in caught.value.hint


@pytest.mark.parametrize("line", ['max_params = "1.5M"', "max_params = 1500000"])
def test_a_limit_stands_in_toml_as_text_or_number(
    capsys: Captured, tmp_path: Path, line: str
) -> None:
    (tmp_path / "mine.toml").write_text(f"[model]\n{line}\n")

    content = in_json(capsys, "settings", "train", "--config", "mine.toml", "--device", "cpu")

    assert content["model"]["max_params"] == 1_500_000


@pytest.fixture
def contest(tmp_path: Path, capsys: Captured) -> Iterator[str]:
    """A contest of four tiny pairs."""
    rng = np.random.default_rng(0)
    for number in range(4):
        for kind in ("clean", "noisy"):
            path = tmp_path / "pictures" / "train" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    said(capsys, "fetch", "tiny", "--from", "pictures")
    yield "tiny"


def test_a_model_over_the_limit_is_refused_and_the_widest_that_fits_then_trains(
    contest: str, capsys: Captured
) -> None:
    words = ["train", contest, "--model", "unet", "--size", "small", "--max-params", "50k"]
    words += ["--device", "cpu", "--patch", "32", "--batch", "1", "--folds", "2", "--dry-run"]

    _, err = said(capsys, *words, code=2)
    hint = err.splitlines()[-1].split()

    count = parameters_of("unet", channels=3, **named_size("unet", "small") | {"width": 4})
    assert "above the limit of 50,000" in err
    assert hint == ["hint:", "--width", "4", "has", f"{count:,}", "parameters"]
    said(capsys, *words, *hint[1:3])


def test_a_contests_own_limit_counts_too(contest: str, capsys: Captured) -> None:
    toml = Path("data", contest, "contest.toml")
    lines = [x for x in toml.read_text().splitlines() if not x.startswith("max_parameters")]
    toml.write_text("\n".join(["max_parameters = 50000", *lines]) + "\n")

    words = ["train", contest, "--model", "unet", "--device", "cpu", "--patch", "32", "--dry-run"]
    _, err = said(capsys, *words, code=2)

    assert "above the limit of 50,000" in err and "--width 4 has" in err
