import errno
import json
import os
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from kbdenoise.contests.contest import LocalContest
from kbdenoise.data import store as store_module
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.store import Store, in_parallel, open_store
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import Pixels, encode, read_opaque, with_channels, write_pixels


class Builds:
    """Counts the pairs that a build decodes; none if the store was only opened."""

    def __init__(self) -> None:
        self.decoded = 0

    def __call__(self, done: int, total: int) -> None:
        self.decoded = done


def opened(local: LocalContest, *, channels: int = 3) -> tuple[Store, bool]:
    """The store, and whether it had to be built."""
    builds = Builds()
    store = open_store(local, find_pairs(local), channels=channels, progress=builds)
    return store, builds.decoded > 0


def refusal(local: LocalContest) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        opened(local)
    return caught.value.message, caught.value.hint


def random_pixels(seed: int, *shape: int, bits: int = 8) -> Pixels:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=dtype)


def put(local: LocalContest, name: str, noisy: Pixels, clean: Pixels) -> None:
    write_pixels(local.noisy / name, noisy)
    write_pixels(local.clean / name, clean)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_store_holds_every_pair_pixel_by_pixel(contest, channels):
    put(contest, "gray.png", random_pixels(1, 5, 9, 1), random_pixels(2, 5, 9, 1))
    pairs = find_pairs(contest)

    store = open_store(contest, pairs, channels=channels)

    assert len(store) == len(pairs) and store.stems == tuple(p.stem for p in pairs)
    assert store.dtype == np.uint8
    for i, pair in enumerate(pairs):
        for view, path in ((store.noisy(i), pair.noisy), (store.clean(i), pair.clean)):
            expected = with_channels(read_opaque(path), channels)
            np.testing.assert_array_equal(view, expected)
            assert view.shape == (*store.size(i), channels)


def test_views_are_read_only(contest):
    store, _ = opened(contest)

    with pytest.raises(ValueError, match="read-only"):
        store.noisy(0)[0, 0] = 0


def test_one_16_bit_picture_makes_a_16_bit_store(contest):
    deep = random_pixels(3, 7, 6, 3, bits=16)
    put(contest, "zz.png", deep, random_pixels(4, 7, 6, 3))

    store, _ = opened(contest)
    last = len(store) - 1

    assert store.dtype == np.uint16
    np.testing.assert_array_equal(store.noisy(last), deep)
    np.testing.assert_array_equal(
        store.clean(last), 257 * random_pixels(4, 7, 6, 3).astype(np.uint16)
    )
    assert not opened(contest)[1]


def test_a_second_opening_builds_nothing(contest):
    first, built = opened(contest)

    second, built_again = opened(contest)

    assert built and not built_again
    assert first.checksum == second.checksum


def test_luma_and_rgb_have_stores_of_their_own(contest):
    opened(contest, channels=3)
    opened(contest, channels=1)

    assert not opened(contest, channels=3)[1] and not opened(contest, channels=1)[1]


def test_progress_counts_the_pairs(contest):
    seen = []

    open_store(contest, find_pairs(contest), channels=3, progress=lambda *done: seen.append(done))

    assert seen == [(i, 8) for i in range(1, 9)]


def test_a_changed_source_is_noticed(contest):
    before, _ = opened(contest)
    path = find_pairs(contest)[3].noisy
    write_pixels(path, 255 - read_opaque(path))

    after, rebuilt = opened(contest)

    assert rebuilt and before.checksum != after.checksum
    np.testing.assert_array_equal(after.noisy(3), read_opaque(path))


