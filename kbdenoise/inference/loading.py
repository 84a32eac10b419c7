"""From the name of a run or of a weights file to a restorer, with tiles planned per picture."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbdenoise.config import PredictConfig
from kbdenoise.devices import DeviceChoice, free_memory_bytes
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.inference.coreml import FirstCallError
from kbdenoise.inference.engines import Restorer
from kbdenoise.inference.filters import FilterRestorer, filter_device, read_filter
from kbdenoise.inference.packages import ENGINES, engine_of, is_package
from kbdenoise.inference.restoration import Restoration
from kbdenoise.progress import Note, Progress, silent
from kbdenoise.resolving import resolve
from kbdenoise.runs.folder import Run, find_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A run's best weights, or those of a file, on a device, and how to tile."""

    name: str
    """Of the run, or of the weights file without its suffix."""
    weights: Path
    """The file that is computed with: weights, a filter's card, or a package."""
    origin: Run | None
    """The run that the weights are of; None for a file that was named by itself."""
    restoration: Restoration
    config: PredictConfig
    device: DeviceChoice

    @property
    def run(self) -> Run:
        """The run that the weights are of. Raises SettingsError where there is none."""
        if self.origin is None:
            raise SettingsError(f"{self.weights} belongs to no run", hint="name a run instead")
        return self.origin


def load_run(name: str, *, runs: Path, progress: Progress = silent, **settings: Any) -> Loaded:
    """The best weights of a run, on the device that the settings (of PredictConfig) ask for."""
    run = find_run(name, runs)
    if run.filter_file.is_file():
        return _loaded_filter(run, settings, progress)
    if not run.last.is_file() and (model := run.read_record().model) in FILTERS:
        raise DataError(
            f"{run.filter_file} does not exist: choosing the filter was not finished",
            hint=f"train it anew: kbdenoise train --model {model}",
        )
    return _loaded(run.name, run.weights(), run, settings, progress)


def _loaded_filter(run: Run, settings: dict[str, Any], progress: Progress) -> Loaded:
    """A classical filter; it needs no device but the CPU, whatever the settings ask for."""
    given = {key: value for key, value in settings.items() if value is not None}
    config = resolve(PredictConfig(), ("settings", given))
    if config.engine.engine != "torch":
        raise SettingsError(
            f"{run.name} is a classical filter, which no other engine computes",
            hint="leave out --engine",
        )
    if config.model.hyper:
        raise SettingsError(
            "--hyper is for networks: a filter's parameters were chosen in training",
            hint=f"train with others, or edit {run.filter_file}",
        )
    device = filter_device()
    return Loaded(
        name=run.name,
        weights=run.filter_file,
        origin=run,
        restoration=_restoration(
            FilterRestorer(read_filter(run.filter_file)), config, device, progress
        ),
        config=config,
        device=device,
    )


def load_file(weights: Path, *, progress: Progress = silent, **settings: Any) -> Loaded:
    """The network of a weights file, ours or one that is recognised, or a package of `export`.

    A package names its engine by its suffix.
    """
    return _loaded(weights.stem, weights, None, settings, progress)


def _loaded(
    name: str, weights: Path, run: Run | None, settings: dict[str, Any], progress: Progress
) -> Loaded:
    given = {key: value for key, value in settings.items() if value is not None}
    if run is None and is_package(weights):
        given["engine"] = engine_of(weights, asked=given.get("engine"))
    config = resolve(PredictConfig(), ("settings", given))
    engine = ENGINES[config.engine.engine]
    engine.check_system()
    file = weights if run is None else engine.file_of(run, weights)
    try:
        restorer, device = engine.open(file, config)
    except FirstCallError as fault:
        config, file = _instead(fault, file, config, weights=None if run is None else weights)
        restorer, device = ENGINES[config.engine.engine].open(file, config)
        progress(Note(text=f"{fault.message}; going on with {device.text}"))
    return Loaded(
        name=name,
        weights=file,
        origin=run,
        restoration=_restoration(restorer, config, device, progress),
        config=config,
        device=device,
    )


def _instead(
    fault: FirstCallError, package: Path, config: PredictConfig, *, weights: Path | None
) -> tuple[PredictConfig, Path]:
    """What is to restore where Core ML's units could not: torch with a run's weights, or the CPU.

    Settings, and the file to compute with. Raises the fault where there is nothing else.
    """
    if weights is not None:
        engine = replace(config.engine, engine="torch", compute_units="auto")
        return replace(config, engine=engine), weights
    if config.engine.compute_units == "cpu":
        raise fault
    engine = replace(config.engine, compute_units="cpu")
    return replace(config, engine=engine), package


def _restoration(
    restorer: Restorer, config: PredictConfig, device: DeviceChoice, progress: Progress
) -> Restoration:
    return Restoration(
        restorer,
        memory_bytes=free_memory_bytes(device),
        settings=config.tiles,
        progress=progress,
    )
