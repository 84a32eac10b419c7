"""Sources: what a person gave, or what lies on this disk, and which contest it makes.

A source is a folder of pictures, a folder of zips, a zip or several, a contest.toml, a link, or
the folder where Kaggle's notebooks mount a competition; without any of these it is Kaggle itself.
Nothing is written here, and the network is not touched.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unicodedata import normalize

from kbdenoise.contests.archive_checks import check_is_zip
from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import CONTEST_FILE, Contest, read_contest
from kbdenoise.contests.hosted import kaggle_root
from kbdenoise.contests.layout import (
    Layout,
    describe,
    detect_layout,
    picture_folders,
    tells_something,
)
from kbdenoise.contests.remote import KAGGLE_PAGE, is_link, kaggle_page, public_name
from kbdenoise.contests.samples import find_sample
from kbdenoise.contests.stamp import Kind, Stamp, own_file, source_name
from kbdenoise.errors import DataError, SettingsError, nearest
from kbdenoise.imaging.files import list_images

DEMO = "demo"
KAGGLE_INPUT = kaggle_root() / "input"

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_NAMED = 6  # how many zips an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where pictures come from."""

    kind: Kind
    path: Path
    """Absolute; the folder, the (first) zip, the folder of zips or the contest.toml."""
    zips: tuple[Path, ...] = ()
    link: str = ""
    """For the kind "network": a link, or empty for Kaggle's own archive of the contest."""
    url: str = ""
    """The contest's page at Kaggle, where these are Kaggle's own files."""
    notes: tuple[str, ...] = ()

    def name(self, folder: Path) -> str:
        """What the stamp in the contest's `folder` says of it."""
        if self.kind == "network":
            return public_name(self.link)
        if len(self.zips) > 1 and self.path in self.zips:
            return ", ".join(map(str, self.zips))
        return source_name(self.path, folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """How the names of the two training folders fit together."""

    pairs: int
    noisy_alone: tuple[str, ...]
    """Stems without a clean partner."""
    clean_alone: tuple[str, ...]


def contest_slug(name: str) -> str:
    """The slug in a contest's name or in the address of a Kaggle competition.

    Raises SettingsError for what cannot be one.
    """
    page = KAGGLE_PAGE.match(name.strip())
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


def find_origin(
    slug: str,
    sources: Sequence[str | Path],
    folder: Path,
    *,
    stamp: Stamp | None,
    kaggle_input: Path,
    force: bool = False,
) -> Origin:
    """Where the pictures of `slug` come from.

    Those are the `sources`, or else what the last fetch into `folder` used, or what lies in
    `folder` or below `kaggle_input`, or an archive that was kept (not by `force`), or Kaggle.
    Raises DataError, KaggleError or SettingsError.
    """
    mounts = (kaggle_input / "competitions" / slug, kaggle_input / slug)
    origin = _found(slug, sources, folder, stamp=stamp, mounts=mounts, force=force)
    kept = archive_path(folder).absolute()
    from_kaggle = origin.path in map(Path.absolute, mounts) or kept in origin.zips
    if KAGGLE_PAGE.match(origin.link) or from_kaggle:
        return replace(origin, url=kaggle_page(slug))
    return origin


def _found(
    slug: str,
    sources: Sequence[str | Path],
    folder: Path,
    *,
    stamp: Stamp | None,
    mounts: Sequence[Path],
    force: bool,
) -> Origin:
    if slug == DEMO:
        if sources:
            raise SettingsError(
                "the demo contest is made on the spot and has no source",
                hint="leave --from out, or give your contest another name",
            )
        return Origin(kind="demo", path=folder.absolute())
    if stamp and not sources:
        return _as_before(slug, stamp, folder)
    if sources:
        return _one_of(slug, sources, folder, stamp=stamp)
    if (folder / CONTEST_FILE).is_file():
        return Origin(kind="toml", path=own_file(folder))
    for place in (folder, *mounts):
        if place.is_dir() and any(place.iterdir()):
            origin = _given(slug, place.absolute())
            note = f"the data are already here, in {place}"
            return origin if place == folder else replace(origin, notes=(note, *origin.notes))
    kept = archive_path(folder)
    if kept.is_file() and not force:
        note = f"the archive is already here: {kept}"
        return Origin(kind="zips", path=kept.absolute(), zips=(kept.absolute(),), notes=(note,))
    return Origin(kind="network", path=kept, link=kaggle_page(slug))


def archive_path(folder: Path) -> Path:
    """Where the archive from the network lies, beside the contest's folder."""
    return folder.with_name(f"{folder.name}.zip")


def _one_of(
    slug: str, sources: Sequence[str | Path], folder: Path, *, stamp: Stamp | None
) -> Origin:
    """The origin that a person has given: one path, several zips, or one link."""
    links = [str(source) for source in sources if is_link(source)]
    if links:
        if len(sources) > 1:
            raise SettingsError(
                "a link stands alone: --from was given several times",
                hint="download the zips, and give each of them with --from",
            )
        if KAGGLE_PAGE.match(links[0]):
            raise SettingsError(
                f"{public_name(links[0])} is a page of Kaggle, not a file",
                hint=f"leave --from out: kbdenoise fetch {slug}",
            )
        return Origin(kind="network", path=archive_path(folder), link=links[0])
    paths = [Path(source) for source in sources]
    if len(paths) == 1:
        if stamp and source_name(paths[0], folder) == stamp.source:
            return _as_before(slug, stamp, folder)
        return _given(slug, paths[0])
    for path in paths:
        if not path.is_file():
            raise DataError(
                f"{path} is no file: of several --from each must be a zip",
                hint="give the folder that holds them all",
            )
        check_is_zip(path)
    return Origin(kind="zips", path=paths[0], zips=tuple(paths))


def _given(slug: str, source: Path) -> Origin:
    """What a path is: a folder of pictures, a folder of zips, a zip or a contest.toml."""
    if not source.exists():
        raise DataError(f"there is no {source}", hint="check the path given with --from")
    if source.is_file():
        if source.suffix.lower() == ".toml":
            return Origin(kind="toml", path=source)
        check_is_zip(source)
        return Origin(kind="zips", path=source, zips=(source,))
    if (source / CONTEST_FILE).is_file() and read_contest(source / CONTEST_FILE).slug == slug:
        return Origin(kind="toml", path=source / CONTEST_FILE)
    zips = _zips_in(source)
    if zips:
        try:
            contest_for(slug, source)
        except DataError:
            chosen, notes = _chosen_zips(slug, zips)
            return Origin(kind="zips", path=source, zips=chosen, notes=notes)
    return Origin(kind="folder", path=source)


def _zips_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".zip" and p.is_file())


