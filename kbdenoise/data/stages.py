"""The stages of a run: patches that grow from stage to stage, and whole pages."""

from collections.abc import Sequence
from dataclasses import dataclass

from kbdenoise.data.augment import Augmentation
from kbdenoise.data.batches import Batch
from kbdenoise.data.cutting import Cutter, positions
from kbdenoise.data.pairs import SKIP_FILE
from kbdenoise.data.patches import PatchSampler, check_pictures
from kbdenoise.data.store import Store
from kbdenoise.errors import SettingsError
from kbdenoise.notation import Stage

_AS_STORED = Augmentation()


class PageSampler:
    """Batches of whole pages from the pictures `indices` of a store, with PatchSampler's settings.

    Pages are cropped at random to the model's `multiple`, to `largest` px a side (0: whatever they
    have) and, as a batch has one size, to the smallest page of the step. They come turned already:
    any way where the crop is square, and without quarter turns where it is not.

    Raises SettingsError if a picture is smaller than the `multiple`, or `largest` is.
    """

    def __init__(
        self,
        store: Store,
        indices: Sequence[int],
        *,
        batch: int,
        seed: int,
        flips: bool = True,
        turns: bool = True,
        augmentation: Augmentation = _AS_STORED,
        multiple: int = 1,
        largest: int = 0,
        pages: bool = False,
        pinned: bool = False,
        share: tuple[int, int] = (0, 1),
        stage: int = 0,
        first_step: int = 0,
    ) -> None:
        _check(store, indices, multiple=multiple, largest=largest)
        assert 0 <= share[0] < share[1], f"no such share: {share}"
        self.batch_size = batch
        self.multiple = multiple
        self.largest = largest
        self.share = share
        self.first_step = first_step
        self.turns = {
            square: positions(flips=flips, turns=turns, square=square) for square in (False, True)
        }
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
        """The pages of one optimiser step, or this sampler's share of them."""
        rank, size = self.share
        pictures = self.cutter.pictures(step - self.first_step, self.batch_size)
        height, width = self._crop(pictures)
        windows = self.cutter.windows(
            step, pictures, turns=self.turns[height == width], height=height, width=width
        )
        return self.cutter.cut(step, windows[rank::size], height=height, width=width, turn=True)

    def _crop(self, pictures: Sequence[int]) -> tuple[int, int]:
        """Height and width that all of these pictures have."""
        sizes = [self.cutter.store.size(i) for i in pictures]
        height, width = (min(lengths) for lengths in zip(*sizes, strict=True))
        if self.largest:
            height, width = min(height, self.largest), min(width, self.largest)
        return height // self.multiple * self.multiple, width // self.multiple * self.multiple


@dataclass(frozen=True, slots=True, kw_only=True)
class Samplers:
    """What the samplers of all stages are made of; the arguments are those of `PatchSampler`.

    Raises SettingsError at once if any stage does not suit the pictures.
    """

    store: Store
    indices: Sequence[int]
    stages: Sequence[Stage]
    seed: int
    flips: bool
    turns: bool
    augmentation: Augmentation
    multiple: int
    pages: bool
    pinned: bool
    option: str
    """How a hint begins that names a smaller patch: '--patch'."""
    largest: int = 0
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        for number in range(len(self.stages)):
            self.of(number)

    def of(self, number: int, *, first_step: int = 0) -> PatchSampler | PageSampler:
        """The sampler of a stage that begins at `first_step`."""
        stage = self.stages[number]
        shared = {name: getattr(self, name) for name in _SHARED}
        if stage.pages:
            return PageSampler(
                **shared,
                batch=stage.batch,
                largest=self.largest,
                stage=number,
                first_step=first_step,
            )
        return PatchSampler(
            **shared,
            patch=stage.patch,
            batch=stage.batch,
            option=self.option,
            stage=number,
            first_step=first_step,
        )


_SHARED = (
    "store",
    "indices",
    "seed",
    "flips",
    "turns",
    "augmentation",
    "multiple",
    "pages",
    "pinned",
    "share",
)


def _check(store: Store, indices: Sequence[int], *, multiple: int, largest: int) -> None:
    check_pictures(indices)
    if 0 < largest < multiple:
        raise SettingsError(
            f"pages of at most {largest} px do not suit a model whose sides are multiples of "
            f"{multiple} px",
            hint=f"allow {multiple} px or more",
        )
    small = [i for i in indices if min(store.size(i)) < multiple]
    if small:
        height, width = store.size(small[0])
        raise SettingsError(
            f"{store.name(small[0])} is {width}x{height} px, but the model's sides are multiples "
            f"of {multiple} px",
            hint="leave page out of --stages, or list such pictures in "
            f"{store.folder.parent.parent / SKIP_FILE}",
        )
