"""Everything a training run needs before its first step: data, model, split, session."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.augment import Augmentation
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.splits import Split, evenly, group_names, split_groups
from kbdenoise.data.stages import Samplers
from kbdenoise.data.store import Store, open_store
from kbdenoise.devices import DeviceChoice, suited
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.metrics import Metric, metric
from kbdenoise.models.build import build_model, describe_model, laid_out
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import load_weights
from kbdenoise.models.widest import smaller_hint
from kbdenoise.models.zoo import find_model, named_size
from kbdenoise.notation import Stage, parse_hyper
from kbdenoise.progress import Fact, Progress, counting
from kbdenoise.runs.folder import Run, RunRecord, environment, now, write_json
from kbdenoise.team import ALONE, Team
from kbdenoise.training.adversary import Adversary, check_patches
from kbdenoise.training.distributed import wrapped
from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.memory import (
    MemoryPlan,
    Needs,
    checkpoint_blocks,
    plan_stage,
    with_batch,
)
from kbdenoise.training.objective import Objective, make_objective
from kbdenoise.training.optimisers import make_optimiser
from kbdenoise.training.session import Session, rate_plan
from kbdenoise.training.sinks import check_sinks

_USUAL_PARTS = 10  # without --folds, one of so many parts is held out; fewer for fewer groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """A contest's pairs, decoded and split."""

    local: LocalContest
    store: Store
    split: Split
    groups: tuple[str, ...]
    metric: Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Data and model facts that a session is built from."""

    local: LocalContest
    store: Store
    split: Split
    samplers: Samplers
    groups: tuple[str, ...]
    info: ModelInfo
    metric: Metric
    device: DeviceChoice
    team: Team
    plans: tuple[MemoryPlan, ...]
    """For each stage."""
    objective: Objective
    config: TrainConfig
    """The settings, with the batch that was found where it was left to be found."""
    start: nn.Module | None
    """The network to start from, where there is one already."""


def gather(
    local: LocalContest,
    config: TrainConfig,
    device: DeviceChoice,
    progress: Progress,
    *,
    team: Team = ALONE,
    info: ModelInfo | None = None,
    pairs: Pairs | None = None,
) -> Material:
    """Check model, patch and pairs, open the store and draw the split; nothing of a run yet.

    `info` is the model of a run that was begun before; otherwise the settings choose it. `pairs`
    are the contest's, split by the same settings, where they have been opened before.
    Raises SettingsError for settings that do not suit each other and DataError for broken data.
    """
    contest = local.contest
    check_sinks(config.validation.log_to)
    start = None
    if info is None and config.model.init:
        start, info = _started_model(config, local)
    info = info or _model_info(config, contest.channels)
    _check_parameters(info, config.model.max_params or contest.max_parameters)
    device = suited(device, model=info.name, fp16=info.fp16_autocast, bf16=info.bf16_autocast)
    stages = config.stages
    for stage in stages:
        _check_patch(info, stage, staged=bool(config.data.stages))
    pairs = pairs or team.after_leader(lambda: open_pairs(local, config, progress))
    needs = Needs.of(info, config, device, processes=team.size)
    page = max(math.isqrt(h * w) for h, w in map(pairs.store.size, pairs.split.train))
    plans = tuple(plan_stage(needs, stage, page=page) for stage in stages)
    if not config.data.batch:
        config = with_batch(config, plans[0].batch)
    _check_batches(config, team)
    samplers = _samplers(
        pairs,
        config,
        info,
        pinned=device.kind == "cuda",
        largest=min((plan.largest for plan in plans if plan.largest), default=0),
        share=team.share,
    )
    material = Material(
        local=local,
        store=pairs.store,
        split=pairs.split,
        samplers=samplers,
        groups=pairs.groups,
        info=info,
        metric=pairs.metric,
        device=device,
        team=team,
        plans=plans,
        objective=_objective(config, channels=contest.channels, device=device),
        config=config,
        start=start,
    )
    for fact in _facts(material):
        progress(fact)
    return material


def open_pairs(local: LocalContest, config: TrainConfig, progress: Progress) -> Pairs:
    """Find and decode the contest's pairs and draw the split. Raises DataError, SettingsError."""
    contest = local.contest
    pairs = find_pairs(local)
    store = open_store(
        local, pairs, channels=contest.channels, progress=counting(progress, "read pictures")
    )
    groups = group_names(pairs, contest=contest, clean_checksums=store.clean_checksums)
    return Pairs(
        local=local,
        store=store,
        split=_split(groups, config, local),
        groups=tuple(groups),
        metric=metric(contest.metric),
    )


