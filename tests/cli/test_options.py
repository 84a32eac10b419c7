import inspect
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch

from kbdenoise.cli import complete
from kbdenoise.cli.app import main
from kbdenoise.cli.options import DATA, RUNS, SUBMISSIONS
from kbdenoise.cli.setting_options import option_name, setting_options
from kbdenoise.config import PredictConfig, TrainConfig
from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.imaging.classical.summaries import SUMMARIES
from kbdenoise.models.build import build_model
from kbdenoise.models.zoo import MODELS
from kbdenoise.presets import PRESETS
from kbdenoise.resolving import section_of

Captured = pytest.CaptureFixture[str]
Complete = Any


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def settings_of(config: type) -> list[tuple[str, Any, Any]]:
    """Name, type and default of every setting."""
    return [
        (field.name, get_type_hints(section)[field.name], field)
        for section in get_type_hints(config).values()
        for field in fields(section)
    ]


def effective(capsys: Captured, *words: str) -> dict[str, Any]:
    """All flat settings that `kbdenoise settings` prints as JSON."""
    assert main(["settings", *words, "--json"]) == 0, capsys.readouterr().err
    content = json.loads(capsys.readouterr().out)
    del content["command"]
    return {name: value for section in content.values() for name, value in section.items()}


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("train", TrainConfig),
        ("settings train", TrainConfig),
        ("predict", PredictConfig),
        ("evaluate", PredictConfig),
        ("submit", PredictConfig),
        ("settings predict", PredictConfig),
    ],
)
def test_every_setting_is_an_option_with_its_explanation(
    capsys: Captured, command: str, config: type
) -> None:
    main([*command.split(), "--help"])

    page = " ".join(capsys.readouterr().out.split())
    for name, kind, field in settings_of(config):
        assert f"{option_name(name)} " in page
        assert field.metadata["help"] in page
        if kind is bool:
            assert f"--no-{option_name(name)[2:]} " in page
        if get_origin(kind) is not None:
            assert "|".join(get_args(kind)) in page
    for section in get_type_hints(config).values():
        assert f"─ {inspect.cleandoc(section.__doc__)} ─" in page


def another(kind: Any, field: Any) -> Any:
    """A value that is not the default."""
    if kind is bool:
        return not field.default
    if field.name in ("folds", "epochs", "samples", "dsd"):  # one length at a time
        return {"folds": 5, "epochs": 0.0, "samples": 0, "dsd": 0.3}[field.name]
    if kind in (int, float):
        return field.default + 1 if kind is int else 0.9 * field.default
    if field.name == "schedule":
        return "exponential"  # which can start again
    if get_origin(kind) is not None:
        return next(choice for choice in get_args(kind) if choice not in (field.default, "auto"))
    return {
        "model": "dncnn",
        "size": "blind",
        "hyper": "depth=3",
        "warmup": "7 epochs",
        "dsd_phases": "50%,25%,25%",
        "stages": "64x16:50%,128x4:50%",
        "lr_length": "60 epochs",
        "lr_every": "500 steps",
        "init": str(Path("start.pth").resolve()),
        "loss": "l1 + 0.5*mean-luma",
        "perceptual_weights": str(Path("vgg.pth").resolve()),
    }.get(field.name, "90m")


@pytest.fixture
def start() -> None:
    """A weights file of the model that `another` names."""
    model = build_model("dncnn", channels=3, depth=3, width=4)
    torch.save(model.state_dict(), "start.pth")


@pytest.mark.usefixtures("start")
@pytest.mark.parametrize(
    ("command", "config"), [("train", TrainConfig), ("predict", PredictConfig)]
)
def test_every_option_sets_its_setting(capsys: Captured, command: str, config: type) -> None:
    expected = {name: another(kind, field) for name, kind, field in settings_of(config)}
    expected["device"] = "cpu"
    words = []
    for name, value in expected.items():
        option = option_name(name)
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            words += [option, str(value)]

    assert effective(capsys, command, *words) == expected


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [(["--epochs", "7"], "epochs", 7.0), (["--samples", "1.6M"], "samples", 1_600_000)],
)
def test_other_lengths_set_their_settings(
    capsys: Captured, words: list[str], name: str, value: float
) -> None:
    assert effective(capsys, "train", "--device", "cpu", *words)[name] == value


def test_an_option_wins_over_the_file_and_the_file_over_the_preset(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"patch": 32, "batch": 32, "folds": 32}
    monkeypatch.setitem(PRESETS["quick"], "cpu", layer)
    Path("mine.toml").write_text("[data]\npatch = 64\nbatch = 64\n")
    words = ["train", "--device", "cpu", "--preset", "quick", "--config", "mine.toml"]

    found = effective(capsys, *words, "--patch", "96")

    default = TrainConfig().data.seed
    assert (found["patch"], found["batch"], found["folds"], found["seed"]) == (96, 64, 32, default)


