import pytest
import torch

from kbdenoise.devices import DeviceChoice, choose_device, device_report, free_memory_bytes
from kbdenoise.errors import SettingsError


def test_a_choice_tells_its_reason_and_its_precision() -> None:
    choice = choose_device("cpu")

    assert choice.kind == "cpu"
    assert "threads" in choice.text
    assert "float32" in choice.text or "bfloat16" in choice.text


def test_mixed_precision_can_be_turned_off() -> None:
    choice = choose_device("cpu", amp=False)

    assert choice.autocast == ""
    assert "--no-amp" in choice.text


def test_autocast_computes_in_the_type_that_was_chosen() -> None:
    choice = DeviceChoice(kind="cpu", reason="test", autocast="bfloat16", precision_reason="test")
    layer = torch.nn.Conv2d(1, 1, 1)

    with choice.mixed_precision():
        assert layer(torch.zeros(1, 1, 2, 2)).dtype == torch.bfloat16
    with choose_device("cpu", amp=False).mixed_precision():
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_is_chosen_where_there_is_one() -> None:
    assert choose_device("auto").kind == "cuda"
