"""CSV submissions of two columns, id and value, read at the speed of numpy.

Seven million rows are checked in seconds and in flat memory: the ids that a block of rows must have
are made anew and compared as bytes. Only a block that differs is taken apart row by row, to say
exactly what is wrong with it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kbdenoise.contests.formats.csv_bytes import (
    Bytes,
    fields,
    number,
    numbers,
    plain_chunks,
    split_rows,
)
from kbdenoise.contests.formats.findings import SHOWN, CheckReport, Statistics
from kbdenoise.contests.formats.ledger import Keyed, Ledger
from kbdenoise.errors import DataError


class Rows(Keyed, Protocol):
    """The data rows that a submission must have, each an id and a value."""

    @property
    def span(self) -> tuple[float, float]:
        """Least and greatest value allowed."""

    def ids(self, start: int, stop: int) -> Bytes:
        """The ids of rows start..stop-1 as they stand in the file, each followed by a comma."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Neighbouring rows of a file that are well-formed, known, and no duplicates."""

    lines: npt.NDArray[np.int64]
    """Line numbers in the file; the header is line 1."""
    positions: npt.NDArray[np.int64]
    """Where each row belongs, counted from 0 in the contest's order."""
    values: npt.NDArray[np.float64]


def check_rows(path: Path, rows: Rows) -> CheckReport:
    """Compare a CSV with the rows that it must have. Raises DataError if it cannot be opened."""
    reader = RowReader(path, rows)
    statistics = Statistics()
    for block in reader.blocks():
        statistics.add(block.values)
    statistics.rows = reader.ledger.rows_met
    reader.ledger.check_count()
    findings = reader.ledger.findings
    if rows.count > 1 and statistics.minimum == statistics.maximum:
        findings.note(f"every row has the same value, {statistics.minimum:g}")
    return findings.report(path, statistics)


def read_rows(path: Path, rows: Rows) -> Iterator[Block]:
    """The blocks of a valid CSV; raises DataError at the first block with a problem."""
    reader = RowReader(path, rows)
    for block in reader.blocks():
        reader.ledger.findings.require_none(path)
        yield block
    reader.ledger.findings.require_none(path)


class RowReader:
    """One pass over a CSV: yields what is sound, and records the rest as findings."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self.ledger = Ledger(rows)
        self._path = path
        self._rows = rows

    def blocks(self) -> Iterator[Block]:
        """Blocks of sound rows, in the order of the file."""
        try:
            for chunk in plain_chunks(self._path):
                body = chunk if self.ledger.line > 1 else self.ledger.without_header(chunk)
                if body:
                    block = self._fast(body) or self._row_by_row(body)
                    self._check_values(block)
                    yield block
        except DataError as error:
            if not self._path.is_file():
                raise
            self.ledger.findings.problem("unreadable", f"{error.message}; {error.hint}")
        self.ledger.finish()

    def _fast(self, chunk: bytes) -> Block | None:
        """The rows of a chunk, if they are exactly those that come next."""
        parts = None if b"\0" in chunk else split_rows(chunk)
        if parts is None:
            return None
        ids, texts, _ = parts
        ledger = self.ledger
        start, stop = ledger.cursor, ledger.cursor + len(texts)
        if stop > self._rows.count or ledger.seen[start:stop].any():
            return None
        if not np.array_equal(ids, self._rows.ids(start, stop)):
            return None
        values = numbers(texts)
        if values is None:
            return None
        lines = np.arange(ledger.line, ledger.line + len(texts))
        ledger.seen[start:stop] = True
        ledger.cursor = stop
        ledger.line += len(texts)
        ledger.rows_met += len(texts)
        return Block(lines=lines, positions=np.arange(start, stop), values=values)

    def _row_by_row(self, chunk: bytes) -> Block:
        sound = []
        for line in chunk.split(b"\n")[:-1]:
            row = self._row(line)
            if row is not None:
                sound.append((self.ledger.line, *row))
            self.ledger.line += 1
        lines, positions, values = zip(*sound, strict=True) if sound else ((), (), ())
        return Block(
            lines=np.array(lines, np.int64),
            positions=np.array(positions, np.int64),
            values=np.array(values, np.float64),
        )

    def _row(self, line: bytes) -> tuple[int, float] | None:
        """Position and value of a sound row; anything else is recorded and gives None."""
        where, problem = self.ledger.where, self.ledger.findings.problem
        if not self.ledger.holds_something(line):
            return None
        try:
            found = fields(line.decode("utf-8"))
        except UnicodeDecodeError:
            problem("encoding", f"{where} is not UTF-8 text; save the file as UTF-8")
            return None
        if len(found) != 2:
            problem("fields", f"{where} has {len(found)} fields, not 2; write 'id,value'")
            return None
        position = self.ledger.admit(found[0])
        if position is None:
            return None
        value = number(found[1])
        if value is None:
            problem(
                "no number",
                f"{where} (id {found[0]!r}): {found[1][:40]!r} is not a number; write one with "
                "'.' as its decimal point",
            )
            return None
        return position, value

    def _check_values(self, block: Block) -> None:
        low, high = self._rows.span
        findings = self.ledger.findings
        sound = (low <= block.values) & (block.values <= high)  # False for NaN
        wrong = np.flatnonzero(~sound)
        for place in wrong[:SHOWN]:
            value = float(block.values[place])
            what = f"lies outside {low:g} to {high:g}" if math.isfinite(value) else "is not finite"
            identity = self._rows.identity(int(block.positions[place]))
            findings.problem(
                "value",
                f"line {block.lines[place]:,} (id {identity!r}): the value {value:g} {what}; "
                "restore that picture again",
            )
        if len(wrong) > SHOWN:
            findings.more("value", len(wrong) - SHOWN)
