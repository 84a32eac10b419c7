"""Where Kaggle's client finds credentials, in its own order. Named by source, never by value.

Nothing here imports the client or asks the network, so that `doctor` may use it.
"""

import json
import os
import shlex
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["token", "key", "login"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One place that holds a credential."""

    source: str
    """An environment variable, or the path of a file."""
    kind: Kind
    """An API token, a legacy key with its user name, or the file of `kaggle auth login`."""
    exposed: str = ""
    """Path of the file, if other users of this machine can read it."""
    fault: str = ""
    """Why the client will ignore it; empty if it will not."""


def find_credentials() -> list[Credential]:
    """All that there is, the one that the client takes first in front."""
    home = Path.home() / ".kaggle"
    found = [*_notebook_token(), *_token_variable()]
    for name in ("access_token", "access_token.txt"):
        if os.path.isfile(home / name):
            found.append(_of_file(home / name, "token", fault=_token_fault(home / name)))
    key = config_folder() / "kaggle.json"
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        found.append(Credential(source="KAGGLE_USERNAME and KAGGLE_KEY", kind="key"))
    elif os.path.isfile(key):
        found.append(_of_file(key, "key", fault=_key_fault(key)))
    if os.path.isfile(home / "credentials.json"):
        found.append(_of_file(home / "credentials.json", "login"))
    return found


def credential_remarks(found: list[Credential]) -> list[str]:
    """What a person should know of them, in sentences with their cure."""
    remarks = [
        f"others on this machine can read {c.exposed}: chmod 600 {shlex.quote(c.exposed)}"
        for c in found
        if c.exposed
    ]
    remarks += [f"{c.source} is ignored: {c.fault}" for c in found if c.fault]
    usable = [c for c in found if not c.fault]
    if len({c.kind for c in usable}) > 1:
        first, *others = [c.source for c in usable]
        remarks.append(
            f"there are several credentials: {first} is tried first, then {', '.join(others)}; "
            "keep one of them"
        )
    return remarks


def config_folder() -> Path:
    """The folder of kaggle.json: that of KAGGLE_CONFIG_DIR, or what the client would choose."""
    if folder := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(folder)
    home = Path.home() / ".kaggle"
    if os.path.isdir(home) or not sys.platform.startswith("linux"):
        return home
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"


def _notebook_token() -> list[Credential]:
    """The token that Kaggle's own notebooks come with."""
    path = os.environ.get("KAGGLE_API_V1_TOKEN", "")
    inside = {"KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL"} <= os.environ.keys()
    if inside and os.path.isfile(path):
        return [Credential(source="KAGGLE_API_V1_TOKEN", kind="token")]
    return []


def _token_variable() -> list[Credential]:
    value = os.environ.get("KAGGLE_API_TOKEN", "")
    if not value:
        return []
    # It holds the token, or the path of a file with the token.
    is_file = len(value) < 4096 and os.path.isfile(value)
    exposed = is_file and _readable_by_others(Path(value))
    return [Credential(source="KAGGLE_API_TOKEN", kind="token", exposed=value if exposed else "")]


def _of_file(path: Path, kind: Kind, *, fault: str = "") -> Credential:
    exposed = str(path) if _readable_by_others(path) else ""
    return Credential(source=str(path), kind=kind, exposed=exposed, fault=fault)


def _token_fault(path: Path) -> str:
    try:
        return "" if path.read_text(encoding="utf-8").strip() else "it is empty"
    except (OSError, ValueError):
        return "it cannot be read"


def _key_fault(path: Path) -> str:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return "it cannot be read"
    except ValueError:
        return "it is not valid JSON"
    if not isinstance(content, dict) or not {"username", "key"} <= content.keys():
        return "it does not hold a username and a key"
    return ""


def _readable_by_others(path: Path) -> bool:
    if os.name == "nt":
        return False
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
