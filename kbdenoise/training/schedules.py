"""How the learning rate goes: a function of how far a run is, of its history and nothing else.

So a resumed run goes on at exactly the rate that it would have had.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kbdenoise.notation import Amount

_FIRST_RATE = 1e-3  # of the peak: a warm-up's first step
_ONE_CYCLE_RISE, _ONE_CYCLE_START = 0.3, 1 / 25  # share of the cycle, share of the peak

_NOTHING, _WHOLE_RUN, _NEVER = Amount(0.0, "run"), Amount(1.0, "run"), Amount(math.inf, "epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far a run is."""

    steps: int
    epochs: float
    """Passes over the training pictures."""
    samples: int
    """Patches seen."""
    run: float
    """Share of the run, 0 to 1: of its steps or, with a time limit, of its time."""

    def done(self, amount: Amount) -> float:
        """How much of an amount is done: 0 at the start, 1 when it is reached, then more."""
        position: float = getattr(self, amount.unit)
        return position / amount.value if amount.value else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePlan:
    """What the learning rate is to do. Rates are AdamW's; see the settings for their meanings."""

    schedule: str
    lr: float
    min_lr: float = 0.0
    warmup: Amount = _NOTHING
    length: Amount = _WHOLE_RUN
    restarts: int = 0
    decay: float = 0.1
    every: Amount = _WHOLE_RUN
    hold_from: Amount = _NEVER
    hold: float = 0.0


def learning_rate(plan: RatePlan, moment: Moment, *, drops: int = 0, last: float = 0.0) -> float:
    """The rate of the step that begins at `moment`; `drops` counts what `plateaus` found.

    The schedule runs from the first step and stays at its end: it never rises again but by
    `restarts`. Warm-up scales it by a straight rise. A hold wins over both; `last` is the rate of
    the step before, which is held where the plan names none.
    """
    if moment.done(plan.hold_from) >= 1.0:
        return plan.hold or last or _scheduled(plan, moment, drops)
    rate = _scheduled(plan, moment, drops)
    warm = moment.done(plan.warmup)
    return rate * max(warm, _FIRST_RATE) if warm < 1.0 else rate


def plateaus(scores: Sequence[float], *, patience: int, lower_is_better: bool) -> int:
    """How often `patience` scores in a row brought nothing better than the best before them.

    A score that is no number is no better.
    """
    best, waited, found = math.inf, 0, 0
    for score in scores:
        value = score if lower_is_better else -score
        if value < best:
            best, waited = value, 0
            continue
        waited += 1
        if waited >= patience:
            found, waited = found + 1, 0
    return found


def _scheduled(plan: RatePlan, moment: Moment, drops: int) -> float:
    if plan.schedule == "plateau":
        return max(plan.min_lr, plan.lr * plan.decay**drops)
    if plan.schedule == "step":
        return max(plan.min_lr, plan.lr * plan.decay ** math.floor(moment.done(plan.every)))
    done = min(1.0, moment.done(plan.length)) * (plan.restarts + 1)
    cycle = done - min(math.floor(done), plan.restarts)  # 1 at the very end
    return SHAPES[plan.schedule](cycle, plan.lr, plan.min_lr)


def constant(done: float, lr: float, min_lr: float) -> float:
    """Always the same."""
    return lr


def cosine(done: float, lr: float, min_lr: float) -> float:
    """Half a cosine from `lr` to `min_lr`.

    Source: Loshchilov and Hutter, 'SGDR', 2017 (arXiv:1608.03983), equation 5.
    """
    return min_lr + 0.5 * (lr - min_lr) * (1.0 + math.cos(math.pi * done))


def exponential(done: float, lr: float, min_lr: float) -> float:
    """A straight line on a logarithmic scale from `lr` to `min_lr`, which is above zero."""
    return float(lr * (min_lr / lr) ** done) if lr else 0.0


def one_cycle(done: float, lr: float, min_lr: float) -> float:
    """Up from a twenty-fifth of `lr` in three tenths, then down to `min_lr`, both by cosines.

    Source: Smith and Topin, 'Super-Convergence', 2018 (arXiv:1708.07120), with PyTorch's shape.
    """
    if done < _ONE_CYCLE_RISE:
        return cosine(1.0 - done / _ONE_CYCLE_RISE, lr, _ONE_CYCLE_START * lr)
    return cosine((done - _ONE_CYCLE_RISE) / (1.0 - _ONE_CYCLE_RISE), lr, min_lr)


SHAPES: Mapping[str, Callable[[float, float, float], float]] = {
    "constant": constant,
    "cosine": cosine,
    "exponential": exponential,
    "one-cycle": one_cycle,
}
"""Name -> rate at a share of the schedule; 'step' and 'plateau' depend on more than that."""
