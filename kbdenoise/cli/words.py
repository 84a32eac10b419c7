"""Values as text: figures, durations, tables and JSON. Nothing here writes anything."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

Cell = str | int | float | bool | None

_DASH = "-"


def printable(text: str) -> str:
    """Text that cannot move the cursor: control characters and broken bytes are written out.

    File names may hold anything; line breaks are kept, as our own messages use them.
    """
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in safe)


def figure(value: Cell, *, decimals: int | None = None) -> str:
    """One value: thousands with commas, floats with four digits unless `decimals` says else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return f"{value:,.{_decimals([value]) if decimals is None else decimals}f}"
    return value


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(size_bytes: float) -> str:
    """Bytes as MiB or GiB."""
    gib = size_bytes / 1024**3
    return f"{gib:,.1f} GiB" if gib >= 1 else f"{size_bytes / 1024**2:,.0f} MiB"


def table(rows: Sequence[Mapping[str, Cell]], *, width: int = 0) -> str:
    """Rows with equal keys as aligned columns: text to the left, numbers to the right.

    Where the table is wider than `width` (> 0, in characters) every row becomes a block of lines,
    so that nothing is cut off.
    """
    if not rows:
        return ""
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    right = {name: _is_numeric(row[name] for row in rows) for name in rows[0]}
    lines = _lines(columns, right)
    if width and max(map(cell_width, lines)) > width:
        return _blocks(columns)
    return "\n".join(lines)


def pairs(rows: Mapping[str, Cell]) -> str:
    """Names and values in two columns."""
    widest = max(map(cell_width, rows), default=0)
    return "\n".join(f"  {_pad(name, widest)}   {figure(value)}" for name, value in rows.items())


def event_values(values: Mapping[str, float | int | str]) -> str:
    """The figures of a progress event for a person: `loss 0.0231  142.0 img/s  left 0:13`."""
    return "  ".join(_spoken(name, value) for name, value in values.items())


def plain_values(values: Mapping[str, float | int | str]) -> str:
    """The figures of a progress event for a log: `loss=0.0231 img_per_s=142.0`."""
    return " ".join(f"{k}={figure(v).replace(',', '')}" for k, v in values.items())


def to_json(command: str, result: Any) -> str:
    """One JSON object on one line; field names are those of the result's dataclass."""
    content = _plain(result)
    if not isinstance(content, dict):
        raise TypeError(f"the result of {command} is a {type(result).__name__}")
    return json.dumps({"command": command, **content}, allow_nan=False)


def cell_width(text: str) -> int:
    """Columns that a text takes on a terminal; wide characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _plain(value: Any) -> Any:
    """Dataclasses, paths, tuples and array scalars as JSON knows them; NaN and infinity as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # an array or one of its scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return str(value)


def _decimals(values: Iterable[float]) -> int:
    """Digits after the point that leave four significant ones of the largest value."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return min(6, max(0, 3 - math.floor(math.log10(largest)))) if largest else 3


def _column(values: Sequence[Cell]) -> list[str]:
    decimals = _decimals(v for v in values if isinstance(v, float))
    return [
        printable(figure(v, decimals=decimals if isinstance(v, float) else None)).replace("\n", " ")
        for v in values
    ]


def _is_numeric(values: Iterable[Cell]) -> bool:
    known = [v for v in values if v is not None]
    return bool(known) and all(isinstance(v, int | float) for v in known)


def _lines(columns: Mapping[str, list[str]], right: Mapping[str, bool]) -> list[str]:
    padded = []
    for name, cells in columns.items():
        widest = max(map(cell_width, [name, *cells]))
        padded.append([_pad(cell, widest, right=right[name]) for cell in [name, *cells]])
    return [("  " + "   ".join(row)).rstrip() for row in zip(*padded, strict=True)]


def _blocks(columns: Mapping[str, list[str]]) -> str:
    names = list(columns)
    widest = max(map(cell_width, names))
    rows = zip(*columns.values(), strict=True)
    blocks = [
        "\n".join(f"  {_pad(n, widest)}  {v}" for n, v in zip(names, r, strict=True)) for r in rows
    ]
    return "\n\n".join(blocks)


def _pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def _spoken(name: str, value: float | int | str) -> str:
    if name == "left_s" and not isinstance(value, str):
        return f"left {duration(value)}"
    for ending, unit in (("_per_s", ""), ("_gib", " GiB"), ("_db", " dB"), ("_s", " s")):
        if name.endswith(ending):
            stem = name.removesuffix(ending)
            return f"{figure(value)} {stem}/s" if not unit else f"{stem} {figure(value)}{unit}"
    return f"{name} {figure(value)}"
