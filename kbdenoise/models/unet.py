"""The U-Net, padded, with or without norm and input skip: from a small one to the classic.

After Ronneberger et al., 'U-Net', 2015 (arXiv:1505.04597); the authors published no PyTorch code
or weights, and no public checkpoint has these names.

What differs, for restoration: padded convolutions, so that the size is kept and nothing is cropped
from the skips; the input is added to the output, and the last convolution then starts at zero, so
that an untrained network returns its input (`input_skip=False` is the paper's form). Strided
convolutions instead of pooling, and no norm, unless asked for: `width=64, levels=4, down="pool",
norm="batch"` is the form in which the U-Net is commonly taught. A convolution in front of a norm
has no offset, because the norm has one.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.layers import (
    InstanceNorm,
    check_choice,
    check_counts,
    check_image_batch,
    check_levels,
    relu_conv,
    zeroed,
)
from kbdenoise.models.reading import has_all, length
from kbdenoise.models.spec import Architecture, Hyperparameters, Recognised, State

Skip = Literal["concat", "add"]
Norm = Literal["none", "batch", "instance"]
Down = Literal["conv", "pool"]


class UNet(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output is not clamped.

    H and W must be multiples of `2 ** levels`. Level i has `width * 2**i` channels and `convs`
    3x3 convolutions on either side, each with its `norm`; `skip` says whether a decoder gets its
    encoder's features beside its own ("concat") or added to them ("add"). Between levels a strided
    2x2 convolution doubles the channels ("conv"), or the maximum of 2x2 positions is taken and the
    next level's first convolution doubles them ("pool"). Instance norm looks at the whole picture:
    a tile of it is then restored a little differently.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 32,
        levels: int = 3,
        convs: int = 2,
        skip: Skip = "concat",
        norm: Norm = "none",
        down: Down = "conv",
        input_skip: bool = True,
    ) -> None:
        super().__init__()
        check_counts("unet", channels=channels, width=width, convs=convs)
        check_levels("unet", levels)
        check_choice("unet", "skip", skip, get_args(Skip))
        check_choice("unet", "norm", norm, get_args(Norm))
        check_choice("unet", "down", down, get_args(Down))
        self.channels = channels
        self.multiple = 2**levels
        self.skip = skip
        self.norm = norm
        self.input_skip = input_skip
        self.encoders, self.downs = nn.ModuleList(), nn.ModuleList()
        self.ups, self.decoders = nn.ModuleList(), nn.ModuleList()
        inputs, c = channels, width
        for _ in range(levels):
            self.encoders.append(_stage(inputs, c, convs=convs, norm=norm))
            strided = down == "conv"
            # The stride is named for converters that do not know its default.
            self.downs.append(
                nn.Conv2d(c, 2 * c, 2, stride=2) if strided else nn.MaxPool2d(2, stride=2)
            )
            inputs, c = (2 * c if strided else c), 2 * c
        self.middle = _stage(inputs, c, convs=convs, norm=norm)
        for _ in range(levels):
            self.ups.append(nn.ConvTranspose2d(c, c // 2, 2, stride=2))
            c //= 2
            joined = 2 * c if skip == "concat" else c
            self.decoders.append(_stage(joined, c, convs=convs, norm=norm))
        self.ending = nn.Conv2d(width, channels, 1)
        if input_skip:
            zeroed(self.ending)

    def forward(self, noisy: Tensor) -> Tensor:
        """Add the predicted correction, or predict the image: [B, channels, H, W] -> the same."""
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model="unet")
        x = noisy
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)  # [B, c, h, w] -> [B, 2c, h/2, w/2], or [B, c, h/2, w/2] where it pools
        self._check_batch_statistics(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = up(x)  # [B, 2c, h/2, w/2] -> [B, c, h, w]
            x = decoder(torch.cat([x, skip], dim=1) if self.skip == "concat" else x + skip)
        return noisy + self.ending(x) if self.input_skip else self.ending(x)

    def _check_batch_statistics(self, coarsest: Tensor) -> None:
        """Raises SettingsError where batch norm would have to learn from a single position."""
        positions = coarsest.shape[0] * coarsest.shape[2] * coarsest.shape[3]
        if self.training and self.norm == "batch" and positions == 1:
            raise SettingsError(
                f"unet with batch norm cannot be trained on one patch of {self.multiple} px",
                hint=f"take larger patches, such as {2 * self.multiple} px, or more of them a step",
            )


def _stage(inputs: int, outputs: int, *, convs: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(convs):
        conv = relu_conv(inputs if i == 0 else outputs, outputs)
        layers.append(conv)
        if norm != "none":
            conv.bias = None
            layers.append(nn.BatchNorm2d(outputs) if norm == "batch" else InstanceNorm(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _recognise(state: State) -> Recognised | None:
    """Tensors do not tell an input skip: it is taken."""
    if not has_all(state, "encoders.0.0.weight", "middle.0.weight", "ups.0.weight"):
        return None
    width, channels = state["encoders.0.0.weight"].shape[:2]
    outputs = state["ending.weight"].shape[0]
    if outputs != channels:
        raise ValueError(f"{channels} channels go in and {outputs} come out")
    joined = state["decoders.0.0.weight"]
    affine = "instance" if "middle.1.weight" in state else "none"
    norm = "batch" if "middle.1.running_mean" in state else affine
    step = 2 if norm == "none" else 3  # places from one convolution to the next
    return Recognised(
        channels=channels,
        hyperparameters={
            "width": width,
            "levels": length(state, "ups.{}.weight"),
            "convs": sum(f"middle.{i}.weight" in state for i in range(0, step * len(state), step)),
            "skip": "concat" if joined.shape[1] == 2 * joined.shape[0] else "add",
            "norm": norm,
            "down": "conv" if "downs.0.weight" in state else "pool",
            "input_skip": True,
        },
        state=state,
    )


def _radius(h: Hyperparameters) -> int | None:
    """From the middle outwards: 3x3 convolutions add 1 px each, a level doubles and adds 1.

    None with instance norm: every output pixel then hangs on every input pixel.
    """
    if h["norm"] == "instance":
        return None
    radius: int = h["convs"]
    for _ in range(h["levels"]):
        radius = 2 * radius + 1 + 2 * h["convs"]
    return radius


ARCHITECTURE = Architecture(
    build=UNet,
    recognise=_recognise,
    receptive_field=_radius,
    multiple=lambda h: int(2 ** h["levels"]),
)
