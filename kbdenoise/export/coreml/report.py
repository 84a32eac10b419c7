"""Where a package's operations would run: Core ML's own plan on a Mac, a guess elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from kbdenoise.export.card import ExportCard
from kbdenoise.export.coreml.compiled import compiled
from kbdenoise.export.coreml.placement import Row, guess_placement, shares
from kbdenoise.export.coreml.plan import PlannedUnits, add_up, has_plans, read_plan
from kbdenoise.export.coreml.program import read_program


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `export --report` shows."""

    model: str
    tile: int
    operations: int
    rows: tuple[Row, ...]
    """The guess, the least plausible first."""
    plausible: int
    """Operations that the guess calls likely."""
    plan: PlannedUnits | None
    """Core ML's own; None where the system has none."""

    @property
    def summary(self) -> str:
        """One line: Core ML's plan where there is one, else what the guess comes to."""
        if self.plan is not None:
            return f"Core ML's plan: {self.plan.text}"
        return (
            f"{self.plausible:,} of {self.operations:,} operations are ANE-plausible "
            "(a static heuristic, not a measurement)"
        )


def look_at(package: Path) -> Report:
    """Look at a package. Raises DataError for one that is damaged or not kbdenoise's."""
    program = read_program(package)
    card = ExportCard.from_strings(program.metadata, where=package)
    rows = guess_placement(program)
    return Report(
        model=card.model,
        tile=card.tile,
        operations=len(program.operations),
        rows=rows,
        plausible=shares(rows)["likely"],
        plan=add_up(read_plan(compiled(package))) if has_plans() else None,
    )
