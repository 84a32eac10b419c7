"""Decode once: all pixels of a contest's pairs in two flat files that are memory-mapped.

    <contest folder>/store/rgb/     (or luma/)
        noisy.bin   clean.bin       pixels, picture after picture, each [H, W, C], little-endian
        index.json                  where each picture lies, and checksums of what it was made from

A store is built beside its place and renamed, under a lock, so that a killed build leaves nothing
to trip over and two processes never build at once. It is checked whenever it is opened, and built
anew when the pictures changed or the store is damaged.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np

from kbdenoise.atomic import atomic_folder, writing_to
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.index import (
    Entry,
    Index,
    Source,
    look_at,
    pixel_checksum,
    read_index,
    unchanged,
    write_index,
)
from kbdenoise.data.pairs import SKIP_FILE, Pair
from kbdenoise.devices import usable_cores
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Pixels, read_header, read_opaque, with_channels

if sys.platform != "win32":
    import fcntl

Counter = Callable[[int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")

STORE_FOLDER = "store"
_FILES = ("noisy.bin", "clean.bin")
_SPOT_CHECKS = 4  # pictures whose pixels are compared with their checksum at every opening


class Store:
    """The decoded pairs of a contest, read-only, in the order of the pairs it was opened with.

    Pictures are uint8 [H, W, C], or uint16 if any source has 16 bits.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder = folder
        self.channels = index.channels
        """1 for luma, 3 for RGB."""
        self.dtype = np.dtype(index.dtype)
        self.stems = tuple(entry.stem for entry in index.entries)
        self.noisy_checksums = tuple(entry.noisy.pixels for entry in index.entries)
        self.clean_checksums = tuple(entry.clean.pixels for entry in index.entries)
        """Equal for equal pictures."""
        self.checksum = index.checksum
        """Changes with any stem or pixel, but not with files' dates or compression."""
        self._entries = index.entries
        # Plain arrays over the maps: slicing a np.memmap itself is several times slower.
        self._noisy, self._clean = (
            np.asarray(np.memmap(folder / name, dtype=self.dtype, mode="r")) for name in _FILES
        )

    def __len__(self) -> int:
        return len(self._entries)

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of pair `i` in pixels."""
        return self._entries[i].height, self._entries[i].width

    def name(self, i: int) -> str:
        """The name of pair `i`'s noisy file."""
        return self._entries[i].noisy.name

    def noisy(self, i: int) -> Pixels:
        """The degraded picture of pair `i`: a read-only view [H, W, C] of the map."""
        return self._view(self._noisy, i)

    def clean(self, i: int) -> Pixels:
        """The truth of pair `i`: a read-only view [H, W, C] of the map."""
        return self._view(self._clean, i)

    def _view(self, flat: Pixels, i: int) -> Pixels:
        entry = self._entries[i]
        end = entry.offset + entry.height * entry.width * self.channels
        return flat[entry.offset : end].reshape(entry.height, entry.width, self.channels)


def open_store(
    local: LocalContest,
    pairs: Sequence[Pair],
    *,
    channels: int,
    progress: Counter | None = None,
    workers: int = 0,
) -> Store:
    """The store of `pairs` (as `find_pairs` returns them), built first where that is needed.

    `channels` is 1 for luma or 3 for RGB; each has a store of its own. `progress` is called with
    (pairs done, pairs) during a build; `workers` is the number of threads, 0 for one a core.

    Raises DataError for a picture that cannot be read or is partly transparent, for a pair of
    unequal sizes, and for a disk that is full or may not be written.
    """
    if not pairs:
        raise DataError(f"{local.folder} has no pairs to store", hint="see `kbdenoise inspect`")
    home = local.folder / STORE_FOLDER
    folder = home / ("luma" if channels == 1 else "rgb")
    with writing_to(folder):
        home.mkdir(parents=True, exist_ok=True)
    with _only_one(home / f"{folder.name}.lock") as alone:
        index = _usable(folder, pairs, channels=channels, workers=workers)
        if index is None:
            _clear(folder, leftovers=alone)
            places = _lay_out(local, pairs, channels=channels, workers=workers)
            index = _build(folder, places, channels=channels, progress=progress, workers=workers)
        return Store(folder, index)


