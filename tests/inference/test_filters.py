import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kbdenoise.config import TileSettings
from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.pairs import find_pairs
from kbdenoise.data.store import open_store
from kbdenoise.errors import DataError
from kbdenoise.imaging.classical.table import FILTERS
from kbdenoise.imaging.files import to_float, to_pixels
from kbdenoise.imaging.metrics import METRICS
from kbdenoise.inference.filters import (
    BASELINES,
    FilterCard,
    FilterRestorer,
    StorePairs,
    choose_on,
    parameters_in_words,
    read_filter,
    write_filter,
)
from kbdenoise.inference.plans import plan_tiles
from kbdenoise.inference.restore import restore_image


def card(name: str = "bilateral", *, channels: int = 3, **changes: Any) -> FilterCard:
    chosen = FILTERS[name]
    parameters: dict[str, Any] = {key: grid.values[0] for key, grid in chosen.grid.items()}
    if chosen.fit:
        parameters = {"curves": [[0.1, 0.7, 0.1]] * channels}
    content: dict[str, Any] = {
        "name": name,
        "channels": channels,
        "contest": "tiny",
        "metric": "rmse",
        "chosen_score": 0.1,
        "pictures": 4,
        "parameters": parameters,
    }
    return FilterCard(**(content | changes))


@pytest.mark.parametrize("name", FILTERS)
def test_tiles_give_what_the_whole_picture_gives(name: str) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.random((243, 251, 3), dtype=np.float32), (0, 0), 2)
    image = to_float(to_pixels(np.atleast_3d(smooth)))
    restorer = FilterRestorer(card(name))
    plan = plan_tiles(
        restorer, height=243, width=251, settings=TileSettings(tile=240), memory_bytes=10**9
    )
    assert plan.tile
    assert plan.needed is not None

    tiled = restore_image(image, restorer, plan=plan)

    assert plan.margin >= plan.needed
    np.testing.assert_allclose(
        tiled, FILTERS[name].apply(image, **restorer.card.parameters), atol=1e-6
    )


@pytest.mark.parametrize("name", FILTERS)
def test_a_card_reads_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    write_filter(tmp_path / "filter.toml", card(name))

    assert read_filter(tmp_path / "filter.toml") == card(name)


def test_a_score_that_is_not_known_is_left_out_of_the_file(tmp_path: Path) -> None:
    write_filter(tmp_path / "filter.toml", card(chosen_score=math.nan))

    assert "chosen_score" not in (tmp_path / "filter.toml").read_text()
    assert math.isnan(read_filter(tmp_path / "filter.toml").chosen_score)


def test_numbers_are_counted_one_by_one() -> None:
    assert card("bilateral").count == 2
    assert card("tone-fit").count == 9


def test_parameters_are_told_in_words() -> None:
    assert parameters_in_words({"side": 5, "white": 0.9}) == "side 5, white 0.9"
    assert parameters_in_words({"curves": [[0.0, 1.0, 0.1]]}) == "curves of degree 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "median', "not valid TOML"),
        ("", "does not describe a filter"),
        ('name = "medain"', "no filter called 'medain'"),
        ("channels = 2", "channels are 2"),
        ("pages = 3", "unknown 'pages'"),
        ("metric = 5", "metric: Input should be a valid string"),
        ("parameters = 3", "parameters: Input should be a valid dictionary"),
        ("parameters = {side = 4}", "side is 4"),
        ("parameters = {}", "side is missing"),
        ("parameters = {side = 3, size = 3}", "size is not a parameter"),
        ('name = "tone-fit"\nparameters = {curves = [[0, 1]]}', "not 3 lists"),
        ('name = "tone-fit"\nparameters = {curves = [[], [1], [1]]}', "not 3 lists"),
        ('name = "tone-fit"\nparameters = {curves = [[nan], [1], [1]]}', "not 3 lists"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "filter.toml"
    good = {
        "name": '"median"',
        "channels": "3",
        "contest": '"tiny"',
        "metric": '"rmse"',
        "pictures": "4",
        "parameters": "{side = 3}",
    }
    changed = dict(line.split(" = ", 1) for line in text.splitlines() if text)
    lines = [f"{key} = {value}" for key, value in (good | changed).items() if text]
    path.write_text("\n".join(lines))

    with pytest.raises(DataError, match=message) as caught:
        read_filter(path)

    assert str(path) in caught.value.message


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"filter\.toml: No such file"):
        read_filter(tmp_path / "filter.toml")


def test_pairs_of_a_store_come_as_floats(contest: LocalContest) -> None:
    store = open_store(contest, find_pairs(contest), channels=3)

    pairs = StorePairs(store, [2, 5])

    assert len(pairs) == len(pairs[:1]) + 1 == 2
    np.testing.assert_array_equal(pairs[1][0], to_float(store.noisy(5)))
    np.testing.assert_array_equal(pairs[:1][0][1], to_float(store.clean(2)))


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_finds_its_parameters_on_a_contest(name: str, contest: LocalContest) -> None:
    """The tone of the tiny contest is bent: whatever can change tones has to beat doing nothing."""
    store = open_store(contest, find_pairs(contest), channels=3)
    metric = METRICS["rmse"]

    found, pictures = choose_on(store, range(4), FILTERS[name], metric=metric)

    assert pictures == 4
    written = card(name, parameters=found.parameters)
    assert FilterRestorer(written)(to_float(store.noisy(0))[None]).shape == (1, 48, 40, 3)
    untouched = metric.pool([metric.score(n, c) for n, c in StorePairs(store, range(4))], [1] * 4)
    if name == "tone-fit":
        assert found.score < 0.5 * untouched
    if not name.startswith("background"):
        assert found.score < 1.1 * untouched


def test_baselines_are_of_the_table() -> None:
    assert set(BASELINES) <= set(FILTERS)
