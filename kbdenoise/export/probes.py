"""Tiles that a package is checked with: what pages look like, and what trips arithmetic up."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kbdenoise.export.formats import Check
from kbdenoise.export.source import Source
from kbdenoise.models.spec import PAGE_SIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A named batch of tiles [B, C, H, W] in [0, 1], with its thumbnails where they are wanted."""

    name: str
    inputs: tuple[Tensor, ...]


def probes(source: Source, *, sides: Sequence[tuple[int, int]], batch: int = 1) -> Iterator[Probe]:
    """A textured tile of each size (height, width) in px, then a constant and a black one."""
    for number, (height, width) in enumerate(sides):
        textured = torch.cat(
            [_texture(height, width, source.info.channels, seed=number + b) for b in range(batch)]
        )
        yield _probe(f"textured {width}x{height} px", textured, source)
    constant = torch.full((1, source.info.channels, *sides[0]), 0.7)
    yield _probe("constant", constant, source)
    yield _probe("black", torch.zeros_like(constant), source)


def compared(
    answer: Callable[[tuple[Tensor, ...]], Tensor],
    source: Source,
    tiles: Iterator[Probe],
    *,
    rms_limit: float,
    peak_limit: float,
) -> tuple[Check, ...]:
    """Figures of a package's `answer` against torch in float64, as shares of the image's range.

    The range is 1, or the reference's largest value where that is more.
    """
    wide = deepcopy(source.model).double()
    checks = []
    for tile in tiles:
        with torch.inference_mode():
            expected = wide(*(t.double() for t in tile.inputs))
        found = answer(tile.inputs).double()
        if found.shape != expected.shape:
            return (Check(name=f"shape of {tile.name}", figure=float("nan"), limit=0.0),)
        scale = max(1.0, float(expected.abs().max()))
        error = (found - expected) / scale
        rms = float(error.square().mean().sqrt())
        checks += [
            Check(name=f"{tile.name}, rms error", figure=rms, limit=rms_limit),
            Check(
                name=f"{tile.name}, largest error",
                figure=float(error.abs().max()),
                limit=peak_limit,
            ),
        ]
    return tuple(checks)


def _probe(name: str, image: Tensor, source: Source) -> Probe:
    if not source.info.sees_page:
        return Probe(name=name, inputs=(image,))
    return Probe(name=name, inputs=(image, F.adaptive_avg_pool2d(image, PAGE_SIDE)))


def _texture(height: int, width: int, channels: int, *, seed: int) -> Tensor:
    """Tinted paper, soft blobs of colour, lines as sharp as print, and grain: [1, C, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 5, 5, generator=generator)
    page = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    rows = torch.arange(height)[:, None] // 3 + torch.arange(width)[None] // 7
    printed = (rows % 5 == 0) & (torch.rand(height, width, generator=generator) < 0.8)
    page = torch.where(printed, 0.15 * page, 0.3 + 0.7 * page)
    grain = torch.randn(1, channels, height, width, generator=generator)
    return (page + 0.06 * grain).clamp(0, 1)
