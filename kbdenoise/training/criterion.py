"""What judges the restored patches in a training step, as shapes only: for memory's estimate."""

from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kbdenoise.config import TrainConfig
from kbdenoise.data.batches import Images
from kbdenoise.imaging.tiles import round_up
from kbdenoise.models.blank import on_meta
from kbdenoise.models.memory import Criterion, autocast_on_meta
from kbdenoise.team import ALONE
from kbdenoise.training.adversary import Adversary, least_side
from kbdenoise.training.objective import Objective

_LEAST_SIDE = 64  # px: what every loss but the adversarial one takes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """The meta device, as far as the discriminator asks for one."""

    amp: bool
    kind: str = "meta"

    def mixed_precision(self) -> AbstractContextManager[object]:
        return autocast_on_meta(self.amp)


def criterion_on_meta(
    objective: Objective, config: TrainConfig, *, channels: int, amp: bool
) -> Criterion:
    """The losses, and the discriminator where there is one, for tensors that are shapes only."""
    losses = {n: _shapes(f) if isinstance(f, nn.Module) else f for n, f in objective.losses.items()}
    twin = replace(objective, losses=losses)
    networks = [loss for loss in losses.values() if isinstance(loss, nn.Module)]
    if not twin.adversarial_weight:
        return Criterion(loss=lambda _, *pair: twin(*pair).mean(), networks=networks)
    with on_meta():
        adversary = Adversary(config, channels=channels, device=_Meta(amp=amp), team=ALONE)
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def loss(noisy: Tensor, restored: Tensor, clean: Tensor) -> Tensor:
        verdict = adversary.judged(noisy, restored)
        return (twin(restored, clean) + twin.adversarial_weight * verdict).mean()

    def learn(noisy: Tensor, restored: Tensor, clean: Tensor) -> None:
        images = Images(noisy=noisy, clean=clean, page=None)
        adversary.learn(images, restored, share=1.0, scaler=scaler, last=True)

    return Criterion(loss=loss, learn=learn, networks=[*networks, adversary.critic])


def trial_side(objective: Objective, config: TrainConfig, *, multiple: int) -> int:
    """Side in px of patches to try a step with: the largest of the run, or what pages need."""
    side = max(stage.patch for stage in config.stages)
    least = max(_LEAST_SIDE, least_side(config) if objective.adversarial_weight else 0)
    return max(side or round_up(least, multiple), 2 * multiple)


def _shapes(module: nn.Module) -> nn.Module:
    """A twin of a module on the meta device; no numbers are copied on the way."""
    tensors = {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
    return deepcopy(module, tensors | {id(b): b.to("meta") for b in module.buffers()})
