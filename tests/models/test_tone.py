from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.models.tone import Tone


def page(batch: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, PAGE_SIDE, PAGE_SIDE)


def bent(kind: Literal["curve", "affine"] = "curve", knots: int = 16) -> Tone:
    """One whose maps are far from the identity and differ from page to page."""
    torch.manual_seed(3)
    tone = Tone(kind=kind, knots=knots)
    last = tone.curve if kind == "curve" else tone.affine
    with torch.no_grad():
        last.weight.normal_(0, 0.5)
        last.bias.normal_(0, 1)
    return tone


def ramp() -> Tensor:
    """Every value from -0.5 to 1.5, below and above the pictures' own range."""
    return torch.linspace(-0.5, 1.5, 4001).expand(1, 3, 1, 4001)


@pytest.mark.parametrize("options", [{}, {"knots": 1}, {"knots": 100}, {"kind": "affine"}], ids=str)
def test_untrained_it_is_the_identity(options: dict[str, Any]) -> None:
    tone = Tone(**options)

    torch.testing.assert_close(tone(ramp(), page()), ramp(), rtol=0, atol=1e-6)
    torch.testing.assert_close(tone(ramp()), ramp(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("knots", [1, 2, 16, 33])
def test_a_curve_never_falls_whatever_its_weights(knots: int) -> None:
    tone = bent(knots=knots)

    mapped = tone(ramp(), page())

    assert (mapped.diff(dim=3) >= -1e-6).all()
    assert (mapped - ramp()).abs().max() > 0.01


def test_a_curve_is_straight_between_its_knots_and_beyond_them() -> None:
    tone = bent(knots=4).double()
    x = (torch.arange(-4, 21) / 16.0).double().expand(1, 3, 1, 25)  # four steps a piece

    steps = tone(x, page().double()).diff(dim=3)[0, :, 0]  # [C, 24]

    pieces = steps.unflatten(1, (6, 4))  # one before 0, four inside, one beyond 1
    torch.testing.assert_close(pieces, pieces[:, :, :1].expand_as(pieces))
    torch.testing.assert_close(pieces[:, 0], pieces[:, 1])
    torch.testing.assert_close(pieces[:, 5], pieces[:, 4])
    assert (pieces[:, 1:5, 0].diff(dim=1).abs() > 0.01).any(dim=1).all()


def test_a_curve_goes_through_its_knots() -> None:
    tone = Tone(channels=1, knots=2)
    with torch.no_grad():
        tone.curve.bias.copy_(torch.tensor([0.1, -1.0, 2.0]))
    soft = torch.nn.functional.softplus(torch.tensor([-1.0, 2.0]) + 0.5413248546129181)

    low, middle, high = tone(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)).flatten().tolist()

    assert low == pytest.approx(0.1, abs=1e-6)
    assert middle == pytest.approx(0.1 + 0.5 * float(soft[0]), abs=1e-6)
    assert high == pytest.approx(0.1 + 0.5 * float(soft.sum()), abs=1e-6)


@pytest.mark.parametrize("kind", ["curve", "affine"])
def test_the_map_is_the_pages_and_not_the_patchs(kind: Literal["curve", "affine"]) -> None:
    tone = bent(kind)
    image, whole = torch.rand(1, 3, 40, 40), page()

    mapped = tone(image, whole)

    torch.testing.assert_close(tone(image[..., 8:20, 5:30], whole), mapped[..., 8:20, 5:30])
    assert (tone(image[..., 8:20, 5:30]) - mapped[..., 8:20, 5:30]).abs().max() > 1e-3


def test_without_a_page_the_picture_is_the_page() -> None:
    tone, image = bent(), torch.rand(2, 3, 131, 70)

    small = torch.nn.functional.adaptive_avg_pool2d(image, PAGE_SIDE)

    assert torch.equal(tone(image), tone(image, small))


def test_pages_of_a_batch_do_not_mix() -> None:
    tone, image, pages = bent(), torch.rand(2, 3, 9, 9), page(2)

    both = tone(image, pages)

    torch.testing.assert_close(both[1:], tone(image[1:], pages[1:]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["curve", "affine"])
def test_autocast_does_not_coarsen_the_map(
    kind: Literal["curve", "affine"], dtype: torch.dtype
) -> None:
    tone = bent(kind)
    image, whole = torch.rand(1, 3, 16, 16), page()

    with torch.autocast("cpu", dtype=dtype):
        mapped = tone(image, whole)

    assert mapped.dtype == torch.float32
    assert torch.equal(mapped, tone(image, whole))


@pytest.mark.parametrize("shape", [(1, 3, 32, 64), (2, 3, 64, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_a_thumbnail_of_another_shape_is_refused_in_words(shape: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="thumbnail of shape") as refused:
        Tone()(torch.rand(1, 3, 8, 8), torch.rand(shape))

    assert "[1, 3, 64, 64]" in refused.value.hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "cubic"}, "kind of tone is 'cubic'"),
        ({"knots": 0}, "knots of tone is 0"),
        ({"width": 0}, "width of tone is 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        build_model("tone", channels=3, **options)


def test_it_learns_one_tone_for_each_page_from_patches_alone() -> None:
    """Two pages of one ink on two papers: from a plain patch alone nobody could tell which."""
    torch.manual_seed(0)
    tone = Tone(width=4)
    optimiser = torch.optim.Adam(tone.parameters(), lr=2e-2)
    pages = torch.stack([torch.full((3, PAGE_SIDE, PAGE_SIDE), v) for v in (0.9, 0.6)])
    patches = torch.full((2, 3, 4, 4), 0.5)
    clean = torch.stack([torch.full((3, 4, 4), v) for v in (0.3, 0.7)])

    for _ in range(80):
        loss = (tone(patches, pages) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    assert (tone(patches, pages) - clean).abs().max() < 0.02


def test_it_is_described_with_its_cost() -> None:
    info = describe_model("tone", channels=3, side=512)

    assert info.parameters == 71_251
    assert info.sees_page
    assert info.receptive_field == 0
    convolutions = 27 * 16 * 32**2 + 144 * 32 * 16**2 + 288 * 64 * 8**2 + 576 * 64 * 4**2
    assert info.conv_macs == convolutions + (64 + 51) * 64 + 64 * 51


@pytest.mark.parametrize(
    "change",
    [
        {"curve.weight": torch.zeros(50, 64)},
        {"curve.weight": torch.zeros(3, 64)},
        {"affine.weight": torch.zeros(6, 64)},
    ],
    ids=str,
)
def test_tensors_that_contradict_each_other_are_refused(change: dict[str, Tensor]) -> None:
    with pytest.raises(DataError, match="look like tone"):
        detect(Tone().state_dict() | change)
