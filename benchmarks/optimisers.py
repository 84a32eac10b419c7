"""Which optimiser trains the default network of a CPU best in equally many steps?

    python -m benchmarks.optimisers [--steps 800] [--seeds 0,1,2] [--documents FOLDER]

Trains `--preset quick` on the demo contest, and on the pages of Denoising Dirty Documents where
FOLDER holds them: each optimiser at each of its learning rates with the first seed, then the best
rate of each with the other seeds. All else is the preset's. Prints the score on the same held-out
pages and the milliseconds a step, and writes both to benchmarks/results/.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

from benchmarks import program, record

DOCUMENTS = "denoising-dirty-documents"
# Each optimiser's best rate should not be the least or the greatest of its row.
RATES = {
    "adam": ("0.0005", "0.001", "0.002", "0.004"),
    "adamw": ("0.0005", "0.001", "0.002", "0.004"),
    "sgd": ("0.01", "0.03", "0.1", "0.3"),
    "muon": ("0.001", "0.002", "0.004", "0.008"),
}


def main() -> None:
    """Train all; print the table and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--documents", type=Path, help="the contest's train and train_cleaned")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--no-result", action="store_true", help="print only, for a trial")
    wanted = parser.parse_args()
    first, *others = wanted.seeds.split(",")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for contest in contests(home, wanted.documents):
            for optimiser, rates in RATES.items():
                tried = [trained(home, contest, optimiser, r, first, wanted) for r in rates]
                best = rates[tried.index(best_of(tried))]
                rows += tried
                rows += [trained(home, contest, optimiser, best, s, wanted) for s in others]
    means = summary(rows)
    print(table(means))
    if not wanted.no_result:
        figures = {"steps": wanted.steps, "runs": rows, "best_rates": means}
        arguments = f"--steps {wanted.steps} --seeds {wanted.seeds} --threads {wanted.threads}"
        arguments += " --documents FOLDER" if wanted.documents else ""
        print(f"written: {record.write_result('optimisers', figures, arguments=arguments)}")


def contests(home: Path, documents: Path | None) -> list[str]:
    """Make the demo contest, and fetch the other one where its folder is given."""
    program.make_demo(home, pages=100)
    if documents is None:
        return ["demo"]
    program.kbdenoise(home, "fetch", DOCUMENTS, "--from", str(documents.resolve()))
    return ["demo", DOCUMENTS]


def trained(
    home: Path, contest: str, optimiser: str, rate: str, seed: str, wanted: argparse.Namespace
) -> dict[str, Any]:
    """One training, scored at its end by the better of raw and averaged weights."""
    answer = program.run(
        home,
        *("train", contest, "--preset", "quick", "--device", "cpu", "--threads", wanted.threads),
        *("--steps", str(wanted.steps), "--val-every", str(wanted.steps), "--seed", seed),
        *("--optimiser", optimiser, "--lr", rate),
    )
    row = {"contest": contest, "optimiser": optimiser, "lr": float(rate), "seed": int(seed)}
    if answer.returncode != 0:  # divergence is a result
        return row | {"score": float("inf"), "failed": answer.stderr.strip()[-300:]}
    made = program.read(answer)
    row |= {"score": made["best_score"], "untouched": made["untouched_score"]}
    row |= {"ms_per_step": 1000 * made["seconds"] / made["steps"]}
    print(
        f"{contest:26} {optimiser:6} lr {rate:7} seed {seed}  {row['score']:.4g}"
        f"  {row['ms_per_step']:.0f} ms/step",
        flush=True,
    )
    return row


def best_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the lowest score: both contests' metrics are errors."""
    return min(rows, key=lambda row: row["score"])


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each contest's optimisers at their best rates, over all seeds, best first."""
    means = []
    for contest, optimiser in dict.fromkeys((r["contest"], r["optimiser"]) for r in rows):
        own = [r for r in rows if (r["contest"], r["optimiser"]) == (contest, optimiser)]
        rate = best_of([r for r in own if r["seed"] == own[0]["seed"]])["lr"]
        own = [r for r in own if r["lr"] == rate]
        scores = [r["score"] for r in own]
        means.append(
            {
                "contest": contest,
                "optimiser": optimiser,
                "lr": rate,
                "seeds": len(own),
                "mean": mean(scores),
                "least": min(scores),
                "most": max(scores),
                "ms_per_step": median(r.get("ms_per_step", float("nan")) for r in own),
            }
        )
    return sorted(means, key=lambda row: (row["contest"], row["mean"]))


def table(means: list[dict[str, Any]]) -> str:
    """A line for each contest and optimiser."""
    return "\n".join(
        f"{m['contest']:26} {m['optimiser']:6} lr {m['lr']:<7g} {m['mean']:.4g}"
        f"  ({m['least']:.4g} to {m['most']:.4g}, {m['seeds']} seeds)"
        f"  {m['ms_per_step']:.0f} ms/step"
        for m in means
    )


if __name__ == "__main__":
    main()
