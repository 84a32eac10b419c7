"""Packages as they lie on the disk, computed operation by operation against torch in float64.

An architecture is converted in one test, for that takes seconds: torch records it once, for both
precisions.
"""

from pathlib import Path
from typing import Any

import pytest

from kbdenoise.export.coreml.check import check_package
from kbdenoise.export.coreml.convert import convert, record, save
from kbdenoise.export.coreml.forms import exportable
from kbdenoise.export.coreml.program import Program
from kbdenoise.export.source import Source
from tests.export.coreml.conftest import TOYS, ToySource

GOLDEN = {
    "dncnn": "3 conv, 2 relu, 1 sub",
}


def written(recorded: Any, source: Source, folder: Path) -> Path:
    package = folder / f"{source.card.precision}.mlpackage"
    made = convert(
        recorded, source.example(), name=source.info.name, precision=source.card.precision
    )
    save(made, package, metadata=source.card.to_strings())
    return package


def counted(program: Program) -> str:
    counts = sorted(program.counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in counts)


@pytest.mark.parametrize("name", TOYS)
def test_the_package_of_an_architecture_is_its_network(
    name: str, toy_source: ToySource, tmp_path: Path
) -> None:
    source = toy_source(name)
    recorded = record(exportable(source.model), source.example(), name=name)
    for precision in ("fp32", "fp16"):
        source = source.saying(precision=precision)
        package = written(recorded, source, tmp_path)

        checked = check_package(package, source)

        assert [check for check in checked.checks if not check.passed] == []
        assert counted(checked.program) == GOLDEN.get(name, "")
        assert {len(value.shape) for value in checked.program.values} == {4}
        assert {value.kind for value in checked.program.values} == {precision}
        assert source.card.to_strings().items() <= checked.program.metadata.items()
        assert not (package / "executorch_debug_handle_mapping.json").exists()
