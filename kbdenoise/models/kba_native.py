"""Kernel-basis attention in C (kba_cpu.c): compiled on first use, kept in the user's cache.

A C compiler is all that it needs. Where there is none, or the compiled file cannot be loaded,
`native()` says so and kernel-basis attention takes its plain torch form, which is two to four times
slower. The environment variable KBDENOISE_NATIVE=0 asks for that form.
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kbdenoise.models.kba_shape import Shape

_SOURCE = Path(__file__).with_name("kba_cpu.c")
_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-Wno-psabi")
_COMPILE_S = 120.0  # longest that the compiler may take; it takes one or two
_TASK_MACS = 4_000_000  # a task's least work, half a millisecond: threads cost 30 microseconds
_TASK_COPIES = 500_000  # a task's least copied values, a quarter of a millisecond
_TASKS_PER_THREAD = 4  # so that one that another program slows down is not waited for
_ROWS = 4  # of the basis side by side, as kba_cpu.c wants them


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
    return _attempt(lambda compiler: _loaded(compiler, _cache()))


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


def takes(x: Tensor, shape: Shape) -> bool:
    """Whether the kernels can do this work: real numbers of at most 32 bits, on a CPU."""
    if x.device.type != "cpu" or x.dtype.itemsize > 4:
        return False
    library = native().library
    return library is not None and shape.nset <= library.kba_most_nset()


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


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "kbdenoise"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return _private_cache()


@functools.cache
def _private_cache() -> Path:
    """A folder for this process alone, where the home cannot be written to."""
    folder = tempfile.TemporaryDirectory(prefix="kbdenoise-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


# ------------------------------------------------------------------------------ the three kernels


class _CShape(ctypes.Structure):
    _fields_ = (
        *((n, ctypes.c_long) for n in ("channels", "group_channels", "nset", "taps", "plane")),
        ("offsets", ctypes.POINTER(ctypes.c_long)),
    )


class _CSteps(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("channel", "row", "pixel"))


class _Picture:
    """Where the pixels of an image [B, C, H, W] lie in padded planes, and what the C code is told.

    Rows lie one behind the other, r zeros on either side of each; r rows of zeros stand above and
    below. `sign` -1 looks through each tap from the other side.
    """

    def __init__(self, x: Tensor, shape: Shape, library: ctypes.CDLL, *, sign: int = 1) -> None:
        self.library = library
        self.batch, _, self.height, self.width = x.shape
        self.margin = r = shape.kernel // 2
        self.stride = self.width + 2 * r
        self.size = self.stride * (self.height + 2 * r)
        self.plane = self.size + library.kba_block_pixels() - 1
        self.first = r * self.stride + r
        self.last = self.size - self.first
        taps = [sign * ((dy - r) * self.stride + dx - r) for dy, dx in shape.taps]
        self._offsets = (ctypes.c_long * len(taps))(*taps)
        self.c = _CShape(
            shape.channels, shape.group_channels, shape.nset, len(taps), self.plane, self._offsets
        )

    def padded(self, image: Tensor) -> Tensor:
        """[B, C, H, W] of any type and strides -> fp32 planes [B, C, plane]."""
        image = image.float()
        channels = image.shape[1]
        planes = self.empty(channels)
        planes[:, :, self.size :] = 0

        def rows(piece: tuple[int, int, int]) -> None:
            sample, begin, end = piece
            self.library.kba_pad(
                _address(image[sample]),
                ctypes.byref(_CSteps(*image.stride()[1:])),
                _address(planes[sample]),
                *map(ctypes.c_long, (self.plane, channels, self.height, self.width)),
                *map(ctypes.c_long, (self.margin, begin, end)),
            )

        _shared(rows, self._rows(channels, self.height + 2 * self.margin))
        return planes

    def unpadded(self, planes: Tensor, like: Tensor) -> Tensor:
        """The pixels of fp32 planes as an image of the type and memory format of `like`."""
        channels = planes.shape[1]
        image = torch.empty_like(like, dtype=torch.float32)

        def rows(piece: tuple[int, int, int]) -> None:
            sample, begin, end = piece
            self.library.kba_unpad(
                _address(planes[sample]),
                ctypes.c_long(self.plane),
                _address(image[sample]),
                ctypes.byref(_CSteps(*image.stride()[1:])),
                *map(ctypes.c_long, (channels, self.width, self.margin, begin, end)),
            )

        _shared(rows, self._rows(channels, self.height))
        return image.to(like.dtype)

    def _rows(self, channels: int, rows: int) -> list[tuple[int, int, int]]:
        """(sample, first row, last row) of tasks that threads can share."""
        step = max(1, -(-_TASK_COPIES // (channels * self.stride)))
        step = max(step, -(-rows // (torch.get_num_threads() * _TASKS_PER_THREAD)))
        return [
            (sample, first, min(first + step, rows))
            for sample in range(self.batch)
            for first in range(0, rows, step)
        ]

    def empty(self, channels: int) -> Tensor:
        """Planes for a result, whose margins hold anything."""
        return torch.empty(self.batch, channels, self.plane, dtype=torch.float32)

    def pieces(self, shape: Shape, block: int) -> list[tuple[int, int, int]]:
        """(sample, first pixel, last pixel) of tasks that threads can share; whole blocks each."""
        pixels = self.last - self.first
        work = shape.channels * shape.group_channels * shape.nset * len(shape.taps)
        most = max(1, torch.get_num_threads() * _TASKS_PER_THREAD // max(1, self.batch))
        parts = max(1, min(most, pixels * work // _TASK_MACS))
        step = -(-pixels // parts // block) * block or block
        return [
            (sample, first, min(first + step, self.last))
            for sample in range(self.batch)
            for first in range(self.first, self.last, step)
        ]


def forward(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """Kernel-basis attention: [B, C, H, W] -> the same, in the type of `x`."""
    library = _library()
    picture = _Picture(x, shape, library)
    taps = _tap_rows(weight, shape)
    out = _mixed(
        library,
        picture,
        shape,
        x=picture.padded(x),
        attention=picture.padded(attention),
        matrices=_quads(taps),
        bias=_quads(bias[0].float().t()),
        moving=False,
    )
    return picture.unpadded(out, x)


def backward(
    grad: Tensor, x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, attention, weight and bias, each in its own type."""
    library = _library()
    picture = _Picture(x, shape, library)
    taps = _tap_rows(weight, shape)
    seen, looked, back = picture.padded(x), picture.padded(attention), picture.padded(grad)

    grad_x = _mixed(
        library,
        _Picture(x, shape, library, sign=-1),
        shape,
        x=back,
        attention=looked,
        matrices=_quads(_transposed(taps, shape)),
        bias=None,
        moving=True,
    )
    grad_attention = _attention_gradient(
        library, picture, shape, x=seen, grad=back, taps=taps, bias=bias[0].float()
    )
    grad_taps = _weight_gradient(library, picture, shape, x=seen, grad=back, attention=looked)
    grad_weight = grad_taps.permute(2, 1, 0).reshape(weight.shape)  # [k*k, C*gc, nset] ->
    grad_bias = torch.einsum("bnp,bcp->nc", looked, back)[None]
    return (
        picture.unpadded(grad_x, x),
        picture.unpadded(grad_attention, attention),
        grad_weight.to(weight.dtype),
        grad_bias.to(bias.dtype),
    )


