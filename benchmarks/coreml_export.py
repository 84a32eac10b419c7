"""What it takes to export KBNet-S to Core ML: seconds, memory, operations and errors.

    python -m benchmarks.coreml_export [--quick]

Every case is `kbdenoise export` in a process of its own, as a user runs it: imports, conversion,
writing, reading back and the check of the whole program. The deck's network is that of
`settings train --preset deck-kbnet-final`; the largest is KBNet-S as its authors have it for SIDD.
Weights are random, none at its default. Beside the seconds on the clock stand those of the
processor, which other programs on the machine do not change. Prints the figures and writes them to
benchmarks/results/.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record

CASES: dict[str, tuple[str, int, str]] = {
    "deck, 256 px": ("deck", 256, "tap"),
    "deck, 256 px, chunked": ("deck", 256, "chunk"),
    "sidd, 128 px": ("sidd", 128, "tap"),
    "sidd, 256 px": ("sidd", 256, "tap"),
}
"""Name -> size of kbnet-s, tile in px, form of kernel-basis attention."""


def main() -> None:
    """Export every case; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the first case alone, not written")
    asked = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in list(CASES)[: 1 if asked.quick else None]:
            figures[name] = measured(name, Path(folder))
            print(name, json.dumps(figures[name]), flush=True)
    if not asked.quick:
        print(f"written: {record.write_result('coreml_export', figures)}")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Figures of one case: of the process, and what the program says."""
    size, tile, form = CASES[name]
    weights = folder / f"{size}.safetensors"
    if not weights.exists():
        _draw(size, weights)
    words = [sys.executable, "-m", "kbdenoise", "export", weights, "--format", "coreml"]
    words += ["--tile", str(tile), "--kba-form", form, "--out", folder / "x.mlpackage"]
    started = time.perf_counter()
    process = subprocess.Popen([*map(str, words), "--force", "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    spent_s = time.perf_counter() - started
    if status:
        raise SystemExit(f"{name}: the export failed")
    said = json.loads(answer)
    return {
        "seconds": round(spent_s, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_gib": round(usage.ru_maxrss / (2**20 if sys.platform == "linux" else 2**30), 2),
        "package_mib": round(said["size_bytes"] / 2**20, 1),
        "lines": said["lines"],
        "checks": {c["name"]: [c["figure"], c["limit"]] for c in said["checks"]},
    }


def _draw(size: str, weights: Path) -> None:
    """A network none of whose parameters is at its default, saved as a run's weights are."""
    import torch

    from kbdenoise.models.build import build_model
    from kbdenoise.models.weights import ModelCard, save_weights
    from kbdenoise.models.zoo import named_size

    torch.manual_seed(0)
    numbers = named_size("kbnet-s", size)
    model = build_model("kbnet-s", channels=3, **numbers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_weights(
        weights, model, card=ModelCard(model="kbnet-s", channels=3, hyperparameters=numbers)
    )


if __name__ == "__main__":
    main()
