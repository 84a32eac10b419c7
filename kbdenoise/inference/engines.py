"""What runs a model: one protocol, so that tiles, blending and files do not care which engine.

The torch engine is here; others only need to offer the same `Restorer`, and an entry in
`packages.ENGINES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from kbdenoise.devices import DeviceChoice
from kbdenoise.imaging.files import FloatImage
from kbdenoise.models.build import channels_last, laid_out
from kbdenoise.models.network import load_network, working_bytes_per_pixel
from kbdenoise.models.spec import ModelInfo
from kbdenoise.models.weights import ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a device is kept busy."""

    pixels: int
    """Pixels of one call, below which it is not full: smaller pictures go together."""
    most_bytes: float
    """Working memory of one call, above which nothing is gained."""
    beside_host: bool = False
    """Whether it computes while the host does something else."""


PACES: Mapping[str, Pace] = {
    "cpu": Pace(pixels=256**2, most_bytes=512 * 1024**2),
    "mps": Pace(pixels=1024**2, most_bytes=2 * 1024**3, beside_host=True),
    "cuda": Pace(pixels=2048**2, most_bytes=8 * 1024**3, beside_host=True),
}
"""The CPU's figures were measured, the others are estimates."""


class Restorer(Protocol):
    """Anything that restores a batch of equally sized pictures."""

    @property
    def channels(self) -> int:
        """1 for luma, 3 for RGB."""

    @property
    def multiple(self) -> int:
        """Sides of a batch must be multiples of this, in pixels."""

    @property
    def radius(self) -> int | None:
        """How far, in pixels, an output pixel sees; None means the whole picture."""

    @property
    def bytes_per_pixel(self) -> float:
        """Estimated working memory for one pixel of input, in bytes."""

    @property
    def sees_page(self) -> bool:
        """Whether it wants a thumbnail of the whole picture beside each part of it."""

    @property
    def pace(self) -> Pace:
        """How its device is kept busy."""

    @property
    def fixed_tile(self) -> int | None:
        """The only side, in px, that it takes, one tile at a time; None: any multiple."""

    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        """Restore float32 [B, H, W, C] in [0, 1]; the result is not clipped.

        `page` [B, PAGE_SIDE, PAGE_SIDE, C] is the thumbnail of what `noisy` was cut from, given
        to those that want one; None means that `noisy` is all there is.
        """


class TorchRestorer:
    """A torch model on a device, behind the Restorer protocol."""

    fixed_tile = None

    def __init__(self, model: nn.Module, *, info: ModelInfo, device: DeviceChoice) -> None:
        self.model = laid_out(model.to(device.kind), name=info.name, device=device.kind).eval()
        self.info = info
        self.device = device
        self.bytes_per_pixel = working_bytes_per_pixel(self.model, info)
        self.pace = PACES[device.kind]

    @property
    def channels(self) -> int:
        """1 for luma, 3 for RGB."""
        return self.info.channels

    @property
    def multiple(self) -> int:
        """Sides of a batch must be multiples of this, in pixels."""
        return self.info.multiple

    @property
    def radius(self) -> int | None:
        """How far, in pixels, an output pixel sees; None means the whole picture."""
        return self.info.receptive_field

    @property
    def sees_page(self) -> bool:
        """Whether it wants a thumbnail of the whole picture beside each part of it."""
        return self.info.sees_page

    @torch.inference_mode()
    def __call__(self, noisy: FloatImage, page: FloatImage | None = None) -> FloatImage:
        """Restore float32 [B, H, W, C] in [0, 1]; the result is not clipped."""
        images = [noisy] if page is None else [noisy, page]
        with self.device.mixed_precision():
            restored = self.model(*(self._sent(image) for image in images))  # [B, C, H, W]
        # Reordered on the device; channels side by side are in this order already.
        answer: FloatImage = restored.permute(0, 2, 3, 1).float().contiguous().cpu().numpy()
        return answer

    def _sent(self, images: FloatImage) -> torch.Tensor:
        """[B, H, W, C] -> [B, C, H, W] on the device, in the memory order that it wants."""
        planes = torch.from_numpy(images).to(self.device.kind).permute(0, 3, 1, 2)
        beside = channels_last(self.info.name, device=self.device.kind)
        return planes if beside else planes.contiguous()


def load_restorer(
    weights: Path, *, device: DeviceChoice, hyperparameters: Mapping[str, Any] | None = None
) -> tuple[TorchRestorer, ModelCard]:
    """A restorer from a weights file, which `load_network` reads."""
    model, info, card = load_network(weights, hyperparameters)
    return TorchRestorer(model, info=info, device=device), card
