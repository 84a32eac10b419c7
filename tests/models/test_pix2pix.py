"""Pix2Pix: the authors' counts and nested files, its value range, its reach, and PatchGAN."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.cost import count_parameters
from kbdenoise.models.detect import detect
from kbdenoise.models.patchgan import PatchGAN
from kbdenoise.models.pix2pix import ARCHITECTURE, Pix2Pix
from kbdenoise.models.weights import ModelCard, load_weights, save_weights
from kbdenoise.models.zoo import named_size

# Channels of the generator from outside to inside, at width 64.
UNET_256 = [3, 64, 128, 256, 512, 512, 512, 512, 512]


def parameters_by_hand(widths: list[int], *, norm: str) -> int:
    """4x4 kernels; under batch norm a gain and an offset where there is a norm, else offsets."""
    total = 0
    last = len(widths) - 2
    for i, (fine, coarse) in enumerate(pairwise(widths)):
        total += 16 * fine * coarse + 16 * (coarse if i == last else 2 * coarse) * fine
        if norm == "instance":
            total += coarse + fine
        else:
            total += 2 * coarse * (0 < i < last) + (2 * fine if i else fine)
    return total


@pytest.mark.parametrize(
    ("size", "norm", "parameters"),
    [
        ("unet-256", "batch", 54_413_955),
        ("unet-128", "batch", 41_828_995),
        ("unet-256", "instance", 54_409_603),
    ],
)
def test_it_has_as_many_parameters_as_counted_by_hand(
    size: str, norm: str, parameters: int
) -> None:
    widths = UNET_256 if size == "unet-256" else UNET_256[:-1]

    info = describe_model("pix2pix", channels=3, **named_size("pix2pix", size), norm=norm)

    assert info.parameters == parameters_by_hand(widths, norm=norm) == parameters


def test_it_costs_as_many_products_as_counted_by_hand() -> None:
    macs = 0
    for i, (fine, coarse) in enumerate(pairwise(UNET_256)):
        macs += (128 >> i) ** 2 * 16 * fine * coarse * (2 if i == 7 else 3)

    info = describe_model("pix2pix", channels=3, side=256)

    assert info.macs == macs
    assert info.macs / 1e9 == pytest.approx(6.05, rel=1e-3)
    assert info.multiple == 256


class Nested(nn.Module):
    """The authors' generator: every level holds the next, and is named by its place in it."""

    def __init__(self, widths: list[int], *, norm: str, level: int = 0) -> None:
        super().__init__()
        fine, coarse = widths[level : level + 2]
        self.outermost, innermost = level == 0, level == len(widths) - 2
        offset = norm == "instance"
        down = nn.Conv2d(fine, coarse, 4, 2, 1, bias=offset)
        inside = [] if innermost else [Nested(widths, norm=norm, level=level + 1)]
        up = nn.ConvTranspose2d(
            coarse if innermost else 2 * coarse, fine, 4, 2, 1, bias=offset or self.outermost
        )
        normed = nn.InstanceNorm2d if norm == "instance" else nn.BatchNorm2d
        if self.outermost:
            layers = [down, *inside, nn.ReLU(), up, nn.Tanh()]
        elif innermost:
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, normed(fine)]
        else:
            before = [nn.LeakyReLU(0.2), down, normed(coarse)]
            layers = [*before, *inside, nn.ReLU(), up, normed(fine)]
            if level >= 4:
                layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out = self.model(x)
        return out if self.outermost else torch.cat([x, out], dim=1)


