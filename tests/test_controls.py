"A ticket's controls against calculations by hand, and where a run leaves them"

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO
from torch import nn

from mplt import experiment, ticket
from mplt.config import config
from mplt.data import SOURCES, Images, load, normalise, split
from mplt.errors import UserError
from mplt.experiment import controls, finished, leave_controls, new_model, publish, run, shuffled
from mplt.mask import SCOPES, removed
from mplt.report import accuracy_vs_pruned, gather
from mplt.subnet import as_subnet, masked, masks, originals, weighted

NAMES = ["ticket", "shuffled", "redrawn", "inverted"]
SETTINGS = dict(arch="fc1", width=0.1, epochs=2, limit=200, batch_size=40, lr=0.3, seed=3)
LONGER = dict(width=0.3, epochs=6, limit=1000)  # signs that have learned are seldom close to call


def model(**given):
    net = new_model(config(arch="lenet5", width=0.5, **given), SOURCES["mnist"])
    for part in masked(net).values():
        part.scores.data = torch.randn(
            part.scores.shape, generator=torch.Generator().manual_seed(7)
        )
    return net


def test_shuffled_is_a_permutation_of_each_layer():
    x = torch.arange(60).view(3, 4, 5)
    moved = shuffled(x, 0, "a")
    assert moved.shape == x.shape and torch.equal(moved.flatten().sort().values, x.flatten())
    assert (moved == x).float().mean() < 0.2 and torch.equal(moved, shuffled(x, 0, "a"))
    assert not torch.equal(moved, shuffled(x, 1, "a"))
    assert not torch.equal(moved, shuffled(x, 0, "b"))
    net = model(sparsity=0.8)
    w, m = controls(net)["shuffled"]
    for k, mask in masks(net).items():
        assert m[k].sum() == mask.sum() and torch.equal(w[k], originals(net)[k])
        if mask.numel() > 1000:  # 0.2 of the kept are kept again
            assert 0.1 < (m[k] & mask).sum() / mask.sum() < 0.3


@pytest.mark.parametrize("init", ["kaiming_normal", "signed_constant"])
@pytest.mark.parametrize("scale_fan", [False, True])
def test_redrawn_are_other_weights_of_the_same_kind_under_the_same_mask(init, scale_fan):
    net = model(sparsity=0.8, init=init, scale_fan=scale_fan)
    w, m = controls(net)["redrawn"]
    assert w.keys() == m.keys() == weighted(net).keys()
    for k, before in originals(net).items():
        assert torch.equal(m[k], masks(net)[k])
        n = before.numel()
        assert abs((w[k].sign() == before.sign()).float().mean() - 0.5) < 3 / n**0.5
        assert w[k].norm().item() == pytest.approx(before.norm().item(), rel=4 / n**0.5)
        assert (w[k].abs() == before.abs()).all() == (init == "signed_constant")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_inverted_keeps_the_lowest_scores(scope, sparsity):
    net = model(sparsity=sparsity, scope=scope)
    w, m = controls(net)["inverted"]
    sizes = {k: part.scores.detach().abs().numpy().ravel() for k, part in masked(net).items()}
    groups = [[k] for k in sizes] if scope == "layer" else [list(sizes)]
    for names in groups:
        together = np.concatenate([sizes[k] for k in names])
        wanted = np.zeros(len(together), bool)
        keep = len(together) - removed(len(together), sparsity)
        wanted[np.argsort(together, kind="stable")[:keep]] = True
        found = torch.cat([m[k].flatten() for k in names])
        assert np.array_equal(found.numpy(), wanted)
        both = found & torch.cat([masks(net)[k].flatten() for k in names])
        if sparsity >= 0.5:
            assert both.sum() == (len(together) % 2 and sparsity == 0.5)
    assert all(torch.equal(w[k], v) for k, v in originals(net).items())


