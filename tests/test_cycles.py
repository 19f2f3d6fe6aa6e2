"Iterative pruning: each known way to get it wrong has a test that would catch it"

from types import SimpleNamespace

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
from mplt.models import build
from mplt.prune import after_cycles, final_sparsity, rewind, snapshot, trained_state
from mplt.subnet import METHODS, as_subnet, draw_weight, masks, set_sparsity, weighted

CYCLES = [k for k, m in METHODS.items() if m.cycles]
TINY = dict(arch="lenet5", bn="learned", cycles=3, epochs=2, sparsity=0.8, batch_size=30, limit=300)


@pytest.fixture(scope="module")
def digits():
    return load("mnist5k")


def fitted(digits, path=None, trained=lambda cycle, net: None, **given):
    "A config, its network and its rows, after all its cycles; `trained` sees the network after each"
    c = config(**TINY | given)
    net = as_subnet(
        build(c.arch, (1, 28, 28), 10, c.width, c.bn),
        c.method,
        0.0,
        c.seed,
        scope=c.scope,
        init=c.init,
    )
    return (
        c,
        net,
        train.fit(
            net,
            split(digits, c.seed, c.limit),
            digits.source,
            c,
            path,
            lambda cycle: trained(cycle, net),
        ),
    )


def originals(net):
    return {
        k: m.parametrizations.weight.original.detach().clone() for k, m in weighted(net).items()
    }


@pytest.mark.parametrize("method", CYCLES)
def test_each_cycle_removes_what_it_says_and_nothing_comes_back(method, digits):
    seen = []
    fitted(
        digits,
        method=method,
        trained=lambda cycle, net: seen.append(
            (
                cycle,
                net.subnet.sparsity,
                {k: m.clone() for k, m in masks(net).items()},
                {k: m.weight.detach().clone() for k, m in weighted(net).items()},
            )
        ),
    )
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


def test_scores_decide_by_their_value(digits):
    net = as_subnet(build("lenet5", (1, 28, 28), 10), "imp-score", 0.0)
    S = {
        k: m.parametrizations.weight[0].scores.detach().abs().numpy().ravel()
        for k, m in weighted(net).items()
    }
    set_sparsity(net, 0.3)
    for k, m in masks(net).items():
        lowest = np.argsort(S[k], kind="stable")[: int(np.floor(0.3 * S[k].size))]
        assert set(np.flatnonzero(~m.numpy().ravel())) == set(lowest)


@pytest.mark.parametrize("method", CYCLES)
def test_negative_weights_train(method, digits):
    _, net, _ = fitted(digits, method=method)
    end = originals(net)
    start = originals(
        as_subnet(build("lenet5", (1, 28, 28), 10, bn="learned"), method, 0.0, draw=net.subnet.draw)
    )
    assert net.subnet.draw == (3 if method == "imp-reinit" else 0)
    for k, m in masks(net).items():
        moved = (start[k] != end[k]) & m
        assert (moved & (start[k] < 0)).any() and abs(
            moved[m & (start[k] < 0)].float().mean() - moved[m & (start[k] >= 0)].float().mean()
        ) < 0.2


def test_training_mode_is_on_in_every_step(digits, monkeypatch):
    modes, real = [], train.step
    monkeypatch.setattr(
        train, "step", lambda net, *a: (modes.append(net.training), real(net, *a))[1]
    )
    _, net, rows = fitted(digits, method="imp", test_freq=2)
    assert len(modes) == 4 * 2 * 10 and all(modes)
    assert [r["iteration"] for r in rows][:6] == [2, 4, 6, 8, 10, 12] and rows[-1][
        "iteration"
    ] == 80
    assert net.conv1_bn.num_batches_tracked == 2 * 10


