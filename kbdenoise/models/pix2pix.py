"""Pix2Pix's generator: a deep U-Net of strided 4x4 convolutions that ends in a tanh.

Isola et al., 'Image-to-Image Translation with Conditional Adversarial Networks', 2017
(arXiv:1611.07004). Authors' code: https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix (BSD-2;
its weights come without stated terms). The discriminator is in `patchgan`.

Shapes are the authors', and so is the order of layers: their files, whose names are nested one
level in another, are read and given flat names here. What differs: images are in [0, 1], and the
network's own range of [-1, 1] stays inside; dropout acts in training only, where the paper keeps
it on at test as its source of chance; fewer than
the authors' five levels can be built. As published there is no input skip, so an untrained
network does not return its input, and the innermost level, which is a single position for the
smallest picture, has no norm.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from kbdenoise.models.layers import check_choice, check_counts, check_image_batch, check_levels
from kbdenoise.models.reading import has_all, length
from kbdenoise.models.spec import Architecture, Hyperparameters, Recognised, State

Norm = Literal["batch", "instance"]
LEAK = 0.2  # slope of the leaky rectifiers, here and in the discriminator

_WIDEST = 3  # levels after which the channels double no more
_DROPOUT = 0.5
_DEVIATION = 0.02  # of the initial weights
_OUTER_LEVELS = 4  # from the finest; dropout begins below them and spares the innermost


class Pix2Pix(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1]; the output lies in [0, 1] by its tanh.

    H and W must be multiples of `2 ** levels`. Level i has `width * 2**i` channels, at most eight
    times `width`. Instance norm looks at the whole picture: a tile of it is then restored a little
    differently.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        width: int = 64,
        levels: int = 8,
        norm: Norm = "batch",
        dropout: bool = True,
    ) -> None:
        super().__init__()
        check_counts("pix2pix", channels=channels, width=width)
        check_levels("pix2pix", levels, least=2)
        check_choice("pix2pix", "norm", norm, get_args(Norm))
        self.channels = channels
        self.multiple = 2**levels
        widths = [channels, *(width * 2 ** min(level, _WIDEST) for level in range(levels))]
        inner = range(1, levels - 1)  # levels between the outermost and the innermost
        self.downs = nn.ModuleList(
            _Down(
                widths[i],
                widths[i + 1],
                rectified=i > 0,
                bias=has_offset(norm),
                norm=norm_layer(norm, widths[i + 1]) if i in inner else nn.Identity(),
            )
            for i in range(levels)
        )
        self.ups = nn.ModuleList(
            _Up(
                widths[i + 1] * (1 if i == levels - 1 else 2),
                widths[i],
                bias=has_offset(norm) or i == 0,
                norm=norm_layer(norm, widths[i]) if i > 0 else nn.Identity(),
                dropout=_DROPOUT if dropout and i in inner and i >= _OUTER_LEVELS else 0.0,
            )
            for i in reversed(range(levels))
        )
        self.apply(draw_weights)

    def forward(self, noisy: Tensor) -> Tensor:
        """Predict the clean image: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=self.multiple, model="pix2pix")
        x = 2 * noisy - 1
        skips = []
        for down in self.downs:
            x = down(x)  # [B, c, h, w] -> [B, c', h/2, w/2]
            skips.append(x)
        x = self.ups[0](skips.pop())
        for up in self.ups[1:]:
            x = up(torch.cat([skips.pop(), x], dim=1))  # [B, 2c', h/2, w/2] -> [B, c, h, w]
        return (torch.tanh(x) + 1) / 2


class _Down(nn.Module):
    """Rectify (but at the outermost level), halve the size, normalise."""

    def __init__(
        self, inputs: int, outputs: int, *, rectified: bool, bias: bool, norm: nn.Module
    ) -> None:
        super().__init__()
        self.rectify = nn.LeakyReLU(LEAK) if rectified else nn.Identity()
        self.conv = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, h/2, w/2]."""
        return self.norm(self.conv(self.rectify(x)))


class _Up(nn.Module):
    """Rectify, double the size, normalise, drop some features while training."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool, norm: nn.Module, dropout: float
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias)
        self.norm = norm
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, outputs, 2h, 2w]."""
        return self.dropout(self.norm(self.conv(torch.relu(x))))


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Batch norm with a learned gain and offset, or instance norm without, as published."""
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.InstanceNorm2d(channels)


