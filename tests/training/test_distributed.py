"""Several processes train and predict together: on CPUs, with gloo."""

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from kbdenoise import launch
from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import KbdenoiseError, SettingsError
from kbdenoise.launch import count_gpus
from kbdenoise.runs.folder import find_run
from kbdenoise.runs.history import read_history
from kbdenoise.team import ALONE, LAUNCHED, joined
from kbdenoise.training.train import train

Capture = pytest.CaptureFixture[str]

SETTINGS = [
    "--model",
    "unet",
    "--width",
    "4",
    "--hyper",
    "levels=1 convs=1",
    "--patch",
    "16",
    "--batch",
    "6",
    "--steps",
    "50",
    "--val-every",
    "25",
    "--folds",
    "4",
    "--fold",
    "0",
    "--ema",
    "0.9",
    "--device",
    "cpu",
    "--precision",
    "fp32",
    "--threads",
    "1",
]
StartChild = Callable[..., Any]


@pytest.fixture
def run(start_program: StartChild) -> Callable[..., Any]:
    """A function that runs the program to its end."""

    def run(*words: object) -> Any:
        return start_program(*words, env={"OMP_NUM_THREADS": "1"}).wait()

    return run


@pytest.fixture
def torchrun(start_child: StartChild) -> Callable[..., Any]:
    """A function that runs a script, or the program with -m, in two processes of torchrun."""
    places = ["--standalone", "--nproc-per-node=2"]

    def run(*words: object) -> Any:
        code = "import runpy; runpy.run_module('torch.distributed.run', run_name='__main__')"
        return start_child(code, *places, *words, env={"OMP_NUM_THREADS": "1"}).wait()

    return run


def keywords() -> dict[str, Any]:
    """SETTINGS as `train` takes them, with fewer steps."""
    words = {
        word[2:].replace("-", "_"): v for word, v in zip(SETTINGS[::2], SETTINGS[1::2], strict=True)
    }
    short = {"steps": 6, "val_every": 3, "width": 4, "patch": 16, "batch": 6}
    return words | short | {"folds": 4, "fold": 0, "ema": 0.9, "threads": 1}


def difference(one: Path, other: Path) -> float:
    """The largest between the last weights of two runs."""
    a, b = (safetensors.torch.load_file(r / "last.safetensors") for r in (one, other))
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