def test_accuracy_counts_every_image(digits):
    images = Images(*(o[:103] for o in digits.test))
    perfect = SimpleNamespace(net=nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    net = perfect.net
    right = (net(normalise(images.x, digits.source)).argmax(1) == images.y).sum().item()
    assert train.evaluate(net, images, digits.source, 10)[1] == right / 103
    known = Images(images.x, net(normalise(images.x, digits.source)).argmax(1))
    assert train.evaluate(net, known, digits.source, 10)[1] == 1


@pytest.mark.parametrize("method", CYCLES)
def test_everything_goes_back_to_the_start(method, digits, monkeypatch):
    "At a cycle's first step, weights, biases, BN and optimiser are those of the start, whatever was trained"
    seen, real = [], train.step

    def step(net, opt, *a):
        seen.append(
            (
                {
                    k: v.clone()
                    for k, v in net.state_dict().items()
                    if not k.endswith((".fixed", ".scores"))
                },
                len(opt.state_dict()["state"]),
            )
        )
        return real(net, opt, *a)

    monkeypatch.setattr(train, "step", step)
    fitted(digits, method=method)
    first, *later = seen[::20]
    assert len(later) == 3 and first[1] == 0
    for n, (state, slots) in enumerate(later, 1):
        assert slots == 0
        for k, v in state.items():
            weight = k.endswith("original")
            assert torch.equal(v, first[0][k]) != (
                weight and METHODS[method].weights == "redrawn"
            ), (n, k)
    if METHODS[method].weights == "redrawn":
        assert not torch.equal(
            later[0][0]["conv1.parametrizations.weight.original"],
            later[1][0]["conv1.parametrizations.weight.original"],
        )


def test_a_snapshot_is_a_copy():
    net = as_subnet(build("lenet5", (1, 28, 28), 10, bn="plain"), "imp", 0.0)
    opt = torch.optim.Adam(net.parameters(), 0.1)
    start = snapshot(net, opt)
    before = {k: v.clone() for k, v in start["model"].items()}
    for cycle in 1, 2:
        net(torch.randn(4, 1, 28, 28)).sum().backward()
        opt.step()
        rewind(net, opt, start, cycle)
        for k, v in before.items():
            assert torch.equal(start["model"][k], v)
            assert torch.equal(trained_state(net)[k], v)
        assert opt.state_dict()["state"] == {} == start["optimizer"]["state"]


def test_rewind_to_a_later_epoch(digits, monkeypatch):
    seen, real = [], train.step

    def step(net, opt, *a):
        seen.append(
            (
                originals(net),
                [int(s["step"]) for s in opt.state_dict()["state"].values()],
                opt.param_groups[0]["lr"],
            )
        )
        return real(net, opt, *a)

    monkeypatch.setattr(train, "step", step)
    _, _, rows = fitted(digits, method="imp", epochs=3, rewind_epoch=1)
    assert len(seen) == 3 * 10 + 3 * 2 * 10 and [(r["cycle"], r["epoch"]) for r in rows] == [
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (1, 3),
        (2, 2),
        (2, 3),
        (3, 2),
        (3, 3),
    ]
    assert [r["iteration"] for r in rows] == [10 * i for i in range(1, 10)]
    for cycle in 1, 2, 3:
        weights, steps, lr = seen[30 + 20 * (cycle - 1)]
        assert all(torch.equal(w, seen[10][0][k]) for k, w in weights.items())
        assert set(steps) == {10} and lr == seen[10][2]


def test_mini_batch_spreads_a_cycle_over_its_batches(digits, monkeypatch):
    seen, real = [], train.set_sparsity
    monkeypatch.setattr(
        train,
        "set_sparsity",
        lambda net, s: (
            real(net, s),
            seen.append((s, sum(int(m.sum()) for m in masks(net).values()))),
        ),
    )
    _, net, _ = fitted(digits, method="imp", mini_batch=True, epochs=1)
    wanted = [round(1 - 0.2 ** (i / 30), 12) for i in range(1, 31)]
    assert [s for s, _ in seen] == wanted and [k for _, k in seen] == sorted(
        (k for _, k in seen), reverse=True
    )
    assert sum(int((~m).sum()) for m in masks(net).values()) == sum(
        int(0.8 * m.numel()) for m in masks(net).values()
    )


def test_global_scope(digits):
    for method in "imp", "mpt-1-32":
        given = dict(method=method, scope="global", sparsity=0.9) | (
            dict() if method == "imp" else dict(cycles=0, rewind_epoch=0)
        )
        _, net, rows = fitted(digits, **given)
        found = masks(net)
        n = sum(m.numel() for m in found.values())
        assert (
            sum(int(m.sum()) for m in found.values()) == n - n * 9 // 10
            and len({round(m.float().mean().item(), 3) for m in found.values()}) > 1
        )
        if method == "mpt-1-32":
            assert [r["sparsity"] for r in rows] == [0.9, 0.9] and rows[0]["epoch"] == 1


def test_global_ramp_and_fused_optimisers(digits, monkeypatch):
    "One threshold: it climbs from a half, and the masks in use are always those of the current scores"
    levels, real = [], train.step

    def step(net, *a):
        levels.append(net.subnet.sparsity)
        parts = [m.parametrizations.weight[0] for m in weighted(net).values()]
        flat = torch.cat([p.scores.detach().abs().flatten() for p in parts])
        mine = torch.cat([p.mask.flatten() for p in parts])
        assert flat[mine].min() >= flat[~mine].max() and (~mine).sum() == int(
            round(levels[-1], 12) * len(flat)
        )
        return real(net, *a)

    monkeypatch.setattr(train, "step", step)
    for name in "sgd", "adam":
        levels.clear()
        fitted(
            digits,
            method="mpt-1-32",
            scope="global",
            sparsity=0.9,
            cycles=0,
            epochs=4,
            optimizer=name,
            lr=0.01,
        )
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
        train.StopSignal.number = 15 if len(steps) in (7, 18, 33) else None
        return real(*a)

    monkeypatch.setattr(train, "step", step)
    stops = 0
    for _ in range(4):
        try:
            _, again, later = fitted(digits, tmp_path / "state.pt", **RESUMED[name])
        except train.Stopped:
            stops += 1
    train.StopSignal.number = None
    assert stops == 3
    for k, v in net.state_dict().items():
        assert torch.equal(v, again.state_dict()[k]), k
    assert net.subnet == again.subnet
    timing = {"seconds", "images_per_second"}
    assert [{k: v for k, v in r.items() if k not in timing} for r in rows] == [
        {k: v for k, v in r.items() if k not in timing} for r in later
    ]


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
    assert tests == [False] * 4, (
        "the test images are looked at once a cycle, on the network from the file"
    )
    for o in levels.itertuples():
        last = curves[curves.cycle == o.cycle].iloc[-1]
        assert o.sparsity == last.sparsity == after_cycles(0.8, 3, o.cycle)
        rounded = abs(o.val_accuracy - last.val_accuracy) * len(parts.val.y)
        assert rounded < 2.5  # images that the file's batch normalisation may see otherwise
        own = ticket.info(tmp_path / f"run/cycles/0{o.cycle}.safetensors")
        assert (
            own["subnet"]["sparsity"] == o.sparsity
            and sum(own["kept"].values()) == o.weights_kept
            and own["trained_test_accuracy"] == o.test_accuracy
        )
        start = ticket.load(tmp_path / f"run/cycles/0{o.cycle}.safetensors")
        for k, m in weighted(start).items():
            assert torch.equal(m.weight, draw_weight(m.weight.shape, 0, k) * (m.weight != 0))
    assert row["test_accuracy"] == levels.test_accuracy.iloc[-1] and row["sparsity"] == 0.8
    rebuilt = ticket.load(tmp_path / "run/ticket.safetensors")
    assert real(rebuilt, parts.test, digits.source)[1] == row["test_accuracy"]


def test_seeds(digits):
    (_, a, _), (_, b, _), (_, c, _) = (
        fitted(digits, method="imp-reinit", seed=s) for s in (0, 0, 1)
    )
    for k in masks(a):
        assert torch.equal(masks(a)[k], masks(b)[k]) and torch.equal(
            weighted(a)[k].weight, weighted(b)[k].weight
        )
    assert any(not torch.equal(masks(a)[k], masks(c)[k]) for k in masks(a))


def test_rates():
    c = config(method="imp", prune_percent=5, cycles=50)
    assert c.sparsity == final_sparsity(5, 50) and after_cycles(c.sparsity, 50, 1) == pytest.approx(
        0.05, abs=1e-11
    )
    alive = 1.0
    for _ in range(7):
        alive *= 0.1 ** (1 / 7)
    assert (
        1 - alive == pytest.approx(after_cycles(0.9, 7, 7), abs=1e-12)
        and after_cycles(0.9, 7, 7) == 0.9
    )


def test_statistics_are_those_of_the_data_set():
    assert SOURCES["cifar10"].mean != SOURCES["mnist"].mean
    x = (
        torch.tensor(SOURCES["cifar10"].mean)[None, :, None, None]
        .mul(255)
        .round()
        .to(torch.uint8)
        .expand(1, 3, 8, 8)
    )
    assert (
        normalise(x, SOURCES["cifar10"]).abs().max()
        < 0.01
        < normalise(x[:, :1], SOURCES["mnist"]).abs().min()
    )


def test_training_finds_more_than_chance(digits):
    "On real digits, 5 % of the weights chosen by magnitude or by score do better than 5 % chosen at random"
    val = {
        m: fitted(
            digits, method=m, arch="fc1", bn="none", sparsity=0.95, cycles=5, limit=0, batch_size=60
        )[2][-1]["val_accuracy"]
        for m in ("imp", "imp-score", "imp-random")
    }
    assert val["imp"] > val["imp-random"] + 0.01 and val["imp-score"] > val["imp-random"] + 0.01, (
        val
    )
