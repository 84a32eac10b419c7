"""Options from the dataclasses of `kbdenoise.config`: one a setting, and their table for README.

An option's own default is None, meaning "not given", so that a default is written once, in the
configuration, and the library can tell what was asked for: default < preset < `--config` < option.
"""

import inspect
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from kbdenoise.cli import complete
from kbdenoise.config import ExportConfig, ModelSettings, PredictConfig, TrainConfig
from kbdenoise.presets import PRESETS, tuned

Config = type[TrainConfig] | type[PredictConfig] | type[ExportConfig]
"""What commands can be told, by a class of settings."""
_METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", bool: ""}


def option_name(setting: str) -> str:
    """`time_limit` -> `--time-limit`."""
    return "--" + setting.replace("_", "-")


def setting_options(config: Config) -> Iterator[inspect.Parameter]:
    """A parameter of a command for each setting of a configuration class."""
    presets = _standard(config)
    for section in get_type_hints(config).values():
        types = get_type_hints(section)
        for field in fields(section):
            face = typer.Option(
                *_switch(field.name, types[field.name]),
                help=unmarked(f"{field.metadata['help']} {_default(field, presets)}"),
                metavar="NUMBER" if field.metadata["parse"] else _METAVARS.get(types[field.name]),
                parser=field.metadata["parse"],
                min=field.metadata["min"],
                max=field.metadata["max"],
                show_default=False,
                rich_help_panel=inspect.cleandoc(section.__doc__ or ""),
                autocompletion=complete.OF_SETTINGS.get(field.name),
            )
            yield parameter(field.name, Annotated[types[field.name] | None, face], default=None)


def _standard(config: type) -> dict[str, dict[str, Any]]:
    """What the standard preset sets on each kind of device, its model's own values included."""
    if config is not TrainConfig:
        return {}
    model = ModelSettings().model
    return {
        kind: layer | tuned(layer.get("model", model), preset="standard")
        for kind, layer in PRESETS["standard"].items()
    }


def settings_table(config: type) -> str:
    """The settings of a configuration as a Markdown table, for README."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    presets = _standard(config)
    for section in get_type_hints(config).values():
        for field in fields(section):
            default = _default(field, presets).removeprefix("Default: ").removesuffix(".")
            meaning = field.metadata["help"].replace("|", r"\|")
            lines.append(f"| `{option_name(field.name)}` | {default} | {meaning} |")
    return "\n".join(lines)


def parameter(name: str, annotation: Any, *, default: Any) -> inspect.Parameter:
    """A parameter of a command, to be named when it is given."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _switch(name: str, kind: Any) -> tuple[str, ...]:
    option = option_name(name)
    return (f"{option}/--no-{option[2:]}",) if kind is bool else (option,)


def _default(field: "Field[Any]", presets: dict[str, dict[str, Any]]) -> str:
    """The default in words; where the standard preset differs by device, both are named."""
    by_device = {kind: layer.get(field.name, field.default) for kind, layer in presets.items()}
    values = list(dict.fromkeys(by_device.values())) or [field.default]
    if len(values) == 1:
        return f"Default: {_spoken(values[0])}."
    named = (f"{_spoken(value)} ({kind})" for kind, value in by_device.items())
    return f"Default: {', '.join(named)}."


def _spoken(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value == "":
        return "empty"
    return f"{value:g}" if isinstance(value, float) else str(value)


def unmarked(text: str) -> str:
    """Keep rich from reading [words in brackets] as styles."""
    return text.replace("[", r"\[")
