"""The training loop: one function that reads downwards, and the few helpers it calls."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from kbdenoise.data.batches import Batch
from kbdenoise.errors import DataError
from kbdenoise.notation import seconds
from kbdenoise.progress import Advance, Note, Progress
from kbdenoise.training.clock import Clock
from kbdenoise.training.ending import no_step, unsaved
from kbdenoise.training.guard import Watch
from kbdenoise.training.interrupt import Stopped
from kbdenoise.training.session import Session
from kbdenoise.training.sparsity import PHASES
from kbdenoise.training.state import forget_good, keep_as_good, load, save
from kbdenoise.training.step import Pulse, take_step
from kbdenoise.training.validation import plan_validation, validate

_REPORT_EVERY_S = 0.5
_LONG_WAIT_SHARE, _LONG_WAIT_S = 0.2, 10.0  # from where waiting for patches is worth a word


def run_steps(session: Session, *, progress: Progress) -> str:
    """Train until the steps are done, the time is over or somebody asks to stop; says which.

    Validates and saves on the way, and goes back where training diverges. A stop on request is
    saved but not validated, so that the resumed run goes exactly the way of one that was never
    stopped. A validation that a stop cuts short is the first thing that a resumed run does.
    """
    clock = Clock.start(session)
    _begin(session, clock, progress)
    try:
        return _trained(session, clock, progress)
    except Stopped:  # within a validation
        session.now.elapsed_s = session.team.told(clock.elapsed_s())
        _finish(session, "interrupt", clock, progress)
        return "interrupt"


def _trained(session: Session, clock: Clock, progress: Progress) -> str:
    """Why training ended. Raises Stopped where that was asked for within a validation."""
    while True:
        alarm = _owed(session, clock, progress)
        with closing(session.batches()) as batches:
            while not alarm and not _ending(session, clock):
                if session.ends_phase:
                    alarm = _phase_ended(session, clock, progress)
                    continue
                if session.next_stage():
                    break
                rate = set_rate(session)
                batch = _next(batches, clock, progress)
                pulse = take_step(session, batch, progress=progress)
                _note(session, pulse)
                clock.note_step(session)
                _report(session, clock, rate, progress)
                alarm = session.watch.alarm(session.config.guard.guard)
                if not alarm and _is_due(session):
                    alarm = _score_and_save(session, clock, rate, progress)
                elif not alarm and _wants_saving(session, clock):
                    _saved(session, clock, progress)
        stopped_by = _ending(session, clock)
        if not alarm and not stopped_by:
            continue  # with the batches of the next stage
        if not (alarm := alarm or _finish(session, stopped_by, clock, progress)):
            return stopped_by
        go_back(session, alarm, clock, progress)


def set_rate(session: Session) -> float:
    """Set the next step's learning rate, and return it."""
    session.now.rate = session.scheduled_rate()
    rate = session.now.rate_cut * session.now.rate
    if session.now.phase == len(PHASES) - 1:
        rate = max(session.config.dsd.dsd_last_lr * rate, min(rate, session.plan.min_lr))
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    return rate


def go_back(session: Session, alarm: str, clock: Clock, progress: Progress) -> None:
    """Return to the last good state with a lower learning rate; give up after too many times.

    Raises DataError where that has been done often enough, or there is nothing to go back to.
    """
    guard, step, times = session.config.guard, session.now.step, session.now.went_back + 1
    best = f"; the best weights so far are in {session.run.best}" if session.now.best_step else ""
    is_there = session.team.told(session.run.good_file.is_file())
    if not guard.guard or times > guard.guard_times or not is_there:
        often = f" again, for time {times}," if times > 1 else ""
        gone = "; the state to go back to was given up on a full disk"
        why = gone if guard.guard and times <= guard.guard_times else ""
        raise DataError(
            f"training diverged{often} at step {step:,}: {alarm}{why}",
            hint=f"train again with a smaller --lr than {session.config.optimiser.lr:g}{best}",
        )
    now = session.now
    kept: dict[str, Any] = {
        "best_score": now.best_score,  # the weights that are on the disk
        "best_step": now.best_step,
        "best_weights": now.best_weights,
        "skipped_steps": now.skipped_steps,
        "pieces": now.pieces,
        "elapsed_s": now.elapsed_s,  # time does not go back
        "trained_s": now.trained_s,
        "time_share": now.time_share,
        "step_s": now.step_s,
        "save_s": now.save_s,
        "rate_cut": now.rate_cut * guard.guard_cut,
        "went_back": times,
    }
    load(session, session.run.good_file)
    session.now, session.watch = replace(session.now, **kept), Watch()
    clock.reported_step = session.now.step
    text = (
        f"training diverged at step {step:,} ({alarm}): back to step {session.now.step:,}, from "
        f"where the learning rate is {session.now.rate_cut:g} times the schedule's"
    )
    progress(Note(text=text))
    _saved(session, clock, progress)


