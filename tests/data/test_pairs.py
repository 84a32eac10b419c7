import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.data.pairs import find_pairs, natural, pair_folders
from kbdenoise.errors import DataError, SettingsError


def touched(folder: Path, *, noisy: Sequence[str], clean: Sequence[str]) -> LocalContest:
    """A contest of empty files: pairing looks at names only."""
    local = LocalContest(folder=folder, contest=Contest(slug="names", noisy="in", clean="out"))
    for side, names in ((local.noisy, noisy), (local.clean, clean)):
        side.mkdir(parents=True)
        for name in names:
            (side / name).touch()
    return local


def one_folder(folder: Path, names: Sequence[str], *, noisy: str, clean: str) -> LocalContest:
    """A contest of empty files in one folder, told by the endings `noisy` and `clean`."""
    for name in names:
        (folder / name).touch()
    contest = Contest(slug="names", noisy=".", clean=".", noisy_ending=noisy, clean_ending=clean)
    return LocalContest(folder=folder, contest=contest)


def refusal(local: LocalContest) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        find_pairs(local)
    return caught.value.message, caught.value.hint


def test_pairs_are_matched_by_stem_whatever_the_suffix(tmp_path):
    local = touched(tmp_path, noisy=["b.tif", "a.PNG"], clean=["a.jpg", "b.png"])

    pairs = find_pairs(local)

    assert [(p.stem, p.noisy.name, p.clean.name) for p in pairs] == [
        ("a", "a.PNG", "a.jpg"),
        ("b", "b.tif", "b.png"),
    ]


def test_inner_dots_belong_to_the_stem(tmp_path):
    names = ["MagPi017.00031.01.tif", "MagPi017.00031.02.tif"]

    pairs = find_pairs(touched(tmp_path, noisy=names, clean=names))

    assert [p.stem for p in pairs] == ["MagPi017.00031.01", "MagPi017.00031.02"]


def test_pairs_come_in_natural_order(tmp_path):
    names = ["page10.png", "page2.png", "page1.png"]

    pairs = find_pairs(touched(tmp_path, noisy=names, clean=names))

    assert [p.stem for p in pairs] == ["page1", "page2", "page10"]


@given(numbers=lists(integers(0, 10**6), unique=True))
def test_natural_order_counts_upwards(numbers):
    names = [f"page{number}.x" for number in numbers]

    assert natural(names) == [f"page{number}.x" for number in sorted(numbers)]


def test_pairs_in_one_folder_are_told_by_their_endings(tmp_path):
    names = ["x_real.jpg", "x_mean.jpg", "y_mean.jpg", "y_real.jpg", "readme.png"]
    local = one_folder(tmp_path, names, noisy="_real", clean="_mean")

    pairing = pair_folders(local)

    assert [(p.stem, p.noisy.name) for p in pairing.pairs] == [
        ("x", "x_real.jpg"),
        ("y", "y_real.jpg"),
    ]
    assert [path.name for path in pairing.ignored] == ["readme.png"]


def test_the_longer_of_two_fitting_endings_counts(tmp_path):
    local = one_folder(tmp_path, ["x_n.png", "x_clean_n.png"], noisy="_n", clean="_clean_n")

    pairs = find_pairs(local)

    assert [(p.noisy.name, p.clean.name) for p in pairs] == [("x_n.png", "x_clean_n.png")]


def test_a_folder_is_never_paired_with_itself(tmp_path):
    local = touched(tmp_path, noisy=["a.png"], clean=[])
    local.clean.rmdir()
    local.clean.symlink_to(local.noisy)

    with pytest.raises(SettingsError, match="are the same files"):
        find_pairs(local)


def test_orphans_of_both_sides_are_named_and_counted(tmp_path):
    noisy = ["both.png", *(f"n{i}.png" for i in range(5))]
    local = touched(tmp_path, noisy=noisy, clean=["both.png", "c.png"])

    message, hint = refusal(local)

    assert "n0.png, n1.png, n2.png and 2 more in" in message
    assert f"c.png in {local.clean} has no partner in {local.noisy}" in message
    assert str(tmp_path / "skip.txt") in hint


def test_when_no_name_matches_the_endings_are_suggested(tmp_path):
    local = touched(tmp_path, noisy=["a_noisy.png"], clean=["a_clean.png"])

    _, hint = refusal(local)

    assert "noisy_ending and clean_ending" in hint


@pytest.mark.parametrize("twice", [["a.png", "a.tif"], ["a.png", "A.png"]])
def test_stems_that_occur_twice_are_refused(tmp_path, twice):
    local = touched(tmp_path, noisy=twice, clean=["a.png"])
    if len(list(local.noisy.iterdir())) < 2:
        pytest.skip("this disk does not tell 'a' from 'A'")

    message, _ = refusal(local)
    pairing = pair_folders(local)

    assert "have the same stem" in message and all(name in message for name in twice)
    assert pairing.pairs == pairing.clean_orphans == ()


def test_accents_match_however_the_system_spells_them(tmp_path):
    local = touched(tmp_path, noisy=["caf\u00e9.png"], clean=["cafe\u0301.png"])

    assert [p.stem for p in find_pairs(local)] == ["caf\u00e9"]


def test_skip_txt_leaves_out_by_stem_or_by_name(tmp_path):
    names = ["a.png", "b.png", "c.png", "a#1.png", "c#2.png"]
    local = touched(tmp_path, noisy=names, clean=[*names, "lone.png"])
    (tmp_path / "skip.txt").write_text("# torn\na  # the corner\n\nb.png\nlone\nc#2\n")

    pairing = pair_folders(local)

    assert [p.stem for p in find_pairs(local)] == ["a#1", "c"]
    assert len(pairing.skipped) == 7


def test_skipping_everything_is_an_error(tmp_path):
    local = touched(tmp_path, noisy=["a.png"], clean=["a.png"])
    (tmp_path / "skip.txt").write_text("a\n")

    assert "leaves out all 2 pictures" in refusal(local)[0]


def test_a_skip_txt_that_is_no_text_is_named(tmp_path):
    local = touched(tmp_path, noisy=["a.png"], clean=["a.png"])
    (tmp_path / "skip.txt").write_bytes("a\n".encode("utf-16"))

    message, hint = refusal(local)

    assert "skip.txt" in message and "UTF-8" in hint


def test_empty_folders_are_an_error_with_the_known_suffixes(tmp_path):
    message, hint = refusal(touched(tmp_path, noisy=["notes.txt"], clean=[]))

    assert "there are no pictures in" in message and ".tif" in hint


def test_a_shared_folder_without_any_ending_is_an_error(tmp_path):
    local = one_folder(tmp_path, ["a.png"], noisy="_n", clean="_c")

    assert "none of the 1 pictures" in refusal(local)[0]


def test_a_missing_folder_is_named(tmp_path):
    local = touched(tmp_path, noisy=["a.png"], clean=[])
    local.clean.rmdir()

    assert str(local.clean) in refusal(local)[0]


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    local = touched(tmp_path, noisy=["a.png"], clean=["a.png"])

    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read whatever its mode says

    message, hint = refusal(local)

    assert str(local.noisy) in message and "may read" in hint


def test_the_real_pages_pair_completely(shared):
    contest = Contest(
        slug="polyu",
        root=str(shared / "polyu"),
        noisy=".",
        clean=".",
        noisy_ending="_real",
        clean_ending="_mean",
    )

    assert len(find_pairs(LocalContest(folder=shared / "polyu", contest=contest))) == 55
