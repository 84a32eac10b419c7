import errno
import os
from pathlib import Path

import pytest

from kbdenoise import atomic
from kbdenoise.atomic import atomic_folder, atomic_path, atomic_write, write_bytes, write_text
from kbdenoise.errors import DataError


def everything_below(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_file_is_written_whole_and_makes_its_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "notes.txt", "grüße\n")

    assert (tmp_path / "new" / "notes.txt").read_bytes() == "grüße\n".encode()
    assert everything_below(tmp_path) == ["new", "new/notes.txt"]


def test_a_failure_half_way_keeps_the_old_content_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    write_bytes(tmp_path / "weights", b"old")

    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "weights") as file:
        file.write(b"half of the new")
        raise ZeroDivisionError

    assert (tmp_path / "weights").read_bytes() == b"old"
    assert everything_below(tmp_path) == ["weights"]


def test_an_interrupt_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "weights") as file:
        file.write(b"half")
        raise KeyboardInterrupt

    assert everything_below(tmp_path) == []


def test_the_old_file_stays_readable_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_bytes(path, b"old")

    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        during = path.read_bytes()

    assert during == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_with_a_cure_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write_bytes(tmp_path / "scores.csv", b"old")

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(DataError, match="no space left") as caught:
        write_bytes(tmp_path / "scores.csv", b"new")

    assert "scores.csv" in caught.value.message
    assert "free some space" in caught.value.hint
    assert (tmp_path / "scores.csv").read_bytes() == b"old"
    assert everything_below(tmp_path) == ["scores.csv"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "runs", b"")

    with pytest.raises(DataError, match="cannot write"):
        write_bytes(tmp_path / "runs" / "config.toml", b"")


def test_a_folder_in_the_way_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()

    with pytest.raises(DataError, match="cannot write"):
        write_bytes(tmp_path / "config.toml", b"")

    assert everything_below(tmp_path) == ["config.toml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    with pytest.raises(DataError, match="not allowed to write"):
        write_bytes(tmp_path / "a", b"")


def test_a_refused_write_is_an_error_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(DataError, match="not allowed to write") as caught:
        write_bytes(tmp_path / "a", b"")

    assert "permissions" in caught.value.hint


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "store") as part:
        (part / "one").write_bytes(b"1")
        assert not (tmp_path / "store").exists()
        (part / "two").write_bytes(b"2")

    assert everything_below(tmp_path) == ["store", "store/one", "store/two"]


def test_a_folder_that_fails_half_way_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "store") as part:
        (part / "one").write_bytes(b"1")
        raise ZeroDivisionError

    assert everything_below(tmp_path) == []


def test_a_folder_with_content_is_never_replaced(tmp_path: Path) -> None:
    write_bytes(tmp_path / "store" / "mine", b"1")

    with pytest.raises(DataError, match="cannot write"), atomic_folder(tmp_path / "store") as part:
        (part / "one").write_bytes(b"1")

    assert everything_below(tmp_path) == ["store", "store/mine"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_somebody_else_writes_takes_its_place_whole(is_folder: bool, tmp_path: Path) -> None:
    def fill(path: Path, content: str) -> None:
        assert path.suffix == ".model"
        if is_folder:
            path.mkdir()
        (path / "weights" if is_folder else path).write_text(content)

    place = tmp_path / "new" / "a.model"
    for content in ("first", "second"):
        with atomic_path(place) as part:
            fill(part, content)

    with pytest.raises(ZeroDivisionError), atomic_path(place) as part:
        fill(part, "half of the third")
        raise ZeroDivisionError

    assert (place / "weights" if is_folder else place).read_text() == "second"
    assert everything_below(tmp_path) == [
        "new",
        "new/a.model",
        *["new/a.model/weights"] * is_folder,
    ]
