from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.training.perceptual import PerceptualLoss, read_perceptual

State = dict[str, Tensor]

# torchvision's numbers of the convolutions, their widths, and what is compared, written out.
CONVOLUTIONS = {
    16: [0, 2, 5, 7, 10, 12, 14, 17, 19, 21],
    19: [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23],
}
WIDTHS = {
    16: [64, 64, 128, 128, 256, 256, 256, 512, 512, 512],
    19: [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512],
}
POOLINGS = {16: (5, 10, 17), 19: (5, 10, 19)}
COMPARED = {16: (2, 7, 14, 21), 19: (2, 7, 14, 23)}


@pytest.fixture(scope="module")
def states() -> dict[int, State]:
    """Random weights of both depths, in torchvision's names, with some of what is not used."""
    draw = torch.Generator().manual_seed(0)
    states: dict[int, State] = {}
    for depth, numbers in CONVOLUTIONS.items():
        inputs, state = 3, {}
        for number, width in zip(numbers, WIDTHS[depth], strict=True):
            scale = (2 / (9 * inputs)) ** 0.5
            weight = scale * torch.randn((width, inputs, 3, 3), generator=draw)
            state[f"features.{number}.weight"] = weight
            state[f"features.{number}.bias"] = 0.1 * torch.randn(width, generator=draw)
            inputs = width
        state["classifier.6.bias"] = torch.zeros(1000)
        states[depth] = state
    return states


