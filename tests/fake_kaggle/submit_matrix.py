"""The fault matrix of `kbdenoise submit`: what may go wrong with a submission, and what must come.

Whatever happens, the same command, once all is well again, must end with exactly one submission.
"""

import math
from dataclasses import dataclass, field

from tests.fake_kaggle.faults import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitRow:
    """One fault of a submission."""

    name: str
    what: str
    """What kbdenoise does, for the documentation."""
    faults: tuple[tuple[str, Fault, int | None], ...] = ()
    """Method, its fault, and how often it strikes (None: always)."""
    contest: dict[str, object] = field(default_factory=dict)
    """What is different at Kaggle while the fault lasts."""
    content: str = ""
    """The file, if it is not a good one."""
    wait: str = "30s"
    code: int
    """Exit code of `kbdenoise submit --yes --wait`."""
    words: tuple[str, ...] = ()
    """What the person reads."""
    status: str
    """Of the file in the log; empty where there is no line."""
    spent: int
    """Submissions that Kaggle has counted."""
    timeout_s: float = 3.0


_CREATE = "CreateSubmission"
_INFINITE = {"pending_s": math.inf}

SUBMIT = (
    SubmitRow(
        name="a file that is not valid",
        what="says what is wrong with it; Kaggle is not even asked",
        content="Image File,Y Channel Value\n7,1\n7,nan\n",
        code=8,
        words=("is not a valid submission", "nothing was sent"),
        status="",
        spent=0,
    ),
    SubmitRow(
        name="rules not accepted",
        what="gives the contest's own rules page, before the upload",
        contest={"entered": False},
        code=4,
        words=("https://www.kaggle.com/competitions/tiny/rules",),
        status="written",
        spent=0,
    ),
    SubmitRow(
        name="a contest of notebooks only",
        what="says how it takes submissions, before the upload",
        contest={"code_only": True},
        code=8,
        words=("takes notebooks only", "kaggle competitions submit tiny -k"),
        status="written",
        spent=0,
    ),
    SubmitRow(
        name="no submission left today",
        what="says when the next one is, before the upload",
        contest={"max_daily": 0},
        code=6,
        words=("no submission is left for tiny today", "00:00 UTC"),
        status="written",
        spent=0,
    ),
    SubmitRow(
        name="the limit is reached by the team meanwhile",
        what="tells Kaggle's words",
        faults=((_CREATE, Fault("status", 400, "daily submission limit reached"), 1),),
        code=6,
        words=("daily submission limit reached",),
        status="refused",
        spent=0,
    ),
    SubmitRow(
        name="401 when it is sent",
        what="says which credential was used, by its source",
        faults=((_CREATE, Fault("status", 401, "Unauthenticated"), 1),),
        code=3,
        words=("KAGGLE_USERNAME and KAGGLE_KEY",),
        status="refused",
        spent=0,
    ),
    SubmitRow(
        name="upload fails twice",
        what="uploads again, to a fresh link",
        faults=(("upload", Fault("status", 503), 2),),
        code=0,
        status="complete",
        spent=1,
    ),
    SubmitRow(
        name="upload fails always",
        what="gives up after five tries; nothing was spent",
        faults=(("upload", Fault("status", 503), None),),
        code=7,
        words=("could not be uploaded", "nothing was spent"),
        status="written",
        spent=0,
    ),
    SubmitRow(
        name="answer to the upload lost",
        what="uploads again, which costs nothing",
        faults=(("upload", Fault("lost"), 1),),
        code=0,
        status="complete",
        spent=1,
    ),
    SubmitRow(
        name="answer to the submission lost, which was made",
        what="finds it in Kaggle's list by its mark; does not send it again",
        faults=((_CREATE, Fault("lost"), 1),),
        code=0,
        status="complete",
        spent=1,
    ),
    SubmitRow(
        name="answer lost, and it was not made",
        what="does not find it, and says that none was spent",
        faults=((_CREATE, Fault("drop"), 1),),
        code=7,
        words=("lists no such submission", "none was spent"),
        status="not listed",
        spent=0,
    ),
    SubmitRow(
        name="the submission is never answered, though it was made",
        what="looks it up after the read timeout",
        faults=((_CREATE, Fault("slow-made", seconds=20), 1),),
        code=0,
        status="complete",
        spent=1,
        timeout_s=1.0,
    ),
    SubmitRow(
        name="answer lost, and then the network, too",
        what="says that nobody knows; the next call looks it up before it sends anything",
        faults=((_CREATE, Fault("lost"), 1), ("ListSubmissions", Fault("drop"), None)),
        code=7,
        words=("cannot be asked whether it has the submission", "do not send it again"),
        status="unknown",
        spent=1,
    ),
    SubmitRow(
        name='"Could not submit" with the reference 0',
        what="takes it as the failure that it is",
        faults=((_CREATE, Fault("unmade", message="Could not submit to competition"), 1),),
        code=1,
        words=("made no submission", "Could not submit to competition"),
        status="refused",
        spent=0,
    ),
    SubmitRow(
        name="success told of a submission that there is not",
        what="looks for it, and says that there is none",
        faults=((_CREATE, Fault("phantom"), 1),),
        code=1,
        words=("made no submission",),
        status="refused",
        spent=0,
    ),
    SubmitRow(
        name="pending for ever",
        what="stops waiting in time; `kbdenoise score` goes on later",
        contest=_INFINITE,
        wait="1s",
        code=10,
        words=("not scored yet", "kbdenoise score 4000001 --wait"),
        status="pending",
        spent=1,
    ),
    SubmitRow(
        name="the network fails while the score is waited for",
        what="waits for the network as long as for the score",
        contest=_INFINITE,
        faults=(("GetSubmission", Fault("drop"), None),),
        wait="1s",
        code=7,
        words=("broke off",),
        status="pending",
        spent=1,
        timeout_s=1.0,
    ),
    SubmitRow(
        name="scoring error",
        what="tells the scorer's own words",
        contest={"scoring_error": "Evaluation Exception: no such column"},
        code=9,
        words=("could not score submission 4000001", "no such column"),
        status="error",
        spent=1,
    ),
)
"""Every fault of `submit`, with what must come of it."""


ALSO = (
    ("kill -9 before it is sent", "the next call sends it", "137", "written", 0),
    ("kill -9 while it is sent", "the next call looks it up first", "137", "sending", 1),
    ("Ctrl-C while waiting", "names the reference", "130", "pending", 1),
    ("disk full, so that the log cannot be written", "tells the reference", "1", "sending", 1),
    ("the very same file again", "asks; away from a terminal wants `--force`", "2", "written", 0),
)
"""Faults with tests of their own, for the documentation."""


def markdown() -> list[str]:
    """The documentation's table, in lines."""
    head = "| fault | what kbdenoise does | exit code | the log says | spent |"
    return [
        "## Handing in",
        "",
        "`kbdenoise submit --file FILE --yes --wait` under each fault. The call that makes a",
        "submission is sent once, whatever happens; the same command, when all is well again, must",
        "end with exactly one submission of the file.",
        "",
        head,
        "|---|---|---|---|---|",
        *(f"| {r.name} | {r.what} | {r.code} | {r.status or '-'} | {r.spent} |" for r in SUBMIT),
        "",
        "By tests of their own:",
        "",
        head,
        "|---|---|---|---|---|",
        *(f"| {' | '.join(map(str, row))} |" for row in ALSO),
        "",
    ]
