"""Weights files of tiny networks with weights drawn at random."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.models.build import build_model
from kbdenoise.models.weights import ModelCard, save_weights

SaveTiny = Callable[..., Path]


@contextmanager
def full_disk(*, after_bytes: int = 1000) -> Iterator[None]:
    """No file that is written here may become longer."""
    resource = pytest.importorskip("resource", reason="limits of files are for Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def save_tiny(tmp_path: Path) -> SaveTiny:
    """A function that writes the weights of a network, none of which keeps its first value."""

    def save(name: str, *, channels: int = 3, **options: Any) -> Path:
        generator = torch.Generator().manual_seed(11)
        model = build_model(name, channels=channels, **options)
        with torch.no_grad():
            for p in model.parameters():
                fan = p[0].numel() if p.ndim == 4 and p.shape[0] > 1 else 1
                p.copy_(0.7 * torch.randn(p.shape, generator=generator) * fan**-0.5)
        path = tmp_path / f"{name}.safetensors"
        card = ModelCard(model=name, channels=channels, hyperparameters=options)
        save_weights(path, model, card=card)
        return path

    return save
