"""How much dearer than a dense training step is the step of a ticket?  python tests/benchmark.py [ARCH ...]

Timed in turn in one process, so that a busy machine slows all alike: a dense step, the same step of mpt-1-32,
the textbook way to make it (a full sort of |S| in each layer at each forward, NCHW, fp32), and the making
of a batch (shuffle, crop, flip, normalise).
"""

import statistics
import sys
import time

import torch
from torch import nn
from torch.nn.utils import parametrize

from mplt.data import SOURCES, Images, batches
from mplt.models import RESNETS, build, draw_scores, draw_weight
from mplt.subnet import as_subnet, weighted
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
    threads = torch.get_num_threads()
    print(f"batch 128, {precision} (textbook: fp32), {threads} threads, median of {rounds} steps")
    heads = "dense mpt-1-32 textbook data mpt/dense textbook/dense data/dense".split()
    print(" " * 10 + "".join(f"{o:>{len(o) + 4}}" for o in heads))
    source = SOURCES["cifar10"]
    images = Images(
        torch.randint(256, (128 * (rounds + 2), 3, 32, 32), dtype=torch.uint8),
        torch.randint(10, (128 * (rounds + 2),)),
    )
    for arch in archs:
        bn = "plain" if arch in RESNETS else "none"
        net, other, third = (build(arch, (3, 32, 32), 10, bn=bn) for _ in range(3))
        nets = dict(
            dense=as_subnet(net, "dense", 0),
            ticket=as_subnet(other, "mpt-1-32", 0.5),
            textbook=textbook(third),
        )
        opts = {k: optimizer(net, "sgd", 0.1, 0.9, 1e-4) for k, net in nets.items()}
        times, feed = {k: [] for k in (*nets, "data")}, batches(images, source, 128, 0)
        for _ in range(rounds + 2):
            start = time.perf_counter()
            x, y = next(feed)
            times["data"].append(time.perf_counter() - start)
            for k, net in nets.items():
                given = (x.contiguous(), y, "fp32") if k == "textbook" else (x, y, precision)
                start = time.perf_counter()
                step(net, opts[k], *given)
                times[k].append(time.perf_counter() - start)
        dense, ticket, book, data = (statistics.median(o[2:]) for o in times.values())
        cells = [f"{1000 * o:.0f}ms" for o in (dense, ticket, book)] + [f"{1000 * data:.1f}ms"]
        cells += [f"{ticket / dense:.2f}", f"{book / dense:.2f}", f"{data / dense:.3f}"]
        row = "".join(f"{cell:>{len(head) + 4}}" for cell, head in zip(cells, heads))
        print(f"{arch:10}{row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["conv2", "conv4", "conv6", "conv8", "vgg-small", "resnet18"])
