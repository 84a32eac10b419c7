"""Scores of a run on whole held-out pictures, and which weights are kept for them."""

import math
import time
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from kbdenoise.devices import free_memory_bytes
from kbdenoise.errors import DataError, NotFiniteError
from kbdenoise.inference.engines import TorchRestorer
from kbdenoise.inference.restoration import Restoration
from kbdenoise.inference.scoring import (
    ImageScore,
    RestoreImages,
    pooled,
    pooled_untouched,
    score_pictures,
)
from kbdenoise.models.weights import save_weights
from kbdenoise.progress import Note, Progress
from kbdenoise.training.distributed import share_buffers
from kbdenoise.training.session import Session, card
from kbdenoise.training.state import with_room
from kbdenoise.training.team_scores import score_together


class Validation(NamedTuple):
    """What one validation found, in the contest metric's unit."""

    averaged: float
    """The score of the averaged weights, or of the raw ones where none are averaged.

    NaN where either answer with NaN or infinity.
    """
    raw: float
    """NaN where they were not scored."""
    psnr_db: float
    """Mean over the pictures, with the weights that scored better."""


_NO_NUMBERS = Validation(math.nan, math.nan, math.nan)


def validate(session: Session, *, progress: Progress) -> Validation:
    """Score the weights on whole held-out pictures; keep them if they are the best so far.

    Processes divide the pictures. The best weights that cannot be written are not counted as best.
    Raises Stopped, with nothing changed, where any process is asked to stop before all are scored.
    """
    for model in (session.model, session.average.model):
        share_buffers(model, team=session.team)
    try:
        return _validated(session, progress)
    finally:
        session.network.train()  # restoring has put it into the other mode


def _validated(session: Session, progress: Progress) -> Validation:
    started = time.monotonic()
    rows = _scored(session, session.average.model, progress)
    if not rows:
        return _NO_NUMBERS
    untouched = pooled_untouched(rows, session.metric)  # of these pictures, be they all or not
    session.record = replace(session.record, untouched_score=untouched)
    score = pooled(rows, session.metric)
    which, model = "averaged" if session.average.decay else "raw", session.average.model
    found = Validation(score, math.nan if session.average.decay else score, _mean_psnr(rows))
    if session.average.decay and session.config.validation.val_raw:
        raw_rows = _scored(session, session.model, progress)
        if not raw_rows:
            return _NO_NUMBERS
        raw = pooled(raw_rows, session.metric)
        found = Validation(score, raw, found.psnr_db)
        if session.metric.better(raw, score):
            which, model, score = "raw", session.model, raw
            found = Validation(found.averaged, raw, _mean_psnr(raw_rows))
    best = session.now.best_score
    is_best = not math.isfinite(best) or session.metric.better(score, best)
    if is_best and _kept(session, model, which, progress):
        session.now.best_score, session.now.best_step = score, session.now.step
        session.now.best_weights = which
    session.now.validation_s = session.team.told(time.monotonic() - started)
    values = {session.metric.name: score, "psnr_db": found.psnr_db}
    if session.average.decay and math.isfinite(found.raw):
        values |= {"averaged": found.averaged, "raw": found.raw}
    text = f"validation at step {session.now.step:,}"
    progress(Note(text=text, values=values | {"best": "yes" if is_best else "no"}))
    return found


def plan_validation(session: Session, progress: Progress) -> None:
    """Time a picture; where all would take over a third of the time left, score fewer, and say so.

    From the first score on it stays as it is, also where a run is given more time: scores of other
    pictures could not be compared.
    """
    session.now.affordable_pictures = 0
    pixels = {i: math.prod(session.store.size(i)) for i in session.validated}
    middling = sorted(pixels, key=lambda i: pixels[i])[len(pixels) // 2]
    _picture_s(session, middling)  # loads libraries and chooses kernels, which is done but once
    pixel_s = session.team.told(_picture_s(session, middling)) / pixels[middling]
    session.network.train()
    twice = bool(session.average.decay and session.config.validation.val_raw)
    pixel_s *= (1 + twice) / session.team.size
    left_s, wanted = session.time_limit_s - session.now.elapsed_s, len(pixels)
    affordable = max(1, int(wanted * left_s / 3 / (pixel_s * sum(pixels.values()))))
    if affordable < wanted:
        session.now.affordable_pictures = affordable
        text = f"validations score {affordable} of {wanted} pictures: the time limit allows no more"
        progress(Note(text=text))
    session.now.validation_s = pixel_s * sum(pixels[i] for i in session.validated)


def _picture_s(session: Session, index: int) -> float:
    """Seconds in which a picture is restored and scored."""
    started = time.monotonic()
    score_pictures(
        restoring(session, session.average.model),
        session.store,
        [index],
        metric=session.metric,
        with_ssim=False,
    )
    return time.monotonic() - started


def restoring(session: Session, model: nn.Module) -> RestoreImages:
    """Restores pictures with some weights of the run."""
    restorer = TorchRestorer(model, info=session.info, device=session.device)
    return Restoration(restorer, memory_bytes=free_memory_bytes(session.device)).images


def _scored(session: Session, model: nn.Module, progress: Progress) -> list[ImageScore]:
    """Scores of all validated pictures; none at all where any answer is not finite."""
    try:
        return score_together(
            restoring(session, model),
            session.store,
            session.validated,
            metric=session.metric,
            team=session.team,
            request=session.request,
            task="validate",
            progress=progress,
        )
    except NotFiniteError:
        return []


def _kept(session: Session, model: nn.Module, which: str, progress: Progress) -> bool:
    """Whether the leader could write the best weights."""
    written = True
    if session.team.leads:
        try:
            weights = card(session, weights=which)
            with_room(session, lambda: save_weights(session.run.best, model, card=weights))
        except DataError as error:
            progress(Note(text=f"the best weights so far are not kept: {error.message}"))
            written = False
    return session.team.told(written)


def _mean_psnr(rows: list[ImageScore]) -> float:
    return sum(row.psnr_db for row in rows) / len(rows)
