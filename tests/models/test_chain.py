import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kbdenoise.errors import DataError, SettingsError
from kbdenoise.models.build import build_model, complete_hyperparameters, describe_model
from kbdenoise.models.detect import detect
from kbdenoise.models.spec import PAGE_SIDE
from kbdenoise.models.weights import load_weights
from kbdenoise.models.zoo import MODELS, find_model

RESTORERS = [name for name in MODELS if name != "tone"]
DNCNN: dict[str, Any] = {"depth": 3, "width": 4, "norm": "none", "tone_width": 2}


def test_the_tone_comes_first_and_the_restorer_sees_its_result(randomised: Any) -> None:
    model = randomised(build_model("tone+dncnn", channels=3, **DNCNN))
    image, page = torch.rand(2, 3, 9, 13), torch.rand(2, 3, PAGE_SIDE, PAGE_SIDE)

    restored = model(image, page)

    assert torch.equal(restored, model.restorer(model.tone(image, page)))
    assert not torch.equal(restored, model(image))
    assert {name.split(".")[0] for name in model.state_dict()} == {"tone", "restorer"}


def small(name: str) -> dict[str, Any]:
    """Hyper-parameters with which a restorer is quick to build."""
    wanted = {
        "width": 8,
        "depth": 3,
        "levels": 3,
        "encoder_blocks": (1,),
        "middle_blocks": 1,
        "decoder_blocks": (1,),
        "blocks": (1, 1, 1, 1) if name in ("kbnet-l", "restormer") else 2,
        "refinement_blocks": 1,
    }
    return {k: v for k, v in wanted.items() if k in complete_hyperparameters(name)}


@pytest.mark.parametrize("name", RESTORERS)
def test_it_stands_before_every_restorer(name: str) -> None:
    info = describe_model(f"tone+{name}", channels=3, side=64, **small(name))
    plain = describe_model(name, channels=3, side=64, **small(name))
    tone = describe_model("tone", channels=3, side=64)

    assert info.parameters == plain.parameters + tone.parameters
    assert info.macs == plain.macs + tone.macs
    assert (info.multiple, info.receptive_field) == (plain.multiple, plain.receptive_field)
    assert (info.tiles, info.fp16_autocast) == (plain.tiles, plain.fp16_autocast)
    assert info.sees_page
    assert not plain.sees_page
    assert find_model(f"tone+{name}").sizes == find_model(name).sizes


@pytest.mark.parametrize("name", RESTORERS)
def test_it_is_recognised_before_every_restorer(name: str, randomised: Any) -> None:
    options = small(name) | {"tone_width": 3, "tone_knots": 5}
    model = randomised(build_model(f"tone+{name}", channels=1, **options))

    found_name, found = detect(model.state_dict())

    alone_name, alone = detect(model.restorer.state_dict())
    tone = {"tone_width": 3, "tone_kind": "curve", "tone_knots": 5}
    assert (found_name, found.channels) == (f"tone+{alone_name}", 1)
    assert found.hyperparameters == alone.hyperparameters | tone
    rebuilt = build_model(found_name, channels=1, **found.hyperparameters)
    rebuilt.load_state_dict(dict(found.state))


def test_a_file_of_both_stages_comes_back_under_a_prefix(tmp_path: Path, randomised: Any) -> None:
    model = randomised(build_model("tone+dncnn", channels=3, **DNCNN))
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "both.pth")
    image = torch.rand(1, 3, 8, 8)

    loaded, card = load_weights(tmp_path / "both.pth")

    assert card.model == "tone+dncnn"
    assert torch.equal(loaded(image), model(image))


def test_stages_of_other_channels_are_refused_in_words() -> None:
    colour = build_model("tone+dncnn", channels=3, **DNCNN).state_dict()
    gray = build_model("tone+dncnn", channels=1, **DNCNN).state_dict()
    mixed = {n: (colour if n.startswith("tone.") else gray)[n] for n in colour}

    with pytest.raises(DataError, match="for 3 channels before a restorer for 1"):
        detect(mixed)


@pytest.mark.parametrize("extra", ["restorer.surplus", "tone.surplus", "surplus"])
def test_a_file_with_tensors_of_neither_stage_is_refused(extra: str, tmp_path: Path) -> None:
    state = build_model("tone+dncnn", channels=3, **DNCNN).state_dict() | {extra: torch.zeros(3)}
    torch.save(state, tmp_path / "odd.pth")

    with pytest.raises(DataError, match=r"odd\.pth"):
        load_weights(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tone+tone", {}, "tone"),
        ("dncnn+tone", {}, "dncnn"),
        ("tone+", {}, "tone"),
        ("tone+dncnn", {"tone_kind": "cubic"}, "tone_kind"),
        ("tone+dncnn", {"knots": 3}, "knots"),
        ("tone+dncnn", {"depth": 1}, "depth"),
        ("tone+dncnn", {"tone_width": 0}, "width of tone"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_in_words(
    name: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words.replace("+", r"\+")):
        build_model(name, channels=3, **options)


def test_sides_that_the_restorer_cannot_take_are_refused_by_the_chains_name() -> None:
    model = build_model("tone+unet", channels=3, width=4, levels=2)

    with pytest.raises(SettingsError, match=r"tone\+unet needs sides .* multiples of 4 px"):
        model(torch.rand(1, 3, 8, 6))


def test_its_entry_can_be_read_without_importing_torch() -> None:
    code = "import sys; from kbdenoise.models.zoo import find_model; find_model('tone+dncnn');"

    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "False"
