"""What a model needs of memory, found without spending any.

The shapes of one training step go through the model on torch's meta device, forward and backward,
while every storage is followed from its birth to its end. Of the curve that this gives the highest
point counts, with the weights and what the optimiser keeps of them added.

What a library takes beside the tensors is not seen: cuDNN's workspace, an allocator's fragments.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from kbdenoise.models.kba import KernelBasisAttention

_CONVOLUTION = torch.ops.aten.convolution.default
_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Bytes of a training step at the moment when they are most."""

    weights_bytes: int
    moments_bytes: int
    """AdamW's two running means of every weight's gradient."""
    average_bytes: int
    """The averaged weights."""
    gradients_bytes: int
    activations_bytes: int
    """The batch, and what the backward pass has left of `kept_bytes`."""
    temporaries_bytes: int
    """What lives within the backward pass only."""
    kept_bytes: int
    """What the forward pass ends with, the batch counted: the most that activations can be."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        kept = self.weights_bytes + self.moments_bytes + self.average_bytes
        return kept + self.gradients_bytes + self.activations_bytes + self.temporaries_bytes


def _mean_square(noisy: Tensor, restored: Tensor, clean: Tensor) -> Tensor:
    return (restored - clean).square().mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What judges the restored patches [B, C, P, P], float32, all on the meta device."""

    loss: Callable[[Tensor, Tensor, Tensor], Tensor] = _mean_square
    """Of noisy, restored and clean patches, a scalar."""
    learn: Callable[[Tensor, Tensor, Tensor], None] | None = None
    """What learns from the same three once the model's gradients are there."""
    networks: Sequence[nn.Module] = ()
    """That take part; those with gradients are trained, too."""


_PIXELS = Criterion()


def training_memory(
    model: nn.Module,
    *,
    channels: int,
    patch: int,
    batch: int,
    amp: bool,
    average: bool = True,
    criterion: Criterion = _PIXELS,
) -> TrainingMemory:
    """Estimate the memory of training a model that lies on the meta device, with AdamW.

    The model is left in training mode, with gradients. `patch` in px is a multiple of the model's
    own; `amp` means autocast to a type of two bytes; `average` that averaged weights are kept.
    """
    networks = (model, *criterion.networks)
    fixed = [tensor.untyped_storage() for network in networks for tensor in _tensors(network)]
    with _kernel_basis_on_meta(model.train(), amp=amp), _Ledger(fixed) as ledger:
        noisy = torch.empty(batch, channels, patch, patch, device="meta")
        clean = torch.empty_like(noisy)
        with autocast_on_meta(amp):
            restored = model(noisy)
        restored = restored.float()
        loss = criterion.loss(noisy, restored, clean)
        learn = criterion.learn and partial(criterion.learn, noisy, restored.detach(), clean)
        del restored
        ledger.mark()
        loss.backward()
        if learn:
            learn()
    parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
    gradients = {p.grad.untyped_storage()._cdata for p in parameters if p.grad is not None}
    learnt = _bytes(parameters)
    return _with_step(
        TrainingMemory(
            weights_bytes=sum(_bytes(_tensors(network)) for network in networks),
            moments_bytes=2 * learnt,
            average_bytes=_bytes(_tensors(model)) * average,
            kept_bytes=ledger.kept_bytes,
            **ledger.peak(gradients),
        ),
        gradients_bytes=learnt,
    )


def restoring_bytes(model: nn.Module, *, channels: int, side: int, amp: bool) -> int:
    """Bytes of restoring one picture of `side` px on the meta device, the weights left out.

    The model is left in evaluation mode. `side` is a multiple of the model's own.
    """
    fixed = [tensor.untyped_storage() for tensor in _tensors(model)]
    with (
        torch.no_grad(),
        _kernel_basis_on_meta(model.eval(), amp=amp),
        _Ledger(fixed) as ledger,
        autocast_on_meta(amp),
    ):
        model(torch.empty(1, channels, side, side, device="meta"))
    return sum(ledger.peak(set()).values())


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _with_step(memory: TrainingMemory, *, gradients_bytes: int) -> TrainingMemory:
    """The optimiser's own step instead, where it needs more: all gradients, no activations."""
    step = TrainingMemory(
        weights_bytes=memory.weights_bytes,
        moments_bytes=memory.moments_bytes,
        average_bytes=memory.average_bytes,
        gradients_bytes=gradients_bytes,
        activations_bytes=0,
        temporaries_bytes=0,
        kept_bytes=memory.kept_bytes,
    )
    return max(memory, step, key=lambda m: m.total_bytes)