def test_a_ticket_made_by_hand_falls_to_chance(tmp_path, monkeypatch):
    "Ten classes, a row of pixels lit in each. The mask keeps the weights whose signs say which"
    x = torch.zeros(1000, 1, 10, 20, dtype=torch.uint8)
    y = torch.arange(10).repeat(100)
    x[range(1000), 0, y] = 255
    wanted = (2 * torch.eye(10) - 1).repeat_interleave(20, 1)
    net = as_subnet(nn.Sequential(nn.Flatten(), nn.Linear(200, 10)), "mpt-1-32", 0.5, seed=1)
    part, w = masked(net)["1"], originals(net)["1"]
    part.scores.data += (w.sign() == wanted).float()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(200, 10, bias=False))
    monkeypatch.setattr(ticket, "load", lambda file, model, large: plain)
    images = SimpleNamespace(**dict.fromkeys(("train", "val", "test"), Images(x, y)))
    leave_controls(tmp_path, config(sparsity=0.5), SOURCES["mnist"], images, net)
    found = pd.read_csv(tmp_path / "controls.csv").set_index("control").test_accuracy
    assert found.ticket == 1 and found.inverted == 0
    assert found.shuffled <= 0.3 and found.redrawn <= 0.3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A finished run of each kind"
    place = tmp_path_factory.mktemp("runs")
    kinds = dict(
        mpt=dict(method="mpt-1-32", bn="learned", sparsity=0.8),
        signs=dict(method="mpt-1-1", bn="learned", sparsity=0.5) | LONGER,
        edge=dict(method="edge-popup", bn="learned", sparsity=0.8),
        bare=dict(method="mpt-1-32", bn="none", sparsity=0.5),
        chance=dict(method="random", bn="learned", sparsity=0.8),
    )
    for name, given in kinds.items():
        run(SETTINGS | given, place / name)
    return {k: (place / k, config(**SETTINGS | given)) for k, given in kinds.items()}


def by_hand(state, weights, mask, bits, signs, train, images):
    "Accuracy of fc1 with these weights; batch normalisation has the statistics of `train`"

    def pre(x, i):
        w, m = weights[f"fc{i}"].double(), mask[f"fc{i}"].double()
        used = w * m if bits == 32 else m * torch.sign(w) * (w.abs() * m).sum() / m.sum()
        return x @ used.T

    t, x = (normalise(o.x, SOURCES["mnist5k"]).double().flatten(1) for o in (train, images))
    for i in (1, 2):
        t, x = pre(t, i), pre(x, i)
        mean, var = t.mean(0), t.var(0)
        scale, shift = state[f"fc{i}_bn.weight"], state[f"fc{i}_bn.bias"]
        scaled = lambda o, v: (o - mean) / (v + 1e-5).sqrt() * scale + shift  # noqa: E731
        t, x = scaled(t, t.var(0, unbiased=False)), scaled(x, var)
        t, x = (o.sign() if signs else o.relu() for o in (t, x))
    return (pre(x, 3).argmax(1) == images.y).double().mean().item()


@pytest.mark.parametrize("kind, bits", [("mpt", 1), ("signs", 1), ("edge", 32)])
def test_measured(runs, kind, bits):
    "γ and β are the ticket's, statistics those of the training images"
    folder, c = runs[kind]
    net = new_model(c, SOURCES["mnist5k"])
    net.load_state_dict(torch.load(folder / "state.pt", weights_only=True)["model"])
    state, images = net.state_dict(), split(load("mnist5k"), c.seed, c.limit)
    rows = pd.read_csv(folder / "controls.csv").set_index("control")
    assert list(rows.index) == NAMES and (rows.config_hash == experiment.config_hash(c)).all()
    near = 0.02 if kind == "signs" else 0.006  # a sum of signs may be just 0
    for name, (w, m) in controls(net).items():
        for part in "val", "test":
            hand = by_hand(state, w, m, bits, kind == "signs", images.train, getattr(images, part))
            assert rows[f"{part}_accuracy"][name] == pytest.approx(hand, abs=near), name


