"""Every setting and its default, once.

Options, help panels, `--config FILE`, the README table and a run's config.toml are made from these
dataclasses. Precedence: default < preset < `--config` < option. `0` means off, as TOML has no null.
"""

import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.notation import (
    hyper_text,
    native,
    parameter_count,
    parse_hyper,
    parse_stages,
    seconds,
)

Config = TypeVar("Config", bound="TrainConfig | PredictConfig")
Preset = Literal["quick", "standard", "best"]
DeviceName = Literal["auto", "cuda", "mps", "cpu"]


def setting(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A field with its default, the sentence that explains it, and its range.

    `parse` makes the value of a text, where people write it in a form that the type has not.
    """
    metadata = {"help": help, "min": min, "max": max, "parse": parse}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Model"""

    model: str = setting("kbnet-s", "Architecture; `kbdenoise models` lists them.")
    size: str = setting("", "Named size of the architecture; empty takes its first.")
    width: int = setting(0, "Channels at full resolution; 0 keeps the size's own.", min=0)
    hyper: str = setting(
        "", "Any hyper-parameters, winning over the size: 'encoder_blocks=[2,2,4] norm=none'."
    )
    init: str = setting("", "Weights file to start from; without --model it tells the model.")
    max_params: int = setting(
        0,
        "Refuse a model with more parameters (10M, 500k); 0 leaves it to the contest's limit.",
        min=0,
        parse=parameter_count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Data"""

    patch: int = setting(128, "Side of a training patch, in pixels.", min=16)
    batch: int = setting(8, "Patches per optimiser step.", min=1)
    stages: str = setting(
        "", "Patches in stages instead, 'side x batch:share': '64x16:50% 128x4:40% page:10%'."
    )
    folds: int = setting(10, "Parts that the pictures are divided into, by whole groups.", min=2)
    fold: int = setting(0, "The part that is held out for validation.", min=0)
    seed: int = setting(0, "Seed of weights, patches and folds.", min=0, max=2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """Augmentation"""

    flips: bool = setting(True, "Mirror patches at random.")
    turns: bool = setting(True, "Turn patches by right angles at random.")
    mixup: float = setting(
        0.0, "Share of the patches that are mixed with another one.", min=0, max=1
    )
    noise: float = setting(
        0.0,
        "Most Gaussian noise added to noisy patches: its deviation, white being 1.",
        min=0,
        max=1,
    )
    camera_noise: float = setting(
        0.0,
        "Most camera noise added, which grows with the light: its deviation at white.",
        min=0,
        max=1,
    )
    print_scan: float = setting(
        0.0,
        "Share of the patches whose noisy side is printed and scanned anew by the simulator.",
        min=0,
        max=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """Optimiser"""

    steps: int = setting(20_000, "Optimiser steps; the schedule ends with them.", min=1)
    time_limit: str = setting(
        "0", "Stop after this long, reading and last validation included (8h, 90m); 0: no limit."
    )
    loss: Literal["charbonnier", "l1", "mse", "psnr"] = setting("psnr", "Training loss.")
    lr: float = setting(1e-3, "Peak learning rate of AdamW.", min=0)
    min_lr: float = setting(1e-6, "Learning rate at the end of the cosine.", min=0)
    warmup: float = setting(0.02, "Share of the schedule spent in warm-up.", min=0, max=0.9)
    beta2: float = setting(0.99, "AdamW's memory of squared gradients.", min=0.5, max=0.9999)
    weight_decay: float = setting(1e-4, "Weight decay of AdamW, on convolutions only.", min=0)
    clip: float = setting(1.0, "Largest norm of the whole gradient; 0 means off.", min=0)
    ema: float = setting(0.999, "Decay of the averaged weights; 0 means off.", min=0, max=0.99999)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """Validation and saving"""

    val_every: int = setting(1000, "Steps between validations on whole held-out pictures.", min=1)
    val_images: int = setting(0, "Held-out pictures scored at validations; 0 means all.", min=0)
    save_every: str = setting(
        "5m", "Longest time between two saves of the run's state; 0 saves at validations only."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """Device"""

    device: DeviceName = setting("auto", "Where to compute.")
    amp: bool = setting(True, "Mixed precision where the device gains from it.")
    threads: int = setting(0, "CPU threads; 0 means all cores.", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All that `train` can be told; each section is a table in TOML and a panel in the help."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)

    def __post_init__(self) -> None:
        if self.data.fold >= self.data.folds:
            raise ValueError(
                f"--fold {self.data.fold} does not exist: --folds {self.data.folds} are numbered "
                f"0 to {self.data.folds - 1}"
            )
        if self.optimiser.min_lr > self.optimiser.lr:
            raise ValueError(
                f"--min-lr {self.optimiser.min_lr:g} is above --lr {self.optimiser.lr:g}"
            )
        width = parse_hyper(self.model.hyper).get("width", self.model.width)
        if self.model.width and width != self.model.width:
            raise ValueError(f"--width {self.model.width} contradicts width={width} of --hyper")
        parse_stages(self.data.stages, patch=self.data.patch, batch=self.data.batch)
        seconds(self.optimiser.time_limit, name="--time-limit")
        seconds(self.validation.save_every, name="--save-every")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSettings:
    """Tiles"""

    tile: int = setting(0, "Side of a tile in pixels, at least 64; 0: whole where it fits.", min=0)
    overlap: int = setting(
        -1, "Pixels shared by neighbouring tiles, at most half of one; -1 asks the model.", min=-1
    )
    tta: bool = setting(False, "Average over the eight turns and flips (eight times the work).")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """Model"""

    hyper: str = setting(
        "", "Hyper-parameters that weights do not tell, such as 'noise_level=15' of drunet."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """All that `predict`, `evaluate` and `submit` can be told about restoring."""

    model: LoadSettings = field(default_factory=LoadSettings)
    tiles: TileSettings = field(default_factory=TileSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)

    def __post_init__(self) -> None:
        if self.tiles.tile and self.tiles.overlap >= self.tiles.tile:
            raise ValueError(
                f"--overlap {self.tiles.overlap} must be smaller than --tile {self.tiles.tile}"
            )
        parse_hyper(self.model.hyper)


# What a resumed run may be told anew; everything else would make it another run.
CHANGEABLE = ("steps", "time_limit", "save_every", "device", "amp", "threads")

# preset -> kind of device -> settings that differ from the defaults above.
# On a CPU a small network that sees many small batches beats a large one that sees few.
PRESETS: dict[Preset, dict[str, dict[str, Any]]] = {
    "quick": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 1500, "val_every": 500},
        "gpu": {"patch": 256, "steps": 5000, "val_every": 1000},
    },
    "standard": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 20_000, "val_every": 2000},
        "gpu": {"patch": 256, "steps": 40_000, "val_every": 2000},
    },
    "best": {
        "cpu": {"model": "res-unet", "batch": 2, "steps": 100_000, "val_every": 5000},
        "gpu": {"patch": 256, "steps": 200_000, "val_every": 5000},
    },
}

# model -> settings that suit it better than the defaults, whatever the preset. A small network on
# few pages learns print faster where it always stands upright, so it is neither turned nor flipped.
TUNED: dict[str, dict[str, Any]] = {
    "res-unet": {"lr": 3e-3, "ema": 0.998, "warmup": 0.03, "flips": False, "turns": False},
    # A page's tone shows in small patches as well as in large ones, and many pages teach it sooner.
    "tone": {"patch": 64, "batch": 8, "loss": "l1", "lr": 3e-3, "ema": 0.998, "warmup": 0.03},
}


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
    from pydantic import TypeAdapter, ValidationError  # 0.1 s that a help page can do without

    parsed = {
        f.name: f.metadata["parse"](values[f.name])
        for f in fields(kind)
        if f.metadata["parse"] and isinstance(values.get(f.name), str)
    }
    try:
        # As JSON, where strict still lets a table become a dataclass and 1 a float, but neither
        # true nor "8" a number.
        text = json.dumps({**values, **parsed}, default=native)
        section: Any = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{source}.{where} = {first['input']!r}: {first['msg']}") from None
    for f in fields(kind):
        _check_range(getattr(section, f.name), f.metadata, source=f"{source}.{f.name}")
    return section


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
