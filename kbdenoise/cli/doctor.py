"""`kbdenoise doctor`: is this machine fit, and what would mend it."""

import typer

from kbdenoise import __version__
from kbdenoise.cli.console import FAILED, Console
from kbdenoise.cli.options import DATA, RUNS, SUBMISSIONS, DataOption, RunsOption, command, follow

_MARKS = {"ok": "✓", "absent": "-", "warning": "!", "broken": "✗"}


@command("kbdenoise doctor", "kbdenoise doctor --json > report.json")
def doctor(console: Console, data: DataOption = DATA, runs: RunsOption = RUNS) -> None:
    """Check this machine, and say what would mend it."""
    from kbdenoise.cli.checks import examine

    findings = examine(data=data, runs=runs, submissions=SUBMISSIONS)
    lines = []
    for found in findings:
        lines.append(f"  {_MARKS[found.state]} {found.name:<9} {found.text}")
        if found.cure:
            lines.append(f"    {'':<9} cure: {found.cure}")
    faulty = [found for found in findings if found.state in ("warning", "broken")]
    broken = any(found.state == "broken" for found in findings)
    has_contest = any(found.name == "contests" and found.state == "ok" for found in findings)
    next_command = follow(*(["inspect"] if has_contest else ["fetch", "demo"]), data=data)
    console.show(
        {"version": __version__, "healthy": not broken, "findings": findings},
        text="\n".join([f"kbdenoise {__version__}", *lines]),
        short="\n".join(f"{found.name}: {found.text}" for found in faulty),
        next_command="" if broken else next_command,
    )
    if broken:
        raise typer.Exit(FAILED)
