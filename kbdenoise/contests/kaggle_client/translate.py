"""What the network and the client raise, as errors of ours: one sentence what, one what to do.

Import this late: it needs `requests`. Nothing here keeps a reference to what was raised, as that
holds Authorization headers and signed links.
"""

import contextlib
import email.utils
import json
import logging
import re
import time
from typing import Any

import requests
import urllib3

from kbdenoise.contests.kaggle_client.library import NoCredentials
from kbdenoise.contests.kaggle_client.patience import TIMEOUT_VARIABLE, TryAgain
from kbdenoise.contests.kaggle_client.scrub import scrub
from kbdenoise.errors import (
    KaggleError,
    KaggleLimitError,
    KaggleLoginError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleRulesError,
)

NETWORK_FAILURES = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
    ValueError,  # an answer that is no JSON, or whose length is wrong
)
"""What a request, and reading its answer, can raise; OSError covers sockets."""

_AGAIN = "run the same command again: a download goes on where it stopped"
_LONGEST_TEXT = 300  # of what a server said

logger = logging.getLogger(__name__)


def translated(
    failure: BaseException, *, about: str = "", source: str = ""
) -> KaggleError | TryAgain:
    """An error of ours for a failure; TryAgain around it where it may pass by itself.

    `about` is the slug of the contest, `source` names the credential that was used.
    """
    if isinstance(failure, KaggleError | TryAgain):
        return failure
    logger.debug("%s: %s", type(failure).__name__, scrub(str(failure)))
    if isinstance(failure, NoCredentials):
        return no_credentials()
    response = getattr(failure, "response", None)
    if response is not None and response.status_code >= 400:
        return of_response(response, about=about, source=source)
    return _of_connection(failure)


def no_credentials() -> KaggleLoginError:
    """The error of a person who has no token yet."""
    return KaggleLoginError(
        "no Kaggle credentials were found",
        hint="make a token at https://www.kaggle.com/settings/api, then export "
        "KAGGLE_API_TOKEN=... or save it as ~/.kaggle/access_token (chmod 600); "
        "`kbdenoise doctor` shows what is found where",
    )


def of_response(response: Any, *, about: str = "", source: str = "") -> KaggleError | TryAgain:
    """An error of ours for an HTTP status of 400 or more."""
    status = _status(response)
    said = server_text(response)
    saying = f": {said}" if said else ""
    if status == 401:
        return KaggleLoginError(
            f"Kaggle does not accept the credentials from {source or 'this machine'}{saying}",
            hint="make a new token at https://www.kaggle.com/settings/api; "
            "`kbdenoise doctor` shows which credentials are found where",
        )
    if status == 403:
        return KaggleRulesError(
            f"Kaggle does not let this account into {about or 'it'}{saying}",
            hint=f"accept the rules at {rules_page(about)} (a new account must verify its phone "
            "first), and check the contest's name; then run the same command again",
        )
    if status == 404:
        return KaggleNotFoundError(
            f"Kaggle does not know {about or 'it'}{saying}",
            hint="check the name: it is the last part of the contest's address, "
            "https://www.kaggle.com/competitions/NAME",
        )
    if status == 429:
        return _too_many(response, saying)
    if status >= 500 or status == 408:
        error = KaggleNetworkError(
            f"Kaggle's server failed (HTTP {status}){saying}", hint=f"wait a little, then {_AGAIN}"
        )
        return TryAgain(error, asked_s=retry_after(response))
    if status == 407:
        return KaggleNetworkError(
            "the proxy wants a login (HTTP 407)",
            hint="put it into HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT",
        )
    if re.search(r"limit|too many|daily|allowed", said, re.IGNORECASE) and "submi" in said.lower():
        return KaggleLimitError(
            f"Kaggle takes no further submission to {about or 'this contest'} now{saying}",
            hint="the daily count begins anew at 00:00 UTC",
        )
    return KaggleError(
        f"Kaggle refused the request (HTTP {status}){saying}",
        hint="what Kaggle said above is all there is; its page of the contest may say more",
    )


def rules_page(slug: str) -> str:
    """Where a contest's rules are accepted."""
    return f"https://www.kaggle.com/competitions/{slug or 'NAME'}/rules"


