import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.metrics import METRICS
from kbdenoise.training.losses import (
    LEAST_SIDES,
    LOSSES,
    PSNR_EPS,
    charbonnier,
    huber,
    l1,
    mean_luma,
    psnr,
)

Array = np.ndarray
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def pair(
    seed: int = 0, *, batch: int = 3, channels: int = 3, height: int = 24, width: int = 31
) -> tuple[Tensor, Tensor]:
    """Restored, partly out of range, and clean with some pure black and white in it."""
    draw = torch.Generator().manual_seed(seed)
    shape = (batch, channels, height, width)
    clean = (1.4 * torch.rand(shape, generator=draw) - 0.2).clamp(0, 1)
    strength = torch.linspace(0.02, 0.4, batch).view(-1, 1, 1, 1)
    return clean + strength * torch.randn(shape, generator=draw), clean


def grad(loss: Callable[[Tensor, Tensor], Tensor], restored: Tensor, clean: Tensor) -> Tensor:
    restored = restored.detach().clone().requires_grad_()
    loss(restored, clean).mean().backward()
    assert restored.grad is not None
    return restored.grad


def slow_fft(restored: Array, clean: Array) -> float:
    """By the definition of the transform, one matrix for the rows and one for the columns."""
    height, width = clean.shape[1:]
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width // 2 + 1)) / width)
    spectrum = rows @ (restored - clean) @ columns / math.sqrt(height * width)
    return float(np.mean([abs(spectrum.real), abs(spectrum.imag)]))


def slow_psnr(restored: Array, clean: Array) -> float:
    seen = restored.copy()
    seen[(clean == 1) & (restored > 1)] = 1
    seen[(clean == 0) & (restored < 0)] = 0
    return math.log(np.mean((seen - clean) ** 2) + PSNR_EPS)


def slow_mean_luma(restored: Array, clean: Array) -> float:
    weights = [1.0] if len(clean) == 1 else [0.299, 0.587, 0.114]
    tones = [np.average(np.clip(x, 0, 1).mean((1, 2)), weights=weights) for x in (restored, clean)]
    return abs(tones[0] - tones[1])


def slow_ms_ssim(restored: Array, clean: Array) -> float:
    """Of gray or colour images [C, H, W], channel by channel, after Wang et al., 2003."""
    return float(np.mean([_channel(r, c) for r, c in zip(restored, clean, strict=True)]))


