"""Formats whose rows are pictures: written, read back, and refused with a sentence when damaged."""

import base64
import random
import re
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import FORMATS, Page, Restored, csv_bytes
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import FloatImage, Pixels, to_float

STEMS = ["1", "4", "10", "Mag.0001.02", "a_1", "ü ß", "a,b", 'say "a"']
NAMES = ["pixels-wide", "raw-b64", "png-b64", "rle-zlib-b64", "mask-rle"]


def contest_of(name: str, *, folder: Path = Path("."), **rules: object) -> LocalContest:
    chosen = {"slug": "tiny", "channels": 1, "format": name} | rules
    return LocalContest(folder=folder, contest=Contest(**chosen))  # type: ignore[arg-type]


def page_of(stem: str, height: int = 2, width: int = 3) -> Page:
    return Page(stem=stem, name=f"{stem}.tif", path=Path(f"{stem}.tif"), height=height, width=width)


def picture_of(page: Page, pixels: object) -> Restored:
    image = to_float(np.asarray(pixels, np.uint8).reshape(page.height, page.width, -1))
    return Restored(stem=page.stem, name=page.name, image=image)


def random_pixels(page: Page, channels: int, *, flat: bool = False) -> Pixels:
    """Random pixels; `flat` ones have long runs, as restored pages do."""
    rng = np.random.default_rng([page.height, page.width, channels, *map(ord, page.stem)])
    values = rng.choice(
        [0, 127, 128, 255], (page.height, page.width, channels), p=[0, 0.01, 0, 0.99]
    )
    return (
        values.astype(np.uint8)
        if flat
        else rng.integers(0, 256, (page.height, page.width, channels), np.uint8)
    )


def written(
    path: Path, pages: Sequence[Page], images: Sequence[Pixels], contest: LocalContest, **options
) -> Path:
    chosen = FORMATS[contest.contest.format]
    pictures = [picture_of(page, image) for page, image in zip(pages, images, strict=True)]
    chosen.write(path, pictures, contest=contest, pages=pages, **options)
    return path


def read(path: Path, pages: Sequence[Page], contest: LocalContest) -> dict[str, object]:
    return dict(FORMATS[contest.contest.format].read(path, contest=contest, pages=pages))


# ---- the first bytes of each file


def test_pixels_wide_begins_as_its_contest_wants_it(tmp_path: Path) -> None:
    pages = [page_of("img13", 1, 2), page_of("img12", 1, 2)]

    path = written(tmp_path / "s.csv", pages, [[17, 21], [203, 198]], contest_of("pixels-wide"))

    assert path.read_text() == "ID,pixel_0,pixel_1\nimg12,203,198\nimg13,17,21\n"


def test_pixels_wide_keeps_every_eighth_pixel_row_by_row(tmp_path: Path) -> None:
    page, contest = page_of("a", 5, 5), contest_of("pixels-wide", submission={"stride": 8})

    path = written(tmp_path / "s.csv", [page], [np.arange(25)], contest)

    assert path.read_text() == "ID,pixel_0,pixel_1,pixel_2,pixel_3\na,0,8,16,24\n"
    values = read(path, [page], contest)["a"]
    np.testing.assert_array_equal(np.ravel(values), np.float32([0, 8, 16, 24]) / 255)


def test_raw_bytes_begin_as_those_of_the_sidd_benchmark(tmp_path: Path) -> None:
    pages = [page_of("a", 1, 2), page_of("b", 1, 2)]
    images = [[[255, 0, 254], [0, 1, 2]], [[238, 237, 236], [235, 234, 233]]]

    path = written(tmp_path / "s.csv", pages, images, contest_of("raw-b64", channels=3))

    assert path.read_text() == "ID,BLOCK\n0,/wD+AAEC\n1,7u3s6+rp\n"


def test_a_block_of_the_sidd_benchmark_has_262144_letters(tmp_path: Path) -> None:
    page, contest = page_of("a", 256, 256), contest_of("raw-b64", channels=3)

    path = written(tmp_path / "s.csv", [page], [random_pixels(page, 3)], contest)

    assert len(path.read_text().splitlines()[1].split(",")[1]) == 262_144


