"""The official client, imported late and silenced, and logged in.

Importing it prints, makes a folder, may ask the network without any timeout, and may exit. None of
that reaches the person: stdout is swallowed, every request gets a timeout, SystemExit is caught.
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kbdenoise.contests.kaggle_client.credentials import config_folder
from kbdenoise.contests.kaggle_client.patience import Patience
from kbdenoise.contests.kaggle_client.scrub import learn
from kbdenoise.errors import KaggleError

_VERBOSE = ("VERBOSE", "VERBOSE_OUTPUT")  # they make the client print Authorization headers
_INSTALL = 'pip install "kaggle>=2.2.4,<3" six'


class NoCredentials(Exception):
    """The client found nothing to log in with."""


def log_in(patience: Patience) -> Any:
    """The client's KaggleApi object, authenticated.

    Raises KaggleError where the client is not installed, NoCredentials, or what requests raises.
    """
    with _silence(), _bounded(patience):
        first = "kaggle" not in sys.modules
        api = _api_class()()
        # Importing has logged in already, if it could; a failure there was swallowed.
        if first and getattr(sys.modules["kaggle"].api, "_authenticated", False):
            api = sys.modules["kaggle"].api
        else:
            try:
                api.authenticate()
            except SystemExit:
                raise NoCredentials from None
    for name in ("token", "key"):
        learn(api.config_values.get(name))
    return api


def message_types() -> Any:
    """The client's module of requests and answers (`ApiListDataFilesRequest`, ...)."""
    return import_module("kagglesdk.competitions.types.competition_api_service")


def open_session(client: Any, adapter: Any) -> Any:
    """The requests session of a KaggleClient, with our adapter in it; from now on it is silent."""
    http = client.http_client()
    http._verbose = False  # who imported the client before us may have had VERBOSE set
    http._response_processor = None  # says on stdout that there is a newer client
    http._init_session()
    for scheme in ("https://", "http://"):
        http._session.mount(scheme, adapter)
    return http._session


def _api_class() -> Any:
    if find_spec("kaggle") is None:
        raise KaggleError(
            "Kaggle's client is not installed, and the network is reached through it",
            hint=_INSTALL,
        )
    try:
        return import_module("kaggle.api.kaggle_api_extended").KaggleApi
    except SystemExit:
        raise NoCredentials from None
    except ImportError as error:
        raise KaggleError(
            f"Kaggle's client cannot be imported: {error}", hint=f"repair it: {_INSTALL}"
        ) from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stdout, nothing verbose, and a folder for the client where HOME is read-only."""
    changes: dict[str, str | None] = dict.fromkeys(_VERBOSE)
    with contextlib.ExitStack() as stack:
        if not _can_exist(config_folder()):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kbdenoise-"))
            changes["KAGGLE_CONFIG_DIR"] = folder
        stack.enter_context(_environment(changes))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield


@contextlib.contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _can_exist(folder: Path) -> bool:
    """Whether the folder is there; it is made if need be, as the client itself would."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _bounded(patience: Patience) -> Iterator[None]:
    """Timeouts for what the client asks while it logs in, through sessions that it keeps hidden."""
    try:
        from kagglesdk.kaggle_http_client import KaggleHttpClient
    except ImportError:  # `_api_class` says it better
        yield
        return
    from kbdenoise.contests.kaggle_client.transport import TimeoutAdapter

    original = KaggleHttpClient._init_session

    def init_session(self: Any) -> Any:
        result = original(self)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, TimeoutAdapter(patience))
        return result

    KaggleHttpClient._init_session = init_session
    try:
        yield
    finally:
        KaggleHttpClient._init_session = original
