"""Ask for the score of a submission, once or until it is there."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kbdenoise.contests.contest import list_contests, read_contest
from kbdenoise.contests.hosted import kaggle_slug
from kbdenoise.contests.kaggle_client import KaggleSite, connect
from kbdenoise.contests.kaggle_client.submissions import Known, get
from kbdenoise.errors import (
    DataError,
    KaggleError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleScoringError,
    KaggleWaitError,
    KbdenoiseError,
    SettingsError,
    nearest,
)
from kbdenoise.imaging.metrics import METRICS, metric
from kbdenoise.notation import seconds
from kbdenoise.progress import Advance, Note, Progress, silent
from kbdenoise.submission.log import (
    ABSENT,
    ERROR,
    LOG_FILE,
    UNRESOLVED,
    LogEntry,
    read_log,
    update_log,
)
from kbdenoise.submission.settle import look_up, settle

# Pauses between two questions, in units of the client's own: 2 s at first, 30 s in the end.
_FIRST_PAUSE, _GROWTH, _LONGEST_PAUSE = 2.0, 1.5, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What Kaggle says of one submission."""

    reference: str
    status: str
    contest: str
    run: str
    """Empty for a submission that is not in this folder's log."""
    metric: str
    public_score: float | None
    private_score: float | None
    local_score: float | None
    """Against the truth, or else the run's own on held-out pictures."""
    best_before: float | None
    """The best public score of the submissions before this one."""


def score(
    target: str = "last",
    *,
    wait: str = "",
    data: Path = Path("data"),
    submissions: Path = Path("submissions"),
    progress: Progress = silent,
) -> Scored:
    """The score of a submission: by its reference, of a run's newest one, or of the `last`.

    With `wait`, a duration such as 15m, it is asked again in growing pauses until it is there. The
    log gets what Kaggle says. A submission whose answer was lost is looked up first.

    Raises KaggleScoringError with the scorer's own words, KaggleWaitError where there is no score
    yet, KaggleNotFoundError, or what `connect` does.
    """
    wait_s = seconds(wait, name="--wait") if wait else 0.0
    log = submissions / LOG_FILE
    entry = find_entry(read_log(log), target, log=log)
    site = connect()
    for remark in site.remarks:
        progress(Note(text=remark))
    if entry is not None and not entry.was_sent:
        entry = _resolved(site, entry, log=log, data=data)
    reference = entry.reference if entry else target
    try:
        known = await_score(site, reference, wait_s=wait_s, log=log, entry=entry, progress=progress)
    except (KaggleError, KeyboardInterrupt) as error:
        facts = {"reference": reference, "run": entry.run if entry else ""}
        error.facts = facts  # type: ignore[union-attr]
        raise
    return scored(known, entry, read_log(log))


def await_score(
    site: KaggleSite,
    reference: str,
    *,
    wait_s: float,
    log: Path,
    entry: LogEntry | None,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Known:
    """The submission when it is scored; asked once at least, then until `wait_s` are over.

    The log is told what Kaggle says before an error is raised. A network that fails meanwhile is
    waited for, too.
    """
    began, pause_s = clock(), _FIRST_PAUSE * site.patience.pause_s
    if wait_s:
        progress(Note(text=f"waiting for the score of {reference}; Ctrl-C does not take it back"))
    failure: KaggleNetworkError | None = None
    try:
        while True:
            try:
                known = get(site, reference)
            except KaggleNetworkError as error:
                failure = error
            else:
                failure = None
                if known.state != "pending":
                    break
            left_s = wait_s - (clock() - began)
            if left_s <= 0:
                raise failure or _no_score_yet(reference, wait_s)
            progress(Advance(task="score", done=wait_s - left_s, total=wait_s))
            sleep(min(pause_s, left_s))
            pause_s = min(pause_s * _GROWTH, _LONGEST_PAUSE * site.patience.longest_pause_s)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"submission {reference} is at Kaggle all the same: kbdenoise score {reference} --wait"
        ) from None
    if wait_s:
        progress(Advance(task="score", done=wait_s, total=wait_s))
    if entry is not None:
        require_scored(settle(log, entry, known))
    elif known.state == "error":
        raise _not_scorable(reference, known.error)
    return known


