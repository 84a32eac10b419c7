"""Bring the log into line with what Kaggle knows of a submission."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kbdenoise.contests.kaggle_client.site import KaggleSite
from kbdenoise.contests.kaggle_client.submissions import Known, find, newest
from kbdenoise.submission.log import (
    ABSENT,
    COMPLETE,
    ERROR,
    PENDING,
    SENDING,
    UNKNOWN,
    UNRESOLVED,
    LogEntry,
    read_log,
    update_log,
)

_LOOKS = 3  # a list may lag behind what it lists

_STATUS = {"pending": PENDING, "complete": COMPLETE, "error": ERROR}


def settle(log: Path, entry: LogEntry, known: Known) -> LogEntry:
    """Write down what Kaggle says of a submission; the entry as it stands in the log then."""
    return update_log(
        log,
        entry,
        reference=known.reference,
        status=_STATUS[known.state],
        public_score=known.public_score,
        private_score=known.private_score,
        detail=known.error,
    )


def settle_all(site: KaggleSite, slug: str, log: Path, *, contest: str) -> tuple[Known, ...]:
    """Settle every entry of a contest that Kaggle lists, and those that it does not list.

    Returns what Kaggle lists, the newest first.
    """
    known = tuple(newest(site, slug))
    references = {one.reference: one for one in known}
    for entry in read_log(log):
        if entry.contest != contest:
            continue
        found = references.get(entry.reference) or _marked(known, entry)
        if found is not None:
            if entry != _settled(entry, found):
                settle(log, entry, found)
        elif entry.status in (SENDING, UNKNOWN):
            update_log(log, entry, status=ABSENT)
    return known


def unresolved(log: Path, *, contest: str) -> list[LogEntry]:
    """Entries of which nobody knows whether Kaggle has them."""
    return [e for e in read_log(log) if e.contest == contest and e.status in UNRESOLVED]


def look_up(
    site: KaggleSite, slug: str, mark: str, *, sleep: Callable[[float], None] = time.sleep
) -> Known | None:
    """Find a submission after its answer was lost: a few looks, as the list may lag behind."""
    for look in range(1, _LOOKS + 1):
        found = find(site, slug, mark)
        if found is not None:
            return found
        if look < _LOOKS:
            sleep(site.patience.pause(look))
    return None


def _marked(known: tuple[Known, ...], entry: LogEntry) -> Known | None:
    if entry.reference or not entry.mark or entry.status not in UNRESOLVED:
        return None
    return next((one for one in known if entry.mark in one.description), None)


def _settled(entry: LogEntry, known: Known) -> LogEntry:
    return replace(
        entry,
        reference=known.reference,
        status=_STATUS[known.state],
        public_score=known.public_score,
        private_score=known.private_score,
        detail=" ".join(known.error.split()),
    )
