"""Submission formats: what is written and read back, and what is refused."""

import csv
import gzip
import io
import random
import re
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import (
    FORMATS,
    Page,
    Restored,
    Source,
    expected_pages,
    submission_format,
)
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import FloatImage, read_image, write_image

# Dots, underscores, commas, quotes, spaces and letters beyond ASCII, as file names have them.
STEMS = ["1", "4", "10", "100", "Mag.0001.02", "a_1", "a_1_1", "ü ß", "007", "7"]
QUOTED_STEMS = ["a,b", 'say "a"', "two words"]


def contest_of(name: str, *, folder: Path = Path("."), **rules: object) -> LocalContest:
    chosen = {"slug": "tiny", "channels": 1, "format": name} | rules
    return LocalContest(folder=folder, contest=Contest(**chosen))  # type: ignore[arg-type]


def page_of(stem: str, height: int = 2, width: int = 3) -> Page:
    return Page(stem=stem, name=f"{stem}.tif", path=Path(f"{stem}.tif"), height=height, width=width)


def image_of(page: Page, seed: int = 0, channels: int = 1) -> FloatImage:
    rng = np.random.default_rng([seed, page.height, page.width, *map(ord, page.stem)])
    return rng.random((page.height, page.width, channels), dtype=np.float32)


def restored(pages: Iterable[Page], *, seed: int = 0, channels: int = 1) -> list[Restored]:
    return [
        Restored(stem=p.stem, name=p.name, image=image_of(p, seed, channels=channels))
        for p in pages
    ]


@st.composite
def page_lists(draw: st.DrawFn, stems: Sequence[str] = tuple(STEMS)) -> list[Page]:
    chosen = draw(st.lists(st.sampled_from(stems), min_size=1, max_size=4, unique=True))
    sides = st.integers(1, 13)
    return [page_of(stem, draw(sides), draw(sides)) for stem in chosen]


def rows_by_hand(pages: Sequence[Page], seed: int = 0) -> str:
    """A slow, obvious version of a pixels-long file, pages as given."""
    lines = ["id,value\n"]
    for page in pages:
        gray = np.rint(image_of(page, seed)[..., 0] * 255).astype(int)
        for column in range(page.width):
            for row in range(page.height):
                text = str(round(gray[row, column] / 255, 5))
                value = text.removesuffix(".0")
                lines.append(f"{page.stem}_{row + 1}_{column + 1},{value}\n")
    return "".join(lines)


def written_file(
    name: str, folder: Path, pages: Sequence[Page], *, contest: LocalContest | None = None
) -> Path:
    path = folder / f"out{FORMATS[name].suffix}"
    FORMATS[name].write(path, restored(pages), contest=contest or contest_of(name), pages=pages)
    return path


def test_mean_luma_file_begins_as_the_descanning_contest_wants_it(tmp_path: Path) -> None:
    pages = [page_of("scanner03_156"), page_of("MagPi094.00011.01")]
    images = [np.full((2, 3, 3), v, np.float32) for v in (171 / 255, 0.7572)]  # 193.086 -> 193
    pictures = [
        Restored(stem=p.stem, name=p.name, image=i) for p, i in zip(pages, images, strict=True)
    ]

    FORMATS["mean-luma"].write(
        tmp_path / "s.csv", pictures, contest=contest_of("mean-luma"), pages=pages
    )

    assert (tmp_path / "s.csv").read_text() == (
        "Image File,Y Channel Value\nMagPi094.00011.01,193.0\nscanner03_156,171.0\n"
    )


def test_pixels_long_file_begins_as_kaggles_sample_does(tmp_path: Path) -> None:
    page = page_of("1", 2, 2)
    image = np.array([[254, 255], [0, 51]], np.float32)[..., None] / 255

    FORMATS["pixels-long"].write(
        tmp_path / "s.csv",
        [Restored(stem="1", name="1.png", image=image)],
        contest=contest_of("pixels-long"),
        pages=[page],
    )

    assert (tmp_path / "s.csv").read_text() == (
        "id,value\n1_1_1,0.99608\n1_2_1,0\n1_1_2,1\n1_2_2,0.2\n"
    )


