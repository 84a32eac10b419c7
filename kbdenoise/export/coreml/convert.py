"""From a network in its forms for export to a Core ML package on the disk."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kbdenoise.config import FrontendName
from kbdenoise.errors import DataError, KbdenoiseError, SettingsError, first_line
from kbdenoise.export.coreml.library import coremltools, quiet
from kbdenoise.export.source import INPUT, OUTPUT, PAGE

Images = tuple[Tensor, ...]
"""The picture [1, C, tile, tile] and, for a network that sees the page, its thumbnail."""
TARGET = "macOS14"
"""The oldest system that takes the packages; iOS 17 is of the same year."""
FORMAT_VERSION = 8
"""Of packages for that system."""
COMPUTE_UNITS = "CPU_AND_NE"
"""What they are meant for; a package does not hold it, so it stands in the card."""
# It makes a batch norm, whose eps of 1e-5 becomes part of the gain, of a gain and an offset.
_UNWANTED_PASS = "common::fuse_elementwise_to_batchnorm"
# coremltools leaves it in packages that come from torch.export; Core ML knows no such file.
_DEBUG_FILE = "executorch_debug_handle_mapping.json"
_PRECISIONS = {"fp16": "FLOAT16", "fp32": "FLOAT32"}
_NUMPY_FAULT = "only 0-dimensional arrays can be converted"


def record(
    model: nn.Module, images: Images, *, name: str, frontend: FrontendName = "export"
) -> Any:
    """Torch's program of `model` for pictures of the sizes of `images` alone.

    `name` stands in error texts. Raises DataError for a network that torch cannot record.
    """
    with quiet(), torch.no_grad(), _refused(name, frontend):
        if frontend == "trace":
            return torch.jit.trace(model, images, check_trace=False)
        return torch.export.export(model, images).run_decompositions({})


def convert(
    recorded: Any,
    images: Images,
    *,
    name: str,
    precision: str = "fp16",
    frontend: FrontendName = "export",
) -> Any:
    """A package, in coremltools' memory, of what `record` gave.

    Images and results are of the type that is computed in, so that no operation converts them.
    Raises DataError for a network that coremltools cannot convert and SettingsError where it is
    missing, or where its front end does not suit the numpy that is installed.
    """
    tools = coremltools()
    # Without a word half precision would be taken for the inputs of every package.
    dtype = tools.converters.mil.mil.types.fp32 if precision == "fp32" else None
    inputs = [
        tools.TensorType(n, tuple(i.shape), dtype=dtype)
        for n, i in zip((INPUT, PAGE), images, strict=False)
    ]
    passes = tools.PassPipeline.DEFAULT
    passes.remove_passes([_UNWANTED_PASS])
    with quiet(), _refused(name, frontend):
        return tools.convert(
            recorded,
            source="pytorch",
            convert_to="mlprogram",
            minimum_deployment_target=getattr(tools.target, TARGET),
            compute_precision=getattr(tools.precision, _PRECISIONS[precision]),
            compute_units=getattr(tools.ComputeUnit, COMPUTE_UNITS),
            inputs=inputs,
            outputs=[tools.TensorType(OUTPUT)],
            pass_pipeline=passes,
            skip_model_load=True,  # on a Mac it would compile the package here and now
        )


def save(package: Any, path: Path, *, metadata: Mapping[str, str]) -> None:
    """Write a package folder; `path` ends in .mlpackage. Raises OSError for a full disk."""
    package.short_description = f"Image restoration by kbdenoise: {metadata['kbdenoise.model']}"
    package.user_defined_metadata.update(metadata)
    with quiet():
        try:
            package.save(str(path))
        except shutil.Error as error:  # of several files, their reasons in its text alone
            raise _first_of(error) from error
    (path / _DEBUG_FILE).unlink(missing_ok=True)


def _first_of(error: shutil.Error) -> OSError:
    """The first failure in the text of one that copies a folder, with its number."""
    found = re.search(r"\[Errno (\d+)\]", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))


@contextmanager
def _refused(name: str, frontend: FrontendName) -> Iterator[None]:
    """Turn whatever a converter comes up with into a sentence."""
    try:
        yield
    except (KbdenoiseError, MemoryError):
        raise
    except Exception as error:
        raise _refusal(error, name=name, frontend=frontend) from error


def _refusal(error: Exception, *, name: str, frontend: FrontendName) -> Exception:
    if os.strerror(errno.ENOSPC) in str(error):
        return DataError(
            f"no space left in the folder of temporary files, {gettempdir()}",
            hint="free some space there, or let TMPDIR name a folder on another disk",
        )
    if frontend == "trace" and _NUMPY_FAULT in str(error):
        return SettingsError(
            f"--frontend trace does not work with numpy {np.__version__}: coremltools 9.0 takes "
            "arrays of one number for numbers, which numpy refuses from 2.4 on",
            hint="use --frontend export, or install numpy<2.4",
        )
    return DataError(
        f"{name} cannot be converted to a Core ML package: {first_line(error)}",
        hint="export it as ONNX (--format onnx), or with the tested versions: see constraints.txt",
    )
