import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbdenoise.config import (
    PRESETS,
    PredictConfig,
    TrainConfig,
    parameter_count,
    parse_hyper,
    read_settings,
    resolve,
    seconds,
    section_of,
    to_toml,
    validated,
)
from kbdenoise.errors import SettingsError

CONFIGS = [TrainConfig, PredictConfig]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_survives_the_trip_through_toml(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(kind()), encoding="utf-8")

    again = resolve(kind(), ("file", read_settings(kind, path)))

    assert again == kind()


@given(
    patch=st.integers(16, 10_000),
    lr=st.floats(1e-6, 1e6),
    flips=st.booleans(),
    time_limit=st.sampled_from(["0", "8h", "1h30m", "90m", "45s"]),
    model=st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
)
def test_any_setting_survives_the_trip_through_toml(**values: Any) -> None:
    config = resolve(TrainConfig(), ("given", values))

    again = validated(TrainConfig, tomllib.loads(to_toml(config)), source="toml")

    assert again == config


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_line_of_the_toml_explains_its_setting(kind: type) -> None:
    lines = [x for x in to_toml(kind()).splitlines() if x and not x.startswith("[")]

    assert len(lines) == len(section_of(kind))
    assert all(line.partition("  # ")[2].endswith(".") for line in lines)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_two_sections_share_the_name_of_a_setting(kind: type) -> None:
    names = [f.name for section in get_type_hints(kind).values() for f in fields(section)]

    assert len(names) == len(set(names))


def test_later_layers_win() -> None:
    config = resolve(
        TrainConfig(),
        ("preset", {"patch": 64, "batch": 2, "steps": 5}),
        ("file", {"patch": 96, "batch": 3}),
        ("option", {"patch": 192}),
    )

    assert (config.data.patch, config.data.batch, config.optimiser.steps) == (192, 3, 5)
    assert config.data.folds == TrainConfig().data.folds


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_on_every_kind_of_device(preset: Any, device: str) -> None:
    resolve(TrainConfig(), (preset, PRESETS[preset][device]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patch": 3}, "data.patch = 3 must be at least 16"),
        ({"ema": 1.5}, "optimiser.ema = 1.5 must be between 0 and "),
        ({"lr": float("nan")}, "optimiser.lr = nan must be a finite number"),
        ({"lr": float("inf")}, "optimiser.lr = inf must be a finite number"),
        ({"batch": "8"}, "data.batch = '8'"),
        ({"batch": True}, "data.batch = True"),
        ({"batch": 8.5}, "data.batch = 8.5"),
        ({"amp": 1}, "device.amp = 1"),
        ({"device": "tpu"}, "'auto', 'cuda', 'mps' or 'cpu'"),
        ({"model": Path("dncnn.py"), "batch": None}, "data.batch = None"),
        ({"fold": 12}, "--fold 12 does not exist: --folds 10"),
        ({"min_lr": 0.1, "lr": 0.01}, "--min-lr 0.1 is above --lr 0.01"),
        ({"time_limit": "8 hours"}, "--time-limit '8 hours' is no duration"),
        ({"save_every": ""}, "--save-every '' is no duration"),
    ],
)
def test_an_impossible_value_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(TrainConfig(), ("settings", values))

    assert message in caught.value.message


def test_an_unknown_setting_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(SettingsError, match="settings: unknown setting 'patchh'") as caught:
        resolve(TrainConfig(), ("settings", {"patchh": 64}))

    assert caught.value.hint == "did you mean 'patch'?"


def test_whole_numbers_do_for_floats_and_numpy_numbers_for_python_s() -> None:
    config = resolve(TrainConfig(), ("settings", {"lr": 1, "patch": np.int64(96)}))

    assert (config.optimiser.lr, config.data.patch) == (1.0, 96)
    assert type(config.data.patch) is int


def test_overlap_must_be_smaller_than_the_tile() -> None:
    with pytest.raises(SettingsError, match="--overlap 64 must be smaller than --tile 64"):
        resolve(PredictConfig(), ("settings", {"tile": 64, "overlap": 64}))


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[data]\npatchh = 64", "unknown setting 'data.patchh'", "did you mean 'patch'?"),
        ("[dta]\npatch = 64", "unknown section 'dta'", "did you mean 'data'?"),
        ("patch = 64", "unknown section 'patch'", "settings stand below [data]"),
        ("model = 'dncnn'", "unknown section 'model'", "settings stand below [model]"),
        ("[model]\npatch = 64", "unknown setting 'model.patch'", "patch stands below [data]"),
        ("[data]\nbatch = '8'", "data.batch = '8'", ""),
        ("[data]\nbatch = 0", "data.batch = 0 must be at least 1", ""),
        ("[data]\nbatch = 2026-11-22", "data.batch = '2026-11-22'", ""),
        ("patch : 64", "is not valid TOML", ""),
    ],
)
def test_a_wrong_settings_file_is_refused_by_file_and_key(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)

    with pytest.raises(SettingsError) as caught:
        read_settings(TrainConfig, path)

    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_settings_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")

    for name in ("missing.toml", "picture.toml"):
        with pytest.raises(SettingsError, match=name):
            read_settings(TrainConfig, tmp_path / name)