def require_scored(entry: LogEntry) -> None:
    """Raise KaggleScoringError, with the scorer's words, where Kaggle could not score it."""
    if entry.status == ERROR:
        raise _not_scorable(entry.reference, entry.detail)


def _not_scorable(reference: str, said: str) -> KaggleScoringError:
    return KaggleScoringError(
        f"Kaggle could not score submission {reference}: {said or 'it does not say why'}",
        hint="compare the file with the contest's sample submission; the contest's page shows "
        "the same error",
    )


def _no_score_yet(reference: str, wait_s: float) -> KaggleWaitError:
    after = f" after {wait_s:.0f} s" if wait_s else ""
    return KaggleWaitError(
        f"submission {reference} is not scored yet{after}",
        hint=f"it is at Kaggle, nothing has to be sent again: kbdenoise score {reference} --wait",
    )


def scored(known: Known, entry: LogEntry | None, entries: list[LogEntry]) -> Scored:
    """A submission with what the log knows beside it."""
    return Scored(
        reference=known.reference,
        status=known.state,
        contest=entry.contest if entry else "",
        run=entry.run if entry else "",
        metric=entry.metric if entry else "",
        public_score=known.public_score,
        private_score=known.private_score,
        local_score=entry.own_score if entry else None,
        best_before=best_before(entry, entries) if entry else None,
    )


def best_before(entry: LogEntry, entries: list[LogEntry]) -> float | None:
    """The best public score among the contest's submissions that stand before this one."""
    before: list[float | None] = []
    for other in entries:
        if (other.mark, other.reference) == (entry.mark, entry.reference):
            break
        if other.contest == entry.contest:
            before.append(other.public_score)
    return best(before, name=entry.metric)


def best(scores: list[float | None], *, name: str) -> float | None:
    """The best of the scores that there are, by a metric's direction."""
    there = [value for value in scores if value is not None]
    if not there or name not in METRICS:
        return None
    return min(there) if metric(name).lower_is_better else max(there)


def find_entry(entries: list[LogEntry], target: str, *, log: Path) -> LogEntry | None:
    """The entry that is meant; None for a reference that the log does not know."""
    sent = [e for e in entries if e.was_sent or e.status in UNRESOLVED]
    if re.fullmatch(r"[0-9]+", target):
        return next((e for e in reversed(sent) if e.reference == target), None)
    if target == "last":
        if sent:
            return sent[-1]
        raise DataError(
            f"nothing was sent yet: {log} knows no submission", hint="kbdenoise submit last"
        )
    meant = [e for e in sent if target in (e.run, e.mark) or _begins(e.run, target)]
    if len({e.run for e in meant}) > 1 and not any(e.run == target for e in meant):
        names = ", ".join(sorted({e.run for e in meant}))
        raise SettingsError(f"'{target}' could be several runs", hint=f"write more of it: {names}")
    if meant:
        return meant[-1]
    raise SettingsError(
        f"no submission of a run '{target}' was sent",
        hint=nearest(target, [*{e.run for e in sent if e.run}, "last"]),
    )


def slug_at_kaggle(contest: str, *, data: Path) -> str:
    """The name at Kaggle of a contest of the log; its own where its folder is gone."""
    try:
        for folder in list_contests(data):
            found = read_contest(folder / "contest.toml")
            if found.slug == contest:
                return kaggle_slug(found)
    except KbdenoiseError:
        pass
    return contest


def _begins(run: str, target: str) -> bool:
    return run.startswith(target) or run.rsplit("_", 1)[-1].startswith(target)


def _resolved(site: KaggleSite, entry: LogEntry, *, log: Path, data: Path) -> LogEntry:
    """An entry whose answer was lost, once Kaggle was asked for it."""
    slug = slug_at_kaggle(entry.contest, data=data)
    found = look_up(site, slug, entry.mark)
    if found is not None:
        return settle(log, entry, found)
    update_log(log, entry, status=ABSENT)
    raise KaggleNotFoundError(
        f"Kaggle does not list the submission of {entry.csv} ({entry.mark}): as far as it tells, "
        "none was spent",
        hint=f"send it again: kbdenoise submit --file {entry.csv} --contest {entry.contest}",
    )
