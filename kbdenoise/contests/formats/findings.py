"""What a check found in a submission file, in sentences."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kbdenoise.errors import DataError

SHOWN = 3
"""Problems of one kind that are told in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The result of checking a submission file; valid when `problems` is empty."""

    path: Path
    rows: int
    """Data rows of a CSV, files of an archive, as found."""
    minimum: float
    """Of all finite values; NaN when there is none."""
    mean: float
    maximum: float
    problems: tuple[str, ...]
    """What a contest would refuse or misread: a sentence each, with place and cure."""
    notes: tuple[str, ...]
    """What is allowed but worth a look."""

    @property
    def valid(self) -> bool:
        """Whether the file may be handed in."""
        return not self.problems

    def require_valid(self) -> None:
        """Raise DataError with the first problems unless the file is valid."""
        if self.problems:
            shown = "; ".join(self.problems[:SHOWN])
            rest = len(self.problems) - SHOWN
            more = f"; and {rest} more" if rest > 0 else ""
            raise DataError(
                f"{self.path} is not a valid submission: {shown}{more}",
                hint="write the file again with `kbdenoise submit RUN --dry-run`",
            )


@dataclass(slots=True)
class Findings:
    """Problems and notes as they are met: a few of each kind in full, the others counted."""

    _problems: dict[str, list[str]] = field(default_factory=dict)
    _further: dict[str, int] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)

    def problem(self, kind: str, sentence: str) -> None:
        """Record a problem; after the first few of its kind only the number is kept."""
        shown = self._problems.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(sentence)
        else:
            self.more(kind, 1)

    def more(self, kind: str, count: int) -> None:
        """Count further problems of a kind without describing them."""
        self._further[kind] = self._further.get(kind, 0) + count

    def note(self, sentence: str) -> None:
        """Record something that is allowed but worth a look."""
        self._notes.append(sentence)

    @property
    def problems(self) -> tuple[str, ...]:
        """Every problem, kind by kind, each kind ending with how many more there are."""
        sentences = []
        for kind, shown in self._problems.items():
            sentences += shown
            if self._further.get(kind):
                sentences.append(f"{kind}: {self._further[kind]:,} more like this")
        return tuple(sentences)

    @property
    def notes(self) -> tuple[str, ...]:
        """Every note, in the order in which they were met."""
        return tuple(self._notes)

    def require_none(self, path: Path) -> None:
        """Raise DataError with the first problems, if there are any."""
        self.report(path, Statistics()).require_valid()

    def report(self, path: Path, statistics: "Statistics") -> CheckReport:
        """All findings with the statistics of the values."""
        return CheckReport(
            path=path,
            rows=statistics.rows,
            minimum=statistics.minimum,
            mean=statistics.mean,
            maximum=statistics.maximum,
            problems=self.problems,
            notes=self.notes,
        )


@dataclass(slots=True)
class Statistics:
    """Rows met, and least, mean and greatest of the finite values, added up block by block."""

    rows: int = 0
    minimum: float = math.nan
    maximum: float = math.nan
    _sum: float = 0.0
    _values: int = 0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        """Take in values of any shape; those that are not finite are left out."""
        finite = values if np.isfinite(values).all() else values[np.isfinite(values)]
        if finite.size:
            self.minimum = float(np.fmin(self.minimum, finite.min()))
            self.maximum = float(np.fmax(self.maximum, finite.max()))
            self._sum += float(finite.sum(dtype=np.float64))
            self._values += finite.size

    @property
    def mean(self) -> float:
        """Mean of the finite values; NaN when there is none."""
        return self._sum / self._values if self._values else math.nan
