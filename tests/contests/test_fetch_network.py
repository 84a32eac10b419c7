"""Fetch from the network: the real client, a Kaggle on loopback, and everything that may fail."""

import importlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from kbdenoise.cli.app import main
from kbdenoise.contests.fetch import Fetched, fetch
from kbdenoise.contests.listing import fetch_files, list_files, plan_fetch
from kbdenoise.contests.locking import locked
from kbdenoise.errors import (
    DataError,
    KaggleError,
    KaggleLimitError,
    KaggleNetworkError,
    KaggleNotFoundError,
    SettingsError,
)
from kbdenoise.progress import Event, Note
from tests.fake_kaggle import KEY, TOKEN, FakeKaggle, Fault
from tests.fake_kaggle.fixtures import (
    MakeKaggle,
    clean_environment,
    tiny_archive,
    zip_bytes,
)
from tests.fake_kaggle.matrix import FETCH, PARTLY, Row, markdown
from tests.fake_kaggle.server import SIGNATURE

pytestmark = pytest.mark.kaggle

SLUG = "tiny"
CANARIES = ("canary", KEY, TOKEN, SIGNATURE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def fetched(data: Path, name: str = SLUG, **options: object) -> Fetched:
    return fetch(name, data=data, **({"kaggle_input": data / "none"} | options))  # type: ignore[arg-type]


def files_of(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def assert_whole(data: Path, archive: bytes) -> None:
    for name, content in files_of(archive).items():
        assert (data / SLUG / name).read_bytes() == content
    assert sorted(p.name for p in data.iterdir()) == [SLUG]


def test_a_contest_comes_from_kaggle_and_a_second_fetch_asks_nobody(
    kaggle: FakeKaggle, data: Path
) -> None:
    first = fetched(data)
    asked = len(kaggle.requests)
    second = fetched(data)

    assert (first.pairs, first.tests, first.unchanged) == (3, 2, False)
    assert_whole(data, kaggle.contest.archive)
    assert second.unchanged and len(kaggle.requests) == asked
    stamp = json.loads((data / SLUG / ".fetched.json").read_text())
    assert stamp["source"] == "https://www.kaggle.com/competitions/tiny"


@pytest.mark.parametrize("row", FETCH, ids=lambda row: row.name)
def test_every_fault_ends_as_documented(
    row: Row,
    make_kaggle: MakeKaggle,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="kbdenoise")
    kaggle = make_kaggle()
    kaggle.with_md5 = bool(row.contest.get("with_md5", True))
    monkeypatch.setenv("KBDENOISE_TIMEOUT", str(row.timeout_s))
    for method, faults, times in row.faults:
        kaggle.fail(method, *faults, times=times)
    began = time.monotonic()

    code = main(["fetch", SLUG, "--data", str(data)])

    told = capsys.readouterr()
    assert (code, time.monotonic() - began < 20) == (row.code, True), told.err
    for words in row.words:
        assert words in told.err.replace("\n        ", " ")
    assert not any(secret in told.err + told.out + caplog.text for secret in CANARIES)
    left = {p.name: p for p in data.iterdir()} if data.is_dir() else {}
    if row.left == "the contest":
        assert_whole(data, kaggle.contest.archive)
    elif row.left == "the first bytes":
        assert sorted(left) == ["tiny.zip.part", "tiny.zip.part.json"]
        assert left["tiny.zip.part"].read_bytes() == kaggle.contest.archive[:PARTLY]
    else:
        assert left == {}
    if row.code:
        assert told.out == "" and told.err.startswith(("error: ", "  ", "tiny", "download", "kagg"))
    kaggle.heal()
    assert main(["fetch", SLUG, "--data", str(data)]) == 0
    assert_whole(data, kaggle.contest.archive)


def test_the_documentation_holds_the_matrix() -> None:
    page = Path(__file__).parents[2] / "docs" / "kaggle-faults.md"

    assert page.read_text() == markdown()


def test_a_cut_download_goes_on_at_its_byte(kaggle: FakeKaggle, data: Path) -> None:
    kaggle.fail("storage", Fault("cut", after=PARTLY))

    fetched(data)

    ranges = [request.range for request in kaggle.requests if request.name == "storage"]
    assert ranges == ["", f"bytes={PARTLY}-"]


def test_a_later_process_goes_on_where_an_earlier_one_stopped(
    kaggle: FakeKaggle, data: Path
) -> None:
    kaggle.fail("storage", Fault("cut", after=PARTLY), Fault("status", 500), times=None)
    with pytest.raises(KaggleNetworkError):
        fetched(data)
    kaggle.heal()
    told: list[Event] = []

    fetched(data, tell=told.append)

    assert kaggle.requests[-1].range == f"bytes={PARTLY}-"
    assert any(isinstance(e, Note) and "goes on after 20.0 kB" in e.text for e in told)
    assert_whole(data, kaggle.contest.archive)


def test_another_archive_on_the_server_begins_anew(kaggle: FakeKaggle, data: Path) -> None:
    kaggle.fail("storage", Fault("cut", after=PARTLY), Fault("status", 500), times=None)
    with pytest.raises(KaggleNetworkError):
        fetched(data)
    kaggle.heal()
    kaggle.contest.archive = tiny_archive(extra_bytes=50_000)

    fetched(data)

    assert kaggle.requests[-1].status == 200
    assert_whole(data, kaggle.contest.archive)


def test_two_files_are_not_mixed_where_the_server_sends_a_part_of_another(
    make_kaggle: MakeKaggle, data: Path
) -> None:
    kaggle = make_kaggle(archive=zip_bytes({"a.bin": b"A" * 30_000}))
    kaggle.with_md5 = kaggle.heeds_if_range = False
    kaggle.fail("storage", Fault("cut", after=PARTLY), Fault("status", 500), times=None)
    with pytest.raises(KaggleNetworkError):
        fetch_files(SLUG, ["a.bin"], data=data)
    kaggle.heal()
    kaggle.contest.archive = zip_bytes({"a.bin": b"B" * 30_000})

    fetch_files(SLUG, ["a.bin"], data=data)

    assert (data / "tiny.files" / "a.bin").read_bytes() == b"B" * 30_000


def test_a_whole_download_that_was_not_unpacked_is_not_downloaded_again(
    kaggle: FakeKaggle, data: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetched(data, progress=stop)
    assert (data / "tiny.zip.part").read_bytes() == kaggle.contest.archive

    fetched(data)

    assert kaggle.count("storage") == 1
    assert_whole(data, kaggle.contest.archive)


def test_what_a_killed_fetch_forgot_to_remove_is_removed(kaggle: FakeKaggle, data: Path) -> None:
    fetched(data)
    (data / "tiny.zip.part").write_bytes(kaggle.contest.archive)
    (data / "tiny.zip.part.json").write_text("{}")

    assert fetched(data).unchanged

    assert_whole(data, kaggle.contest.archive)


def test_the_archive_is_kept_on_request_and_used_again(kaggle: FakeKaggle, data: Path) -> None:
    fetched(data, keep_zip=True)
    assert (data / "tiny.zip").read_bytes() == kaggle.contest.archive
    shutil.rmtree(data / SLUG)

    again = fetched(data)

    assert any("archive is already here" in note for note in again.notes)
    assert kaggle.count("storage") == 1
    assert again.contest.url == "https://www.kaggle.com/competitions/tiny"
    shutil.rmtree(data / SLUG)
    fetched(data, force=True)
    assert kaggle.count("storage") == 2


def test_force_downloads_anew(kaggle: FakeKaggle, data: Path) -> None:
    fetched(data)
    kaggle.contest.archive = tiny_archive(extra_bytes=10)

    result = fetched(data, force=True)

    assert not result.unchanged
    assert (data / SLUG / "notes.bin").stat().st_size == 10


def test_a_lost_picture_is_downloaded_again(kaggle: FakeKaggle, data: Path) -> None:
    fetched(data)
    (data / SLUG / "test/7.png").unlink()

    assert not fetched(data).unchanged
    assert_whole(data, kaggle.contest.archive)


@pytest.mark.parametrize(
    ("name", "words"), [("../evil.png", "leave its folder"), ("/etc/evil.png", "absolute path")]
)
def test_a_hostile_archive_is_refused_and_not_kept(
    name: str, words: str, make_kaggle: MakeKaggle, data: Path
) -> None:
    kaggle = make_kaggle(archive=zip_bytes({name: b"x", "train/noisy/1.png": b"x"}))

    with pytest.raises(DataError, match=words) as caught:
        fetched(data)

    assert caught.value.exit_code == 1
    assert list(data.iterdir()) == [] and kaggle.count("storage") == 1


@pytest.mark.parametrize("name", ["contest.toml", ".fetched.json"])
def test_an_archive_with_files_of_fetchs_own_names_is_fetched_once(
    name: str, make_kaggle: MakeKaggle, data: Path
) -> None:
    kaggle = make_kaggle(archive=zip_bytes(files_of(tiny_archive()) | {name: b"root = '/etc'"}))

    first, second = fetched(data), fetched(data)

    assert (first.contest.root, second.unchanged) == ("", True)
    assert kaggle.count("storage") == 1


def test_an_archive_of_something_else_is_kept_for_a_look(
    make_kaggle: MakeKaggle, data: Path
) -> None:
    kaggle = make_kaggle(archive=zip_bytes({"table.csv": b"id,value\n1,2\n"}))

    with pytest.raises(DataError, match=r"data/tiny\.zip"):
        fetched(data)

    assert [p.name for p in data.iterdir()] == ["tiny.zip"]
    assert (data / "tiny.zip").read_bytes() == kaggle.contest.archive


def test_two_fetches_of_one_contest_do_not_mix(kaggle: FakeKaggle, data: Path) -> None:
    with (
        locked(data / ".tiny.lock", what="a fetch of tiny"),
        pytest.raises(DataError, match="a fetch of tiny is going on in another process"),
    ):
        fetched(data)

    fetched(data)
    assert_whole(data, kaggle.contest.archive)


def test_a_disk_without_room_is_seen_first(
    kaggle: FakeKaggle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))

    with pytest.raises(DataError, match=r"needs 60\.\d kB of disk in .*, and 1\.0 kB are free"):
        fetched(data)

    assert kaggle.count("storage") == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(DataError, match=r"with what is in it needs 122\.1 kB of disk"):
        fetched(data)
    assert list(data.iterdir()) == []


def test_mounted_pictures_are_used_without_network(kaggle: FakeKaggle, data: Path) -> None:
    mounted = data / "input" / "competitions" / SLUG
    for name, content in files_of(kaggle.contest.archive).items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_bytes(content)

    result = fetched(data, kaggle_input=data / "input")

    assert result.contest.root == str(mounted)
    assert result.contest.url == "https://www.kaggle.com/competitions/tiny"
    assert kaggle.requests == []


def test_offline_is_respected(
    kaggle: FakeKaggle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBDENOISE_OFFLINE", "1")

    for source in (None, f"{kaggle.url}/a.zip"):
        with pytest.raises(KaggleNetworkError, match="KBDENOISE_OFFLINE is set"):
            fetched(data, source=source)

    assert kaggle.requests == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
def test_a_proxy_that_encrypts_anew_needs_its_certificate_and_gets_no_retry(
    kaggle: FakeKaggle,
    tmp_path: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    certificate = kaggle.encrypt(tmp_path)
    client = importlib.import_module("kaggle.api.kaggle_api_extended").KaggleApi
    monkeypatch.setattr(client, "args", [])  # Kaggle's own address, https://api.kaggle.com
    words = ["fetch", SLUG, "--data", str(data)]

    untrusted = main(words), capsys.readouterr().err, kaggle.count("CONNECT")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    missing = main(words), capsys.readouterr().err
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    trusted = main(words)

    assert untrusted[0] == 7 and "certificate is not trusted here" in untrusted[1]
    assert "export REQUESTS_CA_BUNDLE=" in untrusted[1] and untrusted[2] == 1
    assert missing[0] == 7 and "nowhere.pem" in missing[1] and "REQUESTS_CA_BUNDLE" in missing[1]
    assert trusted == 0
    assert_whole(data, kaggle.contest.archive)
    told = [(request.name, request.credential) for request in kaggle.requests[-3:]]
    assert told == [("DownloadDataFiles", "basic"), ("CONNECT", "none"), ("storage", "none")]


# ---- lists, plans, single files


def test_the_files_are_listed(
    kaggle: FakeKaggle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list_files("https://www.kaggle.com/c/tiny")

    assert {f.name: f.size_bytes for f in found.files} == {
        name: len(content) for name, content in files_of(kaggle.contest.archive).items()
    }
    assert main(["fetch", SLUG, "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size_bytes"] == found.size_bytes
    assert kaggle.count("storage") == 0


def test_a_plan_writes_nothing(kaggle: FakeKaggle, data: Path) -> None:
    plan = plan_fetch(SLUG, data=data, kaggle_input=data / "none")

    assert (plan.files, plan.unchanged) == (9, False)
    assert plan.source == "https://www.kaggle.com/competitions/tiny"
    assert not data.exists() and kaggle.count("storage") == 0
    fetched(data)
    assert plan_fetch(SLUG, data=data, kaggle_input=data / "none").unchanged


def test_a_list_and_a_plan_of_some_files_are_of_these(
    kaggle: FakeKaggle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fetch", SLUG, "--data", str(data), "--file", "test/*", "--json"]

    codes = main([*words, "--list"]), main([*words, "-n"])
    listed, plan = map(json.loads, capsys.readouterr().out.splitlines())

    assert codes == (0, 0)
    assert [f["name"] for f in listed["files"]] == ["test/7.png", "test/8.png"]
    assert (plan["files"], plan["folder"]) == (2, str(data / "tiny.files"))
    assert not data.exists() and kaggle.count("storage") == 0
    assert main([*words[:4], "--list", "--from", "x.zip"]) == 2
    main(words)
    main([*words, "-n"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["unchanged"]


def test_single_files_come_by_pattern_and_once(kaggle: FakeKaggle, data: Path) -> None:
    kaggle.fail("storage", Fault("flip"))

    first = fetch_files(SLUG, ["test/*", "train/noisy/1.png"], data=data)
    second = fetch_files(SLUG, ["test/*"], data=data)

    assert first.files == ("train/noisy/1.png", "test/7.png", "test/8.png")
    assert (first.already_here, second.already_here) == (0, 2)
    archive = files_of(kaggle.contest.archive)
    here = {
        p.relative_to(first.folder).as_posix(): p.read_bytes()
        for p in first.folder.rglob("*")
        if p.is_file()
    }
    assert here == {name: archive[name] for name in first.files}
    assert kaggle.count("storage") == 4


def test_a_large_file_that_kaggle_wraps_is_unwrapped(kaggle: FakeKaggle, data: Path) -> None:
    kaggle.contest.wrapped.add("notes.bin")

    fetch_files(SLUG, ["notes.bin"], data=data)

    assert (data / "tiny.files/notes.bin").read_bytes() == files_of(kaggle.contest.archive)[
        "notes.bin"
    ]
    assert [p.name for p in (data / "tiny.files").iterdir()] == ["notes.bin"]


def test_a_full_disk_is_no_damage_of_a_file_that_kaggle_wraps(
    kaggle: FakeKaggle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.contest.wrapped.add("notes.bin")
    usage = shutil.disk_usage("/")

    def full_once_it_is_here(path: Path) -> object:
        here = (data / "tiny.files" / "notes.bin.part").exists()
        return usage._replace(free=1000) if here else usage

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full_once_it_is_here)
        with pytest.raises(
            DataError, match=r"needs 60\.0 kB of disk, and 1\.0 kB are free"
        ) as caught:
            fetch_files(SLUG, ["notes.bin"], data=data)
    assert caught.value.exit_code == 1 and kaggle.count("storage") == 1
    fetch_files(SLUG, ["notes.bin"], data=data)

    assert [p.name for p in (data / "tiny.files").iterdir()] == ["notes.bin"]
    assert kaggle.count("storage") == 1


def test_a_pattern_that_fits_nothing_is_told(kaggle: FakeKaggle, data: Path) -> None:
    with pytest.raises(KaggleNotFoundError, match="no file of tiny fits tset") as caught:
        fetch_files(SLUG, ["tset/7.png"], data=data)

    assert "did you mean 'test/7.png'?" in caught.value.hint


# ---- links


def test_a_link_is_downloaded_and_resumed(kaggle: FakeKaggle, data: Path) -> None:
    kaggle.links["/some/pictures.zip"] = kaggle.contest.archive
    link = f"http://files.example.test/some/pictures.zip?key={SIGNATURE}"
    kaggle.fail("link", Fault("cut", after=PARTLY))

    result = fetched(data, "mine", source=link)

    assert result.pairs == 3
    assert [r.range for r in kaggle.requests] == ["", f"bytes={PARTLY}-"]
    assert {r.credential for r in kaggle.requests} == {"none"}
    stamp = (data / "mine/.fetched.json").read_text()
    assert "http://files.example.test/some/pictures.zip" in stamp and SIGNATURE not in stamp
    assert fetched(data, "mine", source=link).unchanged


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (503, 5)])
def test_a_link_that_fails_is_told_without_its_query(
    status: int, tries: int, kaggle: FakeKaggle, data: Path
) -> None:
    kaggle.fail("link", Fault("status", status), times=None)

    with pytest.raises(KaggleNetworkError, match=f"HTTP {status}") as caught:
        fetched(data, "mine", source=f"http://files.example.test/a.zip?key={SIGNATURE}")

    assert SIGNATURE not in caught.value.message + caught.value.hint
    assert kaggle.count("link") == tries


def test_a_link_that_asks_for_patience_gets_it(kaggle: FakeKaggle, data: Path) -> None:
    link = "http://files.example.test/a.zip"
    kaggle.links["/a.zip"] = kaggle.contest.archive
    kaggle.fail("link", Fault("status", 429, retry_after="3600"))

    with pytest.raises(KaggleLimitError, match="too many requests from here") as caught:
        fetched(data, "mine", source=link)

    assert "wait 3600 s" in caught.value.hint and kaggle.count("link") == 1
    kaggle.fail("link", Fault("status", 429, retry_after="0.2"))
    assert fetched(data, "mine", source=link).pairs == 3


@pytest.mark.parametrize("link", ["http://[bad/a.zip", "https:///a.zip", "http://a.test:x/a.zip"])
def test_a_link_that_is_no_address_is_refused(link: str, data: Path) -> None:
    with pytest.raises(SettingsError, match="is no address"):
        fetched(data, "mine", source=link)


def test_a_proxy_that_refuses_is_told_and_not_asked_again(kaggle: FakeKaggle, data: Path) -> None:
    with pytest.raises(KaggleNetworkError, match=r"the proxy refuses the connection \(HTTP 403\)"):
        fetched(data, "mine", source="https://files.example.test/a.zip")

    assert kaggle.count("CONNECT") == 1


def test_several_zips_are_unpacked_together(tmp_path: Path, data: Path) -> None:
    archive = files_of(tiny_archive())
    zips = []
    for folder in ("noisy", "clean"):
        inside = {n: c for n, c in archive.items() if n.startswith(f"train/{folder}/")}
        zips.append(tmp_path / f"{folder}-part.zip")
        zips[-1].write_bytes(zip_bytes(inside))

    first = fetched(data, "mine", source=zips)
    second = fetched(data, "mine", source=zips)
    third = fetched(data, "mine")

    assert (first.pairs, first.unchanged) == (3, False)
    assert second.unchanged and third.unchanged


def test_wrong_mixtures_of_sources_are_refused(tmp_path: Path, data: Path) -> None:
    for sources, words in (
        (["http://a.test/a.zip", "http://a.test/b.zip"], "stands alone"),
        (["https://www.kaggle.com/c/other"], "is a page of Kaggle"),
        (["https://drive.google.com/drive/folders/1"], "not the link of one file"),
    ):
        with pytest.raises(SettingsError, match=words):
            fetched(data, "mine", source=sources)
    with pytest.raises(DataError, match="is no file"):
        fetched(data, "mine", source=[tmp_path, tmp_path])


GDOWN = """
def download(*, url, output, quiet):
    assert url == "https://drive.google.com/uc?id=0123456789abcdef", url
    {body}
"""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("open(output, 'wb').write(b'<!DOCTYPE html><title>Quota exceeded')", "web page"),
        ("raise RuntimeError('Too many users have viewed or downloaded this file')", "Too many"),
        ("return None", "nothing came"),
    ],
)
def test_a_quota_page_of_google_drive_is_recognised(
    body: str, words: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # gdown only speaks to Google's own hosts, so that a stand-in is all that a test can have.
    (tmp_path / "gdown.py").write_text(GDOWN.format(body=body + "; return output"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gdown", raising=False)

    with pytest.raises(KaggleNetworkError, match=words):
        fetched(data, "mine", source="https://drive.google.com/file/d/0123456789abcdef/view?x=1")

    assert list(data.iterdir()) == []


def test_without_gdown_it_is_said_how_to_get_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)

    with pytest.raises(KaggleError, match="gdown") as caught:
        fetched(data, "mine", source="https://drive.google.com/open?id=0123456789abcdef")

    assert "kbdenoise[drive]" in caught.value.hint


# ---- the program itself, in a process of its own


def start(
    kaggle: FakeKaggle, home: Path, *words: str, limit: int = 0, **variables: str
) -> "subprocess.Popen[str]":
    environment = clean_environment() | kaggle.environment(home) | variables

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, "-m", "kbdenoise", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bounded if limit else None,
    )


@pytest.mark.parametrize("credential", ["key", "token"])
def test_no_secret_is_told_at_any_verbosity(
    credential: str, make_kaggle: MakeKaggle, tmp_path: Path, data: Path
) -> None:
    kaggle = make_kaggle()
    kaggle.fail("storage", Fault("cut", after=PARTLY), Fault("expired"), times=None)
    variables = {"VERBOSE": "1", "VERBOSE_OUTPUT": "true"}
    if credential == "token":
        variables |= {"KAGGLE_API_TOKEN": TOKEN}

    process = start(
        kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data), "--debug", **variables
    )
    out, err = process.communicate(timeout=120)

    assert process.returncode == 7, err
    assert "Traceback" in err and out == ""
    assert not any(secret in out + err for secret in CANARIES)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in CANARIES), path


def test_a_fetch_that_is_killed_again_and_again_ends_whole(
    make_kaggle: MakeKaggle, tmp_path: Path, data: Path
) -> None:
    kaggle = make_kaggle(archive=tiny_archive(extra_bytes=2_000_000))
    kaggle.fail("storage", Fault("slow", per_s=1_000_000), times=None)
    draw = random.Random(7)
    sizes = []
    for _ in range(3):
        process = start(kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data))
        part = data / "tiny.zip.part"
        target = (sizes[-1] if sizes else 0) + draw.randrange(1, 500_000)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if part.exists() and part.stat().st_size > target:
                break
            time.sleep(0.01)
        process.kill()
        process.communicate()
        sizes.append(part.stat().st_size)
        assert kaggle.contest.archive.startswith(part.read_bytes())
    kaggle.heal()

    process = start(kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data))
    _, err = process.communicate(timeout=120)

    assert process.returncode == 0, err
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert kaggle.requests[-1].range == f"bytes={sizes[-1]}-"
    assert_whole(data, kaggle.contest.archive)


@pytest.mark.skipif(os.name == "nt", reason="no limit of a file's size there")
@pytest.mark.parametrize(("limit", "left"), [(20_480, 20_480), (130_000, 61_000)])
def test_a_full_disk_leaves_nothing_that_passes_for_whole(
    limit: int, left: int, make_kaggle: MakeKaggle, tmp_path: Path, data: Path
) -> None:
    # In the download, and in unpacking: blank.bin unpacks to more than its archive.
    files = files_of(tiny_archive()) | {"blank.bin": bytes(200_000)}
    kaggle = make_kaggle(archive=zip_bytes(files))

    process = start(kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data), limit=limit)
    _, err = process.communicate(timeout=120)

    assert process.returncode == 1 and "no space left on the disk" in err, err
    assert not (data / SLUG).exists() and not (data / "tiny.zip").exists()
    part = (data / "tiny.zip.part").read_bytes()
    assert kaggle.contest.archive.startswith(part) and len(part) >= min(left, limit)
    process = start(kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data))
    assert process.wait(120) == 0
    assert_whole(data, kaggle.contest.archive)


def test_ctrl_c_keeps_what_has_come(make_kaggle: MakeKaggle, tmp_path: Path, data: Path) -> None:
    kaggle = make_kaggle()
    kaggle.fail("storage", Fault("stall", after=PARTLY, seconds=60))
    process = start(kaggle, tmp_path / "home", "fetch", SLUG, "--data", str(data))
    part = data / "tiny.zip.part"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size == PARTLY):
        time.sleep(0.02)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert "interrupted" in err
    assert part.stat().st_size == PARTLY
