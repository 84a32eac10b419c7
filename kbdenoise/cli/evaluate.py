"""`kbdenoise evaluate`: score a run on the pairs that were held out."""

from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    RUNS,
    ConfigOption,
    ContestOption,
    DataOption,
    OutOption,
    RunArgument,
    RunsOption,
    Settings,
    command,
    follow,
    from_file,
)
from kbdenoise.cli.words import Cell, figure, table
from kbdenoise.config import PredictConfig

if TYPE_CHECKING:
    from kbdenoise.inference.evaluate import Evaluation

_WORST = 10


@command(
    "kbdenoise evaluate last --baselines",
    "kbdenoise evaluate best --json > scores.json",
    settings=PredictConfig,
)
def evaluate(
    console: Console,
    settings: Settings,
    run: RunArgument = "last",
    contest: ContestOption = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score classical filters too, for scale.")
    ] = False,
    out: OutOption = None,
    data: DataOption = DATA,
    runs: RunsOption = RUNS,
    config: ConfigOption = None,
) -> None:
    """Score a run on known pairs, worst picture first."""
    from kbdenoise.inference.evaluate import evaluate as evaluate_run

    result = evaluate_run(
        run,
        name=contest,
        data=data,
        runs=runs,
        baselines=baselines,
        out=out,
        progress=console.progress,
        **from_file(PredictConfig, config, settings),
    )
    console.show(
        result,
        text=_text(result, width=console.width),
        short=figure(result.score),
        next_command=follow("predict", result.run.name, data=data, runs=runs),
    )


def _text(result: "Evaluation", *, width: int) -> str:
    """The table of methods and the pictures that went worst."""
    methods: list[dict[str, Cell]] = [
        {
            "method": row.method,
            result.metric: row.score,
            "psnr dB": row.psnr_db,
            "ssim": row.ssim,
            "of untouched %": 100 * row.share_of_untouched,
        }
        for row in result.table
    ]
    pictures: list[dict[str, Cell]] = [
        {
            "worst pictures": row.stem,
            result.metric: row.score,
            "untouched": row.untouched,
            "psnr dB": row.psnr_db,
            "ssim": row.ssim,
        }
        for row in result.rows[:_WORST]
    ]
    better = "lower" if result.lower_is_better else "higher"
    head = (
        f"✓ {result.run}   {result.metric} {figure(result.score)} {result.unit}, {better} is better"
        f"\n  95 % interval {figure(result.low)} to {figure(result.high)} · median "
        f"{figure(result.median)} · bias {figure(result.bias)} grey levels"
    )
    foot = f"  all {len(result.rows):,}: {result.scores_file} · worst ones: {result.sheet_file}"
    return "\n\n".join([head, table(methods, width=width), table(pictures, width=width), foot])
