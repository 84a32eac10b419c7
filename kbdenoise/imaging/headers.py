"""What an image file says of itself before its pixels are decoded, and what is refused there.

A file whose values have no single reading as gray or RGB of 8 or 16 bits is refused by name;
only one that contradicts itself, or stops early, is called damaged.
"""

import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from kbdenoise.errors import DataError

# Pillow's mode -> how the file's values relate to gray or RGB
_READABLE_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L"}
_REFUSED_MODES = {
    "CMYK": "CMYK colour, which has no single RGB reading without a printer profile",
    "F": "floating-point values, whose range is not known",
    "I": "32-bit integers, whose range is not known",
    "LAB": "Lab colour",
    "YCbCr": "YCbCr colour",
    "HSV": "HSV colour",
}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC = 256, 257, 258, 262
ORIENTATION_TAG = 274
_TIFF_PLANES, TIFF_TILE_WIDTH, _TIFF_EXTRA, _TIFF_SAMPLE_FORMAT = 284, 322, 338, 339
_MIN_IS_WHITE, _SEPARATE_PLANES, _PREMULTIPLIED = 0, 2, 1
_SIGNED, _FLOAT, _COMPLEX = 2, 3, (5, 6)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_PNG_DEPTH_AT = 24  # byte of the bit depth, which always follows the size in IHDR
# a JPEG marker that is not filling, stuffing, a restart, or another without a length of its own
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"
_MAX_PIXELS, _MAX_SIDE = 2**30, 2**20  # what OpenCV decodes unless it is set up otherwise
_PILLOW = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself before its pixels are decoded."""

    width: int
    """Pixels, after the EXIF orientation is applied."""
    height: int
    channels: int
    """Colour channels: 1 or 3; alpha is not counted."""
    bit_depth: int
    """8 or 16, as its pixels are decoded."""
    alpha: bool
    premultiplied: bool
    """Whether the colours are stored multiplied by alpha, which only a TIFF can say."""
    orientation: int
    """EXIF orientation, 1 to 8; 1 means upright."""
    tiff: bool
    """Whether it is a TIFF, which OpenCV may turn upright by itself while decoding."""


def read_header(path: Path) -> Header:
    """Size, channels, bit depth and orientation of an image file, without decoding it.

    Raises DataError for a file that is missing, empty, no image, or of an unsupported kind.
    """
    check_name(path)
    try:
        if not path.stat().st_size:
            raise empty(path)
        with path.open("rb") as file:
            return header_from(path, file)
    except OSError as error:
        raise unreadable(path, error) from error


def header_from(path: Path, file: BinaryIO) -> Header:
    """The header of an open image file; `path` is for the messages."""
    start = file.read(_PNG_DEPTH_AT + 1)
    file.seek(0)
    try:
        with opened(file) as image:
            refusal = _refusal(image)
            header = None if refusal else _header_of(image, start)
    except Exception as error:  # a damaged tag can raise anything in Pillow, TypeError among it
        raise _broken(path, file, start) from error
    if header is None:
        raise unsupported(path, str(refusal))
    if header.width * header.height > _MAX_PIXELS or max(header.width, header.height) > _MAX_SIDE:
        raise DataError(
            f"{path} is too large to open: {header.width} x {header.height} pixels",
            hint=f"cut it up first, into parts of at most {_MAX_PIXELS} pixels",
        )
    return header


@contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open with Pillow, without its warnings and its limit on pixels; one thread at a time.

    Pillow warns of odd metadata, and takes a page scanned at A3 and 1200 dpi for an attack.
    Python's warning filter and Pillow's limit belong to all threads, so both are put back.
    """
    with _PILLOW, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(file) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def check_name(path: Path) -> None:
    """Refuse a file name that is not text: it can be neither printed nor drawn."""
    try:
        path.name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the file name {path.name!a} is not valid UTF-8",
            hint="rename it to plain characters",
        ) from error


def check_whole(path: Path, content: bytes) -> None:
    """Refuse a PNG with a bad checksum and a PNG or JPEG that stops early.

    Decoders differ by version in how much damage they forgive; a pair that is half gray must
    never reach training.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        whole = _png_is_whole(content)
    elif content.startswith(b"\xff\xd8"):
        whole = _jpeg_is_whole(content)
    else:
        whole = True  # TIFF and BMP: the decoder refuses what is missing
    if not whole:
        raise damaged(path)


def _png_is_whole(content: bytes) -> bool:
    view, at = memoryview(content), 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            return False
        (checksum,) = struct.unpack_from(">I", content, end - 4)
        if zlib.crc32(view[at + 4 : end - 4]) != checksum:
            return False
        if kind == b"IEND":
            return True
        at = end
    return False


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether the first picture has its end; a phone's film clip may follow behind it.

    The segments before the scan are stepped over: a thumbnail in them has an end of its own.
    """
    at, in_scan = 2, False
    while found := _JPEG_MARKER.search(content, at):
        if found[1] == _JPEG_END:
            return in_scan
        in_scan = in_scan or found[1] == _JPEG_SCAN
        length = content[found.end() : found.end() + 2]
        at = found.end() + max(2, int.from_bytes(length, "big"))
    return False


