"""coremltools, imported only where it is needed, and quietly."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from types import ModuleType

from kbdenoise.errors import SettingsError


def coremltools() -> ModuleType:
    """The library, which takes some seconds to import.

    Raises SettingsError where it is not installed or there is none for this system.
    """
    with quiet():
        try:
            import coremltools
        except (ImportError, OSError) as error:
            raise SettingsError(
                f"Core ML packages need coremltools, which cannot be imported here: {error}",
                hint=_cure(),
            ) from error
    module: ModuleType = coremltools
    return module


def model_protocol() -> ModuleType:
    """The protocol buffers of a package. Raises SettingsError as `coremltools` does."""
    coremltools()
    from coremltools.proto import Model_pb2

    module: ModuleType = Model_pb2
    return module


def _cure() -> str:
    if sys.version_info >= (3, 14):
        return "its newest release is for Python 3.13 and older"
    if sys.platform not in ("darwin", "linux"):
        return "it exists for macOS and for Linux on x86-64; export on one of those"
    return "pip install coremltools==9.0 (for macOS, and for Linux on x86-64)"


@contextmanager
def quiet() -> Iterator[None]:
    """Without bars, without remarks on libraries that only a Mac has and on versions of torch."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
