import os
import signal
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.interrupt import StopRequest
from kbdenoise.training.schedules import warmup_cosine

SCHEDULE = {"lr": 1e-3, "min_lr": 1e-6, "warmup": 0.1}


def test_the_rate_rises_in_warm_up_and_falls_to_its_end() -> None:
    rates = [warmup_cosine(i / 1000, **SCHEDULE) for i in range(1001)]

    assert rates[100] == pytest.approx(1e-3, rel=1e-3)
    assert rates[-1] == pytest.approx(1e-6)
    assert all(a <= b for a, b in pairwise(rates[:101]))
    assert all(a >= b for a, b in pairwise(rates[100:]))


@given(st.floats(0, 3))
def test_the_rate_never_rises_again_past_the_end(progress: float) -> None:
    rate = warmup_cosine(progress, **SCHEDULE)

    assert 0 < rate <= 1e-3
    if progress >= 1:
        assert rate == pytest.approx(1e-6)


def test_a_schedule_without_warm_up_starts_at_its_peak() -> None:
    assert warmup_cosine(0.0, lr=1e-3, min_lr=0.0, warmup=0.0) == pytest.approx(1e-3)


def test_the_average_follows_the_weights_by_its_decay() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.5)
    start = model.weight.detach().clone()

    with torch.no_grad():
        model.weight += 1.0
    average.update(model, step=1000)

    assert torch.allclose(average.model.weight, start + 0.5)
    assert not average.model.weight.requires_grad
    assert model.weight.requires_grad


def test_a_young_average_forgets_its_random_start() -> None:
    model = nn.Linear(1, 1)
    average = WeightAverage(model, decay=0.999)

    for step in range(1, 30):
        with torch.no_grad():
            model.weight.fill_(7.0)
        average.update(model, step=step)

    assert float(average.model.weight) == pytest.approx(7.0, abs=0.01)


def test_no_average_is_the_model_itself() -> None:
    model = nn.Linear(1, 1)

    assert WeightAverage(model, decay=0.0).model is model


def test_buffers_are_averaged_by_copy() -> None:
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, decay=0.9)

    model(torch.randn(4, 2, 3, 3))
    average.update(model, step=1)

    assert torch.equal(average.model.running_mean, model.running_mean)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops(number: int) -> None:
    before = signal.getsignal(number)

    with StopRequest() as request:
        os.kill(os.getpid(), number)
        assert request.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)

    assert signal.getsignal(number) is before
