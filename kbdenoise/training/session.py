"""All that a training run consists of while it goes on, and its trip to the disk and back.

`state.pt` alone decides what a resumed run knows: it is written whole or not at all, after the
weights files, so that a kill between two writes costs some repeated steps and nothing else.
"""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kbdenoise.atomic import write_bytes
from kbdenoise.config import TrainConfig
from kbdenoise.data.batches import Batch
from kbdenoise.data.patches import Sampler
from kbdenoise.data.splits import Split, evenly
from kbdenoise.data.store import Store
from kbdenoise.devices import DeviceChoice
from kbdenoise.errors import DataError
from kbdenoise.imaging.metrics import Metric
from kbdenoise.models.build import channels_last
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import ModelCard, save_weights
from kbdenoise.notation import seconds
from kbdenoise.runs.folder import Run, RunRecord, now
from kbdenoise.runs.history import write_history
from kbdenoise.training.ema import WeightAverage

_STATE_VERSION = 1


@dataclass(slots=True, kw_only=True)
class Session:
    """A run in memory. Counters are since the run's start, over all its sittings."""

    run: Run
    record: RunRecord
    config: TrainConfig
    metric: Metric
    device: DeviceChoice
    info: ModelInfo
    store: Store
    split: Split
    sampler: Sampler[Batch]
    model: nn.Module
    average: WeightAverage
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    elapsed_s: float = 0.0
    """Seconds of all sittings up to the newest save or clock reading."""
    best_score: float = float("nan")
    best_step: int = 0
    mean_loss: float = float("nan")
    """Running mean of the loss, over about a hundred steps."""
    skipped_steps: int = 0
    """Steps whose gradient was not finite."""
    skipped_in_a_row: int = 0
    affordable_pictures: int = 0
    """How many pictures a validation may score for the time limit's sake; 0 means all."""
    validation_s: float = 0.0
    """How long the newest validation took."""
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def channels_last(self) -> bool:
        """Whether the network wants the channels of a pixel side by side in memory."""
        return channels_last(self.info.name, device=self.device.kind)

    @property
    def time_limit_s(self) -> float:
        """0 means none."""
        return seconds(self.config.optimiser.time_limit, name="--time-limit")

    @property
    def validated(self) -> tuple[int, ...]:
        """The held-out pictures scored at validations: all, or an even choice of some."""
        chosen = evenly(self.split.held_out, self.config.validation.val_images)
        return evenly(chosen, self.affordable_pictures)

    @property
    def reserve_s(self) -> float:
        """Seconds of the time limit to keep for the last validation and save."""
        return min(1.2 * self.validation_s + 3.0, 0.5 * self.time_limit_s)

    @property
    def validated_step(self) -> int:
        """The step of the newest validation, 0 before the first."""
        return int(self.history[-1]["step"]) if self.history else 0


def save(session: Session, *, status: str = "running", stopped_by: str = "") -> None:
    """Write last weights, history, record and state, each atomically, the state last."""
    save_weights(session.run.last, session.average.model, card=card(session))
    write_history(session.run.history_file, session.history)
    has_score = session.best_step > 0
    session.record = replace(
        session.record,
        status=status,  # type: ignore[arg-type]
        stopped_by=stopped_by,
        updated_at=now(),
        steps=session.step,
        seconds=round(session.elapsed_s, 1),
        best_score=session.best_score if has_score else None,
        best_step=session.best_step,
    )
    session.run.write_record(session.record)
    content = io.BytesIO()  # torch's own writer turns a full disk into an error of its own
    torch.save(_state(session), content)
    write_bytes(session.run.state_file, content.getvalue())


def load(session: Session) -> None:
    """Put the state on the disk into a freshly built session of the same settings.

    Raises DataError if the file is missing, damaged or of another model.
    """
    state = _read_state(session.run.state_file)
    try:
        session.model.load_state_dict(state["model"])
        if session.average.decay:
            session.average.model.load_state_dict(state["average"])
        session.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:
            session.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"])
        _restore_device_rng(session.device.kind, state.get("device_rng"))
        for name, value in state["counters"].items():
            setattr(session, name, value)
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise DataError(
            f"{session.run.state_file} does not fit its run: {error}",
            hint="the weights in best.safetensors are still good; start a new run",
        ) from error


def card(session: Session) -> ModelCard:
    """What a weights file of this run says about itself."""
    return ModelCard(
        model=session.info.name,
        channels=session.info.channels,
        hyperparameters=session.info.hyperparameters,
        metadata={
            "contest": session.record.contest,
            "run": session.run.name,
            "step": session.step,
            "metric": session.metric.name,
        },
    )


_COUNTERS = (
    "step",
    "elapsed_s",
    "best_score",
    "best_step",
    "mean_loss",
    "skipped_steps",
    "skipped_in_a_row",
    "affordable_pictures",
    "validation_s",
    "history",
)


def _state(session: Session) -> dict[str, Any]:
    return {
        "version": _STATE_VERSION,
        "model": session.model.state_dict(),
        "average": session.average.model.state_dict() if session.average.decay else {},
        "optimiser": session.optimiser.state_dict(),
        "scaler": session.scaler.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "device_rng": _device_rng(session.device.kind),
        "counters": {name: getattr(session, name) for name in _COUNTERS},
    }


def _device_rng(kind: str) -> torch.Tensor | None:
    """The state of the random numbers that dropout draws on a GPU; a CPU has torch's own."""
    if kind == "cuda":
        return torch.cuda.get_rng_state()
    return torch.mps.get_rng_state() if kind == "mps" else None


def _restore_device_rng(kind: str, state: torch.Tensor | None) -> None:
    """Nothing is done where the run was on another kind of device before."""
    if state is not None and kind == "cuda":
        torch.cuda.set_rng_state(state)
    elif state is not None and kind == "mps":
        torch.mps.set_rng_state(state)


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content = io.BytesIO(path.read_bytes())
        state = torch.load(content, map_location="cpu", weights_only=True)
        if state["version"] != _STATE_VERSION:
            raise DataError(f"{path} was written by another version of kbdenoise")
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: the run was stopped before its first save",
            hint="start it again: kbdenoise train",
        ) from error
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check its permissions"
        ) from error
    except Exception as error:  # what torch raises for a damaged file depends on where it is cut
        raise DataError(
            f"cannot read {path}: it is damaged ({type(error).__name__})",
            hint="the weights in best.safetensors are still good; start a new run",
        ) from error
    return dict(state)