class NestedGenerator(nn.Module):
    """Values in [-1, 1]."""

    def __init__(self, *, channels: int, width: int, levels: int, norm: str) -> None:
        super().__init__()
        widths = [channels, *(width * min(2**i, 8) for i in range(levels))]
        self.model = Nested(widths, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


WRAPPINGS = {
    "as published": "",
    "one prefix less": "-",
    "data-parallel": "module.",
    "lightning": "netG.model.",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("channels", "levels"), [(3, 2), (1, 3), (3, 6)])
@torch.no_grad()
def test_the_authors_nested_files_give_the_same_pictures(
    channels: int, levels: int, norm: str, wrapping: str, tmp_path: Path, randomised: Any
) -> None:
    options = {"width": 4, "levels": levels, "norm": norm}
    theirs = randomised(NestedGenerator(channels=channels, **options))
    prefix = WRAPPINGS[wrapping]
    state = {
        name.removeprefix("model.") if prefix == "-" else prefix + name: tensor
        for name, tensor in theirs.state_dict().items()
    }
    torch.save(state, tmp_path / "latest_net_G.pth")
    image = torch.rand(2, channels, 64, 128)

    loaded, card = load_weights(tmp_path / "latest_net_G.pth")

    expected = (theirs(2 * image - 1) + 1) / 2
    assert expected.std() > 0.01
    torch.testing.assert_close(loaded(image), expected, atol=1e-6, rtol=1e-5)
    assert card.model == "pix2pix"
    assert card.channels == channels
    assert card.hyperparameters == {**options, "dropout": True}


def test_the_published_names_of_the_deepest_levels_find_their_places() -> None:
    with torch.device("meta"):
        state = NestedGenerator(channels=3, width=64, levels=8, norm="batch").state_dict()
        ours = build_model("pix2pix", channels=3).state_dict()

    found = detect(state)[1]

    assert "model.model.1.model.3.model.3.model.3.model.3.model.3.model.3.model.4.bias" in state
    assert {name: tensor.shape for name, tensor in found.state.items()} == {
        name: tensor.shape for name, tensor in ours.items()
    }


def test_statistics_that_old_files_keep_of_instance_norm_are_left_out() -> None:
    model = Pix2Pix(width=4, levels=4, norm="instance")
    statistics = {
        f"{layer}.norm.{part}": torch.zeros(8)
        for layer in ("downs.1", "ups.0")
        for part in ("running_mean", "running_var")
    }

    found = detect(model.state_dict() | statistics)[1]

    assert found.state.keys() == model.state_dict().keys()
    assert found.hyperparameters["norm"] == "instance"


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("training", [True, False])
def test_values_stay_between_black_and_white(norm: Any, training: bool, randomised: Any) -> None:
    model = randomised(Pix2Pix(width=8, levels=3, norm=norm)).train(training)

    out = model(torch.rand(2, 3, 16, 24))

    assert 0 <= out.min() < 0.4
    assert 0.6 < out.max() <= 1


def error_after_learning_identity(model: nn.Module) -> tuple[float, float]:
    """Mean absolute error on smooth pictures that it never saw, before and after training."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1, 0.01, total_iters=150)
    coarse = torch.rand(8, 1, 4, 4), torch.rand(2, 1, 4, 6)
    images, fresh = (F.interpolate(c, scale_factor=4, mode="bilinear") for c in coarse)

    def error() -> float:
        with torch.no_grad():
            return float((model.eval()(fresh) - fresh).abs().mean())

    before = error()
    model.train()
    for _ in range(150):
        optimiser.zero_grad()
        F.mse_loss(model(images), images).backward()
        optimiser.step()
        schedule.step()
    return before, error()


def test_trained_on_identity_it_returns_the_image() -> None:
    torch.manual_seed(0)
    model = Pix2Pix(channels=1, width=8, levels=2)

    before, after = error_after_learning_identity(model)

    assert before > 0.1
    assert after < 0.04


def test_dropout_acts_in_training_only_and_can_be_left_out(randomised: Any) -> None:
    image = torch.rand(1, 3, 64, 64)
    with_dropout = randomised(Pix2Pix(width=4, levels=6, norm="instance"))
    without = randomised(Pix2Pix(width=4, levels=6, norm="instance", dropout=False))

    def differs(model: nn.Module) -> bool:
        return not torch.equal(model(image), model(image))

    assert torch.equal(with_dropout(image), without(image))
    assert not differs(with_dropout)
    assert differs(with_dropout.train())
    assert not differs(without.train())


@pytest.mark.parametrize(("levels", "dropped"), [(8, [1, 2, 3]), (7, [1, 2]), (5, []), (2, [])])
def test_dropout_is_where_the_authors_have_it(levels: int, dropped: list[int]) -> None:
    model = Pix2Pix(width=2, levels=levels)

    assert [i for i, up in enumerate(model.ups) if isinstance(up.dropout, nn.Dropout)] == dropped


def test_dropout_turned_off_is_remembered_by_its_file(tmp_path: Path) -> None:
    options = {"width": 2, "levels": 2, "dropout": False}
    card = ModelCard(model="pix2pix", channels=3, hyperparameters=options)
    save_weights(tmp_path / "m.safetensors", Pix2Pix(**options), card=card)

    _, found = load_weights(tmp_path / "m.safetensors")

    assert found.hyperparameters["dropout"] is False


def test_initial_weights_are_drawn_as_in_the_paper() -> None:
    torch.manual_seed(0)
    layers = [*Pix2Pix(width=16, levels=4).modules(), *PatchGAN(width=16).modules()]

    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.weight.mean().item() == pytest.approx(1, abs=0.02)
            assert not layer.bias.any()


def passing(model: nn.Module) -> nn.Module:
    """Positive weights that keep the values' size: nothing cancels and the tanh is not shut."""
    with torch.no_grad():
        for parameter in model.parameters():
            fan = 16 * parameter.shape[1] if parameter.ndim == 4 else 1
            parameter.copy_((0.5 + torch.rand_like(parameter)) / fan if fan > 1 else 0.1)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.fill_(1)
    return model.double().eval()


def reach(out: Tensor, image: Tensor, column: int) -> tuple[int, int]:
    """How far to the left and to the right of `column` the image moves that column of `out`."""
    (gradient,) = torch.autograd.grad(out[..., column].sum(), image, retain_graph=True)
    columns = gradient.abs().sum((0, 1, 2)).nonzero().flatten() - column
    return -int(columns.min()), int(columns.max())


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_the_declared_radius_is_exact_over_all_phases(levels: int) -> None:
    period = 2**levels
    image = torch.rand(1, 1, period, 8 * period, dtype=torch.float64, requires_grad=True)

    out = passing(Pix2Pix(channels=1, width=2, levels=levels))(image)
    reached = [reach(out, image, 4 * period + phase) for phase in range(period)]

    assert max(left for left, _ in reached) == max(right for _, right in reached)
    info = describe_model("pix2pix", channels=1, width=2, levels=levels)
    assert max(left for left, _ in reached) == info.receptive_field == 3 * (period - 1)


def test_the_radius_of_the_published_network_is_765_px() -> None:
    assert describe_model("pix2pix", channels=3).receptive_field == 765


def test_with_instance_norm_every_side_reaches_every_other() -> None:
    image = torch.rand(1, 1, 4, 128, dtype=torch.float64, requires_grad=True)
    model = passing(Pix2Pix(channels=1, width=4, levels=2, norm="instance"))

    left, right = reach(model(image), image, 60)

    assert (left, right) == (60, 67)
    assert describe_model("pix2pix", channels=1, norm="instance").receptive_field is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 1}, "levels of pix2pix is 1"),
        ({"width": 0}, "width of pix2pix is 0"),
        ({"norm": "none"}, "norm of pix2pix is 'none'"),
    ],
    ids=str,
)
def test_impossible_generators_are_refused_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Pix2Pix(**options)

    assert refused.value.message == message
    assert refused.value.hint


