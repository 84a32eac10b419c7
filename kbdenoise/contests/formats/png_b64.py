"""The format `png-b64`: one row a picture, the base64 of a PNG file.

A course contest in Bombay asks for it: header `id,Encoded_Image`, ids with the file suffix.
"""

import numpy as np

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.formats.coded_rows import BadCell
from kbdenoise.contests.formats.picture_bytes import decoded_picture
from kbdenoise.contests.formats.picture_cells import PictureCells
from kbdenoise.contests.options import Options
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Pixels, encode


def codec(contest: Contest) -> PictureCells:
    """The codec of a contest."""
    return PictureCells(
        options=contest.options, channels=contest.channels, pack=pack, unpack=unpack
    )


def pack(pixels: Pixels, *, options: Options) -> bytes:
    """The bytes of a PNG file."""
    return encode(pixels, suffix=".png")


def unpack(content: bytes, *, options: Options, height: int, width: int, channels: int) -> Pixels:
    """The picture in a PNG file; raises BadCell."""
    try:
        pixels = decoded_picture(content, suffix=".png", height=height, width=width)
    except DataError as error:
        raise BadCell("PNG", f"the PNG cannot be used: {error.message}; write it again") from None
    if pixels.shape[2] != channels or pixels.dtype != np.uint8:
        raise BadCell(
            "PNG",
            f"the PNG has {pixels.shape[2]} colour channels of {8 * pixels.itemsize} bits, the "
            f"contest {channels} of 8; write the file again",
        )
    return pixels
