"""A model's parts, one line each: what they are, what they hold, what they cost."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kbdenoise.models.cost import count_parameters, module_macs


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A part of a model."""

    name: str
    kind: str
    """Name of its class; of a plain sequence, what it is made of."""
    parameters: int
    macs: int
    """Multiply-accumulates of one image, attention counted."""
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
    macs: Counter[str] = Counter()
    names = {module: name for name, module in model.named_modules()}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            outputs[names[module]] = tuple(output.shape[1:])
            macs[names[module]] += module_macs(module, inputs, output).total

    hooks = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            model(torch.empty(1, channels, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    chosen = _innermost(model, set(outputs)) if whole else _parts(model, set(outputs))
    rows = []
    for name in sorted(chosen, key=list(outputs).index):
        module = model.get_submodule(name)
        if not list(module.parameters()):
            continue
        rows.append(
            Layer(
                name=name,
                kind=_kind(module),
                parameters=count_parameters(module),
                macs=sum(n for part, n in macs.items() if f"{part}.".startswith(f"{name}.")),
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
