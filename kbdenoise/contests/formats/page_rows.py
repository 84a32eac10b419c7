"""CSV rows that stand for a whole page, or for one square block of it: ids, owners, order.

The sample submission decides header, ids and order, where the contest has one; else the options do.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.csv_bytes import (
    LONGEST_LINE,
    Bytes,
    cut_fields,
    fields,
    plain_chunks,
)
from kbdenoise.contests.formats.pages import (
    Page,
    check_name,
    natural_order,
    page_id,
    pages_by_stem,
    sample_mismatch,
    sample_path,
)
from kbdenoise.contests.options import Options
from kbdenoise.errors import DataError

Owner = tuple[Page, int]
"""A page, and the number of one of its blocks; 0 where a row is a whole page."""

_NUMBER_WORDS = {1: "one column", 2: "two columns", 3: "three columns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRows:
    """One row a page or a block (`formats.rows.Rows`)."""

    header: tuple[str, ...]
    leads: tuple[tuple[str, ...], ...]
    """What stands before the values of each row: its id, and perhaps a file name."""
    owners: tuple[Owner, ...]
    ordered: bool
    span: tuple[float, float] = (0.0, 255.0)
    positions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.positions.update((lead[0], i) for i, lead in enumerate(self.leads))

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.owners)

    @property
    def pages(self) -> tuple[Page, ...]:
        """Every page once, in the order of first rows."""
        return tuple(dict.fromkeys(page for page, _ in self.owners))

    def ids(self, start: int, stop: int) -> Bytes:
        """What stands before the values of rows start..stop-1, quoted where CSV wants it."""
        return np.frombuffer(b"".join(map(lead_bytes, self.leads[start:stop])), np.uint8)

    def identity(self, position: int) -> str:
        """The id of one row."""
        return self.leads[position][0]

    def position(self, identity: str) -> int | None:
        """The row of an id, or None."""
        return self.positions.get(identity)

    def places(self) -> dict[Owner, int]:
        """The position of every block of every page."""
        return {owner: i for i, owner in enumerate(self.owners)}


def expected_page_rows(
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    columns: tuple[str, ...],
    by_name: bool = False,
    longest: int = LONGEST_LINE,
) -> PageRows:
    """Header, ids and their order: the sample submission's, where the contest has one.

    `columns` are the names behind the ids. Without a sample, pages come in the natural order of
    their numbers or, `by_name`, sorted by file name. `longest` bounds a line of the sample.
    """
    pages_by_stem(pages)
    for page in pages:
        check_name(page)
    options = contest.contest.options
    ordered = sorted(pages, key=lambda page: page.name) if by_name else natural_order(pages)
    sample = sample_path(contest)
    if sample is None:
        return _rows_of_options(ordered, columns, options)
    status = sample.stat()
    header, leads = _sample_leads(
        sample,
        2 if options.name else 1,
        len(columns),
        longest,
        (status.st_mtime_ns, status.st_size),
    )
    owners = _owners(sample, leads, ordered, options)
    return PageRows(header=header, leads=leads, owners=owners, ordered=True)


def lead_bytes(lead: Iterable[str]) -> bytes:
    """Fields as CSV writes them, each followed by a comma."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([*lead, ""])
    return line.getvalue().encode()


def _rows_of_options(pages: Sequence[Page], columns: tuple[str, ...], options: Options) -> PageRows:
    owners = _all_owners(pages, options)
    ids = _row_names(owners, kind=options.id, start=options.base)
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise DataError(
            f"two rows would have the id {twice!r}",
            hint="correct `id` under [submission] in the contest's contest.toml",
        )
    named = bool(options.name)
    return PageRows(
        header=(options.key, *([options.name] if named else []), *columns),
        leads=tuple(
            (key, page.name) if named else (key,)
            for key, (page, _) in zip(ids, owners, strict=True)
        ),
        owners=owners,
        ordered=False,
    )


def _all_owners(pages: Sequence[Page], options: Options) -> tuple[Owner, ...]:
    return tuple((page, block) for page in pages for block in range(_blocks(page, options)))


