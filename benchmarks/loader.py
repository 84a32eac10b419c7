"""How fast training patches come: this project's store against decoding files for every sample.

    python -m benchmarks.loader [--pairs 24] [--patch 128] [--batch 8] [--seconds 3]

Both sides run in one process on one core, over the same synthetic 512x512 LZW TIFF pairs in a
temporary folder, with warm file caches, and hand over the same float32 tensors [B, C, P, P].
The naive loader does, for every sample, what a usual data set class does: map both files, decode
both pictures, turn both by a random angle (warpAffine), cut a patch, make floats.
"""

import argparse
import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from kbdenoise.contests.contest import Contest, LocalContest
from kbdenoise.data.batches import to_images
from kbdenoise.data.index import read_index
from kbdenoise.data.pairs import Pair, find_pairs
from kbdenoise.data.patches import PatchSampler, prefetch
from kbdenoise.data.store import Store, open_store
from kbdenoise.devices import choose_device
from kbdenoise.imaging.files import FloatImage, to_float, write_image

SIDE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpeed:
    """Patches (noisy with clean) a second of one core's time, and the building of the store."""

    patch: int
    batch: int
    naive_patches_per_s: float
    store_patches_per_s: float
    store_channels_last_patches_per_s: float
    """For networks that want the channels of a pixel side by side, as they are stored."""
    ratio: float
    cold_ratio: float
    """The same with nothing of the store in the system's file cache, in time that passes."""
    build_pairs_per_s: float
    reopen_s: float


def measure(
    *, pairs: int = 24, patch: int = 128, batch: int = 8, seconds: float = 3.0
) -> LoaderSpeed:
    """Measure both loaders in this process, each for about `seconds`."""
    choose_device("cpu")  # keeps freed memory, as the program does
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(Path(folder), pairs=pairs, patch=patch, batch=batch, seconds=seconds)
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def _measure(folder: Path, *, pairs: int, patch: int, batch: int, seconds: float) -> LoaderSpeed:
    local = write_contest_pictures(folder, pairs=pairs)
    found = find_pairs(local)
    started = time.perf_counter()
    store = open_store(local, found, channels=3, workers=1)
    build_s = time.perf_counter() - started
    started = time.perf_counter()
    store = open_store(local, found, channels=3)
    reopen_s = time.perf_counter() - started
    sampler = PatchSampler(store, range(pairs), patch=patch, batch=batch, seed=0)

    def ours(step: int) -> None:
        to_images(sampler.batch(step))

    def side_by_side(step: int) -> None:
        to_images(sampler.batch(step), channels_last=True)

    naive = _rate(lambda step: naive_batch(found, step, patch=patch, batch=batch), seconds) * batch
    stored = _rate(ours, seconds) * batch
    return LoaderSpeed(
        patch=patch,
        batch=batch,
        naive_patches_per_s=naive,
        store_patches_per_s=stored,
        store_channels_last_patches_per_s=_rate(side_by_side, seconds) * batch,
        ratio=stored / naive,
        cold_ratio=_cold_rate(local, pairs=pairs, patch=patch, batch=batch) / naive,
        build_pairs_per_s=pairs / build_s,
        reopen_s=reopen_s,
    )


def _cold_rate(local: LocalContest, *, pairs: int, patch: int, batch: int) -> float:
    """Patches a second from a store of which the system has nothing in memory."""
    folder = local.folder / "store" / "rgb"
    index = read_index(folder)
    assert index is not None, "the store was just built"
    for path in folder.glob("*.bin"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    sampler = PatchSampler(Store(folder, index), range(pairs), patch=patch, batch=batch, seed=1)
    started = time.perf_counter()
    batches = max(1, pairs // batch)  # every picture once
    for made in prefetch(sampler, start=0, stop=batches):
        to_images(made)
    return batches * batch / (time.perf_counter() - started)


def write_contest_pictures(folder: Path, *, pairs: int) -> LocalContest:
    """Synthetic pairs: soft pages with print on them, and the same with grain and lifted blacks."""
    generator = np.random.default_rng(0)
    for number in range(pairs):
        clean = _page(generator)
        grain = generator.normal(0.0, 0.02, clean.shape).astype(np.float32)
        write_image(folder / f"clean/page.{number:05}.tif", clean)
        write_image(folder / f"noisy/page.{number:05}.tif", 0.2 + 0.75 * clean + grain)
    return LocalContest(
        folder=folder, contest=Contest(slug="loader-benchmark", noisy="noisy", clean="clean")
    )


def naive_batch(
    pairs: Sequence[Pair], step: int, *, patch: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as a usual loader makes it, without a store."""
    generator = np.random.default_rng(step)
    samples = [_naive_sample(pairs, generator, patch=patch) for _ in range(batch)]
    noisy, clean = zip(*samples, strict=True)
    return torch.stack(noisy), torch.stack(clean)


def _naive_sample(
    pairs: Sequence[Pair], generator: np.random.Generator, *, patch: int
) -> tuple[torch.Tensor, torch.Tensor]:
    pair = pairs[int(generator.integers(len(pairs)))]
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), generator.uniform(-180, 180), 1.0)
    top, left = generator.integers(SIDE - patch + 1, size=2)
    cut = []
    for path in (pair.noisy, pair.clean):
        picture = cv2.warpAffine(_mapped_and_decoded(path), turn, (SIDE, SIDE))
        window = picture[top : top + patch, left : left + patch]
        values = np.ascontiguousarray(window.transpose(2, 0, 1), dtype=np.float32) / 255.0
        cut.append(torch.from_numpy(values))
    return cut[0], cut[1]


def _mapped_and_decoded(path: Path) -> np.ndarray:
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        decoded = cv2.imdecode(np.frombuffer(bytes(content), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, f"{path} was written by this benchmark"
    return decoded


def _page(generator: np.random.Generator) -> FloatImage:
    page = np.full((SIDE, SIDE, 3), generator.integers(215, 255, 3), np.uint8)
    photograph = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
    page[32:256, 32:480] = cv2.resize(photograph, (448, 224), interpolation=cv2.INTER_CUBIC)
    for line in range(290, 490, 18):
        words = "".join(generator.choice(list("etaoin shrdlu"), 36))
        cv2.putText(page, words, (32, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
    return to_float(page)


def _rate(make: Callable[[int], object], seconds: float) -> float:
    """Calls a second of processor time, which other work on the machine does not falsify."""
    make(0)  # warm up
    started = time.process_time()
    calls = 0
    while (elapsed := time.process_time() - started) < seconds:
        calls += 1
        make(calls)
    return calls / elapsed


def main() -> None:
    """Measure and print, for a person or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    speed = measure(
        pairs=wanted.pairs, patch=wanted.patch, batch=wanted.batch, seconds=wanted.seconds
    )
    if wanted.json:
        print(json.dumps(asdict(speed)))
        return
    print(f"patch {speed.patch} px, batch {speed.batch}, one core, 512x512 LZW TIFF pairs")
    print(f"naive loader   {speed.naive_patches_per_s:10.1f} patches/s")
    print(f"store          {speed.store_patches_per_s:10.1f} patches/s")
    print(f"channels last  {speed.store_channels_last_patches_per_s:10.1f} patches/s")
    print(f"ratio          {speed.ratio:10.1f}, from a cold file cache {speed.cold_ratio:.1f}")
    print(
        f"store built at {speed.build_pairs_per_s:10.1f} pairs/s, opened in {speed.reopen_s:.3f} s"
    )


if __name__ == "__main__":
    main()
