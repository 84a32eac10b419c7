"""Stop at a good moment: the first Ctrl-C or SIGTERM asks, the second one stops at once."""

import signal
import threading
from types import FrameType, TracebackType

from kbdenoise.team import ALONE, Team


class Stopped(Exception):
    """Work was left in the middle because somebody asked to stop; it has changed nothing yet."""


class StopRequest:
    """While entered, turns the first SIGINT or SIGTERM into `asked = True`.

    Entered within another request it is that one: whoever asks, asks all that is going on.

    Notebook hosts send SIGTERM before they end a session. Outside the main thread Python allows
    no signal handlers; then nothing is changed. With `patient` further signals change nothing:
    `torchrun` passes on what the terminal has sent to every process already.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.asked = False
        self.patient = patient
        self._before: dict[int, object] = {}

    def heed(self, team: Team = ALONE) -> None:
        """Raise Stopped where this process, or any of a team, was asked to stop."""
        if team.total([float(self.asked)])[0]:
            raise Stopped

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            outer = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
            if isinstance(outer, StopRequest):
                return outer
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self.patient:
            raise KeyboardInterrupt
        self.asked = True
