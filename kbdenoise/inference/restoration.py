"""A restorer at work: pictures in, restored pictures out, whatever their sizes and the memory.

What runs out of memory is tried again in smaller parts, and so is everything that follows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from kbdenoise.config import TileSettings
from kbdenoise.devices import clear_memory, enough_memory
from kbdenoise.errors import NoMemoryError
from kbdenoise.imaging.files import FloatImage, Pixels
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference.engines import Restorer
from kbdenoise.inference.plans import plan_tiles, plan_within, smallest_tile, working_bytes
from kbdenoise.inference.restore import Made, restore_together, rounding, unchanged
from kbdenoise.progress import Note, Progress, silent

_HINT = "not even small tiles did; close other programs, or choose another --device"


class Restoration:
    """Restores pictures with one restorer, cut as the settings and the free memory say.

    `progress` is told when memory ran out and smaller parts are tried.
    """

    def __init__(
        self,
        restorer: Restorer,
        *,
        memory_bytes: int,
        settings: TileSettings | None = None,
        progress: Progress = silent,
    ) -> None:
        self.restorer = restorer
        self.settings = settings or TileSettings()
        self.memory_bytes = memory_bytes
        self.progress = progress
        self._budget: float | None = None  # bytes; known once memory has run out

    def plan(self, height: int, width: int) -> TilePlan:
        """How a picture of this size, in pixels, is cut, and how many go together."""
        if self._budget is None:
            return plan_tiles(
                self.restorer,
                height=height,
                width=width,
                settings=self.settings,
                memory_bytes=self.memory_bytes,
            )
        return plan_within(
            self.restorer,
            height=height,
            width=width,
            settings=TileSettings(overlap=self.settings.overlap),
            budget=self._budget,
        )

    def together(self, height: int, width: int) -> int:
        """How many pictures of this size are best restored side by side."""
        plan = self.plan(height, width)
        return 1 if plan.tile else plan.batch

    def image(self, image: FloatImage) -> FloatImage:
        """Restore float32 [H, W, 1 or 3] in [0, 1]; same shape and range.

        Raises NoMemoryError where even the smallest tile does not fit into the memory.
        """
        return self._floats([image])[0]

    def images(self, images: Iterable[FloatImage]) -> Iterator[FloatImage]:
        """`image` for many, in their order; consecutive ones of one size go side by side."""
        waiting: list[FloatImage] = []
        for image in images:
            if waiting and image.shape != waiting[0].shape:
                yield from self._floats(waiting)
                waiting = []
            waiting.append(image)
            if len(waiting) >= self.together(*image.shape[:2]):
                yield from self._floats(waiting)
                waiting = []
        if waiting:
            yield from self._floats(waiting)

    def pixels(
        self,
        read: Callable[[], Sequence[Pixels]],
        *,
        bit_depth: int = 8,
        advance: Callable[[float], None] = lambda share: None,
    ) -> list[Pixels]:
        """Restore stored pixels [H, W, 1 or 3] of one size and round the results to `bit_depth`.

        `read` gives the pictures; their memory is used for the results, so it is asked again if
        memory runs out half-way. `advance` is called with the share of rows that are done.
        """
        return self._restored(read, finish=rounding(bit_depth), in_place=True, advance=advance)

    def _floats(self, images: Sequence[FloatImage]) -> list[FloatImage]:
        return self._restored(lambda: images, finish=unchanged)

    def _restored(
        self,
        read: Callable[[], Sequence[Pixels | FloatImage]],
        *,
        finish: Callable[[FloatImage], Made],
        in_place: bool = False,
        advance: Callable[[float], None] = lambda share: None,
    ) -> list[Made]:
        while True:
            sources = read()
            height, width = sources[0].shape[:2]
            plan = self.plan(height, width)
            try:
                with enough_memory(f"restoring {width}x{height} px", hint=_HINT):
                    return restore_together(
                        sources,
                        self.restorer,
                        plan=plan,
                        tta=self.settings.tta,
                        finish=finish,
                        in_place=in_place,
                        advance=advance,
                    )
            except NoMemoryError:
                if not self._shrink(plan, height=height, width=width):
                    raise
            del sources
            clear_memory()  # only here: the exception held on to what did not fit

    def _shrink(self, plan: TilePlan, *, height: int, width: int) -> bool:
        """Plan for half of what ran out of memory from now on; False if nothing smaller is left."""
        smallest = smallest_tile(self.restorer)
        if plan.batch == 1 and (plan.tile or max(height, width)) <= smallest:
            return False
        used = working_bytes(self.restorer, plan, height=height, width=width)
        self._budget = min(used, self._budget or used) / 2
        smaller = self.plan(height, width)
        parts = smaller.text + (f", {smaller.batch} at a time" if smaller.batch > 1 else "")
        self.progress(Note(text=f"the memory ran out; going on with {parts}"))
        return True
