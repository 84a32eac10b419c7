"""KBNet-S as the deck has it, restoring a page and training, against the authors' formulation.

    python -m benchmarks.network [--quick]

With the same random weights, on this machine's CPU: `ours` as predict and train run it (compiled
kernels, folded scales, channels side by side, freed memory kept); `plain_torch` with our operator
as plain torch operations; `authors_form` with the authors' formulation of kernel-basis attention
(see benchmarks/operator.py); `authors_form_kept` the same with freed memory kept; `spandrel`,
spandrel's KBNet, where that is installed. Every form runs in processes of its own, since memory
settings are a process's; the forms take turns, and the best time of each counts. Outputs are
compared. Prints the figures and writes them to benchmarks/results/.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from kbdenoise.devices import SPINS

SIDE = 512  # px of the page
PATCH, BATCH = 128, 4
ROUNDS, REPEATS = 2, 2
PEERS = ("plain_torch", "authors_form", "authors_form_kept")


def main() -> None:
    """Let the forms take turns; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--form", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.form:
        print(json.dumps(measured(asked.form[0], Path(asked.form[1]))))
        return
    forms = ["ours", *PEERS, *(["spandrel"] if find_spec("spandrel") else [])]
    best: dict[str, dict[str, float]] = {name: {} for name in forms}
    with tempfile.TemporaryDirectory() as folder:
        for name in forms * (1 if asked.quick else ROUNDS):
            for work, seconds in _in_own_process(name, Path(folder)).items():
                best[name][work] = min(seconds, best[name].get(work, seconds))
            print(name, json.dumps(best[name]), flush=True)
        figures = {
            work: {f"{name}_s": round(best[name][work], 3) for name in forms}
            | {
                f"{name}_over_ours": round(best[name][work] / best["ours"][work], 2)
                for name in forms[1:]
            }
            for work in ("page", "training_step")
        }
        figures["page"] |= {
            f"ours_against_{name}_db": _psnr(Path(folder), "ours", name) for name in forms[1:]
        }
    print(json.dumps(figures, indent=2))
    if not asked.quick:
        print(f"written: {record.write_result('network', figures)}")


def _in_own_process(name: str, folder: Path) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.network", "--form", name, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | ({"GOMP_SPINCOUNT": SPINS} if name == "ours" else {}),  # as the program
    )
    seconds: dict[str, float] = json.loads(answer.stdout)
    return seconds


def measured(name: str, folder: Path) -> dict[str, float]:
    """Seconds for one page and for one training step; the restored page is left in `folder`."""
    import torch

    network, prepare = _network(name)
    torch.manual_seed(1)  # building a network draws, and not every form draws as much
    image, batch = torch.rand(1, 3, SIDE, SIDE), torch.rand(BATCH, 3, PATCH, PATCH)

    def step() -> object:
        network.zero_grad()
        return (network(batch) - batch).abs().mean().backward()

    network.train()
    training = _best(step)
    prepare()
    network.eval()
    with torch.inference_mode():
        np.save(folder / f"{name}.npy", network(image).numpy())
        page = _best(lambda: network(image))
    return {"page": page, "training_step": training}


def _best(work: Callable[[], object]) -> float:
    """The least seconds of some repeats, after one that does not count."""
    work()
    spent = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return min(spent)


def _network(name: str) -> tuple[Any, Callable[[], None]]:
    """The network in one form, and what it is told before it only restores."""
    import torch

    from benchmarks.operator import authors, per_tap
    from kbdenoise.devices import choose_device
    from kbdenoise.models.build import build_model, laid_out
    from kbdenoise.models.kba import KernelBasisAttention
    from kbdenoise.models.layers import fold_scales
    from kbdenoise.models.zoo import named_size

    torch.manual_seed(0)
    model = build_model("kbnet-s", channels=3, **named_size("kbnet-s", "deck"))
    with torch.no_grad():
        for parameter in model.parameters():  # none at its default
            parameter.add_(0.02 * torch.randn_like(parameter))
    if name in ("ours", "authors_form_kept"):
        choose_device("cpu")
    if name == "ours":
        return laid_out(model, name="kbnet-s", device="cpu"), lambda: fold_scales(model)
    if name == "spandrel":
        return _spandrel(model.state_dict()), lambda: None
    form = per_tap if name == "plain_torch" else authors
    for module in model.modules():
        if isinstance(module, KernelBasisAttention):
            module.forward = partial(form, groups=module.groups)  # type: ignore[method-assign]
    return model, lambda: None


def _spandrel(state: dict[str, Any]) -> Any:
    from spandrel.architectures.KBNet.__arch.kbnet_s import KBNet_s

    network = KBNet_s(
        img_channel=3,
        width=16,
        middle_blk_num=4,
        enc_blk_nums=[2, 3, 4],
        dec_blk_nums=[4, 3, 2],
    )
    network.load_state_dict(state)
    return network


def _psnr(folder: Path, one: str, other: str) -> float:
    """Decibels by which the output exceeds the difference."""
    expected = np.load(folder / f"{other}.npy").astype(np.float64)
    error = np.mean((np.load(folder / f"{one}.npy") - expected) ** 2)
    return round(float(10 * np.log10(np.mean(expected**2) / max(error, 1e-30))), 1)


if __name__ == "__main__":
    main()
