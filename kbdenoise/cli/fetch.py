"""`kbdenoise fetch`: bring a contest's pictures onto this disk."""

from pathlib import Path
from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import DATA, DataOption, DryRunOption, ForceOption, command, follow
from kbdenoise.cli.words import Cell, size, table
from kbdenoise.errors import SettingsError
from kbdenoise.progress import counting


@command(
    "kbdenoise fetch https://www.kaggle.com/competitions/denoising-dirty-documents",
    "kbdenoise fetch denoising-dirty-documents --from ~/Downloads/denoising-dirty-documents.zip",
)
def fetch(
    console: Console,
    contest: Annotated[
        str,
        typer.Argument(
            metavar="CONTEST",
            help="Name or address of a contest at Kaggle; 'demo' is made on the spot.",
            autocompletion=complete.contests_known,
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="PATH|LINK",
            help="A folder or zip with the pictures, a link to one, or a contest.toml; "
            "repeat it for several zips.",
            show_default=False,
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option(
            "--file",
            metavar="GLOB",
            help="Download only the files that fit, as they are; may be repeated.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the contest's files at Kaggle.")] = (
        False
    ),
    data: DataOption = DATA,
    keep_zip: Annotated[
        bool, typer.Option("--keep-zip", help="Keep the downloaded archive, too.")
    ] = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Get a contest and pair its images."""
    if source and (files or show):
        raise SettingsError(
            f"--{'file' if files else 'list'} and --from exclude each other",
            hint="--file and --list ask Kaggle; leave one",
        )
    if show:
        _list(console, contest, files or ["*"])
    elif dry_run:
        _plan(console, contest, source=source, files=files, data=data, force=force)
    elif files:
        _fetch_files(console, contest, files, data=data, force=force)
    else:
        _fetch(console, contest, source=source, data=data, force=force, keep_zip=keep_zip)


def _fetch(
    console: Console,
    contest: str,
    *,
    source: list[str] | None,
    data: Path,
    force: bool,
    keep_zip: bool,
) -> None:
    from kbdenoise.contests.fetch import fetch as fetch_contest

    fetched = fetch_contest(
        contest,
        source=source,
        data=data,
        force=force,
        keep_zip=keep_zip,
        progress=counting(console.progress, "fetch"),
        tell=console.progress,
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


def _list(console: Console, contest: str, patterns: list[str]) -> None:
    from kbdenoise.contests.listing import list_files

    found = list_files(contest, patterns=patterns, tell=console.progress)
    rows: list[dict[str, Cell]] = [
        {"file": file.name, "bytes": file.size_bytes} for file in found.files
    ]
    console.show(
        found,
        text=f"{table(rows, width=console.width)}\n"
        f"{len(found.files):,} files, {size(found.size_bytes)}",
        short="\n".join(file.name for file in found.files),
        next_command=follow("fetch", found.contest),
    )


def _plan(
    console: Console,
    contest: str,
    *,
    source: list[str] | None,
    files: list[str] | None,
    data: Path,
    force: bool,
) -> None:
    from kbdenoise.contests.listing import plan_fetch, plan_files

    tell = console.progress
    if files:
        plan = plan_files(contest, files, data=data, force=force, tell=tell)
    else:
        plan = plan_fetch(contest, source=source, data=data, force=force, tell=tell)
    does = "nothing to do" if plan.unchanged else "nothing was written"
    lines = [f"{plan.folder}   from {plan.source}   {does}"]
    if plan.files is not None and plan.size_bytes is not None:
        lines.append(
            f"  {plan.files:,} files, {size(plan.size_bytes)} unpacked; "
            f"{size(plan.free_bytes)} are free"
        )
    console.show(
        plan,
        text="\n".join([*lines, *(f"  {note}" for note in plan.notes)]),
        short=plan.source,
        next_command=follow(
            "fetch", plan.contest, *(w for f in files or [] for w in ("--file", f)), data=data
        ),
    )


def _fetch_files(
    console: Console, contest: str, files: list[str], *, data: Path, force: bool
) -> None:
    from kbdenoise.contests.listing import fetch_files

    fetched = fetch_files(contest, files, data=data, force=force, tell=console.progress)
    console.show(
        fetched,
        text=f"✓ {fetched.folder}   {len(fetched.files):,} files, {size(fetched.size_bytes)}"
        f" · {fetched.already_here:,} were here already",
        short=str(fetched.folder),
    )
