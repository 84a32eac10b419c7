"""The real client against a Kaggle on loopback: answers, errors, credentials, secrets."""

import io
import logging
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from kbdenoise.contests.kaggle_client import (
    Patience,
    connect,
    credential_remarks,
    find_credentials,
    scrub,
)
from kbdenoise.contests.kaggle_client.patience import TryAgain
from kbdenoise.contests.kaggle_client.scrub import ScrubbingFormatter
from kbdenoise.errors import (
    KaggleError,
    KaggleLimitError,
    KaggleLoginError,
    KaggleNetworkError,
    KaggleNotFoundError,
    KaggleRulesError,
    SettingsError,
)
from tests.fake_kaggle import KEY, TOKEN, FakeKaggle, Fault
from tests.fake_kaggle.faults import RULES
from tests.fake_kaggle.fixtures import MakeKaggle, clean_environment, zip_bytes
from tests.fake_kaggle.server import SIGNATURE

pytestmark = pytest.mark.kaggle

QUICK = Patience(connect_s=5, read_s=5, tries=3, pause_s=0.01, longest_pause_s=0.2, total_s=10)


def read_all(body: object) -> bytes:
    parts = []
    while part := body.read(1 << 16):  # type: ignore[attr-defined]
        parts.append(part)
    return b"".join(parts)


def test_a_contest_is_described(kaggle: FakeKaggle) -> None:
    found = connect(patience=QUICK).competition("tiny")

    assert (found.slug, found.title, found.metric) == ("tiny", "A tiny contest", "mae")
    assert (found.entered, found.max_daily_submissions, found.code_only) == (True, 5, False)
    assert found.deadline == "2030-01-01T23:59:00Z"


def test_all_pages_of_the_list_of_files_are_read(make_kaggle: MakeKaggle) -> None:
    names = {f"train/{i:03d}.bin": b"x" * i for i in range(450)}
    kaggle = make_kaggle(archive=zip_bytes(names))

    files = connect(patience=QUICK).files("tiny")

    assert {f.name: f.size_bytes for f in files} == {n: len(c) for n, c in names.items()}
    assert kaggle.count("ListDataFiles") == 3


def test_a_download_comes_with_size_checksum_and_validator(kaggle: FakeKaggle) -> None:
    site = connect(patience=QUICK)

    with site.open_data("tiny") as body:
        content = read_all(body)
    with site.open_data("tiny", start=1000, validator=body.validator) as rest:
        tail = read_all(rest)

    assert content == kaggle.contest.archive
    assert (body.start, body.size_bytes) == (0, len(content))
    assert body.validator == f'"{body.md5}"'
    assert (rest.start, rest.size_bytes, tail) == (1000, len(content), content[1000:])


def test_a_changed_file_is_not_resumed(kaggle: FakeKaggle) -> None:
    with connect(patience=QUICK).open_data("tiny", start=1000, validator='"other"') as body:
        assert body.start == 0
        assert read_all(body) == kaggle.contest.archive


def test_a_single_file_is_downloaded(kaggle: FakeKaggle) -> None:
    with connect(patience=QUICK).open_data("tiny", name="train/noisy/1.png") as body:
        content = read_all(body)

    with zipfile.ZipFile(io.BytesIO(kaggle.contest.archive)) as archive:
        assert content == archive.read("train/noisy/1.png")


def test_credentials_go_to_the_api_and_never_to_the_storage(kaggle: FakeKaggle) -> None:
    with connect(patience=QUICK).open_data("tiny") as body:
        read_all(body)

    told = {request.name: request.credential for request in kaggle.requests}
    assert told == {"DownloadDataFiles": "basic", "storage": "none"}


SHORT = Patience(connect_s=5, read_s=0.3, tries=2, pause_s=0.01, longest_pause_s=0.2, total_s=10)

