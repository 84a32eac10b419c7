"""Compute a MIL program without a Mac: what the package says, in numbers as small as it says.

Core ML runs on Apple's systems alone. The program in a package is plain data, though, and this
computes it: operation by operation in fp32, every result rounded to the type that the program
declares and compared with the shape that it declares. An operation that is not known ends it.

It shows that the *program* is right: its order, its weights, its types. It is kinder than a device
may be, for sums inside an operation are taken in fp32, and so it says nothing about speed, about
placement or about the last digit of a Neural Engine. `flush=True` plays the harshest of devices
that is thinkable: a number below half precision's smallest normal one, 6.1e-5, is zero.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.errors import DataError
from kbdenoise.export.coreml.forms import SMALLEST_NORMAL
from kbdenoise.export.coreml.mil_operations import MOVING, OPERATIONS
from kbdenoise.export.coreml.program import Array, Operation, Program, Value

Largest = MutableMapping[str, float]
"""The largest magnitude that operations of a kind gave, by the kind."""
_ROUNDED = {"fp16": torch.float16, "fp32": torch.float32}


@torch.inference_mode()
def evaluate(
    program: Program,
    images: Mapping[str, Tensor],
    *,
    flush: bool = False,
    largest: Largest | None = None,
) -> dict[str, Tensor]:
    """What the program gives for `images`, fp32 tensors by the names of its inputs.

    `largest`, where given, learns how large numbers became, so that one sees how far they stay
    below half precision's largest, 65504. Raises DataError for an operation that is not known and
    for a result of another shape than the program declares.
    """
    known: dict[str, Any] = {
        value.name: _stored(images[value.name], value, flush) for value in program.inputs
    }
    last_use = _last_uses(program)
    for number, op in enumerate(program.operations):
        inputs = {
            parameter: _looked_up(op, parameter, names, known, program, flush)
            for parameter, names in op.inputs.items()
        }
        for value, result in zip(op.outputs, _computed(op, inputs), strict=True):
            if op.kind in MOVING:
                known[value.name] = _shaped(result, value)
                continue
            known[value.name] = _stored(result, value, flush)
            if largest is not None:
                low, high = known[value.name].aminmax()
                largest[op.kind] = max(largest.get(op.kind, 0.0), -float(low), float(high))
        for name in last_use[number]:
            known.pop(name, None)
    return {name: known[name] for name in program.outputs}


def _computed(op: Operation, inputs: Mapping[str, Any]) -> Iterable[Tensor]:
    if op.kind not in OPERATIONS:
        raise DataError(
            f"the package holds an operation that kbdenoise cannot check: {op.kind} ({op.name})",
            hint="export with the tested versions of torch and coremltools: see constraints.txt",
        )
    try:
        result = OPERATIONS[op.kind](inputs)
    except (RuntimeError, NotImplementedError, KeyError, IndexError) as error:
        raise DataError(
            f"{op.kind} ({op.name}) of the package cannot be computed: {error!r}",
            hint="the package is damaged, or was written in a way that kbdenoise does not know",
        ) from error
    return result if isinstance(result, list) else [result]


def _stored(result: Tensor, value: Value, flush: bool) -> Tensor:
    """A result as the program keeps it: of the declared shape, rounded to the declared type."""
    rounded = _shaped(result, value).to(_ROUNDED[value.kind]).float()
    return _flushed(rounded) if flush and value.kind == "fp16" else rounded


def _shaped(result: Tensor, value: Value) -> Tensor:
    if value.kind not in _ROUNDED:
        raise DataError(
            f"{value.name} of the package is {value.kind}, which no network of kbdenoise has",
            hint="export with the tested versions of torch and coremltools: see constraints.txt",
        )
    if tuple(result.shape) != value.shape:
        raise DataError(
            f"{value.name} of the package is {list(result.shape)}, but {list(value.shape)} is "
            "declared",
            hint="the package is damaged, or was written wrongly",
        )
    return result


def _flushed(x: Tensor) -> Tensor:
    return F.hardshrink(x, SMALLEST_NORMAL * (1 - 2**-12))  # up to this number all become zero


def _looked_up(
    op: Operation,
    parameter: str,
    names: tuple[str, ...],
    known: Mapping[str, Any],
    program: Program,
    flush: bool,
) -> Any:
    """What an operation is given for a parameter; a list where MIL wants one."""
    found = []
    for name in names:
        if name in known:
            found.append(known[name])
        elif name in program.constants:
            found.append(_constant(program.constants[name], flush))
        else:
            raise DataError(
                f"{op.kind} ({op.name}) of the package takes {name!r}, which nothing has made",
                hint="the package is damaged: export it again",
            )
    return found if len(found) > 1 or parameter == "values" else found[0]


def _constant(array: Array, flush: bool) -> Any:
    """Weights as a tensor; settings, such as strides, as Python's numbers, texts and lists."""
    if array.dtype.kind != "f":
        return array.tolist()
    tensor = torch.from_numpy(array.astype(np.float32))
    if flush and array.dtype == np.float16:
        tensor = _flushed(tensor)
    return tensor if tensor.ndim else float(tensor)


def _last_uses(program: Program) -> list[set[str]]:
    """For every operation the names that nothing needs after it."""
    uses: list[set[str]] = [set() for _ in program.operations]
    seen = set(program.outputs)
    for number in reversed(range(len(program.operations))):
        op = program.operations[number]
        names = {name for given in op.inputs.values() for name in given}
        names |= {value.name for value in op.outputs}  # one that is never used dies at once
        uses[number] = names - seen
        seen |= names
    return uses