def _blocks(page: Page, options: Options) -> int:
    """How many rows a page has. Raises DataError for one that is not made of whole blocks."""
    side = options.block
    if not side:
        return 1
    if page.height % side or page.width % side:
        raise DataError(
            f"{page.name} is {page.width}x{page.height} px, which is no multiple of blocks of "
            f"{side} px",
            hint="correct `block` under [submission] in the contest's contest.toml; 0 hands in "
            "whole pictures",
        )
    return page.height // side * (page.width // side)


def _row_names(owners: Sequence[Owner], *, kind: str, start: int) -> list[str]:
    """The ids of rows; blocks of a page that is called by name get a number behind it."""
    several = any(block for _, block in owners)
    names = []
    for i, (page, block) in enumerate(owners):
        name = page_id(page, kind=kind, index=start + i)
        names.append(name if kind == "index" or not several else f"{name}_{block + start}")
    return names


@lru_cache(maxsize=4)
def _sample_leads(
    path: Path, keys: int, values: int, longest: int, _status: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header of a sample, and what stands before the values of its rows.

    `_status` renews the cache when the file changes.
    """
    header: tuple[str, ...] = ()
    leads = []
    for chunk in plain_chunks(path, longest=longest):
        for line in chunk.split(b"\n"):
            if not line:
                continue
            if not header:
                header = tuple(fields(line.decode("utf-8-sig", errors="replace")))
                if len(header) != keys + values:
                    raise _no_such_csv(path, keys + values)
                continue
            cut = cut_fields(line, keys)
            if cut is None or (b'"' not in cut[1] and cut[1].count(b",") != values - 1):
                raise _no_such_csv(path, keys + values)
            leads.append(tuple(cut[0]))
    if not header:
        raise _no_such_csv(path, keys + values)
    return header, tuple(leads)


def _owners(
    sample: Path, leads: Sequence[tuple[str, ...]], pages: Sequence[Page], options: Options
) -> tuple[Owner, ...]:
    """The page of every row of a sample: by its file name or by its id."""
    column, names = _best_names(leads, _all_owners(pages, options), options)
    cells = [lead[column] for lead in leads]
    mismatch = sample_mismatch(
        sample,
        unknown=[cell for cell in cells if cell not in names],
        unlisted=[name for name in names if name not in set(cells)],
    )
    if mismatch:
        raise mismatch
    if len(set(cells)) < len(cells) or len({lead[0] for lead in leads}) < len(leads):
        raise DataError(
            f"the sample submission {sample} names a picture twice", hint="fetch it again"
        )
    return tuple(names[cell] for cell in cells)


def _best_names(
    leads: Sequence[tuple[str, ...]], owners: Sequence[Owner], options: Options
) -> tuple[int, dict[str, Owner]]:
    """The column that tells pages, and what it calls them: most rows of the sample agree."""
    candidates = []
    for column in reversed(range(len(leads[0]) if leads else 1)):
        cells = [lead[column] for lead in leads]
        for kind in dict.fromkeys((options.id, "stem", "name", "index")):
            start = _first_number(cells) if kind == "index" else options.base
            names = dict(zip(_row_names(owners, kind=kind, start=start), owners, strict=True))
            known = sum(cell in names for cell in cells)
            # A running number says nothing of its picture: unless the options ask for one, all of
            # them must be there.
            sure = kind != "index" or kind == options.id or set(cells) == names.keys()
            candidates.append((known if sure else -1, column, names))
    _, column, names = max(candidates, key=lambda candidate: candidate[0])
    return column, names


def _first_number(cells: Sequence[str]) -> int:
    """The least of running numbers; 0 where some cell is none."""
    numbers = [int(cell) for cell in cells if re.fullmatch(r"[0-9]{1,9}", cell)]
    return min(numbers) if numbers and len(numbers) == len(cells) else 0


def _no_such_csv(path: Path, columns: int) -> DataError:
    wanted = _NUMBER_WORDS.get(columns, f"{columns:,} columns")
    return DataError(
        f"the sample submission {path} is not a CSV of {wanted}",
        hint="fetch it again, or correct `format`, the table [submission] or `sample` in the "
        "contest's contest.toml",
    )
