"""Zip archives unpacked safely: checked before the first byte is written, and again while writing.

A name that would leave its folder is refused, never "repaired"; so are links, encrypted, duplicate
and case-colliding entries, and archives that grow beyond all measure. Zips inside zips obey the
same rules and share one budget.
"""

import lzma
import shutil
import struct
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kbdenoise.atomic import writing_to
from kbdenoise.contests.archive_checks import (
    NOT_A_CONTEST,
    UNPACK_YOURSELF,
    ArchiveError,
    DamagedArchiveError,
    check_is_zip,
    is_junk,
    kind_problem,
    name_problem,
)
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import SUFFIXES

Progress = Callable[[int, int], None]

# A flat zip of pictures goes into a folder of its own name, unless this table says better.
FLAT_ZIP_FOLDERS = {
    "train_scan": "train/scan",
    "train_clean": "train/clean",
    "test_scan": "test/scan",
}

_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,  # holds UnicodeDecodeError, and zipfile's complaints of impossible offsets
    NotImplementedError,
    RuntimeError,
)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much an archive, with all the archives inside it, may unpack to."""

    entries: int = 1_000_000
    size_bytes: int = 1 << 40
    ratio: int = 200
    """Unpacked bytes per packed byte, over all; blank uncompressed pictures can reach 100."""
    ratio_from_bytes: int = 64 << 20
    """Archives that unpack to less than this may have any ratio."""
    depth: int = 3
    """Zips within zips within zips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out of the archives."""

    files: dict[str, int]
    """Path relative to the folder, with '/', to size in bytes; sorted by path."""
    skipped: int
    """Entries left out because an operating system, not a person, made them."""


@dataclass(slots=True)
class _State:
    """What all archives of one unpacking share."""

    folder: Path
    limits: Limits
    progress: Progress | None
    allowed_bytes: int
    entries_left: int
    done_bytes: int = 0
    total_bytes: int = 0
    skipped: int = 0
    files: dict[str, int] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    """Case-folded path of a file to its spelling."""
    folders: dict[str, str] = field(default_factory=dict)
    """Case-folded path of a folder to its spelling."""


def unpack(
    archives: Iterable[Path],
    folder: Path,
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack zip archives into `folder`, which exists, and check every entry's CRC.

    A lone archive is unpacked as it is. Of several, and of zips inside zips, one that holds
    pictures directly gets a folder of its own name (`train.zip` -> `train/`). `progress` is told
    bytes written and bytes expected; the latter grows when an inner zip is opened.

    Raises DataError naming the archive and the entry; what was written until then stays in
    `folder`, so that the caller must give a temporary one.
    """
    paths, limits = list(archives), limits or Limits()
    packed_bytes = 0
    for path in paths:
        check_is_zip(path)
        packed_bytes += path.stat().st_size
    by_ratio = max(limits.ratio * packed_bytes, limits.ratio_from_bytes)
    state = _State(
        folder=folder,
        limits=limits,
        progress=progress,
        allowed_bytes=min(limits.size_bytes, by_ratio),
        entries_left=limits.entries,
    )
    for path in paths:
        stem = path.stem if len(paths) > 1 else ""
        _unpack_one(path, state, label=str(path), base="", stem=stem, depth=1)
    return Unpacked(files=dict(sorted(state.files.items())), skipped=state.skipped)


def _unpack_one(path: Path, state: _State, *, label: str, base: str, stem: str, depth: int) -> None:
    """One archive into the folder `base`; `stem` is its name, or empty for a lone archive."""
    if depth > state.limits.depth:
        raise ArchiveError(
            f"{label}: zips are nested more than {state.limits.depth} deep", hint=UNPACK_YOURSELF
        )
    check_is_zip(path, label=label)
    with _opened(path, label=label) as archive:
        entries = _checked_entries(archive, state, label=label)
        names = [PurePosixPath(entry.filename) for entry in entries]
        targets = _targets(names, base=base, stem=stem)
        zips: dict[str, str] = {}
        for target in targets:
            if not _is_zip(target):
                _claim(target, state, label=label)
            elif (known := zips.get(_key(target))) is not None:
                raise _collision(target, known, label=label)
            else:
                zips[_key(target)] = target
        _check_room(sum(entry.file_size for entry in entries), state, label=label)
        for entry, target in zip(entries, targets, strict=True):
            if not _is_zip(target):
                state.files[target] = _write_entry(
                    archive, entry, state, path=state.folder / target, label=label
                )
                continue
            # Under a name that no entry has: an inner zip may hold one of its own name.
            inner = state.folder / f".{uuid.uuid4().hex}"
            _write_entry(archive, entry, state, path=inner, label=label)
            _unpack_one(
                inner,
                state,
                label=f"{label}/{entry.filename}",
                base=PurePosixPath(target).parent.as_posix(),
                stem=PurePosixPath(target).stem,
                depth=depth + 1,
            )
            inner.unlink()


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def _checked_entries(
    archive: zipfile.ZipFile, state: _State, *, label: str
) -> list[zipfile.ZipInfo]:
    """The files to unpack, each safe by name and kind; folders and junk are left out."""
    state.entries_left -= len(archive.infolist())
    if state.entries_left < 0:
        raise ArchiveError(
            f"{label} holds more than {state.limits.entries:,} files", hint=NOT_A_CONTEST
        )
    kept = []
    for entry in archive.infolist():
        # orig_filename is what the archive says; filename was already changed on some systems.
        name = entry.orig_filename
        if problem := name_problem(name):
            raise ArchiveError(f"{label}: the entry {name!r} {problem}", hint=NOT_A_CONTEST)
        if problem := kind_problem(entry):
            raise ArchiveError(f"{label}: the entry {name!r} {problem}", hint=UNPACK_YOURSELF)
        if is_junk(entry.filename):
            state.skipped += 1
        elif not entry.is_dir():
            kept.append(entry)
    return kept


