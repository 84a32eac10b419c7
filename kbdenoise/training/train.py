"""Train a model on a contest's pairs: choose the settings, build the session, run or resume it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kbdenoise.config import ModelSettings, TrainConfig
from kbdenoise.contests.contest import open_contest
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import SettingsError, nearest
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.inference.filters import filter_device
from kbdenoise.presets import PRESETS, Preset, default_model, tuned
from kbdenoise.progress import Progress, silent
from kbdenoise.resolving import lasting, read_settings, resolve, section_of
from kbdenoise.runs.folder import Run, create_run
from kbdenoise.runs.folds import find_folds
from kbdenoise.team import ALONE, Team, joined
from kbdenoise.training.filters import check_alone, is_filter, train_filter
from kbdenoise.training.folds import resume_folds, train_folds
from kbdenoise.training.network import fitting_patch
from kbdenoise.training.one_run import session_result, train_session
from kbdenoise.training.pairs import untouched_score
from kbdenoise.training.prepare import Material, gather, new_session
from kbdenoise.training.result import FoldsResult, TrainResult
from kbdenoise.training.resume import resumed_session


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
) -> TrainResult | FoldsResult:
    """Train on a contest's pairs and keep the weights that score best on held-out pictures.

    `name` is a contest in the folder `data` (None: the only one). Further keyword arguments are
    settings of TrainConfig by name, and win over the TOML file `config`, which wins over `preset`.
    `resume` names a run to go on with; then only steps, time limit, device and the like may be
    given, and `name` says where the contest has moved to. The first Ctrl-C or SIGTERM saves and
    returns with `stopped_by="interrupt"`. With `folds`, and no one `fold`, it is a model a fold,
    and a FoldsResult.

    Raises SettingsError for a request that makes no sense and DataError for broken data.
    """
    started = time.monotonic()
    given = {key: value for key, value in settings.items() if value is not None}
    if resume is not None and (config is not None or run_name or preset != "standard"):
        raise SettingsError(
            "--resume takes its settings and its name from the run",
            hint="leave out --config, --preset and --name",
        )
    call = _Call(name=name, data=data, runs=runs, dry_run=dry_run, started=started)
    with joined() as team:
        call = replace(call, team=team, progress=progress if team.leads else silent)
        if resume is not None:
            return _resumed(call, resume, given | _found_from_anywhere(given))
        return _begun(call, preset=preset, config=config, given=given, run_name=run_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What every way of training needs to know of the call."""

    name: str | Path | None
    data: Path
    runs: Path
    dry_run: bool
    started: float
    team: Team = ALONE
    progress: Progress = silent


def _resumed(call: _Call, resume: str, given: Mapping[str, Any]) -> TrainResult | FoldsResult:
    """Go on with a run or with a cross-validation."""
    team, progress = call.team, call.progress
    folder = team.from_leader(lambda: find_folds(resume, call.runs))
    if folder is not None:
        return resume_folds(
            folder,
            given,
            name=call.name,
            data=call.data,
            dry_run=call.dry_run,
            started=call.started,
            progress=progress,
            team=team,
        )
    session = resumed_session(
        resume,
        given,
        name=call.name,
        data=call.data,
        runs=call.runs,
        progress=progress,
        team=team,
    )
    if call.dry_run:
        return session_result(session, "dry run")
    return train_session(session, started=call.started, progress=progress)


def _begun(
    call: _Call,
    *,
    preset: Preset,
    config: Path | None,
    given: Mapping[str, Any],
    run_name: str,
) -> TrainResult | FoldsResult:
    """Train a network, a filter, or one of them on each fold, from the start."""
    team, progress = call.team, call.progress
    if filtering := asked_filter(config, given):
        check_alone(filtering, team)
    device = filter_device() if filtering else _device(given, config)
    effective_settings(preset, device.kind, config, given)  # told before a contest is missed
    local = open_contest(call.name, data=call.data)
    chosen = effective_settings(preset, device.kind, config, given, metric=local.contest.metric)
    if chosen.data.folds and chosen.data.fold < 0:
        return train_folds(
            local,
            chosen,
            device,
            runs=call.runs,
            run_name=run_name,
            dry_run=call.dry_run,
            started=call.started,
            progress=progress,
            team=team,
        )

    def new_run() -> Run:
        model = chosen.model.model
        path = create_run(call.runs, model=model, name=run_name).path if team.leads else Path()
        return Run(path=team.told(path))

    if filtering:
        return train_filter(
            local, chosen, new_run, dry_run=call.dry_run, started=call.started, progress=progress
        )
    material = gather(local, chosen, device, progress, team=team)
    if call.dry_run:
        return _dry_result(material)
    session = new_session(new_run(), material)
    return train_session(session, started=call.started, progress=progress)


