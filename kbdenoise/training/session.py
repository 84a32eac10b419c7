"""All that a training run consists of while it goes on."""

from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kbdenoise.config import TrainConfig
from kbdenoise.data.batches import Batch
from kbdenoise.data.patches import prefetch
from kbdenoise.data.splits import Split, evenly
from kbdenoise.data.stages import Samplers
from kbdenoise.data.store import Store
from kbdenoise.devices import DeviceChoice
from kbdenoise.imaging.metrics import Metric
from kbdenoise.models.build import channels_last
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import ModelCard
from kbdenoise.notation import Amount, Stage, amount, phase_shares, seconds, stage_at
from kbdenoise.runs.folder import Run, RunRecord
from kbdenoise.team import Team
from kbdenoise.training.adversary import Adversary
from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.guard import Watch
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.memory import MemoryPlan
from kbdenoise.training.objective import Objective
from kbdenoise.training.schedules import Moment, RatePlan, learning_rate, plateaus
from kbdenoise.training.sinks import Sinks
from kbdenoise.training.sparsity import (
    PHASES,
    SPARSE,
    keep_moments,
    keep_weights,
    masks_by_size,
    phase_at,
    within,
)

_MOST_AHEAD, _AHEAD_BYTES = 8, 512 * 2**20


@dataclass(slots=True, kw_only=True)
class Counters:
    """What a run knows of itself, since its start, over all its sittings."""

    step: int = 0
    samples: int = 0
    """Patches seen, by all processes."""
    elapsed_s: float = 0.0
    """Seconds of all sittings up to the newest save or clock reading."""
    best_score: float = float("nan")
    best_step: int = 0
    best_weights: str = ""
    """'averaged' or 'raw': which of them scored best."""
    mean_loss: float = float("nan")
    """Running mean of the loss, over about a hundred steps."""
    skipped_steps: int = 0
    """Steps whose gradient was not finite."""
    stage: int = 0
    stage_began: int = 0
    """The first step of the stage."""
    phase: int = 0
    """Of dense-sparse-dense training."""
    phase_began: int = 0
    """The first step of the phase."""
    phase_samples: int = 0
    """Patches seen before the phase."""
    pieces: int = 1
    """A batch is taken in so many, one after the other."""
    rate: float = 0.0
    """What the schedule wanted of the newest step, before `rate_cut` and the last phase's drop."""
    rate_cut: float = 1.0
    """What the schedule's rate is multiplied by, after divergences."""
    went_back: int = 0
    """How often training diverged and went back."""
    affordable_pictures: int = 0
    """How many pictures a validation may score for the time limit's sake; 0 means all."""
    validation_s: float = 0.0
    """How long the newest validation took."""
    step_s: float = 0.0
    """The longest step lately, with its wait for patches."""
    save_s: float = 0.0
    """How long the newest save took."""
    trained_s: float = 0.0
    """Seconds of training, without those in which a sitting begins."""
    time_share: float = 0.0
    """Share of the time for training that is over; it falls with a longer time limit only."""
    limit_s: float = 0.0
    """The time limit that `time_share` was laid for."""


