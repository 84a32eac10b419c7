"""`kbdenoise bench`: what this machine does with a contest and a model."""

from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli.asking import contest_or_question
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    DATA,
    ConfigOption,
    ContestArgument,
    DataOption,
    PresetOption,
    Settings,
    command,
    follow,
)
from kbdenoise.cli.words import duration as in_words
from kbdenoise.config import TrainConfig

if TYPE_CHECKING:
    from kbdenoise.training.bench import BenchResult


@command(
    "kbdenoise bench demo",
    "kbdenoise bench demo --model kbnet-s --batch 4 --json",
    settings=TrainConfig,
)
def bench(
    console: Console,
    settings: Settings,
    contest: ContestArgument = None,
    preset: PresetOption = "standard",
    config: ConfigOption = None,
    duration: Annotated[
        str, typer.Option("--duration", help="How long to measure, about (20s, 2m).")
    ] = "20s",
    data: DataOption = DATA,
) -> None:
    """Measure training, restoring and loading on this machine."""
    from kbdenoise.training.bench import bench as measure

    result = measure(
        contest_or_question(contest, data=data, console=console),
        data=data,
        preset=preset,
        config=config,
        duration=duration,
        progress=console.progress,
        **settings,
    )
    next_command = follow("train", result.contest, data=data)
    short = f"{result.step_ms:.4g} ms a step"
    console.show(result, text=_text(result), short=short, next_command=next_command)


def _text(result: "BenchResult") -> str:
    height, width = result.picture
    hours = in_words(3600 * result.training_hours)
    lines = [
        f"✓ {result.contest}, {result.model}: {result.parameters:,} parameters",
        f"  step      {result.step_ms:,.4g} ms for {result.batch} patches of {result.patch} px · "
        f"{result.steps:,} steps take {hours}",
        f"  loading   {result.loader_patches_per_s:,.0f} patches/s by one thread",
        f"  restoring {result.restore_ms:,.4g} ms for {width}x{height} px · "
        f"{result.restore_mpix_per_s:.3g} MPix/s",
        f"  kernel-basis attention, beside {result.matrix_product_gflops:,.0f} GFLOP/s of a matrix "
        "product",
    ]
    for row in result.operator:
        lines.append(
            f"    {row.channels:>3} channels, {row.side:>3} px  {row.forward_ms:.4g} ms forward, "
            f"{row.forward_backward_ms:.4g} with gradients · {row.forward_gflops:,.0f} GFLOP/s, "
            f"{100 * row.share_of_matrix_product:.0f} %"
        )
    return "\n".join([*lines, f"    {result.operator[0].engine}"])
