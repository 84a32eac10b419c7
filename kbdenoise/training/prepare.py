"""Everything a training run needs before its first step: data, model, memory, session."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.augment import Augmentation
from kbdenoise.data.stages import Samplers
from kbdenoise.devices import DeviceChoice, suited
from kbdenoise.errors import SettingsError
from kbdenoise.models.build import build_model, laid_out
from kbdenoise.models.spec import ModelInfo
from kbdenoise.progress import Fact, Note, Progress
from kbdenoise.runs.folder import Run, RunRecord, environment, now
from kbdenoise.team import ALONE, Team
from kbdenoise.training.adversary import Adversary, check_patches
from kbdenoise.training.distributed import most_pieces, synchronised, wrapped
from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.memory import (
    MemoryPlan,
    Needs,
    checkpoint_blocks,
    cropped_more,
    plan_stages,
    with_batch,
)
from kbdenoise.training.network import check_parameters, check_patch, model_info, started_model
from kbdenoise.training.objective import Objective, make_objective
from kbdenoise.training.optimisers import make_optimiser
from kbdenoise.training.pairs import Pairs, data_fact, open_pairs, untouched_score, write_split
from kbdenoise.training.session import Session, rate_plan
from kbdenoise.training.sinks import check_sinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Data and model facts that a session is built from."""

    pairs: Pairs
    samplers: Samplers
    info: ModelInfo
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
    before: Sequence[MemoryPlan] = (),
) -> Material:
    """Check model, patch and pairs, open the store and draw the split; nothing of a run yet.

    `info` is the model of a run that was begun before; otherwise the settings choose it. `pairs`
    are the contest's, split by the same settings, where they have been opened before; `before` is
    what a run that was begun before planned for each stage.
    Raises SettingsError for settings that do not suit each other and DataError for broken data.
    """
    contest = local.contest
    check_sinks(config.validation.log_to)
    start = None
    if info is None and config.model.init:
        start, info = started_model(config, local)
    info = info or model_info(config, contest.channels)
    check_parameters(info, config.model.max_params or contest.max_parameters)
    device = suited(device, model=info.name, fp16=info.fp16_autocast, bf16=info.bf16_autocast)
    stages = config.stages
    for stage in stages:
        check_patch(info, stage, staged=bool(config.data.stages))
    objective = _objective(config, channels=contest.channels, device=device)
    pairs = pairs or team.after_leader(lambda: open_pairs(local, config, progress))
    needs = Needs.of(info, config, objective, device, team=team)
    page = max(math.isqrt(h * w) for h, w in map(pairs.store.size, pairs.split.train))
    plans = plan_stages(needs, stages, page=page, before=before)
    if not config.data.batch:
        config = with_batch(config, plans[0].batch)
    _check_batches(config, plans, team)
    samplers = _samplers(
        pairs,
        config,
        info,
        pinned=device.kind == "cuda",
        largest=min((plan.largest for plan in plans if plan.largest), default=0),
        share=team.share,
    )
    material = Material(
        pairs=pairs,
        samplers=samplers,
        info=info,
        device=device,
        team=team,
        plans=plans,
        objective=objective,
        config=config,
        start=start,
    )
    for fact in _facts(material):
        progress(fact)
    if text := cropped_more(plans, before):
        progress(Note(text=text))
    return material


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


def _facts(material: Material) -> list[Fact]:
    info, config, metric = material.info, material.config, material.pairs.metric.name
    sees_tone = info.sees_page and metric == "mae-mean-luma"
    return [
        data_fact(material.pairs, config),
        Fact(
            label="model",
            text=f"{info.name}: {info.parameters:,} parameters, size multiple {info.multiple}"
            + (f", from {config.model.init}" if material.start is not None else "")
            + (f"; sees whole pages, as {metric} asks" if sees_tone else ""),
        ),
        Fact(label="device", text=material.device.text + _team_text(material)),
        *(Fact(label="memory", text=plan.text) for plan in material.plans),
    ]


def _team_text(material: Material) -> str:
    size, kind = material.team.size, material.device.kind
    if size == 1:
        return ""
    apart = any(plan.batch_norms for plan in material.plans) and kind != "cuda"
    return f"; {size} processes" + (", whose batch norms each see their own share" if apart else "")


def _check_batches(config: TrainConfig, plans: Sequence[MemoryPlan], team: Team) -> None:
    least = min(stage.batch for stage in config.stages)
    if least < team.size:
        raise SettingsError(
            f"a batch of {least} is too small for {team.size} processes",
            hint=f"use a --batch of {team.size} or more, in every one of --stages; or fewer "
            "processes",
        )
    for plan in plans:
        most = most_pieces(plan.batch, team=team, batch_norms=plan.batch_norms)
        if plan.pieces > most:
            raise SettingsError(
                f"a batch of {plan.batch} on {team.size} processes cannot be taken in "
                f"{plan.pieces} pieces by each, as batch norms over all of them need",
                hint=f"use --accumulate {most}, a --batch that is a multiple of {team.size}, or "
                "another number of processes",
            )


def new_session(run: Run, material: Material) -> Session:
    """Write the run's fixed files and build the session with fresh weights."""
    record = new_record(material)
    if material.team.leads:
        untouched = untouched_score(material.pairs, count=material.config.validation.val_images)
        record = replace(record, untouched_score=untouched)
        write_split(run, material.pairs)
        run.write_record(record)
    return build_session(run, record, material)


def new_record(material: Material) -> RunRecord:
    """What is known of a run before its first step."""
    return RunRecord(
        contest=material.pairs.local.contest.slug,
        contest_folder=str(material.pairs.local.folder.resolve()),
        metric=material.pairs.metric.name,
        model=material.info.name,
        channels=material.info.channels,
        parameters=material.info.parameters,
        device=material.device.text,
        data_checksum=material.pairs.store.checksum,
        memory=[asdict(plan) for plan in material.plans],
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
    model = synchronised(model, team=material.team, device=device)
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
        metric=material.pairs.metric,
        device=device,
        team=material.team,
        info=info,
        store=material.pairs.store,
        split=material.pairs.split,
        samplers=material.samplers,
        plans=material.plans,
        model=model,
        network=wrapped(model, team=material.team),
        average=average,
        objective=material.objective,
        optimiser=make_optimiser(model, config.optimiser),
        scaler=torch.amp.GradScaler(device.kind, enabled=device.autocast == "float16"),
        plan=rate_plan(config),
        adversary=adversary,
    )
    session.now.pieces = material.plans[0].pieces
    session.now.limit_s = session.time_limit_s
    return session