def _channel(restored: Array, clean: Array) -> float:
    def blurred(image: Array) -> Array:
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    scales = next(k for k in range(5, 0, -1) if min(clean.shape) // 2 ** (k - 1) >= 11)
    weights, product = SCALE_WEIGHTS[:scales] / SCALE_WEIGHTS[:scales].sum(), 1.0
    for scale, weight in enumerate(weights, start=1):
        means = blurred(restored), blurred(clean)
        covariance = blurred(restored * clean) - means[0] * means[1]
        variances = [blurred(x * x) - m * m for x, m in zip((restored, clean), means, strict=True)]
        likeness = (2 * covariance + 0.0009) / (variances[0] + variances[1] + 0.0009)
        if scale == scales:
            squares = means[0] ** 2 + means[1] ** 2
            likeness *= (2 * means[0] * means[1] + 0.0001) / (squares + 0.0001)
        product *= likeness.mean() ** weight
        h, w = (side // 2 * 2 for side in clean.shape)
        restored, clean = (
            x[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)) for x in (restored, clean)
        )
    return 1 - product


def slow_ssim(restored: Array, clean: Array) -> float:
    return 1 - structural_similarity(
        restored,
        clean,
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def slow_gradient(restored: Array, clean: Array) -> float:
    error = restored - clean
    down, right = error[:, 1:] - error[:, :-1], error[:, :, 1:] - error[:, :, :-1]
    return float(np.sqrt(down**2 + 1e-6).mean() + np.sqrt(right**2 + 1e-6).mean())


def slow_huber(restored: Array, clean: Array) -> float:
    error = abs(restored - clean)
    return float(np.where(error < 0.01, error**2 / 0.02, error - 0.005).mean())


ORACLES: dict[str, Callable[[Array, Array], float]] = {
    "charbonnier": lambda r, c: float(np.sqrt((r - c) ** 2 + 1e-6).mean()),
    "fft": slow_fft,
    "gradient": slow_gradient,
    "huber": slow_huber,
    "l1": lambda r, c: float(abs(r - c).mean()),
    "mean-luma": slow_mean_luma,
    "ms-ssim": slow_ms_ssim,
    "mse": lambda r, c: float(((r - c) ** 2).mean()),
    "psnr": slow_psnr,
    "ssim": slow_ssim,
}


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.sampled_from([1, 3]),
    height=st.integers(11, 70),
    width=st.integers(11, 70),
)
def test_every_loss_is_what_its_definition_says(
    name: str, seed: int, channels: int, height: int, width: int
) -> None:
    restored, clean = pair(seed, channels=channels, height=height, width=width)

    values = LOSSES[name](restored, clean)

    images = zip(restored.double().numpy(), clean.double().numpy(), strict=True)
    assert values.shape == (3,)
    assert values.tolist() == pytest.approx([ORACLES[name](r, c) for r, c in images], abs=2e-5)


@pytest.mark.parametrize("side", [176, 175])
def test_five_scales_are_compared_where_there_is_room(side: int) -> None:
    restored, clean = pair(1, batch=1, channels=1, height=side, width=200)

    value = LOSSES["ms-ssim"](restored, clean)

    slow = slow_ms_ssim(restored[0].double().numpy(), clean[0].double().numpy())
    assert float(value) == pytest.approx(slow, abs=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_a_picture_costs_the_same_whatever_is_beside_it(name: str) -> None:
    restored, clean = pair(2, batch=5)

    together = LOSSES[name](restored, clean)

    alone = [float(LOSSES[name](restored[[i]], clean[[i]])) for i in range(5)]
    assert together.tolist() == pytest.approx(alone, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_in_two_pieces_has_the_gradient_of_the_whole(name: str) -> None:
    restored, clean = pair(3, batch=4)

    whole = grad(LOSSES[name], restored, clean)

    pieces = [grad(LOSSES[name], restored[i : i + 2], clean[i : i + 2]) / 2 for i in (0, 2)]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradient_is_that_of_the_definition(name: str, channels: int) -> None:
    """Along a random direction, by differences of the slow definition in float64."""
    restored, clean = pair(4, batch=1, channels=channels)
    direction = torch.randn(restored.shape, generator=torch.Generator().manual_seed(9))
    inside = restored.clamp(0.05, 0.95)  # mean luma's gradient is on purpose another one outside

    slope = float((grad(LOSSES[name], inside, clean) * direction).sum())

    step = 1e-6
    ends = [(inside.double() + sign * step * direction)[0].numpy() for sign in (1, -1)]
    target = clean[0].double().numpy()
    expected = (ORACLES[name](ends[0], target) - ORACLES[name](ends[1], target)) / (2 * step)
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("content", ["random", "black", "white", "gray"])
def test_equal_pictures_cost_least_and_have_a_finite_gradient(name: str, content: str) -> None:
    restored, clean = pair(5)
    if content != "random":
        clean = torch.full_like(clean, {"black": 0.0, "white": 1.0, "gray": 0.5}[content])

    least = LOSSES[name](clean, clean)
    slopes = grad(LOSSES[name], clean, clean)

    assert (least < LOSSES[name](restored, clean)).all()
    assert slopes.isfinite().all()
    assert slopes.abs().max() < 1e-4


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("content", [0.0, 0.5, 1.0, 30.0])
def test_a_constant_picture_has_a_finite_gradient(name: str, content: float) -> None:
    _, clean = pair(6)

    slopes = grad(LOSSES[name], torch.full_like(clean, content), clean)

    assert slopes.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [(11, 11), (16, 37), (48, 13)])
def test_the_gradient_reaches_every_pixel(name: str, size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(7)
    clean = 0.3 + 0.4 * torch.rand((2, 3, *size), generator=draw)
    restored = clean + 0.05 * torch.randn(clean.shape, generator=draw)

    slopes = grad(LOSSES[name], restored, clean)

    assert slopes.abs().min() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_small_pictures_do_down_to_a_side_that_is_named(name: str) -> None:
    least = LEAST_SIDES.get(name, 1)

    values = LOSSES[name](*pair(8, height=least, width=least + 1))

    assert values.isfinite().all()


@pytest.mark.parametrize("name", ["ssim", "ms-ssim"])
def test_a_picture_smaller_than_the_window_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="at least 11x11 px, but got 30x10"):
        LOSSES[name](*pair(9, height=10, width=30))


def test_a_negative_picture_is_led_back_by_every_scale() -> None:
    """Contrast and structure are below zero there, where a power has no value."""
    _, clean = pair(10, batch=1, height=64, width=64)

    value = LOSSES["ms-ssim"](1 - clean, clean)
    slopes = grad(LOSSES["ms-ssim"], 1 - clean, clean)

    towards_clean = clean - (1 - clean)
    assert 0.99 < float(value) < 1
    assert slopes.isfinite().all()
    assert float((slopes * towards_clean).sum()) < -1e-4


def test_charbonnier_follows_l1_down_to_a_grey_level() -> None:
    clean = torch.zeros(1, 1, 8, 8)
    off_by_one_level = clean + 1 / 255

    near = charbonnier(off_by_one_level, clean)

    assert float(near) == pytest.approx(float(l1(off_by_one_level, clean)), rel=0.05)


def test_huber_climbs_as_steeply_as_l1() -> None:
    clean = torch.zeros(1, 1, 8, 8)

    slopes = [grad(loss, clean + 0.1, clean) for loss in (huber, l1)]

    assert torch.equal(*slopes)


def test_overshoot_beyond_white_or_black_costs_no_psnr() -> None:
    clean = torch.tensor([0.0, 1.0, 0.5]).view(1, 1, 1, 3)

    value, perfect = psnr(clean + torch.tensor([-0.3, 0.3, 0.0]), clean), psnr(clean, clean)
    inward = psnr(clean + torch.tensor([0.3, 0.0, 0.0]), clean)

    assert torch.equal(value, perfect)
    assert float(inward) > float(perfect)


def test_blank_paper_does_not_drown_a_page_of_print() -> None:
    clean = torch.full((1, 1, 32, 32), 0.8)
    page = grad(psnr, clean - 15 / 255, clean).norm()

    blank = [grad(psnr, clean - level / 255, clean).norm() for level in (0.01, 0.1, 1, 2.55, 5)]

    assert max(blank) < 3.1 * page


def test_the_mean_luma_of_a_picture_is_the_contest_s_score_of_it() -> None:
    restored, clean = pair(11)

    value = 255 * mean_luma(restored, clean)

    score = METRICS["mae-mean-luma"].score
    images = [x.clamp(0, 1).permute(0, 2, 3, 1).numpy() for x in (restored, clean)]
    expected = [score(r, c) for r, c in zip(*images, strict=True)]
    assert value.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("target", "moves"),
    [
        (0.2, [0.0, -1.0, -1.0]),  # too bright: what is below black is left alone
        (0.9, [1.0, 1.0, 0.0]),  # too dark: what is above white is left alone
    ],
)
def test_mean_luma_leads_values_out_of_range_back_only(target: float, moves: list[float]) -> None:
    restored = torch.tensor([-0.4, 0.5, 1.4]).view(1, 1, 1, 3)

    slopes = grad(mean_luma, restored, torch.full_like(restored, target))

    assert (-3 * slopes).flatten().tolist() == pytest.approx(moves)
