import pytest
from hypothesis import given, settings
from hypothesis.strategies import booleans, floats, integers, lists, tuples

from kbdenoise.errors import SettingsError
from kbdenoise.notation import Stage, parse_stages, stage_at

MIXED = "64x16:50% 128x4:40% page:10%"


def stages(text: str) -> tuple[Stage, ...]:
    return parse_stages(text, patch=128, batch=8)


def test_stages_are_read_in_their_order():
    assert stages(MIXED) == (
        Stage(patch=64, batch=16, share=0.5),
        Stage(patch=128, batch=4, share=0.4),
        Stage(patch=0, batch=1, share=0.1, pages=True),
    )
    assert stages(" 64x16:50%,128x4:40%,  pagex3:10%")[2].batch == 3


@pytest.mark.parametrize("text", ["", "  "])
def test_without_stages_there_is_one_of_patch_and_batch(text):
    assert stages(text) == (Stage(patch=128, batch=8, share=1.0),)


def test_shares_with_decimals_may_add_up_to_a_hundred():
    assert [s.share for s in stages("32x8:33.3% 64x8:33.3% 96x8:33.4%")] == [0.333, 0.333, 0.334]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64x16:50% 128x4:40%", "--stages '64x16:50% 128x4:40%' are 90 % together"),
        ("64x16:50% 128x4:50.5%", r"100\.5 % together"),
        ("64x16", "'64x16' is no stage"),
        ("64:100%", "'64:100%' is no stage"),
        ("64x16:100", "'64x16:100' is no stage"),
        ("64 x 16:100%", "'64' is no stage"),
        ("64x16:1.2.3%", r"'64x16:1\.2\.3%' is no stage"),
        ("64x16:.%", r"'64x16:\.%' is no stage"),
        ("64x-1:100%", "'64x-1:100%' is no stage"),
        ("pages:100%", "'pages:100%' is no stage"),
        ("64x16:0% page:100%", "'64x16:0%' has no share"),
        ("8x16:100%", "patches of '8x16:100%' are smaller than 16 px"),
        ("64x0:100%", "'64x0:100%' has no patch a step"),
        ("pagex0:100%", "'pagex0:100%' has no page a step"),
    ],
)
def test_stages_that_make_no_sense_are_named_with_the_way_to_write_them(text, message):
    with pytest.raises(SettingsError, match=message) as caught:
        stages(text)

    assert "--stages" in caught.value.message
    assert "64x16:50%" in caught.value.hint or caught.value.hint == "leave it out"


def test_a_stage_begins_where_the_shares_before_it_end():
    parsed = stages(MIXED)

    assert [stage_at(parsed, p) for p in (0.0, 0.4999, 0.5, 0.8999, 0.9, 1.0)] == [0, 0, 1, 1, 2, 2]
    assert stage_at(stages(""), 0.7) == 0


@settings(deadline=None)
@given(
    parts=lists(tuples(integers(16, 999), integers(1, 99), booleans()), min_size=1, max_size=9),
    progress=floats(0, 1),
)
def test_any_stages_can_be_written_and_every_moment_has_one(parts, progress):
    share = 100 // len(parts)
    shares = [100 - share * (len(parts) - 1)] + [share] * (len(parts) - 1)
    text = " ".join(
        f"pagex{batch}:{part}%" if pages else f"{side}x{batch}:{part}%"
        for (side, batch, pages), part in zip(parts, shares, strict=True)
    )

    parsed = stages(text)

    assert [(s.patch, s.batch, s.pages) for s in parsed] == [
        (0 if pages else side, batch, pages) for side, batch, pages in parts
    ]
    number = stage_at(parsed, progress)
    assert 0 <= number < len(parsed)
    assert sum(s.share for s in parsed[:number]) <= progress + 1e-8
    assert number == len(parsed) - 1 or progress < sum(s.share for s in parsed[: number + 1])


def test_stages_of_tenths_begin_at_their_very_step():
    parsed = stages("32x8:10% 48x8:20% 64x8:30% 96x8:40%")

    firsts = [next(s for s in range(1000) if stage_at(parsed, s / 1000) == n) for n in range(4)]

    assert firsts == [0, 100, 300, 600]
