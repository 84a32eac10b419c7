import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kbdenoise.config import TileSettings
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.patches import PatchSampler
from kbdenoise.data.store import Store, open_store
from kbdenoise.devices import choose_device
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, Pixels, to_float, to_pixels, write_pixels
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.imaging.tiles import TilePlan, tile_starts
from kbdenoise.inference.engines import PACES, Pace, TorchRestorer
from kbdenoise.inference.plans import plan_tiles
from kbdenoise.inference.restore import (
    restore_image,
    restore_together,
    restored_bands,
    rounding,
)
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.spec import PAGE_SIDE

GIB = 1024**3


@dataclass
class Fake:
    """A restorer whose answer is easy to foretell: a function of each pixel alone."""

    channels: int = 3
    multiple: int = 8
    radius: int | None = 4
    bytes_per_pixel: float = 1000.0
    fixed_tile: int | None = None
    sees_page: bool = False
    pace: Pace = PACES["cpu"]
    calls: int = 0
    largest: int = 0

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        assert noisy.shape[3] == self.channels
        assert noisy.shape[1] % self.multiple == 0
        assert noisy.shape[2] % self.multiple == 0
        self.calls += 1
        self.largest = max(self.largest, noisy.shape[1] * noisy.shape[2])
        return (1.0 - noisy).astype(np.float32)


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> FloatImage:
    return np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)


def random_restorer(name: str, **hyperparameters: object) -> TorchRestorer:
    """A small network whose every parameter is drawn at random, so that all of it matters."""
    torch.manual_seed(0)
    model = build_model(name, channels=3, **hyperparameters)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    info = describe_model(name, channels=3, **hyperparameters)
    return TorchRestorer(model, info=info, device=choose_device("cpu", precision="fp32"))


@given(
    height=st.integers(64, 3000),
    width=st.integers(64, 3000),
    multiple=st.sampled_from([1, 8, 16]),
    radius=st.one_of(st.none(), st.integers(0, 60)),
    memory=st.integers(10**6, 10**9),
)
def test_tiles_are_no_larger_than_their_number_asks_for(
    height: int, width: int, multiple: int, radius: int | None, memory: int
) -> None:
    restorer = Fake(multiple=multiple, radius=radius)
    plan = plan_tiles(
        restorer, height=height, width=width, settings=TileSettings(), memory_bytes=memory
    )
    assume(plan.tile)

    def count(tile: int) -> list[int]:
        kwargs = {"overlap": plan.overlap, "multiple": multiple}
        return [len(tile_starts(side, tile=tile, **kwargs)) for side in (height, width)]

    assert plan.tile % multiple == 0 and plan.overlap <= plan.tile // 2
    assert plan.tile**2 * restorer.bytes_per_pixel <= max(0.4 * memory, 64**2 * 1000)
    if plan.tile - multiple >= max(64, 2 * plan.overlap + multiple):
        assert count(plan.tile - multiple) != count(plan.tile)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(1, 8),
    overlap=st.integers(0, 40),
    margin=st.integers(0, 20),
    multiple=st.sampled_from([1, 8]),
)
def test_tiles_of_any_kind_give_every_pixel_its_value(
    height: int, width: int, tile: int, overlap: int, margin: int, multiple: int
) -> None:
    assume(overlap + multiple <= 8 * tile)
    image = picture(height, width)
    plan = TilePlan(tile=8 * tile, overlap=overlap, margin=margin)

    restored = restore_image(image, Fake(multiple=multiple), plan=plan)

    np.testing.assert_allclose(restored, 1.0 - image, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("dncnn", {"depth": 6, "width": 8}),
        ("unet", {"width": 4, "levels": 2}),
        ("res-unet", {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)}),
    ],
)
def test_tiled_and_whole_agree_without_global_pooling(
    name: str, hyperparameters: dict[str, Any]
) -> None:
    restorer = random_restorer(name, **hyperparameters)
    image = picture(150, 203)

    whole = restore_image(image, restorer, plan=TilePlan(tile=0, overlap=0))
    plan = plan_tiles(
        restorer, height=150, width=203, settings=TileSettings(tile=96), memory_bytes=GIB
    )
    tiled = restore_image(image, restorer, plan=plan)

    assert plan.tile
    assert np.abs(whole - tiled).max() <= 1 / 255
    assert np.abs(whole - image).max() > 0.05  # the network does something


def test_tiles_without_overlap_show_seams() -> None:
    """The seam test can fail: the same tiles without overlap differ from the whole."""
    restorer = random_restorer("dncnn", depth=6, width=8)
    image = picture(150, 203)

    whole = restore_image(image, restorer, plan=TilePlan(tile=0, overlap=0))
    tiled = restore_image(image, restorer, plan=TilePlan(tile=96, overlap=0))

    assert np.abs(whole - tiled).max() > 1 / 255


