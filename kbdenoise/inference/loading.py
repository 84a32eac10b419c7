"""From the name of a run or of a weights file to a restorer, with tiles planned per picture."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdenoise.config import PredictConfig, resolve
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.devices import DeviceChoice, choose_device, enough_memory, free_memory_bytes
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference.engines import Restorer, load_restorer
from kbdenoise.inference.filters import FilterRestorer, filter_device, read_filter
from kbdenoise.inference.restore import plan_tiles, restore_image
from kbdenoise.notation import parse_hyper
from kbdenoise.runs.folder import Run, find_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A run's best weights, or those of a file, on a device, and how to tile."""

    name: str
    """Of the run, or of the weights file without its suffix."""
    weights: Path
    origin: Run | None
    """The run that the weights are of; None for a file that was named by itself."""
    restorer: Restorer
    config: PredictConfig
    device: DeviceChoice
    memory_bytes: int

    @property
    def run(self) -> Run:
        """The run that the weights are of. Raises SettingsError where there is none."""
        if self.origin is None:
            raise SettingsError(f"{self.weights} belongs to no run", hint="name a run instead")
        return self.origin

    def plan(self, height: int, width: int) -> TilePlan:
        """How a picture of this size, in pixels, is cut."""
        return plan_tiles(
            self.restorer,
            height=height,
            width=width,
            settings=self.config.tiles,
            memory_bytes=self.memory_bytes,
        )

    def restore(self, image: FloatImage) -> FloatImage:
        """Restore float32 [H, W, 1 or 3] in [0, 1]; same shape and range."""
        plan = self.plan(image.shape[0], image.shape[1])
        with enough_memory("restoring a picture", hint="use smaller tiles, such as --tile 256"):
            return restore_image(image, self.restorer, plan=plan, tta=self.config.tiles.tta)


def load_run(name: str, *, runs: Path, **settings: Any) -> Loaded:
    """The best weights of a run, on the device that the settings (of PredictConfig) ask for."""
    run = find_run(name, runs)
    if run.filter_file.is_file():
        return _loaded_filter(run, settings)
    weights = run.best if run.best.is_file() else run.last
    if not weights.is_file():
        if (model := run.read_record().model) in FILTERS:
            raise DataError(
                f"{run.filter_file} does not exist: choosing the filter was not finished",
                hint=f"train it anew: kbdenoise train --model {model}",
            )
        raise DataError(
            f"{weights} does not exist: the run has not been validated or saved yet",
            hint=f"let it train on: kbdenoise train --resume {run.name}",
        )
    return _loaded(run.name, weights, run, settings)


def _loaded_filter(run: Run, settings: dict[str, Any]) -> Loaded:
    """A classical filter; it needs no device but the CPU, whatever the settings ask for."""
    given = {key: value for key, value in settings.items() if value is not None}
    config = resolve(PredictConfig(), ("settings", given))
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
        restorer=FilterRestorer(read_filter(run.filter_file)),
        config=config,
        device=device,
        memory_bytes=free_memory_bytes(device),
    )


def load_file(weights: Path, **settings: Any) -> Loaded:
    """The network of a weights file, ours or one that is recognised, as `load_run` does."""
    return _loaded(weights.stem, weights, None, settings)


def _loaded(name: str, weights: Path, run: Run | None, settings: dict[str, Any]) -> Loaded:
    given = {key: value for key, value in settings.items() if value is not None}
    config = resolve(PredictConfig(), ("settings", given))
    device = choose_device(
        config.device.device, amp=config.device.amp, threads=config.device.threads
    )
    restorer, _card = load_restorer(
        weights, device=device, hyperparameters=parse_hyper(config.model.hyper)
    )
    return Loaded(
        name=name,
        weights=weights,
        origin=run,
        restorer=restorer,
        config=config,
        device=device,
        memory_bytes=free_memory_bytes(device),
    )


def contest_of(run: Run, name: str | Path | None, *, data: Path) -> LocalContest:
    """The contest that was asked for by name, or the one that the run was trained on."""
    if name is not None:
        return open_contest(name, data=data)
    record = run.read_record()
    folder = Path(record.contest_folder)
    if not os.path.isdir(folder):  # the whole project may have moved
        return open_contest(record.contest, data=data)
    return open_contest(folder, data=folder.parent)
