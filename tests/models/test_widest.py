from typing import Any

import pytest

from kbdenoise.errors import SettingsError
from kbdenoise.models.build import describe_model
from kbdenoise.models.known_costs import KNOWN_COSTS
from kbdenoise.models.widest import parameters_of, smaller_hint, widest_that_fits
from kbdenoise.models.zoo import MODELS, named_size

TINY_U = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}


def by_trying_all(name: str, limit: int, **hyperparameters: Any) -> tuple[int, int] | None:
    best = None
    for width in range(4, hyperparameters.pop("width"), 4):
        try:
            count = parameters_of(name, channels=3, width=width, **hyperparameters)
        except SettingsError:
            continue
        best = (width, count) if count <= limit else best
    return best


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("unet", {"width": 64, "levels": 2}),
        ("dncnn", {"width": 48, "depth": 4}),
        ("kbnet-s", {"width": 64, **TINY_U}),
    ],
)
@pytest.mark.parametrize("limit", [3_000, 30_000, 150_000, 10**9])
def test_the_width_found_is_the_widest_that_fits(
    name: str, hyperparameters: dict[str, Any], limit: int
) -> None:
    found = widest_that_fits(name, channels=3, limit=limit, **hyperparameters)

    assert found == by_trying_all(name, limit, **hyperparameters)


def test_the_hint_names_a_width_that_can_be_built_and_its_parameters() -> None:
    size = named_size("kbnet-s", "deck-4-levels")

    hint = smaller_hint("kbnet-s", channels=3, limit=5_000_000, **size)

    built = parameters_of("kbnet-s", channels=3, **{**size, "width": 8})
    assert hint == f"--width 8 has {built:,} parameters"
    assert built <= 5_000_000


def test_where_no_width_fits_another_model_is_named() -> None:
    smallest = min(
        (costs.parameters, name, size)
        for name, known in KNOWN_COSTS.items()
        if not MODELS[name].sees_page
        for size, costs in known.items()
    )
    deep = {"blocks": 600, "width": 12}

    hint = smaller_hint("srresnet", channels=3, limit=smallest[0], **deep)

    assert hint == (
        f"no width of srresnet fits; --model {smallest[1]} --size {smallest[2]} has "
        f"{smallest[0]:,} parameters"
    )


def test_where_nothing_fits_the_hint_says_so() -> None:
    hint = smaller_hint("dncnn", channels=3, limit=10)

    assert hint.startswith("no named size is that small: ")


@pytest.mark.parametrize("name", MODELS)
def test_the_known_costs_are_those_of_the_models(name: str) -> None:
    mend = "python -m benchmarks.costs"

    assert list(KNOWN_COSTS.get(name, {})) == list(MODELS[name].sizes), mend
    for size, known in KNOWN_COSTS[name].items():
        hyperparameters = named_size(name, size)
        channels = MODELS[name].published_channels(size)
        assert parameters_of(name, channels=channels, **hyperparameters) == known.parameters, mend
    first = next(iter(MODELS[name].sizes))
    info = describe_model(name, channels=3, **named_size(name, first))
    macs = (info.conv_macs, info.kernel_basis_macs, info.attention_macs)
    assert macs == KNOWN_COSTS[name][first][1:], mend
