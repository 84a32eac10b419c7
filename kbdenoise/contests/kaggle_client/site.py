"""A logged-in Kaggle, with what kbdenoise needs of it as methods that return plain values."""

import base64
import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from kbdenoise.contests.kaggle_client.credentials import (
    Credential,
    credential_remarks,
    find_credentials,
)
from kbdenoise.contests.kaggle_client.patience import (
    NothingLeft,
    Patience,
    TryAgain,
    patiently,
)
from kbdenoise.contests.kaggle_client.scrub import scrub
from kbdenoise.errors import KaggleError, KaggleNetworkError

OFFLINE_VARIABLE = "KBDENOISE_OFFLINE"

_PAGE = 200  # files asked for at once
_MOST_PAGES = 5_000  # an endless list is an error of the server's
_SMALL_READ = 16 << 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file of a contest, as Kaggle lists it."""

    name: str
    """Its path inside the contest, with '/'."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Competition:
    """What Kaggle says of a contest."""

    slug: str
    title: str
    url: str
    metric: str
    deadline: str
    """ISO 8601, UTC; empty if there is none."""
    entered: bool
    """Whether this account has accepted the rules."""
    max_daily_submissions: int
    code_only: bool
    """Submissions come from notebooks only; a file would be refused."""
    closed: bool
    """No submissions are taken any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The beginning of a download: what the server says of it, and its bytes."""

    start: int
    """Where the first byte belongs; 0 when the server did not resume."""
    size_bytes: int | None
    """Of the whole file; None where the server does not say."""
    validator: str
    """A strong ETag, or the date of change: asks for the rest of the same file."""
    md5: str
    """Of the whole file, in hexadecimal; empty where the server does not give it."""
    content_type: str
    read: Callable[[int], bytes]
    """At most so many further bytes; empty at the end. Raises KaggleError or TryAgain."""


def check_online() -> None:
    """Raise KaggleNetworkError if the network is forbidden by KBDENOISE_OFFLINE."""
    if os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no"):
        raise KaggleNetworkError(
            f"{OFFLINE_VARIABLE} is set, so that the network is not used",
            hint=f"unset {OFFLINE_VARIABLE}, or give what lies on this disk with --from",
        )


def connect(*, patience: Patience | None = None) -> "KaggleSite":
    """Log in to Kaggle with the official client and the credentials that it finds.

    Raises KaggleLoginError, KaggleNetworkError (offline, too), or KaggleError without the client.
    """
    check_online()
    patience = patience or Patience.of_environment()
    found = find_credentials()
    usable = [c for c in found if not c.fault]
    source = usable[0].source if usable else ""
    # Here and not at the top: importing the library needs requests, which comes with it.
    from kbdenoise.contests.kaggle_client.library import log_in

    def work() -> Any:
        return _guarded(functools.partial(log_in, patience), source=source)

    api = patiently(work, patience)
    return KaggleSite(api, credentials=found, patience=patience)


