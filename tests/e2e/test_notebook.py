"""The notebook for Kaggle's offline competitions, executed where there is no network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kbdenoise
from kbdenoise.contests.demo import make_demo_contest
from tests.fake_kaggle.fixtures import clean_environment

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "kaggle_offline.ipynb"

# Any name or address that is asked for ends the process; Kaggle's client cannot be imported.
BLOCKED = """
import socket, sys, os
def refuse(*arguments, **options):
    sys.stderr.write(f"the network was touched: {arguments}")
    os._exit(77)
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
sys.modules["kaggle"] = sys.modules["kagglesdk"] = None
"""


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_made_of_its_script(tmp_path: Path) -> None:
    for name in ("make_notebook.py", "kaggle_offline.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path)

    subprocess.run([sys.executable, str(tmp_path / "make_notebook.py")], check=True)

    assert (tmp_path / NOTEBOOK.name).read_bytes() == NOTEBOOK.read_bytes()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Kaggle would mount: the competition, and a run trained for three steps."""
    folder = tmp_path_factory.mktemp("kaggle")
    competition = folder / "input" / "competitions" / "khu-descan"
    make_demo_contest(competition, train_pages=3, test_pages=2)
    shutil.rmtree(competition / "truth")
    (folder / "working").mkdir()
    size: dict[str, Any] = {"model": "unet", "width": 4, "patch": 16, "batch": 1, "steps": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in set(os.environ) - set(environment(folder)):
            patch.delenv(name)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        kbdenoise.fetch("khu-descan", data=Path("elsewhere"), kaggle_input=folder / "input")
        places = {"data": Path("elsewhere"), "runs": Path("input/my-run/runs")}
        kbdenoise.train("khu-descan", **places, **size, folds=3, fold=0, device="cpu", threads=1)
    return folder


def environment(folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "KBDENOISE_KAGGLE_ROOT": str(folder), "HOME": str(folder)}
    return clean_environment() | own | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def in_notebook(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python in the working folder of a notebook whose network is blocked."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder / "working",
        env=environment(folder) | {"KAGGLE_KERNEL_RUN_TYPE": "Batch"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_notebook_writes_its_submission_without_network(machine: Path) -> None:
    install, *cells = code_cells()
    assert install.startswith(
        "!pip install --quiet --no-index --find-links"
    )  # the only one left out

    done = in_notebook(machine, "-c", "\n".join([BLOCKED, *cells]))

    assert done.returncode == 0, done.stderr
    rows = (machine / "working" / "submission.csv").read_text().splitlines()
    assert rows[0] == "Image File,Y Channel Value"
    assert len(rows) == 5
    assert all(np.isfinite(float(row.split(",")[1])) for row in rows[1:])
    assert "submission.csv: 4 rows" in done.stdout


def test_the_command_does_the_same_under_the_name_that_the_contest_wants(machine: Path) -> None:
    described = machine / "working" / "data" / "khu-descan" / "contest.toml"
    text = described.read_text().replace('notebook_file = ""', 'notebook_file = "answers.csv"')
    described.write_text(text)
    (run,) = (path.parent for path in machine.glob("input/my-run/**/run.json"))
    words = ["submit", str(run), "--contest", "khu-descan", "--device", "cpu"]
    start = f"{BLOCKED}\nfrom kbdenoise.cli.app import main; sys.exit(main({words!r}))"

    done = in_notebook(machine, "-c", start)

    assert done.returncode == 0, done.stderr
    assert "answers.csv   4 rows · checked" in done.stdout
    assert "where Kaggle looks for it" in done.stdout
    assert os.path.isfile(machine / "working" / "answers.csv")
