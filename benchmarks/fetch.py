"""Fetch under stress: 20 kills, the memory that a large archive takes, unpacking beside `unzip`.

    python -m benchmarks.fetch                            # 2 GiB: needs 9 GiB of disk
    python -m benchmarks.fetch --gib 0.1 --kills 3        # a quick look

Everything happens on loopback, with the real client and the fake Kaggle of the tests.
"""

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import write_result
from kbdenoise.contests.archives import unpack
from tests.fake_kaggle import FakeKaggle, Fault
from tests.fake_kaggle.fixtures import PICTURE, clean_environment, tiny_archive

_RUN = "import sys; from kbdenoise.cli.app import main; code = main(sys.argv[1:])\n"
_PEAK = (
    "import resource\n"
    "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    "sys.exit(code)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the large archive")
    parser.add_argument("--kills", type=int, default=20, help="how often a fetch is killed")
    parser.add_argument("--folder", type=Path, help="a folder on a disk with room")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        figures = {"kills": killed(folder / "kills", options.kills)}
        figures |= large(folder / "large", options.gib)
    for name, value in figures.items():
        print(f"{name:<12} {value}")
    write_result("fetch", figures, arguments=" ".join(sys.argv[1:]))


def start(kaggle: FakeKaggle, folder: Path) -> "subprocess.Popen[str]":
    environment = clean_environment() | kaggle.environment(folder / "home")
    environment["KBDENOISE_TIMEOUT"] = "60"
    words = ["fetch", "tiny", "--data", str(folder / "data"), "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN + _PEAK, *words],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def killed(folder: Path, kills: int) -> dict[str, Any]:
    """Kill -9 at random moments of one fetch, from the import to the last rename; then let it end.

    Moments count from the first sign of life in the data folder, and every third from the start.
    """
    archive = tiny_archive(extra_bytes=8_000_000)
    draw, states = random.Random(20), []
    with FakeKaggle("tiny", archive=archive) as kaggle:
        kaggle.fail("storage", Fault("slow", per_s=4_000_000), times=None)
        for number in range(kills):
            process = start(kaggle, folder)
            if number % 3:
                _wait_for_life(process, folder / "data", len(kaggle.requests))
            time.sleep(draw.uniform(0.0, 1.2))
            process.kill()
            process.communicate()
            states.append(_state(folder / "data", archive))
            if states[-1] == "whole":  # begin again: the point is to be killed on the way
                shutil.rmtree(folder / "data")
        kaggle.heal()
        process = start(kaggle, folder)
        _, err = process.communicate()
        assert process.returncode == 0, err
        assert _state(folder / "data", archive) == "whole"
    return {state: states.count(state) for state in dict.fromkeys(states)} | {"ends": "whole"}


def _wait_for_life(process: "subprocess.Popen[str]", data: Path, before: int) -> None:
    part = data / "tiny.zip.part"
    size_bytes = part.stat().st_size if part.exists() else 0
    while process.poll() is None:
        if part.exists() and part.stat().st_size != size_bytes:
            return
        time.sleep(0.005)


def _state(data: Path, archive: bytes) -> str:
    """What a kill has left; anything that passes for whole without being so is an error."""
    part, folder = data / "tiny.zip.part", data / "tiny"
    assert not (data / "tiny.zip").exists()
    if part.exists():
        assert archive.startswith(part.read_bytes())
    if folder.exists():
        with tempfile.NamedTemporaryFile(suffix=".zip") as file:
            file.write(archive)
            file.flush()
            with zipfile.ZipFile(file.name) as opened:
                for name in opened.namelist():
                    assert (folder / name).read_bytes() == opened.read(name)
        return "whole"
    return "resumable" if part.exists() else "nothing"


def large(folder: Path, gib: float) -> dict[str, Any]:
    """Peak memory of a fetch of a large archive, and unpacking it beside `unzip`."""
    folder.mkdir(parents=True)
    path = folder / "large.zip"
    _write_large(path, int(gib * 1024**3))
    with FakeKaggle("tiny") as kaggle:
        kaggle.contest.archive_path = path
        process = start(kaggle, folder)
        began = time.perf_counter()
        _, err = process.communicate()
        fetch_s = time.perf_counter() - began
        assert process.returncode == 0, err
    peak_mib = int(err.split("peak ")[1].split()[0]) / (1024 if sys.platform != "darwin" else 2**20)
    shutil.rmtree(folder / "data")
    return {
        "archive_gib": round(path.stat().st_size / 1024**3, 3),
        "fetch_s": round(fetch_s, 1),
        "peak_mib": round(peak_mib, 1),
        **_unpacking(path, folder),
    }


def _write_large(path: Path, size_bytes: int) -> None:
    """Pictures' bytes as they are in contests: half noise, half of little content."""
    noise = np.random.default_rng(1).bytes(1 << 20)
    body = b"".join(noise[i : i + 4096] + bytes(4096) for i in range(0, 1 << 20, 4096))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for kind in ("noisy", "clean"):
            archive.writestr(f"train/{kind}/1.png", PICTURE)
        number = 0
        while path.stat().st_size < size_bytes:
            with archive.open(f"extra/{number:05d}.bin", "w", force_zip64=True) as entry:
                for _ in range(8):
                    entry.write(body)
            number += 1


def _unpacking(path: Path, folder: Path) -> dict[str, Any]:
    """Seconds of processor and of the clock; the best of two, in turns."""
    ours, theirs = [], []
    for _ in range(2):
        ours.append(_timed(lambda target: unpack([path], target), folder / "ours"))
        if shutil.which("unzip"):
            words = ["unzip", "-q", "-o", str(path), "-d"]
            theirs.append(
                _timed(
                    lambda target: subprocess.run([*words, str(target)], check=True),  # noqa: B023
                    folder / "theirs",
                )
            )
    figures = {"unpack_s": min(ours)[0], "unpack_cpu_s": min(o[1] for o in ours)}
    if theirs:
        figures |= {"unzip_s": min(theirs)[0], "unzip_cpu_s": min(t[1] for t in theirs)}
        figures["cpu_ratio"] = figures["unpack_cpu_s"] / figures["unzip_cpu_s"]
        figures["clock_ratio"] = figures["unpack_s"] / figures["unzip_s"]
    return {name: round(value, 2) for name, value in figures.items()}


def _timed(work: Any, target: Path) -> tuple[float, float]:
    target.mkdir()
    before, began = _cpu_s(), time.perf_counter()
    work(target)
    took = time.perf_counter() - began, _cpu_s() - before
    shutil.rmtree(target)
    os.sync()
    return took


def _cpu_s() -> float:
    both = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in both)


if __name__ == "__main__":
    main()
