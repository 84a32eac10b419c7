"""Weights go to disk and come back; foreign files are recognised or refused in words."""

import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, complete_hyperparameters
from kbdenoise.models.checkpoints import is_safetensors, read_state_dict
from kbdenoise.models.weights import ModelCard, load_weights, read_card, save_weights


@pytest.fixture
def dncnn(randomised: Any) -> nn.Module:
    return randomised(build_model("dncnn", channels=1, depth=3, width=4))


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(model="dncnn", channels=1, hyperparameters={"depth": 3, "width": 4})


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
    assert written["hyperparameters"] == complete_hyperparameters("dncnn", depth=3, width=4)
    assert written["domain"] == [0.0, 1.0]


def test_a_card_of_no_model_is_refused_before_writing(dncnn: nn.Module, tmp_path: Path) -> None:
    card = ModelCard(model="dncnn", channels=1, hyperparameters={"dept": 3})

    with pytest.raises(SettingsError, match="'dept'"):
        save_weights(tmp_path / "m.safetensors", dncnn, card=card)

    assert not list(tmp_path.iterdir())


WRAPPINGS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bare": lambda s: s,
    "basicsr": lambda s: {"params": {"x": torch.zeros(1)}, "params_ema": s},
    "basicsr-without-ema": lambda s: {"params": s},
    "data-parallel": lambda s: {"net": {f"module.{k}": v for k, v in s.items()}},
    "sidd": lambda s: {"model": OrderedDict(s), "optimizer": {"state": {}}, "epoch": 3},
    "lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}, "epoch": 1},
    "gan": lambda s: {f"netG.{k}": v for k, v in s.items()} | {"netD.a.weight": torch.zeros(2)},
    "compiled": lambda s: {"_orig_mod.module." + k: v for k, v in s.items()},
    "lightning-compiled": lambda s: {"state_dict": {"net._orig_mod." + k: v for k, v in s.items()}},
    "nested": lambda s: {"state_dict": {"params": s}},
    "unheard-of": lambda s: {"my_weights": s},
    "beside-others": lambda s: {"epoch": 3, "iter": 40, "best": 31.2, **s},
    "empty-ema": lambda s: {"params_ema": {}, "model_state_dict": s, "optimizer": {}},
    "parameters": lambda s: {k: nn.Parameter(v) if v.ndim else v for k, v in s.items()},
}
# Models whose own names begin like a prefix that training codes add, and one of other names.
NAMED = [
    ("dncnn", 1, {"depth": 3, "width": 4}),
    ("pix2pix", 3, {"width": 4, "levels": 3}),
    ("unet", 3, {"width": 4, "levels": 1}),
]


@pytest.mark.parametrize(("name", "channels", "options"), NAMED, ids=str)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("legacy", [False, True])
def test_wrappers_and_prefixes_of_training_codes_are_peeled(
    wrapping: str,
    legacy: bool,
    name: str,
    channels: int,
    options: dict[str, Any],
    tmp_path: Path,
    randomised: Any,
) -> None:
    model = randomised(build_model(name, channels=channels, **options))
    path = tmp_path / "w.pth"
    torch.save(
        WRAPPINGS[wrapping](model.state_dict()), path, _use_new_zipfile_serialization=not legacy
    )

    loaded, card = load_weights(path)

    assert (card.model, card.channels) == (name, channels)
    assert_equal_states(loaded, model)


