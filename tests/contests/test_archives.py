"""Zips are unpacked whole, into their folder, or not at all."""

import contextlib
import io
import shutil
import stat
import struct
import zipfile
import zlib
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis.strategies import binary, dictionaries, from_regex

from kbdenoise.contests.archives import Limits, unpack
from kbdenoise.errors import DataError

Content = dict[str, bytes]


def zip_bytes(content: Content, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in content.items():
            entry = zipfile.ZipInfo("placeholder")
            entry.filename = entry.orig_filename = name  # as it is, backslashes and all
            entry.compress_type = method
            archive.writestr(entry, data)
    return buffer.getvalue()


def write_zip(path: Path, content: Content, method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.write_bytes(zip_bytes(content, method))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_every_file_arrives_with_its_content(tmp_path: Path, folder: Path) -> None:
    content = {"train/scan/Page.1.01.tif": b"abc", "train/b.png": b"", "read me.txt": b"x" * 9}

    unpacked = unpack([write_zip(tmp_path / "a.zip", content)], folder)

    assert unpacked.files == {name: len(data) for name, data in content.items()}
    assert {name: (folder / name).read_bytes() for name in content} == content


@settings(max_examples=25, deadline=None)
@given(
    content=dictionaries(
        from_regex(r"[a-z]{1,5}(/[a-z]{1,5}){0,2}\.bin", fullmatch=True), binary(max_size=300)
    )
)
def test_any_archive_comes_back_as_it_was_packed(
    content: Content, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("zip")
    (base / "out").mkdir()

    unpack([write_zip(base / "a.zip", content)], base / "out")

    found = {p.relative_to(base / "out").as_posix() for p in base.glob("out/**/*") if p.is_file()}
    assert found == set(content)
    assert all((base / "out" / name).read_bytes() == data for name, data in content.items())


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_common_method_of_packing_is_read(method: int, tmp_path: Path, folder: Path) -> None:
    unpack([write_zip(tmp_path / "a.zip", {"a.bin": b"abc" * 100}, method)], folder)

    assert (folder / "a.bin").read_bytes() == b"abc" * 100


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../a.png", "would leave its folder"),
        ("train/../../a.png", "would leave its folder"),
        ("train/..", "would leave its folder"),
        ("/etc/a.png", "absolute path"),
        ("//server/a.png", "absolute path"),
        ("C:/a.png", "names a drive"),
        ("c:a.png", "names a drive"),
        ("train\\a.png", "backslash"),
        ("..\\a.png", "backslash"),
        ("train//a.png", "impossible name"),
        ("./a.png", "impossible name"),
        ("a\tb.png", "impossible name"),
        ("a" * 300 + ".png", "impossible name"),
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(
    name: str, reason: str, tmp_path: Path, folder: Path
) -> None:
    archive = write_zip(tmp_path / "a.zip", {"good.png": b"x", name: b"x"})

    with pytest.raises(DataError, match=reason) as caught:
        unpack([archive], folder)

    assert str(archive) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "out"]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "neither"), (stat.S_IFCHR, "neither")],
)
def test_links_and_devices_are_refused(
    kind: int, reason: str, tmp_path: Path, folder: Path
) -> None:
    entry = zipfile.ZipInfo("train")
    entry.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(entry, "/etc")

    with pytest.raises(DataError, match=reason):
        unpack([tmp_path / "a.zip"], folder)

    assert list(folder.iterdir()) == []


def test_an_encrypted_archive_is_refused(tmp_path: Path, folder: Path) -> None:
    packed = bytearray(zip_bytes({"a.png": b"abc"}))
    packed[6] |= 1  # the flag, in the file's own head
    packed[packed.index(b"PK\x01\x02") + 8] |= 1  # and in the central directory
    (tmp_path / "a.zip").write_bytes(packed)

    with pytest.raises(DataError, match=r"'a\.png' is encrypted") as caught:
        unpack([tmp_path / "a.zip"], folder)

    assert "--from" in caught.value.hint


