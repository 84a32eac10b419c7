"""The log of submissions: one line of a CSV each, never lost, never torn.

A line is appended as soon as there is a file. What becomes known later (reference, scores, status)
replaces that line in a log that is written beside and renamed, so that a process killed at any
moment leaves the log of before or that of after. Both are done under one lock.

Every line stands for itself: a line break inside a message becomes a space, so a line that a killed
process left half-written can be told and skipped without losing its neighbours. Lines that are not
understood are kept as they are. Logs of before the columns from `status` on are read, too, and get
the new columns when they are next written to.
"""

import contextlib
import csv
import io
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from kbdenoise.atomic import write_bytes, writing_to
from kbdenoise.errors import DataError

LOG_FILE = "log.csv"
"""Its name in the folder of submissions."""

WRITTEN = "written"
"""There is a file, and nothing was sent."""
SENDING = "sending"
"""The call that makes a submission is under way; found later, nobody knows how it ended."""
UNKNOWN = "unknown"
"""Its answer was lost, and Kaggle could not be asked since."""
ABSENT = "not listed"
"""Its answer was lost, and Kaggle does not list the submission."""
REFUSED = "refused"
"""Kaggle has refused it: none was spent."""
PENDING = "pending"
"""Kaggle has it and has not scored it yet."""
COMPLETE = "complete"
ERROR = "error"
"""Kaggle could not score it."""

UNRESOLVED = (SENDING, UNKNOWN, ABSENT)
"""Whether Kaggle has such a submission has to be looked up."""
SENT = (PENDING, COMPLETE, ERROR)
"""Kaggle has it."""


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
    status: str = ""
    """How far it has come; empty in logs of before there was this column."""
    private_score: float | None = None
    """Empty until the contest tells it, after its end."""
    held_out_score: float | None = None
    """The run's own score on held-out pictures: what there is where no truth is known."""
    mark: str = ""
    """A word of this submission alone, which its description at the site holds, too."""
    detail: str = ""
    """What the site said of a failure."""

    @property
    def was_sent(self) -> bool:
        """Whether the site has it."""
        return bool(self.reference)

    @property
    def own_score(self) -> float | None:
        """The score known here: against the truth, or else on held-out pictures."""
        return self.held_out_score if self.local_score is None else self.local_score


COLUMNS = tuple(field.name for field in fields(LogEntry))
_OLD_COLUMNS = COLUMNS[: COLUMNS.index("status")]
_NUMBERS = ("local_score", "public_score", "private_score", "held_out_score")


def new_mark() -> str:
    """A word that no other submission has."""
    return f"kb-{secrets.token_hex(5)}"


def append_log(path: Path, entry: LogEntry) -> None:
    """Append one line; a new log gets its header first.

    Several processes may append at once. Raises DataError when the file is no log of ours or the
    disk is full; the log then stays as it was.
    """
    line = _line_of(entry)
    with _locked(path), writing_to(path):
        _modernise(path)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            _append(handle, line, path)
        finally:
            os.close(handle)


def update_log(path: Path, entry: LogEntry, **changes: Any) -> LogEntry:
    """Change the newest line with the entry's mark; all others stay as they are, to the byte.

    Returns the entry as it stands in the log now. What other processes have written to that line
    since is kept, but for `changes`. Raises DataError as `append_log` does, and where there is no
    such line any more.
    """
    with _locked(path), writing_to(path):
        _modernise(path)
        lines = _content(path).split(b"\n")
        for place in reversed(range(1, len(lines))):
            found = _entry(lines[place].decode("utf-8", errors="replace").rstrip("\r"), COLUMNS)
            if found is not None and _same(found, entry):
                changed = replace(found, **changes)
                lines[place] = _line_of(changed).rstrip(b"\n")
                write_bytes(path, b"\n".join(lines))
                return changed
    raise DataError(
        f"{path} has lost the line of {entry.csv}",
        hint="was it edited meanwhile? restore it from a backup",
    )


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
    columns = _header(content, path)
    lines = content.decode("utf-8", errors="replace").split("\n")
    entries = [_entry(line.rstrip("\r"), columns) for line in lines[1:]]
    return [entry for entry in entries if entry is not None]


def _modernise(path: Path) -> None:
    """Give a log of before today's columns the new ones, empty."""
    content = _content(path)
    if _line(COLUMNS).startswith(content) or _header(content, path) == COLUMNS:
        return
    _, *lines = content.decode("utf-8", errors="replace").split("\n")
    more = "," * (len(COLUMNS) - len(_OLD_COLUMNS))
    whole = [
        line if _entry(line.rstrip("\r"), _OLD_COLUMNS) is None else line.rstrip("\r") + more
        for line in lines
    ]
    text = "\n".join([_line(COLUMNS).decode().rstrip("\n"), *whole])
    write_bytes(path, text.encode("utf-8", errors="replace"))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder", hint="move it away") from error


def _same(found: LogEntry, entry: LogEntry) -> bool:
    if entry.mark:
        return found.mark == entry.mark
    return (found.time, found.csv, found.sha256) == (entry.time, entry.csv, entry.sha256)


def _append(handle: int, line: bytes, path: Path) -> None:
    size = os.fstat(handle).st_size
    content = os.pread(handle, size, 0)
    if _line(COLUMNS).startswith(content):  # empty, or a first append was killed
        addition = (_line(COLUMNS) + line).removeprefix(content)
    else:
        _header(content, path)
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


def _header(content: bytes, path: Path) -> tuple[str, ...]:
    """The columns of a log. Raises DataError when they are not ours."""
    first = content.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")
    columns = tuple(_split(first))
    if columns not in (COLUMNS, _OLD_COLUMNS):
        raise DataError(
            f"{path} is no log of submissions: its first line is {first[:60]!r}",
            hint="move it away; kbdenoise starts a new one",
        )
    return columns


def _entry(line: str, columns: tuple[str, ...]) -> LogEntry | None:
    found = _split(line)
    if len(found) != len(columns):
        return None
    values: dict[str, Any] = dict(zip(columns, found, strict=True))
    try:
        values |= {name: _number(values[name]) for name in _NUMBERS if name in values}
    except ValueError:
        return None
    return LogEntry(**values)


def _line_of(entry: LogEntry) -> bytes:
    return _line([_text(value) for value in asdict(entry).values()])


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
def _locked(path: Path) -> Iterator[None]:
    """Hold other writing processes back, where the system can (not on Windows).

    The lock is a file of its own: the log itself is replaced when a line of it changes.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with writing_to(path):
        handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
