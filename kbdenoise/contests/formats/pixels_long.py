"""The format `pixels-long`: one row a pixel, its gray value in 0..1.

*Denoising Dirty Documents* asks for it: header `id,value`, ids `{page}_{row}_{column}` counted from
1, the row running fastest within a page as in Kaggle's sample, pages in the natural order of their
numbers. A whole submission has 14 million rows, so they are made as byte matrices, block by block:
texts of digits and of values are looked up side by side, null-padded, and the padding is dropped.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from kbdenoise.atomic import atomic_write
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.findings import CheckReport
from kbdenoise.contests.formats.pages import (
    VALUE_STEPS,
    Page,
    Restored,
    Source,
    Written,
    WrittenPage,
    in_order,
    matched,
    written_page,
)
from kbdenoise.contests.formats.parallel_gzip import GzipStream, parallel_gzip
from kbdenoise.contests.formats.pixel_rows import Texts, expected_rows, id_bytes
from kbdenoise.contests.formats.rows import check_rows, read_rows
from kbdenoise.devices import usable_cores
from kbdenoise.imaging.files import FloatImage, Pixels, to_float, to_pixels, with_channels
from kbdenoise.imaging.luma import luma

Sink = BinaryIO | GzipStream
"""What rows are written into."""

_BLOCK = 1 << 15  # rows; larger blocks leave the processor's caches
# Level 1 is several times faster than the default and the file is uploaded once.
_GZIP_LEVEL = 1


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their rows: the sample's, else the natural order of their numbers.

    Restoring in this order keeps the writer's memory flat.
    """
    return list(expected_rows(contest=contest, pages=pages).pages)


def answer(image: FloatImage, *, source: Source = "pixels") -> FloatImage:
    """Gray values [H, W, 1] in 0..1, of the image rounded to 8 bits or of the float image."""
    if source == "float":
        return luma(image)[..., None]  # [H, W] -> [H, W, 1]
    return to_float(with_channels(to_pixels(image), 1))


def write(
    path: Path,
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    source: Source = "pixels",
) -> Written:
    """Write one row a pixel, compressed if `path` ends in .gz; appears whole or not at all."""
    rows = expected_rows(contest=contest, pages=pages)
    summary: list[WrittenPage] = []
    texts = value_texts(source)
    with atomic_write(path) as file, _compressed(file, path) as out:
        out.write(",".join(rows.header).encode() + b"\n")
        codes = _codes(matched(restored, pages), source=source, summary=summary)
        for page, page_codes in in_order(codes, rows.pages):
            write_page(out, page, page_codes, texts=texts, row_fastest=rows.row_fastest)
    return Written(rows=rows.count, pages=tuple(summary))


def read(
    path: Path, *, contest: LocalContest, pages: Sequence[Page]
) -> Iterator[tuple[str, FloatImage]]:
    """Stem and gray image [H, W, 1] of every page, each as soon as it is complete.

    One page is held at a time when the file keeps the order. Raises DataError if not valid.
    """
    rows = expected_rows(contest=contest, pages=pages)
    unfinished: dict[int, tuple[npt.NDArray[np.float32], int]] = {}  # values, how many are missing
    for block in read_rows(path, rows):
        owners = np.searchsorted(rows.starts, block.positions, side="right") - 1
        for owner in np.unique(owners):
            page, mine = rows.pages[owner], owners == owner
            size = page.height * page.width
            values, missing = unfinished.pop(owner, (np.empty(size, np.float32), size))
            values[block.positions[mine] - rows.starts[owner]] = block.values[mine]
            missing -= int(np.count_nonzero(mine))
            if missing:
                unfinished[owner] = values, missing
            else:
                yield page.stem, rows.as_image(values, page)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with a file. Raises DataError if it cannot be opened."""
    return check_rows(path, expected_rows(contest=contest, pages=pages))


def write_page(
    out: Sink,
    page: Page,
    codes: npt.NDArray[np.integer],
    *,
    texts: Texts,
    row_fastest: bool = True,
) -> None:
    """Write the rows of one page; `codes` [H, W] index the value texts."""
    flat = codes.ravel(order="F" if row_fastest else "C")  # [H, W] -> [H*W]
    for start in range(0, flat.size, _BLOCK):
        stop = min(start + _BLOCK, flat.size)
        values = texts[flat[start:stop]]
        out.write(id_bytes(page, start, stop, row_fastest=row_fastest, values=values).data)


@lru_cache(maxsize=2)
def value_texts(source: Source) -> Texts:
    """Value and newline of every code, shortest form with at most five decimals.

    For "pixels" a code is the gray level 0..255, for "float" the value in steps of 1e-5.
    """
    top = 255 if source == "pixels" else VALUE_STEPS
    texts = (f"{code / top:.5f}".rstrip("0").rstrip(".") for code in range(top + 1))
    return np.array([f"{text}\n".encode() for text in texts])


def _codes(
    pictures: Iterable[tuple[Page, FloatImage, Pixels]],
    *,
    source: Source,
    summary: list[WrittenPage],
) -> Iterator[tuple[Page, npt.NDArray[np.integer]]]:
    """The codes [H, W] of every page as `value_texts` wants them; fills the summary."""
    for page, image, pixels in pictures:
        gray = to_float(with_channels(pixels, 1)) if source == "pixels" else luma(image)[..., None]
        summary.append(written_page(page, image=image, pixels=pixels, answer=gray))
        top = 255 if source == "pixels" else VALUE_STEPS
        # Float luma may round to a hair above 1, which would be a code that has no text.
        codes = np.rint(np.minimum(gray[..., 0], 1.0) * np.float32(top))  # [H, W, 1] -> [H, W]
        yield page, codes.astype(np.uint8) if source == "pixels" else codes.astype(np.int32)


@contextmanager
def _compressed(file: BinaryIO, path: Path) -> Iterator[Sink]:
    """The file itself, or a gzip stream into it that holds no name and no time."""
    if path.suffix.lower() != ".gz":
        yield file
        return
    with parallel_gzip(file, level=_GZIP_LEVEL, threads=usable_cores()) as packed:
        yield packed