def slow_features(image: np.ndarray, state: State, depth: int) -> list[np.ndarray]:
    """Of one image [3, H, W], in float64, tap by tap."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 3, 1, 1)
    image, found = (image - mean) / std, []
    for number in CONVOLUTIONS[depth]:
        weight = state[f"features.{number}.weight"].double().numpy()
        bias = state[f"features.{number}.bias"].double().numpy()
        height, width = image.shape[1:]
        if number in POOLINGS[depth]:
            height, width = height // 2, width // 2
            corners = image[:, : 2 * height, : 2 * width].reshape(-1, height, 2, width, 2)
            image = corners.max(axis=(2, 4))
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        image = bias[:, None, None] + sum(
            np.tensordot(weight[:, :, y, x], padded[:, y : y + height, x : x + width], axes=1)
            for y in range(3)
            for x in range(3)
        )
        image = np.maximum(image, 0)
        if number in COMPARED[depth]:
            found.append(image)
    return found


def slow_loss(restored: np.ndarray, clean: np.ndarray, state: State, depth: int) -> float:
    sides = [
        slow_features(np.broadcast_to(x, (3, *x.shape[1:])), state, depth)
        for x in (restored, clean)
    ]
    return sum(float(abs(a - b).mean()) for a, b in zip(*sides, strict=True))


def images(*, batch: int = 2, channels: int = 3, height: int = 9, width: int = 14) -> Tensor:
    draw = torch.Generator().manual_seed(height)
    return torch.rand((2, batch, channels, height, width), generator=draw)


def save_pth(state: State, path: Path) -> None:
    torch.save(state, path)


def save_wrapped(state: State, path: Path) -> None:
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.parametrize(
    ("save", "name"),
    [(save_pth, "vgg.pth"), (save_wrapped, "vgg.pth"), (safetensors.torch.save_file, "vgg.st")],
)
def test_a_file_tells_its_depth_and_gives_the_distances_of_its_features(
    states: dict[int, State],
    tmp_path: Path,
    depth: int,
    save: Callable[[State, Path], None],
    name: str,
) -> None:
    save(states[depth], tmp_path / name)
    restored, clean = images()

    values = read_perceptual(str(tmp_path / name))(restored, clean)

    pairs = zip(restored.double().numpy(), clean.double().numpy(), strict=True)
    expected = [slow_loss(r, c, states[depth], depth) for r, c in pairs]
    assert values.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (9, 13)])
def test_gray_pictures_are_seen_as_three_equal_colours(
    states: dict[int, State], size: tuple[int, int]
) -> None:
    restored, clean = images(channels=1, height=size[0], width=size[1])

    values = PerceptualLoss(states[16], depth=16)(restored, clean)

    pairs = zip(restored.double().numpy(), clean.double().numpy(), strict=True)
    expected = [slow_loss(r, c, states[16], 16) for r, c in pairs]
    assert values.tolist() == pytest.approx(expected, rel=1e-4)


def test_the_gradient_reaches_every_pixel_of_the_restored_and_nothing_else(
    states: dict[int, State],
) -> None:
    loss = PerceptualLoss(states[16], depth=16)
    restored, clean = (x.requires_grad_() for x in images().clone().unbind())

    loss(restored, clean).mean().backward()

    assert restored.grad is not None
    assert restored.grad.abs().amin() > 0
    assert clean.grad is None
    assert not any(p.requires_grad for p in loss.parameters())


def test_equal_pictures_cost_nothing_and_have_a_finite_gradient(states: dict[int, State]) -> None:
    restored, _ = images()
    restored.requires_grad_()

    values = PerceptualLoss(states[19], depth=19)(restored, restored.detach().clone())
    values.mean().backward()

    assert values.tolist() == [0, 0]
    assert restored.grad is not None
    assert not restored.grad.any()


def test_half_precision_weights_are_computed_in_float32(
    states: dict[int, State], tmp_path: Path
) -> None:
    halved = {name: tensor.half() for name, tensor in states[16].items()}
    torch.save(halved, tmp_path / "vgg.pth")

    loss = read_perceptual(str(tmp_path / "vgg.pth"))

    assert {p.dtype for p in loss.parameters()} == {torch.float32}


def test_weights_do_not_hang_on_their_file(states: dict[int, State], tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(states[16], path)
    loss, pictures = read_perceptual(str(path)), images()
    before = loss(*pictures)

    path.write_bytes(bytes(path.stat().st_size))

    assert torch.equal(loss(*pictures), before)


def test_reading_weights_draws_no_random_numbers(states: dict[int, State]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()

    PerceptualLoss(states[16], depth=16)

    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_file_the_option_and_where_to_get_one_are_named() -> None:
    with pytest.raises(SettingsError, match="--loss perceptual") as caught:
        read_perceptual("")

    assert "--perceptual-weights FILE" in caught.value.hint
    assert "vgg16-397923af.pth" in caught.value.hint


def without(name: str) -> Callable[[State], object]:
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def with_tensor(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[State], object]:
    return lambda state: state | {name: make(state[name])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("features.21.bias"), "as VGG-16 it has no features.21.bias"),
        (lambda state: {"conv.weight": torch.zeros(3)}, "it has no features.0.weight"),
        (
            with_tensor("features.7.weight", lambda t: t[:100]),
            "features.7.weight of shape [100, 128, 3, 3] instead of [128, 128, 3, 3]",
        ),
        (with_tensor("features.2.bias", lambda t: t * float("nan")), "NaN in features.2.bias"),
        (with_tensor("features.0.bias", Tensor.int), "whole numbers in features.0.bias"),
        (lambda state: {f"features.{i}.weight": torch.ones(64) for i in (0, 1, 3, 4)}, "batch-"),
    ],
)
def test_a_file_of_something_else_is_refused_with_what_is_wrong(
    states: dict[int, State],
    tmp_path: Path,
    change: Callable[[State], object],
    words: str,
) -> None:
    torch.save(change(states[16]), tmp_path / "vgg.pth")

    with pytest.raises(DataError) as caught:
        read_perceptual(str(tmp_path / "vgg.pth"))

    assert caught.value.message.startswith(f"--perceptual-weights {tmp_path / 'vgg.pth'} does not")
    assert words in caught.value.message
    assert "torchvision" in caught.value.hint


def test_a_vgg_19_that_lacks_something_is_called_so(
    states: dict[int, State], tmp_path: Path
) -> None:
    torch.save(without("features.23.bias")(states[19]), tmp_path / "vgg.pth")

    with pytest.raises(DataError, match=r"as VGG-19 it has no features\.23\.bias"):
        read_perceptual(str(tmp_path / "vgg.pth"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no weights file"),
        (b"", "is empty"),
        (b"<html>", "is a web page"),
        (b"PK\x03\x04 cut", "is not a readable weights file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_option(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "vgg.pth"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match="--perceptual-weights: ") as caught:
        read_perceptual(str(path))

    assert words in caught.value.message
    assert str(path) in caught.value.message
