"""Every setting and its default, once.

Options, help panels, `--config FILE`, the README table and a run's config.toml are made from these
dataclasses. Precedence: default < preset < `--config` < option. `0` means off, as TOML has no null.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from kbdenoise.loss_terms import parse_loss
from kbdenoise.notation import (
    Stage,
    amount,
    batch_size,
    parameter_count,
    parse_hyper,
    parse_stages,
    phase_shares,
    sample_count,
    seconds,
)

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
OptimiserName = Literal["adam", "adamw", "sgd", "muon"]
EngineName = Literal["torch", "onnx", "coreml"]
UnitsName = Literal["auto", "ane", "gpu", "cpu", "all"]
FormatName = Literal["coreml", "onnx", "torch"]
FrontendName = Literal["export", "trace"]
KbaForm = Literal["tap", "chunk"]
ScheduleName = Literal["constant", "cosine", "exponential", "one-cycle", "plateau", "step"]


def setting(
    default: Any,
    help: str,
    *,
    min: float | None = None,
    max: float | None = None,
    parse: Callable[[str], Any] | None = None,
) -> Any:
    """A field with its default, the sentence that explains it, and its range.

    `parse` makes the value of a text, where people write it in a form that the type has not.
    """
    metadata = {"help": help, "min": min, "max": max, "parse": parse}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Model"""

    model: str = setting(
        "kbnet-s",
        "Architecture; `kbdenoise models` lists them. A contest of mean luma puts tone+ in front.",
    )
    size: str = setting("", "Named size of the architecture; empty takes its first.")
    width: int = setting(0, "Channels at full resolution; 0 keeps the size's own.", min=0)
    hyper: str = setting(
        "", "Any hyper-parameters, winning over the size: 'encoder_blocks=[2,2,4] norm=none'."
    )
    init: str = setting("", "Weights file to start from; without --model it tells the model.")
    max_params: int = setting(
        0,
        "Refuse a model with more parameters (10M, 500k); 0 leaves it to the contest's limit.",
        min=0,
        parse=parameter_count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Data"""

    patch: int = setting(128, "Side of a training patch, in pixels.", min=16)
    batch: int = setting(
        8,
        "Patches per optimiser step; auto takes what fits at once.",
        min=0,
        max=65_536,
        parse=batch_size,
    )
    stages: str = setting(
        "", "Patches in stages instead, 'side x batch:share': '64x16:50% 128x4:40% page:10%'."
    )
    folds: int = setting(
        0, "Train so many models, each with another part held out; 0: one, a tenth held out.", min=0
    )
    fold: int = setting(-1, "Train only this one of the folds; -1 means all.", min=-1)
    seed: int = setting(0, "Seed of weights, patches and folds.", min=0, max=2**63 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """Augmentation"""

    flips: bool = setting(True, "Mirror patches at random.")
    turns: bool = setting(True, "Turn patches by right angles at random.")
    mixup: float = setting(
        0.0, "Share of the patches that are mixed with another one.", min=0, max=1
    )
    noise: float = setting(
        0.0,
        "Most Gaussian noise added to noisy patches: its deviation, white being 1.",
        min=0,
        max=1,
    )
    camera_noise: float = setting(
        0.0,
        "Most camera noise added, which grows with the light: its deviation at white.",
        min=0,
        max=1,
    )
    print_scan: float = setting(
        0.0,
        "Share of the patches whose noisy side is printed and scanned anew by the simulator.",
        min=0,
        max=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthSettings:
    """Length"""

    steps: int = setting(20_000, "Optimiser steps; the schedule ends with them.", min=1)
    epochs: float = setting(0.0, "Passes over the training pictures, instead of --steps.", min=0)
    samples: int = setting(
        0, "Patches to see, such as 1.6M, instead of --steps.", min=0, parse=sample_count
    )
    time_limit: str = setting(
        "0", "Stop after this long, reading and last validation included (8h, 90m); 0: no limit."
    )
    patience: int = setting(
        0, "Stop after so many validations without a better score; 0 means off.", min=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimiserSettings:
    """Optimiser"""

    loss: str = setting("psnr", "Training loss, or a weighted sum: 'l1 + 0.5*mean-luma'.")
    perceptual_weights: str = setting(
        "", "VGG-16 or VGG-19 weights file, for the loss 'perceptual'."
    )
    optimiser: OptimiserName = setting("adamw", "Optimiser.")
    lr: float = setting(1e-3, "Peak learning rate.", min=0)
    beta1: float = setting(0.9, "Memory of gradients: the momentum.", min=0, max=0.999)
    beta2: float = setting(0.99, "Memory of squared gradients.", min=0.5, max=0.9999)
    weight_decay: float = setting(
        1e-4, "Weight decay; of kernels only, not of biases and scales.", min=0
    )
    clip: float = setting(1.0, "Largest norm of the whole gradient; 0 means off.", min=0)
    ema: float = setting(0.999, "Decay of the averaged weights; 0 means off.", min=0, max=0.99999)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarySettings:
    """Discriminator, for the loss 'adversarial'"""

    adversary_lr: float = setting(2e-4, "Its peak learning rate, that of Adam.", min=0)
    adversary_width: int = setting(64, "Channels of its first layer.", min=1)
    adversary_layers: int = setting(
        3, "Times that it halves the size: 3 judge patches of 70 px.", min=1, max=8
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSettings:
    """Learning rate"""

    schedule: ScheduleName = setting("cosine", "How the learning rate goes from --lr.")
    min_lr: float = setting(1e-6, "Learning rate at the schedule's end, and the least.", min=0)
    warmup: str = setting("2%", "Straight rise at the start: '500 steps', '2 epochs', '2%'.")
    lr_length: str = setting(
        "100%", "What the schedule runs over ('60 epochs', '2M samples'); it then stays at its end."
    )
    restarts: int = setting(0, "Times that the schedule starts again within its length.", min=0)
    lr_decay: float = setting(0.1, "Factor of the schedules step and plateau.", min=0, max=1)
    lr_every: str = setting("30%", "Distance between two drops of the schedule step.")
    lr_patience: int = setting(
        5, "Validations without a better score before the schedule plateau drops.", min=1
    )
    lr_hold_from_epoch: float = setting(
        0.0, "From this epoch on hold the learning rate; 0 means off.", min=0
    )
    lr_hold: float = setting(0.0, "The rate to hold; 0 holds what it is then.", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """Guard against divergence"""

    guard: float = setting(
        10.0, "Go back when the error is so many times its running level; 0 means off.", min=0
    )
    guard_cut: float = setting(
        0.5, "What the learning rate is multiplied by on going back.", min=0.01, max=1
    )
    guard_times: int = setting(4, "Give up when it would go back more often than this.", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DsdSettings:
    """Dense-sparse-dense"""

    dsd: float = setting(
        0.0, "Share of every layer's weights left out in the middle phase; 0: off.", min=0, max=0.99
    )
    dsd_phases: str = setting(
        "40%,30%,30%", "Shares of the run: dense, sparse, dense again; each has the whole schedule."
    )
    dsd_last_lr: float = setting(
        0.1, "What the learning rate is multiplied by in the last phase.", min=0.001, max=1
    )
    dsd_control: bool = setting(
        False, "Go through the same phases with no weight left out, to compare with."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationSettings:
    """Validation and saving"""

    val_every: int = setting(1000, "Steps between validations on whole held-out pictures.", min=1)
    val_images: int = setting(0, "Held-out pictures scored at validations; 0 means all.", min=0)
    val_raw: bool = setting(True, "Score the raw weights beside the averaged ones.")
    save_every: str = setting(
        "5m", "Longest time between two saves of the run's state; 0 saves at validations only."
    )
    log_to: str = setting(
        "", "Where to show the curves beside history.csv: tensorboard, wandb, or both with a comma."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """Memory"""

    accumulate: int = setting(
        0, "Pieces that a batch is taken in, one after another; 0: as many as memory needs.", min=0
    )
    checkpointing: bool = setting(
        False, "Keep few activations and compute the others twice: less memory, more time."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """Device"""

    device: DeviceName = setting("auto", "Where to compute.")
    precision: PrecisionName = setting(
        "auto", "Arithmetic; auto takes mixed precision where the device gains from it."
    )
    threads: int = setting(0, "CPU threads; 0 means all cores.", min=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """All that `train` can be told; each section is a table in TOML and a panel in the help."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    length: LengthSettings = field(default_factory=LengthSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    adversary: AdversarySettings = field(default_factory=AdversarySettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    dsd: DsdSettings = field(default_factory=DsdSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)

    def __post_init__(self) -> None:
        _check_folds(self.data)
        _check_schedule(self.schedule, lr=self.optimiser.lr)
        if self.length.epochs and self.length.samples:
            raise ValueError("--epochs and --samples both say how long to train: leave one out")
        width = parse_hyper(self.model.hyper).get("width", self.model.width)
        if self.model.width and width != self.model.width:
            raise ValueError(f"--width {self.model.width} contradicts width={width} of --hyper")
        parse_loss(self.optimiser.loss)
        if self.dsd.dsd_control and not self.dsd.dsd:
            raise ValueError("--dsd-control needs --dsd, the share that it is compared with")
        phase_shares(self.dsd.dsd_phases)
        parse_stages(self.data.stages, patch=self.data.patch, batch=self.data.batch)
        if self.data.stages and not self.data.batch:
            raise ValueError("--batch auto finds nothing beside --stages, which name each batch")
        seconds(self.length.time_limit, name="--time-limit")
        seconds(self.validation.save_every, name="--save-every")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the patches are in each part of the run; one stage where nothing else is said."""
        return parse_stages(self.data.stages, patch=self.data.patch, batch=self.data.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSettings:
    """Tiles"""

    tile: int = setting(0, "Side of a tile in pixels, at least 64; 0: whole where it fits.", min=0)
    overlap: int = setting(
        -1, "Pixels shared by neighbouring tiles, at most half of one; -1 asks the model.", min=-1
    )
    tta: bool = setting(False, "Average over the eight turns and flips (eight times the work).")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """Model"""

    hyper: str = setting(
        "", "Hyper-parameters that weights do not tell, such as 'noise_level=15' of drunet."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Engine"""

    engine: EngineName = setting(
        "torch", "What computes: torch, or a package of the run that `export` wrote before."
    )
    compute_units: UnitsName = setting(
        "auto", "Parts of the machine that a package's engine may use; auto: the fastest it has."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictConfig:
    """All that `predict`, `evaluate` and `submit` can be told about restoring."""

    model: LoadSettings = field(default_factory=LoadSettings)
    tiles: TileSettings = field(default_factory=TileSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)

    def __post_init__(self) -> None:
        if self.tiles.tile and self.tiles.overlap >= self.tiles.tile:
            raise ValueError(
                f"--overlap {self.tiles.overlap} must be smaller than --tile {self.tiles.tile}"
            )
        parse_hyper(self.model.hyper)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Package"""

    format: FormatName = setting("onnx", "What to write.")
    tile: int = setting(
        256, "Side, in pixels, of the tiles that it is checked with and suggests.", min=64
    )
    precision: Literal["auto", "fp32", "fp16"] = setting(
        "auto", "Arithmetic; auto takes half precision where a format is made for it."
    )
    frontend: FrontendName = setting(
        "export", "How Core ML's converter gets the network: torch.export, or an older trace."
    )
    kba_form: KbaForm = setting(
        "tap", "Kernel-basis attention for Core ML; chunk: fewer operations on coarse levels."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """All that `export` can be told."""

    model: LoadSettings = field(default_factory=LoadSettings)
    export: ExportSettings = field(default_factory=ExportSettings)

    def __post_init__(self) -> None:
        parse_hyper(self.model.hyper)


_WITHOUT_CYCLE = {"constant", "step", "plateau"}


def _check_folds(data: DataSettings) -> None:
    if data.folds == 1:
        raise ValueError("--folds 1 would hold out every picture: choose 2 or more, or 0 for none")
    if data.fold >= 0 and not data.folds:
        raise ValueError(f"--fold {data.fold} needs --folds, the number of parts it is one of")
    if data.fold >= data.folds > 0:
        raise ValueError(
            f"--fold {data.fold} does not exist: --folds {data.folds} are numbered "
            f"0 to {data.folds - 1}"
        )


def _check_schedule(schedule: ScheduleSettings, *, lr: float) -> None:
    if schedule.min_lr > lr:
        raise ValueError(f"--min-lr {schedule.min_lr:g} is above --lr {lr:g}: lower it, too")
    if schedule.lr_hold and not schedule.lr_hold_from_epoch:
        raise ValueError(
            f"--lr-hold {schedule.lr_hold:g} needs --lr-hold-from-epoch, which says from when on"
        )
    if schedule.restarts and schedule.schedule in _WITHOUT_CYCLE:
        raise ValueError(
            f"--restarts {schedule.restarts} needs a schedule that comes to an end, such as cosine;"
            f" {schedule.schedule} has none"
        )
    if schedule.schedule == "exponential" and lr and not schedule.min_lr:
        raise ValueError("--schedule exponential never reaches --min-lr 0: give it another end")
    for name in ("warmup", "lr_length", "lr_every"):
        option = "--" + name.replace("_", "-")
        chosen = amount(getattr(schedule, name), name=option)
        if name != "warmup" and not chosen.value:
            raise ValueError(f"{option} must be more than nothing")