def _finish(session: Session, stopped_by: str, clock: Clock, progress: Progress) -> str:
    """Save what a run has come to, complete unless somebody stopped it; or an alarm.

    Raises SettingsError where there was no step, and DataError where the disk refuses.
    """
    is_complete = stopped_by != "interrupt"
    if is_complete and (alarm := _completed(session, clock, progress)):
        return alarm
    status = "finished" if is_complete else "interrupted"
    try:
        _save(session, clock, status=status, stopped_by=stopped_by)
    except DataError as error:
        step = clock.saved_step
        raise unsaved(session, error, stopped_by=stopped_by, saved_step=step) from error
    return ""


def _completed(session: Session, clock: Clock, progress: Progress) -> str:
    """Validate what has not been; an alarm if the weights turn out to be no good."""
    if not session.now.step:
        raise no_step(session)
    if session.validated_step < session.now.step:
        _saved(session, clock, progress)  # the host may not wait for the validation
        if alarm := _score(session, clock, set_rate(session), progress):
            return alarm
    if session.config.dsd.dsd:
        _note_phase(session, progress)
    forget_good(session)  # before the save, which may need its room
    return ""


def _phase_ended(session: Session, clock: Clock, progress: Progress) -> str:
    """Score what a phase of dense-sparse-dense training has come to, and begin the next one."""
    is_validated = session.validated_step == session.now.step
    if not is_validated and (alarm := _score_and_save(session, clock, set_rate(session), progress)):
        return alarm
    if session.out_of_time:
        return ""  # the end notes the phase; another has no time for a step
    _note_phase(session, progress)
    session.next_phase()
    return ""


def _note_phase(session: Session, progress: Progress) -> None:
    """Write a phase's score into the run's record, and tell it."""
    phase, row = session.now.phase, session.history[-1]
    score = row["val_score"]
    done = {"phase": PHASES[phase], "step": session.now.step, "score": score}
    session.record = replace(session.record, phases=[*session.record.phases[:phase], done])
    text = (
        f"phase {phase + 1} of {len(PHASES)} ({PHASES[phase]}) ended at step {session.now.step:,}"
    )
    progress(Note(text=text, values={session.metric.name: score}))


def _begin(session: Session, clock: Clock, progress: Progress) -> None:
    """Plan validations, and see that a run killed at any moment from now on can be resumed."""
    if session.time_limit_s and not session.history:
        plan_validation(session, progress)
    session.now.elapsed_s = session.team.told(clock.elapsed_s())
    if not session.now.step:
        _save(session, clock)
        keep_as_good(session)
    elif session.validated_step == session.now.step:
        _kept_as_good(session, progress)  # killed between saving this state and calling it good


def _ending(session: Session, clock: Clock) -> str:
    """Why training is over, if it is; the same answer on every process."""
    if session.now.step >= session.last_step:
        return "steps"
    if session.out_of_time:
        return "time limit"
    if session.out_of_patience:
        return "patience"
    asked = clock.asked if session.team.size > 1 else session.request.asked
    return "interrupt" if asked else ""


def _next(batches: Iterator[Batch], clock: Clock, progress: Progress) -> Batch:
    """The next batch; where the disk keeps training waiting, the user is told, once."""
    clock.step_began = time.monotonic()
    batch = next(batches)
    moment = time.monotonic()
    clock.waited_s += moment - clock.step_began
    share = clock.waited_s / max(moment - clock.started, 1e-9)
    if share > _LONG_WAIT_SHARE and clock.waited_s > _LONG_WAIT_S and not clock.wait_noted:
        clock.wait_noted = True
        text = (
            f"{share:.0%} of the time went on waiting for patches: the disk is slower than the "
            "network; keep the contest's folder on a faster one"
        )
        progress(Note(text=text))
    return batch


