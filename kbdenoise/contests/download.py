"""One file from the network onto the disk: resumed at the byte, verified, bounded in time.

The bytes go into `NAME.part`; `NAME.part.json` beside it remembers what file they belong to, so
that a later process goes on where this one stopped. A file that is not whole never bears its name.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kbdenoise.atomic import write_bytes, writing_to
from kbdenoise.contests.kaggle_client.patience import NothingLeft, Patience, TryAgain
from kbdenoise.contests.kaggle_client.site import Body
from kbdenoise.errors import DataError, KaggleNetworkError
from kbdenoise.progress import Advance, Note, Progress, silent

Opener = Callable[[int, str], AbstractContextManager[Body]]
"""Begins a download: the first byte that is wanted, and the validator of the file it is of."""

_BLOCK_BYTES = 1 << 20


class DamagedError(KaggleNetworkError):
    """What was downloaded is not what the server says it sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a file that is half here."""

    source: str
    """Where it comes from; another source begins anew."""
    validator: str = ""
    """Empty when the server cannot resume."""
    size_bytes: int | None = None
    md5: str = ""


_KNOWN = TypeAdapter(Known)


def part_path(target: Path) -> Path:
    """Where the bytes lie until they are verified and used."""
    return target.with_name(f"{target.name}.part")


def discard(target: Path) -> None:
    """Forget what has been downloaded for `target`."""
    part_path(target).unlink(missing_ok=True)
    _memory(target).unlink(missing_ok=True)


def download(
    open_at: Opener,
    target: Path,
    *,
    source: str,
    patience: Patience,
    progress: Progress = silent,
    task: str = "download",
    beside_bytes: int = 0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Known:
    """Bring a whole file to `part_path(target)`, verified by its size and MD5 where they are told.

    What an earlier call left there is gone on with if it comes from the same `source` and the
    server still has that file. The caller unpacks or renames the file, or calls `discard`.
    `beside_bytes` is what unpacking will need: a download that leaves no room for it is not begun.

    Raises KaggleError with the bytes kept for the next call, DamagedError with nothing kept, or
    DataError when the disk is full.
    """
    part = part_path(target)
    known = _remembered(target, source)
    deadline = clock() + patience.total_s
    failures, most_bytes = 0, _size(part)
    if most_bytes and not _is_whole(part, known):
        progress(Note(text=f"the download goes on after {words(most_bytes)}"))
    while not _is_whole(part, known):
        try:
            known = _go_on(
                open_at, target, known, progress=progress, task=task, beside_bytes=beside_bytes
            )
            break
        except TryAgain as failure:
            last, asked_s = failure.error, failure.asked_s
            if isinstance(failure, NothingLeft):
                discard(target)
        known = _remembered(target, source)
        come_bytes = _size(part)
        if come_bytes > most_bytes and known.validator:
            failures, most_bytes = 0, come_bytes
        failures += 1
        pause_s = patience.pause(failures, asked_s=asked_s)
        too_long = (asked_s or 0.0) > patience.longest_pause_s or clock() + pause_s > deadline
        if failures >= patience.tries or too_long:
            if not come_bytes:
                discard(target)
            raise last
        progress(Note(text=f"{last.message}; the download goes on in {pause_s:.0f} s"))
        sleep(pause_s)
    _verify(target, known)
    return known


def words(size_bytes: int) -> str:
    """A size in the units of disks."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"


def check_room(folder: Path, needed_bytes: int, *, what: str) -> None:
    """Raise DataError unless the disk of `folder` has room for so many bytes more."""
    nearest = next(p for p in (folder, *folder.parents) if p.exists())
    free_bytes = shutil.disk_usage(nearest).free
    if needed_bytes > free_bytes:
        raise DataError(
            f"{what} needs {words(needed_bytes)} of disk in {folder}, "
            f"and {words(free_bytes)} are free",
            hint="free some space, or choose a folder on another disk with --data",
        )


def _go_on(
    open_at: Opener,
    target: Path,
    known: Known,
    *,
    progress: Progress,
    task: str,
    beside_bytes: int,
) -> Known:
    """One request: the rest of the file, or all of it if the server does not resume."""
    part = part_path(target)
    start = _size(part) if known.validator else 0
    with open_at(start, known.validator if start else "") as body:
        same = body.start == start and body.size_bytes == known.size_bytes
        # A server may send a part without having looked at the validator that was asked for.
        same = same and body.validator in ("", known.validator)
        if not (start and same):
            if body.start:  # a part of another file than the one we have
                discard(target)
                raise TryAgain(_changed())
            start = 0
            known = Known(
                source=known.source,
                validator=body.validator,
                size_bytes=body.size_bytes,
                md5=body.md5,
            )
            part.unlink(missing_ok=True)
            what = f"{target.name} with what is in it" if beside_bytes else target.name
            check_room(target.parent, (body.size_bytes or 0) + beside_bytes, what=what)
            write_bytes(_memory(target), _KNOWN.dump_json(known))
        _append(body, part, start=start, progress=progress, task=task)
    if known.size_bytes is not None and _size(part) < known.size_bytes:
        raise TryAgain(
            KaggleNetworkError(
                f"the connection broke off after {words(_size(part))} of {words(known.size_bytes)}",
                hint="run the same command again: the download goes on where it stopped",
            )
        )
    return known


def _append(body: Body, part: Path, *, start: int, progress: Progress, task: str) -> None:
    done, total = start, body.size_bytes or 0
    with writing_to(part), part.open("ab", buffering=0) as file:
        while chunk := body.read(_BLOCK_BYTES):
            view = memoryview(chunk)
            while view:  # an unbuffered file may take less than it is given
                view = view[file.write(view) :]
            done += len(chunk)
            if total:
                progress(Advance(task=task, done=done, total=total))
        os.fsync(file.fileno())


def _verify(target: Path, known: Known) -> None:
    """Raise DamagedError, and keep nothing, unless size and checksum are as the server said."""
    part = part_path(target)
    size_bytes = _size(part)
    problem = ""
    if known.size_bytes is not None and size_bytes != known.size_bytes:
        problem = f"it has {size_bytes:,} bytes instead of {known.size_bytes:,}"
    elif known.md5:
        with part.open("rb") as file:
            if hashlib.file_digest(file, "md5").hexdigest() != known.md5:
                problem = "its MD5 is not the one that the server gave"
    if problem:
        discard(target)
        raise DamagedError(
            f"the download of {target.name} is damaged: {problem}",
            hint="run the same command again; nothing of it was kept",
        )


def _changed() -> KaggleNetworkError:
    return KaggleNetworkError(
        "the file has changed on the server during the download",
        hint="run the same command again: it begins anew",
    )


def _is_whole(part: Path, known: Known) -> bool:
    return known.size_bytes is not None and _size(part) == known.size_bytes and part.is_file()


def _remembered(target: Path, source: str) -> Known:
    """What an earlier process wrote down; nothing is taken over from another source."""
    try:
        known = _KNOWN.validate_json(_memory(target).read_bytes())
    except (OSError, ValidationError):
        known = Known(source="")
    if known.source == source:
        return known
    discard(target)
    return Known(source=source)


def _memory(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