ERRORS = [
    (
        Fault("status", 401, "Unauthenticated"),
        KaggleLoginError,
        3,
        "KAGGLE_USERNAME and KAGGLE_KEY",
    ),
    (Fault("status", 403, RULES), KaggleRulesError, 4, "competitions/tiny/rules"),
    (Fault("status", 403), KaggleRulesError, 4, "competitions/tiny/rules"),
    (Fault("status", 404, "Not found"), KaggleNotFoundError, 5, "check the name"),
    (Fault("status", 429, "slow down"), KaggleLimitError, 6, "too many requests"),
    (Fault("status", 429, "slow down", google=True), KaggleLimitError, 6, "slow down"),
    (Fault("status", 500, "boom"), KaggleNetworkError, 7, "boom"),
    (Fault("status", 503), KaggleNetworkError, 7, "HTTP 503"),
    (Fault("drop"), KaggleNetworkError, 7, "broke off"),
    (Fault("html"), KaggleNetworkError, 7, "web page"),
    (Fault("hang", seconds=5), KaggleNetworkError, 7, "silent"),
]


@pytest.mark.parametrize(("fault", "kind", "code", "words"), ERRORS, ids=lambda v: str(v)[:40])
def test_errors_have_their_kind_code_and_cure(
    fault: Fault, kind: type[KaggleError], code: int, words: str, kaggle: FakeKaggle
) -> None:
    kaggle.fail("ListDataFiles", fault, times=None)
    site = connect(patience=SHORT if fault.kind == "hang" else QUICK)
    began = time.monotonic()

    with pytest.raises(kind) as caught:
        site.files("tiny")

    assert time.monotonic() - began < 10
    assert caught.value.exit_code == code
    assert words in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.hint
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("fault", [Fault("status", 429), Fault("status", 503), Fault("drop")])
def test_what_may_pass_is_tried_again(fault: Fault, kaggle: FakeKaggle) -> None:
    kaggle.fail("ListDataFiles", fault, times=2)

    assert len(connect(patience=QUICK).files("tiny")) == 9
    assert kaggle.count("ListDataFiles") == 3


def test_the_pause_that_the_server_asks_for_is_kept(kaggle: FakeKaggle) -> None:
    kaggle.fail("ListDataFiles", Fault("status", 429, retry_after="1"))
    site = connect(patience=Patience(pause_s=0.01, longest_pause_s=5))
    began = time.monotonic()

    site.files("tiny")

    assert 1.0 <= time.monotonic() - began < 3


def test_a_pause_that_is_too_long_ends_it_at_once(kaggle: FakeKaggle) -> None:
    kaggle.fail("ListDataFiles", Fault("status", 429, retry_after="3600"), times=None)

    with pytest.raises(KaggleLimitError) as caught:
        connect(patience=QUICK).files("tiny")

    assert "wait 3600 s" in caught.value.hint
    assert kaggle.count("ListDataFiles") == 1


@pytest.mark.parametrize("fault", [Fault("status", 503), Fault("drop"), Fault("lost")])
def test_what_must_not_be_repeated_is_sent_once(fault: Fault, kaggle: FakeKaggle) -> None:
    kaggle.contest.uploads["none"] = ("a.csv", b"")
    kaggle.fail("CreateSubmission", fault, times=None)
    site = connect(patience=QUICK)

    with pytest.raises(KaggleNetworkError):
        fields = {"competition_name": "tiny", "blob_file_tokens": "none"}
        site.call("CreateSubmission", fields, about="tiny", repeat=False)

    assert kaggle.count("CreateSubmission") == 1


def test_a_submission_goes_the_whole_way(make_kaggle: MakeKaggle, tmp_path: Path) -> None:
    solution = "id,value,Usage\n1,10,Public\n2,20,Private\n"
    kaggle = make_kaggle(solution=solution)
    file = tmp_path / "submission.csv"
    file.write_text("id,value\n1,11\n2,23\n")
    site = connect(patience=QUICK)

    start = {"competition_name": "tiny", "file_name": file.name, "content_length": 19}
    upload = site.call(
        "StartSubmissionUpload", start | {"last_modified_epoch_seconds": 5}, about="tiny"
    )
    site.put(upload.create_url, file)
    fields = {
        "competition_name": "tiny",
        "blob_file_tokens": upload.token,
        "submission_description": "first",
    }
    made = site.call("CreateSubmission", fields, about="tiny", repeat=False)
    told = site.call("GetSubmission", {"ref": made.ref}, about="tiny")
    listed = site.call("ListSubmissions", {"competition_name": "tiny"}, about="tiny")
    limits = site.call("GetSubmissionLimits", {"competition_name": "tiny"}, about="tiny")
    board = site.call("GetLeaderboard", {"competition_name": "tiny"}, about="tiny")

    assert (told.status.name, told.public_score, told.private_score) == (
        "COMPLETE",
        "1.00000",
        "3.00000",
    )
    assert [s.description for s in listed.submissions] == ["first"]
    assert limits.num_allowed_now == 4
    assert [row.team_name for row in board.submissions][1] == "The Testers"
    assert kaggle.contest.submissions[0].content == file.read_bytes()
    assert next(r for r in kaggle.requests if r.name == "upload").credential == "none"


