"""Image files in and out: the only place where kbdenoise decodes or encodes pictures.

Pixels are read at their own bit depth (8 or 16) and written rounded, never truncated. In memory an
image is float32 [H, W, C] RGB (or [H, W, 1]) in [0, 1]. What cannot be read without a guess (CMYK,
float, Lab, several pages in one file, transparency that the decoder drops) is refused by name, most
of it in `headers`.
"""

import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, TiffImagePlugin

from kbdenoise.atomic import write_bytes
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.headers import (
    ORIENTATION_TAG,
    TIFF_TILE_WIDTH,
    Header,
    check_name,
    check_whole,
    damaged,
    empty,
    header_from,
    opened,
    read_header,
    unreadable,
    unsupported,
)

__all__ = [
    "SUFFIXES",
    "FloatImage",
    "Header",
    "Picture",
    "Pixels",
    "as_float",
    "encode",
    "list_images",
    "read_header",
    "read_image",
    "read_opaque",
    "read_picture",
    "suffix_rules",
    "to_float",
    "to_pixels",
    "with_channels",
    "write_image",
    "write_pixels",
]

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
    """The image files directly inside `folder`, sorted by name; hidden files are left out.

    Raises DataError if the folder cannot be read, or holds an image whose name is not UTF-8.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot list the folder {folder}: {error.strerror}",
            hint="check that it exists and that you may read it",
        ) from error
    images = [p for p in entries if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    for path in images:
        check_name(path)
    return images


def read_picture(path: Path) -> Picture:
    """Decode an image file at its own bit depth, upright, palette expanded.

    Raises DataError for a file that is missing, empty, cut short, damaged, or of an unsupported
    kind (CMYK, float, signed, Lab, several pages, a gray TIFF with alpha, a gray PNG with a
    transparent value, 16-bit min-is-white or in planes, partly transparent with premultiplied
    colours).
    """
    check_name(path)
    content = _read_bytes(path)
    header = header_from(path, io.BytesIO(content))
    check_whole(path, content)
    stacked = np.atleast_3d(_decode(path, content, header=header))  # [H, W] -> [H, W, 1]
    if stacked.dtype not in (np.uint8, np.uint16):
        raise unsupported(path, f"values of the kind {stacked.dtype}")
    if stacked.shape[:2] != (header.height, header.width) or stacked.shape[2] < header.channels:
        raise damaged(path)
    alpha = np.ascontiguousarray(stacked[..., -1]) if stacked.shape[2] in (2, 4) else None
    if header.alpha and alpha is None:
        raise unsupported(path, "transparency that cannot be read")
    if header.premultiplied and alpha is not None and not _is_opaque(alpha):
        raise unsupported(path, "partly transparent colours that are premultiplied by their alpha")
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
        raise unreadable(path, error) from error
    if not content:
        raise empty(path)
    return content


def _decode(path: Path, content: bytes, *, header: Header) -> Any:
    """The upright pixels in OpenCV's order: [H, W], [H, W, 1], [H, W, 3] BGR or [H, W, 4] BGRA."""
    shallow_tiff = header.tiff and header.bit_depth == 8
    if shallow_tiff and header.channels == 3 and header.alpha and not header.premultiplied:
        return _decode_by_pillow(path, content, header=header)  # OpenCV multiplies by alpha
    _silence_opencv()
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        raise damaged(path) from error
    if decoded is None and shallow_tiff and not header.alpha:
        return _decode_by_pillow(path, content, header=header, tiled=True)
    if decoded is None:
        raise damaged(path)
    return decoded if _turned_by_decoder(header, decoded) else _upright(decoded, header.orientation)


def _decode_by_pillow(path: Path, content: bytes, *, header: Header, tiled: bool = False) -> Any:
    """Decode an 8-bit TIFF that OpenCV does not read as it is stored; result as in `_decode`.

    With `tiled` only one in tiles will do: those of 16 px OpenCV refuses, sound or not.
    """
    mode = "L" if header.channels == 1 else "RGBA" if header.alpha else "RGB"
    try:
        with opened(io.BytesIO(content)) as image:
            assert isinstance(image, TiffImagePlugin.TiffImageFile)
            if tiled and TIFF_TILE_WIDTH not in image.tag_v2:
                raise damaged(path)
            image.load()
            # Newer versions turn a TIFF while loading and drop its tag, older ones do not.
            upright = ImageOps.exif_transpose(image) or image
            pixels = np.atleast_3d(np.asarray(upright.convert(mode)))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as in `header_from`
        raise damaged(path) from error
    return _opencv_order(pixels[..., :3], pixels[..., 3] if mode == "RGBA" else None)


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
    Image.fromarray(stored).save(file, "TIFF", tiffinfo={ORIENTATION_TAG: orientation})
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
