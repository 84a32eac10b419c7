"""Build a model of the table from its name and hyper-parameters, or tell what it would cost."""

from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.zoo import find_model

if TYPE_CHECKING:
    from torch import nn


_MOST, _MOST_LAYERS = 16_384, 1024  # beyond, building would take minutes to fail


def complete_hyperparameters(name: str, /, **hyperparameters: Any) -> dict[str, Any]:
    """All hyper-parameters of a model but `channels`: those given, checked, and defaults.

    A list becomes a tuple, and a whole number does for a float. Raises SettingsError for an
    unknown model, an unknown hyper-parameter or a value of the wrong type. Imports torch.
    """
    options = find_model(name).architecture().options
    for key in hyperparameters:
        if key not in options:
            raise SettingsError(
                f"{name} has no hyper-parameter {key!r}",
                hint=f"{nearest(key, options)} (it has: {', '.join(options)})",
            )
    given = {
        key: _checked(value, options[key].kind, where=f"{key} of {name}")
        for key, value in hyperparameters.items()
    }
    return {key: option.default for key, option in options.items()} | given


def build_model(name: str, /, *, channels: int, **hyperparameters: Any) -> "nn.Module":
    """A model of the table with fresh weights, drawn from torch's global random numbers.

    Hyper-parameters that are not given take the architecture's defaults. Raises SettingsError for
    an unknown model or hyper-parameter, a wrong type, or values that cannot be built.
    """
    complete = complete_hyperparameters(name, **hyperparameters)
    checked = _checked(channels, int, where=f"channels of {name}")
    try:
        return find_model(name).architecture().build(channels=checked, **complete)
    except (RuntimeError, OverflowError, TypeError) as error:  # beyond what torch can count
        raise SettingsError(
            f"{name} cannot be built with these numbers: {error}", hint="choose smaller ones"
        ) from error


def describe_model(
    name: str, /, *, channels: int, side: int = 256, **hyperparameters: Any
) -> ModelInfo:
    """What there is to know of a model, without spending memory on its weights.

    `side` in px is the square image for which multiply-accumulates are counted; it is rounded up
    to the model's multiple. With 0 none are: counting makes torch import its compiler, which takes
    seconds. Raises SettingsError as `build_model` does.
    """
    from kbdenoise.models.blank import on_meta
    from kbdenoise.models.cost import Macs, count_macs, count_parameters

    spec = find_model(name)
    architecture = spec.architecture()
    complete = complete_hyperparameters(name, **hyperparameters)
    with on_meta():
        model = build_model(name, channels=channels, **complete)
    multiple = architecture.multiple(complete)
    side = -(-side // multiple) * multiple
    try:
        macs = count_macs(model.eval(), channels=channels, side=side) if side else Macs()
    except (RuntimeError, OverflowError) as error:  # a side or a count beyond torch's numbers
        raise SettingsError(
            f"the work of {name} cannot be counted for {side} px: {error}", hint="choose less"
        ) from error
    radius = architecture.receptive_field(complete)
    return ModelInfo(
        name=name,
        channels=channels,
        hyperparameters=complete,
        parameters=count_parameters(model),
        multiple=multiple,
        receptive_field=radius,
        tiles="global-pooling" if radius is None else spec.tiles,  # an instance norm pools too
        sees_page=spec.sees_page,
        fp16=spec.fp16,
        fp16_autocast=spec.fp16_autocast,
        bf16_autocast=spec.bf16_autocast,
        macs_side=side,
        conv_macs=macs.conv,
        kernel_basis_macs=macs.kernel_basis,
        attention_macs=macs.attention,
        summary=spec.summary,
        paper=spec.paper,
    )


def channels_last(name: str, *, device: str) -> bool:
    """Whether a model is fastest on `device` with the channels of a pixel side by side in memory.

    See `benchmarks.layouts` for what is gained.
    """
    return device == "cpu" and find_model(name).channels_last


def laid_out(model: "nn.Module", *, name: str, device: str) -> "nn.Module":
    """The model itself, its tensors in the memory format that is fastest on `device`.

    Its activations follow its weights.
    """
    import torch

    if channels_last(name, device=device):
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _short(value: float) -> str:
    text = repr(value)
    return text if len(text) <= 20 else f"{text[:17]}..."


def _most(where: str) -> int:
    """The largest number that makes sense: of layers and the like, or of anything else."""
    layered = any(word in where.partition(" of ")[0] for word in ("blocks", "depth", "convs"))
    return _MOST_LAYERS if layered else _MOST


def _checked(value: Any, kind: Any, *, where: str) -> Any:
    """The value as the annotated type. Raises SettingsError naming `where` it came from."""
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise SettingsError(f"{where} is {value!r}", hint=nearest(str(value), get_args(kind)))
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_checked(item, get_args(kind)[0], where=where) for item in value)
        raise SettingsError(f"{where} is {value!r}", hint="give a list of whole numbers")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(max(-_MOST - 1, min(value, _MOST + 1)))  # larger ones are refused below
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and kind in (int, float) and abs(value) > (most := _most(where)):
        raise SettingsError(f"{where} is {_short(value)}", hint=f"choose at most {most:,}")
    if fits and (kind is not float or isfinite(value)):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise SettingsError(f"{where} is {value!r}", hint=f"give {words[kind]}")
