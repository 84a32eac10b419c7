from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.imaging.magazine import typesetting as t

BODY = t.Style(face="upright", size=14.0, colour=(0.0, 0.0, 0.0))
TEXT = "The quiet lathe turns a brass hinge, and nothing else is needed on the lower shelf."


def blank(height=120, width=200):
    return np.ones((height, width, 3), dtype=np.float32)


@pytest.fixture
def opencv_4(monkeypatch):
    """OpenCV as it was before FontFace."""
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    t.faces.cache_clear()
    t._word.cache_clear()
    yield
    monkeypatch.undo()
    t.faces.cache_clear()
    t._word.cache_clear()


def test_there_are_at_least_three_faces_that_differ():
    drawn = {paint("Quick", 40, 400).tobytes() for paint in t.faces().values()}

    assert len(drawn) >= 3


def test_every_face_has_something_to_draw_for_every_character_we_print():
    for name, paint in t.faces().items():
        missing = paint("\u0378", 40, 400)
        for character in "AZaz059.,:%()-\u2019\u201c\u201d\u2013£#=>":
            drawn = paint(character, 40, 400)
            assert drawn.max() > 100, (name, character)
            assert not np.array_equal(drawn, missing), (name, character)


@pytest.mark.parametrize("face", ["upright", "italic", "humanist", "geometric"])
def test_letters_stand_on_the_base_line(face):
    strip = t.faces()[face]("HIT", 60, 400)
    rows = np.nonzero((strip > 128).any(axis=1))[0]

    assert abs(rows.max() + 1 - t.BASELINE * 60) <= 3
    assert rows.min() > 0


@pytest.mark.parametrize("face", ["upright", "italic", "geometric"])
def test_a_heavier_weight_has_more_ink(face):
    paint = t.faces()[face]

    assert paint("Workshop", 60, 800).sum() > 1.15 * paint("Workshop", 60, 400).sum()


def test_without_font_faces_the_pages_are_set_in_strokes(opencv_4):
    page = blank()

    below = t.draw_paragraph(page, TEXT, box=t.Box(10, 10, 180, 100), style=BODY)

    assert below > 30
    assert (page < 0.3).any()
    assert len({paint("Quick", 40, 400).tobytes() for paint in t.faces().values()}) >= 3


@given(width=st.integers(60, 400), indent=st.integers(0, 40), size=st.floats(9.0, 20.0))
@settings(max_examples=30, deadline=None)
def test_lines_fit_the_column_and_keep_every_word(width, indent, size):
    style = replace(BODY, size=size)

    lines = t.break_lines(TEXT, width=width, style=style, indent=indent)

    assert " ".join(lines) == TEXT
    for number, line in enumerate(lines):
        taken = indent if number == 0 else 0
        assert " " not in line or taken + t.text_width(line, style) <= width


def test_the_measured_width_is_the_drawn_width():
    page = blank(60, 600)

    t.draw_line(page, "Measure twice, cut once", x=20, baseline=40, style=BODY)

    columns = np.nonzero((page < 0.8).any(axis=(0, 2)))[0]
    assert columns.min() == pytest.approx(20, abs=2)
    assert columns.max() == pytest.approx(20 + t.text_width("Measure twice, cut once", BODY), abs=3)


def test_a_paragraph_stays_in_its_box_and_tells_where_it_ends():
    page = blank(300, 300)
    box = t.Box(50, 40, 160, 180)

    below = t.draw_paragraph(page, TEXT, box=box, style=BODY)

    inked = (page < 0.9).any(axis=2)
    rows, columns = np.nonzero(inked)
    assert box.y <= rows.min()
    assert rows.max() < below <= box.bottom
    assert box.x - 1 <= columns.min()
    assert columns.max() <= box.right + 1


def test_a_paragraph_stops_where_its_box_is_full():
    page = blank(300, 300)

    below = t.draw_paragraph(page, TEXT * 5, box=t.Box(10, 10, 100, 50), style=BODY)

    assert below <= 60
    assert np.array_equal(page[64:], blank(236, 300))


@given(x=st.integers(-300, 300), baseline=st.integers(-60, 200))
@settings(max_examples=40, deadline=None)
def test_text_may_run_off_the_page_on_any_side(x, baseline):
    page, wide = blank(), blank(520, 1000)

    t.draw_line(page, "Off the edge", x=x, baseline=baseline, style=BODY)
    t.draw_line(wide, "Off the edge", x=x + 400, baseline=baseline + 200, style=BODY)

    assert np.array_equal(page, wide[200:320, 400:600])


def test_text_takes_its_colour_where_ink_is_full():
    page = blank()
    style = replace(BODY, size=60.0, weight=900, colour=(0.8, 0.1, 0.3))

    t.draw_line(page, "I", x=20, baseline=80, style=style)

    darkest = page.reshape(-1, 3)[page.sum(axis=2).argmin()]
    assert darkest == pytest.approx(style.colour, abs=1e-5)


def test_code_keeps_one_pitch_and_its_indentation():
    narrow, indented = blank(), blank()

    t.draw_listing(narrow, ["if x:"], box=t.Box(10, 10, 180, 30), style=BODY)
    t.draw_listing(indented, ["    if x:"], box=t.Box(10, 10, 180, 30), style=BODY)

    first = [np.nonzero((page < 0.8).any(axis=(0, 2)))[0].min() for page in (narrow, indented)]
    assert first[1] - first[0] == pytest.approx(4 * 0.6 * BODY.size, abs=1)


def test_fill_leaves_out_what_lies_outside_the_page():
    page = blank(50, 50)

    t.fill(page, t.Box(-10, 40, 20, 30), (0.0, 0.5, 1.0))

    assert np.allclose(page[40:, :10], (0.0, 0.5, 1.0))
    assert (page == 1.0).all(axis=2).sum() == 50 * 50 - 100
