"""What a contest is: where its pictures lie, how it scores, what it wants handed in.

A `Contest` is plain data, kept in a readable `contest.toml` beside the pictures. A `LocalContest`
is one that lies on this disk, ready to train on.
"""

import errno
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import TypeAdapter, ValidationError

from kbdenoise.atomic import write_text
from kbdenoise.contests.options import OPTIONS, Options, options_of
from kbdenoise.errors import DataError, SettingsError, nearest
from kbdenoise.imaging.metrics import METRICS

CONTEST_FILE = "contest.toml"

FORMAT_NAMES = tuple(OPTIONS)
"""The submission formats; their functions stand in `kbdenoise.contests.formats`."""

_REFUSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP}

GroupRule = Literal["pattern", "clean-picture", "noisyoffice-text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The rules of one image-restoration contest.

    Folders are relative to `root`. Pairs are matched by file stem, after the two endings are taken
    off (`page7_noisy.png` with `page7_clean.png` has the endings `_noisy` and `_clean`).
    """

    slug: str
    """Short name: the last part of the contest's address, and of its folder in `data/`."""
    title: str = ""
    root: str = ""
    """Folder of pictures used in place, absolute or from contest.toml on; empty: beside it."""
    noisy: str = "train/noisy"
    clean: str = "train/clean"
    test: str = ""
    """Folder of the test pictures; empty when the contest has none."""
    truth: str = ""
    """Folder of the test pictures' truths, where they are known (the demo contest)."""
    noisy_ending: str = ""
    clean_ending: str = ""
    test_ending: str = ""
    channels: Literal[1, 3] = 3
    """1 restores luma, 3 restores RGB."""
    metric: str = "psnr"
    format: str = "zip"
    """Submission format; `kbdenoise.contests.formats` lists them."""
    sample: str = ""
    """The contest's own sample submission, where it has one."""
    submission: dict[str, Any] = field(default_factory=dict, hash=False)
    """Options of the format, where they are not its defaults: `kbdenoise.contests.options`."""
    notebook_file: str = ""
    """Name of the file that a Kaggle notebook has to write; empty: submission.csv (or .zip)."""
    group_by: GroupRule = "pattern"
    """How pictures that must stay on one side of a split are told."""
    group_pattern: str = r"(.+)"
    """For `group_by = "pattern"`: a regular expression on the stem; its first group is the name."""
    holdout: tuple[str, ...] = ()
    """Groups that make up fold 0; empty means that folds are drawn by seed."""
    max_parameters: int = 0
    """The contest's cap on model parameters; 0 means none."""
    url: str = ""
    terms: str = ""
    """What the contest's data may be used for, in its owners' words."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.slug):
            raise ValueError(f"slug '{self.slug}' must be lower-case letters, digits and '-'")
        if self.metric not in METRICS:
            raise ValueError(f"metric '{self.metric}' is unknown; {nearest(self.metric, METRICS)}")
        if self.format not in FORMAT_NAMES:
            near = nearest(self.format, FORMAT_NAMES)
            raise ValueError(f"format '{self.format}' is unknown; {near}")
        options_of(self.format, self.submission)
        try:
            groups = re.compile(self.group_pattern).groups
        except re.error as error:
            raise ValueError(f"group_pattern is no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"group_pattern must have exactly one group in (), it has {groups}")
        for name in ("noisy", "clean", "test", "truth", "sample"):
            if Path(getattr(self, name)).is_absolute() or ".." in Path(getattr(self, name)).parts:
                raise ValueError(f"{name} must be a folder inside the root, without '..'")
        if Path(self.notebook_file).name != self.notebook_file:
            raise ValueError("notebook_file must be the name of a file, without folders")

    @property
    def options(self) -> Options:
        """How the submission is written: the format's defaults with the table `submission`."""
        return options_of(self.format, self.submission)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalContest:
    """A contest whose pictures lie on this disk."""

    folder: Path
    """Where kbdenoise keeps what it makes of them (store, summary); holds contest.toml."""
    contest: Contest

    @property
    def root(self) -> Path:
        """The folder that the contest's own paths start from."""
        return self.folder / self.contest.root  # an absolute root stands by itself

    @property
    def noisy(self) -> Path:
        """Folder of the degraded training pictures."""
        return self.root / self.contest.noisy

    @property
    def clean(self) -> Path:
        """Folder of the clean training pictures."""
        return self.root / self.contest.clean

    @property
    def test(self) -> Path:
        """Folder of the test pictures; raises DataError when the contest has none."""
        if not self.contest.test:
            raise DataError(
                f"the contest {self.contest.slug} names no folder of test pictures",
                hint=f'write test = "FOLDER" into {self.folder / CONTEST_FILE}, or name the '
                "pictures to restore: kbdenoise predict RUN PICTURES --out FOLDER",
            )
        return self.root / self.contest.test

    @property
    def truth(self) -> Path | None:
        """Folder of the test pictures' truths, or None where they are not known."""
        return self.root / self.contest.truth if self.contest.truth else None


def read_contest(path: Path) -> Contest:
    """A contest from its TOML file. Raises SettingsError naming the file and the wrong key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}",
            hint="run `kbdenoise fetch` first, or name another contest with --data",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error
    return contest_from(content, source=str(path))


def contest_from(content: dict[str, Any], *, source: str) -> Contest:
    """Check a table of contest fields; `source` is named in the error."""
    known = [f.name for f in fields(Contest)]
    for key in content:
        if key not in known:
            raise SettingsError(f"{source}: unknown key '{key}'", hint=nearest(key, known))
    try:
        return TypeAdapter(Contest).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(
            f"{source}: {where + ': ' if where else ''}{message}",
            hint="the contest's keys and their meaning: README, 'Adding a contest'",
        ) from None


def write_contest(path: Path, contest: Contest) -> None:
    """Write contest.toml, complete, so that it can be edited by hand."""
    content = asdict(contest)
    if not contest.submission:
        del content["submission"]
    write_text(path, tomli_w.dumps(content))


def open_contest(name: str | Path | None, *, data: Path = Path("data")) -> LocalContest:
    """Find a contest on this disk.

    `name` is a slug in the folder `data`, a path to a contest's folder, or None for the only
    contest there is. Raises SettingsError when several could be meant and DataError when there is
    none.
    """
    folder = _find(name, data)
    return LocalContest(folder=folder, contest=read_contest(folder / CONTEST_FILE))


def list_contests(data: Path = Path("data")) -> list[Path]:
    """The contest folders inside `data`, sorted by name; hidden ones are left out.

    Those are half-made, or left over from a fetch that was killed.
    """
    with reading():
        found = sorted(p.parent for p in data.glob(f"*/{CONTEST_FILE}"))
    return [folder for folder in found if not folder.name.startswith(".")]


@contextmanager
def reading() -> Iterator[None]:
    """Turn the operating system's refusals to look at a path into a DataError with a cure.

    Before Python 3.14 even `Path.is_file` raises an OSError below a folder that is closed.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno not in _REFUSED:
            raise
        path = Path(os.fsdecode(error.filename))
        closed = _closed(path)
        hint = f"make {closed} readable (chmod -R u+rwX {closed}), or choose another folder"
        if error.errno not in (errno.EACCES, errno.EPERM):
            hint = "check the name: it is too long, or links lead in a circle"
        raise DataError(f"cannot read {path}: {error.strerror}", hint=hint) from error


def _closed(path: Path) -> Path:
    """The outermost folder on the way to `path` that may not be entered, or `path` itself."""
    outer = reversed(path.parents)
    return next((folder for folder in outer if not os.access(folder, os.X_OK)), path)


def _find(name: str | Path | None, data: Path) -> Path:
    found = list_contests(data)
    if name is None:
        if not found:
            raise DataError(f"there is no contest in {data}/", hint="kbdenoise fetch demo")
        if len(found) > 1:
            raise SettingsError(
                f"there are {len(found)} contests in {data}/",
                hint="name one of them: " + ", ".join(p.name for p in found),
            )
        return found[0]
    for folder in (data / str(name), Path(name)):
        with reading():
            if (folder / CONTEST_FILE).is_file():
                return folder
    raise DataError(
        f"there is no contest '{name}' in {data}/",
        hint=nearest(str(name), [p.name for p in found]) if found else f"kbdenoise fetch {name}",
    )