def test_an_unknown_method_of_packing_is_refused(tmp_path: Path, folder: Path) -> None:
    packed = bytearray(zip_bytes({"a.png": b"abc"}))
    packed[8] = packed[packed.index(b"PK\x01\x02") + 10] = 9  # Deflate64
    (tmp_path / "a.zip").write_bytes(packed)

    with pytest.raises(DataError, match="packed by method 9"):
        unpack([tmp_path / "a.zip"], folder)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.png", "a.png"),
        ("a.png", "A.png"),
        ("train/a.png", "Train/b.png"),
        ("\u00e9.png", "e\u0301.png"),
        ("train", "train/a.png"),
        ("train/a.png", "train"),
        ("TRAIN", "train/a.png"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_collide_are_refused(
    first: str, second: str, tmp_path: Path, folder: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(first, b"1")
        archive.writestr(second, b"2")

    with pytest.raises(DataError, match="collides with"):
        unpack([tmp_path / "a.zip"], folder)

    assert list(folder.iterdir()) == []


def test_names_that_collide_across_archives_are_refused(tmp_path: Path, folder: Path) -> None:
    one = write_zip(tmp_path / "train.zip", {"a.png": b"1"})
    two = write_zip(tmp_path / "more.zip", {"train/A.png": b"2"})

    with pytest.raises(DataError, match=r"'train/A\.png' collides with 'train/a\.png'"):
        unpack([one, two], folder)


def test_what_operating_systems_add_is_left_out(tmp_path: Path, folder: Path) -> None:
    junk = ["__MACOSX/train/._a.png", "train/.DS_Store", "train/Thumbs.db", "train/._a.png"]
    content = {"train/a.png": b"a"} | dict.fromkeys(junk, b"junk")

    unpacked = unpack([write_zip(tmp_path / "a.zip", content)], folder)

    assert unpacked.files == {"train/a.png": 1}
    assert unpacked.skipped == 4
    assert [p.name for p in folder.glob("**/*")] == ["train", "a.png"]


def test_a_flipped_byte_is_found_by_its_checksum(tmp_path: Path, folder: Path) -> None:
    packed = bytearray(zip_bytes({"a.png": b"abcdefgh"}, zipfile.ZIP_STORED))
    packed[packed.index(b"abcdefgh")] ^= 1
    (tmp_path / "a.zip").write_bytes(packed)

    with pytest.raises(DataError, match=r"a\.zip/a\.png is damaged or cut short"):
        unpack([tmp_path / "a.zip"], folder)


@settings(max_examples=30, deadline=None)
@given(cut=from_regex(r"[0-9]{1,4}", fullmatch=True))
def test_an_archive_cut_short_anywhere_is_an_error_in_words(
    cut: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("cut")
    (base / "out").mkdir()
    packed = zip_bytes({"train/a.png": bytes(range(256)), "b.png": b"b" * 50})
    (base / "a.zip").write_bytes(packed[: int(cut) % len(packed)])

    with pytest.raises(DataError):
        unpack([base / "a.zip"], base / "out")


@settings(max_examples=40, deadline=None)
@given(place=from_regex(r"[0-9]{1,4}", fullmatch=True), value=binary(min_size=1, max_size=4))
def test_a_damaged_archive_gives_its_content_or_an_error_in_words(
    place: str, value: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("flip")
    (base / "out").mkdir()
    packed = bytearray(zip_bytes({"train/a.bin": bytes(range(256)), "b.bin": b"b" * 50}))
    at = int(place) % (len(packed) - 4)
    packed[at : at + len(value)] = value
    (base / "a.zip").write_bytes(packed)

    try:
        unpacked = unpack([base / "a.zip"], base / "out")
    except DataError:
        return

    assert all((base / "out" / n).stat().st_size == size for n, size in unpacked.files.items())
    assert [p.name for p in base.iterdir() if p.name not in ("a.zip", "out")] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><title>Sign in", "web page"),
        (b"\xef\xbb\xbf\n<HTML>quota exceeded", "web page"),
        (b'{"code":403,"message":"You must accept the rules"}', "web page"),
        (b"", "is empty"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"\x1f\x8b\x08", "a gzip file"),
        (b"hello", "is not a zip"),
    ],
)
def test_what_is_no_zip_is_called_by_its_name(
    content: bytes, message: str, tmp_path: Path, folder: Path
) -> None:
    (tmp_path / "a.zip").write_bytes(content)

    with pytest.raises(DataError, match=message):
        unpack([tmp_path / "a.zip"], folder)


def test_a_web_page_written_over_the_head_of_a_zip_is_found(tmp_path: Path, folder: Path) -> None:
    packed = zip_bytes({"a.png": b"a" * 500}, zipfile.ZIP_STORED)
    (tmp_path / "a.zip").write_bytes(b"<html><title>500</title></html>" + packed[31:])

    with pytest.raises(DataError, match="web page"):
        unpack([tmp_path / "a.zip"], folder)


def test_a_missing_archive_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*a\.zip"):
        unpack([tmp_path / "a.zip"], folder)


def test_a_bomb_is_refused_by_its_own_directory(tmp_path: Path, folder: Path) -> None:
    bomb = write_zip(tmp_path / "a.zip", {"a.png": b"\0" * 1_000_000})
    limits = Limits(ratio_from_bytes=10_000)

    with pytest.raises(DataError, match="would unpack to more than"):
        unpack([bomb], folder, limits=limits)

    assert list(folder.iterdir()) == []


def test_a_bomb_within_a_zip_is_measured_against_the_outermost_archive(
    tmp_path: Path, folder: Path
) -> None:
    inner = zip_bytes({"a.png": b"\0" * 1_000_000})
    outer = write_zip(tmp_path / "a.zip", {"x/inner.zip": inner, "pad.bin": b""})

    with pytest.raises(DataError, match=r"inner\.zip would unpack to more than"):
        unpack([outer], folder, limits=Limits(ratio_from_bytes=10_000))


def test_an_archive_that_lies_about_its_sizes_writes_no_more_than_it_said(
    tmp_path: Path, folder: Path
) -> None:
    data = b"\0" * 1_000_000
    packed = bytearray(zip_bytes({"a.bin": data}))
    crc_of_less = struct.pack("<I", zlib.crc32(data[:10]))
    directory = packed.index(b"PK\x01\x02")
    for at in (14, directory + 16):  # checksum, packed size, unpacked size
        packed[at : at + 4] = crc_of_less
        packed[at + 8 : at + 12] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(packed)

    with contextlib.suppress(DataError):
        unpack([tmp_path / "a.zip"], folder)

    assert (folder / "a.bin").stat().st_size <= 10


def test_too_many_entries_are_refused(tmp_path: Path, folder: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {f"{i}.png": b"" for i in range(11)})

    with pytest.raises(DataError, match="more than 10 files"):
        unpack([archive], folder, limits=Limits(entries=10))


def test_a_blank_picture_is_no_bomb(tmp_path: Path, folder: Path) -> None:
    unpack([write_zip(tmp_path / "a.zip", {"white.bmp": b"\xff" * 5_000_000})], folder)

    assert (folder / "white.bmp").stat().st_size == 5_000_000


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 9_000, 1_000))
    archive = write_zip(tmp_path / "a.zip", {"a.png": b"a" * 1_001})

    with pytest.raises(DataError, match=r"needs 1\.0 kB of disk, and 1\.0 kB are free"):
        unpack([archive], folder)

    assert list(folder.iterdir()) == []


