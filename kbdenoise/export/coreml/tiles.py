"""The tiles that an exported network is tried on: a scanned page, white, and black."""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.luma import luma
from kbdenoise.imaging.magazine.house import draw_house
from kbdenoise.imaging.magazine.pages import draw_page
from kbdenoise.imaging.scanner import draw_scanner, print_and_scan
from kbdenoise.imaging.thumbnail import thumbnail
from kbdenoise.models.spec import PAGE_SIDE

Images = tuple[Tensor, ...]
"""The picture [1, C, tile, tile] and, for a network that sees the page, its thumbnail."""


def trial_tiles(*, channels: int, tile: int, sees_page: bool) -> Mapping[str, Images]:
    """By name: part of a page printed and scanned by simulation, and two constant ones.

    Constants tell whether a norm divides zero by zero. Values are those of half precision, so that
    reading them costs no accuracy.
    """
    page = _scanned_page()
    page = page if channels == 3 else luma(page)[..., None]
    seen = [_tile(page, tile), *([thumbnail(page, side=PAGE_SIDE)] if sees_page else [])]
    scan = tuple(_tensor(image) for image in seen)
    return {
        "page": scan,
        "white": tuple(torch.ones_like(image) for image in scan),
        "black": tuple(torch.zeros_like(image) for image in scan),
    }


@cache
def _scanned_page() -> FloatImage:
    rng = np.random.default_rng(0)
    clean = draw_page(draw_house("TinkerPost", rng), number=7, rng=rng)
    return print_and_scan(clean, back=None, scanner=draw_scanner(rng), rng=rng)


def _tile(page: FloatImage, tile: int) -> FloatImage:
    """The middle of the page; the page mirrored at its border where a tile is larger."""
    short = [max(0, tile - side) for side in page.shape[:2]]
    page = np.pad(page, ((0, short[0]), (0, short[1]), (0, 0)), mode="symmetric")
    top, left = ((side - tile) // 2 for side in page.shape[:2])
    return page[top : top + tile, left : left + tile]


def _tensor(image: FloatImage) -> Tensor:
    """[H, W, C] -> [1, C, H, W], rounded to half precision."""
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return planes.half().float().contiguous()
