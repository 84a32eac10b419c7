"""How long the network is waited for, and how often it is asked again."""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kbdenoise.errors import KaggleError, SettingsError

TIMEOUT_VARIABLE = "KBDENOISE_TIMEOUT"
_STANDARD_S = 60.0

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Waiting times in seconds."""

    connect_s: float = 10.0
    """For a connection to be made."""
    read_s: float = 60.0
    """For the next bytes to arrive."""
    tries: int = 5
    """Of one request; of a download, those in a row that brought no byte."""
    pause_s: float = 1.0
    """Before the second try; it doubles with each further one."""
    longest_pause_s: float = 60.0
    """Bound of a pause, one that the server asks for (Retry-After) included."""
    total_s: float = 12 * 3600.0
    """Bound of a whole download."""

    @classmethod
    def of_environment(cls) -> "Patience":
        """The standard, scaled by KBDENOISE_TIMEOUT: seconds that a silent server is waited for."""
        text = os.environ.get(TIMEOUT_VARIABLE, "")
        if not text:
            return cls()
        try:
            scale = float(text) / _STANDARD_S
        except ValueError:
            scale = 0.0
        if not 0 < scale < float("inf"):
            raise SettingsError(
                f"{TIMEOUT_VARIABLE} is '{text}', which is no number of seconds above 0",
                hint=f"for example: export {TIMEOUT_VARIABLE}=60",
            )
        plain = cls()
        return cls(
            connect_s=min(plain.connect_s, plain.read_s * scale),
            read_s=plain.read_s * scale,
            pause_s=plain.pause_s * scale,
            longest_pause_s=plain.longest_pause_s * scale,
            total_s=plain.total_s * scale,
        )

    def pause(self, failures: int, *, asked_s: float | None = None) -> float:
        """Seconds to wait after so many failures (1, 2, ...) in a row."""
        doubled = self.pause_s * 2.0 ** (failures - 1)
        return min(max(doubled, asked_s or 0.0), self.longest_pause_s)


class TryAgain(Exception):
    """A failure that may pass; `error` is what to raise when patience is over."""

    def __init__(self, error: KaggleError, *, asked_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.asked_s = asked_s


class NothingLeft(TryAgain):
    """The server has nothing after the bytes that are here; begin anew."""


def patiently(
    work: Callable[[], Result], patience: Patience, *, sleep: Callable[[float], None] = time.sleep
) -> Result:
    """Do something that may be repeated without harm, until it works or patience is over.

    `work` raises TryAgain for a failure that may pass. A server that asks for a longer pause than
    `longest_pause_s` is not asked again.
    """
    failures = 0
    while True:
        try:
            return work()
        except TryAgain as failure:
            failures += 1
            last, asked_s = failure.error, failure.asked_s
        # Outside of the except block: what the client raised is not to be dragged along.
        if failures >= patience.tries or (asked_s or 0.0) > patience.longest_pause_s:
            raise last
        pause_s = patience.pause(failures, asked_s=asked_s)
        logger.debug("%s; again in %.1f s", last.message, pause_s)
        sleep(pause_s)
