"""What training minimises. All take float tensors [B, C, H, W] in [0, 1], restored and clean."""

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def mse(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error; its best answer is the conditional mean, as RMSE and PSNR want."""
    return (restored - clean).square().mean()


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error; its best answer is the conditional median."""
    return (restored - clean).abs().mean()


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """A smooth L1: sqrt(d^2 + eps^2) with eps = 1e-3, averaged.

    The eps is squared: written without, it is flat below eight grey levels.

    Source: Lai et al., 'Deep Laplacian Pyramid Networks', 2017 (arXiv:1704.03915), section 3.3.
    """
    return torch.sqrt((restored - clean).square() + 1e-6).mean()


LOSSES: dict[str, Loss] = {"charbonnier": charbonnier, "l1": l1, "mse": mse}
