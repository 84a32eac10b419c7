"""A training killed again and again, and resumed, against one that was left alone: the same bits?

    python -m benchmarks.survival [--kills 20] [--writes 5] [--steps 1500] [--seed 0] [--only CASE]

Trains a small network on a small demo contest through the program as a user does: once undisturbed,
once killed by SIGKILL at random moments, at least `--writes` of them while a checkpoint is being
written, and resumed each time. Compares both weights files byte by byte, the history but for its
times, and the record's scores. Exits with 1 if anything differs. Results: benchmarks/results/.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import program, record
from kbdenoise.models.weights import read_card
from kbdenoise.runs.folder import Run
from kbdenoise.runs.history import read_history

# The number of threads decides the order of sums, so it is the same for both trainings.
TRAINING = (
    *("train", "demo", "--name", "survivor", "--device", "cpu", "--threads", "1"),
    *("--preset", "quick", "--model", "res-unet", "--size", "small", "--hyper", "widest=64"),
    *("--patch", "64", "--val-every", "100", "--val-images", "2", "--save-every", "1s"),
)
CASES = {
    "fp32": ("--precision", "fp32", "--batch", "2"),
    "bf16": ("--precision", "bf16", "--batch", "4", "--accumulate", "2"),
}
START_UP_KILLS = 2  # as many of the kills come before the sitting's first step
_POLL_S, _POLL_FAST_S = 0.01, 0.0001


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL and what it hit."""

    aim: str
    """'start-up', 'write' or 'anywhere'."""
    writing: tuple[str, ...]
    """The files that were half-written."""
    lost_s: float
    """Training since the newest whole state: what is done again."""


@dataclass(slots=True, kw_only=True)
class Pace:
    """How fast the undisturbed training went; it aims the kills."""

    start_up_s: float
    steps_per_s: float


