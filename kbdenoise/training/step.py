"""One optimiser step: gradients of a batch, taken in pieces and on several processes; an update."""

import contextlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from kbdenoise.data.batches import Batch, pieces, to_images
from kbdenoise.devices import clear_memory, enough_memory
from kbdenoise.errors import NoMemoryError
from kbdenoise.progress import Note, Progress
from kbdenoise.runs.folds import resume_command, whole_of
from kbdenoise.team import ask_again
from kbdenoise.training.distributed import most_pieces
from kbdenoise.training.session import Session
from kbdenoise.training.sparsity import keep_gradients

_CHANCE = 2  # the stream of random numbers that a step draws, such as dropout's


class Pulse(NamedTuple):
    """What a step tells, of the whole batch; the same on every process."""

    loss: float
    error: float
    """Mean squared, in image units."""
    nothing: float
    """That of the noisy patches themselves."""
    finite: bool
    """Whether the step was done; without finite loss and gradient it is left out."""


def take_step(session: Session, batch: Batch, *, progress: Progress) -> Pulse:
    """One optimiser step on this process's share of a batch; counts it, whether done or left out.

    What does not fit into the memory is taken in twice as many pieces, from now on. Raises
    NoMemoryError where a single patch is too much, or other processes wait for this one.
    """
    buffers = [buffer.clone() for buffer in session.model.buffers()]
    while True:
        try:
            with enough_memory("a training step", hint=_hint(session)):
                sums = _gradients(session, batch)
            break
        except NoMemoryError:
            if session.now.pieces >= min(batch.length, _most(session)):
                raise
            if session.team.size > 1:  # the others wait for this one's gradients
                ask_again(_smaller(session))
                raise
        session.now.pieces *= 2
        _forget_gradients(session)
        _put_back(session, buffers)
        clear_memory()  # only here: the exception held on to what did not fit
        text = f"the memory ran out; a batch is now taken in {session.now.pieces} pieces"
        progress(Note(text=text))
    keep_gradients(session.model, session.masks)
    pulse = _pulse(session, sums)
    if pulse.finite:
        session.scaler.step(session.optimiser)
        session.keep_masked()
        session.average.update(session.model, step=session.now.step + 1)
    else:  # running statistics of batch norms have seen the overflow already
        _put_back(session, buffers)
    if session.adversary is not None:
        share = session.optimiser.param_groups[0]["lr"] / (session.plan.lr or 1.0)
        session.adversary.move(rate=share, scaler=session.scaler)
    session.scaler.update()
    session.now.step += 1
    session.now.samples += session.stage.batch
    return pulse


def chance(seed: int, *, step: int, rank: int) -> int:
    """The seed of what a process draws at a step, such as dropout; no two have the same."""
    state = np.random.SeedSequence([seed, _CHANCE, step, rank]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def _gradients(session: Session, batch: Batch) -> torch.Tensor:
    """Leave the whole batch's gradient in the parameters; sums of loss and errors over the share.

    A step's chance hangs on the seed, the step and the process: no state of it has to be kept.
    """
    torch.manual_seed(
        chance(session.config.data.seed, step=session.now.step, rank=session.team.rank)
    )
    _forget_gradients(session)
    parts = pieces(batch, min(session.now.pieces, _most(session)))
    sums = [_piece(session, part, last=part is parts[-1]) for part in parts]
    return torch.stack(sums).sum(dim=0)  # [pieces, 3] -> [3]


def _piece(session: Session, piece: Batch, *, last: bool) -> torch.Tensor:
    images = to_images(piece, device=session.device.kind, channels_last=session.channels_last)
    network = session.network
    waits = isinstance(network, DistributedDataParallel) and not last
    with network.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
        with session.device.mixed_precision():
            restored = network(*images.seen)  # [b, C, P, P]
        restored = restored.float()
        losses = session.objective(restored, images.clean)  # [b]
        if session.adversary is not None:
            weight = session.objective.adversarial_weight
            losses = losses + weight * session.adversary.judged(images.noisy, restored)
        # Gradients of processes are averaged, but each has the share of the loss that it has.
        share = session.team.size / session.stage.batch
        session.scaler.scale(losses.sum() * share).backward()
    if session.adversary is not None:
        session.adversary.learn(images, restored, share=share, scaler=session.scaler, last=last)
    with torch.no_grad():
        error = (restored - images.clean).square().mean(dim=(1, 2, 3)).sum()
        nothing = (images.noisy - images.clean).square().mean(dim=(1, 2, 3)).sum()
        return torch.stack([losses.sum(), error, nothing])


def _forget_gradients(session: Session) -> None:
    session.optimiser.zero_grad(set_to_none=True)
    if session.adversary is not None:
        session.adversary.forget()


def _pulse(session: Session, sums: torch.Tensor) -> Pulse:
    """Clip the gradient, and tell whether it and the loss are finite. Waits for the device."""
    session.scaler.unscale_(session.optimiser)
    limit = session.config.optimiser.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(session.model.parameters(), limit)
    *local, length = torch.cat([sums, norm.reshape(1).to(sums)]).tolist()
    loss, error, nothing = (v / session.stage.batch for v in session.team.total(local))
    finite = math.isfinite(length) and math.isfinite(loss) and math.isfinite(error)
    return Pulse(loss=loss, error=error, nothing=nothing, finite=finite)


def _put_back(session: Session, buffers: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for buffer, before in zip(session.model.buffers(), buffers, strict=True):
            buffer.copy_(before)


def _most(session: Session) -> int:
    """In how many pieces a share can be taken."""
    norms = session.plans[session.now.stage].batch_norms
    return most_pieces(session.stage.batch, team=session.team, batch_norms=norms)


def _more(session: Session) -> int:
    """In how many pieces a share can be taken, up to twice as many as now."""
    return min(2 * session.now.pieces, _most(session))


def _smaller(session: Session) -> list[str]:
    """The arguments that go on with this run, or with its cross-validation, in smaller pieces."""
    whole = str(whole_of(session.run).resolve())
    return ["train", "--resume", whole, "--accumulate", str(_more(session))]


def _hint(session: Session) -> str:
    resume = resume_command(session.run)
    if session.team.size > 1 and _more(session) > session.now.pieces:
        return f"go on in smaller pieces: {resume} --accumulate {_more(session)}"
    # A processor's library may stay broken once memory has run out; a new process has a new one.
    return (
        f"go on with fewer activations: {resume} --checkpointing --accumulate {session.now.pieces};"
        " or use a smaller --patch, --size or --width"
    )
