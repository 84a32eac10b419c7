"""Archives from the network: Kaggle's own, a link's, or Google Drive's; whole, or not here."""

import contextlib
import functools
import io
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from kbdenoise.contests.archive_checks import ArchiveError, DamagedArchiveError, check_is_zip
from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.download import (
    DamagedError,
    check_room,
    discard,
    download,
    part_path,
)
from kbdenoise.contests.kaggle_client import Patience, check_online, connect, scrub
from kbdenoise.contests.kaggle_client.patience import NothingLeft, TryAgain
from kbdenoise.contests.kaggle_client.site import Body, body_of, range_headers
from kbdenoise.errors import (
    KaggleError,
    KaggleLimitError,
    KaggleLoginError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleRulesError,
    SettingsError,
    nearest,
)
from kbdenoise.progress import Fact, Note, Progress, silent

KAGGLE_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?kaggle\.com/(?:c|competitions)/([^/?#\s]+)", re.IGNORECASE
)
"""The address of a contest; its first group is the slug."""

_LINK = re.compile(r"https?://", re.IGNORECASE)
_DRIVE = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
_DRIVE_ID = re.compile(r"(?:/d/|[?&]id=)([A-Za-z0-9_-]{10,})")


def kaggle_page(slug: str) -> str:
    """The address of a contest at Kaggle."""
    return f"https://www.kaggle.com/competitions/{slug}"


def is_link(source: object) -> bool:
    """Whether a source is an address rather than a path."""
    return isinstance(source, str) and bool(_LINK.match(source))


def absolute(source: str | Path | Sequence[str | Path] | None) -> tuple[str | Path, ...]:
    """The sources: links as they are, paths absolute and without '..', with their own links.

    Raises SettingsError for a link that names no host.
    """
    several = (source,) if isinstance(source, str | Path) else tuple(source or ())
    return tuple(_checked_link(str(s)) if is_link(s) else _absolute_path(s) for s in several)


def _absolute_path(path: str | Path) -> Path:
    return Path(os.path.abspath(path))


def _checked_link(link: str) -> str:
    host = ""
    with contextlib.suppress(ValueError):  # brackets or a port that are none
        split = urllib.parse.urlsplit(link)
        host = (split.hostname or "") if split.port != 0 else ""
    if not host:
        raise SettingsError(
            f"{scrub(link)} is no address", hint="links look like https://HOST/FOLDER/NAME.zip"
        )
    return link


def public_name(link: str) -> str:
    """A link without its query and login, which may hold secrets; it identifies the source."""
    split = urllib.parse.urlsplit(link)
    if drive := _drive_id(link):
        return f"https://drive.google.com/file/d/{drive}"
    return urllib.parse.urlunsplit(
        (split.scheme, split.netloc.rpartition("@")[2], split.path, "", "")
    )


@contextlib.contextmanager
def arriving(slug: str, link: str, target: Path, *, tell: Progress = silent) -> Iterator[Path]:
    """A whole and verified zip from a link, which may be Kaggle's page of the contest.

    The block unpacks it. If it turns out to be damaged then, DamagedError comes out, and nothing
    of it is kept; a hostile archive is not kept either. After any other error the next call finds
    it here. The caller removes what is no longer needed (`download.discard`).
    Raises KaggleError, DataError or SettingsError.
    """
    if KAGGLE_PAGE.match(link):
        with _kaggle_archive(slug, target, tell=tell) as part:
            yield part
        return
    check_online()
    if urllib.parse.urlsplit(link).hostname in _DRIVE:
        bring: Callable[[], object] = functools.partial(_bring_from_drive, link, target)
    else:
        patience = Patience.of_environment()
        bring = functools.partial(
            download,
            functools.partial(_open_link, link, patience),
            target,
            source=public_name(link),
            patience=patience,
            progress=tell,
        )
    with _checked(bring, target) as part:
        yield part


@contextlib.contextmanager
def _kaggle_archive(slug: str, target: Path, *, tell: Progress) -> Iterator[Path]:
    """All files of a contest as one zip, from Kaggle."""
    with _better_hints(slug):
        site = connect()
        tell(Fact(label="kaggle", text=f"logged in by {site.source}"))
        for remark in site.remarks:
            tell(Note(text=remark))
        files = site.files(slug)
        total_bytes = sum(file.size_bytes for file in files)
        check_room(target.parent, total_bytes, what=f"{slug}, unpacked,")

    def open_at(start: int, validator: str) -> AbstractContextManager[Body]:
        return site.open_data(slug, start=start, validator=validator)

    bring = functools.partial(
        download,
        open_at,
        target,
        source=kaggle_page(slug),
        patience=site.patience,
        progress=tell,
        beside_bytes=total_bytes,
    )
    with _checked(bring, target) as part:
        yield part


@contextlib.contextmanager
def _better_hints(slug: str) -> Iterator[None]:
    """Name the nearest contest where Kaggle does not know this one, and the way round by hand."""
    try:
        yield
    except (KaggleNotFoundError, KaggleRulesError, KaggleLoginError) as error:
        close = nearest(slug, CONTESTS)
        hint = error.hint
        if slug not in CONTESTS and close.startswith("did you mean"):
            hint = f"{close} Otherwise {hint}"
        by_hand = (
            f"; or download it in a browser ({kaggle_page(slug)}/data) and run: "
            f"kbdenoise fetch {slug} --from FOLDER-OR-ZIP"
        )
        raise type(error)(error.message, hint=hint + by_hand) from None


@contextlib.contextmanager
def _checked(bring: Callable[[], object], target: Path) -> Iterator[Path]:
    """Bring an archive, check that it is a zip, and throw it away if the block finds it bad."""
    bring()
    part = part_path(target)
    try:
        check_is_zip(part)
        yield part
    except DamagedArchiveError as error:
        discard(target)
        raise DamagedError(error.message.replace(str(part), target.name), hint=error.hint) from None
    except ArchiveError:
        discard(target)
        raise


@contextlib.contextmanager
def _open_link(link: str, patience: Patience, start: int, validator: str) -> Iterator[Body]:
    """Begin to download a link; one request."""
    try:
        from kbdenoise.contests.kaggle_client.translate import (
            NETWORK_FAILURES,
            retry_after,
            translated,
        )
        from kbdenoise.contests.kaggle_client.transport import plain_session
    except ImportError:
        raise KaggleError(
            "downloads need the package requests", hint="pip install requests"
        ) from None
    with plain_session(patience) as session:
        failure: BaseException | None = None
        try:
            headers = range_headers(start, validator)
            response = session.get(link, headers=headers, stream=True)
        except NETWORK_FAILURES as error:
            failure = error
        if failure is not None:
            raise translated(failure)
        with contextlib.closing(response):
            if response.status_code >= 400:
                asked_s = retry_after(response)
                raise _refused(link, response.status_code, asked_s=asked_s)
            yield body_of(response)


def _refused(link: str, status: int, *, asked_s: float | None) -> KaggleError | TryAgain:
    if status == 429:
        wait = f"wait {asked_s:.0f} s" if asked_s else "wait a few minutes"
        return TryAgain(
            KaggleLimitError(
                f"{public_name(link)} gets too many requests from here (HTTP 429)",
                hint=f"{wait}, then run the same command again",
            ),
            asked_s=asked_s,
        )
    error = KaggleNetworkError(
        f"{public_name(link)} answers HTTP {status}",
        hint="open the link in a browser: it may have expired, or need a login; a file "
        "downloaded there is given with --from FILE",
    )
    if status == 416:
        return NothingLeft(error)
    return TryAgain(error, asked_s=asked_s) if status == 408 or status >= 500 else error


def _drive_id(link: str) -> str:
    if urllib.parse.urlsplit(link).hostname not in _DRIVE:
        return ""
    found = _DRIVE_ID.search(link)
    return found[1] if found else ""


def _bring_from_drive(link: str, target: Path) -> None:
    """A file in Google Drive, by gdown, which knows how Drive asks for confirmation."""
    identity = _drive_id(link)
    if not identity:
        raise SettingsError(
            f"{public_name(link)} is not the link of one file in Google Drive",
            hint="share the zip itself, and give its link: https://drive.google.com/file/d/ID/view",
        )
    try:
        import gdown
    except ImportError:
        raise KaggleError(
            "Google Drive is reached through the package gdown, which is not installed",
            hint='pip install "kbdenoise[drive]", or download the zip in a browser and give it '
            "with --from FILE",
        ) from None
    discard(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            url = f"https://drive.google.com/uc?id={identity}"
            came = gdown.download(url=url, output=str(part_path(target)), quiet=True)
        words = "" if came else "nothing came"
    except Exception as error:
        words = scrub(" ".join(str(error).split()))[:200] or type(error).__name__
    if words:
        discard(target)
        raise KaggleNetworkError(
            f"Google Drive does not give the file {identity}: {words}",
            hint="share it with 'anyone with the link'; if its quota is used up, wait a day "
            "or download it in a browser and give it with --from FILE",
        )