def main() -> None:
    """Run every case, print a table, write the dated result; exit with 1 on any difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writes", type=int, default=5, help="kills that have to hit a write")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--no-result", action="store_true", help="print only, for a trial")
    wanted = parser.parse_args()
    figures: dict[str, Any] = {"steps": wanted.steps, "seed": wanted.seed}
    print("case   steps  kills  in a write  steps done again  last  best  history  scores")
    for case in [wanted.only] if wanted.only else CASES:
        with tempfile.TemporaryDirectory() as name:
            row = survive(Path(name), case, wanted)
        figures[case] = row
        same = [("same" if row["same"][key] else "DIFFER") for key in row["same"]]
        print(
            f"{case:5} {wanted.steps:6} {row['kills']:6} {row['kills_in_a_write']:11}"
            f" {row['steps_done_again']:17.0f}  " + "  ".join(same),
            flush=True,
        )
    cases = [figures[case] for case in CASES if case in figures]
    enough = all(
        row["kills"] >= wanted.kills and row["kills_in_a_write"] >= wanted.writes for row in cases
    )
    if not enough:
        print("the training was over before enough kills: use more --steps")
    if not wanted.no_result:
        arguments = f"--kills {wanted.kills} --writes {wanted.writes} --steps {wanted.steps}"
        print(f"written: {record.write_result('survival', figures, arguments=arguments)}")
    if not enough or not all(all(row["same"].values()) for row in cases):
        raise SystemExit(1)


def survive(folder: Path, case: str, wanted: argparse.Namespace) -> dict[str, Any]:
    """Both trainings of one case, and what they have in common."""
    calm, rough = folder / "calm", folder / "rough"
    program.make_demo(calm, pages=10)
    training = (*TRAINING, *CASES[case], "--steps", str(wanted.steps))
    pace = undisturbed(calm, training)
    shutil.copytree(calm / "data", rough / "data")  # with the store, which is not what is tested
    kills = disturbed(rough, training, wanted, pace)
    return {
        "settings": " ".join(training),
        "kills": len(kills),
        "kills_in_a_write": sum(bool(kill.writing) for kill in kills),
        "kills_in_a_write_of_state": sum("state.pt" in kill.writing for kill in kills),
        "kills_at_start_up": sum(kill.aim == "start-up" for kill in kills),
        "half_written": sorted(name for kill in kills for name in kill.writing),
        "steps_done_again": round(pace.steps_per_s * sum(kill.lost_s for kill in kills)),
        "same": compared(_run(calm), _run(rough)),
    }


def undisturbed(home: Path, training: tuple[str, ...]) -> Pace:
    """Train in one go."""
    started = time.time()
    program.kbdenoise(home, *training)
    begun = _run(home).config_file.stat().st_mtime
    spent = time.time() - begun
    steps = _run(home).read_record().steps
    return Pace(start_up_s=begun - started, steps_per_s=steps / spent)


def disturbed(
    home: Path, training: tuple[str, ...], wanted: argparse.Namespace, pace: Pace
) -> list[Kill]:
    """Train, killed and resumed as often as wanted, then to the end."""
    chance = random.Random(wanted.seed)
    kills: list[Kill] = []
    while not _is_finished(home):
        hits = sum(bool(kill.writing) for kill in kills)
        left = max(wanted.kills - len(kills), wanted.writes - hits)
        if left <= 0:
            program.kbdenoise(home, *_go_on(home, training))
            break
        steps_left = wanted.steps - _saved_steps(home)
        gap_s = steps_left / pace.steps_per_s / (left + 1)
        aim = "anywhere" if hits >= wanted.writes else "write"
        if len(kills) % max(1, wanted.kills // START_UP_KILLS) == 1:
            aim = "start-up"
        moment_s = chance.uniform(0.0, pace.start_up_s if aim == "start-up" else 1.5 * gap_s)
        if kill := _sitting(home, _go_on(home, training), aim=aim, moment_s=moment_s):
            kills.append(kill)
            _check_whole(home)
    return kills


def _go_on(home: Path, training: tuple[str, ...]) -> tuple[str, ...]:
    """Resume; or start, where nothing was saved before the kill."""
    if folders := list((home / "runs").glob("*")):
        if Run(path=folders[0]).state_file.is_file():
            return ("train", "--resume", "survivor")
        shutil.rmtree(folders[0])  # the program says so too: start it again
    return training


def _sitting(home: Path, arguments: tuple[str, ...], *, aim: str, moment_s: float) -> Kill | None:
    """Start the program and kill it; None where it came to its end before."""
    parts = _half_written(home)
    started = time.time()
    with open(home / "log.txt", "a") as log:
        process = subprocess.Popen(
            program.words(*arguments),
            cwd=home,
            stdout=log,
            stderr=log,
            env=program.environment(),
            start_new_session=True,
        )
    if aim != "start-up":
        _wait(process, lambda: _began(home) > started)
    until = time.monotonic() + moment_s
    _wait(process, lambda: time.monotonic() >= until)
    if aim == "write":
        _wait(process, lambda: _writes_state(home, parts), poll_s=_POLL_FAST_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    killed = time.time()
    if (code := process.wait()) == 0:
        return None
    if code != -signal.SIGKILL:
        raise SystemExit(f"exit code {code}\n{(home / 'log.txt').read_text()[-2000:]}")
    since = max(_began(home), _saved_at(home))
    in_sitting = started < since and aim != "start-up"
    new = (part.removeprefix(".").partition(".part")[0] for part in _half_written(home) - parts)
    return Kill(aim=aim, writing=tuple(sorted(new)), lost_s=killed - since if in_sitting else 0.0)


def _wait(process: subprocess.Popen, is_over: Callable[[], bool], *, poll_s: float = _POLL_S):
    while process.poll() is None and not is_over():
        time.sleep(poll_s)


def compared(calm: Run, rough: Run) -> dict[str, bool]:
    """What is the same, to the last bit; a run's name may differ by a midnight between them."""

    def content(run: Run, path: Path) -> bytes:
        return path.read_bytes().replace(run.name.encode(), b"NAME")

    def scores(run: Run) -> list[object]:
        found = run.read_record()
        return [found.status, found.steps, found.best_score, found.best_step, found.went_back]

    return {
        "last": content(calm, calm.last) == content(rough, rough.last),
        "best": content(calm, calm.best) == content(rough, rough.best),
        "history": _timeless(calm) == _timeless(rough),
        "scores": scores(calm) == scores(rough),
    }


def _timeless(run: Run) -> list[dict[str, float]]:
    times = {"seconds", "images_per_s"}
    rows = read_history(run.history_file)
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def _check_whole(home: Path) -> None:
    """After a kill, whatever bears its final name can be read."""
    for folder in (home / "runs").glob("*"):
        run = Run(path=folder)
        for weights in (run.best, run.last):
            if weights.is_file():
                read_card(weights)
        read_history(run.history_file)
        if run.record_file.is_file():
            json.loads(run.record_file.read_text(encoding="utf-8"))


def _run(home: Path) -> Run:
    (folder,) = (home / "runs").iterdir()
    return Run(path=folder)


def _is_finished(home: Path) -> bool:
    files = list((home / "runs").glob("*/run.json"))
    return bool(files) and json.loads(files[0].read_text())["status"] == "finished"


def _saved_steps(home: Path) -> int:
    files = list((home / "runs").glob("*/run.json"))
    return json.loads(files[0].read_text())["steps"] if files else 0


def _began(home: Path) -> float:
    """When the newest sitting's training began; 0 where none has."""
    return _newest(home, "config.toml")


def _saved_at(home: Path) -> float:
    return _newest(home, "state.pt")


def _newest(home: Path, name: str) -> float:
    return max((file.stat().st_mtime for file in (home / "runs").glob(f"*/{name}")), default=0.0)


def _half_written(home: Path) -> set[str]:
    return {path.name for path in (home / "runs").glob("*/.*.part*")}


def _writes_state(home: Path, before: set[str]) -> bool:
    return any(name.startswith(".state.pt.part-") for name in _half_written(home) - before)


if __name__ == "__main__":
    main()
