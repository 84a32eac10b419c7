"""NAFNet: the authors' names and shapes, pooling over a window, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kbdenoise.errors import SettingsError
from kbdenoise.models.kbnet_s import kbnet_s
from kbdenoise.models.layers import MeanPool
from kbdenoise.models.nafnet import ARCHITECTURE, nafnet

TINY = {"width": 4, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (1, 1)}


def expected_block(c: int) -> dict[str, tuple[int, ...]]:
    """The table of a block's tensors, by hand."""
    shapes: dict[str, tuple[int, ...]] = {"beta": (1, c, 1, 1), "gamma": (1, c, 1, 1)}
    layers = {
        "norm1": (c,),
        "norm2": (c,),
        "conv1": (2 * c, c, 1, 1),
        "conv2": (2 * c, 1, 3, 3),
        "sca.1": (c, c, 1, 1),
        "conv3": (c, c, 1, 1),
        "conv4": (2 * c, c, 1, 1),
        "conv5": (c, c, 1, 1),
    }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def test_names_and_shapes_of_tensors_are_the_authors() -> None:
    model = nafnet(
        channels=1, width=6, encoder_blocks=(1, 0), middle_blocks=2, decoder_blocks=(1, 1)
    )

    expected: dict[str, tuple[int, ...]] = {
        "intro.weight": (6, 1, 3, 3),
        "intro.bias": (6,),
        "ending.weight": (1, 6, 3, 3),
        "ending.bias": (1,),
        "downs.0.weight": (12, 6, 2, 2),
        "downs.0.bias": (12,),
        "downs.1.weight": (24, 12, 2, 2),
        "downs.1.bias": (24,),
        "ups.0.0.weight": (48, 24, 1, 1),
        "ups.1.0.weight": (24, 12, 1, 1),
    }
    places = {
        "encoders.0.0": 6,
        "middle_blks.0": 24,
        "middle_blks.1": 24,
        "decoders.0.0": 12,
        "decoders.1.0": 6,
    }
    for place, c in places.items():
        expected |= {f"{place}.{name}": shape for name, shape in expected_block(c).items()}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected


def test_the_default_is_the_authors_network_for_real_noise() -> None:
    with torch.device("meta"):
        model = nafnet()

    assert sum(p.numel() for p in model.parameters()) == 29_159_715


def slow_local_mean(x: Tensor, window: int) -> Tensor:
    """Pixel by pixel: the mean of the window around it, pushed inside the image at the edges."""

    def span(p: int, length: int) -> slice:
        size = min(window, length)
        start = min(max(p - (size - 1) // 2, 0), length - size)
        return slice(start, start + size)

    height, width = x.shape[2:]
    out = torch.empty_like(x)
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = x[:, :, span(i, height), span(j, width)].mean((2, 3))
    return out


@pytest.mark.parametrize("window", [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 384])
@pytest.mark.parametrize("size", [(7, 11), (11, 7), (1, 6), (5, 1), (4, 4)])
def test_local_pooling_equals_a_slow_loop(window: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size) + 2
    pool = MeanPool(window=window).eval()

    found = pool(x)

    torch.testing.assert_close(found.expand_as(x), slow_local_mean(x, window), atol=1e-5, rtol=1e-5)


def test_an_axis_that_the_window_covers_is_not_repeated() -> None:
    pool = MeanPool(window=6).eval()

    assert pool(torch.rand(1, 2, 6, 5)).shape == (1, 2, 1, 1)
    assert pool(torch.rand(1, 2, 7, 5)).shape == (1, 2, 7, 1)
    assert pool(torch.rand(1, 2, 6, 9)).shape == (1, 2, 1, 9)
    assert pool(torch.rand(1, 2, 7, 9)).shape == (1, 2, 7, 9)


@pytest.mark.parametrize("window", [0, 3])
def test_training_pools_the_whole_image(window: int) -> None:
    x = torch.rand(2, 3, 7, 9)

    pooled = MeanPool(window=window).train()(x)

    torch.testing.assert_close(pooled, x.mean((2, 3), keepdim=True))


def test_sums_over_a_long_page_stay_precise() -> None:
    x = torch.rand(1, 1, 3000, 2000) + 5
    pool = MeanPool(window=24).eval()

    error = pool(x).double() - pool(x.double())

    assert error.abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_summed_in_full(dtype: torch.dtype) -> None:
    x = (torch.rand(1, 2, 300, 40) + 300).to(dtype)  # 300 of them leave the range of fp16
    pool = MeanPool(window=16).eval()

    found = pool(x)

    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), pool(x.float()), atol=0, rtol=2**-8)


