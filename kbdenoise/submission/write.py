"""Write a submission, check what was written, and score it where the truth is known."""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kbdenoise.atomic import writing_to
from kbdenoise.checksums import checksum
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats import (
    CheckReport,
    Page,
    Restored,
    Source,
    SubmissionFormat,
    Written,
    WrittenPage,
    submission_format,
)
from kbdenoise.contests.stamp import is_running
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.submission.check import (
    Score,
    check_submission,
    match_pictures,
    require_scorable,
    score_answers,
    verified,
)

_UNCHECKED = re.compile(r"\.\.?unchecked-([0-9]+)-.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submission file that was written, read back and found valid."""

    path: Path
    rows: int
    """Data rows of a CSV, files of an archive."""
    checked: CheckReport
    metric: str
    score: Score | None
    """The local score; None where the truth is not known."""
    sha256: str
    """Of the file, in hexadecimal."""
    pages: tuple[WrittenPage, ...]
    """Both mean lumas of every page: of the rounded picture and of the float image."""

    @property
    def local_score(self) -> float | None:
        """The score over all pages, or None where the truth is not known."""
        return None if self.score is None else self.score.value


def write_submission(
    restored: Iterable[Restored],
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    path: Path,
    source: Source = "pixels",
    truth: Path | None = None,
    force: bool = False,
) -> Submission:
    """Write restored pages as the contest wants them; the file appears only if it is valid.

    `restored` may come in any order; the one of `submission_order` keeps memory flat. `source`
    computes the values from the pictures rounded to 8 bits or from the float images. `truth`, a
    folder, defaults to the contest's own; without one there is no score.

    Raises SettingsError when `path` exists already (unless `force`) or has a wrong ending, before
    the first picture is asked for, and DataError when pages are missing, unknown, of a wrong size
    or not finite, or the disk is full.
    """
    chosen = submission_format(contest.contest.format)
    _check_path(path, contest.contest.format, chosen, force=force)
    truth = truth or contest.truth
    truths = None if truth is None else match_pictures(pages, truth, contest=contest)
    if truths is not None:
        require_scorable(contest)
    _remove_stale(path.parent)
    unchecked = path.with_name(f".unchecked-{os.getpid()}-{path.name}")
    try:
        written = chosen.write(unchecked, restored, contest=contest, pages=pages, source=source)
        report = check_submission(unchecked, contest=contest, pages=pages, require_valid=True)
        score = _read_back(unchecked, written, contest=contest, pages=pages, truths=truths)
        sha256 = checksum(unchecked)
        with writing_to(path):
            os.replace(unchecked, path)
    except DataError as error:
        message = error.message.replace(str(unchecked), str(path))
        raise DataError(message, hint=error.hint) from error
    finally:
        unchecked.unlink(missing_ok=True)
    return Submission(
        path=path,
        rows=written.rows,
        checked=replace(report, path=path),
        metric=contest.contest.metric,
        score=score,
        sha256=sha256,
        pages=written.pages,
    )


def submission_order(*, contest: LocalContest, pages: Sequence[Page]) -> list[Page]:
    """The order in which to restore pages, so that the writer need not hold any of them."""
    return submission_format(contest.contest.format).order(contest=contest, pages=pages)


def _read_back(
    path: Path,
    written: Written,
    *,
    contest: LocalContest,
    pages: Sequence[Page],
    truths: dict[str, Path] | None,
) -> Score | None:
    """Read the file again, compare every page with what was written, and score it on the way."""
    chosen = submission_format(contest.contest.format)
    checksums = {page.stem: page.checksum for page in written.pages}
    answers = verified(chosen.read(path, contest=contest, pages=pages), checksums, path=path)
    if truths is not None:
        return score_answers(answers, contest=contest, pages=pages, truths=truths)
    for _ in answers:
        pass
    return None


def _check_path(path: Path, name: str, chosen: SubmissionFormat, *, force: bool) -> None:
    if not path.name.lower().endswith(chosen.suffixes):
        raise SettingsError(
            f"a submission of the format {name} cannot be called {path.name}",
            hint="give it a name ending in " + " or ".join(chosen.suffixes),
        )
    if path.is_dir():
        raise DataError(f"{path} is a folder", hint="move it, or choose another name")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise DataError(
            f"cannot write {path}: {nearest} is not a folder",
            hint="move it, or choose another name",
        )
    if not os.access(nearest, os.W_OK):
        raise DataError(f"not allowed to write {path}", hint=f"check the permissions of {nearest}")
    if path.exists() and not force:
        raise SettingsError(
            f"{path} is there already", hint="add --force to overwrite it, or choose another name"
        )


def _remove_stale(folder: Path) -> None:
    """Remove the unfinished files of submissions whose process was killed."""
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            match = _UNCHECKED.fullmatch(path.name)
            if match and not is_running(int(match[1])):
                path.unlink(missing_ok=True)
