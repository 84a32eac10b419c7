"""Does dense-sparse-dense training gain anything over as many steps without leaving weights out?

    python -m benchmarks.dsd [--steps 1500] [--seeds 0,1,2] [--share 0.3]

Trains the default network of a CPU on the demo contest, for each seed once with `--dsd` and once as
its control: the same phases, schedules and drop of the learning rate, with all weights kept. Prints
the score after each phase on the same held-out pages, and writes them to benchmarks/results/.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import program, record
from kbdenoise.runs.folder import Run


def main() -> None:
    """Train all pairs; print the table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--threads", default="0")
    wanted = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        program.make_demo(home, pages=100)
        for seed in wanted.seeds.split(","):
            for kind, extra in (("dsd", ()), ("control", ("--dsd-control",))):
                result = program.kbdenoise(
                    home,
                    *("train", "demo", "--preset", "quick", "--seed", seed, "--device", "cpu"),
                    *("--steps", str(wanted.steps), "--val-every", str(wanted.steps)),
                    *("--threads", wanted.threads),
                    *("--dsd", str(wanted.share), "--name", f"{kind}-{seed}", *extra),
                )
                phases = Run(path=home / result["run"]).read_record().phases
                scores = {phase["phase"]: phase["score"] for phase in phases}
                rows.append({"kind": kind, "seed": int(seed), **scores})
                print(rows[-1], flush=True)
    figures = {"steps": wanted.steps, "share": wanted.share, "rows": rows, **summary(rows)}
    print(f"last phase: {figures['last_phase']}")
    arguments = f"--steps {wanted.steps} --seeds {wanted.seeds} --share {wanted.share}"
    print(f"written: {record.write_result('dsd', figures, arguments=arguments)}")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and spreads of the last phase, and of the differences seed by seed."""
    ends = {
        kind: [row["dense again"] for row in rows if row["kind"] == kind]
        for kind in ("dsd", "control")
    }
    gains = [c - d for d, c in zip(ends["dsd"], ends["control"], strict=True)]
    spread = {name: _mean_and_spread(v) for name, v in (*ends.items(), ("control - dsd", gains))}
    return {"last_phase": spread}


def _mean_and_spread(values: list[float]) -> dict[str, float]:
    return {"mean": mean(values), "spread": stdev(values) if len(values) > 1 else float("nan")}


if __name__ == "__main__":
    main()
