"""Image files in and out: the only place where kbdenoise decodes or encodes pictures.

Pixels are read at their own bit depth (8 or 16) and written rounded, never truncated. In memory an
image is float32 [H, W, C] RGB (or [H, W, 1]) in [0, 1]. What cannot be read without a guess (CMYK,
float, Lab, several pages in one file, transparency that the decoder drops) is refused by name.
"""

import functools
import io
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from kbdenoise.atomic import write_bytes
from kbdenoise.errors import DataError, SettingsError

Pixels = npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
FloatImage = npt.NDArray[np.float32]

# suffix -> (bit depths that can be written, keeps alpha, OpenCV's encoder parameters)
SUFFIXES: dict[str, tuple[tuple[int, ...], bool, tuple[int, ...]]] = {
    ".png": ((8, 16), True, (cv2.IMWRITE_PNG_COMPRESSION, 4)),
    ".tif": ((8, 16), True, (cv2.IMWRITE_TIFF_COMPRESSION, 5)),  # 5 is LZW
    ".tiff": ((8, 16), True, (cv2.IMWRITE_TIFF_COMPRESSION, 5)),
    ".jpg": ((8,), False, (cv2.IMWRITE_JPEG_QUALITY, 95)),
    ".jpeg": ((8,), False, (cv2.IMWRITE_JPEG_QUALITY, 95)),
    ".bmp": ((8,), False, ()),
}

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
_ORIENTATION_TAG = 274
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC = 256, 257, 258, 262
_MIN_IS_WHITE = 0
_WARNINGS = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself before its pixels are decoded."""

    width: int
    """Pixels, after the EXIF orientation is applied."""
    height: int
    channels: int
    """Colour channels: 1 or 3; alpha is not counted."""
    alpha: bool
    orientation: int
    """EXIF orientation, 1 to 8; 1 means upright."""
    tiff: bool
    """Whether it is a TIFF, which OpenCV may turn upright by itself while decoding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded file: pixels as they are in it, upright."""

    pixels: Pixels
    """uint8 or uint16 [H, W, 1] or [H, W, 3] RGB."""
    alpha: Pixels | None
    """uint8 or uint16 [H, W], or None when the file has none."""

    @property
    def bit_depth(self) -> int:
        """8 or 16."""
        return self.pixels.itemsize * 8


def list_images(folder: Path) -> list[Path]:
    """The image files directly inside `folder`, sorted by name; hidden files are left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder}: {error.strerror}",
            hint="check that it exists and that you may read it",
        ) from error
    return [p for p in entries if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]


