"""One process at a time trains a run; the system lets go of the lock however that process ends."""

import contextlib
from collections.abc import Iterator

from kbdenoise.atomic import writing_to
from kbdenoise.errors import DataError
from kbdenoise.runs.folder import Run


@contextlib.contextmanager
def trained_here(run: Run) -> Iterator[None]:
    """Hold a run's lock. Raises DataError where another process has it.

    Without effect on file systems and systems that know no such locks.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = run.path / ".lock"
    with writing_to(path):
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"the run {run.name} is being trained by another process",
                hint="wait for it, or stop it first (Ctrl-C saves)",
            ) from error
        except OSError:  # the file system has no locks
            pass
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
