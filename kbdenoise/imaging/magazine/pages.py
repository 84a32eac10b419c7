"""Whole pages: a background, a layout, columns of blocks, a page number.

The same generator state gives the same page, with the same versions of OpenCV, Pillow and
scikit-image.
"""

from dataclasses import replace
from itertools import cycle

import numpy as np

from kbdenoise.imaging.files import FloatImage
from kbdenoise.imaging.magazine import prose
from kbdenoise.imaging.magazine.blocks import flow, paste_photograph
from kbdenoise.imaging.magazine.house import BLACK, WHITE, House, Sheet, mix, readable
from kbdenoise.imaging.magazine.photographs import PHOTOGRAPHS
from kbdenoise.imaging.magazine.typesetting import (
    Box,
    Colour,
    break_lines,
    draw_line,
    draw_paragraph,
    fill,
    text_width,
)

_CHARCOAL: Colour = (0.16, 0.16, 0.17)
PAGE_HEIGHT, PAGE_WIDTH = 1088, 704
"""Room for two crops of 512x512 one above the other, at the contest's scale."""


def draw_page(house: House, *, number: int, rng: np.random.Generator) -> FloatImage:
    """A clean page: float32 RGB [PAGE_HEIGHT, PAGE_WIDTH, 3] in [0, 1]."""
    sheet = _blank_sheet(house, rng)
    margin = int(rng.integers(34, 52))
    live = Box(margin, 56, PAGE_WIDTH - 2 * margin, PAGE_HEIGHT - 56 - 60)
    layout = _LAYOUTS[int(rng.choice(len(_LAYOUTS), p=_LAYOUT_SHARES))]
    layout(sheet, live)
    _draw_furniture(sheet, live, number)
    return sheet.pixels


def _draw_article(sheet: Sheet, live: Box) -> None:
    """Headline across the page, standfirst, columns."""
    y = _draw_headline(sheet, live)
    standfirst = replace(sheet.body, size=sheet.house.body.size * 1.35, weight=300)
    text = prose.paragraph(sheet.rng, sentences=2)
    y = draw_paragraph(sheet.pixels, text, box=live.below(y), style=standfirst)
    flow(sheet, live.below(y + 16))


def _draw_columns(sheet: Sheet, live: Box) -> None:
    """A page from the middle of an article: nothing but columns."""
    flow(sheet, live)


def _draw_feature(sheet: Sheet, live: Box) -> None:
    """A photograph to the edges with a headline on a panel, columns below or above it."""
    height = int(sheet.rng.integers(330, 700))
    at_top = bool(sheet.rng.random() < 0.7)
    top = 0 if at_top else PAGE_HEIGHT - height
    paste_photograph(sheet, Box(0, top, PAGE_WIDTH, height))
    panel_top = top + int(sheet.rng.integers(60, height - 180))
    panel = Box(0, panel_top, int(sheet.rng.integers(400, 620)), 130)
    dark = bool(sheet.rng.random() < 0.4)
    fill(sheet.pixels, panel, sheet.house.accent if dark else WHITE)
    style = replace(sheet.house.heading, colour=WHITE if dark else BLACK)
    text = prose.headline(sheet.rng)
    lines = break_lines(text, width=panel.width - 60, style=style)[:2]
    y = panel.y + (panel.height - len(lines) * style.pitch) // 2
    draw_paragraph(
        sheet.pixels, " ".join(lines), box=Box(30, y, panel.width - 60, 130), style=style
    )
    if at_top:
        flow(sheet, live.below(height + 24))
    else:
        flow(sheet, live._replace(height=top - 24 - live.y))


