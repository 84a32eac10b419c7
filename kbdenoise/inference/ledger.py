"""What was restored from which source by exactly this work, so that a stopped call can go on.

One JSON object a line, beside the pictures: the work, then for each picture a line when it is about
to be written and a line when it is on the disk. A line cut short by a kill does not count.
"""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

from kbdenoise.atomic import write_text, writing_to
from kbdenoise.team import Team

Stamp = dict[str, Any]
"""What tells one version of a source file from another."""


def stamp(source: Path) -> Stamp:
    """The source as it is now; take it before the file is read."""
    status = source.stat()
    return {
        "source": str(source.resolve()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


class Ledger:
    """The pictures of one folder; threads may note theirs side by side.

    `work` is anything that JSON holds. A file of other work counts for nothing and is written anew
    with the first picture.
    """

    def __init__(self, path: Path, work: dict[str, Any]) -> None:
        self.path = path
        self._head = {"work": work}
        self._lock = Lock()
        self._whole = False  # whether the file is known to end in a whole line of ours
        self._begun: dict[str, Stamp] = {}
        self._done: dict[str, Stamp] = {}
        head, *lines = _whole_lines(path) or [{}]
        for line in lines if head == self._head else []:
            name, begun = str(line.pop("picture", "")), line.pop("begun", False)
            (self._begun if begun else self._done)[name] = line

    def begin_together(self, team: Team) -> None:
        """Let the processes of a team add to one file: their leader writes it whole first."""
        if team.size > 1:
            team.after_leader(lambda: self._write_whole([]) if team.leads else None)
            self._whole = True

    def has(self, target: Path, source: Stamp) -> bool:
        """Whether the target is there and was made from exactly this source."""
        return target.exists() and self._done.get(target.name) == source

    def may_overwrite(self, target: Path, source: Stamp) -> bool:
        """Whether what is there is this work's own, from an earlier version of the same file."""
        begun = self._begun.get(target.name)
        return begun is not None and begun.get("source") == source["source"]

    def begin(self, target: Path, source: Stamp) -> None:
        """Claim a target before it is written."""
        with self._lock:
            self._append({"picture": target.name, "begun": True} | source)
            self._begun[target.name] = source

    def note(self, target: Path, source: Stamp) -> None:
        """Remember a picture; the line is on the disk at once, as the next may never come."""
        with self._lock:
            self._append({"picture": target.name} | source)
            self._done[target.name] = source

    def _append(self, line: dict[str, Any]) -> None:
        """Add a line, on the disk at once; after any trouble the file is written whole."""
        whole, self._whole = self._whole, False
        if whole:
            with writing_to(self.path), self.path.open("a") as file:
                file.write(_line(line))
                file.flush()
                os.fsync(file.fileno())
        else:
            self._write_whole([line])
        self._whole = True

    def _write_whole(self, more: list[dict[str, Any]]) -> None:
        lines: list[dict[str, Any]] = [self._head]
        lines += [{"picture": n, "begun": True} | s for n, s in self._begun.items()]
        lines += [{"picture": n} | s for n, s in self._done.items()]
        write_text(self.path, "".join(map(_line, [*lines, *more])))


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, up to the first line that is none."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return []
    lines = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(content, dict):
            break
        lines.append(content)
    return lines
