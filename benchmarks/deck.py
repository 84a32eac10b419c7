"""The earlier work's recipes and ours, each with the same wall-clock budget on the same cores.

    python -m benchmarks.deck --log FILE [--documents FOLDER] [--budget 20m] [--threads 2]
        [--seeds 0,1,2] [--stretched] [--only demo/quick/0]
    python -m benchmarks.deck --log FILE --report [--budget 20m] [--threads 2]

Trains every preset of RECIPES on the demo contest (300 pairs) and, where FOLDER holds them, on the
pages of Denoising Dirty Documents, through the program as a user does, and scores the best weights
on all held-out pictures, the same for every preset and seed. These pictures chose the weights too,
by some recipes more often than by others: the last validation's score stands beside (of fewer
pictures where the budget allows no more). Each run becomes a line of FILE; what stands there
already is not done again unless its line is taken out. So the measurement may be broken off, gone
on with, and divided: --only takes patterns such as 'demo/*/0'. The first of --seeds trains all
presets, the others the best of the deck's and the best of ours on each contest by that seed, of
those in the log by then. --report prints the table and writes benchmarks/results/.

Runs of another budget, or of another number of threads, are another measurement in the same FILE.

A deck recipe is taken as it is: it counts epochs, and ends when they are done or the budget is
over, whichever is first; its learning rate knows nothing of the budget. Ours have no number of
steps here: their schedule follows the clock to the end of the budget. Validations count, decoding
the pictures does not. With --stretched, each deck recipe is also trained with a schedule that
follows the clock.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import program, record
from kbdenoise.runs.folder import Run
from kbdenoise.runs.history import read_history

DOCUMENTS = "denoising-dirty-documents"
PAGES = 150  # of the demo contest, two pictures each
DECK = ("deck-dncnn", "deck-srresnet", "deck-unet", "deck-kbnet-1", "deck-kbnet-final")
OURS = ("quick", "standard")
STRETCHED = "-stretched"
_NO_END = 10_000_000  # steps, or epochs, that no budget reaches

# Recipe -> arguments of `kbdenoise train`.
RECIPES: dict[str, tuple[str, ...]] = {
    **{name: ("--preset", name) for name in DECK},
    **{
        name + STRETCHED: ("--preset", name, "--epochs", str(_NO_END), "--lr-length", "100%")
        for name in DECK
    },
    **{name: ("--preset", name, "--steps", str(_NO_END)) for name in OURS},
}


def main() -> None:
    """Do the runs that are missing in the log; or report what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", type=Path, required=True, help="JSON lines; runs are added to it")
    parser.add_argument("--documents", type=Path, help="the contest's train and train_cleaned")
    parser.add_argument("--budget", default="20m", help="of each training")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="*", metavar="CONTEST/PRESET/SEED", help="a pattern")
    parser.add_argument("--stretched", action="store_true", help="also deck schedules by the clock")
    parser.add_argument("--threads", default="2", help="of each training")
    parser.add_argument("--report", action="store_true", help="table and result from the log")
    wanted = parser.parse_args()
    if wanted.report:
        report(logged(wanted), wanted)
        return
    home = wanted.log.with_suffix(".work").resolve()
    contests = fetched(home, wanted.documents)
    for contest in contests:
        for recipe, seed in planned(contest, wanted):
            row = trained(home, contest, recipe, seed, wanted)
            with wanted.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            print(_line(row), flush=True)
    print(_table(logged(wanted)))


def fetched(home: Path, documents: Path | None) -> list[str]:
    """Contests in the working folder, which stays: runs can be looked at afterwards.

    Their pictures are decoded once, beforehand: no run's budget pays for what others then find.
    """
    program.make_demo(home, pages=PAGES)
    contests = ["demo"]
    if documents is not None:
        program.kbdenoise(home, "fetch", DOCUMENTS, "--from", str(documents.resolve()))
        contests.append(DOCUMENTS)
    for contest in contests:
        program.kbdenoise(home, "train", contest, "--dry-run")
    return contests


