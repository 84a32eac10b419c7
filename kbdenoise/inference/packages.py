"""The table of engines, and which file of a run each of them computes with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kbdenoise.checksums import checksum
from kbdenoise.config import PredictConfig
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.card import ExportCard
from kbdenoise.export.formats import FORMATS
from kbdenoise.inference.engines import Restorer, load_restorer
from kbdenoise.notation import parse_hyper
from kbdenoise.runs.folder import Run

Opened = tuple[Restorer, DeviceChoice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One line of the table."""

    summary: str
    open: Callable[[Path, PredictConfig], Opened]
    """A restorer from the engine's file, on the part of the machine that the settings ask for."""
    card: Callable[[Path], ExportCard] | None = None
    """Reads what a package says of itself; None for an engine that takes weights."""
    format: str = ""
    """Its packages' name in `FORMATS`; empty for an engine that takes weights."""
    check_system: Callable[[], None] = lambda: None
    """Raises SettingsError on a system that the engine does not run on."""

    @property
    def suffix(self) -> str:
        """Of its packages; empty for an engine that takes weights."""
        return FORMATS[self.format].suffix if self.format else ""

    def file_of(self, run: Run, weights: Path) -> Path:
        """What it computes a run with: its weights, or the package that was made of them.

        Raises DataError where there is no package, or one of other weights.
        """
        if self.card is None:
            return weights
        package = run.export_folder / f"{run.name}{self.suffix}"
        cure = f"kbdenoise export {run.name} --format {self.format}"
        if not package.exists():
            raise DataError(f"{run.name} has no package for this engine yet", hint=cure)
        if self.card(package).weights_sha256 != checksum(weights):
            raise DataError(
                f"{package} was made of other weights than {weights} holds now",
                hint=f"{cure} --force",
            )
        return package


def _torch(weights: Path, config: PredictConfig) -> Opened:
    if config.engine.compute_units != "auto":
        raise SettingsError(
            f"--compute-units {config.engine.compute_units} is for packages of other engines",
            hint="use --device here",
        )
    device = choose_device(
        config.device.device, precision=config.device.precision, threads=config.device.threads
    )
    hyper = parse_hyper(config.model.hyper)
    return load_restorer(weights, device=device, hyperparameters=hyper)[0], device


def _onnx(package: Path, config: PredictConfig) -> Opened:
    check_settings(config)
    from kbdenoise.inference.onnx_engine import open_onnx

    return open_onnx(package, units=config.engine.compute_units, threads=config.device.threads)


def _onnx_card(package: Path) -> ExportCard:
    from kbdenoise.inference.onnx_engine import read_onnx_card

    return read_onnx_card(package)


def _coreml(package: Path, config: PredictConfig) -> Opened:
    check_settings(config)
    from kbdenoise.inference.apple import CoreML
    from kbdenoise.inference.coreml import open_coreml

    return open_coreml(package, system=CoreML(), units=config.engine.compute_units)


def _coreml_card(package: Path) -> ExportCard:
    from kbdenoise.inference.coreml import read_coreml_card

    return read_coreml_card(package)


def _coreml_system() -> None:
    from kbdenoise.export.coreml.compiled import require_a_mac

    require_a_mac()


ENGINES: Mapping[str, Engine] = {
    "torch": Engine(summary="the run's own weights, on --device", open=_torch),
    "onnx": Engine(
        summary="ONNX Runtime, by CUDA, Core ML or the CPU",
        open=_onnx,
        card=_onnx_card,
        format="onnx",
    ),
    "coreml": Engine(
        summary="Core ML on a Mac, by the Neural Engine, the GPU or the CPU",
        open=_coreml,
        card=_coreml_card,
        format="coreml",
        check_system=_coreml_system,
    ),
}


def is_package(path: Path) -> bool:
    """Whether a path has the suffix of a package, of whatever format, and is there.

    Raises SettingsError for a program of torch.export, which is for other software.
    """
    if path.suffix == FORMATS["torch"].suffix and path.exists():
        raise SettingsError(
            f"{path} is a program for torch's own tools, and reading it may run code from the file",
            hint="restore with the run or the weights that it was made of",
        )
    return any(path.suffix == e.suffix for e in ENGINES.values() if e.format) and path.exists()


def engine_of(package: Path, *, asked: str | None) -> str:
    """The engine of a package. Raises SettingsError where another one was asked for."""
    name = next(n for n, e in ENGINES.items() if e.format and e.suffix == package.suffix)
    if asked not in (None, name):
        raise SettingsError(
            f"--engine {asked} does not take {package}", hint=f"leave it out, or use {name}"
        )
    return name


def check_settings(config: PredictConfig) -> None:
    """Raises SettingsError for settings of torch's that a package cannot follow."""
    device = config.device
    for name, value, usual in (
        ("--device", device.device, "auto"),
        ("--precision", device.precision, "auto"),
        ("--hyper", config.model.hyper, ""),
    ):
        if value != usual:
            raise SettingsError(
                f"{name} {value} is for --engine torch: a package was written once for all",
                hint="choose --compute-units here; precision and hyper-parameters are settled by "
                "`kbdenoise export`",
            )
