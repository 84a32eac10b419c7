"""Random training patches, cut straight from the store's map.

A batch depends on the seed and its step and on nothing else: no worker, no order of calls and no
generator's state. So a resumed run sees exactly the patches that it would have seen.

The host only copies stored bytes, into memory that a GPU reads by itself; what else is to be done
to a patch, turning it and making it floats, is done where the network runs (`data/batches.py`).
Only what an augmentation asks for (`data/augment.py`) is computed here.
"""

from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar

from kbdenoise.ahead import map_ahead
from kbdenoise.data.augment import Augmentation
from kbdenoise.data.batches import Batch
from kbdenoise.data.cutting import Cutter, positions
from kbdenoise.data.pairs import SKIP_FILE
from kbdenoise.data.store import Store
from kbdenoise.errors import SettingsError

Made = TypeVar("Made", covariant=True)

_AS_STORED = Augmentation()


class Sampler(Protocol[Made]):
    """Whatever makes the batch of any step on demand."""

    def batch(self, step: int) -> Made:
        """The batch of a step, whichever steps were asked for before."""


class PatchSampler:
    """Batches of random patches from the pictures `indices` of a store.

    Every picture is drawn once a pass, whatever its size, in an order shuffled anew for each pass;
    a batch may reach into the next pass. The patch's place is uniform, and so is its turn: four
    right angles (`turns`), mirrored or not (`flips`); without `turns`, the flips are left to right
    and top to bottom. Values are never interpolated. With an `augmentation` patches are changed as
    it says, and come in 16 bits; without, as they are stored.

    With `pages`, each patch comes with the thumbnail of its picture. With `pinned`, batches lie in
    page-locked memory, from which a CUDA device copies while the host goes on.

    `share` (rank, size) makes only the slots rank, rank + size, ... of each batch, for processes
    that train together; there may be none. Passes are counted from `first_step`, where the
    `stage` of this number began.

    Raises SettingsError if a picture is smaller than the patch, with the largest one that fits and
    is of the model's `multiple`; `option` is what its hint tells to set.
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
        augmentation: Augmentation = _AS_STORED,
        multiple: int = 1,
        pages: bool = False,
        pinned: bool = False,
        share: tuple[int, int] = (0, 1),
        stage: int = 0,
        first_step: int = 0,
        option: str = "--patch",
    ) -> None:
        _check(store, indices, patch=patch, multiple=multiple, option=option)
        assert 0 <= share[0] < share[1], f"no such share: {share}"
        self.patch = patch
        self.batch_size = batch
        self.share = share
        self.first_step = first_step
        self.turns = positions(flips=flips, turns=turns)
        self.cutter = Cutter(
            store,
            indices,
            seed=seed,
            stage=stage,
            augmentation=augmentation,
            pages=pages,
            pinned=pinned,
        )

    def batch(self, step: int) -> Batch:
        """The patches of one optimiser step, or this sampler's share of them."""
        side, (rank, size) = self.patch, self.share
        pictures = self.cutter.pictures(step - self.first_step, self.batch_size)
        windows = self.cutter.windows(step, pictures, turns=self.turns, height=side, width=side)
        return self.cutter.cut(step, windows[rank::size], height=side, width=side)


def prefetch(
    sampler: Sampler[Made], *, start: int, stop: int, depth: int = 8, workers: int = 4
) -> Generator[Made, None, None]:
    """The batches of the steps `start` to `stop - 1`, in order, made ahead in threads.

    There are more threads than a warm store needs: on a cold or distant disk most of them wait for
    it, and together they ask for more at a time.
    """
    workers = min(workers, depth)
    return map_ahead(sampler.batch, range(start, stop), depth=depth, workers=workers)


def check_pictures(indices: Sequence[int]) -> None:
    """Raises SettingsError if there is nothing to cut from."""
    if not indices:
        raise SettingsError("there are no pictures to cut patches from", hint="see --folds")


def _check(store: Store, indices: Sequence[int], *, patch: int, multiple: int, option: str) -> None:
    check_pictures(indices)
    small = [i for i in indices if min(store.size(i)) < patch]
    if not small:
        return
    height, width = store.size(small[0])
    fitting = min(min(store.size(i)) for i in small) // multiple * multiple
    advice = f"use {option} {fitting} or smaller" if fitting else "choose another --model"
    more = f" (and {len(small) - 1} more are too small)" if len(small) > 1 else ""
    raise SettingsError(
        f"{store.name(small[0])} is {width}x{height} px, smaller than a patch of {patch} px{more}",
        hint=f"{advice}, or list such pictures in {store.folder.parent.parent / SKIP_FILE}",
    )
