"""A folder with a contest that is at the fake Kaggle, and a file to hand in."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kbdenoise.contests.contest import Contest, write_contest
from kbdenoise.imaging.files import write_image
from kbdenoise.submission.log import LogEntry, read_log
from tests.conftest import smooth_picture
from tests.fake_kaggle.fixtures import clean_environment
from tests.fake_kaggle.server import FakeKaggle

SOLUTION = "id,value,Usage\n7,10,Public\n8,20,Private\n"


@dataclass(frozen=True)
class Home:
    """A working folder; its file scores 1 publicly and 3 privately."""

    folder: Path
    kaggle: FakeKaggle

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def submissions(self) -> Path:
        return self.folder / "submissions"

    @property
    def file(self) -> Path:
        return self.folder / "mine.csv"

    @property
    def log(self) -> list[LogEntry]:
        return read_log(self.submissions / "log.csv")

    def write(self, *values: float) -> Path:
        """The file with these answers instead."""
        rows = [f"{name},{value}" for name, value in zip(("7", "8"), values, strict=True)]
        self.file.write_text("\n".join(["Image File,Y Channel Value", *rows, ""]))
        return self.file

    def environment(self, *, credential: str = "key") -> dict[str, str]:
        """For a child process."""
        own = {"PYTHONPATH": str(Path(__file__).parents[2]), "NO_COLOR": "1"}
        home = self.folder / "home"
        return clean_environment() | self.kaggle.environment(home, credential=credential) | own

    def run(
        self, *words: str, credential: str = "key", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """The program in a child process, far from any terminal."""
        return subprocess.run(
            [sys.executable, "-m", "kbdenoise", *words],
            cwd=self.folder,
            env=self.environment(credential=credential) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


def make_home(folder: Path, kaggle: FakeKaggle, *, url: str = "") -> Home:
    """A contest called `pages` here and `tiny` at Kaggle: two test pictures, mean luma."""
    root = folder / "data" / "pages"
    for kind, names in (("train/noisy", "12"), ("train/clean", "12"), ("test", "78")):
        for name in names:
            write_image(root / kind / f"{name}.png", smooth_picture(int(name), height=8, width=8))
    contest = Contest(
        slug="pages",
        test="test",
        metric="mae-mean-luma",
        format="mean-luma",
        url=url or "https://www.kaggle.com/competitions/tiny",
    )
    write_contest(root / "contest.toml", contest)
    home = Home(folder=folder, kaggle=kaggle)
    home.write(11, 23)
    return home
