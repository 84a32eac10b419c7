"""One network's run from a session to its result, whoever asked for it."""

import contextlib
import time
from dataclasses import replace

from kbdenoise.atomic import write_text
from kbdenoise.devices import enough_memory
from kbdenoise.errors import KbdenoiseError
from kbdenoise.progress import Fact, Progress
from kbdenoise.resolving import to_toml
from kbdenoise.runs.folder import Status
from kbdenoise.runs.lock import trained_here
from kbdenoise.team import broken_team, is_broken_team
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.loop import run_steps
from kbdenoise.training.result import TrainResult
from kbdenoise.training.session import Session
from kbdenoise.training.sinks import open_sinks, sink_names


def train_session(session: Session, *, started: float, progress: Progress) -> TrainResult:
    """Train a session that is new or was resumed; `started` is when, on the monotonic clock."""
    team = session.team
    session.now.elapsed_s += team.told(time.monotonic() - started)
    progress(Fact(label="run", text=str(session.run.path)))
    with trained_here(session.run) if team.leads else contextlib.nullcontext():
        stopped_by = _run(session, progress)
    return team.told(session_result(session, stopped_by))


def session_result(session: Session, stopped_by: str) -> TrainResult:
    """What there is to tell of a session as it is."""
    untouched = session.record.untouched_score
    return TrainResult(
        run=session.run.path,
        metric=session.metric.name,
        unit=session.metric.unit,
        best_score=session.now.best_score,
        best_step=session.now.best_step,
        untouched_score=float("nan") if untouched is None else untouched,
        steps=session.now.step,
        seconds=session.now.elapsed_s,
        stopped_by=stopped_by,
        skipped_steps=session.now.skipped_steps,
        went_back=session.now.went_back,
    )


def _run(session: Session, progress: Progress) -> str:
    """Train, and leave the true status behind however it ends."""
    session.record = replace(session.record, status="running", device=session.device.text)
    if session.team.leads:
        write_text(session.run.config_file, to_toml(session.config))
        session.run.write_record(session.record)
    names = sink_names(session.config.validation.log_to) if session.team.leads else ()
    hint = "use a smaller --batch or --patch, or a smaller --size or --width"
    try:
        with (
            StopRequest(patient=session.team.size > 1) as session.request,
            enough_memory("training", hint=hint),
            open_sinks(names, session.run, session.config, progress) as session.sinks,
        ):
            return run_steps(session, progress=progress)
    except BaseException as error:
        status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        failed = replace(session.record, status=status, stopped_by=type(error).__name__)
        if session.team.leads:
            with contextlib.suppress(KbdenoiseError, OSError):
                session.run.write_record(failed)
        if session.team.size > 1 and isinstance(error, RuntimeError) and is_broken_team(error):
            raise broken_team() from error
        raise
