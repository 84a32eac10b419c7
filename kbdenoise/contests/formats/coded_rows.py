"""CSV submissions whose rows hold a whole picture, or a block of one: written, read and checked.

What stands in the cells is a `Codec`'s business; ids, order, streaming and findings are alike for
all of them. One picture is held at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kbdenoise.atomic import atomic_write
from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats.csv_bytes import LONGEST_LINE, cut_fields, plain_chunks
from kbdenoise.contests.formats.findings import CheckReport, Findings, Statistics
from kbdenoise.contests.formats.ledger import Ledger
from kbdenoise.contests.formats.packing import packed
from kbdenoise.contests.formats.page_rows import (
    Owner,
    PageRows,
    expected_page_rows,
    lead_bytes,
)
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    both_forms,
    in_order,
    matched,
    require_pixels,
    written_page,
)
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, Pixels

Stored = npt.NDArray[Any]
"""What a format keeps of a picture, [H, W, ...]: pixels, codes of gray values, a mask."""

_BYTES_PER_VALUE = 32


class BadCell(ValueError):
    """What is wrong with the cells of one row, in words that follow its place."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.sentence = sentence


class Codec(Protocol):
    """How the cells of a row tell of pixels."""

    @property
    def floats(self) -> bool:
        """Whether values may come from the float image, finer than 8 bits."""

    def columns(self, pages: Sequence[Page]) -> tuple[str, ...]:
        """The names of the columns behind the ids."""

    def stored(self, image: FloatImage, pixels: Pixels, *, source: Source) -> Stored:
        """What is kept of a picture, [H, W, ...]."""

    def shown(self, stored: Stored) -> FloatImage:
        """What that says of the picture, in [0, 1]."""

    def encode(self, stored: Stored) -> bytes:
        """The cells of a row, with the commas between them."""

    def decode(self, cells: bytes, *, height: int, width: int) -> FloatImage:
        """What cells say of a picture of this size; raises BadCell."""


