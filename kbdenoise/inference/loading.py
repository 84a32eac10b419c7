"""From a run's name to a restorer that is ready to work, with tiles planned per picture."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdenoise.config import PredictConfig, resolve
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.devices import DeviceChoice, choose_device, enough_memory, free_memory_bytes
from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference.engines import TorchRestorer, load_restorer
from kbdenoise.inference.restore import plan_tiles, restore_image
from kbdenoise.runs.folder import Run, find_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A run with its best weights on a device, and how to tile."""

    run: Run
    restorer: TorchRestorer
    config: PredictConfig
    device: DeviceChoice
    memory_bytes: int

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
    given = {key: value for key, value in settings.items() if value is not None}
    config = resolve(PredictConfig(), ("settings", given))
    run = find_run(name, runs)
    device = choose_device(
        config.device.device, amp=config.device.amp, threads=config.device.threads
    )
    restorer, _card = load_restorer(run.best if run.best.is_file() else run.last, device=device)
    return Loaded(
        run=run,
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
