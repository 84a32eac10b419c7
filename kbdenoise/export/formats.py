"""The table of package formats: a new one is written in its own file and gets one entry here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.source import Source
from kbdenoise.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One figure of a self-check and the limit that it may not pass."""

    name: str
    figure: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the figure is within its limit; NaN is not."""
        return self.figure <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A package that was written, read back and checked."""

    path: Path
    checks: tuple[Check, ...]
    lines: tuple[str, ...] = ()
    """What a person should know of it, a sentence each."""


class Writer(Protocol):
    """Writes a package whole or not at all: beside its place, read back, checked, renamed."""

    def __call__(
        self, source: Source, out: Path, settings: ExportSettings, *, progress: Progress
    ) -> Exported:
        """Write `out`, which may be there. Raises DataError for a package that fails its check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One line of the table."""

    summary: str
    suffix: str
    modules: tuple[str, ...]
    """That have to be importable beside kbdenoise's own."""
    install: str
    """What installs them."""
    writer: Callable[[], Writer]
    """Imports the writer, so only when called."""
    precision: str = "fp32"
    """What it is written in where nothing is asked for."""


def _torch() -> Writer:
    from kbdenoise.export.torch_program import write

    return write


def _onnx() -> Writer:
    from kbdenoise.export.onnx_model import write

    return write


def _coreml() -> Writer:
    from kbdenoise.export.coreml.package import write

    return write


FORMATS: Mapping[str, ExportFormat] = {
    "onnx": ExportFormat(
        summary="a model for ONNX Runtime and whatever else reads ONNX",
        suffix=".onnx",
        modules=("onnx", "onnxruntime"),
        install="pip install 'kbdenoise[onnx]'",
        writer=_onnx,
    ),
    "coreml": ExportFormat(
        summary="a package for Apple's Core ML, for the Neural Engine",
        suffix=".mlpackage",
        modules=("coremltools",),
        install="pip install coremltools==9.0 (for macOS, and Linux on x86-64; Python <3.14)",
        writer=_coreml,
        precision="fp16",
    ),
    "torch": ExportFormat(
        summary="a program of torch.export, for torch's own tools",
        suffix=".pt2",
        modules=(),
        install="",
        writer=_torch,
    ),
}


def writer_of(name: str) -> Writer:
    """The writer of a format. Raises SettingsError where what it needs is not installed."""
    chosen = FORMATS[name]
    missing = [module for module in chosen.modules if find_spec(module) is None]
    if missing:
        raise SettingsError(
            f"--format {name} needs {' and '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed",
            hint=chosen.install,
        )
    return chosen.writer()


def require(checks: Sequence[Check], *, package: Path) -> None:
    """Raises DataError for the first check that failed, naming its figure and its limit."""
    for check in checks:
        if not check.passed:
            raise DataError(
                f"{package} was not written: its self-check failed, {check.name} is "
                f"{check.figure:.2g} and may be {check.limit:.2g} at most",
                hint="please report it with the model and the versions that `kbdenoise doctor` "
                "tells",
            )
