"""Cross-validation: a model a fold, and every picture scored by the one that did not see it.

The folds divide the pictures by whole groups. Where a contest has a hold-out of its own, fold 0 is
exactly that, as in training a single model, and the other folds divide the rest: still every
picture is held out once, and the score of fold 0 is what a single training would have told. Such
folds may be of very unequal sizes; the out-of-fold score weighs pictures, the mean weighs folds.

Nothing is known but what lies on the disk: finished runs are kept, one that was stopped is resumed,
weights are scored again where they have changed.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from kbdenoise.atomic import write_text
from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.splits import Split
from kbdenoise.devices import DeviceChoice
from kbdenoise.errors import DataError, KbdenoiseError
from kbdenoise.inference.scoring import ImageScore, pooled, pooled_untouched
from kbdenoise.presets import CHANGEABLE
from kbdenoise.progress import Fact, Note, Progress
from kbdenoise.resolving import resolve, to_toml
from kbdenoise.runs.folder import RunRecord, Status, environment
from kbdenoise.runs.folds import FoldRecord, FoldsFolder, FoldsRecord, OutOfFold, create_folds
from kbdenoise.team import Team
from kbdenoise.training.filters import check_filter_settings, is_filter
from kbdenoise.training.fold_work import (
    Work,
    check_time,
    config_of_fold,
    device_of,
    open_again,
    score_fold,
    split_for,
    train_fold,
    without,
)
from kbdenoise.training.interrupt import Stopped, StopRequest
from kbdenoise.training.pairs import Pairs, open_pairs, untouched_score
from kbdenoise.training.prepare import gather
from kbdenoise.training.result import FoldResult, FoldsResult
from kbdenoise.training.resume import (
    check_changes,
    check_same_data,
    contest_again,
    saved_config,
)

_LENGTH = {"steps", "epochs", "samples", "patience"}
_CHANGEABLE = tuple(name for name in CHANGEABLE if name not in _LENGTH)  # folds are of one length


def train_folds(
    local: LocalContest,
    config: TrainConfig,
    device: DeviceChoice,
    *,
    runs: Path,
    run_name: str,
    dry_run: bool,
    started: float,
    progress: Progress,
    team: Team,
) -> FoldsResult:
    """Train a model a fold, one after the other, and score every picture out of fold.

    Everything is checked before anything is written. `started` is when, on the monotonic clock.
    """
    pairs = team.after_leader(lambda: open_pairs(local, config, progress))
    held_out = [split_for(pairs, config, k).split.held_out for k in range(config.data.folds)]
    sizes = ", ".join(f"{len(part):,}" for part in held_out)
    text = f"{local.contest.slug}: {len(pairs.store):,} pairs, held out in {len(held_out)} parts"
    progress(Fact(label="folds", text=f"{text} of {sizes}"))
    config = _checked(local, config, device, pairs, progress, team)
    if dry_run:
        return _dry_result(pairs, [len(part) for part in held_out])
    path = Path()
    if team.leads:
        model, number = config.model.model, config.data.folds
        path = create_folds(runs, model=model, folds=number, name=run_name).path
    folder = FoldsFolder(path=team.told(path))
    record = FoldsRecord(
        contest=local.contest.slug,
        contest_folder=str(local.folder.resolve()),
        metric=pairs.metric.name,
        unit=pairs.metric.unit,
        model=config.model.model,
        data_checksum=pairs.store.checksum,
        pictures=len(pairs.store),
        folds=tuple(
            FoldRecord(fold=fold, run=folder.run(fold).name, pictures=len(part))
            for fold, part in enumerate(held_out)
        ),
        **environment(),
    )
    return _go_on(
        Work(
            folder=folder,
            record=record,
            config=config,
            pairs=pairs,
            device=device,
            team=team,
            progress=progress,
            began=started,
        )
    )


def resume_folds(
    folder: FoldsFolder,
    given: Mapping[str, Any],
    *,
    name: str | Path | None,
    data: Path,
    dry_run: bool,
    started: float,
    progress: Progress,
    team: Team,
) -> FoldsResult:
    """Go on with a cross-validation; where all is done, only what has changed is scored again.

    With a longer time limit than before, folds that had ended by it are trained on, too.
    `name` says where the contest lies now, where it has moved. Raises SettingsError for a changed
    setting that would make folds unlike each other, DataError for pictures that have changed.
    """
    record, before = team.from_leader(
        lambda: (folder.read_record(), saved_config(folder.config_file))
    )
    config = resolve(before, ("settings", given))
    check_changes(before, config, given, name=folder.name, changeable=_CHANGEABLE)
    local = contest_again(record, name=name, data=data)
    pairs = team.after_leader(lambda: open_pairs(local, config, progress))
    if pairs.store.checksum != record.data_checksum:
        raise DataError(
            f"the pictures of {record.contest} have changed since {folder.name} began",
            hint="put them back as they were, or start anew",
        )
    work = Work(
        folder=folder,
        record=record,
        config=config,
        pairs=pairs,
        device=device_of(config, team),
        team=team,
        progress=progress,
        began=started,
        rows={row.stem: row for row in team.told(folder.read_scores())},
    )
    team.from_leader(lambda: _check_finished(work))
    if dry_run:
        return _result(work, "dry run")
    team.from_leader(lambda: open_again(work, before.length.time_limit))
    return _go_on(work)


def _check_finished(work: Work) -> None:
    """Raise DataError where pictures or split are not those of a fold that is finished."""
    for fold in work.folds:
        if (known := work.run_record(fold)) and known.status == "finished":
            check_same_data(work.folder.run(fold), known, work.pairs_of(fold))


def _go_on(work: Work) -> FoldsResult:
    """Do what is left to do, and leave the true status behind however it ends."""
    if work.team.leads:
        write_text(work.folder.config_file, to_toml(work.config))
    work.write(status="running", stopped_by="")
    work.progress(Fact(label="run", text=str(work.folder.path)))
    try:
        with StopRequest(patient=work.team.size > 1) as work.request:
            for fold in work.folds:
                _do(work, fold)
    except Stopped:
        work.write(status="interrupted", stopped_by="interrupt")
        return _result(work, "interrupt")
    except BaseException as error:
        status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if work.team.leads:
            with contextlib.suppress(KbdenoiseError, OSError):
                failed = replace(work.record, status=status, stopped_by=type(error).__name__)
                work.folder.write_record(failed)
        raise
    ends = [record.stopped_by for record in map(work.run_record, work.folds) if record]
    stopped_by = ", ".join(dict.fromkeys(ends))
    work.write(**_summary(work), status="finished", stopped_by=stopped_by)
    return _result(work, work.record.stopped_by)


def _do(work: Work, fold: int) -> None:
    """Train and score a fold as far as it is not. Raises Stopped where somebody asks to stop."""
    work.request.heed(work.team)
    known = work.team.told(work.run_record(fold))
    if known is None or known.status != "finished":
        if train_fold(work, fold).stopped_by == "interrupt":
            raise Stopped
        work.request.heed(work.team)
        known = work.team.told(work.run_record(fold))
        assert known is not None
    if not _is_scored(work, fold, known):
        began = time.monotonic()
        scores = score_fold(work, fold)
        _keep_scores(work, fold, known, scores, scoring_s=time.monotonic() - began)
    work.began = time.monotonic()


def _is_scored(work: Work, fold: int, known: RunRecord) -> bool:
    """Whether there are scores of the very weights that are on the disk; the same for a team."""
    before, pairs = work.record.folds[fold], work.pairs_of(fold)
    held_out = {pairs.store.stems[i] for i in pairs.split.held_out}
    there = {stem for stem, row in work.rows.items() if row.fold == fold}
    same_weights = (before.steps, before.best_step) == (known.steps, known.best_step)
    return before.score is not None and same_weights and there == held_out


def _keep_scores(
    work: Work, fold: int, known: RunRecord, scores: Sequence[ImageScore], *, scoring_s: float
) -> None:
    """Write a fold's scores: the pictures first, and that they are there when they are."""
    pairs, before = work.pairs, work.record.folds[fold]
    groups = dict(zip(pairs.store.stems, pairs.groups, strict=True))
    for one in scores:
        work.rows[one.stem] = OutOfFold(
            stem=one.stem,
            fold=fold,
            group=groups[one.stem],
            score=one.score,
            untouched=one.untouched,
            psnr_db=one.psnr_db,
        )
    if work.team.leads:
        in_order = (work.rows.get(stem) for stem in pairs.store.stems)
        work.folder.write_scores([row for row in in_order if row])
    score, untouched = pooled(scores, pairs.metric), pooled_untouched(scores, pairs.metric)
    scored = replace(
        before,
        score=score,
        untouched_score=untouched,
        steps=known.steps,
        best_step=known.best_step,
        scoring_seconds=round(before.scoring_seconds + scoring_s, 2),
    )
    folds = work.record.folds
    work.write(folds=(*folds[:fold], scored, *folds[fold + 1 :]))
    values = {pairs.metric.name: score, "untouched": untouched}
    work.progress(Note(text=f"fold {fold} of {len(folds)} out of fold", values=values))


