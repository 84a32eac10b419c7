"""The perceptual loss: distances between features that VGG finds in restored and clean pictures.

Johnson et al., 'Perceptual Losses for Real-Time Style Transfer and Super-Resolution', 2016
(arXiv:1603.08155). The network is that of Simonyan and Zisserman, 2014 (arXiv:1409.1556). No
weights come with kbdenoise: the user names a file, such as torchvision's vgg16-397923af.pth or
vgg19-dcbb9e9d.pth (BSD-3-Clause), whose names of tensors are used here.

Distances are absolute instead of squared, so that few large activations do not decide.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.blank import on_meta
from kbdenoise.models.checkpoints import read_state_dict
from kbdenoise.models.spec import State

OPTION = "--perceptual-weights"
LEAST_SIDE = 8
"""In px: three poolings by two come before the last features."""

_BLOCKS = {16: (2, 2, 3, 3), 19: (2, 2, 4, 4)}  # convolutions before each pooling, used here
_TAPPED = (2, 2, 3, 3)  # relu1_2, relu2_2, relu3_3, relu4_3
_WIDTHS = (64, 128, 256, 512)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which VGG was trained with
_WANTED = (
    "name the weights of VGG-16 or VGG-19 in torchvision's form, such as vgg16-397923af.pth from "
    f"download.pytorch.org/models: {OPTION} FILE"
)


class PerceptualLoss(nn.Module):
    """Distances of VGG's features, with frozen weights that `state` holds in torchvision's names.

    `depth` is 16 or 19. What lies behind the last features used may be missing from `state`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: State, *, depth: int) -> None:
        super().__init__()
        with on_meta():
            layers, self._taps = _layers(depth)
            self.features = nn.Sequential(*layers)
        own = {name: state[name].float().clone() for name in self.state_dict()}
        self.load_state_dict(own, assign=True)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Mean absolute distance of features, summed over four depths: two [B, C, H, W] -> [B].

        Float32 images, `clean` in [0, 1], gray or RGB, sides of at least 8 px. The gradient reaches
        `restored` only.
        """
        with torch.no_grad():
            wanted = self._tapped(clean)
        pairs = zip(self._tapped(restored), wanted, strict=True)
        distances = [(found - right).abs().mean(dim=(1, 2, 3)) for found, right in pairs]
        return torch.stack(distances).sum(dim=0)  # [4, B] -> [B]

    def _tapped(self, image: Tensor) -> list[Tensor]:
        """Features [B, 64, H, W], [B, 128, H/2, W/2], [B, 256, H/4, W/4], [B, 512, H/8, W/8]."""
        found = []
        image = (image.expand(-1, 3, -1, -1) - self.mean) / self.std  # gray is all three colours
        for index, layer in enumerate(self.features):
            image = layer(image)
            if index in self._taps:
                found.append(image)
        return found


def read_perceptual(weights: str) -> PerceptualLoss:
    """The perceptual loss with a file's weights, on the CPU; the depth is told by its tensors.

    Raises SettingsError where no file is named, and DataError where it is missing or damaged, or
    holds another network.
    """
    if not weights:
        raise SettingsError(
            "--loss perceptual compares features of VGG, whose weights do not come with kbdenoise",
            hint=_WANTED,
        )
    path = Path(weights).expanduser()
    try:
        state = read_state_dict(path)
    except DataError as error:
        raise DataError(f"{OPTION}: {error.message}", hint=error.hint) from error
    return PerceptualLoss(state, depth=_depth(state, path=path))


def _layers(depth: int) -> tuple[list[nn.Module], tuple[int, ...]]:
    """The layers up to the last features used, numbered as torchvision does, and what to keep."""
    layers: list[nn.Module] = []
    taps, inputs = [], 3
    for block, (count, width, tapped) in enumerate(
        zip(_BLOCKS[depth], _WIDTHS, _TAPPED, strict=True)
    ):
        if block:
            layers.append(nn.MaxPool2d(2))
        for i in range(1, count + 1):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
            if i == tapped:
                taps.append(len(layers) - 1)
    return layers[: taps[-1] + 1], tuple(taps)


def _depth(state: State, *, path: Path) -> int:
    """16 or 19, whichever fits the file's tensors name by name and shape by shape."""
    misfits = {depth: _misfit(state, depth) for depth in _BLOCKS}
    for depth, misfit in misfits.items():
        if not misfit:
            return depth
    depth = 19 if "features.16.weight" in state else 16
    if "features.1.weight" in state:
        reason = "its features are batch-normalised; take the variant without"
    else:
        reason = f"as VGG-{depth} it has {misfits[depth]}"
    raise DataError(
        f"{OPTION} {path} does not hold the weights of VGG-16 or VGG-19: {reason}", hint=_WANTED
    )


def _misfit(state: State, depth: int) -> str:
    """What keeps the tensors from being those of this depth; empty if nothing does."""
    with on_meta():
        layers, _ = _layers(depth)
        expected = {f"features.{n}": t for n, t in nn.Sequential(*layers).state_dict().items()}
    for name, like in expected.items():
        if name not in state:
            return f"no {name}"
        if state[name].shape != like.shape:
            return f"{name} of shape {list(state[name].shape)} instead of {list(like.shape)}"
        if not state[name].is_floating_point():
            return f"whole numbers in {name}"
        if not state[name].isfinite().all():
            return f"infinities or NaN in {name}"
    return ""
