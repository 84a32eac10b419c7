"""Weights on disk: our own files with a card, and other people's without.

Ours are safetensors files whose header holds a JSON card, so that a file alone says which model it
belongs to. Nothing here unpickles code: PyTorch files go through torch's weights-only loader.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kbdenoise.atomic import atomic_write
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.detect import detect
from kbdenoise.models.zoo import build_model, complete_hyperparameters

State = dict[str, Tensor]

_CARD_KEY = "kbdenoise"
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("_orig_mod.", "module.", "netG.", "model.")
_MOST_WRAPPERS = 6  # nested in each other


def _package_version() -> str:
    try:
        return version("kbdenoise")
    except PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a weights file says about itself.

    `domain` is the range of values that the model takes and gives; only [0, 1] is in use.
    `metadata` is free: anything that JSON can hold.
    """

    model: str
    channels: int
    hyperparameters: Mapping[str, Any]
    domain: tuple[float, float] = (0.0, 1.0)
    package_version: str = field(default_factory=_package_version)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def save_weights(path: Path, model: nn.Module, *, card: ModelCard) -> None:
    """Write a model's parameters and buffers with their card. The file appears whole or not at all.

    The card in the file names every hyper-parameter, so that it outlives a change of defaults.
    Raises DataError when the disk is full or the folder may not be written, SettingsError when the
    card does not describe a model.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in _state(model).items()}
    header = {_CARD_KEY: json.dumps(asdict(_complete(card)), sort_keys=True)}
    content = safetensors.torch.save(state, metadata=header)
    with atomic_write(path) as file:
        file.write(content)


def load_weights(path: Path) -> tuple[nn.Module, ModelCard]:
    """Rebuild the model that a weights file holds, on the CPU, in evaluation mode.

    A file without a card, such as one of the authors', is recognised by its tensors.
    Raises DataError when the file is missing, broken, or of no model that is known.
    """
    state = read_state_dict(path)
    card = _read_card(path)
    if card is None:
        name, channels, hyperparameters = _detect_in(path, state)
        card = ModelCard(
            model=name,
            channels=channels,
            hyperparameters=hyperparameters,
            metadata={"source": path.name},
        )
    try:
        card = _complete(card)
        model = build_model(card.model, channels=card.channels, **card.hyperparameters)
    except (SettingsError, TypeError) as error:
        raise DataError(
            f"{path} describes a model that cannot be built: {error}",
            hint=f"it was written by kbdenoise {card.package_version}; try that version",
        ) from error
    _load_into(model, state, path=path)
    return model.eval(), card


def read_state_dict(path: Path) -> State:
    """The named tensors of a safetensors or PyTorch file, freed of wrappers, on the CPU.

    Raises DataError when the file is missing or broken, or would have to run code to be read.
    """
    if not path.is_file():
        raise DataError(f"there is no weights file {path}", hint="check the path")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    state = _unwrapped(content)
    named = all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items())
    if not state or not named:
        raise DataError(
            f"{path} holds no table of named tensors",
            hint="save the weights alone: torch.save(model.state_dict(), 'weights.pth')",
        )
    return state


def _complete(card: ModelCard) -> ModelCard:
    complete = complete_hyperparameters(card.model, **card.hyperparameters)
    return replace(card, hyperparameters=complete)


def _state(model: nn.Module) -> State:
    state: State = model.state_dict()
    return state


def _is_safetensors(path: Path) -> bool:
    """Told by content, not by suffix: eight bytes of length, then JSON."""
    try:
        with path.open("rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check the permissions of the file"
        ) from error


def _read_safetensors(path: Path) -> Any:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable safetensors file: {error}",
            hint="it may be cut short; copy or download it again",
        ) from error


def _read_card(path: Path) -> ModelCard | None:
    if not _is_safetensors(path):
        return None
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
    if _CARD_KEY not in header:
        return None
    try:
        content = json.loads(header[_CARD_KEY])
        card = ModelCard(**content | {"domain": tuple(content["domain"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} has a card that cannot be read: {error}",
            hint="the file was changed, or written by a newer kbdenoise",
        ) from error
    if card.domain != (0.0, 1.0):
        raise DataError(
            f"{path} holds a model for values in {list(card.domain)}, but only [0, 1] is known",
            hint="use the version of kbdenoise that wrote it",
        )
    return card


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the loader raise anything
        found = (
            re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, UnpicklingError) else None
        )
        if found:
            raise DataError(
                f"{path} holds a pickled object ({found[1]}), and reading it would run code from "
                "the file",
                hint="where it was made, save the tensors alone: "
                "torch.save(model.state_dict(), 'weights.pth'), and use that file",
            ) from error
        raise DataError(
            f"{path} is not a readable weights file (PyTorch or safetensors)",
            hint="it may be cut short: copy or download it again; from TorchScript, save "
            "model.state_dict() instead",
        ) from error


def _unwrapped(content: Any) -> dict[str, Any]:
    """Peel `{'params': ...}` and prefixes that all names share, as training codes leave them."""
    for _ in range(_MOST_WRAPPERS):
        wrapper = next((key for key in _WRAPPERS if _holds_dict(content, key)), None)
        prefix = next((prefix for prefix in _PREFIXES if _all_have(content, prefix)), None)
        if wrapper is not None:
            content = content[wrapper]
        elif prefix is not None:
            content = {name[len(prefix) :]: tensor for name, tensor in content.items()}
    return content if isinstance(content, dict) else {}


def _all_have(content: Any, prefix: str) -> bool:
    """DnCNN's own names are 'model.0.weight': a number behind the prefix belongs to it."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(
            isinstance(name, str)
            and name.startswith(prefix)
            and not name[len(prefix) :][:1].isdigit()
            for name in content
        )
    )


def _holds_dict(content: Any, key: str) -> bool:
    return isinstance(content, dict) and isinstance(content.get(key), dict)


def _load_into(model: nn.Module, state: State, *, path: Path) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise DataError(
            f"{path} does not fit its model: {' '.join(line.strip() for line in lines[1:4])}",
            hint="the file was changed, or its card belongs to other weights",
        ) from error
    for name, tensor in _state(model).items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(
                f"{path} holds infinities or NaN, first in {name}",
                hint="the training diverged before it was saved; use an earlier checkpoint",
            )


def _detect_in(path: Path, state: State) -> tuple[str, int, dict[str, Any]]:
    try:
        return detect(state)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", hint=error.hint) from error