@pytest.mark.usefixtures("tiny_blocks")
def test_pixels_long_equals_the_file_made_by_hand(tmp_path: Path) -> None:
    in_natural_order = [page_of("1", 11, 12), page_of("4", 1, 9), page_of("10", 10, 1)]

    path = written_file("pixels-long", tmp_path, in_natural_order[::-1])

    assert path.read_text() == rows_by_hand(in_natural_order)


def test_a_path_ending_in_gz_is_compressed_and_the_same_every_time(tmp_path: Path) -> None:
    pages = [page_of("1"), page_of("2")]
    contest = contest_of("pixels-long")

    for name in ("a.csv.gz", "b.csv.gz"):
        FORMATS["pixels-long"].write(tmp_path / name, restored(pages), contest=contest, pages=pages)

    packed = (tmp_path / "a.csv.gz").read_bytes()
    assert gzip.decompress(packed).decode() == rows_by_hand(pages)
    assert packed == (tmp_path / "b.csv.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # the header's time, which would differ a second later


def test_archives_are_equal_whatever_order_the_pictures_came_in(tmp_path: Path) -> None:
    pages = [page_of(stem) for stem in ("b", "a", "c")]
    contest = contest_of("zip", channels=3)

    for name, arriving in (("1.zip", pages), ("2.zip", pages[::-1])):
        pictures = restored(arriving, channels=3)
        FORMATS["zip"].write(tmp_path / name, pictures, contest=contest, pages=pages)

    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert zipfile.ZipFile(tmp_path / "1.zip").namelist() == ["a.png", "b.png", "c.png"]


def test_mean_luma_is_known_of_the_written_picture_and_of_the_float_image(tmp_path: Path) -> None:
    page = page_of("1", 30, 20)
    picture = restored([page], channels=3)
    contest = contest_of("mean-luma", channels=3)
    write_image(tmp_path / "1.png", picture[0].image)
    y = cv2.cvtColor(cv2.imread(str(tmp_path / "1.png")), cv2.COLOR_BGR2YUV)[..., 0]
    r, g, b = picture[0].image.mean(axis=(0, 1), dtype=np.float64) * 255

    written = FORMATS["mean-luma"].write(tmp_path / "s.csv", picture, contest=contest, pages=[page])

    assert written.pages[0].luma_of_pixels == y.mean()
    assert written.pages[0].luma_of_float == pytest.approx(0.299 * r + 0.587 * g + 0.114 * b)
    assert (tmp_path / "s.csv").read_text().splitlines()[1] == f"1,{float(y.mean())!r}"


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_pages(tmp_path: Path) -> None:
    contest, pixels, path = contest_of("pixels-long"), FORMATS["pixels-long"], tmp_path / "s.csv"
    peaks = []

    for count in (10, 40):
        pages = [page_of(str(n), 100, 100) for n in range(1, count + 1)]
        order = pixels.order(contest=contest, pages=pages)
        pictures = (Restored(stem=p.stem, name=p.name, image=image_of(p)) for p in order)
        write = partial(pixels.write, path, pictures, contest=contest, pages=pages)
        check = partial(pixels.check, path, contest=contest, pages=pages)
        peaks.append((peak_bytes(write), peak_bytes(check)))

    (few_written, few_checked), (many_written, many_checked) = peaks
    assert many_written < few_written + 100_000
    # A check keeps one byte a row, to find duplicates; the whole file would be 5 MB more.
    assert many_checked < few_checked + 30 * 100 * 100 + 1_000_000


@given(page_lists(), st.sampled_from(["pixels", "float"]), st.booleans(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_pixels_long_gives_back_what_was_written(
    pages: list[Page], source: Source, packed: bool, chance: random.Random
) -> None:
    contest, pixels = contest_of("pixels-long"), FORMATS["pixels-long"]
    pictures = restored(pages)
    chance.shuffle(pictures)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("s.csv.gz" if packed else "s.csv")
        pixels.write(path, pictures, contest=contest, pages=pages, source=source)
        report = pixels.check(path, contest=contest, pages=pages)
        answers = dict(pixels.read(path, contest=contest, pages=pages))

    assert report.problems == ()
    assert answers.keys() == {page.stem for page in pages}
    for page in pages:
        expected = pixels.answer(image_of(page), contest=contest, source=source)
        np.testing.assert_array_equal(answers[page.stem], expected)


@given(page_lists(tuple(STEMS + QUOTED_STEMS)), st.sampled_from(["pixels", "float"]))
@settings(max_examples=40, deadline=None)
def test_mean_luma_gives_back_exactly_what_was_written(pages: list[Page], source: Source) -> None:
    contest, means = contest_of("mean-luma"), FORMATS["mean-luma"]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.csv"
        means.write(path, restored(pages), contest=contest, pages=pages, source=source)
        report = means.check(path, contest=contest, pages=pages)
        answers = dict(means.read(path, contest=contest, pages=pages))
        ids = [row[0] for row in csv.reader(io.StringIO(path.read_text("utf-8")))][1:]

    assert report.problems == ()
    assert ids == [page.identity for page in sorted(pages, key=lambda page: page.name)]
    assert answers == {
        p.stem: means.answer(image_of(p), contest=contest, source=source) for p in pages
    }


@given(page_lists(tuple(STEMS + QUOTED_STEMS)), st.sampled_from([1, 3]), st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_archive_gives_back_the_rounded_pictures(
    pages: list[Page], given_channels: int, wanted_channels: int
) -> None:
    contest, archive = contest_of("zip", channels=wanted_channels), FORMATS["zip"]
    pictures = restored(pages, channels=given_channels)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zip"
        archive.write(path, pictures, contest=contest, pages=pages)
        report = archive.check(path, contest=contest, pages=pages)
        answers = dict(archive.read(path, contest=contest, pages=pages))

    assert report.problems == ()
    for picture in pictures:
        answer = answers[picture.stem]
        assert answer.shape == (*picture.image.shape[:2], wanted_channels)  # type: ignore[union-attr]
        if given_channels == wanted_channels:
            np.testing.assert_array_equal(answer, archive.answer(picture.image, contest=contest))


@pytest.mark.usefixtures("tiny_blocks")
def test_shuffled_rows_are_valid_noted_and_read_alike(tmp_path: Path) -> None:
    pages = [page_of("1", 9, 4), page_of("2", 3, 7)]
    contest, pixels = contest_of("pixels-long"), FORMATS["pixels-long"]
    path = written_file("pixels-long", tmp_path, pages)
    in_order = dict(pixels.read(path, contest=contest, pages=pages))
    header, *rows = path.read_text().splitlines(keepends=True)
    random.Random(1).shuffle(rows)
    path.write_text(header + "".join(rows))

    report = pixels.check(path, contest=contest, pages=pages)
    shuffled = dict(pixels.read(path, contest=contest, pages=pages))

    assert report.valid
    assert re.search(r"another order than usual, first line \d+ \(id '\d_\d_\d'\)", report.notes[0])
    for stem, answer in in_order.items():
        np.testing.assert_array_equal(shuffled[stem], answer)


@given(page_lists(), st.data())
@settings(max_examples=40, deadline=None)
def test_a_dropped_row_and_a_doubled_row_are_named(pages: list[Page], data: st.DataObject) -> None:
    contest, pixels = contest_of("pixels-long"), FORMATS["pixels-long"]

    with tempfile.TemporaryDirectory() as folder:
        path = written_file("pixels-long", Path(folder), pages)
        header, *rows = path.read_text("utf-8").splitlines(keepends=True)
        at = data.draw(st.integers(0, len(rows) - 1))
        to = data.draw(st.integers(0, len(rows)))
        identity = rows[at].split(",")[0]
        path.write_text(header + "".join(rows[:at] + rows[at + 1 :]), "utf-8")
        dropped = pixels.check(path, contest=contest, pages=pages)
        path.write_text(header + "".join([*rows[:to], rows[at], *rows[to:]]), "utf-8")
        doubled = pixels.check(path, contest=contest, pages=pages)

    assert any(f"the id {identity!r} is missing" in p for p in dropped.problems)
    later = (to if to > at else at + 1) + 2  # the header is line 1
    assert f"line {later:,}: the id {identity!r} has been given before" in doubled.problems[0]
    assert doubled.rows == len(rows) + 1


def with_image(change: Callable[[FloatImage], FloatImage]) -> Callable[[list[Restored]], object]:
    def spoil(pictures: list[Restored]) -> list[Restored]:
        last = pictures[-1]
        return [
            *pictures[:-1],
            Restored(stem=last.stem, name=last.name, image=change(last.image)),
        ]

    return spoil


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p[:-1], "1 of 2 test pages were not restored: b"),
        (lambda p: [*p, p[0]], "the page a was restored twice"),
        (lambda p: [*p, *restored([page_of("z")])], r"z\.tif is not one of the contest's 2 test"),
        (with_image(lambda i: i[:-1]), "b.tif was restored to 3x1 px but the test picture is 3x2"),
        (with_image(lambda i: i * np.float32("nan")), "b.tif: the restored image holds values th"),
        (with_image(lambda i: i * 2 - 1), "values run from .* not from 0 to 1"),
        (with_image(lambda i: i * 255), "values run from .* not from 0 to 1"),
        (with_image(lambda i: (i * 255).astype(np.uint8)), "restored image is uint8"),  # type: ignore[arg-type,return-value]
        (with_image(lambda i: i[..., 0]), r"restored image is float32 \[2, 3\]"),
    ],
)
def test_bad_pictures_are_refused_and_nothing_is_left_behind(
    tmp_path: Path,
    name: str,
    spoil: Callable[[list[Restored]], list[Restored]],
    message: str,
) -> None:
    pages = [page_of("a"), page_of("b")]

    with pytest.raises(DataError, match=message):
        FORMATS[name].write(
            tmp_path / "out.csv",
            spoil(restored(pages)),
            contest=contest_of(name),
            pages=pages,
        )

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_a_slight_overshoot_is_clipped(tmp_path: Path, name: str) -> None:
    page = page_of("a")
    picture = Restored(stem="a", name="a.tif", image=np.full((2, 3, 1), 1.05, np.float32))
    path, contest = tmp_path / "out", contest_of(name)

    FORMATS[name].write(path, [picture], contest=contest, pages=[page])

    report = FORMATS[name].check(path, contest=contest, pages=[page])
    assert report.valid
    assert report.maximum == (255.0 if name == "mean-luma" else 1.0)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([], "there are no test pages to answer for"),
        ([page_of("a"), page_of("a")], "two test pictures share the name a"),
    ],
)
def test_impossible_page_lists_are_refused(
    tmp_path: Path, name: str, pages: list[Page], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        FORMATS[name].write(tmp_path / "out", [], contest=contest_of(name), pages=pages)


@pytest.mark.parametrize("stem", ["a,b", 'a"b', "a\nb", "a\udcff"])
def test_names_that_cannot_be_ids_of_pixels_are_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(DataError, match=r"line break|UTF-8"):
        written_file("pixels-long", tmp_path, [page_of(stem)])


def test_an_archive_cannot_hold_floats(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="8 bits"):
        FORMATS["zip"].write(
            tmp_path / "s.zip", [], contest=contest_of("zip"), pages=[page_of("a")], source="float"
        )


def test_an_unknown_format_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        submission_format("pixel-long")

    assert caught.value.hint == "did you mean 'pixels-long'?"


def test_expected_pages_keep_inner_dots_and_lose_the_contests_ending(tmp_path: Path) -> None:
    for name in ("Mag.0001.02_noisy.png", "Mag.0001.02_clean.png"):
        write_image(tmp_path / "test" / name, np.zeros((4, 5, 1), np.float32))
    contest = contest_of("zip", folder=tmp_path, test="test", test_ending="_noisy")

    (page,) = expected_pages(contest)

    assert (page.stem, page.identity) == ("Mag.0001.02", "Mag.0001.02_noisy")
    assert (page.height, page.width) == (4, 5)


def test_expected_pages_refuse_an_empty_folder_and_equal_stems(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    contest = contest_of("zip", folder=tmp_path, test="test")

    with pytest.raises(DataError, match="there are no test pictures in"):
        expected_pages(contest)
    for name in ("a.png", "a.tif"):
        write_image(tmp_path / "test" / name, np.zeros((4, 5, 1), np.float32))
    with pytest.raises(DataError, match="two test pictures share the name a"):
        expected_pages(contest)


def test_pages_of_the_real_contest_are_written_and_read_back(shared: Path, tmp_path: Path) -> None:
    contest = contest_of(
        "pixels-long", root=str(shared / "dirty-documents"), noisy="train", test="test"
    )
    pages = expected_pages(contest)[:2]
    pictures = [Restored(stem=p.stem, name=p.name, image=read_image(p.path)) for p in pages]
    pixels = FORMATS["pixels-long"]

    pixels.write(tmp_path / "s.csv", pictures, contest=contest, pages=pages)

    report = pixels.check(tmp_path / "s.csv", contest=contest, pages=pages)
    assert report.problems == ()
    assert report.rows == sum(page.height * page.width for page in pages)
    for stem, answer in pixels.read(tmp_path / "s.csv", contest=contest, pages=pages):
        (image,) = [picture.image for picture in pictures if picture.stem == stem]
        np.testing.assert_allclose(answer, image, atol=5.1e-6)


def gray_contest(name: str, **options: object) -> LocalContest:
    return contest_of(name, channels=3, submission=options)


COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, ["Image File,Y Channel Value", "a.b,127.5"]),
        ({"key": "id", "value": "y", "id": "name"}, ["id,y", "a.b.tif,127.5"]),
        ({"id": "index", "base": 1, "scale": 1}, ["Image File,Y Channel Value", "1,0.5"]),
        ({"id": "{stem}_x", "decimals": 3}, ["Image File,Y Channel Value", "a.b_x,127.500"]),
        ({"statistic": "median", "space": "r"}, ["Image File,Y Channel Value", "a.b,127.5"]),
        ({"space": "g"}, ["Image File,Y Channel Value", "a.b,127.5"]),
        ({"space": "y601-limited"}, ["Image File,Y Channel Value", "a.b,125.5"]),
        ({"space": "gray709", "decimals": 0}, ["Image File,Y Channel Value", "a.b,127"]),
    ],
)
def test_numbers_of_a_page_as_options_ask_for_them(
    tmp_path: Path, options: dict[str, object], lines: list[str]
) -> None:
    page, contest = page_of("a.b", 2, 2), gray_contest("mean-luma", **options)
    picture = Restored(stem="a.b", name="a.b.tif", image=COLOURS.astype(np.float32) / 255)
    chosen, path = FORMATS["mean-luma"], tmp_path / "s.csv"

    written = chosen.write(path, [picture], contest=contest, pages=[page])

    assert path.read_text().splitlines() == lines
    assert chosen.check(path, contest=contest, pages=[page]).problems == ()
    ((_, answer),) = chosen.read(path, contest=contest, pages=[page])
    assert answer == chosen.answer(COLOURS, contest=contest)
    assert 120 < answer < 130  # grey levels, whatever the file's scale
    assert written.rows == 1


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({}, ["1_1_1,0.29804", "1_2_1,0.11373", "1_1_2,0.58824", "1_2_2,1"]),
        (
            {"order": "row", "base": 0, "decimals": 2},
            ["1_0_0,0.3", "1_0_1,0.59", "1_1_0,0.11", "1_1_1,1"],
        ),
        (
            {"scale": 255, "decimals": 0, "id": "name", "space": "b"},
            ["1.tif_1_1,0", "1.tif_2_1,255", "1.tif_1_2,0", "1.tif_2_2,255"],
        ),
        ({"space": "gray709", "decimals": 1}, ["1_1_1,0.2", "1_2_1,0.1", "1_1_2,0.7", "1_2_2,1"]),
        ({"space": "y601-limited", "decimals": 1, "id": "index"}, ["1_1_1,0.3", "1_2_1,0.2"]),
    ],
)
def test_pixels_as_options_ask_for_them(
    tmp_path: Path, options: dict[str, object], rows: list[str]
) -> None:
    page, contest = page_of("1", 2, 2), gray_contest("pixels-long", **options)
    picture = Restored(stem="1", name="1.tif", image=COLOURS.astype(np.float32) / 255)
    chosen, path = FORMATS["pixels-long"], tmp_path / "s.csv"

    chosen.write(path, [picture], contest=contest, pages=[page])

    assert path.read_text().splitlines()[1 : 1 + len(rows)] == rows
    assert chosen.check(path, contest=contest, pages=[page]).problems == ()
    ((_, answer),) = chosen.read(path, contest=contest, pages=[page])
    np.testing.assert_array_equal(answer, chosen.answer(COLOURS, contest=contest))


