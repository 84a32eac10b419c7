"""Pictures restored with a weights file alone, whoever wrote it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kbdenoise.contests.contest import LocalContest
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.imaging.files import read_picture, write_pixels
from kbdenoise.inference.predict import predict
from kbdenoise.models.build import build_model
from kbdenoise.models.weights import ModelCard, save_weights


def weights_file(path: Path, *, name: str = "dncnn", channels: int = 3, **options: Any) -> Path:
    """A foreign file of an untrained network, which returns what it is given."""
    torch.manual_seed(0)
    model = build_model(name, channels=channels, **options)
    torch.save({"net": {f"module.{k}": v for k, v in model.state_dict().items()}}, path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "scan.png"
    write_pixels(path, np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("planes", [1, 3])
def test_authors_weights_restore_gray_and_colour(
    channels: int, planes: int, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (33, 41, planes), dtype=np.uint8)
    write_pixels(tmp_path / "scan.png", pixels)
    weights = weights_file(tmp_path / "a.pth", channels=channels, depth=3, width=4)

    result = predict(weights=weights, pictures=[tmp_path / "scan.png"], out=tmp_path / "out")

    restored = read_picture(tmp_path / "out" / "scan.png").pixels
    np.testing.assert_array_equal(restored, pixels)
    assert result.run is None
    assert (result.weights, result.pictures) == (weights, 1)


def test_values_beyond_the_range_are_clipped_not_wrapped(picture: Path, tmp_path: Path) -> None:
    model = build_model("dncnn", channels=3, depth=2, width=4, norm="none")
    with torch.no_grad():
        model.get_parameter("model.2.bias").fill_(-0.5)  # noise to take away: brighter by half
    torch.save(model.state_dict(), tmp_path / "a.pth")

    predict(weights=tmp_path / "a.pth", pictures=[picture], out=tmp_path / "out")

    before = read_picture(picture).pixels.astype(int)
    after = read_picture(tmp_path / "out" / "scan.png").pixels
    np.testing.assert_allclose(after, np.minimum(before + 127.5, 255), atol=1)


def test_the_test_set_of_a_contest_is_restored_below_the_file_s_name(
    contest: LocalContest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = weights_file(tmp_path / "sidd.pth", depth=3, width=4)

    named = predict(weights=weights, name=contest.folder, dry_run=True)
    only = predict(weights=weights)

    assert named.out == only.out == Path("submissions/sidd")
    assert only.pictures == 4
    assert len(list(only.out.glob("*.png"))) == 4


def test_a_run_and_weights_together_are_refused(picture: Path, tmp_path: Path) -> None:
    weights = weights_file(tmp_path / "a.pth", depth=3, width=4)

    with pytest.raises(SettingsError, match="cannot both") as refused:
        predict("last", [picture], weights=weights)

    assert refused.value.hint


def test_a_missing_weights_file_is_named(picture: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no weights file .*nowhere\.pth"):
        predict(weights=tmp_path / "nowhere.pth", pictures=[picture])


def test_what_was_restored_with_other_weights_does_not_count_as_done(
    picture: Path, tmp_path: Path
) -> None:
    """The ledger knows weights by their content, not by their name."""
    weights, out = weights_file(tmp_path / "a.pth", depth=3, width=4), tmp_path / "out"
    first = predict(weights=weights, pictures=[picture], out=out)
    again = predict(weights=weights, pictures=[picture], out=out)
    weights_file(weights, depth=4, width=4)

    assert (first.pictures, again.pictures, again.kept) == (1, 0, 1)
    with pytest.raises(SettingsError, match="there already"):
        predict(weights=weights, pictures=[picture], out=out)


def test_hyperparameters_that_weights_do_not_tell_are_told(picture: Path, tmp_path: Path) -> None:
    weights = weights_file(tmp_path / "n.pth", name="nafnet", width=4, middle_blocks=1)
    given: dict[str, Any] = {"weights": weights, "pictures": [picture]}

    told = predict(**given, hyper="pool_window=64", out=tmp_path / "out")

    assert told.pictures == 1
    with pytest.raises(SettingsError, match="there already"):  # it is other work than without
        predict(**given, out=tmp_path / "out")
    with pytest.raises(SettingsError, match=r"width=8 .*n\.pth.* with width=4"):
        predict(**given, hyper="width=8", out=tmp_path / "b")
    with pytest.raises(SettingsError, match="no hyper-parameter 'pool_windw'"):
        predict(**given, hyper="pool_windw=8", out=tmp_path / "b")
    with pytest.raises(SettingsError, match="cannot be read"):
        predict(**given, hyper="pool_window", out=tmp_path / "b")


def test_our_own_weights_are_taken_by_their_card(picture: Path, tmp_path: Path) -> None:
    model = build_model("dncnn", channels=3, depth=3, width=4)
    with torch.no_grad():
        model.get_parameter("model.5.weight").fill_(0.1)
    card = ModelCard(model="dncnn", channels=3, hyperparameters={"depth": 3, "width": 4})
    save_weights(tmp_path / "mine.safetensors", model, card=card)
    torch.save(model.state_dict(), tmp_path / "theirs.pth")

    for name in ("mine.safetensors", "theirs.pth"):
        predict(weights=tmp_path / name, pictures=[picture], out=tmp_path / name[:4])

    ours, theirs = (read_picture(tmp_path / f / "scan.png").pixels for f in ("mine", "thei"))
    np.testing.assert_array_equal(ours, theirs)
    assert (ours != read_picture(picture).pixels).any()
