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
    split_header,
    split_rows,
)
from kbdenoise.contests.formats.findings import SHOWN, CheckReport, Findings, Statistics
from kbdenoise.errors import DataError


class Rows(Protocol):
    """The data rows that a submission must have, in their order."""

    @property
    def header(self) -> tuple[str, str]:
        """The two column names."""

    @property
    def count(self) -> int:
        """Number of data rows."""

    @property
    def span(self) -> tuple[float, float]:
        """Least and greatest value allowed."""

    @property
    def ordered(self) -> bool:
        """Whether another order is a problem (the contest's sample gives it) or only a note."""

    def ids(self, start: int, stop: int) -> Bytes:
        """The ids of rows start..stop-1 as they stand in the file, each followed by a comma."""

    def identity(self, position: int) -> str:
        """The id of one row."""

    def position(self, identity: str) -> int | None:
        """The row that an id belongs to, or None if no row has it."""


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
    statistics.rows = reader.rows_met
    if statistics.rows != rows.count:
        reader.findings.problem(
            "row count",
            f"the file has {statistics.rows:,} rows below its header, the contest wants "
            f"{rows.count:,}; write it again from all test pictures",
        )
    if rows.count > 1 and statistics.minimum == statistics.maximum:
        reader.findings.note(f"every row has the same value, {statistics.minimum:g}")
    return reader.findings.report(path, statistics)


def read_rows(path: Path, rows: Rows) -> Iterator[Block]:
    """The blocks of a valid CSV; raises DataError at the first block with a problem."""
    reader = RowReader(path, rows)
    for block in reader.blocks():
        reader.findings.require_none(path)
        yield block
    reader.findings.require_none(path)


class RowReader:
    """One pass over a CSV: yields what is sound, and records the rest as findings."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self.findings = Findings()
        self.rows_met = 0
        self._path = path
        self._rows = rows
        self._seen = np.zeros(rows.count, dtype=bool)
        self._line = 1  # of the next row; the header is line 1
        self._cursor = 0  # where the next row belongs if the order goes on
        self._out_of_order = 0
        self._first_out_of_order = ""

    def blocks(self) -> Iterator[Block]:
        """Blocks of sound rows, in the order of the file."""
        try:
            for chunk in plain_chunks(self._path):
                body = chunk if self._line > 1 else self._without_header(chunk)
                if body:
                    block = self._fast(body) or self._row_by_row(body)
                    self._check_values(block)
                    yield block
        except DataError as error:
            if not self._path.is_file():
                raise
            self.findings.problem("unreadable", f"{error.message}; {error.hint}")
        self._finish()

    def _without_header(self, chunk: bytes) -> bytes:
        line, rest = split_header(chunk)
        if line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
            self.findings.problem(
                "byte-order mark",
                "the file begins with a byte-order mark, which becomes part of the first column's "
                "name; save it as UTF-8 without BOM",
            )
        names = fields(line.decode("utf-8", errors="replace"))
        wanted = ",".join(self._rows.header)
        if len(names) == 2 and self._rows.position(names[0]) is not None:
            self.findings.problem(
                "header", f"the header is missing; write '{wanted}' above the first row"
            )
            return chunk
        if tuple(names) != self._rows.header:
            shown = line[:60].decode("utf-8", errors="replace")
            self.findings.problem(
                "header", f"line 1: the header is {shown!r}, not {wanted!r}; replace the line"
            )
        self._line = 2
        return rest

    def _fast(self, chunk: bytes) -> Block | None:
        """The rows of a chunk, if they are exactly those that come next."""
        parts = None if b"\0" in chunk else split_rows(chunk)
        if parts is None:
            return None
        ids, texts, _ = parts
        start, stop = self._cursor, self._cursor + len(texts)
        if stop > self._rows.count or self._seen[start:stop].any():
            return None
        if not np.array_equal(ids, self._rows.ids(start, stop)):
            return None
        values = numbers(texts)
        if values is None:
            return None
        lines = np.arange(self._line, self._line + len(texts))
        self._seen[start:stop] = True
        self._cursor = stop
        self._line += len(texts)
        self.rows_met += len(texts)
        return Block(lines=lines, positions=np.arange(start, stop), values=values)

    def _row_by_row(self, chunk: bytes) -> Block:
        sound = []
        for line in chunk.split(b"\n")[:-1]:
            row = self._row(line)
            if row is not None:
                sound.append((self._line, *row))
            self._line += 1
        lines, positions, values = zip(*sound, strict=True) if sound else ((), (), ())
        return Block(
            lines=np.array(lines, np.int64),
            positions=np.array(positions, np.int64),
            values=np.array(values, np.float64),
        )

    def _row(self, line: bytes) -> tuple[int, float] | None:
        """Position and value of a sound row; anything else is recorded and gives None."""
        where, problem = f"line {self._line:,}", self.findings.problem
        if not line.strip():
            problem("empty line", f"{where} is empty; remove it")
            return None
        self.rows_met += 1
        try:
            found = fields(line.decode("utf-8"))
        except UnicodeDecodeError:
            problem("encoding", f"{where} is not UTF-8 text; save the file as UTF-8")
            return None
        if len(found) != 2:
            problem("fields", f"{where} has {len(found)} fields, not 2; write 'id,value'")
            return None
        position = self._rows.position(found[0])
        if position is None:
            shown = found[0][:60]
            problem("unknown id", f"{where}: no row has the id {shown!r}; correct or remove it")
            return None
        if self._seen[position]:
            problem(
                "duplicate id",
                f"{where}: the id {found[0]!r} has been given before; keep one of the two rows",
            )
            return None
        self._place(position, found[0])
        value = number(found[1])
        if value is None:
            problem(
                "no number",
                f"{where} (id {found[0]!r}): {found[1][:40]!r} is not a number; write one with "
                "'.' as its decimal point",
            )
            return None
        return position, value

    def _place(self, position: int, identity: str) -> None:
        self._seen[position] = True
        if position < self._cursor:
            self._out_of_order += 1
            if self._out_of_order == 1:
                self._first_out_of_order = f"line {self._line:,} (id {identity!r})"
        self._cursor = position + 1

    def _check_values(self, block: Block) -> None:
        low, high = self._rows.span
        sound = (low <= block.values) & (block.values <= high)  # False for NaN
        wrong = np.flatnonzero(~sound)
        for place in wrong[:SHOWN]:
            value = float(block.values[place])
            what = f"lies outside {low:g} to {high:g}" if math.isfinite(value) else "is not finite"
            identity = self._rows.identity(int(block.positions[place]))
            self.findings.problem(
                "value",
                f"line {block.lines[place]:,} (id {identity!r}): the value {value:g} {what}; "
                "restore that picture again",
            )
        if len(wrong) > SHOWN:
            self.findings.more("value", len(wrong) - SHOWN)

    def _finish(self) -> None:
        missing = np.flatnonzero(~self._seen)
        for position in missing[:SHOWN]:
            identity = self._rows.identity(int(position))
            self.findings.problem(
                "missing id",
                f"the id {identity!r} is missing (row {position + 1:,} of {self._rows.count:,}); "
                "write the file again from all test pictures",
            )
        if len(missing) > SHOWN:
            self.findings.more("missing id", len(missing) - SHOWN)
        if self._out_of_order:
            sentence = (
                f"{self._out_of_order:,} rows stand in another order than usual, first "
                f"{self._first_out_of_order}"
            )
            if self._rows.ordered:
                cure = "; the contest's sample fixes the order: write the file again"
                self.findings.problem("order", sentence + cure)
            else:
                self.findings.note(sentence)
