"""A model that several processes train together."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kbdenoise.devices import DeviceChoice
from kbdenoise.team import Team


def wrapped(model: nn.Module, *, team: Team, device: DeviceChoice) -> nn.Module:
    """The model itself or, in a team, one whose backward pass averages gradients over it.

    On GPUs batch norms take their statistics over the whole team; gloo cannot, so that on CPUs
    each process has its own, and the leader's running ones count.
    """
    if team.size == 1:
        return model
    if device.kind == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model)
