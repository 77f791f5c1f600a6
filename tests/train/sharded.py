"""A sharded model's state is taken down whole and put back; started by `torchrun`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.train.small import net
from tonsor.train import Ema
from tonsor.train.method import NoMethod
from tonsor.train.state import Progress, State
from tonsor.train.tree import copied, whole


def main() -> None:
    """Train, take down, train on; put back, train on again; compare."""
    dist.init_process_group("gloo")
    model = net(norm=False, dropout=0.0)
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ema = Ema(model, 0.9)
    stub: Any = SimpleNamespace(
        scaler=None, device=torch.device("cpu"), num_processes=2, process_index=dist.get_rank()
    )
    state = State(stub, model, optimizer, ema, NoMethod(), Progress())

    def train() -> dict[str, Any]:
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            images = torch.randn(8, 1, 8, 8, generator=generator)
            F.cross_entropy(model(images), torch.arange(8)).backward()
            optimizer.step()
            optimizer.zero_grad()
            ema.update(model)
        with ema.in_place(model):
            averaged = copied(model.state_dict())
        return {"live": copied(model.state_dict()), "averaged": averaged}

    train()
    saved = copied(state.snapshot())
    assert saved["model"]["linear.weight"].shape == (10, 128)
    assert type(saved["optimizer"]["state"][0]["momentum_buffer"]) is torch.Tensor
    first = train()
    state.restore(saved)
    second = train()
    for kind, weights in first.items():
        for name, tensor in weights.items():
            assert torch.equal(tensor, second[kind][name]), (kind, name)
    assert whole(model.linear.weight).shape == (10, 128)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
