"""`kbdenoise settings`: the effective settings as TOML, to keep and to change."""

from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    ConfigOption,
    DataOption,
    PresetOption,
    Settings,
    command,
    from_file,
    group,
)
from kbdenoise.cli.setting_options import settings_table
from kbdenoise.config import PredictConfig, TrainConfig


@command(
    "kbdenoise settings train > mine.toml",
    "kbdenoise settings train demo --preset quick",
    name="settings train",
    settings=TrainConfig,
)
def train(
    console: Console,
    settings: Settings,
    contest: Annotated[
        str | None,
        typer.Argument(
            metavar="CONTEST",
            help="Contest to train on, which has a say in the model; none stands for any.",
            autocompletion=complete.contests_here,
            show_default=False,
        ),
    ] = None,
    preset: PresetOption = "standard",
    config: ConfigOption = None,
    data: DataOption = DATA,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all options and defaults as a table instead.")
    ] = False,
) -> None:
    """Print what `train` would use on this machine, for any contest or for one."""
    if markdown:
        console.show({}, text=settings_table(TrainConfig), short=settings_table(TrainConfig))
        return
    from kbdenoise.contests.contest import open_contest
    from kbdenoise.devices import choose_device
    from kbdenoise.resolving import to_toml
    from kbdenoise.training.train import effective_settings

    kind = choose_device(settings.get("device", "auto")).kind
    metric = "" if contest is None else open_contest(contest, data=data).contest.metric
    effective = effective_settings(preset, kind, config, settings, metric=metric)
    toml = to_toml(effective).rstrip("\n")
    console.show(effective, text=toml, short=toml)


@command(
    "kbdenoise settings predict > mine.toml",
    "kbdenoise settings predict --tile 512 --json",
    name="settings predict",
    settings=PredictConfig,
)
def predict(console: Console, settings: Settings, config: ConfigOption = None) -> None:
    """Print what `predict`, `evaluate` and `submit` would use."""
    from kbdenoise.resolving import resolve, to_toml

    effective = resolve(PredictConfig(), ("settings", from_file(PredictConfig, config, settings)))
    toml = to_toml(effective).rstrip("\n")
    console.show(effective, text=toml, short=toml)


app = group("settings", train, predict, help="Print the effective settings as TOML.")
