"""From a run to a scored submission: restore, write, check, log; send it and wait for its score."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbdenoise.contests.formats import Source
from kbdenoise.contests.hosted import kaggle_slug, notebook_output
from kbdenoise.errors import KbdenoiseError
from kbdenoise.notation import seconds
from kbdenoise.progress import Note, Progress, silent
from kbdenoise.runs.folder import now
from kbdenoise.submission.log import (
    LOG_FILE,
    PENDING,
    REFUSED,
    WRITTEN,
    LogEntry,
    append_log,
    new_mark,
    read_log,
    update_log,
)
from kbdenoise.submission.prepare import Prepared, restore, take
from kbdenoise.submission.score import await_score, best_before, require_scored
from kbdenoise.submission.settle import settle
from kbdenoise.submission.upload import Ask, Sent, description, send


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submission file that was found valid, and what became of it."""

    path: Path
    rows: int
    minimum: float
    """Of the values in the file."""
    mean: float
    maximum: float
    metric: str
    local_score: float | None
    """The contest's score against the truth, or None where it is not known."""
    held_out_score: float | None
    """The run's own score on held-out pictures, in the same metric; None where there is none."""
    sha256: str
    contest: str
    run: str
    slug: str
    """The contest's name at Kaggle; empty where it is not there."""
    status: str
    """`written` while nothing was sent, or how far it is at Kaggle: `pending`, `complete`."""
    reference: str
    """Kaggle's number of the submission."""
    public_score: float | None
    private_score: float | None
    best_before: float | None
    """The best public score of the submissions before this one."""
    remaining_today: int | None
    """Submissions left at Kaggle; None where it was not asked."""
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
    file: Path | None = None,
    upload: bool | Ask = False,
    force: bool = False,
    wait: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> Submission:
    """Restore a contest's test pages with a run, write what the contest wants, and hand it in.

    The file is read back, checked against the contest's rules, and scored where the truth is
    known. Without `dry_run` it gets a line in submissions/log.csv. `values` computes answers from
    the pictures rounded to 8 bits ("pixels") or from the network's floats ("float"). `file` hands
    in a file that is there already instead. In a Kaggle notebook the file is written where Kaggle
    looks for it. Further keyword arguments are settings of PredictConfig.

    With `upload` the file goes to Kaggle if the contest is there (`url` in its contest.toml): True
    does not ask, a function is shown what it would cost and says whether. The very same file twice
    needs `force`. `wait`, a duration such as 15m, waits for the score.

    Raises DataError, SettingsError, and KaggleError of any kind; a file that was written and its
    line in the log are kept then, and the error's `facts` tell of them.
    """
    wait_s = seconds(wait, name="--wait") if wait else 0.0
    if file is not None:
        prepared = take(file, run=run, name=name, data=data, runs=runs)
    else:
        prepared = restore(
            run,
            name=name,
            data=data,
            runs=runs,
            submissions=submissions,
            values=values,
            progress=progress,
            settings=settings,
        )
    slug = kaggle_slug(prepared.local.contest)
    if dry_run:
        entry = _entry(prepared, message)
        return _result(prepared, entry, notes=_would_be_sent(entry, slug))
    log = submissions / LOG_FILE
    entry = _logged(prepared, message, log=log, given=file is not None)
    if not slug or upload is False:
        return _result(prepared, entry, notes=_not_sent(prepared, slug))
    with _facts_kept(prepared, entry, log):
        sent = send(
            entry,
            log=log,
            slug=slug,
            path=prepared.path,
            ask=upload if callable(upload) else None,
            force=force,
            progress=progress,
        )
        if not sent.entry.was_sent:
            notes = _not_sent(prepared, slug)
            return _result(prepared, sent.entry, left=sent.left, notes=notes)
        progress(Note(text=f"sent: it is submission {sent.entry.reference} to {slug}"))
        entry = _waited(sent, wait_s, log=log, progress=progress)
    return _result(prepared, entry, left=sent.left, log=log)


