"""The clock of a sitting, and what it has measured of it."""

import time
from dataclasses import dataclass

from kbdenoise.training.session import Session

_FORGETS = 0.9  # of the longest step, with every step


@dataclass(slots=True, kw_only=True)
class Clock:
    """Seconds of a run over all its sittings, and when it was last saved and reported."""

    before_s: float
    started: float
    saved: float
    reported: float
    reported_step: int
    saved_step: int
    """The step of the state on the disk."""
    save_s: float
    """How long the newest save took; of the leader."""
    waited_s: float = 0.0
    """Of this sitting, for patches that were not there when they were needed."""
    wait_noted: bool = False
    step_began: float = 0.0
    steps: int = 0
    """Of this sitting."""
    asked: bool = False
    """Whether somebody asked any of the processes to stop."""

    @classmethod
    def start(cls, session: Session) -> "Clock":
        """Go on from the seconds that earlier sittings took."""
        moment = time.monotonic()
        return cls(
            before_s=session.now.elapsed_s,
            started=moment,
            saved=moment,
            reported=moment,
            reported_step=session.now.step,
            saved_step=session.now.step,
            save_s=session.now.save_s,
        )

    def elapsed_s(self) -> float:
        """Seconds since the run's start, pauses between sittings left out."""
        return self.before_s + time.monotonic() - self.started

    def note_step(self, session: Session) -> None:
        """Agree with other processes on the time of a step, and on requests to stop.

        A sitting's first step, with all that comes before it, is none of the time that the
        schedule follows, nor a measure of others: libraries and kernels are loaded in it.
        """
        step_s = time.monotonic() - self.step_began
        mine = [self.elapsed_s(), step_s, self.save_s] if session.team.leads else [0.0] * 3
        elapsed_s, step_s, save_s, asked = session.team.total([*mine, float(session.request.asked)])
        self.asked, self.steps = asked > 0, self.steps + 1
        now = session.now
        now.save_s = save_s
        if self.steps == 1:
            now.elapsed_s = elapsed_s
            return
        now.step_s = step_s if self.steps == 2 else max(step_s, _FORGETS * now.step_s)
        session.pass_time(elapsed_s)
