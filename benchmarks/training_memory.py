"""The memory that training KBNet-S is said to take against what it takes, on the CPU.

    python -m benchmarks.training_memory [--quick] [--only WIDTH]

Widths 16, 32 and 64 of the size `deck`, patches of 128 and 256 px, a batch of one, with and without
--checkpointing. The estimate is what `kbdenoise train` plans with (training.memory.Needs). Beside
it, for each case in a process of its own, two optimiser steps as `train` does them tell how far the
memory rose: once for what lives, once with what the allocator keeps, as `train` lets it. Cases that
would take more than 12 GiB or five minutes are estimated only. Results: benchmarks/results/.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from benchmarks import record

_MIB = 2**20
MOST_MIB, MOST_S = 12 * 1024, 300
USABLE = 0.8  # of the memory that is free


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A width of KBNet-S and what it is trained on."""

    width: int
    patch: int
    checkpointing: bool
    size: str = "deck"
    batch: int = 1


def main() -> None:
    """Compare every case, print a table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="patches of 64 px, for a trial")
    parser.add_argument("--only", type=int, metavar="WIDTH")
    parser.add_argument("--train", metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--as-train", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.train:
        case = Case(**json.loads(wanted.train))
        print(train_two_steps(case, keep_freed=wanted.as_train))
        return
    widths = [wanted.only] if wanted.only else [16, 32, 64]
    patches = [64] if wanted.quick else [128, 256]
    rows = []
    print("width  patch  checkpointing  estimate  living  ratio  process  ratio   (MiB)")
    for width, patch, checkpointing in product(widths, patches, (False, True)):
        case = Case(width=width, patch=patch, checkpointing=checkpointing)
        row = compared(case)
        rows.append({**asdict(case), **row})
        print(_line(case, row), flush=True)
    if not wanted.quick and not wanted.only:
        print(f"written: {record.write_result('training_memory', {'cases': rows})}")


def compared(case: Case) -> dict[str, float | str]:
    """Estimate and measurements of a case; or why there are none."""
    estimate = estimated_mib(case)
    row: dict[str, float | str] = {"estimated_mib": round(estimate, 1)}
    limit = min(MOST_MIB, USABLE * _free_mib())
    if estimate > limit:
        return row | {"not_measured": f"would take more than {limit / 1024:.3g} GiB"}
    try:
        living = measured_mib(case, exact=True)
        process = measured_mib(case, exact=False)
    except subprocess.TimeoutExpired:
        return row | {"not_measured": f"took more than {MOST_S} s"}
    except subprocess.CalledProcessError as error:
        return row | {"not_measured": f"failed: {error.stderr.strip().splitlines()[-1:]}"}
    return row | {"living_mib": round(living, 1), "process_mib": round(process, 1)}


def estimated_mib(case: Case) -> float:
    """What `kbdenoise train` plans with for this case."""
    from kbdenoise.config import DataSettings, MemorySettings, TrainConfig
    from kbdenoise.devices import choose_device
    from kbdenoise.models.build import describe_model
    from kbdenoise.models.zoo import named_size
    from kbdenoise.training.memory import Needs
    from kbdenoise.training.objective import make_objective

    hyperparameters = named_size("kbnet-s", case.size) | {"width": case.width}
    config = TrainConfig(
        data=DataSettings(patch=case.patch, batch=case.batch),
        memory=MemorySettings(checkpointing=case.checkpointing),
    )
    needs = Needs.of(
        describe_model("kbnet-s", channels=3, **hyperparameters),
        config,
        make_objective(config.optimiser.loss, channels=3, patch=case.patch),
        choose_device("cpu", precision="fp32"),
    )
    return needs.total(side=case.patch, batch=case.batch) / _MIB


def measured_mib(case: Case, *, exact: bool) -> float:
    """The highest memory of a process that trains two steps, above what it held before.

    `exact` makes the C library give every freed block back at once, so that only what lives is
    measured; otherwise its allocator keeps what `train` lets it keep.
    """
    words = [sys.executable, "-m", "benchmarks.training_memory"]
    words += ["--train", json.dumps(asdict(case)), *([] if exact else ["--as-train"])]
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if exact else {})
    answer = subprocess.run(
        words, capture_output=True, text=True, check=True, env=environment, timeout=MOST_S
    )
    return float(answer.stdout)


def train_two_steps(case: Case, *, keep_freed: bool) -> float:
    """MiB that this process rose by while it trained; only for a process of its own.

    `keep_freed` sets the allocator as the choice of a CPU for training does.
    """
    import torch
    from torch import nn

    from kbdenoise.devices import choose_device
    from kbdenoise.models.build import build_model, laid_out
    from kbdenoise.models.zoo import named_size
    from kbdenoise.training.ema import WeightAverage
    from kbdenoise.training.losses import psnr
    from kbdenoise.training.memory import checkpoint_blocks

    def two_steps(model: nn.Module, *, patch: int, batch: int, checkpointing: bool) -> None:
        average = WeightAverage(model, decay=0.999)
        if checkpointing:
            checkpoint_blocks(model)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for step in (1, 2):
            noisy, clean = torch.rand(2, batch, 3, patch, patch)  # each [B, 3, P, P]
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            loss = psnr(model(noisy), clean).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            average.update(model, step=step)

    torch.set_num_threads(1)
    if keep_freed:
        choose_device("cpu", precision="fp32")
    trial = nn.Conv2d(3, 3, 3, padding=1)  # takes the libraries' own memory beforehand
    two_steps(trial, patch=16, batch=1, checkpointing=False)
    before = _memory_mib("VmRSS")
    hyperparameters = named_size("kbnet-s", case.size) | {"width": case.width}
    model = build_model("kbnet-s", channels=3, **hyperparameters).train()
    model = laid_out(model, name="kbnet-s", device="cpu")
    two_steps(model, patch=case.patch, batch=case.batch, checkpointing=case.checkpointing)
    return _memory_mib("VmHWM") - before


def _memory_mib(name: str) -> float:
    """VmRSS, what this process holds, or VmHWM, the most it has held, where the system tells."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def _free_mib() -> float:
    from kbdenoise.devices import choose_device, free_memory_bytes

    return free_memory_bytes(choose_device("cpu", precision="fp32")) / _MIB


def _line(case: Case, row: dict[str, float | str]) -> str:
    estimate = float(row["estimated_mib"])
    start = f"{case.width:5} {case.patch:6}  {'yes' if case.checkpointing else 'no':13} "
    if "not_measured" in row:
        return f"{start}{estimate:9.0f}  {row['not_measured']}: estimated only"
    living, process = float(row["living_mib"]), float(row["process_mib"])
    return (
        f"{start}{estimate:9.0f} {living:7.0f} {estimate / living:6.2f} {process:8.0f}"
        f" {estimate / process:6.2f}"
    )


if __name__ == "__main__":
    main()
