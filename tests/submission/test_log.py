"""The log of submissions: nothing is lost, torn or guessed."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.errors import DataError
from kbdenoise.submission.log import COLUMNS, LogEntry, append_log, new_mark, read_log, update_log

ENTRY = LogEntry(
    time="2026-11-22T14:32:05+00:00",
    contest="khu-descan",
    run="brisk-otter",
    csv="submissions/brisk-otter.csv",
    sha256="0f" * 32,
    metric="mae-mean-luma",
    local_score=1.861,
    message='ema, "longer"',
    status="written",
    mark="kb-0a1b2c3d4e",
)
OLD = (
    "time,contest,run,csv,sha256,metric,local_score,message,reference,public_score\n"
    "2026-11-22T14:32:05+00:00,khu-descan,first,submissions/first.csv,0f,rmse,1.5,hello,,\n"
)


def test_the_log_begins_with_its_columns_and_leaves_room_for_the_public_score(
    tmp_path: Path,
) -> None:
    append_log(tmp_path / "submissions" / "log.csv", ENTRY)

    assert (tmp_path / "submissions" / "log.csv").read_text() == (
        "time,contest,run,csv,sha256,metric,local_score,message,reference,public_score,"
        "status,private_score,held_out_score,mark,detail\n"
        "2026-11-22T14:32:05+00:00,khu-descan,brisk-otter,submissions/brisk-otter.csv,"
        f'{"0f" * 32},mae-mean-luma,1.861,"ema, ""longer""",,,written,,,kb-0a1b2c3d4e,\n'
    )


