"""Go on with a run: the same settings, the same pictures, the state that was saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest, open_contest
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.models.build import describe_model
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import read_card
from kbdenoise.presets import CHANGEABLE
from kbdenoise.progress import Note, Progress
from kbdenoise.resolving import lasting, read_settings, resolve, section_of
from kbdenoise.runs.folder import Run, RunRecord, find_run, read_json
from kbdenoise.runs.folds import FoldsRecord
from kbdenoise.team import ALONE, Team
from kbdenoise.training.memory import MemoryPlan
from kbdenoise.training.pairs import Pairs
from kbdenoise.training.prepare import build_session, gather
from kbdenoise.training.session import Session
from kbdenoise.training.state import load


def resumed_session(
    run_name: str,
    given: Mapping[str, Any],
    *,
    name: str | Path | None,
    data: Path,
    runs: Path,
    progress: Progress,
    team: Team = ALONE,
) -> Session:
    """The session of an earlier run as it was at its last save.

    `name` says where the run's contest lies now, where it has moved. Raises SettingsError if
    something else than CHANGEABLE is given, or nothing is left to do, and DataError if the
    pictures, the split or the state are not what they were.
    """
    run, record, before = team.from_leader(lambda: _found(run_name, runs))
    chosen = resolve(before, ("settings", lasting(given)))
    check_changes(before, chosen, given, name=run.name)
    device = choose_device(
        chosen.device.device, precision=chosen.device.precision, threads=chosen.device.threads
    )
    local = contest_again(record, name=name, data=data)
    session = restored_session(run, local, chosen, device, progress, team=team)
    _check_something_left(session)
    if chosen.length != before.length:
        _tell_of_rise(session, progress)
    return session


def _found(run_name: str, runs: Path) -> tuple[Run, RunRecord, TrainConfig]:
    run = find_run(run_name, runs)
    record = run.read_record()
    if record.model in FILTERS:
        raise SettingsError(
            f"the run {run.name} is of the filter {record.model}, which cannot be resumed",
            hint=f"choosing takes seconds; do it anew: kbdenoise train --model {record.model}",
        )
    return run, record, saved_config(run.config_file)


def _tell_of_rise(session: Session, progress: Progress) -> None:
    """A longer run stretches its schedule, so that a rate that had fallen rises once more."""
    before, next_rate = session.now.rate, session.scheduled_rate()
    if before and next_rate > 1.05 * before and session.moment().done(session.plan.warmup) >= 1.0:
        text = (
            f"the learning rate rises from {before:.3g} to {next_rate:.3g}: the schedule now ends "
            "with the longer run"
        )
        progress(Note(text=text))


def restored_session(
    run: Run,
    local: LocalContest,
    config: TrainConfig,
    device: DeviceChoice,
    progress: Progress,
    *,
    team: Team,
    pairs: Pairs | None = None,
) -> Session:
    """The session of a run at its last save, even where nothing is left to do but to end it.

    `pairs` as in `gather`. Raises DataError if pictures, split or state are not what they were.
    """
    record, info, before = team.from_leader(
        lambda: (run.read_record(), _model_of(run), saved_config(run.config_file))
    )
    plans = tuple(MemoryPlan(**plan) for plan in record.memory)
    material = gather(
        local, config, device, progress, team=team, info=info, pairs=pairs, before=plans
    )
    team.from_leader(lambda: check_same_data(run, record, material.pairs))
    session = build_session(run, record, material)
    load(session, run.state_file)
    planned, asked = session.plans[session.now.stage].pieces, config.memory.accumulate
    if asked and asked != before.memory.accumulate:
        session.now.pieces = planned
    else:  # more than planned where memory has run out
        session.now.pieces = max(planned, session.now.pieces)
    session.stretch_time()
    return session


def saved_config(path: Path) -> TrainConfig:
    """The settings of a config.toml; those that it does not know yet have their defaults."""
    return resolve(TrainConfig(), (str(path), read_settings(TrainConfig, path)))


def contest_again(
    record: RunRecord | FoldsRecord, *, name: str | Path | None, data: Path
) -> LocalContest:
    """The contest of an earlier run: as it is named now, where it was, or where they usually lie.

    The last is for a whole project that has moved.
    """
    folder = Path(record.contest_folder)
    if name is None and not folder.is_dir():
        name = record.contest
    return open_contest(name, data=data) if name else open_contest(folder, data=folder.parent)


def _model_of(run: Run) -> ModelInfo | None:
    """The model as it was built, whatever its size is called today and wherever it came from."""
    if not run.last.is_file():
        return None
    card = read_card(run.last)
    return describe_model(card.model, channels=card.channels, side=0, **card.hyperparameters)


def check_changes(
    before: TrainConfig,
    chosen: TrainConfig,
    given: Mapping[str, Any],
    *,
    name: str,
    changeable: Sequence[str] = CHANGEABLE,
) -> None:
    """Raise SettingsError for a changed setting that would make another run of the run `name`."""
    sections = section_of(TrainConfig)
    for key, value in given.items():
        was, now = (getattr(getattr(config, sections[key]), key) for config in (before, chosen))
        if now != was and key not in changeable:
            option = "--" + key.replace("_", "-")
            raise SettingsError(
                f"{option} {value} cannot be changed: the run {name} was trained with {was}",
                hint="leave it out, or start a new run; on resuming only these may change: "
                + ", ".join("--" + name.replace("_", "-") for name in changeable),
            )


def check_same_data(run: Run, record: RunRecord, pairs: Pairs) -> None:
    """Raise DataError where pictures or split are not those that the run was begun with."""
    if pairs.store.checksum != record.data_checksum:
        raise DataError(
            f"the pictures of {record.contest} have changed since the run {run.name} began",
            hint=f"put them back as they were ({run.split_file} lists them), or start a new run",
        )
    stems = [pairs.store.stems[i] for i in pairs.split.held_out]
    if stems != read_json(run.split_file).get("held_out"):
        raise DataError(
            f"the split of {record.contest} is no longer the one in {run.split_file}",
            hint="its contest.toml was changed; put the old one back, or start a new run",
        )


def _check_something_left(session: Session) -> None:
    steps, limit = session.last_step, session.config.length.time_limit
    now = session.now
    if session.validated_step < now.step or session.record.status != "finished":
        return  # stopped in its last validation, or before it was written that it had ended
    if now.step >= steps:
        raise SettingsError(
            f"the run {session.run.name} has done all its {steps:,} steps",
            hint=f"to train on, give it more: --resume {session.run.name} {_more(session)}",
        )
    if session.out_of_patience:
        patience = session.config.length.patience
        raise SettingsError(
            f"the run {session.run.name} had no better score for {patience} validations",
            hint=f"to train on: --resume {session.run.name} --patience {2 * patience}",
        )
    if session.out_of_time:
        raise SettingsError(
            f"the run {session.run.name} has used up its --time-limit {limit}, which counts all "
            "its sittings",
            hint=f"to train on, give it a longer one: --resume {session.run.name} --time-limit ...",
        )


def _more(session: Session) -> str:
    """The option that says how long the run is, with twice as much."""
    length = session.config.length
    if length.samples:
        return f"--samples {2 * length.samples}"
    if length.epochs:
        return f"--epochs {2 * length.epochs:g}"
    return f"--steps {2 * session.last_step}"
