"""What a look into some files tells that the names of folders do not: a sample, and colour.

A sample submission is found by its name (`recognise` reads it); a few pictures of each folder show
whether the contest is gray.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np

from kbdenoise.imaging.files import list_images, read_header, read_opaque

SAMPLE_NAME = re.compile(r"sample.*submi|submi.*sample|submitsrgb", re.IGNORECASE)

_PATTERNS = ("*.[cC][sS][vV]", "*.[cC][sS][vV].gz", "*.[zZ][iI][pP]")
_SAMPLED = 6  # pictures of each folder that are looked at for colour


def find_sample(root: Path) -> str:
    """The path of a sample submission relative to `root`, or '' when there is none.

    It may be a CSV, plain or compressed, or an archive; plain ones come first.
    """
    for pattern in (*_PATTERNS, *(f"*/{pattern}" for pattern in _PATTERNS)):
        for path in sorted(root.glob(pattern)):
            if SAMPLE_NAME.search(path.name) and path.is_file():
                return path.relative_to(root).as_posix()
    return ""


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