def gathered(
    name: str | Path | None,
    *,
    data: Path,
    preset: Preset,
    config: Path | None,
    given: Mapping[str, Any],
    progress: Progress,
    team: Team = ALONE,
) -> Material:
    """What a network's training would start from, its settings chosen; nothing of a run yet."""
    device = _device(given, config)
    local = open_contest(name, data=data)
    chosen = effective_settings(preset, device.kind, config, given, metric=local.contest.metric)
    return gather(local, chosen, device, progress, team=team)


def effective_settings(
    preset: Preset,
    kind: str,
    config: Path | None,
    given: Mapping[str, Any],
    *,
    metric: str = "",
) -> TrainConfig:
    """Defaults < preset for this kind of device < the model's own < TOML file < what is given.

    A patch that nobody asks for is enlarged where the model's sides have to be multiples of more.
    The model is that of `init`, where that is given. `metric` is the contest's, which has a say in
    the model where nobody else has; empty stands for any contest.
    """
    if preset not in PRESETS:
        raise SettingsError(f"no preset is called '{preset}'", hint=nearest(preset, PRESETS))
    layer = PRESETS[preset]["cpu" if kind == "cpu" else "gpu"]
    model = str(layer.get("model", ModelSettings().model))
    layer = layer | {"model": default_model(model, preset=preset, metric=metric)}
    from_file = _from_file(config)
    start = _start({**from_file, **given})
    named = layer | from_file | dict(given) | start
    if given.get("steps") and (given.get("epochs") or given.get("samples")):
        other = "epochs" if given.get("epochs") else "samples"
        raise SettingsError(
            f"--steps and --{other} both say how long to train", hint="leave out one of them"
        )
    chosen = resolve(
        TrainConfig(),
        (f"preset {preset}", layer),
        (f"settings for {named['model']}", tuned(str(named["model"]), preset=preset)),
        (str(config), lasting(from_file)),
        ("settings", lasting(given)),
        ("--init", start),
        ("--perceptual-weights", _found_from_anywhere({**from_file, **given})),
    )
    if chosen.model.model in FILTERS or {"patch", "stages"} & {*from_file, *given}:
        return chosen
    return replace(chosen, data=replace(chosen.data, patch=fitting_patch(chosen)))


def asked_filter(config: Path | None, given: Mapping[str, Any]) -> str:
    """The classical filter that a person names; empty for a network, named or not."""
    model = str({**_from_file(config), **given}.get("model", ""))
    return model if model and is_filter(model) else ""


def _from_file(config: Path | None) -> dict[str, Any]:
    return read_settings(TrainConfig, config) if config is not None else {}


def _start(asked: Mapping[str, Any]) -> dict[str, str]:
    """What a weights file to start from settles: the model, and where the file lies."""
    if not asked.get("init"):
        return {}
    from kbdenoise.models.weights import read_card

    if str(asked.get("model", "")) in FILTERS:
        return {}  # which has its own refusal
    path = Path(str(asked["init"])).expanduser().resolve()
    held = read_card(path).model
    if asked.get("model", held) != held:
        raise SettingsError(
            f"--model {asked['model']} contradicts --init {path}, which holds a {held}",
            hint="leave out one of them",
        )
    return {"model": held, "init": str(path)}


def _found_from_anywhere(asked: Mapping[str, Any]) -> dict[str, str]:
    """The whole path of the file of VGG's weights: a run is resumed from any folder."""
    weights = asked.get("perceptual_weights")
    return {"perceptual_weights": str(Path(weights).expanduser().resolve())} if weights else {}


def _device(given: Mapping[str, Any], config: Path | None) -> DeviceChoice:
    """The device has to be known before the preset, which depends on it."""
    known = section_of(TrainConfig)
    asked = {k: v for k, v in {**_from_file(config), **given}.items() if known.get(k) == "device"}
    settings = resolve(TrainConfig(), ("settings", asked)).device
    return choose_device(settings.device, precision=settings.precision, threads=settings.threads)


def _dry_result(material: Material) -> TrainResult:
    return TrainResult(
        run=Path(),
        metric=material.pairs.metric.name,
        unit=material.pairs.metric.unit,
        best_score=float("nan"),
        best_step=0,
        untouched_score=untouched_score(material.pairs),
        steps=0,
        seconds=0.0,
        stopped_by="dry run",
    )
