"""Stages of a run: patches that grow, and whole pages at the end."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.stages import Samplers
from kbdenoise.notation import parse_stages
from kbdenoise.training import step as step_module
from kbdenoise.training.session import batches_ahead
from kbdenoise.training.train import train
from tests.training.test_train import TINY, assert_equal_weights, stop_at

STAGES = "16x4:50% 32x2:25% pagex2:25%"


def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the batches that are trained on."""
    shapes: list[tuple[int, ...]] = []
    to_images = step_module.to_images

    def noted(batch: Any, **words: Any) -> Any:
        images = to_images(batch, **words)
        shapes.append(tuple(images.noisy.shape))
        return images

    monkeypatch.setattr(step_module, "to_images", noted)
    return shapes


def test_every_stage_has_its_share_of_the_steps(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = seen(monkeypatch)

    train(contest.folder, runs=tmp_path, **(TINY | {"stages": STAGES, "accumulate": 1}))

    assert shapes == [(4, 3, 16, 16)] * 6 + [(2, 3, 32, 32)] * 3 + [(2, 3, 48, 40)] * 3


@pytest.mark.parametrize("stop", [5, 10])
def test_a_run_in_stages_resumes_to_the_same_weights(
    contest: LocalContest, tmp_path: Path, stop: int
) -> None:
    changes = TINY | {"stages": STAGES}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)

    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(stop), **changes)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)


def test_epochs_and_samples_count_what_the_stages_show(
    contest: LocalContest, tmp_path: Path
) -> None:
    changes = {k: v for k, v in TINY.items() if k != "steps"} | {"stages": STAGES}

    by_samples = train(contest.folder, runs=tmp_path / "a", samples=30, **changes)
    by_epochs = train(contest.folder, runs=tmp_path / "b", epochs=5.0, **changes)

    assert by_samples.steps == 10  # of 3 patches on average
    assert by_epochs.steps == 10  # six pictures are trained on


def test_augmented_runs_resume_to_the_same_weights(contest: LocalContest, tmp_path: Path) -> None:
    changes = TINY | {"mixup": 0.5, "noise": 0.05, "print_scan": 0.3, "camera_noise": 0.05}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)
    plain = train(contest.folder, runs=tmp_path / "plain", **TINY)

    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)
    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    with pytest.raises(AssertionError):
        assert_equal_weights(whole.run, plain.run)
    assert not torch.isnan(torch.tensor(resumed.best_score))


def test_every_stage_begins_with_a_new_pass_over_the_pictures(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[int, int]] = []
    of = Samplers.of

    def noted(self: Samplers, number: int, *, first_step: int = 0) -> Any:
        begun.append((number, first_step))
        return of(self, number, first_step=first_step)

    monkeypatch.setattr(Samplers, "of", noted)
    train(contest.folder, runs=tmp_path, **(TINY | {"stages": STAGES}))

    assert begun[3:] == [(0, 0), (1, 6), (2, 9)]  # after each was tried once


@pytest.mark.parametrize(
    ("batch", "side", "ahead"), [(2, 128, 8), (8, 256, 8), (1, 8000, 1), (2, 2048, 2), (64, 64, 8)]
)
def test_fewer_batches_of_large_pages_are_made_ahead(batch: int, side: int, ahead: int) -> None:
    stage = parse_stages("", patch=side, batch=batch)[0]

    assert batches_ahead(stage, side=side) == ahead
