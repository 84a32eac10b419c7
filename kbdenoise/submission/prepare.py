"""A checked submission file: written from a run's restored pages, or given by a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdenoise.ahead import ahead
from kbdenoise.checksums import checksum
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.contests.formats import (
    CheckReport,
    Page,
    Restored,
    Source,
    expected_pages,
    submission_format,
)
from kbdenoise.contests.hosted import kaggle_slug, notebook_output
from kbdenoise.errors import DataError, KaggleValidationError, SettingsError
from kbdenoise.imaging.files import read_image
from kbdenoise.inference.whose import contest_of
from kbdenoise.progress import Advance, Fact, Progress
from kbdenoise.runs.folder import Run, find_run
from kbdenoise.submission import write
from kbdenoise.submission.check import check_submission, score_submission
from kbdenoise.submission.log import LOG_FILE, read_log

if TYPE_CHECKING:
    from kbdenoise.inference.loading import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A submission file that was found valid."""

    local: LocalContest
    run: Run | None
    """None for a file of which nobody says what run it comes from."""
    report: CheckReport
    local_score: float | None
    sha256: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.report.path

    @property
    def held_out_score(self) -> float | None:
        """The run's own score on held-out pictures, if it is in the contest's metric."""
        if self.run is None:
            return None
        record, contest = self.run.read_record(), self.local.contest
        fits = (record.contest, record.metric) == (contest.slug, contest.metric)
        return record.best_score if fits else None


def restore(
    run: str,
    *,
    name: str | Path | None,
    data: Path,
    runs: Path,
    submissions: Path,
    values: Source,
    progress: Progress,
    settings: dict[str, Any],
) -> Prepared:
    """Restore a contest's test pages with a run and write the file, whole and valid or not at all.

    In a Kaggle notebook it is written where Kaggle looks for it.
    """
    from kbdenoise.inference.loading import load_run  # imports torch

    loaded = load_run(run, runs=runs, progress=progress, **settings)
    local = contest_of(loaded.run, name, data=data)
    pages = write.submission_order(contest=local, pages=expected_pages(local))
    progress(Fact(label="contest", text=f"{local.contest.slug}: {len(pages):,} test pictures"))
    progress(Fact(label="device", text=loaded.device.text))
    written = write.write_submission(
        _restored(loaded, local, pages, progress),
        contest=local,
        pages=pages,
        path=_path(submissions, loaded.run, local),
        source=values,
        force=True,
    )
    return Prepared(
        local=local,
        run=loaded.run,
        report=written.checked,
        local_score=written.local_score,
        sha256=written.sha256,
    )


def take(file: Path, *, run: str, name: str | Path | None, data: Path, runs: Path) -> Prepared:
    """Check a file that is there already, and score it where the truth is known.

    Raises KaggleValidationError, or DataError for a contest that is not at Kaggle, where the
    contest would not accept it.
    """
    found, local = _whose(run, name, data=data, runs=runs)
    chosen = submission_format(local.contest.format)
    if not file.name.lower().endswith(chosen.suffixes):
        raise SettingsError(
            f"a submission of the format {local.contest.format} cannot be called {file.name}",
            hint="give it a name ending in " + " or ".join(chosen.suffixes),
        )
    pages = expected_pages(local)
    report = check_submission(file, contest=local, pages=pages)
    try:
        report.require_valid()
    except DataError as error:
        if not kaggle_slug(local.contest):
            raise
        invalid = KaggleValidationError(
            f"{error.message}; nothing was sent", hint="mend it, or write it with kbdenoise submit"
        )
        raise invalid from error
    score = None
    if local.truth is not None:
        score = score_submission(file, contest=local, pages=pages, truth=local.truth).value
    return Prepared(local=local, run=found, report=report, local_score=score, sha256=checksum(file))


def _whose(
    run: str, name: str | Path | None, *, data: Path, runs: Path
) -> tuple[Run | None, LocalContest]:
    """The run and the contest of a given file; the newest run only if the contest is its own."""
    if name is None:
        found = find_run(run, runs)
        return found, contest_of(found, None, data=data)
    local = open_contest(name, data=data)
    try:
        found = find_run(run, runs)
        own = found.read_record().contest == local.contest.slug
    except DataError:
        if run != "last":
            raise
        return None, local
    return (found if own or run != "last" else None), local


def _restored(
    loaded: "Loaded", local: LocalContest, pages: Sequence[Page], progress: Progress
) -> Iterator[Restored]:
    channels = local.contest.channels
    images = ahead(read_image(page.path, channels=channels) for page in pages)
    restored = loaded.restoration.images(images)
    if loaded.restoration.restorer.pace.beside_host:  # write one page while another is restored
        restored = ahead(restored)
    for done, (page, image) in enumerate(zip(pages, restored, strict=True)):
        progress(Advance(task="restore", done=done, total=len(pages)))
        yield Restored(stem=page.stem, name=page.name, image=image)
    progress(Advance(task="restore", done=len(pages), total=len(pages)))


def _path(submissions: Path, run: Run, local: LocalContest) -> Path:
    """A file named after the run; one that is in the log keeps its name and content.

    A Kaggle notebook has one file, of the name that the contest wants.
    """
    suffix = submission_format(local.contest.format).suffixes[0]
    if (output := notebook_output()) is not None:
        return output / (local.contest.notebook_file or f"submission{suffix}")
    logged = {Path(entry.csv).name for entry in read_log(submissions / LOG_FILE)}
    path, number = submissions / f"{run.name}{suffix}", 1
    while path.name in logged:
        number += 1
        path = submissions / f"{run.name}-{number}{suffix}"
    return path
