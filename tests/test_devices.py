import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kbdenoise.devices import (
    SPINS,
    DeviceChoice,
    _container_memory_bytes,
    choose_device,
    device_report,
    enough_memory,
    free_memory_bytes,
    let_mps_fall_back,
    let_threads_spin,
)
from kbdenoise.errors import NoMemoryError, SettingsError


def test_a_choice_tells_its_reason_and_its_precision() -> None:
    choice = choose_device("cpu")

    assert choice.kind == "cpu"
    assert "threads" in choice.text
    assert "float32" in choice.text or "bfloat16" in choice.text


def test_mixed_precision_can_be_turned_off() -> None:
    choice = choose_device("cpu", precision="fp32")

    assert choice.autocast == ""
    assert "as asked" in choice.text


def test_autocast_computes_in_the_type_that_was_chosen() -> None:
    choice = DeviceChoice(kind="cpu", reason="test", autocast="bfloat16", precision_reason="test")
    layer = torch.nn.Conv2d(1, 1, 1)

    with choice.mixed_precision():
        assert layer(torch.zeros(1, 1, 2, 2)).dtype == torch.bfloat16
    with choose_device("cpu", precision="fp32").mixed_precision():
        assert layer(torch.zeros(1, 1, 2, 2)).dtype == torch.float32


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_the_reason(name: str) -> None:
    if {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}[name]():
        pytest.skip(f"this machine has {name}")

    with pytest.raises(SettingsError, match=name) as caught:
        choose_device(name)

    assert "auto" in caught.value.hint


def test_threads_are_limited_as_asked() -> None:
    choose_device("cpu", threads=1)

    assert torch.get_num_threads() == 1


def test_memory_and_report_know_this_machine() -> None:
    assert free_memory_bytes(choose_device("cpu")) > 2**20
    assert [row[0] for row in device_report()] == ["cpu", "cuda", "mps"]
    assert all(reason for _, _, reason in device_report())


@pytest.mark.parametrize(
    ("limit", "used", "files"),
    [
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_containers_limit_counts_and_its_cached_files_do_not(
    tmp_path: Path, limit: str, used: str, files: str
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(f"{3 * 2**30}\n")
    (tmp_path / used).write_text(f"{2 * 2**30}\n")
    (tmp_path / limit).with_name("memory.stat").write_text(f"anon 5\n{files} {2**29}\nfile 7\n")

    assert _container_memory_bytes(tmp_path) == 2**30 + 2**29


def test_a_container_without_a_limit_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")

    assert _container_memory_bytes(tmp_path) is None
    assert _container_memory_bytes(tmp_path / "none") is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what the process has taken")
def test_a_limited_process_plans_with_its_limit() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30));"
        "from kbdenoise.devices import _process_memory_bytes as left; print(left())"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert 2**30 < int(answer.stdout) < 24 * 2**30


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("MPS backend out of memory (MPS allocated: 6 GB, max allowed: 9 GB)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] data. DefaultCPUAllocator: not enough memory"
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("could not create a primitive"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_is_one_error(error: Exception) -> None:
    with (
        pytest.raises(NoMemoryError, match="the work does not fit"),
        enough_memory("the work", hint=""),
    ):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ],
)
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: Exception) -> None:
    with (
        pytest.raises(type(error), match=re.escape(str(error))),
        enough_memory("the work", hint=""),
    ):
        raise error


def test_numpys_and_torchs_own_lack_of_memory_is_known() -> None:
    for take in (np.empty, torch.empty):
        with pytest.raises(NoMemoryError), enough_memory("the work", hint=""):
            take(2**50)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_chosen_where_there_is_one() -> None:
    assert choose_device("auto").kind == "cuda"


def test_what_an_apple_gpu_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK", raising=False)

    alone = choose_device().text
    let_mps_fall_back()
    backed = choose_device().text
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK")

    assert alone.startswith("mps  Apple GPU; operators that it lacks fail: set PYTORCH_ENABLE")
    assert backed.startswith("mps  Apple GPU; operators that it lacks run on the CPU; float32")


@pytest.mark.parametrize(("version", "refused"), [("13.6", True), ("14.0", False), ("26.1", False)])
def test_bfloat16_on_an_apple_gpu_needs_its_system(
    version: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), "arm64"))

    if refused:
        with pytest.raises(SettingsError, match="needs macOS 14"):
            choose_device("mps", precision="bf16")
    else:
        assert choose_device("mps", precision="bf16").autocast == "bfloat16"


def test_memory_of_a_device_that_only_another_engine_knows_is_guessed() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has mps")

    assert free_memory_bytes(DeviceChoice(kind="mps", reason="Core ML")) == 2 * 1024**3


def test_threads_spin_as_long_as_the_program_says_unless_the_person_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")  # taken back afterwards, whatever was there
    let_threads_spin()
    assert os.environ["GOMP_SPINCOUNT"] == "5"

    monkeypatch.delenv("GOMP_SPINCOUNT")
    let_threads_spin()
    assert os.environ["GOMP_SPINCOUNT"] == SPINS
