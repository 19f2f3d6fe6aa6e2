"""How much dearer than a dense training step is the step of a ticket?  python tests/benchmark.py [ARCH ...]

Timed in turn in one process, so that a busy machine slows all alike: a dense step, the same step of mpt-1-32, the
textbook way to make it (a full sort of |S| in each layer at each forward, NCHW, fp32), and the making of a batch
(shuffle, crop, flip, normalise).
"""

import statistics
import sys
import time

import torch
from torch import nn
from torch.nn.utils import parametrize

from mplt.data import SOURCES, Images, batches
from mplt.models import RESNETS, build
from mplt.subnet import as_subnet, draw_scores, draw_weight, weighted
from mplt.train import keep_memory, optimizer, step


class Textbook(torch.autograd.Function):
    "biprop as one writes it down first"

    @staticmethod
    def forward(ctx, scores, weight, sparsity):
        ctx.save_for_backward(scores, weight)
        _, order = scores.abs().flatten().sort()
        mask = torch.ones_like(scores).flatten()
        mask[order[: int(sparsity * scores.numel())]] = 0
        mask = mask.view_as(scores)
        alpha = (weight * mask).abs().sum() / mask.sum()
        return alpha * mask * torch.sign(weight)

    @staticmethod
    def backward(ctx, grad):
        scores, weight = ctx.saved_tensors
        return grad * weight * torch.sign(scores), None, None


class TextbookMask(nn.Module):
    def __init__(self, weight, name):
        super().__init__()
        self.scores = nn.Parameter(draw_scores(weight.shape, 0, name))

    def forward(self, weight):
        return Textbook.apply(self.scores, weight, 0.5)


def textbook(net):
    net = net.to(memory_format=torch.contiguous_format)
    for name, m in weighted(net).items():
        m.weight.data = draw_weight(m.weight.shape, 0, name)
        m.weight.requires_grad_(False)
        m.bias = None
        parametrize.register_parametrization(m, "weight", TextbookMask(m.weight, name))
    return net


def main(archs, rounds=15):
    native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    precision = "bf16" if native else "fp32"
    keep_memory()
    print(
        f"batch 128, {precision} (textbook: fp32), {torch.get_num_threads()} threads, median of {rounds} steps"
    )
    print(
        f"{'':10}{'dense':>10}{'mpt-1-32':>10}{'textbook':>10}{'data':>8}{'mpt/dense':>11}{'textbook/dense':>16}{'data/dense':>12}"
    )
    source = SOURCES["cifar10"]
    images = Images(
        torch.randint(256, (128 * (rounds + 2), 3, 32, 32), dtype=torch.uint8),
        torch.randint(10, (128 * (rounds + 2),)),
    )
    for arch in archs:
        new = lambda: build(arch, (3, 32, 32), 10, bn="plain" if arch in RESNETS else "none")
        nets = dict(
            dense=as_subnet(new(), "dense", 0),
            ticket=as_subnet(new(), "mpt-1-32", 0.5),
            textbook=textbook(new()),
        )
        opts = {k: optimizer(net, "sgd", 0.1, 0.9, 1e-4) for k, net in nets.items()}
        times, feed = {k: [] for k in (*nets, "data")}, batches(images, source, 128, 0)
        for _ in range(rounds + 2):
            start = time.perf_counter()
            x, y = next(feed)
            times["data"].append(time.perf_counter() - start)
            for k, net in nets.items():
                start = time.perf_counter()
                step(
                    net,
                    opts[k],
                    *((x.contiguous(), y, "fp32") if k == "textbook" else (x, y, precision)),
                )
                times[k].append(time.perf_counter() - start)
        dense, ticket, book, data = (statistics.median(o[2:]) for o in times.values())
        print(
            f"{arch:10}{dense * 1e3:8.0f}ms{ticket * 1e3:8.0f}ms{book * 1e3:8.0f}ms{data * 1e3:6.1f}ms{ticket / dense:11.2f}{book / dense:16.2f}{data / dense:12.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["conv2", "conv4", "conv6", "conv8", "vgg-small", "resnet18"])
