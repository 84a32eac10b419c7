"""From a network in its forms for export to a Core ML package on the disk."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kbdenoise.config import ExportFrontend, ExportPrecision
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.export.coreml.library import coremltools, quiet

TARGET = "macOS14"
"""The oldest system that takes the packages; iOS 17 is of the same year."""
INPUTS = ("image", "page")
OUTPUT = "restored"
# It makes a batch norm, whose eps of 1e-5 becomes part of the gain, of a gain and an offset.
_UNWANTED_PASS = "common::fuse_elementwise_to_batchnorm"
# Left behind by coremltools in every package that comes from torch.export; Core ML knows no such file.
_DEBUG_FILE = "executorch_debug_handle_mapping.json"
_NUMPY_FAULT = "only 0-dimensional arrays can be converted"


def convert(
    model: nn.Module,
    images: tuple[Tensor, ...],
    *,
    name: str,
    precision: ExportPrecision = "fp16",
    frontend: ExportFrontend = "export",
) -> Any:
    """coremltools' package of `model`, which takes tensors of the shapes of `images` alone.

    `name` stands in error texts. Images and results are of the type that is computed in, so that no
    operation converts them. Raises DataError for a network that torch or coremltools cannot convert
    and SettingsError where coremltools is missing or its front end does not suit the numpy here.
    """
    tools = coremltools()
    types = [tools.TensorType(n, tuple(i.shape)) for n, i in zip(INPUTS, images, strict=False)]
    with quiet(), torch.no_grad():
        try:
            return tools.convert(
                _recorded(model, images, frontend),
                source="pytorch",
                convert_to="mlprogram",
                minimum_deployment_target=getattr(tools.target, TARGET),
                compute_precision=_precision(tools, precision),
                compute_units=tools.ComputeUnit.CPU_AND_NE,
                inputs=_typed(tools, types, precision),
                outputs=[tools.TensorType(OUTPUT)],
                pass_pipeline=_passes(tools),
                skip_model_load=True,  # on a Mac it would compile the package here and now
            )
        except Exception as error:  # whatever a converter comes up with
            raise _refusal(error, name=name, frontend=frontend) from error


def save(package: Any, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write a package folder; `path` ends in .mlpackage."""
    package.short_description = f"Image restoration by kbdenoise: {metadata['kbdenoise.model']}"
    package.user_defined_metadata.update(metadata)
    with quiet():
        package.save(str(path))
    (path / _DEBUG_FILE).unlink(missing_ok=True)


def _recorded(model: nn.Module, images: tuple[Tensor, ...], frontend: ExportFrontend) -> Any:
    if frontend == "trace":
        return torch.jit.trace(model, images, check_trace=False)
    return torch.export.export(model, images).run_decompositions({})


def _typed(tools: ModuleType, types: list[Any], precision: ExportPrecision) -> list[Any]:
    """Types of the inputs; without a word half precision would be taken for every package."""
    if precision == "fp32":
        for each in types:
            each.dtype = tools.converters.mil.mil.types.fp32
    return types


def _precision(tools: ModuleType, precision: ExportPrecision) -> Any:
    return {"fp16": tools.precision.FLOAT16, "fp32": tools.precision.FLOAT32}[precision]


def _passes(tools: ModuleType) -> Any:
    passes = tools.PassPipeline.DEFAULT
    passes.remove_passes([_UNWANTED_PASS])
    return passes


def _refusal(error: Exception, *, name: str, frontend: ExportFrontend) -> Exception:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if frontend == "trace" and _NUMPY_FAULT in str(error):
        return SettingsError(
            f"--frontend trace does not work with numpy {_numpy_version()}: coremltools 9.0 takes "
            "arrays of one number for numbers, which numpy refuses from 2.4 on",
            hint="use --frontend export, or install numpy<2.4",
        )
    return DataError(
        f"{name} cannot be converted to a Core ML package: {reason}",
        hint="export it as ONNX (--format onnx), or with the tested versions: see constraints.txt",
    )


def _numpy_version() -> str:
    import numpy

    return numpy.__version__