def assert_equal_states(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name


def test_foreign_safetensors_need_no_card(dncnn: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(dncnn.state_dict(), tmp_path / "no-suffix")

    loaded, card = load_weights(tmp_path / "no-suffix")

    image = torch.rand(1, 1, 5, 6)
    assert torch.equal(loaded(image), dncnn(image))
    assert card.hyperparameters == complete_hyperparameters("dncnn", depth=3, width=4)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str
)
def test_weights_of_any_precision_are_loaded_in_single(
    dtype: torch.dtype, dncnn: nn.Module, tmp_path: Path
) -> None:
    state = {k: v.to(dtype) if v.ndim else v for k, v in dncnn.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")

    loaded, _ = load_weights(tmp_path / "w.pth")

    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype))
        assert tensor.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_with_strides_and_in_common_storage_get_memory_of_their_own(
    legacy: bool, dncnn: nn.Module, tmp_path: Path
) -> None:
    turned = {k: v.mT.contiguous().mT if v.ndim == 4 else v for k, v in dncnn.state_dict().items()}
    turned["model.3.bias"] = turned["model.2.bias"]
    torch.save(turned, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)

    loaded, _ = load_weights(tmp_path / "w.pth")
    (tmp_path / "w.pth").write_bytes(b"")  # what is read must not depend on the file any more

    tensors = loaded.state_dict()
    assert all(t.is_contiguous() for t in tensors.values())
    assert len({t.data_ptr() for t in tensors.values()}) == len(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, turned[name])


def test_a_loaded_model_can_be_trained_on(
    dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    save_weights(tmp_path / "m.safetensors", dncnn, card=card)

    loaded, _ = load_weights(tmp_path / "m.safetensors")
    loaded.train()(torch.rand(2, 1, 8, 8)).square().mean().backward()

    assert all(p.requires_grad and p.grad is not None for p in loaded.parameters())


def test_loading_draws_no_random_numbers(dncnn: nn.Module, card: ModelCard, tmp_path: Path) -> None:
    save_weights(tmp_path / "m.safetensors", dncnn, card=card)
    before = torch.get_rng_state()

    load_weights(tmp_path / "m.safetensors")

    assert torch.equal(torch.get_rng_state(), before)


def test_batch_counters_that_old_files_lack_are_not_missed(
    dncnn: nn.Module, tmp_path: Path
) -> None:
    state = {k: v for k, v in dncnn.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")

    loaded, _ = load_weights(tmp_path / "old.pth")

    assert_equal_states(loaded, dncnn)


def test_what_tensors_cannot_tell_may_be_told(tmp_path: Path) -> None:
    model = build_model("nafnet", channels=3, width=4, middle_blocks=1)
    torch.save(model.state_dict(), tmp_path / "w.pth")

    loaded, card = load_weights(tmp_path / "w.pth", pool_window=64)

    expected = complete_hyperparameters("nafnet", width=4, middle_blocks=1, pool_window=64)
    assert card.hyperparameters == expected
    told = build_model("nafnet", channels=3, width=4, middle_blocks=1, pool_window=64)
    assert str(loaded) == str(told)
    assert_equal_states(loaded, model)


@pytest.mark.parametrize("carded", [False, True])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"depth": 4}, "depth=4 does not suit .*m.safetensors.* dncnn with depth=3"),
        ({"norm": "none"}, "norm=none does not suit .* with norm=batch"),
        ({"width": 0}, "width=0 does not suit .* width=4 .width of dncnn is 0"),
        ({"dept": 4}, "no hyper-parameter 'dept'"),
        ({"depth": "four"}, "depth of dncnn is 'four'"),
    ],
    ids=str,
)
def test_what_tensors_tell_cannot_be_told_otherwise(
    carded: bool,
    overrides: dict[str, Any],
    words: str,
    dncnn: nn.Module,
    card: ModelCard,
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.safetensors"
    if carded:
        save_weights(path, dncnn, card=card)
    else:
        safetensors.torch.save_file(dncnn.state_dict(), path)

    with pytest.raises(SettingsError, match=words) as refused:
        load_weights(path, **overrides)

    assert refused.value.hint


def test_an_override_that_says_what_the_file_says_is_no_contradiction(
    dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    save_weights(tmp_path / "m.safetensors", dncnn, card=card)

    loaded, found = load_weights(tmp_path / "m.safetensors", depth=3, norm="batch")

    assert_equal_states(loaded, dncnn)
    assert found == read_card(tmp_path / "m.safetensors")


def refusal(path: Path) -> DataError:
    with pytest.raises(DataError) as refused:
        load_weights(path)
    assert refused.value.hint
    assert path.name in refused.value.message
    return refused.value


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_module_is_refused_and_says_how_to_convert(
    legacy: bool, dncnn: nn.Module, tmp_path: Path
) -> None:
    torch.save(dncnn, tmp_path / "whole.pth", _use_new_zipfile_serialization=not legacy)

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


@pytest.mark.parametrize("kind", ["new", "old", "pickle"])
def test_no_pickled_code_is_run(kind: str, tmp_path: Path) -> None:
    trap, path = {"params": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=kind == "new")

    refusal(path)

    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(trap))
    assert (tmp_path / "sprung").exists()  # the trap does spring where it is unpickled


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, I am no weights", "not a readable weights file"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b'{"error": "Repository not found"}', "is a text in JSON"),
        (b'{\n  "message": "denied"}', "is a text in JSON"),
        (b"\n <html><body>404", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid ", "pointer of Git LFS"),
        (b"PK\x03\x04 cut short", "not a readable weights file"),
        (b"\x80\x02}q", "not a readable weights file"),
        (b"\x80\x02" + b"]" * 200_000, "not a readable weights file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{", "not a readable safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}", "holds no table of named tensors"),
    ],
    ids=range(12),
)
def test_broken_files_are_refused_in_words(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)

    assert words in refusal(path).message


