"""What training needs of memory: told beforehand, planned with, and made less.

The estimate is `models.memory`'s, which follows every tensor of a step without spending any memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from kbdenoise.config import TrainConfig
from kbdenoise.devices import DeviceChoice, free_memory_bytes
from kbdenoise.errors import NoMemoryError
from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model
from kbdenoise.models.memory import autocast_on_meta, training_memory
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.tone import ToneThen
from kbdenoise.notation import Stage
from kbdenoise.team import ALONE, Team
from kbdenoise.training.criterion import criterion_on_meta, trial_side
from kbdenoise.training.objective import Objective

_USABLE = 0.85  # of the free memory: estimates leave out workspaces and fragments
_USABLE_AGAIN, _ALIKE = 0.95, 0.9  # where a run goes on with nearly as much as before
_LARGEST_BATCH = 64  # that `--batch auto` takes; larger ones learn no faster a patch
_LONGEST_SEGMENT = 6  # layers in a row that are checkpointed together
Again = Callable[[], AbstractContextManager]
"""Makes a context that is entered when a block is computed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """How large a stage's batch is, in how many pieces each process takes its share, and why."""

    batch: int
    pieces: int
    needed_bytes: float
    """Of one process, at the moment when it is most."""
    free_bytes: float
    side: int
    """Of a patch or of the largest page, in px."""
    share: int
    """Patches of one process."""
    batch_norms: bool = False
    """Whether the model takes statistics of what it is given at once."""
    largest: int = 0
    """Side in px to which pages have to be cropped for the memory's sake; 0 means none."""

    @property
    def text(self) -> str:
        """One line for the screen."""
        parts = f"in {self.pieces} pieces" if self.pieces > 1 else "at once"
        if self.batch_norms and self.pieces > 1:
            parts += ", of which batch norms see one at a time"
        crop = f"; pages are cropped to {self.largest} px" if self.largest else ""
        return (
            f"about {self.needed_bytes / 2**30:.2g} of {self.free_bytes / 2**30:.3g} GiB free, "
            f"for {self.batch} x {self.side} px {parts}{crop}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a model's training takes of one process's memory, as a straight line of the pixels."""

    name: str
    multiple: int
    fixed_bytes: float
    """Weights, moments and the like."""
    bytes_per_pixel: float
    free_bytes: float
    processes: int
    batch_norms: bool
    accumulate: int
    """Pieces, where the person gave them; 0 leaves them to be found."""

    @classmethod
    def of(
        cls,
        info: ModelInfo,
        config: TrainConfig,
        objective: Objective,
        device: DeviceChoice,
        *,
        team: Team = ALONE,
    ) -> "Needs":
        """Estimated from batches of two and of eight patches; the same on every process.

        What is free is what the process with the least of it has.
        """
        side = trial_side(objective, config, multiple=info.multiple)
        two, eight = (_bytes(info, config, objective, device, side=side, batch=n) for n in (2, 8))
        each = max(1.0, (eight - two) / 6)
        free = min(team.gather(float(free_memory_bytes(device))))
        return cls(
            name=info.name,
            multiple=info.multiple,
            fixed_bytes=max(0.0, two - 2 * each),
            bytes_per_pixel=each / side**2,
            free_bytes=free / team.size if device.kind == "cpu" else free,
            processes=team.size,
            batch_norms=any(isinstance(m, _BatchNorm) for m in _skeleton(info).modules()),
            accumulate=config.memory.accumulate,
        )

    def total(self, *, side: int, batch: int) -> float:
        """Bytes of training on so many patches of `side` px at once."""
        return self.fixed_bytes + self.bytes_per_pixel * batch * side**2

    def pixels(self, *, usable: float) -> float:
        """How many pixels fit at once into a share of the free memory."""
        return (usable * self.free_bytes - self.fixed_bytes) / self.bytes_per_pixel


def plan_stage(
    needs: Needs, stage: Stage, *, page: int, before: MemoryPlan | None = None
) -> MemoryPlan:
    """Choose batch and pieces of a stage, where the settings leave them open.

    A batch of 0 becomes the largest power of two, up to 64 a process, that fits at once. `page` is
    the side of a square as large as the largest page, in px. What a run planned `before`, it keeps
    where there is more memory by now, and where a little less: of the side hangs what it sees, of
    the pieces the last digits of its sums. Raises NoMemoryError where not even one patch fits,
    unless the pieces are given.
    """
    is_alike = before is not None and needs.free_bytes >= _ALIKE * before.free_bytes
    usable = _USABLE_AGAIN if is_alike else _USABLE
    pixels = needs.pixels(usable=usable)
    side, largest = stage.patch, 0
    if stage.pages:
        fits = int(max(pixels, 0.0) ** 0.5) // needs.multiple * needs.multiple
        wanted = before.side if before else page
        side = wanted if wanted <= fits or needs.accumulate else max(fits, needs.multiple)
        largest = side if side < page else 0
    fitting = math.floor(pixels / side**2)
    if fitting < 1 and not needs.accumulate:
        raise NoMemoryError(
            f"a training step of {needs.name} on one patch of {side} px takes about "
            f"{needs.total(side=side, batch=1) / 2**30:.2f} GiB, but of "
            f"{needs.free_bytes / 2**30:.2f} GiB free only "
            f"{usable * needs.free_bytes / 2**30:.2f} can be counted on",
            hint="use --checkpointing, a smaller --patch, or a smaller --size or --width; or "
            "--accumulate with any number to try it all the same",
        )
    most = 2 ** int(math.log2(min(max(fitting, 1), _LARGEST_BATCH)))
    batch = stage.batch or needs.processes * most
    share = -(-batch // needs.processes)
    least = before.pieces if before and before.share == share else 1
    pieces = min(needs.accumulate or max(least, -(-share // max(fitting, 1))), share)
    return MemoryPlan(
        batch=batch,
        pieces=pieces,
        needed_bytes=needs.total(side=side, batch=-(-share // pieces)),
        free_bytes=needs.free_bytes,
        side=side,
        share=share,
        batch_norms=needs.batch_norms,
        largest=largest,
    )


def plan_stages(
    needs: Needs, stages: Sequence[Stage], *, page: int, before: Sequence[MemoryPlan] = ()
) -> tuple[MemoryPlan, ...]:
    """`plan_stage` for each of a run's stages, with what the run planned before, if it did."""
    known: Sequence[MemoryPlan | None] = before or [None] * len(stages)
    return tuple(
        plan_stage(needs, stage, page=page, before=plan)
        for stage, plan in zip(stages, known, strict=True)
    )


def cropped_more(plans: Sequence[MemoryPlan], before: Sequence[MemoryPlan]) -> str:
    """What there is to tell where pages are cropped to less than before; empty for nothing."""
    for plan, known in zip(plans, before, strict=False):
        if plan.side < known.side:
            return (
                f"there is less memory than when the run began: pages larger than {plan.side} px "
                f"are now cropped, instead of those larger than {known.side} px; --checkpointing "
                "or --accumulate may spare them that"
            )
    return ""


def with_batch(config: TrainConfig, batch: int) -> TrainConfig:
    """The settings with the batch that was found."""
    return replace(config, data=replace(config.data, batch=batch))


def checkpoint_blocks(model: nn.Module, *, again: Again = nullcontext) -> None:
    """Let a model's blocks keep their inputs only and compute the rest again going backward.

    Results and gradients stay what they are, to the last bit. `again` is entered when a block is
    computed again, where that needs what torch does not keep by itself. Source: Chen et al.,
    'Training Deep Nets with Sublinear Memory Cost', 2016 (arXiv:1604.06174).
    """
    for block in _blocks(model):
        parts = [partial(_checkpointed, part, part.forward, again) for part in _segments(block)]
        block.forward = partial(_in_turn, parts)  # type: ignore[method-assign]


def _skeleton(info: ModelInfo) -> nn.Module:
    """The model without its weights."""
    with on_meta():
        return build_model(info.name, channels=info.channels, **info.hyperparameters)


def _bytes(
    info: ModelInfo,
    config: TrainConfig,
    objective: Objective,
    device: DeviceChoice,
    *,
    side: int,
    batch: int,
) -> int:
    model = _skeleton(info)
    amp = bool(device.autocast)
    if config.memory.checkpointing:
        checkpoint_blocks(model, again=partial(autocast_on_meta, amp))
    memory = training_memory(
        model,
        channels=info.channels,
        patch=side,
        batch=batch,
        amp=amp,
        average=bool(config.optimiser.ema),
        criterion=criterion_on_meta(objective, config, channels=info.channels, amp=amp),
    )
    return memory.total_bytes


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts that a network is a row of: residual blocks and the like, not single layers."""
    if isinstance(module, ToneThen):
        yield from _blocks(module.restorer)
        return
    for child in module.children():
        rows = isinstance(child, nn.ModuleList) or (
            isinstance(child, nn.Sequential) and any(_is_composite(part) for part in child)
        )
        if rows:
            yield from _blocks(child)
        elif _is_composite(child):
            yield child


def _is_composite(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _segments(block: nn.Module) -> list[nn.Module]:
    """The block itself or, of a long row of layers, parts that each begin with a convolution.

    An activation that works in place would change what the part before it has kept.
    """
    if not isinstance(block, nn.Sequential) or len(block) <= _LONGEST_SEGMENT:
        return [block]
    rows: list[list[nn.Module]] = [[]]
    for layer in block:
        if isinstance(layer, nn.Conv2d) and len(rows[-1]) >= _LONGEST_SEGMENT:
            rows.append([])
        rows[-1].append(layer)
    return [nn.Sequential(*row) for row in rows]


def _in_turn(parts: Sequence[Callable[..., Any]], *inputs: Tensor) -> Any:
    out = parts[0](*inputs)
    for part in parts[1:]:
        out = part(out)
    return out


def _checkpointed(module: nn.Module, forward: Any, again: Again, *inputs: Tensor) -> Any:
    if not (module.training and torch.is_grad_enabled()):
        return forward(*inputs)
    contexts = partial(_contexts, module, again)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


def _contexts(
    module: nn.Module, again: Again
) -> tuple[AbstractContextManager, AbstractContextManager]:
    return nullcontext(), _frozen_and(again, module)


@contextmanager
def _frozen_and(again: Again, module: nn.Module) -> Iterator[None]:
    with _Frozen(module), again():
        yield


class _Frozen:
    """While a block is computed again, its batch norms do not count the batch a second time."""

    def __init__(self, module: nn.Module) -> None:
        self._norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self._momenta: list[float | None] = []

    def __enter__(self) -> None:
        self._momenta = [norm.momentum for norm in self._norms]
        self._counts = [
            None if n.num_batches_tracked is None else n.num_batches_tracked.clone()
            for n in self._norms
        ]
        for norm in self._norms:
            norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, momentum, count in zip(self._norms, self._momenta, self._counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
