"""Kernel-basis attention (KBA): a per-pixel mixture of learned grouped convolutions.

Zhang et al., 'KBNet: Kernel Basis Network for Image Restoration', 2023 (arXiv:2303.02881).

With the basis viewed as w[n, G, o, i, ky, kx] (n a basis, G a group, o and i its output and input
channels), zeros outside the image and r = k // 2, pixel p of output channel (G, o) is

    sum_n A_n(p) * ( b[n, G, o] + sum_{i,ky,kx} w[n, G, o, i, ky, kx] * x[G, i](p + (ky-r, kx-r)) )

One operator, `torch.ops.kbdenoise.kernel_basis_attention`, stands in front of three engines:

* `kba_native`: C on the CPU, for numbers of at most 32 bits;
* `kba_triton`: a fused kernel on CUDA;
* `kba_taps`: torch's own operations, everywhere else.

None keeps a mixed kernel for the backward pass: it is made again from the attention, which costs
a third of the backward pass and saves 36 values a channel and pixel. The operator works under
torch.compile, autocast, activation checkpointing and DistributedDataParallel; torch.export and
torch.jit.trace see plain operations instead, which other engines know.
"""

import functools
import importlib.util
import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kbdenoise.errors import first_line
from kbdenoise.models import kba_native, kba_taps
from kbdenoise.models.kba_library import native
from kbdenoise.models.kba_shape import Shape, shape_of
from kbdenoise.models.layers import is_traced


class KernelBasisAttention(nn.Module):
    """`kernel_basis_attention` without parameters of its own, to be hooked or swapped."""

    def __init__(self, *, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `kernel_basis_attention`."""
        return kernel_basis_attention(x, attention, weight, bias, groups=self.groups)


def kernel_basis_attention(
    x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int
) -> Tensor:
    """Filter every pixel of `x` with its own mixture of `nset` grouped convolutions.

    x: [B, C, H, W], attention: [B, nset, H, W] (any real values, no softmax),
    weight: [1, nset, C * gc * k * k] with gc = C / groups and k odd, bias: [1, nset, C].
    Returns [B, C, H, W], zeros being assumed outside the image. Under autocast images are of
    autocast's type and sums are taken in fp32. Differentiable once.

    Raises SettingsError when the shapes do not fit each other.
    """
    shape = shape_of(x, attention, weight, bias, groups=groups)
    if is_traced():
        return kba_taps.per_tap(x, attention, weight, bias, shape)
    device = x.device.type
    dtype = (
        torch.get_autocast_dtype(device)
        if device != "meta" and torch.is_autocast_enabled(device)
        else torch.promote_types(x.dtype, weight.dtype)
    )
    # A tensor of the right type is passed on as it is. The basis is not cast: the engines do that,
    # so that its gradient arrives in full.
    result: Tensor = _attend(x.to(dtype), attention.to(dtype), weight, bias, groups)
    return result


def fold_into_basis(weight: Tensor, bias: Tensor, scale: Tensor | None) -> None:
    """Multiply what the attention gives by `scale` [1, C, 1, 1], for good, in its basis."""
    if scale is None:
        return  # folded before
    per_channel = scale.flatten().repeat_interleave(weight.shape[2] // scale.numel())
    weight *= per_channel  # [1, nset, C * gc * k * k]: rows of an output channel lie together
    bias *= scale.flatten()


def engine(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int) -> str:
    """Which engine takes these tensors, and why, in words such as `C: compiled by gcc`."""
    shape = shape_of(x, attention, weight, bias, groups=groups)
    return _choose(x, shape)[1]


def _choose(x: Tensor, shape: Shape) -> tuple[ModuleType, str]:
    """The fastest engine that takes `x` and agrees with torch on this machine, and why."""
    fault = f"no other form takes {str(x.dtype).removeprefix('torch.')} on {x.device.type}"
    if x.device.type == "cpu" and x.dtype.itemsize <= 4:
        fault = kba_native.refusal(shape) or _fault(kba_native, str(x.device), x.dtype)
        if not fault:
            return kba_native, f"C: {native().reason}"
    elif x.is_cuda and x.dtype.itemsize <= 4:
        fault = "Triton is not installed"
        if _has_triton():
            from kbdenoise.models import kba_triton

            fault = _fault(kba_triton, str(x.device), x.dtype)
            if not fault:
                return kba_triton, "Triton: one fused kernel"
    return kba_taps, f"torch, tap by tap: {fault}"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _fault(engine: ModuleType, device: str, dtype: torch.dtype) -> str:
    """Why an engine is not to be trusted on a device: it fails or differs in a small trial.

    Empty for a good one. Compilers and drivers of machines that nobody has seen take part in what
    an engine computes; a training should not end, or learn nonsense, for their sake.
    """
    c, n, side = 16, 32, 9

    def values(*shape: int) -> Tensor:
        count = math.prod(shape)
        return torch.arange(count, dtype=torch.float64).sin().view(shape).to(device, dtype)

    x, grad, attention = (
        values(2, c, side, side),
        values(2, c, side, side),
        values(2, n, side, side),
    )
    weight, bias = values(1, n, c * 4 * 9), values(1, n, c)
    inputs = (x, attention, weight, bias)
    shape = shape_of(*inputs, groups=c // 4)
    try:
        found = [engine.forward(*inputs, shape), *engine.backward(grad, *inputs, shape)]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver comes up with
        return f"{engine.__name__.rpartition('_')[2]} fails here: {first_line(error)}"
    x, attention, weight, bias = (t.float() for t in inputs)
    wide = (x, attention, weight, bias)
    expected = [kba_taps.forward(*wide, shape), *kba_taps.backward(grad.float(), *wide, shape)]
    limit = 1e-4 if dtype == torch.float32 else 0.05
    for mine, theirs in zip(found, expected, strict=True):
        if not (mine.float() - theirs).abs().max() <= limit * theirs.abs().max():
            return f"{engine.__name__.rpartition('_')[2]} computes something else on this machine"
    return ""


# ------------------------------------------------------------------------------- the operator


@torch.library.custom_op("kbdenoise::kernel_basis_attention", mutates_args=())
def _attend(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    shape = shape_of(x, attention, weight, bias, groups=groups)
    if not x.numel():
        return torch.empty_like(x)
    with torch.autocast(x.device.type, enabled=False):  # types are settled
        return _like(x, _choose(x, shape)[0].forward(x, attention, weight, bias, shape))


@torch.library.custom_op("kbdenoise::kernel_basis_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = shape_of(x, attention, weight, bias, groups=groups)
    inputs = (x, attention, weight, bias)
    if not x.numel():
        grads = (torch.zeros_like(x), torch.zeros_like(attention), weight * 0, bias * 0)
    else:
        with torch.autocast(x.device.type, enabled=False):
            grads = _choose(x, shape)[0].backward(grad, *inputs, shape)
    return (
        _like(x, grads[0]),
        _like(attention, grads[1]),
        _like(weight, grads[2]),
        _like(bias, grads[3]),
    )


def _like(model: Tensor, values: Tensor) -> Tensor:
    """`values` in the type and memory format that the operator's fake forms promise."""
    made = torch.empty_like(model)
    if values.dtype == made.dtype and values.stride() == made.stride():
        return values
    return made.copy_(values)


@_attend.register_fake
def _(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    return torch.empty_like(x)


@_attend_backward.register_fake
def _(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = [torch.empty_like(tensor) for tensor in (x, attention, weight, bias)]
    return like[0], like[1], like[2], like[3]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(grad, *ctx.saved_tensors, ctx.groups), None


_attend.register_autograd(_differentiate, setup_context=_remember)
