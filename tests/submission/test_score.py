"""Waiting for a score, and the table of own submissions, by the real client at the fake Kaggle."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from kbdenoise.contests.kaggle_client import Patience, connect
from kbdenoise.errors import (
    DataError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleScoringError,
    KaggleWaitError,
    SettingsError,
)
from kbdenoise.progress import Event, Note
from kbdenoise.submission.leaderboard import leaderboard
from kbdenoise.submission.log import LogEntry, append_log, update_log
from kbdenoise.submission.score import Scored, await_score, find_entry, score
from kbdenoise.submission.submit import submit
from tests.fake_kaggle import Fault
from tests.fake_kaggle.fixtures import MakeKaggle
from tests.submission.kaggle_home import SOLUTION, Home, make_home

pytestmark = pytest.mark.kaggle

MakeHome = Callable[..., Home]


@pytest.fixture
def sent(make_kaggle: MakeKaggle, tmp_path: Path) -> MakeHome:
    """A function that makes a home with one submission, not waited for."""

    def make(**contest: object) -> Home:
        home = make_home(tmp_path, make_kaggle(**({"solution": SOLUTION} | contest)))
        hand_in(home, message="first")
        return home

    return make


def hand_in(home: Home, *, message: str = "") -> None:
    submit(
        name="pages",
        data=home.data,
        runs=home.folder / "runs",
        submissions=home.submissions,
        file=home.file,
        upload=True,
        message=message,
    )


def ask(home: Home, target: str = "last", *, wait: str = "") -> Scored:
    return score(target, wait=wait, data=home.data, submissions=home.submissions)


def test_a_score_is_asked_for_later_by_any_of_its_names(sent: MakeHome) -> None:
    home = sent(pending_s=1.0)
    assert home.log[0].status == "pending"

    found = score("4000001", wait="30s", data=home.data, submissions=home.submissions)

    assert (found.public_score, found.private_score, found.status) == (1.0, 3.0, "complete")
    assert (found.contest, found.metric) == ("pages", "mae-mean-luma")
    assert ask(home) == ask(home, home.log[0].mark) == found
    assert [(e.status, e.public_score) for e in home.log] == [("complete", 1.0)]


def test_a_score_stands_beside_the_local_one_and_the_best_before(sent: MakeHome) -> None:
    home = sent()
    log = home.submissions / "log.csv"
    update_log(log, home.log[0], local_score=0.9)
    append_log(log, entry("other", contest="elsewhere", reference="7", public_score=0.01))
    home.write(10.5, 20)
    hand_in(home)

    first, second = ask(home, "4000001"), ask(home)

    assert (first.local_score, first.best_before) == (0.9, None)
    assert (second.local_score, second.best_before) == (None, 1.0)


def test_a_submission_that_nobody_has_is_looked_up_and_noted(sent: MakeHome) -> None:
    home = sent()
    home.write(10.5, 20)
    home.kaggle.fail("CreateSubmission", Fault("drop"))
    home.kaggle.fail("ListSubmissions", Fault("drop"), times=None)
    with pytest.raises(KaggleNetworkError):
        hand_in(home)
    assert home.log[-1].status == "unknown"
    home.kaggle.heal()

    with pytest.raises(KaggleNotFoundError, match="as far as it tells, none was spent"):
        ask(home)

    assert home.log[-1].status == "not listed"


def test_a_submission_of_another_folder_is_scored_by_its_number(
    sent: MakeHome, tmp_path: Path
) -> None:
    sent()

    found = score("4000001", submissions=tmp_path / "elsewhere")

    assert (found.public_score, found.run, found.local_score) == (1.0, "", None)


def test_no_score_yet_is_an_error_of_its_own(sent: MakeHome) -> None:
    home = sent(pending_s=math.inf)

    with pytest.raises(KaggleWaitError, match=r"4000001 is not scored yet$") as caught:
        ask(home)
    with pytest.raises(KaggleWaitError, match="not scored yet after 1 s"):
        ask(home, wait="1s")

    assert caught.value.exit_code == 10
    assert "kbdenoise score 4000001 --wait" in caught.value.hint
    assert [(e.status, e.reference) for e in home.log] == [("pending", "4000001")]
    assert home.kaggle.count("CreateSubmission") == 1


def test_the_scorers_words_are_raised_later_too(sent: MakeHome) -> None:
    home = sent(pending_s=0.5, scoring_error="Evaluation Exception: no such column")

    with pytest.raises(KaggleScoringError, match="no such column"):
        ask(home, wait="30s")

    assert [(e.status, e.detail) for e in home.log] == [
        ("error", "Evaluation Exception: no such column")
    ]


def test_a_network_that_fails_for_a_while_is_waited_for(sent: MakeHome) -> None:
    home = sent()
    home.kaggle.fail("GetSubmission", Fault("drop"), times=7)

    assert score("last", wait="30s", data=home.data, submissions=home.submissions).public_score == 1

    home.kaggle.fail("GetSubmission", Fault("drop"), times=None)
    with pytest.raises(KaggleNetworkError):
        ask(home)


def test_pauses_grow_to_half_a_minute_and_end_in_time(sent: MakeHome) -> None:
    home = sent(pending_s=math.inf)
    site = connect(patience=Patience())
    now, pauses = [0.0], []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        now[0] += pause_s

    with pytest.raises(KaggleWaitError):
        await_score(
            site,
            "4000001",
            wait_s=120.0,
            log=home.submissions / "log.csv",
            entry=home.log[0],
            progress=lambda event: None,
            clock=lambda: now[0],
            sleep=sleep,
        )

    assert pauses[:3] == [2.0, 3.0, 4.5]
    assert max(pauses) == 30.0
    assert sum(pauses) == 120.0


def test_a_ctrl_c_names_the_reference(sent: MakeHome) -> None:
    home = sent(pending_s=math.inf)

    def interrupt(pause_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="kbdenoise score 4000001 --wait"):
        await_score(
            connect(),
            "4000001",
            wait_s=60.0,
            log=home.submissions / "log.csv",
            entry=home.log[0],
            progress=lambda event: None,
            sleep=interrupt,
        )


def test_what_is_wrong_with_the_credentials_is_told_on_the_way(
    sent: MakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = sent()
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_stale_token_of_last_year")
    told: list[Event] = []
    of_score: list[Event] = []

    leaderboard(data=home.data, submissions=home.submissions, progress=told.append)
    score("last", data=home.data, submissions=home.submissions, progress=of_score.append)

    for events in (told, of_score):
        notes = [event.text for event in events if isinstance(event, Note)]
        assert any("refused the token from KAGGLE_API_TOKEN" in note for note in notes)


def test_unknown_submissions_are_named(sent: MakeHome) -> None:
    home = sent()

    with pytest.raises(KaggleNotFoundError, match="knows no submission 123"):
        ask(home, "123")
    with pytest.raises(SettingsError, match="no submission of a run 'heron'"):
        ask(home, "heron")
    with pytest.raises(SettingsError, match="--wait 'soon' is no duration"):
        ask(home, wait="soon")


def entry(run: str, **values: object) -> LogEntry:
    plain = {"time": "2026-11-22T14:32:05+00:00", "csv": f"{run}.csv", "sha256": run, "run": run}
    rest = {
        "contest": "pages",
        "metric": "mae-mean-luma",
        "status": "complete",
        "mark": f"kb-{run}",
    }
    return LogEntry(**(plain | rest | values))  # type: ignore[arg-type]


def test_a_run_is_found_by_its_words_and_its_newest_submission_meant(tmp_path: Path) -> None:
    names = (
        "2026-11-22_unet_calm-otter",
        "2026-11-22_unet_brisk-otter",
        "2026-11-23_unet_calm-heron",
    )
    entries = [entry(name, reference=str(n)) for n, name in enumerate(names)]
    entries += [entry(names[1], reference="9"), entry(names[0], status="written")]
    log = tmp_path / "log.csv"

    def found(target: str) -> str:
        one = find_entry(entries, target, log=log)
        assert one is not None
        return one.reference

    assert (found("brisk"), found(names[1]), found("last"), found("calm-o")) == ("9", "9", "9", "0")
    with pytest.raises(SettingsError, match="could be several runs"):
        found("calm")
    with pytest.raises(DataError, match="nothing was sent yet"):
        find_entry([entries[-1]], "last", log=log)
    assert find_entry(entries, "77", log=log) is None


def test_the_leaderboard_shows_gap_best_and_rank(sent: MakeHome) -> None:
    home = sent()
    home.write(10.5, 20)
    hand_in(home, message="second")
    append_log(home.submissions / "log.csv", entry("kept", status="written"))
    append_log(home.submissions / "log.csv", entry("other", contest="elsewhere"))

    board = leaderboard("pages", data=home.data, submissions=home.submissions)

    assert [(r.message, r.public_score, r.best) for r in board.rows] == [
        ("first", 1.0, False),
        ("second", 0.5, True),
    ]
    assert (board.rank, board.teams, board.team) == (2, 3, "The Testers")
    assert (board.remaining_today, board.from_log_alone) == (3, False)
    assert board.notes == ("1 file was written and not sent",)


def test_a_long_leaderboard_is_read_to_its_end(sent: MakeHome) -> None:
    home = sent(better_teams=450)

    board = leaderboard(data=home.data, submissions=home.submissions)

    assert (board.rank, board.teams) == (452, 453)
    assert home.kaggle.count("GetLeaderboard") == 3


def test_the_leaderboard_brings_the_log_up_to_date(sent: MakeHome) -> None:
    home = sent(pending_s=0.6)
    home.kaggle.contest.pending_s = 0.0
    assert home.log[0].status == "pending"

    board = leaderboard(data=home.data, submissions=home.submissions)

    assert board.rows[0].public_score == 1.0
    assert (home.log[0].status, home.log[0].private_score) == ("complete", 3.0)


@pytest.mark.parametrize("why", ["offline", "down"])
def test_without_kaggle_the_leaderboard_is_the_log_alone_and_says_so(
    why: str, sent: MakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = sent()
    if why == "offline":
        monkeypatch.setenv("KBDENOISE_OFFLINE", "1")
    home.kaggle.fail("ListSubmissions", Fault("status", 503), times=None)

    board = leaderboard(data=home.data, submissions=home.submissions)

    assert [row.public_score for row in board.rows] == [1.0]
    assert (board.from_log_alone, board.rank) == (True, None)
    assert "this is the log alone" in board.notes[0]


def test_local_scores_make_a_leaderboard_of_a_contest_that_is_not_at_kaggle(tmp_path: Path) -> None:
    for run, local in (("a", 2.5), ("b", 1.5), ("c", None)):
        values = {"local_score": local, "status": "written", "contest": "demo"}
        append_log(tmp_path / "log.csv", entry(run, **values))
    append_log(tmp_path / "log.csv", entry("x", contest="other", public_score=0.1))

    board = leaderboard("demo", data=tmp_path, submissions=tmp_path)

    assert [(row.run, row.best) for row in board.rows] == [("a", False), ("b", True), ("c", False)]
    assert board.from_log_alone
    with pytest.raises(SettingsError, match="no submission to 'dmeo'"):
        leaderboard("dmeo", data=tmp_path, submissions=tmp_path)
    with pytest.raises(DataError, match="there is no submission"):
        leaderboard(submissions=tmp_path / "nowhere")


def test_the_gap_is_public_less_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBDENOISE_OFFLINE", "1")
    log = tmp_path / "log.csv"
    append_log(log, entry("x", contest="an older one"))
    append_log(
        log, entry("a", metric="psnr", held_out_score=30.0, public_score=29.0, reference="1")
    )
    append_log(log, entry("b", metric="psnr", local_score=31.0, public_score=31.5, reference="2"))

    board = leaderboard(data=tmp_path / "data", submissions=tmp_path)

    assert [(row.gap, row.best) for row in board.rows] == [(-1.0, False), (0.5, True)]
