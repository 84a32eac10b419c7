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
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import loader, record
from kbdenoise.contests.contest import CONTEST_FILE, Contest, LocalContest, write_contest
from kbdenoise.contests.formats import Restored, expected_pages, submission_format
from kbdenoise.imaging.files import to_float, to_pixels, write_pixels
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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures["csv"] = csv_speed(folder / "csv", pages=4 if quick else 20)
        print(json.dumps(figures["csv"]))
        sides = (1500, 1000) if quick else (8000, 6000)
        for model in ("unet", "kbnet-s"):
            figures[f"predict {model}"] = predict_speed(folder / model, model=model, sides=sides)
            print(json.dumps(figures[f"predict {model}"]))
    if not quick:
        print(f"written: {record.write_result('pipeline', figures)}")


def csv_speed(folder: Path, *, pages: int) -> dict[str, float]:
    """Rows a second of the `pixels-long` writer against a DataFrame's to_csv, same rows."""
    rng = np.random.default_rng(0)
    contest = Contest(slug="csv", test="test", channels=1, metric="rmse", format="pixels-long")
    local = LocalContest(folder=folder, contest=contest)
    for number in range(1, pages + 1):
        pixels = rng.integers(0, 256, (420, 540, 1), dtype=np.uint8)
        write_pixels(folder / "test" / f"{number}.png", pixels)
    test_pages = expected_pages(local)
    pictures = [rng.integers(0, 256, (420, 540, 1), dtype=np.uint8) for _ in test_pages]

    started = time.perf_counter()
    restored = (
        Restored(stem=page.stem, name=page.name, image=to_float(pixels))
        for page, pixels in zip(test_pages, pictures, strict=True)
    )
    written = submission_format("pixels-long").write(
        folder / "ours.csv", restored, contest=local, pages=test_pages
    )
    ours_s = time.perf_counter() - started
    started = time.perf_counter()
    frames = [_frame(page.stem, pixels) for page, pixels in zip(test_pages, pictures, strict=True)]
    pd.concat(frames).to_csv(folder / "pandas.csv", index=False)
    pandas_s = time.perf_counter() - started
    return {
        "rows": written.rows,
        "ours_rows_per_s": written.rows / ours_s,
        "to_csv_rows_per_s": written.rows / pandas_s,
        "ratio": pandas_s / ours_s,
    }


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


def _frame(stem: str, pixels: np.ndarray) -> pd.DataFrame:
    """The rows of one page as most notebooks make them: a DataFrame of ids and values."""
    height, width, _ = pixels.shape
    columns, rows = np.meshgrid(np.arange(1, width + 1), np.arange(1, height + 1))
    ids = [f"{stem}_{r}_{c}" for c, r in zip(columns.T.ravel(), rows.T.ravel(), strict=True)]
    return pd.DataFrame({"id": ids, "value": pixels[..., 0].T.ravel() / 255})


if __name__ == "__main__":
    main()
