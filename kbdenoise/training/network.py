"""Which network a run trains, new or from a weights file, and whether it is allowed."""

from pathlib import Path
from typing import Any

from torch import nn

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.tiles import round_up
from kbdenoise.models.build import complete_hyperparameters, describe_model
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import load_weights, read_card
from kbdenoise.models.widest import smaller_hint
from kbdenoise.models.zoo import find_model, named_size
from kbdenoise.notation import Stage, parse_hyper


def model_info(config: TrainConfig, channels: int) -> ModelInfo:
    """What the settings' network would be. Raises SettingsError where it cannot be built."""
    return describe_model(config.model.model, channels=channels, side=0, **_hyperparameters(config))


def fitting_patch(config: TrainConfig) -> int:
    """The patch in px, or where it does not suit the network the next larger one that does.

    For patches that nobody asked for. Raises SettingsError for hyper-parameters that the network
    does not have.
    """
    name, patch = config.model.model, config.data.patch
    complete = complete_hyperparameters(name, **_hyperparameters(config))
    multiple = find_model(name).architecture().multiple(complete)
    return round_up(patch, max(1, multiple))  # below 1 by numbers that are refused later


def _hyperparameters(config: TrainConfig) -> dict[str, Any]:
    """Those of the named size, or of the weights file to start from, under those given."""
    chosen = config.model
    if chosen.init and not chosen.size:
        start = dict(read_card(Path(chosen.init)).hyperparameters)
    else:
        size = chosen.size or next(iter(find_model(chosen.model).sizes))
        start = named_size(chosen.model, size)
    return start | _own_hyperparameters(config)


def _own_hyperparameters(config: TrainConfig) -> dict[str, Any]:
    width = {"width": config.model.width} if config.model.width else {}
    return width | parse_hyper(config.model.hyper)


def started_model(config: TrainConfig, local: LocalContest) -> tuple[nn.Module, ModelInfo]:
    """The network of `--init`, which has to be the one that the other settings ask for."""
    chosen, path = config.model, Path(config.model.init)
    named = named_size(chosen.model, chosen.size) if chosen.size else {}
    try:
        model, card = load_weights(path, **(named | _own_hyperparameters(config)))
    except SettingsError as error:
        asked = {"--size": chosen.size, "--width": chosen.width, "--hyper": chosen.hyper}
        options = " ".join(f"{option} {value}" for option, value in asked.items() if value)
        raise SettingsError(f"{options}: {error.message}", hint=error.hint) from error
    if card.channels != local.contest.channels:
        kinds = {1: "gray", 3: "colour"}
        have, need = (kinds.get(c, f"{c}-channel") for c in (card.channels, local.contest.channels))
        raise SettingsError(
            f"--init {path} holds a {card.model} for {have} pictures, but the contest "
            f"{local.contest.slug} has {need} ones",
            hint=f"choose weights for {need} pictures, or train without --init",
        )
    info = describe_model(card.model, channels=card.channels, side=0, **card.hyperparameters)
    return model, info


def check_parameters(info: ModelInfo, limit: int) -> None:
    """Refuse a model over the limit, and say what fits. A resumed run is checked again."""
    if limit and info.parameters > limit:
        raise SettingsError(
            f"{info.name} would have {info.parameters:,} parameters, above the limit of {limit:,}",
            hint=smaller_hint(
                info.name, channels=info.channels, limit=limit, **info.hyperparameters
            ),
        )


def check_patch(info: ModelInfo, stage: Stage, *, staged: bool) -> None:
    """Refuse patches that do not suit the network; `staged` where --stages names them."""
    if stage.patch % info.multiple:
        fitting = max(1, stage.patch // info.multiple) * info.multiple
        written = f"--stages {stage.patch}x{stage.batch}" if staged else f"--patch {stage.patch}"
        raise SettingsError(
            f"{written} does not suit {info.name}, whose sides are multiples of {info.multiple} px",
            hint=f"use {fitting}x{stage.batch} in --stages" if staged else f"use --patch {fitting}",
        )