def test_bigger_pictures_are_cut_into_blocks_row_by_row(tmp_path: Path) -> None:
    pages = [page_of("1", 4, 6), page_of("2", 2, 2)]
    contest = contest_of("raw-b64", submission={"block": 2})
    images = [np.arange(24), [[250, 251], [252, 253]]]

    path = written(tmp_path / "s.csv", pages, images, contest)

    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == [str(n) for n in range(7)]
    assert list(base64.b64decode(rows[0][1])) == [0, 1, 6, 7]
    assert list(base64.b64decode(rows[2][1])) == [4, 5, 10, 11]
    assert list(base64.b64decode(rows[3][1])) == [12, 13, 18, 19]
    np.testing.assert_array_equal(
        read(path, pages, contest)["1"], to_float(np.arange(24, dtype=np.uint8).reshape(4, 6, 1))
    )


def test_a_picture_that_blocks_do_not_fill_is_refused(tmp_path: Path) -> None:
    contest = contest_of("raw-b64", submission={"block": 2})

    with pytest.raises(DataError, match="is 3x2 px, which is no multiple of blocks of 2 px"):
        written(tmp_path / "s.csv", [page_of("a")], [np.zeros(6)], contest)


def test_png_cells_hold_png_files_under_names_with_suffix(tmp_path: Path) -> None:
    page = page_of("0801", 7, 5)
    pixels = random_pixels(page, 3)

    path = written(tmp_path / "s.csv", [page], [pixels], contest_of("png-b64", channels=3))

    header, row = path.read_text().splitlines()
    assert header == "id,Encoded_Image"
    assert row.startswith("0801.tif,iVBOR")
    content = np.frombuffer(base64.b64decode(row.split(",")[1]), np.uint8)
    decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], pixels)


def test_packed_runs_are_what_a_scorer_evaluates(tmp_path: Path) -> None:
    page = page_of("0801", 1, 300)
    pixels = np.zeros((1, 300, 1), np.uint8)
    pixels[0, 299] = 7

    path = written(tmp_path / "s.csv", [page], [pixels], contest_of("rle-zlib-b64"))

    header, row = path.read_text().splitlines()
    assert header == "id,filename,rle"
    match = re.fullmatch(r"""0,0801\.tif,"b'(eJ[^']+|eN[^']+)'\"""", row)
    assert match
    assert list(zlib.decompress(base64.b64decode(match[1]))) == [0, 255, 0, 44, 7, 1]
    assert base64.b64decode(match[1])[:2] == b"\x78\xda"  # zlib at level 9


def test_packed_runs_are_of_bgr(tmp_path: Path) -> None:
    page = page_of("a", 1, 1)

    path = written(tmp_path / "s.csv", [page], [[1, 2, 3]], contest_of("rle-zlib-b64", channels=3))

    text = path.read_text().splitlines()[1].split("'")[1]
    assert list(zlib.decompress(base64.b64decode(text))) == [3, 1, 2, 1, 1, 1]


def test_masks_are_runs_down_the_columns_counted_from_1(tmp_path: Path) -> None:
    pages = [page_of("1", 2, 3), page_of("2", 2, 3), page_of("3", 2, 3)]
    images = [[[255, 127, 0], [0, 128, 255]], np.zeros(6), np.full(6, 255)]

    path = written(tmp_path / "s.csv", pages, images, contest_of("mask-rle"))

    assert path.read_text() == "img,pixels\n1,1 1 4 1 6 1\n2,\n3,1 6\n"


# ---- the way there and back


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[Page], int, int]:
    """A format, pages, the contest's channels and the pictures' channels."""
    name = draw(st.sampled_from(NAMES))
    stems = draw(st.lists(st.sampled_from(STEMS), min_size=1, max_size=4, unique=True))
    sides = st.integers(1, 13)
    size = (draw(sides), draw(sides))
    sizes = [size if name == "pixels-wide" else (draw(sides), draw(sides)) for _ in stems]
    pages = [page_of(stem, *each) for stem, each in zip(stems, sizes, strict=True)]
    return name, pages, draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 3]))


