"""DnCNN: a plain stack of convolutions that predicts the noise.

Zhang et al., 'Beyond a Gaussian Denoiser', 2017 (arXiv:1608.03981).
Authors' code: https://github.com/cszn/DnCNN; weights: https://github.com/cszn/KAIR (MIT).

Names of parameters are those of KAIR (`model.0.weight`, ...), with batch norm or with batch norm
merged into the convolutions as in its released files. What differs: the last convolution starts
at zero, so that an untrained network returns its input; batch norm's momentum is 0.05, which is
what the authors' 0.95 means in PyTorch's convention.
"""

from typing import Literal

from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import check_counts, check_image_batch, relu_conv, zeroed


class DnCNN(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1] of any size; the output is not clamped.

    `depth` convolutions of `width` channels; `norm` is "batch" or "none".

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        depth: int = 17,
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
    ) -> None:
        super().__init__()
        check_counts("dncnn", channels=channels, width=width)
        check_counts("dncnn", least=2, depth=depth)
        if norm not in ("batch", "none"):
            raise SettingsError(f"norm of dncnn is {norm!r}", hint="choose 'batch' or 'none'")
        self.channels = channels
        layers: list[nn.Module] = [relu_conv(channels, width), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(relu_conv(width, width))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(width, eps=1e-4, momentum=0.05))
            layers.append(nn.ReLU(inplace=True))
        last = zeroed(nn.Conv2d(width, channels, 3, padding=1))
        self.model = nn.Sequential(*layers, last)

    def forward(self, noisy: Tensor) -> Tensor:
        """Take the predicted noise away: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=1, model="dncnn")
        return noisy - self.model(noisy)
