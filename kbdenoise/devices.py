"""Which device computes, in which precision, and why, in words."""

import contextlib
import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kbdenoise.errors import NoMemoryError, SettingsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's numbers

# What torch's backends and the system say in errors of a wider kind, in small letters.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's allocator on Linux
    "cannot allocate memory",  # the system's own words
    "not enough memory",  # torch's allocator on Windows and macOS
    "out of memory",  # CUDA's runtime, MPS, Triton
    "could not create a memory object",  # oneDNN
    "could not create a primitive",
    "_alloc_failed",  # cuBLAS, cuDNN, cuFFT and cuSPARSE: CUBLAS_STATUS_ALLOC_FAILED
    "device_allocation_failed",  # cuDNN 9
    "unable to find an engine to execute this computation",  # cuDNN's, where no workspace fits
)

DeviceKind = Literal["cuda", "mps", "cpu"]
Autocast = Literal["bfloat16", "float16", ""]

SPINS = "10000"
"""How often OpenMP's threads look whether there is work before they sleep."""

_AS_ASKED = "as asked"
_MPS_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
_UNKNOWN_MEMORY_BYTES = 2 * 1024**3
_TYPES: dict[str, Autocast] = {"fp32": "", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChoice:
    """A device with the reason it was chosen."""

    kind: DeviceKind
    reason: str
    autocast: Autocast = ""
    """Type of mixed precision; empty computes in float32 throughout."""
    precision_reason: str = ""
    arithmetic: str = ""
    """What another engine computes with; torch's is told by `autocast`."""

    @property
    def text(self) -> str:
        """One line for the screen: `cpu  no GPU was found; float32: ...`."""
        precision = self.arithmetic or (f"{self.autocast} autocast" if self.autocast else "float32")
        return f"{self.kind}  {self.reason}; {precision}: {self.precision_reason}"

    def mixed_precision(self) -> contextlib.AbstractContextManager[object]:
        """The context to run a model in: autocast, or nothing for float32."""
        import torch

        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.kind, dtype=getattr(torch, self.autocast))


def choose_device(name: str = "auto", *, precision: str = "auto", threads: int = 0) -> DeviceChoice:
    """Pick a device and a precision: CUDA, then MPS, then CPU.

    `precision` is auto, fp32, bf16 or fp16. `threads` > 0 limits the CPU threads of this process.
    Raises SettingsError for a device that this machine does not have.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    found = {kind: _is_there(kind) for kind in ("cuda", "mps")}
    if name != "auto" and not found.get(name, True):
        raise SettingsError(
            f"--device {name} is not on this machine: {_why_not(name)}",
            hint="use --device auto, or see `kbdenoise doctor`",
        )
    if name == "cuda" or (name == "auto" and found["cuda"]):
        return _chosen("cuda", torch.cuda.get_device_name(), precision)
    if name == "mps" or (name == "auto" and found["mps"]):
        return _chosen("mps", f"Apple GPU; {_mps_words()}", precision)
    _keep_freed_memory()
    reason = "as asked" if name == "cpu" else "no GPU was found"
    return _chosen("cpu", f"{reason}, {torch.get_num_threads()} threads", precision)


def _is_there(kind: str) -> bool:
    """Whether torch can compute on `cuda` or `mps` here."""
    import torch

    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def suited(choice: DeviceChoice, *, model: str, fp16: bool, bf16: bool) -> DeviceChoice:
    """The same device in float32 where a model is not safe in the precision that was chosen.

    Raises SettingsError where that precision was asked for.
    """
    safe = {"float16": fp16, "bfloat16": bf16}.get(choice.autocast, True)
    if safe:
        return choice
    if choice.precision_reason == _AS_ASKED:
        raise SettingsError(
            f"{model} is not safe in {choice.autocast}: its sums overflow",
            hint="use --precision auto",
        )
    reason = f"{model} is not safe in {choice.autocast}"
    return replace(choice, autocast="", precision_reason=reason)


def _keep_freed_memory() -> None:
    """Let glibc keep blocks that were freed, up to 1 GiB, for the next tensors of their size.

    Otherwise it returns every block above 128 KiB to the system at once, and each tensor begins
    with page faults: 188,000 of them, a tenth of the time, in one pass of KBNet over 512x512 px.
    """
    if _has_glibc():
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_MMAP_THRESHOLD, 2**30)
        c_library.mallopt(_M_TRIM_THRESHOLD, 2**30)


def _has_glibc() -> bool:
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def free_memory_bytes(choice: DeviceChoice) -> int:
    """Memory that new work may take on the device, in bytes; a guess of 2 GiB where unknown.

    On a CPU the least of what the machine has left, what its container may still take, and what
    this process may still take.
    """
    import torch

    if choice.kind != "cpu" and not _is_there(choice.kind):
        return _UNKNOWN_MEMORY_BYTES  # another engine's device, which this torch does not know
    if choice.kind == "cuda":
        cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + cached
    if choice.kind == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    known = [_machine_memory_bytes(), _container_memory_bytes(), _process_memory_bytes()]
    return max(
        0, min((found for found in known if found is not None), default=_UNKNOWN_MEMORY_BYTES)
    )


def _machine_memory_bytes() -> int | None:
    """What the system could hand out without swapping."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    return None


