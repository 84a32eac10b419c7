"""What restoring whole pictures costs beside the network: memory of a huge one, time of many.

    python -m benchmarks.prediction [--quick]

A 12000x9000 colour picture, restored in a process of its own: its peak memory over the picture
itself, by the system's own count. 500 pages of 512x512 in LZW TIFF: the share of the wall time that
the network takes, beside the way in which nothing is done ahead (read, restore, write, in turns).
For the model that the presets choose on a CPU; and some pages for KBNet-S, a hundred times as slow.
Prints the figures and writes them to benchmarks/results/.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from kbdenoise.contests.contest import CONTEST_FILE, Contest, write_contest
from kbdenoise.imaging.files import to_pixels, write_pixels
from kbdenoise.training.train import train

# A process of its own for each figure: its memory counts from its start.
_CHILD = """
import json, re, sys, time
from pathlib import Path
from kbdenoise.inference import engines
from kbdenoise.inference.predict import predict
run, source, runs, out, way = sys.argv[1:]
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
spent = 0.0
restore = engines.TorchRestorer.__call__
def timed(self, noisy, page=None):
    global spent
    started = time.perf_counter()
    answer = restore(self, noisy, page)
    spent += time.perf_counter() - started
    return answer
engines.TorchRestorer.__call__ = timed
imported = peak()
if way == "in turns":
    from kbdenoise.imaging.files import read_picture, write_pixels
    from kbdenoise.inference.loading import load_run
    loaded = load_run(run, runs=Path(runs), device="cpu")
    started = time.perf_counter()
    for path in sorted(Path(source).iterdir()):
        pixels = loaded.restoration.pixels(lambda: [read_picture(path).pixels])[0]
        write_pixels(Path(out) / path.name, pixels)
    seconds, tiles = time.perf_counter() - started, ""
else:
    result = predict(run, [Path(source)], runs=Path(runs), out=Path(out), device="cpu")
    seconds, tiles = result.seconds, result.tiles
print(json.dumps({"seconds": seconds, "network_s": spent, "peak_mib": peak(),
                  "imported_mib": imported, "tiles": tiles}))
"""


def main() -> None:
    """Measure, print and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small and few pictures, for a trial")
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        quick = Runs(Path(name) / "res-unet", "res-unet")
        figures["res-unet"] = {
            "huge": huge(quick, sides=(1500, 1000) if asked.quick else (12000, 9000)),
            "many": many(quick, count=10 if asked.quick else 500),
        }
        slow = Runs(Path(name) / "kbnet-s", "kbnet-s")
        figures["kbnet-s"] = {"many": many(slow, count=4 if asked.quick else 30)}
    print(json.dumps(figures, indent=2))
    if not asked.quick:
        print(f"written: {record.write_result('prediction', figures)}")


class Runs:
    """A folder with a run of one step, whose weights are as slow as any."""

    def __init__(self, folder: Path, model: str) -> None:
        rng = np.random.default_rng(0)
        for side in ("noisy", "clean"):
            for number in range(4):
                pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
                write_pixels(folder / "data" / "train" / side / f"{number}.png", pixels)
        write_contest(folder / "data" / CONTEST_FILE, Contest(slug="prediction"))
        small = {"width": 16} if model == "kbnet-s" else {}
        settings = {"model": model, "steps": 1, "patch": 64, "batch": 1, "folds": 4, **small}
        self.folder = folder
        self.name = train(folder / "data", runs=folder / "runs", device="cpu", **settings).run.name

    def predict(self, source: Path, way: str = "ahead") -> dict[str, Any]:
        """Seconds, those in the network, and memory in MiB of a process that restores `source`."""
        out = self.folder / f"out-{source.name}-{way}"
        arguments = [self.name, source, self.folder / "runs", out, way]
        answer = subprocess.run(
            [sys.executable, "-c", _CHILD, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures: dict[str, Any] = json.loads(answer.stdout)
        return figures


def huge(runs: Runs, *, sides: tuple[int, int]) -> dict[str, Any]:
    """Peak memory and speed of one huge picture."""
    width, height = sides
    rng = np.random.default_rng(0)
    page = np.repeat(rng.random((height // 8, width // 8, 3), dtype=np.float32), 8, axis=0)
    source = runs.folder / "huge.tif"
    write_pixels(source, np.repeat(to_pixels(page), 8, axis=1))
    told = runs.predict(source)
    picture_mib = width * height * 3 / 2**20
    return {
        "megapixels": width * height / 1e6,
        "megapixels_per_s": round(width * height / 1e6 / told["seconds"], 3),
        "picture_mib": round(picture_mib),
        "peak_mib": round(told["peak_mib"]),
        "peak_over_picture_mib": round(told["peak_mib"] - picture_mib),
        "imported_mib": round(told["imported_mib"]),
        "share_in_network": round(told["network_s"] / told["seconds"], 3),
        "tiles": told["tiles"],
    }


def many(runs: Runs, *, count: int) -> dict[str, Any]:
    """Share of the wall time in the network, restoring many pages ahead and in turns."""
    folder = runs.folder / "many"
    rng = np.random.default_rng(1)
    for number in range(count):
        page = np.repeat(rng.random((64, 64, 3), dtype=np.float32), 8, axis=0)
        write_pixels(folder / f"{number:03}.tif", np.repeat(to_pixels(page), 8, axis=1))
    ahead, turns = runs.predict(folder), runs.predict(folder, "in turns")
    return {
        "pages": count,
        "pages_per_s": round(count / ahead["seconds"], 2),
        "share_in_network": round(ahead["network_s"] / ahead["seconds"], 3),
        "in_turns_pages_per_s": round(count / turns["seconds"], 2),
        "in_turns_share_in_network": round(turns["network_s"] / turns["seconds"], 3),
    }


if __name__ == "__main__":
    main()