def expected_answer(name: str, pixels: Pixels, channels: int, stride: int, order: str) -> object:
    """A slow, obvious version of what a file says of 8-bit pixels."""
    gray = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if name == "mask-rle":
        return (gray >= 128).astype(np.float32)[..., None]
    if name == "pixels-wide" and stride > 1:
        flat = [int(v) for v in (gray if order == "row" else gray.T).ravel()]
        return np.float32(flat[::stride])[:, None, None] / np.float32(255)
    if name == "pixels-wide" or (channels == 1 and pixels.shape[2] == 3):
        return to_float(gray)[..., None]
    return to_float(np.broadcast_to(pixels, (*pixels.shape[:2], channels)))


OPTIONS: dict[str, list[dict[str, object]]] = {
    "pixels-wide": [{}, {"order": "col"}, {"stride": 3, "base": 1}, {"stride": 2, "order": "col"}],
    "raw-b64": [{}, {"channel_order": "bgr", "id": "stem"}, {"bytes_text": True, "name": "file"}],
    "png-b64": [{}, {"bytes_text": True}, {"id": "{index}-{stem}"}],
    "rle-zlib-b64": [{}, {"channel_order": "rgb", "bytes_text": False}, {"name": ""}],
    "mask-rle": [{}, {"base": 0}, {"order": "row", "id": "name"}],
}


@given(cases(), st.booleans(), st.booleans(), st.randoms(), st.data())
@settings(max_examples=150, deadline=None)
def test_rows_give_back_what_was_written(
    case: tuple[str, list[Page], int, int],
    flat: bool,
    packed: bool,
    chance: random.Random,
    data: st.DataObject,
) -> None:
    name, pages, channels, given_channels = case
    options = data.draw(st.sampled_from(OPTIONS[name]))
    contest = contest_of(name, channels=channels, submission=options)
    images = {page: random_pixels(page, given_channels, flat=flat) for page in pages}
    arriving = chance.sample(pages, len(pages))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("s.csv.gz" if packed else "s.csv")
        written(path, arriving, [images[page] for page in arriving], contest)
        report = FORMATS[name].check(path, contest=contest, pages=pages)
        answers = read(path, pages, contest)

    assert report.problems == ()
    assert report.rows == len(pages)
    for page in pages:
        stride, order = int(options.get("stride", 1)), str(options.get("order", "row"))  # type: ignore[call-overload]
        expected = expected_answer(name, images[page], channels, stride, order)
        np.testing.assert_array_equal(answers[page.stem], expected)  # type: ignore[arg-type]
        stored = FORMATS[name].answer(images[page], contest=contest)
        np.testing.assert_array_equal(stored, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "decimals"), [(1, 5), (1, 2), (255, 0), (255, 3)])
@pytest.mark.parametrize("name", ["pixels-long", "pixels-wide"])
def test_floats_come_back_to_the_last_decimal(
    tmp_path: Path, name: str, scale: int, decimals: int
) -> None:
    page = page_of("a", 9, 7)
    contest = contest_of(name, submission={"scale": scale, "decimals": decimals})
    image = np.random.default_rng(0).random((9, 7, 1), dtype=np.float32)
    pictures = [Restored(stem="a", name="a.tif", image=image)]

    FORMATS[name].write(tmp_path / "s.csv", pictures, contest=contest, pages=[page], source="float")

    answer = read(tmp_path / "s.csv", [page], contest)["a"]
    step = 10.0**-decimals / scale
    assert np.abs(np.asarray(answer) - image).max() <= step / 2 + 1e-6
    assert np.abs(np.asarray(answer) - image).max() > step / 4
    np.testing.assert_array_equal(
        answer,  # type: ignore[arg-type]
        FORMATS[name].answer(image, contest=contest, source="float"),
    )


def test_pictures_of_two_sizes_cannot_share_columns(tmp_path: Path) -> None:
    pages = [page_of("a"), page_of("b", 3, 3)]

    with pytest.raises(DataError, match=r"b\.tif is 3x3 px and a\.tif 3x2 px") as caught:
        FORMATS["pixels-wide"].order(contest=contest_of("pixels-wide"), pages=pages)

    assert "correct `format`" in caught.value.hint


