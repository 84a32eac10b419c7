"""history.csv: the curve of a run, one row a validation, readable by anything."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from kbdenoise.atomic import write_text
from kbdenoise.errors import DataError

COLUMNS = (
    "step",
    "epoch",
    "seconds",
    "lr",
    "loss",
    "val_score",
    "val_raw_score",
    "val_psnr_db",
    "images_per_s",
    "skipped_steps",
    "went_back",
)
Row = Mapping[str, float]


def read_history(path: Path) -> list[dict[str, float]]:
    """All rows, oldest first; an absent file has none. Raises DataError for a damaged one."""
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    try:
        return [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(io.StringIO(content))
        ]
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged: {error}", hint="delete it; it is made anew") from error


def write_history(path: Path, rows: list[dict[str, float]]) -> None:
    """Write all rows atomically. A curve has hundreds of rows, so this costs next to nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{value:.10g}" for name, value in row.items()})
    write_text(path, text.getvalue())
