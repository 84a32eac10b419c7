"""Dense-sparse-dense training: train, leave the smallest weights out, take them in again.

Han et al., 'DSD: Dense-Sparse-Dense Training for Deep Neural Networks', 2017 (arXiv:1607.04381).
Each of the three phases runs the whole schedule of the learning rate; the last one at a tenth.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kbdenoise.imaging.tiles import round_up
from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model
from kbdenoise.models.outline import outline
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.tone import ToneThen
from kbdenoise.training.optimisers import kernels

PHASES = ("dense", "sparse", "dense again")
_TRIAL_SIDE = 64  # px, or the model's multiple
SPARSE = 1
"""The phase in which weights are left out."""

Masks = Mapping[str, Tensor]
"""Parameter's name -> its shape of true (kept) and false (left out)."""


def phase_at(shares: Sequence[float], progress: float) -> int:
    """The phase in which a run is whose share `progress` is done."""
    if progress < shares[0] - 1e-9:
        return 0
    return 1 if progress < shares[0] + shares[1] - 1e-9 else 2


def within(shares: Sequence[float], phase: int, progress: float) -> float:
    """The share of a phase that is done, 0 to 1, where `progress` of the run is."""
    return min(1.0, max(0.0, (progress - sum(shares[:phase])) / shares[phase]))


def masks_by_size(model: nn.Module, info: ModelInfo, *, sparsity: float) -> dict[str, Tensor]:
    """Of every layer, all weights but the share `sparsity` that is smallest by its size.

    Kernels only: biases, norms and per-channel scales stay whole, and so do the first and the last
    layer of each stage, which meet the picture. A set of kernel bases counts as one layer.
    """
    rim = _at_the_rim(info)
    return {
        name: _largest(parameter.detach(), 1.0 - sparsity)
        for name, parameter in kernels(model).items()
        if name not in rim
    }


def keep_gradients(model: nn.Module, masks: Masks) -> None:
    """Zero the gradients of weights that are left out."""
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        if gradient is not None:
            gradient.mul_(mask)


@torch.no_grad()
def keep_weights(model: nn.Module, masks: Masks) -> None:
    """Zero the weights that are left out."""
    for name, mask in masks.items():
        model.get_parameter(name).mul_(mask)


@torch.no_grad()
def keep_moments(optimiser: torch.optim.Optimizer, model: nn.Module, masks: Masks) -> None:
    """Zero what the optimiser remembers of weights that are left out."""
    for name, mask in masks.items():
        parameter = model.get_parameter(name)
        for value in optimiser.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                value.mul_(mask)


def _at_the_rim(info: ModelInfo) -> set[str]:
    """Weights of the first and the last layer that compute, in a tone stage and in what follows.

    The order is that of computing: some models list their last layer second.
    """
    with on_meta():
        model = build_model(info.name, channels=info.channels, **info.hyperparameters).eval()
    side = round_up(_TRIAL_SIDE, info.multiple)
    parts = outline(model, channels=info.channels, side=side, whole=True)
    known = kernels(model)
    weights = [name for part in parts if (name := f"{part.name}.weight") in known]
    stages = ("tone.", "restorer.") if isinstance(model, ToneThen) else ("",)
    rows = [[name for name in weights if name.startswith(stage)] for stage in stages]
    return {name for row in rows for name in (*row[:1], *row[-1:])}


def _largest(weights: Tensor, share: float) -> Tensor:
    """True at the share of the values that is largest by size; of equal ones the first."""
    count = round(share * weights.numel())
    order = weights.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros(weights.numel(), dtype=torch.bool, device=weights.device)
    kept[order[:count]] = True
    return kept.view_as(weights)
