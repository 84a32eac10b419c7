"""Packages as they lie on the disk, computed operation by operation against torch in float64.

An architecture is converted once, in one test, for that takes seconds.
"""

from pathlib import Path
from typing import Any

import pytest

from kbdenoise.export.coreml.check import check_package
from kbdenoise.export.coreml.convert import convert, record, save
from kbdenoise.export.coreml.forms import exportable
from kbdenoise.export.coreml.placement import guess_placement, shares
from kbdenoise.export.coreml.tiles import trial_tiles
from tests.export.coreml.conftest import TOYS, Toy

TILE = 32
GOLDEN: dict[str, dict[str, int]] = {}


@pytest.mark.parametrize("name", TOYS)
def test_the_package_of_an_architecture_is_its_network(
    name: str, toy: Toy, tmp_path: Path
) -> None:
    model = toy(name)
    tiles = trial_tiles(channels=3, tile=TILE, sees_page="tone" in name)
    images = tiles["page"]
    recorded = record(exportable(model), images, name=name)
    for precision in ("fp32", "fp16"):
        package = tmp_path / f"{precision}.mlpackage"
        made = convert(recorded, images, name=name, precision=precision)
        save(made, package, metadata={"kbdenoise.model": name})

        checked = check_package(package, model, tiles, precision=precision)

        print(name, precision, [f.text for f in checked.figures], checked.headroom)
        assert [figure.text for figure in checked.figures if not figure.good] == []
        print(checked.program.counts)
        print(guess_placement(checked.program))
