"""The format `pixels-long`: one row a pixel, its gray value in 0..1.

*Denoising Dirty Documents* asks for it: header `id,value`, ids `{page}_{row}_{column}` counted from
1, the row running fastest within a page as in Kaggle's sample, pages in the natural order of their
numbers. A whole submission has 14 million rows, so they are made as byte matrices, block by block:
texts of digits and of values are looked up side by side, null-padded, and the padding is dropped.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kbdenoise.atomic import atomic_write
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats.findings import CheckReport
from kbdenoise.contests.formats.gray import (
    Codes,
    gray_codes,
    gray_table,
    gray_values,
    in_unit,
)
from kbdenoise.contests.formats.packing import Sink, packed
from kbdenoise.contests.formats.pages import (
    Page,
    Restored,
    Source,
    Written,
    WrittenPage,
    both_forms,
    in_order,
    matched,
    written_page,
)
from kbdenoise.contests.formats.pixel_rows import Texts, Way, expected_rows, id_bytes
from kbdenoise.contests.formats.rows import check_rows, read_rows
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import FloatImage, Pixels

_BLOCK = 1 << 15  # rows; larger blocks leave the processor's caches


def order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """Pages in the order of their rows: the sample's, else the natural order of their numbers.

    Restoring in this order keeps the writer's memory flat.
    """
    return list(expected_rows(contest=contest, pages=pages).pages)


def answer(
    image: FloatImage | Pixels, *, contest: LocalContest, source: Source = "pixels"
) -> FloatImage:
    """Gray values [H, W, 1] in 0..1, of the image rounded to 8 bits or of the float image.

    Stored pixels are taken as they are.
    """
    options = contest.contest.options
    floats, pixels = both_forms(image)
    codes = gray_codes(floats, pixels, options=options, source=source)
    return gray_values(codes, options=options)[..., None]  # [H, W] -> [H, W, 1]


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
    options = contest.contest.options
    summary: list[WrittenPage] = []
    texts = value_texts(options, source)
    names = dict(zip(rows.pages, rows.names, strict=True))

    def coded() -> Iterator[tuple[Page, Codes]]:
        for page, image, pixels in matched(restored, pages):
            codes = gray_codes(image, pixels, options=options, source=source)
            gray = gray_values(codes, options=options)[..., None]
            summary.append(written_page(page, image=image, pixels=pixels, answer=gray))
            yield page, codes

    with atomic_write(path) as file, packed(file, path) as out:
        out.write(",".join(rows.header).encode() + b"\n")
        for page, codes in in_order(coded(), rows.pages):
            write_page(out, page, codes, texts=texts, name=names[page], way=rows.way)
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
            places = block.positions[mine] - rows.starts[owner]
            values[places] = in_unit(block.values[mine], options=contest.contest.options)
            missing -= int(np.count_nonzero(mine))
            if missing:
                unfinished[owner] = values, missing
            else:
                yield page.stem, rows.as_image(values, page)


def check(path: Path, *, contest: LocalContest, pages: Sequence[Page]) -> CheckReport:
    """Everything that is wrong with a file. Raises DataError if it cannot be opened."""
    return check_rows(path, expected_rows(contest=contest, pages=pages))


def write_page(out: Sink, page: Page, codes: Codes, *, texts: Texts, name: str, way: Way) -> None:
    """Write the rows of one page; `codes` [H, W] index the value texts."""
    flat = codes.ravel(order=way.order)  # [H, W] -> [H*W]
    for start in range(0, flat.size, _BLOCK):
        stop = min(start + _BLOCK, flat.size)
        values = texts[flat[start:stop]]
        out.write(id_bytes(page, start, stop, name=name, way=way, values=values).data)


@lru_cache(maxsize=2)
def value_texts(options: Options, source: Source) -> Texts:
    """Value and newline of every code of `gray_codes`."""
    table = gray_table(options, levels=source == "pixels")
    return np.array([f"{text}\n".encode() for text in table.texts])
