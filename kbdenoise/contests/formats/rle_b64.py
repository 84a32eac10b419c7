"""The format `rle-zlib-b64`: one row a picture, run lengths of its bytes, deflated, as base64.

Super-resolution contests of several courses ask for it: header `id,filename,rle`; the bytes of the
picture in BGR become pairs of a value and how often it follows (255 at most), which zlib packs at
level 9; the cell is the base64 of that, written as Python bytes because the scorer evaluates it.
"""

import zlib

import numpy as np

from kbdenoise.contests.contest import Contest
from kbdenoise.contests.formats.coded_rows import BadCell
from kbdenoise.contests.formats.picture_cells import PictureCells, flat_bytes, picture_of
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import Pixels

_LEVEL = 9
_LONGEST_RUN = 255


def codec(contest: Contest) -> PictureCells:
    """The codec of a contest."""
    return PictureCells(
        options=contest.options, channels=contest.channels, pack=pack, unpack=unpack
    )


def pack(pixels: Pixels, *, options: Options) -> bytes:
    """The runs of a picture's bytes, deflated."""
    return zlib.compress(runs(flat_bytes(pixels, options=options)).tobytes(), _LEVEL)


def unpack(content: bytes, *, options: Options, height: int, width: int, channels: int) -> Pixels:
    """The picture of its deflated runs; raises BadCell."""
    pairs = np.frombuffer(_inflated(content, most=2 * height * width * channels), np.uint8)
    if pairs.size % 2:
        raise BadCell("runs", "the runs end inside a pair; write the file again")
    flat = np.repeat(pairs[0::2], pairs[1::2])
    return picture_of(flat, options=options, height=height, width=width, channels=channels)


def runs(flat: Pixels) -> Pixels:
    """Pairs of a value and how often it follows, 255 at most: [pairs, 2] uint8 of bytes [N]."""
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size)
    pieces = -(-lengths // _LONGEST_RUN)  # a long run becomes several pairs
    ends = np.cumsum(pieces)
    counts = np.full(ends[-1], _LONGEST_RUN)
    counts[ends - 1] = lengths - (pieces - 1) * _LONGEST_RUN
    pairs = np.stack([np.repeat(flat[starts], pieces), counts], axis=1)
    return pairs.astype(np.uint8)


def _inflated(content: bytes, *, most: int) -> bytes:
    """What zlib has packed, `most` bytes at most, so that no cell can fill the memory."""
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(content, most + 1)
    except zlib.error:
        raise BadCell("zlib", "the cell is not packed by zlib; write the file again") from None
    if len(plain) > most or not unpacker.eof or unpacker.unused_data:
        what = "too long" if len(plain) > most or unpacker.unused_data else "cut short"
        raise BadCell("zlib", f"what zlib has packed in the cell is {what}; write the file again")
    return plain