@pytest.mark.parametrize("text", [b'{"', b" <", b"\n<"])
def test_a_header_whose_length_looks_like_a_text_is_read(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    length = int.from_bytes(text, "little")
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length).encode() + bytes(4))

    assert is_safetensors(path)
    assert read_state_dict(path)["x"].tolist() == [0.0]


KINDS = ["pth", "legacy", "safetensors"]


def written(kind: str, model: nn.Module, card: ModelCard, folder: Path) -> Path:
    path = folder / f"m.{kind}"
    if kind == "safetensors":
        save_weights(path, model, card=card)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind != "legacy")
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_files_cut_short_are_refused_in_words(
    kind: str, share: float, dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    path = written(kind, dncnn, card, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])

    assert "not a readable" in refusal(path).message


@pytest.mark.parametrize("kind", KINDS)
def test_files_damaged_anywhere_are_refused_or_hold_what_fits(
    kind: str, dncnn: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    path = written(kind, dncnn, card, tmp_path)
    content = path.read_bytes()
    for position in range(0, len(content), max(1, len(content) // 150)):
        path.write_bytes(content[:position] + b"\xff\xff" + content[position + 2 :])

        try:
            loaded, found = load_weights(path)
        except DataError as error:
            assert error.hint
        else:  # the damage lies in a number or in bytes that nobody reads
            assert found.model == "dncnn"
            assert [t.shape for t in loaded.state_dict().values()] == [
                t.shape for t in dncnn.state_dict().values()
            ]


@pytest.mark.parametrize("content", [[1, 2], {}, {"params": 3}, {1: torch.zeros(1)}, torch.ones(2)])
def test_files_without_named_tensors_are_refused_in_words(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")

    assert "no table of named tensors" in refusal(tmp_path / "odd.pth").message


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    assert "no weights file" in refusal(tmp_path / "nowhere.pth").message


def test_a_folder_is_refused_and_the_file_in_it_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "best.safetensors").touch()

    assert "is a folder" in refusal(run).message
    assert "best.safetensors" in refusal(run).hint


def test_a_closed_file_is_refused_in_words(tmp_path: Path, monkeypatch: Any) -> None:
    def closed(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "m.pth").touch()
    monkeypatch.setattr(Path, "open", closed)

    assert "Permission denied" in refusal(tmp_path / "m.pth").message


def test_unknown_weights_are_refused_with_their_first_names(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(1)}, tmp_path / "other.pth")

    error = refusal(tmp_path / "other.pth")

    assert "conv_first.weight" in error.message
    assert "kbnet-s" in error.hint


def test_nearly_right_weights_name_the_nearest_model_and_the_difference(tmp_path: Path) -> None:
    state = build_model("unet", channels=3, width=4, levels=2).state_dict()
    kept = {k: v for k, v in state.items() if not k.startswith("ending")}
    torch.save({**kept, "head.weight": torch.zeros(1)}, tmp_path / "near.pth")

    error = refusal(tmp_path / "near.pth")

    assert "unet" in error.message
    assert "ending.weight" in error.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("model.5.bias"), "model.5.bias"),
        (lambda s: s.update({"model.9.weight": torch.zeros(4, 4, 3, 3)}), "dncnn"),
        (lambda s: s.update({"head.scale": torch.zeros(1)}), "head.scale"),
        (lambda s: s.update({"model.2.bias": torch.zeros(5)}), "model.2.bias"),
        (lambda s: s.update({"model.2.weight": torch.zeros(4, 4, 3)}), "dncnn"),
        (lambda s: s.update({"model.0.weight": torch.zeros(6, 1, 3, 3)}), "dncnn"),
        (lambda s: s.update({"model.0.weight": torch.zeros(())}), "dncnn"),
    ],
    ids=range(7),
)
def test_tensors_that_are_missing_or_too_many_or_misshapen_are_named(
    kind: str, change: Any, words: str, dncnn: nn.Module, tmp_path: Path
) -> None:
    state = dict(dncnn.state_dict())
    change(state)
    path = tmp_path / f"w.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "legacy")

    assert words in refusal(path).message


