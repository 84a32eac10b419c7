"""What a model costs: parameters, and multiply-accumulates with all kinds of attention counted.

Published figures of KBNet and Restormer count convolutions only; for KBNet-S at width 16 that
leaves out three quarters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kbdenoise.models.channel_attention import ChannelAttention
from kbdenoise.models.kba import KernelBasisAttention

_LAYERS = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
_COUNTED = _LAYERS | KernelBasisAttention | ChannelAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Macs:
    """Multiply-accumulates of one forward pass, for one image. Biases and norms are not counted."""

    conv: int = 0
    kernel_basis: int = 0
    attention: int = 0
    """Products of queries, keys and values in channel attention."""

    @property
    def total(self) -> int:
        """All columns together."""
        return self.conv + self.kernel_basis + self.attention

    def __add__(self, other: "Macs") -> "Macs":
        return Macs(
            conv=self.conv + other.conv,
            kernel_basis=self.kernel_basis + other.kernel_basis,
            attention=self.attention + other.attention,
        )


def count_parameters(model: nn.Module) -> int:
    """Learned numbers of a model. Buffers, such as batch norm's running means, are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, *, channels: int, side: int) -> Macs:
    """Count the multiply-accumulates of restoring one image of `side` x `side` px.

    Nothing is computed: shapes alone go through the model, on torch's meta device.
    """
    total = Macs()

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += module_macs(module, inputs, output)

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, _COUNTED)]
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    image = torch.empty(1, channels, side, side, device="meta")
    try:
        with torch.no_grad():
            if all(tensor.is_meta for tensor in state.values()):
                model(image)
            else:
                shapes = {name: tensor.to("meta") for name, tensor in state.items()}
                functional_call(model, shapes, (image,))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def module_macs(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Macs:
    """What one call of a module multiplied by itself, its parts left out."""
    if isinstance(module, KernelBasisAttention):
        return Macs(kernel_basis=_kernel_basis_macs(*inputs))
    if isinstance(module, ChannelAttention):
        return Macs(attention=_channel_attention_macs(*inputs))
    if isinstance(module, _LAYERS):
        return Macs(conv=_layer_macs(module, inputs[0], output))
    return Macs()


def _layer_macs(module: nn.Module, image: Tensor, output: Tensor) -> int:
    """Of a convolution or a linear layer: every weight meets every position once."""
    weights = module.weight.numel()  # type: ignore[operator]
    if isinstance(module, nn.Linear):
        return int(weights * output.numel() // module.out_features)
    positions = image if isinstance(module, nn.ConvTranspose2d) else output
    return int(weights * positions.shape[0] * positions.shape[2] * positions.shape[3])


def _kernel_basis_macs(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor) -> int:
    """Mixing the kernels, mixing the biases, and applying the mixed kernel."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    kernel_values = weight.numel() // attention.shape[1]
    return int(pixels * (weight.numel() + bias.numel() + kernel_values))


def _channel_attention_macs(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor) -> int:
    """Every channel of a head meets every other: once in the similarities, once in the mixing."""
    pixels = query.shape[0] * query.shape[2] * query.shape[3]
    per_pixel = query.shape[1] * (key.shape[1] + value.shape[1]) // temperature.shape[0]
    return int(pixels * per_pixel)
