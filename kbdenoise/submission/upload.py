"""Send a checked file to Kaggle: looked at first, asked about, and never sent twice unasked.

Whatever happens, the log tells it: `written` until something is spent, `sending` from just before
the one call that spends a submission, and then what came of it. That call is made once. Where its
answer is lost, the submission is looked up in Kaggle's list by a mark in its description.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kbdenoise.contests.kaggle_client import Competition, KaggleSite, connect
from kbdenoise.contests.kaggle_client.submissions import (
    Created,
    Known,
    create,
    get,
    submissions_left,
    upload,
)
from kbdenoise.errors import (
    DataError,
    KaggleError,
    KaggleLimitError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleRulesError,
    KaggleValidationError,
    SettingsError,
)
from kbdenoise.progress import Fact, Note, Progress
from kbdenoise.submission.log import (
    ABSENT,
    PENDING,
    REFUSED,
    SENDING,
    UNKNOWN,
    WRITTEN,
    LogEntry,
    read_log,
    update_log,
)
from kbdenoise.submission.settle import look_up, settle, settle_all, unresolved

_LONGEST_MESSAGE = 200  # of the description at Kaggle, before the run and the mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a person is asked before a submission is spent."""

    slug: str
    path: Path
    left: int
    """Submissions left now, this one included."""
    daily: int
    """How many a day the contest takes; 0 where it does not say."""
    repeated: LogEntry | None
    """The very same file that was sent before, if it was and nobody insists."""


