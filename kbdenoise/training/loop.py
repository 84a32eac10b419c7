"""The training loop: one function that reads downwards, and the few helpers it calls."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import torch

from kbdenoise.data.batches import Batch, to_images
from kbdenoise.data.patches import prefetch
from kbdenoise.devices import free_memory_bytes
from kbdenoise.errors import DataError
from kbdenoise.inference.engines import TorchRestorer
from kbdenoise.inference.restoration import Restoration
from kbdenoise.inference.scoring import RestoreImages, pooled, score_pictures
from kbdenoise.models.weights import save_weights
from kbdenoise.notation import seconds
from kbdenoise.progress import Advance, Note, Progress
from kbdenoise.training.schedules import warmup_cosine
from kbdenoise.training.session import Session, card, save

_MOST_SKIPPED_IN_A_ROW = 50
_REPORT_EVERY_S = 0.5
_LONG_WAIT_SHARE, _LONG_WAIT_S = 0.2, 10.0  # from where waiting for patches is worth a word


@dataclass(slots=True, kw_only=True)
class Clock:
    """Seconds of a run over all its sittings, and when it was last saved and reported."""

    before_s: float
    started: float
    saved: float
    reported: float
    reported_step: int
    waited_s: float = 0.0
    """Of this sitting, for patches that were not there when they were needed."""
    wait_noted: bool = False

    @classmethod
    def start(cls, session: Session) -> "Clock":
        """Go on from the seconds that earlier sittings took."""
        moment = time.monotonic()
        return cls(
            before_s=session.elapsed_s,
            started=moment,
            saved=moment,
            reported=moment,
            reported_step=session.step,
        )

    def elapsed_s(self) -> float:
        """Seconds since the run's start, pauses between sittings left out."""
        return self.before_s + time.monotonic() - self.started


def run_steps(session: Session, *, asked_to_stop: Callable[[], bool], progress: Progress) -> str:
    """Train until the steps are done, the time is over or someone asks to stop; says which.

    Validates and saves on the way. A stop on request is saved but not validated, so that the
    resumed run goes exactly the way of one that was never stopped.
    """
    clock = Clock.start(session)
    last_step, validate_every = session.config.optimiser.steps, session.config.validation.val_every
    save_every_s = seconds(session.config.validation.save_every, name="--save-every")
    if session.time_limit_s and not session.validation_s:
        _plan_validation(session, progress)
    if not session.step:
        save(session)  # a run killed at any moment from now on can be resumed
    with closing(prefetch(session.sampler, start=session.step, stop=last_step)) as batches:
        while session.step < last_step and not _time_is_over(session, clock):
            if asked_to_stop():
                save(session, status="interrupted", stopped_by="interrupt")
                return "interrupt"
            batch = _next(batches, clock, progress)
            rate = _set_rate(session, clock)
            loss = optimise(session, batch)
            session.step += 1
            if math.isfinite(loss):
                session.average.update(session.model, step=session.step)
            _note_loss(session, loss)
            session.elapsed_s = clock.elapsed_s()
            _report(session, clock, rate, progress)
            if session.step % validate_every == 0 and session.step < last_step:
                validate(session, rate=rate, clock=clock, progress=progress)
            if save_every_s and time.monotonic() - clock.saved > save_every_s:
                save(session)
                clock.saved = time.monotonic()
    if session.validated_step < session.step:
        save(session)  # the host may not wait for the validation
        validate(session, rate=_set_rate(session, clock), clock=clock, progress=progress)
    stopped_by = "steps" if session.step >= last_step else "time limit"
    save(session, status="finished", stopped_by=stopped_by)
    return stopped_by


def _next(batches: Iterator[Batch], clock: Clock, progress: Progress) -> Batch:
    """The next batch; where the disk keeps training waiting, the user is told, once."""
    started = time.monotonic()
    batch = next(batches)
    moment = time.monotonic()
    clock.waited_s += moment - started
    share = clock.waited_s / max(moment - clock.started, 1e-9)
    if share > _LONG_WAIT_SHARE and clock.waited_s > _LONG_WAIT_S and not clock.wait_noted:
        clock.wait_noted = True
        text = (
            f"{share:.0%} of the time went on waiting for patches: the disk is slower than the "
            "network; keep the contest's folder on a faster one"
        )
        progress(Note(text=text))
    return batch


def validate(session: Session, *, rate: float, clock: Clock, progress: Progress) -> None:
    """Score the averaged weights on whole held-out pictures; keep them if they are the best."""
    started = time.monotonic()
    indices = session.validated
    restore = _restore(session)
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(Advance(task="validate", done=done, total=len(indices)))

    rows = score_pictures(
        restore, session.store, indices, metric=session.metric, with_ssim=False, after_each=count
    )
    session.model.train()
    score = pooled(rows, session.metric)
    is_best = not math.isfinite(session.best_score) or session.metric.better(
        score, session.best_score
    )
    if is_best:
        session.best_score, session.best_step = score, session.step
        save_weights(session.run.best, session.average.model, card=card(session))
    session.validation_s = time.monotonic() - started
    session.elapsed_s = clock.elapsed_s()
    psnr_db = sum(row.psnr_db for row in rows) / len(rows)
    session.history.append(_history_row(session, rate=rate, score=score, psnr_db=psnr_db))
    values = {session.metric.name: score, "psnr_db": psnr_db, "best": "yes" if is_best else "no"}
    progress(Note(text=f"validation at step {session.step:,}", values=values))
    save(session)
    clock.saved = clock.reported = time.monotonic()
    clock.reported_step = session.step


