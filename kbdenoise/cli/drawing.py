"""Progress on the screen: a live bar on a terminal, now and then a plain line elsewhere."""

import time
from collections.abc import Callable
from typing import Protocol, TextIO

from kbdenoise.cli.words import event_values, figure, plain_values, printable
from kbdenoise.progress import Advance, Event, Fact, Note

PAUSE_S = 30.0
"""Shortest time between two plain progress lines."""

_ROOM_FOR_BAR = 60  # terminal columns
_MANY = 1_000_000


class Drawer(Protocol):
    """Anything that shows the events of `kbdenoise.progress`."""

    def draw(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the screen as a shell expects it."""


class PlainDrawer:
    """Lines for a file, a pipe or a notebook's log."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._quiet_until = -float("inf")

    def draw(self, event: Event) -> None:
        """Write facts and notes at once, progress at most every `PAUSE_S` seconds."""
        if isinstance(event, Advance):
            if self._clock() < self._quiet_until:
                return
            self._quiet_until = self._clock() + PAUSE_S
            line = f"{event.task} {_plain_count(event)} {plain_values(event.values)}".rstrip()
        elif isinstance(event, Note):
            line = " ".join(filter(None, [event.text, plain_values(event.values)]))
        else:
            line = fact_line(event)
        self._stream.write(printable(line) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to put in order."""


class LiveDrawer:
    """A bar for each task in hand at the foot of the terminal, notes above it."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._clock = clock
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        cut = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = [
            TextColumn("  {task.description}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[count]}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}", markup=False, table_column=cut),
        ]
        if self._console.width < _ROOM_FOR_BAR:
            del columns[2]
        self._progress = Progress(
            *columns,
            console=self._console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            refresh_per_second=5,
        )
        self._tasks: dict[str, _Task] = {}

    def draw(self, event: Event) -> None:
        """Move a bar, or print a line above the bars."""
        if isinstance(event, Advance):
            self._advance(event)
            return
        if isinstance(event, Note):
            line = "  " + "  ".join(filter(None, [event.text, event_values(event.values)]))
        else:
            line = fact_line(event)
        self._console.print(printable(line), soft_wrap=True)

    def close(self) -> None:
        """Take the bars away and show the cursor again."""
        self._progress.stop()

    def _advance(self, event: Advance) -> None:
        if event.task not in self._tasks:
            number = self._progress.add_task(printable(event.task), count="", figures="")
            self._tasks[event.task] = _Task(number, event.done, self._clock())
        task = self._tasks[event.task]
        if event.total and event.done >= event.total:
            self._progress.remove_task(task.number)  # type: ignore[arg-type]
            del self._tasks[event.task]
            return
        values = dict(event.values)
        if "left_s" not in values and (left := task.seconds_left(event, self._clock())) is not None:
            values["left_s"] = left
        self._progress.update(
            task.number,  # type: ignore[arg-type]
            completed=event.done,
            total=event.total or None,
            count=_count(event),
            figures=event_values(values),
        )
        self._progress.start()  # does nothing when the bars are on the screen already


class _Task:
    """A bar's number, and where it started from."""

    def __init__(self, number: int, done: float, started_at: float) -> None:
        self.number = number
        self.first = done
        self.started_at = started_at

    def seconds_left(self, event: Advance, now: float) -> float | None:
        """The remaining time at the average speed so far; None until there is a speed."""
        moved = event.done - self.first
        if moved <= 0 or now <= self.started_at:
            return None
        return (event.total - event.done) * (now - self.started_at) / moved


def fact_line(fact: Fact) -> str:
    """`  device   cpu  no GPU was found`."""
    return f"  {fact.label:<8} {fact.text}"


def _count(event: Advance) -> str:
    """`31/500`, or a percentage where the total is a share or a number of bytes."""
    if event.total <= 1 or event.total >= _MANY:
        return f"{event.done / event.total:.0%}" if event.total else ""
    return f"{figure(round(event.done))}/{figure(round(event.total))}"


def _plain_count(event: Advance) -> str:
    count = _count(event)
    if "/" not in count:
        return f"done={count or '?'}"
    return f"done={round(event.done)} of={round(event.total)}"
