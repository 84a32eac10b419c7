"""README says what is: its settings table, its links and its commands."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kbdenoise.cli.app import app
from kbdenoise.cli.setting_options import settings_table
from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.devices import choose_device
from kbdenoise.errors import KbdenoiseError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.loss_terms import LOSS_TERMS
from kbdenoise.resolving import validated
from kbdenoise.training.network import check_patch, model_info
from kbdenoise.training.prepare import _objective

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Every `kbdenoise ...` line in the shell blocks, as words, without prompt and comment."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("kbdenoise ")]


def test_the_settings_table_is_the_programs_own() -> None:
    assert settings_table(TrainConfig) in README


def test_the_table_of_losses_is_complete() -> None:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in LOSS_TERMS.items()]

    assert "| loss | what it is |\n|---|---|\n" + "\n".join(rows) + "\n\n" in README


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_shown_is_one_the_program_takes(words: list[str]) -> None:
    """The command exists and knows every option; tests/e2e runs the tour itself."""
    names = [word for word in words if not word.startswith("-")]
    help_of = [names[0]] if names[0] not in {"runs", "models", "settings"} else names[:2]

    answer = CliRunner().invoke(app, [*help_of, "--help"], terminal_width=200)

    assert answer.exit_code == 0, answer.output
    for option in (word for word in words if word.startswith("--")):
        assert option.split("=")[0] in answer.output


def trainings() -> list[list[str]]:
    """The commands that train a network of the table anew, as far as the settings go."""
    elsewhere = {"--resume", "--init", *FILTERS}
    begun = [w for w in commands() if w[0] == "train" and not elsewhere & set(w)]
    return [w[:-2] if "--gpus" in w else w for w in begun]


@pytest.mark.parametrize("words", trainings(), ids=" ".join)
def test_the_network_patch_and_loss_of_every_training_shown_suit_each_other(
    words: list[str], contest: LocalContest
) -> None:
    shown = [str(contest.folder) if word == "demo" else word for word in words]

    answer = CliRunner().invoke(app, ["settings", *shown, "--device", "cpu", "--json"])

    assert answer.exit_code == 0, answer.output
    config = validated(TrainConfig, json.loads(answer.stdout), source="README")
    info = model_info(config, channels=3)
    for stage in config.stages:
        check_patch(info, stage, staged=bool(config.data.stages))
    _objective(config, channels=3, device=choose_device("cpu"))


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_file_that_readme_links_is_there(target: str) -> None:
    assert (ROOT / target).is_file()


def test_no_placeholder_is_left() -> None:
    assert "PLACEHOLDER" not in README


def test_every_exit_code_is_in_the_table() -> None:
    kinds, found = [KbdenoiseError], {0, 130}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        found.add(kind.exit_code)

    told = re.findall(r"^\| (\d+) \|", README, re.MULTILINE)
    assert told == [str(code) for code in sorted(found)]
