"""DnCNN: published counts, every published scheme of names, and merging of batch norm."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kbdenoise.errors import SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.dncnn import ARCHITECTURE, DnCNN, merge_batch_norm

Randomise = Callable[[nn.Module], nn.Module]


@pytest.mark.parametrize(
    ("channels", "depth", "parameters", "gmacs"),
    [(1, 17, 557_057, 36.3), (1, 20, 668_225, 43.56), (3, 20, 670_531, 43.71)],
)
def test_it_costs_what_is_published(
    channels: int, depth: int, parameters: int, gmacs: float
) -> None:
    info = describe_model("dncnn", channels=channels, depth=depth, side=256)

    assert info.parameters == parameters
    assert info.macs / 1e9 == pytest.approx(gmacs, rel=1e-3)
    assert info.receptive_field == depth


def port(*, channels: int, first_bias: bool, eps: float, depth: int = 5) -> nn.Sequential:
    """The stack of the two PyTorch ports: offsets in batch norm, at most one more at the start."""
    width = 6
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=first_bias)]
    for _ in range(depth - 2):
        layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)]
        layers.append(nn.BatchNorm2d(width, eps=eps))
    last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
    return nn.Sequential(*layers, nn.ReLU(), last)


def named(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def rebuilt(state: dict[str, Tensor]) -> tuple[nn.Module, dict[str, Any]]:
    found = ARCHITECTURE.recognise(state)
    assert found is not None
    model = build_model("dncnn", channels=found.channels, **found.hyperparameters)
    model.load_state_dict(found.state)
    return model.eval(), found.hyperparameters


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("first_bias", "eps"), [(True, 1e-4), (False, 1e-5)])
def test_weights_of_the_two_ports_give_their_outputs(
    channels: int, first_bias: bool, eps: float, randomised: Randomise
) -> None:
    theirs = randomised(port(channels=channels, first_bias=first_bias, eps=eps))
    image = torch.rand(2, channels, 9, 14)

    ours, hyperparameters = rebuilt(named(theirs, "dncnn."))

    assert hyperparameters == {"depth": 5, "width": 6, "norm": "batch", "norm_eps": eps}
    torch.testing.assert_close(ours(image), image - theirs(image), atol=1e-6, rtol=1e-5)


def test_a_port_with_an_offset_everywhere_has_the_default_of_torch(randomised: Randomise) -> None:
    state = randomised(DnCNN(depth=4, width=6)).state_dict()

    _, hyperparameters = rebuilt({"dncnn" + name[5:]: t for name, t in state.items()})

    assert hyperparameters["norm_eps"] == 1e-5


def test_a_port_without_batch_norm_is_read_too(randomised: Randomise) -> None:
    theirs = randomised(
        nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(6, 1, 3, padding=1, bias=False),
        )
    )
    image = torch.rand(1, 1, 6, 5)

    ours, hyperparameters = rebuilt(named(theirs, "dncnn."))

    assert hyperparameters == {"depth": 2, "width": 6, "norm": "none", "norm_eps": 1e-4}
    torch.testing.assert_close(ours(image), image - theirs(image))


def test_files_older_than_the_counter_of_batches_are_read(randomised: Randomise) -> None:
    theirs = randomised(port(channels=1, first_bias=False, eps=1e-5))
    state = {n: t for n, t in named(theirs, "dncnn.").items() if "num_batches" not in n}
    image = torch.rand(1, 1, 6, 5)

    ours, _ = rebuilt(state)

    torch.testing.assert_close(ours(image), image - theirs(image), atol=1e-6, rtol=1e-5)


def test_names_of_a_parallel_run_are_read_too() -> None:
    state = named(port(channels=1, first_bias=False, eps=1e-5), "module.dncnn.")

    name, found = detect(state)

    assert name == "dncnn"
    assert set(found.state) == set(DnCNN(channels=1, depth=5, width=6).state_dict())


def test_recognising_leaves_the_given_tensors_alone() -> None:
    state = named(port(channels=1, first_bias=False, eps=1e-5), "dncnn.")
    names = list(state)

    ARCHITECTURE.recognise(state)

    assert list(state) == names


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (2, 1, "2 channels go in and 1 come out; FDnCNN has a noise map among them"),
        (4, 3, "4 channels go in and 3 come out; FDnCNN has a noise map among them"),
        (13, 12, "13 channels go in and 12 come out; FFDNet has a noise map among them"),
        (3, 1, "3 channels go in and 1 come out$"),
    ],
)
@pytest.mark.parametrize("stack", ["model.", "dncnn."])
def test_siblings_that_take_a_noise_map_are_refused_in_words(
    stack: str, inputs: int, outputs: int, words: str
) -> None:
    siblings = nn.Sequential(nn.Conv2d(inputs, 6, 3), nn.ReLU(), nn.Conv2d(6, outputs, 3))

    with pytest.raises(ValueError, match=words):
        ARCHITECTURE.recognise(named(siblings, stack))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"model.0.weight": torch.zeros(())},
        {"model.0.weight": torch.zeros(6), "model.2.weight": torch.zeros(6)},
        {"model.0.weight": torch.zeros(6, 3), "model.2.weight": torch.zeros(3, 6)},
        {"model.0.weight": torch.zeros(6, 3, 1, 1), "model.2.weight": torch.zeros(3, 6, 1, 1)},
        {
            "model.0.weight": torch.zeros(6, 3, 3, 3),
            "model.1.sub.0.res.0.weight": torch.zeros(6, 6, 3, 3),
            "model.2.weight": torch.zeros(24, 6, 3, 3),
        },
        {"dncnn.weight": torch.zeros(6, 3, 3, 3), "dncnn.0": torch.zeros(1)},
    ],
    ids=["empty", "scalar", "vectors", "linear", "1x1", "nested", "odd"],
)
def test_tensors_of_other_networks_are_left_to_others(state: dict[str, Tensor]) -> None:
    assert ARCHITECTURE.recognise(state) is None


def test_tensors_beside_the_stack_are_not_dropped() -> None:
    state = DnCNN(depth=3, width=4, norm="none").state_dict() | {"fc.weight": torch.zeros(2, 2)}

    found = ARCHITECTURE.recognise(state)

    assert found is not None
    assert "fc.weight" in found.state


@pytest.mark.parametrize(("channels", "depth", "norm_eps"), [(1, 17, 1e-4), (3, 5, 0.3)])
def test_merged_batch_norm_gives_the_same_output(
    channels: int, depth: int, norm_eps: float, randomised: Randomise
) -> None:
    model = DnCNN(channels=channels, depth=depth, width=16, norm_eps=norm_eps)
    randomised(model).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    image = torch.rand(2, channels, 11, 7)

    merged = merge_batch_norm(model)

    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    plain = DnCNN(channels=channels, depth=depth, width=16, norm="none")
    plain.load_state_dict(merged.state_dict())
    expected = model.eval()(image)
    assert (expected - image).abs().max() > 0.1
    assert (merged(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert torch.equal(plain(image), merged(image))


def test_merging_where_there_is_no_batch_norm_copies(randomised: Randomise) -> None:
    model = randomised(DnCNN(depth=4, width=6, norm="none"))
    image = torch.rand(1, 3, 5, 5)

    merged = merge_batch_norm(model)

    assert merged is not model
    assert torch.equal(merged(image), model(image))


@pytest.mark.parametrize("norm_eps", [0.0, -1e-4])
def test_batch_norm_needs_a_positive_eps(norm_eps: float) -> None:
    with pytest.raises(SettingsError, match="norm_eps of dncnn is") as refused:
        DnCNN(norm_eps=norm_eps)

    assert "0.0001" in refused.value.hint
