"""The exception tree: one class, one exit code.

Every message says what happened and where (file, option, row); `hint` says how to mend it. Only
`cli/` turns these into text and exit codes.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class KbdenoiseError(Exception):
    """The work failed (exit code 1)."""

    exit_code = 1
    of_one_process = False
    """Whether, of processes that work together, only this one has it and has to tell it."""
    facts: Mapping[str, object] = {}
    """What was reached all the same, for `--json`: a file, the reference of a submission."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling between worker processes.
        return _rebuild, (type(self), self.message, self.hint)


class DataError(KbdenoiseError):
    """A file is missing, broken or unpaired."""


class NoMemoryError(DataError):
    """The work did not fit into the memory of its device."""

    of_one_process = True


class NotFiniteError(DataError):
    """A network answered with NaN or infinity."""


class KaggleError(KbdenoiseError):
    """Kaggle could not do what was asked; its kinds below have exit codes of their own."""


class KaggleLoginError(KaggleError):
    """No credentials, or Kaggle does not accept them (exit code 3)."""

    exit_code = 3


class KaggleRulesError(KaggleError):
    """The contest's rules are not accepted, or it is closed to this account (exit code 4)."""

    exit_code = 4


class KaggleNotFoundError(KaggleError):
    """Kaggle knows no such contest, file or submission (exit code 5)."""

    exit_code = 5


class KaggleLimitError(KaggleError):
    """Too many submissions today, or too many requests (exit code 6)."""

    exit_code = 6


class KaggleNetworkError(KaggleError):
    """The network or the server failed; the same command may work later (exit code 7)."""

    exit_code = 7


class KaggleValidationError(KaggleError):
    """A submission that the contest would not accept was not sent (exit code 8)."""

    exit_code = 8


class KaggleScoringError(KaggleError):
    """Kaggle accepted a submission and could not score it (exit code 9)."""

    exit_code = 9


class KaggleWaitError(KaggleError):
    """The score was not there when the waiting time was over (exit code 10)."""

    exit_code = 10


class SettingsError(KbdenoiseError):
    """The request makes no sense as given (exit code 2)."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """What an error of somebody else's says first, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or lists all of them.

    >>> nearest("kbnet_s", ["kbnet-s", "dncnn"])
    "did you mean 'kbnet-s'?"
    """
    words = sorted(known)
    close = get_close_matches(name, words, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else "choose one of: " + ", ".join(words)


def _rebuild(kind: type[KbdenoiseError], message: str, hint: str) -> KbdenoiseError:
    return kind(message, hint=hint)
