"""Train a model on a contest's pairs: choose the settings, build the session, run or resume it."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kbdenoise.atomic import write_text
from kbdenoise.config import (
    PRESETS,
    Preset,
    TrainConfig,
    read_settings,
    resolve,
    section_of,
    to_toml,
    validated,
)
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.patches import PatchSampler
from kbdenoise.data.splits import Split, group_names, split_groups
from kbdenoise.data.store import Store, open_store
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import DataError, SettingsError, nearest
from kbdenoise.imaging.files import to_float
from kbdenoise.imaging.metrics import Metric, metric
from kbdenoise.models.zoo import ModelInfo, build_model, describe_model, named_size
from kbdenoise.progress import Fact, Progress, counting, silent
from kbdenoise.runs.folder import (
    Run,
    RunRecord,
    create_run,
    environment,
    find_run,
    now,
    read_json,
    write_json,
)
from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.loop import run_steps
from kbdenoise.training.session import Session, load

# What a resumed run may be told anew; everything else would make it another run.
CHANGEABLE = ("steps", "time_limit", "save_every", "device", "threads")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What `train` made. Scores are in the contest metric's unit, over the held-out pictures."""

    run: Path
    metric: str
    unit: str
    best_score: float
    best_step: int
    untouched_score: float
    """What the held-out pictures score as they are."""
    steps: int
    seconds: float
    stopped_by: str
    """'steps', 'time limit', 'interrupt' or 'dry run'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """Data and model facts that a session is built from."""

    local: LocalContest
    store: Store
    split: Split
    sampler: PatchSampler
    groups: tuple[str, ...]
    info: ModelInfo
    metric: Metric
    device: DeviceChoice


def train(
    name: str | Path | None = None,
    *,
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    preset: Preset = "standard",
    config: Path | None = None,
    resume: str | None = None,
    run_name: str = "",
    dry_run: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> TrainResult:
    """Train on a contest's pairs and keep the weights that score best on held-out pictures.

    `name` is a contest in the folder `data` (None: the only one). Further keyword arguments are
    settings of TrainConfig by name, and win over the TOML file `config`, which wins over `preset`.
    `resume` names a run to go on with; then only steps, time limit, device and the like may be
    given. The first Ctrl-C or SIGTERM saves and returns with `stopped_by="interrupt"`.

    Raises SettingsError for a request that makes no sense and DataError for broken data.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    if resume is not None:
        session = _resumed(resume, given, runs=runs, config=config, progress=progress)
    else:
        device = _device(given, config)
        chosen = effective_settings(preset, device.kind, config, given)
        material = _material(open_contest(name, data=data), chosen, device, progress)
        if dry_run:
            return _dry_result(material)
        run = create_run(runs, model=chosen.model.model, name=run_name)
        session = _new_session(run, material, chosen)
    progress(Fact(label="run", text=str(session.run.path)))
    with StopRequest() as request:
        stopped_by = run_steps(session, asked_to_stop=lambda: request.asked, progress=progress)
    return _result(session, stopped_by)


def effective_settings(
    preset: Preset, kind: str, config: Path | None, given: Mapping[str, Any]
) -> TrainConfig:
    """Defaults, then the preset for this kind of device, then the TOML file, then what is given."""
    if preset not in PRESETS:
        raise SettingsError(f"no preset is called '{preset}'", hint=nearest(preset, PRESETS))
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"preset {preset}", PRESETS[preset]["cpu" if kind == "cpu" else "gpu"])
    ]
    if config is not None:
        layers.append((str(config), read_settings(TrainConfig, config)))
    return resolve(TrainConfig(), *layers, ("settings", given))


def _device(given: Mapping[str, Any], config: Path | None) -> DeviceChoice:
    """The device has to be known before the preset, which depends on it."""
    from_file = read_settings(TrainConfig, config) if config is not None else {}
    known = section_of(TrainConfig)
    asked = {k: v for k, v in {**from_file, **given}.items() if known.get(k) == "device"}
    settings = resolve(TrainConfig(), ("settings", asked)).device
    return choose_device(settings.device, amp=settings.amp, threads=settings.threads)


def _material(
    local: LocalContest, config: TrainConfig, device: DeviceChoice, progress: Progress
) -> _Material:
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
    material = _Material(
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
    from kbdenoise.models.zoo import find_model

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


def _facts(material: _Material, config: TrainConfig) -> list[Fact]:
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


def _new_session(run: Run, material: _Material, config: TrainConfig) -> Session:
    """Write the run's fixed files and build the session with fresh weights."""
    local, info, split = material.local, material.info, material.split
    write_text(run.config_file, to_toml(config))
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
        untouched_score=_untouched(material),
        updated_at=now(),
        **environment(),
    )
    session = _session(run, record, material, config)
    run.write_record(record)
    return session


