"""`kbdenoise train`: train a model, or go on with a run."""

from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.asking import contest_or_question
from kbdenoise.cli.console import INTERRUPTED, Console
from kbdenoise.cli.options import (
    DATA,
    RUNS,
    ConfigOption,
    ContestArgument,
    DataOption,
    DryRunOption,
    GpusOption,
    PresetOption,
    RunsOption,
    Settings,
    command,
    follow,
    on_gpus,
)
from kbdenoise.cli.setting_options import option_name
from kbdenoise.cli.words import Cell, duration, figure, table
from kbdenoise.config import TrainConfig
from kbdenoise.presets import CHANGEABLE

if TYPE_CHECKING:
    from kbdenoise.training.result import FoldsResult, TrainResult


@command(
    "kbdenoise train --preset quick --time-limit 10m",
    "kbdenoise train --resume last",
    settings=TrainConfig,
)
def train(
    console: Console,
    settings: Settings,
    contest: ContestArgument = None,
    preset: PresetOption = "standard",
    config: ConfigOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run; only these may change: "
            + ", ".join(map(option_name, CHANGEABLE))
            + ".",
            autocompletion=complete.runs,
            show_default=False,
        ),
    ] = None,
    run_name: Annotated[
        str, typer.Option("--name", help="Name of the new run, instead of two drawn words.")
    ] = "",
    data: DataOption = DATA,
    runs: RunsOption = RUNS,
    dry_run: DryRunOption = False,
    gpus: GpusOption = "",
) -> None:
    """Train a model on random patches."""
    if gpus:
        on_gpus(gpus, device=settings.get("device", "auto"), console=console)
    from kbdenoise.training.train import train as train_model

    name = contest if resume else contest_or_question(contest, data=data, console=console)
    result = train_model(
        name,
        data=data,
        runs=runs,
        preset=preset,
        config=config,
        resume=resume,
        run_name=run_name,
        dry_run=dry_run,
        progress=console.progress,
        **settings,
    )
    if result.stopped_by == "dry run":
        console.show(result, text="✓ all is in place; nothing was trained or written")
        return
    from kbdenoise.training.result import FoldsResult

    if isinstance(result, FoldsResult):
        text, resumable = _folds_text(result, width=console.width), True
        next_words = ["predict", result.folds[0].run.name]
    else:
        text, resumable = _text(result), result.resumable
        next_words = ["evaluate", result.run.name]
    if result.stopped_by == "interrupt":
        console.show(result, text=text, short=result.run.name)
        if resumable:
            console.say(f"to go on: {follow('train', '--resume', result.run.name, runs=runs)}")
        else:
            console.say("nothing is lost: choosing a filter takes seconds; start it again")
        raise typer.Exit(INTERRUPTED)
    next_command = follow(*next_words, data=data, runs=runs)
    console.show(result, text=text, short=result.run.name, next_command=next_command)


def _text(result: "TrainResult") -> str:
    """Where the run lies, how well it did, how long it took."""
    score = "no score yet"
    if result.best_step:
        best, untouched = figure(result.best_score), figure(result.untouched_score)
        word = "step" if result.resumable else "try"
        score = f"{result.metric} {best} {result.unit} at {word} {result.best_step:,}"
        score += f" · untouched {untouched}"
    words = "steps" if result.resumable else "tries"
    notes = ""
    if result.skipped_steps:
        notes += f" · {result.skipped_steps:,} without a finite gradient left out"
    if result.went_back:
        notes += f" · went back {result.went_back} times"
    return (
        f"✓ {result.run}   {score}\n"
        f"  {result.steps:,} {words} in {duration(result.seconds)}, ended by: {result.stopped_by}"
        f"{notes}"
    )


def _folds_text(result: "FoldsResult", *, width: int) -> str:
    """The out-of-fold score, and a line a fold."""
    score = "not all folds are scored yet"
    if not isnan(result.out_of_fold_score):
        score = (
            f"{result.metric} {figure(result.out_of_fold_score)} {result.unit} out of fold, all "
            f"{result.pictures:,} pictures · untouched {figure(result.untouched_score)}\n"
            f"  by fold {figure(result.mean_score)} ± {result.spread:.2g}"
        )
    head = f"✓ {result.run}   {score}"
    head += f" · {duration(result.seconds)} in all, ended by: {result.stopped_by}"
    rows: list[dict[str, Cell]] = [
        {
            "fold": fold.run.name.rsplit("_", 1)[-1],
            "pictures": fold.pictures,
            result.metric: fold.score,
            "untouched": fold.untouched_score,
            "best step": fold.best_step,
        }
        for fold in result.folds
    ]
    parts = [head, table(rows, width=width)]
    if any(not isnan(fold.score) for fold in result.folds):
        parts.append(f"  picture by picture: {result.scores_file}")
    return "\n\n".join(parts)
