"Ticket files: small, exact, and read with suspicion"

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn

from mplt import ticket
from mplt.command import main
from mplt.data import load, normalise
from mplt.errors import UserError
from mplt.export import export
from mplt.models import build
from mplt.subnet import METHODS, as_subnet, weighted

SIZES = [("conv4", 0.5, "plain"), ("lenet5", 0.9, "learned"), ("vgg-small", 0.95, "none")]
CASES = [
    (m, *s)
    for m, row in METHODS.items()
    if m != "dense"
    for s in (SIZES if row.weights == "frozen" else SIZES[:2])
]


def shaken(method, arch="lenet5", sparsity=0.8, bn="plain", in_shape=(1, 28, 28), skips=False):
    "A converted network with BN statistics that are not all alike, as after training"
    torch.manual_seed(0)
    net = as_subnet(build(arch, in_shape, 10, bn=bn, skips=skips), method, sparsity, seed=4)
    net.train()(torch.randn(16, *in_shape))
    return net.eval()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "ticket.safetensors"
    ticket.save(path, shaken("mpt-1-32"), dataset="mnist5k")
    return path


def bound(net, method):
    "Bytes: 1.01 of the entropy of the masks, what was trained of the weights, and what else has to be there"
    sizes = [(m.weight.numel(), int((m.weight != 0).sum())) for m in weighted(net).values()]
    shares = [(n, k / n) for n, k in sizes if k < n]
    masks = sum(-n * (p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8 for n, p in shares)
    rest = [v.numel() for k, v in net.state_dict().items() if "parametrizations" not in k]
    row = METHODS[method]
    trained = sum(k for _, k in sizes) * row.weight_bits / 8 if row.weights != "frozen" else 0
    return masks, 1.01 * masks + trained + 4 * (len(sizes) + sum(rest)) + 4096


@pytest.mark.parametrize("method, arch, sparsity, bn", CASES)
def test_size(method, arch, sparsity, bn, tmp_path):
    if METHODS[method].mask == "none":
        sparsity = 0.0
    net = shaken(method, arch, sparsity, bn, (3, 32, 32))
    size, (masks, limit) = ticket.save(tmp_path / "t.safetensors", net), bound(net, method)
    print(f"{arch} {method} {sparsity}: {size} bytes, masks at their bound {masks:.0f}")
    assert size <= limit
    if (arch, bn) == ("vgg-small", "none"):
        assert size < 171_000
    if METHODS[method].cycles:
        assert ticket.save(tmp_path / "t.safetensors", net, initial=True) <= 1.01 * masks + 4096


@pytest.mark.parametrize("method", ["mpt-1-32", "mpt-1-1"])
def test_skips_come_back(method, tmp_path):
    net, x = shaken(method, "conv4", 0.5, skips=True), torch.randn(20, 1, 28, 28)
    ticket.save(tmp_path / "t", net)
    again = ticket.load(tmp_path / "t")
    assert again.spec.skips and torch.equal(again(x), net(x))
    again.__class__ = torch.nn.Sequential
    assert not torch.allclose(again(x), net(x))


def test_only_a_subnetwork_makes_a_ticket(good, tmp_path):
    for net in build("fc1", (1, 28, 28), 10), ticket.load(good):
        with pytest.raises(UserError, match="has not been converted, or was rebuilt from a ticket"):
            ticket.save(tmp_path / "t.safetensors", net)


def test_another_process_and_other_threads(good, tmp_path):
    x = torch.randn(50, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    torch.save(x, tmp_path / "x")
    mine = shaken("mpt-1-32")(x).detach()
    code = f"""import sys, torch; from mplt import ticket
torch.set_num_threads(int(sys.argv[1])); net = ticket.load({str(good)!r})
open('out', 'wb').write(net(torch.load('x')).numpy().tobytes())"""
    for threads in {torch.get_num_threads(), 1, 2}:
        command = [sys.executable, "-c", code, str(threads)]
        subprocess.run(command, cwd=tmp_path, check=True)
        out = bytearray((tmp_path / "out").read_bytes())
        theirs = torch.frombuffer(out, dtype=torch.float32).view(mine.shape)
        if threads == torch.get_num_threads():
            assert torch.equal(theirs, mine)
        assert (theirs - mine).abs().max() <= 1e-5


def test_every_flipped_bit_is_seen(good, tmp_path):
    raw, rng, bad = good.read_bytes(), np.random.RandomState(0), tmp_path / "bad.safetensors"
    for bit in [*range(0, 8 * 16), *rng.choice(8 * len(raw), 1000, replace=False)]:
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(flipped)
        with pytest.raises(UserError, match="bad.safetensors"):
            ticket.info(bad)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 1000, -1])
