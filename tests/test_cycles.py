"Iterative pruning: each known way to get it wrong has a test that would catch it"

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from mplt import experiment, ticket, train
from mplt.config import config
from mplt.data import SOURCES, Images, load, normalise, split
from mplt.experiment import run
from mplt.models import build, draw_weight
from mplt.subnet import METHODS, as_subnet, masks, set_sparsity, weighted

CYCLES = [k for k, m in METHODS.items() if m.cycles]
TINY = dict(arch="lenet5", bn="learned", cycles=3, epochs=2, sparsity=0.8, batch_size=30, limit=300)


@pytest.fixture(scope="module")
def digits():
    return load("mnist5k")


def fitted(digits, path=None, trained=lambda cycle, net: None, **given):
    "A config, its network and its rows, after all its cycles; `trained` sees the network after each"
    c = config(**TINY | given)
    net = build(c.arch, (1, 28, 28), 10, c.width, c.bn)
    net = as_subnet(
        net, c.method, 0.0 if c.cycles else c.sparsity, c.seed, scope=c.scope, init=c.init
    )
    parts = split(digits, c.seed, c.limit)
    rows = train.fit(net, parts, digits.source, c, path, lambda cycle: trained(cycle, net))
    return c, net, rows


def originals(net):
    weights = {k: m.parametrizations.weight.original for k, m in weighted(net).items()}
    return {k: w.detach().clone() for k, w in weights.items()}


@pytest.mark.parametrize("method", CYCLES)
def test_each_cycle_removes_what_it_says_and_nothing_comes_back(method, digits):
    seen = []

    def look(cycle, net):
        used = {k: m.weight.detach().clone() for k, m in weighted(net).items()}
        kept = {k: m.clone() for k, m in masks(net).items()}
        seen.append((cycle, net.subnet.sparsity, kept, used))

    fitted(digits, method=method, trained=look)
    assert [o[:2] for o in seen] == [(c, round(1 - 0.2 ** (c / 3), 12)) for c in range(4)]
    for (_, _, before, _), (_, sparsity, after, used) in zip(seen, seen[1:]):
        for k, m in after.items():
            assert (~m).sum() == int(sparsity * m.numel())
            assert not (m & ~before[k]).any() and not used[k][~m].any()


def test_against_torch_prune(digits):
    "PyTorch's own iterative magnitude pruning keeps the same weights (at sizes where it rounds to our floor)"
    layer = nn.Linear(20, 10, bias=False)
    net = as_subnet(nn.Sequential(nn.Linear(20, 10)), "imp", 0.0)
    rng = np.random.RandomState(0)
    for sparsity, amount in (0.1, 20), (0.19, 18), (0.5, 62):
        w = torch.tensor(rng.normal(size=(10, 20))).float()
        weighted(net)["0"].parametrizations.weight.original.data.copy_(w)
        (layer.weight_orig if hasattr(layer, "weight_orig") else layer.weight).data.copy_(w)
        if hasattr(layer, "weight_mask"):
            layer.weight = layer.weight_orig * layer.weight_mask
        prune.l1_unstructured(layer, "weight", amount=amount)
        set_sparsity(net, sparsity)
        assert (masks(net)["0"] == layer.weight_mask.bool()).all()


def test_scores_decide_by_their_value():
    net = as_subnet(build("lenet5", (1, 28, 28), 10), "imp-score", 0.0)
    parts = {k: m.parametrizations.weight[0] for k, m in weighted(net).items()}
    scores = {k: o.scores.detach().abs().numpy().ravel() for k, o in parts.items()}
    set_sparsity(net, 0.3)
    for k, m in masks(net).items():
        lowest = np.argsort(scores[k], kind="stable")[: int(np.floor(0.3 * scores[k].size))]
        assert set(np.flatnonzero(~m.numpy().ravel())) == set(lowest)


