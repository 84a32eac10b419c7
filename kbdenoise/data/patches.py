"""Random training patches, cut straight from the store's map.

A batch depends on the seed and its step and on nothing else: no worker, no order of calls and no
generator's state. So a resumed run sees exactly the patches that it would have seen.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kbdenoise.data.pairs import SKIP_FILE
from kbdenoise.data.store import Store
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import Pixels, to_pixels
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

Made = TypeVar("Made", covariant=True)

# Streams of random numbers, kept apart by the second number of their seed.
_CUTS, _PASSES = 0, 1

# turn -> OpenCV's code; it turns three-byte pixels ten times as fast as numpy's strided copy does.
_ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_MIRRORS = {4: 1, 6: 0}
_UPRIGHT = {False: (0,), True: (0, 2, 4, 6)}  # flips? -> what needs no quarter turn


class Batch(NamedTuple):
    """Patches cut alike from both sides: uint8 or uint16 [B, P, P, C]."""

    noisy: Pixels
    clean: Pixels
    page: Pixels | None = None
    """Of each patch its whole noisy picture, small and turned alike: uint16 [B, T, T, C]."""


class Sampler(Protocol[Made]):
    """Whatever makes the batch of any step on demand."""

    def batch(self, step: int) -> Made:
        """The batch of a step, whichever steps were asked for before."""


class PatchSampler:
    """Batches of random patches from the pictures `indices` of a store.

    Every picture is drawn once a pass, whatever its size, in an order shuffled anew for each pass;
    a batch may reach into the next pass. The patch's place is uniform, and so is its turn: four
    right angles (`turns`), mirrored or not (`flips`); without `turns`, the flips are left to right
    and top to bottom. Values are never interpolated. With `pages`, each patch comes with the
    thumbnail of its picture.

    Raises SettingsError if a picture is smaller than the patch, with the largest one that fits and
    is of the model's `multiple`.
    """

    def __init__(
        self,
        store: Store,
        indices: Sequence[int],
        *,
        patch: int,
        batch: int,
        seed: int,
        flips: bool = True,
        turns: bool = True,
        multiple: int = 1,
        pages: bool = False,
    ) -> None:
        _check(store, indices, patch=patch, multiple=multiple)
        self.store = store
        self.indices = tuple(indices)
        self.patch = patch
        self.batch_size = batch
        self.seed = seed
        self.pages = Pages(store) if pages else None
        self.turns = tuple(
            turn for turn in range(8) if (flips or turn < 4) and (turns or turn in _UPRIGHT[flips])
        )

    def batch(self, step: int) -> Batch:
        """The patches of one optimiser step, counted from 0."""
        shape = (self.batch_size, self.patch, self.patch, self.store.channels)
        made = Batch(
            np.empty(shape, self.store.dtype), np.empty(shape, self.store.dtype), self._no_pages()
        )
        draws = np.random.default_rng([self.seed, _CUTS, step]).random((self.batch_size, 3))
        for slot, (u, v, w) in enumerate(draws.tolist()):
            picture = self._picture(step * self.batch_size + slot)
            height, width = self.store.size(picture)
            top = int(u * (height - self.patch + 1))
            left = int(v * (width - self.patch + 1))
            turn = self.turns[int(w * len(self.turns))]
            window = np.s_[top : top + self.patch, left : left + self.patch]
            turn_into(made.noisy[slot], self.store.noisy(picture)[window], turn=turn)
            turn_into(made.clean[slot], self.store.clean(picture)[window], turn=turn)
            if self.pages is not None and made.page is not None:
                turn_into(made.page[slot], self.pages.of(picture), turn=turn)
        return made

    def _no_pages(self) -> Pixels | None:
        """Room for the thumbnails of a batch, where they are wanted."""
        shape = (self.batch_size, PAGE_SIDE, PAGE_SIDE, self.store.channels)
        return None if self.pages is None else np.empty(shape, np.uint16)

    def _picture(self, draw: int) -> int:
        """The picture of the `draw`-th patch since the beginning."""
        done, position = divmod(draw, len(self.indices))
        order = _order(len(self.indices), seed=self.seed, number=done)
        return self.indices[int(order[position])]


class Pages:
    """Thumbnails of a store's noisy pictures, each made when it is first asked for, and kept.

    In 16 bits, whatever the pictures' own depth, since a mean is finer than what it is made of:
    25 kB a picture of three channels. Threads may ask side by side.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: dict[int, Pixels] = {}

    def of(self, picture: int) -> Pixels:
        """uint16 [T, T, C], T being PAGE_SIDE."""
        kept = self._kept.get(picture)
        if kept is None:
            small = thumbnail(self.store.noisy(picture), side=PAGE_SIDE)
            kept = self._kept[picture] = to_pixels(small, bit_depth=16)
        return kept


