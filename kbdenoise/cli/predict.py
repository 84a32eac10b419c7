"""`kbdenoise predict`: restore the test set, or any pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    RUNS,
    ConfigOption,
    ContestOption,
    DataOption,
    DryRunOption,
    ForceOption,
    OutOption,
    RunArgument,
    RunsOption,
    Settings,
    command,
    follow,
    from_file,
)
from kbdenoise.cli.words import duration, figure
from kbdenoise.config import PredictConfig


@command(
    "kbdenoise predict last",
    "kbdenoise predict best ~/scans/*.png --out restored",
    settings=PredictConfig,
)
def predict(
    console: Console,
    settings: Settings,
    run: RunArgument = "last",
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURES",
            help="Files or folders to restore, instead of the contest's test set.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
    contest: ContestOption = None,
    data: DataOption = DATA,
    runs: RunsOption = RUNS,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
) -> None:
    """Restore whole images, tile by tile where they are large."""
    from kbdenoise.inference.predict import predict as restore_pictures

    result = restore_pictures(
        run,
        tuple(pictures or ()),
        out=out,
        name=contest,
        data=data,
        runs=runs,
        force=force,
        dry_run=dry_run,
        progress=console.progress,
        **from_file(PredictConfig, config, settings),
    )
    submit = follow("submit", result.run.name, "--dry-run", data=data, runs=runs)
    work = f"{result.pictures:,} pictures, {figure(result.megapixels)} MPix, {result.tiles}"
    work += f" · {result.kept:,} were done before" if result.kept else ""
    if dry_run:
        text = f"{work}\n  on {result.device}; would write to {result.out}"
        console.show(result, text=text, short=str(result.out))
        return
    console.show(
        result,
        text=f"✓ {result.out}   {work}\n  {duration(result.seconds)} on {result.device}",
        short=str(result.out),
        next_command="" if pictures else submit,
    )