@pytest.mark.parametrize("method", CYCLES)
def test_negative_weights_train(method, digits):
    _, net, _ = fitted(digits, method=method)
    end, draw = originals(net), net.subnet.draw
    fresh = build("lenet5", (1, 28, 28), 10, bn="learned")
    start = originals(as_subnet(fresh, method, 0.0, draw=draw))
    assert draw == (3 if method == "imp-reinit" else 0)
    for k, m in masks(net).items():
        moved, negative = start[k] != end[k], start[k] < 0
        shares = [moved[m & o].float().mean() for o in (negative, ~negative)]
        assert shares[0] > 0 and abs(shares[0] - shares[1]) < 0.2


def test_training_mode_is_on_in_every_step(digits, monkeypatch):
    modes, real = [], train.step

    def step(net, *a):
        modes.append(net.training)
        return real(net, *a)

    monkeypatch.setattr(train, "step", step)
    _, net, rows = fitted(digits, method="imp", test_freq=2)
    assert len(modes) == 4 * 2 * 10 and all(modes)
    assert [r["iteration"] for r in rows] == [*range(2, 82, 2)]
    assert net.conv1_bn.num_batches_tracked == 2 * 10


def test_accuracy_counts_every_image(digits):
    images = Images(*(o[:103] for o in digits.test))
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    answers = net(normalise(images.x, digits.source)).argmax(1)
    right = (answers == images.y).sum().item()
    assert train.evaluate(net, images, digits.source, 10)[1] == right / 103
    assert train.evaluate(net, Images(images.x, answers), digits.source, 10)[1] == 1


@pytest.mark.parametrize("method", CYCLES)
def test_everything_goes_back_to_the_start(method, digits, monkeypatch):
    "At a cycle's first step, weights, biases, BN and optimiser are those of the start, whatever was trained"
    seen, real = [], train.step

    def step(net, opt, *a):
        own = {k: v for k, v in net.state_dict().items() if not k.endswith((".fixed", ".scores"))}
        seen.append(({k: v.clone() for k, v in own.items()}, len(opt.state_dict()["state"])))
        return real(net, opt, *a)

    monkeypatch.setattr(train, "step", step)
    fitted(digits, method=method)
    first, *later = seen[::20]
    assert len(later) == 3 and first[1] == 0
    for n, (state, slots) in enumerate(later, 1):
        assert slots == 0
        for k, v in state.items():
            redrawn = METHODS[method].weights == "redrawn" and k.endswith("original")
            assert torch.equal(v, first[0][k]) != redrawn, (n, k)
    if METHODS[method].weights == "redrawn":
        second, third = (o[0]["conv1.parametrizations.weight.original"] for o in later[:2])
        assert not torch.equal(second, third)


def test_rewind_to_a_later_epoch(digits, monkeypatch):
    seen, real = [], train.step

    def step(net, opt, *a):
        steps = [int(s["step"]) for s in opt.state_dict()["state"].values()]
        seen.append((originals(net), steps, opt.param_groups[0]["lr"]))
        return real(net, opt, *a)

    monkeypatch.setattr(train, "step", step)
    _, _, rows = fitted(digits, method="imp", epochs=3, rewind_epoch=1)
    epochs = [(0, 1), *((cycle, epoch) for cycle in range(4) for epoch in (2, 3))]
    assert len(seen) == 3 * 10 + 3 * 2 * 10 and [(r["cycle"], r["epoch"]) for r in rows] == epochs
    assert [r["iteration"] for r in rows] == [10 * i for i in range(1, 10)]
    for cycle in 1, 2, 3:
        weights, steps, lr = seen[30 + 20 * (cycle - 1)]
        assert all(torch.equal(w, seen[10][0][k]) for k, w in weights.items())
        assert set(steps) == {10} and lr == seen[10][2]


def test_mini_batch_spreads_a_cycle_over_its_batches(digits, monkeypatch):
    seen, real = [], train.set_sparsity

    def set_and_count(net, sparsity):
        real(net, sparsity)
        seen.append((sparsity, sum(int(m.sum()) for m in masks(net).values())))

    monkeypatch.setattr(train, "set_sparsity", set_and_count)
    _, net, _ = fitted(digits, method="imp", mini_batch=True, epochs=1)
    sparsities, kept = zip(*seen)
    assert sparsities == tuple(round(1 - 0.2 ** (i / 30), 12) for i in range(1, 31))
    assert list(kept) == sorted(kept, reverse=True)
    assert all((~m).sum() == int(0.8 * m.numel()) for m in masks(net).values())