def optimise(session: Session, batch: Batch) -> float:
    """One optimiser step on a batch; returns the loss, NaN for a skipped step."""
    images = to_images(batch, device=session.device.kind, channels_last=session.channels_last)
    session.optimiser.zero_grad(set_to_none=True)
    buffers = [buffer.clone() for buffer in session.model.buffers()]
    with session.device.mixed_precision():
        restored = session.model(*images.seen)  # [B, C, P, P]
    loss = session.objective(restored.float(), images.clean).mean()  # [B] -> scalar
    session.scaler.scale(loss).backward()
    session.scaler.unscale_(session.optimiser)
    limit = session.config.optimiser.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(session.model.parameters(), limit)
    value, finite = float(loss.detach()), bool(torch.isfinite(norm))  # both wait for the GPU
    finite = finite and math.isfinite(value)
    if finite:
        session.scaler.step(session.optimiser)
    else:  # running statistics of batch norms have seen the overflow already
        for buffer, before in zip(session.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
    session.scaler.update()
    return value if finite else math.nan


def _note_loss(session: Session, loss: float) -> None:
    """Keep the running mean; stop when one step after the other is not finite."""
    if math.isfinite(loss):
        session.skipped_in_a_row = 0
        first = not math.isfinite(session.mean_loss)
        session.mean_loss = loss if first else 0.99 * session.mean_loss + 0.01 * loss
        return
    session.skipped_steps += 1
    session.skipped_in_a_row += 1
    if session.skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
        raise DataError(
            f"training diverged: {session.skipped_in_a_row} steps in a row up to step "
            f"{session.step:,} had no finite gradient",
            hint=f"train again with a smaller --lr than {session.config.optimiser.lr:g}"
            + (f"; the best weights so far are in {session.run.best}" if session.best_step else ""),
        )


def _set_rate(session: Session, clock: Clock) -> float:
    """Set the next step's learning rate, by steps or, with a time limit, by the clock."""
    settings = session.config.optimiser
    done = session.step / settings.steps
    if session.time_limit_s:
        usable = max(1.0, session.time_limit_s - session.reserve_s)
        done = max(done, clock.elapsed_s() / usable)
    rate = warmup_cosine(
        min(1.0, done), lr=settings.lr, min_lr=settings.min_lr, warmup=settings.warmup
    )
    for group in session.optimiser.param_groups:
        group["lr"] = rate
    return rate


def _time_is_over(session: Session, clock: Clock) -> bool:
    limit = session.time_limit_s
    return bool(limit) and clock.elapsed_s() >= limit - session.reserve_s


def _plan_validation(session: Session, progress: Progress) -> None:
    """Time one picture; where all would take over a third of the limit, score fewer, and say so."""
    started = time.monotonic()
    score_pictures(
        _restore(session),
        session.store,
        session.validated[:1],
        metric=session.metric,
        with_ssim=False,
    )
    session.model.train()
    picture_s, wanted = time.monotonic() - started, len(session.validated)
    affordable = max(1, int(session.time_limit_s / 3 / picture_s))
    if affordable < wanted:
        session.affordable_pictures = affordable
        text = f"validations score {affordable} of {wanted} pictures: the time limit allows no more"
        progress(Note(text=text))
    session.validation_s = picture_s * len(session.validated)


def _report(session: Session, clock: Clock, rate: float, progress: Progress) -> None:
    """Tell the speed and the time left, about twice a second."""
    interval_s = time.monotonic() - clock.reported
    if interval_s < _REPORT_EVERY_S or session.step == clock.reported_step:
        return
    steps_per_s = (session.step - clock.reported_step) / interval_s
    clock.reported, clock.reported_step = time.monotonic(), session.step
    left_s = (session.config.optimiser.steps - session.step) / steps_per_s
    if session.time_limit_s:
        left_s = min(left_s, session.time_limit_s - session.elapsed_s)
    values = {
        "step": session.step,
        "loss": session.mean_loss,
        "lr": rate,
        "images_per_s": steps_per_s * session.config.data.batch,
        "left_s": left_s,
    }
    share = session.elapsed_s / (session.elapsed_s + left_s)
    progress(Advance(task="train", done=share, total=1.0, values=values))


def _restore(session: Session) -> RestoreImages:
    """Restores pictures with the averaged weights."""
    restorer = TorchRestorer(session.average.model, info=session.info, device=session.device)
    return Restoration(restorer, memory_bytes=free_memory_bytes(session.device)).images


def _history_row(
    session: Session, *, rate: float, score: float, psnr_db: float
) -> dict[str, float]:
    seen = session.step * session.config.data.batch
    return {
        "step": session.step,
        "epoch": seen / len(session.split.train),
        "seconds": session.elapsed_s,
        "lr": rate,
        "loss": session.mean_loss,
        "val_score": score,
        "val_psnr_db": psnr_db,
        "images_per_s": seen / session.elapsed_s,
        "skipped_steps": session.skipped_steps,
    }