def _checked(
    local: LocalContest,
    config: TrainConfig,
    device: DeviceChoice,
    pairs: Pairs,
    progress: Progress,
    team: Team,
) -> TrainConfig:
    """Refuse settings that no fold could be trained with; those to train with, batch found."""
    check_time(config)
    first = config_of_fold(config, 0, time_limit=config.length.time_limit)
    if is_filter(config.model.model):
        check_filter_settings(config)
    else:
        split, quiet = split_for(pairs, config, 0), without(progress, "data")
        first = gather(local, first, device, quiet, team=team, pairs=split).config
    return replace(first, data=replace(first.data, fold=-1))


def _summary(work: Work) -> dict[str, float]:
    """The scores of the whole, from the scores of all pictures."""
    store, metric = work.pairs.store, work.pairs.metric
    rows = [work.rows[stem] for stem in store.stems]
    sizes = [h * w * store.channels for h, w in map(store.size, range(len(store)))]
    scores = [nan if one.score is None else one.score for one in work.record.folds]
    return {
        "out_of_fold_score": metric.pool([row.score for row in rows], sizes),
        "untouched_score": metric.pool([row.untouched for row in rows], sizes),
        "mean_score": fmean(scores),
        "spread": stdev(scores) if all(map(isfinite, scores)) else nan,
    }