@pytest.mark.parametrize("method", ["imp", "mpt-1-32"])
def test_global_scope(method, digits):
    given = dict(method=method, scope="global", sparsity=0.9)
    _, net, rows = fitted(digits, **given | ({} if method == "imp" else dict(cycles=0)))
    kept = masks(net).values()
    n = sum(m.numel() for m in kept)
    assert sum(int(m.sum()) for m in kept) == n - n * 9 // 10
    assert len({round(m.float().mean().item(), 3) for m in kept}) > 1
    if method == "mpt-1-32":
        assert [(r["epoch"], r["sparsity"]) for r in rows] == [(1, 0.9), (2, 0.9)]


def test_global_ramp_and_fused_optimisers(digits, monkeypatch):
    "One threshold: it climbs from a half, and the masks in use are always those of the current scores"
    levels, real = [], train.step

    def step(net, *a):
        levels.append(net.subnet.sparsity)
        parts = [m.parametrizations.weight[0] for m in weighted(net).values()]
        flat = torch.cat([p.scores.detach().abs().flatten() for p in parts])
        mine = torch.cat([p.mask.flatten() for p in parts])
        assert flat[mine].min() >= flat[~mine].max()
        assert (~mine).sum() == int(round(levels[-1], 12) * len(flat))
        return real(net, *a)

    monkeypatch.setattr(train, "step", step)
    for name in "sgd", "adam":
        levels.clear()
        how = dict(sparsity=0.9, cycles=0, epochs=4, optimizer=name, lr=0.01)
        fitted(digits, method="mpt-1-32", scope="global", **how)
        assert levels[0] == 0.5 and levels == sorted(levels) and levels[20:] == [0.9] * 20
        assert levels[10] == pytest.approx(0.9 - 0.4 * (1 - 10 / 20) ** 3)


def test_masks_of_one_threshold_are_never_stale():
    "Reading one layer's weight between two steps leaves the next forward pass the present scores' masks"
    net = as_subnet(build("lenet5", (1, 28, 28), 10), "mpt-1-32", 0.8, scope="global")
    used = {}
    for k, m in weighted(net).items():
        m.register_forward_hook(lambda m, x, y, k=k: used.update({k: y}))
    x = torch.randn(4, 1, 28, 28)
    for read in "conv1", "fc3":
        before = net(x)
        weighted(net)[read].weight
        with torch.no_grad():
            for m in weighted(net).values():
                m.parametrizations.weight[0].scores.copy_(torch.randn_like(m.weight))
        after = net(x)
        fresh = as_subnet(build("lenet5", (1, 28, 28), 10), "mpt-1-32", 0.8, scope="global")
        fresh.load_state_dict(net.state_dict())
        assert torch.equal(after, fresh(x)) and not torch.equal(after, before)
        assert (
            sum(int(m.weight.count_nonzero()) for m in weighted(net).values())
            == 61470 - 61470 * 8 // 10
        )


RESUMED = dict(
    reinit=dict(method="imp-reinit"),
    mini_batch=dict(method="imp-score-binary", mini_batch=True),
    later=dict(method="imp", scope="global", rewind_epoch=1, epochs=3, test_freq=3),
    ramp=dict(method="mpt-1-1", bn="plain", scope="global", sparsity=0.9, cycles=0, epochs=6),
    bnn=dict(method="bnn-1-1", bn="plain", sparsity=0.0, cycles=0, epochs=6),
)


