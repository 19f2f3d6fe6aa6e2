"Ticket files: small, exact, and read with suspicion"

import json
import pickle
import struct
import subprocess
import sys
import zlib
from copy import deepcopy
from math import lgamma, log
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from mplt import ticket
from mplt.command import main
from mplt.data import load, normalise
from mplt.errors import UserError
from mplt.export import export
from mplt.models import build
from mplt.subnet import METHODS, as_subnet, masks, weighted

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


def kept(net):
    "The same with batch normalisation as a ticket holds it"
    net = deepcopy(net)
    for norm in ticket.norms(net).values():
        if found := ticket.rounded(norm, net.subnet.row):
            ticket.set_line(norm, *ticket.line(**found))
    return net


FORMAT_1 = Path(__file__).with_name("format1.safetensors")  # lenet5, 80 %, learned BN


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "ticket.safetensors"
    ticket.save(path, shaken("mpt-1-32"), dataset="mnist5k")
    return path


@pytest.fixture(params=[1, 2])
def either(request, good):
    "A ticket of each format"
    return FORMAT_1 if request.param == 1 else good


def not_rounded(row):
    "Trained weights of 32 bits"
    return row.weights != "frozen" and row.weight_bits == 32


def bound(net, method):
    """Bytes: 1.01 of the entropy of the masks, what was trained of the weights, 2 (or 4, or 16) a channel of
    batch normalisation, 4 of what else there is; a few a layer; and the header"""
    sizes = [(m.weight.numel(), int((m.weight != 0).sum())) for m in weighted(net).values()]
    masks = sum(
        -n * (k / n * np.log2(k / n) + (1 - k / n) * np.log2(1 - k / n)) / 8
        for n, k in sizes
        if k < n
    )
    norms = ticket.norms(net)
    row, channels = METHODS[method], sum(m.num_features for m in norms.values())
    wide = 8 if not_rounded(row) else 2 if row.activation_bits == 1 else 1
    rest = 15 * len(sizes) + wide * (8 * len(norms) + 2 * channels)
    rest += 4 * sum(
        v.numel()
        for k, v in net.state_dict().items()
        if "parametrizations" not in k and k.rpartition(".")[0] not in norms
    )
    trained = sum(k for _, k in sizes) * row.weight_bits / 8 if row.weights != "frozen" else 0
    return masks, 1.01 * masks + trained + rest + 300


@pytest.mark.parametrize("method, arch, sparsity, bn", CASES)
def test_size(method, arch, sparsity, bn, tmp_path):
    if METHODS[method].mask == "none":
        sparsity = 0.0
    net = shaken(method, arch, sparsity, bn, (3, 32, 32))
    size, (masks, limit) = ticket.save(tmp_path / "t.safetensors", net), bound(net, method)
    print(f"{arch} {method} {sparsity}: {size} bytes, masks at their bound {masks:.0f}")
    assert size <= limit
    if (arch, bn) == ("vgg-small", "none"):
        assert size < 169_000
    if METHODS[method].cycles:
        assert ticket.save(tmp_path / "t.safetensors", net, initial=True) <= 1.01 * masks + 500


@pytest.mark.parametrize("bn", ["plain", "learned"])
@pytest.mark.parametrize("arch", ["fc1", "lenet5"])
def test_in_a_small_ticket_the_mask_is_what_counts(arch, bn, tmp_path):
    "With all that a run says of it: 1.05 of what the masks hold, and 600 bytes"
    net = shaken("mpt-1-32", arch, 0.9, bn)
    size = ticket.save(
        tmp_path / "t",
        net,
        **dict(config_hash="0123456789ab", dataset="mnist", cycle=0, mean=[0.1307], std=[0.3081]),
        **dict(classes=list("0123456789"), val_accuracy=0.9812345678901234, test_accuracy=0.9817),
        measured="on the network rebuilt from this file, fp32; 6000 validation images (seed 0), "
        "10000 test images",
    )
    sizes = [(m.weight.numel(), int((m.weight != 0).sum())) for m in weighted(net).values()]
    ways = sum(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) for n, k in sizes) / log(2)
    print(f"{arch} {bn}: {size} bytes, masks {ways / 8:.0f}")
    assert size <= 1.05 * ways / 8 + 600


def by_hand(path):
    "What is in a file of format 2, read without mplt but for the usual words"
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    assert json.loads(raw[8:end])["ticket"]["data_offsets"] == [0, len(raw) - end]
    stretch = zlib.decompressobj(-15, ticket.USUAL)
    return json.loads(stretch.decompress(raw[end:])), stretch.unused_data


