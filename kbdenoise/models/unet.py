"""A residual U-Net: small, without normalisation, fast on a CPU.

After Ronneberger et al., 'U-Net', 2015 (arXiv:1505.04597). What differs, for restoration: padded
convolutions, so that the size is kept; no batch norm; strided convolutions instead of pooling;
the input is added to the output, and the last convolution starts at zero, so that an untrained
network returns its input. No public checkpoint has these names.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, relu_conv, zeroed


class UNet(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `2 ** levels`. Level i has `width * 2**i` channels and `convs`
    3x3 convolutions on either side; `skip` says whether a decoder gets its encoder's features
    beside its own ("concat") or added to them ("add").

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 32,
        levels: int = 3,
        convs: int = 2,
        skip: Literal["concat", "add"] = "concat",
    ) -> None:
        super().__init__()
        check_counts("unet", channels=channels, width=width, levels=levels, convs=convs)
        if skip not in ("concat", "add"):
            raise SettingsError(f"skip of unet is {skip!r}", hint="choose 'concat' or 'add'")
        self.channels = channels
        self.multiple = 2**levels
        self.skip = skip
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        inputs, c = channels, width
        for _ in range(levels):
            self.encoders.append(_stage(inputs, c, convs=convs))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, stride=2))
            inputs = c = 2 * c
        self.middle = _stage(c, c, convs=convs)
        for _ in range(levels):
            self.ups.append(nn.ConvTranspose2d(c, c // 2, 2, stride=2))
            c //= 2
            self.decoders.append(_stage(2 * c if skip == "concat" else c, c, convs=convs))
        self.ending = zeroed(nn.Conv2d(width, channels, 1))

    def forward(self, noisy: Tensor) -> Tensor:
        """Add the predicted correction: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model="unet")
        x = noisy
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # [B, c, h, w] -> [B, 2c, h/2, w/2]
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = up(x)  # [B, 2c, h/2, w/2] -> [B, c, h, w]
            x = decoder(torch.cat([x, skip], dim=1) if self.skip == "concat" else x + skip)
        return noisy + self.ending(x)


def _stage(inputs: int, outputs: int, *, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convs):
        conv = relu_conv(inputs if i == 0 else outputs, outputs)
        layers += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
