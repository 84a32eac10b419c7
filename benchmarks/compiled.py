"""Whether torch.compile pays when restoring on this machine's CPU.

    python -m benchmarks.compiled

A 512x512 page through networks as `predict` runs them, and through the same compiled by inductor;
rounds of both follow each other and the best of each counts. Prints the seconds of compiling, the
milliseconds of both and the largest difference of an output, and writes them to
benchmarks/results/. Needs a C++ compiler, as inductor does.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import record
from kbdenoise.devices import choose_device
from kbdenoise.models.build import build_model, laid_out
from kbdenoise.models.layers import fold_scales
from kbdenoise.models.zoo import named_size

SIDE, ROUNDS, REPEATS = 512, 3, 3
NETWORKS = (("res-unet", "small"), ("kbnet-s", "deck"), ("nafnet", "deck"))


def main() -> None:
    """Measure the networks; print and write the figures."""
    choose_device("cpu")  # keeps freed memory, as the program does
    figures = {f"{name} {size}": gain(name, size) for name, size in NETWORKS}
    print(json.dumps(figures, indent=2))
    print(f"written: {record.write_result('compiled', figures)}")


@torch.inference_mode()
def gain(name: str, size: str) -> dict[str, Any]:
    """Milliseconds with and without compiling, and what compiling took."""
    torch.manual_seed(0)
    model = build_model(name, channels=3, **named_size(name, size)).eval()
    for parameter in model.parameters():  # none at its default
        parameter.add_(0.02 * torch.randn_like(parameter))
    fold_scales(model)
    plain = laid_out(model, name=name, device="cpu")
    compiled = torch.compile(plain)
    page = torch.rand(1, SIDE, SIDE, 3).permute(0, 3, 1, 2)
    expected = plain(page)
    started = time.perf_counter()
    difference = float((compiled(page) - expected).abs().max())
    compile_s = time.perf_counter() - started
    best = {"plain": float("inf"), "compiled": float("inf")}
    for _ in range(ROUNDS):
        best["plain"] = min(best["plain"], _best_ms(lambda: plain(page)))
        best["compiled"] = min(best["compiled"], _best_ms(lambda: compiled(page)))
    return {
        "plain_ms": round(best["plain"], 1),
        "compiled_ms": round(best["compiled"], 1),
        "gain": round(best["plain"] / best["compiled"], 3),
        "compile_s": round(compile_s, 1),
        "largest_difference": difference,
    }


def _best_ms(work: Callable[[], object]) -> float:
    spent = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return 1e3 * min(spent)


if __name__ == "__main__":
    main()
