"""Tiny seeded pictures and contests, made on the spot; no network, no GPU, no clock."""

import contextlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from kbdenoise.contests.contest import CONTEST_FILE, Contest, LocalContest, write_contest
from kbdenoise.imaging.files import FloatImage, write_image

pytest_plugins = ["tests.fake_kaggle.fixtures"]

SHARED = Path(os.environ.get("KBDENOISE_SHARED", Path(__file__).parents[2] / "shared" / "data"))

MakeContest = Callable[..., LocalContest]

PROCESSES = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def pytest_configure() -> None:
    """Let child processes hear Ctrl-C even where a shell runs the tests in its background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures; tests that use it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no real pictures in {SHARED}; name their folder in KBDENOISE_SHARED")
    return SHARED


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are added in one order, whatever machine runs the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def no_power_failure() -> Iterator[Callable[[int], None]]:
    """Nothing waits for the disk here: what a killed process has written is there all the same.

    The value is what waits.
    """
    wait = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses the same handles
        yield wait


class Child:
    """Python code that runs in a process of its own; what it writes goes to files."""

    def __init__(
        self, code: str, *, words: tuple[str, ...], folder: Path, cwd: Path, env: Mapping[str, str]
    ) -> None:
        self.code, self.streams = code, (folder / "stdout", folder / "stderr")
        script = folder / "code.py"
        lines = ["import os, sys, torch", "torch.set_num_threads(1); os.fsync = os.fstat"]
        for number, path in enumerate(self.streams, start=1):
            path.touch()
            lines.append(f"os.dup2(os.open({str(path)!r}, os.O_WRONLY), {number})")
        lines += [f"os.chdir({str(cwd)!r})", f"os.environ.update({dict(env)!r})"]
        lines += [f"sys.argv = {[str(script), *words]!r}", code]
        script.write_text("\n".join(lines))
        self.process = PROCESSES.Process(
            target=runpy.run_path, args=(str(script),), kwargs={"run_name": "__main__"}
        )
        self.process.start()

    def wait(self, timeout: float = 600.0) -> "subprocess.CompletedProcess[str]":
        """Wait for its end; what it wrote, and its exit code (negative: the signal)."""
        self.process.join(timeout)
        code = self.process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self.code, timeout)
        out, err = (path.read_text() for path in self.streams)
        return subprocess.CompletedProcess(self.code, code, out, err)


StartChild = Callable[..., Child]


@pytest.fixture(scope="session")
def server() -> None:
    """A process that has imported torch and the library, to fork others from in no time."""
    PROCESSES.set_forkserver_preload(
        ["kbdenoise.cli.app", "kbdenoise.training.train", "torch._dynamo"]  # what training imports
    )
    if PROCESSES.get_start_method() == "forkserver":
        forkserver.ensure_running()  # in the environment that no test has changed yet


@pytest.fixture
def start_child(server: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartChild]:
    """A function that lets Python code run in a process of its own."""
    children = []

    def start(
        code: str,
        *words: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        folder = tmp_path_factory.mktemp("child")
        child = Child(
            code, words=tuple(map(str, words)), folder=folder, cwd=cwd or folder, env=env or {}
        )
        children.append(child)
        return child

    yield start
    for child in children:
        if child.process.is_alive():
            child.process.kill()
        child.process.join()


PROGRAM = "import runpy; runpy.run_module('kbdenoise', run_name='__main__')"


@pytest.fixture
def start_program(start_child: StartChild) -> StartChild:
    """A function that starts the program, `python -m kbdenoise`, with these words."""

    def start(*words: object, **places: Any) -> Child:
        return start_child(PROGRAM, *words, **places)

    return start


@pytest.fixture
def team(start_child: StartChild) -> Callable[..., list[Any]]:
    """A function that runs the program, or other code, in two processes as torchrun would.

    It takes less time. Each process is in a folder of its own, that of `places` where there is one.
    """

    def run(
        *words: object, code: str = PROGRAM, places: Sequence[Path | None] = (None, None)
    ) -> list[Any]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        members = [
            start_child(code, *words, cwd=place, env=shared | {"RANK": rank, "LOCAL_RANK": rank})
            for rank, place in zip("01", places, strict=True)
        ]
        return [member.wait() for member in members]

    return run


def smooth_picture(
    seed: int, *, height: int = 48, width: int = 40, channels: int = 3
) -> FloatImage:
    """Coloured blobs: float32 [H, W, C] in [0, 1]."""
    noise = np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)
    blurred = np.atleast_3d(cv2.GaussianBlur(noise, (0, 0), 3.0))
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low)).astype(np.float32)


def degraded(clean: FloatImage, seed: int) -> FloatImage:
    """Lifted blacks and some noise, as a scanner would."""
    noise = np.random.default_rng(seed).normal(0, 0.03, clean.shape)
    return np.clip(0.2 + 0.75 * clean + noise, 0.0, 1.0).astype(np.float32)


@pytest.fixture
def make_contest(tmp_path: Path) -> MakeContest:
    """A function that makes a contest of small pairs, two to a group, in a temporary folder."""

    def make(
        *,
        pages: int = 4,
        tests: int = 2,
        height: int = 48,
        width: int = 40,
        channels: int = 3,
        slug: str = "tiny",
        **rules: object,
    ) -> LocalContest:
        folder = tmp_path / "data" / slug
        chosen: dict[str, object] = {
            "metric": "mae-mean-luma",
            "format": "mean-luma",
            "group_pattern": r"(.+?)(?:\.\d{2})?$",
            "test": "test/noisy",
            "truth": "truth/clean",
        }
        contest = Contest(slug=slug, channels=channels, **(chosen | rules))  # type: ignore[arg-type]
        places = [("train/noisy", "train/clean", p) for p in range(pages)]
        places += [("test/noisy", "truth/clean", 100 + p) for p in range(tests)]
        for noisy_folder, clean_folder, page in places:
            for crop in (1, 2):
                seed = 10 * page + crop
                clean = smooth_picture(seed, height=height, width=width, channels=channels)
                name = f"Page.{page:05d}.{crop:02d}.png"
                write_image(folder / clean_folder / name, clean)
                write_image(folder / noisy_folder / name, degraded(clean, seed))
        write_contest(folder / CONTEST_FILE, contest)
        return LocalContest(folder=folder, contest=contest)

    return make


@pytest.fixture
def contest(make_contest: MakeContest) -> LocalContest:
    """Eight RGB pairs of 48x40 px in four groups, four test pictures with their truths."""
    return make_contest()
