"""The format `raw-b64`: one row a picture or block, the base64 of its raw 8-bit bytes.

The SIDD benchmark on Kaggle asks for it: header `ID,BLOCK`, ids 0, 1, ..., cells of 262,144 letters
that hold a 256x256x3 block, row by row, the channels of a pixel side by side.
"""

import numpy as np

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.formats.picture_cells import PictureCells, flat_bytes, picture_of
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import Pixels


def codec(contest: Contest) -> PictureCells:
    """The codec of a contest."""
    return PictureCells(
        options=contest.options, channels=contest.channels, pack=pack, unpack=unpack
    )


def pack(pixels: Pixels, *, options: Options) -> bytes:
    """The bytes of a picture, as they are."""
    return flat_bytes(pixels, options=options).tobytes()


def unpack(content: bytes, *, options: Options, height: int, width: int, channels: int) -> Pixels:
    """The picture of its bytes; raises BadCell."""
    flat = np.frombuffer(content, np.uint8)
    return picture_of(flat, options=options, height=height, width=width, channels=channels)