@pytest.mark.parametrize("name", ["raw-b64", "png-b64", "rle-zlib-b64", "mask-rle", "zip"])
def test_formats_of_pictures_cannot_hold_floats(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="made of rounded pictures"):
        FORMATS[name].write(
            tmp_path / "s", [], contest=contest_of(name), pages=[page_of("a")], source="float"
        )


def test_ids_that_do_not_differ_are_refused() -> None:
    contest = contest_of("raw-b64", submission={"id": "x{stem:.1}"})

    with pytest.raises(DataError, match="two rows would have the id 'xa'"):
        FORMATS["raw-b64"].order(contest=contest, pages=[page_of("a1"), page_of("a2")])


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, name: str) -> None:
    contest, peaks = contest_of(name, channels=3), []

    for count in (4, 16):
        pages = [page_of(str(n), 200, 300) for n in range(count)]
        images = (picture_of(page, random_pixels(page, 3)) for page in pages)
        tracemalloc.start()
        FORMATS[name].write(tmp_path / "s.csv", images, contest=contest, pages=pages)
        for _ in FORMATS[name].read(tmp_path / "s.csv", contest=contest, pages=pages):
            pass
        FORMATS[name].check(tmp_path / "s.csv", contest=contest, pages=pages)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert (
        peaks[1] < peaks[0] + 2_000_000
    )  # twelve more pictures are 2.2 MB as pixels, 8.6 as floats


# ---- what others may have done to a file


def zlib_cell(pairs: Sequence[int]) -> str:
    return f"\"b'{base64.b64encode(zlib.compress(bytes(pairs), 9)).decode()}'\""


GOOD_WIDE = "ID,pixel_0,pixel_1\na,1,2\nb,3,4\n"
GOOD_RAW = "ID,BLOCK\n0,AQI=\n1,AwQ=\n"
GOOD_RLE = f"id,filename,rle\n0,a.tif,{zlib_cell([5, 2])}\n1,b.tif,{zlib_cell([5, 1, 6, 1])}\n"
GOOD_MASK = "img,pixels\na,1 1\nb,\n"


def replaced(good: str, old: str, new: str) -> str:
    assert old in good
    return good.replace(old, new)


