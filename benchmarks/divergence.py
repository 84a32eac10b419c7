"""The earlier work's KBNet at five times its learning rate: does it diverge, and what helps?

    python -m benchmarks.divergence [--steps 600] [--seeds 0] [--only RECIPE] [--size small]
                                    [--lr 0.05]

Trains the preset deck-kbnet-1 with --lr 0.005, or another rate, on the demo contest, through the
program as a user does: as the preset is, without a guard; with the guard alone; and with what
kbdenoise does by itself: guard, clipped gradient and warm-up. Prints the curve of each and what the
guard said, and writes benchmarks/results/. Smaller patches, batches and, with --size, networks than
the recipe's make it bearable on a CPU; a run that does not diverge here is shown as it is.
"""

import argparse
import re
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks import program, record
from kbdenoise.runs.folder import Run
from kbdenoise.runs.history import read_history

PRESET, _DECK_LR = "deck-kbnet-1", "0.005"
RECIPES = {
    "as it is": ("--guard", "0", "--clip", "0", "--warmup", "0"),
    "guard alone": ("--guard", "10", "--clip", "0", "--warmup", "0"),
    "guard, clip, warm-up": ("--guard", "10", "--clip", "1", "--warmup", "2%"),
}
VALIDATIONS, PICTURES = 12, 2
COLLAPSE_DB = 3.0  # so much below its best before, a restoration has fallen back


def main() -> None:
    """Train every recipe with every seed, print what happened, write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--lr", default=_DECK_LR, help="what the earlier work diverged at")
    parser.add_argument("--size", default="", help="of kbnet-s, instead of the preset's")
    parser.add_argument("--patch", default="64")
    parser.add_argument("--batch", default="2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--no-result", action="store_true", help="print only, for a trial")
    wanted = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        program.make_demo(home, pages=20)
        for seed in wanted.seeds.split(","):
            for recipe in [wanted.only] if wanted.only else RECIPES:
                rows.append(trained(home, recipe, seed, wanted))
                print(_text(rows[-1]), flush=True)
    print(_table(rows))
    if not wanted.no_result:
        figures = {"settings": vars(wanted), "preset": PRESET, "runs": rows}
        arguments = f"--steps {wanted.steps} --seeds {wanted.seeds} --lr {wanted.lr}"
        variant = "" if wanted.lr == _DECK_LR else f"_at_{wanted.lr}"
        arguments += f" --size {wanted.size}" if wanted.size else ""
        path = record.write_result("divergence", figures, arguments=arguments, variant=variant)
        print(f"written: {path}")


def trained(home: Path, recipe: str, seed: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """One training, however it ended."""
    every = str(max(1, wanted.steps // VALIDATIONS))
    name = re.sub(r"\W+", "-", f"{recipe}-{seed}")
    # The preset counts 60 epochs; 0 of them lets --steps decide, and the rate hardly falls.
    answer = program.run(
        home,
        *("train", "demo", "--name", name, "--preset", PRESET, "--lr", wanted.lr),
        *("--epochs", "0", "--steps", str(wanted.steps), "--seed", seed, *RECIPES[recipe]),
        *("--patch", wanted.patch, "--batch", wanted.batch, "--threads", wanted.threads),
        *("--device", wanted.device, "--val-every", every, "--val-images", str(PICTURES)),
        *(("--size", wanted.size) if wanted.size else ()),
    )
    (folder,) = (home / "runs").glob(f"*_{name}")
    run = Run(path=folder)
    found, curve = run.read_record(), read_history(run.history_file)
    return {
        "recipe": recipe,
        "seed": int(seed),
        "finished": answer.returncode == 0,
        "ended_by": _ending(answer.returncode, answer.stderr),
        "steps": found.steps,
        "went_back": found.went_back,
        "skipped_steps": curve[-1]["skipped_steps"] if curve else 0,
        "guard_said": re.findall(r"training diverged.*", answer.stderr),
        "metric": found.metric,
        "untouched": found.untouched_score,
        "best": found.best_score,
        "best_step": found.best_step,
        "last": curve[-1]["val_score"] if curve else None,
        "deepest_fall_db": max(falls_db(curve), default=0.0),
        "fall_at_end_db": falls_db(curve)[-1] if curve else 0.0,
        "curve": [
            {key: row[key] for key in ("step", "lr", "loss", "val_score", "val_psnr_db")}
            for row in curve
        ],
    }


def falls_db(curve: list[dict[str, float]]) -> list[float]:
    """How far the restored pictures' PSNR is below its best so far, at each validation."""
    best = accumulate((row["val_psnr_db"] for row in curve), max)
    return [round(most - row["val_psnr_db"], 2) for most, row in zip(best, curve, strict=True)]


def verdict(row: dict[str, Any]) -> str:
    """What happened, in a word or two."""
    if not row["finished"]:
        return "gave up"
    if row["went_back"]:
        return "went back"
    if row["fall_at_end_db"] > COLLAPSE_DB:
        return "collapsed"
    return "fell, rose" if row["deepest_fall_db"] > COLLAPSE_DB else "held"


def _ending(code: int, stderr: str) -> str:
    if code == 0:
        return "all steps"
    errors = re.findall(r"error: (.*)", stderr)
    return f"exit {code}: {errors[-1] if errors else stderr.strip()[-200:]}"


def _text(row: dict[str, Any]) -> str:
    lines = [f"\n{row['recipe']}, seed {row['seed']}: {verdict(row)}, ended by {row['ended_by']}"]
    lines += [f"  {said}" for said in row["guard_said"]]
    lines.append("   step       lr      loss    score   psnr dB")
    lines += [
        f"  {point['step']:5.0f} {point['lr']:8.2g} {point['loss']:9.3g}"
        f" {point['val_score']:8.3f} {point['val_psnr_db']:9.2f}"
        for point in row["curve"]
    ]
    return "\n".join(lines)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "",
        f"untouched {rows[0]['untouched']:.3f} {rows[0]['metric']}; lower is better",
        "recipe                 seed  verdict       best     last  worst fall  went back  skip",
    ]
    for row in rows:
        best, last = (f"{row[key]:.3f}" if row[key] else "-" for key in ("best", "last"))
        lines.append(
            f"{row['recipe']:22} {row['seed']:4}  {verdict(row):10} {best:>7} {last:>8}"
            f" {row['deepest_fall_db']:10.2f} dB {row['went_back']:10} {row['skipped_steps']:5.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