def in_parallel(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int = 0,
    progress: Counter | None = None,
) -> list[Result]:
    """Apply `function` to all items in threads; the first exception in their order is raised.

    OpenCV, checksums and file access let go of Python's lock, so threads keep the cores busy.
    """
    results: list[Result] = []
    pool = ThreadPoolExecutor(workers or usable_cores())
    try:
        for result in pool.map(function, items):
            results.append(result)
            if progress:
                progress(len(results), len(items))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a pair will lie in the files; the offset is in values."""

    pair: Pair
    height: int
    width: int
    offset: int


class _SixteenBitsNeeded(Exception):
    """A 16-bit picture turned up in what was meant to become an 8-bit store."""


def _lay_out(
    local: LocalContest, pairs: Sequence[Pair], *, channels: int, workers: int
) -> list[_Place]:
    """Sizes and offsets from the headers, so that a bad pair is named before the long work."""

    def common_size(pair: Pair) -> tuple[int, int]:
        noisy, clean = read_header(pair.noisy), read_header(pair.clean)
        if (noisy.width, noisy.height) != (clean.width, clean.height):
            raise DataError(
                f"{pair.noisy} is {noisy.width}x{noisy.height} px but its clean partner "
                f"{pair.clean} is {clean.width}x{clean.height} px",
                hint=f"remove the pair, or list it in {local.folder / SKIP_FILE}",
            )
        return noisy.height, noisy.width

    sizes = in_parallel(common_size, pairs, workers=workers)
    offsets = accumulate((h * w * channels for h, w in sizes[:-1]), initial=0)
    return [_Place(p, h, w, o) for p, (h, w), o in zip(pairs, sizes, offsets, strict=True)]


def _build(
    folder: Path,
    places: Sequence[_Place],
    *,
    channels: int,
    progress: Counter | None,
    workers: int,
) -> Index:
    for dtype in ("uint8", "uint16"):
        try:
            _check_space(folder.parent, places, value_bytes=channels * np.dtype(dtype).itemsize)
            with atomic_folder(folder) as part:
                fill = _filler(part, channels=channels, dtype=dtype)
                entries = in_parallel(fill, places, workers=workers, progress=progress)
                index = Index(channels=channels, dtype=dtype, entries=tuple(entries))
                _flush(part)
                write_index(part, index)
            return index
        except _SixteenBitsNeeded:
            continue  # 16-bit sets are homogeneous as a rule: it is the first picture that says so
    raise AssertionError("a 16-bit store holds pictures of every depth")


def _filler(part: Path, *, channels: int, dtype: str) -> Callable[[_Place], Entry]:
    """A function that decodes a pair into its place; threads may call it side by side."""
    for name in _FILES:
        (part / name).touch()

    def fill(place: _Place) -> Entry:
        sources = []
        for path, name in zip((place.pair.noisy, place.pair.clean), _FILES, strict=True):
            source, pixels = _decoded(path, channels=channels, dtype=dtype)
            if pixels.shape[:2] != (place.height, place.width):
                raise DataError(f"{path} changed while it was being read", hint="run this again")
            # Not through a writable map: there a full disk is a bus error instead of an OSError.
            with (part / name).open("r+b") as file:
                file.seek(place.offset * pixels.itemsize)
                file.write(np.ascontiguousarray(pixels).data)
            sources.append(source)
        return Entry(
            stem=place.pair.stem,
            height=place.height,
            width=place.width,
            offset=place.offset,
            noisy=sources[0],
            clean=sources[1],
        )

    return fill


def _decoded(path: Path, *, channels: int, dtype: str) -> tuple[Source, Pixels]:
    source = look_at(path)
    pixels = read_opaque(path)
    if pixels.dtype.name != dtype:
        if dtype == "uint8":
            raise _SixteenBitsNeeded
        pixels = pixels.astype(np.uint16) * np.uint16(257)  # 255 -> 65535
    pixels = with_channels(pixels, channels)
    return replace(source, pixels=pixel_checksum(pixels)), pixels


def _flush(part: Path) -> None:
    for name in _FILES:
        with (part / name).open("r+b") as file:
            os.fsync(file.fileno())


def _check_space(folder: Path, places: Sequence[_Place], *, value_bytes: int) -> None:
    needed_bytes = 2 * value_bytes * sum(place.height * place.width for place in places)
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise DataError(
            f"the decoded pictures need {needed_bytes / 1e9:.2f} GB in {folder}, but its disk has "
            f"{free_bytes / 1e9:.2f} GB left",
            hint="free some space, or keep the contest's folder on another disk",
        )


def _clear(folder: Path, *, leftovers: bool) -> None:
    """Remove an unusable store and, if no one else can be building, what killed builds left."""
    with writing_to(folder):
        if folder.exists():
            shutil.rmtree(folder)
    if leftovers:
        for part in folder.parent.glob(f".{folder.name}.part-*"):
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    """Wait until no other process holds `path`; yields False where the disk knows no locks.

    The system lets go of the lock when its holder ends, however that happens.
    """
    with writing_to(path):
        file = path.open("ab")
    with file:
        locked = False
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
                locked = True
        yield locked


def _usable(folder: Path, pairs: Sequence[Pair], *, channels: int, workers: int) -> Index | None:
    """The index of a store that is whole and was made from `pairs` as they are, else None."""
    index = read_index(folder)
    if index is None or index.channels != channels or not _is_whole(folder, index):
        return None
    names = [(entry.stem, entry.noisy.name, entry.clean.name) for entry in index.entries]
    if names != [(pair.stem, pair.noisy.name, pair.clean.name) for pair in pairs]:
        return None
    known = list(zip(index.entries, pairs, strict=True))
    entries = [entry for entry in in_parallel(_renewed, known, workers=workers) if entry]
    if len(entries) < len(index.entries):
        return None
    current = replace(index, entries=tuple(entries))
    if current != index:  # touched or copied, but the same: spare the next opening the look
        write_index(folder, current)
    return current


def _renewed(known: tuple[Entry, Pair]) -> Entry | None:
    entry, pair = known
    noisy, clean = unchanged(entry.noisy, pair.noisy), unchanged(entry.clean, pair.clean)
    return replace(entry, noisy=noisy, clean=clean) if noisy and clean else None


def _is_whole(folder: Path, index: Index) -> bool:
    """Whether both files have their size and a few pictures, first and last among them, are right.

    Reading everything would take as long as the disk needs for gigabytes.
    """
    try:
        if any((folder / name).stat().st_size != index.size_bytes for name in _FILES):
            return False
        store = Store(folder, index)
    except (OSError, ValueError):
        return False
    spots = set(np.linspace(0, len(store) - 1, _SPOT_CHECKS).astype(int).tolist())
    return all(
        pixel_checksum(store.noisy(i)) == store.noisy_checksums[i]
        and pixel_checksum(store.clean(i)) == store.clean_checksums[i]
        for i in spots
    )
