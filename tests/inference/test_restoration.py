"""Many pictures at once, and memory that runs out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kbdenoise.config import TileSettings
from kbdenoise.errors import NoMemoryError
from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference.engines import Pace
from kbdenoise.inference.restoration import Restoration
from kbdenoise.inference.restore import restore_image, restored_bands
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.progress import Note

GIB = 1024**3
BUSY = Pace(pixels=256**2, most_bytes=GIB)


class Scarce:
    """Answers 1 - x, a little of the page added, and runs out of memory beyond some pixels."""

    multiple = 8
    radius = 4
    bytes_per_pixel = 1000.0
    fixed_tile = None

    def __init__(
        self,
        *,
        most_pixels: float = float("inf"),
        error: Exception | None = None,
        channels: int = 3,
        sees_page: bool = False,
        pace: Pace = BUSY,
    ) -> None:
        self.most_pixels = most_pixels
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.channels = channels
        self.sees_page = sees_page
        self.pace = pace
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        assert (page is not None) == self.sees_page
        self.shapes.append(noisy.shape)
        if noisy.shape[0] * noisy.shape[1] * noisy.shape[2] > self.most_pixels:
            raise self.error
        answer = 1.0 - noisy
        if page is not None:
            assert page.shape == (len(noisy), PAGE_SIDE, PAGE_SIDE, self.channels)
            answer = 0.5 * answer + 0.5 * page.mean(axis=(1, 2), keepdims=True)
        return answer.astype(np.float32)


def pictures(count: int, height: int, width: int, channels: int = 3) -> list[FloatImage]:
    rng = np.random.default_rng(height * width)
    scale = np.linspace(0.2, 1.0, count, dtype=np.float32)
    return [s * rng.random((height, width, channels), dtype=np.float32) for s in scale]


def expected(image: FloatImage, *, sees_page: bool) -> FloatImage:
    if not sees_page:
        return 1.0 - image
    page = thumbnail(image, side=PAGE_SIDE).mean(axis=(0, 1), keepdims=True)
    return 0.5 * (1.0 - image) + 0.5 * page


@pytest.mark.parametrize("beside_host", [False, True])
@pytest.mark.parametrize("sees_page", [False, True])
@pytest.mark.parametrize("batch", [1, 2, 3, 7, 50])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (101, 75), (64, 64), (9, 200)])
def test_pictures_and_tiles_side_by_side_are_each_restored_as_alone(
    height: int, width: int, batch: int, sees_page: bool, beside_host: bool
) -> None:
    restorer = Scarce(sees_page=sees_page, pace=replace(BUSY, beside_host=beside_host))
    sources = pictures(3, height, width)

    for plan in (
        TilePlan(tile=0, overlap=0, batch=batch),
        TilePlan(tile=64, overlap=16, margin=4, batch=batch),
    ):
        bands = list(restored_bands(sources, restorer, plan=plan))

        restored = np.concatenate([band.images for band in bands], axis=1)
        assert [band.start for band in bands] == sorted({band.start for band in bands})
        for source, result in zip(sources, restored, strict=True):
            wanted = expected(source, sees_page=sees_page)
            np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5)
    assert max(shape[0] for shape in restorer.shapes) <= batch


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(("of_network", "of_picture"), [(1, 3), (3, 1), (1, 1)])
def test_batches_of_other_channels_are_restored_as_alone(
    of_network: int, of_picture: int, tta: bool
) -> None:
    restorer = Scarce(channels=of_network)
    sources = pictures(3, 24, 31, of_picture)
    plan = TilePlan(tile=0, overlap=0, batch=3)

    (band,) = restored_bands(sources, restorer, plan=plan, tta=tta)

    for source, result in zip(sources, band.images, strict=True):
        alone = restore_image(source, restorer, plan=plan, tta=tta)
        np.testing.assert_allclose(result, alone, rtol=0, atol=1e-6)
        np.testing.assert_allclose(result, 1.0 - source, rtol=0, atol=1e-5)


def test_a_stream_of_pictures_keeps_its_order_and_fills_the_device() -> None:
    restorer = Scarce()
    restoration = Restoration(restorer, memory_bytes=GIB)
    sources = [*pictures(9, 128, 128), *pictures(1, 32, 40), *pictures(2, 300, 300)]

    restored = list(restoration.images(iter(sources)))

    for source, result in zip(sources, restored, strict=True):
        np.testing.assert_allclose(result, 1.0 - source, rtol=0, atol=1e-6)
    together = [shape[0] for shape in restorer.shapes]
    assert together == [4, 4, 1, 1, 1, 1]  # 256**2 pixels at a time


def test_a_stream_is_restored_no_farther_than_it_is_asked_for() -> None:
    restorer, taken = Scarce(), 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield np.zeros((128, 128, 3), np.float32)

    restored = Restoration(restorer, memory_bytes=GIB).images(endless())
    for _ in range(5):
        next(restored)

    assert taken == 8


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("tile", [0, 512])
def test_what_does_not_fit_is_tried_again_in_smaller_parts(error: Exception, tile: int) -> None:
    restorer = Scarce(most_pixels=100_000, error=error)
    told: list[str] = []
    restoration = Restoration(
        restorer,
        memory_bytes=4 * GIB,
        settings=TileSettings(tile=tile),
        progress=lambda event: told.append(event.text) if isinstance(event, Note) else None,
    )
    image = pictures(1, 640, 900)[0]

    restored = restoration.image(image)

    np.testing.assert_allclose(restored, 1.0 - image, rtol=0, atol=1e-5)
    assert told and "memory ran out" in told[0] and "px" in told[-1]
    tries = len(told)
    restorer.shapes.clear()
    restoration.image(image)
    assert len(told) == tries  # learnt for good
    assert all(b * h * w <= 100_000 for b, h, w, _ in restorer.shapes)


def test_a_batch_that_does_not_fit_is_halved_before_it_is_cut() -> None:
    restorer = Scarce(most_pixels=3 * 64 * 64)
    restoration = Restoration(restorer, memory_bytes=4 * GIB)
    sources = pictures(16, 64, 64)

    restored = list(restoration.images(sources))

    for source, result in zip(sources, restored, strict=True):
        np.testing.assert_allclose(result, 1.0 - source, rtol=0, atol=1e-6)
    assert {shape[1:3] for shape in restorer.shapes} == {(64, 64)}
    assert restorer.shapes[-1][0] == 2


@pytest.mark.parametrize(("height", "width"), [(40, 40), (640, 900), (64, 5000)])
def test_memory_too_small_for_anything_is_an_error(height: int, width: int) -> None:
    restorer = Scarce(most_pixels=10)
    restoration = Restoration(restorer, memory_bytes=4 * GIB)

    with pytest.raises(NoMemoryError, match="does not fit into the memory"):
        restoration.image(pictures(1, height, width)[0])

    assert len(restorer.shapes) < 30


def test_other_errors_of_the_network_are_not_tried_again() -> None:
    restorer = Scarce(most_pixels=10, error=RuntimeError("something else"))

    with pytest.raises(RuntimeError, match="something else"):
        Restoration(restorer, memory_bytes=GIB).image(pictures(1, 40, 40)[0])

    assert len(restorer.shapes) == 1


def test_pixels_are_restored_in_their_own_memory() -> None:
    restorer = Scarce()
    restoration = Restoration(restorer, memory_bytes=GIB, settings=TileSettings(tile=64))
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    before = pixels.copy()

    (restored,) = restoration.pixels(lambda: [pixels])

    assert restored is pixels
    np.testing.assert_array_equal(restored, 255 - before)


@pytest.mark.parametrize("fails_at", [1, 5, 13, 20])
def test_pixels_whose_restoration_was_broken_off_are_asked_for_again(fails_at: int) -> None:
    """Half of the rows hold results already when the memory runs out."""
    stored = np.random.default_rng(0).integers(0, 65536, (300, 200, 3)).astype(np.uint16)
    asked: list[int] = []

    class Failing(Scarce):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            if len(self.shapes) == fails_at:
                self.shapes.append(noisy.shape)
                raise MemoryError
            return super().__call__(noisy, page)

    def read() -> list[Any]:
        asked.append(1)
        return [stored.copy()]

    failing = Failing(pace=Pace(pixels=1, most_bytes=GIB))
    restoration = Restoration(failing, memory_bytes=GIB, settings=TileSettings(tile=72))
    (restored,) = restoration.pixels(read, bit_depth=16)

    assert len(asked) == 2
    np.testing.assert_array_equal(restored, 65535 - stored)


def test_pixels_of_another_depth_get_memory_of_their_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    before = pixels.copy()

    (restored,) = Restoration(Scarce(), memory_bytes=GIB).pixels(lambda: [pixels], bit_depth=16)

    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_allclose(restored / 257, 255 - before, rtol=0, atol=0.01)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (17, 9), (64, 64)])
def test_pictures_go_together_by_what_the_network_sees_of_them(height: int, width: int) -> None:
    restorer = Scarce()
    restorer.multiple = 64
    restoration = Restoration(restorer, memory_bytes=GIB)

    list(restoration.images(pictures(80, height, width)))

    assert all(b * h * w <= BUSY.pixels for b, h, w, _ in restorer.shapes)
