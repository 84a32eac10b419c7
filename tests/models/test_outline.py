from typing import Any

import pytest
import torch

from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.outline import outline

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"width": 8, "levels": 2}),
    ("dncnn", {"depth": 5, "width": 8}),
    ("res-unet", {"width": 8}),
    ("kbnet-s", {"width": 8, "middle_blocks": 1}),
]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("name", "hyperparameters"), MODELS)
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
