"""The rules of the guess, and Core ML's plan from answers that were written down."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kbdenoise.errors import SettingsError
from kbdenoise.export.coreml import plan
from kbdenoise.export.coreml.placement import guess_placement, judge, shares
from kbdenoise.export.coreml.plan import add_up, planned
from tests.export.coreml.programs import program

CONV = {"strides": [1, 1], "dilations": [1, 1], "groups": 1, "weight": [[[[0.0]] * 8] * 8]}


def verdict(kind: str, **given: Any) -> str:
    shape = given.pop("shape", (1, 8, 16, 16))
    made = program(kind, **{"gives": shape, "type": "fp16", "x": shape} | given)
    return judge(made.operations[0], made)[0]


def conv(*, kernel: int = 3, width: int = 8, groups: int = 1, dilation: int = 1) -> str:
    weight = [[[[0.0] * kernel] * kernel] * width] * 8
    constants = {"weight": weight, "groups": groups, "dilations": [dilation] * 2}
    return verdict("conv", constants=constants)


def test_each_rule_of_the_guess() -> None:
    assert conv() == "likely"
    assert conv(width=1, groups=8) == "likely"  # depthwise
    assert conv(width=4, groups=2) == "verify"
    assert conv(kernel=9) == "verify"
    assert conv(dilation=2) == "unlikely"
    assert verdict("relu") == "likely"
    assert verdict("layer_norm") == "verify"
    assert verdict("gather") == "unlikely"
    assert verdict("relu", type="fp32") == "unlikely"
    assert verdict("relu", shape=(1, 1, 2, 3, 4)) == "unlikely"
    assert verdict("relu", shape=(1, 1, 1, 16_385)) == "unlikely"
    assert verdict("mul", y=(1, 8, 16, 16)) == "likely"
    assert verdict("mul", y=(1, 8, 1, 1)) == "verify"
    assert verdict("mul", constants={"y": 2.0}) == "likely"
    pool = {"kernel_sizes": [2, 2], "strides": [2, 2]}
    assert verdict("max_pool", constants=pool) == "likely"
    assert verdict("avg_pool", constants=pool | {"kernel_sizes": [14, 2]}) == "unlikely"
    assert verdict("pad", constants={"mode": "constant"}) == "likely"
    assert verdict("pad", constants={"mode": "replicate"}) == "verify"


def test_operations_of_a_kind_share_a_row_where_they_share_a_verdict() -> None:
    made = program("relu", gives=(1, 8, 16, 16), type="fp16", x=(1, 8, 16, 16))
    (relu,) = made.operations
    made = replace(made, operations=(relu, replace(relu, kind="gather"), relu))

    rows = guess_placement(made)

    assert [(row.kind, row.count, row.rank, row.type) for row in rows] == [
        ("gather", 1, 4, "fp16"),
        ("relu", 2, 4, "fp16"),
    ]
    assert shares(rows) == {"likely": 2, "verify": 0, "unlikely": 1}


class MLCPUComputeDevice:
    """As coremltools calls it."""


class MLGPUComputeDevice:
    """As coremltools calls it."""


class MLNeuralEngineComputeDevice:
    """As coremltools calls it."""


class RecordedPlan:
    """The answers of coremltools' MLComputePlan for a program of some operations."""

    def __init__(self, *answers: tuple[str, type | None, float | None]) -> None:
        self.answers = {name: (device, cost) for name, device, cost in answers}
        operations = [SimpleNamespace(operator_name=name) for name in self.answers]
        block = SimpleNamespace(operations=operations)
        main = SimpleNamespace(block=block)
        functions = SimpleNamespace(functions={"main": main})
        self.model_structure = SimpleNamespace(program=functions)

    def get_compute_device_usage_for_mlprogram_operation(self, op: Any) -> Any:
        device = self.answers[op.operator_name][0]
        return None if device is None else SimpleNamespace(preferred_compute_device=device())

    def get_estimated_cost_for_mlprogram_operation(self, op: Any) -> Any:
        cost = self.answers[op.operator_name][1]
        return None if cost is None else SimpleNamespace(weight=cost)


def test_a_plan_is_counted_by_unit_without_constants() -> None:
    recorded = RecordedPlan(
        ("const", None, None),
        ("ios17.conv", MLNeuralEngineComputeDevice, 0.6),
        ("ios17.relu", MLNeuralEngineComputeDevice, 0.15),
        ("ios16.softmax", MLCPUComputeDevice, 0.25),
        ("ios16.cast", MLCPUComputeDevice, None),
    )

    found = planned(recorded)

    assert [(op.kind, op.unit) for op in found] == [
        ("conv", "Neural Engine"),
        ("relu", "Neural Engine"),
        ("softmax", "CPU"),
        ("cast", "CPU"),
    ]
    assert add_up(found).text == (
        "All 4: Neural Engine 2 (75 % of the cost), CPU 2 (25 %), GPU 0 (0 %)"
    )


def test_a_plan_without_costs_has_no_shares() -> None:
    units = add_up(planned(RecordedPlan(("ios17.conv", MLGPUComputeDevice, None))))

    assert (units.total, units.operations["GPU"], units.cost["GPU"]) == (1, 1, 0.0)


@pytest.mark.parametrize(
    ("system", "version", "expected"),
    [
        ("darwin", "14.4", True),
        ("darwin", "15.0.1", True),
        ("darwin", "14.3.1", False),
        ("linux", "", False),
    ],
)
def test_plans_are_for_macos_from_14_4(
    monkeypatch: pytest.MonkeyPatch, system: str, version: str, expected: bool
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), ""))

    assert plan.has_plans() == expected


def test_without_plans_the_refusal_names_the_system_that_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("sys.platform", "linux")

    with pytest.raises(SettingsError, match=r"macOS 14\.4 or newer"):
        plan.read_plan(tmp_path)
