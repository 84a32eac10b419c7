"""ONNX models: every architecture converts, at any size, and a wrong one never appears."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export import onnx_model
from kbdenoise.export.card import ExportCard
from kbdenoise.export.package import export_model
from kbdenoise.export.source import Source, source_of
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.models.zoo import MODELS
from kbdenoise.progress import silent

from .conftest import SaveTiny

_U = {"encoder_blocks": (1,), "middle_blocks": 0, "decoder_blocks": (1,)}
_TRANSFORMER = {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 0, "heads": (1, 1, 2, 2)}
_DNCNN = {"depth": 3, "width": 6}

TINY: list[tuple[str, dict[str, Any]]] = [
    ("kbnet-s", {"width": 4, **_U}),
    ("kbnet-l", {**_TRANSFORMER, "nset": 5, "kernel": 1}),
    ("nafnet", {"width": 4, **_U}),
    ("nafnet", {"width": 4, **_U, "pool_window": 56}),
    ("restormer", _TRANSFORMER),
    ("dncnn", _DNCNN),
    ("srresnet", {"width": 6, "blocks": 1}),
    (
        "srresnet",
        {"width": 6, "blocks": 1, "norm": "instance", "block": "bottleneck", "activation": "gelu"},
    ),
    ("unet", {"width": 4, "levels": 2, "down": "pool", "norm": "batch"}),
    ("drunet", {"width": 4, "blocks": 1, "levels": 2}),
    ("pix2pix", {"width": 4, "levels": 3}),
    ("res-unet", {"width": 4, "encoder_blocks": (1,), "decoder_blocks": (1,)}),
    ("tone", {"kind": "curve", "knots": 4, "width": 4}),
    ("tone", {"kind": "affine", "width": 4}),
    ("tone+dncnn", {**_DNCNN, "norm": "none", "tone_width": 4}),
]


def source(path: Path, **settings: Any) -> Source:
    return source_of(path, settings=ExportSettings(tile=64, **settings))


def answer(path: Path, *images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    feeds = {name: image.numpy() for name, image in zip(names, images, strict=True)}
    return torch.from_numpy(session.run(["restored"], feeds)[0])


def test_the_table_above_has_every_model() -> None:
    assert {name for name, _ in TINY} >= set(MODELS)


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_every_model_answers_as_torch_does_at_sizes_it_was_not_traced_at(
    name: str, options: dict[str, Any], save_tiny: SaveTiny, tmp_path: Path
) -> None:
    weights = save_tiny(name, **options)

    package = export_model(str(weights), format="onnx", tile=64)

    made = source(weights)
    multiple = made.info.multiple
    inputs = [torch.rand(3, 3, 5 * multiple, 11 * multiple)]
    inputs += [torch.rand(3, 3, PAGE_SIDE, PAGE_SIDE)] * made.info.sees_page
    with torch.inference_mode():
        expected = made.model(*inputs)
    assert package.path == tmp_path / f"{name}.onnx"
    assert all(check.passed for check in package.checks)
    assert (expected - inputs[0]).abs().max() > 1e-2
    torch.testing.assert_close(answer(package.path, *inputs), expected, atol=1e-4, rtol=1e-4)


def test_a_model_says_what_it_is_in_its_own_metadata(save_tiny: SaveTiny) -> None:
    weights = save_tiny("unet", channels=1, width=4, levels=2)

    package = export_model(str(weights), format="onnx", tile=100)

    model = onnx.load(package.path)
    strings = {prop.key: prop.value for prop in model.metadata_props}
    card = ExportCard.from_strings(strings, where="x")
    assert (card.model, card.channels, card.multiple, card.tile) == ("unet", 1, 4, 100)
    assert card.hyperparameters["levels"] == 2
    assert card.details["opset"] == str(model.opset_import[0].version)
    assert card.radius is not None and 0 < card.overlap <= 50
    assert "opset 17" in package.lines[0]
    assert not [tensor for tensor in model.graph.initializer if tensor.external_data]


def test_half_precision_is_near_and_says_so(save_tiny: SaveTiny) -> None:
    weights = save_tiny("tone+dncnn", **_DNCNN, norm="none", tone_width=4)

    package = export_model(str(weights), format="onnx", tile=64, precision="fp16")

    types = {t.data_type for t in onnx.load(package.path).graph.initializer}
    figures = [check.figure for check in package.checks if "rms" in check.name]
    assert onnx.TensorProto.FLOAT16 in types
    assert 1e-5 < max(figures) < 1e-3
    assert "fp32" in package.lines[1]


def test_tone_alone_is_not_written_in_half_precision(save_tiny: SaveTiny) -> None:
    weights = save_tiny("tone", width=4)

    with pytest.raises(SettingsError, match="not written in fp16"):
        export_model(str(weights), format="onnx", precision="fp16")


@pytest.mark.parametrize("damage", ["one weight", "one operation"])
def test_a_model_that_computes_something_else_never_appears(
    damage: str, save_tiny: SaveTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = save_tiny("dncnn", **_DNCNN)
    traced = onnx_model._traced

    def damaged(*words: Any) -> bytes:
        model = onnx.load_model_from_string(traced(*words))
        if damage == "one weight":
            last = [node for node in model.graph.node if node.op_type == "Conv"][-1].input[1]
            tensor = next(t for t in model.graph.initializer if t.name == last)
            values = onnx.numpy_helper.to_array(tensor).copy()
            values.flat[0] += np.float32(0.01)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        else:
            relu = next(node for node in model.graph.node if node.op_type == "Relu")
            relu.op_type = "Identity"
        return model.SerializeToString()

    monkeypatch.setattr(onnx_model, "_traced", damaged)
    before = sorted(tmp_path.iterdir())

    with pytest.raises(DataError, match=r"self-check failed, .* and may be .* at most"):
        export_model(str(weights), format="onnx", tile=64)

    assert sorted(tmp_path.iterdir()) == before


def test_weights_beyond_one_file_are_refused_before_the_work(save_tiny: SaveTiny) -> None:
    small = source(save_tiny("dncnn", **_DNCNN))
    large = replace(small, info=replace(small.info, parameters=10**9))

    with pytest.raises(SettingsError, match=r"3\.7 GiB, and one ONNX file holds 2 GiB"):
        onnx_model.write(large, Path("x.onnx"), ExportSettings(), progress=silent)