def _refusal(image: Image.Image) -> str | None:
    """What makes an image unreadable without a guess, in words; None if nothing does."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        refusal = _tiff_refusal(image.tag_v2)
        if refusal:
            return refusal
    mode, pages = image.mode, getattr(image, "n_frames", 1)
    if mode in _REFUSED_MODES or mode not in _READABLE_MODES:
        return _REFUSED_MODES.get(mode, f"colour mode {mode}")
    if pages > 1 and image.format != "MPO":  # a JPEG with more views of it behind the first
        return f"{pages} pages in one file"
    return None


def _tiff_refusal(tags: Any) -> str | None:
    """The same from a TIFF's tags alone, which can be read where Pillow knows no such image."""
    bits, formats = max(tags.get(_TIFF_BITS, (1,))), set(tags.get(_TIFF_SAMPLE_FORMAT, (1,)))
    if _FLOAT in formats:
        return _REFUSED_MODES["F"]
    if formats & set(_COMPLEX):
        return "complex numbers"
    if _SIGNED in formats:
        return f"signed {bits}-bit integers, whose range is not known"
    if bits not in (1, 2, 4, 8, 16):
        return f"{bits}-bit integers, whose range is not known"
    if bits > 8 and tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE:
        # OpenCV inverts these at 8 bits and below, but hands back the negative at 16.
        return "16-bit values that count from white to black (min-is-white)"
    if bits > 8 and len(tags.get(_TIFF_BITS)) > 1 and tags.get(_TIFF_PLANES) == _SEPARATE_PLANES:
        # OpenCV mixes up the pixels of these at 16 bits.
        return "16-bit colours in separate planes"
    return None


def _header_of(image: Image.Image, start: bytes) -> Header:
    mode, (width, height) = image.mode, image.size
    premultiplied, deep = False, image.format == "PNG" and start[_PNG_DEPTH_AT] == 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        # The tags, because Pillow's own size of a TIFF is turned in some versions.
        width, height = int(tags[_TIFF_WIDTH]), int(tags[_TIFF_HEIGHT])
        orientation = int(tags.get(ORIENTATION_TAG, 1))
        deep = max(tags.get(_TIFF_BITS, (1,))) > 8
        premultiplied = _PREMULTIPLIED in tags.get(_TIFF_EXTRA, ())
    elif image.format == "PNG" and "exif" not in image.info:
        orientation = 1  # Pillow would decode the whole picture to look for a late chunk
    else:
        orientation = int(image.getexif().get(ORIENTATION_TAG, 1))
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        width, height = height, width
    gray = mode in {"1", "L", "LA"} or mode.startswith("I;16")
    return Header(
        width=width,
        height=height,
        channels=1 if gray or (mode == "P" and _palette_is_gray(image)) else 3,
        bit_depth=16 if deep else 8,
        alpha=mode in {"LA", "RGBA", "PA"} or "transparency" in image.info,
        premultiplied=premultiplied,
        orientation=orientation,
        tiff=isinstance(image, TiffImagePlugin.TiffImageFile),
    )


def _palette_is_gray(image: Image.Image) -> bool:
    palette = np.array(image.getpalette() or [0, 0, 1], dtype=np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _broken(path: Path, file: BinaryIO, start: bytes) -> DataError:
    """The error for a file that Pillow cannot open: unsupported, cut short, or no image at all."""
    if start.startswith(_TIFF_STARTS):
        refusal = _refusal_of_unknown_tiff(file)
        return unsupported(path, refusal) if refusal else damaged(path)
    if start.startswith((b"\x89PNG", b"\xff\xd8", b"BM")):
        return damaged(path)
    return DataError(
        f"{path} is not an image (it begins with {start[:8]!r})",
        hint="remove it, or fetch it again: an error page may have been saved under that name",
    )


def _refusal_of_unknown_tiff(file: BinaryIO) -> str | None:
    try:
        file.seek(0)
        first = file.read(8)
        if b"+" in first[2:4]:  # BigTIFF has longer offsets
            first += file.read(8)
        with _PILLOW, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = TiffImagePlugin.ImageFileDirectory_v2(first)
            file.seek(tags.next)
            tags.load(file)
            return _tiff_refusal(tags) if _TIFF_WIDTH in tags else None
    except Exception:  # as in `header_from`: then it is damaged, and the caller says so
        return None


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file that the system does not hand over."""
    return DataError(
        f"cannot read {path}: {error.strerror}",
        hint="check that it exists and that you may read it",
    )


def empty(path: Path) -> DataError:
    """The error for a file of 0 bytes."""
    return DataError(f"{path} is empty (0 bytes)", hint="fetch it again, or remove it")


def damaged(path: Path) -> DataError:
    """The error for an image whose pixels are not all there."""
    return DataError(
        f"{path} is damaged or cut short: its pixels cannot all be decoded",
        hint="fetch it again, or remove it together with its partner",
    )


def unsupported(path: Path, what: str) -> DataError:
    """The error for a sound image of a kind that is not read without a guess."""
    return DataError(
        f"{path} holds {what}; kbdenoise reads gray and RGB of 8 or 16 bits",
        hint=f"convert it first, for example: magick {path.name} -colorspace sRGB -depth 8 out.png",
    )