def test_a_network_that_pools_globally_differs_by_a_finite_amount() -> None:
    restorer = random_restorer(
        "kbnet-s", width=4, encoder_blocks=(1,), middle_blocks=1, decoder_blocks=(1,)
    )
    image = picture(96, 128)

    whole = restore_image(image, restorer, plan=TilePlan(tile=0, overlap=0))
    plan = plan_tiles(
        restorer, height=96, width=128, settings=TileSettings(tile=96), memory_bytes=GIB
    )
    tiled = restore_image(image, restorer, plan=plan)

    assert restorer.radius is None
    assert 0 < np.abs(tiled - whole).max() < 0.5
    assert "differ from the whole" in plan.text


def test_a_tile_too_small_for_the_receptive_field_says_so() -> None:
    restorer = Fake(radius=100)

    short = plan_tiles(
        restorer, height=900, width=900, settings=TileSettings(tile=128), memory_bytes=GIB
    )
    enough = plan_tiles(
        restorer, height=900, width=900, settings=TileSettings(tile=512), memory_bytes=GIB
    )

    assert "larger tiles" in short.text
    assert enough.text == "tiles of 512 px, overlap 216 px"


def test_a_picture_that_fits_is_restored_whole_and_a_larger_one_in_tiles() -> None:
    restorer = Fake()

    small = plan_tiles(restorer, height=500, width=500, settings=TileSettings(), memory_bytes=GIB)
    large = plan_tiles(restorer, height=6000, width=8000, settings=TileSettings(), memory_bytes=GIB)

    assert not small.tile
    assert large.tile
    assert large.tile**2 * restorer.bytes_per_pixel <= 0.5 * GIB
    assert large.overlap >= 2 * 4


def test_memory_is_bounded_by_one_tile_whatever_the_height() -> None:
    restorer = Fake(channels=1)
    tall = np.zeros((4000, 64, 1), np.uint8)
    plan = TilePlan(tile=64, overlap=16, margin=4)

    bands = [band.images.shape[1] for band in restored_bands([tall], restorer, plan=plan)]

    assert sum(bands) == 4000
    assert max(bands) <= 64
    assert restorer.largest == 64 * 64


def test_gray_through_a_colour_network_stays_gray() -> None:
    image = picture(20, 30, channels=1)

    restored = restore_image(image, Fake(channels=3), plan=TilePlan(tile=0, overlap=0))

    assert restored.shape == (20, 30, 1)
    np.testing.assert_allclose(restored, 1 - image, atol=1e-5)


def test_colour_through_a_gray_network_keeps_its_colours() -> None:
    image = picture(20, 30)

    restored = restore_image(image, Fake(channels=1), plan=TilePlan(tile=0, overlap=0))

    np.testing.assert_allclose(restored, 1 - image, atol=1e-5)


def test_turned_copies_are_averaged_in_the_right_place() -> None:
    image = picture(24, 40)
    restorer = Fake()

    restored = restore_image(image, restorer, plan=TilePlan(tile=0, overlap=0), tta=True)

    assert restorer.calls == 8
    np.testing.assert_allclose(restored, 1 - image, atol=1e-5)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_stored_pixels_are_restored_and_rounded(bit_depth: int) -> None:
    pixels = to_pixels(picture(33, 47), bit_depth=bit_depth)

    plan = TilePlan(tile=16, overlap=4)
    (restored,) = restore_together([pixels], Fake(), plan=plan, finish=rounding(bit_depth))

    assert restored.dtype == pixels.dtype
    np.testing.assert_array_equal(restored, 2**bit_depth - 1 - pixels)


def test_an_answer_that_is_not_finite_is_an_error() -> None:
    class Broken(Fake):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            return noisy * np.float32("nan")

    with pytest.raises(DataError, match="not finite"):
        restore_image(picture(9, 9), Broken(), plan=TilePlan(tile=0, overlap=0))


def test_answers_out_of_range_are_clipped() -> None:
    class Loud(Fake):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            return noisy * 4 - 1

    restored = restore_image(picture(9, 9), Loud(), plan=TilePlan(tile=0, overlap=0))

    assert restored.min() >= 0
    assert restored.max() <= 1


TONED: list[tuple[str, dict[str, Any]]] = [
    ("tone", {"width": 4}),
    ("tone", {"width": 4, "kind": "affine"}),
    ("tone+dncnn", {"depth": 4, "width": 6, "norm": "none", "tone_width": 4}),
]
each_toned = pytest.mark.parametrize(("name", "hyperparameters"), TONED, ids=str)


def uneven(height: int, width: int, channels: int = 3) -> FloatImage:
    """Dark on the left and bright on the right, so that no part has the whole's tone."""
    shade = np.linspace(0, 0.8, width, dtype=np.float32)[None, :, None]
    return shade + 0.2 * picture(height, width, channels)


@each_toned
def test_every_tile_gets_the_tone_of_the_whole_page(
    name: str, hyperparameters: dict[str, Any]
) -> None:
    restorer = random_restorer(name, **hyperparameters)
    image = uneven(150, 203)

    whole = restore_image(image, restorer, plan=TilePlan(tile=0, overlap=0))
    plan = plan_tiles(
        restorer, height=150, width=203, settings=TileSettings(tile=64), memory_bytes=GIB
    )
    tiled = restore_image(image, restorer, plan=plan)

    assert plan.text == f"tiles of 64 px, overlap {plan.overlap} px"
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    assert np.abs(whole - image).max() > 0.05  # the network does something
    part = restore_image(image[:64, :64], restorer, plan=TilePlan(tile=0, overlap=0))
    assert np.abs(part[:50, :50] - whole[:50, :50]).max() > 1e-3  # the page does matter