def test_a_change_that_keeps_size_and_date_is_noticed(contest):
    flat = [np.full((9, 9, 3), level, np.uint8) for level in (10, 20)]
    path = contest.noisy / "zz.bmp"
    put(contest, "zz.bmp", flat[0], flat[0])
    opened(contest)
    before = path.stat()
    path.write_bytes(encode(flat[1], suffix=".bmp"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    store, rebuilt = opened(contest)

    assert path.stat().st_size == before.st_size
    assert rebuilt and store.noisy(len(store) - 1).max() == 20


def test_touching_or_repacking_a_source_keeps_the_pixels_checksum(contest):
    before, _ = opened(contest)
    pairs = find_pairs(contest)
    for pair in pairs:
        os.utime(pair.noisy, ns=(1, 1))

    _, rebuilt_when_touched = opened(contest)
    index = (before.folder / "index.json").read_text()
    encoded = cv2.imencode(
        ".png", cv2.imread(str(pairs[0].clean)), [cv2.IMWRITE_PNG_COMPRESSION, 0]
    )
    pairs[0].clean.write_bytes(encoded[1].tobytes())
    after, rebuilt_when_repacked = opened(contest)

    assert not rebuilt_when_touched and '"mtime_ns": 1,' in index
    assert rebuilt_when_repacked and after.checksum == before.checksum


def test_added_and_removed_pairs_are_noticed(contest):
    opened(contest)
    put(contest, "zz.png", random_pixels(1, 8, 8, 3), random_pixels(2, 8, 8, 3))
    larger, grown = opened(contest)
    (contest.folder / "skip.txt").write_text("zz\n")

    smaller, shrunk = opened(contest)

    assert grown and shrunk and (len(larger), len(smaller)) == (9, 8)


def test_equal_truths_share_a_checksum_and_others_do_not(contest):
    truth = random_pixels(5, 8, 6, 3)
    put(contest, "zz1.png", random_pixels(1, 8, 6, 3), truth)
    put(contest, "zz2.tif", random_pixels(2, 8, 6, 3), truth)
    put(contest, "zz3.png", random_pixels(2, 6, 8, 3), truth.reshape(6, 8, 3))

    checksums = opened(contest)[0].clean_checksums

    assert checksums[8] == checksums[9]
    assert len(set(checksums)) == len(checksums) - 1


@pytest.mark.parametrize("name", ["noisy.bin", "clean.bin", "index.json"])
@pytest.mark.parametrize("damage", ["cut", "zeroed", "removed"])
def test_a_damaged_store_is_built_again(contest, name, damage):
    good, _ = opened(contest)
    path = good.folder / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "zeroed":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()

    store, rebuilt = opened(contest)

    assert rebuilt and store.checksum == good.checksum


def test_a_tampered_index_is_not_believed(contest):
    good, _ = opened(contest)
    path = good.folder / "index.json"
    content = json.loads(path.read_text())
    content["store"]["entries"][1]["offset"] += 1  # not one of those whose pixels are looked at
    path.write_text(json.dumps(content))

    assert opened(contest)[1]


def test_a_moved_contest_keeps_its_store(contest, tmp_path):
    before, _ = opened(contest)
    moved = LocalContest(folder=tmp_path / "elsewhere", contest=contest.contest)
    shutil.move(contest.folder, moved.folder)

    after, rebuilt = opened(moved)

    assert not rebuilt and after.checksum == before.checksum


KILLED = """
import os, signal, sys
from pathlib import Path
from kbdenoise.contests.contest import open_contest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.store import open_store

def kill(done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

local = open_contest(sys.argv[1])
open_store(local, find_pairs(local), channels=3, progress=kill)
"""


def test_a_build_killed_half_way_leaves_nothing_to_trip_over(contest, start_child):
    killed = start_child(KILLED, contest.folder).wait()
    left = {path.name for path in (contest.folder / "store").iterdir()}

    store, built = opened(contest)

    assert killed.returncode == -signal.SIGKILL
    assert any(name.startswith(".rgb.part-") for name in left) and "rgb" not in left
    assert built and len(store) == 8
    assert {p.name for p in (contest.folder / "store").iterdir()} == {"rgb", "rgb.lock"}


def test_of_two_that_want_the_store_at_once_one_builds_and_the_other_waits(contest):
    pairs, builds, stores = find_pairs(contest), [Builds(), Builds()], []
    started = threading.Barrier(2)

    def want(number: int) -> None:
        started.wait()
        stores.append(open_store(contest, pairs, channels=3, progress=builds[number]))

    threads = [threading.Thread(target=want, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(build.decoded for build in builds) == [0, 8]
    assert stores[0].checksum == stores[1].checksum


def test_a_pair_of_unequal_sizes_names_both_files_and_sizes(contest):
    put(contest, "zz.png", random_pixels(1, 8, 9, 3), random_pixels(1, 8, 7, 3))

    message, hint = refusal(contest)

    assert message == (
        f"{contest.noisy / 'zz.png'} is 9x8 px but its clean partner "
        f"{contest.clean / 'zz.png'} is 7x8 px"
    )
    assert hint == f"remove the pair, or list it in {contest.folder / 'skip.txt'}"


def test_a_transparent_picture_is_refused_and_nothing_is_left(contest):
    put(contest, "zz.png", random_pixels(1, 8, 8, 3), random_pixels(1, 8, 8, 3))
    write_pixels(
        contest.noisy / "zz.png", random_pixels(1, 8, 8, 3), alpha=np.full((8, 8), 7, np.uint8)
    )

    message, _ = refusal(contest)

    assert "zz.png is partly transparent" in message
    assert [p.name for p in (contest.folder / "store").iterdir()] == ["rgb.lock"]


@pytest.mark.parametrize("content", [b"", b"no picture", b"II*\0"])
def test_a_broken_picture_is_named(contest, content):
    (contest.clean / "Page.00002.01.png").write_bytes(content)

    assert "Page.00002.01.png" in refusal(contest)[0]


def test_a_picture_cut_short_is_named(contest):
    path = contest.noisy / "Page.00002.01.png"
    path.write_bytes(path.read_bytes()[:-40])

    message, hint = refusal(contest)

    assert "Page.00002.01.png is damaged or cut short" in message and hint


def test_too_little_space_is_told_before_the_work(contest, monkeypatch):
    monkeypatch.setattr(
        store_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=92_159)
    )

    message, hint = refusal(contest)

    assert "need 0.00 GB" in message and "another disk" in hint


def test_a_disk_that_fills_up_is_an_error_and_nothing_is_left(contest):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        message, hint = refusal(contest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "no space left on the disk" in message and "free some space" in hint
    assert [p.name for p in (contest.folder / "store").iterdir()] == ["rgb.lock"]
    assert opened(contest)[1]


def test_a_folder_that_may_not_be_written_is_an_error(contest, monkeypatch):
    def refuse(path: Path, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write whatever its mode says

    assert "not allowed to write" in refusal(contest)[0]


def test_no_pairs_are_an_error(contest):
    with pytest.raises(DataError, match="no pairs"):
        open_store(contest, [], channels=3)


def test_work_in_parallel_raises_the_first_error_in_order():
    def work(item: int) -> int:
        if item in (3, 5):
            raise DataError(f"item {item}")
        return item

    with pytest.raises(DataError, match="item 3"):
        in_parallel(work, range(100), workers=4)
    assert in_parallel(work, [0, 1, 2], workers=2) == [0, 1, 2]


def test_a_progress_callback_that_raises_stops_the_work():
    done = []

    def stop(count: int, total: int) -> None:
        raise KeyboardInterrupt

    def work(item: int) -> None:
        time.sleep(0.001)
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        in_parallel(work, range(500), workers=2, progress=stop)

    assert len(done) < 100
