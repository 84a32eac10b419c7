"""Fetch: from a contest's name to pictures that are ready to train on.

A folder is used in place, zips are unpacked into `data/<slug>/`, the demo is made on the spot.
Beside contest.toml lies a stamp that remembers what was fetched, so that a second fetch checks
instead of working, and what a person edited is never overwritten unasked.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from kbdenoise.atomic import atomic_folder, write_bytes, writing_to
from kbdenoise.contests.archives import check_is_zip, unpack
from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import (
    CONTEST_FILE,
    Contest,
    LocalContest,
    read_contest,
    write_contest,
)
from kbdenoise.contests.layout import (
    describe,
    detect_layout,
    find_sample,
    match_pairs,
    picture_folders,
    tells_something,
)
from kbdenoise.errors import DataError, KaggleError, SettingsError, nearest
from kbdenoise.imaging.files import list_images

DEMO = "demo"
STAMP_FILE = ".fetched.json"
KAGGLE_INPUT = Path("/kaggle/input")

Progress = Callable[[int, int], None]
Kind = Literal["demo", "zips", "folder", "toml"]

_KAGGLE_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?kaggle\.com/(?:c|competitions)/([^/?#\s]+)", re.IGNORECASE
)
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_NAMED = 3  # how many files an error or a note names


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
class _Origin:
    """Where pictures come from."""

    kind: Kind
    path: Path
    """Absolute; the folder, the zip, the folder of zips or the contest.toml."""
    zips: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamp:
    """What the last fetch did."""

    kind: Kind
    source: str
    """Absolute path of what was given; empty for the contest's own folder, which may be moved."""
    contest_sha256: str = ""
    """Of contest.toml as fetch wrote it; empty when a person wrote it."""
    sources: Mapping[str, tuple[int, int, str]] = field(default_factory=dict)
    """Zip or contest.toml to its size in bytes, time of change in ns, and SHA-256."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Picture, relative to the contest's root, to its size in bytes."""
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Old:
    """What `data/<slug>` holds before a fetch."""

    folder: Path
    stamp: _Stamp | None
    keep: bool
    """Whether its contest.toml stays, because a person wrote or edited it."""


def fetch(
    name: str,
    *,
    source: str | Path | None = None,
    data: str | Path = Path("data"),
    force: bool = False,
    progress: Progress | None = None,
    kaggle_input: Path = KAGGLE_INPUT,
) -> Fetched:
    """Make the contest `name` ready to train on, in the folder `data/<slug>`.

    `name` is `demo`, a contest of the catalogue, the address of a Kaggle competition, or any new
    name together with a `source`: a folder of pictures (used in place, nothing is copied), a zip,
    a folder of zips, or a contest.toml. Without a source the pictures are looked for in
    `data/<slug>` and where Kaggle's notebooks mount them. `force` fetches anew what is there
    already. `progress` is told bytes unpacked, or demo pages made, and how many there will be.

    Raises DataError, KaggleError or SettingsError; `data/<slug>` is then as it was before.
    """
    slug = contest_slug(name)
    folder = Path(data) / slug
    folder = folder.resolve() if folder.is_symlink() else folder
    stamp = _read_stamp(folder)
    origin = _origin(slug, _absolute(source), folder, stamp=stamp, kaggle_input=kaggle_input)
    notes = [*origin.notes, *_leftovers(folder)]
    if stamp and not force:
        _check_same_origin(folder, stamp, origin)
        changes = _changes(folder, stamp, origin)
        if not changes:
            return _result(folder, stamp, unchanged=True, notes=notes)
        notes += changes
    old = _Old(folder=folder, stamp=stamp, keep=_keeps_contest(folder, stamp, origin, force=force))
    if origin.kind in ("demo", "zips"):
        new = _fill(slug, origin, old, progress=progress, notes=notes)
    else:
        new = _use_in_place(slug, origin, old, notes=notes)
    return _result(folder, new, unchanged=False, notes=notes)


