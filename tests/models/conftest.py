"""Weights drawn so that no parameter keeps its default, the same on every machine."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

Randomise = Callable[[nn.Module], nn.Module]


@pytest.fixture(scope="session")
def randomised() -> Randomise:
    """A function that fills a model's tensors by their names alone and sets it to evaluation."""

    def fill(model: nn.Module) -> nn.Module:
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if tensor.is_floating_point():
                    tensor.copy_(torch.from_numpy(_drawn(name, tuple(tensor.shape))))
        return model.eval()

    return fill


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of about the size that keeps activations at 1; a variance is positive."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    fan = int(np.prod(shape[1:])) if len(shape) == 4 and shape[0] > 1 else 1
    if name.endswith("running_var"):
        drawn = 0.5 + np.abs(drawn)
    return (0.7 * drawn * fan**-0.5).astype(np.float32)
