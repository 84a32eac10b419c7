"""Every model of the table keeps what the table promises."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model, complete_hyperparameters, describe_model, laid_out
from kbdenoise.models.cost import count_parameters
from kbdenoise.models.layers import fold_scales
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.models.zoo import MODELS, find_model, named_size

_TINY_U = {"encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}
_TINY_TRANSFORMER = {
    "width": 8,
    "blocks": (1, 1, 1, 1),
    "refinement_blocks": 1,
    "heads": (1, 1, 2, 2),
}

# Tiny variants: at least one a model, more where an option changes the network.
TINY: list[tuple[str, dict[str, Any]]] = [
    ("kbnet-s", {"width": 4, **_TINY_U}),
    (
        "kbnet-s",
        {
            "width": 8,
            "encoder_blocks": (1,),
            "middle_blocks": 0,
            "decoder_blocks": (1,),
            "lightweight": True,
            "ffn_scale": 1.5,
            "nset": 5,
            "group_channels": 2,
            "kernel": 5,
        },
    ),
    ("kbnet-l", {**_TINY_TRANSFORMER, "nset": 5}),
    ("kbnet-l", {**_TINY_TRANSFORMER, "bias": True, "ffn_scale": 1.25, "kernel": 1}),
    ("nafnet", {"width": 4, **_TINY_U}),
    ("nafnet", {"width": 4, **_TINY_U, "pool_window": 8}),
    ("restormer", _TINY_TRANSFORMER),
    ("restormer", {**_TINY_TRANSFORMER, "norm": "with-bias", "bias": True}),
    ("dncnn", {"depth": 5, "width": 6}),
    ("dncnn", {"depth": 4, "width": 6, "norm": "none"}),
    ("srresnet", {"width": 6, "blocks": 2}),
    ("srresnet", {"width": 6, "blocks": 1, "norm": "none", "activation": "glu"}),
    (
        "srresnet",
        {"width": 6, "blocks": 2, "norm": "instance", "block": "bottleneck", "activation": "gelu"},
    ),
    ("srresnet", {"width": 6, "blocks": 1, "activation": "relu", "input_skip": False}),
    ("unet", {"width": 4, "levels": 1, "convs": 1}),
    ("unet", {"width": 4, "levels": 2, "convs": 2, "skip": "add"}),
    ("unet", {"width": 4, "levels": 2, "down": "pool", "norm": "batch"}),
    ("unet", {"width": 4, "levels": 1, "norm": "instance", "input_skip": False}),
    ("drunet", {"width": 4, "blocks": 1, "levels": 2}),
    ("drunet", {"width": 4, "blocks": 1, "levels": 1, "noise_map": False}),
    ("pix2pix", {"width": 4, "levels": 3}),
    ("pix2pix", {"width": 4, "levels": 2, "norm": "instance"}),
    ("tone", {"kind": "curve", "knots": 4, "width": 4}),
    ("tone", {"kind": "affine", "width": 4}),
    ("tone+dncnn", {"depth": 4, "width": 6, "norm": "none", "tone_width": 4}),
    ("res-unet", {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)}),
    (
        "res-unet",
        {"width": 4, "widest": 6, "encoder_blocks": (0, 1), "decoder_blocks": (2, 0), "fold": 1},
    ),
]
each_tiny_model = pytest.mark.parametrize(("name", "options"), TINY, ids=str)


def tiny(name: str, options: dict[str, Any], *, channels: int = 3) -> nn.Module:
    """With randomised weights: fresh ones are nearly the identity and would hide mistakes."""
    model = build_model(name, channels=channels, **options)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for p in model.parameters():
            fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
            p.copy_(0.7 * torch.randn(p.shape, generator=generator) * fan**-0.5)
    return model


def test_the_tiny_variants_cover_the_table() -> None:
    assert {name for name, _ in TINY} >= set(MODELS)


@each_tiny_model
@pytest.mark.parametrize("channels", [1, 3])
def test_it_keeps_the_shape_at_awkward_sizes(
    name: str, options: dict[str, Any], channels: int
) -> None:
    model = tiny(name, options, channels=channels)
    multiple = describe_model(name, channels=channels, **options).multiple

    for height, width in ((1, 1), (3, 1), (5, 7)):
        image = torch.rand(2, channels, height * multiple, width * multiple)
        out = model.eval()(image)

        assert out.shape == image.shape
        assert out.isfinite().all()
        assert (out - image).abs().max() > 1e-3


@each_tiny_model
def test_other_sizes_and_channels_are_refused_in_words(name: str, options: dict[str, Any]) -> None:
    model = tiny(name, options)
    multiple = describe_model(name, channels=3, **options).multiple

    with pytest.raises(SettingsError, match="built for 3 channels"):
        model(torch.rand(1, 1, 8, 8))
    with pytest.raises(SettingsError, match="built for 3 channels"):
        model(torch.rand(3, 8, 8))
    with pytest.raises(SettingsError, match=f"multiples of {multiple} px"):
        model(torch.rand(1, 3, 0, 8))
    if multiple > 1:
        with pytest.raises(SettingsError, match=f"multiples of {multiple} px, but got 8x9 px"):
            model(torch.rand(1, 3, 9, 8))


@each_tiny_model
@pytest.mark.parametrize("channels", [1, 3])
def test_neither_memory_format_nor_folded_scales_change_what_it_gives(
    name: str, options: dict[str, Any], channels: int
) -> None:
    model = tiny(name, options, channels=channels).eval().double()
    multiple = describe_model(name, channels=channels, **options).multiple
    image = torch.rand(2, channels, 3 * multiple, 5 * multiple, dtype=torch.float64)
    expected = model(image)

    prepared = laid_out(model, name=name, device="cpu")
    in_format = prepared(image)
    fold_scales(prepared)
    folded = prepared(image)
    fold_scales(prepared)
    twice = prepared(image)

    torch.testing.assert_close(in_format, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(folded, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(twice, folded)


@pytest.mark.parametrize("name", ["kbnet-s", "kbnet-l", "nafnet"])
def test_folding_leaves_no_scale_of_a_branch(name: str) -> None:
    model = tiny(name, next(options for known, options in TINY if known == name))

    fold_scales(model)

    left = {parameter.rpartition(".")[2] for parameter, _ in model.named_parameters()}
    assert not left & {"attgamma", "ga1", "beta", "gamma"}


@each_tiny_model
def test_its_gradients_do_not_depend_on_the_memory_format(
    name: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    multiple = describe_model(name, channels=3, **options).multiple
    image = torch.rand(2, 3, 2 * multiple, 3 * multiple, dtype=torch.float64)
    found = []

    for device in ("elsewhere", "cpu"):
        model = laid_out(tiny(name, options).double(), name=name, device=device).train()
        model(image).square().mean().backward()
        found.append({key: p.grad.clone() for key, p in model.named_parameters()})

    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-7, atol=1e-9, msg=key)


@each_tiny_model
def test_the_gradient_reaches_every_parameter(name: str, options: dict[str, Any]) -> None:
    model = tiny(name, options).train()

    model(torch.rand(2, 3, 8, 16)).square().mean().backward()

    for parameter_name, parameter in model.named_parameters():
        # A bias before batch norm is taken away again by the mean; its gradient is rounding.
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@each_tiny_model
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_it_learns_under_the_autocast_that_it_declares(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    spec = find_model(name)
    if not (spec.bf16_autocast if dtype == torch.bfloat16 else spec.fp16_autocast):
        pytest.skip(f"{name} is not declared safe")
    model = tiny(name, options).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(3)
    noisy, clean = torch.rand(2, 3, 16, 8), torch.full((2, 3, 16, 8), 0.5)

    losses = []
    for _ in range(5):
        with torch.autocast("cpu", dtype=dtype):
            loss = (model(noisy).float() - clean).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())

    assert min(losses[1:]) < losses[0]
    assert all(p.isfinite().all() for p in model.parameters())


@each_tiny_model
def test_the_declared_receptive_field_is_the_measured_one(
    name: str, options: dict[str, Any]
) -> None:
    declared = describe_model(name, channels=3, **options).receptive_field

    page = (torch.rand(1, 3, PAGE_SIDE, PAGE_SIDE),) if find_model(name).sees_page else ()
    measured = _measured_radius(
        tiny(name, options), *page, around=16 if declared is None else declared
    )

    if declared is None:
        assert measured > 32  # the far corner: unbounded
    else:
        assert measured == declared


def _measured_radius(model: nn.Module, *page: Tensor, around: int) -> int:
    """The farthest column that moves an output, over one period of positions, in exact numbers."""
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()  # no rectifier is shut and nothing cancels
    model = model.double().eval()
    period = 8
    side = -(-(2 * around + 4 * period) // period) * period
    middle = side // 2
    height = max(8, side if around == 16 else 8)
    bright = 0.8 + 0.2 * torch.rand(1, 3, height, side, dtype=torch.float64)
    image = bright.requires_grad_()  # above any mean that a model subtracts
    out = model(image, *(p.double() for p in page))

    def reach(column: int) -> int:
        (gradient,) = torch.autograd.grad(out[..., column].sum(), image, retain_graph=True)
        columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten()
        return int((columns - column).abs().max())

    return max(reach(middle + offset) for offset in range(period))


@pytest.mark.parametrize(
    ("name", "options"), {name: (name, o) for name, o in TINY}.values(), ids=str
)
def test_it_exports_to_a_graph_with_the_same_output(name: str, options: dict[str, Any]) -> None:
    model = tiny(name, options).eval()
    image = torch.rand(1, 3, 8, 16)

    program = torch.export.export(model, (image,))

    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [
        op for op in called if any(word in op for word in ("to.dtype", "autocast", "im2col"))
    ]
    torch.testing.assert_close(program.module()(image), model(image), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["dncnn", "unet", "res-unet", "kbnet-s", "nafnet"])
def test_an_untrained_network_returns_its_input(name: str) -> None:
    options = next(options for other, options in TINY if other == name)
    image = torch.rand(1, 3, 8, 8)

    assert torch.equal(build_model(name, channels=3, **options)(image), image)


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name, spec in MODELS.items() for size in spec.sizes]
)
def test_every_named_size_can_be_built(name: str, size: str) -> None:
    with on_meta():
        model = build_model(name, channels=3, **named_size(name, size))

    assert count_parameters(model) > 1000


def test_lists_and_whole_numbers_do_for_tuples_and_floats() -> None:
    complete = complete_hyperparameters("kbnet-s", encoder_blocks=[1, 2, 3], ffn_scale=2)

    assert complete["encoder_blocks"] == (1, 2, 3)
    assert isinstance(complete["ffn_scale"], float)
    assert complete["decoder_blocks"] == (4, 3, 2)


@pytest.mark.parametrize(
    ("name", "options", "message", "hint"),
    [
        ("kbnet_s", {}, "no model called 'kbnet_s'", "did you mean 'kbnet-s'?"),
        ("dncnn", {"dept": 3}, "no hyper-parameter 'dept'", "did you mean 'depth'?"),
        ("dncnn", {"nonsense": 3}, "'nonsense'", "depth, width, norm"),
        ("dncnn", {"channels_": 3}, "'channels_'", "depth, width, norm"),
        ("dncnn", {"depth": "17"}, "depth of dncnn is '17'", "a whole number"),
        ("dncnn", {"depth": 17.0}, "depth of dncnn is 17.0", "a whole number"),
        ("dncnn", {"depth": True}, "depth of dncnn is True", "a whole number"),
        ("dncnn", {"depth": 1}, "depth of dncnn is 1", "at least 2"),
        ("dncnn", {"norm": "group"}, "norm of dncnn is 'group'", "batch, none"),
        ("dncnn", {"norm": ["batch"]}, "norm of dncnn is ['batch']", "batch"),
        ("kbnet-s", {"encoder_blocks": 3}, "is 3", "a list of whole numbers"),
        ("kbnet-s", {"encoder_blocks": (1, "2")}, "is '2'", "a whole number"),
        ("kbnet-s", {"lightweight": 1}, "lightweight of kbnet-s is 1", "true or false"),
        ("kbnet-s", {"ffn_scale": "2"}, "ffn_scale of kbnet-s is '2'", "a number"),
        ("kbnet-s", {"ffn_scale": True}, "ffn_scale of kbnet-s is True", "a number"),
        ("kbnet-s", {"ffn_scale": float("nan")}, "ffn_scale of kbnet-s is nan", "a number"),
        ("unet", {"skip": "cat"}, "skip of unet is 'cat'", "concat"),
        ("unet", {"levels": 0}, "levels of unet is 0", "at least 1"),
        ("dncnn", {"depth": 10**6}, "depth of dncnn is 1000000", "at most 1,024"),
        ("unet", {"width": 10**20}, "width of unet is 10000000000000000...", "at most 16,384"),
        ("kbnet-s", {"ffn_scale": 10**300}, "ffn_scale of kbnet-s is", "at most 16,384"),
        ("unet", {"levels": 40}, "levels of unet is 40", "at most 12"),
        ("pix2pix", {"levels": 40}, "levels of pix2pix is 40", "at most 12"),
        ("res-unet", {"encoder_blocks": (1,)}, "1 encoders but 3 decoders", "as many levels"),
        ("res-unet", {"fold": 0}, "fold of res-unet is 0", "at least 1"),
    ],
    ids=str,
)
def test_wrong_requests_are_refused_in_words(
    name: str, options: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        build_model(name, channels=3, **options)

    assert message in refused.value.message
    assert hint in refused.value.hint


@pytest.mark.parametrize("channels", [0, "3", 2.0])
def test_wrong_channels_are_refused_in_words(channels: Any) -> None:
    with pytest.raises(SettingsError, match="channels of dncnn is"):
        build_model("dncnn", channels=channels)


def test_an_unknown_size_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as refused:
        named_size("kbnet-s", "sid")

    assert refused.value.hint == "did you mean 'sidd'?"


def test_equal_seeds_build_equal_models() -> None:
    def build() -> dict[str, Tensor]:
        torch.manual_seed(5)
        return build_model("unet", channels=1, width=4, levels=1).state_dict()

    first, second = build(), build()

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_table_can_be_read_without_importing_torch() -> None:
    code = "import sys, kbdenoise.models.zoo as z; print(sorted(z.MODELS), 'torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == f"{sorted(MODELS)} False"