def contest_slug(name: str) -> str:
    """The slug in a contest's name or in the address of a Kaggle competition.

    Raises SettingsError for what cannot be one.
    """
    page = _KAGGLE_PAGE.match(name.strip())
    slug = (page[1] if page else name.strip()).lower()
    if _SLUG.fullmatch(slug):
        return slug
    if "/" in slug or "\\" in slug or slug.endswith((".zip", ".toml")):
        raise SettingsError(
            f"'{name}' is neither a contest's name nor the address of a Kaggle competition",
            hint="name the contest and give a path with --from: kbdenoise fetch NAME --from PATH; "
            "addresses look like https://www.kaggle.com/competitions/NAME",
        )
    proposal = re.sub(r"[^a-z0-9]+", "-", slug).strip("-")
    raise SettingsError(
        f"'{name}' cannot be a contest's name: lower-case letters, digits and '-' only",
        hint=f"write {proposal}" if proposal else nearest(slug, CONTESTS),
    )


# ---- where the pictures come from


def _origin(
    slug: str, source: Path | None, folder: Path, *, stamp: _Stamp | None, kaggle_input: Path
) -> _Origin:
    if slug == DEMO:
        if source:
            raise SettingsError(
                "the demo contest is made on the spot and has no source",
                hint="leave --from out, or give your contest another name",
            )
        return _Origin(kind="demo", path=folder.absolute())
    if stamp and (source is None or _source_name(source, folder) == stamp.source):
        return _as_before(slug, stamp, folder)
    if source:
        return _given(slug, source)
    if (folder / CONTEST_FILE).is_file():
        return _Origin(kind="toml", path=_own_file(folder))
    for place in (folder, kaggle_input / "competitions" / slug, kaggle_input / slug):
        if place.is_dir() and any(place.iterdir()):
            origin = _given(slug, place.absolute())
            note = f"the data are already here, in {place}"
            return origin if place == folder else replace(origin, notes=(note, *origin.notes))
    raise _nowhere(slug, folder, kaggle_input)


def _given(slug: str, source: Path) -> _Origin:
    """What a path is: a folder of pictures, a folder of zips, a zip or a contest.toml."""
    if not source.exists():
        raise DataError(f"there is no {source}", hint="check the path given with --from")
    if source.is_file():
        if source.suffix.lower() == ".toml":
            return _Origin(kind="toml", path=source)
        check_is_zip(source)
        return _Origin(kind="zips", path=source, zips=(source,))
    if (source / CONTEST_FILE).is_file() and read_contest(source / CONTEST_FILE).slug == slug:
        return _Origin(kind="toml", path=source / CONTEST_FILE)
    zips = _zips_in(source)
    if zips:
        try:
            contest_for(slug, source)
        except DataError:
            chosen, notes = _chosen_zips(slug, zips)
            return _Origin(kind="zips", path=source, zips=chosen, notes=notes)
    return _Origin(kind="folder", path=source)


def _zips_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".zip" and p.is_file())


