from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kbdenoise.models import kba, memory
from kbdenoise.models.build import build_model
from kbdenoise.models.memory import TrainingMemory, restoring_bytes, training_memory

SMALL_KBNET = {
    "width": 8,
    "encoder_blocks": (1, 1),
    "middle_blocks": 1,
    "decoder_blocks": (1, 1),
}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"width": 8, "levels": 2}),
    ("dncnn", {"depth": 5, "width": 8}),
    ("dncnn", {"depth": 5, "width": 8, "norm": "none"}),
    ("res-unet", {"width": 8}),
    ("kbnet-s", SMALL_KBNET),
]


def on_meta(name: str, **hyperparameters: Any) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, channels=3, **hyperparameters)


def estimate(name: str, *, patch: int, batch: int, amp: bool, **h: Any) -> TrainingMemory:
    return training_memory(on_meta(name, **h), channels=3, patch=patch, batch=batch, amp=amp)


def kept_bytes(name: str, *, patch: int, batch: int, amp: bool, **h: Any) -> int:
    """What a real forward pass on the CPU holds at its end, every storage counted once."""
    model = build_model(name, channels=3, **h).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    noisy, clean = torch.rand(2, batch, 3, patch, patch).unbind()
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            restored = model(noisy)
        loss = (restored.float() - clean).square().mean()
    assert loss.requires_grad
    kept.pop(noisy.untyped_storage().data_ptr(), None)
    saved = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in own)
    return saved + noisy.untyped_storage().nbytes()


@pytest.mark.parametrize(("name", "hyperparameters"), MODELS)
def test_the_activations_are_those_that_a_real_forward_pass_keeps(
    name: str, hyperparameters: dict[str, Any]
) -> None:
    case = {"patch": 32, "batch": 2, "amp": False, **hyperparameters}

    estimated = estimate(name, **case).kept_bytes

    assert estimated == pytest.approx(kept_bytes(name, **case), rel=0.02)


@pytest.mark.parametrize(("name", "hyperparameters"), MODELS)
def test_under_mixed_precision_they_are_those_that_autocast_keeps(
    name: str, hyperparameters: dict[str, Any]
) -> None:
    case = {"patch": 64, "batch": 2, "amp": True, **hyperparameters}

    estimated = estimate(name, **case).kept_bytes

    assert estimated == pytest.approx(kept_bytes(name, **case), rel=0.08)


def kernel_basis_inputs(device: str) -> list[Tensor]:
    shapes = [(2, 8, 6, 6), (2, 5, 6, 6), (1, 5, 8 * 4 * 9), (1, 5, 8)]
    return [torch.zeros(shape, device=device, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("amp", [False, True])
def test_kernel_basis_attention_keeps_on_meta_what_the_operator_keeps(amp: bool) -> None:
    real: list[tuple[Any, ...]] = []
    shapes_only: list[tuple[Any, ...]] = []
    dtype = torch.bfloat16 if amp else torch.float32

    def note(seen: list[tuple[Any, ...]]) -> Any:
        def pack(tensor: Tensor) -> Tensor:
            seen.append((tuple(tensor.shape), tensor.dtype))
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)

    with note(real), torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        out = kba.kernel_basis_attention(*kernel_basis_inputs("cpu"), groups=2)
    with note(shapes_only):
        answer = memory._KernelBasis.apply(*kernel_basis_inputs("meta"), 2, dtype)

    assert sorted(map(str, real)) == sorted(map(str, shapes_only))
    assert (answer.shape, answer.dtype) == (out.shape, out.dtype)


def test_weights_moments_and_average_are_counted_to_the_byte() -> None:
    model = on_meta("dncnn", depth=5, width=8)
    weights = 4 * sum(p.numel() for p in model.parameters())
    with_buffers = weights + sum(b.numel() * b.element_size() for b in model.buffers())

    found = training_memory(model, channels=3, patch=16, batch=1, amp=False)
    without = training_memory(model, channels=3, patch=16, batch=1, amp=False, average=False)

    assert found.weights_bytes == found.average_bytes == with_buffers
    assert found.moments_bytes == 2 * weights
    assert without.total_bytes == found.total_bytes - with_buffers


def test_a_heavy_model_on_a_small_patch_needs_room_for_all_its_gradients() -> None:
    found = estimate("unet", patch=8, batch=1, amp=False, width=64, levels=3)

    assert 5 <= found.total_bytes / found.weights_bytes < 5.2


@pytest.mark.parametrize("name", ["unet", "kbnet-s"])
def test_twice_the_batch_takes_twice_the_activations(name: str) -> None:
    one, two = (estimate(name, patch=64, batch=b, amp=False, width=8) for b in (4, 8))

    assert two.kept_bytes == pytest.approx(2 * one.kept_bytes, rel=1e-3)


def test_restoring_keeps_far_less_than_training() -> None:
    model = on_meta("dncnn", depth=17, width=16, norm="none")

    restoring = restoring_bytes(model, channels=3, side=128, amp=False)
    training = training_memory(model, channels=3, patch=128, batch=1, amp=False)

    layer = 4 * 16 * 128 * 128
    assert 2 * layer <= restoring <= 6 * layer
    assert training.activations_bytes > 15 * layer


def test_the_kernel_basis_is_left_as_it_was() -> None:
    model = on_meta("kbnet-s", **SMALL_KBNET)

    training_memory(model, channels=3, patch=32, batch=1, amp=True)

    assert all("forward" not in vars(module) for module in model.modules())
