"""Compiled packages, kept in the user's cache: Core ML compiles for the machine at hand.

Compiling a large network for a Neural Engine may take a minute, and Core ML keeps nothing of it for
a program that asks again. Here the result is kept under the package's own checksum and the version
of macOS, so that a new export or a new system compiles anew.
"""

import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from kbdenoise.atomic import atomic_path
from kbdenoise.checksums import checksum
from kbdenoise.errors import DataError, SettingsError, first_line
from kbdenoise.export.coreml.library import coremltools
from kbdenoise.models.kba_library import cache_folder

Compile = Callable[[Path, Path], None]
"""Compiles a package into a folder that is not there yet."""
_SUFFIX = ".mlmodelc"


def compiled(package: Path, *, compile: Compile | None = None, cache: Path | None = None) -> Path:
    """The compiled form of a package folder, made where it is missing.

    `compile` is Core ML's own on a Mac. Raises SettingsError on other systems, and DataError where
    Core ML refuses the package.
    """
    folder = (cache or cache_folder()) / "coreml"
    place = folder / f"{checksum(package)[:20]}-{platform.mac_ver()[0] or 'other'}{_SUFFIX}"
    if place.is_dir():
        return place
    make = compile or _core_ml()
    try:
        with atomic_path(place) as part:
            make(package, part)
    except DataError:
        raise
    except Exception as error:  # whatever Core ML comes up with
        raise DataError(
            f"Core ML cannot compile {package}: {first_line(error)}",
            hint="use --engine torch or onnx, and please report it with the version of macOS",
        ) from error
    return place


def require_a_mac() -> None:
    """Raises SettingsError on a system without Core ML."""
    if sys.platform != "darwin":
        raise SettingsError(
            f"Core ML runs packages on macOS alone, and this is {platform.system()}",
            hint="use --engine torch or --engine onnx here",
        )


def _core_ml() -> Compile:
    require_a_mac()
    tools = coremltools()

    def compile(package: Path, place: Path) -> None:
        made = tools.models.utils.compile_model(str(package))  # in a temporary folder of its own
        shutil.move(made, place)

    return compile
