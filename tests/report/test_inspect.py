import json

from kbdenoise.contests.contest import LocalContest
from kbdenoise.imaging.files import read_picture
from kbdenoise.report.inspect import inspect


def test_inspection_leaves_figures_and_a_sheet(contest: LocalContest) -> None:
    result = inspect(contest.folder)

    figures = json.loads(result.summary_file.read_text())
    assert figures["pairs"] == 8
    assert result.sheet_file is not None
    assert read_picture(result.sheet_file).pixels.shape[2] == 3


def test_broken_and_unequal_pairs_are_counted_and_not_raised(contest: LocalContest) -> None:
    names = sorted(p.name for p in contest.noisy.iterdir())
    (contest.noisy / names[0]).write_bytes(b"hello")
    (contest.clean / names[1]).write_bytes((contest.clean / names[2]).read_bytes()[:99])

    result = inspect(contest.folder)

    text = result.summary_file.read_text()
    assert names[0] in text
    assert names[1] in text


def test_a_contest_of_nothing_but_broken_pairs_has_no_sheet(contest: LocalContest) -> None:
    for path in contest.noisy.iterdir():
        path.write_bytes(b"hello")

    assert inspect(contest.folder).sheet_file is None
