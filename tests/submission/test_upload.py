"""Handing in by the real client at the fake Kaggle: one submission at most, and a true log."""

import errno
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kbdenoise.cli.app import main
from kbdenoise.errors import (
    DataError,
    KaggleError,
    KaggleLimitError,
    KaggleLoginError,
    KaggleNetworkError,
    KaggleRulesError,
    KaggleScoringError,
    KaggleValidationError,
    SettingsError,
)
from kbdenoise.progress import Event, Note
from kbdenoise.submission.score import score
from kbdenoise.submission.submit import Submission, submit
from kbdenoise.submission.upload import Offer
from tests.fake_kaggle import KEY, Fault
from tests.fake_kaggle.fixtures import MakeKaggle
from tests.fake_kaggle.server import SIGNATURE
from tests.fake_kaggle.submit_matrix import SUBMIT, SubmitRow
from tests.submission.kaggle_home import SOLUTION, Home, make_home

pytestmark = pytest.mark.kaggle

MakeHome = Callable[..., Home]


@pytest.fixture
def at_kaggle(make_kaggle: MakeKaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeHome:
    """A function that makes a working folder with a contest at a fake Kaggle of one's wishes."""

    def make(*, timeout: str = "3", **contest: object) -> Home:
        kaggle = make_kaggle(**({"solution": SOLUTION} | contest))
        monkeypatch.setenv("KBDENOISE_TIMEOUT", timeout)
        return make_home(tmp_path, kaggle)

    return make


@pytest.fixture
def home(at_kaggle: MakeHome) -> Home:
    return at_kaggle()


def hand_in(home: Home, **options: object) -> Submission:
    given: dict[str, object] = {"upload": True, "message": "first"} | options
    return submit(
        name="pages",
        data=home.data,
        runs=home.folder / "runs",
        submissions=home.submissions,
        file=home.file,
        **given,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("row", SUBMIT, ids=lambda row: row.name)
def test_every_fault_ends_as_documented_and_never_in_two_submissions(
    row: SubmitRow,
    at_kaggle: MakeHome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home = at_kaggle(timeout=str(row.timeout_s))
    kaggle = home.kaggle
    home.file.write_text(row.content or home.file.read_text())
    normal = {name: getattr(kaggle.contest, name) for name in row.contest}
    for name, value in row.contest.items():
        setattr(kaggle.contest, name, value)
    for method, fault, times in row.faults:
        kaggle.fail(method, fault, times=times)
    words = ["submit", "--file", str(home.file), "--contest", "pages", "--yes"]
    words += ["--data", str(home.data), "--submissions", str(home.submissions)]
    began = time.monotonic()

    code = main([*words, f"--wait={row.wait}"])

    told = capsys.readouterr()
    assert (code, time.monotonic() - began < 20) == (row.code, True), told.err
    for text in row.words:
        assert text in told.err.replace("\n        ", " ")
    assert not any(secret in told.out + told.err for secret in (KEY, SIGNATURE, "canary"))
    assert [e.status for e in home.log] == ([row.status] if row.status else [])
    assert len(kaggle.contest.submissions) == row.spent
    assert kaggle.count("CreateSubmission") <= 1
    assert row.faults or row.spent or kaggle.count("StartSubmissionUpload") == 0
    kaggle.heal()
    for name, value in normal.items():
        setattr(kaggle.contest, name, value)
    home.write(11, 23)
    assert main(words) == (2 if row.spent else 0)
    assert len(kaggle.contest.submissions) == 1


def test_a_file_is_uploaded_once_and_its_score_waited_for(at_kaggle: MakeHome) -> None:
    home = at_kaggle(pending_s=0.5)

    result = hand_in(home, wait="30s")

    assert (result.status, result.reference, result.remaining_today) == ("complete", "4000001", 4)
    assert (result.public_score, result.private_score, result.slug) == (1.0, 3.0, "tiny")
    (entry,) = home.log
    assert (entry.reference, entry.status, entry.public_score) == ("4000001", "complete", 1.0)
    (sent,) = home.kaggle.contest.submissions
    assert sent.content == home.file.read_bytes()
    assert (sent.file_name, sent.description) == ("mine.csv", f"first [ {entry.mark}]")
    assert home.kaggle.count("CreateSubmission") == 1
    assert home.kaggle.count("GetSubmission") >= 2


def test_without_upload_nobody_is_asked_and_nothing_sent(home: Home) -> None:
    result = hand_in(home, upload=False)
    dry = hand_in(home, upload=True, dry_run=True, message="later")

    assert (result.status, result.reference, dry.reference) == ("written", "", "")
    assert "not sent: kbdenoise submit --file" in result.notes[-1]
    assert "would be sent to tiny as 'later [" in dry.notes[-1]
    assert home.kaggle.requests == []
    assert [entry.status for entry in home.log] == ["written"]


def test_a_file_that_is_not_valid_costs_nothing(home: Home) -> None:
    home.file.write_text("Image File,Y Channel Value\n7,1\n7,nan\n")

    with pytest.raises(KaggleValidationError, match="is not a valid submission") as caught:
        hand_in(home)

    assert caught.value.exit_code == 8
    assert home.kaggle.requests == []
    assert home.log == []


def test_a_person_is_shown_what_is_left_and_may_decline(home: Home) -> None:
    offers: list[Offer] = []

    def decline(offer: Offer) -> bool:
        offers.append(offer)
        return False

    result = hand_in(home, upload=decline)

    assert [(o.slug, o.left, o.daily, o.repeated) for o in offers] == [("tiny", 5, 5, None)]
    assert (result.status, result.reference, result.remaining_today) == ("written", "", 5)
    assert home.kaggle.contest.submissions == []
    assert home.kaggle.count("StartSubmissionUpload") == 0


FLAGS = [
    ({"closed": True}, KaggleRulesError, 4, "takes no submissions any more"),
    ({"credential": "none"}, KaggleLoginError, 3, "kaggle.com/settings/api"),
]


@pytest.mark.parametrize(("contest", "kind", "code", "words"), FLAGS, ids=lambda v: str(v)[:30])
def test_what_the_contest_would_refuse_is_not_uploaded(
    contest: dict[str, object], kind: type[KaggleError], code: int, words: str, at_kaggle: MakeHome
) -> None:
    home = at_kaggle(**contest)

    with pytest.raises(kind) as caught:
        hand_in(home)

    assert caught.value.exit_code == code
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.facts["status"] == "written"
    assert home.kaggle.count("StartSubmissionUpload") == home.kaggle.count("CreateSubmission") == 0
    assert [(e.status, e.reference) for e in home.log] == [("written", "")]


def test_a_deadline_that_is_over_is_told_and_stops_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home.kaggle.contest, "deadline", "2015-10-05T23:59:00Z")
    events: list[Event] = []

    result = hand_in(home, progress=events.append)

    assert result.status == "complete"
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("deadline of tiny was 2015-10-05" in note for note in notes)


def test_the_same_file_again_needs_force(home: Home) -> None:
    hand_in(home)
    asked: list[Offer] = []

    def agree(offer: Offer) -> bool:
        asked.append(offer)
        return True

    with pytest.raises(SettingsError, match=r"the very same file was sent before, as .* 4000001"):
        hand_in(home)
    assert len(home.kaggle.contest.submissions) == 1
    hand_in(home, upload=agree)
    assert asked[0].repeated is not None and asked[0].repeated.public_score == 1.0
    hand_in(home, force=True)
    home.write(10, 20)
    better = hand_in(home)

    assert [entry.reference for entry in home.log] == ["4000001", "4000002", "4000003", "4000004"]
    assert (better.public_score, better.best_before) == (0.0, 1.0)


@pytest.mark.parametrize("fault", [Fault("status", 500), Fault("status", 503), Fault("html")])
def test_an_answer_that_tells_nothing_is_a_lost_one(fault: Fault, home: Home) -> None:
    home.kaggle.fail("CreateSubmission", fault)

    with pytest.raises(KaggleNetworkError, match="lists no such submission"):
        hand_in(home)

    assert [(e.status, e.reference) for e in home.log] == [("not listed", "")]
    assert home.kaggle.count("CreateSubmission") == 1


def test_what_nobody_knows_is_settled_before_anything_is_sent_again(home: Home) -> None:
    home.kaggle.fail("CreateSubmission", Fault("lost"))
    home.kaggle.fail("ListSubmissions", Fault("drop"), times=None)

    with pytest.raises(KaggleNetworkError, match="cannot be asked whether it has the submission"):
        hand_in(home)
    assert [(e.status, e.reference) for e in home.log] == [("unknown", "")]
    home.kaggle.heal()
    with pytest.raises(SettingsError, match="sent before, as submission 4000001"):
        hand_in(home)

    assert home.log[0].reference == "4000001"
    assert home.kaggle.count("CreateSubmission") == len(home.kaggle.contest.submissions) == 1


def test_score_looks_up_what_nobody_knows(home: Home) -> None:
    home.kaggle.fail("CreateSubmission", Fault("lost"))
    home.kaggle.fail("ListSubmissions", Fault("drop"), times=None)
    with pytest.raises(KaggleNetworkError):
        hand_in(home)
    home.kaggle.heal()

    found = score("last", data=home.data, submissions=home.submissions)

    assert (found.reference, found.public_score) == ("4000001", 1.0)
    assert [(e.status, e.reference) for e in home.log] == [("complete", "4000001")]


@pytest.mark.parametrize(
    "fault", [Fault("status", 500), Fault("status", 503), Fault("drop"), Fault("lost")]
)
def test_an_upload_that_fails_is_tried_again_and_costs_nothing(fault: Fault, home: Home) -> None:
    home.kaggle.fail("upload", fault, times=2)

    assert hand_in(home).status == "complete"

    assert home.kaggle.count("upload") == home.kaggle.count("StartSubmissionUpload") == 3
    assert home.kaggle.count("CreateSubmission") == 1


def test_an_upload_that_always_fails_leaves_the_file_and_an_honest_line(home: Home) -> None:
    home.kaggle.fail("upload", Fault("status", 503), times=None)

    with pytest.raises(KaggleNetworkError, match="upload"):
        hand_in(home)

    (entry,) = home.log
    assert (entry.status, entry.reference) == ("written", "")
    assert "upload" in entry.detail
    assert home.kaggle.count("upload") == 5
    assert home.kaggle.count("CreateSubmission") == 0
    home.kaggle.heal()
    hand_in(home)
    assert [(e.status, e.detail) for e in home.log] == [("complete", "")]


def test_the_limit_may_be_reached_by_somebody_else_meanwhile(at_kaggle: MakeHome) -> None:
    home = at_kaggle()

    def slow_answer(offer: Offer) -> bool:
        home.kaggle.contest.max_daily = 0
        return True

    with pytest.raises(KaggleLimitError, match="daily submission limit"):
        hand_in(home, upload=slow_answer)

    assert [(e.status, e.reference) for e in home.log] == [("refused", "")]
    assert home.kaggle.count("CreateSubmission") == 1


CALLS = ["GetCompetition", "GetSubmissionLimits", "StartSubmissionUpload", "CreateSubmission"]
REFUSALS = [
    (Fault("status", 401, "Unauthenticated"), KaggleLoginError, 3),
    (Fault("status", 403, "Permission denied"), KaggleRulesError, 4),
    (Fault("status", 429, "slow down"), KaggleLimitError, 6),
]


@pytest.mark.parametrize(("fault", "kind", "code"), REFUSALS, ids=["401", "403", "429"])
@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_at_any_call_spends_nothing_and_is_logged(
    call: str, fault: Fault, kind: type[KaggleError], code: int, home: Home
) -> None:
    home.kaggle.fail(call, fault, times=None)

    with pytest.raises(kind) as caught:
        hand_in(home)

    assert caught.value.exit_code == code
    assert home.kaggle.contest.submissions == []
    assert home.kaggle.count("CreateSubmission") == (1 if call == "CreateSubmission" else 0)
    status = "refused" if call == "CreateSubmission" else "written"
    assert [(e.status, e.reference) for e in home.log] == [(status, "")]


def test_the_scorers_words_are_kept_and_raised(at_kaggle: MakeHome) -> None:
    home = at_kaggle(scoring_error="Evaluation Exception: row 3 has no value", pending_s=0.2)

    with pytest.raises(KaggleScoringError, match="row 3 has no value") as caught:
        hand_in(home, wait="30s")

    assert caught.value.exit_code == 9
    assert caught.value.facts["reference"] == "4000001"
    assert [(e.status, e.detail) for e in home.log] == [
        ("error", "Evaluation Exception: row 3 has no value")
    ]


@pytest.mark.parametrize("fault", [Fault("drop"), Fault("status", 503)])
def test_a_score_that_cannot_be_asked_for_does_not_undo_the_submission(
    fault: Fault, home: Home
) -> None:
    home.kaggle.fail("GetSubmission", fault, times=None)

    result = hand_in(home)

    assert (result.status, result.reference) == ("pending", "4000001")
    assert [(e.status, e.reference) for e in home.log] == [("pending", "4000001")]


def test_a_ctrl_c_while_it_is_sent_leaves_a_line_that_can_be_settled(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbdenoise.submission import upload

    real = upload.create

    def interrupted(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(upload, "create", interrupted)

    with pytest.raises(KeyboardInterrupt, match="kbdenoise score last looks it up"):
        hand_in(home)

    assert [e.status for e in home.log] == ["unknown"]
    assert score("last", data=home.data, submissions=home.submissions).reference == "4000001"


@pytest.mark.parametrize("fault", [Fault("none"), Fault("lost")], ids=["answered", "lost"])
def test_a_log_that_cannot_be_written_does_not_hide_what_was_spent(
    fault: Fault, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kbdenoise.submission import log

    write = log.write_bytes

    def full_once_it_is_made(path: Path, content: bytes) -> None:
        if home.kaggle.contest.submissions:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    home.kaggle.fail("CreateSubmission", fault)
    with monkeypatch.context() as patch:
        patch.setattr(log, "write_bytes", full_once_it_is_made)
        with pytest.raises(DataError, match="it is submission 4000001 at Kaggle") as caught:
            hand_in(home)

    assert caught.value.facts["reference"] == "4000001"
    assert "no space left" in caught.value.message and "score last" in caught.value.hint
    assert [e.status for e in home.log] == ["sending"]
    assert score("last", data=home.data, submissions=home.submissions).reference == "4000001"
    assert [(e.status, e.reference) for e in home.log] == [("complete", "4000001")]
