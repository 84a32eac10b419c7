import os
from pathlib import Path

import pytest

from kbdenoise.errors import DataError
from kbdenoise.inference.ledger import Ledger, stamp


def test_a_line_that_the_disk_did_not_take_hides_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(b"picture")
    path, targets = tmp_path / "ledger.jsonl", [tmp_path / f"{n}.png" for n in range(4)]
    for target in targets:
        target.touch()
    ledger, made = Ledger(path, {"model": "m"}), stamp(source)
    ledger.note(targets[0], made)

    def full(_: int) -> None:
        path.write_bytes(path.read_bytes()[:-9])  # half of the line is on the disk
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="no space left"):
            ledger.note(targets[1], made)
    ledger.note(targets[2], made)
    ledger.note(targets[3], made)

    again = Ledger(path, {"model": "m"})
    assert [again.has(target, made) for target in targets] == [True, False, True, True]


def test_what_other_work_has_done_does_not_count(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_bytes(b"picture")
    Ledger(tmp_path / "ledger.jsonl", {"model": "m"}).note(source, stamp(source))

    assert not Ledger(tmp_path / "ledger.jsonl", {"model": "n"}).has(source, stamp(source))
    assert Ledger(tmp_path / "ledger.jsonl", {"model": "m"}).has(source, stamp(source))
