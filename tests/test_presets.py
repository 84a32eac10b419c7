"""The earlier work's recipes, as far as they are known."""

from pathlib import Path
from typing import Any

import pytest

from kbdenoise.errors import SettingsError
from kbdenoise.models.build import build_model, describe_model
from kbdenoise.models.weights import ModelCard, save_weights
from kbdenoise.models.zoo import named_size
from kbdenoise.presets import PRESETS
from kbdenoise.training.schedules import Moment, learning_rate
from kbdenoise.training.session import rate_plan, total_steps
from kbdenoise.training.train import effective_settings

DECKS = [name for name in PRESETS if name.startswith("deck-")]


def recipe(name: Any, kind: str = "cpu") -> Any:
    return effective_settings(name, kind, None, {})


@pytest.mark.parametrize("name", DECKS)
def test_a_recipe_is_the_same_on_every_device_and_owes_nothing_to_later_findings(
    name: str,
) -> None:
    config = recipe(name)

    assert config == recipe(name, "gpu")
    assert (config.optimiser.optimiser, config.optimiser.loss) == ("adam", "mse")
    lr = 1e-4 if name == "deck-srresnet" else 1e-3  # its paper's: it diverges at the others'
    assert (config.optimiser.lr, config.optimiser.beta2) == (lr, 0.999)
    assert config.optimiser.ema == config.optimiser.clip == config.optimiser.weight_decay == 0
    assert config.guard.guard == 0
    assert config.data.patch == 128


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("deck-kbnet-1", 6_060_179),
        ("deck-kbnet-final", 2_566_419),
        ("deck-dncnn", 559_363),
        ("deck-srresnet", 1_249_812),
    ],
)
def test_its_networks_have_the_sizes_that_are_told_of_them(name: str, parameters: int) -> None:
    model = recipe(name).model

    hyper = named_size(model.model, model.size) if model.size else {}
    info = describe_model(model.model, channels=3, **hyper)

    assert info.parameters == parameters


def test_the_last_recipe_falls_by_a_cosine_and_then_holds_its_rate() -> None:
    plan = rate_plan(recipe("deck-kbnet-final"))

    def rate(epoch: float) -> float:
        steps = round(1125 * epoch)
        moment = Moment(steps=steps, epochs=epoch, samples=8 * steps, run=epoch / 100)
        return learning_rate(plan, moment)

    assert rate(0) == pytest.approx(1e-3)
    assert rate(30) == pytest.approx(5.5e-4)
    assert rate(58.9) == pytest.approx(1e-4, rel=0.02)
    assert {rate(59), rate(61), rate(99)} == {2e-4}


def test_the_handed_out_notebook_took_three_epochs_of_batches_of_64() -> None:
    config = recipe("deck-dncnn")

    assert total_steps(config, pictures=9000) == round(3 * 9000 / 64)
    assert not config.augmentation.flips and not config.augmentation.turns


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in DECKS])
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_where_pages_are_scored_by_their_tone_a_stage_that_sees_them_goes_first(
    name: Any, kind: str
) -> None:
    for_any = recipe(name, kind)
    by_tone = effective_settings(name, kind, None, {}, metric="mae-mean-luma")

    assert effective_settings(name, kind, None, {}, metric="rmse") == for_any
    assert by_tone.model.model == f"tone+{for_any.model.model}"
    assert by_tone.optimiser == for_any.optimiser  # it learns as the model does alone


def test_a_model_that_was_asked_for_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nmodel = "nafnet"\n')

    for config, given in ((None, {"model": "unet"}), (file, {}), (file, {"model": "unet"})):
        chosen = effective_settings("quick", "cpu", config, given, metric="mae-mean-luma")

        assert chosen.model.model == given.get("model", "nafnet")


@pytest.mark.parametrize("name", DECKS)
def test_a_deck_recipe_knows_no_tone(name: Any) -> None:
    assert effective_settings(name, "cpu", None, {}, metric="mae-mean-luma") == recipe(name)


@pytest.mark.parametrize(
    ("given", "steps"), [({"steps": 7}, 7), ({"samples": 640}, 10), ({"epochs": 2.0}, 31), ({}, 47)]
)
def test_a_length_that_is_given_wins_over_any_length_of_a_preset(
    given: dict[str, Any], steps: int
) -> None:
    config = effective_settings("deck-dncnn", "cpu", None, given)

    assert total_steps(config, pictures=1000) == steps


def test_two_lengths_at_once_are_refused() -> None:
    with pytest.raises(SettingsError, match="--steps and --epochs both"):
        effective_settings("quick", "cpu", None, {"steps": 7, "epochs": 2.0})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr_hold": 2e-4}, "needs --lr-hold-from-epoch"),
        ({"restarts": 2, "schedule": "step"}, "--restarts 2 needs a schedule"),
        ({"stages": "64x4:100%", "batch": "auto"}, "--batch auto finds nothing"),
        ({"lr": 0.0}, "above --lr 0: lower it"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        effective_settings("standard", "cpu", None, given)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_patch_that_nobody_asks_for_suits_the_network(kind: str, tmp_path: Path) -> None:
    card = ModelCard(model="pix2pix", channels=3, hyperparameters={"levels": 6, "width": 2})
    model = build_model("pix2pix", channels=3, **card.hyperparameters)
    save_weights(tmp_path / "start.safetensors", model, card=card)

    def patch(**given: Any) -> int:
        return effective_settings("quick", kind, None, given).data.patch

    usual = patch()
    assert patch(model="pix2pix") == 256
    assert patch(model="pix2pix", hyper="levels=9") == 512
    assert patch(model="pix2pix", size="small") == usual
    assert patch(init=str(tmp_path / "start.safetensors"), hyper="width=2") == usual
    assert patch(model="pix2pix", hyper="levels=-1") == usual  # refused when it is built
    assert patch(model="pix2pix", patch=128) == 128  # which is refused by its own name
