import gzip
import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kbdenoise.contests.formats.parallel_gzip import parallel_gzip

BLOCK = 1 << 20


def text(size: int) -> bytes:
    """Rows of numbers, as a submission has them."""
    rng = np.random.default_rng(size)
    row = b"".join(b"%d_%d,0.%d\n" % (n, n * 7, v) for n, v in enumerate(rng.integers(0, 99, 5000)))
    return (row * (size // len(row) + 1))[:size]


def packed(pieces: list[bytes], *, threads: int = 2) -> bytes:
    file = io.BytesIO()
    with parallel_gzip(file, level=1, threads=threads) as stream:
        for piece in pieces:
            stream.write(piece)
    return file.getvalue()


@pytest.mark.parametrize(
    "size", [0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 9 * BLOCK + 12345]
)
def test_pythons_own_reader_gets_every_byte_back(size: int) -> None:
    assert gzip.decompress(packed([text(size)])) == text(size)


@pytest.mark.skipif(not shutil.which("gzip"), reason="there is no gzip program here")
def test_the_gzip_program_finds_one_whole_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(packed([text(5 * BLOCK + 7)]))

    subprocess.run(["gzip", "--test", path], check=True)
    plain = subprocess.run(["gzip", "-dc", path], check=True, capture_output=True).stdout

    assert plain == text(5 * BLOCK + 7)


def test_random_bytes_which_do_not_shrink_come_back(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 * BLOCK + 5)

    assert gzip.decompress(packed([noise])) == noise


def test_the_bytes_depend_neither_on_threads_nor_on_pieces() -> None:
    whole = text(4 * BLOCK + 99)
    pieces = [whole[i : i + 77_777] for i in range(0, len(whole), 77_777)]

    assert packed([whole], threads=1) == packed(pieces, threads=5) == packed(pieces, threads=2)


def test_it_packs_as_tightly_as_one_thread_does() -> None:
    plain = text(8 * BLOCK)

    assert len(packed([plain])) <= 1.02 * len(gzip.compress(plain, 1))


def test_a_stream_that_was_broken_off_is_not_taken_for_whole() -> None:
    file = io.BytesIO()

    def broken_off() -> None:
        with parallel_gzip(file, level=1, threads=2) as stream:
            stream.write(text(5 * BLOCK))
            raise ValueError

    with pytest.raises(ValueError):
        broken_off()
    with pytest.raises(EOFError):
        gzip.decompress(file.getvalue())


def test_a_disk_that_fills_up_is_reported() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            if self.tell() > 100_000:
                raise OSError(28, "No space left on device")
            return super().write(data)  # type: ignore[arg-type]

    def fill() -> None:
        with parallel_gzip(Full(), level=1, threads=2) as stream:
            stream.write(np.random.default_rng(0).bytes(20 * BLOCK))

    with pytest.raises(OSError, match="No space"):
        fill()
