"""Kaggle's side of a contest: its name there, and the folders of Kaggle's own notebooks.

Nothing here touches the network or needs Kaggle's client.
"""

import os
import re
from pathlib import Path

from kbdenoise.contests.contest import Contest

ROOT_VARIABLE = "KBDENOISE_KAGGLE_ROOT"

_PAGE = re.compile(
    r"(?:https?://)?(?:www\.)?kaggle\.com/(?:c|competitions)/([a-z0-9-]+)", re.IGNORECASE
)


def kaggle_slug(contest: Contest) -> str:
    """The contest's name at Kaggle, by the `url` of its contest.toml; empty where it is not there.

    >>> kaggle_slug(Contest(slug="pages", url="https://www.kaggle.com/c/denoising-dirty-documents"))
    'denoising-dirty-documents'
    """
    page = _PAGE.match(contest.url.strip())
    return page[1].lower() if page else ""


def kaggle_root() -> Path:
    """The folder that holds `input` and `working` in a Kaggle notebook."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/kaggle")


def notebook_output() -> Path | None:
    """Where Kaggle takes a notebook's files from; None outside of Kaggle's notebooks."""
    working = kaggle_root() / "working"
    if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") and os.path.isdir(working):
        return working
    return None
