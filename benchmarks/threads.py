"""Training by the number of threads and by how long they spin, alone and beside a busy program.

    python -m benchmarks.threads [--preset quick] [--steps 100] [--rounds 3]

OpenMP's threads wait for each other after every operation: spinning at first, then asleep. To be
woken takes long in a virtual machine; to spin for one that has no core is time lost. The program
sets GOMP_SPINCOUNT, unless the person has. Rounds go through all kinds in turn, as speeds here
drift; the figure is the median of the rounds.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks import program, record
from kbdenoise.devices import SPINS
from kbdenoise.runs.folder import Run
from kbdenoise.runs.history import read_history

PAGES = 8  # of the demo contest
BY_DEFAULT = "300000"  # libgomp's
KINDS = (("1", BY_DEFAULT), *(("2", spins) for spins in ("0", "1000", SPINS, "100000", BY_DEFAULT)))


def main() -> None:
    """Measure all kinds, print them and write the dated result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--steps", default="100")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        program.make_demo(home, pages=PAGES)
        program.kbdenoise(home, "train", "demo", "--dry-run")  # decodes the pictures
        for is_busy in (False, True):
            with _busy_program() if is_busy else contextlib.nullcontext():
                rates = [
                    [_rate(home, *kind, wanted.preset, wanted.steps) for kind in KINDS]
                    for _ in range(wanted.rounds)
                ]
            for kind, own in zip(KINDS, zip(*rates, strict=True), strict=True):
                rows.append({"busy": is_busy, "threads": kind[0], "spins": kind[1], "rates": own})
    print(f"{wanted.preset}, patches a second, and against one thread:")
    for row in rows:
        of_one = next(r for r in rows if r["busy"] == row["busy"])  # the first kind
        row["rate"] = median(row["rates"])
        row["against_one_thread"] = row["rate"] / median(of_one["rates"])
        place = "beside a busy program" if row["busy"] else "alone"
        print(
            f"{place:22} {row['threads']} thread(s), {row['spins']:>6} spins: "
            f"{row['rate']:7.2f}  {row['against_one_thread']:5.2f}"
        )
    figures = {"preset": wanted.preset, "steps": wanted.steps, "kinds": rows}
    arguments = f"--preset {wanted.preset} --steps {wanted.steps} --rounds {wanted.rounds}"
    path = record.write_result("threads", figures, arguments=arguments, variant=f"_{wanted.preset}")
    print(f"written: {path}")


@contextlib.contextmanager
def _busy_program() -> Iterator[None]:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _rate(home: Path, threads: str, spins: str, preset: str, steps: str) -> float:
    """Patches a second of a training in a process of its own."""
    os.environ["GOMP_SPINCOUNT"] = spins
    length = ("--steps", steps, "--val-every", steps)
    made = program.kbdenoise(
        home, "train", "demo", "--preset", preset, *length, "--device", "cpu", "--threads", threads
    )
    (row,) = read_history(Run(path=home / made["run"]).history_file)
    return row["images_per_s"]


if __name__ == "__main__":
    main()
