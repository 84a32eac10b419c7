"""A CSV that is written plain or, by the ending of its name, compressed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kbdenoise.contests.formats.parallel_gzip import GzipStream, parallel_gzip
from kbdenoise.devices import usable_cores

Sink = BinaryIO | GzipStream
"""What rows are written into."""

# Level 1 is several times faster than the default and the file is uploaded once.
_GZIP_LEVEL = 1


@contextmanager
def packed(file: BinaryIO, path: Path) -> Iterator[Sink]:
    """The file itself, or a gzip stream into it that holds no name and no time."""
    if path.suffix.lower() != ".gz":
        yield file
        return
    with parallel_gzip(file, level=_GZIP_LEVEL, threads=usable_cores()) as stream:
        yield stream
