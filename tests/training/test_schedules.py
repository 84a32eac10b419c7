import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kbdenoise.config import TrainConfig
from kbdenoise.errors import SettingsError
from kbdenoise.notation import Amount, amount
from kbdenoise.resolving import resolve
from kbdenoise.training.schedules import (
    SHAPES,
    Moment,
    RatePlan,
    learning_rate,
    plateaus,
)
from kbdenoise.training.session import rate_plan

NAMES = [*SHAPES, "step", "plateau"]


def at(step: int, *, of: int = 1000, batch: int = 4, pictures: int = 40) -> Moment:
    samples = step * batch
    return Moment(steps=step, epochs=samples / pictures, samples=samples, run=min(1.0, step / of))


def rates(plan: RatePlan, *, until: int = 1000, drops: int = 0) -> list[float]:
    return [learning_rate(plan, at(step), drops=drops) for step in range(until + 1)]


def planned(**settings: Any) -> RatePlan:
    return rate_plan(resolve(TrainConfig(), ("test", settings)))


def test_the_cosine_is_pytorch_s_and_stays_at_its_end_where_that_one_rises_again() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1e-3)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=60, eta_min=1e-4)
    plan = RatePlan(schedule="cosine", lr=1e-3, min_lr=1e-4, length=Amount(60, "epochs"))

    for epoch in range(100):
        ours = learning_rate(plan, at(10 * epoch))
        if epoch <= 60:
            assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        else:
            assert ours == 1e-4 < theirs.get_last_lr()[0]
        optimiser.step()
        theirs.step()


def test_the_exponential_is_the_earlier_works_gamma() -> None:
    plan = RatePlan(schedule="exponential", lr=1e-3, min_lr=1e-4, length=Amount(50, "epochs"))

    for epoch in (0, 1, 17, 50):
        gamma = (1e-4 / 1e-3) ** (1 / 50)
        assert learning_rate(plan, at(10 * epoch)) == pytest.approx(1e-3 * gamma**epoch)
    assert learning_rate(plan, at(900)) == pytest.approx(1e-4)


def test_a_hold_wins_from_its_epoch_on() -> None:
    plan = planned(
        schedule="cosine",
        lr=1e-3,
        min_lr=1e-4,
        lr_length="60 epochs",
        warmup="0",
        lr_hold_from_epoch=59,
        lr_hold=2e-4,
    )

    assert learning_rate(plan, at(589)) == pytest.approx(1e-4, rel=0.02)
    assert {learning_rate(plan, at(step)) for step in (590, 600, 999)} == {2e-4}


@given(name=st.sampled_from(NAMES), first=st.integers(0, 3000), later=st.integers(0, 3000))
def test_without_restarts_no_rate_rises_after_its_warm_up(
    name: str, first: int, later: int
) -> None:
    plan = RatePlan(schedule=name, lr=1e-3, min_lr=1e-6, warmup=Amount(0.02, "run"))
    first, later = sorted((first, later))
    start = 300 if name == "one-cycle" else 20

    if first >= start:
        assert learning_rate(plan, at(later)) <= learning_rate(plan, at(first))
    assert 0 < learning_rate(plan, at(later)) <= 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_rises_straight_from_almost_nothing(name: str) -> None:
    plan = RatePlan(schedule=name, lr=1e-3, min_lr=1e-6, warmup=Amount(100, "steps"))
    cold = RatePlan(schedule=name, lr=1e-3, min_lr=1e-6)

    for step in (1, 50, 99):
        share = learning_rate(plan, at(step)) / learning_rate(cold, at(step))
        assert share == pytest.approx(step / 100)
    assert 0 < learning_rate(plan, at(0)) < 1e-5
    assert learning_rate(plan, at(100)) == learning_rate(cold, at(100))


def test_restarts_go_back_to_the_peak_as_often_as_asked_and_no_more() -> None:
    found = rates(RatePlan(schedule="cosine", lr=1e-3, min_lr=1e-6, restarts=2), until=1500)

    rises = [step for step, (a, b) in enumerate(pairwise(found)) if b > a]
    assert rises == [333, 666]
    assert found[1000:] == [pytest.approx(1e-6)] * 501


def test_the_step_schedule_drops_in_steps_down_to_its_least() -> None:
    plan = planned(
        schedule="step", lr=1e-3, lr_decay=0.1, lr_every="30 epochs", min_lr=5e-6, warmup="0"
    )

    assert learning_rate(plan, at(299)) == pytest.approx(1e-3)
    assert learning_rate(plan, at(300)) == pytest.approx(1e-4)
    assert learning_rate(plan, at(899)) == pytest.approx(1e-5)
    assert learning_rate(plan, at(900)) == pytest.approx(5e-6)


def test_one_cycle_is_pytorch_s() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1e-3)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1e-3, total_steps=1001, final_div_factor=40.0
    )
    plan = RatePlan(schedule="one-cycle", lr=1e-3, min_lr=1e-6)

    for step in range(1000):
        assert learning_rate(plan, at(step)) == pytest.approx(theirs.get_last_lr()[0], rel=0.02)
        optimiser.step()
        theirs.step()


def test_the_plateau_drops_for_every_wait_without_a_better_score() -> None:
    plan = RatePlan(schedule="plateau", lr=1e-3, min_lr=1e-5, decay=0.5)

    assert plateaus([5.0, 4.0, 3.0], patience=2, lower_is_better=True) == 0
    assert plateaus([5.0, 4.0, 4.0, 4.1], patience=2, lower_is_better=True) == 1
    assert plateaus([3.0, math.nan, 4.0, 4.0, 4.0], patience=2, lower_is_better=True) == 2
    assert plateaus([5.0, 4.0, 3.0], patience=2, lower_is_better=False) == 1
    assert learning_rate(plan, at(500), drops=2) == pytest.approx(2.5e-4)
    assert learning_rate(plan, at(500), drops=20) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2000 steps", Amount(2000, "steps")),
        ("2000", Amount(2000, "steps")),
        ("1 step", Amount(1, "steps")),
        ("60 epochs", Amount(60, "epochs")),
        ("0.5 epochs", Amount(0.5, "epochs")),
        ("1.6M samples", Amount(1.6e6, "samples")),
        ("3%", Amount(0.03, "run")),
        ("0.5%", Amount(0.005, "run")),
        ("0", Amount(0, "steps")),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, found: Amount) -> None:
    assert amount(text, name="--warmup") == found


@pytest.mark.parametrize("text", ["", "soon", "0.02", "-5", "120%", "5 stepss", "1.5 steps", "%"])
def test_what_is_no_amount_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SettingsError, match="--warmup") as caught:
        amount(text, name="--warmup")

    assert "60 epochs" in caught.value.hint


def test_a_hold_without_a_rate_keeps_what_the_step_before_had() -> None:
    plan = RatePlan(
        schedule="cosine", lr=1e-3, min_lr=1e-6, hold_from=Amount(40.0, "epochs"), hold=0.0
    )

    last = 0.0
    rates = []
    for step in range(1000):
        last = learning_rate(plan, at(step), last=last)
        rates.append(last)

    assert rates[399] < rates[398]
    assert set(rates[400:]) == {rates[399]}
