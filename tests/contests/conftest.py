"""What the tests of this room share."""

import pytest

from kbdenoise.contests.formats import csv_bytes, pixels_long


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small files have many edges between them."""
    monkeypatch.setattr(pixels_long, "_BLOCK", 7)
    monkeypatch.setattr(csv_bytes, "_CHUNK", 64)
