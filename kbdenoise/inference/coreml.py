"""Restore by a Core ML package: tiles of its one size, one at a time.

Core ML decides when a package is first used what computes it, and a Neural Engine that cannot may
end the whole process instead of raising an error. So the first call is made by a child process that
has a limited time; what that could not do is not tried here, and `loading` takes something else.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kbdenoise.config import UnitsName
from kbdenoise.devices import DeviceChoice
from kbdenoise.errors import DataError
from kbdenoise.export.card import ExportCard
from kbdenoise.export.coreml.program import read_program
from kbdenoise.export.source import INPUT, PAGE
from kbdenoise.imaging.files import FloatImage
from kbdenoise.inference.engines import Pace

Planes = npt.NDArray[np.float32]
"""[1, C, H, W]."""
Runner = Callable[[Mapping[str, Planes]], Planes]
"""Computes a package: its inputs by name -> its result."""

UNITS: Mapping[UnitsName, tuple[str, str]] = {
    "ane": ("CPU_AND_NE", "the Neural Engine"),
    "gpu": ("CPU_AND_GPU", "the GPU"),
    "cpu": ("CPU_ONLY", "the CPU"),
    "all": ("ALL", "whatever it chooses"),
}
"""Our names of what may compute -> Core ML's, and words. The CPU may always take part."""
_USUAL: UnitsName = "ane"  # "all" was reported to be slower, and to abort on some systems
PROBE_LIMIT_S = 300.0
"""Longest that a first call may take; a large network is compiled in it."""
_MOST_BYTES = 8 * 1024**3


class FirstCallError(DataError):
    """Units that were to compute a package could not, as a child process has found out."""


class CoreMLRestorer:
    """A package behind the Restorer protocol; `run` computes it."""

    def __init__(self, card: ExportCard, run: Runner) -> None:
        self._run = run
        self.channels = card.channels
        self.multiple = card.multiple
        self.fixed_tile = card.tile
        self.radius = card.radius
        self.bytes_per_pixel = float(card.bytes_per_pixel)
        self.sees_page = card.sees_page
        self.pace = Pace(pixels=card.tile**2, most_bytes=_MOST_BYTES, beside_host=True)

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        """Restore float32 [B, tile, tile, C] in [0, 1]; the result is not clipped."""
        restored = []
        for i in range(len(noisy)):  # the package is for one tile
            feeds = {INPUT: _planes(noisy[i])}
            if page is not None:
                feeds[PAGE] = _planes(page[i])
            restored.append(self._run(feeds)[0].transpose(1, 2, 0))
        return np.ascontiguousarray(np.stack(restored), dtype=np.float32)


class System(Protocol):
    """What of Core ML is needed to run packages: on a Mac `apple.CoreML`."""

    def compiled(self, package: Path) -> Path:
        """The compiled form of a package."""

    def fault(self, compiled: Path, units: str, card: ExportCard, *, limit_s: float) -> str:
        """Let a child process make the first call; empty where it went well, else the reason."""

    def runner(self, compiled: Path, units: str) -> Runner:
        """What computes the compiled package on some units."""


def open_coreml(
    package: Path, *, system: System, units: UnitsName = "auto"
) -> tuple[CoreMLRestorer, DeviceChoice]:
    """A restorer of a package on the Neural Engine or on what was asked for, and why there.

    Raises FirstCallError where that cannot compute it, and DataError for a folder that is no
    package of kbdenoise or that Core ML does not compile.
    """
    card = read_coreml_card(package)
    name, words = UNITS[_USUAL if units == "auto" else units]
    compiled = system.compiled(package)
    fault = system.fault(compiled, name, card, limit_s=PROBE_LIMIT_S)
    if fault:
        raise FirstCallError(
            f"{words} cannot compute {package}: the first call {fault}",
            hint="try --compute-units cpu, or --engine torch; and please report it with the "
            "version of macOS",
        )
    device = DeviceChoice(
        kind="cpu" if name == "CPU_ONLY" else "mps",
        reason=f"Core ML on {words}{'' if units == 'auto' else ', as asked'}",
        arithmetic="float16" if card.precision == "fp16" else "float32",
        precision_reason="as the package was written",
    )
    return CoreMLRestorer(card, system.runner(compiled, name)), device


def read_coreml_card(package: Path) -> ExportCard:
    """What a package says of itself. Raises DataError as `open_coreml` does."""
    return ExportCard.from_strings(read_program(package).metadata, where=package)


def _planes(image: FloatImage) -> Planes:
    """[H, W, C] -> [1, C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])
