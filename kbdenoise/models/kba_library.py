"""The compiled kernels of kernel-basis attention: built on first use, kept in the user's cache.

A C compiler is all that it needs. Where there is none, or what it made cannot be loaded, `native()`
says so and kernel-basis attention takes its plain torch form, which is two to three times slower.
The environment variable KBDENOISE_NATIVE=0 asks for that form.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("kba_cpu.c")
_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-Wno-psabi")
_COMPILE_S = 120.0  # longest that the compiler may take; it takes one or two


@dataclass(frozen=True, slots=True, kw_only=True)
class Native:
    """The compiled kernels, or why there are none."""

    library: ctypes.CDLL | None
    reason: str
    """In words, such as `compiled by cc` or `there is no C compiler`."""


@functools.cache
def native() -> Native:
    """Compile and load the kernels, once a process."""
    if os.environ.get("KBDENOISE_NATIVE", "1") == "0":
        return Native(library=None, reason="KBDENOISE_NATIVE=0 asks for torch alone")
    return _attempt(lambda compiler: _loaded(compiler, cache_folder()))


def trial() -> Native:
    """What `native` would find, without leaving anything behind."""
    with tempfile.TemporaryDirectory(prefix="kbdenoise-") as folder:
        return _attempt(lambda compiler: _loaded(compiler, Path(folder)))


def _attempt(load: Callable[[str], ctypes.CDLL]) -> Native:
    compiler = _compiler()
    if compiler is None:
        return Native(library=None, reason="there is no C compiler (cc, gcc or clang)")
    try:
        library = load(compiler)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        return Native(library=None, reason=f"{compiler} failed: {lines[0]}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Native(library=None, reason=f"the compiled kernels cannot be used: {error}")
    for name in ("kba_block_pixels", "kba_nset_block", "kba_most_nset"):
        getattr(library, name).restype = ctypes.c_long
    return Native(library=library, reason=f"compiled by {Path(compiler).name}")


def _loaded(compiler: str, folder: Path) -> ctypes.CDLL:
    library = _compiled(compiler, folder)
    try:
        return ctypes.CDLL(str(library))
    except OSError:  # cut short by a power failure, say: make it again
        library.unlink()
        return ctypes.CDLL(str(_compiled(compiler, folder)))


def _compiler() -> str | None:
    if sys.platform == "win32":
        return None  # its compilers speak another dialect
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def _compiled(compiler: str, folder: Path) -> Path:
    """The shared library for this source, compiler and processor; made where it is missing."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [compiler, *_FLAGS, "-mcpu=native" if arm else "-march=native"]
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=_COMPILE_S, check=True
    ).stdout
    key = hashlib.sha256(_SOURCE.read_bytes() + version.encode())
    key.update(repr((command, platform.platform(), _processor())).encode())
    library = folder / f"kba-{key.hexdigest()[:20]}.so"
    if library.is_file():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / library.name
        subprocess.run(
            [*command, "-o", str(made), str(_SOURCE)],
            capture_output=True,
            text=True,
            timeout=_COMPILE_S,
            check=True,
        )
        made.replace(library)  # whole or not at all, however many processes compile at once
    return library


def _processor() -> str:
    """What tells processors apart that share one home folder: their instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def cache_folder() -> Path:
    """The user's cache of kbdenoise, or a folder for this process where there can be none."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "kbdenoise"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return Path(_private_cache().name)


@functools.cache
def _private_cache() -> tempfile.TemporaryDirectory[str]:
    """A folder for this process alone, where the home cannot be written to."""
    return tempfile.TemporaryDirectory(prefix="kbdenoise-")
