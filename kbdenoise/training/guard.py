"""When training has diverged: the error far above what it was, and worse than doing nothing."""

import math
from dataclasses import dataclass

_FAST, _SLOW = 0.95, 0.99  # memories of about 20 and 100 steps
_MOST_SKIPPED_IN_A_ROW = 50


@dataclass(slots=True, kw_only=True)
class Watch:
    """Running levels of a run's error: mean squared, in image units, whatever the loss is.

    `level` is the lowest that the error's mean over about a hundred steps has been. Doing nothing
    is the error of the noisy pictures themselves, over about twenty steps as `error` is.
    """

    first: float = math.nan
    error: float = math.nan
    nothing: float = math.nan
    slow: float = math.nan
    level: float = math.inf
    steps: int = 0
    skipped_in_a_row: int = 0

    def note(self, *, error: float, nothing: float) -> None:
        """Take in the errors of one step that was done."""
        self.skipped_in_a_row = 0
        self.steps += 1
        self.first = error if self.steps == 1 else self.first
        self.error = _mean(self.error, error, memory=_FAST)
        self.nothing = _mean(self.nothing, nothing, memory=_FAST)
        self.slow = _mean(self.slow, error, memory=_SLOW)
        if self.steps >= 1.0 / (1.0 - _SLOW):
            self.level = min(self.level, self.slow)

    def note_skipped(self) -> None:
        """Take in a step that was not done, as its loss or its gradient was not finite."""
        self.skipped_in_a_row += 1

    def alarm(self, factor: float) -> str:
        """What is wrong, in words; empty while all is well, or where the guard is off (0).

        A lasting lack of finite gradients is always wrong.
        """
        if self.skipped_in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            return f"{self.skipped_in_a_row} steps in a row had no finite gradient"
        if not factor or not self.steps:
            return ""
        if not math.isfinite(self.error):
            return "the error is no longer finite"
        level = self.level if math.isfinite(self.level) else max(self.nothing, self.first)
        if self.error > factor * level and self.error > self.nothing:
            return f"the error is {self.error / level:.3g} times its level so far"
        return ""

    def is_calm(self) -> bool:
        """Whether this is a state worth going back to."""
        return self.skipped_in_a_row == 0 and not self.error > 3.0 * self.level


def _mean(before: float, value: float, *, memory: float) -> float:
    return value if math.isnan(before) else memory * before + (1.0 - memory) * value