def test_a_settings_file_may_name_some_settings_of_some_sections(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nmodel = 'dncnn'\n[data]\npatch = 64\nbatch = 2\n[device]\n")

    assert read_settings(TrainConfig, path) == {"model": "dncnn", "patch": 64, "batch": 2}


def test_a_file_may_hold_what_only_makes_sense_with_an_option(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nfold = 12")

    config = resolve(
        TrainConfig(), ("file", read_settings(TrainConfig, path)), ("o", {"folds": 20})
    )

    assert (config.data.fold, config.data.folds) == (12, 20)


def test_settings_are_replaced_by_name_whatever_their_section() -> None:
    config = resolve(TrainConfig(), ("settings", {"patch": 64, "lr": 0.5}))

    assert (config.data.patch, config.optimiser.lr) == (64, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("45s", 45), ("90m", 5400), ("8h", 28_800), ("1h30m", 5400), ("1h1m1s", 3661)],
)
def test_durations_are_read_in_hours_minutes_and_seconds(text: str, expected: float) -> None:
    assert seconds(text, name="--time-limit") == expected


@pytest.mark.parametrize("text", ["", "8", "h", "-1s", "1.5h", "30m1h", " 5m", "5 m"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        seconds(text, name="--time-limit")

    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        (" , ", {}),
        ("width=16", {"width": 16}),
        (
            "encoder_blocks=[2,2,4] norm=none lightweight=true",
            {"encoder_blocks": [2, 2, 4], "norm": "none", "lightweight": True},
        ),
        ("encoder_blocks=[2, 2, 4],ffn_scale=1.5", {"encoder_blocks": [2, 2, 4], "ffn_scale": 1.5}),
        ("blocks=(1, 2,), skip=False", {"blocks": [1, 2], "skip": False}),
        ("norm = 'with-bias'\tblock=\"basic\"", {"norm": "with-bias", "block": "basic"}),
        ("blocks=[]", {"blocks": []}),
        ("noise_level=-1e-3", {"noise_level": -0.001}),
    ],
)
def test_hyperparameters_are_read_from_pairs(text: str, expected: dict[str, Any]) -> None:
    assert parse_hyper(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("width", "cannot be read from 'width' on"),
        ("width=", "cannot be read from 'width=' on"),
        ("width=8 norm", "cannot be read from 'norm' on"),
        ("=8", "cannot be read from '=8' on"),
        ("blocks=[1,2", r"cannot be read from 'blocks=\[1,2' on"),
        ("blocks=[[1],2]", "cannot be read"),
        ("a=1b=2", "cannot be read"),
        ("a=[1]b=2", "cannot be read"),
        ("width=8, width=16", "names width twice"),
    ],
)
def test_hyperparameters_that_cannot_be_read_are_refused_from_there_on(
    text: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as refused:
        parse_hyper(text)

    assert refused.value.hint


@pytest.mark.parametrize("kind", CONFIGS)
def test_hyperparameters_survive_the_trip_through_toml(kind: type, tmp_path: Path) -> None:
    hyper = "norm=\"a b\" blocks=[1, 2] path='C:\\x'"
    path = tmp_path / "settings.toml"
    path.write_text(to_toml(resolve(kind(), ("test", {"hyper": hyper}))), encoding="utf-8")

    assert read_settings(kind, path)["hyper"] == hyper


def test_two_widths_are_refused_with_both_values() -> None:
    with pytest.raises(SettingsError, match="--width 8 contradicts width=16 of --hyper"):
        resolve(TrainConfig(), ("settings", {"width": 8, "hyper": "width=16"}))


@pytest.mark.parametrize("text", ["1,5M", "10,0", "1,0000", "\u0661\u0660", "1.5", "-3"])
def test_a_doubtful_number_of_parameters_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no number of parameters"):
        parameter_count(text)


def test_hyper_parameters_may_be_a_mapping_in_python() -> None:
    config = resolve(TrainConfig(), ("settings", {"hyper": {"depth": 5, "norm": "none"}}))

    assert parse_hyper(config.model.hyper) == {"depth": 5, "norm": "none"}


def test_channels_are_no_hyper_parameter() -> None:
    with pytest.raises(SettingsError, match="cannot set channels"):
        parse_hyper("channels=1 depth=3")
