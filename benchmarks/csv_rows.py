"""The speed of writing and reading submissions.

Rows a second of `pixels-long`, ours against `DataFrame.to_csv` in one run; and values a second of
the formats whose rows are whole pictures.
"""

import gzip
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import FORMATS, Page, Restored
from kbdenoise.imaging.files import FloatImage

HEIGHT, WIDTH = 420, 540  # a page of the contest Denoising Dirty Documents


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvRates:
    """Rows a second; each figure is the best of several repeats."""

    rows: int
    write_rows_s: float
    write_gzip_rows_s: float
    one_thread_gzip_rows_s: float
    """Writing, and then Python's own gzip at the same level, as a single thread would."""
    check_rows_s: float
    read_rows_s: float
    pandas_rows_s: float
    """`DataFrame.to_csv` alone, with ids and rounded values made beforehand."""

    @property
    def times_pandas(self) -> float:
        """How much faster writing is than `DataFrame.to_csv`."""
        return self.write_rows_s / self.pandas_rows_s


def measure_csv_rows(*, pages: int = 8, pandas_pages: int = 2, repeats: int = 3) -> CsvRates:
    """Write, check and read back pages of 540x420 px, and write the same rows with pandas."""
    image = _page_image()
    contest = LocalContest(
        folder=Path("."), contest=Contest(slug="rows", channels=1, format="pixels-long")
    )
    expected = [_page(number) for number in range(1, pages + 1)]
    ours = FORMATS["pixels-long"]
    rows = pages * HEIGHT * WIDTH
    frame = _frame(image, pandas_pages)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.csv"

        def write(path: Path) -> None:
            restored = (Restored(stem=p.stem, name=p.name, image=image) for p in expected)
            ours.write(path, restored, contest=contest, pages=expected)

        def read() -> Iterator[object]:
            return ours.read(path, contest=contest, pages=expected)

        return CsvRates(
            rows=rows,
            write_rows_s=rows / _best(lambda: write(path), repeats),
            write_gzip_rows_s=rows / _best(lambda: write(path.with_suffix(".csv.gz")), repeats),
            one_thread_gzip_rows_s=rows / _best(lambda: _packed(write, path), repeats),
            check_rows_s=rows
            / _best(lambda: ours.check(path, contest=contest, pages=expected), repeats),
            read_rows_s=rows / _best(lambda: sum(1 for _ in read()), repeats),
            pandas_rows_s=len(frame)
            / _best(lambda: frame.to_csv(Path(folder) / "pandas.csv", index=False), repeats),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRates:
    """Values (H*W*C of each picture) a second of a format whose rows are pictures."""

    write_values_s: float
    read_values_s: float


def measure_picture_rows(*, pictures: int = 4, repeats: int = 3) -> dict[str, PictureRates]:
    """Write and read back colour pictures of 540x420 px; `pixels-wide` holds their luma."""
    image = np.repeat(_page_image(), 3, axis=2)
    expected = [_page(number) for number in range(1, pictures + 1)]
    restored = [Restored(stem=p.stem, name=p.name, image=image) for p in expected]
    rates = {}
    for name in ("pixels-wide", "raw-b64", "png-b64", "rle-zlib-b64"):
        contest = LocalContest(folder=Path("."), contest=Contest(slug="rows", format=name))
        values = pictures * HEIGHT * WIDTH * (1 if name == "pixels-wide" else 3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ours.csv"
            write = partial(FORMATS[name].write, path, restored, contest=contest, pages=expected)
            read = partial(FORMATS[name].read, path, contest=contest, pages=expected)
            rates[name] = PictureRates(
                write_values_s=values / _best(write, repeats),
                read_values_s=values / _best(lambda read=read: list(read()), repeats),  # type: ignore[misc]
            )
    return rates


def _packed(write: Callable[[Path], None], path: Path) -> None:
    write(path)
    with path.open("rb") as plain, gzip.open(path.with_suffix(".one.gz"), "wb", 1) as file:
        shutil.copyfileobj(plain, file, 1 << 20)


def _page(number: int) -> Page:
    name = f"{number}.png"
    return Page(stem=str(number), name=name, path=Path(name), height=HEIGHT, width=WIDTH)


def _page_image() -> FloatImage:
    """A page of text-like strokes: most of it white, as restored pages are; [H, W, 1]."""
    rng = np.random.default_rng(0)
    ink = rng.random((HEIGHT, WIDTH, 1), dtype=np.float32)
    return np.where(rng.random((HEIGHT, WIDTH, 1)) < 0.7, np.float32(1.0), ink)


def _frame(image: FloatImage, pages: int) -> pd.DataFrame:
    values = (np.rint(image[..., 0].T.ravel() * 255) / 255).round(5)
    ids = [
        f"{page}_{row}_{column}"
        for page in range(1, pages + 1)
        for column in range(1, WIDTH + 1)
        for row in range(1, HEIGHT + 1)
    ]
    return pd.DataFrame({"id": ids, "value": np.tile(values, pages)})


def _best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several runs."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
