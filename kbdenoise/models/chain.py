"""A tone stage in front of any restorer: what `tone+NAME` means. Nothing here imports torch.

A page's colours are mended first, for the page as a whole; the restorer then sees the right tone
and is left with what is local: grain, halftone, stains. Both are trained together.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kbdenoise.models.spec import (
    Architecture,
    Hyperparameters,
    ModelSpec,
    Option,
    Recognised,
    State,
)

if TYPE_CHECKING:
    from torch import nn

_TONE, _RESTORER = "tone.", "restorer."  # how the names of the two stages' tensors begin
_PREFIX = "tone_"  # and how the tone stage's hyper-parameters are told from the restorer's


def staged_spec(name: str, restorer: ModelSpec) -> ModelSpec:
    """What the table would say of `tone+NAME`, made of `restorer`, the entry called `name`.

    Sizes and tiles are the restorer's, and so are its hyper-parameters; those of the tone stage
    are called `tone_width` and so on.
    """
    from kbdenoise.models.zoo import MODELS

    tone = MODELS["tone"]
    return replace(
        restorer,
        architecture=lambda: _staged(name, tone.architecture(), restorer.architecture()),
        summary=f"{tone.summary}; behind it {name}",
        paper=f"{restorer.paper}; {tone.paper}",
        sees_page=True,
        fp16=restorer.fp16 and tone.fp16,
        fp16_autocast=restorer.fp16_autocast and tone.fp16_autocast,
        bf16_autocast=restorer.bf16_autocast and tone.bf16_autocast,
    )


def _staged(name: str, tone: Architecture, restorer: Architecture) -> Architecture:
    def build(*, channels: int = 3, **hyperparameters: Any) -> "nn.Module":
        from kbdenoise.models.tone import ToneThen

        first, second = _parted(hyperparameters)
        complete = {key: option.default for key, option in restorer.options.items()} | second
        return ToneThen(
            tone.build(channels=channels, **first),  # type: ignore[arg-type]
            restorer.build(channels=channels, **second),
            name=f"tone+{name}",
            multiple=restorer.multiple(complete),
        )

    def recognise(state: State) -> Recognised | None:
        if not all(key.startswith((_TONE, _RESTORER)) for key in state):
            return None
        first = tone.recognise(_inside(state, _TONE))
        second = restorer.recognise(_inside(state, _RESTORER))
        return None if first is None or second is None else _joined(first, second)

    return Architecture(
        build=build,
        recognise=recognise,
        receptive_field=lambda h: restorer.receptive_field(_parted(h)[1]),
        multiple=lambda h: restorer.multiple(_parted(h)[1]),
        given_options=_options(tone, restorer),
    )


def _options(tone: Architecture, restorer: Architecture) -> dict[str, Option]:
    mine = {f"{_PREFIX}{key}": option for key, option in tone.options.items()}
    return {**restorer.options, **mine}


def _parted(hyperparameters: Hyperparameters) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tone stage's, under their own names, and the restorer's."""
    first = {k[len(_PREFIX) :]: v for k, v in hyperparameters.items() if k.startswith(_PREFIX)}
    second = {k: v for k, v in hyperparameters.items() if not k.startswith(_PREFIX)}
    return first, second


def _inside(state: State, prefix: str) -> State:
    return {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)}


def _joined(first: Recognised, second: Recognised) -> Recognised:
    """Raises ValueError where the two stages are not of the same channels."""
    if first.channels != second.channels:
        raise ValueError(
            f"a tone stage for {first.channels} channels before a restorer for {second.channels}"
        )
    mine = {f"{_PREFIX}{key}": value for key, value in first.hyperparameters.items()}
    return Recognised(
        channels=second.channels,
        hyperparameters={**second.hyperparameters, **mine},
        state=_with_prefix(first.state, _TONE) | _with_prefix(second.state, _RESTORER),
    )


def _with_prefix(state: State, prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}
