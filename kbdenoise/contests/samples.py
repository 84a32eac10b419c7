"""What a look into some files tells that names do not: the format of a submission, and colour.

A sample submission is found by its name, and its first rows show the format it asks for; a few
pictures of each folder show whether the contest is gray.
"""

import csv
import re
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from kbdenoise.imaging.files import list_images, read_header, read_opaque

SAMPLE_NAME = re.compile(r"sample.*submi|submi.*sample|submitsrgb", re.IGNORECASE)

# What a sample submission of this shape asks for: submission format -> the metric that goes with it
METRIC_OF_FORMAT = {"pixels-long": "rmse", "mean-luma": "mae-mean-luma"}

_ROWS_READ = 1000  # of a sample submission
_SAMPLED = 6  # pictures of each folder that are looked at for colour


def find_sample(root: Path) -> str:
    """The path of a sample submission relative to `root`, or '' when there is none."""
    for pattern in ("*.[cC][sS][vV]", "*/*.[cC][sS][vV]"):
        for path in sorted(root.glob(pattern)):
            if SAMPLE_NAME.search(path.stem) and path.is_file():
                return path.relative_to(root).as_posix()
    return ""


def sample_format(path: Path, *, test_stems: Collection[str]) -> str:
    """The submission format that a sample CSV shows, or '' when it is none that is known.

    `1_1_1,1` is `pixels-long`; a number for each test picture's stem is `mean-luma`.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = list(islice(csv.reader(file), 1 + _ROWS_READ))
    except (OSError, csv.Error):
        return ""
    body = [row for row in rows[1:] if row]
    if not body or any(len(row) != 2 for row in (rows[0], *body)):
        return ""
    if all(re.fullmatch(r".+_[0-9]+_[0-9]+", key) for key, _ in body):
        return "pixels-long" if _numbers(body) else ""
    in_test = test_stems and all(key in test_stems for key, _ in body)
    return "mean-luma" if in_test and _numbers(body) else ""


def _numbers(rows: Sequence[Sequence[str]]) -> bool:
    try:
        return all(np.isfinite(float(value)) for _, value in rows)
    except ValueError:
        return False


def sampled_channels(root: Path, folders: Iterable[str]) -> Literal[1, 3]:
    """1 if all of some pictures of each folder are gray, else 3; folders are relative to `root`.

    Raises DataError for a picture that cannot be read.
    """
    for name in dict.fromkeys(folders):
        paths = list_images(root / name)
        for path in paths[:: max(1, len(paths) // _SAMPLED)]:
            if read_header(path).channels == 3:
                pixels = read_opaque(path)
                if not np.array_equal(pixels[..., :1].repeat(pixels.shape[2], axis=2), pixels):
                    return 3
    return 1
