"""How a picture is cut, so that it fits into memory and no pixel is restored needlessly."""

import math
from dataclasses import replace

from kbdenoise.config import TileSettings
from kbdenoise.errors import SettingsError
from kbdenoise.imaging.tiles import RAMP, TilePlan, round_up, usual_margin, usual_overlap
from kbdenoise.inference.engines import Restorer

SMALLEST_TILE = 64
_MEMORY_SHARE = 0.4  # of the free memory
_ROW_BYTES = 4 * 3  # of a pixel in the row of tiles that is added up: floats of three channels


def plan_tiles(
    restorer: Restorer, *, height: int, width: int, settings: TileSettings, memory_bytes: float
) -> TilePlan:
    """Whole when the picture fits into its share of memory, else the largest tile that does.

    A tile given in `settings` is taken, rounded up to the network's multiple. The overlap covers
    the receptive field of both neighbours where that is bounded and fits.
    """
    budget = min(_MEMORY_SHARE * memory_bytes, restorer.pace.most_bytes)
    return plan_within(restorer, height=height, width=width, settings=settings, budget=budget)


def plan_within(
    restorer: Restorer, *, height: int, width: int, settings: TileSettings, budget: float
) -> TilePlan:
    """`plan_tiles` for a working memory of `budget` bytes."""
    plan = _cut(restorer, height=height, width=width, settings=settings, budget=budget)
    if restorer.fixed_tile:
        return plan
    pixels = plan.tile**2 or _padded_pixels(restorer, height, width)
    fitting = min(restorer.pace.pixels, budget / restorer.bytes_per_pixel)
    return replace(plan, batch=max(1, int(fitting / pixels)))


def working_bytes(restorer: Restorer, plan: TilePlan, *, height: int, width: int) -> float:
    """Estimated working memory of one call of the restorer."""
    tall, wide = min(plan.tile or height, height), min(plan.tile or width, width)
    pixels = _padded_pixels(restorer, tall, wide)
    return plan.batch * pixels * restorer.bytes_per_pixel


def smallest_tile(restorer: Restorer) -> int:
    """The smallest side, in px, of the tiles of a plan."""
    return restorer.fixed_tile or round_up(SMALLEST_TILE, restorer.multiple)


def _cut(
    restorer: Restorer, *, height: int, width: int, settings: TileSettings, budget: float
) -> TilePlan:
    multiple = restorer.multiple
    if restorer.fixed_tile:
        tile = _fixed(restorer.fixed_tile, settings)
    elif settings.tile:
        tile = round_up(max(settings.tile, SMALLEST_TILE), multiple)
    elif _padded_pixels(restorer, height, width) * restorer.bytes_per_pixel <= budget:
        return TilePlan(tile=0, overlap=0)
    else:
        side = _largest_side(budget, working=restorer.bytes_per_pixel, row=_ROW_BYTES * width)
        tile = max(smallest_tile(restorer), side // multiple * multiple)
    if tile >= max(height, width):
        return TilePlan(tile=0, overlap=0)
    margin = usual_margin(restorer.radius)
    overlap = usual_overlap(restorer.radius, tile=tile, multiple=multiple)
    if settings.overlap >= 0:
        overlap = min(settings.overlap, tile // 2 // multiple * multiple)
    if not (settings.tile or restorer.fixed_tile):
        tile = _evened(tile, overlap=overlap, sides=(height, width), multiple=multiple)
    return TilePlan(
        tile=tile,
        overlap=overlap,
        margin=min(margin, max(0, overlap - RAMP) // 2),
        needed=restorer.radius,
    )


def _fixed(tile: int, settings: TileSettings) -> int:
    """The only tile there is. Raises SettingsError where another one is asked for."""
    if settings.tile not in (0, tile):
        raise SettingsError(
            f"--tile {settings.tile} is not the tile of this package, which takes {tile} px only",
            hint=f"leave out --tile, or export another: kbdenoise export --tile {settings.tile}",
        )
    return tile


def _evened(tile: int, *, overlap: int, sides: tuple[int, int], multiple: int) -> int:
    """The smallest tile that needs no more rows and columns of tiles than `tile` does.

    A picture a little larger than a tile would else be restored nearly four times over.
    """
    shared = -(-overlap // multiple)  # this and what follows count in multiples
    smallest = 2 * shared
    for side in sides:
        whole = -(-side // multiple)
        count = max(1, -(-(whole - shared) // (tile // multiple - shared)))
        smallest = max(smallest, -(-(whole + (count - 1) * shared) // count))
    return min(tile, smallest * multiple)


def _largest_side(budget: float, *, working: float, row: float) -> int:
    """The side s of a tile with working * s**2 + row * s <= budget, in bytes.

    Beside the network's memory for a tile, a row of tiles is held, as tall as one.
    """
    return int((math.sqrt(row**2 + 4 * working * budget) - row) / (2 * working))


def _padded_pixels(restorer: Restorer, height: int, width: int) -> int:
    """Pixels that the network sees of a picture, whose sides are brought to its multiple."""
    if restorer.fixed_tile:
        return restorer.fixed_tile**2
    return round_up(height, restorer.multiple) * round_up(width, restorer.multiple)
