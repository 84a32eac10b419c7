"""Toy networks with weights that no result is right without."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kbdenoise.config import ExportSettings
from kbdenoise.export.source import Source, source_of
from kbdenoise.models.build import build_model
from kbdenoise.models.weights import ModelCard, save_weights
from tests.models.conftest import Randomise
from tests.models.conftest import randomised as randomised

_U = {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (0,), "middle_blocks": 0}
_T = {"width": 4, "blocks": (1, 1, 1, 1), "refinement_blocks": 0, "heads": (1, 1, 2, 2)}
TOYS: dict[str, dict[str, Any]] = {
    "dncnn": {"depth": 3, "width": 8},
    "drunet": {"width": 8, "levels": 1, "blocks": 1},
    "kbnet-l": {**_T, "nset": 4, "kernel": 1},
    "kbnet-s": _U,
    "nafnet": _U,
    "pix2pix": {"width": 4, "levels": 2},
    "res-unet": {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,)},
    "restormer": _T,
    "srresnet": {"width": 8, "blocks": 1},
    "tone": {"width": 4},
    "tone+res-unet": {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,), "tone_width": 4},
    "unet": {"width": 8, "levels": 1, "down": "pool", "norm": "batch"},
}
"""The smallest of every architecture; the check of every one takes it from here."""

_LAST = ("ending", "tail", "output", "m_tail", "model.5", "curve", "affine")

Toy = Callable[..., nn.Module]
ToySource = Callable[..., Source]


@pytest.fixture(scope="session")
def toy(randomised: Randomise) -> Toy:
    """A function that makes a toy network in evaluation mode.

    All weights are drawn, and those of a last layer made smaller, so that results are no pictures
    far beyond [0, 1]: they are multiplied by `last`.
    """

    def make(
        name: str, /, *, channels: int = 3, last: float = 0.1, **hyperparameters: Any
    ) -> nn.Module:
        model = build_model(name, channels=channels, **(hyperparameters or TOYS[name]))
        randomised(model)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.removeprefix("restorer.").removeprefix("tone.").startswith(_LAST):
                    parameter.mul_(last)
        return model

    return make


@pytest.fixture
def library() -> None:
    """coremltools, where there is one for the system."""
    if find_spec("coremltools") is None:
        pytest.skip("coremltools is not installed: it is there for macOS and Linux on x86-64")


@pytest.fixture
def toy_source(toy: Toy, tmp_path: Path, library: None) -> ToySource:
    """A function that saves a toy and makes it ready for export; a tile of 32 px is quick."""

    def make(
        name: str,
        /,
        *,
        tile: int = 32,
        precision: str = "fp16",
        last: float = 0.1,
        **numbers: Any,
    ) -> Source:
        numbers = numbers or TOYS[name]
        weights = tmp_path / f"{name}.safetensors"
        card = ModelCard(model=name, channels=3, hyperparameters=numbers)
        save_weights(weights, toy(name, last=last, **numbers), card=card)
        source = source_of(weights, settings=ExportSettings(format="coreml"))
        return source.saying(tile=tile, precision=precision)

    return make
