"""Tiny seeded pictures and contests, made on the spot; no network, no GPU, no clock."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kbdenoise.contests.contest import CONTEST_FILE, Contest, LocalContest, write_contest
from kbdenoise.imaging.files import FloatImage, write_image

pytest_plugins = ["tests.fake_kaggle.fixtures"]

SHARED = Path(os.environ.get("KBDENOISE_SHARED", Path(__file__).parents[2] / "shared" / "data"))

MakeContest = Callable[..., LocalContest]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pictures; tests that use it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no real pictures in {SHARED}; name their folder in KBDENOISE_SHARED")
    return SHARED


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are added in one order, whatever machine runs the tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth_picture(
    seed: int, *, height: int = 48, width: int = 40, channels: int = 3
) -> FloatImage:
    """Coloured blobs: float32 [H, W, C] in [0, 1]."""
    noise = np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)
    blurred = np.atleast_3d(cv2.GaussianBlur(noise, (0, 0), 3.0))
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low)).astype(np.float32)


def degraded(clean: FloatImage, seed: int) -> FloatImage:
    """Lifted blacks and some noise, as a scanner would."""
    noise = np.random.default_rng(seed).normal(0, 0.03, clean.shape)
    return np.clip(0.2 + 0.75 * clean + noise, 0.0, 1.0).astype(np.float32)


@pytest.fixture
def make_contest(tmp_path: Path) -> MakeContest:
    """A function that makes a contest of small pairs, two to a group, in a temporary folder."""

    def make(
        *,
        pages: int = 4,
        tests: int = 2,
        height: int = 48,
        width: int = 40,
        channels: int = 3,
        slug: str = "tiny",
        **rules: object,
    ) -> LocalContest:
        folder = tmp_path / "data" / slug
        chosen: dict[str, object] = {
            "metric": "mae-mean-luma",
            "format": "mean-luma",
            "group_pattern": r"(.+?)(?:\.\d{2})?$",
            "test": "test/noisy",
            "truth": "truth/clean",
        }
        contest = Contest(slug=slug, channels=channels, **(chosen | rules))  # type: ignore[arg-type]
        places = [("train/noisy", "train/clean", p) for p in range(pages)]
        places += [("test/noisy", "truth/clean", 100 + p) for p in range(tests)]
        for noisy_folder, clean_folder, page in places:
            for crop in (1, 2):
                seed = 10 * page + crop
                clean = smooth_picture(seed, height=height, width=width, channels=channels)
                name = f"Page.{page:05d}.{crop:02d}.png"
                write_image(folder / clean_folder / name, clean)
                write_image(folder / noisy_folder / name, degraded(clean, seed))
        write_contest(folder / CONTEST_FILE, contest)
        return LocalContest(folder=folder, contest=contest)

    return make


@pytest.fixture
def contest(make_contest: MakeContest) -> LocalContest:
    """Eight RGB pairs of 48x40 px in four groups, four test pictures with their truths."""
    return make_contest()