@pytest.mark.parametrize("fault", [Fault("status", 503), Fault("drop"), Fault("lost")])
def test_a_failed_upload_may_be_tried_again(
    fault: Fault, kaggle: FakeKaggle, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("x")
    kaggle.fail("upload", fault)

    with pytest.raises(TryAgain) as caught:
        connect(patience=QUICK).put("http://storage.fake-kaggle.test/upload/1", tmp_path / "a.csv")

    assert isinstance(caught.value.error, KaggleNetworkError)
    assert kaggle.count("upload") == 1


def test_a_token_logs_in(make_kaggle: MakeKaggle) -> None:
    kaggle = make_kaggle(credential="token")

    site = connect(patience=QUICK)
    site.files("tiny")

    assert site.source == "KAGGLE_API_TOKEN"
    assert site.remarks == ()
    assert kaggle.requests[-1].credential == "bearer"


def test_a_refused_token_gives_way_to_the_key_and_that_is_said(
    make_kaggle: MakeKaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle = make_kaggle()
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_stale_token_of_last_year")

    site = connect(patience=QUICK)
    site.files("tiny")

    assert site.source == "KAGGLE_USERNAME and KAGGLE_KEY"
    assert any("refused the token from KAGGLE_API_TOKEN" in r for r in site.remarks)
    assert kaggle.requests[-1].credential == "basic"


def test_without_credentials_it_is_said_how_to_get_them(
    make_kaggle: MakeKaggle, capfd: pytest.CaptureFixture[str]
) -> None:
    make_kaggle(credential="none")

    with pytest.raises(KaggleLoginError, match="no Kaggle credentials") as caught:
        connect(patience=QUICK)

    assert "kaggle.com/settings/api" in caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", [Fault("hang", seconds=5), Fault("status", 500), Fault("drop")])
def test_a_login_that_fails_is_bounded(fault: Fault, make_kaggle: MakeKaggle) -> None:
    kaggle = make_kaggle(credential="token")
    kaggle.fail("IntrospectToken", fault, times=None)
    began = time.monotonic()

    with pytest.raises(KaggleNetworkError):
        connect(patience=SHORT if fault.kind == "hang" else QUICK)

    assert time.monotonic() - began < 10


def test_offline_nothing_is_asked(kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBDENOISE_OFFLINE", "1")

    with pytest.raises(KaggleNetworkError, match="KBDENOISE_OFFLINE"):
        connect(patience=QUICK)

    assert kaggle.requests == []


def test_the_timeout_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBDENOISE_TIMEOUT", "6")
    assert (Patience.of_environment().read_s, Patience.of_environment().connect_s) == (6, 6)

    for text in ("soon", "-1", "0", "inf", "nan"):
        monkeypatch.setenv("KBDENOISE_TIMEOUT", text)
        with pytest.raises(SettingsError, match="KBDENOISE_TIMEOUT"):
            Patience.of_environment()


def in_child(code: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


CONNECT = "from kbdenoise.contests.kaggle_client import connect\n"


def test_the_client_is_not_imported_before_it_is_needed(tmp_path: Path) -> None:
    done = in_child(
        "import sys, kbdenoise.contests.kaggle_client, kbdenoise.contests.fetch\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('kaggle', 'kagglesdk', 'requests')])",
        {"HOME": str(tmp_path)},
    )

    assert done.stdout.strip() == "[]", done.stderr


def test_without_the_client_there_is_one_clear_sentence(tmp_path: Path) -> None:
    done = in_child(
        "import sys; sys.modules['kaggle'] = None\n" + CONNECT + "try: connect()\n"
        "except Exception as error: print(type(error).__name__, error.message, error.hint)",
        {"HOME": str(tmp_path)},
    )

    assert done.stdout.startswith("KaggleError Kaggle's client ")
    assert 'pip install "kaggle>=2.2.4,<3" six' in done.stdout


def test_importing_is_silent_and_leaves_no_folder_where_home_is_closed(
    make_kaggle: MakeKaggle, tmp_path: Path
) -> None:
    kaggle = make_kaggle()
    environment = kaggle.environment(tmp_path / "home") | {"HOME": "/proc/nowhere", "VERBOSE": "1"}

    done = in_child(CONNECT + "print(len(connect().files('tiny')))", environment)

    assert (done.stdout.strip(), done.stderr) == ("9", "")


def test_the_client_is_silent_whoever_imported_it_and_how_old_it_is(
    kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    connect(patience=QUICK)
    api = sys.modules["kaggle.api.kaggle_api_extended"].KaggleApi
    monkeypatch.setattr(api, "args", [*api.args, "--verbose"])  # as VERBOSE=1 at its import does
    kaggle.newest_client = "99.0.0"

    site = connect(patience=QUICK)
    site.files("tiny")
    with site.open_data("tiny") as body:
        content = read_all(body)

    assert content == kaggle.contest.archive
    assert capfd.readouterr() == ("", "")


def test_signed_links_are_scrubbed_from_the_log_of_the_network(
    kaggle: FakeKaggle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "a.csv").write_text("x")

    site = connect(patience=QUICK)
    with site.open_data("tiny") as body:
        read_all(body)
    with pytest.raises(TryAgain):
        site.put(
            f"http://storage.fake-kaggle.test/upload/1?upload_id={SIGNATURE}", tmp_path / "a.csv"
        )

    assert "archive.zip?***" in caplog.text and "upload/1?***" in caplog.text
    assert SIGNATURE not in caplog.text and KEY not in caplog.text


def test_readable_credentials_are_remarked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / ".kaggle" / "kaggle.json"
    file.parent.mkdir()
    file.write_text(f'{{"username": "tester", "key": "{KEY}"}}')
    file.chmod(0o644)

    found = find_credentials()
    remarks = credential_remarks(found)

    assert [c.source for c in found] == [str(file)]
    assert len(remarks) == 1 and f"chmod 600 {file}" in remarks[0]
    file.chmod(0o600)
    assert credential_remarks(find_credentials()) == []
    token = tmp_path / "my token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(token))
    told = " ".join(credential_remarks(find_credentials()))
    assert f"chmod 600 '{token}'" in told and TOKEN not in told


@pytest.mark.parametrize("content", ["", "{", "[]", '{"username": "x"}'])
def test_a_broken_key_file_is_remarked(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "kaggle.json").write_text(content)
    (tmp_path / "kaggle.json").chmod(0o600)

    assert "is ignored" in " ".join(credential_remarks(find_credentials()))


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        "Authorization: Basic dGVzdGVyOmNhbmFyeTFrZXkyY2FuYXJ5M2tleTQ=",
        "{'Authorization': 'Bearer canary-secret-of-some-kind'}",
        "GET https://storage.example/a.zip?GoogleAccessId=canary-me&Signature=canary%2Bsecret",
        "Max retries exceeded with url: /a.zip?X-Goog-Signature=canary123&X-Goog-Date=1",
        "http://user:canary-password@proxy.example:3128 refused",
        f"key {KEY} and again {KEY}",
    ],
)
def test_no_secret_survives_scrubbing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")

    cleaned = scrub(text)

    assert "***" in cleaned
    assert "canary" not in cleaned and "dGVzdGVy" not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "cannot read /home/x/.kaggle/kaggle.json: Permission denied",
        "see https://www.kaggle.com/competitions/tiny/rules (a new account must verify)",
        "basic features of the token bucket",
        "KAGGLE_API_TOKEN=...",
    ],
)
def test_innocent_text_is_left_alone(text: str) -> None:
    assert scrub(text) == text


def test_log_records_are_scrubbed_with_their_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    try:
        raise ValueError(f"https://x.example/a?sig={TOKEN}")
    except ValueError:
        record = logging.LogRecord("kbdenoise", 10, "", 1, "%s", (TOKEN,), sys.exc_info())

    text = ScrubbingFormatter("%(message)s").format(record)

    assert "ValueError" in text and "canary" not in text


def test_the_environment_is_left_as_it_was(kaggle: FakeKaggle) -> None:
    os.environ["VERBOSE"] = "1"
    before = dict(os.environ)

    connect(patience=QUICK)

    assert dict(os.environ) == before
    del os.environ["VERBOSE"]
