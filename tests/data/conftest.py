from collections.abc import Callable, Sequence

import numpy as np
import pytest

from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.store import Store, open_store
from kbdenoise.imaging.files import write_pixels

SIZES = ((16, 16), (16, 40), (33, 17), (25, 29))


@pytest.fixture
def make_store(make_contest) -> Callable[..., Store]:
    """Makes pictures of different sizes in which clean = top - noisy, and no two patches agree."""

    def make(
        *, channels: int = 3, bits: int = 8, sizes: Sequence[tuple[int, int]] = SIZES
    ) -> Store:
        local = make_contest(pages=0, tests=0)
        top = 2**bits - 1
        for number, (height, width) in enumerate(sizes):
            shape, dtype = (height, width, channels), np.uint8 if bits == 8 else np.uint16
            noisy = np.random.default_rng(number).integers(0, top + 1, shape, dtype=dtype)
            write_pixels(local.noisy / f"{number}.png", noisy)
            write_pixels(local.clean / f"{number}.png", top - noisy)
        return open_store(local, find_pairs(local), channels=channels)

    return make
