from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kbdenoise.config import OptimiserSettings
from kbdenoise.contests.contest import LocalContest
from kbdenoise.models.build import build_model
from kbdenoise.team import Team
from kbdenoise.training import step as step_module
from kbdenoise.training.optimisers import OPTIMISERS, Muon, make_optimiser, orthogonalised
from kbdenoise.training.session import Session
from kbdenoise.training.step import chance
from kbdenoise.training.train import train
from tests.conftest import MakeContest
from tests.training.test_train import TINY, assert_equal_weights, stop_at


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 3, 3, padding=1),
    )


def learn(model: nn.Module, optimiser: torch.optim.Optimizer, steps: int) -> list[float]:
    torch.manual_seed(5)
    images, target = torch.rand(4, 3, 12, 12), torch.rand(4, 3, 12, 12)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (model(images) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_brings_the_loss_down(name: str) -> None:
    model = network()
    rate = 0.05 if name == "sgd" else 3e-3

    losses = learn(model, make_optimiser(model, OptimiserSettings(optimiser=name, lr=rate)), 60)  # type: ignore[arg-type]

    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_only_kernels_are_decayed(name: str) -> None:
    """With no gradient but zero, decoupled decay alone moves the weights."""
    model = network()
    wanted = OptimiserSettings(optimiser=name, lr=0.1, weight_decay=0.5)  # type: ignore[arg-type]
    optimiser = make_optimiser(model, wanted)

    decays = {
        id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]
    }

    for parameter in model.parameters():
        assert decays[id(parameter)] == (0.5 if parameter.ndim == 4 else 0.0)


def test_muon_takes_inner_kernels_as_matrices_and_nothing_else() -> None:
    model = network()

    optimiser = make_optimiser(model, OptimiserSettings(optimiser="muon"))

    matrices = {
        id(p) for group in optimiser.param_groups for p in group["params"] if group["matrices"]
    }
    assert matrices == {id(model[1].weight), id(model[3].weight)}  # type: ignore[arg-type]


def test_muon_is_adamw_for_everything_else() -> None:
    ours, theirs = network(), network()
    flat = [{"params": list(ours.parameters()), "weight_decay": 0.01, "matrices": False}]

    mine = learn(ours, Muon(flat, lr=1e-3, betas=(0.9, 0.99)), 10)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    other = learn(theirs, adamw, 10)

    np.testing.assert_allclose(mine, other, rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 72), (2, 40, 8), (1, 1, 9)])
def test_orthogonalised_matrices_have_singular_values_about_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)

    made = orthogonalised(matrices)

    values = torch.linalg.svdvals(made)
    assert made.shape == matrices.shape
    assert float(values.min()) > 0.3 and float(values.max()) < 1.35
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    nearest = u @ v
    assert float((made * nearest).sum() / nearest.square().sum()) > 0.65  # the same directions


def test_a_gradient_of_nothing_moves_nothing() -> None:
    assert torch.equal(orthogonalised(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_muon_s_steps_are_as_large_as_adamw_s() -> None:
    ours = network()
    before = ours[1].weight.detach().clone()  # type: ignore[union-attr]
    optimiser = make_optimiser(ours, OptimiserSettings(optimiser="muon", lr=1.0, weight_decay=0.0))

    learn(ours, optimiser, 1)

    moved = ours[1].weight.detach() - before  # type: ignore[union-attr,operator]
    assert 0.1 < float(moved.square().mean().sqrt()) < 0.3


@pytest.mark.parametrize("name", ["adam", "sgd", "muon"])
def test_a_run_with_any_optimiser_resumes_exactly(
    contest: LocalContest, tmp_path: Path, name: str
) -> None:
    changes: dict[str, Any] = TINY | {"optimiser": name, "lr": 1e-3}
    whole = train(contest.folder, runs=tmp_path / "whole", **changes)
    train(contest.folder, runs=tmp_path / "cut", progress=stop_at(5), **changes)

    resumed = train(resume="last", runs=tmp_path / "cut")

    assert_equal_weights(whole.run, resumed.run)


def test_no_two_steps_and_no_two_processes_draw_alike() -> None:
    seeds = [chance(seed, step=s, rank=r) for seed in (0, 1) for s in range(50) for r in range(4)]

    assert len(set(seeds)) == len(seeds)
    assert chance(3, step=7, rank=1) == chance(3, step=7, rank=1)


def test_dropout_is_drawn_by_the_step_whatever_was_drawn_before(
    make_contest: MakeContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other work in the process, such as a validation, draws random numbers too."""
    contest = make_contest(height=72, width=64)
    changes = TINY | {"model": "pix2pix", "hyper": "levels=6", "patch": 64, "width": 4, "steps": 4}
    plain = train(contest.folder, runs=tmp_path / "a", **changes)
    gradients = step_module._gradients

    def after_other_work(session: Session, batch: Any) -> torch.Tensor:
        torch.rand(session.now.step + 1)
        return gradients(session, batch)

    monkeypatch.setattr(step_module, "_gradients", after_other_work)
    disturbed = train(contest.folder, runs=tmp_path / "b", **changes)

    assert_equal_weights(plain.run, disturbed.run)


def test_a_step_s_chance_is_that_of_its_own_process(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients, ranks = step_module._gradients, []

    def noted(seed: int, *, step: int, rank: int) -> int:
        ranks.append(rank)
        return chance(seed, step=step, rank=rank)

    def of_another_process(session: Session, batch: Any) -> torch.Tensor:
        team, session.team = session.team, Team(rank=3)
        try:
            return gradients(session, batch)
        finally:
            session.team = team

    monkeypatch.setattr(step_module, "chance", noted)
    monkeypatch.setattr(step_module, "_gradients", of_another_process)
    train(contest.folder, runs=tmp_path, **(TINY | {"steps": 2}))

    assert ranks == [3, 3]


def test_kernel_bases_are_matrices_and_their_biases_are_not_decayed() -> None:
    torch.manual_seed(0)
    small = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
    model = build_model("kbnet-s", channels=3, width=4, **small)
    wanted = OptimiserSettings(optimiser="muon", lr=0.1, weight_decay=0.5)
    optimiser = make_optimiser(model, wanted)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(p)]: g for g in optimiser.param_groups for p in g["params"]}
    bases = [name for name, p in model.named_parameters() if p.ndim == 3 and p.shape[0] == 1]
    kernels = [name for name in bases if name.endswith(".w")]
    assert kernels and len(kernels) < len(bases)

    for name in bases:
        assert groups[name]["matrices"] == groups[name]["weight_decay"] * 2 == (name in kernels)
    before = model.get_parameter(kernels[0]).detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    groups[kernels[0]]["weight_decay"] = 0.0
    optimiser.step()

    moved = (model.get_parameter(kernels[0]).detach() - before)[0]  # [bases, values]
    values = torch.linalg.svdvals(moved)
    assert values.max() < 5 * values.min()  # every basis goes its own way


def test_the_momentum_of_muon_is_what_was_asked_for() -> None:
    ends = []
    for beta1 in (0.5, 0.95):
        model = network()
        learn(model, make_optimiser(model, OptimiserSettings(optimiser="muon", beta1=beta1)), 3)
        ends.append(model[1].weight.detach())  # type: ignore[union-attr]

    assert not torch.allclose(ends[0], ends[1])
