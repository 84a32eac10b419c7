"""Small pieces that several architectures share."""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import SettingsError, nearest

_MOST_LEVELS = 12  # sides are then multiples of 4096 px


class LayerNorm2d(nn.Module):
    """Normalise every pixel over its channels, with a learned gain and offset a channel.

    [B, C, H, W] -> [B, C, H, W] in the input's type; the statistics are always taken in fp32 (or
    fp64), because squares of bf16 and fp16 activations lose the small differences they measure.

    Source: Ba et al., 'Layer Normalization', 2016 (arXiv:1607.06450), over channels as in NAFNet
    (arXiv:2204.04676), eps included.
    """

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`."""
        if x.is_contiguous(memory_format=torch.channels_last) and not is_traced():
            # One pass, where torch's own kernel finds the channels side by side.
            last = widened(x).permute(0, 2, 3, 1)  # [B, H, W, C], a view
            out = F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps)
            return out.permute(0, 3, 1, 2).to(x.dtype)
        wide = widened(x)
        centred = wide - wide.mean(1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        out = centred * scale * weight + bias
        return out if wide is x else out.to(x.dtype)  # exported graphs then hold no casts


class SimpleGate(nn.Module):
    """The product of the two halves of the channels: [B, 2C, H, W] -> [B, C, H, W].

    Source: Chen et al., 'Simple Baselines for Image Restoration', 2022 (arXiv:2204.04676).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the halves."""
        left, right = x.chunk(2, dim=1)
        return left * right


class MeanPool(nn.Module):
    """The mean of every channel over the image, or in evaluation over a window around each pixel.

    [B, C, H, W] -> [B, C, 1, 1] while training or with `window` 0. Otherwise an axis of at most
    `window` px becomes 1 long, and a longer one keeps its length: pixels nearer to an edge than
    half a window take the mean of the last window that lies inside. The sums are taken in fp32 (or
    fp64).

    Source: Chu et al., 'Improving Image Restoration by Revisiting Global Information Aggregation',
    2021 (arXiv:2112.04491). A network trained on small patches then meets the statistics that it
    knows, however large the image is.
    """

    def __init__(self, *, window: int = 0) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Average `x`."""
        if self.training or not self.window:
            return x.mean((2, 3), keepdim=True)  # [B, C, H, W] -> [B, C, 1, 1]
        wide = widened(x)
        rows = _sliding_mean(wide, axis=3, window=self.window)
        out = _sliding_mean(rows, axis=2, window=self.window)
        return out if wide is x else out.to(x.dtype)

    def extra_repr(self) -> str:
        """The window, for printing."""
        return f"window={self.window}"


def _sliding_mean(x: Tensor, *, axis: int, window: int) -> Tensor:
    """Means over `window` neighbours along axis 2 or 3, the outermost repeated to the edges.

    One axis at a time, because running sums of a whole image would outgrow fp32.
    """
    length = x.shape[axis]
    if torch.onnx.is_in_onnx_export() or not isinstance(length, int):  # a graph for any size
        return _sliding_mean_of_any(x, axis=axis, window=window)
    if window >= length:
        return x.mean(axis, keepdim=True)
    before = (window - 1) // 2  # neighbours on the near side; an even window has one more behind
    behind = window - 1 - before
    sums = x.cumsum(axis)
    ends = sums.narrow(axis, window - 1, length - window + 1)
    starts = F.pad(sums.narrow(axis, 0, length - window), (1, 0) if axis == 3 else (0, 0, 1, 0))
    edges = (before, behind, 0, 0) if axis == 3 else (0, 0, before, behind)
    return F.pad((ends - starts) / window, edges, mode="replicate")


def _sliding_mean_of_any(x: Tensor, *, axis: int, window: int) -> Tensor:
    """The same for a graph that has to serve lengths on both sides of the window."""
    line = x[0, 0, :, 0] if axis == 2 else x[0, 0, 0]
    places = torch.ones_like(line).cumsum(0) - 1  # 0 .. length - 1
    reach = places[-1:].add(1).clamp(max=window)  # the window, or the whole axis
    first = (places - torch.floor((reach - 1) / 2)).clamp(min=0)
    first = torch.minimum(first, places[-1:] + 1 - reach).long()
    sums = F.pad(x.cumsum(axis), (1, 0) if axis == 3 else (0, 0, 1, 0))
    ends = sums.index_select(axis, first + reach.long())
    return (ends - sums.index_select(axis, first)) / reach


class InstanceNorm(nn.Module):
    """Normalise every channel over all pixels of its image, with a learned gain and offset.

    [B, C, H, W] -> [B, C, H, W]. Unlike torch's own, it takes an image of a single pixel.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`: a group of one channel is an instance."""
        return torch.group_norm(x, self.weight.shape[0], self.weight, self.bias, self.eps)


def relu_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """A padded 3x3 convolution: He's initial weights for a rectifier behind it, offset zero."""
    conv = zeroed(nn.Conv2d(inputs, outputs, 3, padding=1))
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


def zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution itself, starting at zero: a residual branch that ends in it starts silent."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def check_image_batch(x: Tensor, *, channels: int, multiple: int, model: str) -> None:
    """Refuse a batch that the network cannot take, in words.

    Raises SettingsError unless `x` is [B, channels, H, W] with both sides a multiple of `multiple`.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise SettingsError(
            f"{model} was built for {channels} channels and cannot take a tensor of shape "
            f"{list(x.shape)}",
            hint=f"give it [batch, {channels}, height, width]",
        )
    height, width = x.shape[2:]
    if height % multiple or width % multiple or not height * width:
        raise SettingsError(
            f"{model} needs sides that are multiples of {multiple} px, but got {width}x{height} px",
            hint="pad the image by reflection first; the restorer does that by itself",
        )


def check_levels(model: str, levels: int, *, least: int = 1) -> None:
    """Raises SettingsError unless a U of so many levels could restore any picture there is."""
    check_counts(model, least=least, levels=levels)
    if levels > _MOST_LEVELS:
        raise SettingsError(
            f"levels of {model} is {levels}", hint=f"choose at most {_MOST_LEVELS} levels"
        )


@runtime_checkable
class Foldable(Protocol):
    """A block whose learned scales can become part of the convolutions beside them."""

    def fold_scales(self) -> None:
        """Multiply the scales into their neighbours and drop them; there is no way back."""


def fold_scales(model: nn.Module) -> None:
    """Fold the scales of every block that can: a network that is only used has no need of them.

    The results stay the same up to rounding; the network's parameters do not, and are not to be
    saved or trained afterwards.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Foldable):
                module.fold_scales()


def fold_scale(convolution: nn.Module, scale: Tensor | None) -> None:
    """Multiply what a convolution gives by `scale` [1, C, 1, 1], for good."""
    assert isinstance(convolution, nn.Conv2d)
    if scale is None:
        return  # folded before
    convolution.weight *= scale.view(-1, 1, 1, 1)
    if convolution.bias is not None:
        convolution.bias *= scale.flatten()


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """`x` times its learned scale, where that is not folded away."""
    return x if scale is None else x * scale


def check_counts(model: str, *, least: int = 1, **counts: int) -> None:
    """Raises SettingsError naming the first of `counts` that is smaller than `least`."""
    for name, value in counts.items():
        if value < least:
            raise SettingsError(
                f"{name} of {model} is {value}", hint=f"choose a {name} of at least {least}"
            )


def check_choice(model: str, option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises SettingsError, with the nearest choice, for a value that is none of `choices`."""
    if value not in choices:
        raise SettingsError(
            f"{option} of {model} is {value!r}",
            hint=f"{nearest(str(value), choices)} (there are: {', '.join(choices)})",
        )


def is_traced() -> bool:
    """Whether operations are recorded for another engine, which knows plain arithmetic best."""
    # Torch 2.6 cannot tell an export from a compilation.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return bool(exporting()) or torch.jit.is_tracing()  # type: ignore[attr-defined]


def widened(x: Tensor) -> Tensor:
    """In fp32 where it was half as wide, else as it is: a graph in fp32 holds no casts."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
