"""One fold of a cross-validation: its share of the time, its training, its pictures' scores."""

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from kbdenoise.atomic import writing_to
from kbdenoise.config import TrainConfig
from kbdenoise.devices import DeviceChoice, choose_device
from kbdenoise.errors import SettingsError
from kbdenoise.inference.filters import filter_device
from kbdenoise.inference.loading import Loaded, load_file, load_run
from kbdenoise.inference.scoring import ImageScore
from kbdenoise.notation import seconds
from kbdenoise.progress import Event, Fact, Note, Progress
from kbdenoise.runs.folder import Run, RunRecord
from kbdenoise.runs.folder import now as this_moment
from kbdenoise.runs.folds import FoldsFolder, FoldsRecord, OutOfFold
from kbdenoise.team import Team
from kbdenoise.training.filters import check_alone, is_filter, train_filter
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.one_run import train_session
from kbdenoise.training.pairs import Pairs, split_anew
from kbdenoise.training.prepare import gather, new_session
from kbdenoise.training.result import TrainResult
from kbdenoise.training.resume import restored_session
from kbdenoise.training.team_scores import score_together

_LEAST_S = 1.0  # of training a fold


@dataclass(slots=True, kw_only=True)
class Work:
    """A cross-validation in hand."""

    folder: FoldsFolder
    record: FoldsRecord
    config: TrainConfig
    """Of the whole: all folds, and the time limit of all."""
    pairs: Pairs
    device: DeviceChoice
    team: Team
    progress: Progress
    began: float
    """When this call began to work for the fold in hand, on the monotonic clock."""
    rows: dict[str, OutOfFold] = field(default_factory=dict)
    """By stem."""
    request: StopRequest = field(default_factory=StopRequest)

    @property
    def folds(self) -> range:
        """Their numbers."""
        return range(self.config.data.folds)

    def pairs_of(self, fold: int) -> Pairs:
        """The contest's pairs, split for a fold."""
        return split_for(self.pairs, self.config, fold)

    def run_record(self, fold: int) -> RunRecord | None:
        """What the disk knows of a fold's run, if it was begun."""
        run = self.folder.run(fold)
        return run.read_record() if run.record_file.is_file() else None

    def used_s(self) -> float:
        """Seconds of training and scoring so far, in all sittings."""
        records = map(self.run_record, self.folds)
        scoring = sum(one.scoring_seconds for one in self.record.folds)
        return sum(record.seconds for record in records if record) + scoring

    def write(self, **changes: Any) -> None:
        """Change the record, and write it; what the leader says counts."""
        if self.team.leads:
            changes |= {"updated_at": this_moment(), "seconds": round(self.used_s(), 1)}
        self.record = replace(self.record, **self.team.told(changes))
        if self.team.leads:
            self.folder.write_record(self.record)


def open_again(work: Work, before: str) -> None:
    """Call folds unfinished that have ended by the time limit `before`, where it is longer now.

    That is written down, so that this sitting need not do all of them.
    """
    limit = work.config.length.time_limit
    was_s, now_s = (seconds(text, name="--time-limit") for text in (before, limit))
    if not was_s or 0 < now_s <= was_s:
        return
    for fold in work.folds:
        known = work.run_record(fold)
        if known and (known.status, known.stopped_by) == ("finished", "time limit"):
            reopened = replace(known, status="interrupted", stopped_by="")
            work.folder.run(fold).write_record(reopened)
            text = f"fold {fold} had ended by --time-limit {before} and is trained on"
            work.progress(Note(text=text))


def train_fold(work: Work, fold: int) -> TrainResult:
    """Train a fold's model, from the start or from where it was stopped."""
    run, config, local = work.folder.run(fold), _config(work, fold), work.pairs.local
    pairs, team = work.pairs_of(fold), work.team
    began, progress = work.began, without(work.progress, "model", "device", "memory")

    def new_run() -> Run:
        if team.leads:
            with writing_to(run.path):
                run.path.mkdir(parents=True, exist_ok=True)
        return run

    if is_filter(config.model.model):
        trained = train_filter(
            local, config, new_run, dry_run=False, started=began, progress=progress, pairs=pairs
        )
        return team.told(trained)
    if team.told(run.state_file.is_file()):
        device = work.device
        session = restored_session(run, local, config, device, progress, team=team, pairs=pairs)
    else:
        material = gather(local, config, work.device, progress, team=team, pairs=pairs)
        session = new_session(new_run(), material)
    return train_session(session, started=began, progress=progress)


