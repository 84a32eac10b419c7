"""What the tests of training share."""

from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture
def vgg(tmp_path: Path) -> Path:
    """A file of random VGG-16 weights, as far as they are used."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    widths = [3, 64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512]
    inputs = 3
    for width in widths[1:]:
        layers += [nn.Conv2d(inputs, width, 3), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        inputs = width or inputs
    torch.save(nn.ModuleDict({"features": nn.Sequential(*layers)}).state_dict(), tmp_path / "v.pth")
    return tmp_path / "v.pth"
