"""The format `mean-luma`: one row a page, its mean BT.601 luma in grey levels 0..255.

The descanning contest of Kyung Hee University, 2023, asks for it: header
`Image File,Y Channel Value`, ids without the file suffix (dots inside a name are kept), sorted by
file name.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kbdenoise.atomic import write_bytes
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.csv_bytes import Bytes, plain_chunks
from kbdenoise.contests.formats.findings import CheckReport
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    matched,
    pages_by_stem,
    sample_mismatch,
    sample_path,
    written_page,
)
from kbdenoise.contests.formats.rows import check_rows, read_rows
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, to_pixels
from kbdenoise.imaging.luma import mean_luma, mean_luma_of_pixels

HEADER = ("Image File", "Y Channel Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRows:
    """One row a page (`formats.rows.Rows`)."""

    header: tuple[str, str]
    pages: tuple[Page, ...]
    identities: tuple[str, ...]
    ordered: bool
    span: tuple[float, float] = (0.0, 255.0)
    positions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.positions.update((name, i) for i, name in enumerate(self.identities))

    @property
    def count(self) -> int:
        """Number of pages."""
        return len(self.pages)

    def ids(self, start: int, stop: int) -> Bytes:
        """The ids of rows start..stop-1, quoted where CSV wants it, each followed by a comma."""
        text = "".join(_csv_line([name, ""])[:-1] for name in self.identities[start:stop])
        return np.frombuffer(text.encode(), np.uint8)

    def identity(self, position: int) -> str:
        """The id of one row."""
        return self.identities[position]

    def position(self, identity: str) -> int | None:
        """The row of an id, or None."""
        return self.positions.get(identity)


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their rows: the sample's, else by file name."""
    return list(expected_rows(contest=contest, pages=pages).pages)


def answer(image: FloatImage, *, source: Source = "pixels") -> float:
    """Mean luma in grey levels 0..255, of the image rounded to 8 bits or of the float image."""
    return mean_luma(image) if source == "float" else mean_luma_of_pixels(to_pixels(image))


def write(
    path: Path,
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    source: Source = "pixels",
) -> Written:
    """Write one row a page; nothing appears at `path` unless every page was restored."""
    rows = expected_rows(contest=contest, pages=pages)
    values, summary = {}, []
    for page, image, pixels in matched(restored, pages):
        value = mean_luma(image) if source == "float" else mean_luma_of_pixels(pixels)
        values[page.stem] = value
        summary.append(written_page(page, image=image, pixels=pixels, answer=value))
    lines = [_csv_line(rows.header)]
    for page, name in zip(rows.pages, rows.identities, strict=True):
        lines.append(_csv_line([name, repr(values[page.stem])]))
    write_bytes(path, "".join(lines).encode())
    return Written(rows=rows.count, pages=tuple(summary))


def read(
    path: Path, *, contest: LocalContest, pages: Sequence[Page]
) -> Iterator[tuple[str, float]]:
    """Stem and value of every page, in the order of the file. Raises DataError if not valid."""
    rows = expected_rows(contest=contest, pages=pages)
    for block in read_rows(path, rows):
        for position, value in zip(block.positions, block.values, strict=True):
            yield rows.pages[position].stem, float(value)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with a file. Raises DataError if it cannot be opened."""
    return check_rows(path, expected_rows(contest=contest, pages=pages))


def expected_rows(*, contest: LocalContest, pages: Sequence[Page]) -> PageRows:
    """Header, ids and their order: the sample submission's, where the contest has one."""
    pages_by_stem(pages)
    for page in pages:
        _check_name(page)
    sample = sample_path(contest)
    if sample is not None:
        return _rows_of_sample(sample, pages)
    ordered = tuple(sorted(pages, key=lambda page: page.name))
    names = tuple(page.identity for page in ordered)
    return PageRows(header=HEADER, pages=ordered, identities=names, ordered=False)


def _rows_of_sample(path: Path, pages: Sequence[Page]) -> PageRows:
    text = b"".join(plain_chunks(path)).decode("utf-8-sig", errors="replace")
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line]
    except csv.Error:
        lines = []
    if not lines or any(len(line) != 2 for line in lines):
        raise DataError(
            f"the sample submission {path} is not a CSV of two columns",
            hint="fetch it again, or correct `format` or `sample` in the contest's contest.toml",
        )
    names = tuple(line[0] for line in lines[1:])
    by_name = {page.identity: page for page in pages}
    if names and not any(name in by_name for name in names):
        by_name = {page.name: page for page in pages}  # a sample may keep the file suffix
    mismatch = sample_mismatch(
        path,
        unknown=[name for name in names if name not in by_name],
        unlisted=[name for name in by_name if name not in set(names)],
    )
    if mismatch:
        raise mismatch
    if len(set(names)) < len(names):
        raise DataError(
            f"the sample submission {path} names a picture twice", hint="fetch it again"
        )
    return PageRows(
        header=(lines[0][0], lines[0][1]),
        pages=tuple(by_name[name] for name in names),
        identities=names,
        ordered=True,
    )


def _check_name(page: Page) -> None:
    if "\n" in page.name or "\r" in page.name:
        raise DataError(f"the file name {page.name!r} holds a line break", hint="rename the file")
    try:
        page.name.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the file name {page.name!r} is not valid UTF-8", hint="rename the file"
        ) from None


def _csv_line(fields: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(fields)
    return line.getvalue()
