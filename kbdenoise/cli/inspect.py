"""`kbdenoise inspect`: look at the data before training."""

from typing import TYPE_CHECKING

from kbdenoise.cli.asking import contest_or_question
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import DATA, ContestArgument, DataOption, command, follow
from kbdenoise.cli.words import figure, pairs

if TYPE_CHECKING:
    from kbdenoise.data.summary import Side, Spread, Summary
    from kbdenoise.report.inspect import Inspection

_NAMED = 3  # files of a kind that are named; JSON names all


@command("kbdenoise inspect", "kbdenoise inspect demo --json")
def inspect(console: Console, contest: ContestArgument = None, data: DataOption = DATA) -> None:
    """Look at the data before training."""
    from kbdenoise.report.inspect import inspect as inspect_contest

    name = contest_or_question(contest, data=data, console=console)
    inspection = inspect_contest(name, data=data, progress=console.progress)
    training = ["train", inspection.folder.name, "--preset", "quick", "--time-limit", "10m"]
    console.show(
        inspection,
        text=_text(inspection),
        short=str(inspection.summary_file),
        next_command=follow(*training, data=data),
    )


def _text(inspection: "Inspection") -> str:
    """Counts and figures, then whatever is wrong, then where to look."""
    summary = inspection.summary
    head = (
        f"{inspection.folder}   {summary.pairs:,} pairs in {summary.groups:,} groups"
        f" · {summary.test_pictures:,} test pictures"
    )
    nothing = figure(summary.doing_nothing)
    rows = {
        "noisy": _side(summary.noisy),
        "clean": _side(summary.clean),
        "doing nothing scores": f"{nothing} {summary.unit} ({summary.metric})",
        "noisy - clean": f"{_spread(summary.gap)} in mean luma",
        "noise beside tone": _spread(summary.residual_noise),
        "grain": _spread(summary.grain),
    }
    faults = _faults(summary)
    sheet = f"  pictures to look at: {inspection.sheet_file}" if inspection.sheet_file else ""
    lines = [f"{'!' if faults else '✓'} {head}", pairs(rows), *faults, sheet]
    return "\n".join(line for line in lines if line)


def _side(side: "Side | None") -> str:
    if side is None:
        return "no sound pair"
    sizes = [f"{size} px" for size in side.sizes]
    more = f" and {len(sizes) - _NAMED} other sizes" if len(sizes) > _NAMED else ""
    return (
        f"{', '.join(sizes[:_NAMED])}{more}; channels {'/'.join(side.channels)}; "
        f"{'/'.join(side.bit_depths)} bit; values {min(side.darkest):.0f} to "
        f"{max(side.brightest):.0f}; mean luma {side.luma.mean:.1f}"
    )


def _spread(spread: "Spread | None") -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.1f} grey levels ({spread.low:.1f} to {spread.high:.1f})"


def _faults(summary: "Summary") -> list[str]:
    found = {
        "cannot be used": [f"{b.file} ({b.error})" for b in summary.broken],
        "noisy without a clean partner": list(summary.noisy_orphans),
        "clean without a noisy partner": list(summary.clean_orphans),
        "several files of one name": [" = ".join(names) for names in summary.duplicates],
        "noisy and clean are equal": list(summary.identical),
    }
    lines = []
    for what, names in found.items():
        if names:
            more = f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
            lines.append(f"  {len(names):,} {what}: {', '.join(names[:_NAMED])}{more}")
    return lines