Ask = Callable[[Offer], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The entry as it stands in the log after all, and what is left."""

    entry: LogEntry
    left: int
    site: KaggleSite
    """The login that it was sent with."""


def send(
    entry: LogEntry,
    *,
    log: Path,
    slug: str,
    path: Path,
    ask: Ask | None,
    force: bool,
    progress: Progress,
) -> Sent:
    """Make a submission of the file of a log entry that is `written`.

    `ask` is shown what it would cost and may decline, which leaves the entry as it is; without it
    nothing is asked. `force` sends a file again that was sent before.

    Raises KaggleError and its kinds: the contest takes no files from here, none are left, the file
    could not be uploaded, Kaggle refuses it, or nobody knows what became of it.
    """
    site = connect()
    for remark in site.remarks:
        progress(Note(text=remark))
    progress(Fact(label="kaggle", text=f"{slug}, with the credentials from {site.source}"))
    competition = site.competition(slug)
    check_open(competition, progress)
    if unresolved(log, contest=entry.contest):
        settle_all(site, slug, log, contest=entry.contest)
    left = submissions_left(site, slug)
    if left.now <= 0:
        raise no_submission_left(competition, total_used_up=left.total_used_up)
    offer = Offer(
        slug=slug,
        path=path,
        left=left.now,
        daily=competition.max_daily_submissions,
        repeated=None if force else _sent_before(entry, log),
    )
    if not _agreed(offer, ask):
        return Sent(entry=entry, left=left.now, site=site)
    progress(Note(text=f"uploading {path}"))
    try:
        token = upload(site, slug, path)
    except KaggleError as error:
        words = f"{path} could not be uploaded ({error.message}), so that nothing was spent"
        update_log(log, entry, status=WRITTEN, detail=words)
        raise type(error)(words, hint=error.hint) from None
    entry = update_log(log, entry, status=SENDING, detail="")
    entry = _create(site, slug, token, entry=entry, log=log)
    return Sent(entry=entry, left=left.now - 1, site=site)


def description(entry: LogEntry) -> str:
    """What Kaggle's list of submissions shows: the message, the run, and the mark."""
    return f"{entry.message[:_LONGEST_MESSAGE]} [{entry.run} {entry.mark}]".strip()


def check_open(competition: Competition, progress: Progress) -> None:
    """Raise KaggleError where a contest would refuse any file from this account.

    A deadline that is over is no reason: Kaggle scores late submissions, and says so itself where
    it does not.
    """
    slug = competition.slug
    if not competition.entered:
        raise KaggleRulesError(
            f"this account has not accepted the rules of {slug}",
            hint=f"accept them at https://www.kaggle.com/competitions/{slug}/rules, then run the "
            "same command again",
        )
    if competition.code_only:
        raise KaggleValidationError(
            f"{slug} takes notebooks only: a file would be refused",
            hint="run kbdenoise in a Kaggle notebook (README, 'Kaggle and Colab') and submit "
            f"its output there, or: kaggle competitions submit {slug} -k OWNER/NOTEBOOK -v VERSION "
            "-f submission.csv -m MESSAGE",
        )
    if competition.closed:
        raise KaggleRulesError(
            f"{slug} takes no submissions any more",
            hint=f"its page tells why: {competition.url}",
        )
    if competition.deadline and competition.deadline < _utc(datetime.now(UTC)):
        day = competition.deadline[:10]
        progress(Note(text=f"the deadline of {slug} was {day}: a late submission does not rank"))


def no_submission_left(competition: Competition, *, total_used_up: bool) -> KaggleLimitError:
    """The error of a day whose submissions are used up."""
    if total_used_up:
        return KaggleLimitError(
            f"no submission is left for {competition.slug}: its total is used up",
            hint="the contest's page tells how many there are",
        )
    daily = competition.max_daily_submissions
    count = f"0 of {daily} submissions are" if daily else "no submission is"
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    minutes = int((midnight - now).total_seconds()) // 60
    return KaggleLimitError(
        f"{count} left for {competition.slug} today; the next one is at 00:00 UTC, "
        f"in {minutes // 60} h {minutes % 60:02} min",
        hint="the file is kept and was not sent: run the same command again then, or send the "
        "file itself with --file",
    )


def _sent_before(entry: LogEntry, log: Path) -> LogEntry | None:
    """The newest submission of the very same file to the same contest."""
    same = [
        other
        for other in read_log(log)
        if (other.contest, other.sha256) == (entry.contest, entry.sha256) and other.was_sent
    ]
    return same[-1] if same else None


def _agreed(offer: Offer, ask: Ask | None) -> bool:
    if ask is not None:
        return ask(offer)
    if offer.repeated is None:
        return True
    raise SettingsError(
        f"the very same file was sent before, as submission {offer.repeated.reference}",
        hint=f"kbdenoise score {offer.repeated.reference} tells its score; --force sends it again",
    )


def _create(site: KaggleSite, slug: str, token: str, *, entry: LogEntry, log: Path) -> LogEntry:
    """Spend the submission: one request, and the truth about it in the log."""
    try:
        made = create(site, slug, token, description(entry))
    except KaggleNetworkError as error:
        lost = error
    except KaggleError as error:
        update_log(log, entry, status=REFUSED, detail=error.message)
        raise
    except KeyboardInterrupt:
        update_log(log, entry, status=UNKNOWN, detail="interrupted while it was sent")
        raise KeyboardInterrupt(
            "nobody knows yet whether Kaggle has the submission: kbdenoise score last looks it up"
        ) from None
    else:
        with _made_all_the_same(made.reference):
            return _confirmed(site, slug, made, entry=entry, log=log)
    found = _looked_up(site, slug, lost, entry=entry, log=log)
    if found is not None:
        with _made_all_the_same(found.reference):
            return settle(log, entry, found)
    update_log(log, entry, status=ABSENT, detail=lost.message)
    raise KaggleNetworkError(
        f"Kaggle's answer was lost ({lost.message}), and it lists no such submission: as far as it "
        "tells, none was spent",
        hint=f"run the same command again; it looks for {entry.mark} once more before it sends",
    )


@contextmanager
def _made_all_the_same(reference: str) -> Iterator[None]:
    """Let the error of a log that cannot be written name the submission that was made."""
    try:
        yield
    except DataError as error:
        if not reference:
            raise
        told = DataError(
            f"it is submission {reference} at Kaggle, and that could not be noted: {error.message}",
            hint="free some space and do not send it again: kbdenoise score last looks it up",
        )
        told.facts = {"reference": reference}
        raise told from error


def _looked_up(
    site: KaggleSite, slug: str, lost: KaggleError, *, entry: LogEntry, log: Path
) -> Known | None:
    try:
        return look_up(site, slug, entry.mark)
    except KaggleError as error:
        reason = error
    update_log(log, entry, status=UNKNOWN, detail=lost.message)
    raise KaggleNetworkError(
        f"Kaggle's answer was lost ({lost.message}), and Kaggle cannot be asked whether it has the "
        f"submission ({reason.message})",
        hint="do not send it again yet: kbdenoise score last looks it up when the network is back",
    )


def _confirmed(
    site: KaggleSite, slug: str, made: Created, *, entry: LogEntry, log: Path
) -> LogEntry:
    """Trust the submission itself, not the answer: it may name none, or one that is not there."""
    if made.reference:
        entry = update_log(log, entry, reference=made.reference, status=PENDING)
        try:
            return settle(log, entry, get(site, made.reference, about=slug))
        except KaggleNotFoundError:
            pass
        except KaggleError:  # it is there, as Kaggle has said; its score is for later
            return entry
    try:
        found = look_up(site, slug, entry.mark)
    except KaggleError:
        found = None
    if found is not None:
        return settle(log, entry, found)
    said = made.message or "no reason was given"
    update_log(log, entry, status=REFUSED, reference="", detail=said)
    kind = KaggleLimitError if "limit" in said.lower() else KaggleError
    raise kind(
        f"Kaggle made no submission of the file: {said}",
        hint="the file is kept; the contest's page may say more. Run the same command again",
    )


def _utc(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
