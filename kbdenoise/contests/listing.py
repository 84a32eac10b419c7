"""What a fetch would bring, without bringing it; and single files, each whole or not at all."""

import fnmatch
import functools
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from kbdenoise.atomic import atomic_folder, writing_to
from kbdenoise.contests.archive_checks import ArchiveError, check_is_zip, name_problem
from kbdenoise.contests.archives import unpack
from kbdenoise.contests.contest import reading
from kbdenoise.contests.download import (
    DamagedError,
    check_room,
    discard,
    download,
    part_path,
)
from kbdenoise.contests.kaggle_client import Body, DataFile, KaggleSite, connect
from kbdenoise.contests.locking import fetching
from kbdenoise.contests.remote import KAGGLE_PAGE, absolute, kaggle_page
from kbdenoise.contests.sources import KAGGLE_INPUT, contest_slug, find_origin
from kbdenoise.contests.stamp import changes_since, read_stamp
from kbdenoise.errors import DataError, KaggleNotFoundError, nearest
from kbdenoise.progress import Note, Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a contest at Kaggle."""

    contest: str
    files: tuple[DataFile, ...]
    size_bytes: int
    """Of all files, unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a fetch would do."""

    contest: str
    folder: Path
    source: str
    """Where the pictures would come from."""
    unchanged: bool
    """All is here already; nothing would be done."""
    files: int | None = None
    """How many would be downloaded, where that is known."""
    size_bytes: int | None = None
    """Of all of them, unpacked."""
    free_bytes: int = 0
    """On the disk of the folder."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFiles:
    """Single files of a contest on this disk."""

    folder: Path
    files: tuple[str, ...]
    """Their paths inside the folder."""
    size_bytes: int
    already_here: int
    """How many of them were not downloaded, as they were here in their full size."""


def list_files(name: str, *, patterns: Sequence[str] = ("*",), tell: Progress = silent) -> Listing:
    """The files of a contest at Kaggle whose path fits one of the patterns. Raises KaggleError."""
    slug = contest_slug(name)
    files = tuple(_wanted(_connected(tell).files(slug), patterns, slug=slug))
    return Listing(contest=slug, files=files, size_bytes=sum(f.size_bytes for f in files))


@reading()
def plan_fetch(
    name: str,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    data: str | Path = Path("data"),
    force: bool = False,
    tell: Progress = silent,
    kaggle_input: Path = KAGGLE_INPUT,
) -> Plan:
    """What `fetch` would do with the same arguments; Kaggle is asked for its list, if need be."""
    slug = contest_slug(name)
    folder = Path(data) / slug
    stamp = read_stamp(folder)
    origin = find_origin(
        slug, absolute(source), folder, stamp=stamp, kaggle_input=kaggle_input, force=force
    )
    unchanged = (
        stamp is not None and not force and not changes_since(folder, stamp, zips=origin.zips)
    )
    files: list[DataFile] | None = None
    if origin.kind == "network" and not unchanged and KAGGLE_PAGE.match(origin.link):
        files = _connected(tell).files(slug)
    source_told = origin.name(folder) or str(folder)
    return _plan(slug, folder, source_told, unchanged=unchanged, files=files, notes=origin.notes)


def fetch_files(
    name: str,
    patterns: Sequence[str],
    *,
    data: str | Path = Path("data"),
    force: bool = False,
    tell: Progress = silent,
) -> FetchedFiles:
    """Download the files of a contest whose path fits one of the patterns (`test/*`).

    They go into `data/<slug>.files`, as Kaggle keeps them: zips are not unpacked. A file that is
    there in its full size is not downloaded again, unless by `force`. Raises KaggleError.
    """
    slug = contest_slug(name)
    folder = Path(data) / f"{slug}.files"
    site = _connected(tell)
    wanted = _wanted(site.files(slug), patterns, slug=slug)
    missing = _missing(wanted, folder, force=force)
    check_room(folder, sum(f.size_bytes for f in missing), what=f"{len(missing)} files of {slug}")
    with fetching(folder.with_name(slug)):
        for file in missing:
            _bring_one(site, slug, file, folder, tell=tell)
    return FetchedFiles(
        folder=folder,
        files=tuple(f.name for f in wanted),
        size_bytes=sum(f.size_bytes for f in wanted),
        already_here=len(wanted) - len(missing),
    )


