"""Random training patches, cut straight from the store's map.

A batch depends on the seed and its step and on nothing else: no worker, no order of calls and no
generator's state. So a resumed run sees exactly the patches that it would have seen.

The host only copies stored bytes, into memory that a GPU reads by itself; what else is to be done
to a patch, turning it and making it floats, is done where the network runs (`data/batches.py`).
"""

from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kbdenoise.ahead import map_ahead
from kbdenoise.data.batches import Batch
from kbdenoise.data.pairs import SKIP_FILE
from kbdenoise.data.store import Store
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import Pixels, to_pixels
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

Made = TypeVar("Made", covariant=True)

# Streams of random numbers, kept apart by the second number of their seed.
_CUTS, _PASSES = 0, 1

_UPRIGHT = {False: (0,), True: (0, 2, 4, 6)}  # flips? -> what needs no quarter turn


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
    thumbnail of its picture. With `pinned`, batches lie in page-locked memory, from which a CUDA
    device copies while the host goes on.

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
        pinned: bool = False,
    ) -> None:
        _check(store, indices, patch=patch, multiple=multiple)
        self.store = store
        self.indices = tuple(indices)
        self.patch = patch
        self.batch_size = batch
        self.seed = seed
        self.pages = Pages(store) if pages else None
        self.pinned = pinned
        self.turns = tuple(
            turn for turn in range(8) if (flips or turn < 4) and (turns or turn in _UPRIGHT[flips])
        )

    def batch(self, step: int) -> Batch:
        """The patches of one optimiser step, counted from 0."""
        draws = np.random.default_rng([self.seed, _CUTS, step]).random((self.batch_size, 3))
        pictures = [self._picture(step * self.batch_size + i) for i in range(self.batch_size)]
        room = np.array([self.store.size(i) for i in pictures]) - self.patch + 1  # [B, 2]
        corners = (draws[:, :2] * room).astype(int).tolist()  # top and left
        turns = np.array(self.turns)[(draws[:, 2] * len(self.turns)).astype(int)]
        made = Batch(
            noisy=self._empty(self.patch, self.store.dtype),
            clean=self._empty(self.patch, self.store.dtype),
            turns=torch.from_numpy(turns),
            page=None if self.pages is None else self._empty(PAGE_SIDE, np.dtype(np.uint16)),
        )
        noisy, clean = made.noisy.numpy(), made.clean.numpy()
        for slot, (picture, (top, left)) in enumerate(zip(pictures, corners, strict=True)):
            window = np.s_[top : top + self.patch, left : left + self.patch]
            noisy[slot] = self.store.noisy(picture)[window]
            clean[slot] = self.store.clean(picture)[window]
        if self.pages is not None and made.page is not None:
            np.stack([self.pages.of(i) for i in pictures], out=made.page.numpy())
        return made

    def _empty(self, side: int, dtype: np.dtype[Any]) -> Tensor:
        """[B, side, side, C] to be filled."""
        shape = (self.batch_size, side, side, self.store.channels)
        return torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=self.pinned)

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


def prefetch(
    sampler: Sampler[Made], *, start: int, stop: int, depth: int = 8, workers: int = 4
) -> Generator[Made, None, None]:
    """The batches of the steps `start` to `stop - 1`, in order, made ahead in threads.

    There are more threads than a warm store needs: on a cold or distant disk most of them wait for
    it, and together they ask for more at a time.
    """
    return map_ahead(sampler.batch, range(start, stop), depth=depth, workers=workers)


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
