"""Which contest a run belongs to. Imports no torch, unlike the loading of its weights."""

import os
from pathlib import Path

from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.runs.folder import Run


def contest_of(run: Run, name: str | Path | None, *, data: Path) -> LocalContest:
    """The contest that was asked for by name, or the one that the run was trained on."""
    if name is not None:
        return open_contest(name, data=data)
    record = run.read_record()
    folder = Path(record.contest_folder)
    if not os.path.isdir(folder):  # the whole project may have moved
        return open_contest(record.contest, data=data)
    return open_contest(folder, data=folder.parent)