def _draw_catalogue(sheet: Sheet, live: Box) -> None:
    """Rows of small photographs with captions and prices."""
    y = _draw_headline(sheet, live)
    across = int(sheet.rng.integers(2, 4))
    gap = 18
    width = (live.width - gap * (across - 1)) // across
    height = width + 70
    while y + height < live.bottom:
        for column in range(across):
            cell = Box(live.x + column * (width + gap), y, width, height)
            fill(sheet.pixels, cell, sheet.tint)
            paste_photograph(sheet, Box(cell.x, cell.y, width, width - 60))
            label = replace(sheet.body, weight=600)
            price = f"£{int(sheet.rng.integers(2, 90))}"
            box = Box(cell.x + 10, cell.y + width - 50, width - 20, 110)
            below = draw_paragraph(sheet.pixels, prose.phrase(sheet.rng), box=box, style=label)
            below = draw_paragraph(
                sheet.pixels, prose.sentence(sheet.rng), box=box.below(below), style=sheet.body
            )
            draw_paragraph(
                sheet.pixels,
                price,
                box=box.below(below),
                style=replace(label, colour=readable(sheet.house.accent, sheet.tint)),
            )
        y += height + gap
    flow(sheet, live.below(y))


_LAYOUTS = (_draw_article, _draw_columns, _draw_feature, _draw_catalogue)
_LAYOUT_SHARES = (0.34, 0.32, 0.22, 0.12)


def _draw_headline(sheet: Sheet, box: Box) -> int:
    colour = sheet.ink if sheet.rng.random() < 0.6 else readable(sheet.house.accent, sheet.paper)
    style = replace(sheet.house.heading, colour=colour)
    y = draw_paragraph(sheet.pixels, prose.headline(sheet.rng), box=box, style=style)
    if sheet.rng.random() < 0.5:
        fill(sheet.pixels, Box(box.x, y + 4, box.width, 3), sheet.house.accent)
    return y + 18


def _draw_furniture(sheet: Sheet, live: Box, number: int) -> None:
    """Running title, page number, and the rules that go with them."""
    small = replace(sheet.body, size=11.5, weight=400, width=1.0)
    baseline = PAGE_HEIGHT - 24
    strip = sheet.pixels[baseline - 12 : baseline + 4]
    backdrop: Colour = tuple(float(v) for v in strip.mean(axis=(0, 1)))  # type: ignore[assignment]
    colour = readable(sheet.ink, backdrop)
    draw_line(
        sheet.pixels,
        sheet.house.title,
        x=live.x,
        baseline=baseline,
        style=replace(small, colour=colour),
    )
    folio = replace(small, size=15.0, weight=800, colour=colour)
    x = live.right - text_width(str(number), folio)
    draw_line(sheet.pixels, str(number), x=x, baseline=baseline, style=folio)
    fill(sheet.pixels, Box(live.right - 24, 34, 24, 2), sheet.house.accent)


def _blank_sheet(house: House, rng: np.random.Generator) -> Sheet:
    """Mostly white, at times tinted, in a full colour, or dark."""
    kind = rng.choice(["white", "tinted", "full", "dark"], p=[0.66, 0.16, 0.07, 0.11])
    if kind == "dark":
        paper = mix(_CHARCOAL, house.accent, rng.uniform(0.0, 0.25))
        ink, tint = mix(WHITE, paper, 0.04), mix(paper, WHITE, rng.uniform(0.08, 0.2))
    elif kind == "full":
        paper = mix(house.accent, BLACK, rng.uniform(0.0, 0.3))
        ink, tint = WHITE, mix(paper, BLACK, 0.3)
    else:
        paper = WHITE if kind == "white" else mix(WHITE, house.second, rng.uniform(0.05, 0.2))
        shade = BLACK if rng.random() < 0.5 else house.accent
        ink = mix(BLACK, WHITE, float(rng.choice([0.0, 0.0, 0.12])))
        tint = mix(paper, shade, rng.uniform(0.08, 0.2))
    row = np.tile(np.array(paper, dtype=np.float32), PAGE_WIDTH)
    pixels = np.tile(row, (PAGE_HEIGHT, 1)).reshape(PAGE_HEIGHT, PAGE_WIDTH, 3)
    order = [str(name) for name in rng.permutation(list(PHOTOGRAPHS))]
    return Sheet(
        pixels=pixels,
        house=house,
        rng=rng,
        paper=paper,
        ink=ink,
        tint=tint,
        photographs=cycle(order),
    )