@lru_cache(maxsize=8)
def _order(pictures: int, *, seed: int, number: int) -> npt.NDArray[np.int64]:
    """The order in which pass `number` draws its pictures."""
    return np.random.default_rng([seed, _PASSES, number]).permutation(pictures)


def turn_into(out: Pixels, patch: Pixels, *, turn: int) -> None:
    """Write a square patch [P, P, C] into `out` in one of its eight positions.

    `turn` 0 to 3 counts quarter turns anticlockwise, as in `np.rot90`; 4 to 7 are the same of the
    mirror image, left and right exchanged.
    """
    if turn == 0:
        out[...] = patch
    elif turn in _ROTATIONS:
        cv2.rotate(patch, _ROTATIONS[turn], dst=out)
    elif turn in _MIRRORS:
        cv2.flip(patch, _MIRRORS[turn], dst=out)
    elif turn == 5:
        cv2.transpose(patch, dst=out)
    else:
        cv2.flip(cv2.transpose(patch), -1, dst=out)


def to_tensor(pixels: Pixels, *, device: torch.device | str = "cpu") -> Tensor:
    """Stored patches [B, P, P, C] as a float32 tensor [B, C, P, P] in [0, 1] on `device`.

    The pixels travel to the device as they are, in a quarter of the bytes.
    """
    top = float(np.iinfo(pixels.dtype).max)
    # Not every device of torch's knows uint16.
    known = pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels
    planes = torch.from_numpy(known).to(device).permute(0, 3, 1, 2)  # [B, P, P, C] -> [B, C, P, P]
    # Reordered while still one byte a value: three times as fast as reordering floats.
    return planes.contiguous().to(torch.float32).div_(top)


def prefetch(
    sampler: Sampler[Made], *, start: int, stop: int, depth: int = 4, workers: int = 2
) -> Generator[Made, None, None]:
    """The batches of the steps `start` to `stop - 1`, in order, made ahead in threads.

    At most `depth` batches wait. An exception of the sampler is raised at its step. Closing the
    iterator, or leaving it behind, ends the threads.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    waiting: deque[Future[Made]] = deque()
    try:
        for step in range(start, stop):
            waiting.append(pool.submit(sampler.batch, step))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check(store: Store, indices: Sequence[int], *, patch: int, multiple: int) -> None:
    if not indices:
        raise SettingsError("there are no pictures to cut patches from", hint="see --folds")
    small = [i for i in indices if min(store.size(i)) < patch]
    if not small:
        return
    height, width = store.size(small[0])
    fitting = min(min(store.size(i)) for i in small) // multiple * multiple
    advice = f"use --patch {fitting} or smaller" if fitting else "choose another --model"
    more = f" (and {len(small) - 1} more are too small)" if len(small) > 1 else ""
    raise SettingsError(
        f"{store.name(small[0])} is {width}x{height} px, smaller than a patch of {patch} px{more}",
        hint=f"{advice}, or list such pictures in {store.folder.parent.parent / SKIP_FILE}",
    )
