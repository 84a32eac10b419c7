"""The rows of the format `pixels-long`: which ids there must be, in which order, as bytes.

Ids are `{page}_{row}_{column}` counted from 1. By default the row runs fastest within a page and
pages come in the natural order of their numbers; a sample submission may say otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.csv_bytes import Bytes, plain_chunks, split_header, split_rows
from kbdenoise.contests.formats.pages import (
    Page,
    natural_order,
    pages_by_stem,
    sample_mismatch,
    sample_path,
)
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage

HEADER = ("id", "value")

Texts = npt.NDArray[np.bytes_]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRows:
    """One row a pixel (`formats.rows.Rows`)."""

    header: tuple[str, str]
    pages: tuple[Page, ...]
    starts: npt.NDArray[np.int64]
    """Position of each page's first row, and one past the last row of all: [pages + 1]."""
    ordered: bool
    row_fastest: bool
    """Whether the row runs faster than the column within a page."""
    span: tuple[float, float] = (0.0, 1.0)
    index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index.update((page.identity, i) for i, page in enumerate(self.pages))

    @property
    def count(self) -> int:
        """Number of pixels of all pages."""
        return int(self.starts[-1])

    def ids(self, start: int, stop: int) -> Bytes:
        """The ids of rows start..stop-1, each followed by a comma."""
        parts = [np.empty(0, np.uint8)]
        while start < stop:
            page, first = self.page_at(start)
            end = min(stop, first + page.height * page.width)
            parts.append(id_bytes(page, start - first, end - first, row_fastest=self.row_fastest))
            start = end
        return np.concatenate(parts)

    def identity(self, position: int) -> str:
        """The id of one row."""
        page, first = self.page_at(position)
        row, column = _row_and_column(position - first, page, row_fastest=self.row_fastest)
        return f"{page.identity}_{row + 1}_{column + 1}"

    def position(self, identity: str) -> int | None:
        """The row of an id, or None; numbers with leading zeros are other ids."""
        name, *numbers = identity.rsplit("_", 2)
        index = self.index.get(name)
        if index is None or len(numbers) != 2:
            return None
        page = self.pages[index]
        row, column = (_count(number) for number in numbers)
        if not (1 <= row <= page.height and 1 <= column <= page.width):
            return None
        if self.row_fastest:
            return int(self.starts[index]) + (column - 1) * page.height + row - 1
        return int(self.starts[index]) + (row - 1) * page.width + column - 1

    def as_image(self, values: npt.NDArray[np.float32], page: Page) -> FloatImage:
        """The values of a page's rows [H*W] as an image [H, W, 1]."""
        order: Literal["F", "C"] = "F" if self.row_fastest else "C"
        return values.reshape((page.height, page.width, 1), order=order)

    def page_at(self, position: int) -> tuple[Page, int]:
        """The page that a row belongs to, and the position of that page's first row."""
        index = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.pages[index], int(self.starts[index])


