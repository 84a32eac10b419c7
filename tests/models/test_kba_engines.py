"""The engines behind kernel-basis attention against each other, and how one of them is chosen."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kbdenoise.models import kba, kba_library, kba_native, kba_taps
from kbdenoise.models.kba import KernelBasisAttention, engine, kernel_basis_attention
from kbdenoise.models.kba_library import Native, native
from kbdenoise.models.kba_shape import shape_of

Tensors = tuple[Tensor, Tensor, Tensor, Tensor]

needs_compiler = pytest.mark.skipif(
    native().library is None, reason=f"no compiled kernels: {native().reason}"
)


def draw(
    *,
    batch: int = 1,
    groups: int = 4,
    gc: int = 4,
    nset: int = 32,
    k: int = 3,
    height: int = 9,
    width: int = 11,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    generator = torch.Generator().manual_seed(3)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(dtype).requires_grad_()

    c = groups * gc
    return (
        normal(batch, c, height, width),
        normal(batch, nset, height, width),
        normal(1, nset, c * gc * k * k),
        normal(1, nset, c),
    )


def value_and_gradients(inputs: Tensors, *, groups: int) -> list[Tensor]:
    out = kernel_basis_attention(*inputs, groups=groups)
    upstream = (torch.arange(out.numel()) % 7 - 3).view(out.shape).to(out.dtype)  # exact in all
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def in_float64(inputs: Tensors, *, groups: int) -> list[Tensor]:
    """The same by torch's operations in twice the width, which the other tests hold true."""
    wide = [t.detach().double().requires_grad_() for t in inputs]
    return value_and_gradients((wide[0], wide[1], wide[2], wide[3]), groups=groups)


def largest_error(found: list[Tensor], expected: list[Tensor]) -> float:
    errors = [
        float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max().clamp(min=1))
        for a, b in zip(found, expected, strict=True)
    ]
    return max(errors)


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Native kernels that are not compiled yet, in a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.cache_clear()
    yield tmp_path / "kbdenoise"
    native.cache_clear()


# ---------------------------------------------------------------------------------- C on the CPU


@needs_compiler
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 12),
    gc=st.integers(1, 8),
    nset=st.integers(1, 64),
    k=st.sampled_from([1, 3, 5]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_compiled_kernels_agree_with_float64_for_any_shape(
    batch: int, groups: int, gc: int, nset: int, k: int, height: int, width: int
) -> None:
    inputs = draw(batch=batch, groups=groups, gc=gc, nset=nset, k=k, height=height, width=width)

    found = value_and_gradients(inputs, groups=groups)

    assert engine(*inputs, groups=groups).startswith("C: ")
    assert largest_error(found, in_float64(inputs, groups=groups)) < 1e-5


@needs_compiler
@pytest.mark.parametrize(("channels", "side"), [(16, 65), (256, 17), (1024, 5)])
def test_compiled_kernels_agree_with_float64_at_the_networks_widths(
    channels: int, side: int
) -> None:
    inputs = draw(groups=channels // 4, height=side, width=side + 1)

    found = value_and_gradients(inputs, groups=channels // 4)

    assert largest_error(found, in_float64(inputs, groups=channels // 4)) < 1e-5


@needs_compiler
def test_gradients_do_not_depend_on_the_number_of_threads() -> None:
    inputs = draw(batch=2, groups=16, height=70, width=67)
    results = []

    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(value_and_gradients(inputs, groups=16))
    torch.set_num_threads(1)

    for one, *others in zip(*results, strict=True):
        assert all(torch.equal(one, other) for other in others)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_compiled_kernels_round_half_width_images_only_once(dtype: torch.dtype) -> None:
    inputs = draw(dtype=dtype)
    expected = in_float64(inputs, groups=4)

    found = value_and_gradients(inputs, groups=4)

    assert [t.dtype for t in found] == [dtype] * 5
    for mine, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(
            mine, exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-3
        )


@needs_compiler
def test_values_beside_the_image_do_not_leak_into_it() -> None:
    inputs = draw(groups=2, height=3, width=5)
    x, attention, weight, bias = (t.detach() for t in inputs)

    found = kernel_basis_attention(x * 1e30, attention, weight, bias * 1e30, groups=2)

    torch.testing.assert_close(
        found / 1e30, kernel_basis_attention(x, attention, weight, bias, groups=2)
    )


def test_a_processor_without_compiler_takes_torch_and_says_so(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fresh_cache))
    monkeypatch.delenv("CC", raising=False)
    inputs = draw()
    found = value_and_gradients(inputs, groups=4)

    reason = engine(*inputs, groups=4)

    assert reason == "torch, tap by tap: there is no C compiler (cc, gcc or clang)"
    assert largest_error(found, in_float64(inputs, groups=4)) < 1e-5


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo gcc; [ $1 = --version ] || { echo 'kba_cpu.c:1: no' >&2; exit 1; }", "1: no"),
        ("while [ $# -gt 0 ]; do [ $1 = -o ] && echo junk > $2; shift; done", "cannot be used"),
    ],
    ids=["it refuses", "it writes rubbish"],
)
def test_a_broken_compiler_is_no_disaster(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str
) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))

    inputs = draw()

    assert said in engine(*inputs, groups=4)
    assert largest_error(value_and_gradients(inputs, groups=4), in_float64(inputs, groups=4)) < 1e-5