def _container_memory_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the container around this process may still take, cached files not counted.

    Containers often get less than the machine has, and are killed where they take more. They see
    their own limit at the root of the control groups (version 2, else 1).
    """
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no limit is the word "max"
            free = int((root / limit).read_text()) - int((root / used).read_text())
            statistics = (root / limit).with_name("memory.stat").read_text().split()
            return free + int(statistics[statistics.index(files) + 1])
    return None


def _process_memory_bytes() -> int | None:
    """What is left of a limit on the address space, as `ulimit -v` sets it."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError, ValueError):
        return limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return None


@contextlib.contextmanager
def enough_memory(work: str, *, hint: str) -> Iterator[None]:
    """Turn the many ways of running out of memory into a NoMemoryError with a cure."""
    import torch

    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise NoMemoryError(f"{work} does not fit into the memory", hint=hint) from error
    except (RuntimeError, OSError) as error:
        said = str(error).lower()
        if not any(words in said for words in _OUT_OF_MEMORY):
            raise
        raise NoMemoryError(f"{work} does not fit into the memory", hint=hint) from error


def usable_cores() -> int:
    """CPU cores that this process may use; containers often grant fewer than there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def clear_memory() -> None:
    """Hand back what was freed but kept for later, after work that did not fit."""
    import torch

    gc.collect()
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def device_report() -> list[tuple[str, bool, str]]:
    """For `doctor`: (device, present, reason) for every kind of device."""
    import torch

    rows = [("cpu", True, f"{torch.get_num_threads()} threads, {_cpu_bfloat16()[1]}")]
    for name, present in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not present:
            what = _why_not(name)
        elif name == "cuda":
            what = torch.cuda.get_device_name()
        else:
            what = f"Apple GPU; {_mps_words()}; float32, {_best_precision('mps')[1]}"
        rows.append((name, present, what))
    return rows


def _chosen(kind: DeviceKind, reason: str, precision: str) -> DeviceChoice:
    if kind == "mps" and precision == "bf16" and not _has_macos_14():
        raise SettingsError(
            "--precision bf16 on an Apple GPU needs macOS 14 or newer", hint="use --precision auto"
        )
    autocast, why = _best_precision(kind) if precision == "auto" else (_TYPES[precision], _AS_ASKED)
    return DeviceChoice(kind=kind, reason=reason, autocast=autocast, precision_reason=why)


def _has_macos_14() -> bool:
    return int(platform.mac_ver()[0].partition(".")[0] or 0) >= 14


def _best_precision(kind: DeviceKind) -> tuple[Autocast, str]:
    """The type of mixed precision that a device gains from, if any, and why."""
    import torch

    if kind == "mps":
        return "", "half precision gains little on this backend and overflows beyond 65,504"
    if kind == "cpu":
        native, why = _cpu_bfloat16()
        return ("bfloat16" if native else ""), why
    if torch.cuda.get_device_capability() >= (8, 0):
        return "bfloat16", "this GPU computes bfloat16 natively"
    return "float16", "this GPU has no native bfloat16; losses are scaled"


def _cpu_bfloat16() -> tuple[bool, str]:
    """Whether the processor multiplies bfloat16 matrices in hardware (AMX), and in words."""
    try:
        native = "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        native = False
    return native, "this CPU has AMX for bfloat16" if native else "this CPU has no fast bfloat16"


def let_mps_fall_back() -> None:
    """Let torch compute on the CPU what Apple GPUs lack; it hears this before its import only."""
    os.environ.setdefault(_MPS_FALLBACK, "1")


def let_threads_spin() -> None:
    """Let OpenMP's threads spin a while before they sleep; they hear it before torch's import only.

    Looking 300,000 times, as they do by default, makes training ten times as slow beside one other
    busy program. A thousand times are too few where waking takes long, as in a virtual machine: two
    threads are then slower than one (`python -m benchmarks.threads`).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _mps_words() -> str:
    """What becomes of operators that the MPS backend lacks."""
    if os.environ.get(_MPS_FALLBACK) == "1":
        return "operators that it lacks run on the CPU"
    return f"operators that it lacks fail: set {_MPS_FALLBACK}=1 before torch is imported"


def _why_not(name: str) -> str:
    import torch

    if name == "mps":
        return "this is no Mac with Apple silicon, or its macOS is older than 12.3"
    if torch.version.cuda is None:
        return "the installed torch is a build without CUDA"
    return "no NVIDIA driver or GPU was found"
