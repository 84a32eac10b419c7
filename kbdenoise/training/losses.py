"""What training minimises: losses of pictures against clean ones, pixel by pixel or by sums.

All take float32 tensors [B, C, H, W], C being 1 or 3, `clean` in [0, 1] and `restored` near it, and
give one value for each picture, [B]. None mixes the pictures of a batch, so that a mean over
pictures has the same gradient however the batch is divided over steps of accumulation or processes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.imaging.luma import BT601
from kbdenoise.training.similarity import WINDOW, ms_ssim, ssim

Loss = Callable[[Tensor, Tensor], Tensor]

PSNR_EPS = 1e-4
"""Mean squared error, 2.55 grey levels squared or 40 dB, below which `psnr` turns into `mse`.

The gradient of a picture with the error m is as large as sqrt(m) / (m + eps). With the authors'
1e-8 empty paper that is wrong by a third of a grey level counts 45 times as much as print that is
wrong by 15; with 1e-4 it counts less, and no picture more than three times as much.
"""

_CHARBONNIER_EPS = 1e-3
_HUBER_DELTA = 0.01  # 2.55 grey levels: what rounding, JPEG and the grain of paper leave behind


def mse(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error; its best answer is the conditional mean, as RMSE and PSNR want."""
    return _mean((restored - clean).square())


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error; its best answer is the conditional median."""
    return _mean((restored - clean).abs())


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """A smooth L1: sqrt(d^2 + eps^2) with eps = 1e-3, averaged.

    The eps is squared: written without, it is flat below eight grey levels.

    Source: Lai et al., 'Deep Laplacian Pyramid Networks', 2017 (arXiv:1704.03915), section 3.3.
    """
    return _mean(_smooth_abs(restored - clean))


def huber(restored: Tensor, clean: Tensor) -> Tensor:
    """Squared below 2.55 grey levels, absolute above, where its slope is that of `l1`.

    Errors of a few grey levels are noise, of which the mean is the best guess; larger ones are
    print that is missing or misplaced, to which a squared error would give too much weight.
    """
    return _mean(F.smooth_l1_loss(restored, clean, reduction="none", beta=_HUBER_DELTA))


def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """Logarithm of the mean squared error of the picture as it will be written: clipped.

    Overshoot beyond a saturated target (above 1 where clean is 1, below 0 where it is 0) costs
    nothing; elsewhere the gradient is that of the plain error. The logarithm keeps the gradient's
    size while the error falls, down to PSNR_EPS. Lower by 1 is 4.3 dB better.

    Source: the PSNR loss of Chen et al., 'Simple Baselines for Image Restoration', 2022
    (arXiv:2204.04676), without its factor 10 / ln 10, with clipping added and a larger eps.
    """
    below_white = torch.where(clean >= 1, restored.clamp(max=1), restored)
    clipped = torch.where(clean <= 0, below_white.clamp(min=0), below_white)
    return torch.log(mse(clipped, clean) + PSNR_EPS)


def fft(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute error of the real and imaginary parts of the two-dimensional spectrum.

    The transform is orthonormal, so that noise costs about as much here as under `l1`, whatever the
    size. Frequencies are those that a real picture needs, half of the plane.

    Source: Cho et al., 'Rethinking Coarse-to-Fine Approach in Single Image Deblurring', 2021
    (arXiv:2108.05054), where it is added to L1 with the weight 0.1.
    """
    spectrum = torch.fft.rfft2(restored - clean, norm="ortho")  # [B, C, H, W // 2 + 1]
    return _mean(torch.view_as_real(spectrum).abs())


def gradient(restored: Tensor, clean: Tensor) -> Tensor:
    """`charbonnier` of the differences between neighbours, along columns plus along rows.

    Blur and ringing along edges cost more than under a loss of pixels, and a shift of the whole
    picture's tone costs nothing: add another loss that sees it.

    Source: the gradient difference loss of Mathieu et al., 2015 (arXiv:1511.05440), of
    differences with their signs, made smooth as in the edge loss of Zamir et al., 2021
    (arXiv:2102.02808).
    """
    error = restored - clean
    down, right = error.diff(dim=2), error.diff(dim=3)  # [B, C, H-1, W], [B, C, H, W-1]
    return _mean(_smooth_abs(down)) + _mean(_smooth_abs(right))


def mean_luma(restored: Tensor, clean: Tensor) -> Tensor:
    """Absolute difference of the mean lumas of the clipped pictures: 1/255 is one grey level.

    This is the score of the contests whose metric is mae-mean-luma, of a patch instead of a page.
    The value is that of the clipped picture, as files hold it, so that values out of range cannot
    make up for wrong ones elsewhere. The gradient of a value out of range is kept where it leads
    back, and dropped where it leads farther out, which would change nothing in the file.
    """
    clipped, target = restored.detach().clamp(0, 1), _tone(clean)
    too_bright = (_tone(clipped) > target).view(-1, 1, 1, 1)
    led_back = torch.where(too_bright, restored.clamp(min=0), restored.clamp(max=1))
    return (_tone(clipped + (led_back - led_back.detach())) - target).abs()


LOSSES: dict[str, Loss] = {
    "charbonnier": charbonnier,
    "fft": fft,
    "gradient": gradient,
    "huber": huber,
    "l1": l1,
    "mean-luma": mean_luma,
    "ms-ssim": ms_ssim,
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
}

LEAST_SIDES: dict[str, int] = {"gradient": 2, "ms-ssim": WINDOW, "ssim": WINDOW}
"""Sides in px below which a loss is not defined; the others take any."""


def _mean(values: Tensor) -> Tensor:
    """The mean over everything but the batch: [B, ...] -> [B]."""
    return values.flatten(start_dim=1).mean(dim=1)


def _tone(image: Tensor) -> Tensor:
    """Mean luma: [B, C, H, W] -> [B]."""
    means = image.mean(dim=(2, 3))  # [B, C, H, W] -> [B, C]
    weights = BT601.tolist() if means.shape[1] == 3 else [1.0]
    return sum((w * means[:, c] for c, w in enumerate(weights)), torch.zeros_like(means[:, 0]))


def _smooth_abs(values: Tensor) -> Tensor:
    return torch.sqrt(values.square() + _CHARBONNIER_EPS**2)
