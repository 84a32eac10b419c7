"""Train a classical filter: choose its parameters on training pairs, score them on held-out ones.

A filter's run is a network's run with `filter.toml` in place of weights. A step is one try of
parameters. There is no state: choosing takes seconds, so that a stopped run is started anew.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kbdenoise.atomic import write_text
from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.splits import evenly
from kbdenoise.devices import enough_memory, free_memory_bytes
from kbdenoise.errors import KbdenoiseError, SettingsError, nearest
from kbdenoise.imaging.classical.choosing import Chosen, check_fixed
from kbdenoise.imaging.classical.table import FILTERS, find_filter
from kbdenoise.inference.filters import (
    FilterCard,
    FilterRestorer,
    choose_on,
    filter_device,
    parameters_in_words,
    write_filter,
)
from kbdenoise.inference.restoration import Restoration
from kbdenoise.inference.scoring import ImageScore, pooled, pooled_untouched, score_pictures
from kbdenoise.models.zoo import MODELS
from kbdenoise.notation import parse_hyper, seconds
from kbdenoise.progress import Advance, Fact, Note, Progress
from kbdenoise.resolving import to_toml
from kbdenoise.runs.folder import Run, RunRecord, Status, environment, now
from kbdenoise.runs.history import COLUMNS, write_history
from kbdenoise.team import Team
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.pairs import Pairs, data_fact, open_pairs, untouched_score, write_split
from kbdenoise.training.result import TrainResult

_CHOOSING_SHARE = 0.5  # of a time limit; the rest is for the held-out pictures


class _Interrupted(Exception):
    """The person asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """When the work began, and how long it may take; 0 means as long as it takes."""

    started: float
    limit_s: float

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def over(self, share: float) -> bool:
        """Whether this share of the limit is used up."""
        return bool(self.limit_s) and self.elapsed_s > share * self.limit_s


def is_filter(model: str) -> bool:
    """Whether a model's name is a filter's.

    Raises SettingsError for a filter behind another stage, and for a name that is neither a
    filter's nor a network's.
    """
    first, _, second = model.partition("+")
    if second and (first in FILTERS or second in FILTERS):
        raise SettingsError(
            f"{model} cannot be trained: a classical filter is no part of a network",
            hint=f"train one of them alone: --model {second if second in FILTERS else first}",
        )
    if not second and model not in FILTERS and model not in MODELS:
        raise SettingsError(
            f"there is no model called {model!r}", hint=nearest(model, [*MODELS, *FILTERS])
        )
    return model in FILTERS


def check_alone(name: str, team: Team) -> None:
    """Raises SettingsError where several processes would choose the filter `name` at once."""
    if team.size > 1:
        raise SettingsError(
            f"{name} is a classical filter, which one process chooses in seconds",
            hint="train it without torchrun and without --gpus",
        )


def train_filter(
    local: LocalContest,
    config: TrainConfig,
    new_run: Callable[[], Run],
    *,
    dry_run: bool,
    started: float,
    progress: Progress,
    pairs: Pairs | None = None,
) -> TrainResult:
    """Choose a filter for a contest and write its run; `started` is when, on the monotonic clock.

    `new_run` makes the run's folder once all is in place; `pairs` are the contest's where they
    have been opened before.
    `--hyper` fixes parameters instead of choosing them. The first Ctrl-C or SIGTERM returns with
    `stopped_by="interrupt"`. Raises SettingsError for --init, --size and --width;
    other settings of networks have no effect.
    """
    check_filter_settings(config)
    clock = _Clock(started=started, limit_s=seconds(config.length.time_limit, name="--time-limit"))
    pairs = pairs or open_pairs(local, config, progress)
    name = config.model.model
    progress(data_fact(pairs, config))
    progress(Fact(label="model", text=f"{name}: {FILTERS[name].summary}"))
    progress(Fact(label="device", text=filter_device().text))
    if dry_run:
        untouched = untouched_score(pairs, count=config.validation.val_images)
        return _result(Path(), _record(pairs, name), pairs, untouched=untouched, ended="dry run")
    run = new_run()
    record = _record(pairs, name)
    run.write_record(record)  # first, so that a kill leaves a run that can be seen
    write_text(run.config_file, to_toml(config))
    write_split(run, pairs)
    progress(Fact(label="run", text=str(run.path)))
    return _guarded(run, record, pairs, config, clock=clock, progress=progress)


def _guarded(
    run: Run,
    record: RunRecord,
    pairs: Pairs,
    config: TrainConfig,
    *,
    clock: _Clock,
    progress: Progress,
) -> TrainResult:
    """Do the work, and leave the true status behind however it ends."""
    try:
        with StopRequest() as request, enough_memory("the filter", hint="choose another --model"):
            return _chosen_and_scored(
                run, record, pairs, config, clock=clock, request=request, progress=progress
            )
    except (_Interrupted, KeyboardInterrupt) as error:
        _leave(run, record, status="interrupted", stopped_by="interrupt", clock=clock)
        if isinstance(error, KeyboardInterrupt):
            raise
        return _result(run.path, run.read_record(), pairs, untouched=None, ended="interrupt")
    except BaseException as error:
        _leave(run, record, status="failed", stopped_by=type(error).__name__, clock=clock)
        raise


def _leave(run: Run, record: RunRecord, *, status: Status, stopped_by: str, clock: _Clock) -> None:
    with contextlib.suppress(KbdenoiseError, OSError):
        run.write_record(
            replace(
                record,
                status=status,
                stopped_by=stopped_by,
                updated_at=now(),
                seconds=round(clock.elapsed_s, 1),
            )
        )