PNG_OF_ANOTHER_SIZE = base64.b64encode(
    cv2.imencode(".png", np.zeros((3, 3), np.uint8))[1].tobytes()
).decode()
PNG_IN_COLOUR = base64.b64encode(
    cv2.imencode(".png", np.full((1, 2, 3), [0, 9, 200], np.uint8))[1].tobytes()
).decode()
PNG_OF_16_BITS = base64.b64encode(
    cv2.imencode(".png", np.full((1, 2), 300, np.uint16))[1].tobytes()
).decode()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("pixels-wide", replaced(GOOD_WIDE, "pixel_1", "pixel_2"), "line 1: the header is"),
        ("pixels-wide", replaced(GOOD_WIDE, "ID,pixel_0,pixel_1\n", ""), "the header is missing"),
        ("pixels-wide", "\ufeff" + GOOD_WIDE, "byte-order mark"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1"), "line 2 (id 'a'): there are 1 values, no"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1,2,3"), "there are 3 values, not 2"),
        (
            "pixels-wide",
            replaced(GOOD_WIDE, "1,2", "1,nan"),
            "the value nan of pixel_1 is no whole",
        ),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1,256"), "the value 256 of pixel_1 is no"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "-1,2"), "the value -1 of pixel_0 is no"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "0.5,2"), "0.5 of pixel_0 is no whole number"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1,white"), "'white' of pixel_1 is not a num"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1,1\x002"), "of pixel_1 is not a number"),
        ("pixels-wide", replaced(GOOD_WIDE, "1,2", "1,"), "'' of pixel_1 is not a number"),
        ("pixels-wide", replaced(GOOD_WIDE, "a,1", "c,1"), "line 2: no row has the id 'c'"),
        ("pixels-wide", replaced(GOOD_WIDE, "a,1", "b,1"), "line 3: the id 'b' has been given"),
        ("pixels-wide", replaced(GOOD_WIDE, "a,1,2\n", ""), "the id 'a' is missing (row 1 of 2)"),
        ("pixels-wide", replaced(GOOD_WIDE, "a,1,2\n", "\n"), "line 2 is empty; remove it"),
        ("pixels-wide", replaced(GOOD_WIDE, "a,1,2\n", "a\n"), "line 2 has too few fields"),
        ("pixels-wide", "", "the file has 0 rows"),
        ("raw-b64", replaced(GOOD_RAW, "BLOCK", "block"), "not 'ID,BLOCK'; replace the line"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", "AQI"), "line 2 (id '0'): the cell of 3 letters is"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", "A*I="), "is not base64"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", "AQID"), "holds 3 bytes of a picture, not the 2"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", ""), "holds 0 bytes of a picture, not the 2"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", "AQI=,"), "there are more fields than columns"),
        ("raw-b64", replaced(GOOD_RAW, "AQI=", "b'AQI='"), "not written as plain base64"),
        ("raw-b64", replaced(GOOD_RAW, "0,A", "00,A"), "line 2: no row has the id '00'"),
        ("png-b64", "id,Encoded_Image\na.tif,AQI=\n", "the PNG cannot be used: it is not an ima"),
        ("png-b64", f"id,Encoded_Image\na.tif,{PNG_OF_ANOTHER_SIZE}\n", "it is 3x3 px, not 2x1"),
        ("png-b64", f"id,Encoded_Image\na.tif,{PNG_IN_COLOUR}\n", "3 colour channels of 8 bits"),
        ("png-b64", f"id,Encoded_Image\na.tif,{PNG_OF_16_BITS}\n", "1 colour channels of 16 bits"),
        ("png-b64", f"id,Encoded_Image\na.tif,{PNG_IN_COLOUR[:40]}\n", "the PNG cannot be used"),
        ("rle-zlib-b64", replaced(GOOD_RLE, "a.tif", "b.tif"), "name is 'b.tif', not 'a.tif'"),
        ("rle-zlib-b64", replaced(GOOD_RLE, "\"b'", '"').replace("'\"", '"'), "as Python bytes"),
        ("rle-zlib-b64", replaced(GOOD_RLE, zlib_cell([5, 2]), zlib_cell([5])), "inside a pair"),
        ("rle-zlib-b64", replaced(GOOD_RLE, zlib_cell([5, 2]), zlib_cell([5, 3])), "holds 3 bytes"),
        ("rle-zlib-b64", replaced(GOOD_RLE, zlib_cell([5, 2]), "b'AQI='"), "not packed by zlib"),
        (
            "rle-zlib-b64",
            replaced(GOOD_RLE, zlib_cell([5, 2]), zlib_cell([5] * 999)),
            "is too long",
        ),
        (
            "rle-zlib-b64",
            replaced(GOOD_RLE, zlib_cell([5, 2]), f"b'{zlib_cell([5, 2])[3:11]}'"),
            "is cut short",
        ),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "1"), "'1' is no list of pairs 'start length'"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "1 x"), "is no list of pairs"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "0 1"), "the run '0 1' overlaps"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "1 3"), "leaves the 2x1 px"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "1 0"), "the run '1 0'"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "2 1 1 1"), "the run '1 1' overlaps"),
        ("mask-rle", replaced(GOOD_MASK, "1 1", "1 1,"), "is no list of pairs"),
    ],
)
def test_every_problem_names_its_row_and_its_cure(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    path, pages = tmp_path / "s.csv", [page_of("a", 1, 2), page_of("b", 1, 2)]
    path.write_bytes(content.encode())

    report = FORMATS[name].check(path, contest=contest_of(name), pages=pages)

    assert any(sentence in problem for problem in report.problems), report.problems
    assert all(";" in problem for problem in report.problems)  # the cure follows it
    with pytest.raises(DataError, match="not a valid submission"):
        list(FORMATS[name].read(path, contest=contest_of(name), pages=pages))


def test_a_cell_that_unpacks_without_end_is_stopped(tmp_path: Path) -> None:
    content = replaced(GOOD_RLE, zlib_cell([5, 2]), zlib_cell(bytes(50_000_000)))
    (tmp_path / "s.csv").write_text(content)
    contest, pages = contest_of("rle-zlib-b64"), [page_of("a", 1, 2), page_of("b", 1, 2)]
    tracemalloc.start()

    report = FORMATS["rle-zlib-b64"].check(tmp_path / "s.csv", contest=contest, pages=pages)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is too long" in report.problems[0]
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("pixels-wide", GOOD_WIDE),
        ("raw-b64", GOOD_RAW),
        ("rle-zlib-b64", GOOD_RLE),
        ("mask-rle", GOOD_MASK),
    ],
)
def test_harmless_ways_to_write_rows_pass(tmp_path: Path, name: str, good: str) -> None:
    contest, pages = contest_of(name), [page_of("a", 1, 2), page_of("b", 1, 2)]
    plain = good.replace('"', "")
    key = good.splitlines()[1].split(",")[0]

    for content in (good, good.replace("\n", "\r\n"), good.rstrip("\n"), plain):
        quoted = content.replace(f"\n{key},", f'\n"{key}",')
        for text in (content, quoted):
            (tmp_path / "s.csv").write_bytes(text.encode())
            report = FORMATS[name].check(tmp_path / "s.csv", contest=contest, pages=pages)
            assert report.problems == (), text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "damage",
    [
        lambda good: bytes(range(256)) * 400,
        lambda good: np.random.default_rng(1).bytes(100_000),
        lambda good: good[: len(good) // 2],
        lambda good: good[: good.rindex(b",")],
        lambda good: good.replace(b"\n", b"\n\xff\xfe", 2),
        lambda good: b"x" * (6 << 20),
        lambda good: b'"' * 100_001,
    ],
)
def test_garbage_is_a_sentence_and_never_a_picture(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes]
) -> None:
    contest, pages = contest_of(name), [page_of("1", 6, 7), page_of("2", 6, 7)]
    images = [random_pixels(page, 1) for page in pages]
    good = written(tmp_path / "s.csv", pages, images, contest).read_bytes()
    (tmp_path / "s.csv").write_bytes(damage(good))

    report = FORMATS[name].check(tmp_path / "s.csv", contest=contest, pages=pages)

    assert not report.valid
    with pytest.raises(DataError, match="not a valid submission"):
        list(FORMATS[name].read(tmp_path / "s.csv", contest=contest, pages=pages))