def expected_rows(*, contest: LocalContest, pages: Sequence[Page]) -> PixelRows:
    """Header, ids and their order: the sample submission's, where the contest has one."""
    pages_by_stem(pages)
    for page in pages:
        _check_name(page)
    sample = sample_path(contest)
    if sample is None:
        return _rows(HEADER, natural_order(pages), ordered=False)
    status = sample.stat()
    return _rows_of_sample(sample, tuple(pages), (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _rows_of_sample(path: Path, pages: tuple[Page, ...], _status: tuple[int, int]) -> PixelRows:
    """The rows of a sample that goes page by page; `_status` renews the cache when it changes."""
    scan = _SampleScan(path, pages)
    for chunk in plain_chunks(path):
        scan.take(chunk)
    scan.finish()
    return _rows(scan.header, scan.found, ordered=True, row_fastest=scan.row_fastest)


def id_bytes(
    page: Page, start: int, stop: int, *, row_fastest: bool, values: Texts | None = None
) -> Bytes:
    """The bytes `id,` of a page's rows start..stop-1, or `id,value` when `values` are given."""
    row, column = _row_and_column(np.arange(start, stop), page, row_fastest=row_fastest)
    parts = {"rows": _digits(page.height, "_")[row], "columns": _digits(page.width, ",")[column]}
    if values is not None:
        parts["values"] = values
    name = f"{page.identity}_".encode()
    matrix = np.empty(
        stop - start,
        dtype=[("name", f"S{len(name)}"), *((key, part.dtype) for key, part in parts.items())],
    )
    matrix["name"] = name
    for key, part in parts.items():
        matrix[key] = part
    padded = matrix.view(np.uint8)
    packed: Bytes = padded[padded != 0]
    return packed


def _rows(
    header: tuple[str, str], pages: Iterable[Page], *, ordered: bool, row_fastest: bool = True
) -> PixelRows:
    kept = tuple(pages)
    sizes = [0, *(page.height * page.width for page in kept)]
    return PixelRows(
        header=header,
        pages=kept,
        starts=np.cumsum(sizes, dtype=np.int64),
        ordered=ordered,
        row_fastest=row_fastest,
    )


class _SampleScan:
    """Reads off a sample submission in which order its pages and their pixels stand."""

    def __init__(self, path: Path, pages: Sequence[Page]) -> None:
        self.header = HEADER
        self.found: list[Page] = []
        self.row_fastest = True
        self._path = path
        self._pages = {page.identity: page for page in pages}
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
            page = self.found[-1]
            done = page.height * page.width - self._left
            count = min(self._left, len(lengths) - row)
            wanted = id_bytes(page, done, done + count, row_fastest=self.row_fastest)
            if not np.array_equal(ids[ends[row] : ends[row + count]], wanted):
                raise self._odd(f"does not list the {page.height}x{page.width} pixels in order")
            row += count
            self._left -= count
            self._line += count

    def finish(self) -> None:
        """Refuse a sample that ends early or leaves pages out."""
        if self._left:
            raise self._odd(f"ends inside the page {self.found[-1].identity}")
        listed = set(self.found)
        unlisted = [name for name, page in self._pages.items() if page not in listed]
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
        name = names[0].rsplit("_", 2)[0]
        page = self._pages.get(name)
        if page is None:
            mismatch = sample_mismatch(self._path, unknown=[name], unlisted=[])
            assert mismatch is not None
            raise mismatch
        if page in self.found:
            raise self._odd(f"comes back to the page {name}")
        if page.height > 1 and names[1:] == [f"{name}_1_2"]:
            self.row_fastest = False
        self.found.append(page)
        self._left = page.height * page.width

    def _odd(self, what: str) -> DataError:
        return DataError(
            f"the sample submission {self._path} {what} (near line {self._line:,})",
            hint="only samples that go page by page, each by rows or by columns, can be followed; "
            "fetch it again, or correct `sample` in the contest's contest.toml",
        )


def _row_and_column(
    within: "int | npt.NDArray[np.int64]", page: Page, *, row_fastest: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row and column, from 0, of the pixel that stands at a place within its page."""
    slow, fast = np.divmod(within, page.height if row_fastest else page.width)
    return (fast, slow) if row_fastest else (slow, fast)


@lru_cache(maxsize=16)
def _digits(count: int, end: str) -> Texts:
    """The texts of 1..count, each with `end` behind it."""
    return np.array([f"{number}{end}".encode() for number in range(1, count + 1)])


def _count(text: str) -> int:
    """A number from 1 as an id holds it; 0 for any other text."""
    return int(text) if text.isascii() and text.isdigit() and text[0] != "0" else 0


def _check_name(page: Page) -> None:
    """Refuse names that would need quoting in every one of a page's rows."""
    if any(sign in page.identity for sign in ',"\r\n\0'):
        raise DataError(
            f"the name {page.identity!r} holds a comma, a quotation mark or a line break",
            hint="rename the test picture: the format pixels-long cannot hold such ids",
        )
    try:
        page.identity.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the file name {page.name!r} is not valid UTF-8", hint="rename the file"
        ) from None