def _chosen_and_scored(
    run: Run,
    record: RunRecord,
    pairs: Pairs,
    config: TrainConfig,
    *,
    clock: _Clock,
    request: StopRequest,
    progress: Progress,
) -> TrainResult:
    found, pictures = choose_on(
        pairs.store,
        pairs.split.train,
        find_filter(record.model),
        metric=pairs.metric,
        fixed=parse_hyper(config.model.hyper),
        asked_to_stop=lambda: request.asked or clock.over(_CHOOSING_SHARE),
        after_each=lambda done, total, score: progress(
            Advance(task="choose", done=done, total=total, values={pairs.metric.name: score})
        ),
    )
    if request.asked:
        raise _Interrupted
    card = FilterCard(
        name=record.model,
        channels=record.channels,
        contest=record.contest,
        metric=record.metric,
        chosen_score=found.score,
        pictures=pictures,
        parameters=found.parameters,
    )
    progress(Fact(label="chosen", text=_choice_text(found, card, pairs)))
    write_filter(run.filter_file, card)
    rows = _held_out_scores(card, pairs, config, clock=clock, request=request, progress=progress)
    return _finished(run, record, pairs, card, found=found, rows=rows, clock=clock)


def _choice_text(found: Chosen, card: FilterCard, pairs: Pairs) -> str:
    return (
        f"{parameters_in_words(card.parameters)}: {pairs.metric.name} {found.score:.4g} "
        f"{pairs.metric.unit} on training pictures, best of {found.tried} tries"
    )


def _held_out_scores(
    card: FilterCard,
    pairs: Pairs,
    config: TrainConfig,
    *,
    clock: _Clock,
    request: StopRequest,
    progress: Progress,
) -> list[ImageScore]:
    """Scores as evaluate would give them: all that were asked for, or what the limit allows."""
    held_out = evenly(pairs.split.held_out, config.validation.val_images)
    memory_bytes = free_memory_bytes(filter_device())
    restore = Restoration(FilterRestorer(card), memory_bytes=memory_bytes).images
    began = time.monotonic()
    score_pictures(restore, pairs.store, held_out[:1], metric=pairs.metric, with_ssim=False)
    some = evenly(held_out, _affordable(time.monotonic() - began, len(held_out), clock))
    if len(some) < len(held_out):
        note = f"the time limit allows {len(some):,} of {len(held_out):,} held-out pictures"
        progress(Note(text=f"{note}; `kbdenoise evaluate` scores them all"))
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(Advance(task="score", done=done, total=len(some)))
        if request.asked:
            raise _Interrupted

    return score_pictures(
        restore, pairs.store, some, metric=pairs.metric, with_ssim=False, after_each=count
    )


def _affordable(seconds_each: float, count: int, clock: _Clock) -> int:
    """How many pictures, at least one, can be scored before the limit; `count` without one."""
    if not clock.limit_s:
        return count
    left_s = clock.limit_s - clock.elapsed_s
    return min(count, max(1, int(left_s / max(seconds_each, 1e-6))))


def _finished(
    run: Run,
    record: RunRecord,
    pairs: Pairs,
    card: FilterCard,
    *,
    found: Chosen,
    rows: Sequence[ImageScore],
    clock: _Clock,
) -> TrainResult:
    score, untouched = pooled(rows, pairs.metric), pooled_untouched(rows, pairs.metric)
    known = {
        "step": float(found.best_try),
        "epoch": 0.0,
        "seconds": clock.elapsed_s,
        "val_score": score,
        "val_psnr_db": float(np.mean([row.psnr_db for row in rows])),
        "skipped_steps": 0.0,
    }
    write_history(run.history_file, [{name: known.get(name, float("nan")) for name in COLUMNS}])
    ended = "steps" if found.whole else "time limit"
    record = replace(
        record,
        parameters=card.count,
        status="finished",
        stopped_by=ended,
        updated_at=now(),
        steps=found.tried,
        seconds=round(clock.elapsed_s, 1),
        best_score=score,
        best_step=found.best_try,
        untouched_score=untouched,
    )
    run.write_record(record)
    return _result(run.path, record, pairs, untouched=untouched, ended=ended)


def _record(pairs: Pairs, name: str) -> RunRecord:
    return RunRecord(
        contest=pairs.local.contest.slug,
        contest_folder=str(pairs.local.folder.resolve()),
        metric=pairs.metric.name,
        model=name,
        channels=pairs.store.channels,
        parameters=0,
        device=filter_device().text,
        data_checksum=pairs.store.checksum,
        updated_at=now(),
        **environment(),
    )


def _result(
    path: Path, record: RunRecord, pairs: Pairs, *, untouched: float | None, ended: str
) -> TrainResult:
    nan = float("nan")
    return TrainResult(
        run=path,
        metric=pairs.metric.name,
        unit=pairs.metric.unit,
        best_score=nan if record.best_score is None else record.best_score,
        best_step=record.best_step,
        untouched_score=nan if untouched is None else untouched,
        steps=record.steps,
        seconds=record.seconds,
        stopped_by=ended,
        resumable=False,
    )


def check_filter_settings(config: TrainConfig) -> None:
    """Refuse what only networks have, and parameters that the filter does not have."""
    asked = {
        "--init": config.model.init,
        "--size": config.model.size,
        "--width": config.model.width,
    }
    name = config.model.model
    for option, value in asked.items():
        if value:
            raise SettingsError(
                f"{option} {value} is for networks, and {name} is a classical filter",
                hint="leave it out; --hyper fixes a parameter of a filter",
            )
    try:
        check_fixed(FILTERS[name], parse_hyper(config.model.hyper))
    except SettingsError as error:
        raise SettingsError(f"--hyper: {error.message} ({name})", hint=error.hint) from error
