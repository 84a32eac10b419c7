"""The rows of the format `pixels-long`: which ids there must be, in which order, as bytes.

Ids are `{page}_{row}_{column}`, by default counted from 1, the row running fastest within a page
and pages in the natural order of their numbers. A sample submission, or the options, may say
otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.csv_bytes import Bytes, plain_chunks, split_header, split_rows
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
from kbdenoise.imaging.files import FloatImage

Texts = npt.NDArray[np.bytes_]

_LONGEST_NUMBER = 16  # digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How the rows of a page go over its pixels."""

    row_fastest: bool = True
    """Whether the row runs faster than the column within a page."""
    base: int = 1
    """The number of the first row and of the first column."""

    @property
    def order(self) -> Literal["F", "C"]:
        """How numpy calls it."""
        return "F" if self.row_fastest else "C"

    def pixel(
        self, within: "int | npt.NDArray[np.int64]", page: Page
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row and column, from 0, of the pixel that stands at a place within its page."""
        slow, fast = np.divmod(within, page.height if self.row_fastest else page.width)
        return (fast, slow) if self.row_fastest else (slow, fast)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRows:
    """One row a pixel (`formats.rows.Rows`)."""

    header: tuple[str, ...]
    pages: tuple[Page, ...]
    names: tuple[str, ...]
    """What the ids call each page."""
    starts: npt.NDArray[np.int64]
    """Position of each page's first row, and one past the last row of all: [pages + 1]."""
    ordered: bool
    way: "Way"
    span: tuple[float, float] = (0.0, 1.0)
    index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index.update((name, i) for i, name in enumerate(self.names))

    @property
    def count(self) -> int:
        """Number of pixels of all pages."""
        return int(self.starts[-1])

    def ids(self, start: int, stop: int) -> Bytes:
        """The ids of rows start..stop-1, each followed by a comma."""
        parts = [np.empty(0, np.uint8)]
        while start < stop:
            index = self.index_at(start)
            page, first = self.pages[index], int(self.starts[index])
            end = min(stop, first + page.height * page.width)
            name = self.names[index]
            parts.append(id_bytes(page, start - first, end - first, name=name, way=self.way))
            start = end
        return np.concatenate(parts)

    def identity(self, position: int) -> str:
        """The id of one row."""
        index = self.index_at(position)
        row, column = self.way.pixel(position - int(self.starts[index]), self.pages[index])
        return f"{self.names[index]}_{row + self.way.base}_{column + self.way.base}"

    def position(self, identity: str) -> int | None:
        """The row of an id, or None; numbers with leading zeros are other ids."""
        name, *numbers = identity.rsplit("_", 2)
        index = self.index.get(name)
        if index is None or len(numbers) != 2:
            return None
        page = self.pages[index]
        row, column = (_count(number) - self.way.base for number in numbers)
        if not (0 <= row < page.height and 0 <= column < page.width):
            return None
        if self.way.row_fastest:
            return int(self.starts[index]) + column * page.height + row
        return int(self.starts[index]) + row * page.width + column

    def as_image(self, values: npt.NDArray[np.float32], page: Page) -> FloatImage:
        """The values of a page's rows [H*W] as an image [H, W, 1]."""
        return values.reshape((page.height, page.width, 1), order=self.way.order)

    def index_at(self, position: int) -> int:
        """The number of the page that a row belongs to."""
        return int(np.searchsorted(self.starts, position, side="right")) - 1


def expected_rows(*, contest: LocalContest, pages: Sequence[Page]) -> PixelRows:
    """Header, ids and their order: the sample submission's, where the contest has one."""
    pages_by_stem(pages)
    options = contest.contest.options
    ordered = natural_order(pages)
    names = {
        page_id(page, kind=options.id, index=options.base + i): page
        for i, page in enumerate(ordered)
    }
    if len(names) < len(ordered):
        raise DataError(
            "two pages would have the same ids",
            hint="correct `id` under [submission] in the contest's contest.toml",
        )
    for name, page in names.items():
        _check_name(name, page)
    sample = sample_path(contest)
    if sample is None:
        way = Way(row_fastest=options.order == "col", base=options.base)
        return _rows((options.key, options.value), names, way, options=options, ordered=False)
    status = sample.stat()
    return _rows_of_sample(
        sample, tuple(names.items()), options, (status.st_mtime_ns, status.st_size)
    )


@lru_cache(maxsize=4)
def _rows_of_sample(
    path: Path, names: tuple[tuple[str, Page], ...], options: Options, _status: tuple[int, int]
) -> PixelRows:
    """The rows of a sample that goes page by page; `_status` renews the cache when it changes."""
    scan = _SampleScan(path, dict(names))
    for chunk in plain_chunks(path):
        scan.take(chunk)
    scan.finish()
    return _rows(scan.header, scan.found, scan.way, options=options, ordered=True)


def id_bytes(
    page: Page, start: int, stop: int, *, name: str, way: Way, values: Texts | None = None
) -> Bytes:
    """The bytes `id,` of a page's rows start..stop-1, or `id,value` when `values` are given."""
    row, column = way.pixel(np.arange(start, stop), page)
    parts = {
        "rows": _digits(page.height, "_", way.base)[row],
        "columns": _digits(page.width, ",", way.base)[column],
    }
    if values is not None:
        parts["values"] = values
    prefix = f"{name}_".encode()
    matrix = np.empty(
        stop - start,
        dtype=[("name", f"S{len(prefix)}"), *((key, part.dtype) for key, part in parts.items())],
    )
    matrix["name"] = prefix
    for key, part in parts.items():
        matrix[key] = part
    padded = matrix.view(np.uint8)
    packed: Bytes = padded[padded != 0]
    return packed


def _rows(
    header: tuple[str, ...],
    names: dict[str, Page],
    way: Way,
    *,
    options: Options,
    ordered: bool,
) -> PixelRows:
    sizes = [0, *(page.height * page.width for page in names.values())]
    return PixelRows(
        header=header,
        pages=tuple(names.values()),
        names=tuple(names),
        starts=np.cumsum(sizes, dtype=np.int64),
        ordered=ordered,
        way=way,
        span=(0.0, float(options.scale)),
    )


class _SampleScan:
    """Reads off a sample submission in which order its pages and their pixels stand."""

    def __init__(self, path: Path, pages: dict[str, Page]) -> None:
        self.header: tuple[str, ...] = ()
        self.found: dict[str, Page] = {}
        self.way = Way()
        self._path = path
        self._pages = pages
        self._line = 1
        self._left = 0  # pixels of the last page found that are still to come

    def take(self, chunk: bytes) -> None:
        """Follow the rows of one chunk."""
        if self._line == 1:
            chunk = self._without_header(chunk)
        if not chunk:
            return
        parts = split_rows(chunk)
        if parts is None:
            raise self._odd("is not a CSV of two plain columns")
        ids, _, lengths = parts
        ends = np.concatenate([[0], np.cumsum(lengths)])
        row = 0
        while row < len(lengths):
            if not self._left:
                self._begin_page(
                    [
                        bytes(ids[ends[i] : ends[i + 1] - 1])
                        for i in (row, row + 1)
                        if i < len(lengths)
                    ]
                )
            name, page = next(reversed(self.found.items()))
            done = page.height * page.width - self._left
            count = min(self._left, len(lengths) - row)
            wanted = id_bytes(page, done, done + count, name=name, way=self.way)
            if not np.array_equal(ids[ends[row] : ends[row + count]], wanted):
                raise self._odd(f"does not list the {page.height}x{page.width} pixels in order")
            row += count
            self._left -= count
            self._line += count

    def finish(self) -> None:
        """Refuse a sample that ends early or leaves pages out."""
        if self._left:
            raise self._odd(f"ends inside the page {next(reversed(self.found))}")
        unlisted = [name for name in self._pages if name not in self.found]
        mismatch = sample_mismatch(self._path, unknown=[], unlisted=unlisted)
        if mismatch:
            raise mismatch

    def _without_header(self, chunk: bytes) -> bytes:
        line, rest = split_header(chunk)
        names = line.decode("utf-8-sig", errors="replace").split(",")
        if len(names) != 2:
            raise self._odd("has no header of two columns")
        self.header = (names[0], names[1])
        self._line = 2
        return rest

    def _begin_page(self, first_ids: Sequence[bytes]) -> None:
        names = [identity.decode("utf-8", errors="replace") for identity in first_ids]
        name, *first = names[0].rsplit("_", 2)
        page = self._pages.get(name)
        if page is None:
            mismatch = sample_mismatch(self._path, unknown=[name], unlisted=[])
            assert mismatch is not None
            raise mismatch
        if name in self.found:
            raise self._odd(f"comes back to the page {name}")
        if not self.found and first == ["0", "0"]:
            self.way = replace(self.way, base=0)
        base = self.way.base
        if page.height > 1 and names[1:] == [f"{name}_{base}_{base + 1}"]:
            self.way = replace(self.way, row_fastest=False)
        self.found[name] = page
        self._left = page.height * page.width

    def _odd(self, what: str) -> DataError:
        return DataError(
            f"the sample submission {self._path} {what} (near line {self._line:,})",
            hint="only samples that go page by page, each by rows or by columns, can be followed; "
            "fetch it again, or correct `sample` in the contest's contest.toml",
        )


@lru_cache(maxsize=16)
def _digits(count: int, end: str, base: int) -> Texts:
    """The texts of `count` numbers from `base` on, each with `end` behind it."""
    return np.array([f"{number}{end}".encode() for number in range(base, base + count)])


def _count(text: str) -> int:
    """A number as an id holds it; -1 for any other text."""
    plain = text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
    return int(text) if plain and len(text) < _LONGEST_NUMBER else -1


def _check_name(name: str, page: Page) -> None:
    """Refuse names that would need quoting in every one of a page's rows."""
    if any(sign in name for sign in ',"\r\n\0'):
        raise DataError(
            f"the name {name!r} holds a comma, a quotation mark or a line break",
            hint="rename the test picture: the format pixels-long cannot hold such ids",
        )
    check_name(page)