def score_fold(work: Work, fold: int) -> list[ImageScore]:
    """Scores of a fold's pictures by its best weights; processes divide the pictures.

    Raises on every process what `score_together` does.
    """
    loaded = _loaded(work, fold)
    return score_together(
        loaded.restoration.images,
        work.pairs.store,
        work.pairs_of(fold).split.held_out,
        metric=work.pairs.metric,
        team=work.team,
        request=work.request,
        task="score out of fold",
        progress=work.progress,
    )


def _loaded(work: Work, fold: int) -> Loaded:
    """A fold's best weights, or its filter; of several processes only the leader reads the run."""
    run, progress = work.folder.run(fold), work.progress
    settings = asdict(work.config.device)
    if work.team.size == 1:
        return load_run(str(run.path), runs=run.path.parent, progress=progress, **settings)
    content = work.team.from_leader(lambda: run.weights().read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / run.best.name
        weights.write_bytes(content)
        return load_file(weights, progress=progress, **settings)


def config_of_fold(config: TrainConfig, fold: int, *, time_limit: str) -> TrainConfig:
    """The settings of one fold, from those of the whole."""
    length = replace(config.length, time_limit=time_limit)
    return replace(config, data=replace(config.data, fold=fold), length=length)


def split_for(pairs: Pairs, config: TrainConfig, fold: int) -> Pairs:
    """A contest's pairs, split for a fold. Raises SettingsError for one that cannot exist."""
    return split_anew(pairs, config_of_fold(config, fold, time_limit="0"))


def device_of(config: TrainConfig, team: Team) -> DeviceChoice:
    """What a cross-validation is gone on with. Raises SettingsError for a filter in a team."""
    if is_filter(config.model.model):
        check_alone(config.model.model, team)
        return filter_device()
    wanted = config.device
    return choose_device(wanted.device, precision=wanted.precision, threads=wanted.threads)


def check_time(config: TrainConfig) -> None:
    """Raise SettingsError for a time limit that is next to nothing for each fold."""
    limit_s, folds = seconds(config.length.time_limit, name="--time-limit"), config.data.folds
    if limit_s and limit_s < folds * _LEAST_S:
        raise SettingsError(
            f"--time-limit {config.length.time_limit} is too short for {folds} models, which "
            "share it",
            hint="write 8h, 1h30m, 90m or 45s",
        )


def without(progress: Progress, *labels: str) -> Progress:
    """Progress that leaves out facts, such as those that are the same for all folds."""

    def told(event: Event) -> None:
        if not (isinstance(event, Fact) and event.label in labels):
            progress(event)

    return told


def _config(work: Work, fold: int) -> TrainConfig:
    """The settings of a fold that is to be trained now: an even share of the time that is left.

    The share counts what earlier sittings have spent on this fold, as those of other unfinished
    folds count theirs. Every scoring that is to come is left room for, as long as those of a fold
    have taken so far.
    """
    limit_s = seconds(work.config.length.time_limit, name="--time-limit")
    if not limit_s:
        return config_of_fold(work.config, fold, time_limit="0")
    records = {k: work.run_record(k) for k in work.folds}
    waiting = [k for k, record in records.items() if not record or record.status != "finished"]
    scorings = [one.scoring_seconds for one in work.record.folds if one.scoring_seconds]
    to_score = sum(one.score is None or one.fold in waiting for one in work.record.folds)
    to_score_s = to_score * (fmean(scorings) if scorings else 0.0)
    spent_s = sum(record.seconds for k in waiting if (record := records[k]))
    left_s = limit_s - (work.used_s() - spent_s) - to_score_s
    share_s = work.team.told(int(left_s / len(waiting)))
    if share_s < _LEAST_S:
        raise SettingsError(
            f"{work.folder.name} has used up its --time-limit {work.config.length.time_limit}, "
            f"which counts all its sittings, before fold {fold} was trained",
            hint="give it a longer one: kbdenoise train --resume "
            f"{work.folder.name} --time-limit ...",
        )
    return config_of_fold(work.config, fold, time_limit=f"{share_s}s")
