"""Outputs equal those of an independent implementation, with no weight left at its default.

spandrel (MIT) is that implementation where it is installed. Its answers to the same weights and
pictures are kept in `reference/`, so that they count where it is not. To write them anew:

    KBDENOISE_WRITE_REFERENCES=1 python -m pytest tests/models/test_reference.py
"""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kbdenoise.models.build import build_model

FOLDER = Path(__file__).parent / "reference"
WRITE = "KBDENOISE_WRITE_REFERENCES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network as we build it and as spandrel does; H and W of the picture in px."""

    model: str
    channels: int
    options: dict[str, Any]
    module: str
    theirs: str
    their_options: dict[str, Any]
    size: tuple[int, int] = (24, 40)


_KBNET_S = {"module": "KBNet.__arch.kbnet_s", "theirs": "KBNet_s"}
_KBNET_L = {"module": "KBNet.__arch.kbnet_l", "theirs": "KBNet_l"}
_NAFNET = {"module": "NAFNet.__arch.NAFNet_arch", "theirs": "NAFNet"}
_DNCNN = {"module": "DnCNN.__arch.network_dncnn", "theirs": "DnCNN"}
_DRUNET = {"module": "DRUNet.__arch.network_unet", "theirs": "DRUNet"}


def _u_case(
    kind: dict[str, str], model: str, *, channels: int, blocks: Any, **options: Any
) -> Case:
    encoder, middle, decoder = blocks
    return Case(
        model=model,
        channels=channels,
        options={
            "encoder_blocks": encoder,
            "middle_blocks": middle,
            "decoder_blocks": decoder,
            **options,
        },
        their_options={
            "img_channel": channels,
            "enc_blk_nums": list(encoder),
            "middle_blk_num": middle,
            "dec_blk_nums": list(decoder),
            **options,
        },
        **kind,
    )


CASES = {
    "kbnet-s": _u_case(_KBNET_S, "kbnet-s", channels=3, blocks=((2, 3, 4), 4, (4, 3, 2)), width=16),
    "kbnet-s-lightweight": _u_case(
        _KBNET_S,
        "kbnet-s",
        channels=3,
        blocks=((1, 2), 1, (2, 1)),
        width=32,
        lightweight=True,
        ffn_scale=1.5,
    ),
    "kbnet-s-gray": _u_case(
        _KBNET_S, "kbnet-s", channels=1, blocks=((1, 1, 1), 2, (1, 1, 1)), width=64
    ),
    "kbnet-l": Case(
        model="kbnet-l",
        channels=3,
        options={"width": 24, "blocks": (2, 1, 1, 2), "refinement_blocks": 2},
        their_options={"dim": 24, "num_blocks": [2, 1, 1, 2], "num_refinement_blocks": 2},
        **_KBNET_L,
    ),
    "nafnet": _u_case(_NAFNET, "nafnet", channels=3, blocks=((2, 2, 2), 4, (4, 2, 2)), width=16),
    "dncnn": Case(
        model="dncnn",
        channels=3,
        options={"depth": 17},
        their_options={"in_nc": 3, "out_nc": 3, "nb": 17, "act_mode": "BR"},
        **_DNCNN,
        size=(23, 41),
    ),
    "dncnn-merged": Case(
        model="dncnn",
        channels=1,
        options={"depth": 20, "norm": "none"},
        their_options={"nb": 20, "act_mode": "R"},
        **_DNCNN,
        size=(23, 41),
    ),
    "drunet": Case(
        model="drunet",
        channels=3,
        options={"width": 16, "blocks": 2, "noise_level": 25.0},
        their_options={"in_nc": 4, "out_nc": 3, "nc": [16, 32, 64, 128], "nb": 2},
        **_DRUNET,
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_outputs_equal_the_stored_ones_of_an_independent_implementation(
    name: str, randomised: Any
) -> None:
    expected = np.load(FOLDER / f"{name}.npz")["restored"]

    restored = _ours(CASES[name], randomised)

    _assert_close(restored, torch.from_numpy(expected))


@each_case
def test_outputs_equal_spandrels(name: str, randomised: Any) -> None:
    pytest.importorskip("spandrel", reason="spandrel is not installed; its answers are stored")
    expected = _theirs(CASES[name], randomised)
    if os.environ.get(WRITE):
        FOLDER.mkdir(exist_ok=True)
        np.savez_compressed(FOLDER / f"{name}.npz", restored=expected.numpy())

    _assert_close(_ours(CASES[name], randomised), expected)


@each_case
def test_every_weight_matters_to_the_compared_output(name: str, randomised: Any) -> None:
    case = CASES[name]
    model: nn.Module = randomised(build_model(case.model, channels=case.channels, **case.options))

    restored = model(_picture(case))
    (restored - _picture(case)).square().mean().backward()

    assert (restored - _picture(case)).abs().max() > 0.1
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max()]
    assert silent == []


@torch.no_grad()
def _ours(case: Case, randomised: Any) -> Tensor:
    model = randomised(build_model(case.model, channels=case.channels, **case.options))
    return model(_picture(case))


@torch.no_grad()
def _theirs(case: Case, randomised: Any) -> Tensor:
    module = import_module(f"spandrel.architectures.{case.module}")
    model: nn.Module = randomised(getattr(module, case.theirs)(**case.their_options))
    picture = _picture(case)
    if case.model == "drunet":  # takes the noise level as one more channel
        level = torch.full_like(picture[:, :1], case.options["noise_level"] / 255)
        picture = torch.cat([picture, level], dim=1)
    return model(picture)


def _picture(case: Case) -> Tensor:
    drawn = np.random.default_rng(7).random((2, case.channels, *case.size), dtype=np.float32)
    return torch.from_numpy(drawn)


def _assert_close(restored: Tensor, expected: Tensor) -> None:
    """Within 1e-5 of the largest value."""
    assert restored.shape == expected.shape
    assert expected.isfinite().all()
    assert (restored - expected).abs().max() <= 1e-5 * expected.abs().max()
