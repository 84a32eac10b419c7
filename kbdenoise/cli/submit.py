"""`kbdenoise submit`: from a run to a checked and scored submission file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    RUNS,
    SUBMISSIONS,
    ConfigOption,
    ContestOption,
    DataOption,
    DryRunOption,
    RunArgument,
    RunsOption,
    Settings,
    command,
    follow,
    from_file,
)
from kbdenoise.cli.words import figure
from kbdenoise.config import PredictConfig


@command(
    "kbdenoise submit last --dry-run",
    'kbdenoise submit best --message "longer training"',
    settings=PredictConfig,
)
def submit(
    console: Console,
    settings: Settings,
    run: RunArgument = "last",
    message: Annotated[
        str,
        typer.Option("--message", "-m", metavar="TEXT", help="A note for the log of submissions."),
    ] = "",
    values: Annotated[
        Literal["pixels", "float"],
        typer.Option(
            "--values",
            help="Compute the values from the rounded pictures, or from the network's own floats.",
        ),
    ] = "pixels",
    dry_run: DryRunOption = False,
    contest: ContestOption = None,
    data: DataOption = DATA,
    runs: RunsOption = RUNS,
    submissions: Annotated[
        Path,
        typer.Option("--submissions", metavar="FOLDER", help="Folder that holds submissions."),
    ] = SUBMISSIONS,
    config: ConfigOption = None,
) -> None:
    """Predict, write the submission, check it, score it."""
    from kbdenoise.submission.submit import submit as submit_run

    result = submit_run(
        run,
        name=contest,
        data=data,
        runs=runs,
        submissions=submissions,
        message=message,
        values=values,
        dry_run=dry_run,
        progress=console.progress,
        **from_file(PredictConfig, config, settings),
    )
    span = f"values {figure(result.minimum)} to {figure(result.maximum)}"
    lines = [
        f"✓ {result.path}   {result.rows:,} rows · checked · {span}, mean {figure(result.mean)}"
    ]
    if result.local_score is not None:
        lines.append(f"  local score {figure(result.local_score)} ({result.metric})")
    lines += [f"  {note}" for note in result.notes]
    next_command = follow("runs", "list", runs=runs)
    if dry_run:
        places = [] if contest is None else ["--contest", contest]
        if submissions != SUBMISSIONS:
            places += ["--submissions", str(submissions)]
        next_command = follow("submit", run, *places, data=data, runs=runs)
    console.show(result, text="\n".join(lines), short=str(result.path), next_command=next_command)
