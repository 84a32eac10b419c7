"""What can go wrong, one answer at a time."""

import random
from collections import defaultdict, deque
from dataclasses import dataclass

RULES = "You must accept this competition's rules before you'll be able to download files."
HTML = b"<!DOCTYPE html><html><title>Log in to the hotel's network</title></html>"


@dataclass(frozen=True, slots=True)
class Fault:
    """How one answer goes wrong; `kind` is one of KINDS."""

    kind: str
    status: int = 500
    message: str = ""
    google: bool = False
    """Google's form of an error rather than Kaggle's."""
    retry_after: str = ""
    after: int = 0
    """Bytes of the body that are still good."""
    seconds: float = 30.0
    """That a hanging or stalled answer takes at most."""
    per_s: float = 20_000.0
    """Bytes per second of a slow body."""
    by: int = 100
    """Bytes that the told length is wrong by."""

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind


KINDS = (
    "none",  # a good answer, to have one in a sequence
    "status",  # an HTTP error
    "drop",  # the connection is closed without an answer
    "lost",  # the work is done, then the connection is closed without an answer
    "slow-made",  # of the API: the work is done, and the answer never comes
    "html",  # 200 with a web page
    "unmade",  # of CreateSubmission: nothing is made, and the answer has a message and ref 0
    "phantom",  # of CreateSubmission: success is told of a submission that there is not
    "hang",  # no answer
    "expired",  # storage says 403 with XML, as for a signed link that is too old
    "cut",  # the connection is closed after some bytes of the body
    "stall",  # silence after some bytes of the body
    "slow",
    "short",  # a length told, and sent, that is less than the file's
    "flip",  # some bytes changed
    "garbage",  # noise of the right length
    "bare",  # no ETag, no date, no range, no checksum
)

_ALWAYS = 10**9


class FaultPlan:
    """Which fault hits which answer."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[Fault, int]]] = defaultdict(deque)

    def add(self, method: str, faults: tuple[Fault, ...], *, times: int | None) -> None:
        """Let the next answers to `method` go wrong; the last fault stays if `times` is None."""
        for place, fault in enumerate(faults):
            last = place == len(faults) - 1
            count = _ALWAYS if last and times is None else (times or 1) if last else 1
            self._waiting[method].append((fault, count))

    def next(self, method: str) -> Fault | None:
        """The fault of the answer that is due, or None for a good one."""
        queue = self._waiting[method]
        if not queue:
            return None
        fault, left = queue.popleft()
        if left > 1:
            queue.appendleft((fault, left - 1))
        return None if fault.kind == "none" else fault

    def clear(self) -> None:
        """All is well again."""
        self._waiting.clear()


def damaged(content: bytes, fault: Fault | None) -> bytes:
    """The bytes of a body after the fault had its way with them."""
    kind = fault.kind if fault else "none"
    if kind == "flip":
        middle = len(content) // 2
        return (
            content[:middle]
            + bytes(b ^ 0xFF for b in content[middle : middle + 8])
            + content[middle + 8 :]
        )
    if kind == "garbage":
        return random.Random(1).randbytes(len(content))
    if kind == "short" and fault:
        return content[: len(content) - fault.by]
    return content
