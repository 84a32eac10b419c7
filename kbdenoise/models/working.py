"""How much memory restoring takes, from the outputs of a network's layers."""

import torch
from torch import nn

from kbdenoise.models.spec import ModelInfo


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
