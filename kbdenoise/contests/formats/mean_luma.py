"""The format `mean-luma`: one row a page, its mean BT.601 luma in grey levels 0..255.

The descanning contest of Kyung Hee University, 2023, asks for it: header
`Image File,Y Channel Value`, ids without the file suffix (dots inside a name are kept), sorted by
file name. Options ask for the median, for another gray, or for values in 0..1.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kbdenoise.atomic import write_bytes
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.findings import CheckReport
from kbdenoise.contests.formats.page_rows import PageRows, expected_page_rows, lead_bytes
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    both_forms,
    matched,
    written_page,
)
from kbdenoise.contests.formats.rows import check_rows, read_rows
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import FloatImage, Pixels
from kbdenoise.imaging.luma import mean_luma, mean_luma_of_pixels, plane, plane_of_pixels

_WHITE = 255  # answers are in grey levels, whatever the file's scale


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their rows: the sample's, else by file name."""
    return list(expected_rows(contest=contest, pages=pages).pages)


def answer(
    image: FloatImage | Pixels, *, contest: LocalContest, source: Source = "pixels"
) -> float:
    """The number of a page in grey levels 0..255, rounded as the file rounds it.

    That is computed from the image rounded to 8 bits or from the float image; stored pixels are
    taken as they are.
    """
    options = contest.contest.options
    floats, pixels = both_forms(image)
    level = _of_float(floats, options) if source == "float" else _of_pixels(pixels, options)
    return _said(_text(level, options), options)


def write(
    path: Path,
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    source: Source = "pixels",
) -> Written:
    """Write one row a page; nothing appears at `path` unless every page was restored."""
    rows, options = expected_rows(contest=contest, pages=pages), contest.contest.options
    texts, summary = {}, []
    for page, image, pixels in matched(restored, pages):
        level = _of_float(image, options) if source == "float" else _of_pixels(pixels, options)
        text = texts[page] = _text(level, options)
        summary.append(written_page(page, image=image, pixels=pixels, answer=_said(text, options)))
    lines = [lead_bytes(rows.header)[:-1]]
    for (page, _), lead in zip(rows.owners, rows.leads, strict=True):
        lines.append(lead_bytes(lead) + texts[page].encode())
    write_bytes(path, b"\n".join([*lines, b""]))
    return Written(rows=rows.count, pages=tuple(summary))


def read(
    path: Path, *, contest: LocalContest, pages: Sequence[Page]
) -> Iterator[tuple[str, float]]:
    """Stem and number of every page, in grey levels, in the order of the file.

    Raises DataError if not valid.
    """
    rows, scale = expected_rows(contest=contest, pages=pages), contest.contest.options.scale
    for block in read_rows(path, rows):
        for position, value in zip(block.positions, block.values, strict=True):
            yield rows.owners[position][0].stem, _levels(float(value), scale)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with a file. Raises DataError if it cannot be opened."""
    return check_rows(path, expected_rows(contest=contest, pages=pages))


def expected_rows(*, contest: LocalContest, pages: Sequence[Page]) -> PageRows:
    """Header, ids and their order: the sample submission's, where the contest has one."""
    options = contest.contest.options
    rows = expected_page_rows(contest=contest, pages=pages, columns=(options.value,), by_name=True)
    return replace(rows, span=(0.0, float(options.scale)), positions={})


def _of_pixels(pixels: Pixels, options: Options) -> float:
    """Mean or median in grey levels of stored pixels."""
    if options.space == "y601" and options.statistic == "mean":
        return mean_luma_of_pixels(pixels)
    return _statistic(plane_of_pixels(pixels, options.space), options) * (
        _WHITE / np.iinfo(pixels.dtype).max
    )


def _of_float(image: FloatImage, options: Options) -> float:
    """Mean or median in grey levels of a float image."""
    if options.space == "y601" and options.statistic == "mean":
        return mean_luma(image)
    return _statistic(plane(image, options.space), options) * _WHITE


def _statistic(gray: FloatImage | Pixels, options: Options) -> float:
    if options.statistic == "median":
        return float(np.median(gray))
    return float(gray.mean(dtype=np.float64))


def _text(level: float, options: Options) -> str:
    """A number of grey levels as the file writes it."""
    value = level if options.scale == _WHITE else level / _WHITE * options.scale
    return repr(value) if options.decimals < 0 else f"{value:.{options.decimals}f}"


def _said(text: str, options: Options) -> float:
    return _levels(float(text), options.scale)


def _levels(value: float, scale: int) -> float:
    return value if scale == _WHITE else value / scale * _WHITE
