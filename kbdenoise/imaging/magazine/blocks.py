"""What stands in a column: text, headings, pictures, boxes, listings, charts."""

from collections.abc import Callable
from dataclasses import replace

from kbdenoise.imaging.magazine import prose
from kbdenoise.imaging.magazine.house import Sheet, readable
from kbdenoise.imaging.magazine.photographs import photograph
from kbdenoise.imaging.magazine.typesetting import (
    Box,
    break_lines,
    draw_line,
    draw_listing,
    draw_paragraph,
    fill,
)

_BOX_TITLES = ("QUICK TIP", "YOU WILL NEED", "TOP TIP", "WARNING!", "DID YOU KNOW?")


def flow(sheet: Sheet, box: Box) -> None:
    """Fill the columns of a box with blocks, one under the other."""
    columns, gutter = sheet.house.columns, 20
    width = (box.width - gutter * (columns - 1)) // columns
    ruled = sheet.rng.random() < 0.25
    for column in range(columns):
        x = box.x + column * (width + gutter)
        if ruled and column:
            fill(sheet.pixels, Box(x - gutter // 2, box.y, 1, box.height), sheet.tint)
        y = box.y
        while y + 3 * sheet.body.pitch < box.bottom:
            block = _BLOCKS[int(sheet.rng.choice(len(_BLOCKS), p=_BLOCK_SHARES))]
            y = block(sheet, Box(x, y, width, box.bottom - y))


def paste_photograph(sheet: Sheet, box: Box) -> None:
    """Put a part of the sheet's next photograph into a box, which must lie on the page."""
    name = next(sheet.photographs)
    part = photograph(name, width=box.width, height=box.height, rng=sheet.rng)
    sheet.pixels[box.y : box.bottom, box.x : box.right] = part


def _block_text(sheet: Sheet, box: Box) -> int:
    y = box.y
    indent = 0.0
    for _ in range(int(sheet.rng.integers(1, 4))):
        text = prose.paragraph(sheet.rng, sentences=int(sheet.rng.integers(3, 7)))
        room = box.below(y)
        y = draw_paragraph(sheet.pixels, text, box=room, style=sheet.body, indent=indent)
        indent = sheet.body.size
    return y + 8


def _block_subhead(sheet: Sheet, box: Box) -> int:
    accent = readable(sheet.house.accent, sheet.paper)
    style = replace(sheet.body, size=sheet.body.size * 1.3, weight=700, colour=accent)
    y = draw_paragraph(
        sheet.pixels, prose.headline(sheet.rng), box=box.below(box.y + 8), style=style
    )
    return _block_text(sheet, box.below(y + 2))


def _block_photograph(sheet: Sheet, box: Box) -> int:
    height = min(int(box.width * sheet.rng.uniform(0.55, 1.0)), box.height - 30)
    if height < 60:
        return _block_text(sheet, box)
    paste_photograph(sheet, Box(box.x, box.y, box.width, height))
    caption = replace(sheet.body, face="italic", size=sheet.body.size * 0.88)
    room = box.below(box.y + height + 4)
    y = draw_paragraph(sheet.pixels, prose.phrase(sheet.rng) + ".", box=room, style=caption)
    return y + 10


def _block_tip(sheet: Sheet, box: Box) -> int:
    """A tinted box, or a bar at the side, with a bold title."""
    text = prose.paragraph(sheet.rng, sentences=int(sheet.rng.integers(2, 5)))
    lines = break_lines(text, width=box.width - 32, style=sheet.body)
    height = min(box.height, (len(lines) + 2) * sheet.body.pitch + 24)
    panel = Box(box.x, box.y, box.width, height)
    if sheet.rng.random() < 0.3:
        fill(sheet.pixels, panel._replace(width=9), sheet.tint)
        paper = sheet.paper
    else:
        paper = sheet.tint if sheet.rng.random() < 0.7 else sheet.house.second
        fill(sheet.pixels, panel, paper)
        if sheet.rng.random() < 0.5:
            fill(sheet.pixels, Box(panel.right - 12, panel.y, 12, height), sheet.house.accent)
    inner = Box(panel.x + 16, panel.y + 12, panel.width - 36, height - 16)
    ink = readable(sheet.ink, paper)
    title = replace(sheet.body, weight=800, size=sheet.body.size * 1.15, colour=ink)
    heading = _BOX_TITLES[int(sheet.rng.integers(len(_BOX_TITLES)))]
    y = draw_paragraph(sheet.pixels, heading, box=inner, style=title)
    style = replace(sheet.body, colour=ink)
    draw_paragraph(sheet.pixels, text, box=inner.below(y), style=style)
    return panel.bottom + 14


def _block_quote(sheet: Sheet, box: Box) -> int:
    style = replace(
        sheet.body,
        face="italic",
        size=sheet.body.size * 1.6,
        weight=300,
        colour=readable(sheet.house.second, sheet.paper),
        leading=1.2,
    )
    fill(sheet.pixels, Box(box.x, box.y + 4, box.width, 2), sheet.house.accent)
    text = prose.sentence(sheet.rng)
    y = draw_paragraph(sheet.pixels, text, box=box.below(box.y + 12), style=style)
    fill(sheet.pixels, Box(box.x, min(y + 4, box.bottom), box.width, 2), sheet.house.accent)
    return y + 18


def _block_listing(sheet: Sheet, box: Box) -> int:
    """A program, on a tint or on black."""
    dark = sheet.rng.random() < 0.4
    paper = (0.12, 0.13, 0.15) if dark else sheet.tint
    style = replace(
        sheet.body, face="humanist", size=12.5, width=0.95, weight=400, leading=1.3,
        colour=readable(sheet.ink, paper),
    )  # fmt: skip
    rows = int(sheet.rng.integers(6, 18))
    height = min(rows * style.pitch + 20, box.height)
    fill(sheet.pixels, Box(box.x, box.y, box.width, height), paper)
    lines = [prose.code_line(sheet.rng) for _ in range(rows)]
    inner = Box(box.x, box.y, box.width, height).inset(10)
    draw_listing(sheet.pixels, lines, box=inner, style=style)
    return box.y + height + 12


def _block_chart(sheet: Sheet, box: Box) -> int:
    """A bar chart with a scale."""
    height = min(int(box.width * 0.6), box.height - 20)
    if height < 80:
        return _block_text(sheet, box)
    panel = Box(box.x, box.y, box.width, height)
    fill(sheet.pixels, panel, sheet.tint)
    bars = int(sheet.rng.integers(4, 9))
    pitch = (panel.width - 40) / bars
    label = replace(sheet.body, size=10.0, weight=400, colour=readable(sheet.ink, sheet.tint))
    for line in range(1, 5):
        y = panel.bottom - 20 - line * (height - 40) // 4
        fill(sheet.pixels, Box(panel.x + 28, y, panel.width - 36, 1), sheet.paper)
        draw_line(sheet.pixels, str(line * 25), x=panel.x + 6, baseline=y + 4, style=label)
    for bar in range(bars):
        length = int((height - 40) * sheet.rng.uniform(0.1, 1.0))
        colour = sheet.house.accent if bar % 2 else sheet.house.second
        x = panel.x + 32 + int(bar * pitch)
        fill(sheet.pixels, Box(x, panel.bottom - 20 - length, int(pitch * 0.7), length), colour)
    return panel.bottom + 14


_BLOCKS: tuple[Callable[[Sheet, Box], int], ...] = (
    _block_text,
    _block_subhead,
    _block_photograph,
    _block_tip,
    _block_quote,
    _block_listing,
    _block_chart,
)
_BLOCK_SHARES = (0.30, 0.22, 0.20, 0.12, 0.05, 0.06, 0.05)
