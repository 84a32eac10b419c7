import numpy as np
import pytest

from kbdenoise.imaging.magazine import pages, photographs
from kbdenoise.imaging.magazine.house import BLACK, WHITE, draw_house, readable
from kbdenoise.imaging.magazine.pages import PAGE_HEIGHT, PAGE_WIDTH, draw_page
from kbdenoise.imaging.magazine.prose import headline, paragraph, sentence


def rng(seed=0):
    return np.random.default_rng(seed)


def page(seed, title="QuietLathe"):
    return draw_page(draw_house(title, rng(seed)), number=12, rng=rng(seed))


@pytest.mark.parametrize("seed", range(8))
def test_a_page_is_an_image_with_something_on_it(seed):
    drawn = page(seed)

    assert drawn.shape == (PAGE_HEIGHT, PAGE_WIDTH, 3)
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0
    assert drawn.std() > 0.05


def test_a_page_repeats_with_its_seed_and_only_with_it():
    assert np.array_equal(page(1), page(1))
    assert not np.array_equal(page(1), page(2))


def test_pages_come_white_tinted_and_dark():
    house = draw_house("QuietLathe", rng())
    papers = np.array([pages._blank_sheet(house, rng(seed)).paper for seed in range(60)])

    assert 30 < (papers.min(axis=1) == 1.0).sum() < 55
    assert ((papers.min(axis=1) > 0.7) & (papers.min(axis=1) < 1.0)).any()
    assert (papers.max(axis=1) < 0.5).any()


def test_pages_of_one_house_share_its_look():
    assert draw_house("QuietLathe", rng(3)) == draw_house("QuietLathe", rng(3))
    assert draw_house("QuietLathe", rng(3)) != draw_house("QuietLathe", rng(4))


def test_two_crops_of_512_fit_one_above_the_other():
    assert PAGE_HEIGHT >= 2 * 512
    assert PAGE_WIDTH >= 512


@pytest.mark.parametrize("name", photographs.PHOTOGRAPHS)
def test_every_photograph_is_in_the_wheel_and_fills_any_box(name):
    part = photographs.photograph(name, width=211, height=77, rng=rng())

    assert (photographs._photograph_folder() / name).is_file()
    assert part.shape == (77, 211, 3)
    assert part.dtype == np.float32
    assert 0.0 <= part.min() < part.max() <= 1.0


def test_a_missing_photograph_is_replaced_by_a_gradient(monkeypatch, tmp_path):
    monkeypatch.setattr(photographs, "_photograph_folder", lambda: tmp_path)

    part = photographs.photograph("coffee.png", width=30, height=20, rng=rng())

    assert part.shape == (20, 30, 3)
    assert 0.0 <= part.min() < part.max() <= 1.0


def test_ink_that_would_not_show_becomes_black_or_white():
    red = (0.8, 0.1, 0.1)

    assert readable(red, WHITE) == red
    assert readable(red, (0.5, 0.3, 0.3)) == WHITE
    assert readable(WHITE, (0.9, 0.9, 0.8)) == BLACK


def test_sentences_look_like_sentences():
    texts = [sentence(rng(seed)) for seed in range(60)]

    assert len(set(texts)) > 50
    assert all(text[0].isupper() or text[0] == "\u201c" for text in texts)
    assert all(text.endswith(".") for text in texts)
    assert not any(mark in text for text in texts for mark in "\"'")
    assert not any(f" a {vowel}" in text for text in texts for vowel in "aeio")


def test_prose_repeats_with_its_seed():
    assert paragraph(rng(2), sentences=4) == paragraph(rng(2), sentences=4)
    assert headline(rng(2)) == headline(rng(2))
    assert "{" not in "".join(headline(rng(seed)) for seed in range(60))