def server_text(response: Any) -> str:
    """What the server said, from either of Kaggle's two forms of an error; no web page."""
    text = ""
    with contextlib.suppress(Exception):
        content = json.loads(response.content)
        inner = content.get("error", content)
        text = inner.get("message", "") if isinstance(inner, dict) else str(inner)
    return scrub(" ".join(str(text).split()))[:_LONGEST_TEXT]


def _status(response: Any) -> int:
    """The status; an answer may carry it in its JSON only, under a status of 200."""
    with contextlib.suppress(Exception):
        content = json.loads(response.content)
        inner = content.get("error", content)
        if response.status_code < 400 and int(inner["code"]) >= 400:
            return int(inner["code"])
    return int(response.status_code)


def _too_many(response: Any, saying: str) -> TryAgain:
    asked_s = retry_after(response)
    wait = f"wait {asked_s:.0f} s" if asked_s else "wait a few minutes"
    error = KaggleLimitError(
        f"Kaggle gets too many requests from here (HTTP 429){saying}", hint=f"{wait}, then {_AGAIN}"
    )
    return TryAgain(error, asked_s=asked_s)


def retry_after(response: Any) -> float | None:
    """Seconds that the server asks to wait, given as a number or as a date."""
    value = response.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _of_connection(failure: BaseException) -> KaggleError | TryAgain:
    text = str(failure)
    if "CA certificate bundle" in text:  # requests raises a plain OSError
        return KaggleNetworkError(
            f"the certificates that REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE) names are not there: "
            f"{text.rpartition(': ')[2]}",
            hint="correct the path: export REQUESTS_CA_BUNDLE=/path/to/ca.pem",
        )
    if isinstance(failure, requests.exceptions.SSLError) or "CERTIFICATE_VERIFY" in text:
        return KaggleNetworkError(
            "the server's certificate is not trusted here",
            hint="behind a company's proxy, name its certificates: "
            "export REQUESTS_CA_BUNDLE=/path/to/ca.pem",
        )
    if isinstance(failure, requests.exceptions.ProxyError):
        return _of_proxy(text)
    if isinstance(failure, requests.exceptions.JSONDecodeError | ValueError) and not isinstance(
        failure, OSError
    ):
        return KaggleNetworkError(
            "a web page came instead of Kaggle's answer",
            hint="a login page of the network, or a proxy, stands between: open a browser and "
            "log in to the network, or set HTTPS_PROXY; then run the same command again",
        )
    return TryAgain(KaggleNetworkError(_connection_words(failure), hint=_connection_hint(failure)))


def _of_proxy(text: str) -> KaggleError | TryAgain:
    refused = re.search(r"Tunnel connection failed: (\d+)", text)
    status = int(refused[1]) if refused else 0
    words = "the proxy does not answer"
    if status:
        words = f"the proxy refuses the connection (HTTP {status})"
    elif "RemoteDisconnected" in text or "reset" in text:
        words = "the connection broke off at the proxy"
    error = KaggleNetworkError(
        "the proxy wants a login (HTTP 407)" if status == 407 else words,
        hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY; a login goes into them: "
        "http://USER:PASSWORD@HOST:PORT",
    )
    return error if 400 <= status < 500 else TryAgain(error)


def _connection_words(failure: BaseException) -> str:
    text = f"{type(failure).__name__} {failure}"
    if isinstance(failure, requests.exceptions.ConnectTimeout) or "ConnectTimeout" in text:
        return "Kaggle's server cannot be reached: no connection in time"
    if isinstance(failure, requests.exceptions.Timeout) or "timed out" in text:
        return "the server has gone silent"
    if "NameResolution" in text or "getaddrinfo" in text:
        return "Kaggle's server cannot be found: is there a network?"
    if "refused" in text.lower():
        return "the connection was refused"
    return "the connection broke off"


def _connection_hint(failure: BaseException) -> str:
    if "NameResolution" in str(failure):
        return (
            "in a Kaggle notebook switch Internet on in its settings, or attach the contest's "
            "data; elsewhere check the connection and HTTPS_PROXY"
        )
    return (
        f"check the connection (and HTTPS_PROXY), then {_AGAIN}; "
        f"{TIMEOUT_VARIABLE}=SECONDS waits longer"
    )
