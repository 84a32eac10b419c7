"""KBNet-S: the authors' names, shapes and counts, and equal numbers where spandrel is installed."""

import importlib
from typing import Any

import pytest
import torch
from torch import nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.kbnet_s import ARCHITECTURE, kbnet_s
from kbdenoise.models.layers import LayerNorm2d

TINY = {"width": 8, "encoder_blocks": (1, 2), "middle_blocks": 1, "decoder_blocks": (1, 1)}


def randomise(model: nn.Module) -> None:
    """Normal weights of order one at every layer: at the small initial scales tests see nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
            fan = 36 * 32 if name.endswith(".w") else fan
            p.copy_(torch.randn(p.shape, generator=generator) * fan**-0.5)
            if name.endswith((".beta", ".gamma")):
                p.mul_(0.3)


def expected_block(c: int, *, hidden: int, lightweight: bool, nset: int = 32) -> dict[str, Any]:
    """The table of a block's tensors, by hand."""
    interc = min(c, 32)
    spatial = (c, 1, 3, 3) if lightweight else (c, 4, 5, 5)
    shapes: dict[str, Any] = {
        "w": (1, nset, 36 * c),
        "b": (1, nset, c),
        "ga1": (1, c, 1, 1),
        "beta": (1, c, 1, 1),
        "gamma": (1, c, 1, 1),
        "attgamma": (1, nset, 1, 1),
    }
    layers = {
        "norm1": (c,),
        "norm2": (c,),
        "sca.1": (c, c, 1, 1),
        "conv11.0": (c, c, 1, 1),
        "conv11.1": spatial,
        "conv1": (c, c, 1, 1),
        "conv21": (c, 1, 3, 3),
        "conv2.0": (interc, c // interc, 3, 3),
        "conv2.2": (nset, interc // 2, 1, 1),
        "conv211": (nset, c, 1, 1),
        "conv3": (c, c, 1, 1),
        "conv4": (hidden, c, 1, 1),
        "conv5": (c, hidden // 2, 1, 1),
    }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


@pytest.mark.parametrize("lightweight", [False, True])
def test_names_and_shapes_of_tensors_are_the_authors(lightweight: bool) -> None:
    model = kbnet_s(
        channels=1,
        width=16,
        encoder_blocks=(1, 0, 2),
        middle_blocks=1,
        decoder_blocks=(1, 1, 0),
        lightweight=lightweight,
        ffn_scale=1.5,
    )

    expected: dict[str, Any] = {
        "intro.weight": (16, 1, 3, 3),
        "intro.bias": (16,),
        "ending.weight": (1, 16, 3, 3),
        "ending.bias": (1,),
    }
    for i, c in enumerate((16, 32, 64)):
        expected |= {f"downs.{i}.weight": (2 * c, c, 2, 2), f"downs.{i}.bias": (2 * c,)}
        expected[f"ups.{2 - i}.0.weight"] = (4 * c, 2 * c, 1, 1)
    places = {
        "encoders.0.0": 16,
        "encoders.2.0": 64,
        "encoders.2.1": 64,
        "middle_blks.0": 128,
        "decoders.0.0": 64,
        "decoders.1.0": 32,
    }
    for place, c in places.items():
        block = expected_block(c, hidden=c * 3 // 2, lightweight=lightweight)
        expected |= {f"{place}.{name}": shape for name, shape in block.items()}
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == expected


def test_kernel_basis_attention_matters_once_its_scale_is_not_tiny() -> None:
    model = kbnet_s(**TINY)
    randomise(model)
    image = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        before = model(image)
        for name, p in model.named_parameters():
            if name.endswith(".w"):
                p.zero_()

        after = model(image)

    assert (before - after).abs().mean() > 0.1 * before.abs().mean()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder_blocks": (1,)}, "1 encoder_blocks and 2"),
        ({"encoder_blocks": (), "decoder_blocks": ()}, "at least one level"),
        ({"encoder_blocks": (0, 0), "middle_blocks": 0, "decoder_blocks": (0, 0)}, "0"),
        ({"middle_blocks": -1}, "-1"),
        ({"width": 0}, "width of kbnet-s is 0"),
        ({"width": 6}, "level of 6 channels"),
        ({"width": 24}, "level of 48 channels"),
        ({"group_channels": 3}, "group_channels=3"),
        ({"group_channels": 0}, "group_channels=0"),
        ({"ffn_scale": 1.2}, "9 hidden channels"),
        ({"ffn_scale": -1.0}, "hidden channels"),
        ({"ffn_scale": float("inf")}, "hidden channels"),
        ({"kernel": 2}, "kernel of kbnet-s is 2"),
        ({"nset": 0}, "nset of kbnet-s is 0"),
        ({"pool_window": -8}, "pool_window of kbnet-s is -8"),
        ({"pool_window": 3}, "at least 4 px"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        kbnet_s(**TINY | change)

    assert words in f"{refused.value.message} {refused.value.hint}"
    assert refused.value.hint


@pytest.mark.parametrize("missing", ["w", "b", "ga1", "attgamma", "conv211.weight"])
@pytest.mark.parametrize("block", ["", "middle_blks.0."])
def test_tensors_without_a_part_of_the_basis_are_a_contradiction(missing: str, block: str) -> None:
    state = {
        name: tensor
        for name, tensor in kbnet_s(**TINY).state_dict().items()
        if not (name.startswith(block) and name.endswith(f".{missing}"))
    }

    with pytest.raises(KeyError, match=f"{block or 'encoders.0.0.'}{missing}"):
        ARCHITECTURE.recognise(state)


def test_ups_that_do_not_match_the_downs_are_a_contradiction() -> None:
    state = kbnet_s(**TINY).state_dict()
    del state["ups.1.0.weight"]

    with pytest.raises(ValueError, match="2 downs and 1 ups"):
        ARCHITECTURE.recognise(state)


def test_a_pooling_window_matters_in_evaluation_alone(randomised: Any) -> None:
    whole, local = (randomised(kbnet_s(**TINY, pool_window=window)) for window in (0, 16))
    small, large = torch.rand(1, 3, 16, 12), torch.rand(1, 3, 24, 12)

    torch.testing.assert_close(local(small), whole(small), atol=1e-5, rtol=1e-5)
    assert (local(large) - whole(large)).abs().max() > 1e-3
    torch.testing.assert_close(local.train()(large), whole.train()(large), atol=1e-5, rtol=1e-5)


def test_layer_norm_equals_torchs_and_takes_its_statistics_in_fp32() -> None:
    norm = LayerNorm2d(6)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    x = torch.randn(2, 6, 3, 5) * 3 + 100

    def by_torch(values: torch.Tensor) -> torch.Tensor:
        last = values.permute(0, 2, 3, 1)
        return nn.functional.layer_norm(last, (6,), norm.weight, norm.bias, 1e-6).permute(
            0, 3, 1, 2
        )

    # Values near 100 are rounded to 8e-6, and a pixel may deviate from its mean by little.
    torch.testing.assert_close(norm(x), by_torch(x), atol=1e-4, rtol=1e-4)
    half = x.bfloat16()
    assert norm(half).dtype == torch.bfloat16
    torch.testing.assert_close(norm(half).float(), by_torch(half.float()), atol=2e-2, rtol=1e-2)


def waves(*shape: int, phase: float) -> torch.Tensor:
    """Values that any library draws alike, unlike those of a random generator."""
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase).reshape(shape).float()


# Made once with spandrel 0.4.2's KBNet_s: pixels (3, 5) and (0, 11), and the deviation of all.
@pytest.mark.parametrize(
    ("change", "pixels", "deviation"),
    [
        ({}, [0.52339, 2.54289, -1.02595, 0.75248, 1.12783, 0.2212], 2.48884),
        (
            {"lightweight": True, "ffn_scale": 1.5},
            [2.76373, -0.10684, 1.99371, -0.27054, 3.03499, -2.5417],
            2.23095,
        ),
    ],
    ids=["full", "lightweight"],
)
def test_outputs_are_those_recorded_from_spandrel(
    change: dict[str, Any], pixels: list[float], deviation: float
) -> None:
    model = kbnet_s(**TINY | change)
    with torch.no_grad():
        for i, (name, p) in enumerate(sorted(model.named_parameters())):
            fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
            scale = fan**-0.5 * (0.1 if name.endswith(".w") else 1.0)
            p.copy_(waves(*p.shape, phase=i) * scale)

        out = model(0.5 + 0.5 * waves(1, 3, 8, 12, phase=0.3))

    found = [*out[0, :, 3, 5].tolist(), *out[0, :, 0, 11].tolist()]
    assert found == pytest.approx(pixels, abs=1e-4)
    assert out.std().item() == pytest.approx(deviation, abs=1e-4)


@pytest.mark.parametrize(
    "change", [{}, {"lightweight": True, "ffn_scale": 1.5}, {"width": 32}, {"channels": 1}], ids=str
)
def test_outputs_and_gradients_equal_those_of_spandrel(change: dict[str, Any]) -> None:
    module = "spandrel.architectures.KBNet.__arch.kbnet_s"
    try:
        theirs_class = importlib.import_module(module).KBNet_s
    except ImportError:
        pytest.skip("spandrel is not installed")
    options = {"channels": 3, "lightweight": False, "ffn_scale": 2.0} | TINY | change
    mine = kbnet_s(**options)
    randomise(mine)
    theirs = theirs_class(
        img_channel=options["channels"],
        width=options["width"],
        middle_blk_num=options["middle_blocks"],
        enc_blk_nums=list(options["encoder_blocks"]),
        dec_blk_nums=list(options["decoder_blocks"]),
        lightweight=options["lightweight"],
        ffn_scale=options["ffn_scale"],
    )
    theirs.load_state_dict(mine.state_dict())
    image = torch.rand(2, options["channels"], 16, 12)

    outputs = [model(image) for model in (mine, theirs)]
    for output in outputs:
        output.square().mean().backward()

    assert (outputs[0] - outputs[1]).abs().max() < 5e-6 * outputs[1].abs().max()
    gradients = dict(theirs.named_parameters())
    for name, parameter in mine.named_parameters():
        reference = gradients[name].grad
        assert (parameter.grad - reference).abs().max() < 1e-4 * reference.abs().max(), name
