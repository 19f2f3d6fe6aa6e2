"On a GPU, the host gives it one step after the other and waits for none"

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mplt import train
from mplt.config import config
from mplt.data import Images
from mplt.models import build
from mplt.names import SOURCES
from mplt.subnet import as_subnet

STEPS = [
    dict(arch="conv2", method="mpt-1-32"),
    dict(arch="conv2", method="mpt-1-32", scope="global"),
    dict(arch="conv2", method="mpt-1-1", bn="learned", surrogate="ede"),
    dict(arch="resnet20", method="edge-popup"),
    dict(arch="conv2", method="bnn-1-32", optimizer="sgd"),
    dict(arch="conv2", method="imp", cycles=2),
    dict(arch="conv2", method="dense"),
]


class Crossings(TorchDispatchMode):
    "Counts what goes from one device to another: each makes the host wait for the device"

    n = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        tensors = [o for o in (*args, made) if isinstance(o, torch.Tensor)]
        self.n += len({o.device.type for o in tensors}) > 1
        return made


@pytest.mark.parametrize("settings", STEPS, ids=lambda o: " ".join(map(str, o.values())))
def test_no_step_waits_for_the_device(settings, monkeypatch):
    """… nor takes anything from the host but its own numbers, after the first step. The device is `meta`,
    where there are shapes and no values: whatever asks for one there raises"""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)  # meta knows none
    cfg = config(dataset="cifar10", width=0.25, batch_size=8, **settings)
    net = build(cfg.arch, (3, 32, 32), 10, width=cfg.width, bn=cfg.bn)
    start = 0.0 if cfg.cycles else cfg.sparsity
    net = as_subnet(net, cfg.method, start, scope=cfg.scope).to("meta")
    x = torch.zeros(80, 3, 32, 32, dtype=torch.uint8, device="meta")
    images = Images(x, torch.zeros(80, dtype=torch.int64, device="meta"))
    run = train.Run(net, cfg, SimpleNamespace(train=images, val=images), SOURCES["cifar10"])
    noted, crossings, seen, step = [], Crossings(), [], train.step

    def counted(*args):
        made = step(*args)
        seen.append(crossings.n)
        noted.extend([15] * (len(seen) == 4))  # stop after it
        return made

    monkeypatch.setattr(train, "step", counted)
    with crossings:
        train.train_epoch(run, noted)
    assert len(seen) == 4 and seen[0] > 0 and seen[1] == seen[3] == crossings.n, seen
