"""How well the estimated memory of training agrees with what training takes, on the CPU.

    python -m benchmarks.memory [--quick]

For every case a process of its own trains two steps in float32 as `kbdenoise train` does (AdamW,
averaged weights, the psnr loss) and tells how far its memory rose above what it held after the
imports and a first small convolution: once for what lives, once with what the allocator keeps.
Prints estimate, measurements and ratios; writes them to benchmarks/results/.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import record
from kbdenoise.models.zoo import named_size

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model of the table and the batch it is trained on."""

    model: str
    size: str
    patch: int = 128
    batch: int = 8


CASES = (
    Case(model="dncnn", size="s", batch=4),
    Case(model="unet", size="small"),
    Case(model="unet", size="medium"),
    Case(model="nafnet", size="deck", batch=4),
    Case(model="res-unet", size="large"),
    Case(model="kbnet-s", size="small"),
    Case(model="kbnet-s", size="deck", batch=2),
)


def estimated_mib(case: Case) -> float:
    """What `kbdenoise models show` would say."""
    import torch

    from kbdenoise.models.build import build_model
    from kbdenoise.models.memory import training_memory

    with torch.device("meta"):
        model = build_model(case.model, channels=3, **named_size(case.model, case.size))
    memory = training_memory(model, channels=3, patch=case.patch, batch=case.batch, amp=False)
    return memory.total_bytes / _MIB


def measured_mib(case: Case, *, exact: bool) -> float:
    """The highest memory of a process that trains two steps, above what it held before.

    `exact` makes the C library give every freed block back at once, so that only what lives is
    measured; otherwise its allocator keeps fragments, as it does in real training.
    """
    words = [sys.executable, "-m", "benchmarks.memory", "--train", json.dumps(asdict(case))]
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if exact else {})
    answer = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return float(answer.stdout)


def train_two_steps(case: Case) -> float:
    """MiB that this process rose by while it trained; only for a process of its own."""
    import torch
    from torch import nn

    from kbdenoise.models.build import build_model
    from kbdenoise.training.ema import WeightAverage
    from kbdenoise.training.losses import psnr

    def two_steps(model: nn.Module, *, patch: int, batch: int) -> None:
        average = WeightAverage(model, decay=0.999)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for step in (1, 2):
            noisy, clean = torch.rand(2, batch, 3, patch, patch)
            optimiser.zero_grad(set_to_none=True)
            loss = psnr(model(noisy), clean).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            average.update(model, step=step)

    torch.set_num_threads(1)
    two_steps(nn.Conv2d(3, 3, 3, padding=1), patch=16, batch=1)  # the libraries' own memory
    before = _resident_mib()
    model = build_model(case.model, channels=3, **named_size(case.model, case.size))
    two_steps(model.train(), patch=case.patch, batch=case.batch)
    return _peak_mib() - before


def _resident_mib() -> float:
    """Memory that this process holds; its peak where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return _peak_mib()
    lines = status.read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


def _peak_mib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def main() -> None:
    """Compare every case, print a table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small batches, for a trial")
    parser.add_argument("--train", metavar="CASE", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.train:
        print(train_two_steps(Case(**json.loads(wanted.train))))
        return
    print("model      size    patch batch  estimate  living  ratio  process  ratio   (MiB)")
    rows = []
    for case in CASES:
        if wanted.quick:
            case = Case(model=case.model, size=case.size, patch=64, batch=2)
        estimate = estimated_mib(case)
        living, process = (measured_mib(case, exact=exact) for exact in (True, False))
        print(
            f"{case.model:10} {case.size:8} {case.patch:4} {case.batch:5} {estimate:9.0f}"
            f" {living:7.0f} {estimate / living:6.2f} {process:8.0f} {estimate / process:6.2f}",
            flush=True,
        )
        measured = {"living_mib": living, "process_mib": process}
        rows.append({**asdict(case), "estimated_mib": estimate, **measured})
    if not wanted.quick:
        print(f"written: {record.write_result('memory', {'cases': rows})}")


if __name__ == "__main__":
    main()
