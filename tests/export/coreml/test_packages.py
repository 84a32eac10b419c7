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
    "drunet": "9 conv, 5 add, 3 relu, 1 concat, 1 conv_transpose, 1 fill_like, 1 slice_by_index",
    "kbnet-l": "122 conv, 105 mul, 36 add, 28 reshape, 21 reduce_mean, 14 clip, 14 layer_norm, "
    "14 matmul, 14 rsqrt, 14 split, 7 gelu, 7 softmax, 3 concat, 3 pixel_shuffle, 3 "
    "pixel_unshuffle",
    "kbnet-s": "27 conv, 15 add, 15 mul, 12 slice_by_index, 2 layer_norm, 2 split, 1 pad, 1 "
    "pixel_shuffle, 1 reduce_mean",
    "nafnet": "10 conv, 5 mul, 4 add, 2 layer_norm, 2 split, 1 pixel_shuffle, 1 reduce_mean",
    "pix2pix": "2 conv, 2 conv_transpose, 2 mul, 2 relu, 1 add, 1 concat, 1 leaky_relu, 1 sub, "
    "1 tanh",
    "res-unet": "9 conv, 5 add, 3 relu, 2 mul, 1 conv_transpose, 1 pixel_shuffle, 1 "
    "pixel_unshuffle, 1 sub",
    "restormer": "126 mul, 52 conv, 42 reduce_mean, 29 add, 28 reshape, 28 rsqrt, 14 clip, 14 "
    "matmul, 14 split, 14 sub, 7 gelu, 7 softmax, 3 concat, 3 pixel_shuffle, 3 "
    "pixel_unshuffle",
    "srresnet": "5 conv, 3 add, 2 leaky_relu",
    "tone": "10 conv, 6 relu, 3 mul, 2 reduce_mean, 2 sub, 1 abs, 1 add, 1 concat, 1 "
    "maximum, 1 minimum, 1 softplus",
    "tone+res-unet": "19 conv, 9 relu, 6 add, 5 mul, 3 sub, 2 reduce_mean, 1 abs, 1 concat, 1 "
    "conv_transpose, 1 maximum, 1 minimum, 1 pixel_shuffle, 1 pixel_unshuffle, 1 "
    "softplus",
    "unet": "7 conv, 6 relu, 1 add, 1 concat, 1 conv_transpose, 1 max_pool",
}
"""Operations of every toy, in both precisions."""


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
        assert counted(checked.program) == GOLDEN[name]
        assert {len(value.shape) for value in checked.program.values} == {4}
        assert {value.kind for value in checked.program.values} == {precision}
        assert source.card.to_strings().items() <= checked.program.metadata.items()
        assert not (package / "executorch_debug_handle_mapping.json").exists()