class KaggleSite:
    """Kaggle as one account sees it. Made by `connect`; used from one thread."""

    def __init__(self, api: Any, *, credentials: list[Credential], patience: Patience) -> None:
        from kbdenoise.contests.kaggle_client.library import open_session
        from kbdenoise.contests.kaggle_client.transport import TimeoutAdapter

        self.patience = patience
        self._adapter = TimeoutAdapter(patience)
        self._client = api.build_kaggle_client()
        session = open_session(self._client, self._adapter)
        used = _used_credential(api, credentials)
        self.source = used.source if used else "Kaggle's client"
        """The credential that is used, by its source."""
        self.remarks = _remarks(used, credentials)
        """What a person should know of the credentials, in sentences."""
        if used and used.kind == "key":
            # The client sends a token that Kaggle has refused, rather than the key it chose.
            session.auth = (api.config_values["username"], api.config_values["key"])

    def call(
        self, method: str, fields: Mapping[str, Any], *, about: str, repeat: bool = True
    ) -> Any:
        """Call a method of Kaggle's competition service by its wire name; the client's answer.

        `fields` are set on the request, by their names in snake_case. `about` is the contest's
        slug, for messages. `repeat=False` sends the request exactly once.
        Raises KaggleError and its kinds.
        """
        send = self._prepared(method, fields)
        work = functools.partial(_guarded, send, about=about, source=self.source)
        if repeat:
            return patiently(work, self.patience)
        try:
            return work()
        except TryAgain as failure:
            error = failure.error
        raise error

    def _prepared(self, method: str, fields: Mapping[str, Any]) -> Callable[[], Any]:
        """A request of the client's, ready to be sent, once or more often."""
        from kbdenoise.contests.kaggle_client.library import message_types

        request = getattr(message_types(), f"Api{method}Request")()
        for name, value in fields.items():
            setattr(request, name, value)
        send = getattr(self._client.competitions.competition_api_client, _snake(method))
        return functools.partial(send, request)

    def competition(self, slug: str) -> Competition:
        """What Kaggle says of a contest."""
        answer = self.call("GetCompetition", {"competition_name": slug}, about=slug)
        deadline = answer.deadline
        return Competition(
            slug=slug,
            title=answer.title or slug,
            url=answer.url or f"https://www.kaggle.com/competitions/{slug}",
            metric=answer.evaluation_metric or "",
            deadline=deadline.isoformat() + "Z" if deadline else "",
            entered=bool(answer.user_has_entered),
            max_daily_submissions=answer.max_daily_submissions or 0,
            code_only=bool(answer.is_kernels_submissions_only),
            closed=bool(answer.submissions_disabled),
        )

    def files(self, slug: str) -> list[DataFile]:
        """All files of a contest, in Kaggle's order."""
        found: list[DataFile] = []
        token = ""
        for _ in range(_MOST_PAGES):
            fields = {"competition_name": slug, "page_size": _PAGE, "page_token": token}
            answer = self.call("ListDataFiles", fields, about=slug)
            found += [DataFile(name=f.name, size_bytes=f.total_bytes) for f in answer.files]
            if not answer.next_page_token or answer.next_page_token == token:
                return found
            token = answer.next_page_token
        raise KaggleNetworkError(
            f"Kaggle's list of the files of {slug} does not end", hint="try again later"
        )

    @contextlib.contextmanager
    def open_data(
        self, slug: str, *, name: str = "", start: int = 0, validator: str = ""
    ) -> Iterator[Body]:
        """Begin to download one file of a contest, or all of it as one zip when `name` is empty.

        Asks for a fresh signed link, and for what comes after `start` bytes if the file is still
        the one of `validator`. Sends one request; raises TryAgain for what may pass by itself.
        """
        fields = {"competition_name": slug} | ({"file_name": name} if name else {})
        method = "DownloadDataFile" if name else "DownloadDataFiles"
        send = self._prepared(method, fields)
        self._adapter.download_headers = range_headers(start, validator)
        try:
            response = _guarded(send, about=slug, source=self.source, storage=True)
        finally:
            self._adapter.download_headers = {}
        with contextlib.closing(response):
            yield body_of(response, source=self.source)

    def put(self, url: str, path: str | os.PathLike[str]) -> None:
        """Upload a file to the link that StartSubmissionUpload gave; no credentials are sent.

        Sends one request; raises TryAgain for what may pass by itself (begin with a new link).
        """
        from kbdenoise.contests.kaggle_client.translate import of_response
        from kbdenoise.contests.kaggle_client.transport import plain_session

        def work() -> Any:
            with plain_session(self.patience) as session, open(path, "rb") as file:
                return session.put(url, data=file)

        response = _guarded(work, source=self.source)
        if response.status_code not in (200, 201):
            error = of_response(response, source=self.source)
            if isinstance(error, TryAgain):
                raise error
            raise TryAgain(
                KaggleNetworkError(
                    f"the upload failed (HTTP {response.status_code})",
                    hint="run the same command again; nothing was submitted",
                )
            )


