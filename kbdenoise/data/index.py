"""What a store was made from: the index.json beside its pixels, and the checksums in it."""

import json
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from kbdenoise.atomic import write_text
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Pixels

INDEX_FILE = "index.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture file as it was when its pixels were stored."""

    name: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    content: str
    """Checksum of the file."""
    pixels: str
    """Checksum of the stored pixels and their shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One pair of the store."""

    stem: str
    height: int
    width: int
    offset: int
    """Where its pixels begin in both files, in values."""
    noisy: Source
    clean: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What index.json says."""

    channels: int
    dtype: str
    """uint8 or uint16."""
    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        """Size of each of the two files of pixels."""
        last = self.entries[-1]
        values = last.offset + last.height * last.width * self.channels
        return values * np.dtype(self.dtype).itemsize

    @property
    def checksum(self) -> str:
        """What the pictures are, whatever their files' dates and compression."""
        pixels = [(entry.stem, entry.noisy.pixels, entry.clean.pixels) for entry in self.entries]
        return _digest(json.dumps([self.channels, self.dtype, pixels]).encode())


def read_index(folder: Path) -> Index | None:
    """The index of a store, or None if there is none that is whole and of this version."""
    try:
        content = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        if content["version"] != _VERSION or content["seal"] != _seal(content["store"]):
            return None
        entries = [
            Entry(**{**entry, "noisy": Source(**entry["noisy"]), "clean": Source(**entry["clean"])})
            for entry in content["store"]["entries"]
        ]
        return Index(**{**content["store"], "entries": tuple(entries)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_index(folder: Path, index: Index) -> None:
    """Write index.json, sealed with a checksum of its own."""
    store = asdict(index)
    content = {"version": _VERSION, "seal": _seal(store), "store": store}
    write_text(folder / INDEX_FILE, json.dumps(content, indent=1))


def look_at(path: Path) -> Source:
    """A file's dates, size and content; its pixels are not known yet.

    Call this before decoding: a file that changes in between is then found out at the next opening.
    Raises DataError if the file cannot be read.
    """
    try:
        size_bytes, mtime_ns, ctime_ns = _stamp(path)
        content = _digest(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}",
            hint="check that it exists and that you may read it",
        ) from error
    return Source(
        name=path.name,
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        ctime_ns=ctime_ns,
        content=content,
        pixels="",
    )


def unchanged(source: Source, path: Path) -> Source | None:
    """The source with its present dates, or None if the file's content is another.

    The content is read only if the dates differ. The change time counts too, as an archive that
    is unpacked again gives its files the dates of old.
    """
    try:
        stamp = _stamp(path)
        if stamp == (source.size_bytes, source.mtime_ns, source.ctime_ns):
            return source
        if stamp[0] != source.size_bytes or _digest(path.read_bytes()) != source.content:
            return None
    except OSError:
        return None
    return replace(source, mtime_ns=stamp[1], ctime_ns=stamp[2])


def pixel_checksum(pixels: Pixels) -> str:
    """A checksum of a picture's values, shape and type: equal pictures, and only they, share it."""
    head = f"{pixels.shape} {pixels.dtype.name} ".encode()
    return _digest(head, np.ascontiguousarray(pixels).data.cast("B"))


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _seal(content: dict[str, Any]) -> str:
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(*contents: bytes | memoryview) -> str:
    checksum = blake2b(digest_size=16)
    for content in contents:
        checksum.update(content)
    return checksum.hexdigest()