def test_without_statistics_the_ticket_is_itself(runs):
    folder, _ = runs["bare"]
    level, row = (pd.read_csv(folder / f"{o}.csv").iloc[0] for o in ("levels", "controls"))
    assert row.control == "ticket" and row.val_accuracy == level.val_accuracy
    assert row.test_accuracy == level.test_accuracy


def test_batch_normalisation_alone(runs):
    "The random mask's run trains γ and β and nothing else, and has no controls"
    folder, c = runs["chance"]
    first = new_model(c, SOURCES["mnist5k"])
    last = ticket.load(folder / "ticket.safetensors")
    for k, layer in weighted(last).items():
        assert torch.equal(layer.weight, weighted(first)[k].weight)
    assert (last.fc1_bn.weight != 1).any() and (last.fc2_bn.bias != 0).any()
    curve = pd.read_csv(folder / "curves.csv").train_loss
    assert curve.iloc[-1] < curve.iloc[0]
    assert finished(folder, c) and not (folder / "controls.csv").exists()


@pytest.fixture
def folder(runs, tmp_path):
    return shutil.copytree(runs["mpt"][0], tmp_path / "run")


def test_an_older_run_is_finished_and_may_be_measured(runs, folder):
    "Without its summary it ends once more, from its state"
    c, before = runs["mpt"][1], (folder / "controls.csv").read_bytes()
    (folder / "controls.csv").unlink()
    assert finished(folder, c)
    run(c, folder)
    assert not (folder / "controls.csv").exists()
    (folder / "summary.csv").unlink()
    run(c, folder)
    assert (folder / "controls.csv").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"control\n", "another run's", "words"])
def test_damaged_controls_are_a_sentence(runs, folder, content):
    file = folder / "controls.csv"
    if content == "another run's":
        content = (runs["edge"][0] / "controls.csv").read_bytes()
    if content == "words":
        content = file.read_bytes().replace(b"redrawn,0.", b"redrawn,none")
    file.write_bytes(content)
    with pytest.raises(UserError, match="controls.csv is missing or damaged"):
        finished(folder, runs["mpt"][1])


def test_stopped_while_they_are_measured(runs, tmp_path, monkeypatch):
    reference, c = runs["signs"]

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(experiment, "renew_statistics", killed)
        with pytest.raises(KeyboardInterrupt):
            run(c, tmp_path / "run")
    assert not finished(tmp_path / "run", c)
    run(c, tmp_path / "run")
    for f in "controls.csv", "summary.csv", "levels.csv", "ticket.safetensors":
        assert (tmp_path / "run" / f).read_bytes() == (reference / f).read_bytes(), f


def test_published(runs, folder, tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.chdir(tmp_path)
    place = publish(folder, runs["mpt"][1])
    assert (place / "controls.csv").read_bytes() == (folder / "controls.csv").read_bytes()


def test_chance_is_what_has_not_learned():
    "The level of chance in figure F1 leaves learned batch normalisation out"
    folders = [REPO / "results/runs" / o for o in hashes("cifar10")]
    levels = gather(folders, "levels.csv")
    learned = levels[levels.method == "random"].head(1)
    learned = learned.assign(bn="learned", test_accuracy=0.77, config_hash="0" * 12)

    def legend(rows):
        fig = accuracy_vs_pruned(rows, ["mpt-1-32"], published())
        return {o.get_text() for ax in fig.axes for o in ax.get_legend().get_texts()}

    assert legend(levels) == legend(pd.concat([levels, learned]))
    assert any("random (up to" in o for o in legend(levels))


def hashes(suite):
    return pd.read_csv(REPO / f"results/{suite}/summary.csv", dtype=str).config_hash


def published():
    return pd.read_csv(REPO / "data/published.csv", keep_default_na=False)
