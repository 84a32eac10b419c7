"""`kbdenoise submit`: from a run to a checked file, and to its score at Kaggle."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kbdenoise.cli.asking import upload_or_not
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
    SubmissionsOption,
    WaitOption,
    command,
    follow,
    from_file,
)
from kbdenoise.cli.words import figure
from kbdenoise.config import PredictConfig
from kbdenoise.errors import SettingsError

if TYPE_CHECKING:
    from kbdenoise.submission.submit import Submission


@command(
    "kbdenoise submit last --dry-run",
    'kbdenoise submit best --message "longer training" --yes --wait 30m',
    settings=PredictConfig,
)
def submit(
    console: Console,
    settings: Settings,
    run: RunArgument = "last",
    message: Annotated[
        str,
        typer.Option("--message", "-m", metavar="TEXT", help="A note for the log and for Kaggle."),
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Upload to Kaggle without a question.")
    ] = False,
    upload: Annotated[
        bool, typer.Option("--upload/--no-upload", help="Whether the file goes to Kaggle.")
    ] = True,
    wait: WaitOption = "",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="Hand in this file, which is there already, and restore nothing.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Send the very same file a second time.")
    ] = False,
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
    submissions: SubmissionsOption = SUBMISSIONS,
    config: ConfigOption = None,
) -> None:
    """Predict, write the submission, check it, upload it."""
    from kbdenoise.submission.submit import submit as submit_run

    if yes and not upload:
        raise SettingsError("--yes and --no-upload exclude each other", hint="leave one of them")
    here = _in_notebook()
    wanted = yes if here or not upload else upload_or_not(yes=yes, console=console)
    result = submit_run(
        run,
        name=contest,
        data=data,
        runs=runs,
        submissions=submissions,
        message=message,
        values=values,
        file=file,
        upload=wanted,
        force=force,
        wait=wait,
        dry_run=dry_run,
        progress=console.progress,
        **from_file(PredictConfig, config, settings),
    )
    unasked = upload and wanted is False and not dry_run and not here
    if unasked and result.slug:
        _end_unasked(console, result)
    console.show(
        result,
        text=_text(result),
        short=result.reference or str(result.path),
        next_command=_next(result, run, dry_run, contest, data=data, runs=runs, place=submissions),
    )


def _end_unasked(console: Console, result: "Submission") -> None:
    """The file is there, and nobody was there to be asked: say so, and fail."""
    if not console.as_json:
        console.show(result, text=_text(result), short=str(result.path))
    error = SettingsError(
        f"nothing was sent to {result.slug}: nobody can be asked here, and --yes was not given",
        hint=f"the file is checked and ready: kbdenoise submit --file {result.path} "
        f"--contest {result.contest} --yes (or --no-upload, if that was all)",
    )
    error.facts = asdict(result)
    raise error


def _in_notebook() -> bool:
    from kbdenoise.contests.hosted import notebook_output

    return notebook_output() is not None


def _text(result: "Submission") -> str:
    span = f"values {figure(result.minimum)} to {figure(result.maximum)}"
    lines = [
        f"✓ {result.path}   {result.rows:,} rows · checked · {span}, mean {figure(result.mean)}"
    ]
    if result.local_score is not None:
        lines.append(f"  local score {figure(result.local_score)} ({result.metric})")
    if result.reference:
        lines.append(_sent_text(result))
    if result.remaining_today is not None:
        lines.append(f"  {result.remaining_today} submissions left today")
    return "\n".join([*lines, *(f"  {note}" for note in result.notes)])


def _sent_text(result: "Submission") -> str:
    from kbdenoise.cli.score import compared

    if result.public_score is None:
        return f"✓ submission {result.reference} to {result.slug}: {result.status}"
    own = result.held_out_score if result.local_score is None else result.local_score
    words = compared(
        result.public_score, local=own, best_before=result.best_before, metric=result.metric
    )
    return f"✓ submission {result.reference} to {result.slug}: {words}"


def _next(
    result: "Submission",
    run: str,
    dry_run: bool,
    contest: str | None,
    *,
    data: Path,
    runs: Path,
    place: Path,
) -> str:
    own_place = [] if place == SUBMISSIONS else ["--submissions", str(place)]
    if dry_run:
        places = [] if contest is None else ["--contest", contest]
        return follow("submit", run, *places, *own_place, data=data, runs=runs)
    if result.status == "pending":
        return follow("score", result.reference, "--wait", *own_place, data=data)
    if result.reference:
        return follow("leaderboard", *own_place, data=data)
    return follow("runs", "list", runs=runs)
