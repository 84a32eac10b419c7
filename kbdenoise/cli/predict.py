"""`kbdenoise predict`: restore the test set, or any pictures."""

from pathlib import Path
from typing import Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    RUNS,
    ConfigOption,
    ContestOption,
    DataOption,
    DryRunOption,
    ForceOption,
    GpusOption,
    OutOption,
    RunsOption,
    Settings,
    command,
    follow,
    from_file,
    on_gpus,
)
from kbdenoise.cli.words import duration, figure
from kbdenoise.config import PredictConfig
from kbdenoise.errors import SettingsError


@command(
    "kbdenoise predict best ~/scans/*.png --out restored",
    "kbdenoise predict --weights SIDD-width64.pth ~/scans",
    settings=PredictConfig,
)
def predict(
    console: Console,
    settings: Settings,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Name of a run, the beginning of one, its folder, 'last' or 'best'. With "
            "--weights there is none: all words are pictures.",
            autocompletion=complete.runs,
            show_default="last",
        ),
    ] = None,
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PICTURES",
            help="Files or folders to restore, instead of the contest's test set.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="FILE",
            help="Weights file instead of a run, also one of a model's authors.",
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
    gpus: GpusOption = "",
) -> None:
    """Restore whole images, tile by tile where they are large."""
    if gpus:
        on_gpus(gpus, device=settings.get("device", "auto"), console=console)
    from kbdenoise.inference.predict import predict as restore_pictures

    chosen = tuple(pictures or ())
    if weights is not None and run is not None:
        chosen = (_picture(run), *chosen)
        run = None
    result = restore_pictures(
        run,
        chosen,
        weights=weights,
        out=out,
        name=contest,
        data=data,
        runs=runs,
        force=force,
        dry_run=dry_run,
        progress=console.progress,
        **from_file(PredictConfig, config, settings),
    )
    work = f"{result.pictures:,} pictures, {figure(result.megapixels)} MPix, {result.tiles}"
    work += f" · {result.kept:,} were done before" if result.kept else ""
    if dry_run:
        text = f"{work}\n  on {result.device}; would write to {result.out}"
        console.show(result, text=text, short=str(result.out))
        return
    submit = ""
    if result.run is not None and not chosen:
        engine = ["--engine", settings["engine"]] if "engine" in settings else []
        submit = follow("submit", result.run.name, *engine, "--dry-run", data=data, runs=runs)
    console.show(
        result,
        text=f"✓ {result.out}   {work}\n  {duration(result.seconds)} on {result.device}",
        short=str(result.out),
        next_command=submit,
    )


def _picture(word: str) -> Path:
    """The first word beside --weights, where a run's name stands otherwise."""
    path = Path(word)
    if not path.exists():
        raise SettingsError(
            f"beside --weights only pictures are named, and there is no file {word}",
            hint="leave out the run or --weights, or check the path of the picture",
        )
    return path