@needs_compiler
def test_a_kernel_file_that_was_cut_short_is_made_again(fresh_cache: Path) -> None:
    compiler = kba_library._compiler()
    assert compiler is not None
    fresh_cache.mkdir()
    library = kba_library._compiled(compiler, fresh_cache)
    library.write_bytes(b"")

    again = native()

    assert again.library is not None and library.stat().st_size > 1000
    assert list(fresh_cache.iterdir()) == [library]


@needs_compiler
def test_a_home_that_cannot_be_written_to_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    native.cache_clear()

    found = native()
    native.cache_clear()

    assert found.library is not None


@needs_compiler
def test_a_basis_too_large_for_the_kernels_takes_torch_and_says_so() -> None:
    inputs = draw(groups=1, nset=257, height=2, width=3)

    assert engine(*inputs, groups=1) == ("torch, tap by tap: the basis has more than 256 kernels")
    found = value_and_gradients(inputs, groups=1)
    assert largest_error(found, in_float64(inputs, groups=1)) < 1e-5


def test_the_environment_can_ask_for_torch(
    fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KBDENOISE_NATIVE", "0")

    assert native() == Native(library=None, reason="KBDENOISE_NATIVE=0 asks for torch alone")


@needs_compiler
@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda *tensors: 1.01 * kba_taps.forward(*tensors), "computes something else"),
        (lambda *tensors: torch.full_like(tensors[0], torch.nan), "computes something else"),
        (lambda *tensors: [][0], "native fails here: list index out of range"),
    ],
    ids=["wrong", "nan", "crash"],
)
def test_an_engine_that_cannot_be_trusted_is_not_used(
    monkeypatch: pytest.MonkeyPatch, spoilt: Callable[..., Tensor], said: str
) -> None:
    kba._fault.cache_clear()
    monkeypatch.setattr(kba_native, "forward", spoilt)
    inputs = draw()

    reason = engine(*inputs, groups=4)
    found = value_and_gradients(inputs, groups=4)
    kba._fault.cache_clear()

    assert reason.startswith("torch, tap by tap: native") and said in reason
    assert largest_error(found, in_float64(inputs, groups=4)) < 1e-5


def test_autocast_does_not_reach_into_the_engines() -> None:
    inputs = draw(groups=2, height=6, width=5)
    expected = in_float64(inputs, groups=2)
    x, attention, weight, bias = inputs

    with torch.autocast("cpu", dtype=torch.bfloat16):
        operator = torch.ops.kbdenoise.kernel_basis_attention
        out = operator(x, attention, weight, bias, 2)
        gradients = torch.ops.kbdenoise.kernel_basis_attention_backward(
            (torch.arange(out.numel()) % 7 - 3).view(out.shape).float(), *inputs, 2
        )

    assert largest_error([out, *gradients], expected) < 1e-5


def test_float64_takes_torch() -> None:
    inputs = draw(dtype=torch.float64)

    assert engine(*inputs, groups=4) == "torch, tap by tap: no other form takes float64 on cpu"


# --------------------------------------------------------------------------- the operator in torch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torch_finds_no_fault_with_the_operator(dtype: torch.dtype) -> None:
    inputs = draw(groups=2, nset=5, height=4, width=3, dtype=dtype)
    operator = torch.ops.kbdenoise.kernel_basis_attention

    torch.library.opcheck(operator, (*inputs, 2))


@pytest.mark.parametrize(("batch", "height", "width"), [(0, 4, 5), (2, 0, 5), (1, 4, 0)], ids=str)
def test_an_image_without_pixels_is_no_error(batch: int, height: int, width: int) -> None:
    inputs = draw(batch=batch, height=height, width=width)

    out, *gradients = value_and_gradients(inputs, groups=4)

    assert out.shape == inputs[0].shape
    assert [g.shape for g in gradients] == [t.shape for t in inputs]
    assert all((g == 0).all() for g in gradients)


class Block(torch.nn.Module):
    """A convolution before the operator, as networks have it."""

    def __init__(self) -> None:
        super().__init__()
        _, _, weight, bias = draw(groups=2, nset=4)
        self.conv = torch.nn.Conv2d(3, 8 + 4, 3, padding=1)
        self.w, self.b = torch.nn.Parameter(weight.detach()), torch.nn.Parameter(bias.detach())
        self.kba = KernelBasisAttention(groups=2)

    def forward(self, image: Tensor) -> Tensor:
        x, attention = self.conv(image).split([8, 4], dim=1)
        return self.kba(x, attention, self.w, self.b)


def gradients_of(block: torch.nn.Module, out: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out.square().mean(), list(block.parameters())))


