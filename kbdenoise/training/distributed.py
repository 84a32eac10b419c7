"""A model that several processes train together."""

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kbdenoise.devices import DeviceChoice
from kbdenoise.team import Team


def synchronised(model: nn.Module, *, team: Team, device: DeviceChoice) -> nn.Module:
    """The model with batch norms that take their statistics over the whole team, on GPUs.

    gloo cannot, so that on CPUs each process has those of its share, and the leader's running ones
    count.
    """
    if team.size == 1 or device.kind != "cuda":
        return model
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return converted


def wrapped(model: nn.Module, *, team: Team) -> nn.Module:
    """The model itself or, in a team, one whose backward pass averages gradients over it."""
    return model if team.size == 1 else DistributedDataParallel(model)


def share_buffers(model: nn.Module, *, team: Team) -> None:
    """Give every process the leader's buffers, such as the running statistics of batch norms."""
    if team.size == 1:
        return
    for buffer in model.buffers():
        told = buffer.contiguous()
        dist.broadcast(told, src=0)
        buffer.copy_(told)


def most_pieces(batch: int, *, team: Team, batch_norms: bool) -> int:
    """In how many pieces each process can take its share of a batch of so many patches.

    Batch norms of several processes wait for each other in every piece: there have to be equally
    many everywhere, so that the smallest share decides.
    """
    return batch // team.size if batch_norms else -(-batch // team.size)