def _library() -> ctypes.CDLL:
    library = native().library
    assert library is not None, "asked for without `takes`"
    return library


def _mixed(
    library: ctypes.CDLL,
    picture: _Picture,
    shape: Shape,
    *,
    x: Tensor,
    attention: Tensor,
    matrices: Tensor,
    bias: Tensor | None,
    moving: bool,
) -> Tensor:
    out = picture.empty(shape.channels)

    def one(piece: tuple[int, int, int]) -> None:
        sample, first, last = piece
        library.kba_mix(
            ctypes.byref(picture.c),
            _address(x[sample]),
            _address(attention[sample]),
            _address(matrices),
            _address(bias),
            _address(out[sample]),
            ctypes.c_long(first),
            ctypes.c_long(last),
            ctypes.c_int(moving),
        )

    _shared(one, picture.pieces(shape, library.kba_block_pixels()))
    return out


def _attention_gradient(
    library: ctypes.CDLL,
    picture: _Picture,
    shape: Shape,
    *,
    x: Tensor,
    grad: Tensor,
    taps: Tensor,
    bias: Tensor,
) -> Tensor:
    out = torch.zeros(picture.batch, shape.nset, picture.plane, dtype=torch.float32)
    matrices, offsets = _quads(taps.mT), _quads(bias)  # [k*k, nset/4, rows, 4], [nset/4, C, 4]

    def one(piece: tuple[int, int, int]) -> None:
        sample, first, last = piece
        library.kba_attention_gradient(
            ctypes.byref(picture.c),
            _address(x[sample]),
            _address(grad[sample]),
            _address(matrices),
            _address(offsets),
            _address(out[sample]),
            ctypes.c_long(first),
            ctypes.c_long(last),
        )

    _shared(one, picture.pieces(shape, library.kba_block_pixels()))
    return out