def test_quantised_and_odd_numbers_are_refused(dncnn: nn.Module, tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "whole numbers (int8) in model.0.weight": lambda t: t.to(torch.int8),
        "model.0.weight as complex64": lambda t: t.to(torch.complex64),
        "model.0.weight as sparse": lambda t: t.to_sparse(),
    }
    for words, change in odd.items():
        state = dncnn.state_dict()
        state["model.0.weight"] = change(state["model.0.weight"])
        torch.save(state, tmp_path / "odd.pth")

        assert words in refusal(tmp_path / "odd.pth").message


def test_a_torchscript_file_is_refused_and_says_how_to_convert(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 3)), tmp_path / "m.pt")

    error = refusal(tmp_path / "m.pt")

    assert "TorchScript" in error.message
    assert "torch.jit.load" in error.hint


def test_other_archives_are_refused(dncnn: nn.Module, tmp_path: Path) -> None:
    torch.save(dncnn.state_dict(), tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "wrapped.zip", "w") as archive:
        archive.write(tmp_path / "w.pth", "w.pth")
    rewritten(tmp_path / "w.pth", tmp_path / "packed.pth", compression=zipfile.ZIP_DEFLATED)

    assert "without PyTorch's tensors" in refusal(tmp_path / "wrapped.zip").message
    assert "compressed archive" in refusal(tmp_path / "packed.pth").message


