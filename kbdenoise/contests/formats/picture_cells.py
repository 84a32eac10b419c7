"""Codec of cells that hold a whole 8-bit picture as base64, whatever packs its bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kbdenoise.contests.formats.base64_cells import base64_cell, base64_content
from kbdenoise.contests.formats.coded_rows import BadCell, Stored
from kbdenoise.contests.formats.pages import Page, Source
from kbdenoise.contests.options import Options
from kbdenoise.imaging.files import FloatImage, Pixels, to_float, with_channels


class Pack(Protocol):
    """A way to pack pictures."""

    def __call__(self, pixels: Pixels, *, options: Options) -> bytes:
        """The bytes of a picture [H, W, C]."""


class Unpack(Protocol):
    """The reverse of a way to pack pictures."""

    def __call__(
        self, content: bytes, *, options: Options, height: int, width: int, channels: int
    ) -> Pixels:
        """The picture [H, W, channels] in some bytes; raises BadCell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureCells:
    """A codec (`formats.coded_rows.Codec`) of a way to pack pictures, and its reverse."""

    options: Options
    channels: int
    pack: Pack
    unpack: Unpack
    floats: bool = False

    def columns(self, pages: Sequence[Page]) -> tuple[str, ...]:
        """The name of the one column of pictures."""
        return (self.options.value,)

    def stored(self, image: FloatImage, pixels: Pixels, *, source: Source) -> Pixels:
        """The pixels, gray or colour as the contest is."""
        return with_channels(pixels, self.channels)

    def shown(self, stored: Stored) -> FloatImage:
        """Pixels as float32 in [0, 1]."""
        return to_float(stored)

    def encode(self, stored: Stored) -> bytes:
        """The base64 of the packed picture."""
        content = self.pack(stored, options=self.options)
        return base64_cell(content, bytes_text=self.options.bytes_text)

    def decode(self, cells: bytes, *, height: int, width: int) -> FloatImage:
        """The picture in a cell; raises BadCell."""
        content = base64_content(cells, bytes_text=self.options.bytes_text)
        pixels = self.unpack(
            content, options=self.options, height=height, width=width, channels=self.channels
        )
        return to_float(pixels)


def flat_bytes(pixels: Pixels, *, options: Options) -> Pixels:
    """All bytes of a picture, row by row, the channels of a pixel side by side: [H*W*C]."""
    ordered = pixels[..., ::-1] if options.channel_order == "bgr" else pixels
    return np.ascontiguousarray(ordered).reshape(-1)


def picture_of(flat: Pixels, *, options: Options, height: int, width: int, channels: int) -> Pixels:
    """The picture [H, W, C] of its flat bytes; raises BadCell if they are more or fewer."""
    wanted = height * width * channels
    if flat.size != wanted:
        raise BadCell(
            "length",
            f"the cell holds {flat.size:,} bytes of a picture, not the {wanted:,} of "
            f"{width}x{height} px and {channels} channels; write the file again",
        )
    pixels = flat.reshape(height, width, channels)
    return pixels[..., ::-1] if options.channel_order == "bgr" else pixels
