from pathlib import Path

import pytest
import torch
from torch import Tensor

from kbdenoise.contests.contest import LocalContest
from kbdenoise.data.store import STORE_FOLDER
from kbdenoise.errors import DataError, SettingsError
from kbdenoise.loss_terms import ADVERSARIAL, LOSS_TERMS, PERCEPTUAL, Term
from kbdenoise.runs.folder import find_run
from kbdenoise.training.losses import LOSSES
from kbdenoise.training.objective import Objective, make_objective
from kbdenoise.training.train import train


def pair(*, batch: int = 4, channels: int = 3, side: int = 16) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(side)
    clean = torch.rand((batch, channels, side, side), generator=draw)
    return clean + 0.2 * torch.randn(clean.shape, generator=draw), clean


def made(text: str, *, channels: int = 3, patch: int = 16, weights: str = "") -> Objective:
    return make_objective(
        text, channels=channels, patch=patch, perceptual_weights=weights, device="cpu"
    )


def test_every_name_of_the_command_line_is_computed_somewhere() -> None:
    assert set(LOSS_TERMS) == {*LOSSES, PERCEPTUAL, ADVERSARIAL}


@pytest.mark.parametrize("name", LOSSES)
def test_a_name_alone_is_that_loss(name: str) -> None:
    images = pair()

    assert torch.equal(made(name)(*images), LOSSES[name](*images))


def test_terms_are_added_up_by_their_weights() -> None:
    images = pair()

    values = made("2*l1 + mean-luma*0.5 + mse")(*images)

    expected = 2 * LOSSES["l1"](*images) + 0.5 * LOSSES["mean-luma"](*images)
    torch.testing.assert_close(values, expected + LOSSES["mse"](*images))


def test_parts_are_what_the_sum_is_made_of() -> None:
    objective, images = made("2*l1 + 3*fft"), pair()

    parts = objective.parts(*images)

    assert list(parts) == ["l1", "fft"]
    assert torch.equal(parts["fft"], LOSSES["fft"](*images))
    assert torch.equal(objective.total(parts), objective(*images))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sum_of_everything_has_the_same_gradient_in_pieces(vgg: Path, channels: int) -> None:
    text = " + ".join(f"{0.1 + i}*{name}" for i, name in enumerate([*LOSSES, PERCEPTUAL]))
    objective = made(text, channels=channels, weights=str(vgg))
    restored, clean = pair(channels=channels)

    def slopes(at: slice, share: float) -> Tensor:
        part = restored[at].clone().requires_grad_()
        (share * objective(part, clean[at]).mean()).backward()
        assert part.grad is not None
        return part.grad

    pieces = [slopes(slice(0, 1), 0.25), slopes(slice(1, 4), 0.75)]
    torch.testing.assert_close(torch.cat(pieces), slopes(slice(0, 4), 1.0), rtol=1e-4, atol=1e-7)


def test_the_adversarial_term_is_left_to_the_training_loop() -> None:
    objective, images = made("0.01*adversarial + l1"), pair()

    assert objective.adversarial_weight == 0.01
    assert objective.terms == (Term(0.01, "adversarial"), Term(1.0, "l1"))
    assert torch.equal(objective(*images), LOSSES["l1"](*images))
    assert made("l1").adversarial_weight == 0


def test_mixed_precision_outside_changes_nothing_inside(vgg: Path) -> None:
    objective, images = made("ssim + perceptual", weights=str(vgg)), pair()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = objective(*images)

    alone = {name: loss(*images) for name, loss in objective.losses.items()}
    assert torch.equal(values, objective.total(alone))


def test_the_file_of_vgg_is_read_only_where_it_is_needed(tmp_path: Path) -> None:
    assert made("l1", weights=str(tmp_path / "missing.pth"))(*pair()).shape == (4,)


@pytest.mark.parametrize(
    ("text", "changes", "message", "hint"),
    [
        ("l1 + l3", {}, "no loss is called 'l3'", "choose one of"),
        ("ssim", {"patch": 10}, "--loss ssim needs patches of at least 11 px", "--patch 11"),
        ("l1 + ms-ssim", {"patch": 8}, "--loss ms-ssim needs patches of at least 11", "another"),
        ("gradient", {"patch": 1}, "but --patch is 1", "--patch 2"),
        ("perceptual", {"patch": 7}, "--loss perceptual needs patches of at least 8", "--patch 8"),
        ("perceptual", {}, "--loss perceptual compares features", "--perceptual-weights FILE"),
        ("l1", {"channels": 4}, "1 or 3 channels, but these have 4", "contest.toml"),
    ],
)
def test_a_loss_that_does_not_suit_is_refused(
    text: str, changes: dict[str, int], message: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        made(text, **changes)  # type: ignore[arg-type]

    assert message in caught.value.message
    assert hint in caught.value.hint


TINY = {
    "model": "unet",
    "width": 4,
    "hyper": "levels=1 convs=1",
    "patch": 16,
    "batch": 2,
    "folds": 4,
    "fold": 0,
    "device": "cpu",
}


def test_a_run_trains_by_a_sum_and_resumes_from_elsewhere(
    contest: LocalContest, tmp_path: Path, vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = "l1 + 0.5*mean-luma + 1e-2*perceptual"
    monkeypatch.chdir(vgg.parent)

    train(
        contest.folder,
        runs=tmp_path / "runs",
        loss=loss,
        perceptual_weights=vgg.name,
        steps=2,
        val_every=2,
        **TINY,
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = train(resume="last", runs=tmp_path / "runs", steps=4)

    config = find_run("last", tmp_path / "runs").config_file.read_text()
    assert result.steps == 4
    assert f'loss = "{loss}"' in config
    assert f'perceptual_weights = "{vgg}"' in config


def test_a_run_goes_on_when_the_file_of_vgg_has_moved(
    contest: LocalContest, tmp_path: Path, vgg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    settings = TINY | {"loss": "l1 + perceptual", "perceptual_weights": str(vgg)}
    train(contest.folder, runs=runs, steps=1, **settings)
    moved = vgg.rename(tmp_path / "moved.pth")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DataError, match="--perceptual-weights: there is no weights file"):
        train(resume="last", runs=runs, steps=2)
    result = train(resume="last", runs=runs, steps=2, perceptual_weights="moved.pth")

    config = find_run("last", runs).config_file.read_text()
    assert result.steps == 2
    assert f'perceptual_weights = "{moved}"' in config


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"loss": "perceptual"}, SettingsError, "weights do not come with kbdenoise"),
        (
            {"loss": "perceptual", "perceptual_weights": "no.pth"},
            DataError,
            "--perceptual-weights: there is no weights file",
        ),
        ({"loss": "l1 + 0.1*adversarial"}, SettingsError, "discriminator needs patches"),
    ],
)
def test_a_loss_that_cannot_be_had_is_refused_before_pictures_are_read(
    contest: LocalContest,
    tmp_path: Path,
    changes: dict[str, str],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        train(contest.folder, runs=tmp_path / "runs", **TINY, **changes)

    assert not (tmp_path / "runs").exists()
    assert not (contest.folder / STORE_FOLDER).exists()
