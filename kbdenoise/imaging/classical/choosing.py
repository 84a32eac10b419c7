"""Choose a filter's parameters on training pairs with the contest's own metric.

A coarse grid on a few pictures, the best of it again on more, then values between the best and its
neighbours. No random numbers: the same pairs give the same parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from kbdenoise.errors import SettingsError, nearest
from kbdenoise.imaging.classical.table import Filter, Grid, Pair, Parameters

if TYPE_CHECKING:
    from kbdenoise.imaging.metrics import Metric

_FINALISTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The parameters that scored best, and how they were found."""

    parameters: Parameters
    score: float
    """On the pictures that the finalists were compared on, in the metric's unit."""
    tried: int
    best_try: int
    """Which of the tries, counted from 1, it was."""
    whole: bool
    """False where the search was asked to stop before its end."""


def choose(
    chosen: Filter,
    few: Sequence[Pair],
    more: Sequence[Pair] = (),
    *,
    metric: "Metric",
    fixed: Parameters | None = None,
    asked_to_stop: Callable[[], bool] = lambda: False,
    after_each: Callable[[int, int, float], None] = lambda done, total, score: None,
) -> Chosen:
    """The parameters that score best, by `metric`, on (noisy, clean) pairs.

    The grid is tried on `few` pairs; the best of it, and values between, on `more` (empty: the same
    ones). Pairs may be loaded as they are asked for. `fixed` holds points of the grid that are not
    to be chosen. `asked_to_stop` is asked between tries, after the first; `after_each` is told how
    many are done, how many there will be at most, and the score.
    """
    grid = check_fixed(chosen, fixed or {})
    points = [dict(zip(grid, values, strict=True)) for values in product(*_values(grid))]
    fitted = points if chosen.fit is None else chosen.fit(more or few, points)
    between = 0 if chosen.fit else 2 * len(grid)
    search = _Search(
        chosen=chosen,
        metric=metric,
        total=len(fitted) + (min(_FINALISTS, len(fitted)) if more else 0) + between,
        asked_to_stop=asked_to_stop,
        after_each=after_each,
    )
    ranked = search.ranked(fitted, few)
    if more and not search.stopped:
        ranked = search.ranked([t.parameters for t in ranked[:_FINALISTS]], more) or ranked
    best = ranked[0]
    if chosen.fit is None:
        best = _refined(search, best, grid, more or few)
    if not search.stopped:
        after_each(search.total, search.total, best.score)
    return Chosen(
        parameters=best.parameters,
        score=best.score,
        tried=search.done,
        best_try=best.number,
        whole=not search.stopped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    parameters: dict[str, Any]
    score: float
    number: int


@dataclass(slots=True, kw_only=True)
class _Search:
    """Tries, counted; `stopped` once the caller wants no more of them."""

    chosen: Filter
    metric: "Metric"
    total: int
    asked_to_stop: Callable[[], bool]
    after_each: Callable[[int, int, float], None]
    done: int = 0
    stopped: bool = False
    numbers: dict[str, int] = field(default_factory=dict)

    def attempt(self, parameters: dict[str, Any], pairs: Sequence[Pair]) -> _Try | None:
        """Score the parameters on the pairs; None where no more is wanted. The first is made."""
        self.stopped = self.stopped or (self.done > 0 and self.asked_to_stop())
        if self.stopped:
            return None
        scores, sizes = [], []
        for noisy, clean in pairs:
            scores.append(self.metric.score(self.chosen.apply(noisy, **parameters), clean))
            sizes.append(clean.size)
        score = self.metric.pool(scores, sizes)
        self.done += 1
        self.after_each(self.done, self.total, score)
        number = self.numbers.setdefault(repr(parameters), self.done)
        return _Try(parameters=parameters, score=score, number=number)

    def ranked(self, candidates: Sequence[dict[str, Any]], pairs: Sequence[Pair]) -> list[_Try]:
        """All that could be tried, the best first; equals stay in order, NaN goes last."""
        tries = [t for c in candidates if (t := self.attempt(c, pairs)) is not None]
        sign = 1.0 if self.metric.lower_is_better else -1.0
        return sorted(tries, key=lambda t: (t.score != t.score, sign * t.score))


def _refined(search: _Search, best: _Try, grid: Mapping[str, Grid], pairs: Sequence[Pair]) -> _Try:
    """Go half-way to the neighbours on the grid, one parameter after the other."""
    for name, values in grid.items():
        here = best.parameters[name]
        place = values.values.index(here)
        for neighbour in values.values[max(0, place - 1) : place + 2]:
            value = values.between(here, neighbour)
            if neighbour == here or value in (here, neighbour):
                continue
            near = search.attempt({**best.parameters, name: value}, pairs)
            if near is not None and search.metric.better(near.score, best.score):
                best = near
    return best


def check_fixed(chosen: Filter, fixed: Parameters) -> dict[str, Grid]:
    """The filter's grid with the fixed parameters at one value each.

    Raises SettingsError for a parameter that it does not have, or an impossible value.
    """
    grid = chosen.grid
    narrowed = dict(grid)
    for name, value in fixed.items():
        if name not in grid:
            raise SettingsError(
                f"there is no parameter {name!r}",
                hint=f"{nearest(name, grid)} (it has: {', '.join(grid)})",
            )
        one = grid[name].checked(value, where=name)
        narrowed[name] = Grid(values=(one,), words=grid[name].words, kind=grid[name].kind)
    return narrowed


def _values(grid: Mapping[str, Grid]) -> list[tuple[float, ...]]:
    return [one.values for one in grid.values()]