def test_a_compiled_network_gives_the_same_value_and_gradients() -> None:
    torch.manual_seed(0)
    block, image = Block(), torch.rand(2, 3, 6, 5)
    expected = block(image)

    found = torch.compile(block, backend="aot_eager", fullgraph=True)(image)

    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients_of(block, found), gradients_of(block, expected), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("amp", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(amp: bool) -> None:
    torch.manual_seed(0)
    block, image = Block(), torch.rand(2, 3, 6, 5, requires_grad=True)

    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        expected = gradients_of(block, block(image))
        found = gradients_of(block, checkpoint(block, image, use_reentrant=False))

    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)


def test_a_second_derivative_is_refused_by_name() -> None:
    inputs = draw(groups=1, nset=2, height=2, width=2)
    out = kernel_basis_attention(*inputs, groups=1)
    (gradient,) = torch.autograd.grad(out.square().sum(), inputs[0], create_graph=True)

    with pytest.raises(RuntimeError, match="kernel_basis_attention_backward"):
        gradient.sum().backward()


# ----------------------------------------------------------------------------------- Triton on CUDA

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@needs_triton
def test_the_fused_kernels_agree_with_float64() -> None:
    """Run by Triton's interpreter, in a process of its own that was started with it."""
    answer = subprocess.run(
        [sys.executable, __file__],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | {"TRITON_INTERPRET": "1"},
    )

    assert answer.returncode == 0, answer.stderr
    errors = [float(line) for line in answer.stdout.split()]
    assert len(errors) == len(INTERPRETED) and max(errors) < 1e-5


# batch, groups, gc, nset, k, height, width: odd sizes, several blocks of pixels and of channels
INTERPRETED = [
    (2, 3, 4, 5, 3, 5, 7),
    (1, 12, 3, 33, 3, 3, 11),
    (1, 1, 8, 16, 5, 3, 4),
    (1, 5, 1, 3, 1, 1, 1),
    (1, 20, 2, 32, 3, 4, 11),
]


def interpret() -> None:
    from kbdenoise.models import kba_triton

    for batch, groups, gc, nset, k, height, width in INTERPRETED:
        inputs = draw(batch=batch, groups=groups, gc=gc, nset=nset, k=k, height=height, width=width)
        x, attention, weight, bias = (t.detach() for t in inputs)
        shape = shape_of(x, attention, weight, bias, groups=groups)
        out = kba_triton.forward(x, attention, weight, bias, shape)
        upstream = (torch.arange(out.numel()) % 7 - 3).view(out.shape).float()
        found = [out, *kba_triton.backward(upstream, x, attention, weight, bias, shape)]
        print(largest_error(found, in_float64(inputs, groups=groups)))


@needs_triton
@pytest.mark.parametrize(
    "target", [(75, "fp16"), (80, "bf16"), (90, "bf16"), (90, "fp32")], ids=str
)
def test_the_fused_kernels_compile_for_gpus_that_are_not_here(target: tuple[int, str]) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from kbdenoise.models import kba_triton

    capability, dtype = target
    small = dtype == "fp32" or capability < 80
    common = {"GC": 4, "KERNEL": 3, "NSET": 32, "PIXELS": 32 if small else 64, "PRECISION": "ieee"}
    rows = {"ROWS": 32 if small else 64}
    for kernel, own in [
        (kba_triton._mix_kernel, {"CHANNELS": 32, "GRADIENT": False}),
        (kba_triton._mix_kernel, {"CHANNELS": 32, "GRADIENT": True}),
        (kba_triton._attention_kernel, rows),
        (kba_triton._weight_kernel, rows),
    ]:
        names, constants = kernel.arg_names, common | own
        pointer = {name: f"*{dtype}" for name in names if name.endswith("_ptr")}
        if kernel is kba_triton._weight_kernel:
            pointer["out_ptr"] = "*fp32"
        types = {n: pointer.get(n, "constexpr" if n in constants else "i32") for n in names}
        values = {(names.index(name),): value for name, value in constants.items()}

        made = compile(
            ASTSource(fn=kernel, signature=types, constexprs=values),
            target=GPUTarget("cuda", capability, 32),
        )

        assert made.metadata.shared <= 64 * 1024  # what every GPU since 2018 has


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_fused_kernels_agree_with_float64_on_the_device(dtype: torch.dtype) -> None:
    inputs = draw(batch=2, groups=16, height=37, width=53, dtype=dtype)
    expected = in_float64(inputs, groups=16)
    on_device = tuple(t.detach().cuda().requires_grad_() for t in inputs)

    found = value_and_gradients(on_device, groups=16)  # type: ignore[arg-type]
    again = value_and_gradients(on_device, groups=16)  # type: ignore[arg-type]

    assert engine(*on_device, groups=16).startswith("Triton")
    limit = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    assert largest_error([t.cpu() for t in found], expected) < limit
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_the_plain_form_is_what_the_blocks_compute() -> None:
    inputs = draw(batch=2, dtype=torch.float64)
    shape = shape_of(*inputs, groups=4)

    torch.testing.assert_close(kba_taps.per_tap(*inputs, shape), kba_taps.forward(*inputs, shape))


def test_little_work_stays_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kba_native, "_pool", lambda *_: pytest.fail("threads were used"))
    torch.set_num_threads(2)

    kernel_basis_attention(*draw(height=3, width=3), groups=4)
    torch.set_num_threads(1)


if __name__ == "__main__":
    interpret()
