"""A sample submission tells its format, its ids and its numbers; what it does not tell is said."""

import base64
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from kbdenoise.contests.contest import FORMAT_NAMES, Contest, LocalContest
from kbdenoise.contests.formats import FORMATS, Restored, expected_pages
from kbdenoise.contests.layout import detect_layout
from kbdenoise.contests.recognise import recognise
from kbdenoise.imaging.files import encode

HEIGHT, WIDTH = 4, 6
TESTS = ("img12.png", "img13.png", "img2.png")


def lay_out(root: Path) -> Path:
    """Pairs and three test pictures of 6x4 px, in colour."""
    rng = np.random.default_rng(0)
    for folder, names in (
        ("train/noisy", ("1.png", "2.png")),
        ("train/clean", ("1.png", "2.png")),
        ("test", TESTS),
    ):
        (root / folder).mkdir(parents=True)
        for name in names:
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            (root / folder / name).write_bytes(encode(pixels, suffix=".png"))
    return root


def rows(header: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (header, *lines))


def wide(columns: int, cell: str, *, begin: str = "pixel_", base: int = 0) -> str:
    header = ",".join(["ID", *(f"{begin}{base + i}" for i in range(columns))])
    return rows(
        header, *(f"{stem},{','.join([cell] * columns)}" for stem in ("img2", "img12", "img13"))
    )


def long(base: int, *, by_rows: bool, cell: str = "1", end: str = "") -> str:
    places = [(r, c) for r in range(HEIGHT) for c in range(WIDTH)]
    ordered = places if by_rows else sorted(places, key=lambda place: place[::-1])
    return rows(
        "id,value",
        *(
            f"{stem}{end}_{r + base}_{c + base},{cell}"
            for stem in ("img13", "img2", "img12")
            for r, c in ordered
        ),
    )


RAW = base64.b64encode(bytes(HEIGHT * WIDTH * 3)).decode()
RAW_BLOCK = base64.b64encode(bytes(2 * 2 * 3)).decode()
PNG = base64.b64encode(
    cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
).decode()
RLE = base64.b64encode(zlib.compress(bytes([0, HEIGHT * WIDTH * 3]), 9)).decode()

