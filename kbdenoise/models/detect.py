"""Recognise a model, and every number it was built with, from the shapes of its tensors.

The way in for weights that say nothing about themselves, such as the authors' own checkpoints.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import count
from math import ceil, isqrt
from typing import Any

from torch import Tensor

from kbdenoise.errors import DataError


def detect(state: Mapping[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    """Which model named tensors belong to: its name, channels and hyper-parameters.

    Raises DataError when they belong to none that is known.
    """
    for required, name, read in _SIGNATURES:
        if all(key in state for key in required):
            try:
                channels, hyperparameters = read(state)
            except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
                raise DataError(
                    f"the tensors look like {name}, but do not fit together ({error})",
                    hint="the file may be cut short or come from a changed network",
                ) from error
            return name, channels, hyperparameters
    some = ", ".join(list(state)[:4])
    raise DataError(
        f"cannot tell which model these weights belong to; their first tensors are: {some}",
        hint="known are " + ", ".join(name for _, name, _ in _SIGNATURES),
    )


def _detect_kbnet_s(state: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    width, channels = state["intro.weight"].shape[:2]
    levels = _length(state, "downs.{}.weight")
    blocks = [name.removesuffix(".attgamma") for name in state if name.endswith(".attgamma")]
    if not blocks:
        raise ValueError("no block holds kernel-basis attention")
    block = blocks[0]
    c = state[f"{block}.ga1"].shape[1]
    nset = state[f"{block}.attgamma"].shape[1]
    group_channels, kernel = _basis_shape(
        {state[f"{b}.ga1"].shape[1] for b in blocks}, state[f"{block}.w"].shape[2] // c
    )
    return channels, {
        "width": width,
        "encoder_blocks": tuple(
            _length(state, f"encoders.{i}.{{}}.attgamma") for i in range(levels)
        ),
        "middle_blocks": _length(state, "middle_blks.{}.attgamma"),
        "decoder_blocks": tuple(
            _length(state, f"decoders.{i}.{{}}.attgamma") for i in range(levels)
        ),
        "lightweight": state[f"{block}.conv11.1.weight"].shape[-1] == 3,
        "ffn_scale": _ffn_scale([state[f"{b}.conv4.weight"] for b in blocks]),
        "nset": nset,
        "group_channels": group_channels,
        "kernel": kernel,
    }


def _basis_shape(widths: set[int], values: int) -> tuple[int, int]:
    """Split `gc * k * k` values an output channel into gc, a divisor of all widths, and odd k.

    Widths are multiples of four with few odd factors, so that one way fits; else the widest k.
    """
    kernel = max(
        k
        for k in range(1, isqrt(values) + 1, 2)
        if values % k**2 == 0 and not any(width % (values // k**2) for width in widths)
    )
    return values // kernel**2, kernel


def _ffn_scale(expansions: list[Tensor]) -> float:
    """The shortest decimal s with `int(s * c)` hidden channels for every c: int() loses digits."""
    pairs = {(tensor.shape[0], tensor.shape[1]) for tensor in expansions}
    least = max(Fraction(hidden, c) for hidden, c in pairs)
    for digits in range(17):
        scale = float(Fraction(ceil(least * 10**digits), 10**digits))
        if all(int(scale * c) == hidden for hidden, c in pairs):
            return scale
    raise ValueError("the feed-forward parts of its levels do not share one ffn_scale")


def _detect_dncnn(state: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    width, channels = state["model.0.weight"].shape[:2]
    convs = [name for name, tensor in state.items() if tensor.ndim == 4]
    last = max(convs, key=lambda name: int(name.split(".")[1]))
    if state[last].shape[0] != channels:
        raise ValueError(f"{channels} channels go in and {state[last].shape[0]} come out")
    norm = "batch" if any(name.endswith("running_mean") for name in state) else "none"
    return channels, {"depth": len(convs), "width": width, "norm": norm}


def _detect_unet(state: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    width, channels = state["encoders.0.0.weight"].shape[:2]
    joined = state["decoders.0.0.weight"]
    return channels, {
        "width": width,
        "levels": _length(state, "downs.{}.weight"),
        "convs": sum(1 for i in range(0, 1000, 2) if f"middle.{i}.weight" in state),
        "skip": "concat" if joined.shape[1] == 2 * joined.shape[0] else "add",
    }


def _detect_res_unet(state: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    width = state["intro.weight"].shape[0]
    widths = [width, *(down.shape[0] for down in _numbered(state, "downs.{}.weight"))]
    levels = len(widths) - 1
    capped = [w for level, w in enumerate(widths) if w < width * 2**level]
    folded = state["intro.weight"].shape[1]
    # The number of colours is 1 or 3, so the fold follows from their product.
    channels = 1 if isqrt(folded) ** 2 == folded else 3
    return channels, {
        "width": width,
        "widest": capped[0] if capped else max(widths),
        "encoder_blocks": _blocks(state, "encoders", levels),
        "middle_blocks": _length(state, "middle.{}.conv1.weight"),
        "decoder_blocks": _blocks(state, "decoders", levels),
        "fold": isqrt(folded // channels),
    }


def _blocks(state: Mapping[str, Tensor], side: str, levels: int) -> tuple[int, ...]:
    return tuple(_length(state, f"{side}.{i}.{{}}.conv1.weight") for i in range(levels))


def _numbered(state: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    return [state[pattern.format(i)] for i in range(_length(state, pattern))]


# Names of tensors that a model has and those listed after it have not.
_SIGNATURES: list[
    tuple[tuple[str, ...], str, Callable[[Mapping[str, Tensor]], tuple[int, dict[str, Any]]]]
] = [
    (
        ("intro.weight", "ending.weight", "downs.0.weight", "ups.0.0.weight"),
        "kbnet-s",
        _detect_kbnet_s,
    ),
    (("intro.weight", "downs.0.weight", "middle.0.conv1.weight"), "res-unet", _detect_res_unet),
    (("encoders.0.0.weight", "middle.0.weight", "ending.weight"), "unet", _detect_unet),
    (("model.0.weight", "model.2.weight"), "dncnn", _detect_dncnn),
]


def _length(state: Mapping[str, Tensor], pattern: str) -> int:
    return next(i for i in count() if pattern.format(i) not in state)
