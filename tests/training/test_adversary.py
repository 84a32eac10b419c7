"""Adversarial training beside a pixel loss."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.config import TrainConfig
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.batches import Images
from kbdenoise.devices import choose_device
from kbdenoise.errors import SettingsError
from kbdenoise.resolving import resolve
from kbdenoise.team import ALONE
from kbdenoise.training.adversary import Adversary
from kbdenoise.training.state import read_state
from kbdenoise.training.train import train
from tests.training.test_train import TINY, assert_equal_weights, stop_at

PIX2PIX: dict[str, Any] = {
    **TINY,
    "model": "pix2pix",
    "hyper": "levels=3",
    "patch": 32,
    "batch": 4,
    "loss": "100*l1 + adversarial",
    "adversary_width": 4,
    "adversary_layers": 2,
}


def adversary(**changes: Any) -> Adversary:
    config = resolve(TrainConfig(), ("test", PIX2PIX | changes))
    torch.manual_seed(0)
    made = Adversary(config, channels=3, device=choose_device("cpu"), team=ALONE)
    for parameter in made.critic.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made


def images(count: int = 4) -> tuple[Images, torch.Tensor]:
    torch.manual_seed(1)
    noisy, clean = torch.rand(count, 3, 32, 32), torch.rand(count, 3, 32, 32)
    return Images(noisy=noisy, clean=clean, page=None), torch.rand(count, 3, 32, 32)


def test_its_verdict_has_a_gradient_for_the_restored_patches_and_none_for_itself() -> None:
    judge = adversary()
    batch, restored = images()
    restored.requires_grad_()

    verdict = judge.judged(batch.noisy, restored)
    verdict.sum().backward()

    assert verdict.shape == (4,)
    assert restored.grad is not None and restored.grad.abs().max() > 0
    assert all(p.grad is None and p.requires_grad for p in judge.critic.parameters())


def test_it_learns_to_tell_restored_from_clean() -> None:
    judge = adversary(adversary_lr=2e-3)
    batch, _ = images()
    restored = batch.clean * 0.5
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    before = (
        judge.judged(batch.noisy, restored).mean() - judge.judged(batch.noisy, batch.clean).mean()
    )

    for _ in range(30):
        judge.forget()
        judge.learn(batch, restored, share=0.25, scaler=scaler, last=True)
        judge.move(rate=1.0, scaler=scaler)

    after = (
        judge.judged(batch.noisy, restored).mean() - judge.judged(batch.noisy, batch.clean).mean()
    )
    assert float(after) > float(before) + 0.3


def test_a_gradient_that_is_not_finite_does_not_move_it() -> None:
    judge = adversary()
    batch, restored = images()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    before = [p.detach().clone() for p in judge.critic.parameters()]

    judge.forget()
    judge.learn(batch, restored * float("inf"), share=0.25, scaler=scaler, last=True)
    judge.move(rate=1.0, scaler=scaler)

    assert all(torch.equal(a, b) for a, b in zip(before, judge.critic.parameters(), strict=True))


@pytest.mark.parametrize(
    ("precision", "accumulate"),
    [("fp32", 1), ("fp32", 2), ("bf16", 1), ("bf16", 2), ("fp16", 2)],
)
def test_a_resumed_run_has_the_same_generator_and_the_same_discriminator(
    contest: LocalContest, tmp_path: Path, precision: str, accumulate: int
) -> None:
    changes = PIX2PIX | {"accumulate": accumulate, "precision": precision}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)
    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)

    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)
    one, other = (read_state(r.run / "state.pt") for r in (whole, resumed))
    for key, tensor in one["adversary"].items():
        assert torch.equal(tensor, other["adversary"][key]), key
    assert one["scaler"] == other["scaler"] and bool(one["scaler"]) == (precision == "fp16")


def test_the_adversarial_term_changes_what_is_learnt(contest: LocalContest, tmp_path: Path) -> None:
    plain = train(contest.folder, runs=tmp_path / "a", **(PIX2PIX | {"loss": "100*l1"}))
    both = train(contest.folder, runs=tmp_path / "b", **PIX2PIX)

    with pytest.raises(AssertionError):
        assert_equal_weights(plain.run, both.run)


def test_patches_too_small_to_be_judged_are_refused_before_a_run_is_made(
    contest: LocalContest, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="at least 24 px") as caught:
        train(
            contest.folder, runs=tmp_path / "r", **(PIX2PIX | {"adversary_layers": 3, "patch": 16})
        )

    assert "--adversary-layers" in caught.value.hint
    assert not (tmp_path / "r").exists()
