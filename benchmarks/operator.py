"""Kernel-basis attention against the authors' formulation, and against the machine's own speed.

    python -m benchmarks.operator [--quick]

In one run and on the same tensors: our operator, our plain torch form, and the authors' formulation
(every pixel's whole kernel in memory, an unfolded image, one small product a pixel and group; its
backward pass makes the kernels again). Speeds are of the operator's 1152 multiply-accumulates a
channel and pixel, beside the rate of a large float32 matrix product. Rounds of all forms follow
each other and the best of each counts. Memory is what a process of its own rises by. Prints the
figures and writes them to benchmarks/results/.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import record
from kbdenoise.models import kba_taps
from kbdenoise.models.kba import engine, kernel_basis_attention
from kbdenoise.models.kba_shape import shape_of

SHAPES = ((16, 256), (64, 128), (256, 64))  # channels, side
MEMORY_SHAPE = (64, 256)
NSET, GROUP_CHANNELS, KERNEL = 32, 4, 3
ROUNDS = 5

Tensors = tuple[Tensor, Tensor, Tensor, Tensor]
Form = Callable[..., Tensor]


class AuthorsForm(torch.autograd.Function):
    """The formulation of the paper's own code, written from its description, for float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, w: Tensor, b: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, a, w, b)
        ctx.groups = groups
        batch, c, h, width = x.shape
        kernels, patches = _kernels_and_patches(x, a, w, groups)
        out = (kernels @ patches).reshape(batch, h * width, c)  # [B*P*G, o, 1] ->
        out = out + a.flatten(2).mT @ b
        return out.mT.reshape(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, a, w, b = ctx.saved_tensors
        groups = ctx.groups
        batch, c, h, width = x.shape
        kernels, patches = _kernels_and_patches(x, a, w, groups)
        d = grad.flatten(2).mT.reshape(-1, c // groups, 1)  # [B*P*G, o, 1]
        grad_patches = (kernels.mT @ d).reshape(batch, h * width, -1)
        grad_kernels = (d @ patches.mT).reshape(batch, h * width, -1)
        flat, attention = grad.flatten(2).mT, a.flatten(2)  # [B, P, C], [B, nset, P]
        grad_attention = (grad_kernels @ w[0].mT + flat @ b[0].mT).mT.reshape(a.shape)
        grad_x = F.fold(grad_patches.mT, (h, width), KERNEL, padding=KERNEL // 2)
        grad_w = (attention @ grad_kernels).sum(0, keepdim=True)
        return grad_x, grad_attention, grad_w, (attention @ flat).sum(0, keepdim=True), None


def _kernels_and_patches(x: Tensor, a: Tensor, w: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    gc, length = x.shape[1] // groups, x.shape[1] // groups * KERNEL**2
    kernels = (a.flatten(2).mT @ w).reshape(-1, gc, length)  # [B*P*G, o, i*k*k]
    patches = F.unfold(x, KERNEL, padding=KERNEL // 2).mT.reshape(-1, length, 1)
    return kernels, patches


def authors(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int) -> Tensor:
    """The peer."""
    result: Tensor = AuthorsForm.apply(x, attention, weight, bias, groups)
    return result


def per_tap(x: Tensor, attention: Tensor, weight: Tensor, bias: Tensor, *, groups: int) -> Tensor:
    """Our plain torch form, which autograd differentiates."""
    shape = shape_of(x, attention, weight, bias, groups=groups)
    return kba_taps.per_tap(x, attention, weight, bias, shape)


FORMS: dict[str, Form] = {"ours": kernel_basis_attention, "per_tap": per_tap, "authors": authors}


def main() -> None:
    """Measure all shapes and the memory; print and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory_of:
        print(json.dumps(memory_of(FORMS[asked.memory_of])))
        return
    rounds = 2 if asked.quick else ROUNDS
    gemm = gemm_gflops(rounds)
    figures: dict[str, Any] = {"threads": torch.get_num_threads(), "gemm_gflops": round(gemm, 1)}
    figures["engine"] = engine(*tensors(16, 8), groups=4)
    print(json.dumps(figures))
    for channels, side in SHAPES:
        row = measured(channels, side, gemm=gemm, rounds=rounds)
        figures[f"{channels}x{side}"] = row
        print(f"{channels} channels, {side}x{side}:", json.dumps(row), flush=True)
    figures["memory"] = memory()
    print("memory:", json.dumps(figures["memory"]))
    if not asked.quick:
        print(f"written: {record.write_result('operator', figures)}")


def tensors(channels: int, side: int, *, batch: int = 1) -> Tensors:
    """Random inputs with gradients wanted."""
    torch.manual_seed(channels)
    x = torch.randn(batch, channels, side, side, requires_grad=True)
    attention = torch.randn(batch, NSET, side, side, requires_grad=True)
    weight = torch.randn(1, NSET, channels * GROUP_CHANNELS * KERNEL**2, requires_grad=True)
    bias = torch.randn(1, NSET, channels, requires_grad=True)
    return x, attention, weight, bias


def gemm_gflops(rounds: int) -> float:
    """What the machine does in a float32 product of 2048x2048 matrices."""
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return float(2 * 2048**3 / min(_timed(lambda: left @ right) for _ in range(rounds)) / 1e9)


def measured(channels: int, side: int, *, gemm: float, rounds: int) -> dict[str, Any]:
    """Milliseconds of each form, ours against each, and our share of the matrix product's rate."""
    inputs, groups = tensors(channels, side), channels // GROUP_CHANNELS
    upstream = torch.randn(1, channels, side, side)
    _check(inputs, upstream, groups)

    def forward(form: Form) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return form(*inputs, groups=groups)

        return call

    def both(form: Form) -> Callable[[], object]:
        return lambda: torch.autograd.grad(form(*inputs, groups=groups), inputs, upstream)

    row: dict[str, Any] = {}
    for label, work in (("forward", forward), ("forward_backward", both)):
        times: dict[str, list[float]] = {name: [] for name in FORMS}
        for _ in range(rounds):
            for name, form in FORMS.items():
                times[name].append(_timed(work(form)))
        best = {name: min(values) for name, values in times.items()}
        row[label] = {f"{name}_ms": round(1e3 * s, 2) for name, s in best.items()}
        row[label]["authors_over_ours"] = round(best["authors"] / best["ours"], 2)
        row[label]["per_tap_over_ours"] = round(best["per_tap"] / best["ours"], 2)
        passes = 1 if label == "forward" else 4  # each of three gradients costs as much again
        work_done = passes * 2 * (NSET * GROUP_CHANNELS * KERNEL**2) * channels * side**2
        row[label]["ours_gflops"] = round(work_done / best["ours"] / 1e9, 1)
        row[label]["share_of_gemm"] = round(work_done / best["ours"] / 1e9 / gemm, 2)
    return row


def _check(inputs: Tensors, upstream: Tensor, groups: int) -> None:
    """All forms compute the same thing, or the times mean nothing."""
    expected = None
    for form in FORMS.values():
        out = form(*inputs, groups=groups)
        found = [out, *torch.autograd.grad(out, inputs, upstream)]
        expected = expected or found
        for mine, theirs in zip(found, expected, strict=True):
            assert (mine - theirs).abs().max() < 1e-4 * theirs.abs().max()


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def memory() -> dict[str, Any]:
    """MiB that forward and backward together rise by, in a process of its own for each form."""
    channels, side = MEMORY_SHAPE
    risen = {}
    for name in FORMS:
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.operator", "--memory-of", name],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # freed memory goes back at once
        )
        risen[f"{name}_mib"] = round(json.loads(answer.stdout), 1)
    risen["ours_over_authors"] = round(risen["ours_mib"] / risen["authors_mib"], 3)
    return {"channels": channels, "side": side, **risen}


def memory_of(form: Form) -> float:
    """MiB above what a process held before, its imports and a small first call counted there."""
    small, groups = tensors(16, 16), 4
    torch.autograd.grad(form(*small, groups=groups).sum(), small)
    channels, side = MEMORY_SHAPE
    inputs, upstream = tensors(channels, side), torch.randn(1, channels, side, side)
    before = _peak_mib(reset=True)
    torch.autograd.grad(form(*inputs, groups=channels // GROUP_CHANNELS), inputs, upstream)
    return _peak_mib() - before


def _peak_mib(*, reset: bool = False) -> float:
    """The most that this process held since its start or the last reset; Linux tells."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
