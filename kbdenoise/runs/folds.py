"""A cross-validation's folder, beside the run folders of its folds; understood without kbdenoise.

runs/2026-11-22_kbnet-s_brisk-otter-folds/
  config.toml        every effective setting
  folds.json         status, the runs, scores by fold and out of fold, time, versions
  out_of_fold.csv    a row a picture, scored by the one model that was not trained on it
runs/2026-11-22_kbnet-s_brisk-otter-fold0/ ... -fold4/
                     ordinary runs
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kbdenoise.atomic import write_text
from kbdenoise.errors import DataError
from kbdenoise.runs.folder import Run, Status, create_run, list_runs, read_json, write_json

ENDING = "-folds"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRecord:
    """One fold in folds.json; scores are null until its model is trained and scored."""

    fold: int
    run: str
    """Name of its run folder, beside this one."""
    pictures: int
    """How many it holds out."""
    score: float | None = None
    untouched_score: float | None = None
    steps: int = 0
    best_step: int = 0
    """Of the weights that were scored."""
    scoring_seconds: float = 0.0
    """Of all its scorings; there is another where the fold was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsRecord:
    """What folds.json holds; scores are in the contest metric's own unit."""

    contest: str
    contest_folder: str
    metric: str
    unit: str
    model: str
    data_checksum: str
    pictures: int
    folds: tuple[FoldRecord, ...]
    status: Status = "running"
    stopped_by: str = ""
    out_of_fold_score: float | None = None
    """Pooled over all pictures, each scored by the model that was not trained on it."""
    untouched_score: float | None = None
    """What doing nothing scores over all pictures."""
    mean_score: float | None = None
    """Mean of the folds' scores, whatever their sizes."""
    spread: float | None = None
    """Standard deviation of the folds' scores (divided by their number less one)."""
    started_at: str = ""
    updated_at: str = ""
    seconds: float = 0.0
    command_line: str = ""
    git_commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfFold:
    """A row of out_of_fold.csv."""

    stem: str
    fold: int
    """The fold that holds the picture out."""
    group: str
    score: float
    untouched: float
    """The metric of the noisy picture itself."""
    psnr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsFolder:
    """The files of a cross-validation."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name, which ends in -folds."""
        return self.path.name

    @property
    def config_file(self) -> Path:
        """Every effective setting, as TOML; --time-limit is that of the whole."""
        return self.path / "config.toml"

    @property
    def record_file(self) -> Path:
        """Status, runs and scores, as JSON."""
        return self.path / "folds.json"

    @property
    def scores_file(self) -> Path:
        """A row a picture, as CSV."""
        return self.path / "out_of_fold.csv"

    def run(self, fold: int) -> Run:
        """The run of a fold, whether it has begun or not."""
        return Run(path=self.path.with_name(f"{self.name.removesuffix(ENDING)}-fold{fold}"))

    def read_record(self) -> FoldsRecord:
        """Raises DataError if folds.json is missing or damaged."""
        content = read_json(self.record_file)
        try:
            folds = tuple(FoldRecord(**fold) for fold in content.pop("folds"))
            return FoldsRecord(**content, folds=folds)
        except (KeyError, TypeError) as error:
            raise DataError(
                f"{self.record_file} is not of this version of kbdenoise: {error}",
                hint="use the version that made it, or start anew",
            ) from error

    def write_record(self, record: FoldsRecord) -> None:
        """Replace folds.json as a whole."""
        write_json(self.record_file, asdict(record))

    def read_scores(self) -> list[OutOfFold]:
        """The rows that are there; none where the file is missing or damaged."""
        try:
            content = self.scores_file.read_text(encoding="utf-8")
            return [_row(row) for row in csv.DictReader(io.StringIO(content))]
        except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            return []

    def write_scores(self, rows: Sequence[OutOfFold]) -> None:
        """Replace out_of_fold.csv as a whole; figures are written to the last digit."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [f.name for f in fields(OutOfFold)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        write_text(self.scores_file, text.getvalue())


def create_folds(runs: Path, *, model: str, folds: int, name: str = "") -> FoldsFolder:
    """Make a new, empty folder, and see that the names of its runs are free. As `create_run`."""
    others = [ENDING, "", *(f"-fold{fold}" for fold in range(folds))]
    made = create_run(runs, model=model, name=name, ending=ENDING, others=others)
    return FoldsFolder(path=made.path)


def find_folds(name: str, runs: Path) -> FoldsFolder | None:
    """A cross-validation by path, name or its last words, with or without -folds; None if none is.

    `last` is the one that the newest run belongs to, unless it is finished. A run of exactly that
    name comes first.
    """
    if (Path(name) / "folds.json").is_file():
        return FoldsFolder(path=Path(name).resolve())
    found = [FoldsFolder(path=p.parent) for p in sorted(runs.glob("*/folds.json"))]
    if name == "last":
        infos = list_runs(runs)
        newest = infos[-1].name.rpartition("-fold")[0] + ENDING if infos else ""
        found = [f for f in found if f.name == newest and f.read_record().status != "finished"]
        return found[0] if found else None
    if any(name in _names(info.name) for info in list_runs(runs)):
        return None
    whole = name if name.endswith(ENDING) else name + ENDING
    matching = [folder for folder in found if whole in _names(folder.name)]
    return matching[-1] if matching else None


def whole_of(run: Run) -> Path:
    """The folder of the cross-validation that a run is a fold of, or else the run's own."""
    whole = run.path.with_name(run.name.rpartition("-fold")[0] + ENDING)
    return whole if (whole / "folds.json").is_file() else run.path


def resume_command(run: Run) -> str:
    """What goes on with a run, or with the cross-validation that it is a fold of."""
    return f"kbdenoise train --resume {whole_of(run).name}"


def _names(folder: str) -> tuple[str, str]:
    return folder, folder.rsplit("_", 1)[-1]


def _row(row: dict[str, Any]) -> OutOfFold:
    figures = {name: float(row[name]) for name in ("score", "untouched", "psnr_db")}
    return OutOfFold(stem=row["stem"], fold=int(row["fold"]), group=row["group"], **figures)
