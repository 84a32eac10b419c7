"""What each operation of a MIL program computes, in torch's words: one line a kind where it can be.

An operation gets its inputs by MIL's names of them and gives one tensor, or a list of them. Names,
defaults and conventions are those of MIL's reference; three that differ from torch's:

* `pad` of a convolution is top, bottom, left, right; `pad` of `pad` is before and after, axis by
  axis, for the last axes only.
* `slice_by_index` ignores begin and end where their masks are set.
* normalisations take their eps in the type of the program.

Source: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Inputs = Mapping[str, Any]
"""Tensors, lists of tensors, and constants as Python numbers, texts and lists."""


def _conv(a: Inputs) -> Tensor:
    left, right, top, bottom = _sides(a)
    even = left == right and top == bottom
    x = a["x"] if even else F.pad(a["x"], (left, right, top, bottom))
    padding = (top, left) if even else 0
    return F.conv2d(
        x, a["weight"], a.get("bias"), a["strides"], padding, a["dilations"], a["groups"]
    )


def _conv_transpose(a: Inputs) -> Tensor:
    left, right, top, bottom = _sides(a)
    full = F.conv_transpose2d(
        a["x"], a["weight"], a.get("bias"), a["strides"], 0, 0, a["groups"], a["dilations"]
    )
    return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]


def _max_pool(a: Inputs) -> Tensor:
    x = F.pad(a["x"], _sides(a), value=float("-inf"))
    return F.max_pool2d(x, a["kernel_sizes"], a["strides"], ceil_mode=a["ceil_mode"])


def _avg_pool(a: Inputs) -> Tensor:
    if any(_sides(a)):
        raise NotImplementedError("avg_pool with padding")
    return F.avg_pool2d(a["x"], a["kernel_sizes"], a["strides"], ceil_mode=a["ceil_mode"])


def _sides(a: Inputs) -> tuple[int, int, int, int]:
    """Left, right, top and bottom, as torch pads the last two axes."""
    if a["pad_type"] == "valid":
        return (0, 0, 0, 0)
    if a["pad_type"] != "custom":
        raise NotImplementedError(f"pad_type {a['pad_type']}")
    top, bottom, left, right = a["pad"]
    return (left, right, top, bottom)


def _pad(a: Inputs) -> Tensor:
    amounts = a["pad"]  # before and after, the first of the padded axes first
    sides = list(chain(*zip(amounts[-2::-2], amounts[::-2], strict=True)))
    while len(sides) > 4 and sides[-2:] == [0, 0]:  # torch replicates along few axes only
        sides = sides[:-2]
    if a["mode"] == "constant":
        return F.pad(a["x"], sides, value=a["constant_val"])
    return F.pad(a["x"], sides, mode={"replicate": "replicate", "reflect": "reflect"}[a["mode"]])


def _slice_by_index(a: Inputs) -> Tensor:
    rank = a["x"].ndim
    begin_mask, end_mask = (a.get(f"{end}_mask", [False] * rank) for end in ("begin", "end"))
    strides = a.get("stride", [1] * rank)
    if any(a.get("squeeze_mask", [])):
        raise NotImplementedError("slice_by_index with squeeze_mask")
    cuts = tuple(
        slice(
            None if begin_mask[i] else a["begin"][i],
            None if end_mask[i] else a["end"][i],
            strides[i],
        )
        for i in range(rank)
    )
    cut: Tensor = a["x"][cuts]
    return cut


def _layer_norm(a: Inputs) -> Tensor:
    if a["axes"] != [1]:
        raise NotImplementedError(f"layer_norm over axes {a['axes']}")
    x = a["x"]
    centred = x - x.mean(1, keepdim=True)
    out: Tensor = centred / (centred.square().mean(1, keepdim=True) + a["epsilon"]).sqrt()
    out = out * a["gamma"][:, None, None] if "gamma" in a else out
    return out + a["beta"][:, None, None] if "beta" in a else out


def _concat(a: Inputs) -> Tensor:
    if a.get("interleave", False):
        raise NotImplementedError("concat with interleave")
    return torch.cat(a["values"], a["axis"])


def _matmul(a: Inputs) -> Tensor:
    x, y = a["x"], a["y"]
    x = x.mT if a.get("transpose_x", False) else x
    y = y.mT if a.get("transpose_y", False) else y
    return torch.matmul(x, y)


def _split(a: Inputs) -> list[Tensor]:
    """Into parts of given sizes, or into a number of equal ones."""
    x, axis = a["x"], a["axis"]
    sizes = a["split_sizes"] if "split_sizes" in a else x.shape[axis] // a["num_splits"]
    return list(x.split(sizes, axis))


def _gelu(a: Inputs) -> Tensor:
    return F.gelu(a["x"], approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[a["mode"]])


OPERATIONS: Mapping[str, Callable[[Inputs], Tensor | list[Tensor]]] = {
    "abs": lambda a: a["x"].abs(),
    "add": lambda a: a["x"] + a["y"],
    "avg_pool": _avg_pool,
    "clip": lambda a: a["x"].clamp(a["alpha"], a["beta"]),
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "fill_like": lambda a: torch.full_like(a["ref_tensor"], a["value"]),
    "gelu": _gelu,
    "layer_norm": _layer_norm,
    "leaky_relu": lambda a: F.leaky_relu(a["x"], a["alpha"]),
    "matmul": _matmul,
    "max_pool": _max_pool,
    "maximum": lambda a: torch.maximum(a["x"], torch.as_tensor(a["y"])),
    "minimum": lambda a: torch.minimum(a["x"], torch.as_tensor(a["y"])),
    "mul": lambda a: a["x"] * a["y"],
    "pad": _pad,
    "pixel_shuffle": lambda a: F.pixel_shuffle(a["x"], a["upscale_factor"]),
    "pixel_unshuffle": lambda a: F.pixel_unshuffle(a["x"], a["downscale_factor"]),
    "reduce_mean": lambda a: a["x"].mean(a["axes"], keepdim=a["keep_dims"]),
    "relu": lambda a: F.relu(a["x"]),
    "reshape": lambda a: a["x"].reshape(a["shape"]),
    "rsqrt": lambda a: (a["x"] + a["epsilon"]).rsqrt(),
    "sigmoid": lambda a: torch.sigmoid(a["x"]),
    "slice_by_index": _slice_by_index,
    "softmax": lambda a: torch.softmax(a["x"], a["axis"]),
    "softplus": lambda a: F.softplus(a["x"]),
    "split": _split,
    "sub": lambda a: a["x"] - a["y"],
    "tanh": lambda a: torch.tanh(a["x"]),
}
"""MIL's name of an operation -> its function. Another one is not known, and is a hard error."""
MOVING = frozenset(
    (
        *("concat", "max_pool", "pad", "pixel_shuffle", "pixel_unshuffle", "relu"),
        *("reshape", "slice_by_index", "split"),
    )
)
"""Those that make no new number, so that there is nothing to round."""
