"""Core ML's own plan for a compiled package: which unit it means to give every operation to.

macOS 14.4 and newer can tell, before anything is computed. It is what Xcode shows as a model's
compute-unit mapping, and a plan still: what then runs may differ.
"""

import platform
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kbdenoise.errors import SettingsError
from kbdenoise.export.coreml.library import coremltools

Unit = Literal["CPU", "GPU", "Neural Engine"]
UNITS: tuple[Unit, ...] = ("CPU", "GPU", "Neural Engine")
_OLDEST = (14, 4)
_DEVICES: dict[str, Unit] = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}
"""coremltools' classes -> our words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What Core ML means to do with one operation."""

    kind: str
    unit: Unit
    cost: float
    """Estimated share of the whole, 0 where it is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedUnits:
    """Operations and cost shares by unit, as Xcode shows them."""

    operations: dict[Unit, int]
    cost: dict[Unit, float]

    @property
    def total(self) -> int:
        """All operations that were planned."""
        return sum(self.operations.values())

    @property
    def text(self) -> str:
        """One line: `All 23: Neural Engine 23 (100 % of the cost), CPU 0 (0 %), GPU 0 (0 %)`."""
        order: tuple[Unit, ...] = ("Neural Engine", "CPU", "GPU")
        costs = [f"{self.cost[u]:.0%}".replace("%", " %") for u in order]
        first, *others = (
            f"{u} {self.operations[u]} ({c}" for u, c in zip(order, costs, strict=True)
        )
        return ", ".join([f"All {self.total}: {first} of the cost)", *(f"{o})" for o in others)])


def has_plans() -> bool:
    """Whether this system can tell: macOS 14.4 or newer."""
    if sys.platform != "darwin":
        return False
    return _version(platform.mac_ver()[0]) >= _OLDEST


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def read_plan(compiled: Path) -> list[Planned]:
    """Core ML's plan for a compiled package (.mlmodelc) on the CPU and the Neural Engine.

    Raises SettingsError on a system that cannot tell.
    """
    if not has_plans():
        raise SettingsError(
            "Core ML's plan needs macOS 14.4 or newer", hint="run it there, on the same package"
        )
    tools = coremltools()
    from coremltools.models.compute_plan import MLComputePlan

    units = tools.ComputeUnit.CPU_AND_NE
    return planned(MLComputePlan.load_from_path(str(compiled), compute_units=units))


def planned(plan: Any) -> list[Planned]:
    """The operations of coremltools' `MLComputePlan`, without constants."""
    found = []
    for op in plan.model_structure.program.functions["main"].block.operations:
        usage = plan.get_compute_device_usage_for_mlprogram_operation(op)
        if usage is None:
            continue
        cost = plan.get_estimated_cost_for_mlprogram_operation(op)
        found.append(
            Planned(
                kind=op.operator_name.rpartition(".")[2],  # 'ios17.conv' -> 'conv'
                unit=_DEVICES[type(usage.preferred_compute_device).__name__],
                cost=0.0 if cost is None else float(cost.weight),
            )
        )
    return found


def add_up(operations: Iterable[Planned]) -> PlannedUnits:
    """Count operations and add up their cost by unit."""
    counts: Counter[Unit] = Counter()
    cost: dict[Unit, float] = dict.fromkeys(UNITS, 0.0)
    for op in operations:
        counts[op.unit] += 1
        cost[op.unit] += op.cost
    whole = sum(cost.values()) or 1.0
    return PlannedUnits(
        operations={unit: counts[unit] for unit in UNITS},
        cost={unit: cost[unit] / whole for unit in UNITS},
    )
