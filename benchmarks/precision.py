"""Does training under mixed precision end where float32 ends?

    python -m benchmarks.precision [--quick]

Trains KBNet-S twice on the demo contest, with the same seed and patches: in float32, and under
bfloat16 autocast, which is asked for even where the processor only imitates it. Prints the scores
of the last validation over all held-out pages and writes them to benchmarks/results/.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record
from kbdenoise.contests.fetch import fetch
from kbdenoise.runs.history import read_history
from kbdenoise.training.train import train

SETTINGS = {"model": "kbnet-s", "width": 8, "patch": 64, "batch": 4, "device": "cpu", "lr": 1e-3}


def main() -> None:
    """Train both, compare, print and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, for a trial")
    quick = parser.parse_args().quick
    steps = 5 if quick else 300
    figures: dict[str, Any] = {"steps": steps, "settings": SETTINGS}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        fetch("demo", data=folder / "data")
        for name, precision in (("float32", "fp32"), ("bfloat16", "bf16")):
            result = train(
                "demo",
                data=folder / "data",
                runs=folder / "runs",
                precision=precision,
                steps=steps,
                val_every=steps,
                **SETTINGS,
            )
            row = read_history(result.run / "history.csv")[-1]
            figures[name] = {
                "score": row["val_score"],
                "psnr_db": row["val_psnr_db"],
                "loss": row["loss"],
                "skipped_steps": row["skipped_steps"],
            }
            print(json.dumps({name: figures[name]}), flush=True)
    scores = [figures[name]["score"] for name in ("bfloat16", "float32")]
    figures["score_bfloat16_over_float32"] = round(scores[0] / scores[1], 4)
    print(json.dumps(figures, indent=2))
    if not quick:
        print(f"written: {record.write_result('precision', figures)}")


if __name__ == "__main__":
    main()
