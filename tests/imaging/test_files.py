import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging import files
from kbdenoise.imaging.files import (
    list_images,
    read_header,
    read_image,
    read_opaque,
    read_picture,
    to_float,
    to_pixels,
    with_channels,
    write_image,
    write_pixels,
)


def pixels(dtype: type = np.uint8, *, channels: int = 3, seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (23, 37, channels), dtype=dtype)


def pillow_file(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_give_back_every_pixel(tmp_path: Path, suffix: str, channels: int) -> None:
    written = pixels(channels=channels)

    write_pixels(tmp_path / f"a.b{suffix}", written)
    read = read_picture(tmp_path / f"a.b{suffix}")

    np.testing.assert_array_equal(with_channels(read.pixels, channels), written)
    assert read.bit_depth == 8
    assert read.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path, suffix: str, channels: int) -> None:
    written = pixels(np.uint16, channels=channels)

    write_pixels(tmp_path / f"a{suffix}", written)
    read = read_picture(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(read.pixels, written)
    assert read.bit_depth == 16


def test_the_order_of_colours_is_red_green_blue(tmp_path: Path) -> None:
    pillow_file(tmp_path / "red.png", Image.new("RGB", (5, 4), (255, 10, 20)))

    read = read_picture(tmp_path / "red.png")

    assert read.pixels[0, 0].tolist() == [255, 10, 20]


def test_alpha_is_kept_apart_and_written_back(tmp_path: Path) -> None:
    colours, alpha = pixels(), pixels(channels=1, seed=1)[..., 0]

    write_pixels(tmp_path / "a.png", colours, alpha=alpha)
    read = read_picture(tmp_path / "a.png")

    np.testing.assert_array_equal(read.pixels, colours)
    np.testing.assert_array_equal(read.alpha, alpha)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(23, 37), (16, 16)])
def test_colours_of_a_tiff_are_not_multiplied_by_its_alpha(
    tmp_path: Path, orientation: int, dtype: type, shape: tuple
) -> None:
    top = np.iinfo(dtype).max
    stored = np.random.default_rng(2).integers(0, top + 1, (*shape, 4), dtype=dtype)
    path = tiff_file(
        tmp_path / "a.tif", stored, orientation=orientation, extrasamples=["unassalpha"]
    )

    read = read_picture(path)

    np.testing.assert_array_equal(read.pixels, turned(stored, orientation)[..., :3])
    np.testing.assert_array_equal(read.alpha, turned(stored, orientation)[..., 3])


