"""Weights go to disk and come back; foreign files are recognised or refused in words."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.detect import detect
from kbdenoise.models.weights import ModelCard, load_weights, read_state_dict, save_weights
from kbdenoise.models.zoo import build_model, complete_hyperparameters

TINY: list[tuple[str, int, dict[str, Any]]] = [
    ("kbnet-s", 3, {"width": w, "encoder_blocks": (1,), "middle_blocks": m, "decoder_blocks": (1,)})
    for w, m in ((8, 1), (16, 0), (32, 1), (64, 1))
]
TINY += [
    (
        "kbnet-s",
        1,
        {
            "width": 8,
            "encoder_blocks": (1, 0, 2),
            "middle_blocks": 0,
            "decoder_blocks": (0, 1, 1),
            "lightweight": True,
            "ffn_scale": 1.26,
            "nset": 7,
            "group_channels": 2,
            "kernel": 5,
        },
    ),
    ("kbnet-s", 3, {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (0,), "kernel": 1}),
    (
        "kbnet-s",
        3,
        {"width": 12, "encoder_blocks": (1,), "decoder_blocks": (0,), "middle_blocks": 0},
    ),
    ("dncnn", 3, {"depth": 5, "width": 6}),
    ("dncnn", 1, {"depth": 4, "width": 6, "norm": "none"}),
    ("dncnn", 1, {"depth": 2, "width": 6, "norm": "none"}),
    ("unet", 3, {"width": 4, "levels": 1, "convs": 1}),
    ("unet", 1, {"width": 4, "levels": 2, "convs": 3, "skip": "add"}),
    ("res-unet", 1, {"width": 4, "widest": 8, "encoder_blocks": (1, 0), "decoder_blocks": (0, 2)}),
    (
        "res-unet",
        3,
        {"width": 4, "widest": 6, "encoder_blocks": (1,), "decoder_blocks": (1,), "fold": 4},
    ),
]
each_tiny_model = pytest.mark.parametrize(("name", "channels", "options"), TINY, ids=str)


def tiny(name: str, channels: int, options: dict[str, Any]) -> nn.Module:
    """With randomised weights and running statistics: fresh ones would hide a lost tensor."""
    model = build_model(name, channels=channels, **options)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name_, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator) * 0.2
                tensor.copy_(drawn.abs() + 0.5 if name_.endswith("running_var") else drawn)
    return model.eval()


@pytest.fixture
def dncnn() -> nn.Module:
    return tiny("dncnn", 1, {"depth": 3, "width": 4})


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(model="dncnn", channels=1, hyperparameters={"depth": 3, "width": 4})


@each_tiny_model
def test_a_saved_model_comes_back_equal(
    name: str, channels: int, options: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny(name, channels, options)
    card = ModelCard(
        model=name,
        channels=channels,
        hyperparameters=options,
        metadata={"psnr": 31.5, "seeds": [1]},
    )
    image = torch.rand(1, channels, 16, 8)

    save_weights(tmp_path / "m.safetensors", model, card=card)
    loaded, found = load_weights(tmp_path / "m.safetensors")

    assert torch.equal(loaded(image), model(image))
    assert not loaded.training
    assert found.model == name
    assert found.channels == channels
    assert found.hyperparameters == complete_hyperparameters(name, **options)
    assert found.metadata == {"psnr": 31.5, "seeds": [1]}
    assert found.package_version == card.package_version
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@each_tiny_model
def test_a_model_is_recognised_by_its_tensors(
    name: str, channels: int, options: dict[str, Any], tmp_path: Path
) -> None:
    model = tiny(name, channels, options)
    torch.save({"params": model.state_dict()}, tmp_path / "official.pth")
    image = torch.rand(1, channels, 16, 8)

    loaded, card = load_weights(tmp_path / "official.pth")

    complete = complete_hyperparameters(name, **options)
    assert torch.equal(loaded(image), model(image))
    assert detect(model.state_dict())[:2] == (name, channels)
    scale = card.hyperparameters.get("ffn_scale", 0)
    assert dict(card.hyperparameters) == complete | ({"ffn_scale": scale} if scale else {})
    assert card.metadata == {"source": "official.pth"}


def test_equal_weights_give_equal_files(dncnn: nn.Module, card: ModelCard, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(tmp_path / name, dncnn, card=card)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_card_can_be_read_without_kbdenoise(
    dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(path, dncnn, card=card)

    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])

    written = json.loads(header["__metadata__"]["kbdenoise"])
    assert written["model"] == "dncnn"
    assert written["hyperparameters"] == {"depth": 3, "width": 4, "norm": "batch"}
    assert written["domain"] == [0.0, 1.0]


def test_a_card_of_no_model_is_refused_before_writing(dncnn: nn.Module, tmp_path: Path) -> None:
    card = ModelCard(model="dncnn", channels=1, hyperparameters={"dept": 3})

    with pytest.raises(SettingsError, match="'dept'"):
        save_weights(tmp_path / "m.safetensors", dncnn, card=card)

    assert not list(tmp_path.iterdir())


WRAPPINGS = {
    "bare": lambda s: s,
    "basicsr": lambda s: {"params": {"x": torch.zeros(1)}, "params_ema": s},
    "data-parallel": lambda s: {"net": {f"module.{k}": v for k, v in s.items()}},
    "sidd": lambda s: {"model": OrderedDict(s), "optimizer": {"state": {}}, "epoch": 3},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 1},
    "compiled": lambda s: {"_orig_mod.module." + k: v for k, v in s.items()},
    "nested": lambda s: {"state_dict": {"params": s}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_and_prefixes_of_training_codes_are_peeled(
    wrapping: str, legacy: bool, dncnn: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(
        WRAPPINGS[wrapping](dncnn.state_dict()), path, _use_new_zipfile_serialization=not legacy
    )

    state = read_state_dict(path)

    assert list(state) == list(dncnn.state_dict())


def test_foreign_safetensors_need_no_card(dncnn: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(dncnn.state_dict(), tmp_path / "no-suffix")

    loaded, card = load_weights(tmp_path / "no-suffix")

    image = torch.rand(1, 1, 5, 6)
    assert torch.equal(loaded(image), dncnn(image))
    assert card.hyperparameters == {"depth": 3, "width": 4, "norm": "batch"}


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as refused:
        load_weights(path)
    assert refused.value.hint
    assert path.name in refused.value.message
    return refused.value


def test_a_pickled_module_is_refused_and_says_how_to_convert(
    dncnn: nn.Module, tmp_path: Path
) -> None:
    torch.save(dncnn, tmp_path / "whole.pth")

    error = refusal(tmp_path / "whole.pth")

    assert "kbdenoise.models.dncnn.DnCNN" in error.message
    assert "would run code" in error.message
    assert "torch.save(model.state_dict()" in error.hint


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_no_pickled_code_is_run(tmp_path: Path) -> None:
    torch.save({"params": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")

    refusal(tmp_path / "trap.pth")

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a readable weights file"),
        (b"hello, I am no weights", "not a readable weights file"),
        (b"PK\x03\x04 cut short", "not a readable weights file"),
        (b"\x80\x02}q", "not a readable weights file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "not a readable safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "holds no table of named tensors"),
    ],
)
def test_broken_files_are_refused_in_words(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)

    assert words in refusal(path).message


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_cut_short_are_refused_in_words(
    suffix: str, dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    path = tmp_path / f"short.{suffix}"
    if suffix == "pth":
        torch.save(dncnn.state_dict(), path)
    else:
        save_weights(path, dncnn, card=card)
    path.write_bytes(path.read_bytes()[:-300])

    assert "not a readable" in refusal(path).message


@pytest.mark.parametrize("content", [[1, 2], {}, {"params": 3}, {1: torch.zeros(1)}, torch.ones(2)])
def test_files_without_named_tensors_are_refused_in_words(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")

    assert "no table of named tensors" in refusal(tmp_path / "odd.pth").message


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    assert "no weights file" in refusal(tmp_path / "nowhere.pth").message


def test_unknown_weights_are_refused_with_their_first_names(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(1)}, tmp_path / "other.pth")

    error = refusal(tmp_path / "other.pth")

    assert "conv_first.weight" in error.message
    assert "kbnet-s" in error.hint


@pytest.mark.parametrize(
    ("drop", "words"),
    [("attgamma", "no block holds kernel-basis attention"), (".w", "encoders.0.0.w")],
)
def test_a_relative_of_kbnet_s_is_not_taken_for_it(drop: str, words: str, tmp_path: Path) -> None:
    state = tiny(*TINY[0]).state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith(drop)}, tmp_path / "naf.pth")

    assert words in refusal(tmp_path / "naf.pth").message


def test_a_network_fed_with_a_noise_map_is_not_taken_for_dncnn(tmp_path: Path) -> None:
    state = tiny("dncnn", 1, {"depth": 3, "width": 4, "norm": "none"}).state_dict()
    state["model.0.weight"] = torch.zeros(4, 2, 3, 3)
    torch.save(state, tmp_path / "fdncnn.pth")

    assert "2 channels go in and 1 come out" in refusal(tmp_path / "fdncnn.pth").message


def written_with(card_changes: dict[str, Any], model: nn.Module, path: Path) -> Path:
    content = {
        "model": "dncnn",
        "channels": 1,
        "hyperparameters": {"depth": 3, "width": 4},
        "domain": [0, 1],
        "package_version": "9.9",
        "metadata": {},
    } | card_changes
    safetensors.torch.save_file(model.state_dict(), path, {"kbdenoise": json.dumps(content)})
    return path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "magic"}, "there is no model called 'magic'"),
        ({"model": ["dncnn"]}, "cannot be built"),
        ({"hyperparameters": {"depth": "3"}}, "depth of dncnn is '3'"),
        ({"hyperparameters": 7}, "cannot be built"),
        ({"hyperparameters": {"depth": 4, "width": 4}}, "does not fit its model"),
        ({"hyperparameters": {"depth": 3, "width": 8}}, "does not fit its model"),
        ({"domain": [-1, 1]}, "values in [-1, 1]"),
        ({"domain": 5}, "card that cannot be read"),
        ({"surprise": 1}, "card that cannot be read"),
    ],
    ids=str,
)
def test_a_wrong_card_is_refused_in_words(
    changes: dict[str, Any], words: str, dncnn: nn.Module, tmp_path: Path
) -> None:
    path = written_with(changes, dncnn, tmp_path / "m.safetensors")

    assert words in refusal(path).message


def test_weights_that_are_not_numbers_are_refused(
    dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    with torch.no_grad():
        dncnn.model[2].weight[0, 0, 0, 0] = float("nan")
    save_weights(tmp_path / "nan.safetensors", dncnn, card=card)

    error = refusal(tmp_path / "nan.safetensors")

    assert "model.2.weight" in error.message
