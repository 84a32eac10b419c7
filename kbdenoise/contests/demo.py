"""The demo contest: synthetic magazine pages, printed and scanned by simulation, made on the spot.

It has the layout, file format, names and score of the descanning contest, and its truth is kept
beside it, so that submissions can be scored without a network or a download.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from kbdenoise.atomic import atomic_folder, write_text
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import FloatImage, write_image
from kbdenoise.imaging.magazine.house import draw_house
from kbdenoise.imaging.magazine.pages import PAGE_HEIGHT, PAGE_WIDTH, draw_page
from kbdenoise.imaging.magazine.photographs import PHOTOGRAPHS
from kbdenoise.imaging.scanner import draw_scanner, print_and_scan

CROP = 512
"""Side of a picture, in pixels."""
TITLES = ("TinkerPost031", "BitGarden12", "Bench2.5", "SolderSong077", "QuietLathe", "WireWood09")
"""Invented magazines. One has a dot in its name, as a trap for whoever splits names at dots."""

_README = """\
Descanning demo contest, made by kbdenoise ({train} training and {test} test pages, seed {seed}).

  train/scan, train/clean   pairs of one name: a page printed and scanned, and the page itself
  test/scan                 pages to restore
  truth/clean               the test pages themselves, for scoring on this machine

Names are TITLE.PAGE.CROP.tif; the two crops of a page share paper and scanner. Pictures are 512x512
8-bit RGB TIFF (LZW). A submission gives each test picture's mean luma; the score is the mean
absolute error in grey levels.

Everything here is synthetic: text, titles and layouts are generated, and prints and scans are
simulated. The photographs are scikit-image's sample pictures, with the notes it gives on them:

{credits}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """A leaf of a magazine: two pages, or one to keep and a back that only shines through."""

    title: str
    number: int
    pages: int
    is_test: bool
    seed: tuple[int, int]
    folder: Path


def make_demo_contest(
    folder: Path,
    *,
    train_pages: int = 100,
    test_pages: int = 25,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make the demo contest in `folder`, which must not exist yet, or be empty.

    Every page gives two pictures. The files' bytes depend on the numbers of pages and the seed
    alone (and on the versions of OpenCV, Pillow and scikit-image), not on `workers`: processes to
    share the work, 0 for one a processor. `progress` hears (sheets done, sheets in all).

    The folder appears whole or not at all. Raises DataError if it holds something already or the
    disk is full, SettingsError for a number of pages or a seed that makes no sense.
    """
    if train_pages < 1 or test_pages < 1 or seed < 0:
        raise SettingsError(
            f"cannot make {train_pages} training and {test_pages} test pages from seed {seed}",
            hint="ask for at least 1 page of each, and a seed of 0 or more",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} exists already and is not empty",
            hint="choose another folder, or remove it first",
        )
    with atomic_folder(folder) as part:
        sheets = _plan(part, train_pages=train_pages, test_pages=test_pages, seed=seed)
        # Closed before the folder is cleared away, so that no process still writes into it.
        with closing(_made(sheets, workers=workers or _processors())) as made:
            for done, _ in enumerate(made, start=1):
                if progress is not None:
                    progress(done, len(sheets))
        credits = "\n".join(f"  {name:<22} {note}" for name, note in PHOTOGRAPHS.items())
        text = _README.format(train=train_pages, test=test_pages, seed=seed, credits=credits)
        write_text(part / "README.txt", text)


def _plan(folder: Path, *, train_pages: int, test_pages: int, seed: int) -> list[_Sheet]:
    """Sheets of all titles, a random part of them for the test, so that both are alike."""
    train_sheets, test_sheets = -(-train_pages // 2), -(-test_pages // 2)
    count = train_sheets + test_sheets
    test = set(np.random.default_rng(seed).permutation(count)[:test_sheets].tolist())
    left = {True: test_pages, False: train_pages}
    sheets = []
    for index in range(count):
        is_test = index in test
        pages = min(2, left[is_test])
        left[is_test] -= pages
        sheets.append(
            _Sheet(
                title=TITLES[index % len(TITLES)],
                number=7 + 2 * (index // len(TITLES)),
                pages=pages,
                is_test=is_test,
                seed=(seed, index),
                folder=folder,
            )
        )
    return sheets


def _made(sheets: list[_Sheet], *, workers: int) -> Generator[None, None, None]:
    """Make the sheets, in several processes if asked; yields once for each that is done."""
    done = 0
    if workers > 1:
        pool = ProcessPoolExecutor(
            min(workers, len(sheets)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
        )
        try:
            with _without_main():  # every process is started while the sheets are handed in
                made = pool.map(_make_sheet, sheets)
            for _ in made:
                yield
                done += 1
        except BrokenProcessPool:
            pass  # the system has ended one, for want of memory perhaps: go on in this one
        finally:
            pool.shutdown(cancel_futures=True)
    for sheet in sheets[done:]:
        _make_sheet(sheet)
        yield


@contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are started meanwhile do not run the person's own script again.

    They would, up to its call of this module, if it has no `if __name__ == "__main__"`; and they
    need nothing of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)  # the processes share the machine already
    # glibc learns from a freed block of this size to keep memory that images of a few MB give
    # back. Without it, every temporary is paged in anew, and a scan takes twice as long.
    np.empty(31 << 20, dtype=np.uint8)


def _end_with_parent() -> None:
    """End this worker as soon as the process that started it is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_sheet(sheet: _Sheet) -> None:
    """Draw, print, scan, cut and write both sides of a sheet."""
    rng = np.random.default_rng(sheet.seed)
    house_seed = (sheet.seed[0], *sheet.title.encode())
    house = draw_house(sheet.title, np.random.default_rng(house_seed))
    sides = [draw_page(house, number=sheet.number + side, rng=rng) for side in range(2)]
    for side in range(sheet.pages):
        clean, back = sides[side], sides[1 - side]
        scan = print_and_scan(clean, back=back, scanner=draw_scanner(rng), rng=rng)
        stem = f"{sheet.title}.{sheet.number + side:05d}"
        _write_crops(sheet, stem=stem, clean=clean, scan=scan, rng=rng)


def _write_crops(
    sheet: _Sheet, *, stem: str, clean: FloatImage, scan: FloatImage, rng: np.random.Generator
) -> None:
    """Two pictures of a page, one from its upper and one from its lower half."""
    scans, cleans = ("test/scan", "truth/clean") if sheet.is_test else ("train/scan", "train/clean")
    for crop in range(2):
        top = crop * PAGE_HEIGHT // 2 + int(rng.integers(PAGE_HEIGHT // 2 - CROP + 1))
        left = int(rng.integers(PAGE_WIDTH - CROP + 1))
        window = (slice(top, top + CROP), slice(left, left + CROP))
        name = f"{stem}.{crop + 1:02d}.tif"
        write_image(sheet.folder / scans / name, scan[window])
        write_image(sheet.folder / cleans / name, clean[window])


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