def test_tensors_that_contradict_each_other_are_refused_in_words() -> None:
    state = Pix2Pix(width=4, levels=2).state_dict()
    no_norm = {name: tensor for name, tensor in state.items() if ".norm." not in name}

    with pytest.raises(DataError, match=r"look like pix2pix.*there is no norm"):
        detect(no_norm)
    with pytest.raises(DataError, match=r"look like pix2pix.*3 channels go in and 1 come out"):
        detect(state | {"ups.1.conv.weight": torch.zeros(8, 1, 4, 4)})


def test_nested_tensors_that_are_cut_short_or_too_many_are_refused(tmp_path: Path) -> None:
    state = NestedGenerator(channels=3, width=4, levels=3, norm="batch").state_dict()
    torch.save(state | {"model.model.7.weight": torch.zeros(1)}, tmp_path / "more.pth")
    del state["model.model.1.model.3.model.3.weight"]
    torch.save(state, tmp_path / "less.pth")

    with pytest.raises(DataError, match=r"unknown: 7\.weight"):
        load_weights(tmp_path / "more.pth")
    with pytest.raises(DataError, match=r"missing: ups\.0\.conv\.weight"):
        load_weights(tmp_path / "less.pth")


def test_other_models_tensors_are_none_of_its_own() -> None:
    assert ARCHITECTURE.recognise({}) is None
    assert ARCHITECTURE.recognise({"model.": torch.zeros(1)}) is None
    assert ARCHITECTURE.recognise({"model.0.weight": torch.zeros(1)}) is None
    assert ARCHITECTURE.recognise(PatchGAN(width=2).state_dict()) is None


PATCH_GAN = {
    "model.0.weight": (64, 6, 4, 4),
    "model.0.bias": (64,),
    "model.2.weight": (128, 64, 4, 4),
    "model.5.weight": (256, 128, 4, 4),
    "model.8.weight": (512, 256, 4, 4),
    "model.11.weight": (1, 512, 4, 4),
    "model.11.bias": (1,),
}


