"""KBNet-L: the authors' names, shapes and counts, and the numbers recorded from spandrel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.reading import basis_shape

SMALL: dict[str, Any] = {
    "width": 8,
    "blocks": (1, 2, 1, 1),
    "refinement_blocks": 1,
    "heads": (2, 1, 4, 8),
}


def expected_block(c: int, *, heads: int) -> dict[str, tuple[int, ...]]:
    """The table of a published block's tensors, by hand."""
    h = c * 3 // 2
    shapes: dict[str, tuple[int, ...]] = {
        "ffn.temperature": (heads, 1, 1),
        "ffn.qkv.weight": (3 * c, c, 1, 1),
        "ffn.qkv_dwconv.weight": (3 * c, 1, 3, 3),
        "ffn.project_out.weight": (c, c, 1, 1),
        "attn.w": (1, 32, 18 * h),
        "attn.b": (1, 32, h),
        "attn.attgamma": (1, 32, 1, 1),
        "attn.ga1": (1, h, 1, 1),
        "attn.dwconv.0.weight": (h, c, 1, 1),
        "attn.dwconv.1.weight": (h, 1, 3, 3),
        "attn.conv1.0.weight": (h, c, 1, 1),
        "attn.conv1.1.weight": (h, 1, 3, 3),
        "attn.project_out.weight": (c, h, 1, 1),
    }
    with_offset = {
        "norm1": (c,),
        "norm2": (c,),
        "attn.sca.1": (h, c, 1, 1),
        "attn.conv2.0": (24, c // 24, 3, 3),
        "attn.conv2.2": (32, 12, 1, 1),
        "attn.conv211": (32, c, 1, 1),
    }
    for name, shape in with_offset.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def test_names_and_shapes_of_tensors_are_the_authors() -> None:
    with torch.device("meta"):
        model = build_model("kbnet-l", channels=3, blocks=(1, 1, 1, 2), refinement_blocks=1)

    expected: dict[str, tuple[int, ...]] = {
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
    for place, c, heads in (
        ("encoder_level1.0", 48, 1),
        ("encoder_level2.0", 96, 2),
        ("encoder_level3.0", 192, 4),
        ("latent.0", 384, 8),
        ("latent.1", 384, 8),
        ("decoder_level3.0", 192, 4),
        ("decoder_level2.0", 96, 2),
        ("decoder_level1.0", 96, 1),
        ("refinement.0", 96, 1),
    ):
        block = expected_block(c, heads=heads)
        expected |= {f"{place}.{name}": shape for name, shape in block.items()}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected


def test_it_costs_what_is_published() -> None:
    info = describe_model("kbnet-l", channels=3)

    assert info.parameters == 29_568_100
    assert info.conv_macs / 1e9 == pytest.approx(107.69, rel=1e-3)
    assert info.kernel_basis_macs / 1e9 == pytest.approx(88.62, rel=1e-3)
    assert info.attention_macs / 1e9 == pytest.approx(13.89, rel=1e-3)
    assert info.macs == info.conv_macs + info.kernel_basis_macs + info.attention_macs


def waves(*shape: int, phase: float) -> Tensor:
    """Values that any library draws alike, unlike those of a random generator."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase).reshape(shape).float()


# Made once with spandrel 0.4.2's KBNet_l: pixels (3, 5) and (0, 11), and the deviation of all.
@pytest.mark.parametrize(
    ("change", "pixels", "deviation"),
    [
        (
            {"blocks": (1, 1, 1, 2)},
            [0.8249, 0.81899, 0.47407, 0.49046, 0.0759, 1.05723],
            0.45977,
        ),
        (
            {"blocks": (1, 2, 1, 1), "heads": (2, 3, 4, 6), "bias": True, "ffn_scale": 1.25},
            [0.10568, 0.9028, 1.13142, -0.21177, 0.2383, 1.81443],
            0.85305,
        ),
    ],
    ids=["published", "with offsets"],
)
def test_outputs_are_those_recorded_from_spandrel(
    change: dict[str, Any], pixels: list[float], deviation: float
) -> None:
    model = build_model("kbnet-l", channels=3, width=24, refinement_blocks=1, **change)
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(model.named_parameters())):
            fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
            scale = fan**-0.5 * (0.1 if name.endswith(".w") else 1.0)
            p.copy_(waves(*p.shape, phase=i) * scale)

        out = model(0.5 + 0.5 * waves(1, 3, 8, 16, phase=0.3))

    found = [*out[0, :, 3, 5].tolist(), *out[0, :, 0, 11].tolist()]
    assert found == pytest.approx(pixels, abs=2e-5)
    assert out.std().item() == pytest.approx(deviation, abs=2e-5)


def test_an_untrained_network_returns_its_input() -> None:
    image = torch.rand(1, 1, 16, 8)

    assert torch.equal(build_model("kbnet-l", channels=1, **SMALL, bias=True)(image), image)


def test_any_even_width_can_be_built(randomised: Any) -> None:
    for width in (2, 6, 10, 22, 26):
        model = build_model(
            "kbnet-l",
            channels=1,
            width=width,
            blocks=(1, 1, 1, 1),
            refinement_blocks=0,
            heads=(1, 1, 1, 1),
            ffn_scale=2.0,
        )

        assert randomised(model)(torch.rand(1, 1, 8, 8)).isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 9}, "width of kbnet-l is 9"),
        ({"heads": (1, 1, 1)}, "4 numbers of blocks and 3 of heads"),
        ({"heads": (1, 3, 1, 1)}, "share 16 channels among 3 heads"),
        ({"ffn_scale": 1.4}, "11 hidden channels at a level of 8, with group_channels=2"),
        ({"ffn_scale": 0.0}, "0 hidden channels"),
        ({"group_channels": 0}, "group_channels of kbnet-l is 0"),
        ({"group_channels": 8}, "12 hidden channels"),
        ({"kernel": 4}, "kernel of kbnet-l is 4"),
        ({"kernel": -1}, "kernel of kbnet-l is -1"),
        ({"nset": 0}, "nset of kbnet-l is 0"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        build_model("kbnet-l", channels=3, **SMALL | change)

    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.hint


def test_the_published_network_is_recognised() -> None:
    with torch.device("meta"):
        state = build_model("kbnet-l", channels=3).state_dict()

    name, found = detect(state)

    assert (name, found.channels) == ("kbnet-l", 3)
    assert found.hyperparameters == {
        "width": 48,
        "blocks": (4, 6, 6, 8),
        "refinement_blocks": 4,
        "heads": (1, 2, 4, 8),
        "ffn_scale": 1.5,
        "bias": False,
        "nset": 32,
        "group_channels": 2,
        "kernel": 3,
    }


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("group_channels", [1, 2, 4, 8, 16])
def test_group_and_kernel_are_told_apart(group_channels: int, kernel: int) -> None:
    bases = {(c, c * group_channels * kernel**2) for c in (48, 96, 144)}

    assert basis_shape(bases) == (group_channels, kernel)


@pytest.mark.parametrize(
    "bases",
    [{(48, 48 * 18), (96, 96 * 19)}, {(48, 48 * 5)}, {(48, 100)}, {(48, 0)}, set()],
    ids=str,
)
def test_numbers_that_no_basis_has_are_refused(bases: set[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="kernel bas"):
        basis_shape(bases)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("output.weight", (1, 16, 3, 3)),
        ("patch_embed.proj.weight", (8,)),
        ("encoder_level2.0.ffn.temperature", ()),
        ("latent.0.attn.w", (1, 32, 96 * 17)),
        ("latent.0.attn.w", (96,)),
        ("latent.0.attn.project_out.weight", (64, 90, 1, 1)),
        ("decoder_level2.1.ffn.temperature", None),
        ("encoder_level1.0.attn.attgamma", None),
    ],
    ids=str,
)
def test_tensors_that_contradict_each_other_are_refused(
    name: str, shape: tuple[int, ...] | None
) -> None:
    state = build_model("kbnet-l", channels=3, **SMALL).state_dict()
    state.pop(name)
    if shape is not None:
        state[name] = torch.zeros(shape)

    with pytest.raises(DataError, match="look like kbnet-l"):
        detect(state)
