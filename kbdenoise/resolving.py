"""From layers of settings to one configuration: checked, read from TOML and written as TOML."""

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from kbdenoise.config import ExportConfig, PredictConfig, TrainConfig
from kbdenoise.errors import SettingsError, nearest
from kbdenoise.notation import hyper_text, native

Config = TypeVar("Config", bound="TrainConfig | PredictConfig | ExportConfig")


def resolve(base: Config, *changes: tuple[str, Mapping[str, Any]]) -> Config:
    """Apply layers of flat settings, later ones winning; a layer's name is told in its errors.

    Raises SettingsError for an unknown setting (with the nearest name), a wrong type or a value out
    of range.
    """
    sections = section_of(type(base))
    content = asdict(base)
    for source, layer in changes:
        for name, value in layer.items():
            if name not in sections:
                raise SettingsError(
                    f"{source}: unknown setting '{name}'", hint=nearest(name, sections)
                )
            hyper = name == "hyper" and isinstance(value, Mapping)
            content[sections[name]][name] = hyper_text(value) if hyper else value
    sources = [source for source, layer in changes if layer]
    return validated(type(base), content, source=" + ".join(sources) or "settings")


def lasting(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer that says how long to train, with what layers below say of it taken back."""
    told = [name for name in ("steps", "epochs", "samples") if layer.get(name)]
    back = {name: 0 for name in ("epochs", "samples") if told and name not in told}
    return {**back, **layer}


def read_settings(kind: type[Config], path: Path) -> dict[str, Any]:
    """The flat settings that a TOML file with sections names; unknown keys are refused by name."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    kinds, sections = get_type_hints(kind), section_of(kind)
    flat: dict[str, Any] = {}
    for section, values in content.items():
        if section not in kinds or not isinstance(values, dict):
            home = section if section in kinds else sections.get(section)
            raise SettingsError(
                f"{path}: unknown section '{section}'",
                hint=f"settings stand below [{home}]" if home else nearest(section, kinds),
            )
        for name in values:
            if sections.get(name) != section:
                mine = [n for n, s in sections.items() if s == section]
                home = sections.get(name)
                raise SettingsError(
                    f"{path}: unknown setting '{section}.{name}'",
                    hint=f"{name} stands below [{home}]" if home else nearest(name, mine),
                )
        _checked_section(kinds[section], values, source=f"{path}: {section}")
        flat |= values
    return flat


def validated(kind: type[Config], content: dict[str, Any], *, source: str) -> Config:
    """A configuration from nested tables, with types and ranges checked."""
    sections = {
        name: _checked_section(section, content.get(name, {}), source=f"{source}: {name}")
        for name, section in get_type_hints(kind).items()
    }
    try:
        return kind(**sections)
    except ValueError as error:
        raise SettingsError(f"{source}: {error}") from None


def section_of(kind: type) -> dict[str, str]:
    """Setting name -> section name, for every setting of a configuration class."""
    return {f.name: name for name, section in get_type_hints(kind).items() for f in fields(section)}


def to_toml(config: TrainConfig | PredictConfig) -> str:
    """The configuration as readable TOML, complete, one comment a line from the setting's help."""
    lines = []
    for name, section in asdict(config).items():
        kind = get_type_hints(type(config))[name]
        lines += [f"[{name}]"]
        for f in fields(kind):
            lines.append(f"{f.name} = {_toml_value(section[f.name])}  # {f.metadata['help']}")
        lines.append("")
    return "\n".join(lines)


def _checked_section(kind: type, values: Mapping[str, Any], *, source: str) -> Any:
    """A section from its values. Raises SettingsError for a wrong type or a value out of range."""
    from pydantic import ValidationError  # 0.1 s that a help page can do without

    parsed = {
        f.name: f.metadata["parse"](values[f.name])
        for f in fields(kind)
        if f.metadata["parse"] and isinstance(values.get(f.name), str)
    }
    try:
        # As JSON, where strict still lets a table become a dataclass and 1 a float, but neither
        # true nor "8" a number.
        text = json.dumps({**values, **parsed}, default=native)
        section: Any = _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{source}.{where} = {first['input']!r}: {first['msg']}") from None
    for f in fields(kind):
        _check_range(getattr(section, f.name), f.metadata, source=f"{source}.{f.name}")
    return section


@cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_range(value: Any, metadata: Mapping[str, Any], *, source: str) -> None:
    low, high = metadata["min"], metadata["max"]
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{source} = {value} must be a finite number")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        raise SettingsError(f"{source} = {value} must be {limits}")


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