def test_zips_within_a_zip_are_unpacked_beside_themselves_and_removed(
    tmp_path: Path, folder: Path
) -> None:
    outer = write_zip(
        tmp_path / "contest.zip",
        {
            "train.zip": zip_bytes({"train/1.png": b"1"}),
            "data/test.zip": zip_bytes({"2.png": b"2", "3.png": b"3"}),
            "sample.csv.zip": zip_bytes({"sample.csv": b"id,value"}),
        },
    )

    unpacked = unpack([outer], folder)

    assert list(unpacked.files) == [
        "data/test/2.png",
        "data/test/3.png",
        "sample.csv",
        "train/1.png",
    ]
    assert {p.relative_to(folder).as_posix() for p in folder.glob("**/*") if p.is_file()} == set(
        unpacked.files
    )


def test_the_flat_zips_of_the_descanning_contest_find_their_folders(
    tmp_path: Path, folder: Path
) -> None:
    archives = [
        write_zip(tmp_path / "train_scan.zip", {"a.tif": b"1"}),
        write_zip(tmp_path / "train_clean.zip", {"train_clean/a.tif": b"2"}),
        write_zip(tmp_path / "test_scan.zip", {"b.tif": b"3"}),
    ]

    unpacked = unpack(archives, folder)

    assert list(unpacked.files) == ["test/scan/b.tif", "train/clean/a.tif", "train/scan/a.tif"]


def test_a_lone_flat_zip_is_unpacked_as_it_is(tmp_path: Path, folder: Path) -> None:
    unpacked = unpack([write_zip(tmp_path / "polyu.zip", {"a_real.jpg": b"1"})], folder)

    assert list(unpacked.files) == ["a_real.jpg"]


def test_an_unsafe_name_in_an_inner_zip_is_refused(tmp_path: Path, folder: Path) -> None:
    outer = write_zip(tmp_path / "a.zip", {"in.zip": zip_bytes({"../../evil.png": b"x"})})

    with pytest.raises(DataError, match=r"a\.zip/in\.zip: the entry '\.\./\.\./evil\.png'"):
        unpack([outer], folder)

    assert not (tmp_path.parent / "evil.png").exists()


def test_an_inner_zip_may_hold_one_of_its_own_name(tmp_path: Path, folder: Path) -> None:
    inner = zip_bytes({"test.zip": zip_bytes({"a.csv": b"1"})})

    unpacked = unpack([write_zip(tmp_path / "a.zip", {"test.zip": inner})], folder)

    assert list(unpacked.files) == ["a.csv"]
    assert [p.name for p in folder.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("second", ["part.zip", "Part.ZIP"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_inner_zips_of_one_name_are_refused(second: str, tmp_path: Path, folder: Path) -> None:
    inner = [zip_bytes({f"{name}/1.txt": b"x"}) for name in "ab"]
    path = tmp_path / "outer.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("part.zip", inner[0])
        archive.writestr(second, inner[1])

    with pytest.raises(DataError, match=f"'{second}' collides with 'part.zip'"):
        unpack([path], folder)


def test_zips_nested_without_end_are_refused(tmp_path: Path, folder: Path) -> None:
    content = zip_bytes({"a.png": b"x"})
    for _ in range(4):
        content = zip_bytes({"in.zip": content})
    (tmp_path / "a.zip").write_bytes(content)

    with pytest.raises(DataError, match="nested more than 3 deep"):
        unpack([tmp_path / "a.zip"], folder)


def test_progress_ends_at_all_bytes(tmp_path: Path, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    archive = write_zip(tmp_path / "a.zip", {"a.png": b"a" * 3_000_000, "b.png": b"b" * 5})

    unpack([archive], folder, progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (3_000_005, 3_000_005)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
