"""Text without secrets: keys, tokens, Authorization headers, the queries of signed links.

Everything that the network said goes through `scrub` before a person or a log sees it.
"""

import base64
import json
import logging
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from kbdenoise.contests.kaggle_client.credentials import config_folder

MASK = "***"

_HEADER = re.compile(
    r"((?:proxy-)?authorization['\"]?\s*[:=]\s*(?:b(?=['\"]))?['\"]?)(?:(basic|bearer|digest)\s+)?[^\s'\",}]+",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(basic|bearer)\s+[A-Za-z0-9+/_.~=-]{16,}", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^\s/@'\"]+@")
_QUERY = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>)]+", re.IGNORECASE)
_SIGNED = re.compile(
    r"([?&;][\w.%-]*(?:sig|token|key|credential|secret|password|accessid)[\w.%-]*=)[^&\s'\"<>)]+",
    re.IGNORECASE,
)
_SHORTEST = 6  # a shorter "secret" would mask innocent text
_TOKEN_NAMES = ("access_token", "refresh_token", "key")

_learned: set[str] = set()


def scrub(text: str) -> str:
    """The text with every secret that this process could know of written as `***`."""
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _HEADER.sub(rf"\1{MASK}", text)
    text = _SCHEME.sub(rf"\1 {MASK}", text)
    text = _PASSWORD.sub(f"{MASK}@", text)
    text = _QUERY.sub(rf"\1?{MASK}", text)
    return _SIGNED.sub(rf"\1{MASK}", text)


def learn(secret: str | None) -> None:
    """Scrub this too from now on: a token that the client was given while it ran."""
    if secret and len(secret) >= _SHORTEST:
        _learned.add(secret)


class ScrubbingFormatter(logging.Formatter):
    """A formatter of log records, tracebacks included, that lets no secret through."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return scrub(super().format(record))


def _secrets() -> set[str]:
    """All credentials in the environment and in the client's files, as they may appear in text."""
    found = set(_learned)
    for value in (*_of_environment(), *_of_files()):
        found |= {value, urllib.parse.quote(value, safe="")}
    user, key = os.environ.get("KAGGLE_USERNAME", ""), os.environ.get("KAGGLE_KEY", "")
    pairs = [(user, key), *_of_key_file()]
    for name, secret in pairs:
        found |= {secret, base64.b64encode(f"{name}:{secret}".encode()).decode()}
    return {value for value in found if len(value) >= _SHORTEST}


def _of_environment() -> Iterator[str]:
    for name in ("KAGGLE_KEY", "KAGGLE_TOKEN", "KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_IAP_TOKEN"):
        yield os.environ.get(name, "")
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN"):
        value = os.environ.get(name, "")
        # A path of a file that holds the token is no secret; what is in it is one.
        yield _text(Path(value)) if _is_file(value) else value


def _of_files() -> Iterator[str]:
    home = Path.home() / ".kaggle"
    yield _text(home / "access_token")
    yield _text(home / "access_token.txt")
    login = _table(home / "credentials.json")
    yield from (str(login[name]) for name in _TOKEN_NAMES if login.get(name))


def _of_key_file() -> Iterator[tuple[str, str]]:
    for folder in {config_folder(), Path.home() / ".kaggle"}:
        table = _table(folder / "kaggle.json")
        if table.get("key"):
            yield str(table.get("username", "")), str(table["key"])


def _is_file(value: str) -> bool:
    return 0 < len(value) < 4096 and "\0" not in value and os.path.isfile(value)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _table(path: Path) -> dict[str, object]:
    try:
        content = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
