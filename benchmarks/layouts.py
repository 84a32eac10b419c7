"""Which models gain from channels lying side by side in memory, on this machine's CPU.

    python -m benchmarks.layouts [--only NAME,NAME]

Times every network of README's table, restoring 256x256 px and training on two patches of 128 px,
with its tensors in torch's usual order and with the channels of a pixel together. Rounds of both
follow each other and the best of each counts. A gain in both is what `channels_last` of the model
table stands for. Prints the figures and writes them to benchmarks/results/.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import record
from benchmarks.models import NETWORKS
from kbdenoise.devices import choose_device
from kbdenoise.models.build import build_model
from kbdenoise.models.zoo import find_model, named_size

SIDE, PATCH, BATCH = 256, 128, 2
ROUNDS = 4
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def main() -> None:
    """Measure every network; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="")
    only = parser.parse_args().only.split(",")
    print(choose_device("cpu").text)
    figures = {}
    for name, size in NETWORKS:
        if name.startswith("tone") or (only != [""] and name not in only):
            continue
        figures[f"{name} {size}"] = row = gains(name, size)
        print(f"{name} {size}:", json.dumps(row), flush=True)
    if only == [""]:
        print(f"written: {record.write_result('layouts', figures)}")


def gains(name: str, size: str) -> dict[str, Any]:
    """Milliseconds of both formats, and how many times faster channels side by side are."""
    model = build_model(name, channels=3, **named_size(name, size))
    image, batch = torch.rand(1, 3, SIDE, SIDE), torch.rand(BATCH, 3, PATCH, PATCH)
    best: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for label, memory_format in FORMATS.items():
            model.to(memory_format=memory_format)  # type: ignore[call-overload]
            for work in (_restore(model, image), _train(model, batch)):
                started = time.perf_counter()
                work()
                spent = 1e3 * (time.perf_counter() - started)
                key = (work.__name__, label)
                best[key] = min(spent, best.get(key, spent))
    row: dict[str, Any] = {"chosen": find_model(name).channels_last}
    for work_name in ("restore", "train"):
        both = [best[work_name, label] for label in FORMATS]
        row |= {
            f"{work_name}_{label}_ms": round(ms, 1) for label, ms in zip(FORMATS, both, strict=True)
        }
        row[f"{work_name}_gain"] = round(both[0] / both[1], 2)
    return row


def _restore(model: nn.Module, image: torch.Tensor) -> Callable[[], None]:
    def restore() -> None:
        with torch.inference_mode():
            model.eval()(image)

    return restore


def _train(model: nn.Module, batch: torch.Tensor) -> Callable[[], None]:
    def train() -> None:
        model.train()(batch).square().mean().backward()

    return train


if __name__ == "__main__":
    main()
