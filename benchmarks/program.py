"""The installed program, driven as a user does, and a demo contest of any size to drive it on."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from kbdenoise.contests.catalogue import CONTESTS
from kbdenoise.contests.contest import CONTEST_FILE, write_contest
from kbdenoise.contests.demo import make_demo_contest


def words(*arguments: str) -> list[str]:
    """The command line of one command, its result as JSON."""
    return [sys.executable, "-m", "kbdenoise", *arguments, "--json"]


def environment() -> dict[str, str]:
    """That of this process, with this checkout's package found from any folder."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command in the folder `home`, however it ends."""
    return subprocess.run(
        words(*arguments),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )


def kbdenoise(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one command in the folder `home` and return its result; ends this program if it fails."""
    answer = run(home, *arguments)
    if answer.returncode:
        raise SystemExit(f"kbdenoise {' '.join(arguments)}\n{answer.stderr}")
    return read(answer)


def read(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The result of a command that was done."""
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def make_demo(home: Path, *, pages: int) -> None:
    """The demo contest with so many training pages, two pictures each, in `home`/data/demo.

    Every tenth page is held out, whatever the seed: runs of several seeds score the same pictures.
    """
    folder, contest = home / "data" / "demo", CONTESTS["demo"]
    if (folder / CONTEST_FILE).is_file():
        return
    make_demo_contest(folder, train_pages=pages, test_pages=1)
    stems = sorted(path.stem for path in (folder / contest.noisy).iterdir())
    groups = dict.fromkeys(match[1] for s in stems if (match := _page(contest.group_pattern, s)))
    contest = replace(contest, holdout=tuple(groups)[::10])
    write_contest(folder / CONTEST_FILE, contest)


def _page(pattern: str, stem: str) -> re.Match[str] | None:
    return re.fullmatch(pattern, stem)