def test_truncated(good, keep, tmp_path):
    (tmp_path / "bad").write_bytes(good.read_bytes()[:keep])
    with pytest.raises(UserError, match="bad"):
        ticket.load(tmp_path / "bad")


class Evil:
    def __reduce__(self):
        return open, ("evil-was-here", "w")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Evil()),
        b"",
        b"PK\3\4" + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 20) + b'{"__metadata__":null}'[:20],
    ],
)
def test_not_a_ticket(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="bad.safetensors is not a ticket"):
        ticket.load("bad.safetensors")
    assert [f.name for f in tmp_path.iterdir()] == ["bad.safetensors"]


def forged(path, out, header=lambda h: None, tensors=lambda t: None):
    "The same ticket with something else in it, properly sealed"
    raw = path.read_bytes()
    outer = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    h, t = json.loads(outer["__metadata__"]["mplt"]), read_tensors(raw)
    header(h)
    tensors(t)
    h["sha256"] = ticket.sealed(h, t)
    out.write_bytes(tensor_bytes(t, {"mplt": json.dumps(h, sort_keys=True)}))
    return out


HEADERS = {
    "format": (lambda h: h.update(format=2), "has format 2"),
    "format of another type": (lambda h: h.update(format="1"), "has format '1'"),
    "no kept": (lambda h: h.pop("kept"), "'kept' is missing"),
    "spec is text": (lambda h: h.update(spec="lenet5"), "spec is 'lenet5'"),
    "subnet is a list": (lambda h: h.update(subnet=[1]), "cannot be rebuilt"),
    "unknown network": (lambda h: h["spec"].update(arch="lenet6"), "did you mean 'lenet5'"),
    "unknown method": (lambda h: h["subnet"].update(method="mpt"), "unknown method 'mpt'"),
    "huge network": (
        lambda h: h["spec"].update(arch="conv8", width=999),
        "a ticket at most 134217728",
    ),
    "endless width": (lambda h: h["spec"].update(width=1e300), "width is 1e\\+300"),
    "no width": (lambda h: h["spec"].update(width=float("nan")), "width is nan"),
    "huge image": (
        lambda h: [h[k].update(in_shape=[1, 6000, 6000]) for k in ("spec", "subnet")],
        "in_shape is",
    ),
    "two images": (lambda h: h["subnet"].update(in_shape=[1, 32, 32]), "in_shape is"),
    "image as text": (
        lambda h: [h[k].update(in_shape="abc") for k in ("spec", "subnet")],
        "in_shape 'abc' does not fit",
    ),
    "too many classes": (lambda h: h["spec"].update(num_classes=10**12), "num_classes is"),
    "sparsity 1": (lambda h: h["subnet"].update(sparsity=1.0), "sparsity 1.0 is out of range"),
    "sparsity as text": (
        lambda h: h["subnet"].update(sparsity="0.8"),
        "sparsity '0.8' is out of range",
    ),
    "another seed": (lambda h: h["subnet"].update(seed=5), "seed 5 does not give back"),
    "negative seed": (lambda h: h["subnet"].update(seed=-1), "seed -1 does not fit"),
    "extra argument": (lambda h: h["subnet"].update(x=1), "cannot be rebuilt"),
    "kept does not fit": (lambda h: h["kept"].update(fc1=7), "does not fit sparsity 0.8"),
    "path as a layer": (
        lambda h: h["kept"].update({"../../etc/passwd": 1}),
        "does not fit sparsity",
    ),
}
TENSORS = {
    "nan gain": (
        lambda t: t.update({"fc1.gain": torch.tensor(float("nan"))}),
        "fc1.gain does not fit",
    ),
    "negative gain": (
        lambda t: t.update({"fc1.gain": torch.tensor(-1.0)}),
        "the gain of fc1 is -1",
    ),
    "gain of a vector": (lambda t: t.update({"fc1.gain": torch.ones(9)}), "fc1.gain does not fit"),
    "no mask": (lambda t: t.pop("conv1.mask"), "the mask of conv1 does not fit"),
    "mask of another layer": (
        lambda t: t.update({"conv1.mask": t["fc1.mask"].clone()}),
        "the mask of conv1 does not fit",
    ),
    "short mask": (
        lambda t: t.update({"fc1.mask": t["fc1.mask"].view(torch.int32)[:9].view(torch.uint32)}),
        "the mask of fc1 does not fit",
    ),
    "mask of floats": (
        lambda t: t.update({"fc1.mask": torch.ones(9)}),
        "fc1.mask does not fit",
    ),
    "wrong counts": (
        lambda t: t.update({"fc1.inputs": torch.tensor([1, 2], dtype=torch.uint16)}),
        "the mask of fc1 does not fit",
    ),
    "negative variance": (lambda t: t["conv1_bn.running_var"].fill_(-1.0), "conv1_bn.running_var"),
    "nan statistics": (
        lambda t: t["conv1_bn.running_mean"].fill_(float("nan")),
        "conv1_bn.running_mean",
    ),
    "statistics of another shape": (
        lambda t: t.update({"conv1_bn.running_mean": torch.zeros(7)}),
        "conv1_bn.running_mean",
    ),
    "weight of a masked layer": (
        lambda t: t.update({"fc1.weight": torch.zeros(120, 400)}),
        "fc1.weight",
    ),
    "path as a name": (lambda t: t.update({"../../x": torch.zeros(1)}), "../../x"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_forged_header(name, good, tmp_path):
    change, says = HEADERS[name]
    with pytest.raises(UserError, match=says):
        ticket.load(forged(good, tmp_path / "bad", header=change))


@pytest.mark.parametrize("name", TENSORS)
def test_forged_tensors(name, good, tmp_path):
    change, says = TENSORS[name]
    with pytest.raises(UserError, match=says):
        ticket.load(forged(good, tmp_path / "bad", tensors=change))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    "A ticket whose first linear layer keeps some inputs' weights and not others', so it is coded by input"
    net = shaken("mpt-1-32")
    with torch.no_grad():
        net.fc1.parametrizations.weight[0].scores.mul_(torch.linspace(0, 1, 400) ** 2)
    path = tmp_path_factory.mktemp("uneven") / "ticket.safetensors"
    ticket.save(path, net)
    return path, net


def test_coded_by_input(uneven):
    path, net = uneven
    assert "fc1.inputs" in read_tensors(path.read_bytes())
    assert path.stat().st_size < bound(net, "mpt-1-32")[1]
    x = torch.randn(9, 1, 28, 28)
    assert torch.equal(ticket.load(path)(x), net(x))


@pytest.mark.parametrize(
    "counts", [torch.full((400,), 3), torch.full((400,), 60_000), torch.zeros(400)]
)
def test_forged_counts(counts, uneven, tmp_path):
    bad = forged(
        uneven[0],
        tmp_path / "bad",
        tensors=lambda t: t.update({"fc1.inputs": counts.to(torch.uint16)}),
    )
    with pytest.raises(UserError, match="the mask of fc1 does not fit"):
        ticket.load(bad)


@pytest.mark.parametrize(
    "facts, says",
    [(dict(spec=1), "fact 'spec'"), (dict(accuracy=np.float32(0.5)), "cannot be written as JSON")],
)
def test_facts_that_do_not_fit(facts, says, tmp_path):
    with pytest.raises(UserError, match=says):
        ticket.save(tmp_path / "t", shaken("mpt-1-32"), **facts)
    assert list(tmp_path.iterdir()) == []


def test_facts_come_back_as_json_has_them(tmp_path):
    ticket.save(tmp_path / "t", shaken("mpt-1-32"), per_class={9: 0.5, 10: 0.25})
    ticket.load(tmp_path / "t")
    assert ticket.info(tmp_path / "t")["per_class"] == {"9": 0.5, "10": 0.25}


def test_networks_that_a_ticket_cannot_hold(tmp_path):
    net = as_subnet(nn.Sequential(nn.Linear(4, 4)), "mpt-1-32", 0.5)
    net.register_buffer("index", torch.arange(3))
    with pytest.raises(UserError, match="index does not fit into a ticket"):
        ticket.save(tmp_path / "t", net)
    with pytest.raises(UserError, match="convert the network in float32"):
        as_subnet(nn.Sequential(nn.Linear(4, 4)).double(), "dense", 0)
    with pytest.raises(UserError, match="is a single layer"):
        as_subnet(nn.Linear(4, 4), "dense", 0)


def ones(net):
    net[0].parametrizations.weight.original.data.fill_(1.0)


def nans(net):
    net[0].parametrizations.weight[0].scores.data.fill_(np.nan)


@pytest.mark.parametrize(
    "method, change, says",
    [
        ("mpt-1-32", ones, "weights of layer '0' are not those of seed 0"),
        ("mpt-1-32", nans, "scores of layer '0' are not all numbers"),
        ("mpt-1-32", lambda net: net.bfloat16(), "the weight of 0 does not fit into a ticket"),
        ("imp", lambda net: net.double(), "the weight of 0 does not fit into a ticket"),
    ],
)
def test_what_load_would_refuse_is_not_saved(tmp_path, method, change, says):
    net = as_subnet(nn.Sequential(nn.Linear(4, 4)), method, 0.5)
    change(net)
    with pytest.raises(UserError, match=says):
        ticket.save(tmp_path / "t", net)
    assert not (tmp_path / "t").exists()


def replace_head(net):
    net.fc3 = nn.Linear(100, 10)


def add_layer(net):
    net.fc4 = nn.Linear(10, 10)


def narrow(net):
    net.fc1.weight.data = net.fc1.weight.data[:5]


@pytest.mark.parametrize(
    "change, says",
    [
        (replace_head, r"fc3.bias was nothing and is \(10,\)"),
        (add_layer, r"fc4.bias was nothing and is \(10,\)"),
    ],
)
def test_a_network_altered_after_it_was_built_is_not_saved(tmp_path, change, says):
    net = as_subnet(build("fc1", (1, 28, 28), 10), "mpt-1-32", 0.5)
    change(net)
    with pytest.raises(UserError, match=f"altered after it was built: {says}"):
        ticket.save(tmp_path / "t", net)
    net = build("fc1", (1, 28, 28), 10)
    narrow(net)
    net = as_subnet(net, "dense", 0)
    with pytest.raises(UserError, match=r"fc1.weight was \(300, 784\) and is \(5, 784\)"):
        ticket.save(tmp_path / "t", net)
    assert not (tmp_path / "t").exists()


def test_sizes_that_load_refuses_are_not_saved(tmp_path, monkeypatch):
    def own():
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
        )

    ticket.save(tmp_path / "fits", as_subnet(own(), "mpt-1-32", 0.5, in_shape=(1, 512, 512)))
    ticket.load(tmp_path / "fits", own())
    large = as_subnet(own(), "mpt-1-32", 0.5, in_shape=(1, 513, 512))
    with pytest.raises(UserError, match=r"does not fit into a ticket: in_shape is \(1, 513, 512\)"):
        ticket.save(tmp_path / "t", large)
    monkeypatch.setattr(ticket, "MAX_WEIGHTS", 10)
    for net in own(), build("fc1", (1, 28, 28), 10):
        with pytest.raises(UserError, match="a ticket at most 10"):
            ticket.save(tmp_path / "t", as_subnet(net, "mpt-1-32", 0.5))
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("value", [0.0, -0.0])
def test_zeros_of_trained_signs_come_back(tmp_path, value):
    net = as_subnet(nn.Sequential(nn.Linear(4, 4)), "bnn-1-32", 0)
    weight = net[0].parametrizations.weight.original.data
    weight[0] = value
    ticket.save(tmp_path / "t", net)
    again = ticket.load(tmp_path / "t", nn.Sequential(nn.Linear(4, 4)))
    assert (again[0].weight == net[0].weight).all()
    weight.fill_(value)
    ticket.save(tmp_path / "t", net)
    again = ticket.load(tmp_path / "t", nn.Sequential(nn.Linear(4, 4)))
    assert not again[0].weight.any() and not net[0].weight.any()


def test_a_layer_with_an_unlucky_name(tmp_path):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_batches_head = nn.Linear(4, 4)

        def forward(self, x):
            return self.num_batches_head(x)

    net = as_subnet(Net(), "dense", 0)
    with torch.no_grad():
        net.num_batches_head.weight.fill_(7.0)
    ticket.save(tmp_path / "t", net)
    assert (ticket.load(tmp_path / "t", Net()).num_batches_head.weight == 7).all()


def test_oversized(good, tmp_path, monkeypatch):
    monkeypatch.setattr(ticket, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match="at most 1000"):
        ticket.load(good)


@pytest.mark.parametrize("method, skips", [("mpt-1-1", False), ("mpt-1-32", True)])
def test_onnx(method, skips, tmp_path):
    "1,000 test images: the same logits, and the same answers wherever the two best are not tied"
    import onnxruntime

    ticket.save(tmp_path / "t", shaken(method, "conv2", 0.5, skips=skips))
    export(tmp_path / "t", tmp_path / "t.onnx")
    digits = load("mnist5k")
    x = normalise(digits.test.x, digits.source)
    mine = ticket.load(tmp_path / "t")(x).numpy()
    theirs = onnxruntime.InferenceSession(tmp_path / "t.onnx").run(None, dict(images=x.numpy()))[0]
    top = np.sort(mine, 1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    if method != "mpt-1-1":  # there a sum of just about 0 may fall to either side
        assert abs(mine - theirs).max() < 1e-4
    assert clear.sum() > 500 and (mine.argmax(1) == theirs.argmax(1))[clear].all()


def test_card_is_one_harmless_page(tmp_path):
    facts = dict(dataset="<script>alert(1)</script>", classes=["a|b"])
    ticket.save(tmp_path / "t", shaken("mpt-1-32"), **facts)
    for kind in "html", "md":
        export(tmp_path / "t", tmp_path / f"card.{kind}")
        card = (tmp_path / f"card.{kind}").read_text()
        assert "<script" not in card and "alert" in card and "base64" in card
        assert "http" not in card and (kind == "html" or "a|b" not in card)


def test_export_refuses(good, tmp_path):
    with pytest.raises(UserError, match="suffix '.exe'"):
        export(good, tmp_path / "x.exe")
    with pytest.raises(UserError, match="is the ticket itself"):
        export(good, good)
    with pytest.raises(UserError, match="could not be written"):
        export(good, tmp_path / "no/x.html")
    assert list(tmp_path.iterdir()) == []


def test_zoo(tmp_path, monkeypatch, capsys):
    "Each setting of the two suites has a name of its own, which stands for its file where there is none"
    kept = []
    for f in (REPO / "results").glob("*/runs/*/summary.csv"):
        if f.parts[-4] in ticket.ZOO:
            rows = pd.read_csv(f, dtype=str)
            kept += rows.config_hash[
                (rows.seed == "0") & ~rows.method.isin(["dense", "random"])
            ].to_list()
    rows = ticket.zoo_rows()
    assert sorted(r["config_hash"] for r in rows.values()) == sorted(kept) and len(kept) > 50
    assert ticket.info(ticket.zoo_file("conv4-width-0.25"))["spec"]["width"] == 0.25
    net = ticket.zoo("lenet5-mpt-1-1-80", engine="bits")
    assert net.header["config_hash"] == rows["lenet5-mpt-1-1-80"]["config_hash"]
    monkeypatch.chdir(tmp_path)
    assert main(["ticket", "verify", "fc1-imp"]) == 0
    assert main(["ticket", "export", "fc1-imp", "card.md"]) == 0
    Path("fc1-imp").write_text("no ticket")
    assert main(["ticket", "info", "fc1-imp"]) == 2
    assert "fc1-imp is not a ticket" in capsys.readouterr().err
    assert main(["ticket", "list"]) == 0
    assert {o.split()[0] for o in capsys.readouterr().out.splitlines()[1:]} == {*rows}