def _note(session: Session, pulse: Pulse) -> None:
    """Keep running means, and count what was left out."""
    if pulse.finite:
        mean = session.now.mean_loss
        session.now.mean_loss = (
            0.99 * mean + 0.01 * pulse.loss if math.isfinite(mean) else pulse.loss
        )
        session.watch.note(error=pulse.error, nothing=pulse.nothing)
    else:
        session.now.skipped_steps += 1
        session.watch.note_skipped()


def _is_due(session: Session) -> bool:
    every = session.config.validation.val_every
    return session.now.step % every == 0 and session.now.step < session.last_step


def _wants_saving(session: Session, clock: Clock) -> bool:
    every_s = seconds(session.config.validation.save_every, name="--save-every")
    return bool(every_s) and time.monotonic() - clock.saved > every_s


def _score_and_save(session: Session, clock: Clock, rate: float, progress: Progress) -> str:
    """Validate, save, and keep a healthy state to go back to; or an alarm, and nothing saved."""
    if alarm := _score(session, clock, rate, progress):
        return alarm
    if _saved(session, clock, progress) and session.watch.is_calm():
        _kept_as_good(session, progress)
    return ""


def _score(session: Session, clock: Clock, rate: float, progress: Progress) -> str:
    """Validate, and add the row of the history; an alarm where weights answer with NaN."""
    found = validate(session, progress=progress)
    if not math.isfinite(found.averaged):
        return "the restored pictures are not finite"
    session.pass_time(session.team.told(clock.elapsed_s()))
    seen = session.now.samples
    session.history.append(
        {
            "step": session.now.step,
            "epoch": seen / len(session.split.train),
            "seconds": session.now.elapsed_s,
            "lr": rate,
            "loss": session.now.mean_loss,
            "val_score": found.averaged,
            "val_raw_score": found.raw,
            "val_psnr_db": found.psnr_db,
            "images_per_s": seen / session.now.elapsed_s,
            "skipped_steps": session.now.skipped_steps,
            "went_back": session.now.went_back,
        }
    )
    scores = {"val_score": found.averaged, "val_raw_score": found.raw, "val_psnr_db": found.psnr_db}
    session.sinks.log(session.now.step, scores)
    clock.reported, clock.reported_step = time.monotonic(), session.now.step
    return ""


def _owed(session: Session, clock: Clock, progress: Progress) -> str:
    """Validate where a stop has cut a validation short; an alarm as that of `_score_and_save`."""
    if not _is_due(session) or session.validated_step == session.now.step:
        return ""
    return _score_and_save(session, clock, session.optimiser.param_groups[0]["lr"], progress)


def _saved(session: Session, clock: Clock, progress: Progress) -> bool:
    """Save; where the disk refuses, say so and go on: the state before is still whole."""
    try:
        _save(session, clock)
    except DataError as error:
        text = f"not saved: {error.message}; training goes on from memory and tries again later"
        progress(Note(text=text))
        return False
    return True


def _save(session: Session, clock: Clock, **ended: str) -> None:
    """Save, and note when that was, how long it took and what is on the disk."""
    clock.saved = time.monotonic()
    save(session, **ended)
    clock.save_s, clock.saved_step = time.monotonic() - clock.saved, session.now.step


def _kept_as_good(session: Session, progress: Progress) -> None:
    """Keep a state to go back to; where the disk refuses, the one before is still whole."""
    try:
        keep_as_good(session)
    except DataError as error:
        progress(Note(text=f"no newer state to go back to is kept: {error.message}"))


def _report(session: Session, clock: Clock, rate: float, progress: Progress) -> None:
    """Tell the speed and the time left, about twice a second."""
    interval_s = time.monotonic() - clock.reported
    if interval_s < _REPORT_EVERY_S or session.now.step <= clock.reported_step:
        return
    steps_per_s = (session.now.step - clock.reported_step) / interval_s
    clock.reported, clock.reported_step = time.monotonic(), session.now.step
    left_s = (session.last_step - session.now.step) / steps_per_s
    if session.time_limit_s:
        left_s = min(left_s, session.time_limit_s - session.now.elapsed_s)
    values = {
        "step": session.now.step,
        "loss": session.now.mean_loss,
        "lr": rate,
        "images_per_s": steps_per_s * session.stage.batch,
        "left_s": left_s,
    }
    curves = {name: values[name] for name in ("loss", "lr", "images_per_s")}
    session.sinks.log(session.now.step, curves)
    share = session.now.elapsed_s / (session.now.elapsed_s + left_s)
    progress(Advance(task="train", done=share, total=1.0, values=values))
