import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, lists, one_of, sampled_from

from kbdenoise.contests.formats.csv_bytes import Bytes, numbers

ODD = [
    "nan",
    "inf",
    "-0",
    "+1.5",
    "1e-3",
    "1.",
    ".5",
    "00.10",
    "123456789012345",
    "0.1234567890123",
]
BROKEN = ["", ".", "1.2.3", "1_0", "x", "0,5", "1 2", "--1", "0x10", "."]


def padded(texts: list[str]) -> Bytes:
    """Texts as rows of bytes, a newline behind each, null-padded to the longest."""
    width = max(len(text) for text in texts) + 1
    rows = [np.frombuffer(f"{text}\n".encode().ljust(width, b"\0"), np.uint8) for text in texts]
    return np.stack(rows)


@settings(deadline=None, max_examples=300)
@given(
    lists(
        one_of(
            floats(0, 1).map(lambda x: f"{x:.5f}"),
            floats(0, 1).map(lambda x: f"{x:.5f}".rstrip("0").rstrip(".")),
            floats(0, 1e6).map(repr),
            integers(0, 10**15 - 1).map(str),
            sampled_from(ODD),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_number_is_read_as_python_reads_it(texts: list[str]) -> None:
    result = numbers(padded(texts))

    assert result is not None and result.dtype == np.float64
    np.testing.assert_array_equal(result, [float(text) for text in texts])


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("broken", BROKEN)
def test_one_text_that_is_no_number_makes_all_doubtful(broken: str, place: int) -> None:
    texts = ["0.5", "0.25", "1"]
    texts[place] = broken

    assert numbers(padded(texts)) is None
