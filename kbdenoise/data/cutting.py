"""Fill batches with windows of a store's pictures: what all samplers have in common.

Whatever is random is drawn from a generator of its own, told by the seed, the stream, the step and
the slot of the batch. So a patch is the same whoever makes it, and whatever was made before.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kbdenoise.data.augment import (
    Augmentation,
    Sample,
    Tones,
    draw_noise,
    mixed,
    noised,
    rescanned,
    rescanned_page,
    to_sixteen_bits,
    tones_of,
)
from kbdenoise.data.batches import Batch, turn_into
from kbdenoise.data.store import Store
from kbdenoise.imaging.files import Pixels, to_float, to_pixels
from kbdenoise.imaging.scanner import draw_scanner
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

# Streams of random numbers, kept apart by the second number of their seed.
_CUTS, _PASSES, _MIXES, _NOISES, _SCANS = range(5)
_MIXUP_BETA = 1.2


class Window(NamedTuple):
    """Where a slot of a batch is cut from, and how it is turned, as in `Batch`."""

    slot: int
    """Its number in the whole batch, whichever part of it is made here."""
    picture: int
    top: int
    left: int
    turn: int


class Cutter:
    """Draws pictures, and cuts windows out of the pictures `indices` of a store.

    Every picture is drawn once a pass, in an order shuffled anew for each pass. With `pages`, each
    window comes with the thumbnail of its picture. With `pinned`, batches lie in page-locked
    memory, from which a CUDA device copies while the host goes on.
    """

    def __init__(
        self,
        store: Store,
        indices: Sequence[int],
        *,
        seed: int,
        stage: int,
        augmentation: Augmentation,
        pages: bool,
        pinned: bool,
    ) -> None:
        self.store = store
        self.indices = tuple(indices)
        self.seed = seed
        self.stage = stage
        self.augmentation = augmentation
        self.pages = Pages(store) if pages else None
        self.pinned = pinned
        self._pictures = np.array(self.indices)
        self._sizes = np.array([store.size(i) for i in self.indices])  # [N, 2]

    def pictures(self, step: int, count: int) -> list[int]:
        """The `count` pictures of a step, which is counted from the stage's first."""
        assert step >= 0, "the step comes before its stage"
        return [self._picture(step * count + slot) for slot in range(count)]

    def windows(
        self,
        step: int,
        pictures: Sequence[int],
        *,
        turns: npt.NDArray[np.int64],
        height: int,
        width: int,
    ) -> list[Window]:
        """A window of each picture, its place uniform on the picture and its turn among `turns`."""
        rng = generator(self.seed, _CUTS, step, stage=self.stage)
        draws = rng.random((len(pictures), 3))
        sizes = np.array([self.store.size(i) for i in pictures])  # [B, 2]
        corners = (draws[:, :2] * (sizes - (height, width) + 1)).astype(int).tolist()
        chosen = turns[(draws[:, 2] * len(turns)).astype(int)].tolist()
        return [
            Window(slot, picture, top, left, turn)
            for slot, (picture, (top, left), turn) in enumerate(
                zip(pictures, corners, chosen, strict=True)
            )
        ]

    def cut(
        self, step: int, windows: Sequence[Window], *, height: int, width: int, turn: bool = False
    ) -> Batch:
        """The batch of these windows, all of one size; with `turn` they are turned at once."""
        augmented = self.augmentation.on
        dtype = np.dtype(np.uint16) if augmented else self.store.dtype
        shape = (len(windows), height, width)
        small = (len(windows), PAGE_SIDE, PAGE_SIDE)
        made = Batch(
            noisy=self._empty(shape, dtype),
            clean=self._empty(shape, dtype),
            turns=torch.tensor([0 if turn else w.turn for w in windows], dtype=torch.int64),
            page=None if self.pages is None else self._empty(small, np.dtype(np.uint16)),
        )
        targets = [t.numpy() for t in (made.noisy, made.clean, made.page) if t is not None]
        for place, window in enumerate(windows):
            if augmented:
                sample = self._augmented(step, window, height=height, width=width)
                sources = [to_sixteen_bits(image) for image in sample if image is not None]
            else:
                sources = self._stored(window, height=height, width=width)
            for target, source in zip(targets, sources, strict=True):
                turn_into(target[place], source, turn=window.turn if turn else 0)
        return made

    def _picture(self, draw: int) -> int:
        """The picture of the `draw`-th window since the stage began."""
        done, position = divmod(draw, len(self.indices))
        order = _order(len(self.indices), seed=self.seed, number=done, stage=self.stage)
        return self.indices[int(order[position])]

    def _empty(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Tensor:
        """[B, H, W, C] to be filled."""
        return torch.empty(
            (*shape, self.store.channels),
            dtype=getattr(torch, dtype.name),
            pin_memory=self.pinned,
        )

    def _stored(self, window: Window, *, height: int, width: int) -> list[Pixels]:
        """Noisy, clean and, where models see it, the page: as they are stored."""
        pixels = np.s_[window.top : window.top + height, window.left : window.left + width]
        sides = [self.store.noisy(window.picture)[pixels], self.store.clean(window.picture)[pixels]]
        return sides if self.pages is None else [*sides, self.pages.of(window.picture)]

    def _sample(self, window: Window, *, height: int, width: int) -> Sample:
        noisy, clean, *page = map(to_float, self._stored(window, height=height, width=width))
        return Sample(noisy=noisy, clean=clean, page=page[0] if page else None)

    def _augmented(self, step: int, window: Window, *, height: int, width: int) -> Sample:
        """Scanned anew, then mixed, then noisier, each as chance will have it."""
        wanted = self.augmentation
        sample = self._sample(window, height=height, width=width)
        if wanted.print_scan:
            rng = self._generator(_SCANS, step, window.slot)
            if rng.random() < wanted.print_scan:
                sample = self._rescanned(sample, window, rng)
        if wanted.mixup:
            rng = self._generator(_MIXES, step, window.slot)
            if rng.random() < wanted.mixup:
                weight = rng.beta(_MIXUP_BETA, _MIXUP_BETA)
                other = self._other(rng, window, height=height, width=width)
                sample = mixed(
                    sample, self._sample(other, height=height, width=width), weight=weight
                )
        if wanted.noise or wanted.camera_noise:
            rng = self._generator(_NOISES, step, window.slot)
            noise = draw_noise(rng, noise=wanted.noise, camera_noise=wanted.camera_noise)
            sample = noised(sample, noise, rng)
        return sample

    def _rescanned(self, sample: Sample, window: Window, rng: np.random.Generator) -> Sample:
        height, width = sample.clean.shape[:2]
        scanner = draw_scanner(rng)
        other = self._other(rng, window, height=height, width=width)
        noisy = rescanned(
            sample.clean,
            back=self._sample(other, height=height, width=width).clean,
            scanner=scanner,
            page=self.store.size(window.picture),
            left=window.left,
            rng=rng,
        )
        if self.pages is None:
            return sample._replace(noisy=noisy)
        tones, back = self.pages.tones(window.picture), self.pages.tones(other.picture)
        return sample._replace(noisy=noisy, page=rescanned_page(tones, back=back, scanner=scanner))

    def _other(
        self, rng: np.random.Generator, window: Window, *, height: int, width: int
    ) -> Window:
        """A window of the same size anywhere on another picture, or of the same if it is alone."""
        fits = (self._sizes >= (height, width)).all(axis=1)
        others = fits & (self._pictures != window.picture)
        chosen = rng.choice(np.flatnonzero(others if others.any() else fits))
        room = self._sizes[chosen] - (height, width) + 1
        top, left = (rng.random(2) * room).astype(int).tolist()
        return window._replace(picture=self.indices[chosen], top=top, left=left)

    def _generator(self, stream: int, step: int, slot: int) -> np.random.Generator:
        return generator(self.seed, stream, step, slot, stage=self.stage)


class Pages:
    """What is known of a store's whole pictures, each made when it is first asked for, and kept.

    In 16 bits, whatever the pictures' own depth, since a mean is finer than what it is made of:
    25 kB a picture of three channels, and twice that for its tones. Threads may ask side by side.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept: dict[int, Pixels] = {}
        self._tones: dict[int, list[Pixels]] = {}

    def of(self, picture: int) -> Pixels:
        """The thumbnail of a noisy picture: uint16 [T, T, C], T being PAGE_SIDE."""
        kept = self._kept.get(picture)
        if kept is None:
            small = thumbnail(self.store.noisy(picture), side=PAGE_SIDE)
            kept = self._kept[picture] = to_pixels(small, bit_depth=16)
        return kept

    def tones(self, picture: int) -> Tones:
        """Mean and variance in every cell of a clean picture."""
        kept = self._tones.get(picture)
        if kept is None:
            made = tones_of(self.store.clean(picture))
            kept = self._tones[picture] = [to_sixteen_bits(image) for image in made]
        mean, variance = map(to_float, kept)
        return Tones(mean=mean, variance=variance)


def positions(*, flips: bool, turns: bool, square: bool = True) -> npt.NDArray[np.int64]:
    """The turns, as in `Batch`, that a window may take; only a square may lie on its side."""
    upright = {False: (0,), True: (0, 2, 4, 6)}[flips]  # what needs no quarter turn
    allowed = [t for t in range(8) if (flips or t < 4) and (turns or t in upright)]
    return np.array([t for t in allowed if square or t % 2 == 0])


def generator(seed: int, stream: int, *place: int, stage: int) -> np.random.Generator:
    """The generator of a place in a stream; the first stage is like a run without stages."""
    return np.random.default_rng([seed, stream, *place, *([stage] if stage else [])])


@lru_cache(maxsize=8)
def _order(pictures: int, *, seed: int, number: int, stage: int) -> npt.NDArray[np.int64]:
    """The order in which pass `number` of a stage draws its pictures."""
    return generator(seed, _PASSES, number, stage=stage).permutation(pictures)
