"""Submissions at Kaggle: what is left, the upload, the one call that costs, what came of it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kbdenoise.contests.kaggle_client.patience import patiently
from kbdenoise.contests.kaggle_client.scrub import scrub
from kbdenoise.contests.kaggle_client.site import KaggleSite
from kbdenoise.errors import DataError, KaggleNotFoundError

State = Literal["pending", "complete", "error"]

_PAGE = 100  # submissions asked for at once
_LOOKED_AT = 3  # pages; the newest come first
_TEAMS = 200  # a page of the leaderboard
_MOST_PAGES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How many submissions the contest still takes from this team."""

    now: int
    total_used_up: bool
    """None are left for good, and not only until tomorrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The answer to CreateSubmission; without a reference there is no submission."""

    reference: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A submission as Kaggle tells it."""

    reference: str
    state: State
    public_score: float | None
    private_score: float | None
    error: str
    """Why it could not be scored."""
    file_name: str
    description: str
    made_at: str
    """ISO 8601, UTC."""
    team: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A team's place on the public leaderboard."""

    rank: int | None
    """1 is the best; None where the team has no place yet."""
    teams: int


def submissions_left(site: KaggleSite, slug: str) -> Left:
    """How many submissions are left now."""
    answer = site.call("GetSubmissionLimits", {"competition_name": slug}, about=slug)
    return Left(now=answer.num_allowed_now or 0, total_used_up=bool(answer.limited_by_total))


def upload(site: KaggleSite, slug: str, path: Path) -> str:
    """Upload a file and return its token, which costs nothing yet. Repeated where that helps."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check that it is still there"
        ) from error
    fields = {
        "competition_name": slug,
        "file_name": path.name,
        "content_length": status.st_size,
        "last_modified_epoch_seconds": int(status.st_mtime),
    }

    def work() -> str:
        # A link takes one upload: each try gets a new one.
        answer = site.call("StartSubmissionUpload", fields, about=slug)
        site.put(answer.create_url, path)
        return str(answer.token)

    return patiently(work, site.patience)


def create(site: KaggleSite, slug: str, token: str, description: str) -> Created:
    """Spend a submission on what was uploaded. Sent exactly once, whatever happens.

    KaggleNetworkError means that nobody knows whether it was made: `find` tells.
    """
    fields = {
        "competition_name": slug,
        "blob_file_tokens": token,
        "submission_description": description,
    }
    answer = site.call("CreateSubmission", fields, about=slug, repeat=False)
    reference = str(answer.ref) if answer.ref else ""
    return Created(reference=reference, message=scrub(answer.message or ""))


def newest(site: KaggleSite, slug: str) -> Iterator[Known]:
    """The newest few hundred submissions of this account's team, the last one first."""
    token = ""
    for page in range(1, _LOOKED_AT + 1):
        fields: dict[str, Any] = {"competition_name": slug, "page_size": _PAGE}
        fields |= {"page_token": token} if token else {"page": page}
        answer = site.call("ListSubmissions", fields, about=slug)
        yield from (_known(entry) for entry in answer.submissions or [])
        token = answer.next_page_token or ""
        if not token:
            return


def find(site: KaggleSite, slug: str, mark: str) -> Known | None:
    """The submission whose description holds `mark`, or None."""
    return next((known for known in newest(site, slug) if mark in known.description), None)


def get(site: KaggleSite, reference: str, *, about: str = "") -> Known:
    """One submission. Raises KaggleNotFoundError where there is none, or it is another's."""
    try:
        answer = site.call("GetSubmission", {"ref": int(reference)}, about=about)
    except KaggleNotFoundError:
        pass
    else:
        return _known(answer)
    raise KaggleNotFoundError(
        f"Kaggle knows no submission {reference}",
        hint="`kbdenoise leaderboard` lists those of this folder; another account's cannot be read",
    )


def standing(site: KaggleSite, slug: str, team: str) -> Standing:
    """Where a team stands on the public leaderboard, and among how many."""
    rank, teams, token = None, 0, ""
    for _ in range(_MOST_PAGES):
        fields = {"competition_name": slug, "page_size": _TEAMS, "page_token": token}
        answer = site.call("GetLeaderboard", fields, about=slug)
        for row in answer.submissions or []:
            teams += 1
            if rank is None and team and row.team_name == team:
                rank = teams
        if not answer.next_page_token or answer.next_page_token == token:
            break
        token = answer.next_page_token
    return Standing(rank=rank, teams=teams)


def _known(answer: Any) -> Known:
    states: dict[str, State] = {"COMPLETE": "complete", "ERROR": "error"}
    return Known(
        reference=str(answer.ref),
        state=states.get(answer.status.name, "pending"),
        public_score=_score(answer.public_score),
        private_score=_score(answer.private_score),
        error=scrub(answer.error_description or ""),
        file_name=answer.file_name or "",
        description=answer.description or "",
        made_at=answer.date.isoformat() + "Z" if answer.date else "",
        team=answer.team_name or "",
    )


def _score(text: str | None) -> float | None:
    """Kaggle writes scores as text, which is empty where there is none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