class _Ledger(TorchDispatchMode):
    """The births and ends of all storages but those known before, in their order.

    oneDNN and cuDNN copy what a convolution reads and writes into a layout of their own and back;
    these copies live while the convolution runs.
    """

    def __init__(self, known: list[torch.UntypedStorage]) -> None:
        super().__init__()
        self._alive: dict[int, weakref.ref[torch.UntypedStorage] | None] = {
            storage._cdata: None for storage in known
        }
        self._events: list[tuple[int, int]] = []  # (serial number, bytes gained)
        self._serial: dict[int, int] = {}  # address -> number of the newest storage there
        self._forward_events = 0
        self.kept_bytes = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._note(tensor.untyped_storage())
        if func is _CONVOLUTION or func is _CONVOLUTION_BACKWARD:
            image, weight, result = args[0], args[1], out
            if func is _CONVOLUTION_BACKWARD:  # its arguments begin with the result's gradient
                result, image, weight = args[:3]
            size = sum(t.numel() * t.element_size() for t in (image, weight, result))
            number = len(self._events)
            self._events += [(number, size), (number, -size)]
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive:
            return
        number, size = len(self._events), storage.nbytes()

        def end(_: object) -> None:
            del self._alive[key]
            self._events.append((number, -size))

        self._events.append((number, size))
        self._serial[key] = number
        self._alive[key] = weakref.ref(storage, end)

    def mark(self) -> None:
        """What lives now counts as kept by the forward pass."""
        self._forward_events = len(self._events)
        self.kept_bytes = sum(size for _, size in self._events)

    def peak(self, gradients: set[int]) -> dict[str, int]:
        """Bytes by kind at the highest point; `gradients` are addresses of living storages."""
        numbers = {self._serial[key] for key in gradients if key in self._serial}
        kept: set[int] = set()
        for number, size in self._events[: self._forward_events]:
            (kept.add if size >= 0 else kept.discard)(number)
        now = {"gradients_bytes": 0, "activations_bytes": 0, "temporaries_bytes": 0}
        highest, total, most = dict(now), 0, 0
        for number, size in self._events:
            kind = "gradients" if number in numbers else "temporaries"
            now["activations_bytes" if number in kept else f"{kind}_bytes"] += size
            total += size
            if total > most:
                highest, most = dict(now), total
        return highest


class _KernelBasis(torch.autograd.Function):
    """What kernel-basis attention keeps and makes, for tensors that are shapes only.

    Its operator answers such tensors with empty ones; beside them its engines hold, while they
    compute, an fp32 copy with a margin of every image that goes in or comes out.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        attention: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        dtype: torch.dtype,
    ) -> Tensor:
        x, attention = x.to(dtype), attention.to(dtype)
        ctx.save_for_backward(x, attention, weight, bias)
        copies = _fp32_copies(x, attention, x)
        out = torch.empty_like(x)
        del copies
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, attention, weight, bias = ctx.saved_tensors
        copies = _fp32_copies(x, attention, grad, x, attention)
        grads = [torch.empty_like(tensor) for tensor in (x, attention, weight, bias)]
        del copies
        return *grads, None, None


def _fp32_copies(*images: Tensor) -> list[Tensor]:
    return [torch.empty_like(image, dtype=torch.float32) for image in images]


@contextmanager
def _kernel_basis_on_meta(model: nn.Module, *, amp: bool) -> Iterator[None]:
    """Let the kernel-basis layers of a model run, inside of the context, on the meta device."""
    layers = [m for m in model.modules() if isinstance(m, KernelBasisAttention)]
    dtype = torch.bfloat16 if amp else torch.float32
    for layer in layers:

        def forward(*tensors: Tensor, groups: int = layer.groups) -> Any:
            return _KernelBasis.apply(*tensors, groups, dtype)

        layer.forward = forward  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


_HALVED = {
    torch.conv2d,
    torch.conv_transpose2d,
    torch.prelu,
    torch.nn.functional.prelu,
    torch.nn.functional.linear,
    torch.matmul,
    torch.bmm,
    torch.einsum,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
}
_WIDENED = {
    torch.softmax,
    torch.nn.functional.softmax,
    Tensor.softmax,
    torch.nn.functional.layer_norm,
    torch.nn.functional.group_norm,
    torch.nn.functional.normalize,
}


class _Autocast(TorchFunctionMode):
    """Autocast's types on the meta device, where torch has none: products are halved."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        wanted = {True: torch.bfloat16, False: torch.float32}
        if func in _HALVED or func in _WIDENED:
            dtype = wanted[func in _HALVED]

            def cast(value: Any) -> Any:
                is_float = isinstance(value, Tensor) and value.is_floating_point()
                return value.to(dtype) if is_float else value

            args, kwargs = tree_map(cast, args), tree_map(cast, kwargs or {})
        return func(*args, **(kwargs or {}))


@contextmanager
def autocast_on_meta(amp: bool) -> Iterator[None]:
    """Within it, layers on the meta device take the types that autocast would give them."""
    if not amp:
        yield
        return
    with _Autocast():
        yield
