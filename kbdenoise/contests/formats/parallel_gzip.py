"""Gzip by all cores: one ordinary stream whose blocks were deflated side by side.

As pigz does it: each block of plain bytes is deflated by itself, with the 32 KiB before it as its
dictionary, and ends on a whole byte; the blocks follow each other in one gzip member, so every
reader takes the file (RFC 1951, RFC 1952). The bytes do not depend on the number of threads.
"""

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate, no name, no time, any system
_END = b"\x03\x00"  # a last, empty block
_BLOCK = 1 << 20
_WINDOW = 1 << 15  # how far back deflate looks


class GzipStream:
    """Takes plain bytes and writes them deflated; `parallel_gzip` makes and ends it."""

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor, *, level: int, most: int) -> None:
        self._file = file
        self._pool = pool
        self._level = level
        self._most = most  # blocks that may wait, which keeps memory flat
        self._waiting: deque[Future[bytes]] = deque()
        self._plain = bytearray()
        self._dictionary = b""
        self._checksum = 0
        self._size = 0
        file.write(_HEADER)

    def write(self, data: bytes | memoryview) -> None:
        """Add plain bytes."""
        self._plain += data
        while len(self._plain) >= _BLOCK:
            self._submit(_BLOCK)

    def end(self) -> None:
        """Write what is left, and what tells a reader that the stream is whole."""
        self._submit(len(self._plain))
        while self._waiting:
            self._file.write(self._waiting.popleft().result())
        self._file.write(_END + struct.pack("<II", self._checksum, self._size & 0xFFFFFFFF))

    def _submit(self, length: int) -> None:
        block = bytes(self._plain[:length])
        del self._plain[:length]
        self._checksum = zlib.crc32(block, self._checksum)
        self._size += length
        self._waiting.append(self._pool.submit(_deflated, block, self._dictionary, self._level))
        self._dictionary = block[-_WINDOW:]
        while len(self._waiting) > self._most:
            self._file.write(self._waiting.popleft().result())


@contextmanager
def parallel_gzip(file: BinaryIO, *, level: int, threads: int) -> Iterator[GzipStream]:
    """A stream that deflates into `file` by `threads`; it is whole when the block ends well."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="gzip")
    try:
        stream = GzipStream(file, pool, level=level, most=2 * threads)
        yield stream
        stream.end()
    finally:
        pool.shutdown(cancel_futures=True)


def _deflated(block: bytes, dictionary: bytes, level: int) -> bytes:
    """Whole bytes of a deflate stream that goes on behind them."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=dictionary)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
