import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdenoise.cli.words import (
    cell_width,
    duration,
    event_values,
    figure,
    pairs,
    plain_values,
    printable,
    size,
    table,
    to_json,
)


@dataclass(frozen=True)
class Inner:
    score: float
    stem: str


@dataclass(frozen=True)
class Outer:
    path: Path
    rows: tuple[Inner, ...]
    best: float
    steps: int
    mean: np.float32


def test_json_is_one_line_with_the_names_of_the_api() -> None:
    outer = Outer(Path("runs/a"), (Inner(1.5, "ü"),), math.nan, 3, np.float32(0.5))

    text = to_json("train", outer)

    assert "\n" not in text
    assert json.loads(text) == {
        "command": "train",
        "path": "runs/a",
        "rows": [{"score": 1.5, "stem": "ü"}],
        "best": None,
        "steps": 3,
        "mean": 0.5,
    }


def test_what_json_cannot_say_is_null() -> None:
    content = json.loads(to_json("x", {"a": math.inf, "b": -math.inf, "c": math.nan, "d": None}))

    assert content == {"command": "x", "a": None, "b": None, "c": None, "d": None}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "inf"),
        (True, "yes"),
        (14_000_000, "14,000,000"),
        (1.8614, "1.861"),
        (0.015432, "0.01543"),
        (27.9312, "27.93"),
        (12_345.6, "12,346"),
        (0.0, "0.000"),
        ("kbnet-s", "kbnet-s"),
    ],
)
def test_figures_have_four_digits(value: object, expected: str) -> None:
    assert figure(value) == expected  # type: ignore[arg-type]


def test_durations_and_sizes_are_short() -> None:
    assert [duration(s) for s in (0, 13, 754, 3723)] == ["0:00", "0:13", "12:34", "1:02:03"]
    assert [size(b) for b in (210 * 1024**2, 61 * 1024**3)] == ["210 MiB", "61.0 GiB"]


def test_numbers_of_a_column_are_rounded_alike_and_stand_on_the_right() -> None:
    rows = [
        {"run": "brisk-otter", "steps": 20_000, "best": 1.861},
        {"run": "calm", "steps": 5, "best": 13.9},
        {"run": "new", "steps": 0, "best": None},
    ]

    assert table(rows) == (
        "  run            steps    best\n"
        "  brisk-otter   20,000    1.86\n"
        "  calm               5   13.90\n"
        "  new                0       -"
    )


def test_a_table_wider_than_the_terminal_becomes_blocks_with_nothing_cut_off() -> None:
    rows = [{"run": "2026-11-22_kbnet-s_brisk-otter", "best": 1.861}, {"run": "b", "best": 2.0}]

    assert table(rows, width=36) == (
        "  run   2026-11-22_kbnet-s_brisk-otter\n  best  1.861\n\n  run   b\n  best  2.000"
    )


def test_columns_stay_aligned_behind_wide_letters_and_broken_names() -> None:
    rows = [{"file": "日本.png", "n": 1}, {"file": "a\x1b[2Jb\n.png", "n": 22}]

    lines = table(rows).splitlines()

    assert len({cell_width(line) for line in lines}) == 1
    assert "\x1b" not in table(rows)


def test_an_empty_table_is_an_empty_text() -> None:
    assert table([]) == ""


def test_pairs_are_aligned() -> None:
    assert pairs({"status": "finished", "steps": 5}) == "  status   finished\n  steps    5"


@given(st.text())
def test_no_text_can_move_the_cursor(text: str) -> None:
    assert all(c == "\n" or c.isprintable() for c in printable(text))


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_readable_text_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_bytes_that_are_no_letters_are_written_out() -> None:
    name = b"page\xff.png".decode("utf-8", "surrogateescape")

    assert printable(name) == r"page\udcff.png"


def test_figures_of_an_event_are_said_with_their_units() -> None:
    values = {"loss": 0.0231, "images_per_s": 142.0, "memory_gib": 9.8, "left_s": 13, "best": "yes"}

    assert event_values(values) == (
        "loss 0.02310  142.0 images/s  memory 9.800 GiB  left 0:13  best yes"
    )
    assert plain_values(values) == (
        "loss=0.02310 images_per_s=142.0 memory_gib=9.800 left_s=13 best=yes"
    )