def _weight_gradient(
    library: ctypes.CDLL,
    picture: _Picture,
    shape: Shape,
    *,
    x: Tensor,
    grad: Tensor,
    attention: Tensor,
) -> Tensor:
    """[k*k, C*gc, nset]; threads share the rows, so that every sum has one order."""
    block = library.kba_nset_block()
    rows = shape.channels * shape.group_channels * len(shape.taps)
    out = torch.zeros(rows, -(-shape.nset // block) * block, dtype=torch.float32)
    work = rows * shape.nset * picture.size * picture.batch
    parts = max(1, min(torch.get_num_threads() * _TASKS_PER_THREAD, work // _TASK_MACS))
    step = max(1, -(-rows // parts // 12) * 12)  # whole steps of the kernel, whatever its registers

    def one(begin: int) -> None:
        for sample in range(picture.batch):
            library.kba_weight_gradient(
                ctypes.byref(picture.c),
                _address(x[sample]),
                _address(grad[sample]),
                _address(attention[sample]),
                _address(out),
                ctypes.c_long(begin),
                ctypes.c_long(min(begin + step, rows)),
                ctypes.c_long(picture.first),
                ctypes.c_long(picture.last),
            )

    _shared(one, list(range(0, rows, step)))
    return out[:, : shape.nset].unflatten(0, (len(shape.taps), -1))


def _tap_rows(weight: Tensor, shape: Shape) -> Tensor:
    """The basis as one matrix a tap: [1, nset, C*gc*k*k] -> [k*k, C*gc, nset], rows (G, o, i)."""
    return weight.float().view(shape.nset, -1, len(shape.taps)).permute(2, 1, 0)


def _transposed(taps: Tensor, shape: Shape) -> Tensor:
    """Rows (G, o, i) -> rows (G, i, o): what an input channel gives to each output channel."""
    gc = shape.group_channels
    return taps.unflatten(1, (-1, gc, gc)).transpose(2, 3).flatten(1, 3)


def _quads(matrix: Tensor) -> Tensor:
    """Four rows side by side, the last ones filled with zeros: [..., R, K] -> [..., R/4, K, 4]."""
    filled = torch.nn.functional.pad(matrix, (0, 0, 0, -matrix.shape[-2] % _ROWS))
    return filled.unflatten(-2, (-1, _ROWS)).mT.contiguous()


def _address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


# ---------------------------------------------------------------------------------------- threads


def _shared(work: Callable[[Any], None], tasks: list[Any]) -> None:
    """Do the tasks on torch's number of threads; the C code lets Python's lock go."""
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            work(task)
        return
    for _ in _pool(torch.get_num_threads()).map(work, tasks):
        pass


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel-basis")
