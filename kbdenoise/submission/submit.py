"""From a run to an accepted file: restore the test pages, write, check, score, log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdenoise.ahead import ahead
from kbdenoise.contests.contest import LocalContest
from kbdenoise.contests.formats import Page, Restored, Source, expected_pages, submission_format
from kbdenoise.imaging.files import read_image
from kbdenoise.inference.loading import Loaded, contest_of, load_run
from kbdenoise.progress import Advance, Fact, Progress, silent
from kbdenoise.runs.folder import now
from kbdenoise.submission import write
from kbdenoise.submission.log import LogEntry, append_log, read_log

LOG_FILE = "log.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submission file that was written and found valid."""

    path: Path
    rows: int
    minimum: float
    """Of the values in the file."""
    mean: float
    maximum: float
    metric: str
    local_score: float | None
    """The contest's score against the truth, or None where it is not known."""
    sha256: str
    notes: tuple[str, ...]


def submit(
    run: str = "last",
    *,
    name: str | Path | None = None,
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    submissions: Path = Path("submissions"),
    message: str = "",
    values: Source = "pixels",
    dry_run: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Submission:
    """Restore a contest's test pages with a run and write the file that the contest wants.

    The file is read back, checked against the contest's rules, and scored where the truth is
    known. Without `dry_run` it gets a line in submissions/log.csv. `values` computes answers from
    the pictures rounded to 8 bits ("pixels") or from the network's floats ("float"). Further
    keyword arguments are settings of PredictConfig.
    """
    loaded = load_run(run, runs=runs, progress=progress, **settings)
    local = contest_of(loaded.run, name, data=data)
    pages = write.submission_order(contest=local, pages=expected_pages(local))
    progress(Fact(label="contest", text=f"{local.contest.slug}: {len(pages):,} test pictures"))
    progress(Fact(label="device", text=loaded.device.text))
    written = write.write_submission(
        _restored(loaded, local, pages, progress),
        contest=local,
        pages=pages,
        path=_path(submissions, loaded, local),
        source=values,
        force=True,
    )
    notes = [*written.checked.notes]
    if not dry_run:
        _log(submissions, loaded, local, written, message)
        notes.append(_what_is_left(local, written))
    return Submission(
        path=written.path,
        rows=written.rows,
        minimum=written.checked.minimum,
        mean=written.checked.mean,
        maximum=written.checked.maximum,
        metric=written.metric,
        local_score=written.local_score,
        sha256=written.sha256,
        notes=tuple(notes),
    )


def _restored(
    loaded: Loaded, local: LocalContest, pages: Sequence[Page], progress: Progress
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


def _path(submissions: Path, loaded: Loaded, local: LocalContest) -> Path:
    """A file named after the run; one that was submitted before keeps its name and content."""
    suffix = submission_format(local.contest.format).suffixes[0]
    sent = {Path(entry.csv).name for entry in read_log(submissions / LOG_FILE)}
    path, number = submissions / f"{loaded.run.name}{suffix}", 1
    while path.name in sent:
        number += 1
        path = submissions / f"{loaded.run.name}-{number}{suffix}"
    return path


def _log(
    submissions: Path,
    loaded: Loaded,
    local: LocalContest,
    written: write.Submission,
    message: str,
) -> None:
    append_log(
        submissions / LOG_FILE,
        LogEntry(
            time=now(),
            contest=local.contest.slug,
            run=loaded.run.name,
            csv=str(written.path),
            sha256=written.sha256,
            metric=written.metric,
            local_score=written.local_score,
            message=message,
        ),
    )


def _what_is_left(local: LocalContest, written: write.Submission) -> str:
    if local.truth is not None:
        return "scored by the contest's own truth, which lies beside it"
    where = f"{local.contest.url}/submit" if local.contest.url else "the contest's page"
    return f"not sent: upload {written.path} by hand at {where}"