def split_anew(pairs: Pairs, config: TrainConfig) -> Pairs:
    """The same pairs, split as other settings ask for."""
    return replace(pairs, split=_split(pairs.groups, config, pairs.local))


def _split(groups: Sequence[str], config: TrainConfig, local: LocalContest) -> Split:
    return split_groups(
        groups,
        folds=parts_of(groups, config),
        fold=max(0, config.data.fold),
        seed=config.data.seed,
        holdout=local.contest.holdout,
    )


def _model_info(config: TrainConfig, channels: int) -> ModelInfo:
    size = config.model.size or next(iter(find_model(config.model.model).sizes))
    hyperparameters = named_size(config.model.model, size) | _own_hyperparameters(config)
    return describe_model(config.model.model, channels=channels, **hyperparameters)


def _own_hyperparameters(config: TrainConfig) -> dict[str, Any]:
    width = {"width": config.model.width} if config.model.width else {}
    return width | parse_hyper(config.model.hyper)


def _started_model(config: TrainConfig, local: LocalContest) -> tuple[nn.Module, ModelInfo]:
    """The network of `--init`, which has to be the one that the other settings ask for."""
    chosen, path = config.model, Path(config.model.init)
    named = named_size(chosen.model, chosen.size) if chosen.size else {}
    try:
        model, card = load_weights(path, **(named | _own_hyperparameters(config)))
    except SettingsError as error:
        asked = {"--size": chosen.size, "--width": chosen.width, "--hyper": chosen.hyper}
        options = " ".join(f"{option} {value}" for option, value in asked.items() if value)
        raise SettingsError(f"{options}: {error.message}", hint=error.hint) from error
    if card.channels != local.contest.channels:
        kinds = {1: "gray", 3: "colour"}
        have, need = (kinds.get(c, f"{c}-channel") for c in (card.channels, local.contest.channels))
        raise SettingsError(
            f"--init {path} holds a {card.model} for {have} pictures, but the contest "
            f"{local.contest.slug} has {need} ones",
            hint=f"choose weights for {need} pictures, or train without --init",
        )
    return model, describe_model(card.model, channels=card.channels, **card.hyperparameters)


def _check_parameters(info: ModelInfo, limit: int) -> None:
    """Refuse a model over the limit, and say what fits. A resumed run is checked again."""
    if limit and info.parameters > limit:
        raise SettingsError(
            f"{info.name} would have {info.parameters:,} parameters, above the limit of {limit:,}",
            hint=smaller_hint(
                info.name, channels=info.channels, limit=limit, **info.hyperparameters
            ),
        )