def has_offset(norm: Norm) -> bool:
    """Whether convolutions have one: batch norm brings its own."""
    return norm == "instance"


def draw_weights(layer: nn.Module) -> None:
    """The paper's initial weights, for `nn.Module.apply`: N(0, 0.02), and gains around 1."""
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(layer.weight, 0.0, _DEVIATION)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, _DEVIATION)


def _recognise(state: State) -> Recognised | None:
    """Read our names and the authors'. Tensors do not tell dropout: it is taken, as published."""
    if not has_all(state, "downs.0.conv.weight", "ups.0.conv.weight"):
        state = _with_flat_names(state)
        if not state:
            return None
    levels = length(state, "downs.{}.conv.weight")
    width, channels = state["downs.0.conv.weight"].shape[:2]
    outputs = state[f"ups.{levels - 1}.conv.weight"].shape[1]
    if outputs != channels:
        raise ValueError(f"{channels} channels go in and {outputs} come out")
    norm: Norm = "batch" if "ups.0.norm.weight" in state else "instance"
    if norm == "instance":
        if "downs.0.conv.bias" not in state:
            raise ValueError("there is no norm; batch norm and instance norm are known")
        # Files of the first PyTorch releases hold statistics that instance norm never uses.
        state = {name: tensor for name, tensor in state.items() if ".norm." not in name}
    return Recognised(
        channels=channels,
        hyperparameters={"width": width, "levels": levels, "norm": norm, "dropout": True},
        state=state,
    )


def _with_flat_names(state: State) -> State:
    """The authors' tensors under our names; none where the names are not theirs.

    What has no place in the network keeps its name, so that it is refused as unknown later.
    """
    while state and all(name.startswith("model.") for name in state):
        state = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    if not has_all(state, "0.weight", "1.model.1.weight", "3.weight"):
        return {}
    levels = 1
    while f"{_path(levels)}1.weight" in state:
        levels += 1
    ours = {theirs: name for name, theirs in _authors_names(levels).items()}
    flat = {}
    for name, tensor in state.items():
        layer, _, part = name.rpartition(".")
        flat[f"{ours[layer]}.{part}" if layer in ours else name] = tensor
    return flat


def _authors_names(levels: int) -> Mapping[str, str]:
    """Our name of every layer with weights -> the authors', in which a level holds the next."""
    names = {"downs.0.conv": "0", f"ups.{levels - 1}.conv": "3"}
    for level in range(1, levels):
        path, up = _path(level), levels - 1 - level
        names[f"downs.{level}.conv"] = f"{path}1"
        if level < levels - 1:
            names[f"downs.{level}.norm"] = f"{path}2"
        behind = 5 if level < levels - 1 else 3  # the inner level and a norm are not there
        names[f"ups.{up}.conv"] = f"{path}{behind}"
        names[f"ups.{up}.norm"] = f"{path}{behind + 1}"
    return names


def _path(level: int) -> str:
    """Where a level's layers are counted, below the outermost: '1.model.3.model.' is the third."""
    return "1.model." + "3.model." * (level - 1)


def _radius(h: Hyperparameters) -> int | None:
    """Exactly how far the innermost level lets a pixel reach.

    An output at position o hangs on positions (o-1)//2 to (o+1)//2 of the next
    coarser level, and one at i on positions 2i-1 to 2i+2 of the next finer; the worst of all phases
    of o is 3 * (2**levels - 1) px away. None with instance norm: every output pixel then hangs on
    every input pixel.
    """
    return 3 * (2 ** h["levels"] - 1) if h["norm"] == "batch" else None


ARCHITECTURE = Architecture(
    build=Pix2Pix,
    recognise=_recognise,
    receptive_field=_radius,
    multiple=lambda h: int(2 ** h["levels"]),
)
