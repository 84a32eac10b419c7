"""Own submissions, local against public, and where the team stands."""

from dataclasses import dataclass
from pathlib import Path

from kbdenoise.contests.kaggle_client import KaggleSite, connect
from kbdenoise.contests.kaggle_client.submissions import Known, standing, submissions_left
from kbdenoise.errors import DataError, KaggleError, SettingsError, nearest
from kbdenoise.progress import Note, Progress, silent
from kbdenoise.submission.log import LOG_FILE, WRITTEN, LogEntry, read_log
from kbdenoise.submission.score import best, slug_at_kaggle
from kbdenoise.submission.settle import settle_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One submission."""

    reference: str
    time: str
    run: str
    message: str
    csv: str
    status: str
    local_score: float | None
    """Against the truth, or else the run's own on held-out pictures."""
    public_score: float | None
    private_score: float | None
    gap: float | None
    """Public less local."""
    best: bool
    """The best of all by the public score; by the local one where none has a public one."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """A contest's own submissions, oldest first."""

    contest: str
    metric: str
    rows: tuple[Row, ...]
    from_log_alone: bool
    """Kaggle was not asked, or could not be."""
    rank: int | None
    """The team's place on the public leaderboard; None where it is not known."""
    teams: int | None
    team: str
    remaining_today: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What Kaggle tells beside the submissions."""

    team: str
    rank: int | None
    teams: int
    left: int


def leaderboard(
    contest: str | None = None,
    *,
    data: Path = Path("data"),
    submissions: Path = Path("submissions"),
    progress: Progress = silent,
) -> Leaderboard:
    """The submissions of a contest, that of the newest one unless another is named.

    What Kaggle knows better is taken from there and written into the log. Where it cannot be
    asked, the log alone is shown, which a note says. Raises DataError without any submission.
    """
    log = submissions / LOG_FILE
    chosen = _chosen(contest, read_log(log), log=log)
    told, notes = _ask_kaggle(chosen, log=log, data=data, progress=progress)
    entries = [entry for entry in read_log(log) if entry.contest == chosen]
    unsent = [e for e in entries if e.status == WRITTEN]
    if 0 < len(unsent) < len(entries):
        entries = [e for e in entries if e not in unsent]
        count = "1 file was" if len(unsent) == 1 else f"{len(unsent)} files were"
        notes.append(f"{count} written and not sent")
    return Leaderboard(
        contest=chosen,
        metric=entries[-1].metric,
        rows=_rows(entries),
        from_log_alone=told is None,
        rank=told.rank if told else None,
        teams=told.teams if told else None,
        team=told.team if told else "",
        remaining_today=told.left if told else None,
        notes=tuple(notes),
    )


def _chosen(contest: str | None, entries: list[LogEntry], *, log: Path) -> str:
    if not entries:
        raise DataError(f"there is no submission in {log}", hint="kbdenoise submit last")
    if contest is None:
        return entries[-1].contest
    known = {entry.contest for entry in entries}
    if contest not in known:
        raise SettingsError(
            f"{log} holds no submission to '{contest}'", hint=nearest(contest, known)
        )
    return contest


def _ask_kaggle(
    contest: str, *, log: Path, data: Path, progress: Progress
) -> tuple[_Site | None, list[str]]:
    slug = slug_at_kaggle(contest, data=data)
    sent = any(e.contest == contest and e.status not in ("", WRITTEN) for e in read_log(log))
    if not slug or not sent:
        return None, []
    try:
        site = connect()
        for remark in site.remarks:
            progress(Note(text=remark))
        known = settle_all(site, slug, log, contest=contest)
        left = submissions_left(site, slug).now
        return _told(site, slug, known, left=left), []
    except KaggleError as error:
        return None, [f"Kaggle could not be asked, this is the log alone: {error.message}"]


def _told(site: KaggleSite, slug: str, known: tuple[Known, ...], *, left: int) -> _Site:
    team = next((one.team for one in known if one.team), "")
    place = standing(site, slug, team)
    return _Site(team=team, rank=place.rank, teams=place.teams, left=left)


def _rows(entries: list[LogEntry]) -> tuple[Row, ...]:
    public = [entry.public_score for entry in entries]
    judged = (
        public if any(value is not None for value in public) else [e.own_score for e in entries]
    )
    top = best(judged, name=entries[-1].metric)
    first = judged.index(top) if top is not None else -1
    return tuple(_row(entry, best=place == first) for place, entry in enumerate(entries))


def _row(entry: LogEntry, *, best: bool) -> Row:
    local, public = entry.own_score, entry.public_score
    return Row(
        reference=entry.reference,
        time=entry.time,
        run=entry.run,
        message=entry.message,
        csv=entry.csv,
        status=entry.status or WRITTEN,
        local_score=local,
        public_score=public,
        private_score=entry.private_score,
        gap=None if local is None or public is None else public - local,
        best=best,
        detail=entry.detail,
    )
