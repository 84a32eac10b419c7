"""What `kbdenoise models` tells of the classical filters."""

from typing import Any

from kbdenoise.cli.words import Cell, table


def filters() -> dict[str, dict[str, Any]]:
    """Every filter's summary, its source, its parameters and the values that are tried."""
    from kbdenoise.imaging.classical.table import FILTERS

    return {
        name: {
            "summary": chosen.summary,
            "paper": chosen.paper,
            "parameters": {
                parameter: {"meaning": grid.words, "values": grid.values}
                for parameter, grid in chosen.grid.items()
            },
        }
        for name, chosen in FILTERS.items()
    }


def filter_text(name: str, facts: dict[str, Any], *, width: int) -> str:
    """A filter for a person; `width` is the screen's, 0 for none."""
    rows: list[dict[str, Cell]] = [
        {
            "parameter": parameter,
            "values tried": ", ".join(f"{value:g}" for value in grid["values"]),
            "meaning": grid["meaning"],
        }
        for parameter, grid in facts["parameters"].items()
    ]
    head = f"  {name}: {facts['summary']}\n  {facts['paper']}"
    return f"{head}\n\n{table(rows, width=width)}" if rows else head
