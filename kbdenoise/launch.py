"""A command on several GPUs of this machine: `torchrun`, without the person typing it."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Sequence

from kbdenoise.devices import usable_cores
from kbdenoise.errors import KbdenoiseError, SettingsError
from kbdenoise.team import LAUNCHED, asked_again, hearing

PROGRAM = ("-m", "kbdenoise")
_OUTPUT = {"--json", "--quiet", "-q", "--debug"}
_TO_STOP_S = "600"  # for the picture or step in hand and the last save; torch gives half a minute


def count_gpus(wanted: str, *, device: str = "auto") -> int:
    """How many processes `--gpus` asks for: 'all', or a number; 0 where it is not given.

    With the device 'cpu' a number of processes share the CPU. Raises SettingsError for what is no
    number, or more than there is.
    """
    if not wanted:
        return 0
    import torch

    there = torch.cuda.device_count()
    if wanted == "all" and device != "cpu":
        if not there:
            raise SettingsError(
                "--gpus all finds no CUDA device", hint="leave it out, or see `kbdenoise doctor`"
            )
        return there
    if not wanted.isascii() or not wanted.isdigit() or int(wanted) < 1:
        hint = "write a number of processes" if device == "cpu" else "write all, 2 or 4"
        raise SettingsError(f"--gpus {wanted!r} is no number", hint=hint)
    if device != "cpu" and int(wanted) > there:
        raise SettingsError(
            f"--gpus {wanted}: there are {there} CUDA devices",
            hint="use --gpus all, or --device cpu",
        )
    return int(wanted)


def launch(arguments: Sequence[str], *, processes: int, tell: Callable[[str], None]) -> int:
    """Run `kbdenoise` with these arguments in so many processes; the exit code of what failed.

    They write to this terminal themselves. Where one of them ran out of memory and asks for smaller
    pieces, all are started anew, which `tell` is told. Raises KbdenoiseError where the system
    ended one.
    """
    kept = [word for word in arguments if word in _OUTPUT]
    while True:
        with hearing():
            try:
                code = _launched(arguments, processes=processes)
            except KbdenoiseError:
                if not asked_again():
                    raise
            if not (again := asked_again()):
                return code
        arguments = [*again, *kept]
        tell(f"the memory of a process ran out; going on: kbdenoise {' '.join(again)}")


def _launched(arguments: Sequence[str], *, processes: int) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # torch speaks of its own parts
    os.environ[LAUNCHED] = "1"  # its processes leave it to this one to tell of each other's end
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _TO_STOP_S)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)(*PROGRAM, *arguments)
    except ChildFailedError as error:
        # Those that are left when one has ended are told to end, by SIGTERM.
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        killed = {rank: -code for rank, code in codes.items() if code < 0}
        spoken = [code for code in codes.values() if code > 0]
        if spoken and set(killed.values()) <= {signal.SIGTERM}:
            return int(spoken[0])  # it has said why
        rank = min(killed, key=lambda rank: killed[rank] == signal.SIGTERM)
        name = signal.Signals(killed[rank]).name
        raise KbdenoiseError(
            f"process {rank} of {processes} was ended by {name}"
            + (", perhaps for want of memory" if name == "SIGKILL" else ""),
            hint="what is saved is whole; to go on with a training: kbdenoise train --resume last",
        ) from error
    except SignalException:
        return 130
    return 0
