"""What this machine does with a contest and a model: patches, training steps, pages, the operator.

Everything is measured with the settings that `train` would take, on the contest's own pictures, and
nothing is left behind.
"""

import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kbdenoise.data.batches import to_images
from kbdenoise.devices import DeviceChoice, enough_memory, free_memory_bytes
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import to_float
from kbdenoise.inference.engines import TorchRestorer
from kbdenoise.inference.restoration import Restoration
from kbdenoise.models.kba import engine, kernel_basis_attention
from kbdenoise.models.layers import fold_scales
from kbdenoise.notation import seconds as seconds_of
from kbdenoise.presets import Preset
from kbdenoise.progress import Progress, counting, silent
from kbdenoise.runs.folder import create_run
from kbdenoise.training.prepare import build_session, new_record
from kbdenoise.training.session import Session
from kbdenoise.training.step import take_step
from kbdenoise.training.train import asked_filter, gathered

_SHAPES = ((16, 256), (64, 128), (256, 64))  # channels and side of the operator's measurements
_NSET, _GROUP_CHANNELS, _TAPS = 32, 4, 9
_MATRIX = 2048  # side of the matrices whose product shows what the machine can do
_TASKS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSpeed:
    """Kernel-basis attention of one image, in fp32, or in the device's mixed precision."""

    channels: int
    side: int
    engine: str
    forward_ms: float
    forward_backward_ms: float
    forward_gflops: float
    share_of_matrix_product: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Rates of this machine; the best of what was repeated, since other work only slows."""

    contest: str
    model: str
    parameters: int
    device: str
    patch: int
    batch: int
    loader_patches_per_s: float
    """Patches cut, and made tensors on the device, by one thread."""
    step_ms: float
    """One optimiser step: forward, loss, backward, clipping, update."""
    steps: int
    training_hours: float
    """What the preset's steps would take, validations left out."""
    picture: tuple[int, int]
    """Height and width in px of the picture that was restored."""
    restore_ms: float
    restore_mpix_per_s: float
    matrix_product_gflops: float
    operator: tuple[OperatorSpeed, ...]


def bench(
    name: str | Path | None = None,
    *,
    data: Path = Path("data"),
    preset: Preset = "standard",
    config: Path | None = None,
    duration: str = "20s",
    progress: Progress = silent,
    **settings: Any,
) -> BenchResult:
    """Measure the loader, a training step, a restored picture and kernel-basis attention.

    Arguments are those of `train`; `duration` is about how long it all takes. Raises SettingsError
    for a classical filter or settings that make no sense, and DataError for broken data.
    """
    each_s = seconds_of(duration, name="--duration") / _TASKS
    if not each_s:
        raise SettingsError("--duration 0 measures nothing", hint="write 20s or 2m")
    given = {key: value for key, value in settings.items() if value is not None}
    if asked := asked_filter(config, given):
        raise SettingsError(
            f"{asked} is a classical filter, which has no training steps to measure",
            hint="choose a network; `kbdenoise models` lists them",
        )
    material = gathered(
        name, data=data, preset=preset, config=config, given=given, progress=progress
    )
    chosen = material.config
    advance = counting(progress, "measure")
    with (
        tempfile.TemporaryDirectory(prefix="kbdenoise-bench-") as folder,
        enough_memory("the measurement", hint="use a smaller --batch or --patch"),
    ):
        run = create_run(Path(folder), model=chosen.model.model, name="bench")
        session = build_session(run, new_record(material), material)
        loader_ms = _best_ms(_loading(session), each_s, material.device)
        advance(1, _TASKS)
        step_ms = _best_ms(_stepping(session), each_s, material.device)
        advance(2, _TASKS)
        size = material.pairs.store.size(material.pairs.split.held_out[0])
        restore_ms = _best_ms(_restoring(session), each_s, material.device)
        advance(3, _TASKS)
        matrix, operator = _operator(each_s, material.device)
        advance(_TASKS, _TASKS)
    steps = session.last_step
    return BenchResult(
        contest=material.pairs.local.contest.slug,
        model=material.info.name,
        parameters=material.info.parameters,
        device=material.device.text,
        patch=chosen.data.patch,
        batch=chosen.data.batch,
        loader_patches_per_s=1e3 * chosen.data.batch / loader_ms,
        step_ms=step_ms,
        steps=steps,
        training_hours=steps * max(step_ms, loader_ms) / 3.6e6,
        picture=size,
        restore_ms=restore_ms,
        restore_mpix_per_s=size[0] * size[1] / 1e3 / restore_ms,
        matrix_product_gflops=matrix,
        operator=operator,
    )


