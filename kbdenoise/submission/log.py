"""The log of submissions: one line of a CSV each, appended so that none is ever lost or torn.

Every line stands for itself: a line break inside a message becomes a space, so a line that a killed
process left half-written can be told and skipped without losing its neighbours.
"""

import contextlib
import csv
import io
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from kbdenoise.atomic import writing_to
from kbdenoise.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One submission; the fields are the columns of the log."""

    time: str
    """ISO 8601 with time zone."""
    contest: str
    run: str
    csv: str
    """The submission file."""
    sha256: str
    metric: str
    local_score: float | None = None
    message: str = ""
    reference: str = ""
    """What the contest's site calls this submission; empty until it is sent."""
    public_score: float | None = None
    """Empty until the contest has scored it."""


COLUMNS = tuple(field.name for field in fields(LogEntry))


def append_log(path: Path, entry: LogEntry) -> None:
    """Append one line; a new log gets its header first.

    Several processes may append at once. Raises DataError when the file is no log of ours or the
    disk is full; the log then stays as it was.
    """
    line = _line([_text(value) for value in asdict(entry).values()])
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            with _locked(handle):
                _append(handle, line, path)
        finally:
            os.close(handle)


def read_log(path: Path) -> list[LogEntry]:
    """Every whole entry, oldest first; a log that is not there has none.

    A line that a killed process left half-written is skipped. Raises DataError when the file is no
    log of ours.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check that it is a file you may read"
        ) from error
    if _line(COLUMNS).startswith(content):  # empty, or a first append was killed
        return []
    _check_header(content, path)
    lines = content.decode("utf-8", errors="replace").split("\n")
    entries = [_entry(line.rstrip("\r")) for line in lines[1:]]
    return [entry for entry in entries if entry is not None]


def _append(handle: int, line: bytes, path: Path) -> None:
    size = os.fstat(handle).st_size
    content = os.pread(handle, size, 0)
    if _line(COLUMNS).startswith(content):  # empty, or a first append was killed
        addition = (_line(COLUMNS) + line).removeprefix(content)
    else:
        _check_header(content, path)
        # A process killed while it appended has left half a line: end it, so as not to join it.
        addition = line if content.endswith(b"\n") else b"\n" + line
    try:
        written = 0
        while written < len(addition):
            written += os.write(handle, addition[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise


def _check_header(content: bytes, path: Path) -> None:
    first = content.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    if tuple(_split(first)) != COLUMNS:
        raise DataError(
            f"{path} is no log of submissions: its first line is {first[:60]!r}",
            hint="move it away; kbdenoise starts a new one",
        )


def _entry(line: str) -> LogEntry | None:
    found = _split(line)
    if len(found) != len(COLUMNS):
        return None
    values = dict(zip(COLUMNS, found, strict=True))
    try:
        local, public = (_number(values.pop(name)) for name in ("local_score", "public_score"))
    except ValueError:
        return None
    return LogEntry(**values, local_score=local, public_score=public)


def _split(line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return []


def _line(values: tuple[str, ...] | list[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode("utf-8", errors="replace")


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return repr(float(value)) if isinstance(value, float) else " ".join(value.split())


def _number(text: str) -> float | None:
    return float(text) if text else None


@contextlib.contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold other appending processes back, where the system can (not on Windows)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield  # closing the file releases the lock