def _number(value: float | None) -> float:
    return nan if value is None else value


def _result(work: Work, stopped_by: str) -> FoldsResult:
    record = work.record
    return FoldsResult(
        run=work.folder.path,
        metric=record.metric,
        unit=record.unit,
        out_of_fold_score=_number(record.out_of_fold_score),
        untouched_score=_number(record.untouched_score),
        mean_score=_number(record.mean_score),
        spread=_number(record.spread),
        pictures=record.pictures,
        folds=tuple(
            FoldResult(
                fold=one.fold,
                run=work.folder.run(one.fold).path,
                pictures=one.pictures,
                score=_number(one.score),
                untouched_score=_number(one.untouched_score),
                steps=one.steps,
                best_step=one.best_step,
            )
            for one in record.folds
        ),
        seconds=record.seconds,
        scores_file=work.folder.scores_file,
        stopped_by=stopped_by,
    )


def _dry_result(pairs: Pairs, sizes: list[int]) -> FoldsResult:
    everything = replace(pairs, split=Split(train=(), held_out=tuple(range(len(pairs.store)))))
    return FoldsResult(
        run=Path(),
        metric=pairs.metric.name,
        unit=pairs.metric.unit,
        out_of_fold_score=nan,
        untouched_score=untouched_score(everything),
        mean_score=nan,
        spread=nan,
        pictures=len(pairs.store),
        folds=tuple(
            FoldResult(
                fold=fold,
                run=Path(),
                pictures=size,
                score=nan,
                untouched_score=nan,
                steps=0,
                best_step=0,
            )
            for fold, size in enumerate(sizes)
        ),
        seconds=0.0,
        scores_file=Path(),
        stopped_by="dry run",
    )
