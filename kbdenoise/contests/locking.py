"""A lock that a killed process lets go of, so that two fetches of one contest do not mix."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from kbdenoise.atomic import writing_to
from kbdenoise.errors import DataError

_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


def fetching(folder: Path) -> AbstractContextManager[None]:
    """The lock of all fetches into a contest's folder."""
    return locked(folder.with_name(f".{folder.name}.lock"), what=f"a fetch of {folder.name}")


@contextlib.contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file `path`; it is gone afterwards.

    Raises DataError if another process holds it: `what` says in a few words what is going on.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(path, what=what)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _taken(path: Path, *, what: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(handle)
        except OSError as error:
            if error.errno not in _HELD:  # a file system without locks
                return handle
            os.close(handle)
            raise DataError(
                f"{what} is going on in another process",
                hint=f"wait until it has ended, or end it; {path} is its lock",
            ) from None
        # The last holder may have removed the file between our two steps.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)


def _lock(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
