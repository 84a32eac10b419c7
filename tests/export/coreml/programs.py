"""Programs of one operation, made by hand."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kbdenoise.export.coreml.program import Operation, Program, Value

Shape = tuple[int, ...]


def value(name: str, shape: Shape, kind: str = "fp32") -> Value:
    return Value(name=name, kind=kind, shape=shape)


def program(
    kind: str,
    *,
    gives: Shape | list[Shape],
    constants: Mapping[str, Any] | None = None,
    type: str = "fp32",
    **takes: Shape,
) -> Program:
    """An operation that takes inputs of its parameters' names, and constants of theirs."""
    shapes = gives if isinstance(gives, list) else [gives]
    names = [f"out{i}" for i in range(len(shapes))]
    given = {name: np.array(item) for name, item in (constants or {}).items()}
    op = Operation(
        kind=kind,
        inputs={name: (name,) for name in (*takes, *given)},
        outputs=tuple(value(n, s, type) for n, s in zip(names, shapes, strict=True)),
    )
    return Program(
        inputs=tuple(value(name, shape, type) for name, shape in takes.items()),
        outputs=tuple(names),
        operations=(op,),
        constants=given,
        metadata={},
        version=8,
    )