def planned(contest: str, wanted: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(recipe, seed) of all runs that the log does not hold, the first seed's before the others.

    The log is read anew each time: several of these programs may share it.
    """
    recipes = [r for r in RECIPES if wanted.stretched or not r.endswith(STRETCHED)]
    first, *others = wanted.seeds.split(",")
    yield from _missing(contest, recipes, [first], wanted)
    for family in (OURS, DECK):
        done = [
            row
            for row in logged(wanted)
            if row["contest"] == contest and row["seed"] == int(first) and row["recipe"] in family
        ]
        if best := _means(done)[:1]:  # empty where none is done, or all failed
            yield from _missing(contest, [best[0]["recipe"]], others, wanted)


def _missing(
    contest: str, recipes: list[str], seeds: list[str], wanted: argparse.Namespace
) -> Iterator[tuple[str, str]]:
    for recipe in recipes:
        for seed in seeds:
            done = {_key(row) for row in logged(wanted)}
            key = f"{contest}/{recipe}/{seed}"
            if key not in done and fnmatch(key, wanted.only):
                yield recipe, seed


def trained(
    home: Path, contest: str, recipe: str, seed: str, wanted: argparse.Namespace
) -> dict[str, Any]:
    """Train one recipe within the budget, and score its best weights.

    A training that fails, as one that diverges, or does not get to a validation is a result too.
    """
    common = ("--seed", seed, "--device", "cpu", "--threads", wanted.threads)
    limit = ("--time-limit", wanted.budget)
    row = {
        "contest": contest,
        "recipe": recipe,
        "seed": int(seed),
        "budget": wanted.budget,
        "commit": record.commit(),
        "machine": {**record.machine(), "name": platform.node(), "threads": wanted.threads},
    }
    answer = program.run(home, "train", contest, *RECIPES[recipe], *limit, *common)
    if answer.returncode not in (0, 1):  # asked wrongly, or broken off by a person
        raise SystemExit(answer.stderr)
    if answer.returncode:
        return row | {"failed": answer.stderr[-500:]}
    made = json.loads(answer.stdout)
    if not made["best_step"]:
        return row | {"failed": f"no validation within {wanted.budget}"}
    return row | scored(home, made)


def scored(home: Path, made: dict[str, Any]) -> dict[str, Any]:
    """What a training came to, and the score of its best weights on all held-out pictures."""
    found = program.kbdenoise(home, "evaluate", made["run"], "--device", "cpu")
    run = Run(path=home / made["run"])
    curve = read_history(run.history_file)
    return {
        "steps": made["steps"],
        "epochs": round(curve[-1]["epoch"], 2),
        "lr_at_end": curve[-1]["lr"],
        "seconds": round(made["seconds"], 1),
        "ended_by": "its epochs" if made["stopped_by"] == "steps" else made["stopped_by"],
        "validations": len(curve),
        "best_step": made["best_step"],
        "metric": found["metric"],
        "lower_is_better": found["lower_is_better"],
        "score": found["score"],
        "last": found["score"] if made["best_step"] == made["steps"] else curve[-1]["val_score"],
        "interval": [found["low"], found["high"]],
        "psnr_db": mean(picture["psnr_db"] for picture in found["rows"]),
        "untouched": found["untouched"],
        "pictures": len(found["rows"]),
        "run": run.name,
    }


def logged(wanted: argparse.Namespace) -> list[dict[str, Any]]:
    """The log's runs of this budget and these threads; a line that was broken off is no run."""
    log, rows = wanted.log, []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if (row["budget"], row["machine"]["threads"]) == (wanted.budget, wanted.threads):
            rows.append(row)
    return rows


def report(rows: list[dict[str, Any]], wanted: argparse.Namespace) -> None:
    """Print the table and write the dated result."""
    if not rows:
        raise SystemExit(f"the log holds no run of {wanted.budget} and {wanted.threads} threads")
    print(_table(rows))
    figures = {"budget": wanted.budget, "runs": rows, "means": _means(rows)}
    arguments = f"--log FILE --report --budget {wanted.budget} --threads {wanted.threads}"
    variant = f"_{wanted.budget}_of_{wanted.threads}_threads"
    path = record.write_result("deck", figures, arguments=arguments, variant=variant)
    print(f"written: {path}")


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each contest's and recipe's mean over its seeds, with the extremes, best first."""
    means = []
    rows = [r for r in rows if "failed" not in r]
    for contest, recipe in dict.fromkeys((r["contest"], r["recipe"]) for r in rows):
        own = [r for r in rows if (r["contest"], r["recipe"]) == (contest, recipe)]
        scores = [r["score"] for r in own]
        means.append(
            {
                "contest": contest,
                "recipe": recipe,
                "seeds": len(own),
                "mean": mean(scores),
                "mean_last": mean(r["last"] for r in own),
                "least": min(scores),
                "most": max(scores),
                "lower_is_better": own[0]["lower_is_better"],
            }
        )

    def rank(row: dict[str, Any]) -> tuple[str, float]:
        return row["contest"], row["mean"] if row["lower_is_better"] else -row["mean"]

    return sorted(means, key=rank)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [_HEAD, *(_line(r) for r in sorted(rows, key=_key)), "", "best first, over the seeds:"]
    lines += [
        f"{m['contest']:25} {m['recipe']:26} {m['seeds']} seed(s)  {m['mean']:9.4g}"
        f"  ({m['least']:.4g} to {m['most']:.4g})  last {m['mean_last']:9.4g}"
        for m in _means(rows)
    ]
    return "\n".join(lines)


_HEAD = (
    "contest                   recipe                     seed   steps  epochs  seconds  ended by"
    "       score       last  untouched"
)


def _line(row: dict[str, Any]) -> str:
    start = f"{row['contest']:25} {row['recipe']:26} {row['seed']:4}"
    if "failed" in row:
        return f"{start}  failed: {row['failed'].strip().splitlines()[-1]}"
    return (
        f"{start} {row['steps']:7} {row['epochs']:7.1f} {row['seconds']:8.0f}"
        f"  {row['ended_by']:10} {row['score']:9.4g} {row['last']:10.4g}"
        f" {row['untouched']:10.4g}"
    )


def _key(row: dict[str, Any]) -> str:
    return f"{row['contest']}/{row['recipe']}/{row['seed']}"


if __name__ == "__main__":
    main()
