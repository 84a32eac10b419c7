"""`kbdenoise fetch`: bring a contest's pictures onto this disk."""

from pathlib import Path
from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import DATA, DataOption, ForceOption, command, follow
from kbdenoise.progress import counting


@command(
    "kbdenoise fetch demo",
    "kbdenoise fetch denoising-dirty-documents --from ~/Downloads/denoising-dirty-documents.zip",
)
def fetch(
    console: Console,
    contest: Annotated[
        str,
        typer.Argument(
            metavar="CONTEST",
            help="Name of a contest; 'demo' is made on the spot.",
            autocompletion=complete.contests_known,
        ),
    ],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="PATH",
            help="A folder or zip with the pictures, or a contest.toml.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = DATA,
    force: ForceOption = False,
) -> None:
    """Get a contest and pair its images."""
    from kbdenoise.contests.fetch import fetch as fetch_contest

    fetched = fetch_contest(
        contest, source=source, data=data, force=force, progress=counting(console.progress, "fetch")
    )
    counts = f"{fetched.pairs:,} pairs, paired by name · {fetched.tests:,} test images"
    console.show(
        fetched,
        text="\n".join(
            [f"✓ {fetched.folder}   {counts}", *(f"  {note}" for note in fetched.notes)]
        ),
        short=str(fetched.folder),
        next_command=follow("inspect", fetched.contest.slug, data=data),
    )
