"""How well the default preset does on Denoising Dirty Documents in a given time.

    python -m benchmarks.dirty_documents FOLDER [--time-limit 15m]

FOLDER holds the contest's `train` and `train_cleaned`. Trains on the text TR of NoisyOffice, scores
whole pages of the text VA by pooled RMSE, beside doing nothing and classical filters, and writes
benchmarks/results/. Runs the program as a user does, in a temporary folder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record


def main() -> None:
    """Fetch, train, evaluate; print the table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--time-limit", default="15m")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        slug = "denoising-dirty-documents"
        kbdenoise(home, "fetch", slug, "--from", str(wanted.folder.resolve()))
        trained = kbdenoise(home, "train", "--time-limit", wanted.time_limit)
        evaluated = kbdenoise(home, "evaluate", "last", "--baselines")
    figures = {
        "time_limit": wanted.time_limit,
        "steps": trained["steps"],
        "seconds": trained["seconds"],
        "rmse": evaluated["score"],
        "rmse_interval": [evaluated["low"], evaluated["high"]],
        "table": evaluated["table"],
    }
    print(json.dumps(figures, indent=2))
    arguments = f"FOLDER --time-limit {wanted.time_limit}"
    print(f"written: {record.write_result('dirty_documents', figures, arguments=arguments)}")


def kbdenoise(home: Path, *arguments: str) -> dict[str, Any]:
    """Run one command of the program; its progress goes to the screen, its result comes back."""
    answer = subprocess.run(
        [sys.executable, "-m", "kbdenoise", *arguments, "--json"],
        cwd=home,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


if __name__ == "__main__":
    main()
