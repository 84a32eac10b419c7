"""The log of submissions: nothing is lost, torn or guessed."""

import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.errors import DataError
from kbdenoise.submission.log import COLUMNS, LogEntry, append_log, read_log

ENTRY = LogEntry(
    time="2026-11-22T14:32:05+00:00",
    contest="khu-descan",
    run="brisk-otter",
    csv="submissions/brisk-otter.csv",
    sha256="0f" * 32,
    metric="mae-mean-luma",
    local_score=1.861,
    message='ema, "longer"',
)


def test_the_log_begins_with_its_columns_and_leaves_room_for_the_public_score(
    tmp_path: Path,
) -> None:
    append_log(tmp_path / "submissions" / "log.csv", ENTRY)

    assert (tmp_path / "submissions" / "log.csv").read_text() == (
        "time,contest,run,csv,sha256,metric,local_score,message,reference,public_score\n"
        "2026-11-22T14:32:05+00:00,khu-descan,brisk-otter,submissions/brisk-otter.csv,"
        f'{"0f" * 32},mae-mean-luma,1.861,"ema, ""longer""",,\n'
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


@pytest.mark.parametrize("killed_at", range(1, 340, 13))
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


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    append_log(path, ENTRY)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40, hard))

    try:
        with pytest.raises(DataError, match="no space left"):
            append_log(path, ENTRY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert len(COLUMNS) == len(before.splitlines()[0].split(b","))
