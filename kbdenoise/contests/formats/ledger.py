"""What every CSV submission is held to: its header, and each row known, once, and in its place."""

from typing import Protocol

import numpy as np

from kbdenoise.contests.formats.csv_bytes import fields, split_header
from kbdenoise.contests.formats.findings import SHOWN, Findings

_MARK = b"\xef\xbb\xbf"
_TOLD = 60  # letters of a header


class Keyed(Protocol):
    """The data rows that a submission must have, in their order."""

    @property
    def header(self) -> tuple[str, ...]:
        """The column names."""

    @property
    def count(self) -> int:
        """Number of data rows."""

    @property
    def ordered(self) -> bool:
        """Whether another order is a problem (the contest's sample gives it) or only a note."""

    def identity(self, position: int) -> str:
        """The id of one row."""

    def position(self, identity: str) -> int | None:
        """The row that an id belongs to, or None if no row has it."""


class Ledger:
    """One pass over the rows of a CSV: what was met, and everything that is wrong with it."""

    def __init__(self, rows: Keyed) -> None:
        self.findings = Findings()
        self.rows_met = 0
        self.seen = np.zeros(rows.count, dtype=bool)
        self.line = 1
        """Of the next row; the header is line 1."""
        self.cursor = 0
        """Where the next row belongs if the order goes on."""
        self._rows = rows
        self._out_of_order = 0
        self._first_out_of_order = ""

    @property
    def where(self) -> str:
        """The place of the next row, in words."""
        return f"line {self.line:,}"

    def without_header(self, chunk: bytes) -> bytes:
        """Check the first line of the file; returns what follows it."""
        line, rest = split_header(chunk)
        if line.startswith(_MARK):
            line = line[len(_MARK) :]
            self.findings.problem(
                "byte-order mark",
                "the file begins with a byte-order mark, which becomes part of the first column's "
                "name; save it as UTF-8 without BOM",
            )
        names = fields(line.decode("utf-8", errors="replace"))
        wanted = _short(",".join(self._rows.header))
        if len(names) == len(self._rows.header) and self._rows.position(names[0]) is not None:
            self.findings.problem(
                "header", f"the header is missing; write '{wanted}' above the first row"
            )
            return chunk
        if tuple(names) != self._rows.header:
            shown = _short(line.decode("utf-8", errors="replace"))
            cure = f"{shown!r}, not {wanted!r}" if shown != wanted else f"not {wanted!r} to its end"
            self.findings.problem("header", f"line 1: the header is {cure}; replace the line")
        self.line = 2
        return rest

    def holds_something(self, line: bytes) -> bool:
        """Whether a line is a row; an empty one is recorded."""
        if line.strip():
            self.rows_met += 1
            return True
        self.findings.problem("empty line", f"{self.where} is empty; remove it")
        return False

    def admit(self, identity: str) -> int | None:
        """The position of a row that is known and new; anything else is recorded."""
        position = self._rows.position(identity)
        if position is None:
            shown = identity[:60]
            self.findings.problem(
                "unknown id", f"{self.where}: no row has the id {shown!r}; correct or remove it"
            )
            return None
        if self.seen[position]:
            self.findings.problem(
                "duplicate id",
                f"{self.where}: the id {identity!r} has been given before; keep one of the two "
                "rows",
            )
            return None
        self.seen[position] = True
        if position < self.cursor:
            self._out_of_order += 1
            if self._out_of_order == 1:
                self._first_out_of_order = f"{self.where} (id {identity!r})"
        self.cursor = position + 1
        return position

    def finish(self) -> None:
        """Record rows that are missing or out of order, once the file has been read."""
        missing = np.flatnonzero(~self.seen)
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

    def check_count(self) -> None:
        """Record another number of rows than the contest wants."""
        if self.rows_met != self._rows.count:
            self.findings.problem(
                "row count",
                f"the file has {self.rows_met:,} rows below its header, the contest wants "
                f"{self._rows.count:,}; write it again from all test pictures",
            )


def _short(text: str) -> str:
    return text if len(text) <= _TOLD else text[:_TOLD] + "..."
