"""Kernel-basis attention under DistributedDataParallel: two processes, one gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from kbdenoise.models.build import build_model

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
torch.manual_seed(0)
blocks = {"encoder_blocks": (1,), "middle_blocks": 1, "decoder_blocks": (1,)}
model = build_model("kbnet-s", channels=3, width=8, **blocks)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
batch = torch.rand(4, 3, 18, 22)
parallel = DistributedDataParallel(model)
parallel(batch[2 * rank : 2 * rank + 2]).square().mean().backward()
shared = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
if rank == 0:
    model.zero_grad()
    model(batch).square().mean().backward()
    alone = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.save((shared, alone), f"{folder}/gradients.pt")
dist.destroy_process_group()
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_have_the_gradient_of_one(
    tmp_path: Path, start_child: Callable[..., Any]
) -> None:
    processes = [start_child(SCRIPT, rank, tmp_path) for rank in range(2)]
    ended = [process.wait() for process in processes]
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr

    shared, alone = torch.load(tmp_path / "gradients.pt")
    assert any(name.endswith(".w") for name in shared)
    for name, gradient in alone.items():
        scale = gradient.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(shared[name], gradient, rtol=0, atol=1e-4 * float(scale))
