"""The stamp: what a fetch left behind, so that the next one checks instead of working.

It lies beside contest.toml and remembers where the pictures came from, the size of each, and the
contest.toml that was written, so that a person's edits are told from fetch's own words.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from kbdenoise.atomic import write_bytes
from kbdenoise.contests.contest import CONTEST_FILE, LocalContest, read_contest
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import list_images

STAMP_FILE = ".fetched.json"

Kind = Literal["demo", "zips", "network", "folder", "toml"]

_NAMED = 3  # how many files a sentence names


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What the last fetch did."""

    kind: Kind
    source: str
    """Absolute path of what was given, or a link without its query; empty for the contest's own
    folder, which may be moved."""
    contest_sha256: str = ""
    """Of contest.toml as fetch wrote it; empty when a person wrote it."""
    sources: Mapping[str, tuple[int, int, str]] = field(default_factory=dict)
    """Zip, link or contest.toml to its size in bytes, time of change in ns, and SHA-256."""
    files: Mapping[str, int] = field(default_factory=dict)
    """Picture, relative to the contest's root, to its size in bytes."""
    skipped: int = 0


_STAMP = TypeAdapter(Stamp)


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp in a contest's folder, or None where there is none that can be read."""
    try:
        return _STAMP.validate_json((folder / STAMP_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Write the stamp into a contest's folder."""
    write_bytes(folder / STAMP_FILE, _STAMP.dump_json(stamp, indent=1))


def changes_since(folder: Path, stamp: Stamp, *, zips: Sequence[Path]) -> list[str]:
    """What is no longer as the last fetch left it, in sentences; empty when all is well.

    `zips` are those that a fetch would unpack now.
    """
    if not (folder / CONTEST_FILE).is_file():
        return [f"{folder / CONTEST_FILE} was missing"]
    changed = [p for p in stamp.sources if Path(p).exists() and not _is_same(p, stamp.sources[p])]
    new = [str(p) for p in zips if stamp.sources and str(p) not in stamp.sources]
    told = [f"{path} has changed since the last fetch" for path in changed]
    told += [f"{path} is new" for path in new if Path(path).exists()]
    in_place = stamp.kind in ("folder", "toml")
    local = LocalContest(folder=folder, contest=read_contest(folder / CONTEST_FILE))
    root = local.root if in_place else folder
    now = picture_sizes(local) if in_place else {n: _size(root / n) for n in stamp.files}
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
    return status.st_size == known[0] and fingerprint(Path(path))[2] == known[2]


def fingerprint(path: Path) -> tuple[int, int, str]:
    """Size in bytes, time of change in ns, and SHA-256 of a file.

    Raises DataError when it cannot be read.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", hint="check --from") from error
    return status.st_size, status.st_mtime_ns, digest


def sha256(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def file_sizes(folder: Path) -> dict[str, int]:
    """Every file below a folder, relative to it, with its size in bytes; links are not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return dict(sorted(found.items()))


def picture_sizes(local: LocalContest) -> dict[str, int]:
    """The pictures of a contest, relative to its root, with their sizes in bytes.

    Raises DataError for one that cannot be looked at, such as a broken link.
    """
    contest = local.contest
    names = {contest.noisy, contest.clean} | {n for n in (contest.test, contest.truth) if n}
    paths = [path for name in sorted(names) for path in list_images(local.root / name)]
    return {path.relative_to(local.root).as_posix(): _picture_size(path) for path in paths}


def _picture_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        if path.is_symlink() and not isinstance(error, PermissionError):
            raise DataError(
                f"{path} is a link that leads nowhere ({os.readlink(path)})",
                hint="bring back the picture that it names, or remove the link",
            ) from error
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint=f"check the permissions of {path.parent}"
        ) from error


def is_running(process: int) -> bool:
    """Whether a process of this number runs on this machine; True where that cannot be told."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def source_name(path: Path, folder: Path) -> str:
    """What a stamp says of a source; empty for the contest's own folder, which may be moved."""
    own = (folder.resolve(), folder.resolve() / CONTEST_FILE)
    return "" if path.resolve() in own else str(path)


def own_file(folder: Path) -> Path:
    """The contest.toml of a contest's folder, absolute, with its links."""
    return Path(os.path.abspath(folder / CONTEST_FILE))
