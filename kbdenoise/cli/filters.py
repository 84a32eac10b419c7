"""What `kbdenoise models` tells of the classical filters."""

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kbdenoise.cli.words import Cell, table


def filter_summaries() -> dict[str, str]:
    """Every filter's name and what it is, if possible without importing what filters call."""
    spec = find_spec("kbdenoise.imaging")
    source = Path(spec.origin if spec and spec.origin else "").parent / "classical" / "table.py"
    try:
        body = ast.parse(source.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError):  # no source in some installations
        body = []
    found = {
        str(key.value): str(word.value.value)
        for node in body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FILTERS"
        if isinstance(node.value, ast.Dict)
        for key, value in zip(node.value.keys, node.value.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Call)
        for word in value.keywords
        if word.arg == "summary" and isinstance(word.value, ast.Constant)
    }
    return found or {name: facts["summary"] for name, facts in filters().items()}


def filters() -> dict[str, dict[str, Any]]:
    """Every filter's summary, its source, its parameters and the values that are tried."""
    from kbdenoise.imaging.classical import FILTERS

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