def test_colours_multiplied_by_their_alpha_are_read_only_where_opaque(tmp_path: Path) -> None:
    colours, solid = pixels(), np.full((23, 37), 255, np.uint8)
    opaque, glass = np.dstack([colours, solid]), np.dstack([colours // 2, solid // 2])
    tiff_file(tmp_path / "opaque.tif", opaque, extrasamples=["assocalpha"])
    tiff_file(tmp_path / "glass.tif", glass, extrasamples=["assocalpha"])

    np.testing.assert_array_equal(read_picture(tmp_path / "opaque.tif").pixels, colours)
    with pytest.raises(DataError, match="premultiplied"):
        read_picture(tmp_path / "glass.tif")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tiff_in_small_tiles_is_read(tmp_path: Path, channels: int, orientation: int) -> None:
    stored = pixels(channels=channels)
    path = tiff_file(tmp_path / "t.tif", stored.squeeze(), orientation=orientation, tile=(16, 16))

    np.testing.assert_array_equal(read_picture(path).pixels, turned(stored, orientation))

    path.write_bytes(path.read_bytes()[: -200 * channels])  # past the filling of the last tile
    with pytest.raises(DataError, match="damaged"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".bmp"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_header_knows_the_bit_depth(
    tmp_path: Path, suffix: str, channels: int, dtype: type
) -> None:
    path = tmp_path / f"a{suffix}"
    if dtype == np.uint16 and suffix in (".jpg", ".bmp"):
        suffix = ".png"  # under a name that tells another kind
    path.write_bytes(files.encode(pixels(dtype, channels=channels), suffix=suffix))

    depth = read_header(path).bit_depth

    assert depth == read_picture(path).bit_depth == np.iinfo(dtype).bits


def test_a_tiff_is_written_with_lzw(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.tif", pixels())

    with Image.open(tmp_path / "a.tif") as image:
        assert image.info["compression"] == "tiff_lzw"


def test_a_palette_is_expanded_to_its_colours(tmp_path: Path) -> None:
    flat = Image.fromarray(np.repeat(np.arange(8, dtype=np.uint8) * 30, 16).reshape(8, 16))
    coloured = Image.merge("RGB", (flat, Image.new("L", flat.size, 7), flat))
    pillow_file(tmp_path / "p.png", coloured.convert("P", palette=Image.Palette.ADAPTIVE))

    read = read_picture(tmp_path / "p.png")

    np.testing.assert_array_equal(read.pixels, np.asarray(coloured))


def test_one_bit_pictures_read_as_black_and_white(tmp_path: Path) -> None:
    bits = pixels(channels=1)[..., 0] > 127
    pillow_file(tmp_path / "b.png", Image.fromarray(bits))

    read = read_picture(tmp_path / "b.png")

    np.testing.assert_array_equal(read.pixels[..., 0], bits * 255)


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture, from what EXIF says that the stored row 0 and column 0 are."""
    height, width = stored.shape[:2]
    sides = (width, height) if orientation >= 5 else (height, width)
    upright = np.empty((*sides, *stored.shape[2:]), stored.dtype)
    for row in range(height):
        for column in range(width):
            below, right = height - 1 - row, width - 1 - column
            place = {
                1: (row, column),  # row 0 is the top, column 0 the left side
                2: (row, right),  # top, right
                3: (below, right),  # bottom, right
                4: (below, column),  # bottom, left
                5: (column, row),  # row 0 is the left side, column 0 the top
                6: (column, below),  # right, top
                7: (right, below),  # right, bottom
                8: (right, row),  # left, bottom
            }[orientation]
            upright[place] = stored[row, column]
    return upright


def oriented_file(path: Path, stored: np.ndarray, orientation: int) -> Path:
    """Write [H, W, 1 or 3] with an orientation tag and without turning anything."""
    if path.suffix == ".tif":
        return tiff_file(path, stored.squeeze(), orientation=orientation)
    write_pixels(path, stored)
    content = path.read_bytes()
    exif = Image.Exif()
    exif[274] = orientation
    body = exif.tobytes()
    if path.suffix == ".jpg":
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        path.write_bytes(content[:2] + segment + content[2:])
    else:
        tiff = b"eXIf" + body.removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(tiff) - 4) + tiff + struct.pack(">I", zlib.crc32(tiff))
        path.write_bytes(content[:33] + chunk + content[33:])  # after IHDR
    return path


def tiff_file(path: Path, stored: np.ndarray, *, orientation: int = 1, **options: object) -> Path:
    kind = {"photometric": "rgb" if stored.ndim == 3 else "minisblack"} | options
    tifffile.imwrite(path, stored, extratags=[(274, "H", 1, orientation, True)], **kind)
    return path


@pytest.mark.parametrize("shape", [(24, 40), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (".png", np.uint8),
        (".png", np.uint16),
        (".tif", np.uint8),
        (".tif", np.uint16),
        (".jpg", np.uint8),
    ],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright_once(
    tmp_path: Path, orientation: int, suffix: str, dtype: type, channels: int, shape: tuple
) -> None:
    slopes = np.arange(shape[0])[:, None] * 2 + np.arange(shape[1]) * 4
    stored = np.dstack([slopes + 5 * c for c in range(channels)]).astype(dtype)
    path = oriented_file(tmp_path / f"o{suffix}", stored, orientation)

    picture, header = read_picture(path), read_header(path)

    upright = turned(stored, orientation)
    assert picture.pixels.shape == upright.shape
    assert (header.height, header.width, header.channels) == upright.shape
    difference = np.abs(picture.pixels.astype(int) - upright.astype(int))
    assert difference.max() <= (6 if suffix == ".jpg" else 0)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("shape", [(23, 37), (9, 9)])
def test_a_decoder_that_leaves_tiffs_as_stored_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int, shape: tuple
) -> None:
    stored = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    path = tiff_file(tmp_path / "o.tif", stored, orientation=orientation)
    decode, back = cv2.imdecode, {3: 3, 6: 8}[orientation]
    monkeypatch.setattr(cv2, "imdecode", lambda *given: turned(decode(*given), back))
    files._decoder_turns_tiffs.cache_clear()

    try:
        read = read_picture(path).pixels[..., 0]
    finally:
        files._decoder_turns_tiffs.cache_clear()

    np.testing.assert_array_equal(read, turned(stored, orientation))


def test_pixels_that_do_not_fit_the_header_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pixels(tmp_path / "a.png", pixels())
    monkeypatch.setattr(cv2, "imdecode", lambda *given: pixels()[:-1])

    with pytest.raises(DataError, match="damaged"):
        read_picture(tmp_path / "a.png")


def test_gray_with_alpha_in_a_png_stays_gray_with_alpha(tmp_path: Path) -> None:
    gray, alpha = pixels(channels=1), pixels(channels=1, seed=1)[..., 0]
    pillow_file(tmp_path / "la.png", Image.fromarray(np.dstack([gray, alpha])))

    read = read_picture(tmp_path / "la.png")

    np.testing.assert_array_equal(read.pixels, gray)
    np.testing.assert_array_equal(read.alpha, alpha)


def test_gray_with_alpha_is_written_as_equal_channels(tmp_path: Path) -> None:
    gray, alpha = pixels(channels=1), pixels(channels=1, seed=1)[..., 0]

    for name in ("a.png", "a.tif"):
        write_pixels(tmp_path / name, gray, alpha=alpha)
        read = read_picture(tmp_path / name)

        np.testing.assert_array_equal(read.pixels, np.repeat(gray, 3, axis=2))
        np.testing.assert_array_equal(read.alpha, alpha)


@pytest.mark.parametrize("name", ["la.tif", "value.png"])
def test_transparency_that_the_decoder_drops_is_refused(tmp_path: Path, name: str) -> None:
    if name == "la.tif":
        pillow_file(tmp_path / name, Image.fromarray(pixels(channels=2)))
    else:
        pillow_file(tmp_path / name, Image.fromarray(pixels()[..., 0]), transparency=7)

    with pytest.raises(DataError, match="transparency that cannot be read"):
        read_picture(tmp_path / name)


def test_a_transparent_colour_of_an_rgb_png_becomes_alpha(tmp_path: Path) -> None:
    stored = pixels()
    colour = tuple(int(value) for value in stored[3, 4])
    pillow_file(tmp_path / "a.png", Image.fromarray(stored), transparency=colour)

    read = read_picture(tmp_path / "a.png")

    np.testing.assert_array_equal(read.alpha == 0, (stored == stored[3, 4]).all(axis=2))


def test_eight_bit_tiffs_that_count_from_white_are_read_as_pictures(tmp_path: Path) -> None:
    stored = pixels(channels=1)[..., 0]
    tiff_file(tmp_path / "a.tif", stored, photometric="miniswhite")

    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], 255 - stored)


def test_one_bit_tiffs_that_count_from_white_are_read_as_pictures(tmp_path: Path) -> None:
    bits = pixels(channels=1)[..., 0] > 127
    pillow_file(tmp_path / "a.tif", Image.fromarray(bits), tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0
        expected = np.asarray(image) * 255

    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels[..., 0], expected)


def test_sixteen_bit_tiffs_that_count_from_white_are_refused(tmp_path: Path) -> None:
    stored = pixels(np.uint16, channels=1)[..., 0]
    tiff_file(tmp_path / "a.tif", stored, photometric="miniswhite")

    with pytest.raises(DataError, match="min-is-white"):
        read_header(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "image", "word"),
    [
        ("c.jpg", Image.new("CMYK", (9, 9)), "CMYK"),
        ("c.tif", Image.new("CMYK", (9, 9)), "CMYK"),
        ("f.tif", Image.new("F", (9, 9)), "floating-point"),
        ("i.tif", Image.new("I", (9, 9)), "32-bit"),
        ("l.tif", Image.new("LAB", (9, 9)), "Lab"),
    ],
)
def test_what_cannot_be_read_without_a_guess_is_refused_by_name(
    tmp_path: Path, name: str, image: Image.Image, word: str
) -> None:
    path = pillow_file(tmp_path / name, image)

    with pytest.raises(DataError, match=word) as caught:
        read_picture(path)

    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (np.float16, "floating-point values"),
        (np.float32, "floating-point values"),
        (np.float64, "floating-point values"),
        (np.int8, "signed 8-bit integers"),
        (np.int16, "signed 16-bit integers"),
        (np.uint32, " 32-bit integers"),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_other_numbers_is_refused_by_their_name(
    tmp_path: Path, dtype: type, words: str, channels: int, big: bool
) -> None:
    stored = pixels(channels=channels).squeeze().astype(dtype)
    tiff_file(tmp_path / "f.tif", stored, bigtiff=big)

    for read in (read_header, read_picture):
        with pytest.raises(DataError, match=words):
            read(tmp_path / "f.tif")


def test_deep_colours_in_separate_planes_are_refused_and_shallow_ones_read(tmp_path: Path) -> None:
    stored = pixels()
    planes = np.ascontiguousarray(stored.transpose(2, 0, 1))
    tiff_file(tmp_path / "8.tif", planes, photometric="rgb", planarconfig="separate")
    deep = planes.astype(np.uint16)
    tiff_file(tmp_path / "16.tif", deep, photometric="rgb", planarconfig="separate")

    np.testing.assert_array_equal(read_picture(tmp_path / "8.tif").pixels, stored)
    with pytest.raises(DataError, match="separate planes"):
        read_picture(tmp_path / "16.tif")


def test_several_pages_in_one_file_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(pixels())
    pillow_file(tmp_path / "m.tif", page, save_all=True, append_images=[page])

    with pytest.raises(DataError, match="2 pages"):
        read_picture(tmp_path / "m.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"cut{suffix}"
    write_pixels(path, pixels())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])

    with pytest.raises(DataError, match=r"cut short|not an image"):
        read_picture(path)


def jpeg_with_thumbnail(path: Path, **options: object) -> bytes:
    """A JPEG whose metadata hold a whole small JPEG; returns its content."""
    pillow_file(path, Image.fromarray(pixels(seed=1)[:8, :8]))
    comment = b"\xff\xfe" + struct.pack(">H", path.stat().st_size + 2) + path.read_bytes()
    pillow_file(path, Image.fromarray(pixels()), **options)
    content = path.read_bytes()
    path.write_bytes(content[:2] + comment + content[2:])
    return path.read_bytes()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_something_behind_its_end_is_whole(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "motion.jpg"
    content = jpeg_with_thumbnail(path, progressive=progressive)
    alone = read_picture(path).pixels

    path.write_bytes(content + bytes(10_000))

    np.testing.assert_array_equal(read_picture(path).pixels, alone)


@pytest.mark.parametrize("progressive", [False, True])
def test_the_end_of_a_thumbnail_does_not_make_a_jpeg_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progressive: bool
) -> None:
    path = tmp_path / "cut.jpg"
    content = jpeg_with_thumbnail(path, progressive=progressive)
    # Some versions of the decoder fill up what is missing.
    monkeypatch.setattr(cv2, "imdecode", lambda *given: pixels())

    assert read_picture(path).pixels.shape == (23, 37, 3)
    path.write_bytes(content[:-20])

    with pytest.raises(DataError, match="cut short"):
        read_picture(path)


def test_the_first_picture_of_a_jpeg_with_several_views_is_read(tmp_path: Path) -> None:
    first, second = Image.fromarray(pixels()), Image.fromarray(pixels(seed=1))
    pillow_file(tmp_path / "one.jpg", first)
    path = pillow_file(
        tmp_path / "two.jpg", first, format="MPO", save_all=True, append_images=[second]
    )

    read = read_picture(path).pixels

    np.testing.assert_array_equal(read, read_picture(tmp_path / "one.jpg").pixels)


def png_of_size(path: Path, width: int, height: int) -> Path:
    """A PNG whose header states a size that its pixels do not have."""
    write_pixels(path, pixels(channels=1))
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, width, height)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def test_a_large_scan_is_opened_and_the_limit_of_pillow_put_back(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    path = png_of_size(tmp_path / "a.png", 14_000, 14_000)

    header = read_header(path)

    assert (header.width, header.height) == (14_000, 14_000)
    assert limit == Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("size", [(32_768, 32_769), (2**20 + 1, 1)])
def test_an_image_too_large_for_the_decoder_is_refused(tmp_path: Path, size: tuple) -> None:
    path = png_of_size(tmp_path / "a.png", *size)

    for read in (read_header, read_picture):
        with pytest.raises(DataError, match="too large"):
            read(path)


def test_a_png_with_flipped_bits_is_refused(tmp_path: Path) -> None:
    write_pixels(tmp_path / "a.png", pixels())
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 0x10
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(DataError, match="damaged"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"<html><title>404</title></html>"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)

    with pytest.raises(DataError, match=r"empty|not an image"):
        read_picture(tmp_path / "a.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.png"):
        read_picture(tmp_path / "none.png")


def test_transparent_pictures_are_refused_where_alpha_has_no_meaning(tmp_path: Path) -> None:
    solid = np.full((23, 37), 255, np.uint8)
    write_pixels(tmp_path / "solid.png", pixels(), alpha=solid)
    write_pixels(tmp_path / "glass.png", pixels(), alpha=solid - 1)

    assert read_opaque(tmp_path / "solid.png").shape == (23, 37, 3)
    with pytest.raises(DataError, match="transparent"):
        read_opaque(tmp_path / "glass.png")


def test_gray_in_three_channels_becomes_exactly_that_gray() -> None:
    gray = pixels(channels=1)

    np.testing.assert_array_equal(with_channels(np.repeat(gray, 3, axis=2), 1), gray)
    np.testing.assert_array_equal(with_channels(gray, 3), np.repeat(gray, 3, axis=2))


@given(npst.arrays(np.uint8, (3, 4, 3)))
def test_pixels_survive_the_trip_through_floats(values: np.ndarray) -> None:
    np.testing.assert_array_equal(to_pixels(to_float(values)), values)


@given(st.floats(0, 1, width=32))
def test_writing_rounds_to_the_nearest_value(value: float) -> None:
    image = np.full((1, 1, 1), value, np.float32)

    assert abs(int(to_pixels(image)[0, 0, 0]) - 255 * value) <= 0.5 + 1e-4


def test_values_out_of_range_are_clipped_and_not_wrapped() -> None:
    image = np.array([[[-0.5], [1.5]]], np.float32)

    assert to_pixels(image).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_never_written(tmp_path: Path, value: float) -> None:
    image = np.full((4, 4, 1), value, np.float32)

    with pytest.raises(DataError, match="not finite"):
        write_image(tmp_path / "a.png", image)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_format_too_small_for_the_values_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SettingsError, match="16-bit"):
        write_pixels(tmp_path / f"a{suffix}", pixels(np.uint16))
    with pytest.raises(SettingsError, match="alpha"):
        write_pixels(tmp_path / f"a{suffix}", pixels(), alpha=pixels(channels=1)[..., 0])


def test_an_unknown_suffix_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        write_pixels(tmp_path / "a.gif", pixels())

    assert ".png" in caught.value.hint


def test_hidden_and_foreign_files_are_not_listed(tmp_path: Path) -> None:
    for name in ("b.png", "a.TIF", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()

    assert [p.name for p in list_images(tmp_path)] == ["a.TIF", "b.png"]


def test_a_file_name_that_is_not_text_is_refused_in_printable_form(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.png"
    try:
        write_pixels(path, pixels())
    except (DataError, OSError):
        pytest.skip("this file system takes no such names")

    for read, given_path in ((list_images, tmp_path), (read_header, path), (read_picture, path)):
        with pytest.raises(DataError, match="caf") as caught:
            read(given_path)
        assert caught.value.message.isascii()
        assert caught.value.hint == "rename it to plain characters"


def test_names_in_any_script_are_listed(tmp_path: Path) -> None:
    (tmp_path / "größe 図.png").touch()

    assert [p.name for p in list_images(tmp_path)] == ["größe 図.png"]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """RLIMIT_FSIZE fails a real write in the middle, as a full disk does."""
    path = tmp_path / "a.png"
    write_pixels(path, pixels())
    before = path.read_bytes()
    program = (
        "import resource, signal, sys, numpy as np; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from kbdenoise.imaging.files import write_pixels\n"
        "from kbdenoise.errors import DataError\n"
        "noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)\n"
        f"path = Path({str(path)!r})\n"
        "try: write_pixels(path, noise)\n"
        "except DataError as error: print(error.message)\n"
    )

    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "no space left" in answer.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@settings(max_examples=30)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"II*\0"]))
def test_garbage_never_gives_anything_but_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, magic: bytes
) -> None:
    path = tmp_path_factory.mktemp("g") / "a.png"
    path.write_bytes(magic + garbage)

    with pytest.raises(DataError):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_damage_anywhere_gives_a_data_error_or_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_pixels(path, pixels())
    whole, rng = path.read_bytes(), np.random.default_rng(5)

    for _ in range(20):
        content = bytearray(
            whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole
        )
        spots = [
            *rng.integers(0, len(content), 3),
            -int(rng.integers(1, min(150, len(content)) + 1)),
        ]
        for spot in spots:  # the last is near the end, where a TIFF has its tags
            content[spot] = rng.integers(0, 256)
        path.write_bytes(content)

        try:
            picture = read_picture(path)
        except DataError:
            continue
        assert picture.pixels.ndim == 3


def test_a_tiff_whose_next_page_has_no_size_is_damaged(tmp_path: Path) -> None:
    path = tiff_file(tmp_path / "a.tif", pixels()[..., 0])
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, start)
    struct.pack_into("<I", content, start + 2 + 12 * entries, len(content))
    lone_entry = struct.pack("<HHHIII", 1, 262, 3, 1, 1, 0)  # a page that has only its photometric
    path.write_bytes(content + lone_entry)

    with pytest.raises(DataError, match="damaged"):
        read_header(path)


def test_a_float_image_reads_back_within_half_a_step(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((9, 7, 3), dtype=np.float32)

    write_image(tmp_path / "a.png", image)

    assert np.abs(read_image(tmp_path / "a.png") - image).max() <= 0.5 / 255 + 1e-6


def test_a_lack_of_memory_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pixels(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))

    def decode(content: object, flags: int) -> None:
        error = cv2.error("Insufficient memory")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(MemoryError):
        read_picture(tmp_path / "a.png")