def _targets(names: list[PurePosixPath], *, base: str, stem: str) -> list[str]:
    """Where each entry goes, relative to the folder that is being filled."""
    flat = any(len(p.parts) == 1 and p.suffix.lower() in SUFFIXES for p in names)
    wrapped = bool(names) and all(len(p.parts) > 1 and p.parts[0] == stem for p in names)
    folder = PurePosixPath(base)
    if flat:
        folder /= FLAT_ZIP_FOLDERS.get(stem, stem)
    elif stem in FLAT_ZIP_FOLDERS and wrapped:
        folder /= FLAT_ZIP_FOLDERS[stem]
        names = [p.relative_to(stem) for p in names]
    return [(folder / p).as_posix() for p in names]


def _claim(target: str, state: _State, *, label: str) -> None:
    """Refuse a path that is taken, be it only on a file system that ignores case."""
    known = None
    for parent in PurePosixPath(target).parents:
        folder = parent.as_posix()
        spelling = state.folders.setdefault(_key(folder), folder)
        known = known or (spelling if spelling != folder else state.taken.get(_key(folder)))
    known = known or state.taken.get(_key(target)) or state.folders.get(_key(target))
    if known:
        raise _collision(target, known, label=label)
    state.taken[_key(target)] = target


def _collision(target: str, known: str, *, label: str) -> ArchiveError:
    return ArchiveError(
        f"{label}: the entry {target!r} collides with {known!r}", hint=NOT_A_CONTEST
    )


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _check_room(expected_bytes: int, state: _State, *, label: str) -> None:
    """Refuse what would outgrow the limits or the disk, by the archive's own directory."""
    state.total_bytes += expected_bytes
    if state.total_bytes > state.allowed_bytes:
        raise _too_big(state, label=label)
    free_bytes = shutil.disk_usage(state.folder).free
    if expected_bytes > free_bytes:
        raise DataError(
            f"{label} needs {_words(expected_bytes)} of disk, and {_words(free_bytes)} are free",
            hint="free some space, or choose a data folder on another disk",
        )


def _too_big(state: _State, *, label: str) -> ArchiveError:
    return ArchiveError(
        f"{label} would unpack to more than {_words(state.allowed_bytes)}", hint=NOT_A_CONTEST
    )


def _words(size_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"


def _write_entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, state: _State, *, path: Path, label: str
) -> int:
    """Write one file and return its size in bytes; the limits hold while writing, too."""
    written = 0
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for chunk in _chunks(archive, entry, label=label):
                written += len(chunk)
                state.done_bytes += len(chunk)
                if written > entry.file_size or state.done_bytes > state.allowed_bytes:
                    raise _too_big(state, label=label)
                file.write(chunk)
                if state.progress:
                    state.progress(state.done_bytes, state.total_bytes)
    if written != entry.file_size:
        raise _damaged(f"{label}/{entry.filename}")
    return written


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, label: str) -> Iterator[bytes]:
    """The unpacked bytes of an entry; its CRC is checked when the last ones are read."""
    name = f"{label}/{entry.filename}"
    with _reading(name):
        file = archive.open(entry)
    with file:
        while True:
            with _reading(name):
                chunk = file.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


@contextmanager
def _opened(path: Path, *, label: str) -> Iterator[zipfile.ZipFile]:
    with _reading(label):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextmanager
def _reading(label: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise _damaged(label) from error
    except OSError as error:
        raise DataError(f"cannot read {label}: {error.strerror}", hint="fetch it again") from error


def _damaged(label: str) -> DamagedArchiveError:
    return DamagedArchiveError(
        f"{label} is damaged or cut short: what it holds does not fit its own checksums",
        hint="download it again; nothing of it was kept",
    )
