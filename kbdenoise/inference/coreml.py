"""Restore by a Core ML package: tiles of its one size, one at a time.

Core ML decides when a package is first used what computes it, and a Neural Engine that cannot may
end the whole process instead of raising an error. So the first call is made by a child process that
has a limited time; what that could not do is not tried here: something else computes, with a note.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kbdenoise.config import UnitsName
from kbdenoise.errors import DataError
from kbdenoise.export.card import ExportCard
from kbdenoise.export.coreml.program import read_program
from kbdenoise.export.source import INPUT, PAGE
from kbdenoise.imaging.files import FloatImage
from kbdenoise.inference.engines import Pace, Restorer
from kbdenoise.progress import Fact, Note, Progress, silent

Planes = npt.NDArray[np.float32]
"""[1, C, H, W]."""
Runner = Callable[[Mapping[str, Planes]], Planes]
"""Computes a package: its inputs by name -> its result."""

UNITS: Mapping[UnitsName, str] = {
    "ane": "CPU_AND_NE",
    "gpu": "CPU_AND_GPU",
    "cpu": "CPU_ONLY",
    "all": "ALL",
}
"""Our names of what may compute -> Core ML's. The CPU may always take part."""
_WORDS: Mapping[UnitsName, str] = {
    "ane": "the Neural Engine",
    "gpu": "the GPU",
    "cpu": "the CPU",
    "all": "Core ML's own choice",
}
PROBE_LIMIT_S = 300.0
"""Longest that a first call may take; a large network is compiled in it."""
_MOST_BYTES = 8 * 1024**3


class CoreMLRestorer:
    """A package behind the Restorer protocol; `run` computes it."""

    def __init__(self, card: ExportCard, run: Runner) -> None:
        self.card = card
        self._run = run
        self.channels = card.channels
        self.multiple = card.multiple
        self.fixed_tile = card.tile
        self.radius = card.radius
        self.bytes_per_pixel = card.bytes_per_pixel
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A restorer, and in words what computes it."""

    restorer: Restorer
    text: str


def open_package(
    package: Path,
    *,
    system: System,
    units: UnitsName = "auto",
    instead: Callable[[], Opened] | None = None,
    progress: Progress = silent,
) -> Opened:
    """A restorer of a package on the Neural Engine, or on what was asked for.

    Where the first call fails, `instead` gives what restores, such as the run's network on the
    GPU; without it, or if it fails, Core ML computes on the CPU. Either is told in a note. Raises
    DataError where Core ML cannot compute the package at all.
    """
    card = ExportCard.from_strings(read_program(package).metadata, where=package)
    asked: UnitsName = "ane" if units == "auto" else units
    progress(Fact(label="coreml", text=f"compiling for {_WORDS[asked]}, kept for the next time"))
    compiled = system.compiled(package)
    reasons = []
    for candidate in dict.fromkeys((asked, "cpu")):
        fault = system.fault(compiled, UNITS[candidate], card, limit_s=PROBE_LIMIT_S)
        if not fault:
            runner = system.runner(compiled, UNITS[candidate])
            text = f"Core ML, {_WORDS[candidate]}, tiles of {card.tile} px"
            return Opened(restorer=CoreMLRestorer(card, runner), text=text)
        reasons.append(f"{_WORDS[candidate]}: {fault}")
        if candidate != "cpu" and instead is not None:
            other = instead()
            progress(Note(text=f"{_WORDS[candidate]} {fault}; going on with {other.text}"))
            return other
        if candidate != "cpu":
            progress(Note(text=f"{_WORDS[candidate]} {fault}; going on with the CPU"))
    raise DataError(
        f"Core ML cannot compute {package} ({'; '.join(reasons)})",
        hint="use --engine torch or onnx, and please report it with the version of macOS",
    )


def _planes(image: FloatImage) -> Planes:
    """[H, W, C] -> [1, C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])
