"""The program in a child process, with the real client, at the fake Kaggle."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fake_kaggle import KEY, TOKEN, Fault
from tests.fake_kaggle.fixtures import MakeKaggle
from tests.fake_kaggle.server import SIGNATURE
from tests.submission.kaggle_home import SOLUTION, Home, make_home

pytestmark = pytest.mark.kaggle

SUBMIT = ["submit", "--file", "mine.csv", "--contest", "pages"]


@pytest.fixture
def home(make_kaggle: MakeKaggle, tmp_path: Path) -> Home:
    return make_home(tmp_path, make_kaggle(solution=SOLUTION, pending_s=0.3))


def on_terminal(home: Home, *words: str, answer: str) -> tuple[int, str]:
    """Run the program on a terminal of its own and answer its question."""
    process, handle = pty.fork()
    if not process:
        os.chdir(home.folder)
        program = [sys.executable, "-m", "kbdenoise", *words]
        os.execve(sys.executable, program, home.environment() | {"TERM": "xterm"})
    said, answered, deadline = b"", False, time.monotonic() + 90
    while time.monotonic() < deadline:
        if select.select([handle], [], [], 0.2)[0]:
            try:
                part = os.read(handle, 4096)
            except OSError:
                break
            if not part:
                break
            said += part
        if b"[y/N]" in said and not answered:
            os.write(handle, answer.encode() + b"\n")
            answered = True
    _, status = os.waitpid(process, 0)
    os.close(handle)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def test_on_a_terminal_it_asks_and_a_no_sends_nothing(home: Home) -> None:
    code, said = on_terminal(home, *SUBMIT, answer="n")

    assert code == 0, said
    assert "upload to tiny? 5 of 5 submissions left today [y/N]" in said
    assert "not sent" in said
    assert home.kaggle.contest.submissions == []

    code, said = on_terminal(home, *SUBMIT, "--wait", "30s", answer="y")

    assert code == 0, said
    assert "submission 4000001 to tiny: public score 1.000" in said
    assert "kbdenoise leaderboard" in said
    assert home.kaggle.count("CreateSubmission") == 1


def test_away_from_a_terminal_nothing_is_sent_without_yes(home: Home) -> None:
    done = home.run(*SUBMIT)
    told = json.loads(home.run(*SUBMIT, "--json").stdout)
    asked_for = home.run(*SUBMIT, "--no-upload")
    dry = home.run(*SUBMIT, "--dry-run")

    assert done.returncode == 2
    assert "--yes was not given" in done.stderr
    assert "mine.csv   2 rows · checked" in done.stdout
    assert (told["exit_code"], told["status"], told["reference"]) == (2, "written", "")
    assert (asked_for.returncode, dry.returncode) == (0, 0)
    assert "nothing was sent and Kaggle was not asked" in dry.stdout
    assert home.kaggle.requests == []
    assert [entry.status for entry in home.log] == ["written"]


def test_the_whole_way_as_json_and_as_text(home: Home) -> None:
    sent = json.loads(home.run(*SUBMIT, "--yes", "--wait", "--json", "-m", "ema").stdout)
    scored = home.run("score")
    board = home.run("leaderboard")

    assert (sent["command"], sent["reference"], sent["public_score"]) == ("submit", "4000001", 1.0)
    assert sent["remaining_today"] == 4
    assert "✓ submission 4000001: public score 1.000 · private score 3.000" in scored.stdout
    assert board.returncode == 0
    assert "ema" in board.stdout and "best" in board.stdout
    assert "rank 2 of 3 teams" in board.stdout
    assert home.kaggle.count("CreateSubmission") == 1


def test_an_error_has_its_code_in_json_too(home: Home) -> None:
    home.kaggle.fail("CreateSubmission", Fault("drop"))

    done = home.run(*SUBMIT, "--yes", "--json")

    told = json.loads(done.stdout)
    assert done.returncode == told["exit_code"] == 7
    assert "lists no such submission" in told["error"]
    assert told["status"] == home.log[-1].status == "not listed"
    assert "Traceback" not in done.stderr


def test_a_ctrl_c_while_waiting_keeps_the_reference(home: Home) -> None:
    home.kaggle.contest.pending_s = float("inf")
    process = subprocess.Popen(
        [sys.executable, "-m", "kbdenoise", *SUBMIT, "--yes", "--wait", "1h", "--json"],
        cwd=home.folder,
        env=home.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while home.kaggle.count("GetSubmission") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)

    told = json.loads(out)
    assert process.returncode == told["exit_code"] == 130
    assert "kbdenoise score 4000001 --wait" in said
    assert (told["reference"], told["status"], told["path"]) == ("4000001", "pending", "mine.csv")
    assert [(e.status, e.reference) for e in home.log] == [("pending", "4000001")]


def test_a_contest_that_was_fetched_from_kaggle_knows_its_address(home: Home) -> None:
    done = home.run("fetch", "tiny")

    assert done.returncode == 0, done.stderr
    contest = (home.data / "tiny" / "contest.toml").read_text()
    assert 'url = "https://www.kaggle.com/competitions/tiny"' in contest


@pytest.mark.parametrize("moment", ["StartSubmissionUpload", "upload", "CreateSubmission"])
def test_a_kill_leaves_a_log_that_the_next_call_settles(moment: str, home: Home) -> None:
    kind = "hang" if moment != "CreateSubmission" else "slow-made"
    home.kaggle.fail(moment, Fault(kind, seconds=30))
    process = subprocess.Popen(
        [sys.executable, "-m", "kbdenoise", *SUBMIT, "--yes"],
        cwd=home.folder,
        env=home.environment() | {"KBDENOISE_TIMEOUT": "60"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not home.kaggle.count(moment) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.kill()
    process.wait()
    assert [e.status for e in home.log] == [
        "sending" if moment == "CreateSubmission" else "written"
    ]
    home.kaggle.heal()

    again = home.run(*SUBMIT, "--yes")

    spent = len(home.kaggle.contest.submissions)
    if moment == "CreateSubmission":  # it was made, and is found
        assert (again.returncode, spent) == (2, 1), again.stderr
        assert "sent before, as submission 4000001" in again.stderr
    else:
        assert (again.returncode, spent) == (0, 1), again.stderr
    assert home.log[0].reference == "4000001"


@pytest.mark.parametrize("credential", ["key", "token"])
def test_no_secret_is_told_at_any_verbosity(
    credential: str, make_kaggle: MakeKaggle, tmp_path: Path
) -> None:
    home = make_home(tmp_path, make_kaggle(solution=SOLUTION, credential=credential))
    own = KEY if credential == "key" else TOKEN  # no program can know of any other
    faults = [
        ("upload", Fault("status", 403, f"https://x.test/a?Signature={SIGNATURE}")),
        ("CreateSubmission", Fault("status", 400, f"bad credential {own}: Bearer {own}")),
        ("CreateSubmission", Fault("drop")),
    ]
    outputs = []
    for (call, fault), words in zip(faults, (["--debug"], ["--json"], ["--quiet"]), strict=True):
        home.kaggle.fail(call, fault, times=None)
        done = home.run(*SUBMIT, "--yes", *words, credential=credential, VERBOSE="1")
        assert done.returncode in (1, 7), done.stderr
        outputs += [done.stdout, done.stderr]
        home.kaggle.heal()
    done = home.run(*SUBMIT, "--yes", "--wait", "--debug", credential=credential, VERBOSE="1")
    outputs += [done.stdout, done.stderr]
    outputs += [p.read_text() for p in home.folder.rglob("*.csv")]

    assert done.returncode == 0, done.stderr
    for text in outputs:
        for secret in (KEY, TOKEN, SIGNATURE, "canary"):
            assert secret not in text