@pytest.mark.parametrize(
    "method, number, code", [("mpt-1-32", "<f2", "u1"), ("bnn-1-1", "<f4", "<u2")]
)
@pytest.mark.parametrize("learned", [False, True])
def test_batch_normalisation_is_a_line(learned, method, number, code, tmp_path):
    "Codes of the file in NumPy's hands, the rebuilt layer, and the layer that was saved"
    rng, n = np.random.RandomState(0), 40
    norm = nn.BatchNorm1d(n, affine=learned)
    row = METHODS[method]
    sparsity = 0.5 if row.mask == "learned" else 0
    layers = nn.Linear(n, n, bias=False), norm
    net = as_subnet(nn.Sequential(*layers), method, sparsity, in_shape=(n,))
    var = np.exp2(rng.uniform(-2, 2, n))
    mean = rng.uniform(-1, 1, n) * np.sqrt(var)
    mean[:3], var[:3] = [0, 0, 0.003], [1e-12, 1e-2, 1e-3]  # one constant
    gamma, beta = rng.uniform(-3, 3, n) if learned else np.ones(n), np.zeros(n)
    if learned:
        gamma[5], beta = 0, rng.standard_normal(n)
        norm.weight.data, norm.bias.data = torch.tensor(gamma).float(), torch.tensor(beta).float()
    norm.running_mean, norm.running_var = torch.tensor(mean).float(), torch.tensor(var).float()
    ticket.save(tmp_path / "t", net.eval())
    header, content = by_hand(tmp_path / "t")
    size = 4 * int(number[-1])
    grid = np.frombuffer(content[:size], number).astype(float).reshape(2, 2)
    (log_low, log_step), (low, step) = grid
    codes = np.frombuffer(content[size : size + 2 * n * int(code[-1])], code).reshape(2, n)
    codes = codes.astype(float)
    a = np.where(codes[0] % 2, -1, 1) * np.exp2(log_low + log_step * (codes[0] // 2))
    b = low + step * codes[1]
    z = rng.standard_normal((200, n)) * (np.arange(n) > 0)  # the constant one is constant
    x = mean + z * np.sqrt(var)
    exact = gamma * (x - mean) / np.sqrt(var + 1e-5) + beta
    wrong = abs(a * x + b - exact) / np.maximum(abs(gamma), abs(gamma).mean())
    most = (1 + abs(z)) / (32 if row.activation_bits == 32 else 5000) + 1e-6
    assert header["exact"] == [] and (wrong <= most).all() and wrong.max() > 1e-6
    x = torch.tensor(x).float()
    assert np.allclose(norm(x).detach(), exact, atol=1e-3)
    plain = nn.Sequential(nn.Linear(n, n, bias=False), nn.BatchNorm1d(n, affine=learned))
    assert np.allclose(ticket.load(tmp_path / "t", plain)[1](x), a * x.numpy() + b, atol=1e-3)


class Anywhere(nn.Module):
    "Batch normalisation before a layer, after it, of its own right, without statistics, and shared"

    def __init__(self):
        super().__init__()
        self.first, self.one, self.batch = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.loose = nn.BatchNorm1d(6, track_running_stats=False)
        self.two, self.wild, self.again = nn.Linear(6, 3), nn.BatchNorm1d(3), self.first

    def forward(self, x):
        x = self.batch(self.one(self.first(x)).relu())
        return self.wild(self.two(self.again(x) + self.loose(x)))


def test_batch_normalisation_anywhere(tmp_path):
    "What cannot be rounded is kept as it is"
    torch.manual_seed(0)
    net = as_subnet(Anywhere(), "bnn-1-32", 0)
    for _ in range(9):
        net.train()(torch.randn(50, 6) * 3 + 1)
    net.wild.running_mean[0] = 1e6
    ticket.save(tmp_path / "t", net.eval())
    assert ticket.info(tmp_path / "t")["exact"] == ["wild"]
    again, x = ticket.load(tmp_path / "t", Anywhere()), torch.randn(50, 6)
    assert torch.equal(again.wild.running_mean, net.wild.running_mean)
    assert torch.allclose(again(x)[:, 1:], kept(net)(x)[:, 1:], atol=1e-5)
    assert 1e-6 < (again(x) - net(x))[:, 1:].abs().max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_beside_trained_weights_nothing_is_rounded(method, tmp_path):
    net, x = (
        shaken(method, bn="learned", sparsity=0.5 * (METHODS[method].mask != "none")),
        torch.randn(20, 1, 28, 28),
    )
    ticket.save(tmp_path / "t", net)
    same = torch.equal(ticket.load(tmp_path / "t")(x), net(x))
    assert same == (len(ticket.info(tmp_path / "t")["exact"]) == 4) == not_rounded(METHODS[method])


def test_format_1_is_read_for_ever():
    "The numbers that the tensors of the file say, and the logits that its network had"
    t, net = read_tensors(FORMAT_1.read_bytes()), ticket.load(FORMAT_1)
    for k, norm in ticket.norms(net).items():
        for what in "weight", "bias", "running_mean", "running_var":
            assert torch.equal(getattr(norm, what), t[f"{k}.{what}"])
    assert net.conv2.weight.unique().abs().max() == t["conv2.gain"]
    logits = "-0.38933 0.06887 -0.09985 0.22034 0.32766 0.42083 0.20544 0.07797 -0.23547 0.54933"
    x = torch.linspace(-2, 2, 28 * 28).sin().view(1, 1, 28, 28)
    assert np.allclose(net(x), [float(o) for o in logits.split()], atol=1e-4)
    info = ticket.info(FORMAT_1)
    assert (info["format"], info["dataset"], info["kept"]["conv1"]) == (1, "mnist5k", 30)


@pytest.mark.parametrize("method", ["mpt-1-32", "mpt-1-1"])
def test_skips_come_back(method, tmp_path):
    net, x = shaken(method, "conv4", 0.5, skips=True), torch.randn(20, 1, 28, 28)
    ticket.save(tmp_path / "t", net)
    again = ticket.load(tmp_path / "t")
    assert again.spec.skips and torch.equal(again(x), kept(net)(x))
    again.__class__ = torch.nn.Sequential
    assert not torch.allclose(again(x), net(x), atol=0.1)


def test_only_a_subnetwork_makes_a_ticket(good, tmp_path):
    for net in build("fc1", (1, 28, 28), 10), ticket.load(good):
        with pytest.raises(UserError, match="has not been converted, or was rebuilt from a ticket"):
            ticket.save(tmp_path / "t.safetensors", net)


def test_another_process_and_other_threads(good, tmp_path):
    x = torch.randn(50, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    torch.save(x, tmp_path / "x")
    mine = kept(shaken("mpt-1-32"))(x).detach()
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


def test_every_flipped_bit_is_seen(either, tmp_path):
    raw, rng, bad = either.read_bytes(), np.random.RandomState(0), tmp_path / "bad.safetensors"
    for bit in [*range(0, 8 * 16), *rng.choice(8 * len(raw), 1000, replace=False)]:
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(flipped)
        with pytest.raises(UserError, match="bad.safetensors"):
            ticket.info(bad)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 1000, -1])
def test_truncated(either, keep, tmp_path):
    (tmp_path / "bad").write_bytes(either.read_bytes()[:keep])
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


def forged(path, out, header=lambda h: None, tensors=lambda t: None, content=lambda b: b):
    "The same ticket with something else in it, properly sealed; format 2 has content, format 1 tensors"
    h, t = ticket.read_file(path)
    number, _ = h.pop("format"), h.pop("sha256")
    if number == 1:
        header(h := dict(format=1) | h)
        tensors(t)
        h["sha256"] = ticket.sealed(h, t)
        out.write_bytes(tensor_bytes(t, {"mplt": json.dumps(h, sort_keys=True)}))
    else:
        header(h)
        squeeze = zlib.compressobj(wbits=-15, zdict=ticket.USUAL)
        raw = squeeze.compress(json.dumps(h).encode()) + squeeze.flush()
        raw += content(t[""].numpy().tobytes())
        t = {"ticket": torch.frombuffer(bytearray(raw), dtype=torch.uint8)}
        out.write_bytes(tensor_bytes(t, {"mplt": f"2 {ticket.sealed({}, t)[:16]}"}))
    return out


HEADERS = {
    "no kept": (lambda h: h.pop("kept"), "'kept' is missing"),
    "spec is text": (lambda h: h.update(spec="lenet5"), "spec is 'lenet5'"),
    "exact is text": (lambda h: h.update(exact="bn1"), "exact is 'bn1'"),
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
def test_forged_header(name, either, tmp_path):
    change, says = HEADERS[name]
    with pytest.raises(UserError, match=says):
        ticket.load(forged(either, tmp_path / "bad", header=change))


@pytest.mark.parametrize("name", TENSORS)
def test_forged_tensors(name, tmp_path):
    change, says = TENSORS[name]
    with pytest.raises(UserError, match=says):
        ticket.load(forged(FORMAT_1, tmp_path / "bad", tensors=change))


@pytest.mark.parametrize("number", [3, "1", None])
def test_another_format(number, good, tmp_path):
    bad = forged(FORMAT_1, tmp_path / "bad", header=lambda h: h.update(format=number))
    with pytest.raises(UserError, match=f"has format {number!r}"):
        ticket.info(bad)
    t = read_tensors(good.read_bytes())
    bad.write_bytes(tensor_bytes(t, {"mplt": f"3 {ticket.sealed({}, t)[:16]}"}))
    with pytest.raises(UserError, match="has format 3: this version of mplt reads formats 1 and 2"):
        ticket.info(bad)


CODES = 4 * 8 + 2 * (6 + 16 + 120 + 84)  # bytes of lenet5's batch normalisation, which come first
CONTENTS = {
    "nothing": (lambda b: b"", "it ends before conv1_bn.grid does"),
    "a byte less": (lambda b: b[:-1], "it ends before fc3.gain does"),
    "a byte more": (lambda b: b + b"0", "more does not belong there"),
    "nan grid": (lambda b: b"\0\x7e" + b[2:], "conv1_bn.grid does not fit"),
    "infinite grid": (lambda b: b[:2] + b"\0\x7c" + b[4:], "conv1_bn.grid does not fit"),
    "negative scale": (lambda b: b[:8] + b"\1" + b[9:], "the scale of conv1_bn is not positive"),
    "negative gain": (lambda b: b[:-4] + struct.pack("<f", -1), "the gain of fc3 is -1"),
    "nan gain": (lambda b: b[:-4] + struct.pack("<f", np.nan), "fc3.gain does not fit"),
    "endless mask": (
        lambda b: b[:CODES] + b"\xff\xff\xff" + b[CODES + 3 :],
        "it ends before conv1.mask does",
    ),
    "another mask": (
        lambda b: b[: CODES + 3] + bytes(8) + b[CODES + 11 :],
        "the mask of conv1 does not fit",
    ),
    "no mask": (
        lambda b: b[:CODES] + bytes(3) + b[CODES + 3 :],
        "it ends before conv1.inputs does",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_forged_content(name, good, tmp_path, monkeypatch):
    "Before the file has shown to hold what the network needs, nothing is drawn"
    monkeypatch.setattr(ticket, "draw_weight", None)
    change, says = CONTENTS[name]
    with pytest.raises(UserError, match=says):
        ticket.load(forged(good, tmp_path / "bad", content=change))


@pytest.mark.parametrize("exact", [1, ["conv1_bn"], {}, "conv1_bn conv2_bn fc1_bn fc2_bn"])
def test_forged_exact(exact, good, tmp_path):
    bad = forged(good, tmp_path / "bad", header=lambda h: h.update(exact=exact))
    with pytest.raises(UserError, match="bad cannot be rebuilt"):
        ticket.load(bad)


@pytest.mark.parametrize(
    "text", [b'{"a": "' + b" " * 2**25 + b'"}', b"[1]", b"{", b'{"a": ' * 10**5]
)
def test_a_header_that_is_none(text, tmp_path):
    squeeze = zlib.compressobj(wbits=-15, zdict=ticket.USUAL)
    raw = bytearray(squeeze.compress(text) + squeeze.flush())
    t = {"ticket": torch.frombuffer(raw, dtype=torch.uint8)}
    said = {"mplt": f"2 {ticket.sealed({}, t)[:16]}"}
    (tmp_path / "bad").write_bytes(tensor_bytes(t, said))
    with pytest.raises(UserError, match="bad is not a ticket"):
        ticket.info(tmp_path / "bad")


def test_a_header_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(ticket, "MAX_HEADER", 1000)
    with pytest.raises(UserError, match="a ticket has at most 1000"):
        ticket.save(tmp_path / "t", shaken("mpt-1-32"), story="long " * 200)


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
    inputs = masks(net)["fc1"].sum(0).numpy().astype("<u2").tobytes()
    assert inputs in by_hand(path)[1] and path.stat().st_size < bound(net, "mpt-1-32")[1]
    x = torch.randn(9, 1, 28, 28)
    assert torch.equal(ticket.load(path)(x), kept(net)(x))


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    "counts", [torch.full((400,), 3), torch.full((400,), 60_000), torch.zeros(400)]
)
def test_forged_counts(counts, number, uneven, tmp_path):
    counts = counts.to(torch.uint16)
    right = masks(uneven[1])["fc1"].sum(0).to(torch.uint16).numpy().tobytes()
    bad = forged(
        FORMAT_1 if number == 1 else uneven[0],
        tmp_path / "bad",
        tensors=lambda t: t.update({"fc1.inputs": counts}),
        content=lambda b: b.replace(right, counts.numpy().tobytes()),
    )
    with pytest.raises(UserError, match="the mask of fc1 does not fit"):
        ticket.load(bad)


@pytest.mark.parametrize(
    "facts, says",
    [
        (dict(spec=1), "fact 'spec'"),
        (dict(sha256="0"), "fact 'sha256'"),
        (dict(accuracy=np.float32(0.5)), "cannot be written as JSON"),
    ],
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
    net = nn.Sequential(nn.Linear(4, 4))
    net.register_buffer("index", torch.zeros(3).double())
    as_subnet(net, "mpt-1-32", 0.5)
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


def other_act(net):
    net.fc1_act = nn.Tanh()


def other_eps(net):
    net.fc1_bn.eps = 1.0


def other_pool(net):
    net.conv2_pool = nn.AvgPool2d(2)


def narrow(net):
    net.fc3.weight.data = net.fc3.weight.data[:5]


@pytest.mark.parametrize(
    "change, says",
    [
        (replace_head, r"fc3 was Linear\(.*bias=False\) and is Linear\(.*bias=True\)"),
        (add_layer, r"fc4 was nothing and is Linear"),
        (other_act, r"fc1_act was ReLU\(\) and is Tanh\(\)"),
        (other_eps, r"fc1_bn was .*eps=1e-05.* and is .*eps=1.0"),
        (other_pool, r"conv2_pool was MaxPool2d.* and is AvgPool2d"),
    ],
)
def test_a_network_altered_after_its_conversion_is_not_saved(tmp_path, change, says):
    net = as_subnet(build("conv2", (1, 28, 28), 10, 0.1, "plain"), "mpt-1-32", 0.5)
    change(net)
    with pytest.raises(UserError, match=f"altered after its conversion: {says}"):
        ticket.save(tmp_path / "t", net)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("change", [add_layer, other_act, narrow])
def test_a_network_altered_after_it_was_built_is_not_converted(change):
    net = build("fc1", (1, 28, 28), 10)
    change(net)
    with pytest.raises(UserError, match="altered after it was built: fc"):
        as_subnet(net, "dense", 0)


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = weight_norm(nn.Embedding(7, 4))
        self.l = nn.Linear(4, 4)
        self.register_buffer("num_batches_tracked", torch.tensor(2.0))

    def forward(self, x):
        return self.l(self.e(x)) * self.num_batches_tracked


@pytest.mark.parametrize("method", ["dense", "imp", "bnn-1-32"])
def test_what_stands_before_other_weights_comes_back(tmp_path, method):
    net, x = as_subnet(Embedded(), method, 0), torch.arange(7)
    with torch.no_grad():
        net.num_batches_tracked.fill_(3.0)
    ticket.save(tmp_path / "t", net)
    assert torch.equal(ticket.load(tmp_path / "t", Embedded())(x), net.eval()(x))
    with pytest.raises(UserError, match="'e.parametrizations.weight.original0' belongs to neither"):
        as_subnet(Embedded(), "mpt-1-32", 0.5)


def test_another_draw_comes_back(tmp_path):
    net, x = (
        as_subnet(build("fc1", (1, 4, 4), 10), "mpt-1-32", 0.5, draw=3),
        torch.randn(2, 1, 4, 4),
    )
    ticket.save(tmp_path / "t", net)
    assert torch.equal(ticket.load(tmp_path / "t")(x), net.eval()(x))
    for draw in -1, "a", True:
        with pytest.raises(UserError, match="draw .* does not fit"):
            as_subnet(build("fc1", (1, 4, 4), 10), "mpt-1-32", 0.5, draw=draw)


def test_a_compiled_network_is_refused(tmp_path):
    net = torch.compile(as_subnet(build("fc1", (1, 4, 4), 10), "imp", 0.5), backend="eager")
    with pytest.raises(UserError, match="give the network itself"):
        ticket.save(tmp_path / "t", net)


def test_layers_that_cannot_be_masked():
    one = nn.Linear(4, 4)
    old = torch.nn.utils.weight_norm(nn.Linear(4, 4))
    for layers, says in (
        ((one, nn.ReLU(), one), "layer '2' stands in the network twice"),
        ((nn.Linear(4, 4), old), "the weight of layer '1' cannot be masked"),
        ((nn.Linear(4, 4), weight_norm(nn.Linear(4, 4))), "the weight of layer '1' cannot"),
        ((nn.Linear(4, 4), nn.LazyLinear(3)), "the weight of layer '1' cannot be masked"),
        ((nn.Linear(4, 4), nn.Linear(4, 0)), "the weight of layer '1' cannot be masked"),
    ):
        net = nn.Sequential(*layers)
        for method in "imp", "mpt-1-32", "dense":
            before = str(net)
            with pytest.raises(UserError, match=says):
                as_subnet(net, method, 0.0)
            assert str(net) == before


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


def test_a_network_larger_than_its_file_shows_is_built_if_one_says_so(tmp_path, monkeypatch):
    net = as_subnet(build("fc1", (1, 28, 28), 10), "mpt-1-32", 0.98)
    size, weights = ticket.save(tmp_path / "t", net), 266200
    assert size < ticket.SMALL
    for most, status in (weights, 0), (weights - 1, 2):
        monkeypatch.setattr(ticket, "LIGHT", most)
        assert main(["ticket", "verify", f"{tmp_path}/t"]) == status
    with pytest.raises(
        UserError, match=f"t cannot be rebuilt: .* has {weights} weights, .* large=True"
    ):
        ticket.load(tmp_path / "t")
    with monkeypatch.context() as m:
        m.setattr(ticket, "SMALL", size)
        assert ticket.load(tmp_path / "t")
    assert ticket.load(tmp_path / "t", large=True)
    monkeypatch.chdir(tmp_path)
    assert ticket.load(tmp_path / "t", build("fc1", (1, 28, 28), 10))  # it is there already
    for use in "verify t", "summary t", "export t t.md", "push t there":
        assert main(["ticket", *use.split()]) == 2
        assert main(["ticket", *use.split(), "--large"]) == 0


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
    weight.fill_(3e38)
    with pytest.raises(UserError, match="0.gain does not fit into a ticket"):
        ticket.save(tmp_path / "t", net)


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
    facts = dict(dataset="<script>alert(1)</script>", classes=["a|b", *"123456789"])
    ticket.save(tmp_path / "t", shaken("mpt-1-32"), **facts)
    for kind in "html", "md":
        export(tmp_path / "t", tmp_path / f"card.{kind}")
        card = (tmp_path / f"card.{kind}").read_text()
        assert "<script" not in card and "alert" in card
        assert ("base64" in card) == (kind == "html")
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
    # what a younger setting is where older runs lack it makes no name longer
    assert {f"conv6-signed-fast-{pruned}" for pruned in (50, 90, 95)} <= {*rows}
    assert not [name for name in rows if name.endswith("-") or "refuse" in name]
    assert ticket.info(ticket.zoo_file("conv4-width-0.25"))["spec"]["width"] == 0.25
    net = ticket.zoo("lenet5-mpt-1-1-80", engine="bits")
    assert net.header["config_hash"] == rows["lenet5-mpt-1-1-80"]["config_hash"]
    monkeypatch.chdir(tmp_path)
    assert main(["ticket", "verify", "fc1-imp"]) == 0
    assert main(["ticket", "export", "fc1-imp", "card.md"]) == 0
    Path("fc1-imp").write_text("no ticket")
    assert main(["ticket", "info", "fc1-imp"]) == 2
    assert "fc1-imp is not a ticket" in capsys.readouterr().err
    assert main(["ticket", "classify", "lenet5-mtp-1-1-80", "digit.png"]) == 2
    assert "did you mean 'lenet5-mpt-1-1-80' of the zoo?" in capsys.readouterr().err
    with pytest.raises(UserError, match="did you mean 'fc1-imp-random'"):
        ticket.zoo("fc1-imp-ramdon")
    assert main(["ticket", "info", "far/from/any.name"]) == 2
    assert "is missing: expected the file of a ticket" in capsys.readouterr().err
    assert main(["ticket", "list"]) == 0
    assert {o.split()[0] for o in capsys.readouterr().out.splitlines()[1:]} == {*rows}
