"""Core ML itself, on a Mac: compile, try in a child process, compute. None of it runs elsewhere."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kbdenoise.errors import first_line
from kbdenoise.export.card import ExportCard
from kbdenoise.export.coreml.compiled import compiled, require_a_mac
from kbdenoise.export.coreml.library import coremltools
from kbdenoise.export.source import INPUT, OUTPUT, PAGE
from kbdenoise.inference.coreml import Planes, Runner
from kbdenoise.models.spec import PAGE_SIDE


class CoreML:
    """Core ML behind the `System` protocol. Raises SettingsError on other systems."""

    def __init__(self) -> None:
        require_a_mac()

    def compiled(self, package: Path) -> Path:
        """The compiled form of a package, from the user's cache where it is there."""
        return compiled(package)

    def fault(self, compiled: Path, units: str, card: ExportCard, *, limit_s: float) -> str:
        """Let a child process make the first call; that it went well once is remembered."""
        good = compiled.with_name(f"{compiled.stem}.{units}.good")
        if good.is_file():
            return ""
        sides = [card.tile, *([PAGE_SIDE] if card.sees_page else [])]
        shapes = [f"{card.channels}x{side}" for side in sides]
        words = [sys.executable, "-m", __name__, str(compiled), units, *shapes]
        reason = failure(words, limit_s=limit_s)
        if not reason:
            with suppress(OSError):
                good.touch()
        return reason

    def runner(self, compiled: Path, units: str) -> Runner:
        """What computes the compiled package on some units."""
        tools = coremltools()
        model = tools.models.CompiledMLModel(
            str(compiled), compute_units=getattr(tools.ComputeUnit, units)
        )

        def run(feeds: Mapping[str, Planes]) -> Planes:
            restored: Planes = model.predict(dict(feeds))[OUTPUT]
            return restored

        return run


def failure(words: Sequence[str], *, limit_s: float) -> str:
    """Run a command that says nothing where all is well; else why it did not work, in words."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"did not answer within {limit_s:g} s"
    except OSError as error:
        return f"could not be tried: {error}"
    if done.returncode < 0:
        return f"ended the process that tried it (signal {-done.returncode})"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"failed: {lines[-1]}"
    return ""


_TILES: Mapping[str, Callable[[tuple[int, ...]], Planes]] = {
    "black": lambda shape: np.zeros(shape, np.float32),
    "white": lambda shape: np.ones(shape, np.float32),
    "noisy": lambda shape: np.random.default_rng(0).random(shape, np.float32),
}
"""Those of a first call: two that make deviations zero, and one that does not."""


def first_call(compiled: Path, units: str, shapes: Sequence[str]) -> str:
    """Compute some tiles, as the child does; empty where all answers are finite.

    `shapes` are those of the inputs, such as `3x256`: channels and side in px.
    """
    run = CoreML().runner(compiled, units)
    for kind, draw in _TILES.items():
        feeds = {}
        for name, shape in zip((INPUT, PAGE), shapes, strict=False):
            channels, side = map(int, shape.split("x"))
            feeds[name] = draw((1, channels, side, side))
        if not np.isfinite(run(feeds)).all():
            return f"its answer for a {kind} tile is not finite"
    return ""


def main() -> None:
    """The child: compiled package, units, shapes. Its exit code is 1 where something is wrong."""
    place, units, *shapes = sys.argv[1:]
    try:
        fault = first_call(Path(place), units, shapes)
    except Exception as error:  # whatever Core ML comes up with
        fault = first_line(error)
    if fault:
        sys.exit(fault)


if __name__ == "__main__":
    main()
