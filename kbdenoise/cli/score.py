"""`kbdenoise score`: what became of a submission."""

from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    SUBMISSIONS,
    DataOption,
    SubmissionsOption,
    WaitOption,
    command,
    follow,
)
from kbdenoise.cli.words import figure


@command("kbdenoise score last --wait 30m", "kbdenoise score 41234567 --json")
def score(
    console: Console,
    submission: Annotated[
        str,
        typer.Argument(
            metavar="SUBMISSION",
            help="Kaggle's number of a submission, a run (its newest one is meant), or 'last'.",
            autocompletion=complete.runs,
        ),
    ] = "last",
    wait: WaitOption = "",
    data: DataOption = DATA,
    submissions: SubmissionsOption = SUBMISSIONS,
) -> None:
    """Ask for the score of a submission."""
    from kbdenoise.submission.score import score as ask

    found = ask(
        submission, wait=wait, data=data, submissions=submissions, progress=console.progress
    )
    words = "scored, but its score is not shown"
    if found.public_score is not None:
        words = compared(
            found.public_score,
            local=found.local_score,
            best_before=found.best_before,
            metric=found.metric,
        )
    if found.private_score is not None:
        words += f" · private score {figure(found.private_score)}"
    place = [] if submissions == SUBMISSIONS else ["--submissions", str(submissions)]
    console.show(
        found,
        text=f"✓ submission {found.reference}: {words}",
        short="" if found.public_score is None else str(found.public_score),
        next_command=follow("leaderboard", *place, data=data) if found.run else "",
    )


def compared(public: float, *, local: float | None, best_before: float | None, metric: str) -> str:
    """A public score beside what it should be measured by."""
    beside = [] if local is None else [f"local {figure(local)}"]
    if best_before is not None:
        beside.append(f"your best was {figure(best_before)}")
    return f"public score {figure(public)}" + (f"   ({'; '.join(beside)})" if beside else "")