def _chosen_zips(slug: str, zips: list[Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The zips of a folder that belong to the contest; a folder of downloads holds others, too."""
    whole = [p for p in zips if p.stem == slug]
    chosen = whole or [p for p in zips if tells_something(p.stem)] or zips
    if len(chosen) > 1 and chosen is zips:
        names = ", ".join(p.name for p in zips[: 2 * _NAMED])
        raise DataError(
            f"cannot tell which zips in {zips[0].parent} belong to {slug}: {names}",
            hint="give one of them with --from, or a folder that holds no others",
        )
    others = [p.name for p in zips if p not in chosen]
    return tuple(chosen), (f"zips left alone: {', '.join(others)}",) if others else ()


def _as_before(slug: str, stamp: _Stamp, folder: Path) -> _Origin:
    """The origin of the last fetch, for a fetch that names none or the same."""
    own = _own_file(folder) if stamp.kind == "toml" else folder.absolute()
    source = Path(stamp.source) if stamp.source else own
    if stamp.kind == "folder" and not source.is_dir():
        raise DataError(
            f"the pictures of {slug} are used in place, and their folder is gone: {source}",
            hint=f"bring it back, or: kbdenoise fetch {slug} --from NEW-FOLDER --force",
        )
    if stamp.kind == "zips" and source.is_dir():
        zips, notes = _chosen_zips(slug, _zips_in(source))
        return _Origin(kind="zips", path=source, zips=zips, notes=notes)
    zips = (source,) if stamp.kind == "zips" else ()
    return _Origin(kind=stamp.kind, path=source, zips=zips)


def _nowhere(slug: str, folder: Path, kaggle_input: Path) -> KaggleError:
    known = CONTESTS.get(slug)
    where = known.url if known and known.url else f"https://www.kaggle.com/competitions/{slug}"
    hint = (
        f"download its zips in a browser ({where}/data) and run: kbdenoise fetch {slug} "
        "--from FOLDER-OR-ZIP; downloading over the network comes with a later version"
    )
    close = nearest(slug, CONTESTS)
    if not known and close.startswith("did you mean"):
        hint = f"{close} Otherwise {hint}"
    return KaggleError(
        f"the pictures of {slug} are not on this disk (looked into {folder} and {kaggle_input})",
        hint=hint,
    )


# ---- what lies there


def contest_for(slug: str, root: Path) -> tuple[Contest, tuple[str, ...]]:
    """The contest `slug` with the folders that lie in `root`, and notes for the person.

    A contest of the catalogue keeps its rules; of any other the layout is detected, and pictures
    with one and the same clean picture stay together. Raises DataError when `root` does not hold
    noisy and clean pictures.
    """
    known = CONTESTS.get(slug)
    if known is None:
        fields = asdict(detect_layout(root))
        notes = fields.pop("notes")
        return Contest(slug=slug, group_by="clean-picture", **fields), notes
    folders = picture_folders(root)
    paths = {f.path for f in folders}
    bases = [
        base
        for base in ("", *(p.removesuffix(known.noisy) for p in paths if p.endswith(known.noisy)))
        if {base + known.noisy, base + known.clean} <= paths and (not base or base[-1] == "/")
    ]
    if not bases:
        return _renamed(known, root, missing={known.noisy, known.clean} - paths)
    base, notes = bases[0], ()
    if known.test and base + known.test not in paths:
        notes = (f"there are no test pictures in {root / base / known.test}",)
    contest = replace(
        known,
        noisy=base + known.noisy,
        clean=base + known.clean,
        test="" if notes else base + known.test,
        truth=base + known.truth if known.truth and base + known.truth in paths else "",
        sample=find_sample(root),
    )
    return contest, notes


def _renamed(known: Contest, root: Path, *, missing: set[str]) -> tuple[Contest, tuple[str, ...]]:
    """A contest of the catalogue whose folders have other names here."""
    try:
        found = detect_layout(root)
    except DataError as error:
        raise DataError(
            f"{root} does not hold the contest {known.slug}: no pictures in "
            f"{' and '.join(sorted(missing))}; found {describe(picture_folders(root))}",
            hint=f"it should hold {known.noisy}, {known.clean} and {known.test}; "
            "check --from, and that all zips are there",
        ) from error
    names = ("noisy", "clean", "test", "truth", "noisy_ending", "clean_ending", "test_ending")
    renamed = replace(known, sample=found.sample, **{n: getattr(found, n) for n in names})
    note = f"the folders have names of their own: noisy {found.noisy}, clean {found.clean}"
    wanted = [n for n in found.notes if "test pictures" in n or "left out" in n]
    return renamed, (note, *wanted)


def _own_contest(slug: str, path: Path) -> Contest:
    """A person's contest.toml, its root made absolute."""
    contest = read_contest(path)
    if contest.slug != slug:
        raise SettingsError(
            f"{path} describes the contest '{contest.slug}', not '{slug}'",
            hint=f"kbdenoise fetch {contest.slug} --from {path}",
        )
    return replace(contest, root=str((path.parent / contest.root).absolute()))


# ---- doing it


def _fill(
    slug: str, origin: _Origin, old: _Old, *, progress: Progress | None, notes: list[str]
) -> _Stamp:
    """Make or unpack the pictures beside the contest's folder, then put them in its place."""
    ours = old.stamp.files if old.stamp and old.stamp.kind in ("demo", "zips") else {}
    with _replacing(old.folder, ours=ours) as part:
        if origin.kind == "demo":
            from kbdenoise.contests.demo import make_demo_contest  # imports much

            make_demo_contest(part, progress=progress)
            contest = CONTESTS[DEMO]
            stamp = _Stamp(
                kind="demo", source=_source_name(origin.path, old.folder), files=_sizes(part)
            )
        else:
            unpacked = unpack(origin.zips, part, progress=progress)
            contest = _contest_in_zips(slug, origin, part, notes=notes)
            stamp = _Stamp(
                kind="zips",
                source=_source_name(origin.path, old.folder),
                sources={str(path): _fingerprint(path) for path in origin.zips},
                files=unpacked.files,
                skipped=unpacked.skipped,
            )
        return _settle(part, contest, stamp, old=old, notes=notes)


def _contest_in_zips(slug: str, origin: _Origin, part: Path, *, notes: list[str]) -> Contest:
    try:
        contest, more = contest_for(slug, part)
    except DataError as error:
        # The temporary folder is gone when a person reads this.
        raise DataError(
            error.message.replace(str(part), str(origin.path)),
            hint=error.hint.replace(str(part.absolute()), "FOLDER-WITH-THE-UNPACKED-ZIPS"),
        ) from error
    notes += [note.replace(str(part), str(origin.path)) for note in more]
    return contest


def _use_in_place(slug: str, origin: _Origin, old: _Old, *, notes: list[str]) -> _Stamp:
    """Leave the pictures where they are and describe them in `data/<slug>/contest.toml`."""
    if origin.kind == "toml":
        contest = _own_contest(slug, origin.path)
        sources = {str(origin.path): _fingerprint(origin.path)}
    else:
        contest, more = contest_for(slug, origin.path)
        here = origin.path.resolve() == old.folder.resolve()
        contest = replace(contest, root="" if here else str(origin.path))
        sources = {}
        notes += more
    kept = read_contest(old.folder / CONTEST_FILE) if old.keep else contest
    local = LocalContest(folder=old.folder, contest=kept)
    stamp = _Stamp(
        kind=origin.kind,
        source=_source_name(origin.path, old.folder),
        sources=sources,
        files=_picture_sizes(local),
    )
    return _settle(old.folder, contest, stamp, old=old, notes=notes)


def _settle(
    target: Path, contest: Contest, stamp: _Stamp, *, old: _Old, notes: list[str]
) -> _Stamp:
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
    elif content and (not old.stamp or _sha256(content) != old.stamp.contest_sha256):
        backup = _free_name(current)
        write_bytes(target / backup, content)
        notes.append(f"the edited {CONTEST_FILE} was moved to {old.folder / backup}")
    if not old.keep:
        write_contest(target / CONTEST_FILE, contest)
    elif target != old.folder:
        write_bytes(target / CONTEST_FILE, content)
    if not old.keep:
        stamp = replace(stamp, contest_sha256=_sha256((target / CONTEST_FILE).read_bytes()))
    write_bytes(target / STAMP_FILE, _STAMP.dump_json(stamp, indent=1))
    return stamp


def _keeps_contest(folder: Path, stamp: _Stamp | None, origin: _Origin, *, force: bool) -> bool:
    """Whether contest.toml stays as it is. Raises DataError if it is none of fetch's business."""
    path = folder / CONTEST_FILE
    if not path.is_file():
        return False
    if origin.path == _own_file(folder):
        return True
    if force:
        return False
    if not stamp:
        raise DataError(
            f"{folder} already holds a {CONTEST_FILE} that fetch did not write",
            hint="choose another name for the contest, or replace it with --force "
            "(the old file is kept as a backup)",
        )
    return _sha256(path.read_bytes()) != stamp.contest_sha256


@contextmanager
def _replacing(folder: Path, *, ours: Mapping[str, int]) -> Iterator[Path]:
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
    return [name for name in _sizes(folder) if name not in {CONTEST_FILE, STAMP_FILE, *ours}]


# ---- what was fetched, and whether it is still there


_STAMP = TypeAdapter(_Stamp)


def _read_stamp(folder: Path) -> _Stamp | None:
    try:
        return _STAMP.validate_json((folder / STAMP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _check_same_origin(folder: Path, stamp: _Stamp, origin: _Origin) -> None:
    if _source_name(origin.path, folder) != stamp.source:
        raise SettingsError(
            f"{folder} was fetched from {stamp.source or 'itself'}, not from {origin.path}",
            hint="choose another name for the contest, or replace it with --force",
        )


def _changes(folder: Path, stamp: _Stamp, origin: _Origin) -> list[str]:
    """What is no longer as the last fetch left it, in sentences; empty when all is well."""
    if not (folder / CONTEST_FILE).is_file():
        return [f"{folder / CONTEST_FILE} was missing"]
    changed = [p for p in stamp.sources if Path(p).exists() and not _is_same(p, stamp.sources[p])]
    new = [str(p) for p in origin.zips if stamp.sources and str(p) not in stamp.sources]
    told = [f"{path} has changed since the last fetch" for path in changed]
    told += [f"{path} is new" for path in new if Path(path).exists()]
    in_place = stamp.kind in ("folder", "toml")
    local = LocalContest(folder=folder, contest=read_contest(folder / CONTEST_FILE))
    root = local.root if in_place else folder
    now = _picture_sizes(local) if in_place else {n: _size(root / n) for n in stamp.files}
    different = sorted(n for n in {*now, *stamp.files} if now.get(n) != stamp.files.get(n))
    if different:
        names = ", ".join(different[:_NAMED]) + (", ..." if len(different) > _NAMED else "")
        told.append(f"{len(different)} files were missing, new or changed: {names}")
    return told


def _is_same(path: str, known: tuple[int, int, str]) -> bool:
    """Whether a source is what it was; it is read again only if its time has changed."""
    status = Path(path).stat()
    if (status.st_size, status.st_mtime_ns) == known[:2]:
        return True
    return status.st_size == known[0] and _fingerprint(Path(path))[2] == known[2]


def _fingerprint(path: Path) -> tuple[int, int, str]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="check --from") from error
    return status.st_size, status.st_mtime_ns, digest


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """Every file below a folder, relative to it, with its size in bytes; links are not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return dict(sorted(found.items()))


def _picture_sizes(local: LocalContest) -> dict[str, int]:
    """The pictures of a contest, relative to its root, with their sizes in bytes."""
    contest = local.contest
    names = {contest.noisy, contest.clean} | {n for n in (contest.test, contest.truth) if n}
    paths = [path for name in sorted(names) for path in list_images(local.root / name)]
    return {path.relative_to(local.root).as_posix(): path.stat().st_size for path in paths}


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


def _result(folder: Path, stamp: _Stamp, *, unchanged: bool, notes: list[str]) -> Fetched:
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


def _leftovers(folder: Path) -> list[str]:
    """A note for each folder that a killed fetch of this contest has left behind."""
    marks = (".part-", ".new-", ".old-")
    return [
        f"{path} is left over from an interrupted fetch; delete it unless one is running"
        for path in sorted(folder.parent.glob(".*"))
        if path.name.lstrip(".").startswith(f"{folder.name}.")
        and any(m in path.name for m in marks)
    ]


def _free_name(path: Path) -> str:
    """The first free name among contest.toml.bak, contest.toml.bak2, ..."""
    number = 1
    while True:
        name = f"{path.name}.bak{number if number > 1 else ''}"
        if not path.with_name(name).exists():
            return name
        number += 1


def _source_name(path: Path, folder: Path) -> str:
    own = (folder.resolve(), folder.resolve() / CONTEST_FILE)
    return "" if path.resolve() in own else str(path)


def _absolute(path: str | Path | None) -> Path | None:
    """Absolute and without '..', but with its links as the person wrote them."""
    return None if path is None else Path(os.path.abspath(path))


def _own_file(folder: Path) -> Path:
    return Path(os.path.abspath(folder / CONTEST_FILE))
