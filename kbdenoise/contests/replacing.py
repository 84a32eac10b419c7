"""A contest's folder replaced by a new one, whole or not at all, with a person's files kept."""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kbdenoise.atomic import atomic_folder, writing_to
from kbdenoise.contests.contest import CONTEST_FILE
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
        with writing_to(folder):
            _swap(folder, aside, ours=ours)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(folder: Path, new: Path, *, ours: Mapping[str, int]) -> None:
    old = folder.with_name(f".{folder.name}.old-{uuid.uuid4().hex[:8]}")
    os.replace(folder, old)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(old, folder)
        raise
    for name in _others(old, ours):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(old / name, folder / name)
    shutil.rmtree(old)


def _others(folder: Path, ours: Mapping[str, int]) -> list[str]:
    """The files in a contest's folder that fetch did not write, relative to it."""
    return [name for name in file_sizes(folder) if name not in {CONTEST_FILE, STAMP_FILE, *ours}]