@given(
    st.lists(
        st.builds(
            replace,
            st.just(ENTRY),
            message=st.text(st.characters(exclude_categories=["Cs"])).map(
                lambda text: " ".join(text.split())
            ),
            local_score=st.none() | st.floats(allow_nan=False),
            public_score=st.none() | st.floats(allow_nan=False),
        ),
        max_size=4,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_is_appended_is_read_back(entries: list[LogEntry]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for entry in entries:
            append_log(Path(folder) / "log.csv", entry)

        assert read_log(Path(folder) / "log.csv") == entries


def test_line_breaks_in_a_message_become_spaces(tmp_path: Path) -> None:
    append_log(tmp_path / "log.csv", replace(ENTRY, message="one\ntwo\r\nthree"))

    assert read_log(tmp_path / "log.csv")[0].message == "one two three"


@pytest.mark.parametrize("killed_at", range(1, 420, 13))
def test_a_process_killed_while_appending_costs_only_its_own_line(
    tmp_path: Path, killed_at: int
) -> None:
    path = tmp_path / "log.csv"
    first, last = replace(ENTRY, run="first"), replace(ENTRY, run="last")
    append_log(path, first)
    header_and_first = path.read_bytes()
    append_log(path, ENTRY)
    path.write_bytes(path.read_bytes()[:killed_at])

    append_log(path, last)

    whole = [entry for entry in read_log(path) if entry != ENTRY]
    assert whole == ([first, last] if killed_at >= len(header_and_first) - 1 else [last])


def test_many_writers_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "log.csv", os.write
    entries = [replace(ENTRY, run=f"run-{n}", message="x" * n) for n in range(20)]

    def slow_and_in_pieces(handle: int, content: bytes) -> int:
        time.sleep(0.001)
        return write(handle, content[:100])

    monkeypatch.setattr(os, "write", slow_and_in_pieces)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda entry: append_log(path, entry), entries))

    assert sorted(read_log(path), key=lambda entry: len(entry.message)) == entries


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("date,score\n2026,1\n")

    with pytest.raises(DataError, match="is no log of submissions: its first line is 'date,score'"):
        append_log(path, ENTRY)
    with pytest.raises(DataError, match="is no log of submissions"):
        read_log(path)
    assert path.read_text() == "date,score\n2026,1\n"


def test_a_log_saved_by_a_spreadsheet_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_log(path, ENTRY)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    append_log(path, ENTRY)

    assert read_log(path) == [ENTRY, ENTRY]


def test_a_log_that_is_not_there_has_no_entries(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.csv") == []


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").mkdir()

    with pytest.raises(DataError, match=r"log\.csv"):
        append_log(tmp_path / "log.csv", ENTRY)
    with pytest.raises(DataError, match=r"log\.csv"):
        read_log(tmp_path / "log.csv")
    with pytest.raises(DataError, match=r"log\.csv"):
        update_log(tmp_path / "log.csv", ENTRY, status="pending")


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_log(path, ENTRY)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))

    try:
        with pytest.raises(DataError, match="no space left"):
            append_log(path, ENTRY)
        with pytest.raises(DataError, match="no space left"):
            update_log(path, ENTRY, detail="x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert len(COLUMNS) == len(before.splitlines()[0].split(b","))


def test_a_log_of_before_the_new_columns_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(OLD + "half a li")

    (old,) = read_log(path)
    append_log(path, ENTRY)

    assert (old.run, old.status, old.mark, old.local_score) == ("first", "", "", 1.5)
    assert read_log(path) == [old, ENTRY]
    assert "\nhalf a li\n" in path.read_text()
    assert path.read_text().splitlines()[0].split(",") == list(COLUMNS)


def test_a_line_of_an_old_log_is_updated(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(OLD)

    update_log(path, read_log(path)[0], reference="7", status="complete", public_score=0.25)

    (entry,) = read_log(path)
    assert (entry.reference, entry.status, entry.public_score) == ("7", "complete", 0.25)


@given(
    marks=st.lists(st.sampled_from("abc"), min_size=1, max_size=6),
    place=st.integers(0, 5),
    detail=st.text(st.characters(exclude_categories=["Cs"])).map(lambda t: " ".join(t.split())),
    torn=st.binary(max_size=12).filter(lambda content: b"\n" not in content),
)
@settings(max_examples=50, deadline=None)
def test_an_update_changes_its_own_line_and_no_byte_of_another(
    marks: list[str], place: int, detail: str, torn: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        for number, mark in enumerate(marks):
            append_log(path, replace(ENTRY, mark=f"{mark}{number}"))
        path.write_bytes(path.read_bytes() + torn)
        before = path.read_bytes().split(b"\n")
        place %= len(marks)
        chosen = replace(ENTRY, mark=f"{marks[place]}{place}")

        changed = update_log(path, chosen, status="error", detail=detail)

        after = path.read_bytes().split(b"\n")
        assert changed == replace(chosen, status="error", detail=detail)
        assert [
            n for n, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]
        ] in (
            [place + 1],
            [],
        )
        assert read_log(path)[place] == changed


def test_updates_and_appends_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    entries = [replace(ENTRY, mark=new_mark()) for _ in range(24)]
    for entry in entries[:12]:
        append_log(path, entry)

    with ThreadPoolExecutor(8) as pool:
        updates = [
            pool.submit(update_log, path, entry, reference=str(number + 1), status="pending")
            for number, entry in enumerate(entries[:12])
        ]
        list(pool.map(lambda entry: append_log(path, entry), entries[12:]))
        for update in updates:
            update.result()

    found = {entry.mark: entry.reference for entry in read_log(path)}
    assert found == {e.mark: str(n + 1) if n < 12 else "" for n, e in enumerate(entries)}


def test_a_line_that_is_gone_is_missed(tmp_path: Path) -> None:
    append_log(tmp_path / "log.csv", ENTRY)

    with pytest.raises(DataError, match="has lost the line"):
        update_log(tmp_path / "log.csv", replace(ENTRY, mark="kb-other"), status="pending")


WRITER = """
import sys
from pathlib import Path
from kbdenoise.submission.log import LogEntry, append_log, update_log
path, number = Path(sys.argv[1]), 0
rest = dict.fromkeys(("time", "contest", "run", "csv", "sha256", "metric"), "something long enough")
while True:
    entry = LogEntry(mark=f"{sys.argv[2]}-{number}", status="sending", **rest)
    append_log(path, entry)
    update_log(path, entry, status="pending", reference=str(number))
    print(number, flush=True)
    number += 1
"""


def test_a_process_killed_at_any_moment_leaves_a_whole_log(tmp_path: Path) -> None:
    path, said = tmp_path / "log.csv", {}
    root = str(Path(__file__).parents[2])
    for name in "abcdef":
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": root},
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.013 * (1 + "abcdef".index(name)))
        process.kill()
        said[name] = 1 + len(process.stdout.read().split())

    entries = read_log(path)
    for name, count in said.items():
        own = [e for e in entries if e.mark.split("-")[0] == name]
        assert len(own) in (count, count + 1)
        assert all((e.status, e.reference) == ("pending", e.mark[2:]) for e in own[:count])
        assert all(e.status in ("sending", "pending") for e in own)
    assert len(path.read_text().splitlines()) <= 1 + len(entries) + len(said)