def _chosen_zips(slug: str, zips: list[Path]) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The zips of a folder that belong to the contest; a folder of downloads holds others, too."""
    whole = [p for p in zips if p.stem == slug]
    chosen = whole or [p for p in zips if tells_something(p.stem)] or zips
    if len(chosen) > 1 and chosen is zips:
        names = ", ".join(p.name for p in zips[:_NAMED])
        raise DataError(
            f"cannot tell which zips in {zips[0].parent} belong to {slug}: {names}",
            hint="give one of them with --from, or a folder that holds no others",
        )
    others = [p.name for p in zips if p not in chosen]
    return tuple(chosen), (f"zips left alone: {', '.join(others)}",) if others else ()


def _as_before(slug: str, stamp: Stamp, folder: Path) -> Origin:
    """The origin of the last fetch, for a fetch that names none or the same."""
    if stamp.kind == "network":
        return Origin(kind="network", path=archive_path(folder), link=stamp.source)
    if stamp.kind == "zips" and len(stamp.sources) > 1 and ", " in stamp.source:
        several = tuple(Path(path) for path in stamp.sources)
        return Origin(kind="zips", path=several[0], zips=several)
    own = own_file(folder) if stamp.kind == "toml" else folder.absolute()
    source = Path(stamp.source) if stamp.source else own
    if stamp.kind == "folder" and not source.is_dir():
        raise DataError(
            f"the pictures of {slug} are used in place, and their folder is gone: {source}",
            hint=f"bring it back, or: kbdenoise fetch {slug} --from NEW-FOLDER --force",
        )
    if stamp.kind == "zips" and source.is_dir():
        zips, notes = _chosen_zips(slug, _zips_in(source))
        return Origin(kind="zips", path=source, zips=zips, notes=notes)
    zips = (source,) if stamp.kind == "zips" else ()
    return Origin(kind=stamp.kind, path=source, zips=zips)


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


def own_contest(slug: str, path: Path) -> Contest:
    """A person's contest.toml, its root made absolute.

    Raises SettingsError when it describes another contest than `slug`.
    """
    contest = read_contest(path)
    if contest.slug != slug:
        raise SettingsError(
            f"{path} describes the contest '{contest.slug}', not '{slug}'",
            hint=f"kbdenoise fetch {contest.slug} --from {path}",
        )
    return replace(contest, root=str((path.parent / contest.root).absolute()))


def match_pairs(root: Path, contest: Contest | Layout) -> Matched:
    """Count the pictures of the two training folders that have a partner, by stem.

    Raises DataError for a folder that is missing or unreadable.
    """
    shared = (root / contest.noisy).resolve() == (root / contest.clean).resolve()

    def side(folder: str, ending: str, other: str) -> set[str]:
        stems = {normalize("NFC", p.stem) for p in list_images(root / folder)}
        if not shared:
            return {stem.removesuffix(ending) for stem in stems}
        # Where both endings fit, the longer one says whose picture it is.
        theirs = {s for s in stems if len(other) > len(ending) and s.endswith(other)}
        return {s.removesuffix(ending) for s in stems - theirs if s.endswith(ending)}

    noisy = side(contest.noisy, contest.noisy_ending, contest.clean_ending)
    clean = side(contest.clean, contest.clean_ending, contest.noisy_ending)
    return Matched(
        pairs=len(noisy & clean),
        noisy_alone=tuple(sorted(noisy - clean)),
        clean_alone=tuple(sorted(clean - noisy)),
    )