def plan_files(
    name: str,
    patterns: Sequence[str],
    *,
    data: str | Path = Path("data"),
    force: bool = False,
    tell: Progress = silent,
) -> Plan:
    """What `fetch_files` would do with the same arguments."""
    slug = contest_slug(name)
    folder = Path(data) / f"{slug}.files"
    wanted = _wanted(_connected(tell).files(slug), patterns, slug=slug)
    missing = _missing(wanted, folder, force=force)
    return _plan(slug, folder, kaggle_page(slug), unchanged=not missing, files=missing)


def _plan(
    slug: str,
    folder: Path,
    source: str,
    *,
    unchanged: bool,
    files: list[DataFile] | None,
    notes: tuple[str, ...] = (),
) -> Plan:
    nearest_folder = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return Plan(
        contest=slug,
        folder=folder,
        source=source,
        unchanged=unchanged,
        files=None if files is None else len(files),
        size_bytes=None if files is None else sum(f.size_bytes for f in files),
        free_bytes=shutil.disk_usage(nearest_folder).free,
        notes=notes,
    )


def _wanted(listed: list[DataFile], patterns: Sequence[str], *, slug: str) -> list[DataFile]:
    wanted = [f for f in listed if any(fnmatch.fnmatch(f.name, p) for p in patterns)]
    if wanted or "*" in patterns:
        return wanted
    raise KaggleNotFoundError(
        f"no file of {slug} fits {', '.join(patterns)}",
        hint=nearest(patterns[0], [f.name for f in listed][:40] or ["*"])
        + f"; kbdenoise fetch {slug} --list shows all",
    )


def _missing(wanted: list[DataFile], folder: Path, *, force: bool) -> list[DataFile]:
    return [f for f in wanted if force or not _is_here(folder / f.name, f.size_bytes)]


def _connected(tell: Progress) -> KaggleSite:
    site = connect()
    for remark in site.remarks:
        tell(Note(text=remark))
    return site


def _is_here(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _bring_one(
    site: KaggleSite, slug: str, file: DataFile, folder: Path, *, tell: Progress
) -> None:
    if problem := name_problem(file.name):
        raise DataError(
            f"{slug}: the file {file.name!r} {problem}",
            hint="this is not how a contest names its files; leave it out with --file",
        )
    target = folder / file.name
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)

    def open_at(start: int, validator: str) -> AbstractContextManager[Body]:
        return site.open_data(slug, name=file.name, start=start, validator=validator)

    bring = functools.partial(
        download,
        open_at,
        target,
        source=f"{kaggle_page(slug)}/{file.name}",
        patience=site.patience,
        progress=tell,
        task=file.name,
    )
    for again in (True, False):
        try:
            bring()
            _put_in_place(target, file.size_bytes)
            return
        except DamagedError as error:
            if not again:
                raise
            tell(Note(text=f"{error.message}; it is downloaded once more"))


def _put_in_place(target: Path, size_bytes: int) -> None:
    """Give a downloaded file its name; Kaggle wraps large ones into a zip of their own.

    Raises DamagedError, and keeps nothing, if it is not the file; DataError, and keeps what came,
    when the disk is full.
    """
    part = part_path(target)
    if part.stat().st_size == size_bytes:
        with writing_to(target):
            os.replace(part, target)
    else:
        _unwrap(part, target, size_bytes)
    discard(target)


def _unwrap(part: Path, target: Path, size_bytes: int) -> None:
    folder = target.with_name(f".{target.name}.unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        check_is_zip(part)
        with atomic_folder(folder) as inner:
            unpack([part], inner)
            found = [p for p in inner.rglob("*") if p.is_file()]
            if [p.stat().st_size for p in found] == [size_bytes]:
                os.replace(found[0], target)
                return
        why = f"it has not the {size_bytes:,} bytes that Kaggle lists"
    except ArchiveError as error:
        why = error.message
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    discard(target)
    raise DamagedError(
        f"the download of {target.name} is damaged: {why}",
        hint="run the same command again; nothing of it was kept",
    )
