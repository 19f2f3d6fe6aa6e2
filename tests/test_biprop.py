"One biprop step of two layers, forward and backward, and what binarising it leaves, against plain NumPy"

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mplt.data import SOURCES, Images
from mplt.experiment import after_binarising
from mplt.models import build
from mplt.subnet import METHODS, as_subnet, weighted


def select(W, S, sparsity, bits):
    keep = W.size - int(round(sparsity * 100)) * W.size // 100
    M = np.zeros(W.size)
    M[np.argsort(-np.abs(S).ravel(), kind="stable")[:keep]] = 1
    M = M.reshape(W.shape)
    alpha = np.abs(W * M).sum() / M.sum()
    return alpha * M * np.where(W < 0, -1, 1) if bits == 1 else M * W


@pytest.mark.parametrize("method, bits", [("edge-popup", 32), ("mpt-1-32", 1)])
@pytest.mark.parametrize("sparsity", [0.13, 0.5, 0.9])
def test_step(method, bits, sparsity):
    net = as_subnet(
        nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 3)), method, sparsity, seed=5
    ).double()
    x, y = torch.randn(4, 7, dtype=torch.float64), torch.tensor([0, 2, 1, 2])
    logits = net(x)
    nn.functional.cross_entropy(logits, y).backward()
    P = [m.parametrizations.weight for m in weighted(net).values()]
    W, S = (
        [o.detach().numpy() for o in q] for q in ([p.original for p in P], [p[0].scores for p in P])
    )
    used = [select(w, s, sparsity, bits) for w, s in zip(W, S)]
    h = x.numpy() @ used[0].T
    out = np.maximum(h, 0) @ used[1].T
    assert np.allclose(out, logits.detach())
    p = np.exp(out - out.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    d_out = (p - np.eye(3)[y]) / 4
    d_used = [((d_out @ used[1]) * (h > 0)).T @ x.numpy(), d_out.T @ np.maximum(h, 0)]
    for p, w, s, d in zip(P, W, S, d_used):
        assert np.allclose(p[0].scores.grad, d * w * np.sign(s))


def test_binary_activations():
    net = as_subnet(
        nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 3)), "mpt-1-1", 0.5, in_shape=(7,)
    ).double()
    x = torch.randn(4, 7, dtype=torch.float64)
    g = torch.randn(4, 3, dtype=torch.float64)
    net(x).backward(g)
    P = [m.parametrizations.weight for m in weighted(net).values()]
    W, S = (
        [o.detach().numpy() for o in q] for q in ([p.original for p in P], [p[0].scores for p in P])
    )
    used = [select(w, s, 0.5, 1) for w, s in zip(W, S)]
    h = x.numpy() @ used[0].T
    slope = 2 * (1 - np.abs(np.clip(h, -1, 1)))
    d_used = [((g.numpy() @ used[1]) * slope).T @ x.numpy(), g.numpy().T @ np.where(h < 0, -1, 1)]
    for p, w, s, d in zip(P, W, S, d_used):
        assert np.allclose(p[0].scores.grad, d * w * np.sign(s))


def test_after_binarising():
    "Signs and gain of the kept weights; batch normalisation takes in the training images, not the test's"
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10)
    )
    for layer in weighted(net).values():
        layer.weight.data[torch.rand(layer.weight.shape) < 0.7] = 0
    W = [layer.weight.detach().numpy().copy() for layer in weighted(net).values()]
    b = [layer.bias.detach().numpy() for layer in weighted(net).values()]
    source, x = SOURCES["mnist5k"], torch.randint(256, (80, 1, 28, 28), dtype=torch.uint8)
    flat = (x.numpy().reshape(80, -1) / 255 - source.mean[0]) / source.std[0]
    used = [np.abs(w[w != 0]).mean() * np.sign(w) for w in W]
    h = flat @ used[0].T + b[0]
    mean, var = 0.1 * h[:60].mean(0), 0.9 + 0.1 * h[:60].var(0, ddof=1)
    logits = np.maximum((h - mean) / np.sqrt(var + 1e-5), 0) @ used[1].T + b[1]
    parts = SimpleNamespace(
        train=Images(x[:60], torch.zeros(60, dtype=int)), test=Images(x[60:], torch.arange(20) % 10)
    )
    right = logits[60:].argmax(1) == np.arange(20) % 10
    assert after_binarising(net, parts, source, 0) == np.mean(right)
    assert np.allclose(net[2].running_mean, mean, atol=1e-5)
    assert np.allclose(net[2].running_var, var, rtol=1e-5)


@pytest.mark.parametrize(
    "method, scope",
    [
        ("mpt-1-32", "layer"),
        ("mpt-1-32", "global"),
        ("mpt-1-1", "layer"),
        ("edge-popup", "global"),
        ("imp", "layer"),
    ],
)
def test_compiled_and_exported_it_answers_the_same(method, scope):
    act = "sign" if METHODS[method].activation_bits == 1 else "relu"
    net = build("conv2", (3, 32, 32), 10, 0.0625, bn="plain", act=act)
    net = as_subnet(net, method, 0.5, scope=scope).eval()
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for other in compiled, torch.export.export(net, (x,)).module():
        assert torch.equal(other(x), net(x))
