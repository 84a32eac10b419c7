"""`kbdenoise export`: a model for other engines."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    RUNS,
    ConfigOption,
    ForceOption,
    OutOption,
    RunsOption,
    Settings,
    command,
    follow,
    from_file,
)
from kbdenoise.cli.words import Cell, size, table
from kbdenoise.config import ExportConfig

if TYPE_CHECKING:
    from kbdenoise.export.coreml.report import Report
    from kbdenoise.export.package import Package


_COREML = ".mlpackage"


@command(
    "kbdenoise export best --format coreml --tile 256 --report",
    "kbdenoise export SIDD-width64.pth --format onnx --out sidd.onnx",
    settings=ExportConfig,
)
def export(
    console: Console,
    settings: Settings,
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Name of a run, the beginning of one, its folder, 'last' or 'best'; or a "
            "weights file.",
            autocompletion=complete.runs,
        ),
    ] = "last",
    out: OutOption = None,
    runs: RunsOption = RUNS,
    force: ForceOption = False,
    report: Annotated[
        bool,
        typer.Option(
            help="Tell where a package for Core ML would run; RUN may be such a package.",
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write a model for other engines, checked against torch."""
    if report and Path(run).suffix == _COREML and Path(run).exists():
        from kbdenoise.export.coreml.report import look_at

        found = look_at(Path(run))
        console.show(found, text=_report(found, width=console.width), short=found.summary)
        return
    from kbdenoise.export.package import export_model

    result = export_model(
        run,
        out=out,
        runs=runs,
        force=force,
        report=report,
        progress=console.progress,
        **from_file(ExportConfig, config, settings),
    )
    console.show(
        result,
        text=_text(result, width=console.width),
        short=str(result.path),
        next_command=_next(result, out=out, runs=runs),
    )


def _text(result: "Package", *, width: int) -> str:
    """The package, its figures, and what else there is to know of it."""
    rows: list[dict[str, Cell]] = [
        {"against torch in float64": c.name, "figure": f"{c.figure:.2g}", "limit": f"{c.limit:.2g}"}
        for c in result.checks
    ]
    head = f"✓ {result.path}   {result.model}, {result.precision}, {size(result.size_bytes)}"
    lines = [head, *(f"  {line}" for line in result.lines), "", table(rows, width=width)]
    lines += ["", _report(result.report, width=width)] if result.report else []
    return "\n".join(lines)


def _report(report: "Report", *, width: int) -> str:
    """Core ML's own plan where there is one, and the guess with the rule of every verdict."""
    from kbdenoise.export.coreml.placement import NOTE
    from kbdenoise.export.coreml.plan import UNITS

    lines = [f"  {report.summary}", ""]
    if report.plan is not None:
        units: list[dict[str, Cell]] = [
            {
                "Core ML's plan": unit,
                "operations": report.plan.operations[unit],
                "cost": f"{report.plan.cost[unit]:.0%}",
            }
            for unit in UNITS
        ]
        lines += [table(units, width=width), ""]
    rows: list[dict[str, Cell]] = [
        {
            "operation": row.kind,
            "count": row.count,
            "rank": row.rank,
            "type": row.type,
            "ANE-plausible": row.verdict,
            "why": row.why,
        }
        for row in report.rows
    ]
    lines.append(table(rows, width=width))
    return "\n".join(lines if report.plan is not None else [*lines, "", NOTE])


def _next(result: "Package", *, out: Path | None, runs: Path) -> str:
    """The command that uses the package, where one does on this system."""
    if result.format == "torch":
        return ""
    if result.format == "coreml" and sys.platform != "darwin":
        return follow("export", str(result.path), "--report") if result.report is None else ""
    if result.run is None or out is not None:
        return follow("predict", str(result.path), "PICTURES")
    return follow("predict", result.run.name, "--engine", result.format, runs=runs)
