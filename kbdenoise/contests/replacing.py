"""A contest's folder replaced by a new one, whole or not at all, with a person's files kept."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kbdenoise.atomic import atomic_folder, writing_to
from kbdenoise.contests.contest import CONTEST_FILE
from kbdenoise.contests.locking import fetching
from kbdenoise.contests.stamp import STAMP_FILE, file_sizes
from kbdenoise.errors import DataError


@contextmanager
def replacing(folder: Path, *, ours: Mapping[str, int]) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder`, whole or not at all.

    Files in `folder` that are not `ours` are carried over. Raises DataError, before anything is
    changed, if one of them is in the way of a new file.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        with atomic_folder(folder) as part:
            yield part
        return
    aside = folder.with_name(f".{folder.name}.new-{uuid.uuid4().hex[:8]}")
    try:
        with atomic_folder(aside) as part:
            yield part
            for name in _others(folder, ours):
                if os.path.lexists(part / name):
                    raise DataError(
                        f"{folder / name} is in the way: fetch did not write it",
                        hint="move it elsewhere, or choose another name for the contest",
                    )
                _share(folder / name, part / name)
        with writing_to(folder):
            _swap(folder, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove what killed fetches have left beside a contest's folder, unless one is running.

    A folder that was just being replaced is put back.
    """
    left = _leftovers(folder)
    if not left:
        return
    with contextlib.suppress(DataError), fetching(folder), writing_to(folder):
        for path in left:
            if ".old-" in path.name and not folder.exists():
                os.replace(path, folder)
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def free_name(path: Path) -> str:
    """The first free name among contest.toml.bak, contest.toml.bak2, ..."""
    number = 1
    while True:
        name = f"{path.name}.bak{number if number > 1 else ''}"
        if not path.with_name(name).exists():
            return name
        number += 1


def _leftovers(folder: Path) -> list[Path]:
    marks = (".part-", ".new-", ".old-")
    return [
        path
        for path in sorted(folder.parent.glob(".*"))
        if path.name.lstrip(".").startswith(f"{folder.name}.")
        and any(mark in path.name for mark in marks)
    ]


def _share(old: Path, new: Path) -> None:
    """Let a person's file be in both folders, so that a kill loses it in neither."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(old, new, follow_symlinks=False)


def _swap(folder: Path, new: Path) -> None:
    old = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old)


def _others(folder: Path, ours: Mapping[str, int]) -> list[str]:
    """The files in a contest's folder that fetch did not write, relative to it."""
    return [name for name in file_sizes(folder) if name not in {CONTEST_FILE, STAMP_FILE, *ours}]