def _check_patch(info: ModelInfo, stage: Stage, *, staged: bool) -> None:
    if stage.patch % info.multiple:
        fitting = max(1, stage.patch // info.multiple) * info.multiple
        written = f"--stages {stage.patch}x{stage.batch}" if staged else f"--patch {stage.patch}"
        raise SettingsError(
            f"{written} does not suit {info.name}, whose sides are multiples of {info.multiple} px",
            hint=f"use {fitting}x{stage.batch} in --stages" if staged else f"use --patch {fitting}",
        )


def _objective(config: TrainConfig, *, channels: int, device: DeviceChoice) -> Objective:
    objective = make_objective(
        config.optimiser.loss,
        channels=channels,
        patch=min((s.patch for s in config.stages if not s.pages), default=config.data.patch),
        perceptual_weights=config.optimiser.perceptual_weights,
        device=device.kind,
    )
    if objective.adversarial_weight:
        check_patches(config)
    return objective


def _samplers(
    pairs: Pairs,
    config: TrainConfig,
    info: ModelInfo,
    *,
    pinned: bool,
    largest: int,
    share: tuple[int, int],
) -> Samplers:
    """What makes the patches of each stage. Raises SettingsError if pictures are too small."""
    wanted = config.augmentation
    return Samplers(
        store=pairs.store,
        indices=pairs.split.train,
        stages=config.stages,
        seed=config.data.seed,
        flips=wanted.flips,
        turns=wanted.turns,
        augmentation=Augmentation(
            mixup=wanted.mixup,
            noise=wanted.noise,
            camera_noise=wanted.camera_noise,
            print_scan=wanted.print_scan,
        ),
        multiple=info.multiple,
        pages=info.sees_page,
        pinned=pinned,
        largest=largest,
        share=share,
        option="--stages with sides of" if config.data.stages else "--patch",
    )


def parts_of(groups: Sequence[str], config: TrainConfig) -> int:
    """How many parts the pictures are divided into, of which one is held out."""
    return config.data.folds or max(2, min(_USUAL_PARTS, len(set(groups))))


def data_fact(pairs: Pairs | Material, config: TrainConfig) -> Fact:
    """How many pairs there are, and which are held out."""
    split = pairs.split
    fold = f"fold {max(0, config.data.fold)} of {parts_of(pairs.groups, config)}"
    if pairs.local.contest.holdout and config.data.fold <= 0:
        fold = "groups " + ", ".join(pairs.local.contest.holdout)
    held_out_groups = len({pairs.groups[i] for i in split.held_out})
    return Fact(
        label="data",
        text=f"{pairs.local.contest.slug}: {len(split.train):,} pairs for training, "
        f"{len(split.held_out):,} held out ({fold}, {held_out_groups:,} whole groups)",
    )


def _facts(material: Material) -> list[Fact]:
    info, config = material.info, material.config
    return [
        data_fact(material, config),
        Fact(
            label="model",
            text=f"{info.name}: {info.parameters:,} parameters, size multiple {info.multiple}"
            + (f", from {config.model.init}" if material.start is not None else ""),
        ),
        Fact(label="device", text=material.device.text + _team_text(material.team)),
        *(Fact(label="memory", text=plan.text) for plan in material.plans),
    ]


def _team_text(team: Team) -> str:
    return f"; {team.size} processes" if team.size > 1 else ""


def _check_batches(config: TrainConfig, team: Team) -> None:
    least = min(stage.batch for stage in config.stages)
    if least < team.size:
        raise SettingsError(
            f"a batch of {least} is too small for {team.size} processes",
            hint=f"use a --batch of {team.size} or more, in every one of --stages; or fewer "
            "processes",
        )


def write_split(run: Run, pairs: Pairs | Material) -> None:
    """Write which pictures are trained on, which are held out, and their groups."""
    split, stems = pairs.split, pairs.store.stems
    write_json(
        run.split_file,
        {
            "train": [stems[i] for i in split.train],
            "held_out": [stems[i] for i in split.held_out],
            "groups": dict(zip(stems, pairs.groups, strict=True)),
        },
    )


def new_session(run: Run, material: Material) -> Session:
    """Write the run's fixed files and build the session with fresh weights."""
    record = new_record(material)
    if material.team.leads:
        untouched = untouched_score(material, count=material.config.validation.val_images)
        record = replace(record, untouched_score=untouched)
        write_split(run, material)
        run.write_record(record)
    return build_session(run, record, material)


def new_record(material: Material) -> RunRecord:
    """What is known of a run before its first step."""
    return RunRecord(
        contest=material.local.contest.slug,
        contest_folder=str(material.local.folder.resolve()),
        metric=material.metric.name,
        model=material.info.name,
        channels=material.info.channels,
        parameters=material.info.parameters,
        device=material.device.text,
        data_checksum=material.store.checksum,
        updated_at=now(),
        **environment(),
    )


def build_session(run: Run, record: RunRecord, material: Material) -> Session:
    """A session before its first step, its weights drawn by the seed or taken from a file."""
    info, device, config = material.info, material.device, material.config
    torch.manual_seed(config.data.seed)
    model = material.start
    if model is None:
        model = build_model(info.name, channels=info.channels, **info.hyperparameters)
    model = laid_out(model.to(device.kind), name=info.name, device=device.kind).train()
    average = WeightAverage(model, decay=config.optimiser.ema)
    if config.memory.checkpointing:
        checkpoint_blocks(model)  # after the average was copied, which keeps its own forward
    adversary = None
    if material.objective.adversarial_weight:
        adversary = Adversary(config, channels=info.channels, device=device, team=material.team)
    session = Session(
        run=run,
        record=record,
        config=config,
        metric=material.metric,
        device=device,
        team=material.team,
        info=info,
        store=material.store,
        split=material.split,
        samplers=material.samplers,
        plans=material.plans,
        model=model,
        network=wrapped(model, team=material.team, device=device),
        average=average,
        objective=material.objective,
        optimiser=make_optimiser(model, config.optimiser),
        scaler=torch.amp.GradScaler(device.kind, enabled=device.autocast == "float16"),
        plan=rate_plan(config),
        adversary=adversary,
    )
    session.now.pieces = material.plans[0].pieces
    return session


def untouched_score(pairs: Pairs | Material, *, count: int = 0) -> float:
    """What the held-out pictures score as they are; `count` as in `evenly`."""
    store, chosen = pairs.store, pairs.metric
    scores, sizes = [], []
    for i in evenly(pairs.split.held_out, count):
        noisy, clean = to_float(store.noisy(i)), to_float(store.clean(i))
        scores.append(chosen.score(noisy, clean))
        sizes.append(clean.size)
    return chosen.pool(scores, sizes)
