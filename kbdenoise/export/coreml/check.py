"""Is a package what its network is? It is read back from the disk and computed, without a Mac.

The reference is the network as it was trained, in torch and in float64; no form for export takes
part in it. What is compared is what would be shipped: the package's program with its own weights
and in its own precision. So an operation that was lost, a weight that was damaged, a wrong form and
a norm that divides zero by zero all show in the same figures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from kbdenoise.export.coreml.convert import FORMAT_VERSION
from kbdenoise.export.coreml.mil import evaluate
from kbdenoise.export.coreml.program import Program, read_program
from kbdenoise.export.formats import Check
from kbdenoise.export.probes import Probe, compared, probes
from kbdenoise.export.source import OUTPUT, Source

_HIGHEST_RANK = 4
# Of the image's range, or of the largest result where that is more. In fp32 what rounding in
# another order may do; in fp16 results in [0, 1] are up to 4.9e-4 apart, and a pixel may lose more.
_RMS_LIMITS = {"fp32": 2e-6, "fp16": 1e-3}
_PEAK_LIMITS = {"fp32": 2e-6, "fp16": 2e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the check found."""

    program: Program
    checks: tuple[Check, ...]
    largest: Mapping[str, float]
    """The largest magnitude by the kind of operation, over all tiles."""


def check_package(package: Path, source: Source) -> Checked:
    """Read a package from the disk and compare it with its source, on what looks like a page.

    On constant tiles, whose deviations are zero, it has to stay finite even where small numbers
    count as zero, the harshest that a device may do. Raises DataError for a package that cannot be
    read or computed; figures beyond their limits are for the caller to refuse.
    """
    program = read_program(package)
    precision, tile = source.card.precision, source.card.tile
    largest: dict[str, float] = {}

    def answer(images: tuple[Tensor, ...], *, flush: bool = False) -> Tensor:
        feeds = dict(zip(source.input_names, images, strict=True))
        return evaluate(program, feeds, flush=flush, largest=largest)[OUTPUT]

    def not_finite(tile: Probe) -> Check:
        count = int((~answer(tile.inputs, flush=True).isfinite()).sum())
        return Check(name=f"{tile.name}, values that are not finite", figure=count, limit=0)

    page, *constant = _representable(probes(source, sides=[(tile, tile)]))
    errors = compared(
        answer,
        source,
        iter([page]),
        rms_limit=_RMS_LIMITS[precision],
        peak_limit=_PEAK_LIMITS[precision],
    )
    checks = (*_structure(program, precision), *errors, *map(not_finite, constant))
    return Checked(program=program, checks=checks, largest=largest)


def _representable(tiles: Iterator[Probe]) -> Iterator[Probe]:
    """Tiles of half precision's numbers: the check is of the program, not of rounding pictures."""
    for tile in tiles:
        yield replace(tile, inputs=tuple(image.half().float() for image in tile.inputs))


def _structure(program: Program, precision: str) -> Iterator[Check]:
    """What the program is made of: nothing of it depends on numbers."""
    rank = max(len(value.shape) for value in program.values)
    others = sum(value.kind != precision for value in (*program.inputs, *program.values))
    casts = program.counts.get("cast", 0)
    yield Check(name="highest rank", figure=rank, limit=_HIGHEST_RANK)
    yield Check(name=f"results that are not {precision}", figure=others, limit=0)
    yield Check(name="casts", figure=casts, limit=0)
    yield Check(name="version of the format", figure=program.version, limit=FORMAT_VERSION)