SAMPLES: dict[str, tuple[str, str, dict[str, object]]] = {
    "long": (long(1, by_rows=False), "pixels-long", {}),
    "long by rows from 0": (
        long(0, by_rows=True),
        "pixels-long",
        {"base": 0, "order": "row"},
    ),
    "long of names, in levels": (
        long(1, by_rows=False, cell="255", end=".png"),
        "pixels-long",
        {"id": "name", "scale": 255, "decimals": 0},
    ),
    "wide": (wide(24, "0"), "pixels-wide", {}),
    "wide, every eighth": (wide(3, "7"), "pixels-wide", {"stride": 8}),
    "wide, every fifth": (wide(5, "7"), "pixels-wide", {"stride": 5}),
    "wide in 0..1": (wide(24, "0.5"), "pixels-wide", {"scale": 1, "decimals": 5}),
    "wide with decimals": (wide(24, "127.5"), "pixels-wide", {"decimals": 3}),
    "wide, other names": (
        wide(24, "0", begin="pixel", base=1),
        "pixels-wide",
        {"value": "pixel", "base": 1},
    ),
    "raw": (rows("ID,BLOCK", *(f"{i},{RAW}" for i in range(3))), "raw-b64", {}),
    "raw blocks": (
        rows("ID,BLOCK", *(f"{i},{RAW_BLOCK}" for i in range(18))),
        "raw-b64",
        {"block": 2},
    ),
    "png": (
        rows("id,Encoded_Image", *(f"{name},{PNG}" for name in TESTS[::-1])),
        "png-b64",
        {},
    ),
    "png by stem": (
        rows("id,png", *(f"{Path(name).stem},{PNG}" for name in TESTS)),
        "png-b64",
        {"value": "png", "id": "stem"},
    ),
    "rle": (
        rows("id,filename,rle", *(f"{i},{n},\"b'{RLE}'\"" for i, n in enumerate(TESTS))),
        "rle-zlib-b64",
        {},
    ),
    "plain rle": (
        rows("name,rle", *(f"{name},{RLE}" for name in TESTS)),
        "rle-zlib-b64",
        {"key": "name", "name": "", "id": "name", "bytes_text": False},
    ),
    "mask": (rows("img,pixels", "img2,1 1", "img13,", "img12,1 3 9 2"), "mask-rle", {}),
    "mean": (
        rows("Image File,Y Channel Value", "img2,0", "img12,0", "img13,0"),
        "mean-luma",
        {},
    ),
    "mean of names in 0..1": (
        rows("file,y", "img2.png,0.5", "img12.png,0.5", "img13.png,0.5"),
        "mean-luma",
        {"key": "file", "value": "y", "id": "name", "scale": 1},
    ),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_a_sample_is_recognised_followed_and_handed_in(tmp_path: Path, case: str) -> None:
    text, name, options = SAMPLES[case]
    (lay_out(tmp_path) / "sample_submission.csv").write_text(text)

    layout = detect_layout(tmp_path)

    assert (layout.format, layout.submission) == (name, options)
    assert f"looks like the format {name}" in layout.notes[-1]
    assert all(f"{key} = " in layout.notes[-1] for key in options)
    assert ("natural order" in layout.notes[-1]) == (case in ("raw", "raw blocks", "rle"))
    contest = LocalContest(
        folder=tmp_path,
        contest=Contest(
            slug="x",
            test="test",
            format=name,
            submission=options,
            sample=layout.sample,
        ),
    )
    pages = expected_pages(contest)
    pictures = [
        Restored(stem=p.stem, name=p.name, image=np.full((HEIGHT, WIDTH, 3), 1, np.float32))
        for p in pages
    ]
    path = tmp_path / "s.csv"
    FORMATS[name].write(path, pictures, contest=contest, pages=pages)
    ours, theirs = path.read_text().splitlines(), text.splitlines()
    assert ours[0] == theirs[0]
    assert [line.split(",")[0] for line in ours] == [line.split(",")[0] for line in theirs]
    assert FORMATS[name].check(path, contest=contest, pages=pages).problems == ()
    order = [page.stem for page in FORMATS[name].order(contest=contest, pages=pages)]
    found = [stem for stem, _ in FORMATS[name].read(path, contest=contest, pages=pages)]
    assert found == order


def test_rows_without_a_sample_go_by_natural_numbers(tmp_path: Path) -> None:
    contest = LocalContest(
        folder=lay_out(tmp_path), contest=Contest(slug="x", test="test", format="raw-b64")
    )

    order = FORMATS["raw-b64"].order(contest=contest, pages=expected_pages(contest))

    assert [page.stem for page in order] == ["img2", "img12", "img13"]


def packed_as_gzip(text: bytes) -> bytes:
    return gzip.compress(text)


def packed_as_zip(text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.csv", text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("sampleSubmission.csv", bytes),
        ("SubmitSrgb.csv", bytes),
        ("sample_submission.csv.gz", packed_as_gzip),
        ("sampleSubmission.csv.zip", packed_as_zip),
        ("sample_submission.zip", packed_as_zip),
        ("info/sample-submission.csv", bytes),
    ],
)
def test_samples_are_found_by_name_packed_or_not(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    path = lay_out(tmp_path) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pack(SAMPLES["wide, every eighth"][0].encode()))

    layout = detect_layout(tmp_path)

    assert (layout.sample, layout.format, layout.submission) == (name, "pixels-wide", {"stride": 8})


def test_an_archive_of_pictures_is_recognised(tmp_path: Path) -> None:
    with zipfile.ZipFile(lay_out(tmp_path) / "sample_submission.zip", "w") as archive:
        for name in TESTS:
            archive.writestr(f"results/{name}", b"")

    layout = detect_layout(tmp_path)

    assert (layout.format, layout.sample) == ("zip", "sample_submission.zip")


@pytest.mark.parametrize(
    "text",
    [
        rows("img,a,b", "img2,x,y", "img12,x,y", "img13,x,y"),
        rows("img,text", "img2,x", "img12,x", "img13,x"),
        rows("img,y", "other,1"),
        rows("img,y", "img2,nan"),
        rows("img,pixels", "img2,1 x"),
        rows("ID,BLOCK,a,b", "0,1,2,3"),
        wide(23, "0"),
        wide(7, "0"),
        wide(3, "white"),
        rows("img,y", "img2,1,2"),
        "img,y\n",
        "",
        "\0" * 50,
    ],
)
def test_a_sample_that_fits_nothing_says_which_formats_there_are(tmp_path: Path, text: str) -> None:
    (lay_out(tmp_path) / "sample_submission.csv").write_text(text)

    layout = detect_layout(tmp_path)

    assert (layout.format, layout.submission) == ("zip", {})
    assert "the format of sample_submission.csv is not known" in layout.notes[-1]
    assert all(name in layout.notes[-1] for name in FORMAT_NAMES)


def test_ids_of_a_long_file_are_no_scalars_of_pages(tmp_path: Path) -> None:
    """Pictures may be called like pixels: page_1_2.png."""
    tests = [tmp_path / f"page_1_{n}.png" for n in (1, 2)]
    for path in tests:
        path.write_bytes(encode(np.zeros((2, 2, 1), np.uint8), suffix=".png"))
    (tmp_path / "sample.csv").write_text("id,value\npage_1_1,0\npage_1_2,0\n")

    found = recognise(tmp_path / "sample.csv", tests=tests)

    assert found is not None
    assert found.format == "mean-luma"
