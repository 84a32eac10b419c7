"""Where packages lie, what is refused, and torch's own format."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from kbdenoise.cli.app import main
from kbdenoise.cli.export import _next
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export import formats
from kbdenoise.export.package import Package, export_model

from .conftest import SaveTiny, full_disk


@pytest.fixture
def weights(save_tiny: SaveTiny) -> Path:
    return save_tiny("dncnn", depth=3, width=4)


def test_a_program_of_torch_takes_any_batch_and_size(weights: Path) -> None:
    package = export_model(str(weights), format="torch", tile=64)

    module = torch.export.load(package.path).module()
    assert module(torch.rand(3, 3, 7, 90)).shape == (3, 3, 7, 90)
    assert all(check.passed for check in package.checks)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_full_disk_is_told_and_keeps_nothing(weights: Path, format: str) -> None:
    with pytest.raises(DataError, match="no space left on the disk"), full_disk():
        export_model(str(weights), format=format, tile=64)

    assert list(weights.parent.iterdir()) == [weights]


def test_nothing_is_overwritten_unless_asked(weights: Path) -> None:
    export_model(str(weights), format="onnx", tile=64)

    with pytest.raises(SettingsError, match=r"dncnn\.onnx is there already"):
        export_model(str(weights), format="onnx", tile=64)
    assert export_model(str(weights), format="onnx", tile=64, force=True).path.is_file()


def test_a_package_is_called_as_its_format_wants(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"does not end in \.onnx") as caught:
        export_model(str(weights), format="onnx", out=tmp_path / "model.pb")

    assert "model.onnx" in caught.value.hint


def test_torch_programs_have_one_precision(weights: Path) -> None:
    with pytest.raises(SettingsError, match="written in fp32"):
        export_model(str(weights), format="torch", precision="fp16")


def test_the_command_shows_figures_and_what_comes_next(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["export", str(weights), "--format", "onnx", "--tile", "64"])

    out, err = capsys.readouterr()
    assert code == 0
    assert out.startswith(f"✓ {weights.with_suffix('.onnx')}   dncnn, fp32, 0 MiB\n  opset 17")
    assert "black, largest error" in out
    assert f"next: kbdenoise predict {weights.with_suffix('.onnx')} PICTURES" in err


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("darwin", "kbdenoise predict x.mlpackage PICTURES"),
        ("linux", "kbdenoise export x.mlpackage --report"),
    ],
)
def test_what_comes_next_is_what_the_system_can_do(
    system: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", system)
    package = Package(
        path=Path("x.mlpackage"),
        format="coreml",
        model="dncnn",
        precision="fp16",
        tile=64,
        overlap=16,
        size_bytes=1,
        run=None,
        checks=(),
        lines=(),
        report=None,
    )

    assert _next(package, out=None, runs=Path("runs")) == expected


def test_without_onnx_the_way_to_it_is_told(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda n: None if n == "onnx" else find_spec(n))

    code = main(["export", str(weights), "--format", "onnx"])

    assert code == 2
    assert capsys.readouterr().err == (
        "error: --format onnx needs onnx, which is not installed\n"
        " hint: pip install 'kbdenoise[onnx]'\n"
    )
    assert main(["export", str(weights), "--format", "torch", "-q"]) == 0


def test_without_onnxruntime_predictions_tell_the_way_to_it(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = weights.with_suffix(".onnx")
    package.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    code = main(["predict", str(package), str(weights.parent)])

    assert code == 2
    assert "--engine onnx needs onnxruntime, which is not installed" in capsys.readouterr().err
