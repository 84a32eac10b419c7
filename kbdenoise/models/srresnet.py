"""SRResNet at scale 1: a chain of residual blocks at full resolution.

Ledig et al., 'Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network', 2017 (arXiv:1609.04802). The authors published neither code nor weights.

What differs: the network keeps the picture's size, so the layers that enlarge it are left out, and
with them the published checkpoints, which enlarge; the input is added to the output, and the
last convolution then starts at zero, so that an untrained network returns its input
(`input_skip=False` is the paper's form); every residual block starts as the identity (Goyal et
al., 2017, arXiv:1706.02677). Block, norm and activation can be exchanged, to measure what each is
worth. The bottleneck keeps the width inside, unlike He et al.'s, which works on a quarter of the
channels: it then differs from the basic block by its kernels alone (with 60 % of its weights
instead of 6 %), and 64 channels have little to spare.
"""

from collections import OrderedDict
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kbdenoise.errors import DataError
from kbdenoise.models.layers import (
    InstanceNorm,
    check_choice,
    check_counts,
    check_image_batch,
    zeroed,
)
from kbdenoise.models.reading import has_all, length
from kbdenoise.models.spec import Architecture, Hyperparameters, Recognised, State

Block = Literal["basic", "bottleneck"]
Norm = Literal["none", "batch", "instance"]
Activation = Literal["relu", "prelu", "gelu", "glu"]

_KERNELS: dict[str, tuple[int, ...]] = {"basic": (3, 3), "bottleneck": (1, 3, 1)}
_OUTER_KERNEL = 9  # of the first and the last convolution
# The parts of BasicSR's and KAIR's SRResNet, both of which enlarge pictures.
_ENLARGING = frozenset(
    ("conv_first", "body", "recon_trunk", "upconv1", "upconv2", "conv_hr", "HRconv", "conv_last")
)


class ResidualBlock(nn.Module):
    """Convolutions with norm and activation, the last without activation, added to the input."""

    def __init__(self, width: int, *, block: Block, norm: Norm, activation: Activation) -> None:
        super().__init__()
        *inner, last = _KERNELS[block]
        ending = _layer(width, width, kernel=last, norm=norm)
        for parameter in ending[-1].parameters():  # of the norm, or of the convolution without one
            nn.init.zeros_(parameter)
        self.branch = nn.Sequential(
            *(_layer(width, width, kernel=k, norm=norm, activation=activation) for k in inner),
            ending,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        return x + self.branch(x)


class SRResNet(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1] of any size; the output is not clamped.

    `blocks` residual blocks of `width` channels, each of two 3x3 convolutions ("basic") or of 1x1,
    3x3 and 1x1 ones ("bottleneck"). The gated linear unit ("glu") multiplies one half of the
    channels by the sigmoid of the other, so the convolution before it makes twice as many.
    Instance norm looks at the whole picture: a tile of it is then restored a little differently.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        blocks: int = 16,
        block: Block = "basic",
        norm: Norm = "batch",
        activation: Activation = "prelu",
        input_skip: bool = True,
    ) -> None:
        super().__init__()
        check_counts("srresnet", channels=channels, width=width, blocks=blocks)
        check_choice("srresnet", "block", block, get_args(Block))
        check_choice("srresnet", "norm", norm, get_args(Norm))
        check_choice("srresnet", "activation", activation, get_args(Activation))
        self.channels = channels
        self.input_skip = input_skip
        self.head = _layer(channels, width, kernel=_OUTER_KERNEL, activation=activation)
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(width, block=block, norm=norm, activation=activation)
                for _ in range(blocks)
            )
        )
        self.bridge = _layer(width, width, kernel=3, norm=norm)
        self.tail = nn.Conv2d(width, channels, _OUTER_KERNEL, padding=_OUTER_KERNEL // 2)
        if input_skip:
            zeroed(self.tail)

    def forward(self, noisy: Tensor) -> Tensor:
        """Add the predicted correction, or predict the image: [B, channels, H, W] -> the same."""
        check_image_batch(noisy, channels=self.channels, multiple=1, model="srresnet")
        # Channels last: the default network is then a fifth faster on a CPU, a short one more.
        x = noisy.contiguous(memory_format=torch.channels_last)
        x = self.head(x)  # [B, channels, H, W] -> [B, width, H, W]
        x = x + self.bridge(self.blocks(x))
        out = self.tail(x)  # [B, width, H, W] -> [B, channels, H, W]
        return noisy + out if self.input_skip else out


def _layer(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    norm: Norm = "none",
    activation: Activation | None = None,
) -> nn.Sequential:
    """A padded convolution, then its norm and its activation where it has them."""
    wide = 2 * outputs if activation == "glu" else outputs
    conv = zeroed(nn.Conv2d(inputs, wide, kernel, padding=kernel // 2))
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm != "none":
        layers["norm"] = nn.BatchNorm2d(wide) if norm == "batch" else InstanceNorm(wide)
    if activation is not None:
        layers["activation"] = _activation(activation)
    return nn.Sequential(layers)


def _activation(name: Activation) -> nn.Module:
    made: dict[str, nn.Module] = {
        "relu": nn.ReLU(),
        "prelu": nn.PReLU(),  # one slope for all channels of a layer, as in the paper
        "gelu": nn.GELU(),
        "glu": nn.GLU(dim=1),
    }
    return made[name]


def _recognise(state: State) -> Recognised | None:
    """Tensors tell neither "relu" from "gelu" nor an input skip: "relu" and the skip are taken."""
    if _enlarges(state):
        raise DataError(
            "these are weights of a published SRResNet, which enlarges pictures",
            hint="here pictures keep their size: train an srresnet of your own, at scale 1",
        )
    if not has_all(state, "head.conv.weight", "bridge.conv.weight", "tail.weight"):
        return None
    channels, width = state["tail.weight"].shape[:2]
    out_of_head, into_head = state["head.conv.weight"].shape[:2]
    if into_head != channels:
        raise ValueError(f"{into_head} channels go in and {channels} come out")
    activation = "glu" if out_of_head == 2 * width else "relu"
    norm = "instance" if "bridge.norm.weight" in state else "none"
    return Recognised(
        channels=channels,
        hyperparameters={
            "width": width,
            "blocks": length(state, "blocks.{}.branch.0.conv.weight"),
            "block": "bottleneck" if "blocks.0.branch.2.conv.weight" in state else "basic",
            "norm": "batch" if "bridge.norm.running_mean" in state else norm,
            "activation": "prelu" if "head.activation.weight" in state else activation,
            "input_skip": True,
        },
        state=state,
    )


def _enlarges(state: State) -> bool:
    """Whether the names are BasicSR's or KAIR's, of KAIR's older form (`sub`) too."""
    parts = {name.split(".")[0] for name in state}
    return (
        parts <= _ENLARGING and has_all(state, "conv_first.weight", "upconv1.weight")
    ) or has_all(state, "model.0.weight", "model.1.sub.0.res.0.weight")


def _radius(h: Hyperparameters) -> int | None:
    """None with instance norm: every output pixel then hangs on every input pixel."""
    if h["norm"] == "instance":
        return None
    block = sum(kernel // 2 for kernel in _KERNELS[h["block"]])
    return int(h["blocks"] * block + 1 + 2 * (_OUTER_KERNEL // 2))


ARCHITECTURE = Architecture(build=SRResNet, recognise=_recognise, receptive_field=_radius)
