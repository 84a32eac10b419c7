"""`kbdenoise runs`: what was trained, and how runs differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kbdenoise.cli import complete
from kbdenoise.cli.console import Console
from kbdenoise.cli.options import (
    RUNS,
    SUBMISSIONS,
    RunArgument,
    RunsOption,
    SubmissionsOption,
    command,
    follow,
    group,
)
from kbdenoise.cli.words import Cell, pairs, table

if TYPE_CHECKING:
    from kbdenoise.submission.log import LogEntry


@command("kbdenoise runs list", "kbdenoise runs list --json", name="runs list")
def list_(console: Console, runs: RunsOption = RUNS) -> None:
    """List the runs, the newest last."""
    from kbdenoise.runs.folder import list_runs

    found = list_runs(runs)
    rows: list[dict[str, Cell]] = [
        {
            "run": info.name,
            "contest": info.contest,
            "model": info.model,
            "status": info.status,
            "steps": info.steps,
            "metric": info.metric,
            "best": info.best_score,
        }
        for info in found
    ]
    console.show(
        {"runs": found},
        text=table(rows, width=console.width) or f"  there is no run in {runs}/ yet",
        short="\n".join(info.name for info in found),
        next_command=follow(*(["runs", "show", found[-1].name] if found else ["train"]), runs=runs),
    )


@command("kbdenoise runs show last", "kbdenoise runs show best --json", name="runs show")
def show(
    console: Console,
    run: RunArgument = "last",
    runs: RunsOption = RUNS,
    submissions: SubmissionsOption = SUBMISSIONS,
) -> None:
    """Show what is known of one run, and what was submitted of it."""
    from dataclasses import asdict

    from kbdenoise.runs.folder import find_run
    from kbdenoise.submission.log import LOG_FILE, read_log

    found = find_run(run, runs)
    sent = [entry for entry in read_log(submissions / LOG_FILE) if entry.run == found.name]
    record = asdict(found.read_record())
    versions = record.pop("versions")
    record["versions"] = ", ".join(f"{package} {v}" for package, v in versions.items() if v)
    console.show(
        {"run": found.path, **record, "versions": versions, "submissions": sent},
        text=f"  {found.path}\n" + pairs(record) + submissions_text(sent, width=console.width),
        short=str(found.path),
        next_command=follow("evaluate", found.name, runs=runs),
    )


@command(
    "kbdenoise runs compare last best",
    "kbdenoise runs compare calm-heron brisk-otter --json",
    name="runs compare",
)
def compare(
    console: Console,
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Two or more runs.", autocompletion=complete.runs),
    ],
    runs: RunsOption = RUNS,
) -> None:
    """Show only the settings and scores in which runs differ."""
    from kbdenoise.runs.folder import compare_runs, find_run

    found = [find_run(name, runs) for name in names]
    differences = compare_runs(found)
    rows: list[dict[str, Cell]] = [
        {"setting": row.setting, **dict(zip(names, row.values, strict=True))} for row in differences
    ]
    console.show(
        {"runs": [run.name for run in found], "differences": differences},
        text=table(rows, width=console.width) or "  these runs do not differ",
        short="\n".join(row.setting for row in differences),
    )


def submissions_text(sent: "list[LogEntry]", *, width: int) -> str:
    """A run's lines of the log of submissions as a table, or nothing."""
    rows: list[dict[str, Cell]] = [
        {
            "submission": entry.reference or Path(entry.csv).name,
            "message": entry.message,
            "status": entry.status,
            "local": entry.own_score,
            "public": entry.public_score,
            "when": entry.time[:16].replace("T", " "),
        }
        for entry in sent
    ]
    return "\n\n" + table(rows, width=width) if rows else ""


app = group("runs", list_, show, compare, default=list_, help="List, show and compare runs.")
