"""ONNX Runtime on the CPU against torch, restoring a page with the same weights.

    python -m benchmarks.engines [--quick] [--threads N]

The deck's KBNet-S, DnCNN and NAFNet as the deck sized them, with random weights. In one process the
engines take turns, round by round: torch in float32, torch as `predict` chooses its precision on
this machine, and the model's ONNX package. The ratio of two engines is the median over the rounds,
of CPU time where there is one thread (other programs then count less) and of wall time otherwise.
Largest differences of the restored page are told. Prints the figures and writes them to
benchmarks/results/.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import record
from kbdenoise.export.package import export_model
from kbdenoise.imaging.files import FloatImage
from kbdenoise.inference.loading import load_file
from kbdenoise.models.build import build_model
from kbdenoise.models.weights import ModelCard, save_weights
from kbdenoise.models.zoo import named_size

SIDE = 256  # px of the page
ROUNDS = 7
MODELS = {"kbnet-s": "deck", "dncnn": "s", "nafnet": "deck"}
Call = Callable[[FloatImage], FloatImage]


def main() -> None:
    """Let the engines take turns, model by model; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    side, rounds = (128, 2) if asked.quick else (SIDE, ROUNDS)
    page = np.random.default_rng(0).random((1, side, side, 3), dtype=np.float32)
    figures: dict[str, Any] = {"side": side, "threads": asked.threads, "rounds": rounds}
    for name, size in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            engines, facts = _engines(name, size, Path(folder), threads=asked.threads)
            clock = time.process_time if asked.threads == 1 else time.perf_counter
            figures[f"{name} {size}"] = facts | _measured(engines, page, rounds=rounds, clock=clock)
        print(name, json.dumps(figures[f"{name} {size}"], indent=2), flush=True)
    if not asked.quick:
        print(f"written: {record.write_result('engines', figures)}")


def _engines(
    name: str, size: str, folder: Path, *, threads: int
) -> tuple[dict[str, Call], dict[str, Any]]:
    """Every engine ready to restore, and what was noticed on the way."""
    weights = _weights(name, size, folder)
    started = time.process_time()
    package = export_model(str(weights), format="onnx").path
    export_s = time.process_time() - started
    wide = load_file(weights, device="cpu", precision="fp32", threads=threads)
    usual = load_file(weights, device="cpu", threads=threads)
    onnx = load_file(package, compute_units="cpu", threads=threads)
    engines: dict[str, Call] = {"torch_fp32": wide.restoration.restorer}
    if usual.device.autocast:
        engines[f"torch_{usual.device.autocast}"] = usual.restoration.restorer
    engines["onnx"] = onnx.restoration.restorer
    return engines, {"export_cpu_s": round(export_s, 1), "torch": usual.device.text}


def _weights(name: str, size: str, folder: Path) -> Path:
    """Random weights that leave no branch silent."""
    torch.manual_seed(0)
    hyperparameters = named_size(name, size)
    model = build_model(name, channels=3, **hyperparameters)
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
            p.copy_(0.7 * torch.randn(p.shape) * fan**-0.5)
    path = folder / f"{name}.safetensors"
    card = ModelCard(model=name, channels=3, hyperparameters=hyperparameters)
    save_weights(path, model, card=card)
    return path


def _measured(
    engines: dict[str, Call], page: FloatImage, *, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """Seconds of each engine, ratios against ONNX Runtime, and differences from float32."""
    answers = {name: call(page) for name, call in engines.items()}  # and everything is warm
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, call in engines.items():
            started = clock()
            call(page)
            seconds[name].append(clock() - started)
    figures: dict[str, Any] = {f"{n}_s": round(statistics.median(s), 3) for n, s in seconds.items()}
    reference = answers["torch_fp32"]
    scale = max(1.0, float(np.abs(reference).max()))
    for name in engines:
        ratios = [a / b for a, b in zip(seconds[name], seconds["onnx"], strict=True)]
        if name != "onnx":
            figures[f"{name}_over_onnx"] = round(statistics.median(ratios), 2)
        if name != "torch_fp32":
            difference = float(np.abs(answers[name] - reference).max()) / scale
            figures[f"{name}_largest_difference"] = float(f"{difference:.2g}")
    return figures


if __name__ == "__main__":
    main()
