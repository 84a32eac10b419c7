"""Look at a contest's pictures before training on them: figures in JSON and a contact sheet."""

from dataclasses import asdict, dataclass
from pathlib import Path

from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.data.pairs import pair_folders
from kbdenoise.data.splits import evenly
from kbdenoise.data.summary import Summary, summarise
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import read_image, write_image
from kbdenoise.imaging.panel import (
    DIFFERENCE_SCALE,
    SHEET_ROWS,
    SHEET_SIDE,
    difference,
    stack,
    strip,
)
from kbdenoise.progress import Progress, counting, silent
from kbdenoise.runs.folder import write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Where the summary and the contact sheet were written, and the summary itself."""

    folder: Path
    summary: Summary
    summary_file: Path
    sheet_file: Path | None
    """None when no pair could be read."""


def inspect(
    name: str | Path | None = None,
    *,
    data: Path = Path("data"),
    progress: Progress = silent,
) -> Inspection:
    """Summarise a contest's pictures and draw some of its pairs.

    Writes summary.json and pairs.png into the contest's folder. Broken files are counted and named
    in the summary, not raised.
    """
    local = open_contest(name, data=data)
    summary = summarise(local, progress=counting(progress, "read pictures"))
    summary_file = local.folder / "summary.json"
    write_json(summary_file, asdict(summary))
    return Inspection(
        folder=local.folder,
        summary=summary,
        summary_file=summary_file,
        sheet_file=_draw_pairs(local),
    )


def _draw_pairs(local: LocalContest) -> Path | None:
    """A sheet of some pairs, evenly chosen: noisy, clean, and what separates them."""
    strips = []
    for pair in evenly(pair_folders(local).pairs, SHEET_ROWS):
        try:
            noisy = read_image(pair.noisy, channels=local.contest.channels)
            clean = read_image(pair.clean, channels=local.contest.channels)
        except DataError:
            continue  # named in the summary already
        if noisy.shape != clean.shape:
            continue
        between = difference(noisy, clean, scale=DIFFERENCE_SCALE)
        strips.append(
            strip([noisy, clean, between], [pair.stem, "clean", "noisy - clean"], side=SHEET_SIDE)
        )
    if not strips:
        return None
    path = local.folder / "pairs.png"
    write_image(path, stack(strips))
    return path