@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_taken_up(name, digits, tmp_path, monkeypatch):
    "Stopped three times in the middle of an epoch, a run comes to the bits of one that never was"
    _, net, rows = fitted(digits, **RESUMED[name])
    steps, real = [], train.step

    def step(*a):
        steps.append(0)
        if len(steps) in (7, 18, 33):
            signal.raise_signal(signal.SIGTERM)
        return real(*a)

    monkeypatch.setattr(train, "step", step)
    stops = 0
    for _ in range(4):
        try:
            _, again, later = fitted(digits, tmp_path / "state.pt", **RESUMED[name])
        except train.Stopped:
            stops += 1
    assert stops == 3
    for k, v in net.state_dict().items():
        assert torch.equal(v, again.state_dict()[k]), k
    assert net.subnet == again.subnet
    same = [pd.DataFrame(o).drop(columns=["seconds", "images_per_second"]) for o in (rows, later)]
    pd.testing.assert_frame_equal(*same, check_exact=True)


def test_levels_belong_to_their_cycle(tmp_path, digits, monkeypatch):
    tests, real = [], experiment.evaluate

    def evaluate(net, images, source):
        if len(images.y) == 300 and torch.equal(images.y, parts.test.y):
            tests.append(any(parametrize.is_parametrized(m) for m in net.modules()))
        return real(net, images, source)

    c = config(method="imp", **TINY)
    parts = split(digits, c.seed, c.limit)
    monkeypatch.setattr(experiment, "evaluate", evaluate)
    row = run(c, tmp_path / "run")
    levels, curves = (pd.read_csv(tmp_path / f"run/{o}.csv") for o in ("levels", "curves"))
    once_a_cycle_from_the_file = [False] * 4
    assert tests == once_a_cycle_from_the_file
    for o in levels.itertuples():
        last = curves[curves.cycle == o.cycle].iloc[-1]
        assert (o.sparsity, o.val_accuracy) == (last.sparsity, last.val_accuracy)
        assert o.sparsity == round(1 - 0.2 ** (o.cycle / 3), 12)
        own = ticket.info(tmp_path / f"run/cycles/0{o.cycle}.safetensors")
        assert own["subnet"]["sparsity"] == o.sparsity
        assert sum(own["kept"].values()) == o.weights_kept
        assert own["trained_test_accuracy"] == o.test_accuracy
        start = ticket.load(tmp_path / f"run/cycles/0{o.cycle}.safetensors")
        for k, m in weighted(start).items():
            assert torch.equal(m.weight, draw_weight(m.weight.shape, 0, k) * (m.weight != 0))
    assert row["test_accuracy"] == levels.test_accuracy.iloc[-1] and row["sparsity"] == 0.8
    rebuilt = ticket.load(tmp_path / "run/ticket.safetensors")
    assert real(rebuilt, parts.test, digits.source)[1] == row["test_accuracy"]


def test_seeds(digits):
    a, b, c = (fitted(digits, method="imp-reinit", seed=s)[1] for s in (0, 0, 1))
    for k, mask in masks(a).items():
        assert torch.equal(mask, masks(b)[k])
        assert torch.equal(weighted(a)[k].weight, weighted(b)[k].weight)
    assert any(not torch.equal(m, masks(c)[k]) for k, m in masks(a).items())


def test_statistics_are_those_of_the_data_set():
    mean = torch.tensor(SOURCES["cifar10"].mean)
    x = (255 * mean).round().to(torch.uint8)[None, :, None, None].expand(1, 3, 8, 8)
    assert normalise(x, SOURCES["cifar10"]).abs().max() < 0.01
    assert normalise(x[:, :1], SOURCES["mnist"]).abs().min() > 0.01


def test_training_finds_more_than_chance(digits):
    "On real digits, 5 % of the weights chosen by magnitude or by score do better than 5 % chosen at random"
    how = dict(arch="fc1", bn="none", sparsity=0.95, cycles=3, epochs=1, limit=0, batch_size=60)
    methods = "imp", "imp-score", "imp-random"
    val = {o: fitted(digits, method=o, **how)[2][-1]["val_accuracy"] for o in methods}
    assert min(val["imp"], val["imp-score"]) > val["imp-random"] + 0.01, val
