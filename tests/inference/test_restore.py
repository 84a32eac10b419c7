from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kbdenoise.config import TileSettings
from kbdenoise.devices import choose_device
from kbdenoise.errors import DataError
from kbdenoise.imaging.files import FloatImage, to_pixels
from kbdenoise.imaging.tiles import TilePlan
from kbdenoise.inference.engines import TorchRestorer
from kbdenoise.inference.restore import plan_tiles, restore_image, restore_pixels, restored_bands
from kbdenoise.models.zoo import build_model, describe_model

GIB = 1024**3


@dataclass
class Fake:
    """A restorer whose answer is easy to foretell: a function of each pixel alone."""

    channels: int = 3
    multiple: int = 8
    radius: int | None = 4
    bytes_per_pixel: float = 1000.0
    calls: int = 0
    largest: int = 0

    def __call__(self, noisy: FloatImage) -> FloatImage:
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
    return TorchRestorer(model, info=info, device=choose_device("cpu"))


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

    bands = [band.image.shape[0] for band in restored_bands(tall, restorer, plan=plan)]

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

    restored = restore_pixels(
        pixels, Fake(), plan=TilePlan(tile=16, overlap=4), bit_depth=bit_depth
    )

    assert restored.dtype == pixels.dtype
    np.testing.assert_array_equal(restored, 2**bit_depth - 1 - pixels)


def test_an_answer_that_is_not_finite_is_an_error() -> None:
    class Broken(Fake):
        def __call__(self, noisy: FloatImage) -> FloatImage:
            return noisy * np.float32("nan")

    with pytest.raises(DataError, match="not finite"):
        restore_image(picture(9, 9), Broken(), plan=TilePlan(tile=0, overlap=0))


def test_answers_out_of_range_are_clipped() -> None:
    class Loud(Fake):
        def __call__(self, noisy: FloatImage) -> FloatImage:
            return noisy * 4 - 1

    restored = restore_image(picture(9, 9), Loud(), plan=TilePlan(tile=0, overlap=0))

    assert restored.min() >= 0
    assert restored.max() <= 1
