"""A run's trip to the disk and back.

`state.pt` alone decides what a resumed run knows: it is written whole or not at all, after the
weights files, so that a kill between two writes costs some repeated steps and nothing else.
`good.pt` is the newest state worth going back to when training diverges: another name for a
`state.pt` of before, and the first to go where the disk is full. Random numbers are not kept: those
of a step are drawn anew from the seed, the step and the process. So a state fits another device,
and another number of processes.
"""

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from kbdenoise.atomic import is_full, write_bytes, writing_to
from kbdenoise.errors import DataError
from kbdenoise.models.weights import save_weights
from kbdenoise.runs.folder import now as this_moment
from kbdenoise.runs.history import write_history
from kbdenoise.training.session import Session, card

_STATE_VERSION = 3
_START_ANEW = "the weights in best.safetensors are still good; start a new run"


def save(session: Session, *, status: str = "running", stopped_by: str = "") -> None:
    """Write last weights, history, record and state, each atomically, the state last.

    The leader writes; other processes have nothing else to say. Raises DataError where the disk
    refuses.
    """
    if session.team.leads:
        with_room(session, lambda: _write(session, status=status, stopped_by=stopped_by))


def with_room(session: Session, write: Callable[[], None]) -> None:
    """Write; where the disk is full, give up the state to go back to, and write once more."""
    try:
        write()
    except DataError as error:
        if not is_full(error) or not _has_given_up_good(session):
            raise
        write()


def _has_given_up_good(session: Session) -> bool:
    """Remove the state to go back to, unless that is the newest one, and frees nothing."""
    good = session.run.good_file
    with contextlib.suppress(OSError):
        if not good.samefile(session.run.state_file):
            good.unlink()
            return True
    return False


def _write(session: Session, *, status: str, stopped_by: str) -> None:
    now = session.now
    which = "averaged" if session.average.decay else "raw"
    save_weights(session.run.last, session.average.model, card=card(session, weights=which))
    write_history(session.run.history_file, session.history)
    session.record = replace(
        session.record,
        status=status,  # type: ignore[arg-type]
        stopped_by=stopped_by,
        updated_at=this_moment(),
        steps=now.step,
        seconds=round(now.elapsed_s, 1),
        best_score=now.best_score if now.best_step else None,
        best_step=now.best_step,
        went_back=now.went_back,
    )
    session.run.write_record(session.record)
    content = io.BytesIO()  # torch's own writer turns a full disk into an error of its own
    torch.save(_state(session), content)
    write_bytes(session.run.state_file, content.getvalue())


def keep_as_good(session: Session) -> None:
    """Let the state that was saved last be the one to go back to."""
    if not session.team.leads or not session.config.guard.guard:
        return
    newest, good = session.run.state_file, session.run.good_file
    beside = good.with_name(f".{good.name}.part")
    with writing_to(good):
        beside.unlink(missing_ok=True)
        try:
            os.link(newest, beside)
        except OSError:  # a file system without hard links
            shutil.copyfile(newest, beside)
        os.replace(beside, good)


def forget_good(session: Session) -> None:
    """Remove the state to go back to: the run is over."""
    if session.team.leads:
        with contextlib.suppress(OSError):
            session.run.good_file.unlink(missing_ok=True)


def load(session: Session, path: Path) -> None:
    """Put a state on the disk into a session of the same settings.

    Raises DataError if the file is missing, damaged or of another model.
    """
    state = session.team.told(read_state(path) if session.team.leads else {})
    try:
        session.model.load_state_dict(state["model"])
        if session.average.decay:
            session.average.model.load_state_dict(state["average"])
        session.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"] and session.scaler.is_enabled():
            session.scaler.load_state_dict(state["scaler"])
        device = session.device.kind
        session.masks = {name: mask.to(device) for name, mask in state["masks"].items()}
        if session.adversary is not None:
            session.adversary.critic.load_state_dict(state["adversary"])
            session.adversary.optimiser.load_state_dict(state["adversary_optimiser"])
        _fill(session.now, state["now"])
        _fill(session.watch, state["watch"])
        session.history = [dict(row) for row in state["history"]]
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} does not fit its run: {error}", hint=_START_ANEW) from error


def _fill(target: Any, values: dict[str, Any]) -> None:
    for field in fields(target):
        setattr(target, field.name, values[field.name])


def _state(session: Session) -> dict[str, Any]:
    critic = session.adversary
    return {
        "version": _STATE_VERSION,
        "model": session.model.state_dict(),
        "average": session.average.model.state_dict() if session.average.decay else {},
        "optimiser": session.optimiser.state_dict(),
        "scaler": session.scaler.state_dict(),
        "masks": session.masks,
        "adversary": {} if critic is None else critic.critic.state_dict(),
        "adversary_optimiser": {} if critic is None else critic.optimiser.state_dict(),
        "now": asdict(session.now),
        "watch": asdict(session.watch),
        "history": session.history,
    }


def read_state(path: Path) -> dict[str, Any]:
    """A saved state, on the CPU. Raises DataError if it is missing or damaged."""
    try:
        content = io.BytesIO(path.read_bytes())
        state = torch.load(content, map_location="cpu", weights_only=True)
        if state["version"] != _STATE_VERSION:
            raise DataError(f"{path} was written by another version of kbdenoise", hint=_START_ANEW)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: the run was stopped before its first save",
            hint="start it again: kbdenoise train",
        ) from error
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", hint="check its permissions"
        ) from error
    except Exception as error:  # what torch raises for a damaged file depends on where it is cut
        raise DataError(
            f"cannot read {path}: it is damaged ({type(error).__name__})", hint=_START_ANEW
        ) from error
    return dict(state)
