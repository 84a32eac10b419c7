import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbdenoise.errors import SettingsError
from kbdenoise.imaging.files import read_image
from kbdenoise.imaging.luma import luma, mean_luma
from kbdenoise.imaging.scanner import Scanner, draw_scanner, print_and_scan


def rng(seed=0):
    return np.random.default_rng(seed)


def page_of_text(height=230, width=310):
    """White paper, black words, a tint and a coloured bar."""
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    page[150:, 20:200] = (217, 230, 242)
    page[20:60, 250:290] = (230, 77, 38)
    for row in range(4):
        cv2.putText(page, "Workshop 79", (10, 40 + 50 * row), 0, 1.0, (0, 0, 0), 3, cv2.LINE_AA)
    return page.astype(np.float32) / 255


@pytest.fixture
def shared():
    """Real pages for development, where the machine has them."""
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("KBDENOISE_SHARED", default)) / "descan-samples"
    if not folder.is_dir():
        pytest.skip("needs real sample pages (KBDENOISE_SHARED)")
    return folder


def test_the_default_scanner_gives_the_page_back():
    page = page_of_text()

    assert np.array_equal(print_and_scan(page, back=page, scanner=Scanner(), rng=rng()), page)


@given(seed=st.integers(0, 10_000), height=st.integers(16, 90), width=st.integers(16, 90))
@settings(max_examples=25, deadline=None)
def test_any_scan_of_any_size_is_an_image_in_range(seed, height, width):
    page = rng(seed).uniform(0, 1, (height, width, 3)).astype(np.float32)

    scan = print_and_scan(page, back=page[::-1], scanner=draw_scanner(rng(seed)), rng=rng(seed))

    assert scan.shape == page.shape
    assert scan.dtype == np.float32
    assert scan.min() >= 0.0
    assert scan.max() <= 1.0


def test_a_scan_repeats_with_its_seed_and_only_with_it():
    page, scanner = page_of_text(), draw_scanner(rng(1))
    before = page.copy()

    first, again, other = (
        print_and_scan(page, back=None, scanner=scanner, rng=rng(seed)) for seed in (2, 2, 3)
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(page, before)


def test_scanners_repeat_with_their_seed_and_differ_otherwise():
    assert draw_scanner(rng(4)) == draw_scanner(rng(4))
    assert draw_scanner(rng(4)) != draw_scanner(rng(5))


def test_drawn_scanners_stay_within_what_was_measured_on_real_pages():
    scanners = [draw_scanner(rng(seed)) for seed in range(300)]
    blacks = np.array([s.black for s in scanners]) * 255
    whites = np.array([s.white for s in scanners]) * 255

    assert np.percentile(blacks, 1) > 40
    assert np.percentile(blacks, 99) < 62
    assert np.percentile(whites, 1) > 232
    assert (np.ptp(blacks, axis=1) > 0.5).mean() > 0.9  # channels are lifted unequally
    assert all(s.warp <= 0.1 for s in scanners)
    assert all(s.bleed == 0 or 0.05 <= s.bleed <= 0.15 for s in scanners)
    assert {s.bleed > 0 for s in scanners} == {True, False}


@pytest.mark.parametrize("seed", range(6))
def test_a_scan_lies_on_its_page_to_a_tenth_of_a_pixel(seed):
    page = page_of_text()
    scanner = replace(draw_scanner(rng(seed)), warp=0.1, dust=5)

    scan = print_and_scan(page, back=page[::-1], scanner=scanner, rng=rng(seed))

    window = cv2.createHanningWindow(page.shape[1::-1], cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(luma(page), luma(scan), window)
    assert np.hypot(*shift) < 0.1


def test_black_text_and_white_paper_show_the_scanner_tones():
    page = page_of_text()
    page[100:140, 220:300] = 0.0
    scanner = replace(draw_scanner(rng(7)), bleed=0.0, spine=0.0, dust=0, hairs=0, stains=0)

    scan = print_and_scan(page, back=None, scanner=scanner, rng=rng())

    assert np.abs(scan[110:130, 230:290].mean(axis=(0, 1)) - scanner.black).max() < 0.01
    assert (
        np.abs(scan[70:95, 215:245].mean(axis=(0, 1)) - np.minimum(scanner.white, 1)).max() < 0.01
    )


def test_a_gray_page_is_refused():
    with pytest.raises(SettingsError, match="must be RGB"):
        print_and_scan(np.ones((8, 8, 1), np.float32), back=None, scanner=Scanner(), rng=rng())


def test_a_back_of_another_size_is_refused():
    page = page_of_text()

    with pytest.raises(SettingsError, match="back of the sheet"):
        print_and_scan(page, back=page[:-1], scanner=Scanner(), rng=rng())


def test_simulated_scans_of_a_real_page_surround_its_real_scan(shared):
    clean = read_image(shared / "clean" / "page_1.tif")
    real = read_image(shared / "scan" / "page_1.tif")

    scans = [
        print_and_scan(clean, back=None, scanner=draw_scanner(rng(seed)), rng=rng(seed))
        for seed in range(12)
    ]

    gaps = [mean_luma(scan) - mean_luma(clean) for scan in scans]
    losses = [float(np.mean((scan - clean) ** 2)) for scan in scans]
    assert min(gaps) < mean_luma(real) - mean_luma(clean) < max(gaps)
    assert min(losses) < float(np.mean((real - clean) ** 2)) < max(losses)
