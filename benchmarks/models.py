"""Every model on both contests with the same small budget on this machine's CPU.

    python -m benchmarks.models [--documents FOLDER] [--budget 2m] [--only NAME,NAME]

Trains each model on the demo contest and, where FOLDER holds them, on the pages of Denoising Dirty
Documents, through the program as a user does; scores eight whole held-out pictures by the contest's
own metric; times one 512x512 picture. Networks get `--budget` of training time each, the last
validation included; filters take what they need. Prints the table of README and writes
benchmarks/results/ after every row: a broken-off measurement goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from kbdenoise.contests.contest import open_contest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.splits import evenly
from kbdenoise.data.store import open_store
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.imaging.metrics import metric
from kbdenoise.inference.loading import load_run
from kbdenoise.inference.scoring import pooled, pooled_untouched, score_pictures

SIDE = 512  # px of the picture that is timed
PICTURES = 8  # held-out pictures that are scored, evenly chosen, the same for every model

# Model and size of each row. Where a published size is too large to learn anything on a CPU in
# minutes, a small one stands in; README's other table has the published ones.
NETWORKS = (
    ("tone", "curve"),
    ("tone+res-unet", "small"),
    ("res-unet", "small"),
    ("unet", "small"),
    ("drunet", "small"),
    ("dncnn", "s"),
    ("srresnet", "small"),
    ("pix2pix", "small"),
    ("nafnet", "deck"),
    ("restormer", "small"),
    ("kbnet-l", "small"),
    ("kbnet-s", "small"),
)


def main() -> None:
    """Train, score and time every model; print the table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--only", default="")
    wanted = parser.parse_args()
    rows = _earlier_rows(wanted.budget)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        contests = _fetched(home, wanted.documents)
        for model, size in [*NETWORKS, *((name, "") for name in FILTERS)]:
            if wanted.only and model not in wanted.only.split(","):
                continue
            label = f"{model} {size}".strip()
            row = rows.setdefault(label, {})
            for contest in contests:
                if contest not in row:
                    row[contest] = _scored(home, contest, model, size, budget=wanted.budget)
            if "ms_per_mpix" not in row:
                row |= _costs(home, model, size)
            row.setdefault("commit", record.commit())
            _write(rows, wanted.budget)
            print(label, json.dumps(row), flush=True)
    print(_table(rows))
    print(f"written: {_write(rows, wanted.budget)}")


def _fetched(home: Path, documents: Path | None) -> list[str]:
    _kbdenoise(home, "fetch", "demo")
    if documents is None:
        return ["demo"]
    slug = "denoising-dirty-documents"
    _kbdenoise(home, "fetch", slug, "--from", str(documents.resolve()))
    return ["demo", slug]


def _scored(home: Path, contest: str, model: str, size: str, *, budget: str) -> dict[str, Any]:
    """Train one model on one contest and score its best weights on all held-out pictures."""
    chosen = ["--size", size, "--time-limit", budget] if size else []
    name = f"{model}-{size}-{contest}".replace("+", "-")
    few = ["--val-images", str(PICTURES)]
    trained = _kbdenoise(home, "train", contest, "--model", model, "--name", name, *chosen, *few)
    score, untouched = _held_out_score(home, contest)
    return {
        "score": score,
        "untouched": untouched,
        "pictures": PICTURES,
        "steps": trained["steps"],
        "seconds": round(trained["seconds"], 1),
    }


def _held_out_score(home: Path, contest: str) -> tuple[float, float]:
    """The newest run's best weights, and doing nothing, on the same held-out pictures for all."""
    local = open_contest(contest, data=home / "data")
    store = open_store(local, find_pairs(local), channels=local.contest.channels)
    loaded = load_run("last", runs=home / "runs", device="cpu")
    held_out = json.loads(loaded.run.split_file.read_text(encoding="utf-8"))["held_out"]
    chosen = evenly([store.stems.index(stem) for stem in held_out], PICTURES)
    scale = metric(local.contest.metric)
    rows = score_pictures(loaded.restore, store, chosen, metric=scale, with_ssim=False)
    return pooled(rows, scale), pooled_untouched(rows, scale)


def _costs(home: Path, model: str, size: str) -> dict[str, Any]:
    """What the model weighs, and how long the newest run takes for one picture."""
    costs: dict[str, Any] = {}
    if size:
        shown = _kbdenoise(home, "models", "show", model, "--size", size)
        costs = {key: shown[key] for key in ("parameters", *_MACS)}
    return costs | {"ms_per_mpix": _milliseconds_per_megapixel(home)}


_MACS = ("conv_macs", "kernel_basis_macs", "attention_macs")


def _milliseconds_per_megapixel(home: Path) -> float:
    """The faster of two restorations of noise, after one that does not count."""
    loaded = load_run("last", runs=home / "runs", device="cpu")
    shape = (SIDE, SIDE, loaded.restorer.channels)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    loaded.restore(image[:256, :256])
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        loaded.restore(image)
        spent.append(time.perf_counter() - started)
    return round(1e3 * min(spent) / (SIDE * SIDE / 1e6), 1)


def _kbdenoise(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one command of the program and return its result."""
    answer = subprocess.run(
        [sys.executable, "-m", "kbdenoise", *arguments, "--json"],
        cwd=home,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    if answer.returncode:
        raise SystemExit(f"kbdenoise {' '.join(arguments)}\n{answer.stderr}")
    result: dict[str, Any] = json.loads(answer.stdout)
    return result


def _earlier_rows(budget: str) -> dict[str, dict[str, Any]]:
    """What today's earlier call with the same budget has measured; each row names its commit."""
    path = record.RESULTS / f"{date.today().isoformat()}_models.json"
    if not path.is_file():
        return {}
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    rows: dict[str, dict[str, Any]] = figures["rows"] if figures["budget"] == budget else {}
    return rows


def _write(rows: dict[str, dict[str, Any]], budget: str) -> Path:
    arguments = f"--documents FOLDER --budget {budget}"
    return record.write_result("models", {"budget": budget, "rows": rows}, arguments=arguments)


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of README; MACs are for a picture of 256x256 px."""
    contests = list(
        dict.fromkeys(c for row in rows.values() for c in row if "score" in str(row[c]))
    )
    heads = ["model", "parameters", "GMACs", "of them KBA", "CPU ms/MPix", *contests]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for label, row in rows.items():
        macs = [row.get(key, 0) / 1e9 for key in _MACS]
        cells = [
            label,
            f"{row['parameters']:,}" if "parameters" in row else "-",
            f"{sum(macs):.2f}" if "parameters" in row else "-",
            f"{macs[1]:.2f}" if macs[1] else "-",
            f"{row['ms_per_mpix']:,.0f}",
            *(_cell(row.get(contest)) for contest in contests),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    return f"{result['score']:.4g} ({result['steps']:,} steps)" if result else "-"


if __name__ == "__main__":
    main()
