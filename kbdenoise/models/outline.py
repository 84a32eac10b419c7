"""A model's parts, one line each: what they are, what they hold, what they cost."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kbdenoise.models.cost import _kernel_basis_macs, count_parameters
from kbdenoise.models.kba import KernelBasisAttention


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A part of a model."""

    name: str
    kind: str
    """Name of its class; of a plain sequence, what it is made of."""
    parameters: int
    macs: int
    """Multiply-accumulates of one image, kernel-basis products counted."""
    output: tuple[int, ...]
    """Shape of what it gives for one image: channels, height, width."""


def outline(
    model: nn.Module, *, channels: int, side: int, whole: bool = False
) -> tuple[Layer, ...]:
    """The parts of a model on the meta device, in the order in which they compute.

    Parts are what the model calls itself: levels, convolutions, branches; those that learn
    nothing are left out. `whole` lists the innermost layers instead. `side` in px is that of the
    square image that work is counted for.
    """
    outputs: dict[str, tuple[int, ...]] = {}
    kernel_basis: dict[str, int] = {}
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            outputs[names[module]] = tuple(output.shape[1:])
        if isinstance(module, KernelBasisAttention):
            kernel_basis[names[module]] = _kernel_basis_macs(*inputs)

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, channels, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    flops = counter.get_flop_counts()
    chosen = _innermost(model, set(outputs)) if whole else _parts(model, set(outputs))
    rows = []
    for name in sorted(chosen, key=list(outputs).index):
        module = model.get_submodule(name)
        if not list(module.parameters()):
            continue
        own = sum(flops.get(f"{type(model).__name__}.{name}", {}).values()) // 2
        own += sum(m for n, m in kernel_basis.items() if f"{n}.".startswith(f"{name}."))
        rows.append(
            Layer(
                name=name,
                kind=_kind(module),
                parameters=count_parameters(module),
                macs=own,
                output=outputs[name],
            )
        )
    return tuple(rows)


def _parts(model: nn.Module, called: set[str]) -> list[str]:
    """What the model's own forward pass calls; a single sequence is opened."""
    names = _called_below(model, "", called)
    while len(names) == 1 and isinstance(model.get_submodule(names[0]), nn.Sequential):
        names = _called_below(model.get_submodule(names[0]), f"{names[0]}.", called)
    return names


def _called_below(module: nn.Module, prefix: str, called: set[str]) -> list[str]:
    names = []
    for name, child in module.named_children():
        path = prefix + name
        if path in called:
            names.append(path)
        else:  # a list of modules is never called itself
            names += _called_below(child, f"{path}.", called)
    return names


def _innermost(model: nn.Module, called: set[str]) -> list[str]:
    """Layers without parts of their own."""
    modules = model.named_modules()
    return [n for n, m in modules if n in called and n and not list(m.children())]


def _kind(module: nn.Module) -> str:
    if not isinstance(module, nn.Sequential):
        return type(module).__name__
    counts = Counter(type(child).__name__ for child in module)
    parts = [name if n == 1 else f"{n} {name}" for name, n in counts.items()]
    return " + ".join(parts) if len(parts) <= 2 else f"{len(module)} layers"
