"""DnCNN: a plain stack of convolutions that predicts the noise.

Zhang et al., 'Beyond a Gaussian Denoiser', 2017 (arXiv:1608.03981).
Authors' code: https://github.com/cszn/DnCNN; weights: https://github.com/cszn/KAIR (MIT).

Names of parameters are those of KAIR (`model.0.weight`, ...), with batch norm or with batch norm
merged into the convolutions as in its released files. Two other well-known ports call the same
stack `dncnn.0.weight`, ... and leave out offsets: the authors' TrainingCodes/dncnn_pytorch, and
https://github.com/SaoYan/DnCNN-PyTorch (licence not checked). Their weights are read as well.

What differs: the last convolution starts at zero, so that an untrained network returns its input;
batch norm's momentum is 0.05, which is what the authors' 0.95 means in PyTorch's convention.
"""

import re
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.layers import (
    check_choice,
    check_counts,
    check_image_batch,
    relu_conv,
    zeroed,
)
from kbdenoise.models.reading import has_all
from kbdenoise.models.spec import Architecture, Recognised, State

_NORM_EPS = 1e-4  # of the authors' batch norm; torch's default is 1e-5
_LAYER = re.compile(r"\d+\.(weight|bias|running_mean|running_var|num_batches_tracked)")


class DnCNN(nn.Module):
    """Restores images [B, channels, H, W] in [0, 1] of any size; the output is not clamped.

    `depth` convolutions of `width` channels; `norm` is "batch" or "none", and `norm_eps` is added
    to the variance in batch norm.

    Raises SettingsError for a combination that cannot be built.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        depth: int = 17,
        width: int = 64,
        norm: Literal["batch", "none"] = "batch",
        norm_eps: float = _NORM_EPS,
    ) -> None:
        super().__init__()
        check_counts("dncnn", channels=channels, width=width)
        check_counts("dncnn", least=2, depth=depth)
        check_choice("dncnn", "norm", norm, ("batch", "none"))
        if not norm_eps > 0:
            raise SettingsError(
                f"norm_eps of dncnn is {norm_eps}",
                hint=f"choose a small number such as {_NORM_EPS}",
            )
        self.channels = channels
        layers: list[nn.Module] = [relu_conv(channels, width), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers.append(relu_conv(width, width))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(width, eps=norm_eps, momentum=0.05))
            layers.append(nn.ReLU(inplace=True))
        last = zeroed(nn.Conv2d(width, channels, 3, padding=1))
        self.model = nn.Sequential(*layers, last)

    def forward(self, noisy: Tensor) -> Tensor:
        """Take the predicted noise away: [B, channels, H, W] -> the same shape."""
        check_image_batch(noisy, channels=self.channels, multiple=1, model="dncnn")
        return noisy - self.model(noisy)


def merge_batch_norm(model: DnCNN) -> DnCNN:
    """The same network with batch norm folded into the convolutions, as its authors release it.

    The result has `norm="none"`, is in evaluation mode, and gives what `model` gives in evaluation
    mode up to rounding; `model` itself is left alone.
    """
    merged = deepcopy(model).eval()
    layers: list[Any] = []
    for layer in merged.model:
        if isinstance(layer, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], layer)
        else:
            layers.append(layer)
    merged.model = nn.Sequential(*layers)
    return merged


def _recognise(state: State) -> Recognised | None:
    """Read KAIR's names (`model.`) and the two ports' (`dncnn.`), with or without batch norm.

    Raises DataError for 7 merged layers of 64 channels: IRCNN's, whose dilations no tensor tells.
    """
    for stack in ("model.", "dncnn."):
        layers = {name[len(stack) :]: t for name, t in state.items() if name.startswith(stack)}
        if _is_plain_stack(layers):
            break
    else:
        return None
    convs = {int(name.split(".")[0]): t for name, t in layers.items() if t.ndim == 4}
    width, channels = convs[0].shape[:2]
    _check_ends(channels, convs[max(convs)].shape[0])
    norm = "batch" if "3.running_mean" in layers else "none"
    if (len(convs), width, norm) == (7, 64, "none"):
        raise DataError(
            "these may be weights of IRCNN, whose dilated convolutions look like seven of DnCNN's",
            hint="use another network; files that kbdenoise wrote say themselves what they are",
        )
    norm_eps = _NORM_EPS
    if stack == "dncnn.":
        norm_eps = _eps_of_port(layers) if norm == "batch" else _NORM_EPS
        for i, weight in convs.items():
            layers.setdefault(f"{i}.bias", torch.zeros(weight.shape[0], dtype=weight.dtype))
    others = {name: t for name, t in state.items() if not name.startswith(stack)}
    return Recognised(
        channels=channels,
        hyperparameters={"depth": len(convs), "width": width, "norm": norm, "norm_eps": norm_eps},
        state={f"model.{name}": t for name, t in layers.items()} | others,
    )


def _is_plain_stack(layers: State) -> bool:
    """Whether these are 3x3 convolutions with nothing but rectifiers and batch norm between."""
    return (
        has_all(layers, "0.weight", "2.weight")
        and all(_LAYER.fullmatch(name) for name in layers)
        and all(layers[name].shape[2:] == (3, 3) for name in ("0.weight", "2.weight"))
    )


def _check_ends(inputs: int, outputs: int) -> None:
    """Raises ValueError where the stack does not give back the channels that it takes."""
    if inputs == outputs:
        return
    sibling = "FDnCNN" if outputs in (1, 3) else "FFDNet"
    known = f"; {sibling} has a noise map among them" if inputs == outputs + 1 else ""
    raise ValueError(f"{inputs} channels go in and {outputs} come out{known}")


def _eps_of_port(layers: State) -> float:
    """Tensors do not hold it. The authors' port alone has an offset at the first layer only."""
    authors = "0.bias" in layers and "2.bias" not in layers
    return _NORM_EPS if authors else 1e-5


ARCHITECTURE = Architecture(
    build=DnCNN, recognise=_recognise, receptive_field=lambda h: int(h["depth"])
)
