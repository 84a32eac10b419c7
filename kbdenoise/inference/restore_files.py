"""Files in, restored files out: read ahead, restored, written behind, so that nothing waits."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from kbdenoise.ahead import ahead
from kbdenoise.devices import enough_memory
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Header, Picture, Pixels, read_picture, write_pixels
from kbdenoise.inference.ledger import Ledger, Stamp
from kbdenoise.inference.restoration import Restoration
from kbdenoise.progress import Advance, Progress

_WRITERS = 4  # threads; encoding and flushing to the disk take longer than reading
_BEHIND = 8  # pictures that may wait to be written
_LARGE_BYTES = 64 * 1024**2  # of pixels, from which pictures are written before the next begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A picture to restore, and where to."""

    source: Path
    target: Path
    header: Header
    stamp: Stamp

    @property
    def kind(self) -> tuple[int, int, int, int]:
        """Height, width, channels and bit depth: pictures alike in these go side by side."""
        header = self.header
        return header.height, header.width, header.channels, header.bit_depth


def restore_files(
    jobs: Sequence[Job], restoration: Restoration, ledger: Ledger, progress: Progress
) -> None:
    """Restore pictures and note in the ledger those that are on the disk.

    Which pictures go side by side can change the last place of a value; a call that goes on where
    another was stopped may group them differently.

    Raises DataError for pictures that cannot be read, when all others are done, and at once for a
    full disk; NoMemoryError where even small tiles do not fit.
    """
    damage: list[DataError] = []
    writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="write")
    writing: deque[Future[None]] = deque()
    done = 0

    def write(job: Job, pixels: Pixels, alpha: Pixels | None) -> None:
        ledger.begin(job.target, job.stamp)
        write_pixels(job.target, pixels, alpha=alpha)
        ledger.note(job.target, job.stamp)

    def advance(share: float) -> None:
        progress(Advance(task="restore", done=done + share, total=len(jobs)))

    advance(0.0)
    try:
        groups = (_read(jobs, damage) for jobs in _groups(jobs, restoration))
        with closing(ahead(groups)) as read:
            for group in read:
                restored = group.restored(restoration, advance)
                for job, pixels, alpha in zip(group.jobs, restored, group.alphas, strict=True):
                    if group.is_large:
                        write(job, pixels, alpha)  # with the memory that the network let go of
                    else:
                        writing.append(_submit(writers, write, job, pixels, alpha))
                done += len(group.jobs)
                advance(0.0)
                while len(writing) > _BEHIND:
                    writing.popleft().result()
        while writing:
            writing.popleft().result()
    finally:
        writers.shutdown()  # what was restored is written, even where the rest is given up
    done = len(jobs)
    advance(0.0)
    if damage:
        others = f", and {len(damage) - 1} more such files" if damage[1:] else ""
        message = f"{damage[0].message}{others}; all other pictures are restored"
        raise DataError(message, hint=damage[0].hint) from damage[0]


class _Group:
    """Pictures of one size and kind that were read, to be restored side by side."""

    def __init__(self, jobs: Sequence[Job], pictures: Sequence[Picture]) -> None:
        self.jobs = jobs
        self.alphas = [picture.alpha for picture in pictures]
        self.is_large = sum(picture.pixels.nbytes for picture in pictures) > _LARGE_BYTES
        self._pixels = [picture.pixels for picture in pictures]

    def restored(self, restoration: Restoration, advance: Callable[[float], None]) -> list[Pixels]:
        """The restored pixels, in the memory of the others."""
        if not self.jobs:
            return []
        bit_depth = 8 * self._pixels[0].itemsize
        return restoration.pixels(
            self._take, bit_depth=bit_depth, advance=lambda share: advance(share * len(self.jobs))
        )

    def _take(self) -> list[Pixels]:
        """The pixels, once; from the files when they are asked for again."""
        pixels, self._pixels = self._pixels, []
        return pixels or [_picture(job).pixels for job in self.jobs]


def _read(jobs: Sequence[Job], damage: list[DataError]) -> _Group:
    """Read what can be read; a damaged file is left for the end: it costs no other its night."""
    whole, pictures = [], []
    for job in jobs:
        try:
            pictures.append(_picture(job))
            whole.append(job)
        except DataError as error:
            damage.append(error)
    return _Group(whole, pictures)


def _groups(jobs: Sequence[Job], restoration: Restoration) -> Iterator[list[Job]]:
    """Neighbours of one size and kind, as many as are best restored side by side.

    It runs a group ahead of the restoration; one that has become too large is cut there.
    """
    for (height, width, *_), alike in groupby(jobs, key=lambda job: job.kind):
        waiting = list(alike)
        while waiting:
            count = restoration.together(height, width)
            yield waiting[:count]
            waiting = waiting[count:]


def _picture(job: Job) -> Picture:
    """The picture as its header said. Raises DataError for any other, and for want of memory."""
    with enough_memory(f"reading {job.source}", hint="close other programs"):
        picture = read_picture(job.source)
    height, width, channels = picture.pixels.shape
    kind = (height, width, channels, picture.bit_depth)
    if kind != job.kind or (picture.alpha is not None) != job.header.alpha:
        raise DataError(f"{job.source} changed while it was restored", hint="run this again")
    return picture


def _submit(
    pool: ThreadPoolExecutor, write: Callable[[Job, Pixels, Pixels | None], None], *work: Any
) -> Future[None]:
    """Write in a thread, or here and now where the system has no thread left to give."""
    try:
        return pool.submit(write, *work)
    except RuntimeError:
        write(*work)
        written: Future[None] = Future()
        written.set_result(None)
        return written