def test_two_processes_give_the_weights_of_one_and_one_resumes_what_two_began(
    contest: LocalContest,
    tmp_path: Path,
    run: Callable[..., Any],
    torchrun: Callable[..., Any],
) -> None:
    runs = tmp_path / "runs"
    words = ["train", contest.folder, *SETTINGS, "--runs", runs, "--name"]

    one = run(*words, "one")
    two = torchrun("-m", "kbdenoise", *words, "two")
    half = run(*words, "half", "--gpus", 2, "--time-limit", 0)

    for answer in (one, two, half):
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count("✓") == 1  # the leader speaks alone
    assert difference(find_run("one", runs).path, find_run("two", runs).path) < 1e-5
    assert difference(find_run("two", runs).path, find_run("half", runs).path) == 0.0
    rows = [read_history(find_run(name, runs).history_file) for name in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        assert a["val_score"] == pytest.approx(b["val_score"], abs=0.05)
    longer = [train(resume=name, runs=runs, steps=60) for name in ("one", "two")]
    assert [result.steps for result in longer] == [60, 60]
    assert difference(longer[0].run, longer[1].run) < 1e-5


THREADS_AT_THE_END = """
import atexit, contextlib, sys
from pathlib import Path
from kbdenoise.errors import KbdenoiseError
from kbdenoise.progress import Advance
from kbdenoise.training.train import train

@atexit.register
def tell():
    print("left:", *threads())

def threads():
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield path.read_text().strip()

def fail(event):
    if isinstance(event, Advance) and event.task == "validate":
        error = KbdenoiseError("the disk is full")
        raise error  # which now holds its own frame, and so the others until gc comes by

try:
    train(Path(sys.argv[1]), runs=Path(sys.argv[2]), progress=fail, **eval(sys.argv[3]))
except KbdenoiseError:
    print("failed")
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have names on Linux")
def test_no_thread_of_the_team_outlives_the_interpreter_which_would_abort_the_process(
    contest: LocalContest, tmp_path: Path, torchrun: Callable[..., Any]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(THREADS_AT_THE_END)

    ended = torchrun(script, contest.folder, tmp_path / "runs", keywords())

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("failed") == ended.stdout.count("left:") == 2
    assert "gloo" not in ended.stdout


STOPPED_IN_VALIDATION = """
import os, signal
from pathlib import Path
from kbdenoise.progress import Advance
from kbdenoise.training.train import train

def ask(event):
    if isinstance(event, Advance) and event.task == "validate":
        os.kill(os.getpid(), signal.SIGINT)

result = train(Path(sys.argv[1]), runs=Path("runs"), progress=ask, **eval(sys.argv[2]))
print(result.run.resolve(), result.stopped_by, result.steps)
"""


def test_a_stop_that_one_process_hears_within_a_validation_stops_all_and_loses_nothing(
    contest: LocalContest, tmp_path: Path, team: Callable[..., list[Any]]
) -> None:
    settings = keywords()

    leader, other = team(contest.folder, settings, code=STOPPED_IN_VALIDATION)
    run, *ended = leader.stdout.split()
    resumed = train(resume=run)
    whole = train(contest.folder, runs=tmp_path / "whole", **settings)

    assert (leader.returncode, other.returncode) == (0, 0), leader.stderr + other.stderr
    assert ended == other.stdout.split()[1:] == ["interrupt", "3"]
    assert difference(whole.run, resumed.run) < 1e-5
    steps = [row["step"] for row in read_history(resumed.run / "history.csv")]
    assert steps == [3, 6]


def test_a_killed_process_ends_the_job_with_one_error_and_nothing_is_lost(
    contest: LocalContest, tmp_path: Path, start_program: StartChild
) -> None:
    runs = tmp_path / "runs"
    words = ["train", contest.folder, *SETTINGS, "--runs", runs, "--steps", 2000, "--gpus", 2]
    job = start_program(*words, env={"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/history.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)
    while len(read_history(find_run("last", runs).history_file)) < 1:
        time.sleep(0.1)
    children = subprocess.run(
        ["pgrep", "-P", str(job.process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()

    os.kill(int(children[-1]), signal.SIGKILL)
    ended = job.wait()

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.count("error:") == 1
    assert "of 2 was ended by SIGKILL" in ended.stderr
    assert "Traceback" not in ended.stderr
    resumed = train(resume="last", runs=runs, steps=100)
    assert resumed.steps == 100


def test_processes_divide_the_pictures_of_a_prediction(
    contest: LocalContest,
    tmp_path: Path,
    run: Callable[..., Any],
    team: Callable[..., list[Any]],
) -> None:
    runs = tmp_path / "runs"
    result = train(
        contest.folder,
        runs=runs,
        model="unet",
        width=4,
        patch=16,
        steps=2,
        device="cpu",
        folds=4,
        fold=0,
    )
    words = ["predict", result.run.name, contest.test, "--runs", runs, "--device", "cpu", "--out"]

    one = run(*words, tmp_path / "one")
    two = run(*words, tmp_path / "two", "--gpus", 2)
    again, silent = team(*words, tmp_path / "two")

    assert {answer.returncode for answer in (one, two, again, silent)} == {0}, two.stderr
    pictures = sorted(p.name for p in (tmp_path / "one").glob("*.png"))
    assert pictures == sorted(p.name for p in (tmp_path / "two").glob("*.png"))
    for name in pictures:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "4 were done before" in again.stdout
    assert silent.stdout == ""


def test_a_wrong_request_is_told_once(
    contest: LocalContest, tmp_path: Path, run: Callable[..., Any]
) -> None:
    words = ["--runs", tmp_path, "--device", "cpu", "--gpus", 2]

    answer = run("train", contest.folder, "--model", "kbnett", *words)

    assert answer.returncode == 2
    assert answer.stderr.count("error:") == 1
    assert "did you mean 'kbnet-s'?" in answer.stderr


def test_a_batch_smaller_than_the_team_is_refused(
    contest: LocalContest, tmp_path: Path, team: Callable[..., list[Any]]
) -> None:
    words = ["--runs", tmp_path, "--device", "cpu", "--batch", 1, "--patch", 16]

    answers = team("train", contest.folder, "--model", "unet", *words)

    assert [answer.returncode for answer in answers] == [2, 2]
    assert "too small for 2 processes" in answers[0].stderr
    assert answers[1].stderr == ""


def test_one_process_alone_is_a_team_that_costs_nothing() -> None:
    with joined() as team:
        assert team is ALONE
        assert team.leads and team.share == (0, 1)
        assert team.total([1.0, 2.0]) == [1.0, 2.0]
        assert team.gather("a") == ["a"]
        assert team.told("b") == "b"
        assert team.after_leader(lambda: "c") == "c"


def test_half_a_team_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(SettingsError, match="LOCAL_RANK, MASTER_ADDR") as caught, joined():
        pass

    assert "torchrun" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "device", "words"),
    [
        ("all", "auto", "finds no CUDA device"),
        ("2", "auto", "there are 0 CUDA devices"),
        ("two", "cpu", "is no number"),
        ("0", "cpu", "is no number"),
        ("all", "cpu", "is no number"),
    ],
)
def test_gpus_that_are_not_there_are_refused(wanted: str, device: str, words: str) -> None:
    if torch.cuda.is_available() and device != "cpu":
        pytest.skip("this machine has CUDA devices")

    with pytest.raises(KbdenoiseError, match=words):
        count_gpus(wanted, device=device)


def test_a_number_of_processes_may_share_the_cpu() -> None:
    assert count_gpus("3", device="cpu") == 3
    assert count_gpus("") == 0


SHORT_OF_MEMORY = """
import os, sys
import torch
from kbdenoise.cli.app import main
from kbdenoise.training import step

gradients = step._gradients

def short(session, batch):
    if os.environ["RANK"] == "1" and session.now.step == 30 and session.now.pieces < 2:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return gradients(session, batch)

step._gradients = short
sys.exit(main())
"""


def test_a_process_that_runs_out_of_memory_has_all_go_on_in_smaller_pieces(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    program = tmp_path / "short_of_memory.py"
    program.write_text(SHORT_OF_MEMORY)
    monkeypatch.setattr(launch, "PROGRAM", ("-u", str(program)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(launch.__file__).parents[1]))
    runs, told = tmp_path / "runs", []
    words = ["train", str(contest.folder), *SETTINGS, "--runs", str(runs), "--json"]

    try:
        code = launch.launch(words, processes=2, tell=told.append)
    finally:
        logging.disable(logging.NOTSET)
        os.environ.pop(LAUNCHED, None)

    out, err = capfd.readouterr()
    assert (code, len(told)) == (0, 1), err
    assert "error:" not in err and "Traceback" not in err
    result = json.loads(out)
    assert result["steps"] == 50
    assert "--accumulate 2" in told[0]
    config = find_run("last", runs).config_file.read_text()
    assert "accumulate = 2" in config
