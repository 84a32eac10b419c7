"""Where the curves of a run are shown beside its own history.csv: TensorBoard, Weights & Biases.

They are guests of a training: one that fails is told of once and left out.
"""

import contextlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from kbdenoise.config import TrainConfig
from kbdenoise.errors import SettingsError, nearest
from kbdenoise.progress import Note, Progress, silent
from kbdenoise.runs.folder import Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_ANSWER_S = 20.0  # how long Weights & Biases' server may take to answer at the start


class Sink(Protocol):
    """Something that draws curves."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite figures of a step; steps come back where training has gone back."""

    def close(self) -> None:
        """Let nothing be lost; no figures follow."""


class TensorBoard:
    """Event files in the run's folder `tensorboard`, for `tensorboard --logdir runs`.

    Where steps come again, after a kill or a divergence, what was drawn from there on is purged.
    """

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self._folder = run.path / "tensorboard"
        self._writer: SummaryWriter | None = None
        self._newest = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point a curve."""
        from torch.utils.tensorboard import SummaryWriter

        if self._writer is None or step < self._newest:
            self.close()
            self._writer = SummaryWriter(str(self._folder), purge_step=step, flush_secs=30)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._newest = step

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A run of Weights & Biases, named like ours, in the project of WANDB_PROJECT or `kbdenoise`.

    Without a login, or where the server does not answer, it is kept in the run's folder `wandb`,
    for `wandb sync`. Of a step that comes again the first figures stay: W&B takes none twice.
    """

    def __init__(self, run: Run, config: TrainConfig) -> None:
        import wandb

        settings = wandb.Settings(silent=True, console="off", init_timeout=_ANSWER_S)
        wandb.setup(settings=settings)
        begin: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", "kbdenoise"),
            "name": run.name,
            "id": "".join(c if c.isalnum() or c in "-_" else "-" for c in run.name),
            "dir": str(run.path),
            "config": asdict(config),
            "resume": "allow",
            "settings": settings,
        }
        if "WANDB_MODE" in os.environ:  # which wandb reads itself
            self._run = wandb.init(**begin)
            return
        try:
            self._run = wandb.init(**begin, mode="online" if _logged_in(wandb) else "offline")
        except wandb.errors.CommError:
            wandb.teardown()  # or else the name counts as taken
            self._run = wandb.init(**begin, mode="offline")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send one point a curve."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is still here."""
        self._run.finish()


SINKS: dict[str, Callable[[Run, TrainConfig], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
}
"""By the names that `--log-to` takes, which are those of the packages and of our extras too."""


class Sinks:
    """All sinks of a run."""

    def __init__(self, sinks: Mapping[str, Sink] | None = None, progress: Progress = silent):
        self._sinks = dict(sinks or {})
        self._progress = progress

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on the figures that are finite."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name, sink in list(self._sinks.items()):
            try:
                sink.log(step, finite)
            except Exception as error:  # whatever it is, it is no reason to stop training
                del self._sinks[name]
                self._progress(_left_out(name, error))

    def close(self) -> None:
        """Close them all."""
        for name, sink in self._sinks.items():
            try:
                sink.close()
            except Exception as error:
                self._progress(_left_out(name, error))
        self._sinks.clear()


def sink_names(log_to: str) -> tuple[str, ...]:
    """The sinks that `--log-to` names, parted by commas or spaces."""
    return tuple(dict.fromkeys(log_to.replace(",", " ").split()))


def check_sinks(log_to: str) -> None:
    """Raise SettingsError for a sink that there is not, or whose package is not installed."""
    for name in sink_names(log_to):
        if name not in SINKS:
            raise SettingsError(f"--log-to knows no '{name}'", hint=nearest(name, SINKS))
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # W&B leaves folders of its name behind
            raise SettingsError(
                f"--log-to {name} needs the package {name}, which is not installed",
                hint=f"pip install 'kbdenoise[{name}]'",
            )


@contextlib.contextmanager
def open_sinks(
    names: Sequence[str], run: Run, config: TrainConfig, progress: Progress
) -> Iterator[Sinks]:
    """Some of SINKS for a run, closed at the end; one that cannot begin is left out."""
    opened: dict[str, Sink] = {}
    for name in names:
        try:
            opened[name] = SINKS[name](run, config)
        except Exception as error:
            progress(_left_out(name, error))
    sinks = Sinks(opened, progress)
    try:
        yield sinks
    finally:
        sinks.close()


def _left_out(name: str, error: Exception) -> Note:
    reason = (str(error).strip().splitlines() or [""])[0]
    text = f"training goes on without {name}: {type(error).__name__}"
    return Note(text=f"{text}: {reason}" if reason else text)


def _logged_in(wandb: Any) -> bool:
    """Whether W&B has a key; nobody is asked for one, as nobody may be there."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # a release that always asks
        return bool(os.environ.get("WANDB_API_KEY"))
