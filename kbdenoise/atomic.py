"""Files and folders that appear whole or not at all, and disk failures in words.

Everything kbdenoise writes goes through here: written beside its final name, flushed to the disk,
then renamed. A process killed half-way leaves at most a hidden `.name.part-*` sibling.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kbdenoise.errors import DataError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FAILING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write into, which takes the place of `path` when the block ends well.

    On any exception `path` keeps its old content and the half-written sibling is removed.
    Raises DataError when the disk is full or the folder may not be written.
    """
    part = _sibling(path)
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically. Raises DataError when the disk is full."""
    with atomic_write(path) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file atomically. Raises DataError when the disk is full."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which is renamed to `path` when the block ends well.

    `path` must not exist, or must be an empty folder. Raises DataError when the disk is full.
    """
    part = _sibling(path)
    try:
        with writing_to(path):
            part.mkdir(parents=True)
            yield part
            if path.is_dir():
                path.rmdir()
            os.replace(part, path)
            _sync_folder(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, for somebody else to write a file or folder under.

    What lies there takes the place of `path`, be it there or not, when the block ends well.
    Raises DataError when the disk is full.
    """
    part = path.with_name(f".{path.stem}.part-{uuid.uuid4().hex[:8]}{path.suffix}")
    old = part.with_name(f"{part.name}.old")
    try:
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            if path.is_dir():
                os.replace(path, old)
            os.replace(part, path)
            _sync_folder(path.parent)
    finally:
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)
            with contextlib.suppress(OSError):
                rest.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into a DataError with a cure."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DataError(
                f"no space left on the disk while writing {path}",
                hint="free some space (or choose a folder on another disk) and run the same "
                "command again",
            ) from error
        if error.errno in _REFUSED:
            raise DataError(
                f"not allowed to write {path}: {error.strerror}",
                hint=f"check the permissions of {path.parent}, or choose another folder",
            ) from error
        if error.errno in {errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR}:
            raise DataError(
                f"cannot write {path}: {error.strerror}",
                hint="something else of that name is in the way; move it, or choose another name",
            ) from error
        if error.errno in _FAILING:
            raise DataError(
                f"the disk failed while writing {path}: {error.strerror}",
                hint="check the disk, or the connection to it; or choose a folder on another one",
            ) from error
        raise


def is_full(error: DataError) -> bool:
    """Whether an error of this module says that the disk is full."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _FULL


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.part-{uuid.uuid4().hex[:8]}")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, on systems that let a folder be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
