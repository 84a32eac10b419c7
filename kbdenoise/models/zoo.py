"""The table of models: which there are, how each is built, and what one has to know to run it.

Importing this module does not import torch; the architectures are imported when one is built.
A new model is written in its own file and gets one entry in `MODELS`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from kbdenoise.errors import SettingsError, nearest

if TYPE_CHECKING:
    from torch import nn

Hyperparameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is known of an architecture before it is built.

    `multiple` and `receptive_field` are functions of the complete hyper-parameters, see
    `complete_hyperparameters`. A receptive field is the farthest distance, in px along a row or a
    column, from which an input pixel reaches an output pixel.
    """

    architecture: "Callable[[], type[nn.Module]]"  # imports torch, so only when called
    summary: str  # one line, for a table
    paper: str
    multiple: Callable[[Hyperparameters], int]  # image sides must be multiples of this, in px
    receptive_field: Callable[[Hyperparameters], int | None]  # radius in px; None: unbounded
    # "exact": tiles that overlap by the receptive field give the whole image's result;
    # "global-pooling": every tile has its own pooled statistics, so tiles differ a little.
    tiles: Literal["exact", "global-pooling"]
    fp16: bool  # safe when the whole model is cast to half precision
    fp16_autocast: bool  # safe under mixed precision in fp16
    bf16_autocast: bool
    sizes: Mapping[str, Hyperparameters] = field(default_factory=dict)  # named hyper-parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is known of a model with its hyper-parameters chosen. Lengths in px."""

    name: str
    channels: int
    hyperparameters: Hyperparameters
    parameters: int
    multiple: int
    receptive_field: int | None
    tiles: Literal["exact", "global-pooling"]
    fp16: bool
    fp16_autocast: bool
    bf16_autocast: bool
    macs_side: int  # the image side that the two counts below are for
    conv_macs: int
    kernel_basis_macs: int
    summary: str
    paper: str


def _kbnet_s() -> "type[nn.Module]":
    from kbdenoise.models.kbnet_s import KBNetS

    return KBNetS


def _dncnn() -> "type[nn.Module]":
    from kbdenoise.models.dncnn import DnCNN

    return DnCNN


def _unet() -> "type[nn.Module]":
    from kbdenoise.models.unet import UNet

    return UNet


def _unet_radius(h: Hyperparameters) -> int:
    """From the middle outwards: 3x3 convolutions add 1 px each, a level doubles and adds 1."""
    radius: int = h["convs"]
    for _ in range(h["levels"]):
        radius = 2 * radius + 1 + 2 * h["convs"]
    return radius


def _res_unet() -> "type[nn.Module]":
    from kbdenoise.models.res_unet import ResUNet

    return ResUNet


def _res_unet_radius(h: Hyperparameters) -> int:
    """As for the U-Net, with two convolutions a block, the two outer ones, and the fold."""
    radius: int = 2 * h["middle_blocks"]
    for down, up in zip(reversed(h["encoder_blocks"]), reversed(h["decoder_blocks"]), strict=True):
        radius = 2 * radius + 1 + 2 * (down + up)
    fold: int = h["fold"]
    return fold * (radius + 2) + fold - 1


MODELS: dict[str, ModelSpec] = {
    "kbnet-s": ModelSpec(
        architecture=_kbnet_s,
        summary="U-shape with per-pixel mixed kernels; the best quality, for a GPU",
        paper="Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 "
        "(arXiv:2303.02881)",
        multiple=lambda h: int(2 ** len(h["encoder_blocks"])),
        receptive_field=lambda h: None,
        tiles="global-pooling",
        fp16=False,
        fp16_autocast=True,
        bf16_autocast=True,
        sizes={
            "deck": {
                "width": 16,
                "encoder_blocks": (2, 3, 4),
                "middle_blocks": 4,
                "decoder_blocks": (4, 3, 2),
            },
            "small": {
                "width": 8,
                "encoder_blocks": (1, 1, 1),
                "middle_blocks": 1,
                "decoder_blocks": (1, 1, 1),
            },
            "deck-4-levels": {
                "width": 16,
                "encoder_blocks": (2, 2, 2, 2),
                "middle_blocks": 4,
                "decoder_blocks": (4, 2, 2, 2),
            },
            "sidd": {
                "width": 64,
                "encoder_blocks": (2, 2, 4, 8),
                "middle_blocks": 12,
                "decoder_blocks": (2, 2, 2, 2),
                "lightweight": True,
                "ffn_scale": 1.5,
            },
            "gaussian": {
                "width": 64,
                "encoder_blocks": (2, 2, 4, 8),
                "middle_blocks": 12,
                "decoder_blocks": (2, 2, 2, 2),
            },
        },
    ),
    "dncnn": ModelSpec(
        architecture=_dncnn,
        summary="a plain stack of convolutions that predicts the noise; the classic baseline",
        paper="Zhang et al., 'Beyond a Gaussian Denoiser', 2017 (arXiv:1608.03981)",
        multiple=lambda h: 1,
        receptive_field=lambda h: int(h["depth"]),
        tiles="exact",
        fp16=False,
        fp16_autocast=True,
        bf16_autocast=True,
        sizes={"s": {"depth": 17}, "blind": {"depth": 20}, "merged": {"depth": 20, "norm": "none"}},
    ),
    "res-unet": ModelSpec(
        architecture=_res_unet,
        summary="residual U-Net at half resolution; learns most per second on a CPU",
        paper="after Zhang et al., 'Plug-and-Play Image Restoration with Deep Denoiser Prior', "
        "2021 (arXiv:2008.13751)",
        multiple=lambda h: int(h["fold"] * 2 ** len(h["encoder_blocks"])),
        receptive_field=_res_unet_radius,
        tiles="exact",
        fp16=False,
        fp16_autocast=True,
        bf16_autocast=True,
        sizes={
            "small": {},
            "large": {"width": 48, "widest": 384, "encoder_blocks": (2, 2, 2), "middle_blocks": 2},
        },
    ),
    "unet": ModelSpec(
        architecture=_unet,
        summary="a small residual U-Net without normalisation; the quickest on a CPU",
        paper="after Ronneberger et al., 'U-Net', 2015 (arXiv:1505.04597)",
        multiple=lambda h: int(2 ** h["levels"]),
        receptive_field=_unet_radius,
        tiles="exact",
        fp16=False,
        fp16_autocast=True,
        bf16_autocast=True,
        sizes={"small": {"width": 16, "levels": 3}, "medium": {"width": 32, "levels": 3}},
    ),
}


