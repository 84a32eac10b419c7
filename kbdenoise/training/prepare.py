"""Everything a training run needs before its first step: data, model, split, session."""

from dataclasses import dataclass

import torch
from torch import nn

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.patches import PatchSampler
from kbdenoise.data.splits import Split, evenly, group_names, split_groups
from kbdenoise.data.store import Store, open_store
from kbdenoise.devices import DeviceChoice
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.metrics import Metric, metric
from kbdenoise.models.zoo import ModelInfo, build_model, describe_model, find_model, named_size
from kbdenoise.progress import Fact, Progress, counting
from kbdenoise.runs.folder import Run, RunRecord, environment, now, write_json
from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Data and model facts that a session is built from."""

    local: LocalContest
    store: Store
    split: Split
    sampler: PatchSampler
    groups: tuple[str, ...]
    info: ModelInfo
    metric: Metric
    device: DeviceChoice


def gather(
    local: LocalContest, config: TrainConfig, device: DeviceChoice, progress: Progress
) -> Material:
    """Check model, patch and pairs, open the store and draw the split; nothing of a run yet.

    Raises SettingsError for settings that do not suit each other and DataError for broken data.
    """
    contest = local.contest
    info = _model_info(config, contest.channels)
    _check_parameters(info, config.model.max_params or contest.max_parameters)
    _check_patch(info, config.data.patch)
    pairs = find_pairs(local)
    store = open_store(
        local, pairs, channels=contest.channels, progress=counting(progress, "read pictures")
    )
    groups = group_names(pairs, contest=contest, clean_checksums=store.clean_checksums)
    split = split_groups(
        groups,
        folds=config.data.folds,
        fold=config.data.fold,
        seed=config.data.seed,
        holdout=contest.holdout,
    )
    material = Material(
        local=local,
        store=store,
        split=split,
        sampler=PatchSampler(
            store,
            split.train,
            patch=config.data.patch,
            batch=config.data.batch,
            seed=config.data.seed,
            flips=config.data.flips,
            turns=config.data.turns,
        ),
        groups=tuple(groups),
        info=info,
        metric=metric(contest.metric),
        device=device,
    )
    for fact in _facts(material, config):
        progress(fact)
    return material


def _model_info(config: TrainConfig, channels: int) -> ModelInfo:
    size = config.model.size or next(iter(find_model(config.model.model).sizes))
    hyperparameters = named_size(config.model.model, size)
    if config.model.width:
        hyperparameters["width"] = config.model.width
    return describe_model(config.model.model, channels=channels, **hyperparameters)


def _check_parameters(info: ModelInfo, limit: int) -> None:
    if limit and info.parameters > limit:
        raise SettingsError(
            f"{info.name} would have {info.parameters:,} parameters, above the limit of {limit:,}",
            hint="choose a smaller --size or --width, or raise --max-params",
        )


def _check_patch(info: ModelInfo, patch: int) -> None:
    if patch % info.multiple:
        raise SettingsError(
            f"--patch {patch} does not suit {info.name}, whose sides are multiples of "
            f"{info.multiple} px",
            hint=f"use --patch {max(1, patch // info.multiple) * info.multiple}",
        )


def _facts(material: Material, config: TrainConfig) -> list[Fact]:
    split, info = material.split, material.info
    fold = f"fold {config.data.fold} of {config.data.folds}"
    if material.local.contest.holdout and config.data.fold == 0:
        fold = "groups " + ", ".join(material.local.contest.holdout)
    held_out_groups = len({material.groups[i] for i in split.held_out})
    return [
        Fact(
            label="data",
            text=f"{material.local.contest.slug}: {len(split.train):,} pairs for training, "
            f"{len(split.held_out):,} held out ({fold}, {held_out_groups:,} whole groups)",
        ),
        Fact(
            label="model",
            text=f"{info.name}: {info.parameters:,} parameters, size multiple {info.multiple}",
        ),
        Fact(label="device", text=material.device.text),
    ]


def new_session(run: Run, material: Material, config: TrainConfig) -> Session:
    """Write the run's fixed files and build the session with fresh weights."""
    local, info, split = material.local, material.info, material.split
    stems = material.store.stems
    write_json(
        run.split_file,
        {
            "train": [stems[i] for i in split.train],
            "held_out": [stems[i] for i in split.held_out],
            "groups": dict(zip(stems, material.groups, strict=True)),
        },
    )
    record = RunRecord(
        contest=local.contest.slug,
        contest_folder=str(local.folder.resolve()),
        metric=material.metric.name,
        model=info.name,
        channels=info.channels,
        parameters=info.parameters,
        device=material.device.text,
        data_checksum=material.store.checksum,
        untouched_score=untouched_score(material, count=config.validation.val_images),
        updated_at=now(),
        **environment(),
    )
    session = build_session(run, record, material, config)
    run.write_record(record)
    return session


def build_session(run: Run, record: RunRecord, material: Material, config: TrainConfig) -> Session:
    """A session before its first step, its weights drawn by the seed."""
    torch.manual_seed(config.data.seed)
    info, device = material.info, material.device
    model = build_model(info.name, channels=info.channels, **info.hyperparameters)
    model = model.to(device.kind).train()
    return Session(
        run=run,
        record=record,
        config=config,
        metric=material.metric,
        device=device,
        info=info,
        store=material.store,
        split=material.split,
        sampler=material.sampler,
        model=model,
        average=WeightAverage(model, decay=config.optimiser.ema),
        optimiser=_optimiser(model, config),
        scaler=torch.amp.GradScaler(device.kind, enabled=device.autocast == "float16"),
    )


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; biases, norms and per-channel scales are not decayed."""
    decayed = [p for p in model.parameters() if p.squeeze().ndim > 1]
    free = [p for p in model.parameters() if p.squeeze().ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.optimiser.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ],
        lr=config.optimiser.lr,
        betas=(0.9, config.optimiser.beta2),
    )


def untouched_score(material: Material, *, count: int = 0) -> float:
    """What the held-out pictures score as they are; `count` as in `evenly`."""
    store, chosen = material.store, material.metric
    scores, sizes = [], []
    for i in evenly(material.split.held_out, count):
        noisy, clean = to_float(store.noisy(i)), to_float(store.clean(i))
        scores.append(chosen.score(noisy, clean))
        sizes.append(clean.size)
    return chosen.pool(scores, sizes)