@each_toned
def test_patches_are_trained_with_the_tone_that_their_page_is_restored_with(
    name: str, hyperparameters: dict[str, Any], make_contest: Any
) -> None:
    restorer = random_restorer(name, **hyperparameters)
    local = make_contest(pages=0, tests=0)
    for i in range(2):
        write_pixels(local.noisy / f"{i}.png", to_pixels(uneven(120, 90 + i) * (0.5 + 0.5 * i)))
        write_pixels(local.clean / f"{i}.png", to_pixels(uneven(120, 90 + i)))
    store = open_store(local, find_pairs(local), channels=3)
    # Upright: the encoder of the thumbnail is free to tell a page from its mirror image.
    sampler = PatchSampler(
        store, [0, 1], patch=48, batch=6, seed=0, flips=False, turns=False, pages=True
    )
    wholes = [restorer(to_float(store.noisy(i))[None])[0] for i in range(2)]

    batch = sampler.batch(0)
    assert batch.page is not None
    noisy = batch.noisy.numpy()
    restored = restorer(to_float(noisy), to_float(batch.page.numpy()))

    for patch, result in zip(noisy, restored, strict=True):
        number, top, left = place(patch, store)
        expected = wholes[number][top : top + 48, left : left + 48]
        inner = np.s_[4:-4, 4:-4]  # farther than the receptive field reaches
        np.testing.assert_allclose(result[inner], expected[inner], rtol=0, atol=1e-3)


def place(patch: Pixels, store: Store) -> tuple[int, int, int]:
    """Picture, top and left of an upright patch, found by looking everywhere."""
    side = len(patch)
    for number in range(len(store)):
        noisy = store.noisy(number)
        views = np.lib.stride_tricks.sliding_window_view(noisy, patch.shape)[:, :, 0]
        for top, left in np.argwhere((views[..., 0, 0, :] == patch[0, 0]).all(axis=2)).tolist():
            if (noisy[top : top + side, left : left + side] == patch).all():
                return number, top, left
    raise AssertionError("no picture holds this patch")


def test_one_thumbnail_a_picture_turned_with_the_tiles() -> None:
    seen: list[tuple[FloatImage, FloatImage]] = []

    class Looking(Fake):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            assert page is not None
            seen.append((noisy, page))
            return noisy

    image = uneven(64, 64)
    small = thumbnail(image, side=PAGE_SIDE)

    restore_image(image, Looking(sees_page=True), plan=TilePlan(tile=0, overlap=0), tta=True)

    assert len(seen) == 8
    assert len({page.tobytes() for _, page in seen}) == 8
    for noisy, page in seen:  # 64 px wide, the thumbnail is the picture itself
        np.testing.assert_allclose(page, noisy, rtol=0, atol=1e-6)
    np.testing.assert_allclose(seen[0][1][0], small, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("restorers", "pictures"), [(1, 3), (3, 1), (1, 1), (3, 3)])
def test_the_thumbnail_has_the_channels_that_the_network_takes(
    restorers: int, pictures: int
) -> None:
    seen: list[FloatImage] = []

    class Looking(Fake):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            assert page is not None
            assert page.shape == (1, PAGE_SIDE, PAGE_SIDE, self.channels)
            seen.append(page[0])
            return noisy

    image = uneven(70, 90, pictures)
    small = thumbnail(image, side=PAGE_SIDE)

    restore_image(
        image, Looking(sees_page=True, channels=restorers), plan=TilePlan(tile=64, overlap=16)
    )

    assert len(seen) == 4 * (3 if (restorers, pictures) == (1, 3) else 1)  # 2 x 2 tiles
    planes = [small[..., c : c + 1] for c in range(3)] if len(seen) == 12 else [small]
    for i, page in enumerate(seen):
        expected = np.broadcast_to(planes[i % len(planes)], page.shape)
        np.testing.assert_allclose(page, expected, rtol=0, atol=1e-6)


def test_who_does_not_see_the_page_is_given_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("kbdenoise.inference.restore.thumbnail")

    class Blind(Fake):
        def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
            assert page is None
            return noisy

    restore_image(uneven(70, 90), Blind(), plan=TilePlan(tile=64, overlap=16), tta=True)


def test_seeing_the_page_of_a_huge_picture_takes_little_memory() -> None:
    tall, plan = np.zeros((20_000, 64, 1), np.uint8), TilePlan(tile=64, overlap=16, margin=4)
    peaks = []
    for sees_page in (False, True):
        tracemalloc.start()
        for _ in restored_bands([tall], Fake(channels=1, sees_page=sees_page), plan=plan):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    blind, seeing = peaks
    assert seeing < blind + 100_000
