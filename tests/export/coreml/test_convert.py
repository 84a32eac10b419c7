"""Conversion: variants of architectures, front ends, what cannot be converted, what is missing."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbdenoise.cli.app import main
from kbdenoise.cli.export import _report
from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.coreml import report as reports
from kbdenoise.export.coreml.convert import convert, record
from kbdenoise.export.coreml.library import coremltools
from kbdenoise.export.coreml.package import write
from kbdenoise.export.coreml.placement import NOTE
from kbdenoise.export.coreml.plan import Planned
from kbdenoise.export.coreml.program import read_program
from kbdenoise.export.coreml.report import look_at
from kbdenoise.export.formats import writer_of
from kbdenoise.progress import silent
from tests.export.coreml.conftest import ToySource

NEW_NUMPY = np.lib.NumpyVersion(np.__version__) >= "2.4.0"
_COARSE = {
    "width": 8,
    "encoder_blocks": (0, 0),
    "middle_blocks": 1,
    "decoder_blocks": (0, 1),
    "kernel": 1,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "kbnet-s, chunked where it is coarse": ("kbnet-s", _COARSE),
    "nafnet with local pooling and a gain of zero": (
        "nafnet",
        {
            "width": 4,
            "encoder_blocks": (1,),
            "decoder_blocks": (0,),
            "middle_blocks": 0,
            "pool_window": 12,
        },
    ),
    "srresnet with gates and instance norm": (
        "srresnet",
        {"width": 4, "blocks": 1, "block": "bottleneck", "activation": "glu", "norm": "instance"},
    ),
    "affine tone": ("tone", {"width": 4, "kind": "affine"}),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_a_variant_is_written_and_passes_its_check(
    case: str, toy_source: ToySource, tmp_path: Path
) -> None:
    name, numbers = VARIANTS[case]
    settings = ExportSettings(format="coreml", kba_form="chunk" if "chunked" in case else "tap")

    source = toy_source(name, **numbers)
    if "gain" in case:  # the converter would make a batch norm of it, which is off by 5e-6
        with torch.no_grad():
            source.model.get_parameter("encoders.0.0.norm1.weight")[0] = 0

    written = write(source, tmp_path / "x.mlpackage", settings, progress=silent)

    assert all(check.passed for check in written.checks)


def test_an_older_trace_gives_the_same_package(toy_source: ToySource, tmp_path: Path) -> None:
    counts = []
    for frontend in ("export", "trace"):
        package = tmp_path / f"{frontend}.mlpackage"
        settings = ExportSettings(format="coreml", frontend=frontend)  # type: ignore[arg-type]
        write(toy_source("dncnn"), package, settings, progress=silent)
        program = read_program(package)
        assert f'"frontend": "{frontend}"' in program.metadata["kbdenoise.details"]
        counts.append(program.counts)
    assert counts[0] == counts[1]


@pytest.mark.skipif(not NEW_NUMPY, reason="coremltools 9.0 traces well with numpy before 2.4")
def test_a_trace_that_numpy_breaks_is_explained(toy_source: ToySource, tmp_path: Path) -> None:
    settings = ExportSettings(format="coreml", frontend="trace")

    with pytest.raises(SettingsError, match=r"--frontend trace does not work with numpy") as caught:
        write(toy_source("kbnet-s"), tmp_path / "x.mlpackage", settings, progress=silent)

    assert "use --frontend export" in caught.value.hint
    assert not (tmp_path / "x.mlpackage").exists()


def test_a_network_that_cannot_be_converted_is_named(library: None) -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x)[..., None]

    images = (torch.rand(1, 3, 8, 8),)

    with pytest.raises(DataError, match=r"spectrum cannot be converted to a Core ML package: ."):
        convert(record(Spectrum(), images, name="spectrum"), images, name="spectrum")


def test_without_coremltools_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)

    for asked in (coremltools, lambda: writer_of("coreml")):
        with pytest.raises(SettingsError, match="coremltools") as caught:
            asked()
        assert caught.value.exit_code == 2
        assert caught.value.hint


def test_the_command_writes_a_package_and_tells_where_it_might_run(
    toy_source: ToySource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_source("dncnn")
    weights, package = tmp_path / "dncnn.safetensors", tmp_path / "dncnn.mlpackage"

    assert main(["export", str(weights), "--tile", "64", "--report"]) == 0

    out, _ = capsys.readouterr()
    assert out.startswith(f"✓ {package}   dncnn, fp16, 0 MiB\n  6 operations, tiles of 64x64 px")
    assert "black, values that are not finite" in out
    assert "static heuristic, not a measurement" in out
    assert main(["export", str(package), "--report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plausible"] == 6
    assert main(["export", str(weights), "--format", "onnx", "--report"]) == 2


def test_a_report_is_core_mls_plan_where_there_is_one_and_a_guess_elsewhere(
    toy_source: ToySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "x.mlpackage"
    write(toy_source("dncnn"), package, ExportSettings(format="coreml"), progress=silent)
    monkeypatch.setattr(reports, "has_plans", lambda: False)

    guess = look_at(package)

    assert (guess.model, guess.tile, guess.plan) == ("dncnn", 32, None)
    assert _report(guess, width=100).endswith(NOTE)
    assert guess.summary == (
        "6 of 6 operations are ANE-plausible (a static heuristic, not a measurement)"
    )
    recorded = [Planned(kind="conv", unit="Neural Engine", cost=0.2)] * 6
    monkeypatch.setattr(reports, "has_plans", lambda: True)
    monkeypatch.setattr(reports, "compiled", lambda path: path.with_suffix(".mlmodelc"))
    monkeypatch.setattr(reports, "read_plan", lambda compiled: recorded)
    told = look_at(package)
    assert told.summary == (
        "Core ML's plan: All 6: Neural Engine 6 (100 % of the cost), CPU 0 (0 %), GPU 0 (0 %)"
    )
    assert NOTE not in _report(told, width=100)
