"""The objective of a training run: the weighted sum of the losses that `--loss` names."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from kbdenoise.errors import SettingsError
from kbdenoise.loss_terms import ADVERSARIAL, PERCEPTUAL, Term, parse_loss
from kbdenoise.training import perceptual
from kbdenoise.training.losses import LEAST_SIDES, LOSSES, Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What training minimises, a value for each picture, as a function (restored, clean) -> [B].

    The adversarial term is no function of these two: the training loop adds it, by its weight.
    """

    terms: tuple[Term, ...]
    """As `--loss` names them, the adversarial one included."""
    losses: Mapping[str, Loss]
    """By name, the adversarial one left out."""

    @property
    def adversarial_weight(self) -> float:
        """0 where the discriminator has no say."""
        return sum(term.weight for term in self.terms if term.name == ADVERSARIAL)

    def __call__(self, restored: Tensor, clean: Tensor) -> Tensor:
        """The weighted sum of all terms but the adversarial one: two [B, C, H, W] -> [B]."""
        return self.total(self.parts(restored, clean))

    def parts(self, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """Each loss by name, [B], without its weight.

        Float32 images, `clean` in [0, 1], computed in float32 within mixed precision too.
        """
        kind = restored.device.type
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
            return {name: loss(restored, clean) for name, loss in self.losses.items()}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of what `parts` gave: [B]."""
        weighted = [t.weight * parts[t.name] for t in self.terms if t.name != ADVERSARIAL]
        return torch.stack(weighted).sum(dim=0)  # [terms, B] -> [B]


def make_objective(
    text: str, *, channels: int, patch: int, perceptual_weights: str = "", device: str = "cpu"
) -> Objective:
    """The objective that a text such as `l1 + 0.5*mean-luma` describes.

    `perceptual_weights` is the file of VGG's weights, for the loss 'perceptual', which are put on
    `device`. Raises SettingsError where the text cannot be read, or a loss does not suit the
    pictures' channels or the patch's side in px, and DataError for a broken weights file.
    """
    terms = parse_loss(text)
    names = [term.name for term in terms if term.name != ADVERSARIAL]
    if channels not in (1, 3):
        raise SettingsError(
            f"--loss {text!r} is for pictures of 1 or 3 channels, but these have {channels}",
            hint="the contest's channels stand in its contest.toml",
        )
    for name in names:
        least = perceptual.LEAST_SIDE if name == PERCEPTUAL else LEAST_SIDES.get(name, 1)
        if patch < least:
            raise SettingsError(
                f"--loss {name} needs patches of at least {least} px, but --patch is {patch}",
                hint=f"use --patch {least} or more, or another loss",
            )
    losses = {name: LOSSES[name] for name in names if name != PERCEPTUAL}
    if PERCEPTUAL in names:
        losses[PERCEPTUAL] = perceptual.read_perceptual(perceptual_weights).to(device)
    return Objective(terms=terms, losses=losses)
