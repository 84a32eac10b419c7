"""A model that several processes train together."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kbdenoise.devices import DeviceChoice
from kbdenoise.team import Team


def synchronised(model: nn.Module, *, team: Team, device: DeviceChoice) -> nn.Module:
    """The model with batch norms that take their statistics over the whole team, on GPUs.

    gloo cannot, so that on CPUs each process has its own, and the leader's running ones count.
    """
    if team.size == 1 or device.kind != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def wrapped(model: nn.Module, *, team: Team) -> nn.Module:
    """The model itself or, in a team, one whose backward pass averages gradients over it."""
    return model if team.size == 1 else DistributedDataParallel(model)
