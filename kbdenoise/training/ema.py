"""An exponential moving average of the weights, which scores better and steadier than the last."""

import copy

import torch
from torch import nn


class WeightAverage:
    """A copy of a model whose weights follow the trained ones slowly.

    The decay rises with the steps, (1 + n) / (10 + n) up to `decay`, so that a short run's average
    does not remember its random start. A decay of 0 makes the average the model itself.

    Source: Polyak and Juditsky, 'Acceleration of Stochastic Approximation by Averaging', 1992.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval() if decay else model
        self.model.requires_grad_(not decay)

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move the average towards `model` after optimiser step number `step` (from 1)."""
        if not self.decay:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        mine: list[torch.Tensor] = list(self.model.parameters())
        theirs: list[torch.Tensor] = list(model.parameters())
        torch._foreach_lerp_(mine, theirs, 1.0 - decay)
        for buffer, newest in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(newest)