def test_predict_settings_come_from_the_file_too(capsys: Captured) -> None:
    Path("mine.toml").write_text("[tiles]\ntile = 256\noverlap = 32\n")

    found = effective(capsys, "predict", "--config", "mine.toml", "--overlap", "16")

    assert (found["tile"], found["overlap"]) == (256, 16)


@pytest.mark.parametrize("command", ["train", "predict"])
def test_printed_settings_are_taken_back_unchanged(capsys: Captured, command: str) -> None:
    words = ["settings", command, "--device", "cpu"]
    assert main(words) == 0
    first = capsys.readouterr().out
    Path("mine.toml").write_text(first)

    assert main([*words, "--config", "mine.toml"]) == 0

    assert capsys.readouterr().out == first


def test_an_unknown_key_of_the_file_is_refused_with_the_nearest(capsys: Captured) -> None:
    Path("mine.toml").write_text("[data]\npatchh = 64\n")

    code = main(["settings", "train", "--config", "mine.toml"])

    assert code == 2
    assert capsys.readouterr() == (
        "",
        "error: mine.toml: unknown setting 'data.patchh'\n hint: did you mean 'patch'?\n",
    )


def test_a_default_that_differs_by_device_is_told_for_both(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS["standard"], "cpu", {"model": "unet"})
    monkeypatch.setitem(PRESETS["standard"], "gpu", {})

    (option,) = (p for p in setting_options(TrainConfig) if p.name == "model")

    assert "Default: unet (cpu), kbnet-s (gpu)." in option.annotation.__metadata__[0].help


def test_the_folders_of_the_command_line_are_those_of_the_library() -> None:
    from kbdenoise.contests.fetch import fetch
    from kbdenoise.inference.evaluate import evaluate
    from kbdenoise.inference.predict import predict
    from kbdenoise.report.inspect import inspect as inspect_contest
    from kbdenoise.submission.submit import submit
    from kbdenoise.training.train import train

    expected = {"data": DATA, "runs": RUNS, "submissions": SUBMISSIONS}
    for function in (fetch, inspect_contest, train, evaluate, predict, submit):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in expected:
                assert parameter.default == expected[name], function


def offered(capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str) -> list[str]:
    """What bash would offer at the end of the line."""
    words = line.split(" ")
    monkeypatch.setenv("_KBDENOISE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        main([])
    return capsys.readouterr().out.split()


@pytest.fixture
def places() -> None:
    """Two contests and two runs, as far as a completion looks."""
    for contest in ("demo", "my-contest"):
        Path("data", contest).mkdir(parents=True)
        Path("data", contest, "contest.toml").touch()
    for run in ("2026-11-21_unet_calm-heron", "2026-11-22_unet_brisk-otter"):
        Path("runs", run).mkdir(parents=True)
        Path("runs", run, "run.json").touch()


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("kbdenoise tr", ["train"]),
        ("kbdenoise train --mod", ["--model"]),
        ("kbdenoise train --model k", ["kbnet-s", "kbnet-l"]),
        ("kbdenoise train --preset ", list(PRESETS)),
        ("kbdenoise train --device ", ["auto", "cuda", "mps", "cpu"]),
        ("kbdenoise train ", ["demo", "my-contest"]),
        ("kbdenoise inspect my", ["my-contest"]),
        ("kbdenoise fetch ", list(CONTESTS)),
        ("kbdenoise models show ", [*MODELS, *SUMMARIES]),
        ("kbdenoise train --loss p", ["psnr", "perceptual"]),
        (
            "kbdenoise evaluate ",
            ["last", "best", "2026-11-22_unet_brisk-otter", "2026-11-21_unet_calm-heron"],
        ),
        ("kbdenoise train --resume 2026-11-21", ["2026-11-21_unet_calm-heron"]),
        ("kbdenoise evaluate --runs elsewhere ", ["last", "best"]),
    ],
)
def test_the_shell_completes_values(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, line: str, values: list[str]
) -> None:
    assert offered(capsys, monkeypatch, line) == values


def test_contests_are_completed_without_importing_them() -> None:
    before = set(sys.modules)

    names = complete.keys_of_table("kbdenoise.contests.catalogue", "CONTESTS")

    assert names == list(CONTESTS)
    assert not {m for m in set(sys.modules) - before if m.startswith("kbdenoise")}


def test_what_is_not_there_completes_to_nothing() -> None:
    assert complete.keys_of_table("kbdenoise.contests.catalogue", "NOTHING") == []
    assert complete.keys_of_table("kbdenoise.nowhere", "CONTESTS") == []


def test_no_default_is_written_into_a_help_page_by_hand(capsys: Captured) -> None:
    main(["train", "--help"])

    page = " ".join(capsys.readouterr().out.replace("│", " ").split())
    shown = re.findall(r"Default: (\S+(?: \(cpu\), \S+ \(gpu\))?)\.(?= |$)", page)
    assert len(shown) == len(section_of(TrainConfig))
