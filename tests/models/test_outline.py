from typing import Any

import pytest
import torch

from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.outline import outline
from kbdenoise.models.portrait import portray
from kbdenoise.models.zoo import MODELS, find_model, named_size

PARTED: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"width": 8, "levels": 2}),
    ("dncnn", {"depth": 5, "width": 8}),
    ("res-unet", {"width": 8}),
    ("kbnet-s", {"width": 8, "middle_blocks": 1}),
]

# Fewer of the blocks that the deep ones repeat.
SHORT_U = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
SHORT_TRANSFORMER = {"blocks": (1, 1, 1, 1), "refinement_blocks": 1}
FEW: dict[str, dict[str, Any]] = {
    "kbnet-s": SHORT_U,
    "nafnet": SHORT_U,
    "kbnet-l": SHORT_TRANSFORMER,
    "restormer": SHORT_TRANSFORMER,
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("name", "hyperparameters"), PARTED)
def test_the_parts_add_up_to_the_model(
    name: str, hyperparameters: dict[str, Any], whole: bool
) -> None:
    info = describe_model(name, channels=3, side=64, **hyperparameters)
    with torch.device("meta"):
        model = build_model(name, channels=3, **hyperparameters)

    parts = outline(model.eval(), channels=3, side=64, whole=whole)

    learned_beside_layers = name == "kbnet-s" and whole  # a block's own basis and scales
    if not learned_beside_layers:
        assert sum(part.parameters for part in parts) == info.parameters
        assert sum(part.macs for part in parts) == info.macs
    assert all(part.kind and part.parameters for part in parts)


def test_a_chain_of_layers_is_opened() -> None:
    with torch.device("meta"):
        model = build_model("dncnn", channels=1, depth=4, width=8, norm="none")

    parts = outline(model, channels=1, side=16)

    assert [part.name for part in parts] == ["model.0", "model.2", "model.4", "model.6"]
    assert [part.output for part in parts] == [(8, 16, 16)] * 3 + [(1, 16, 16)]


@pytest.mark.parametrize("name", [*MODELS, "tone+srresnet"])
@pytest.mark.parametrize("amp", [True, False])
def test_every_model_can_be_portrayed(name: str, amp: bool) -> None:
    sizes = find_model(name).sizes
    size = "small" if "small" in sizes else next(iter(sizes))

    portrait = portray(
        name,
        channels=3,
        side=64,
        patch=64,
        batch=1,
        amp=amp,
        every_layer=True,
        **(named_size(name, size) | FEW.get(name, {})),
    )

    assert portrait.training_memory.total_bytes > 0
    assert portrait.info.macs > 0
    assert portrait.layers