def test_archives_take_names_folders_and_a_readme_from_options(tmp_path: Path) -> None:
    pages = [page_of("b"), page_of("a")]
    readme = {"runtime per image [s]": "0.5", "CPU[1] / GPU[0]": "1"}
    contest = gray_contest("zip", files="out/{index:03d}_{stem}_gt.tif", base=1, readme=readme)
    path, archive = tmp_path / "s.zip", FORMATS["zip"]

    written = archive.write(path, restored(pages), contest=contest, pages=pages)

    with zipfile.ZipFile(path) as opened:
        assert opened.namelist() == ["out/001_a_gt.tif", "out/002_b_gt.tif", "readme.txt"]
        assert opened.read("readme.txt").decode() == (
            "runtime per image [s] : 0.5\nCPU[1] / GPU[0] : 1\n"
        )
    assert written.rows == archive.check(path, contest=contest, pages=pages).rows == 3
    assert archive.check(path, contest=contest, pages=pages).problems == ()
    without = gray_contest("zip", files="out/{index:03d}_{stem}_gt.tif", base=1)
    archive.write(path, restored(pages), contest=without, pages=pages)
    told = archive.check(path, contest=contest, pages=pages).problems
    assert told == ("the file 'readme.txt' is missing; write the archive again",)


@given(page_lists(), st.sampled_from([".png", ".tif"]), st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_archives_of_16_bits_are_finer_than_8(
    pages: list[Page], suffix: str, channels: int
) -> None:
    options = {"bit_depth": 16, "files": "{stem}" + suffix}
    contest = contest_of("zip", channels=channels, submission=options)
    fine, archive = [], FORMATS["zip"]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.zip"
        archive.write(path, restored(pages, channels=channels), contest=contest, pages=pages)
        report = archive.check(path, contest=contest, pages=pages)
        answers = dict(archive.read(path, contest=contest, pages=pages))
        coarse = archive.check(
            path,
            contest=contest_of("zip", channels=channels, submission={"files": "{stem}" + suffix}),
            pages=pages,
        )

    assert report.problems == ()
    for page in pages:
        image = image_of(page, channels=channels)
        np.testing.assert_allclose(answers[page.stem], image, atol=0.51 / 65535)
        fine.append(np.array_equal(answers[page.stem], archive.answer(image, contest=contest)))
    assert all(fine)
    assert "has 16 bits a value, the contest 8" in coarse.problems[0]


def test_two_pictures_cannot_have_one_name_in_an_archive() -> None:
    contest = gray_contest("zip", files="{stem:.1}.png")

    with pytest.raises(DataError, match=r"two pictures would be called a\.png"):
        FORMATS["zip"].order(contest=contest, pages=[page_of("a1"), page_of("a2")])
