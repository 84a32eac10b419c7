"""Processes that train or predict together: who leads, and what they tell each other.

`torchrun` starts them and tells each one its place by environment variables. One process alone is
a team too, and then nothing here costs anything. What is told goes over the host (gloo); gradients
go from GPU to GPU (NCCL) where there are GPUs.
"""

import atexit
import contextlib
import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from kbdenoise.atomic import write_text
from kbdenoise.errors import KbdenoiseError, SettingsError

Value = TypeVar("Value")

LAUNCHED = "KBDENOISE_LAUNCHED"
"""Set in processes that `--gpus` has started."""

_AGAIN = "KBDENOISE_AGAIN"
"""Names a file, there: in it a process asks for another start when all have ended."""

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class TeamBrokenError(KbdenoiseError):
    """Another process of the team has ended; where `--gpus` started them, it tells of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """This process among those that work together. All of them make the same calls in order."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the person."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """(rank, size): of many things this process does number rank, rank + size, ..."""
        return self.rank, self.size

    def total(self, values: list[float]) -> list[float]:
        """The sums over all processes, one a position; the same on every process."""
        if self.size == 1:
            return values
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        with _together():
            dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, mine: Value) -> list[Value]:
        """What every process has, by rank; the same on every process."""
        if self.size == 1:
            return [mine]
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(everyone, mine)
        return everyone

    def told(self, value: Value) -> Value:
        """What the leader has, on every process."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        box = [value]
        with _together():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def after_leader(self, work: Callable[[], Value]) -> Value:
        """Do work that leaves files behind: first the leader, then, when it is done, the others.

        What the leader fails with, everyone fails with.
        """
        made: list[Value] = []
        self.from_leader(lambda: made.append(work()))
        return made[0] if made else work()

    def from_leader(self, work: Callable[[], Value]) -> Value:
        """What work gives the leader, on every process: no other one needs the leader's files.

        What the leader fails with, everyone fails with.
        """
        if self.size == 1:
            return work()
        made: list[Value] = []
        problem: KbdenoiseError | None = None
        if self.leads:
            try:
                made.append(work())
            except KbdenoiseError as error:
                problem = error
        made, problem = self.told((made, problem))
        if problem is not None:
            raise problem
        return made[0]


ALONE = Team()


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team that `torchrun` has started, or this process alone, for the time of the context.

    With GPUs, this process takes the one of its local rank. Raises SettingsError where the
    environment tells half a team, or a machine has fewer GPUs than processes.
    """
    import torch.distributed as dist

    if not is_in_team():
        yield ALONE
        return
    if dist.is_initialized():  # a person's own program has joined before
        yield Team(rank=dist.get_rank(), size=dist.get_world_size())
        return
    missing = [name for name in _VARIABLES if name not in os.environ]
    if missing:
        raise SettingsError(
            f"this process was started as one of {os.environ['WORLD_SIZE']}, but "
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            hint="start it with torchrun: torchrun --nproc-per-node=2 -m kbdenoise train ...",
        )
    _let_go_of_the_group()
    dist.init_process_group(_backend(int(os.environ["LOCAL_RANK"])))
    try:
        yield Team(rank=dist.get_rank(), size=dist.get_world_size())
    finally:
        dist.destroy_process_group()


@cache
def _let_go_of_the_group() -> None:
    """See to it that torch and a caught error no longer hold the group when the interpreter ends.

    A group that is held keeps its threads, though it was destroyed. Where one of them has yet to
    drop the last message's tensors when the interpreter ends, the process is aborted.
    """
    import torch.distributed.nn  # noqa: F401 (its functions take the group of now as a default)

    atexit.register(gc.collect)  # an error's frames hold the network, and that one the group


def _backend(local_rank: int) -> str:
    import torch

    if not torch.cuda.is_available():
        return "gloo"
    if local_rank >= torch.cuda.device_count():
        error = SettingsError(
            f"process {local_rank} of this machine has no GPU of its own: there are "
            f"{torch.cuda.device_count()}",
            hint=f"use --nproc-per-node={torch.cuda.device_count()}",
        )
        error.of_one_process = True
        raise error
    torch.cuda.set_device(local_rank)
    return "cpu:gloo,cuda:nccl"


def is_in_team() -> bool:
    """Whether `torchrun` has started this process beside others; torch is not asked."""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def speaks() -> bool:
    """Whether this process has no team, or leads it; it may not have joined yet."""
    return not is_in_team() or os.environ["RANK"] == "0"


def tells(error: KbdenoiseError) -> bool:
    """Whether this process tells an error: the leader what all have, each one its own.

    Where `--gpus` has started them, it tells of a process that has ended, and of a new start.
    """
    if LAUNCHED in os.environ and (isinstance(error, TeamBrokenError) or asked_again()):
        return False
    return speaks() or error.of_one_process


def is_broken_team(error: RuntimeError) -> bool:
    """Whether torch means by this error that another process is no longer there."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "gloo")
    return any(word in str(error) for word in words)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, KbdenoiseError):
            raise
        raise broken_team() from error


def ask_again(arguments: Sequence[str]) -> bool:
    """Ask `--gpus` to start all processes anew, with other arguments, when they have ended.

    False where it was not `--gpus` that started this one.
    """
    if _AGAIN not in os.environ:
        return False
    write_text(Path(os.environ[_AGAIN]), json.dumps(list(arguments)))
    return True


def asked_again() -> list[str]:
    """The arguments that a process has asked to be started with; none if none has."""
    path = Path(os.environ.get(_AGAIN, ""))
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


@contextlib.contextmanager
def hearing() -> Iterator[None]:
    """While a process of those started in the context may ask for another start."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[_AGAIN] = str(Path(folder) / "again.json")
        try:
            yield
        finally:
            del os.environ[_AGAIN]


def broken_team() -> TeamBrokenError:
    """What the processes that are left say."""
    return TeamBrokenError(
        "another process of this training has ended, so that the others cannot go on",
        hint="its own message is above; mend that, then: kbdenoise train --resume last",
    )
