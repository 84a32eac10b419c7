"""The pipeline's speed and memory beside naive versions, in one run.

    python -m benchmarks.pipeline [--quick]

Prints patches a second of the loader against decoding files for every sample, megapixels a second
of `predict`, CSV rows a second against `DataFrame.to_csv`, and the peak memory of predicting an
8000x6000 picture; writes them to benchmarks/results/.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import csv_rows, loader, record
from kbdenoise.contests.contest import CONTEST_FILE, Contest, write_contest
from kbdenoise.imaging.files import to_pixels, write_pixels
from kbdenoise.training.train import train

_PEAK = """
import resource, sys
from pathlib import Path
from kbdenoise.inference.predict import predict
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = predict(sys.argv[1], [Path(sys.argv[2])], runs=Path(sys.argv[3]), out=Path(sys.argv[4]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before / 1024, after / 1024, result.seconds, result.tiles, sep="|")
"""


def main() -> None:
    """Measure everything, print it and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small pictures, for a trial")
    quick = parser.parse_args().quick
    figures: dict[str, Any] = {"loader": asdict(loader.measure(seconds=1.0 if quick else 4.0))}
    print(json.dumps(figures["loader"]))
    rates = csv_rows.measure_csv_rows(pages=2 if quick else 8)
    figures["csv"] = {**asdict(rates), "times_pandas": rates.times_pandas}
    print(json.dumps(figures["csv"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = (1500, 1000) if quick else (8000, 6000)
        figures["predict"] = predict_speed(folder, model="res-unet", sides=sides)
        print(json.dumps(figures["predict"]))
    if not quick:
        print(f"written: {record.write_result('pipeline', figures)}")


def predict_speed(folder: Path, *, model: str, sides: tuple[int, int]) -> dict[str, Any]:
    """Megapixels a second and peak memory of restoring one large colour picture."""
    rng = np.random.default_rng(0)
    contest = Contest(slug="large")
    for side in ("noisy", "clean"):
        for number in range(4):
            pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            write_pixels(folder / "data" / "train" / side / f"{number}.png", pixels)
    write_contest(folder / "data" / CONTEST_FILE, contest)
    result = train(
        folder / "data", runs=folder / "runs", model=model, steps=1, patch=64, batch=1, folds=4
    )
    width, height = sides
    page = np.repeat(rng.random((height // 8, width // 8, 3), dtype=np.float32), 8, axis=0)
    write_pixels(folder / "large.tif", np.repeat(to_pixels(page), 8, axis=1))
    arguments = [result.run.name, folder / "large.tif", folder / "runs", folder / "out"]
    answer = subprocess.run(
        [sys.executable, "-c", _PEAK, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    before, after, seconds, tiles = answer.stdout.strip().split("|")
    return {
        "megapixels": width * height / 1e6,
        "megapixels_per_s": width * height / 1e6 / float(seconds),
        "peak_memory_mib": float(after),
        "memory_after_import_mib": float(before),
        "tiles": tiles,
    }


if __name__ == "__main__":
    main()
