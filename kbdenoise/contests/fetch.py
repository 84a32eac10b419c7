"""Fetch: from a contest's name to pictures that are ready to train on.

A folder is used in place, zips are unpacked into `data/<slug>/`, the demo is made on the spot,
and what is not on this disk comes from Kaggle or from a link.
A second fetch checks instead of working (`stamp`), and what a person edited is never overwritten
unasked.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kbdenoise.atomic import write_bytes
from kbdenoise.contests.archives import unpack
from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import (
    CONTEST_FILE,
    Contest,
    LocalContest,
    read_contest,
    reading,
    write_contest,
)
from kbdenoise.contests.download import DamagedError, discard, part_path
from kbdenoise.contests.locking import fetching
from kbdenoise.contests.remote import (
    absolute,
    arriving,
    public_name,
)
from kbdenoise.contests.replacing import clear_leftovers, free_name, replacing
from kbdenoise.contests.sources import (
    DEMO,
    KAGGLE_INPUT,
    Origin,
    contest_for,
    contest_slug,
    find_origin,
    match_pairs,
    own_contest,
)
from kbdenoise.contests.stamp import (
    STAMP_FILE,
    Stamp,
    changes_since,
    file_sizes,
    fingerprint,
    own_file,
    picture_sizes,
    read_stamp,
    sha256,
    source_name,
    write_stamp,
)
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import list_images
from kbdenoise.progress import Note, silent
from kbdenoise.progress import Progress as EventProgress

Progress = Callable[[int, int], None]

_FILLED = ("demo", "zips", "network")  # the kinds whose files fetch has written itself
_OWN = (CONTEST_FILE, STAMP_FILE)  # fetch writes its own, whatever an archive holds
_NAMED = 3  # how many files a note names
_STILL_DAMAGED = (
    "wait a while and run the same command again, or download it in a browser and give it with "
    "--from FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A contest on this disk, and what a person should know of it."""

    folder: Path
    """Holds contest.toml, and the pictures unless they are used in place."""
    contest: Contest
    pairs: int
    tests: int
    """Test pictures; 0 when the contest has none."""
    unchanged: bool
    """Everything was there already, and was checked."""
    skipped: int = 0
    """Files in the archives that an operating system had added; they were left out."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """What `data/<slug>` holds before a fetch."""

    folder: Path
    stamp: Stamp | None
    keep: bool
    """Whether its contest.toml stays, because a person wrote or edited it."""


@reading()
def fetch(
    name: str,
    *,
    source: str | Path | Sequence[str | Path] | None = None,
    data: str | Path = Path("data"),
    force: bool = False,
    keep_zip: bool = False,
    progress: Progress | None = None,
    tell: EventProgress = silent,
    kaggle_input: Path = KAGGLE_INPUT,
) -> Fetched:
    """Make the contest `name` ready to train on, in the folder `data/<slug>`.

    `name` is `demo`, a contest of the catalogue, the name or address of a Kaggle competition, or
    any new name together with a `source`: a folder of pictures (used in place, nothing is copied),
    a zip or several, a folder of zips, a contest.toml, an http(s) link of a zip, or its link in
    Google Drive. Without a source the pictures are looked for in `data/<slug>` and where Kaggle's
    notebooks mount them, then downloaded from Kaggle. `force` fetches anew what is there already;
    `keep_zip` leaves the downloaded archive beside the contest's folder. `progress` is told bytes
    unpacked, or demo pages made, and how many there will be; `tell` hears of the download.

    Raises DataError, KaggleError or SettingsError; `data/<slug>` is then as it was before.
    """
    slug = contest_slug(name)
    folder = Path(data) / slug
    folder = folder.resolve() if folder.is_symlink() else folder
    sources = absolute(source)
    clear_leftovers(folder)
    stamp = read_stamp(folder)
    origin = find_origin(slug, sources, folder, stamp=stamp, kaggle_input=kaggle_input, force=force)
    notes = list(origin.notes)
    if stamp and not force:
        _check_same_origin(folder, stamp, origin)
        changes = changes_since(folder, stamp, zips=origin.zips)
        if not changes:
            _tidy(folder, origin)
            return _result(folder, stamp, unchanged=True, notes=notes)
        notes += changes
    old = _Old(folder=folder, stamp=stamp, keep=_keeps_contest(folder, stamp, origin, force=force))
    if origin.kind == "network":
        new = _from_network(
            slug, origin, old, keep_zip=keep_zip, progress=progress, tell=tell, notes=notes
        )
    elif origin.kind in ("demo", "zips"):
        with fetching(folder):
            new = _fill(slug, origin, old, progress=progress, notes=notes)
    else:
        new = _use_in_place(slug, origin, old, notes=notes)
    return _result(folder, new, unchanged=False, notes=notes)


def _check_same_origin(folder: Path, stamp: Stamp, origin: Origin) -> None:
    if origin.name(folder) != stamp.source:
        raise SettingsError(
            f"{folder} was fetched from {stamp.source or 'itself'}, not from {origin.name(folder)}",
            hint="choose another name for the contest, or replace it with --force",
        )


def _keeps_contest(folder: Path, stamp: Stamp | None, origin: Origin, *, force: bool) -> bool:
    """Whether contest.toml stays as it is. Raises DataError if it is none of fetch's business."""
    path = folder / CONTEST_FILE
    if not path.is_file():
        return False
    if origin.path == own_file(folder):
        return True
    if force:
        return False
    if not stamp:
        raise DataError(
            f"{folder} already holds a {CONTEST_FILE} that fetch did not write",
            hint="choose another name for the contest, or replace it with --force "
            "(the old file is kept as a backup)",
        )
    return sha256(path.read_bytes()) != stamp.contest_sha256