def read_header(path: Path) -> Header:
    """Size, channels and orientation of an image file, without decoding it.

    Raises DataError for a file that is missing, empty, no image, or of an unsupported kind.
    """
    try:
        if not path.stat().st_size:
            raise _empty(path)
        return _header(path, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_picture(path: Path) -> Picture:
    """Decode an image file at its own bit depth, upright, palette expanded.

    Raises DataError for a file that is missing, empty, cut short, damaged, or of an unsupported
    kind (CMYK, float, Lab, several pages, a gray TIFF with alpha, a gray PNG with a transparent
    value, 16-bit min-is-white).
    """
    content = _read_bytes(path)
    header = _header(path, io.BytesIO(content))
    _check_whole(path, content)
    decoded = _decode(path, content)
    if decoded.dtype not in (np.uint8, np.uint16):
        raise _unsupported(path, _REFUSED_MODES["F" if decoded.dtype.kind == "f" else "I"])
    stacked = np.atleast_3d(decoded)  # [H, W] -> [H, W, 1]
    if not _turned_by_decoder(header, stacked):
        stacked = _upright(stacked, header.orientation)
    if stacked.shape[:2] != (header.height, header.width) or stacked.shape[2] < header.channels:
        raise _damaged(path)
    alpha = np.ascontiguousarray(stacked[..., -1]) if stacked.shape[2] in (2, 4) else None
    if header.alpha and alpha is None:
        raise _unsupported(path, "transparency that cannot be read")
    colours = stacked[..., :1] if header.channels == 1 else stacked[..., 2::-1]
    return Picture(pixels=np.ascontiguousarray(colours), alpha=alpha)


def read_image(path: Path, *, channels: int | None = None) -> FloatImage:
    """Read an image as float32 [H, W, C] in [0, 1].

    `channels` 1 asks for luma, 3 for RGB, None for what the file holds. Raises DataError as
    `read_picture` does, and for a picture that is partly transparent.
    """
    return to_float(with_channels(read_opaque(path), channels))


def read_opaque(path: Path) -> Pixels:
    """The pixels of an image that must not be transparent: uint8 or uint16 [H, W, 1 or 3]."""
    picture = read_picture(path)
    if picture.alpha is not None and not _is_opaque(picture.alpha):
        raise DataError(
            f"{path} is partly transparent, so its colours depend on what lies behind it",
            hint="flatten it onto a background first, or remove its alpha channel",
        )
    return picture.pixels


def with_channels(pixels: Pixels, channels: int | None) -> Pixels:
    """Convert [H, W, 1 or 3] to `channels`: gray is repeated, RGB becomes full-range luma.

    An RGB picture whose channels are equal gives exactly its gray value.
    """
    if channels is None or pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    gray: Any = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    gray_pixels: Pixels = gray[..., None]
    return gray_pixels


def to_float(pixels: Pixels) -> FloatImage:
    """uint8 or uint16 pixels as float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def as_float(source: Pixels | FloatImage) -> FloatImage:
    """An image in either form as float32 in [0, 1]; a float image is handed back as it is."""
    values: Any = source
    image: FloatImage = values if values.dtype == np.float32 else to_float(values)
    return image


def to_pixels(image: FloatImage, *, bit_depth: int = 8) -> Pixels:
    """A float image in [0, 1] as uint8 or uint16, clipped and rounded to the nearest value.

    Raises DataError if a value is NaN or infinite: such an image has no picture.
    """
    if not np.isfinite(image).all():
        raise DataError(
            "the image holds values that are not finite (NaN or infinity)",
            hint="the model's weights are damaged or overflowed; use another checkpoint or fp32",
        )
    top = 2**bit_depth - 1
    rounded = np.rint(np.clip(image, 0.0, 1.0) * top)
    pixels: Pixels = rounded.astype(f"uint{bit_depth}")
    return pixels


def write_image(
    path: Path, image: FloatImage, *, bit_depth: int = 8, alpha: Pixels | None = None
) -> None:
    """Write a float image [H, W, 1 or 3] in [0, 1] to a PNG, TIFF (LZW), JPEG or BMP file.

    The file appears whole or not at all. `alpha` [H, W] is written where the format keeps it.
    """
    write_pixels(path, to_pixels(image, bit_depth=bit_depth), alpha=alpha)


def write_pixels(path: Path, pixels: Pixels, *, alpha: Pixels | None = None) -> None:
    """Write uint8 or uint16 pixels [H, W, 1 or 3] exactly (JPEG: at quality 95), atomically.

    Gray with alpha is written as RGBA with equal channels: OpenCV encodes no gray with alpha, and
    does not read it from a TIFF. Raises SettingsError if the format cannot hold the bit depth or
    the alpha channel.
    """
    content = encode(pixels, suffix=path.suffix, alpha=alpha)
    write_bytes(path, content)


def encode(pixels: Pixels, *, suffix: str, alpha: Pixels | None = None) -> bytes:
    """The bytes of an image file; arguments as for `write_pixels`."""
    depths, keeps_alpha, parameters = suffix_rules(suffix)
    bit_depth = pixels.itemsize * 8
    if bit_depth not in depths or (alpha is not None and not keeps_alpha):
        what = "an alpha channel" if bit_depth in depths else f"{bit_depth}-bit values"
        raise SettingsError(f"{suffix} files cannot hold {what}", hint="write .png or .tif instead")
    ok, encoded = cv2.imencode(suffix.lower(), _opencv_order(pixels, alpha), list(parameters))
    assert ok, f"OpenCV could not encode {suffix}"
    return bytes(encoded)


def suffix_rules(suffix: str) -> tuple[tuple[int, ...], bool, tuple[int, ...]]:
    """The table row of a suffix such as '.png'; raises SettingsError for one we cannot write."""
    if suffix.lower() not in SUFFIXES:
        raise SettingsError(
            f"'{suffix}' is not an image suffix we know", hint="use one of " + " ".join(SUFFIXES)
        )
    return SUFFIXES[suffix.lower()]


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not content:
        raise _empty(path)
    return content


def _header(path: Path, source: Path | io.BytesIO) -> Header:
    """Read the header from the file itself or from its content in memory."""
    try:
        # Pillow warns of odd metadata, and Python's warning filter belongs to all threads.
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source) as image:
                refusal, header = _refusal(image), _header_of(image)
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large to open: {error}", hint="cut it up first") from error
    except Exception as error:  # a damaged tag can raise anything in Pillow, TypeError among it
        raise _broken(path) from error
    if refusal:
        raise _unsupported(path, refusal)
    return header


def _refusal(image: Image.Image) -> str | None:
    """What makes an image unreadable without a guess, in words; None if nothing does."""
    mode, pages = image.mode, getattr(image, "n_frames", 1)
    if mode in _REFUSED_MODES or mode not in _READABLE_MODES:
        return _REFUSED_MODES.get(mode, f"colour mode {mode}")
    if pages > 1:
        return f"{pages} pages in one file"
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        # OpenCV inverts these at 8 bits and below, but hands back the negative at 16.
        if tags.get(_TIFF_PHOTOMETRIC) == _MIN_IS_WHITE and max(tags.get(_TIFF_BITS, (1,))) > 8:
            return "16-bit values that count from white to black (min-is-white)"
    return None


def _header_of(image: Image.Image) -> Header:
    mode, (width, height) = image.mode, image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # The tags, because Pillow's own size of a TIFF is turned in some versions.
        width, height = int(image.tag_v2[_TIFF_WIDTH]), int(image.tag_v2[_TIFF_HEIGHT])
        orientation = int(image.tag_v2.get(_ORIENTATION_TAG, 1))
    elif image.format == "PNG" and "exif" not in image.info:
        orientation = 1  # Pillow would decode the whole picture to look for a late chunk
    else:
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1))
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        width, height = height, width
    gray = mode in {"1", "L", "LA"} or mode.startswith("I;16")
    return Header(
        width=width,
        height=height,
        channels=1 if gray or (mode == "P" and _palette_is_gray(image)) else 3,
        alpha=mode in {"LA", "RGBA", "PA"} or "transparency" in image.info,
        orientation=orientation,
        tiff=isinstance(image, TiffImagePlugin.TiffImageFile),
    )


def _palette_is_gray(image: Image.Image) -> bool:
    palette = np.array(image.getpalette() or [0, 0, 1], dtype=np.uint8).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _check_whole(path: Path, content: bytes) -> None:
    """Refuse a PNG with a bad checksum and a PNG or JPEG that stops early.

    Decoders differ by version in how much damage they forgive; a pair that is half gray must
    never reach training.
    """
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        whole = _png_is_whole(content)
    elif content.startswith(b"\xff\xd8"):
        whole = b"\xff\xd9" in content[-4096:]
    else:
        whole = True  # TIFF and BMP: the decoder refuses what is missing
    if not whole:
        raise _damaged(path)


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


def _decode(path: Path, content: bytes) -> Any:
    _silence_opencv()
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _damaged(path) from error
    if decoded is None:
        raise _damaged(path)
    return decoded


def _silence_opencv() -> None:
    """Our own errors say it better; the level belongs to all threads, so it stays."""
    opencv: Any = cv2
    # OpenCV 5 moved the function from the top to a module of its own; 0 is silent in both.
    level_of = opencv if hasattr(opencv, "setLogLevel") else opencv.utils.logging
    level_of.setLogLevel(0)


def _turned_by_decoder(header: Header, decoded: npt.NDArray[Any]) -> bool:
    """Whether OpenCV has applied the orientation already, as it does for TIFF only."""
    height, width = decoded.shape[:2]
    if header.orientation == 1 or not header.tiff:
        return False
    if header.orientation >= 5 and height != width:
        return (height, width) == (header.height, header.width)
    return _decoder_turns_tiffs(header.orientation, decoded.dtype.name)


@functools.cache
def _decoder_turns_tiffs(orientation: int, dtype: str) -> bool:
    """Ask this OpenCV with a tiny TIFF, because its versions and bit depths may differ."""
    stored = np.arange(6, dtype=dtype).reshape(2, 3)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "TIFF", tiffinfo={_ORIENTATION_TAG: orientation})
    content = np.frombuffer(file.getvalue(), np.uint8)
    decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    return np.array_equal(np.asarray(decoded), _upright(stored, orientation))


def _upright(array: Any, orientation: int) -> Any:
    """Apply an EXIF orientation to [H, W] or [H, W, C]."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)  # [H, W] -> [W, H]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _opencv_order(pixels: Pixels, alpha: Pixels | None) -> npt.NDArray[Any]:
    if alpha is None:
        return np.ascontiguousarray(pixels[..., ::-1])
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.dstack([rgb[..., ::-1], alpha])


def _is_opaque(alpha: Pixels) -> bool:
    return bool((alpha == np.iinfo(alpha.dtype).max).all())


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot read {path}: {error.strerror}",
        hint="check that it exists and that you may read it",
    )


def _empty(path: Path) -> DataError:
    return DataError(f"{path} is empty (0 bytes)", hint="fetch it again, or remove it")


def _broken(path: Path) -> DataError:
    """The error for a file without a readable header: an image cut short, or no image at all."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        return _unreadable(path, error)
    if head.startswith((b"II*\0", b"MM\0*", b"\x89PNG", b"\xff\xd8", b"BM")):
        return _damaged(path)
    return DataError(
        f"{path} is not an image (it begins with {head!r})",
        hint="remove it, or fetch it again: an error page may have been saved under that name",
    )


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is damaged or cut short: its pixels cannot all be decoded",
        hint="fetch it again, or remove it together with its partner",
    )


def _unsupported(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} holds {what}; kbdenoise reads gray and RGB of 8 or 16 bits",
        hint=f"convert it first, for example: magick {path.name} -colorspace sRGB -depth 8 out.png",
    )
