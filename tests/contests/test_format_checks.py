"""Submission formats: what a check finds in files that others may have touched."""

import gzip
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.contests.formats import FORMATS, Page, Restored, csv_bytes
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import write_image


def contest_of(name: str, *, folder: Path = Path("."), **rules: object) -> LocalContest:
    chosen = {"slug": "tiny", "channels": 1, "format": name} | rules
    return LocalContest(folder=folder, contest=Contest(**chosen))  # type: ignore[arg-type]


def page_of(stem: str, height: int = 2, width: int = 3) -> Page:
    name = f"{stem}.tif"
    return Page(stem=stem, name=name, path=Path(name), height=height, width=width)


def written_file(name: str, folder: Path, pages: Sequence[Page]) -> Path:
    """A good submission of gray pages."""
    pictures = [
        Restored(stem=p.stem, name=p.name, image=np.full((p.height, p.width, 1), 0.5, np.float32))
        for p in pages
    ]
    path = folder / f"good{FORMATS[name].suffix}"
    FORMATS[name].write(path, pictures, contest=contest_of(name), pages=pages)
    return path


GOOD = "id,value\n1_1_1,0.5\n1_2_1,0.25\n1_1_2,1\n1_2_2,0\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD.replace("id,value", "ID,value"), "line 1: the header is 'ID,value', not 'id,value'"),
        (GOOD.replace("id,value\n", ""), "the header is missing; write 'id,value'"),
        ("\ufeff" + GOOD, "byte-order mark"),
        (GOOD.replace("1_2_1,0.25", "1_2_1,nan"), "line 3 (id '1_2_1'): the value nan is not fin"),
        (GOOD.replace("0.25", "inf"), "the value inf is not finite"),
        (GOOD.replace("0.25", "64"), "the value 64 lies outside 0 to 1"),
        (GOOD.replace("0.25", "-0.25"), "the value -0.25 lies outside 0 to 1"),
        (GOOD.replace("0.25", "white"), "line 3 (id '1_2_1'): 'white' is not a number"),
        (GOOD.replace("0.25", "1_0"), "'1_0' is not a number"),
        (GOOD.replace("0.25", ""), "'' is not a number"),
        (GOOD.replace("0.25", "0,25"), "line 3 has 3 fields, not 2"),
        (GOOD.replace(",0.25", ""), "line 3 has 1 fields, not 2"),
        (GOOD.replace("1_2_1", "1_02_1"), "line 3: no row has the id '1_02_1'"),
        (GOOD.replace("1_2_1", "9_2_1"), "no row has the id '9_2_1'"),
        (GOOD.replace("1_2_1", "1_3_1"), "no row has the id '1_3_1'"),
        (GOOD.replace("1_2_1", "1_0_1"), "no row has the id '1_0_1'"),
        (GOOD.replace("1_2_1", "1_2"), "no row has the id '1_2'"),
        (GOOD.replace("1_2_1", "1_1_1"), "line 3: the id '1_1_1' has been given before"),
        (GOOD.replace("1_2_1,0.25\n", "\n"), "line 3 is empty"),
        (GOOD.replace("1_2_2,0\n", ""), "the id '1_2_2' is missing (row 4 of 4)"),
        (
            GOOD.replace("1_2_2,0\n", ""),
            "the file has 3 rows below its header, the contest wants 4",
        ),
        (GOOD + "1_1_1,1\n", "has been given before"),
        ("id,value\n", "the file has 0 rows"),
        ("", "the file has 0 rows"),
    ],
)
def test_check_names_what_is_wrong_with_a_csv(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(content, "utf-8")
    contest, pages = contest_of("pixels-long"), [page_of("1", 2, 2)]

    report = FORMATS["pixels-long"].check(path, contest=contest, pages=pages)

    assert any(sentence in problem for problem in report.problems), report.problems
    with pytest.raises(DataError, match="not a valid submission"):
        list(FORMATS["pixels-long"].read(path, contest=contest, pages=pages))


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        GOOD.replace("0.25", "2.5e-1"),
        GOOD.replace("1_2_1", '"1_2_1"').replace("id,value", '"id","value"'),
    ],
)
def test_harmless_ways_to_write_a_csv_pass(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(content.encode())

    report = FORMATS["pixels-long"].check(
        path, contest=contest_of("pixels-long"), pages=[page_of("1", 2, 2)]
    )

    assert report.problems == ()
    assert (report.rows, report.minimum, report.mean, report.maximum) == (4, 0.0, 0.4375, 1.0)


def test_thousands_of_equal_problems_are_counted_not_listed(tmp_path: Path) -> None:
    pages = [page_of("1", 100, 100)]
    path = written_file("pixels-long", tmp_path, pages)
    path.write_text(path.read_text().replace(",0", ",-0"))

    report = FORMATS["pixels-long"].check(path, contest=contest_of("pixels-long"), pages=pages)

    assert len(report.problems) == 4
    assert report.problems[-1].startswith("value: 9,")


def test_rows_repeated_after_a_late_one_are_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_bytes, "_CHUNK", 8)  # a line at a time, so that no chunk looks odd
    header, first, *others = GOOD.splitlines(keepends=True)
    path = tmp_path / "s.csv"
    path.write_text("".join([header, *others, first, *others]))

    report = FORMATS["pixels-long"].check(
        path, contest=contest_of("pixels-long"), pages=[page_of("1", 2, 2)]
    )

    assert sum("has been given before" in problem for problem in report.problems) == 3
    assert report.rows == 7


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("s.csv", lambda good: b"id,value\n1_1_1,0.5\n\xff\xfe,1\n", "line 3 is not UTF-8 text"),
        ("s.csv", lambda good: bytes(range(256)) * 40, "the header is"),
        ("s.csv", lambda good: b"x" * (6 << 20), "holds a line longer than"),
        ("s.csv.gz", lambda good: gzip.compress(good)[:-9], "cannot be read to its end"),
        ("s.csv.gz", lambda good: good, "cannot be read to its end"),
        ("s.csv.zip", lambda good: good, "cannot be read to its end"),
    ],
)
def test_check_survives_files_that_are_no_csv(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    path = tmp_path / name
    path.write_bytes(damage(GOOD.encode()))

    report = FORMATS["pixels-long"].check(
        path, contest=contest_of("pixels-long"), pages=[page_of("1", 2, 2)]
    )

    assert any(sentence in problem for problem in report.problems), report.problems


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv"):
        FORMATS[name].check(
            tmp_path / "nothing.csv", contest=contest_of(name), pages=[page_of("1")]
        )


def test_check_names_what_is_wrong_with_an_archive(tmp_path: Path) -> None:
    pages = [page_of(stem) for stem in ("a", "b", "c", "d", "e")]
    good = written_file("zip", tmp_path, pages)
    contents = {name: zipfile.ZipFile(good).read(name) for name in zipfile.ZipFile(good).namelist()}
    write_image(tmp_path / "big.png", np.zeros((3, 3, 1), np.float32))
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.png", contents["a.png"])
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", contents["a.png"])
        archive.writestr("b.png", contents["b.png"][:-20])
        archive.writestr("c.png", (tmp_path / "big.png").read_bytes())
        archive.writestr("d.png", bytes(2 << 20), compress_type=zipfile.ZIP_DEFLATED)
        archive.writestr("../x.png", contents["a.png"])

    report = FORMATS["zip"].check(tmp_path / "bad.zip", contest=contest_of("zip"), pages=pages)

    told = "\n".join(report.problems)
    assert "the file 'a.png' is there twice" in told
    assert "the file 'b.png' cannot be used: it is damaged or cut short" in told
    assert "the file 'c.png' cannot be used: it is 3x3 px, not 3x2 px" in told
    assert "the file 'd.png' unpacks to 2,097,152 bytes" in told
    assert "the file 'e.png' is missing" in told
    assert "no test picture belongs to the file '../x.png'" in told
    assert len(report.problems) == 6


def test_an_archive_cut_short_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    path = written_file("zip", tmp_path, [page_of("a")])
    path.write_bytes(path.read_bytes()[:-30])

    report = FORMATS["zip"].check(path, contest=contest_of("zip"), pages=[page_of("a")])

    assert "the archive cannot be read" in report.problems[0]


def test_a_gray_file_in_a_colour_contest_is_a_problem(tmp_path: Path) -> None:
    path = written_file("zip", tmp_path, [page_of("a")])

    report = FORMATS["zip"].check(path, contest=contest_of("zip", channels=3), pages=[page_of("a")])

    assert "has 1 colour channels, the contest 3" in report.problems[0]
