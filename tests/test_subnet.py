"What as_subnet and its companions refuse: one sentence, the network untouched"

from math import nan
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mplt.binarize import gain
from mplt.errors import UserError
from mplt.mask import TopK, global_masks, topk_mask
from mplt.models import build
from mplt.subnet import as_subnet, masks, set_sparsity, used_weight, weighted
from mplt.train import fit


def own():
    "A network that no chapter knows, for images of 8 x 8"
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 5))


def state(net):
    "Everything that converting changes"
    return repr(net), {k: v.clone() for k, v in net.state_dict().items()}, sorted(vars(net))


REFUSED = [
    (dict(method="mpt-1-33"), "unknown method 'mpt-1-33': did you mean 'mpt-1-32'"),
    (dict(method=None), "unknown method None"),
    (dict(sparsity="0.5"), "sparsity '0.5' is out of range: expected a number in"),
    (dict(sparsity=None), "sparsity None is out of range"),
    (dict(sparsity=nan), "sparsity nan is out of range"),
    (dict(sparsity=-0.1), "sparsity -0.1 is out of range"),
    (dict(sparsity=1), "sparsity 1 is out of range"),
    (dict(sparsity=False), "sparsity False is out of range"),
    (dict(sparsity=[0.5]), r"sparsity \[0.5\] is out of range"),
    (dict(sparsity=torch.tensor(0.5)), r"sparsity tensor\(0.5000\) is out of range"),
    (dict(method="dense"), "sparsity 0.5 does not fit: dense removes no weights"),
    (dict(method="dense", sparsity=0, scope="global"), "scope 'global' does not fit: dense"),
    (dict(seed="a"), "seed 'a' does not fit: it is a whole number"),
    (dict(seed=None), "seed None does not fit"),
    (dict(seed=1.0), "seed 1.0 does not fit"),
    (dict(seed=-1), "seed -1 does not fit"),
    (dict(seed=True), "seed True does not fit"),
    (dict(scope="net"), "unknown scope 'net'"),
    (dict(init="normal"), "unknown init 'normal': did you mean 'kaiming_normal'"),
    (dict(bn="none"), "bn 'none' does not fit: no layer is removed"),
    (dict(scale_fan=True), "scale_fan True does not fit"),
    (dict(scale_fan="half"), "scale_fan 'half' does not fit"),
    (dict(scale_fan=nan), "scale_fan nan does not fit"),
    (dict(scale_fan=2.0), "scale_fan 2.0 does not fit"),
    (dict(method="imp", scale_fan=0.5), "scale_fan 0.5 does not fit: imp trains its weights"),
    (dict(surrogate="ede"), "surrogate 'ede' does not fit: mpt-1-32 has no signs"),
    (dict(method="mpt-1-1", surrogate="e"), "unknown surrogate 'e'"),
    (dict(in_shape="abc"), "in_shape 'abc' does not fit: it is .channels, height, width."),
    (dict(in_shape=3), "in_shape 3 does not fit"),
    (dict(in_shape=(3, 8.0, 8)), r"in_shape \(3, 8.0, 8\) does not fit"),
    (dict(in_shape=(3, 0, 8)), r"in_shape \(3, 0, 8\) does not fit"),
    (dict(in_shape=(1, 8, 8)), r"in_shape \(1, 8, 8\) does not fit the network"),
    (dict(in_shape=(3, 9, 9)), r"in_shape \(3, 9, 9\) does not fit the network"),
    (dict(in_shape=[3, 8]), r"in_shape \(3, 8\) does not fit the network"),
    (dict(method="mpt-1-1"), "binary activations are checked on one forward pass: give in_shape"),
]


@pytest.mark.parametrize("given, says", REFUSED, ids=[str(o[0]) for o in REFUSED])
def test_wrong_choices(given, says):
    net = own()
    before = state(net)
    with pytest.raises(UserError, match=says) as e:
        as_subnet(net, **dict(method="mpt-1-32", sparsity=0.5) | given)
    assert "\n" not in str(e.value)
    after = state(net)
    assert before[0] == after[0] and before[2] == after[2]
    assert all(torch.equal(v, after[1][k]) for k, v in before[1].items())


def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


