"""Restormer: the published names, shapes and counts, and the paper's formulas written out again."""

from math import erf
from typing import Any

import numpy as np
import pytest
import torch

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.channel_attention import ChannelAttention, TransposedAttention
from kbdenoise.models.cost import count_macs
from kbdenoise.models.detect import detect
from kbdenoise.models.layers import LayerNorm2d
from kbdenoise.models.reading import shortest_scale
from kbdenoise.models.restormer import BiasFreeNorm2d, GatedFeedForward

Array = np.ndarray
SMALL: dict[str, Any] = {
    "width": 8,
    "blocks": (1, 2, 1, 1),
    "refinement_blocks": 1,
    "heads": (2, 1, 4, 8),
}


# ------------------------------------- the paper's formulas, an image [C, H, W] and a pixel at once


def convolved(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """A padded convolution, depthwise when the weight is [C, 1, k, k]."""
    r = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (r, r), (r, r)))
    out = np.zeros((len(weight), *x.shape[1:]))
    for row, column in np.ndindex(x.shape[1:]):
        seen = padded[:, row : row + 2 * r + 1, column : column + 2 * r + 1]
        depthwise = weight.shape[1] == 1 != len(x)
        products = weight[:, 0] * seen if depthwise else weight * seen
        out[:, row, column] = products.reshape(len(weight), -1).sum(1)
    return out if bias is None else out + bias[:, None, None]


def normalised(x: Array, weight: Array, bias: Array | None) -> Array:
    out = np.zeros_like(x)
    for row, column in np.ndindex(x.shape[1:]):
        pixel = x[:, row, column]
        mean = sum(pixel) / len(pixel)
        deviation = np.sqrt(sum((value - mean) ** 2 for value in pixel) / len(pixel) + 1e-5)
        out[:, row, column] = (
            pixel / deviation * weight
            if bias is None
            else (pixel - mean) / deviation * weight + bias
        )
    return out


