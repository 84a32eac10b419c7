"""The fault matrix: what may go wrong between here and Kaggle, and what must come of it.

`python -m tests.fake_kaggle.matrix > docs/kaggle-faults.md` writes the table of the documentation;
the tests run every row against the real client.
"""

from dataclasses import dataclass, field

from tests.fake_kaggle import submit_matrix
from tests.fake_kaggle.faults import RULES, Fault

PARTLY = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault of a download."""

    name: str
    faults: tuple[tuple[str, tuple[Fault, ...], int | None], ...]
    """Method, faults in a row, and how often the last one strikes (None: always)."""
    code: int
    """Exit code of `kbdenoise fetch`."""
    words: tuple[str, ...] = ()
    """What the person reads: the cause, and the cure."""
    left: str = "nothing"
    """On the disk afterwards: nothing, the first bytes, or the contest."""
    what: str
    """What kbdenoise does, for the documentation."""
    timeout_s: float = 3.0
    contest: dict[str, object] = field(default_factory=dict)


def _always(method: str, fault: Fault) -> tuple[tuple[str, tuple[Fault, ...], int | None], ...]:
    return ((method, (fault,), None),)


def _once(method: str, *faults: Fault) -> tuple[tuple[str, tuple[Fault, ...], int | None], ...]:
    return ((method, faults, 1),)


_CUT = Fault("cut", after=PARTLY)
_LIST, _STORAGE = "ListDataFiles", "storage"

FETCH = (
    Row(
        name="401: credentials not accepted",
        faults=_always(_LIST, Fault("status", 401, "Unauthenticated")),
        code=3,
        words=("KAGGLE_USERNAME and KAGGLE_KEY", "kaggle.com/settings/api"),
        what="says which credential was used, by its source",
    ),
    Row(
        name="403: rules not accepted",
        faults=_always(_LIST, Fault("status", 403, RULES)),
        code=4,
        words=("accept this competition's rules", "https://www.kaggle.com/competitions/tiny/rules"),
        what="gives the contest's own rules page",
    ),
    Row(
        name="403 without a reason",
        faults=_always("DownloadDataFiles", Fault("status", 403)),
        code=4,
        words=("https://www.kaggle.com/competitions/tiny/rules", "check the contest's name"),
        what="gives the rules page, and doubts the name",
    ),
    Row(
        name="404",
        faults=_always(_LIST, Fault("status", 404, "Not found")),
        code=5,
        words=("does not know tiny", "check the name"),
        what="says how a contest's name is found",
    ),
    Row(
        name="429 with Retry-After, twice",
        faults=((_LIST, (Fault("status", 429, "slow down", retry_after="0.2"),), 2),),
        code=0,
        left="the contest",
        what="waits as long as the server asks, and goes on",
    ),
    Row(
        name="429 with a Retry-After of an hour",
        faults=_always(_LIST, Fault("status", 429, "slow down", google=True, retry_after="3600")),
        code=6,
        words=("too many requests", "slow down", "wait 3600 s"),
        what="does not wait that long, and says how long it is",
    ),
    Row(
        name="429 from the storage with a Retry-After of an hour",
        faults=_always(_STORAGE, Fault("status", 429, retry_after="3600")),
        code=6,
        words=("too many requests", "wait 3600 s"),
        what="does not wait that long, and says how long it is",
    ),
    Row(
        name="500 for the first two calls",
        faults=((_LIST, (Fault("status", 500, "boom"),), 2),),
        code=0,
        left="the contest",
        what="asks again after a pause",
    ),
    Row(
        name="503 for ever",
        faults=_always("DownloadDataFiles", Fault("status", 503, "busy")),
        code=7,
        words=("HTTP 503", "busy", "run the same command again"),
        what="gives up after five tries",
    ),
    Row(
        name="connection dropped, once",
        faults=_once(_LIST, Fault("drop")),
        code=0,
        left="the contest",
        what="asks again after a pause",
    ),
    Row(
        name="connection dropped, always",
        faults=_always("DownloadDataFiles", Fault("drop")),
        code=7,
        words=("broke off", "check"),
        what="gives up after five tries",
    ),
    Row(
        name="a web page instead of the API's answer",
        faults=_always(_LIST, Fault("html")),
        code=7,
        words=("web page", "log in to the network"),
        what="says that a login page or a proxy stands between",
    ),
    Row(
        name="API call never answered",
        faults=_always(_LIST, Fault("hang", seconds=20)),
        code=7,
        words=("silent", "KBDENOISE_TIMEOUT"),
        what="gives up after five read timeouts",
        timeout_s=0.4,
    ),
    Row(
        name="body cut after some bytes, once",
        faults=_once(_STORAGE, _CUT),
        code=0,
        left="the contest",
        what="goes on at the byte where it stopped",
    ),
    Row(
        name="body cut after every 9,000 bytes",
        faults=_always(_STORAGE, Fault("cut", after=9_000)),
        code=0,
        left="the contest",
        what="goes on as long as every try brings bytes",
    ),
    Row(
        name="body cut, then nothing but 500",
        faults=((_STORAGE, (_CUT, Fault("status", 500)), None),),
        code=7,
        words=("HTTP 500", "goes on where it stopped"),
        left="the first bytes",
        what="keeps what has come for the next call",
    ),
    Row(
        name="body cut, then two 500",
        faults=((_STORAGE, (_CUT, Fault("status", 500)), 2),),
        code=0,
        left="the contest",
        what="goes on at the byte where it stopped; the error page is not taken for data",
    ),
    Row(
        name="body cut, then the signed link has expired",
        faults=_once(_STORAGE, _CUT, Fault("expired")),
        code=0,
        left="the contest",
        what="asks for a fresh link and goes on",
    ),
    Row(
        name="signed links expire at once, always",
        faults=_always(_STORAGE, Fault("expired")),
        code=7,
        words=("link", "no longer good"),
        what="gives up after five fresh links",
    ),
    Row(
        name="body stalls after some bytes, once",
        faults=_once(_STORAGE, Fault("stall", after=PARTLY, seconds=20)),
        code=0,
        left="the contest",
        what="goes on after the read timeout",
        timeout_s=0.6,
    ),
    Row(
        name="body stalls before its first byte, always",
        faults=_always(_STORAGE, Fault("stall", after=0, seconds=20)),
        code=7,
        words=("silent",),
        what="gives up after five read timeouts",
        timeout_s=0.4,
    ),
    Row(
        name="slow body",
        faults=_once(_STORAGE, Fault("slow", per_s=100_000)),
        code=0,
        left="the contest",
        what="is patient as long as bytes come",
    ),
    Row(
        name="length told is short by 100, once",
        faults=_once(_STORAGE, Fault("short")),
        code=0,
        left="the contest",
        what="sees it by the MD5, and downloads once more",
    ),
    Row(
        name="length told is short by 100, always, no MD5",
        faults=_always(_STORAGE, Fault("short")),
        code=7,
        words=("damaged or cut short", "twice", "--from"),
        what="sees it by the zip's directory, downloads once more, then gives up",
        contest={"with_md5": False},
    ),
    Row(
        name="flipped bytes, once",
        faults=_once(_STORAGE, Fault("flip")),
        code=0,
        left="the contest",
        what="sees it by the MD5, and downloads once more",
    ),
    Row(
        name="flipped bytes, always",
        faults=_always(_STORAGE, Fault("flip")),
        code=7,
        words=("MD5", "twice", "--from"),
        what="downloads once more, then gives up",
    ),
    Row(
        name="flipped bytes, once, no MD5",
        faults=_once(_STORAGE, Fault("flip")),
        code=0,
        left="the contest",
        what="sees it by the zip's CRC, and downloads once more",
        contest={"with_md5": False},
    ),
    Row(
        name="garbage of the right length, always, no MD5",
        faults=_always(_STORAGE, Fault("garbage")),
        code=7,
        words=("is not a zip", "twice"),
        what="sees that it is no zip, downloads once more, then gives up",
        contest={"with_md5": False},
    ),
    Row(
        name="a web page instead of the zip",
        faults=_always(_STORAGE, Fault("html")),
        code=7,
        words=("web page", "twice"),
        what="recognises the page, downloads once more, then gives up",
    ),
    Row(
        name="no ETag, no date, no ranges; cut once",
        faults=_once(_STORAGE, Fault("cut", after=PARTLY), Fault("bare")),
        code=0,
        left="the contest",
        what="begins anew where it cannot resume",
    ),
)
"""Every fault of `fetch`, with what must come of it."""


ALSO = (
    ("another archive on the server (changed ETag)", "begins anew", 0, "the contest"),
    ("the same, and the server ignores If-Range", "sees it by the ETag", 0, "the contest"),
    ("a certificate that is not trusted", "names REQUESTS_CA_BUNDLE; no retry", 7, "nothing"),
    ("REQUESTS_CA_BUNDLE names no file", "names the path; no retry", 7, "nothing"),
    ("a proxy that refuses", "says so, with its status; no retry", 7, "nothing"),
    ("kill -9, again and again", "goes on at the byte, or unpacks what is whole", 0, "the contest"),
    ("Ctrl-C", "keeps what has come", 130, "the first bytes"),
    ("disk full in the download", "says so, and goes on when there is room", 1, "the first bytes"),
    ("disk full in unpacking", "says so, and keeps the whole archive", 1, "the archive, as .part"),
    ("too little room for all files", "sees it before the download", 1, "nothing"),
    ("a zip with `..`, absolute names, links, bombs", "refuses it, and says why", 1, "nothing"),
    ("an archive without pairs of pictures", "keeps it for a look", 1, "the archive, as .zip"),
    ("two fetches of one contest at once", "refuses the second", 1, "the first one's"),
    ("a quota page of Google Drive saved as .zip", "recognises the page", 7, "nothing"),
)
"""Faults with tests of their own, for the documentation."""


def markdown() -> str:
    """The documentation's table."""
    lines = [
        "# When Kaggle or the network fails",
        "",
        "## Fetching",
        "",
        "Every row is a test: the real client, a Kaggle on loopback that fails in this way, and",
        "`kbdenoise fetch`. After each fault the same command is run again without it, and must",
        "end with the whole contest. The time is bounded: five tries of a request (of a download",
        "five in a row that bring no byte), ten seconds for a connection, sixty for the next",
        "bytes; `KBDENOISE_TIMEOUT` scales them.",
        "",
        "| fault | what kbdenoise does | exit code | left on the disk |",
        "|---|---|---|---|",
        *(f"| {r.name} | {r.what} | {r.code} | {r.left} |" for r in FETCH),
        "",
        "By tests of their own:",
        "",
        "| fault | what kbdenoise does | exit code | left on the disk |",
        "|---|---|---|---|",
        *(f"| {name} | {what} | {code} | {left} |" for name, what, code, left in ALSO),
        "",
        "Never left: a half-written archive or picture under its own name, or a contest's folder",
        'that is not whole. "The first bytes" lie in `data/NAME.zip.part` and are gone on with.',
        "",
        *submit_matrix.markdown(),
        "Made by `python -m tests.fake_kaggle.matrix`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
