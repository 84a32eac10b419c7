"""Train a model on a contest's pairs: choose the settings, build the session, run or resume it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kbdenoise.config import (
    PRESETS,
    Preset,
    TrainConfig,
    read_settings,
    resolve,
    section_of,
)
from kbdenoise.contests.contest import open_contest
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import SettingsError, nearest
from kbdenoise.progress import Fact, Progress, silent
from kbdenoise.runs.folder import (
    create_run,
)
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.loop import run_steps
from kbdenoise.training.prepare import Material, gather, new_session, untouched_score
from kbdenoise.training.resume import resumed_session
from kbdenoise.training.session import Session


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
        session = resumed_session(resume, given, runs=runs, config=config, progress=progress)
    else:
        device = _device(given, config)
        chosen = effective_settings(preset, device.kind, config, given)
        material = gather(open_contest(name, data=data), chosen, device, progress)
        if dry_run:
            return _dry_result(material)
        run = create_run(runs, model=chosen.model.model, name=run_name)
        session = new_session(run, material, chosen)
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


def _dry_result(material: Material) -> TrainResult:
    return TrainResult(
        run=Path(),
        metric=material.metric.name,
        unit=material.metric.unit,
        best_score=float("nan"),
        best_step=0,
        untouched_score=untouched_score(material),
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
