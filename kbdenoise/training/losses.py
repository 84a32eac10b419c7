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


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Logarithm of the mean squared error of the picture as it will be written: clipped.

    Overshoot beyond a saturated target (above 1 where clean is 1, below 0 where it is 0) costs
    nothing; elsewhere the gradient is that of the plain error. The logarithm keeps the gradient's
    size while the error falls. Lower by 1 is 4.3 dB better.

    Source: the PSNR loss of Chen et al., 'Simple Baselines for Image Restoration', 2022
    (arXiv:2204.04676), without its factor 10 / ln 10, over the batch, with clipping added.
    """
    below_white = torch.where(clean >= 1, restored.clamp(max=1), restored)
    clipped = torch.where(clean <= 0, below_white.clamp(min=0), below_white)
    return torch.log((clipped - clean).square().mean() + 1e-8)


LOSSES: dict[str, Loss] = {"charbonnier": charbonnier, "l1": l1, "mse": mse, "psnr": psnr}