@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_is_another_picture_or_a_sentence(name: str, at: int, byte: int) -> None:
    contest, pages = contest_of(name), [page_of("1", 5, 7), page_of("2", 5, 7)]
    images = [random_pixels(page, 1) for page in pages]

    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "s.csv", pages, images, contest)
        content = bytearray(path.read_bytes())
        content[at % len(content)] = byte
        path.write_bytes(content)
        report = FORMATS[name].check(path, contest=contest, pages=pages)
        try:
            answers = read(path, pages, contest)
        except DataError:
            answers = {}

    assert report.valid == bool(answers)
    assert all(0 <= np.min(a) <= np.max(a) <= 1 for a in answers.values())  # type: ignore[type-var]


@pytest.mark.parametrize("name", NAMES)
def test_another_order_is_a_note_and_read_alike(tmp_path: Path, name: str) -> None:
    contest, pages = contest_of(name), [page_of(str(n), 4, 5) for n in range(3)]
    path = written(tmp_path / "s.csv", pages, [random_pixels(p, 1) for p in pages], contest)
    before = read(path, pages, contest)
    header, *rows = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(rows[::-1]))

    report = FORMATS[name].check(path, contest=contest, pages=pages)

    assert report.valid
    assert "2 rows stand in another order than usual, first line 3" in report.notes[0]
    for stem, answer in read(path, pages, contest).items():
        np.testing.assert_array_equal(answer, before[stem])  # type: ignore[arg-type]


def test_lines_longer_than_a_chunk_are_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_bytes, "_CHUNK", 11)
    contest, pages = contest_of("raw-b64"), [page_of(str(n), 9, 8) for n in range(3)]
    images = [random_pixels(page, 1) for page in pages]

    path = written(tmp_path / "s.csv", pages, images, contest)

    answers: dict[str, FloatImage] = read(path, pages, contest)  # type: ignore[assignment]
    for page, image in zip(pages, images, strict=True):
        np.testing.assert_array_equal(answers[page.stem], to_float(image))