def range_headers(start: int, validator: str) -> dict[str, str]:
    """The headers of a download: as it is stored, and what is missing of a known file."""
    headers = {"Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    return headers


def body_of(response: Any, *, source: str = "") -> Body:
    """The body of a good response to a GET with `range_headers`."""
    headers = response.headers
    length = _number(headers.get("Content-Length", ""))
    start, size_bytes = 0, length
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
    if response.status_code == 206 and span:
        start = int(span[1])
        size_bytes = int(span[3]) if span[3] != "*" else int(span[2]) + 1
    if headers.get("Content-Encoding", "identity") != "identity":
        size_bytes = None  # what is counted is not what is sent
    etag = headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")

    def read(size: int) -> bytes:
        # Whatever has come, at once: a link that dies early must still bring the file on.
        return bytes(_guarded(functools.partial(_read1, response.raw, size), source=source))

    return Body(
        start=start,
        size_bytes=size_bytes,
        validator=strong,
        md5=_md5(headers),
        content_type=headers.get("Content-Type", ""),
        read=read,
    )


def _read1(raw: Any, size: int) -> bytes:
    """At most `size` bytes, without waiting for more than have come."""
    if hasattr(raw, "read1"):
        return bytes(raw.read1(size, decode_content=True))
    return bytes(raw.read(min(size, _SMALL_READ), decode_content=True))  # urllib3 before 2.1


def _md5(headers: Mapping[str, str]) -> str:
    """From `x-goog-hash: crc32c=...,md5=...`, in which the values are base64."""
    found = re.search(r"\bmd5=([A-Za-z0-9+/]{22}==)", headers.get("x-goog-hash", ""))
    return base64.b64decode(found[1]).hex() if found else ""


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _guarded(
    work: Callable[[], Result], *, about: str = "", source: str = "", storage: bool = False
) -> Result:
    """Do something with the network; what it raises comes out as KaggleError or TryAgain.

    `storage` is set where a signed link is followed: a 403 or 400 from there, and not from the API,
    means that the link has expired, and a new one is worth a try. 429 asks for patience only.
    """
    failure: BaseException
    try:
        return work()
    except (KaggleError, TryAgain):
        raise
    except Exception as error:
        failure = error
    from kbdenoise.contests.kaggle_client.library import NoCredentials
    from kbdenoise.contests.kaggle_client.translate import NETWORK_FAILURES, translated

    if not isinstance(failure, (NoCredentials, *NETWORK_FAILURES)):
        raise failure
    response = getattr(failure, "response", None)
    status = 0 if response is None else response.status_code
    followed = storage and response is not None and bool(response.history)
    if followed and status < 500 and status != 429:
        kind = NothingLeft if status == 416 else TryAgain
        raise kind(
            KaggleNetworkError(
                f"the link of the download is no longer good (HTTP {status})",
                hint="run the same command again: the download goes on where it stopped",
            )
        )
    raise translated(failure, about=about, source=source)


def _used_credential(api: Any, credentials: list[Credential]) -> Credential | None:
    """Which of the credentials the client has chosen, by the method that it reports."""
    method = str(api.config_values.get("auth_method", "")).lower()
    kind = "key" if "legacy" in method else "login" if "oauth" in method else "token"
    return next((c for c in credentials if c.kind == kind and not c.fault), None)


def _remarks(used: Credential | None, credentials: list[Credential]) -> tuple[str, ...]:
    remarks = credential_remarks(credentials)
    tokens = [c.source for c in credentials if c.kind == "token" and not c.fault]
    if used and used.kind != "token" and tokens:
        remarks.append(f"Kaggle refused the token from {tokens[0]}; {used.source} is used instead")
    return tuple(scrub(remark) for remark in remarks)


def _snake(method: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()
