"""A network that is ready to restore, and how much memory that takes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kbdenoise.errors import DataError
from kbdenoise.models.build import describe_model
from kbdenoise.models.layers import fold_scales
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import ModelCard, load_weights


def load_network(
    weights: Path, hyperparameters: Mapping[str, Any] | None = None
) -> tuple[nn.Module, ModelInfo, ModelCard]:
    """A weights file's network, ours or another that is recognised by its tensors, scales folded.

    `hyperparameters` are those that the file does not tell or that shall win over it. Raises
    DataError for a broken file or one for other than gray and colour pictures, and SettingsError
    for hyper-parameters that do not suit it.
    """
    model, card = load_weights(weights, **(hyperparameters or {}))
    if card.channels not in (1, 3):
        raise DataError(
            f"{weights} holds a {card.model} for pictures of {card.channels} channels",
            hint="only gray and colour pictures can be restored: use weights for 1 or 3 channels",
        )
    info = describe_model(card.model, channels=card.channels, side=0, **card.hyperparameters)
    fold_scales(model)
    return model, info, card


@torch.inference_mode()
def working_bytes_per_pixel(model: nn.Module, info: ModelInfo) -> float:
    """Estimate peak memory per input pixel from the layers' outputs on a small picture.

    The largest output is counted six times (input, output and the temporaries of a block), every
    other layer's once in sixteen for the skips that stay alive.
    """
    side = max(64, info.multiple)
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            sizes.append(output.numel())

    hooks = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    try:
        device = next(model.parameters()).device
        model(torch.zeros(1, info.channels, side, side, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    return 4.0 * (6 * max(sizes) + sum(sizes) / 16) / (side * side)
