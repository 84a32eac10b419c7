"""Save, recognise by the tensors alone, load, and get the same output: many configurations each."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kbdenoise.models.build import build_model, complete_hyperparameters
from kbdenoise.models.detect import detect
from kbdenoise.models.weights import ModelCard, load_weights, save_weights
from kbdenoise.models.zoo import MODELS

_SHALLOW = {"blocks": (1, 1, 2, 1), "refinement_blocks": 1}

# model -> (channels, hyper-parameters). What tensors cannot tell (an activation without weights,
# a pooling window, a noise level) stays at the value of the published networks here.
CONFIGURATIONS: dict[str, list[tuple[int, dict[str, Any]]]] = {
    "kbnet-s": [
        *(
            (3, {"width": w, "encoder_blocks": (1,), "middle_blocks": m, "decoder_blocks": (1,)})
            for w, m in ((8, 1), (16, 0), (32, 1), (64, 1))
        ),
        (
            1,
            {
                "width": 8,
                "encoder_blocks": (1, 0, 2),
                "middle_blocks": 0,
                "decoder_blocks": (0, 1, 1),
                "lightweight": True,
                "ffn_scale": 1.26,
                "nset": 7,
                "group_channels": 2,
                "kernel": 5,
            },
        ),
        (3, {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (0,), "kernel": 1}),
        (3, {"width": 12, "encoder_blocks": (1,), "decoder_blocks": (0,), "middle_blocks": 0}),
        (1, {"width": 8, "encoder_blocks": (0, 1), "decoder_blocks": (1, 0), "nset": 3}),
    ],
    "kbnet-l": [
        *((3, {"width": w, **_SHALLOW}) for w in (8, 16, 24)),
        (1, {"width": 8, "blocks": (2, 1, 3, 1), "refinement_blocks": 0, "heads": (1, 1, 1, 1)}),
        (3, {"width": 8, **_SHALLOW, "bias": True, "ffn_scale": 1.25}),
        (1, {"width": 12, **_SHALLOW, "heads": (3, 4, 6, 12), "nset": 5, "kernel": 5}),
        (3, {"width": 10, **_SHALLOW, "heads": (2, 5, 10, 4), "group_channels": 5, "kernel": 1}),
        (3, {"width": 8, **_SHALLOW, "ffn_scale": 2.0, "group_channels": 4, "kernel": 7}),
        (1, {"width": 2, **_SHALLOW, "heads": (2, 1, 2, 1), "ffn_scale": 1.0, "group_channels": 1}),
    ],
    "nafnet": [
        *(
            (3, {"width": w, "encoder_blocks": (1,), "middle_blocks": m, "decoder_blocks": (1,)})
            for w, m in ((1, 1), (8, 0), (32, 2), (64, 1))
        ),
        (
            1,
            {
                "width": 4,
                "encoder_blocks": (1, 0, 2),
                "middle_blocks": 0,
                "decoder_blocks": (0, 1, 1),
            },
        ),
        (3, {"width": 6, "encoder_blocks": (0, 0), "decoder_blocks": (0, 0), "middle_blocks": 1}),
        (1, {"width": 5, "encoder_blocks": (0, 11), "decoder_blocks": (1, 0), "middle_blocks": 0}),
        (3, {"width": 2, "encoder_blocks": (1, 1, 1), "decoder_blocks": (0, 0, 1)}),
    ],
    "restormer": [
        *((3, {"width": w, **_SHALLOW}) for w in (8, 16, 24, 48)),
        (3, {"width": 8, **_SHALLOW, "norm": "with-bias"}),
        (1, {"width": 8, "blocks": (2, 1, 3, 1), "refinement_blocks": 0, "heads": (1, 1, 1, 1)}),
        (1, {"width": 8, **_SHALLOW, "bias": True, "norm": "with-bias", "ffn_scale": 1.0}),
        (3, {"width": 10, **_SHALLOW, "heads": (2, 5, 10, 4), "bias": True, "ffn_scale": 0.37}),
        (1, {"width": 2, **_SHALLOW, "heads": (2, 1, 2, 1), "ffn_scale": 3.14159}),
    ],
    "dncnn": [
        (3, {"depth": 5, "width": 6}),
        (1, {"depth": 4, "width": 6, "norm": "none"}),
        (1, {"depth": 2, "width": 6, "norm": "none"}),
        (1, {"depth": 17, "width": 4}),
        (1, {"depth": 20, "width": 4}),
        (3, {"depth": 20, "width": 4, "norm": "none"}),
        (3, {"depth": 3, "width": 1}),
        (5, {"depth": 3, "width": 2, "norm": "none"}),
    ],
    "srresnet": [
        (3, {"width": 6, "blocks": 2, "activation": "prelu"}),
        (1, {"width": 6, "blocks": 11, "activation": "relu"}),
        (3, {"width": 4, "blocks": 1, "activation": "glu"}),
        (1, {"width": 4, "blocks": 2, "block": "bottleneck"}),
        (3, {"width": 4, "blocks": 2, "block": "bottleneck", "norm": "none"}),
        (1, {"width": 5, "blocks": 1, "norm": "instance", "activation": "relu"}),
        (3, {"width": 1, "blocks": 1, "norm": "none", "activation": "glu"}),
        (3, {"width": 4, "blocks": 3, "norm": "instance", "block": "bottleneck"}),
        (2, {"width": 64, "blocks": 1, "norm": "none", "activation": "relu"}),
    ],
    "res-unet": [
        (1, {"width": 4, "widest": 8, "encoder_blocks": (1, 0), "decoder_blocks": (0, 2)}),
        (3, {"width": 4, "widest": 6, "encoder_blocks": (1,), "decoder_blocks": (1,), "fold": 4}),
        (3, {"width": 4, "widest": 4, "encoder_blocks": (0, 0), "decoder_blocks": (0, 1)}),
        (3, {"width": 6, "widest": 9, "encoder_blocks": (1,), "decoder_blocks": (0,), "fold": 1}),
        (1, {"width": 5, "widest": 20, "encoder_blocks": (2, 1), "decoder_blocks": (1, 3)}),
        (1, {"width": 8, "widest": 16, "encoder_blocks": (2,), "decoder_blocks": (1,), "fold": 4}),
        (3, {"width": 4, "widest": 5, "encoder_blocks": (3,), "decoder_blocks": (0,), "fold": 2}),
        (1, {"width": 4, "widest": 7, "encoder_blocks": (0,), "decoder_blocks": (11,), "fold": 1}),
    ],
    "unet": [
        (3, {"width": 4, "levels": 1, "convs": 1}),
        (1, {"width": 4, "levels": 2, "convs": 3, "skip": "add"}),
        (3, {"width": 4, "levels": 2, "down": "pool", "norm": "batch"}),
        (1, {"width": 4, "levels": 3, "down": "pool", "norm": "instance", "skip": "add"}),
        (3, {"width": 6, "levels": 1, "convs": 3, "norm": "batch"}),
        (1, {"width": 5, "levels": 2, "convs": 1, "norm": "instance"}),
        (3, {"width": 3, "levels": 3, "down": "pool", "skip": "add"}),
        (2, {"width": 1, "levels": 1, "convs": 11, "down": "pool", "norm": "batch"}),
    ],
    "drunet": [
        (3, {"width": 4, "levels": 2, "blocks": 1}),
        (1, {"width": 4, "levels": 2, "blocks": 1}),
        (3, {"width": 4, "levels": 1, "blocks": 2, "noise_map": False}),
        (1, {"width": 4, "levels": 3, "blocks": 1, "noise_map": False}),
        (3, {"width": 5, "levels": 1, "blocks": 11}),
        (1, {"width": 16, "levels": 3, "blocks": 2}),
        (2, {"width": 1, "levels": 2, "blocks": 3}),
        (1, {"width": 2, "levels": 1, "blocks": 1}),
    ],
    "pix2pix": [
        (3, {"width": 4, "levels": 3}),
        (1, {"width": 4, "levels": 2, "norm": "instance"}),
        (3, {"width": 4, "levels": 2}),
        (1, {"width": 2, "levels": 5}),
        (3, {"width": 2, "levels": 6, "norm": "instance"}),
        (1, {"width": 2, "levels": 7}),
        (3, {"width": 1, "levels": 8}),
        (2, {"width": 6, "levels": 4, "norm": "instance"}),
    ],
    "tone": [
        (3, {}),
        (1, {"width": 4, "knots": 1}),
        (3, {"width": 5, "knots": 2}),
        (1, {"width": 1, "knots": 3}),
        (4, {"width": 3, "knots": 7}),
        (3, {"width": 8, "knots": 33}),
        (3, {"width": 4, "kind": "affine"}),
        (1, {"width": 2, "kind": "affine"}),
        (2, {"width": 16, "kind": "affine"}),
    ],
    "tone+dncnn": [
        (3, {"depth": 3, "width": 4, "norm": "none"}),
        (1, {"depth": 4, "width": 6, "norm": "batch"}),
        (3, {"depth": 4, "width": 6, "norm": "batch", "tone_width": 4}),
        (1, {"depth": 2, "width": 5, "norm": "none", "tone_width": 1, "tone_knots": 5}),
        (3, {"depth": 3, "width": 4, "norm": "none", "tone_knots": 1, "tone_width": 7}),
        (3, {"depth": 3, "width": 4, "norm": "batch", "tone_kind": "affine"}),
        (1, {"depth": 5, "width": 3, "norm": "none", "tone_kind": "affine", "tone_width": 2}),
        (2, {"depth": 2, "width": 3, "norm": "none", "tone_kind": "affine", "tone_width": 6}),
    ],
}
each_configuration = pytest.mark.parametrize(
    ("name", "channels", "options"),
    [(name, c, options) for name, several in CONFIGURATIONS.items() for c, options in several],
    ids=str,
)


def test_every_model_has_at_least_eight_configurations() -> None:
    assert set(CONFIGURATIONS) >= set(MODELS)
    assert {name: len(c) for name, c in CONFIGURATIONS.items() if len(c) < 8} == {}


@each_configuration
def test_a_saved_model_comes_back_equal(
    name: str, channels: int, options: dict[str, Any], tmp_path: Path, randomised: Any
) -> None:
    model = randomised(build_model(name, channels=channels, **options))
    card = ModelCard(
        model=name, channels=channels, hyperparameters=options, metadata={"seeds": [1]}
    )
    image = _image_for(name, channels, options)

    save_weights(tmp_path / "m.safetensors", model, card=card)
    loaded, found = load_weights(tmp_path / "m.safetensors")

    assert torch.equal(loaded(image), model(image))
    assert not loaded.training
    assert (found.model, found.channels) == (name, channels)
    assert found.hyperparameters == complete_hyperparameters(name, **options)
    assert found.metadata == {"seeds": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@each_configuration
def test_a_model_is_recognised_by_its_tensors(
    name: str, channels: int, options: dict[str, Any], tmp_path: Path, randomised: Any
) -> None:
    model: nn.Module = randomised(build_model(name, channels=channels, **options))
    torch.save({"params": model.state_dict()}, tmp_path / "official.pth")
    image = _image_for(name, channels, options)

    loaded, card = load_weights(tmp_path / "official.pth")

    complete = complete_hyperparameters(name, **options)
    assert torch.equal(loaded(image), model(image))
    found_name, found = detect(model.state_dict())
    assert (found_name, found.channels) == (name, channels)
    scale = card.hyperparameters.get("ffn_scale", 0)  # int() may hide its last digits
    assert dict(card.hyperparameters) == complete | ({"ffn_scale": scale} if scale else {})
    assert card.metadata == {"source": "official.pth"}


def _image_for(name: str, channels: int, options: dict[str, Any]) -> torch.Tensor:
    side = 16 if name != "pix2pix" else 2 ** options.get("levels", 8)
    return torch.rand(1, channels, side, side // 2 if name != "pix2pix" else side)
