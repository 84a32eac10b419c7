"""The optimisers, and which weights are decayed."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as adamw_update

from kbdenoise.config import OptimiserSettings

_Groups = list[dict[str, Any]]

# A polynomial that, applied again and again, brings singular values near one.
_NEWTON_SCHULZ, _ROUNDS = (3.4445, -4.7750, 2.0315), 5
_MATCHED_SIZE = 0.2  # of Muon's steps: about that of AdamW's, so that one rate suits both


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal for matrices, and AdamW for everything else.

    A convolution's kernel counts as a matrix [outputs, inputs * height * width], and a layer's
    kernel bases [1, bases, values] as [bases, values]. Groups with `matrices` true take Muon's
    step, the others AdamW's; the momentum of both is the first of `betas`.

    Source: Jordan et al., 'Muon: An optimizer for hidden layers in neural networks', 2024
    (kellerjordan.github.io/posts/muon); the size of its steps after Liu et al., 'Muon is Scalable
    for LLM Training', 2025 (arXiv:2502.16982), section 2.2.
    """

    def __init__(self, groups: _Groups, *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            (self._orthogonal if group["matrices"] else self._adamw)(group, parameters)

    def _orthogonal(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        """Kernels of one shape go together, which small matrices need to be quick."""
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        momentum = group["betas"][0]
        for parameter in parameters:
            gradient = _gradient(parameter)
            mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
            mean.lerp_(gradient, 1.0 - momentum)
            ahead = _matrix(gradient.lerp(mean, momentum))
            by_shape.setdefault(ahead.shape, []).append((parameter, ahead))
        for (rows, columns), pairs in by_shape.items():
            steps = orthogonalised(torch.stack([ahead for _, ahead in pairs]))  # [n, rows, cols]
            size = group["lr"] * _MATCHED_SIZE * max(rows, columns) ** 0.5
            for (parameter, _), step in zip(pairs, steps, strict=True):
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
                parameter.sub_(step.view_as(parameter), alpha=size)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state |= {"count": torch.zeros(()), "mean": torch.zeros_like(parameter)}
                state["square"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        adamw_update(
            parameters,
            [_gradient(parameter) for parameter in parameters],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["count"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonalised(matrices: Tensor) -> Tensor:
    """The nearest matrices with singular values about one: [n, rows, columns] -> the same.

    Five rounds of a Newton-Schulz iteration in float32; singular values end between about 0.7 and
    1.2, which is as good as one. The rounds multiply small square matrices only, and the long ones
    at the end: half the time of multiplying them in every round.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).float()
    size = (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7).square()  # [n, 1, 1]
    gram = x @ x.mT / size  # [n, r, r], r the shorter side
    product = torch.eye(gram.shape[1], device=gram.device)
    for _ in range(_ROUNDS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    nearest: Tensor = (product @ x / size.sqrt()).to(matrices.dtype)
    return nearest.mT if tall else nearest


def _matrix(kernel: Tensor) -> Tensor:
    """[1, bases, values] -> [bases, values]; [out, in, h, w] -> [out, in * h * w]."""
    return (kernel[0] if kernel.ndim == 3 else kernel).flatten(1)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _adam(groups: _Groups, wanted: OptimiserSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=wanted.lr, betas=(wanted.beta1, wanted.beta2))


def _adamw(groups: _Groups, wanted: OptimiserSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=wanted.lr, betas=(wanted.beta1, wanted.beta2))


def _sgd(groups: _Groups, wanted: OptimiserSettings) -> torch.optim.Optimizer:
    nesterov = wanted.beta1 > 0
    return torch.optim.SGD(groups, lr=wanted.lr, momentum=wanted.beta1, nesterov=nesterov)


def _muon(groups: _Groups, wanted: OptimiserSettings) -> torch.optim.Optimizer:
    return Muon(groups, lr=wanted.lr, betas=(wanted.beta1, wanted.beta2))


OPTIMISERS: Mapping[str, Callable[[_Groups, OptimiserSettings], torch.optim.Optimizer]] = {
    "adam": _adam,
    "adamw": _adamw,
    "sgd": _sgd,
    "muon": _muon,
}


def make_optimiser(model: nn.Module, wanted: OptimiserSettings) -> torch.optim.Optimizer:
    """The optimiser of a model's weights; biases, norms and per-channel scales are not decayed.

    The first and the last convolution that a model lists are no matrices to Muon.
    """
    decayed = {id(parameter) for parameter in kernels(model).values()}
    rim = _at_the_rim(model)
    groups: _Groups = [
        {"params": [], "weight_decay": decay, "matrices": matrices}
        for decay, matrices in (
            (wanted.weight_decay, True),
            (wanted.weight_decay, False),
            (0.0, False),
        )
    ]
    for parameter in model.parameters():
        kind = 2 if id(parameter) not in decayed else 1 if id(parameter) in rim else 0
        groups[kind]["params"].append(parameter)
    return OPTIMISERS[wanted.optimiser]([g for g in groups if g["params"]], wanted)


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """By name, the weights that multiply: no biases (those of kernel bases neither) nor scales."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.squeeze().ndim > 1 and name.rpartition(".")[2] not in {"bias", "b"}
    }


def _at_the_rim(model: nn.Module) -> set[int]:
    """Of most models these meet the picture; rates were tuned with this choice, so it stays."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return {id(layer.weight) for layer in (*layers[:1], *layers[-1:])}
