"""HTTP with timeouts. Import this late: it needs `requests`, which comes with Kaggle's client."""

import logging
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from kbdenoise.contests.kaggle_client.patience import Patience
from kbdenoise.contests.kaggle_client.scrub import scrub


def _without_secrets(record: logging.LogRecord) -> bool:
    """Let a record pass, scrubbed: at DEBUG urllib3 writes signed links whole."""
    record.msg, record.args = scrub(record.getMessage()), ()
    return True


class TimeoutAdapter(HTTPAdapter):  # type: ignore[misc]
    """Gives every request a timeout, and downloads the headers that the client cannot send.

    `socket.setdefaulttimeout` does not reach the client's sessions; an adapter does.
    """

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        for name in ("urllib3.connectionpool", "urllib3.util.retry"):
            logging.getLogger(name).addFilter(_without_secrets)  # the same one is added once
        self.patience = patience
        self.download_headers: dict[str, str] = {}
        """Sent with GET: the storage that an API call redirects to, never the API itself."""

    def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
        """Send one request; see HTTPAdapter."""
        if options.get("timeout") is None:
            options["timeout"] = (self.patience.connect_s, self.patience.read_s)
        if request.method == "GET":
            request.headers.update(self.download_headers)
        return super().send(request, **options)


def plain_session(patience: Patience) -> Any:
    """A session without any credentials, for storage and for links; proxies are honoured."""
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, TimeoutAdapter(patience))
    return session
