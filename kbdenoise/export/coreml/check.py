"""Is a package what its network is? It is read back from the disk and computed, without a Mac.

The reference is the network as it was trained, in torch and in float64; no form for export takes
part in it. What is compared is what would be shipped: the package's program with its own weights
and in its own precision. So an operation that was lost, a weight that was damaged, a wrong form and
a norm that divides zero by zero all show in the same figures.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from kbdenoise.config import ExportPrecision
from kbdenoise.errors import DataError
from kbdenoise.export.coreml.convert import INPUTS, OUTPUT, TARGET
from kbdenoise.export.coreml.mil import evaluate
from kbdenoise.export.coreml.program import Program, read_program
from kbdenoise.export.coreml.tiles import Images

HIGHEST_RANK = 4
LARGEST_HALF = 65504.0
_VERSIONS = {"macOS14": 8}  # of the specification

# Beside the largest value of the result, at least 1. In fp32 the largest error of a pixel: rounding
# in another order. In fp16 the root of the mean square: results in [0, 1] are 2.4e-4 apart at most.
LIMITS: Mapping[ExportPrecision, float] = {"fp32": 2e-6, "fp16": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of the check, and the most that it may be."""

    name: str
    value: float
    limit: float

    @property
    def good(self) -> bool:
        """False for NaN, too."""
        return self.value <= self.limit

    @property
    def text(self) -> str:
        """For the screen: `page, rms error 2.1e-04 (limit 1.0e-03)`."""
        return f"{self.name} {self.value:.2g} (limit {self.limit:.2g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the check found."""

    program: Program
    figures: tuple[Figure, ...]
    largest: Mapping[str, float] = field(default_factory=dict)
    """The largest magnitude by the kind of operation, over all tiles."""

    @property
    def headroom(self) -> float:
        """How many times the largest number fits into half precision's."""
        return LARGEST_HALF / max(self.largest.values(), default=1.0)

    def refuse_faults(self, path: Path) -> None:
        """Raises DataError, naming figure and limit, where one is beyond its limit."""
        faults = [figure.text for figure in self.figures if not figure.good]
        if faults:
            raise DataError(
                f"{path} was not written, because it failed its check: {'; '.join(faults)}",
                hint="try --precision fp32; if that fails as well, please report it with the model",
            )


def check_package(
    package: Path,
    model: nn.Module,
    tiles: Mapping[str, Images],
    *,
    precision: ExportPrecision,
) -> Checked:
    """Read a package from the disk and compare it with `model`, the network as it was trained.

    `tiles` are pictures of the package's size by their names. Raises DataError for a package that
    cannot be read or computed; figures beyond their limits are for the caller to refuse.
    """
    program = read_program(package)
    largest: dict[str, float] = {}
    reference = deepcopy(model).double().eval()
    figures = [*_structure(program, precision)]
    for name, images in tiles.items():
        figures += _errors(name, program, reference, images, precision=precision, largest=largest)
    return Checked(program=program, figures=tuple(figures), largest=largest)


def _structure(program: Program, precision: ExportPrecision) -> Iterator[Figure]:
    """What the program is made of: nothing of it depends on numbers."""
    rank = max(len(value.shape) for value in program.values)
    others = sum(value.kind != precision for value in (*program.inputs, *program.values))
    yield Figure(name="highest rank", value=rank, limit=HIGHEST_RANK)
    yield Figure(name=f"results that are not {precision}", value=others, limit=0)
    yield Figure(name="casts", value=program.counts.get("cast", 0), limit=0)
    yield Figure(name="version of the format", value=program.version, limit=_VERSIONS[TARGET])


@torch.inference_mode()
def _errors(
    name: str,
    program: Program,
    reference: nn.Module,
    images: Images,
    *,
    precision: ExportPrecision,
    largest: dict[str, float],
) -> Iterator[Figure]:
    """One figure for a tile: how far the program is from torch, NaN where it is not finite.

    In half precision constant tiles are computed with small numbers taken for zero: the harshest
    that a device may do where deviations are zero.
    """
    expected: Tensor = reference(*(image.double() for image in images))
    flush = precision == "fp16" and name != "page"
    feeds = dict(zip(INPUTS, images, strict=False))
    found = evaluate(program, feeds, flush=flush, largest=largest)[OUTPUT].double()
    size = max(1.0, float(expected.abs().max()))
    error = (found - expected).abs()
    if precision == "fp32":
        what, value = "largest error", float(error.max())
    else:
        what, value = "rms error", float(error.square().mean().sqrt())
    yield Figure(name=f"{name}, {what}", value=value / size, limit=LIMITS[precision])
