"""Fetch makes a contest ready to train on, checks it the next time, and overwrites nothing."""

import errno
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests import fetch as module
from kbdenoise.contests.contest import CONTEST_FILE, open_contest
from kbdenoise.contests.fetch import Fetched, fetch
from kbdenoise.contests.locking import fetching
from kbdenoise.contests.replacing import clear_leftovers
from kbdenoise.contests.sources import contest_slug
from kbdenoise.contests.stamp import STAMP_FILE
from kbdenoise.errors import DataError, KaggleError, KbdenoiseError, SettingsError
from kbdenoise.imaging.files import encode
from tests.fake_kaggle import FakeKaggle
from tests.fake_kaggle.fixtures import MakeKaggle

DOCUMENTS = "denoising-dirty-documents"
PICTURE = encode(np.full((2, 3, 1), 100, np.uint8), suffix=".png")

Snapshot = dict[str, tuple[bytes, int]]


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PICTURE)
    return root


def documents(root: Path, *, test: bool = True) -> Path:
    """A tiny contest with the folders of the dirty documents."""
    put(root, *(f"{folder}/{i}.png" for folder in ("train", "train_cleaned") for i in (1, 2, 3)))
    return put(root, "test/7.png", "test/8.png") if test else root


def packed(path: Path, root: Path, *, base: Path | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in root.glob("**/*") if p.is_file()):
            archive.write(file, file.relative_to(base or root))
    return path


def packed_folders(folder: Path, root: Path) -> Path:
    """One zip a folder, as Kaggle packs them."""
    for inner in root.iterdir():
        packed(folder / f"{inner.name}.zip", inner, base=root)
    return folder


