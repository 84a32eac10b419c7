"""Everything about one model with its hyper-parameters chosen: its work, its memory, its parts."""

from dataclasses import dataclass
from typing import Any

from kbdenoise.models.blank import on_meta
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.memory import TrainingMemory, restoring_bytes, training_memory
from kbdenoise.models.outline import Layer, outline
from kbdenoise.models.spec import ModelInfo

_LARGE = 1024  # px: a picture of this side needs next to nothing that does not grow with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """What `kbdenoise models show` shows."""

    info: ModelInfo
    patch: int
    """Side of a training patch in px, a multiple of the model's own."""
    batch: int
    amp: bool
    training_memory: TrainingMemory
    restoring_bytes_per_mpix: int
    layers: tuple[Layer, ...]


def portray(
    name: str,
    /,
    *,
    channels: int = 3,
    side: int = 256,
    patch: int = 128,
    batch: int = 8,
    amp: bool = True,
    every_layer: bool = False,
    **hyperparameters: Any,
) -> Portrait:
    """Describe a model without spending memory on it.

    `side` in px is the square image that work is counted for; `patch` in px, `batch` and `amp`
    (mixed precision) are what training memory is estimated for. Sides are rounded up to the
    model's multiple. Raises SettingsError as `build_model` does.
    """
    info = describe_model(name, channels=channels, side=side, **hyperparameters)
    with on_meta():
        model = build_model(name, channels=channels, **info.hyperparameters)
    patch, large = (-(-px // info.multiple) * info.multiple for px in (patch, _LARGE))
    parts = outline(model.eval(), channels=channels, side=info.macs_side, whole=every_layer)
    restoring = restoring_bytes(model, channels=channels, side=large, amp=amp)
    return Portrait(
        info=info,
        patch=patch,
        batch=batch,
        amp=amp,
        training_memory=training_memory(
            model, channels=channels, patch=patch, batch=batch, amp=amp
        ),
        restoring_bytes_per_mpix=round(restoring * 1e6 / large**2),
        layers=parts,
    )
