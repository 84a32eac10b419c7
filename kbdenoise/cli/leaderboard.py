"""`kbdenoise leaderboard`: own submissions, local against public."""

from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import DATA, SUBMISSIONS, DataOption, SubmissionsOption, command
from kbdenoise.cli.words import Cell, table

if TYPE_CHECKING:
    from kbdenoise.submission.leaderboard import Leaderboard, Row


@command("kbdenoise leaderboard", "kbdenoise leaderboard denoising-dirty-documents --json")
def leaderboard(
    console: Console,
    contest: Annotated[
        str | None,
        typer.Argument(
            metavar="CONTEST",
            help="Name of a contest; that of the newest submission where nothing is said.",
            autocompletion=complete.contests_here,
            show_default=False,
        ),
    ] = None,
    data: DataOption = DATA,
    submissions: SubmissionsOption = SUBMISSIONS,
) -> None:
    """Show own submissions, local against public."""
    from kbdenoise.submission.leaderboard import leaderboard as find

    found = find(contest, data=data, submissions=submissions, progress=console.progress)
    lines = [table([_cells(row) for row in found.rows], width=console.width), *_below(found)]
    top = next((row for row in found.rows if row.best), None)
    console.show(
        found, text="\n".join(lines), short=top.reference or top.csv if top is not None else ""
    )


def _cells(row: "Row") -> dict[str, Cell]:
    return {
        "submission": row.reference or row.status,
        "run": row.run,
        "message": row.message,
        "local": row.local_score,
        "public": row.public_score,
        "gap": row.gap,
        "": "best" if row.best else "" if row.public_score is not None else row.status,
        "when (UTC)": row.time[:16].replace("T", " "),
    }


def _below(found: "Leaderboard") -> list[str]:
    lines = [f"  {found.contest}: {found.metric}"]
    if found.rank is not None and found.teams:
        lines.append(f"  {found.team}: rank {found.rank:,} of {found.teams:,} teams")
    elif found.teams:
        lines.append(f"  not among the {found.teams:,} teams of the public leaderboard yet")
    if found.remaining_today is not None:
        lines.append(f"  {found.remaining_today} submissions left today")
    reasons = [f"  {row.reference or row.csv}: {row.detail}" for row in found.rows if row.detail]
    return [*lines, *reasons, *(f"  {note}" for note in found.notes)]
