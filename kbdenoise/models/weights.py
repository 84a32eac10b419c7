"""Weights on disk: our own files with a card, and other people's without.

Ours are safetensors files whose header holds a JSON card, so that a file alone says which model it
belongs to. A network is first built without memory and compared with the tensors of its file, name
by name and shape by shape, so that no file can ask for more memory than it holds itself.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from kbdenoise.atomic import atomic_write
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model, complete_hyperparameters
from kbdenoise.models.checkpoints import read_metadata, read_state_dict
from kbdenoise.models.detect import detect, few
from kbdenoise.models.spec import State

_CARD_KEY = "kbdenoise"


@cache
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


def load_weights(path: Path, **overrides: Any) -> tuple[nn.Module, ModelCard]:
    """Rebuild the model that a weights file holds, on the CPU, in evaluation mode and in fp32.

    A file without a card, such as one of the authors', is recognised by its tensors. `overrides`
    are hyper-parameters that tensors cannot tell, such as a pooling window; they win over the card
    or what was recognised. Raises DataError when the file is missing, broken, or of no model that
    is known, and SettingsError for an override that the model or its tensors do not allow.
    """
    state, card = _described(path)
    skeleton = _skeleton(card, tensors=len(state), path=path)
    _check_fit(path, card, skeleton, state)
    if overrides:
        card, skeleton = _overridden(path, card, skeleton, overrides)
    return _filled(path, card, skeleton, state).eval(), card


def read_card(path: Path) -> ModelCard:
    """What a weights file says about itself, or what its tensors tell; complete, but not yet fit.

    Raises DataError as `load_weights` does.
    """
    return _described(path)[1]


def _described(path: Path) -> tuple[State, ModelCard]:
    """The tensors under our names, and the complete card that belongs to them."""
    state = read_state_dict(path)
    card = _stored_card(path)
    if card is None:
        try:
            name, found = detect(state)
        except DataError as error:
            raise DataError(f"{path}: {error.message}", hint=error.hint) from error
        state = found.state
        card = ModelCard(
            model=name,
            channels=found.channels,
            hyperparameters=found.hyperparameters,
            metadata={"source": path.name},
        )
    with _impossible(card, path=path):
        return state, _complete(card)


def _complete(card: ModelCard) -> ModelCard:
    complete = complete_hyperparameters(card.model, **card.hyperparameters)
    return replace(card, hyperparameters=complete)


@contextmanager
def _impossible(card: ModelCard, *, path: Path) -> Iterator[None]:
    """Turn the refusal of a model that cannot be built into one of the file that describes it."""
    try:
        yield
    except (SettingsError, TypeError) as error:
        raise DataError(
            f"{path} describes a model that cannot be built: {error}",
            hint=f"it was written by kbdenoise {card.package_version}; try that version"
            if "source" not in card.metadata
            else "it may be damaged, or come from a changed network",
        ) from error


def _skeleton(card: ModelCard, *, tensors: int, path: Path) -> nn.Module:
    """The card's network without memory for its weights; `tensors` are in the file."""
    with _impossible(card, path=path), _at_most(2 * tensors + 100, path=path), on_meta():
        return build_model(card.model, channels=card.channels, **card.hyperparameters)


@contextmanager
def _at_most(limit: int, *, path: Path) -> Iterator[None]:
    """Stop the building of a network whose description asks for endless layers."""
    count = 0

    def note(_module: nn.Module, _name: str, _parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > limit:
            raise DataError(
                f"{path} describes a network of far more tensors than it holds",
                hint="its card belongs to other weights, or the file was tampered with",
            )

    hook = torch.nn.modules.module.register_module_parameter_registration_hook(note)
    try:
        yield
    finally:
        hook.remove()


def _check_fit(path: Path, card: ModelCard, skeleton: nn.Module, state: State) -> None:
    """Every tensor has its place, every place its tensor, and the shapes are equal."""
    expected = _state(skeleton)
    missing = [name for name in expected if name not in state and not _is_counter(expected[name])]
    extra = [name for name in state if name not in expected]
    misshapen = [
        f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = {"missing": missing, "unknown": extra, "of another shape": misshapen}
    differences = [f"{kind}: {few(names)}" for kind, names in found.items() if names]
    if differences:
        raise DataError(
            f"{path} does not fit its model, {card.model}; {'; '.join(differences)}",
            hint="the file was cut short or changed, or its card belongs to other weights",
        )


def _is_counter(tensor: Tensor) -> bool:
    """Batch norm's count of batches, which older files lack and nothing here reads."""
    return tensor.ndim == 0 and not tensor.is_floating_point()


def _overridden(
    path: Path, card: ModelCard, skeleton: nn.Module, overrides: Mapping[str, Any]
) -> tuple[ModelCard, nn.Module]:
    """The card with `overrides`, and its network, where they leave every tensor as it is."""
    wanted = complete_hyperparameters(card.model, **{**card.hyperparameters, **overrides})
    fixed = _shapes(skeleton)
    for name, value in wanted.items():
        was = card.hyperparameters[name]
        if value == was:
            continue
        card = replace(card, hyperparameters={**card.hyperparameters, name: value})
        reason = ""
        try:
            with on_meta():
                skeleton = build_model(card.model, channels=card.channels, **card.hyperparameters)
        except SettingsError as error:
            reason = f" ({error.message})"
        if reason or _shapes(skeleton) != fixed:
            raise SettingsError(
                f"{name}={_spoken(value)} does not suit the weights in {path}, which are of a "
                f"{card.model} with {name}={_spoken(was)}{reason}",
                hint=f"leave {name} out; only what the shapes of tensors leave open can be set",
            )
    return card, skeleton


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _state(model).items()}


def _spoken(value: object) -> str:
    """Texts bare; the rest as in TOML and JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _filled(path: Path, card: ModelCard, skeleton: nn.Module, state: State) -> nn.Module:
    """The network with the file's tensors, copied out of the file into memory of their own."""
    own = {name: _own(state, name, like, path=path) for name, like in _state(skeleton).items()}
    beside = {name for name, _ in skeleton.named_buffers()} - own.keys()
    if beside:  # constants that are not saved have to be computed
        with torch.random.fork_rng(devices=[]):
            skeleton = build_model(card.model, channels=card.channels, **card.hyperparameters)
    skeleton.load_state_dict(own, assign=True)
    return skeleton


def _own(state: State, name: str, like: Tensor, *, path: Path) -> Tensor:
    """A copy of a tensor in the type that the network computes with."""
    if name not in state:
        return torch.zeros(like.shape, dtype=like.dtype)
    tensor = state[name]
    if like.is_floating_point() and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DataError(
            f"{path} holds whole numbers ({kind}) in {name}, where the network has fractions",
            hint="quantised weights cannot be used; save the network before it is quantised",
        )
    own = torch.empty(like.shape, dtype=like.dtype, device="cpu").copy_(tensor)
    if not own.isfinite().all():
        raise DataError(
            f"{path} holds infinities or NaN, first in {name}",
            hint="the training diverged before it was saved; use an earlier checkpoint",
        )
    return own


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = model.state_dict()
    return state


def _stored_card(path: Path) -> ModelCard | None:
    header = read_metadata(path)
    if _CARD_KEY not in header:
        return None
    try:
        content = json.loads(header[_CARD_KEY])
        card = ModelCard(**content | {"domain": tuple(content["domain"])})
        dict(card.hyperparameters)  # TypeError for what is no mapping
    except (ValueError, TypeError, KeyError, RecursionError) as error:
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
