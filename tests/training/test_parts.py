import os
import signal

import pytest
import torch
from torch import nn

from kbdenoise.training.ema import WeightAverage
from kbdenoise.training.interrupt import StopRequest


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