class CodedRows:
    """The functions of a `SubmissionFormat` whose cells a codec writes."""

    def __init__(self, codec: Callable[[Contest], Codec]) -> None:
        self._codec = codec

    def order(self, *, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
        """Pages in the order of their rows: the sample's, else the natural one."""
        return list(self._open(contest, pages).rows.pages)

    def answer(
        self, image: FloatImage | Pixels, *, contest: LocalContest, source: Source = "pixels"
    ) -> FloatImage:
        """What the file says of a picture; stored pixels are taken as they are."""
        codec = self._codec(contest.contest)
        _check_source(codec, contest, source)
        floats, pixels = both_forms(image)
        return codec.shown(codec.stored(floats, pixels, source=source))

    def write(
        self,
        path: Path,
        restored: Iterable[Restored],
        *,
        contest: LocalContest,
        pages: Sequence[Page],
        source: Source = "pixels",
    ) -> Written:
        """Write one row a picture or block, compressed if `path` ends in .gz, atomically."""
        table = self._open(contest, pages)
        _check_source(table.codec, contest, source)
        summary = []

        def cells() -> Iterator[tuple[Owner, bytes]]:
            for page, image, pixels in matched(restored, pages):
                stored = table.codec.stored(image, pixels, source=source)
                answer = table.codec.shown(stored)
                summary.append(written_page(page, image=image, pixels=pixels, answer=answer))
                for number, (top, left, side) in enumerate(_squares(page, table.block)):
                    part = stored[top : top + side, left : left + side] if side else stored
                    yield (page, number), table.codec.encode(part)

        leads = dict(zip(table.rows.owners, table.rows.leads, strict=True))
        with atomic_write(path) as file, packed(file, path) as out:
            out.write(lead_bytes(table.rows.header)[:-1] + b"\n")
            for owner, content in in_order(cells(), table.rows.owners):
                out.write(lead_bytes(leads[owner]) + content + b"\n")
        return Written(rows=table.rows.count, pages=tuple(summary))

    def read(
        self, path: Path, *, contest: LocalContest, pages: Sequence[Page]
    ) -> Iterator[tuple[str, FloatImage]]:
        """Stem and answer of every page, each as soon as it is complete.

        Raises DataError if the file is not valid.
        """
        table = self._open(contest, pages)
        ledger = Ledger(table.rows)
        unfinished: dict[Page, dict[int, FloatImage]] = {}
        for (page, number), image in table.sound_rows(path, ledger):
            ledger.findings.require_none(path)
            parts = unfinished.setdefault(page, {})
            parts[number] = image
            squares = _squares(page, table.block)
            if len(parts) == len(squares):
                yield page.stem, _joined(unfinished.pop(page), page, squares)
        ledger.findings.require_none(path)

    def check(self, path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
        """Everything that is wrong with a file. Raises DataError if it cannot be opened."""
        table = self._open(contest, pages)
        ledger, statistics = Ledger(table.rows), Statistics()
        for _, image in table.sound_rows(path, ledger):
            statistics.add(image)
        statistics.rows = ledger.rows_met
        ledger.check_count()
        if statistics.minimum == statistics.maximum:
            ledger.findings.note(f"every pixel has the same value, {statistics.minimum:g}")
        return ledger.findings.report(path, statistics)

    def _open(self, contest: LocalContest, pages: Sequence[Page]) -> "_Table":
        codec = self._codec(contest.contest)
        values = max((page.height * page.width for page in pages), default=0)
        longest = LONGEST_LINE + 3 * values * _BYTES_PER_VALUE
        columns = codec.columns(pages) if pages else ()
        rows = expected_page_rows(contest=contest, pages=pages, columns=columns, longest=longest)
        return _Table(codec=codec, rows=rows, block=contest.contest.options.block, longest=longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A codec with the rows that it must fill."""

    codec: Codec
    rows: PageRows
    block: int
    longest: int
    """Bytes of a line."""

    def sound_rows(self, path: Path, ledger: Ledger) -> Iterator[tuple[Owner, FloatImage]]:
        """The rows of a file that are known, new and readable; the rest is recorded."""
        try:
            for chunk in plain_chunks(path, longest=self.longest):
                body = chunk if ledger.line > 1 else ledger.without_header(chunk)
                for line in body.split(b"\n")[:-1]:
                    row = self._row(line, ledger)
                    if row is not None:
                        yield row
                    ledger.line += 1
        except DataError as error:
            if not path.is_file():
                raise
            ledger.findings.problem("unreadable", f"{error.message}; {error.hint}")
        ledger.finish()

    def _row(self, line: bytes, ledger: Ledger) -> tuple[Owner, FloatImage] | None:
        if not ledger.holds_something(line):
            return None
        keys = len(self.rows.leads[0])
        cut = cut_fields(line, keys)
        if cut is None:
            wanted = _header_words(self.rows.header)
            ledger.findings.problem("fields", f"{ledger.where} has too few fields; write {wanted}")
            return None
        lead, cells = cut
        position = ledger.admit(lead[0])
        if position is None:
            return None
        owner = self.rows.owners[position]
        where = f"{ledger.where} (id {lead[0]!r})"
        _check_lead(lead, self.rows.leads[position], where=where, findings=ledger.findings)
        page = owner[0]
        height, width = (self.block, self.block) if self.block else (page.height, page.width)
        try:
            return owner, self.codec.decode(cells, height=height, width=width)
        except BadCell as error:
            ledger.findings.problem(error.kind, f"{where}: {error.sentence}")
            return None


def _check_lead(
    lead: Sequence[str], wanted: Sequence[str], *, where: str, findings: Findings
) -> None:
    for found, right in zip(lead[1:], wanted[1:], strict=True):
        if found != right:
            findings.problem(
                "file name",
                f"{where}: the file name is {found[:60]!r}, not {right!r}; write the file again",
            )


def _check_source(codec: Codec, contest: LocalContest, source: Source) -> None:
    if not codec.floats:
        require_pixels(source, name=contest.contest.format)


def _header_words(header: Sequence[str]) -> str:
    shown = list(header) if len(header) <= 4 else [*header[:2], "...", header[-1]]
    return "'" + ",".join(shown) + "'"


def _squares(page: Page, side: int) -> list[tuple[int, int, int]]:
    """Top, left and side of the blocks of a page, row by row; one of side 0 is the whole page."""
    if not side:
        return [(0, 0, 0)]
    return [
        (top, left, side)
        for top in range(0, page.height, side)
        for left in range(0, page.width, side)
    ]


def _joined(
    parts: dict[int, FloatImage], page: Page, squares: Sequence[tuple[int, int, int]]
) -> FloatImage:
    if len(parts) == 1:
        return parts[0]
    whole = np.empty((page.height, page.width, parts[0].shape[2]), np.float32)
    for number, (top, left, side) in enumerate(squares):
        whole[top : top + side, left : left + side] = parts[number]
    return whole