def rewritten(
    source: Path, target: Path, *, edit: Callable[[bytes], bytes] = bytes, compression: int = 0
) -> Path:
    """A PyTorch file with its pickle edited, every other entry as it was."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(
                entry.filename, edit(content) if entry.filename.endswith("data.pkl") else content
            )
    return target


GIGABYTES_10 = 2_700_000_000  # single-precision numbers


def huge(content: bytes, *, storage: bool, shape: bool, stride: int = 1) -> bytes:
    """A pickle of one tensor of four numbers, made to claim ten gigabytes."""
    number = b"\x8a\x05" + struct.pack("<q", GIGABYTES_10)[:5]
    if storage:
        content = content.replace(b"K\x04tq", number + b"tq").replace(b"K\x04Ntq", number + b"Ntq")
    if shape:
        content = content.replace(b"K\x00K\x04\x85", b"K\x00" + number + b"\x85")
    return content.replace(b"K\x01\x85", b"K" + bytes([stride]) + b"\x85")


def header(claims: dict[str, Any], *, length: int = 0) -> bytes:
    text = json.dumps(claims).encode()
    return struct.pack("<Q", length or len(text)) + text + bytes(16)


def tensor(shape: list[int], end: int) -> dict[str, Any]:
    return {"a.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


SAFETENSORS_LIES = {
    "header": header(tensor([4], 16), length=10**10),
    "offsets": header(tensor([GIGABYTES_10], 4 * GIGABYTES_10)),
    "shape": header(tensor([GIGABYTES_10], 16)),
    "overflow": header(tensor([2**62, 2**62], 16)),
    "overlap": header(tensor([4], 16) | {"b": tensor([4], 16)["a.weight"]}),
}
TORCH_LIES = {
    "storage": {"storage": True, "shape": False},
    "both": {"storage": True, "shape": True},
    "repeated": {"storage": False, "shape": True, "stride": 0},
    "beyond": {"storage": False, "shape": True},
}


@pytest.mark.parametrize("lie", [*SAFETENSORS_LIES, *TORCH_LIES, *(f"old {x}" for x in TORCH_LIES)])
def test_ten_gigabytes_claimed_in_a_kilobyte_are_refused_without_that_memory(
    lie: str, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "lie.pth"
    if lie in SAFETENSORS_LIES:
        path.write_bytes(SAFETENSORS_LIES[lie])
    else:
        old, options = lie.startswith("old "), TORCH_LIES[lie.removeprefix("old ")]
        torch.save({"a.weight": torch.arange(4.0)}, path, _use_new_zipfile_serialization=not old)
        if old:
            path.write_bytes(huge(path.read_bytes(), **options))
        else:
            rewritten(path, tmp_path / "w.pth", edit=lambda c: huge(c, **options)).replace(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    error = refusal(path)

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert "which model" not in error.message  # refused as a lie, not for its name
    assert path.stat().st_size < 2000
    assert peak < 100_000  # kB on Linux; bytes on macOS, where this says less


@pytest.mark.parametrize(
    "hyperparameters",
    [{"depth": 10**9, "width": 4}, {"depth": 3, "width": 10**6}, {"depth": 3, "width": 10**12}],
    ids=str,
)
def test_a_card_that_asks_for_more_than_its_file_holds_is_refused_before_building(
    hyperparameters: dict[str, int], dncnn: nn.Module, tmp_path: Path
) -> None:
    path = written_with({"hyperparameters": hyperparameters}, dncnn, tmp_path / "m.safetensors")

    refusal(path)


@pytest.mark.parametrize(
    ("drop", "words"),
    [("attgamma", "attgamma"), (".w", "encoders.0.0.w")],
)
def test_a_relative_of_kbnet_s_is_not_taken_for_it(drop: str, words: str, tmp_path: Path) -> None:
    state = build_model(
        "kbnet-s", channels=3, width=8, encoder_blocks=(1,), decoder_blocks=(1,)
    ).state_dict()
    torch.save({k: v for k, v in state.items() if not k.endswith(drop)}, tmp_path / "naf.pth")

    error = refusal(tmp_path / "naf.pth")

    assert words in error.message
    assert "kbnet-s" in error.message


def test_a_network_fed_with_a_noise_map_is_not_taken_for_dncnn(tmp_path: Path) -> None:
    state = build_model("dncnn", channels=1, depth=3, width=4, norm="none").state_dict()
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
        ({"hyperparameters": 7}, "has a card that cannot be read"),
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


def test_an_average_that_lacks_tensors_is_passed_over(dncnn: nn.Module, tmp_path: Path) -> None:
    state = dncnn.state_dict()
    path = tmp_path / "ema.pth"
    torch.save({"model": state, "ema": {"updates": torch.tensor(3)}}, path)

    loaded, _ = load_weights(path)

    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(loaded(image), dncnn(image))


def test_a_network_of_dilated_convolutions_is_not_taken_for_dncnn(tmp_path: Path) -> None:
    ircnn_like = build_model("dncnn", channels=1, depth=7, norm="none")
    torch.save(ircnn_like.state_dict(), tmp_path / "ircnn.pth")

    assert "IRCNN" in refusal(tmp_path / "ircnn.pth").message


def test_a_flipped_bit_in_a_pytorch_file_is_noticed(dncnn: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "flipped.pth"
    torch.save(dncnn.state_dict(), path)
    content = bytearray(path.read_bytes())
    weight = dncnn.state_dict()["model.0.weight"].numpy().tobytes()
    content[content.index(weight) + 5] ^= 1
    path.write_bytes(bytes(content))

    assert "is damaged: the checksum of" in refusal(path).message


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")

    assert "is no regular file" in refusal(tmp_path / "pipe.pth").message