def attended(x: Array, state: dict[str, Array], at: str) -> Array:
    def conv(y: Array, name: str) -> Array:
        return convolved(y, state[f"{at}{name}.weight"], state.get(f"{at}{name}.bias"))

    c = len(x)
    query, key, value = np.split(conv(conv(x, "qkv"), "qkv_dwconv"), 3)
    temperature = state[f"{at}temperature"].ravel()
    out = np.zeros_like(x)
    for i in range(c):
        head = i // (c // len(temperature))
        members = [j for j in range(c) if j // (c // len(temperature)) == head]
        cosines = [
            (query[i] * key[j]).sum() / np.sqrt((query[i] ** 2).sum() * (key[j] ** 2).sum())
            for j in members
        ]
        shares = np.exp(temperature[head] * np.array(cosines))
        for j, share in zip(members, shares / shares.sum(), strict=True):
            out[i] += share * value[j]
    return conv(out, "project_out")


def fed_forward(x: Array, state: dict[str, Array], at: str) -> Array:
    def conv(y: Array, name: str) -> Array:
        return convolved(y, state[f"{at}{name}.weight"], state.get(f"{at}{name}.bias"))

    wide = conv(conv(x, "project_in"), "dwconv")
    gate, content = wide[: len(wide) // 2], wide[len(wide) // 2 :]
    gelu = gate * (1 + np.vectorize(erf)(gate / np.sqrt(2))) / 2
    return conv(gelu * content, "project_out")


def restored_by_formulas(noisy: Array, state: dict[str, Array]) -> Array:
    def conv(x: Array, name: str) -> Array:
        return convolved(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def blocks(x: Array, stage: str) -> Array:
        places = {".".join(name.split(".")[:2]) for name in state if name.startswith(f"{stage}.")}
        for at in sorted(places):
            norms = [
                (state[f"{at}.norm{i}.body.weight"], state.get(f"{at}.norm{i}.body.bias"))
                for i in (1, 2)
            ]
            x = x + attended(normalised(x, *norms[0]), state, f"{at}.attn.")
            x = x + fed_forward(normalised(x, *norms[1]), state, f"{at}.ffn.")
        return x

    def halved(x: Array, name: str) -> Array:
        x = conv(x, f"{name}.body.0")
        return np.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=1).reshape(
            -1, x.shape[1] // 2, x.shape[2] // 2
        )

    def doubled(x: Array, name: str) -> Array:
        x = conv(x, f"{name}.body.0")
        out = np.zeros((len(x) // 4, 2 * x.shape[1], 2 * x.shape[2]))
        for i, j in np.ndindex(2, 2):
            out[:, i::2, j::2] = x[2 * i + j :: 4]
        return out

    x1 = blocks(conv(noisy, "patch_embed.proj"), "encoder_level1")
    x2 = blocks(halved(x1, "down1_2"), "encoder_level2")
    x3 = blocks(halved(x2, "down2_3"), "encoder_level3")
    x = blocks(halved(x3, "down3_4"), "latent")
    x = conv(np.concatenate([doubled(x, "up4_3"), x3]), "reduce_chan_level3")
    x = conv(
        np.concatenate([doubled(blocks(x, "decoder_level3"), "up3_2"), x2]), "reduce_chan_level2"
    )
    x = np.concatenate([doubled(blocks(x, "decoder_level2"), "up2_1"), x1])
    return conv(blocks(blocks(x, "decoder_level1"), "refinement"), "output") + noisy


def in_numpy(model: torch.nn.Module) -> dict[str, Array]:
    return {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}


# ----------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_papers_formula(bias: bool, randomised: Any) -> None:
    attention = randomised(TransposedAttention(6, heads=3, bias=bias)).double()
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)

    out = attention(x).detach().numpy()

    for sample, found in zip(x.numpy(), out, strict=True):
        np.testing.assert_allclose(found, attended(sample, in_numpy(attention), ""), rtol=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_the_feed_forward_part_is_the_papers_formula(bias: bool, randomised: Any) -> None:
    part = randomised(GatedFeedForward(4, hidden=5, bias=bias)).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)

    out = part(x).detach().numpy()

    for sample, found in zip(x.numpy(), out, strict=True):
        np.testing.assert_allclose(found, fed_forward(sample, in_numpy(part), ""), rtol=1e-9)


@pytest.mark.parametrize("norm", [BiasFreeNorm2d(5, eps=1e-5), LayerNorm2d(5, eps=1e-5)], ids=str)
def test_norms_are_the_papers_formulas(norm: torch.nn.Module, randomised: Any) -> None:
    norm = randomised(norm).double()
    x = 3 + 0.01 * torch.randn(2, 5, 3, 4, dtype=torch.float64)  # eps and the mean both matter

    out = norm(x).detach().numpy()

    state = in_numpy(norm)
    for sample, found in zip(x.numpy(), out, strict=True):
        expected = normalised(sample, state["weight"], state.get("bias"))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("change", [{}, {"norm": "with-bias", "bias": True}], ids=str)
def test_the_network_is_the_papers_drawing(change: dict[str, Any], randomised: Any) -> None:
    model = randomised(build_model("restormer", channels=3, **SMALL | change))
    image = torch.rand(2, 3, 8, 16)

    out = model(image).detach().double().numpy()

    expected = np.stack(
        [restored_by_formulas(one, in_numpy(model)) for one in image.double().numpy()]
    )
    assert abs(expected - image.numpy()).max() > 0.1
    assert abs(out - expected).max() < 1e-5 * abs(expected).max()


def expected_block(c: int, *, heads: int, hidden: int) -> dict[str, tuple[int, ...]]:
    return {
        "norm1.body.weight": (c,),
        "norm2.body.weight": (c,),
        "attn.temperature": (heads, 1, 1),
        "attn.qkv.weight": (3 * c, c, 1, 1),
        "attn.qkv_dwconv.weight": (3 * c, 1, 3, 3),
        "attn.project_out.weight": (c, c, 1, 1),
        "ffn.project_in.weight": (2 * hidden, c, 1, 1),
        "ffn.dwconv.weight": (2 * hidden, 1, 3, 3),
        "ffn.project_out.weight": (c, hidden, 1, 1),
    }


def test_names_and_shapes_of_tensors_are_the_published_ones() -> None:
    with torch.device("meta"):
        model = build_model("restormer", channels=3, blocks=(1, 1, 1, 2), refinement_blocks=1)

    expected = {
        "patch_embed.proj.weight": (48, 3, 3, 3),
        "down1_2.body.0.weight": (24, 48, 3, 3),
        "down2_3.body.0.weight": (48, 96, 3, 3),
        "down3_4.body.0.weight": (96, 192, 3, 3),
        "up4_3.body.0.weight": (768, 384, 3, 3),
        "up3_2.body.0.weight": (384, 192, 3, 3),
        "up2_1.body.0.weight": (192, 96, 3, 3),
        "reduce_chan_level3.weight": (192, 384, 1, 1),
        "reduce_chan_level2.weight": (96, 192, 1, 1),
        "output.weight": (3, 96, 3, 3),
    }
    for place, c, heads, hidden in (
        ("encoder_level1.0", 48, 1, 127),
        ("encoder_level2.0", 96, 2, 255),
        ("encoder_level3.0", 192, 4, 510),
        ("latent.0", 384, 8, 1021),
        ("latent.1", 384, 8, 1021),
        ("decoder_level3.0", 192, 4, 510),
        ("decoder_level2.0", 96, 2, 255),
        ("decoder_level1.0", 96, 1, 255),
        ("refinement.0", 96, 1, 255),
    ):
        block = expected_block(c, heads=heads, hidden=hidden)
        expected |= {f"{place}.{name}": shape for name, shape in block.items()}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("norm", "parameters"), [("bias-free", 26_111_668), ("with-bias", 26_126_644)]
)
def test_it_costs_what_is_published(norm: str, parameters: int) -> None:
    info = describe_model("restormer", channels=3, norm=norm)

    assert info.parameters == parameters
    assert info.conv_macs / 1e9 == pytest.approx(140.99, rel=1e-3)
    assert info.attention_macs / 1e9 == pytest.approx(13.89, rel=1e-3)
    assert info.kernel_basis_macs == 0


def test_products_of_attention_are_counted_by_hand() -> None:
    macs = count_macs(TransposedAttention(12, heads=3, bias=True), channels=12, side=10)

    assert macs.attention == 2 * 100 * 3 * 4 * 4  # two products of 4 by 4 channels a head
    assert macs.conv == 100 * (12 * 36 + 36 * 9 + 12 * 12)


def test_an_untrained_network_returns_its_input() -> None:
    image = torch.rand(1, 1, 16, 8)

    assert torch.equal(build_model("restormer", channels=1, **SMALL, bias=True)(image), image)


def test_attention_survives_half_precision_on_a_large_bright_image() -> None:
    query, key, value = 2000 * torch.randn(3, 1, 4, 64, 64) + 1000  # lengths of 140,000
    temperature = torch.full((2, 1, 1), 3.0)

    expected = ChannelAttention()(query, key, value, temperature)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            out = ChannelAttention()(query.to(dtype), key.to(dtype), value.to(dtype), temperature)

        assert out.dtype == dtype
        assert (out - expected).abs().max() < 0.02 * expected.abs().max()


def test_the_temperature_is_taken_in_full_precision() -> None:
    query = torch.eye(4).reshape(1, 4, 2, 2)
    sharp = torch.full((1, 1, 1), 70_000.0)  # infinite in fp16

    with torch.autocast("cpu", dtype=torch.float16):
        out = ChannelAttention()(query, query, query, sharp)

    torch.testing.assert_close(out.float(), query)


def test_black_images_give_finite_numbers_and_gradients(randomised: Any) -> None:
    model = randomised(build_model("restormer", channels=3, **SMALL))

    out = model(torch.zeros(1, 3, 8, 16))
    out.square().mean().backward()

    assert torch.equal(out, torch.zeros_like(out))  # nothing has an offset
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("ffn_scale", [2.66, 1.5, 2.0, 0.29, 1.1, 2.659])
def test_the_widening_is_read_as_the_shortest_decimal(ffn_scale: float) -> None:
    widenings = {(c, int(ffn_scale * c)) for c in (48, 96, 192, 384, 1000)}

    assert shortest_scale(widenings) == ffn_scale


def test_every_widening_can_be_read_even_where_int_cuts_a_binary_fraction() -> None:
    for c in (50, 100, 3000):
        for hidden in range(1, 3 * c, 7):
            scale = shortest_scale({(c, hidden), (2 * c, int(2 * c * (hidden + 0.3) / c))})

            assert int(scale * c) == hidden


def test_widenings_that_no_scale_gives_are_refused() -> None:
    with pytest.raises(ValueError, match="ffn_scale"):
        shortest_scale({(8, 16), (16, 16)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 9}, "width of restormer is 9"),
        ({"width": 0}, "width of restormer is 0"),
        ({"blocks": (1, 1, 1)}, "3 numbers of blocks and 4 of heads"),
        ({"heads": (1, 1, 1, 1, 1)}, "4 numbers of blocks and 5 of heads"),
        ({"blocks": (1, 0, 1, 1)}, "at least one block"),
        ({"heads": (1, 0, 1, 1)}, "at least one head"),
        ({"heads": (1, 3, 1, 1)}, "share 16 channels among 3 heads"),
        ({"refinement_blocks": -1}, "refinement_blocks of restormer is -1"),
        ({"ffn_scale": 0.1}, "0 hidden channels"),
        ({"ffn_scale": -1.0}, "-8 hidden channels"),
        ({"norm": "batch"}, "norm of restormer is 'batch'"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build_model("restormer", channels=3, **SMALL | change)

    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.hint


def test_the_published_network_is_recognised_to_the_last_digit() -> None:
    with torch.device("meta"):
        state = build_model("restormer", channels=3, norm="with-bias").state_dict()

    name, found = detect(state)

    assert (name, found.channels) == ("restormer", 3)
    assert found.hyperparameters == {
        "width": 48,
        "blocks": (4, 6, 6, 8),
        "refinement_blocks": 4,
        "heads": (1, 2, 4, 8),
        "ffn_scale": 2.66,
        "bias": False,
        "norm": "with-bias",
    }


def test_files_for_two_views_are_refused_in_words() -> None:
    state = build_model("restormer", channels=3, **SMALL).state_dict()
    state["skip_conv.weight"] = torch.zeros(16, 8, 1, 1)

    with pytest.raises(DataError, match="two views") as refused:
        detect(state)

    assert "denoising" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("output.weight", (1, 16, 3, 3)),
        ("patch_embed.proj.weight", (8,)),
        ("encoder_level2.0.attn.temperature", ()),
        ("latent.0.ffn.project_out.weight", (64, 5, 1, 1)),
        ("decoder_level2.1.attn.temperature", None),
        ("output.weight", None),
    ],
    ids=str,
)
def test_tensors_that_contradict_each_other_are_refused(
    name: str, shape: tuple[int, ...] | None
) -> None:
    state = build_model("restormer", channels=3, **SMALL).state_dict()
    state.pop(name)
    if shape is not None:
        state[name] = torch.zeros(shape)

    with pytest.raises(DataError, match="look like restormer"):
        detect(state)