def test_the_discriminators_names_and_shapes_are_the_authors() -> None:
    model = PatchGAN()
    statistics = ("weight", "bias", "running_mean", "running_var")
    norms = {
        f"model.{i}.{part}": (c,) for i, c in ((3, 128), (6, 256), (9, 512)) for part in statistics
    }

    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    counters = {name: () for name in found if name.endswith("num_batches_tracked")}
    assert found == PATCH_GAN | norms | counters
    assert count_parameters(model) == 2_768_705


def test_under_instance_norm_the_discriminators_convolutions_have_offsets() -> None:
    offsets = {f"model.{i}.bias": (c,) for i, c in ((2, 128), (5, 256), (8, 512))}

    state = PatchGAN(norm="instance").state_dict()

    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == PATCH_GAN | offsets


@torch.no_grad()
def test_the_discriminator_equals_its_description_written_out(randomised: Any) -> None:
    model = randomised(PatchGAN(width=4))
    p = model.state_dict()
    noisy, candidate = torch.rand(2, 2, 3, 64, 96)

    x = 2 * torch.cat([noisy, candidate], dim=1) - 1
    x = F.leaky_relu(F.conv2d(x, p["model.0.weight"], p["model.0.bias"], 2, 1), 0.2)
    for i, stride in ((2, 2), (5, 2), (8, 1)):
        x = F.conv2d(x, p[f"model.{i}.weight"], None, stride, 1)
        norm = [p[f"model.{i + 1}.{part}"] for part in ("running_mean", "running_var")]
        x = F.batch_norm(x, *norm, p[f"model.{i + 1}.weight"], p[f"model.{i + 1}.bias"])
        x = F.leaky_relu(x, 0.2)
    expected = F.conv2d(x, p["model.11.weight"], p["model.11.bias"], 1, 1)

    assert expected.shape == (2, 1, 6, 10)
    torch.testing.assert_close(model(noisy, candidate), expected)


@pytest.mark.parametrize(("layers", "patch", "side"), [(1, 16, 126), (2, 34, 62), (3, 70, 30)])
def test_every_logit_judges_a_patch_of_the_published_size(
    layers: int, patch: int, side: int
) -> None:
    model = passing(PatchGAN(channels=1, width=2, layers=layers))
    images = torch.rand(2, 1, 1, 256, 256, dtype=torch.float64, requires_grad=True)

    logits = model(*images)
    logits[0, 0, side // 2, side // 2].backward()

    assert logits.shape == (1, 1, side, side)
    for gradient in images.grad:
        seen = gradient[0, 0].nonzero()
        assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [patch, patch]
        assert len(seen) == patch**2


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_discriminator_learns_to_tell_clean_from_noisy(norm: Any) -> None:
    torch.manual_seed(0)
    model = PatchGAN(channels=1, width=8, norm=norm)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.5, 0.999))
    clean = torch.linspace(0, 1, 32).expand(4, 1, 32, 32)
    noisy = clean + 0.2 * torch.randn_like(clean)

    for _ in range(20):
        optimiser.zero_grad()
        gap = F.softplus(-model(noisy, clean)).mean() + F.softplus(model(noisy, noisy)).mean()
        gap.backward()
        optimiser.step()

    assert all(parameter.grad.any() for parameter in model.parameters())
    assert model(noisy, clean).mean() > 0.5
    assert model(noisy, noisy).mean() < -0.5


def test_the_smallest_picture_gives_a_single_logit() -> None:
    image = torch.rand(1, 3, 24, 24)

    assert PatchGAN(width=2).train()(image, image).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("noisy", "candidate", "message"),
    [
        ((1, 1, 32, 32), (1, 3, 32, 32), "PatchGAN was built for 3 channels"),
        ((1, 3, 32, 32), (3, 32, 32), "PatchGAN was built for 3 channels"),
        ((1, 3, 32, 32), (2, 3, 32, 32), "candidates of shape [2, 3, 32, 32]"),
        ((1, 3, 64, 23), (1, 3, 64, 23), "needs at least 24x24 px, but got 23x64"),
    ],
    ids=str,
)
def test_what_the_discriminator_cannot_judge_is_refused_in_words(
    noisy: tuple[int, ...], candidate: tuple[int, ...], message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        PatchGAN(width=2)(torch.rand(noisy), torch.rand(candidate))

    assert message in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize("options", [{"layers": 0}, {"width": 0}, {"norm": "none"}], ids=str)
def test_impossible_discriminators_are_refused_in_words(options: dict[str, Any]) -> None:
    option, value = next(iter(options.items()))

    with pytest.raises(SettingsError, match=f"{option} of PatchGAN is {value!r}"):
        PatchGAN(**options)