def _session(run: Run, record: RunRecord, material: _Material, config: TrainConfig) -> Session:
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
        optimiser=torch.optim.AdamW(
            model.parameters(),
            lr=config.optimiser.lr,
            weight_decay=config.optimiser.weight_decay,
        ),
        scaler=torch.amp.GradScaler(device.kind, enabled=device.autocast == "float16"),
    )


def _resumed(
    name: str,
    given: Mapping[str, Any],
    *,
    runs: Path,
    config: Path | None,
    progress: Progress,
) -> Session:
    run = find_run(name, runs)
    if config is not None:
        raise SettingsError(
            "--resume takes its settings from the run, not from --config",
            hint=f"leave --config out; see {run.config_file}",
        )
    record = run.read_record()
    before = _run_config(run)
    _check_changes(before, given, run)
    chosen = resolve(before, ("settings", given))
    device = choose_device(
        chosen.device.device, amp=chosen.device.amp, threads=chosen.device.threads
    )
    folder = Path(record.contest_folder)
    material = _material(open_contest(folder, data=folder.parent), chosen, device, progress)
    _check_same_data(run, record, material)
    session = _session(run, record, material, chosen)
    load(session)
    _check_something_left(session)
    write_text(run.config_file, to_toml(chosen))
    return session


def _run_config(run: Run) -> TrainConfig:
    try:
        content = tomllib.loads(run.config_file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read {run.config_file}: {error}") from error
    return validated(TrainConfig, content, source=str(run.config_file))


def _check_changes(before: TrainConfig, given: Mapping[str, Any], run: Run) -> None:
    sections = section_of(TrainConfig)
    for key, value in given.items():
        if key not in sections:
            raise SettingsError(f"settings: unknown setting '{key}'", hint=nearest(key, sections))
        was = getattr(getattr(before, sections[key]), key)
        if value != was and key not in CHANGEABLE:
            option = "--" + key.replace("_", "-")
            raise SettingsError(
                f"{option} {value} cannot be changed: the run {run.name} was trained with {was}",
                hint="leave it out, or start a new run; on resuming only these may change: "
                + ", ".join("--" + name.replace("_", "-") for name in CHANGEABLE),
            )


def _check_same_data(run: Run, record: RunRecord, material: _Material) -> None:
    if material.store.checksum != record.data_checksum:
        raise DataError(
            f"the pictures of {record.contest} have changed since the run {run.name} began",
            hint=f"put them back as they were ({run.split_file} lists them), or start a new run",
        )
    stems = [material.store.stems[i] for i in material.split.held_out]
    if stems != read_json(run.split_file)["held_out"]:
        raise DataError(
            f"the split of {record.contest} is no longer the one in {run.split_file}",
            hint="its contest.toml was changed; put the old one back, or start a new run",
        )


def _check_something_left(session: Session) -> None:
    steps, limit = session.config.optimiser.steps, session.config.optimiser.time_limit
    if session.step >= steps:
        raise SettingsError(
            f"the run {session.run.name} has done all its {steps:,} steps",
            hint=f"to train on, give it more: --resume {session.run.name} --steps {2 * steps}",
        )
    if session.time_limit_s and session.elapsed_s >= session.time_limit_s - 1.0 - (
        1.2 * session.validation_s + 3.0
    ):
        raise SettingsError(
            f"the run {session.run.name} has used up its --time-limit {limit}, which counts all "
            "its sittings",
            hint=f"to train on, give it a longer one: --resume {session.run.name} --time-limit ...",
        )


def _untouched(material: _Material) -> float:
    """What the held-out pictures score as they are."""
    store, chosen = material.store, material.metric
    scores, sizes = [], []
    for i in material.split.held_out:
        noisy, clean = to_float(store.noisy(i)), to_float(store.clean(i))
        scores.append(chosen.score(noisy, clean))
        sizes.append(clean.size)
    return chosen.pool(scores, sizes)


def _dry_result(material: _Material) -> TrainResult:
    return TrainResult(
        run=Path(),
        metric=material.metric.name,
        unit=material.metric.unit,
        best_score=float("nan"),
        best_step=0,
        untouched_score=_untouched(material),
        steps=0,
        seconds=0.0,
        stopped_by="dry run",
    )


def _result(session: Session, stopped_by: str) -> TrainResult:
    return TrainResult(
        run=session.run.path,
        metric=session.metric.name,
        unit=session.metric.unit,
        best_score=session.best_score,
        best_step=session.best_step,
        untouched_score=session.record.untouched_score or float("nan"),
        steps=session.step,
        seconds=session.elapsed_s,
        stopped_by=stopped_by,
    )
