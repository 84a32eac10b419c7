"""What the tests of this room share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kbdenoise
from kbdenoise.contests.formats import csv_bytes, pixels_long


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that small files have many edges between them."""
    monkeypatch.setattr(pixels_long, "_BLOCK", 7)
    monkeypatch.setattr(csv_bytes, "_CHUNK", 64)


RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_as_person(tmp_path: Path) -> RunScript:
    """Runs Python code in the temporary folder, bound by file permissions even if root tests."""
    words = [sys.executable, "-c"]
    if os.name == "nt":
        pytest.skip("permissions work otherwise here")
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may read everything, and setpriv is not installed")
        no_rights = "-dac_override,-dac_read_search"
        words = ["setpriv", "--bounding-set", no_rights, "--inh-caps", no_rights, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(kbdenoise.__file__).parents[1])}

    def run(code: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*words, code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run