def _fill(
    slug: str, origin: Origin, old: _Old, *, progress: Progress | None, notes: list[str]
) -> Stamp:
    """Make or unpack the pictures beside the contest's folder, then put them in its place."""
    ours = old.stamp.files if old.stamp and old.stamp.kind in _FILLED else {}
    with replacing(old.folder, ours=ours) as part:
        if origin.kind == "demo":
            from kbdenoise.contests.demo import make_demo_contest  # imports much

            make_demo_contest(part, progress=progress)
            contest = CONTESTS[DEMO]
            stamp = Stamp(
                kind="demo", source=source_name(origin.path, old.folder), files=file_sizes(part)
            )
        else:
            unpacked = unpack(origin.zips, part, progress=progress)
            contest = _contest_in_zips(slug, origin, part, notes=notes)
            contest = replace(contest, url=contest.url or origin.url)  # `submit` uploads there
            stamp = Stamp(
                kind=origin.kind,
                source=origin.name(old.folder),
                sources=_fingerprints(origin),
                files={n: s for n, s in unpacked.files.items() if n not in _OWN},
                skipped=unpacked.skipped,
            )
        return _settle(part, contest, stamp, old=old, notes=notes)


def _from_network(
    slug: str,
    origin: Origin,
    old: _Old,
    *,
    keep_zip: bool,
    progress: Progress | None,
    tell: EventProgress,
    notes: list[str],
) -> Stamp:
    """Download an archive and fill the contest's folder from it; a damaged one comes once more."""
    target = origin.path
    with fetching(old.folder):
        for again in (True, False):
            try:
                with arriving(slug, origin.link, target, tell=tell) as part:
                    come = replace(origin, zips=(part,))
                    stamp = _fill(slug, come, old, progress=progress, notes=notes)
                break
            except DamagedError as error:
                if not again:
                    raise DamagedError(
                        f"{error.message}; it came damaged twice", hint=_STILL_DAMAGED
                    ) from error
                tell(Note(text=f"{error.message}; it is downloaded once more"))
        if keep_zip:
            os.replace(part, target)
        discard(target)
    return stamp


def _tidy(folder: Path, origin: Origin) -> None:
    """Remove an archive whose fetch was killed after it had done all else."""
    if origin.kind == "network" and part_path(origin.path).exists():
        with contextlib.suppress(DataError), fetching(folder):
            discard(origin.path)


def _fingerprints(origin: Origin) -> dict[str, tuple[int, int, str]]:
    if origin.kind == "network":
        size_bytes, _, digest = fingerprint(origin.zips[0])
        return {public_name(origin.link): (size_bytes, 0, digest)}
    return {str(path): fingerprint(path) for path in origin.zips}


