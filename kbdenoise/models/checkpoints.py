"""Named tensors out of a weights file that nobody vouches for.

Reads safetensors and PyTorch files (new and old), frees the tensors of the wrappers that training
codes put around them, and refuses what is broken. No code from a file is ever run, and a file that
claims more than it holds is refused before memory is spent on the claim.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from kbdenoise.errors import DataError
from kbdenoise.models.spec import State

# Averaged weights first: they are the ones that the published scores belong to.
_WRAPPERS = (
    "params_ema",
    "params-ema",
    "state_dict_ema",
    "model_ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "netG",
    "generator",
    "weights",
)
_MOST_WRAPPERS = 4  # nested in each other
_FLOATS = {
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
}
_WHOLE = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}
_CONVERT = (
    "where it was made, save the tensors alone: torch.save(model.state_dict(), 'weights.pth'), and "
    "use that file"
)
_TAMPERED = "the file was tampered with or damaged; get it from its source again"
_AGAIN = "it may be cut short; copy or download it again"


def read_state_dict(path: Path) -> State:
    """The named tensors of a safetensors or PyTorch file, freed of wrappers, on the CPU.

    Names keep their prefixes. The tensors may lie in the file itself (mapped memory), have any
    strides, and be whole numbers or fractions of any width. Raises DataError when the file is
    missing or broken, would have to run code to be read, or claims more than it holds.
    """
    records = None
    if is_safetensors(path):
        content = _read_safetensors(path)
    else:
        records = _records(path)
        content = _read_torch(path, archive=records is not None)
    state = _unwrapped(content, _MOST_WRAPPERS)
    if not state:
        raise DataError(
            f"{path} holds no table of named tensors",
            hint="save the weights alone: torch.save(model.state_dict(), 'weights.pth')",
        )
    _check_tensors(state, path=path)
    if records is not None:
        _check_storages(state, records, path=path)
    return state


def read_metadata(path: Path) -> Mapping[str, str]:
    """The texts in the header of a safetensors file; none for a file of another format."""
    if not is_safetensors(path):
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a readable safetensors file: {error}", hint=_AGAIN
        ) from error


def is_safetensors(path: Path) -> bool:
    """Told by content, not by suffix: eight bytes of length, then JSON.

    Raises DataError when there is nothing to read, or nothing that holds weights.
    """
    head = _head(path)
    if not head:
        raise DataError(f"{path} is empty", hint="copy or download it again")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = {b"<": "a web page", b"{": "a text in JSON"}.get(start[:1])
    if kind and b"\0" not in head[:8]:  # a length may begin like a text, but ends with zeros
        raise DataError(
            f"{path} is {kind}, not weights: the download went wrong",
            hint="open its link in a browser, and save what the page offers",
        )
    if head.startswith(b"version https://git-lfs"):
        raise DataError(
            f"{path} is a pointer of Git LFS, not the weights themselves",
            hint="fetch them: git lfs pull",
        )
    return head[8:9] == b"{"


def _head(path: Path) -> bytes:
    if path.is_dir():
        inside = path / "best.safetensors"
        raise DataError(
            f"{path} is a folder, not a weights file",
            hint=f"did you mean {inside}?" if inside.is_file() else "name a file in it",
        )
    if path.exists() and not path.is_file():  # a pipe would be waited for without end
        raise DataError(f"{path} is no regular file", hint="copy its content into a file")
    try:
        with path.open("rb") as file:
            return file.read(32)
    except FileNotFoundError as error:
        raise DataError(f"there is no weights file {path}", hint="check the path") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check the permissions of the file"
        ) from error


def _read_safetensors(path: Path) -> Any:
    """The library itself refuses a header that claims more than the file holds."""
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # a type of number that this torch lacks raises as it likes
        raise DataError(
            f"{path} is not a readable safetensors file: {error}", hint=_AGAIN
        ) from error


def _read_torch(path: Path, *, archive: bool) -> Any:
    try:
        with warnings.catch_warnings():  # it says what it thinks of old files to the wrong person
            warnings.simplefilter("ignore")
            # Mapped, a storage cannot be larger than the file, and only what is used is read.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=archive)
    except Exception as error:  # a broken file can make the loader raise anything
        found = re.search(r"(?:GLOBAL|class) (\S+)", str(error))
        if found and isinstance(error, UnpicklingError):
            raise DataError(
                f"{path} holds a pickled object ({found[1]}), and reading it would run code from "
                "the file",
                hint=_CONVERT,
            ) from error
        raise DataError(
            f"{path} is not a readable weights file (PyTorch or safetensors)", hint=_AGAIN
        ) from error


def _records(path: Path) -> set[int] | None:
    """Sizes in bytes of what a PyTorch archive holds; None for the older files that are none.

    Such an archive is a zip without compression; what else is a zip is refused.
    """
    if not _head(path).startswith(b"PK"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            damaged = archive.testzip()
    except Exception as error:  # zipfile, too, raises what it likes for a damaged directory
        raise DataError(
            f"{path} is not a readable weights file (PyTorch or safetensors)", hint=_AGAIN
        ) from error
    if damaged:
        raise DataError(f"{path} is damaged: the checksum of {damaged} differs", hint=_AGAIN)
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise DataError(
            f"{path} is a TorchScript program, and loading it would run code from the file",
            hint="where it was made, save its tensors alone: "
            "torch.save(torch.jit.load(file).state_dict(), 'weights.pth'), and use that file",
        )
    if "data.pkl" not in names:
        raise DataError(
            f"{path} is a zip archive without PyTorch's tensors in it",
            hint="unpack it and name the weights file that was inside",
        )
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise DataError(
            f"{path} is a compressed archive, as torch.save does not write it",
            hint="save the weights again with torch.save(state_dict, 'weights.pth')",
        )
    return {entry.file_size for entry in entries}


def _unwrapped(content: Any, most: int) -> State:
    """The tensors below `{'params': ...}` and the like; what lies beside them is left out."""
    if not isinstance(content, dict) or not most:
        return {}
    wrapped = [_unwrapped(content.get(key), most - 1) for key in _WRAPPERS]
    if fullest := max(map(len, wrapped)):  # an average may hold less than the network it is of
        return next(inner for inner in wrapped if len(inner) == fullest)
    state = {
        name: tensor.detach()
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not state and len(content) == 1:
        return _unwrapped(next(iter(content.values())), most - 1)
    return state


def _check_tensors(state: State, *, path: Path) -> None:
    """Plain dense numbers, and together no more of them than the file has bytes."""
    for name, tensor in state.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.dtype not in _FLOATS | _WHOLE:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise DataError(
                f"{path} holds {name} as {kind if plain else 'sparse or empty'} values, which are "
                "no weights of a network",
                hint="save the network's floating-point weights instead",
            )
    claimed, size = sum(tensor.numel() for tensor in state.values()), path.stat().st_size
    if claimed > size:  # a tensor that repeats one stored value can be of any size
        largest = max(state, key=lambda name: state[name].numel())
        raise DataError(
            f"{path} claims {claimed:,} values in {size:,} bytes, most in {largest}",
            hint=_TAMPERED,
        )


def _check_storages(state: State, records: set[int], *, path: Path) -> None:
    """A mapped storage that claims more than its record would show other bytes of the file."""
    for name, tensor in state.items():
        if tensor.untyped_storage().nbytes() not in records:
            raise DataError(
                f"{path} claims another number of values for {name} than it holds", hint=_TAMPERED
            )