def _waited(sent: Sent, wait_s: float, *, log: Path, progress: Progress) -> LogEntry:
    """The entry with its score, if that is there or is waited for."""
    entry = sent.entry
    require_scored(entry)
    if entry.status != PENDING or not wait_s:
        return entry
    known = await_score(
        sent.site, entry.reference, wait_s=wait_s, log=log, entry=entry, progress=progress
    )
    return settle(log, entry, known)


def _entry(prepared: Prepared, message: str) -> LogEntry:
    return LogEntry(
        time=now(),
        contest=prepared.local.contest.slug,
        run=prepared.run.name if prepared.run else "",
        csv=str(prepared.path),
        sha256=prepared.sha256,
        metric=prepared.local.contest.metric,
        local_score=prepared.local_score,
        message=" ".join(message.split()),
        status=WRITTEN,
        held_out_score=prepared.held_out_score,
        mark=new_mark(),
    )


def _logged(prepared: Prepared, message: str, *, log: Path, given: bool) -> LogEntry:
    """A new line of the log, or the one that a given file has already, if it was never sent."""
    entry = _entry(prepared, message)
    for old in reversed(read_log(log) if given else []):
        same = (old.contest, old.csv, old.sha256) == (entry.contest, entry.csv, entry.sha256)
        if same and old.mark and old.status in (WRITTEN, REFUSED):
            words = {"message": entry.message} if message else {}
            return update_log(log, old, status=WRITTEN, detail="", **words)
    append_log(log, entry)
    return entry


@contextmanager
def _facts_kept(prepared: Prepared, entry: LogEntry, log: Path) -> Iterator[None]:
    """Let an error, and Ctrl-C, tell of the file and of the submission, as the log has them."""
    try:
        yield
    except (KbdenoiseError, KeyboardInterrupt) as error:
        current = next((e for e in reversed(read_log(log)) if e.mark == entry.mark), entry)
        known = dict(getattr(error, "facts", {}))
        error.facts = facts_of(current) | {"path": prepared.path} | known  # type: ignore[union-attr]
        raise


def facts_of(entry: LogEntry) -> dict[str, object]:
    """What an error tells of a submission beside its words."""
    return {
        "contest": entry.contest,
        "run": entry.run,
        "reference": entry.reference,
        "status": entry.status,
        "sha256": entry.sha256,
    }


def _result(
    prepared: Prepared,
    entry: LogEntry,
    *,
    left: int | None = None,
    log: Path | None = None,
    notes: tuple[str, ...] = (),
) -> Submission:
    report = prepared.report
    return Submission(
        path=prepared.path,
        rows=report.rows,
        minimum=report.minimum,
        mean=report.mean,
        maximum=report.maximum,
        metric=entry.metric,
        local_score=entry.local_score,
        held_out_score=entry.held_out_score,
        sha256=entry.sha256,
        contest=entry.contest,
        run=entry.run,
        slug=kaggle_slug(prepared.local.contest),
        status=entry.status,
        reference=entry.reference,
        public_score=entry.public_score,
        private_score=entry.private_score,
        best_before=best_before(entry, read_log(log)) if log else None,
        remaining_today=left,
        notes=(*report.notes, *notes),
    )


def _would_be_sent(entry: LogEntry, slug: str) -> tuple[str, ...]:
    if not slug:
        return ()
    shown = description(replace(entry, mark="..."))
    return (f"would be sent to {slug} as '{shown}'; nothing was sent and Kaggle was not asked",)


def _not_sent(prepared: Prepared, slug: str) -> tuple[str, ...]:
    contest = prepared.local.contest
    if contest.truth:
        return ("scored by the contest's own truth, which lies beside it",)
    if notebook_output() is not None:
        return (
            f"{prepared.path.name} is where Kaggle looks for it: save the notebook, "
            "then submit its output",
        )
    if slug:
        return (f"not sent: kbdenoise submit --file {prepared.path} --contest {contest.slug}",)
    where = f"{contest.url}/submit" if contest.url else "the contest's page"
    return (f"not sent: upload {prepared.path} by hand at {where}",)
