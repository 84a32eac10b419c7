"""Kernel-basis attention in C (kba_cpu.c): what Python prepares for it, and threads.

Images go into zero-padded fp32 planes, the basis into blocks of four rows; threads share pixels, or
rows of the basis where its gradient is summed, so that no sum depends on their number.
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from kbdenoise.models.kba_library import native
from kbdenoise.models.kba_shape import Shape, pointwise, tap_rows, transposed

_TASK_MACS = 4_000_000  # a task's least work, half a millisecond: threads cost 30 microseconds
_TASK_COPIES = 500_000  # a task's least copied values, a quarter of a millisecond
_TASKS_PER_THREAD = 4  # so that one that another program slows down is not waited for
_ROWS = 4  # of the basis side by side, as kba_cpu.c wants them


def refusal(shape: Shape) -> str:
    """Why the kernels cannot do such work on the CPU; empty where they can."""
    library = native().library
    if library is None:
        return native().reason
    most: int = library.kba_most_nset()
    return "" if shape.nset <= most else f"the basis has more than {most} kernels"


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
        self.c = self._told(shape, taps)
        self.point = self._told(pointwise(shape), [0])

    def _told(self, shape: Shape, taps: list[int]) -> _CShape:
        offsets = (ctypes.c_long * len(taps))(*taps)
        return _CShape(
            shape.channels, shape.group_channels, shape.nset, len(taps), self.plane, offsets
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
        return self._cut(0, rows, step)

    def empty(self, channels: int) -> Tensor:
        """Planes for a result, whose margins hold anything."""
        return torch.empty(self.batch, channels, self.plane, dtype=torch.float32)

    def share_pixels(self, work: Callable[[int, int, int], None], shape: Shape) -> None:
        """Let threads do `work(sample, first pixel, last pixel)`, whole blocks each."""
        block = self.library.kba_block_pixels()
        pixels = self.last - self.first
        macs = shape.channels * shape.group_channels * shape.nset * len(shape.taps)
        most = max(1, torch.get_num_threads() * _TASKS_PER_THREAD // max(1, self.batch))
        parts = max(1, min(most, pixels * macs // _TASK_MACS))
        step = -(-pixels // parts // block) * block or block
        _shared(lambda piece: work(*piece), self._cut(self.first, self.last, step))

    def _cut(self, begin: int, end: int, step: int) -> list[tuple[int, int, int]]:
        """(sample, first, last) of every `step` from `begin` to `end` in every sample."""
        return [
            (sample, first, min(first + step, end))
            for sample in range(self.batch)
            for first in range(begin, end, step)
        ]


def forward(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, shape: Shape) -> Tensor:
    """Kernel-basis attention: [B, C, H, W] -> the same, in the type of `x`."""
    library = _library()
    picture = _Picture(x, shape, library)
    taps = tap_rows(weight.float(), shape)
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
    taps = tap_rows(weight.float(), shape)
    seen, looked, back = picture.padded(x), picture.padded(attention), picture.padded(grad)

    grad_x = _mixed(
        library,
        _Picture(x, shape, library, sign=-1),
        shape,
        x=back,
        attention=looked,
        matrices=_quads(transposed(taps, shape)),
        bias=None,
        moving=True,
    )
    grad_attention = _attention_gradient(
        library, picture, shape, x=seen, grad=back, taps=taps, bias=bias[0].float()
    )
    grad_taps = _weight_gradient(
        library, picture, shape, picture.c, x=seen, grad=back, attention=looked
    )
    grad_weight = grad_taps.permute(2, 1, 0).reshape(weight.shape)  # [k*k, C*gc, nset] ->
    # A bias is a kernel of one tap on a picture of ones. A matrix product would do, but its sums
    # hang on the number of threads on some processors.
    ones = torch.ones_like(back[:1]).expand_as(back)
    grad_point = _weight_gradient(
        library, picture, pointwise(shape), picture.point, x=ones, grad=back, attention=looked
    )
    grad_bias = grad_point.mT  # [1, C, nset] -> [1, nset, C]
    return (
        picture.unpadded(grad_x, x),
        picture.unpadded(grad_attention, attention),
        grad_weight.to(weight.dtype),
        grad_bias.to(bias.dtype),
    )


def _library() -> ctypes.CDLL:
    library = native().library
    assert library is not None, "asked for in spite of `refusal`"
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

    def mix(sample: int, first: int, last: int) -> None:
        library.kba_mix(
            ctypes.byref(picture.c),
            *map(_address, (x[sample], attention[sample], matrices, bias, out[sample])),
            ctypes.c_long(first),
            ctypes.c_long(last),
            ctypes.c_int(moving),
        )

    picture.share_pixels(mix, shape)
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

    def add(sample: int, first: int, last: int) -> None:
        library.kba_attention_gradient(
            ctypes.byref(picture.c),
            *map(_address, (x[sample], grad[sample], matrices, offsets, out[sample])),
            ctypes.c_long(first),
            ctypes.c_long(last),
        )

    picture.share_pixels(add, shape)
    return out


def _weight_gradient(
    library: ctypes.CDLL,
    picture: _Picture,
    shape: Shape,
    told: _CShape,
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
                ctypes.byref(told),
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