def find_model(name: str) -> ModelSpec:
    """The entry of `MODELS`. Raises SettingsError, with the nearest name, when there is none."""
    if name not in MODELS:
        raise SettingsError(f"there is no model called {name!r}", hint=nearest(name, MODELS))
    return MODELS[name]


def named_size(name: str, size: str) -> dict[str, Any]:
    """The hyper-parameters that a model's named size sets, such as `deck` of `kbnet-s`.

    Raises SettingsError for an unknown model or size.
    """
    sizes = find_model(name).sizes
    if size not in sizes:
        raise SettingsError(f"{name} has no size called {size!r}", hint=nearest(size, sizes))
    return dict(sizes[size])


def complete_hyperparameters(name: str, /, **hyperparameters: Any) -> dict[str, Any]:
    """All hyper-parameters of a model but `channels`: those given, checked, and defaults.

    A list becomes a tuple, and a whole number does for a float. Raises SettingsError for an
    unknown model, an unknown hyper-parameter or a value of the wrong type. Imports torch.
    """
    architecture = find_model(name).architecture()
    parameters = inspect.signature(architecture).parameters
    defaults = {key: p.default for key, p in parameters.items() if key != "channels"}
    for key in hyperparameters:
        if key not in defaults:
            raise SettingsError(
                f"{name} has no hyper-parameter {key!r}",
                hint=f"{nearest(key, defaults)} (it has: {', '.join(defaults)})",
            )
    types = get_type_hints(architecture.__init__)
    given = {
        key: _checked(value, types[key], where=f"{key} of {name}")
        for key, value in hyperparameters.items()
    }
    return defaults | given


def build_model(name: str, /, *, channels: int, **hyperparameters: Any) -> "nn.Module":
    """A model of the table with fresh weights, drawn from torch's global random numbers.

    Hyper-parameters that are not given take the architecture's defaults. Raises SettingsError for
    an unknown model or hyper-parameter, a wrong type, or values that cannot be built.
    """
    complete = complete_hyperparameters(name, **hyperparameters)
    checked = _checked(channels, int, where=f"channels of {name}")
    try:
        return find_model(name).architecture()(channels=checked, **complete)
    except (RuntimeError, OverflowError) as error:  # sizes beyond what torch can count
        raise SettingsError(
            f"{name} cannot be built with these numbers: {error}", hint="choose smaller ones"
        ) from error


def describe_model(
    name: str, /, *, channels: int, side: int = 256, **hyperparameters: Any
) -> ModelInfo:
    """What there is to know of a model, without spending memory on its weights.

    `side` in px is the square image for which multiply-accumulates are counted; it is rounded up
    to the model's multiple. Raises SettingsError as `build_model` does.
    """
    import torch

    from kbdenoise.models.cost import count_macs, count_parameters

    spec = find_model(name)
    complete = complete_hyperparameters(name, **hyperparameters)
    multiple = spec.multiple(complete)
    side = -(-side // multiple) * multiple
    with torch.device("meta"):
        model = build_model(name, channels=channels, **complete)
    macs = count_macs(model, channels=channels, side=side)
    return ModelInfo(
        name=name,
        channels=channels,
        hyperparameters=complete,
        parameters=count_parameters(model),
        multiple=multiple,
        receptive_field=spec.receptive_field(complete),
        tiles=spec.tiles,
        fp16=spec.fp16,
        fp16_autocast=spec.fp16_autocast,
        bf16_autocast=spec.bf16_autocast,
        macs_side=side,
        conv_macs=macs.conv,
        kernel_basis_macs=macs.kernel_basis,
        summary=spec.summary,
        paper=spec.paper,
    )


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
        return float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if fits and (kind is not float or isfinite(value)):
        return value
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    raise SettingsError(f"{where} is {value!r}", hint=f"give {words[kind]}")
