"""What long work tells its caller while it goes on. Library functions never print.

A function takes `progress: Progress` and calls it with one of these; the command line draws them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something chosen or found, with its reason: `device   cpu   no GPU was found`."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How far a task has come. `done == total` ends it."""

    task: str
    done: float
    total: float
    values: Mapping[str, float | int | str] = field(default_factory=dict)
    """Figures to show beside the bar: loss, images per second, seconds left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A sentence worth reading: a warning, or a result on the way such as a validation score."""

    text: str
    values: Mapping[str, float | int | str] = field(default_factory=dict)


Event = Fact | Advance | Note
Progress = Callable[[Event], None]


def silent(event: Event) -> None:
    """The progress of a caller who does not want any."""


def counting(progress: Progress, task: str) -> Callable[[int, int], None]:
    """A plain (done, total) callback that reports to `progress` as `task`."""

    def advance(done: int, total: int) -> None:
        progress(Advance(task=task, done=done, total=total))

    return advance