def snapshot(folder: Path) -> Snapshot:
    files = [p for p in folder.glob("**/*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def fetched(name: str, source: Path | None, data: Path, **options: object) -> Fetched:
    nowhere = {"kaggle_input": data / "no-kaggle"}
    return fetch(name, source=source, data=data, **(nowhere | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("demo", "demo"),
        ("my-contest-2", "my-contest-2"),
        ("Khu-Descan", "khu-descan"),
        ("https://www.kaggle.com/c/some-contest", "some-contest"),
        ("https://www.kaggle.com/competitions/some-contest/data?select=a.zip", "some-contest"),
        ("http://kaggle.com/c/some-contest/", "some-contest"),
        ("kaggle.com/competitions/some-contest#rules", "some-contest"),
        ("www.kaggle.com/c/some-contest/overview/evaluation", "some-contest"),
        ("  https://WWW.Kaggle.com/c/Some-Contest  ", "some-contest"),
    ],
)
def test_names_and_addresses_give_their_slug(name: str, slug: str) -> None:
    assert contest_slug(name) == slug


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../evil",
        "a b",
        "my_contest",
        "https://www.kaggle.com/datasets/some/thing",
        "https://example.com/c/some-contest",
        "https://notkaggle.com/c/some-contest",
        "data.zip",
        "contest.toml",
    ],
)
def test_what_is_no_name_is_refused_with_a_proposal(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        contest_slug(name)

    assert caught.value.hint


def test_a_folder_is_used_in_place(tmp_path: Path, data: Path) -> None:
    source = documents(tmp_path / "pictures")
    before = snapshot(source)

    result = fetched(DOCUMENTS, source, data)

    assert (result.pairs, result.tests, result.unchanged) == (3, 2, False)
    assert result.contest.root == str(source)
    assert result.contest.metric == "rmse" and result.contest.format == "pixels-long"
    assert open_contest(DOCUMENTS, data=data).noisy == source / "train"
    assert sorted(snapshot(data / DOCUMENTS)) == [STAMP_FILE, CONTEST_FILE]
    assert snapshot(source) == before


def test_a_relative_source_becomes_absolute(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents(tmp_path / "pictures")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    result = fetch(DOCUMENTS, source="../pictures", data=data)

    assert result.contest.root == str(tmp_path / "pictures")


@pytest.mark.parametrize("packing", ["one", "one a folder", "nested", "wrapped"])
def test_zips_are_unpacked_into_the_contest_folder(
    packing: str, tmp_path: Path, data: Path
) -> None:
    original = documents(tmp_path / "original" / "contest")
    zips = packed_folders(tmp_path / "zips", original)
    source = {
        "one": packed(tmp_path / "one.zip", original),
        "one a folder": zips,
        "nested": packed(tmp_path / "nested.zip", zips),
        "wrapped": packed(tmp_path / "wrapped.zip", original.parent),
    }[packing]

    result = fetched(DOCUMENTS, source, data)

    local = open_contest(DOCUMENTS, data=data)
    assert (result.pairs, result.tests, result.contest.root) == (3, 2, "")
    assert local.noisy.is_relative_to(data / DOCUMENTS)
    assert not any("names of their own" in note for note in result.notes)
    assert sorted(p.name for p in local.clean.iterdir()) == ["1.png", "2.png", "3.png"]
    assert not list(data.glob(".*")) and not list(data.glob("**/*.zip"))


def test_the_flat_zips_of_the_descanning_contest_are_laid_out(tmp_path: Path, data: Path) -> None:
    for name in ("train_scan", "train_clean", "test_scan"):
        inner = put(tmp_path / name, "MagPi094.00011.01.png")
        packed(tmp_path / "zips" / f"{name}.zip", inner)

    result = fetched("khu-descan", tmp_path / "zips", data)

    assert (result.contest.noisy, result.contest.test) == ("train/scan", "test/scan")
    assert (data / "khu-descan/train/clean/MagPi094.00011.01.png").is_file()


@pytest.mark.parametrize("packing", ["folder", "zip", "demo", "toml", "here"])
def test_a_second_fetch_changes_nothing(
    packing: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_demo(monkeypatch)
    pictures = documents(data / DOCUMENTS if packing == "here" else tmp_path / "pictures")
    sources = {
        "folder": pictures,
        "zip": packed(tmp_path / "a.zip", pictures),
        "toml": toml(tmp_path / "contest.toml", slug=DOCUMENTS, root=str(pictures)),
    }
    name, source = ("demo" if packing == "demo" else DOCUMENTS), sources.get(packing)
    first = fetched(name, source, data)
    before = snapshot(data)

    second = fetched(name, source, data)
    without_source = fetched(name, None, data)

    assert not first.unchanged and second.unchanged and without_source.unchanged
    assert second.contest == first.contest and second.pairs == first.pairs
    assert snapshot(data) == before


def fake_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path, *, progress: object = None) -> None:
        put(folder, *(f"{f}/A.1.01.tif" for f in ("train/scan", "train/clean")))
        put(folder, *(f"{f}/B.2.01.tif" for f in ("test/scan", "truth/clean")))

    monkeypatch.setattr("kbdenoise.contests.demo.make_demo_contest", make)


def toml(path: Path, *, slug: str, root: str = "") -> Path:
    path.write_text(
        f'slug = "{slug}"\nroot = \'{root}\'\nnoisy = "train"\nclean = "train_cleaned"\n'
        'test = "test"\ntitle = "Mine"\n'
    )
    return path


def test_the_demo_is_made_on_the_spot(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_demo(monkeypatch)

    result = fetched("demo", None, data)

    assert (result.pairs, result.tests) == (1, 1)
    assert open_contest("demo", data=data).truth == data / "demo/truth/clean"


def test_the_demo_takes_no_source(tmp_path: Path, data: Path) -> None:
    with pytest.raises(SettingsError, match="has no source"):
        fetched("demo", tmp_path, data)


def test_a_moved_demo_is_still_known(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_demo(monkeypatch)
    fetched("demo", None, data)
    moved = data.rename(tmp_path / "moved")

    assert fetched("demo", None, moved).unchanged


def test_a_missing_picture_is_noticed_and_unpacked_again(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    (data / DOCUMENTS / "train/2.png").unlink()

    result = fetched(DOCUMENTS, None, data)

    assert not result.unchanged
    assert any("train/2.png" in note for note in result.notes)
    assert (data / DOCUMENTS / "train/2.png").read_bytes() == PICTURE


def test_a_changed_zip_is_noticed_and_unpacked_again(tmp_path: Path, data: Path) -> None:
    pictures = documents(tmp_path / "pictures")
    source = packed(tmp_path / "a.zip", pictures)
    fetched(DOCUMENTS, source, data)
    packed(source, put(pictures, "train/4.png", "train_cleaned/4.png"))

    result = fetched(DOCUMENTS, source, data)

    assert (result.pairs, result.unchanged) == (4, False)
    assert any("has changed" in note for note in result.notes)


def test_a_zip_that_was_only_touched_is_not_unpacked_again(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    os.utime(source, (1, 1))

    assert fetched(DOCUMENTS, source, data).unchanged


def test_unpacked_pictures_outlive_their_zip(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    source.unlink()

    assert fetched(DOCUMENTS, None, data).unchanged


def test_new_pictures_in_a_folder_used_in_place_are_noticed(tmp_path: Path, data: Path) -> None:
    source = documents(tmp_path / "pictures")
    fetched(DOCUMENTS, source, data)
    put(source, "train/4.png", "train_cleaned/4.png")

    result = fetched(DOCUMENTS, None, data)

    assert (result.pairs, result.unchanged) == (4, False)
    assert any("train/4.png" in note for note in result.notes)
    assert fetched(DOCUMENTS, None, data).unchanged


def test_a_folder_that_is_gone_is_an_error_with_a_cure(tmp_path: Path, data: Path) -> None:
    source = documents(tmp_path / "pictures")
    fetched(DOCUMENTS, source, data)
    shutil.rmtree(source)

    with pytest.raises(DataError, match="their folder is gone") as caught:
        fetched(DOCUMENTS, None, data)

    assert "--from" in caught.value.hint


@pytest.mark.parametrize("packing", ["folder", "zip"])
def test_an_edited_contest_file_is_kept(packing: str, tmp_path: Path, data: Path) -> None:
    pictures = documents(tmp_path / "pictures")
    source = packed(tmp_path / "a.zip", pictures) if packing == "zip" else pictures
    fetched(DOCUMENTS, source, data)
    file = data / DOCUMENTS / CONTEST_FILE
    edited = "# mine\n" + file.read_text().replace('"rmse"', '"psnr"')
    file.write_text(edited)
    put(pictures, "train/4.png", "train_cleaned/4.png")
    if packing == "zip":
        packed(source, pictures)

    result = fetched(DOCUMENTS, source, data)

    assert (result.pairs, result.contest.metric) == (4, "psnr")
    assert file.read_text() == edited
    assert any("was kept" in note for note in result.notes)


@pytest.mark.parametrize("packing", ["folder", "zip"])
def test_force_fetches_anew_and_keeps_an_edited_contest_file_as_backup(
    packing: str, tmp_path: Path, data: Path
) -> None:
    pictures = documents(tmp_path / "pictures")
    source = packed(tmp_path / "a.zip", pictures) if packing == "zip" else pictures
    file = data / DOCUMENTS / CONTEST_FILE
    fetched(DOCUMENTS, source, data)
    for text in ("# one\n", "# two\n"):
        file.write_text(text + file.read_text())
        result = fetched(DOCUMENTS, source, data, force=True)

    assert not result.unchanged
    assert not file.read_text().startswith("#")
    assert file.with_name("contest.toml.bak").read_text().startswith("# one\n")
    assert file.with_name("contest.toml.bak2").read_text().startswith("# two\n")
    assert fetched(DOCUMENTS, None, data).unchanged


def test_force_keeps_what_fetch_did_not_write(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    (data / DOCUMENTS / "skip.txt").write_text("1\n")
    put(data / DOCUMENTS, "store/deep/train.bin", "train/old-friend.png")
    (data / DOCUMENTS / "train/1.png").write_bytes(b"damaged")

    fetched(DOCUMENTS, source, data, force=True)

    assert (data / DOCUMENTS / "skip.txt").read_text() == "1\n"
    assert (data / DOCUMENTS / "store/deep/train.bin").read_bytes() == PICTURE
    assert (data / DOCUMENTS / "train/old-friend.png").read_bytes() == PICTURE
    assert (data / DOCUMENTS / "train/1.png").read_bytes() == PICTURE
    assert not list(data.glob(".*"))


def test_a_person_s_file_in_the_way_of_a_new_one_stops_everything(
    tmp_path: Path, data: Path
) -> None:
    put(data / DOCUMENTS, "train/1.png")
    (data / DOCUMENTS / "train/1.png").write_bytes(b"precious")
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    before = snapshot(data)

    with pytest.raises(DataError, match=r"train/1\.png is in the way"):
        fetched(DOCUMENTS, source, data, force=True)

    assert snapshot(data) == before
    assert not list(data.glob(".*"))


def test_a_contest_file_that_fetch_did_not_write_is_not_replaced(
    tmp_path: Path, data: Path
) -> None:
    source = documents(tmp_path / "pictures")
    (data / DOCUMENTS).mkdir(parents=True)
    toml(data / DOCUMENTS / CONTEST_FILE, slug=DOCUMENTS, root=str(source))
    before = snapshot(data)

    with pytest.raises(DataError, match="that fetch did not write"):
        fetched(DOCUMENTS, source, data)

    assert snapshot(data) == before


def test_another_source_needs_force(tmp_path: Path, data: Path) -> None:
    first = documents(tmp_path / "first")
    second = documents(tmp_path / "second", test=False)
    fetched(DOCUMENTS, first, data)

    with pytest.raises(SettingsError, match="was fetched from") as caught:
        fetched(DOCUMENTS, second, data)

    assert "--force" in caught.value.hint
    assert fetched(DOCUMENTS, second, data, force=True).contest.root == str(second)


def test_an_interrupted_unpacking_leaves_nothing(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(DOCUMENTS, source, data, progress=stop)

    assert list(data.iterdir()) == []


def test_an_interrupted_renewal_leaves_the_old_contest(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    before = snapshot(data)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(DOCUMENTS, source, data, force=True, progress=stop)

    assert snapshot(data) == before


def test_a_failed_last_rename_brings_the_old_contest_back(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    before = snapshot(data)
    rename = os.replace

    def refuse(old: Path, new: Path) -> None:
        if ".new-" in Path(old).name and Path(new).name == DOCUMENTS:
            raise PermissionError(13, "refused")
        rename(old, new)

    monkeypatch.setattr(module.os, "replace", refuse)
    with pytest.raises(DataError, match="not allowed to write"):
        fetched(DOCUMENTS, source, data, force=True)

    assert snapshot(data) == before


def test_what_killed_fetches_left_is_removed_unless_one_is_running(
    tmp_path: Path, data: Path
) -> None:
    names = [f".{DOCUMENTS}.part-1", f"..{DOCUMENTS}.new-1.part-2", ".other.part-1"]
    for name in names:
        put(data / name, "train/noisy/1.png")
    (data / f".{DOCUMENTS}.zip.part.json.part-3").write_bytes(b"{")

    with fetching(data / DOCUMENTS):
        clear_leftovers(data / DOCUMENTS)
    assert {p.name for p in data.iterdir()} > set(names)
    result = fetched(DOCUMENTS, documents(tmp_path / "pictures"), data)

    assert sorted(p.name for p in data.iterdir()) == [".other.part-1", DOCUMENTS]
    assert result.notes == ()


def test_a_kill_while_a_folder_is_replaced_loses_nothing_of_a_persons(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    fetched(DOCUMENTS, source, data)
    put(data / DOCUMENTS, "mine/notes.txt")
    before = snapshot(data)
    rename = os.replace

    def killed(old: Path, new: Path) -> None:
        if ".new-" in Path(old).name and Path(new).name == DOCUMENTS:
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            fetched(DOCUMENTS, source, data, force=True)
    assert not (data / DOCUMENTS).exists()

    assert fetched(DOCUMENTS, source, data).unchanged
    assert snapshot(data) == before
    fetched(DOCUMENTS, source, data, force=True)
    assert (data / DOCUMENTS / "mine/notes.txt").read_bytes() == PICTURE
    assert [p.name for p in data.iterdir()] == [DOCUMENTS]


def test_a_file_system_without_locks_does_not_stop_a_fetch(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))

    def unsupported(handle: int, how: int) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)

    assert fetched(DOCUMENTS, source, data).pairs == 3


def test_a_broken_zip_leaves_nothing(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", documents(tmp_path / "pictures"))
    source.write_bytes(source.read_bytes()[:-40])

    with pytest.raises(DataError, match=r"a\.zip is damaged or cut short"):
        fetched(DOCUMENTS, source, data)

    assert list(data.iterdir()) == []


def test_a_zip_of_something_else_is_told_by_its_own_name(tmp_path: Path, data: Path) -> None:
    source = packed(tmp_path / "a.zip", put(tmp_path / "x", "left/1.png", "right/1.png"))

    for name in ("my-contest", DOCUMENTS):
        with pytest.raises(DataError, match=r"a\.zip.*left \(1 pictures\)") as caught:
            fetched(name, source, data)
        assert ".part-" not in str(caught.value) + caught.value.hint

    assert list(data.iterdir()) == []


def test_a_folder_of_downloads_gives_only_the_contest_s_zips(tmp_path: Path, data: Path) -> None:
    downloads = packed_folders(tmp_path / "downloads", documents(tmp_path / "pictures"))
    (downloads / "invoice.zip").write_bytes(b"<html>")

    result = fetched(DOCUMENTS, downloads, data)

    assert result.pairs == 3
    assert "zips left alone: invoice.zip" in result.notes


def test_zips_that_cannot_be_told_apart_are_a_question(tmp_path: Path, data: Path) -> None:
    for name in ("a", "b"):
        packed(tmp_path / "zips" / f"{name}.zip", put(tmp_path / name, "1.png"))

    with pytest.raises(DataError, match=r"cannot tell which zips .*a\.zip, b\.zip"):
        fetched(DOCUMENTS, tmp_path / "zips", data)


def test_unpacked_folders_are_preferred_to_the_zips_beside_them(tmp_path: Path, data: Path) -> None:
    source = documents(tmp_path / "pictures")
    packed(source / "train.zip", source / "train", base=source)

    assert fetched(DOCUMENTS, source, data).contest.root == str(source)


def test_zips_that_lie_in_the_contest_s_own_folder_are_unpacked_there(
    tmp_path: Path, data: Path
) -> None:
    packed_folders(data / DOCUMENTS, documents(tmp_path / "pictures"))

    first = fetched(DOCUMENTS, None, data)
    second = fetched(DOCUMENTS, None, data)

    assert (first.pairs, first.unchanged, second.unchanged) == (3, False, True)
    assert (data / DOCUMENTS / "train.zip").is_file()


@pytest.mark.parametrize("place", ["competitions/denoising-dirty-documents", DOCUMENTS])
def test_pictures_mounted_by_kaggle_are_used_in_place(
    place: str, tmp_path: Path, data: Path
) -> None:
    mounted = documents(tmp_path / "input" / place)

    result = fetched(DOCUMENTS, None, data, kaggle_input=tmp_path / "input")

    assert result.contest.root == str(mounted)
    assert any("already here" in note for note in result.notes)


def test_pictures_that_are_nowhere_say_how_to_get_them(data: Path, make_kaggle: MakeKaggle) -> None:
    make_kaggle(credential="none")

    with pytest.raises(KaggleError, match="no Kaggle credentials") as caught:
        fetched(DOCUMENTS, None, data)

    assert "kaggle.com/competitions/denoising-dirty-documents/data" in caught.value.hint
    assert f"kbdenoise fetch {DOCUMENTS} --from" in caught.value.hint
    assert list(data.iterdir()) == []


def test_a_mistyped_contest_gets_the_nearest_name(data: Path, kaggle: FakeKaggle) -> None:
    with pytest.raises(KaggleError) as caught:
        fetched("denoising-dirty-document", None, data)

    assert caught.value.hint.startswith(f"did you mean '{DOCUMENTS}'?")


def test_a_missing_source_is_named(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        fetched(DOCUMENTS, tmp_path / "nowhere", data)


def test_a_contest_of_the_catalogue_names_the_folder_it_misses(tmp_path: Path, data: Path) -> None:
    source = put(tmp_path / "pictures", "train/1.png", "test/7.png")

    with pytest.raises(DataError, match=r"no pictures in train_cleaned; found test \(1") as caught:
        fetched(DOCUMENTS, source, data)

    assert "train_cleaned" in caught.value.hint
    assert not data.exists()


def test_missing_test_pictures_are_only_a_note(tmp_path: Path, data: Path) -> None:
    result = fetched(DOCUMENTS, documents(tmp_path / "pictures", test=False), data)

    assert (result.pairs, result.tests, result.contest.test) == (3, 0, "")
    assert any("no test pictures" in note for note in result.notes)


def test_a_contest_of_the_catalogue_keeps_its_rules_under_other_folder_names(
    tmp_path: Path, data: Path
) -> None:
    source = put(tmp_path / "pictures", "scan/a.01.png", "clean/a.01.png", "test/b.01.png")

    result = fetched("khu-descan", source, data)

    contest = result.contest
    assert (contest.noisy, contest.clean, contest.test) == ("scan", "clean", "test")
    assert (contest.format, contest.max_parameters, contest.channels) == ("mean-luma", 10**7, 3)
    assert any("names of their own" in note for note in result.notes)


def test_an_invented_contest_is_detected_and_grouped_by_its_clean_pictures(
    tmp_path: Path, data: Path
) -> None:
    source = put(tmp_path / "x", "train/noisy/1.png", "train/clean/1.png", "test/7.png")

    contest = fetched("my-contest", source, data).contest

    assert (contest.noisy, contest.clean, contest.test) == ("train/noisy", "train/clean", "test")
    assert (contest.group_by, contest.metric, contest.format) == ("clean-picture", "psnr", "zip")


def test_a_contest_file_of_one_s_own_starts_from_its_folder(tmp_path: Path, data: Path) -> None:
    source = documents(tmp_path / "pictures")
    file = toml(source / "contest.toml", slug="mine")

    result = fetched("mine", file, data)

    assert (result.pairs, result.contest.title) == (3, "Mine")
    assert open_contest("mine", data=data).noisy == source / "train"


def test_a_contest_file_must_be_of_the_contest_that_was_named(tmp_path: Path, data: Path) -> None:
    file = toml(documents(tmp_path / "pictures") / "contest.toml", slug="mine")

    with pytest.raises(SettingsError, match="describes the contest 'mine', not 'other'"):
        fetched("other", file, data)


def test_a_contest_file_with_a_wrong_folder_writes_nothing(tmp_path: Path, data: Path) -> None:
    file = toml(tmp_path / "contest.toml", slug="mine")

    with pytest.raises(DataError, match="cannot list the folder"):
        fetched("mine", file, data)

    assert not data.exists()


def test_a_contest_whose_names_do_not_match_is_refused(tmp_path: Path, data: Path) -> None:
    source = put(tmp_path / "pictures", "train/1.png", "train_cleaned/2.png", "test/3.png")

    with pytest.raises(DataError, match="has a partner"):
        fetched(DOCUMENTS, source, data)

    assert not (data / DOCUMENTS).exists()


def test_pictures_without_partner_are_mentioned(tmp_path: Path, data: Path) -> None:
    source = put(documents(tmp_path / "pictures"), "train/9.png")

    assert "1 pictures have no clean partner: 9" in fetched(DOCUMENTS, source, data).notes


@pytest.mark.parametrize("content", [b"", b"{", b'{"kind": "zips"}', b'{"kind": 3, "source": []}'])
def test_a_damaged_stamp_is_an_error_in_words_or_no_matter(
    content: bytes, tmp_path: Path, data: Path
) -> None:
    source = documents(tmp_path / "pictures")
    fetched(DOCUMENTS, source, data)
    (data / DOCUMENTS / STAMP_FILE).write_bytes(content)

    with pytest.raises(KbdenoiseError, match="did not write"):
        fetched(DOCUMENTS, source, data)

    assert fetched(DOCUMENTS, None, data).pairs == 3


def test_real_documents_are_fetched(shared: Path, data: Path) -> None:
    result = fetched(DOCUMENTS, shared / "dirty-documents", data)

    assert (result.pairs, result.tests, result.contest.channels) == (144, 36, 1)


@pytest.mark.parametrize(
    ("closed", "file"),
    [
        ("x/train/noisy", "x/train/noisy/1.png"),
        ("x/train", "x/train/clean"),
        ("x", "x/contest.toml"),
        ("data", "data/xx"),
    ],
)
def test_a_folder_that_may_not_be_entered_is_named_with_a_cure(
    closed: str, file: str, tmp_path: Path, run_as_person
) -> None:
    put(tmp_path / "x", *(f"train/{kind}/{i}.png" for kind in ("noisy", "clean") for i in (1, 2)))
    (tmp_path / "data").mkdir()
    (tmp_path / closed).chmod(0o444)

    done = run_as_person(
        "from kbdenoise.contests.fetch import fetch\n"
        "from kbdenoise.errors import DataError\n"
        "try: fetch('xx', source='x')\n"
        "except DataError as error: print(error.message, error.hint, sep='\\n')\n"
    )

    (tmp_path / closed).chmod(0o755)
    assert done.stderr == ""
    message, hint = done.stdout.replace(f"{tmp_path}/", "").splitlines()
    assert message == f"cannot read {file}: Permission denied"
    assert hint == f"make {closed} readable (chmod -R u+rwX {closed}), or choose another folder"
    assert list((tmp_path / "data").iterdir()) == []


def test_a_name_too_long_for_a_folder_is_an_error_in_words(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        fetched("x" * 300, documents(tmp_path / "pictures"), data)


def test_a_broken_link_among_the_pictures_is_named(tmp_path: Path, data: Path) -> None:
    root = put(tmp_path, *(f"train/{k}/{i}.png" for k in ("noisy", "clean") for i in range(30)))
    broken = root / "train/noisy/05.png"
    broken.symlink_to("nowhere.png")

    with pytest.raises(DataError, match="leads nowhere") as caught:
        fetched("mine", root, data)

    assert str(broken) in caught.value.message
    assert not data.exists()