def _loading(session: Session) -> Callable[[int], object]:
    sampler = session.samplers.of(0)

    def load(step: int) -> object:
        batch = sampler.batch(step)
        return to_images(batch, device=session.device.kind, channels_last=session.channels_last)

    return load


def _stepping(session: Session) -> Callable[[int], object]:
    batch = session.samplers.of(0).batch(0)
    return lambda step: take_step(session, batch, progress=silent)


def _restoring(session: Session) -> Callable[[int], object]:
    """Restore the first held-out picture as `predict` does."""
    model = deepcopy(session.model)
    fold_scales(model)
    restorer = TorchRestorer(model, info=session.info, device=session.device)
    restoration = Restoration(restorer, memory_bytes=free_memory_bytes(session.device))
    picture = to_float(session.store.noisy(session.split.held_out[0]))
    return lambda step: restoration.image(picture)


def _operator(each_s: float, device: DeviceChoice) -> tuple[float, tuple[OperatorSpeed, ...]]:
    """GFLOP/s of a large matrix product, and kernel-basis attention beside it."""
    dtype = getattr(torch, device.autocast) if device.autocast else torch.float32
    share_s = each_s / (1 + 2 * len(_SHAPES))
    left, right = (torch.randn(_MATRIX, _MATRIX).to(device.kind, dtype) for _ in range(2))
    product_ms = _best_ms(lambda step: left @ right, share_s, device)
    matrix_gflops = 2 * _MATRIX**3 / product_ms / 1e6
    rows = []
    for channels, side in _SHAPES:
        groups = channels // _GROUP_CHANNELS
        shapes = (
            (1, channels, side, side),
            (1, _NSET, side, side),
            (1, _NSET, channels * _GROUP_CHANNELS * _TAPS),
            (1, _NSET, channels),
        )
        inputs = [torch.randn(s).to(device.kind, dtype).requires_grad_() for s in shapes]
        forward_ms = _best_ms(_forward(inputs, groups), share_s, device)
        both_ms = _best_ms(_forward_backward(inputs, groups), share_s, device)
        gflops = 2 * _NSET * _GROUP_CHANNELS * _TAPS * channels * side**2 / forward_ms / 1e6
        x, attention, weight, bias = inputs
        rows.append(
            OperatorSpeed(
                channels=channels,
                side=side,
                engine=engine(x, attention, weight, bias, groups=groups),
                forward_ms=forward_ms,
                forward_backward_ms=both_ms,
                forward_gflops=gflops,
                share_of_matrix_product=gflops / matrix_gflops,
            )
        )
    return matrix_gflops, tuple(rows)


def _forward(inputs: list[Tensor], groups: int) -> Callable[[int], object]:
    x, attention, weight, bias = inputs

    def call(step: int) -> object:
        with torch.inference_mode():
            return kernel_basis_attention(x, attention, weight, bias, groups=groups)

    return call


def _forward_backward(inputs: list[Tensor], groups: int) -> Callable[[int], object]:
    x, attention, weight, bias = inputs

    def call(step: int) -> object:
        out = kernel_basis_attention(x, attention, weight, bias, groups=groups)
        return torch.autograd.grad(out, inputs, torch.ones_like(out))

    return call


def _best_ms(work: Callable[[int], object], limit_s: float, device: DeviceChoice) -> float:
    """The least milliseconds of as many calls as the limit allows, a first one left out."""
    work(0)
    _wait(device)
    best, calls, began = float("inf"), 0, time.perf_counter()
    while not calls or time.perf_counter() - began < limit_s:
        calls += 1
        started = time.perf_counter()
        work(calls)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def _wait(device: DeviceChoice) -> None:
    """Until the device has done what it was told."""
    if device.kind == "cuda":
        torch.cuda.synchronize()
    elif device.kind == "mps":
        torch.mps.synchronize()
