import cv2
import numpy as np
import pytest

from kbdenoise.imaging.panel import cell, difference, stack, strip


def test_a_cell_shrinks_but_never_enlarges() -> None:
    small = np.zeros((10, 20, 3), np.float32)
    large = np.zeros((1000, 500, 1), np.float32)

    assert (cell(small, side=64)[:10, :20] == 0).all()
    assert (cell(small, side=64)[10:] == 1).all()
    assert cell(large, side=64).shape == (64, 64, 3)


def test_a_difference_is_grey_at_zero_and_tells_its_sign() -> None:
    base = np.full((2, 2, 3), 0.5, np.float32)

    assert np.allclose(difference(base, base, scale=0.25), 0.5)
    brighter, darker = (
        difference(base + 0.25, base, scale=0.25),
        difference(base, base + 0.25, scale=0.25),
    )
    assert brighter[0, 0, 0] > brighter[0, 0, 2]  # orange
    assert darker[0, 0, 2] > darker[0, 0, 0]  # blue


def test_strips_of_one_kind_can_be_stacked() -> None:
    image = np.zeros((30, 40, 3), np.float32)
    one = strip([image, image], ["a", "b"], side=32)

    sheet = stack([one, one, one])

    assert sheet.shape[1] == one.shape[1] == 2 * 32 + 6
    assert sheet.shape[0] == 3 * one.shape[0] + 2 * 6


def test_labels_are_drawn_in_printable_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda head, words, *rest: drawn.append(words))
    image = np.zeros((9, 9, 3), np.float32)

    strip([image, image], ["caf\udce9\n図 ü", "a ~b"], side=32)

    assert drawn == ["caf??? ?", "a ~b"]