@dataclass(slots=True, kw_only=True)
class Session:
    """A run in memory."""

    run: Run
    record: RunRecord
    config: TrainConfig
    metric: Metric
    device: DeviceChoice
    team: Team
    info: ModelInfo
    store: Store
    split: Split
    samplers: Samplers
    plans: tuple[MemoryPlan, ...]
    """What each stage needs of memory."""
    model: nn.Module
    network: nn.Module
    """The model as it is trained: itself, or wrapped for several processes."""
    average: WeightAverage
    objective: Objective
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    plan: RatePlan
    adversary: Adversary | None = None
    """The discriminator, where the loss asks for one."""
    masks: dict[str, Tensor] = field(default_factory=dict)
    """Which weights are kept, in the sparse phase; empty otherwise."""
    now: Counters = field(default_factory=Counters)
    watch: Watch = field(default_factory=Watch)
    history: list[dict[str, float]] = field(default_factory=list)
    sinks: Sinks = field(default_factory=Sinks)
    """Where the curves are shown beside the history; nowhere on processes that do not lead."""
    request: StopRequest = field(default_factory=StopRequest)

    @property
    def channels_last(self) -> bool:
        """Whether the network wants the channels of a pixel side by side in memory."""
        return channels_last(self.info.name, device=self.device.kind)

    @property
    def time_limit_s(self) -> float:
        """0 means none."""
        return seconds(self.config.length.time_limit, name="--time-limit")

    @property
    def last_step(self) -> int:
        """How many steps the run has in all."""
        return total_steps(self.config, pictures=len(self.split.train))

    @property
    def validated(self) -> tuple[int, ...]:
        """The held-out pictures scored at validations: all, or an even choice of some."""
        chosen = evenly(self.split.held_out, self.config.validation.val_images)
        return evenly(chosen, self.now.affordable_pictures)

    @property
    def end_s(self) -> float:
        """When training ends for the time limit's sake, so that what follows is within it.

        Kept are a step that has begun, the last validation, and what is saved around it: two
        states and the best weights, of which a first save says too little, as the optimiser
        remembers nothing yet.
        """
        now = self.now
        kept_s = 1.2 * now.validation_s + now.step_s + 4.0 * now.save_s + 3.0
        return self.time_limit_s - min(kept_s, 0.5 * self.time_limit_s)

    @property
    def out_of_time(self) -> bool:
        """Whether the time limit leaves room for no other step."""
        return bool(self.time_limit_s) and self.now.elapsed_s >= self.end_s

    def pass_time(self, elapsed_s: float) -> None:
        """Take in that the run's clock shows `elapsed_s`, after some training.

        The share of the time goes on from where it is, straight to 1 at the end as it is seen now.
        """
        now = self.now
        passed_s, left_s = elapsed_s - now.elapsed_s, self.end_s - now.elapsed_s
        now.elapsed_s, now.trained_s = elapsed_s, now.trained_s + passed_s
        if self.time_limit_s:
            done = passed_s / left_s if passed_s < left_s else 1.0
            now.time_share += (1.0 - now.time_share) * done

    def stretch_time(self) -> None:
        """Lay the share of the time anew, where a run has been given another time limit."""
        if self.now.limit_s == self.time_limit_s:
            return
        self.now.limit_s = self.time_limit_s
        left_s = max(0.0, self.end_s - self.now.elapsed_s)
        self.now.time_share = self.now.trained_s / max(self.now.trained_s + left_s, 1e-9)

    @property
    def validated_step(self) -> int:
        """The step of the newest validation, 0 before the first."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def out_of_patience(self) -> bool:
        """Whether enough validations brought nothing; of phases only the last can end a run."""
        patience, now = self.config.length.patience, self.now
        if not patience or (self.config.dsd.dsd and now.phase < len(PHASES) - 1):
            return False
        since = max(now.best_step, now.phase_began)
        return sum(row["step"] > since for row in self.history) >= patience

    def moment(self) -> Moment:
        """How far the run is before its next step."""
        share = self.now.step / self.last_step
        if self.time_limit_s:
            share = max(share, self.now.time_share)
        return Moment(
            steps=self.now.step,
            epochs=self.now.samples / len(self.split.train),
            samples=self.now.samples,
            run=min(1.0, share),
        )

    def rate_moment(self) -> Moment:
        """How far the schedule of the learning rate is: of the phase, or else of the run."""
        whole, now = self.moment(), self.now
        if not self.config.dsd.dsd:
            return whole
        samples = now.samples - now.phase_samples
        return Moment(
            steps=now.step - now.phase_began,
            epochs=samples / len(self.split.train),
            samples=samples,
            run=within(phase_shares(self.config.dsd.dsd_phases), now.phase, whole.run),
        )

    def scheduled_rate(self) -> float:
        """The learning rate that the schedule wants of the next step."""
        began = self.now.phase_began
        drops = plateaus(
            [row["val_score"] for row in self.history if row["step"] > began],
            patience=self.config.schedule.lr_patience,
            lower_is_better=self.metric.lower_is_better,
        )
        return learning_rate(self.plan, self.rate_moment(), drops=drops, last=self.now.rate)

    def batches(self) -> Generator[Batch, None, None]:
        """This process's share of the stage's batches from the next step on, made ahead."""
        sampler = self.samplers.of(self.now.stage, first_step=self.now.stage_began)
        depth = batches_ahead(self.stage, side=self.plans[self.now.stage].side)
        return prefetch(sampler, start=self.now.step, stop=self.last_step, depth=depth)

    @property
    def stage(self) -> Stage:
        """What the patches are at present."""
        return self.samplers.stages[self.now.stage]

    def next_stage(self) -> bool:
        """Whether a new stage begins with the next step; then the session is in it."""
        number = stage_at(self.samplers.stages, self.moment().run)
        if number <= self.now.stage:
            return False
        self.now.stage, self.now.stage_began = number, self.now.step
        self.now.pieces = self.plans[number].pieces
        return True

    @property
    def ends_phase(self) -> bool:
        """Whether a new phase of dense-sparse-dense training begins with the next step.

        None ends before its first step, however late it is.
        """
        wanted = self.config.dsd
        if not wanted.dsd or self.now.step == self.now.phase_began:
            return False
        return phase_at(phase_shares(wanted.dsd_phases), self.moment().run) > self.now.phase

    def next_phase(self) -> None:
        """Begin the next phase: leave weights out, or take them in again."""
        self.now.phase += 1
        self.now.phase_began, self.now.phase_samples = self.now.step, self.now.samples
        wanted, self.masks = self.config.dsd, {}
        if self.now.phase == SPARSE and not wanted.dsd_control:
            self.masks = masks_by_size(self.model, self.info, sparsity=wanted.dsd)
            keep_moments(self.optimiser, self.model, self.masks)
            self.keep_masked()

    def keep_masked(self) -> None:
        """Hold the weights that are left out at zero, the averaged ones too."""
        if self.masks:
            keep_weights(self.model, self.masks)
            keep_weights(self.average.model, self.masks)


def batches_ahead(stage: Stage, *, side: int) -> int:
    """How many batches are made ahead: fewer of large pages, so that they fit into the memory."""
    picture_bytes = 2 * 3 * 4 * side**2  # noisy and clean, three channels of at most four bytes
    return max(1, min(_MOST_AHEAD, _AHEAD_BYTES // (stage.batch * picture_bytes)))


def total_steps(config: TrainConfig, *, pictures: int) -> int:
    """Optimiser steps of a whole run, from `--steps`, `--epochs` or `--samples`."""
    length = config.length
    patches = length.samples or length.epochs * pictures
    a_step = sum(stage.share * stage.batch for stage in config.stages)
    return max(1, round(patches / a_step)) if patches else length.steps


def rate_plan(config: TrainConfig) -> RatePlan:
    """What the settings want of the learning rate."""
    wanted = config.schedule
    hold_from = wanted.lr_hold_from_epoch or float("inf")
    return RatePlan(
        schedule=wanted.schedule,
        lr=config.optimiser.lr,
        min_lr=wanted.min_lr,
        warmup=amount(wanted.warmup, name="--warmup"),
        length=amount(wanted.lr_length, name="--lr-length"),
        restarts=wanted.restarts,
        decay=wanted.lr_decay,
        every=amount(wanted.lr_every, name="--lr-every"),
        hold_from=Amount(hold_from, "epochs"),
        hold=wanted.lr_hold,
    )


def card(session: Session, *, weights: str) -> ModelCard:
    """What a weights file of this run says about itself; `weights` is 'averaged' or 'raw'."""
    return ModelCard(
        model=session.info.name,
        channels=session.info.channels,
        hyperparameters=session.info.hyperparameters,
        metadata={
            "contest": session.record.contest,
            "run": session.run.name,
            "step": session.now.step,
            "metric": session.metric.name,
            "weights": weights,
        },
    )