NETWORKS = [
    (lambda: "conv4", {}, "has no convolution and no linear layer"),
    (lambda: nn.Sequential(nn.ReLU()), {}, "has no convolution and no linear layer"),
    (lambda: nn.Linear(4, 4), {}, "the network is a single layer"),
    (lambda: as_subnet(own(), "imp", 0.0), {}, "converted already"),
    (tied, {}, "layers '0' and '1' share one weight"),
    (lambda: own().double(), {}, "the weight of layer '0' is torch.float64"),
    (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), {}, "parameter '1.weight' belongs"),
    (
        lambda: build("resnet20", (3, 32, 32), 10, bn="plain"),
        dict(in_shape=(3, 64, 64)),
        r"in_shape \(3, 64, 64\) does not fit: it was built for \(3, 32, 32\)",
    ),
]


@pytest.mark.parametrize("new, given, says", NETWORKS, ids=[o[2][-20:] for o in NETWORKS])
def test_wrong_networks(new, given, says):
    with pytest.raises(UserError, match=says):
        as_subnet(new(), "mpt-1-32", 0.5, **given)


def test_right_choices():
    net = as_subnet(own(), "MPT-1-32", 0.5, bn="plain", in_shape=[3, 8, 8], scale_fan=0.5, seed=7)
    assert (net.subnet.method, net.subnet.in_shape, net.subnet.seed) == ("mpt-1-32", (3, 8, 8), 7)
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    with pytest.raises(TypeError, match="batchnorm"):
        as_subnet(own(), "mpt-1-32", 0.5, batchnorm="plain")


@pytest.mark.parametrize("sparsity", ["0.8", None, nan, -1, 1.0])
@pytest.mark.parametrize("method", ["mpt-1-32", "imp", "random"])
def test_wrong_sparsities_later(method, sparsity):
    net = as_subnet(own(), method, 0.5)
    before = {k: m.clone() for k, m in masks(net).items()}
    with pytest.raises(UserError, match="is out of range: expected a number in"):
        set_sparsity(net, sparsity)
    assert net.subnet.sparsity == 0.5
    assert all(torch.equal(m, before[k]) for k, m in masks(net).items())


def test_masks_and_scores_of_another_shape():
    w, m = torch.ones(4, 3), torch.ones(3, dtype=torch.bool)
    for f in lambda: gain(w, m), lambda: used_weight(w, m, 1), lambda: used_weight(w, m, 32):
        with pytest.raises(
            UserError, match=r"a mask of shape \(3,\) does not fit a weight of shape"
        ):
            f()
    net = as_subnet(own(), "mpt-1-32", 0.5)
    weighted(net)["4"].parametrizations.weight[0].scores = nn.Parameter(torch.randn(256))
    with pytest.raises(UserError, match=r"a mask of shape \(256,\) does not fit"):
        net(torch.zeros(2, 3, 8, 8))


def test_no_scores_at_all():
    for f in lambda: topk_mask(torch.zeros(0), 0.5), lambda: TopK()(torch.zeros(0, 3), 0.0):
        with pytest.raises(UserError, match="scores are an empty tensor"):
            f()
    with pytest.raises(UserError, match="sparsity 'x' is out of range"):
        global_masks(dict(a=torch.ones(3)), "x")


@pytest.mark.parametrize("method, has", [("mpt-1-32", 0.8), ("imp", 0.5)])
def test_fit_trains_at_the_sparsity_it_was_converted_to(method, has):
    net = as_subnet(own(), method, has)
    parts = SimpleNamespace(train=SimpleNamespace(y=torch.zeros(4)))
    begins = 0 if method == "imp" else 0.5
    with pytest.raises(
        UserError, match=f"has sparsity {has}, and its training begins with {begins}"
    ):
        fit(net, parts, None, SimpleNamespace(sparsity=0.5, batch_size=2))
    assert net.subnet.sparsity == has


@pytest.mark.parametrize(
    "method, scope",
    [("mpt-1-32", "layer"), ("mpt-1-32", "global"), ("imp", "layer"), ("imp", "global")],
)
def test_nan_names_its_layer(method, scope):
    net = as_subnet(
        build("fc1", (1, 28, 28), 10, 0.1), method, 0.0 if method == "imp" else 0.5, scope=scope
    )
    part = net.fc2.parametrizations.weight
    numbers = part.original if method == "imp" else part[0].scores
    with torch.no_grad():
        numbers[0, 0] = float("nan")
    with pytest.raises(UserError, match="layer 'fc2' are not all numbers"):
        set_sparsity(net, 0.6) if method == "imp" else net(torch.zeros(1, 1, 28, 28))