def _contest_in_zips(slug: str, origin: Origin, part: Path, *, notes: list[str]) -> Contest:
    try:
        contest, more = contest_for(slug, part)
    except DataError as error:
        if origin.kind == "network":  # it is whole: it need not be downloaded again
            os.replace(origin.zips[0], origin.path)
            discard(origin.path)
        # The temporary folder is gone when a person reads this.
        raise DataError(
            error.message.replace(str(part), str(origin.path)),
            hint=error.hint.replace(str(part.absolute()), "FOLDER-WITH-THE-UNPACKED-ZIPS"),
        ) from error
    notes += [note.replace(str(part), str(origin.path)) for note in more]
    return contest


def _use_in_place(slug: str, origin: Origin, old: _Old, *, notes: list[str]) -> Stamp:
    """Leave the pictures where they are and describe them in `data/<slug>/contest.toml`."""
    if origin.kind == "toml":
        contest = own_contest(slug, origin.path)
        sources = {str(origin.path): fingerprint(origin.path)}
    else:
        contest, more = contest_for(slug, origin.path)
        here = origin.path.resolve() == old.folder.resolve()
        root = "" if here else str(origin.path)
        contest = replace(contest, root=root, url=contest.url or origin.url)
        sources = {}
        notes += more
    kept = read_contest(old.folder / CONTEST_FILE) if old.keep else contest
    local = LocalContest(folder=old.folder, contest=kept)
    stamp = Stamp(
        kind=origin.kind,
        source=source_name(origin.path, old.folder),
        sources=sources,
        files=picture_sizes(local),
    )
    return _settle(old.folder, contest, stamp, old=old, notes=notes)


def _settle(target: Path, contest: Contest, stamp: Stamp, *, old: _Old, notes: list[str]) -> Stamp:
    """Write contest.toml and the stamp into `target`, once the contest is seen to have pairs.

    A contest.toml that a person edited is kept as it is, or (by force) moved to a backup.
    """
    current = old.folder / CONTEST_FILE
    content = current.read_bytes() if current.is_file() else b""
    if old.keep:
        contest = read_contest(current)
    _count(LocalContest(folder=target, contest=contest))
    if old.keep:
        notes.append(f"{current} was written or edited by hand, and was kept")
    elif content and (not old.stamp or sha256(content) != old.stamp.contest_sha256):
        backup = free_name(current)
        write_bytes(target / backup, content)
        notes.append(f"the edited {CONTEST_FILE} was moved to {old.folder / backup}")
    if not old.keep:
        write_contest(target / CONTEST_FILE, contest)
    elif target != old.folder:
        write_bytes(target / CONTEST_FILE, content)
    if not old.keep:
        stamp = replace(stamp, contest_sha256=sha256((target / CONTEST_FILE).read_bytes()))
    write_stamp(target, stamp)
    return stamp


def _result(folder: Path, stamp: Stamp, *, unchanged: bool, notes: list[str]) -> Fetched:
    contest = read_contest(folder / CONTEST_FILE)
    pairs, tests, more = _count(LocalContest(folder=folder, contest=contest))
    return Fetched(
        folder=folder,
        contest=contest,
        pairs=pairs,
        tests=tests,
        unchanged=unchanged,
        skipped=stamp.skipped,
        notes=tuple(dict.fromkeys((*notes, *more))),
    )


def _count(local: LocalContest) -> tuple[int, int, list[str]]:
    """Pairs, test pictures, and notes on what has no partner. Raises DataError without pairs."""
    contest = local.contest
    matched = match_pairs(local.root, contest)
    if not matched.pairs:
        raise DataError(
            f"no picture in {local.noisy} has a partner of the same name in {local.clean}",
            hint=f"correct the folders or the endings in {CONTEST_FILE}",
        )
    notes = []
    for alone, where in ((matched.noisy_alone, "clean"), (matched.clean_alone, "noisy")):
        if alone:
            names = ", ".join(alone[:_NAMED]) + (", ..." if len(alone) > _NAMED else "")
            notes.append(f"{len(alone)} pictures have no {where} partner: {names}")
    tests = list_images(local.test) if contest.test else []
    return matched.pairs, sum(p.stem.endswith(contest.test_ending) for p in tests), notes
