"""PatchGAN: the discriminator that Pix2Pix is trained against; it restores nothing.

Isola et al., 'Image-to-Image Translation with Conditional Adversarial Networks', 2017
(arXiv:1611.07004). Authors' code: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD-2).

Names of parameters and their shapes are the authors', so their files load. What differs: images
are in [0, 1], and the network's own range of [-1, 1] stays inside.
"""

from typing import get_args

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_choice, check_counts, check_image_batch
from kbdenoise.models.pix2pix import LEAK, Norm, draw_weights, has_offset, norm_layer

_WIDEST = 8  # times the first layer's channels


class PatchGAN(nn.Module):
    """Judges every patch of a candidate beside the noisy image: real (high logits) or made.

    With `layers` 3 a patch is 70x70 px, and 256x256 px give 30x30 logits. `layers` counts the
    convolutions that halve the size; the first has `width` channels, and each next one twice as
    many, at most eight times `width`. Two more keep the size up to a border.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self, *, channels: int = 3, width: int = 64, layers: int = 3, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        check_counts("PatchGAN", channels=channels, width=width, layers=layers)
        check_choice("PatchGAN", "norm", norm, get_args(Norm))
        self.channels = channels
        self.least = 3 * 2**layers  # px: what the two last convolutions need, halved `layers` times
        widths = [width * min(2**i, _WIDEST) for i in range(layers + 1)]
        first = nn.Conv2d(2 * channels, width, 4, stride=2, padding=1)
        stack: list[nn.Module] = [first, nn.LeakyReLU(LEAK)]
        for i, outputs in enumerate(widths[1:], start=1):
            stride = 2 if i < layers else 1
            conv = nn.Conv2d(
                widths[i - 1], outputs, 4, stride=stride, padding=1, bias=has_offset(norm)
            )
            stack += [conv, norm_layer(norm, outputs), nn.LeakyReLU(LEAK)]
        self.model = nn.Sequential(*stack, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(draw_weights)

    def forward(self, noisy: Tensor, candidate: Tensor) -> Tensor:
        """Two times [B, channels, H, W] in [0, 1] -> logits [B, 1, h, w].

        Raises SettingsError for tensors of other shapes, or too small for a single logit.
        """
        for image in (noisy, candidate):
            check_image_batch(image, channels=self.channels, multiple=1, model="PatchGAN")
        if noisy.shape != candidate.shape:
            raise SettingsError(
                f"PatchGAN was given a noisy batch of shape {list(noisy.shape)} and candidates of "
                f"shape {list(candidate.shape)}",
                hint="give it a candidate for every noisy image, of the same size",
            )
        height, width = noisy.shape[2:]
        if min(height, width) < self.least:
            raise SettingsError(
                f"PatchGAN needs at least {self.least}x{self.least} px, but got {width}x{height}",
                hint=f"take larger patches (it sees {3 * self.least - 2} px at once)",
            )
        return self.model(2 * torch.cat([noisy, candidate], dim=1) - 1)  # [B, 2C, H, W] -> logits
