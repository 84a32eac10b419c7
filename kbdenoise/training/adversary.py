"""Adversarial training: a discriminator learns to tell restored patches from clean ones.

Both networks learn from the same forward pass, side by side. Isola et al., 'Image-to-Image
Translation with Conditional Adversarial Networks', 2017 (arXiv:1611.07004), sections 3.1 and 3.3;
what differs: there the discriminator moves first, here both move at once; and it normalises each
picture by itself, as theirs does with a batch of one. So a batch taken in pieces, or by several
processes, gives the gradients of the whole.
"""

import contextlib
import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kbdenoise.config import TrainConfig
from kbdenoise.data.batches import Images
from kbdenoise.errors import SettingsError
from kbdenoise.models.patchgan import PatchGAN
from kbdenoise.team import Team
from kbdenoise.training.distributed import wrapped

_BETAS = (0.5, 0.999)


class Place(Protocol):
    """A device, and the precision to compute in on it."""

    @property
    def kind(self) -> str:
        """The device's name."""

    def mixed_precision(self) -> contextlib.AbstractContextManager[object]:
        """The context to compute in."""


class Adversary:
    """The discriminator, its optimiser, and what it says of restored patches."""

    def __init__(self, config: TrainConfig, *, channels: int, device: Place, team: Team) -> None:
        wanted = config.adversary
        self.critic = PatchGAN(
            channels=channels,
            width=wanted.adversary_width,
            layers=wanted.adversary_layers,
            norm="instance",
        ).to(device.kind)
        self.network = wrapped(self.critic.train(), team=team)
        self.optimiser = torch.optim.Adam(
            self.critic.parameters(), lr=wanted.adversary_lr, betas=_BETAS
        )
        self.device = device
        self.lr = wanted.adversary_lr

    def judged(self, noisy: Tensor, restored: Tensor) -> Tensor:
        """How little each restored patch passes for a clean one: [B, C, P, P] twice -> [B].

        The gradient goes to `restored` only.
        """
        self.critic.requires_grad_(False)
        try:
            with self.device.mixed_precision():
                logits = self.critic(noisy, restored)  # [B, 1, h, w]
            return _cross_entropy(logits, real=True)
        finally:
            self.critic.requires_grad_(True)

    def learn(
        self,
        images: Images,
        restored: Tensor,
        *,
        share: float,
        scaler: torch.amp.GradScaler,
        last: bool,
    ) -> None:
        """Add the gradient of telling `images.clean` from `restored`; see `step._piece`."""
        waits = isinstance(self.network, DistributedDataParallel) and not last
        noisy = torch.cat([images.noisy, images.noisy])
        candidates = torch.cat([images.clean, restored.detach()])  # [2B, C, P, P]
        with self.network.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
            with self.device.mixed_precision():
                logits = self.network(noisy, candidates)
            real, made = logits.chunk(2)
            losses = _cross_entropy(real, real=True) + _cross_entropy(made, real=False)  # [B]
            scaler.scale(0.5 * losses.sum() * share).backward()

    def forget(self) -> None:
        """Drop the gradients."""
        self.optimiser.zero_grad(set_to_none=True)

    def move(self, *, rate: float, scaler: torch.amp.GradScaler) -> None:
        """Take the step that was learnt, at `rate` times the peak; none where it is not finite."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.lr
        scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.critic.parameters(), math.inf)
        if torch.isfinite(norm):  # waits for the device
            scaler.step(self.optimiser)


def least_side(config: TrainConfig) -> int:
    """Of a patch, in px, that can be judged."""
    return int(3 * 2**config.adversary.adversary_layers)


def check_patches(config: TrainConfig) -> None:
    """Raises SettingsError where a patch is too small to be judged."""
    least = least_side(config)
    smallest = min((s.patch for s in config.stages if not s.pages), default=least)
    if smallest < least:
        raise SettingsError(
            f"the discriminator needs patches of at least {least} px, but there are some of "
            f"{smallest}",
            hint="use a larger --patch, or fewer --adversary-layers",
        )


def _cross_entropy(logits: Tensor, *, real: bool) -> Tensor:
    """Of each image, the mean over its patches: [B, 1, h, w] -> [B], in float32."""
    logits = logits.float()
    target = torch.full_like(logits, float(real))
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses.mean(dim=(1, 2, 3))
