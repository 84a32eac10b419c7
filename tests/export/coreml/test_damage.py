"""The check fails when a package is not what its network is: nothing damaged gets through."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kbdenoise.config import ExportSettings
from kbdenoise.errors import DataError
from kbdenoise.export.coreml import package as packages
from kbdenoise.export.coreml.check import check_package
from kbdenoise.export.coreml.convert import _refusal, save
from kbdenoise.export.coreml.library import model_protocol
from kbdenoise.export.coreml.package import write
from kbdenoise.export.coreml.program import read_program
from kbdenoise.export.source import Source
from kbdenoise.progress import silent
from tests.export.conftest import full_disk
from tests.export.coreml.conftest import ToySource

SETTINGS = ExportSettings(format="coreml")
_MODEL = "Data/com.apple.CoreML/model.mlmodel"
_WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def edited(package: Path, edit: Callable[[Any], None]) -> None:
    """Change a package's operations in place."""
    path = package / _MODEL
    model = model_protocol().Model()
    model.ParseFromString(path.read_bytes())
    function = model.mlProgram.functions["main"]
    edit(function.block_specializations[function.opset])
    path.write_bytes(model.SerializeToString())


def overwrite(package: Path, block: Any, name: str, values: np.ndarray) -> None:
    """Put other numbers where the weights called `name` lie."""
    (constant,) = (op for op in block.operations if op.outputs[0].name == name)
    place = constant.attributes["val"].blobFileValue.offset
    content = bytearray((package / _WEIGHTS).read_bytes())
    (start,) = np.frombuffer(content[place + 16 : place + 24], np.uint64)
    content[start : start + values.nbytes] = values.tobytes()
    (package / _WEIGHTS).write_bytes(content)


def weights_of(package: Path, kind: str, shape: tuple[int, ...]) -> list[str]:
    """The names of the weights of a kind of operation that have a shape."""
    program = read_program(package)
    names = [op.inputs["weight"][0] for op in program.operations if op.kind == kind]
    return [name for name in names if program.constants[name].shape == shape]


def corrupt_one_weight(package: Path) -> None:
    """One number of the last convolution, [3, 8, 3, 3]."""
    (name,) = weights_of(package, "conv", (3, 8, 3, 3))
    values = read_program(package).constants[name].copy()
    values[1, 2, 1, 1] += 0.5
    edited(package, lambda block: overwrite(package, block, name, values))


def drop_one_operation(package: Path) -> None:
    """The last sum is left out: whoever used it gets what it had added to."""

    def edit(block: Any) -> None:
        dropped = [op for op in block.operations if op.type == "add"][-2]
        gone, instead = dropped.outputs[0].name, dropped.inputs["x"].arguments[0].name
        block.operations.remove(dropped)
        for op in block.operations:
            for given in op.inputs.values():
                for argument in given.arguments:
                    argument.name = instead if argument.name == gone else argument.name

    edited(package, edit)


def silence_the_operator(package: Path) -> None:
    """The kernels of kernel-basis attention, [8 * 4, 32, 1, 1] a tap, become zero."""
    names = weights_of(package, "conv", (32, 32, 1, 1))
    assert len(names) == 9
    for name in names:
        zeros = np.zeros((32, 32, 1, 1), np.float16)
        edited(package, lambda block, n=name, z=zeros: overwrite(package, block, n, z))


def faults(package: Path, source: Source) -> list[str]:
    return [check.name for check in check_package(package, source).checks if not check.passed]


def test_a_package_is_written_checked_and_refused_when_it_is_damaged(
    toy_source: ToySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = toy_source("kbnet-s")
    good = tmp_path / "out" / "good.mlpackage"

    written = write(source, good, SETTINGS, progress=silent)

    assert all(check.passed for check in written.checks)
    assert faults(good, source) == []
    assert "not been loaded, compiled or run by Core ML" in " ".join(written.lines)
    metadata = read_program(good).metadata
    assert metadata["kbdenoise.weights_sha256"] == source.card.weights_sha256
    assert metadata["kbdenoise.precision"] == "fp16"

    # Three kinds of damage, each in a copy: every one shows in the errors.
    for damage in (corrupt_one_weight, drop_one_operation, silence_the_operator):
        copy = tmp_path / f"{damage.__name__}.mlpackage"
        shutil.copytree(good, copy)
        damage(copy)
        assert any("textured" in name for name in faults(copy, source)), damage.__name__

    # What is damaged on its way to the disk is never seen there, and what was there stays.
    def broken(package: Any, path: Path, **rest: Any) -> None:
        save(package, path, **rest)
        silence_the_operator(path)

    monkeypatch.setattr(packages, "save", broken)
    before = sorted(good.rglob("*"))
    with pytest.raises(DataError, match="self-check failed, textured 32x32 px") as caught:
        write(source, good, SETTINGS, progress=silent)
    assert caught.value.hint.startswith("try --precision fp32")
    assert sorted((tmp_path / "out").rglob("*")) == [good, *before]
    assert faults(good, source) == []

    # Nor does a full disk leave anything.
    def full(package: Any, path: Path, **rest: Any) -> None:
        with full_disk():
            save(package, path, **rest)

    monkeypatch.setattr(packages, "save", full)
    with pytest.raises(DataError, match=r"no space left on the disk while writing .*good"):
        write(source, good, SETTINGS, progress=silent)
    assert sorted((tmp_path / "out").rglob("*")) == [good, *before]


def test_a_full_folder_of_temporary_files_is_told() -> None:
    error = RuntimeError("filesystem error: cannot copy: No space left on device [x] [y]")

    refusal = _refusal(error, name="dncnn", frontend="export")

    assert "temporary files" in str(refusal)


def test_what_is_no_package_is_refused_in_a_sentence(library: None, tmp_path: Path) -> None:
    for name in ("Data/com.apple.CoreML", "Empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / _MODEL).write_bytes(b"nothing of the kind")
    (tmp_path / "Manifest.json").write_text("{}")

    for package in (tmp_path, tmp_path / "Empty"):
        with pytest.raises(DataError, match="cannot be read as a Core ML package"):
            read_program(package)