def test_a_window_is_halved_from_level_to_level() -> None:
    model = nafnet(**TINY, pool_window=13)

    def windows(part: Any) -> set[int]:
        return {m.window for m in part.modules() if isinstance(m, MeanPool)}

    assert windows(model.encoders[0]) == windows(model.decoders[1]) == {13}
    assert windows(model.encoders[1]) == windows(model.decoders[0]) == {6}
    assert windows(model.middle_blks) == {3}


def test_a_far_pixel_changes_a_pixel_only_where_pooling_is_global(randomised: Any) -> None:
    image = torch.rand(1, 3, 8, 256)
    changed = image.clone()
    changed[..., -16:] = 0
    # The window reaches 8 px a block to the right, six blocks deep, and convolutions some more.
    near = (..., slice(0, 128))

    whole, local = (randomised(nafnet(**TINY, pool_window=window)) for window in (0, 16))

    assert (whole(image)[near] - whole(changed)[near]).abs().max() > 1e-4
    torch.testing.assert_close(local(image)[near], local(changed)[near], atol=1e-5, rtol=1e-5)


def test_a_window_as_large_as_the_image_pools_the_whole(randomised: Any) -> None:
    image = torch.rand(1, 3, 16, 12)

    whole, local = (randomised(nafnet(**TINY, pool_window=window)) for window in (0, 16))

    torch.testing.assert_close(local(image), whole(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder_blocks": (1,)}, "nafnet has 1 encoder_blocks and 2"),
        ({"encoder_blocks": (), "decoder_blocks": ()}, "at least one level"),
        ({"encoder_blocks": (0, 0), "middle_blocks": 0, "decoder_blocks": (0, 0)}, "not all of"),
        ({"decoder_blocks": (1, -1)}, "-1"),
        ({"width": 0}, "width of nafnet is 0"),
        ({"channels": 0}, "channels of nafnet is 0"),
        ({"pool_window": -1}, "pool_window of nafnet is -1"),
        ({"pool_window": 3}, "at least 4 px"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        nafnet(**TINY | change)

    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.hint


def test_kbnet_s_is_not_taken_for_nafnet_even_without_its_basis() -> None:
    kbnet = kbnet_s(**TINY).state_dict()
    without = {
        name: t for name, t in kbnet.items() if not name.endswith((".w", ".b", ".ga1", ".attgamma"))
    }

    assert ARCHITECTURE.recognise(kbnet) is None
    assert ARCHITECTURE.recognise(without) is None


def test_other_widenings_and_missing_parts_are_contradictions() -> None:
    state = nafnet(**TINY).state_dict()

    with pytest.raises(ValueError, match=r"encoders.1.1.conv4 has 12 outputs for 8 channels"):
        ARCHITECTURE.recognise({**state, "encoders.1.1.conv4.weight": torch.zeros(12, 8, 1, 1)})
    with pytest.raises(ValueError, match="2 downs and 1 ups"):
        ARCHITECTURE.recognise({n: t for n, t in state.items() if n != "ups.1.0.weight"})
    with pytest.raises(KeyError, match=r"middle_blks.0.conv1.weight"):
        ARCHITECTURE.recognise(
            {n: t for n, t in state.items() if n != "middle_blks.0.conv1.weight"}
        )
