"""A Core ML package as it lies on the disk: its program, its weights and what it says of itself.

A package is a folder with a protocol buffer, which names the program's operations one after the
other, and a file of weights that it points into. Both are read here from their published formats
and not by the library that wrote them, so that a fault in its writing is found, too.

Source: coremltools' mlmodel/format/MIL.proto, and MLModel/src/MILBlob/Blob/StorageFormat.hpp for
the file of weights (https://github.com/apple/coremltools, BSD-3).
"""

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kbdenoise.errors import DataError
from kbdenoise.export.coreml.library import model_protocol

Array = npt.NDArray[Any]

_PROTOCOL = "com.apple.CoreML/model.mlmodel"
_WEIGHTS_AT = "@model_path/"
_SENTINEL = 0xDEADBEEF  # first word of what describes a blob
_BLOB = struct.Struct("<IIQQ")  # sentinel, type, bytes, offset
_TYPES: Mapping[int, tuple[str, type]] = {
    1: ("bool", np.bool_),
    2: ("string", np.str_),
    10: ("fp16", np.float16),
    11: ("fp32", np.float32),
    23: ("int32", np.int32),
    33: ("uint32", np.uint32),
}
"""MIL's number of a type -> our name of it, and numpy's type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What an operation promises to give, or what the program takes."""

    name: str
    kind: str
    """fp16 or fp32; of constants also int32, uint32, bool or string."""
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: its kind as MIL calls it, the names of what it takes, what it gives."""

    kind: str
    inputs: Mapping[str, tuple[str, ...]]
    """By parameter; more than one name where the parameter is a list."""
    outputs: tuple[Value, ...]

    @property
    def name(self) -> str:
        """That of its first output."""
        return self.outputs[0].name


@dataclass(frozen=True, kw_only=True)  # without slots, for what is worked out once
class Program:
    """The function `main` of a package."""

    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    """In the order in which they can be computed; constants are not among them."""
    constants: Mapping[str, Array]
    metadata: Mapping[str, str]
    """What the package says of itself, its writers' keys included."""
    version: int
    """Of the specification: 8 is macOS 14 and iOS 17."""

    @property
    def counts(self) -> dict[str, int]:
        """How many operations there are of each kind, in the kinds' alphabetical order."""
        return dict(sorted(Counter(op.kind for op in self.operations).items()))

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of the inputs and of all that the operations give, by name."""
        return {value.name: value.shape for value in (*self.inputs, *self.values)}

    @property
    def values(self) -> Iterator[Value]:
        """All that the operations give."""
        return (value for op in self.operations for value in op.outputs)


def read_program(package: Path) -> Program:
    """The program of a package folder.

    Raises DataError for what is no package, is cut short, or uses parts of the format that
    kbdenoise never writes (flexible shapes, several functions, compressed weights).
    """
    try:
        content = (package / "Data" / _PROTOCOL).read_bytes()
        json.loads((package / "Manifest.json").read_text(encoding="utf-8"))
        return _program(content, package / "Data" / Path(_PROTOCOL).parent)
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise DataError(
            f"{package} cannot be read as a Core ML package: {error}",
            hint="it is damaged, or of another kind: export it again",
        ) from error


def _program(content: bytes, folder: Path) -> Program:
    from google.protobuf.message import DecodeError

    model = model_protocol().Model()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    if list(model.mlProgram.functions) != ["main"]:
        raise ValueError("it has no program with one function")
    function = model.mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    operations, constants = [], {}
    blobs = _Blobs(folder)
    for op in block.operations:
        outputs = tuple(_value(output) for output in op.outputs)
        if op.type == "const":
            constants[outputs[0].name] = blobs.array(op.attributes["val"])
            continue
        inputs = {
            parameter: tuple(_bound(argument) for argument in given.arguments)
            for parameter, given in op.inputs.items()
        }
        operations.append(Operation(kind=op.type, inputs=inputs, outputs=outputs))
    return Program(
        inputs=tuple(_value(given) for given in function.inputs),
        outputs=tuple(block.outputs),
        operations=tuple(operations),
        constants=constants,
        metadata=dict(model.description.metadata.userDefined),
        version=model.specificationVersion,
    )


def _bound(argument: Any) -> str:
    """The name of what is passed. Constants have names of their own in what we write."""
    name: str = argument.name
    if not name:
        raise ValueError("a value stands where a name is expected")
    return name


def _value(described: Any) -> Value:
    kind = described.type.tensorType
    if any(not dimension.HasField("constant") for dimension in kind.dimensions):
        raise ValueError(f"{described.name} has no fixed shape")
    name, _ = _TYPES[kind.dataType]
    shape = tuple(int(dimension.constant.size) for dimension in kind.dimensions)
    return Value(name=described.name, kind=name, shape=shape)


class _Blobs:
    """The files of weights in a package's folder, each mapped into memory once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, value: Any) -> Array:
        """A constant, wherever it lies; texts are arrays of texts."""
        kind = value.type.tensorType
        _, dtype = _TYPES[kind.dataType]
        shape = tuple(int(dimension.constant.size) for dimension in kind.dimensions)
        if value.HasField("blobFileValue"):
            content = self._blob(value.blobFileValue)
            return np.frombuffer(content, dtype=dtype).reshape(shape)
        tensor = value.immediateValue.tensor
        values = getattr(tensor, tensor.WhichOneof("value")).values  # a list, or bytes
        if isinstance(values, bytes):
            return np.frombuffer(values, dtype=dtype).reshape(shape)
        return np.array(values, dtype=dtype).reshape(shape)

    def _blob(self, place: Any) -> bytes:
        file = self._opened(place.fileName)
        head = file[place.offset : place.offset + _BLOB.size].tobytes()
        sentinel, _, size, offset = _BLOB.unpack(head)
        if sentinel != _SENTINEL or offset + size > len(file):
            raise ValueError(f"there are no weights at byte {place.offset} of {place.fileName}")
        return file[offset : offset + size].tobytes()

    def _opened(self, name: str) -> npt.NDArray[np.uint8]:
        relative = Path(name.removeprefix(_WEIGHTS_AT))
        if not name.startswith(_WEIGHTS_AT) or relative.is_absolute() or ".." in relative.parts:
            raise ValueError(f"{name} is not inside the package")
        if name not in self._files:
            self._files[name] = np.memmap(self._folder / relative, dtype=np.uint8, mode="r")
        return self._files[name]
