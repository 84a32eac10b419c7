"""Submission formats: the contest's own sample submission decides."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import FORMATS, Page, Restored
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage


def contest_of(name: str, *, folder: Path = Path("."), **rules: object) -> LocalContest:
    chosen = {"slug": "tiny", "channels": 1, "format": name} | rules
    return LocalContest(folder=folder, contest=Contest(**chosen))  # type: ignore[arg-type]


def page_of(stem: str, height: int = 2, width: int = 3) -> Page:
    name = f"{stem}.tif"
    return Page(stem=stem, name=name, path=Path(name), height=height, width=width)


def image_of(page: Page) -> FloatImage:
    rng = np.random.default_rng([page.height, page.width])
    return rng.random((page.height, page.width, 1), dtype=np.float32)


def written_file(name: str, folder: Path, pages: Sequence[Page], *, contest: LocalContest) -> Path:
    pictures = [Restored(stem=p.stem, name=p.name, image=image_of(p)) for p in pages]
    path = folder / f"out{FORMATS[name].suffix}"
    FORMATS[name].write(path, pictures, contest=contest, pages=pages)
    return path


def with_sample(name: str, folder: Path, content: str) -> LocalContest:
    (folder / "sample_submission.csv").write_text(content)
    return contest_of(name, folder=folder, sample="sample_submission.csv")


def test_mean_luma_follows_the_samples_header_and_order(tmp_path: Path) -> None:
    pages = [page_of("a"), page_of("b,c")]
    contest = with_sample("mean-luma", tmp_path, 'File,Y\n"b,c",0\na,0\n')

    path = written_file("mean-luma", tmp_path, pages, contest=contest)

    lines = path.read_text().splitlines()
    assert lines[0] == "File,Y"
    assert [line.rpartition(",")[0] for line in lines[1:]] == ['"b,c"', "a"]
    assert FORMATS["mean-luma"].check(path, contest=contest, pages=pages).problems == ()


def test_a_sample_may_name_files_with_their_suffix(tmp_path: Path) -> None:
    pages = [page_of("a"), page_of("b")]
    contest = with_sample("mean-luma", tmp_path, "File,Y\nb.tif,0\na.tif,0\n")

    path = written_file("mean-luma", tmp_path, pages, contest=contest)

    assert [line.split(",")[0] for line in path.read_text().splitlines()] == [
        "File",
        "b.tif",
        "a.tif",
    ]


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("rows_fastest", [True, False])
def test_pixels_long_follows_the_samples_pages_and_direction(
    tmp_path: Path, rows_fastest: bool
) -> None:
    pages = [page_of("1", 5, 4), page_of("2", 3, 6)]
    ids = [
        f"{p.stem}_{r + 1}_{c + 1}"
        for p in pages[::-1]
        for r, c in (
            [(r, c) for c in range(p.width) for r in range(p.height)]
            if rows_fastest
            else np.ndindex(p.height, p.width)
        )
    ]
    contest = with_sample("pixels-long", tmp_path, "Id,gray\n" + "".join(f"{i},1\n" for i in ids))

    path = written_file("pixels-long", tmp_path, pages, contest=contest)

    header, *rows = path.read_text().splitlines()
    assert header == "Id,gray"
    assert [row.split(",")[0] for row in rows] == ids
    answers = dict(FORMATS["pixels-long"].read(path, contest=contest, pages=pages))
    expected = {p.stem: FORMATS["pixels-long"].answer(image_of(p), contest=contest) for p in pages}
    for stem, answer in answers.items():
        np.testing.assert_allclose(answer, expected[stem], atol=5.1e-6)


@pytest.mark.parametrize(
    ("name", "sample"),
    [("mean-luma", "A,B\nb,1\na,1\n"), ("pixels-long", "A,B\nb_1_1,1\na_1_1,1\n")],
)
def test_another_order_than_the_samples_is_a_problem(
    tmp_path: Path, name: str, sample: str
) -> None:
    pages = [page_of("a", 1, 1), page_of("b", 1, 1)]
    contest = with_sample(name, tmp_path, sample)
    header, *rows = sample.splitlines(keepends=True)
    path = tmp_path / "s.csv"
    path.write_text(header + "".join(rows[::-1]))

    report = FORMATS[name].check(path, contest=contest, pages=pages)

    assert len(report.problems) == 1
    assert "the contest's sample fixes the order" in report.problems[0]


@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("mean-luma", "A,B\na,1\n", "does not list b, which the folder of test pictures has"),
        ("mean-luma", "A,B\na,1\nb,1\nc,1\n", "lists c, which the folder of test pictures has not"),
        ("mean-luma", "A,B\na,1\nb,1\na,1\n", "names a picture twice"),
        ("mean-luma", "A,B,C\na,1,1\n", "is not a CSV of two columns"),
        ("mean-luma", "", "is not a CSV of two columns"),
        ("pixels-long", "A,B\na_1_1,1\n", "does not list b"),
        ("pixels-long", "A,B\na_1_1,1\nb_1_1,1\nc_1_1,1\n", "lists c"),
        ("pixels-long", "A,B\na_1_1,1\na_1_1,1\n", "comes back to the page a"),
        ("pixels-long", "A,B\na_2_1,1\n", "does not list the 1x1 pixels in order"),
        ("pixels-long", "A,B,C\n", "has no header of two columns"),
        ("pixels-long", "A,B\na_1_1,1,1\n", "is not a CSV of two plain columns"),
        ("zip", "A,B\n", "is not a zip archive"),
    ],
)
def test_a_sample_that_does_not_fit_the_test_pictures_is_an_error(
    tmp_path: Path, name: str, sample: str, message: str
) -> None:
    pages = [page_of("a", 1, 1), page_of("b", 1, 1)]
    contest = with_sample(name, tmp_path, sample)

    with pytest.raises(DataError, match=message):
        FORMATS[name].order(contest=contest, pages=pages)


def test_a_sample_that_ends_inside_a_page_is_an_error(tmp_path: Path) -> None:
    contest = with_sample("pixels-long", tmp_path, "A,B\na_1_1,1\na_2_1,1\n")

    with pytest.raises(DataError, match="ends inside the page a"):
        FORMATS["pixels-long"].order(contest=contest, pages=[page_of("a", 2, 3)])


@pytest.mark.parametrize("name", FORMATS)
def test_a_sample_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    contest = contest_of(name, folder=tmp_path, sample="sample.csv")

    with pytest.raises(DataError, match=r"sample\.csv is not there"):
        FORMATS[name].order(contest=contest, pages=[page_of("a")])


def test_archives_take_their_names_from_a_sample_archive(tmp_path: Path) -> None:
    pages = [page_of("a"), page_of("b")]
    contest = contest_of("zip", folder=tmp_path, sample="sample.zip")
    with zipfile.ZipFile(tmp_path / "sample.zip", "w") as sample:
        for name in ("results/b.tif", "results/a.tif"):
            sample.writestr(name, b"")

    path = written_file("zip", tmp_path, pages, contest=contest)

    assert zipfile.ZipFile(path).namelist() == ["results/b.tif", "results/a.tif"]
    assert FORMATS["zip"].check(path, contest=contest, pages=pages).problems == ()


@pytest.mark.parametrize(
    ("name", "sample", "message"),
    [
        ("pixels-wide", "ID,pixel_0\na,1\nb,1\n", "is not a CSV of 7 columns"),
        ("raw-b64", "ID,BLOCK\n0,AA==\n", "does not list 1, which the folder of test pictures has"),
        ("raw-b64", "ID,BLOCK\n0,AA==\n1,AA==\n2,AA==\n", "lists 2, which the folder of test pict"),
        ("raw-b64", "ID,BLOCK\n0,AA==\n1,AA==\n0,AA==\n", "names a picture twice"),
        ("png-b64", "id,Encoded_Image\na.tif,AA==\nc.tif,AA==\n", "lists c.tif, .* not list b.tif"),
        ("rle-zlib-b64", "id,rle\n0,x\n1,x\n", "is not a CSV of three columns"),
        ("rle-zlib-b64", "id,filename,rle\n0,a.tif,x\n0,b.tif,x\n", "names a picture twice"),
        ("mask-rle", "img,pixels\na,1 1\n", "does not list b"),
        ("mask-rle", "img,pixels\na,1 1,2\nb,1 1\n", "is not a CSV of two columns"),
    ],
)
def test_a_sample_of_rows_that_does_not_fit_is_an_error(
    tmp_path: Path, name: str, sample: str, message: str
) -> None:
    contest = with_sample(name, tmp_path, sample)

    with pytest.raises(DataError, match=message):
        FORMATS[name].order(contest=contest, pages=[page_of("a"), page_of("b")])


def test_file_names_of_a_sample_decide_whose_row_it_is(tmp_path: Path) -> None:
    pages = [page_of("a"), page_of("b")]
    sample = "id,filename,rle\n7,b.tif,x\n3,a.tif,x\n"
    contest = with_sample("rle-zlib-b64", tmp_path, sample)

    path = written_file("rle-zlib-b64", tmp_path, pages, contest=contest)

    cells = [line.split(",")[:2] for line in path.read_text().splitlines()[1:]]
    assert cells == [["7", "b.tif"], ["3", "a.tif"]]
    assert FORMATS["rle-zlib-b64"].check(path, contest=contest, pages=pages).problems == ()


@pytest.mark.parametrize("first", [0, 1])
def test_running_numbers_of_a_sample_follow_the_numbers_in_file_names(
    tmp_path: Path, first: int
) -> None:
    pages = [page_of(stem) for stem in ("p10", "p9", "p1")]
    sample = "ID,BLOCK\n" + "".join(f"{first + i},x\n" for i in (2, 0, 1))
    contest = with_sample("raw-b64", tmp_path, sample)

    order = FORMATS["raw-b64"].order(contest=contest, pages=pages)

    assert [page.stem for page in order] == ["p10", "p1", "p9"]
