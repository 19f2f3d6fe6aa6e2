"A ticket in C: the same classes as PyTorch, whatever the network, the compiler and the ticket"

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from agreement import TABLE, compare, files
from conftest import REPO
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from mplt import infer, ticket
from mplt.binarize import Sign
from mplt.command import main
from mplt.data import SOURCES, normalise
from mplt.data import load as load_data
from mplt.errors import UserError
from mplt.export import export
from mplt.infer import Bits, c_source
from mplt.models import ARCHS, build
from mplt.subnet import METHODS, as_subnet, weighted

STATISTICS = dict(mean=[0.3, 0.4, 0.5], std=[0.2, 0.25, 0.3])
PORTABLE = "-DMPLT_PORTABLE"
# vectors of this processor, of half that length on those of Intel's kind, and none
VECTORS = (
    [(), ("-mno-avx",), (PORTABLE,)]
    if platform.machine() in ("x86_64", "AMD64")
    else [(), (PORTABLE,)]
)


@pytest.fixture(scope="session", autouse=True)
def a_cache(tmp_path_factory):
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def drawn(
    arch, method, sparsity, bn="plain", width=1.0, in_shape=(3, 32, 32), skips=False, seed=0, **more
):
    "An untrained network with statistics, γ and β that are not all alike, some of them negative or 0"
    row, rng = METHODS[method], torch.Generator().manual_seed(seed)
    act = "sign" if row.activation_bits == 1 else "relu"
    net = build(arch, in_shape, 10, width, bn, act, skips)
    net = as_subnet(net, method, sparsity if row.mask != "none" else 0.0, seed=seed, **more)
    net.train()(torch.randn(16, *in_shape, generator=rng))
    with torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine:
                m.weight.copy_(torch.randn(m.weight.shape, generator=rng))
                m.weight[::5] = 0
                m.bias.copy_(0.1 * torch.randn(m.bias.shape, generator=rng))
            elif getattr(m, "bias", None) is not None:
                m.bias.copy_(0.1 * torch.randn(m.bias.shape, generator=rng))
    return net.eval()


def saved(net, path, **facts):
    said = {k: v[: net.subnet.in_shape[0]] for k, v in STATISTICS.items()}
    ticket.save(path, net, **said | facts)
    return ticket.load(path), ticket.info(path)


def noise(n, *shape):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


def agree(bits, net, x):
    "Logits within 1e-4 of their standard deviation, and the class, of PyTorch in 64 bits"
    logits, exact = bits(x), net.double()(x.double())
    net.float()
    assert (logits - exact).abs().max() <= 1e-4 * exact.std() + 1e-12
    best = exact.gather(1, logits.argmax(1)[:, None])[:, 0]
    assert ((exact.amax(1) - best).abs() <= 1e-6 * exact.std() + 1e-12).all()


NETS = [(a, m, 0.5, "plain") for a in ("fc1", "lenet5", "conv2") for m in METHODS if m != "dense"]
NETS += [
    ("conv4", m, s, b)
    for m in ("mpt-1-1", "mpt-1-32")
    for s in (0.9, 0.0)
    for b in ("none", "learned")
]
NETS += [(a, m, 0.8, "learned") for a in ARCHS for m in ("mpt-1-1", "mpt-1-32")]


@pytest.mark.parametrize("arch, method, sparsity, bn", NETS)
def test_every_network(arch, method, sparsity, bn, tmp_path):
    "Of every architecture and method; narrow, so that channels are no multiple of four"
    width = {"fc1": 1, "lenet5": 1, "alexnet": 0.05, "vgg16": 0.1}.get(arch, 0.15)
    net, header = saved(drawn(arch, method, sparsity, bn, width), tmp_path / "t")
    x = noise(3, 3, 32, 32)
    for flags in VECTORS:
        agree(Bits(net, header, *flags), net, x)


@pytest.mark.parametrize("method", ["mpt-1-1", "mpt-1-32"])
@pytest.mark.parametrize("arch", ["fc1", "lenet5", "conv2", "alexnet", "resnet20"])
def test_digits(arch, method, tmp_path):
    "Images with one channel, some of them with a border"
    net, header = saved(drawn(arch, method, 0.5, "plain", 0.3, (1, 28, 27)), tmp_path / "t")
    agree(Bits(net, header), net, noise(3, 1, 28, 27))


@pytest.mark.parametrize("method", ["mpt-1-1", "mpt-1-32"])
@pytest.mark.parametrize("arch", ["conv6", "lenet5", "alexnet"])
def test_skips(arch, method, tmp_path):
    net, header = saved(drawn(arch, method, 0.5, "learned", 0.2, skips=True), tmp_path / "t")
    agree(Bits(net, header), net, noise(3, 3, 32, 32))


@pytest.mark.parametrize("method", ["mpt-1-1", "mpt-1-32"])
def test_large_images(method, tmp_path):
    "The ResNet of photographs: a 7 × 7 kernel with stride, a pool of 3 × 3 with padding"
    net = drawn("resnet18", method, 0.5, "plain", 0.3, (3, 70, 75))
    net, header = saved(net, tmp_path / "t")
    agree(Bits(net, header), net, noise(2, 3, 70, 75))


class Chain(nn.Sequential):
    spec = None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_layer(data):
    "Convolutions of any size and sparsity, also with filters of which nothing is left"
    draw = lambda *o: data.draw(st.sampled_from(o))  # noqa: E731
    c, o, h, w = draw(1, 3, 4, 9), draw(1, 4, 7, 16), draw(1, 5, 8, 17, 33), draw(2, 6, 31)
    kernel, stride, signs = draw(1, 2, 3, 5), draw(1, 2, 3), draw(True, False)
    padding, zeros, pool = draw(0, 1, 2), draw(0.0, 0.5, 0.9, 1.0), draw(True, False)
    out = [(n + 2 * padding - kernel) // stride + 1 for n in (h, w)]
    if min(out) < 1 or (pool and min(out) < 2):
        return
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    act = Sign if signs else nn.ReLU
    layers = [act(), nn.Conv2d(c, o, kernel, stride, padding), *[nn.MaxPool2d(2)] * pool]
    layers += [nn.BatchNorm2d(o), act(), nn.Flatten()]
    size = o * out[0] * out[1] if not pool else o * (out[0] // 2) * (out[1] // 2)
    net = Chain(*layers, nn.Linear(size, 5)).eval().requires_grad_(False)
    for m in weighted(net).values():
        kept = torch.rand(m.weight.shape, generator=rng) >= zeros
        m.weight.copy_(0.25 * kept * torch.randn(m.weight.shape, generator=rng).sign())
        m.weight[0] = 0
    norm = next(m for m in net if isinstance(m, nn.BatchNorm2d))
    for v in norm.weight, norm.bias, norm.running_mean:
        v.copy_(torch.randn(o, generator=rng))
    norm.weight[o // 2] = 0
    header = dict(subnet=dict(method="mpt-1-1", in_shape=[c, h, w]), spec=None)
    x = torch.randn(3, c, h, w, generator=rng)
    for flags in VECTORS:
        agree(Bits(net, header, *flags), net, x)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.85, 0.95, 0.999])
@pytest.mark.parametrize("alike", [False, True])
def test_many_channels(zeros, alike):
    "Sums that leave a byte, also where all products are +1; lists longer than a chunk, with long gaps"
    rng = torch.Generator().manual_seed(0)
    convolution = nn.Conv2d(600, 5, 3, padding=1, bias=False)
    net = nn.Sequential(
        Sign(), convolution, nn.BatchNorm2d(5), Sign(), nn.Flatten(), nn.Linear(60, 3)
    )
    net.eval().requires_grad_(False)
    x = torch.randn(4, 600, 3, 4, generator=rng)
    w = torch.randn(5, 600, 3, 3, generator=rng).sign()
    x, w = (x.abs(), w.abs()) if alike else (x, w)
    convolution.weight.copy_(w * (torch.rand(w.shape, generator=rng) >= zeros))
    middle = net[1](net[0](x)).mean((0, 2, 3))
    net[2].running_mean.copy_(middle)
    header = dict(subnet=dict(method="mpt-1-1", in_shape=[600, 3, 4]), spec=None)
    for flags in VECTORS:
        agree(Bits(net, header, *flags), net, x)


@cache
def committed():
    "One committed ticket of each data set, architecture, method, BN and sparsity"
    kinds = {}
    for f in sorted((REPO / "results/runs").glob("*/ticket.safetensors")):
        o = ticket.info(f)
        kind = (
            o["dataset"],
            o["spec"]["arch"],
            o["spec"]["bn"],
            o["subnet"]["method"],
            o["subnet"]["sparsity"],
        )
        kinds.setdefault(kind, f)
    return {" ".join(map(str, k)): f for k, f in kinds.items()}


@pytest.mark.parametrize("kind", committed())
def test_committed_tickets(kind):
    "The class that PyTorch gives, of some test images; ties and rounded first layers aside"
    path, dataset = committed()[kind], kind.split()[0]
    if dataset == "mnist":
        dataset = "mnist5k"  # which lies in the repository
    try:
        images = load_data(dataset).test.x[:300]
    except UserError as e:
        pytest.skip(str(e))
    net, bits = ticket.load(path), ticket.load(path, engine="bits")
    found = compare(net, bits, images, SOURCES[dataset])
    assert found["differ"] == found["tied"] + found["rounded"]
    logits = net(normalise(images, SOURCES[dataset]))
    off = (bits(images) - logits).abs().amax(1) > 1e-4 * logits.std()
    # the sums of a first layer are rounded: a few fall on the other side of a threshold
    assert off.float().mean() <= 0.03 * (METHODS[kind.split()[3]].activation_bits == 1)


def test_agreement_is_counted():
    "Of committed tickets as their files are now, on the whole test set; nothing is left unexplained"
    counted = pd.read_csv(TABLE, dtype=dict(config_hash=str)).set_index("config_hash")
    seals = {name: ticket.info(f)["sha256"] for name, f in files().items()}
    assert counted.sha256.to_dict() == seals, "run tests/agreement.py"
    assert (counted.images == 10_000).all()
    assert (counted.differ == counted.tied + counted.rounded).all()


def test_an_error_is_no_tie():
    "A network with one weight turned over is told from PyTorch's"
    path = next(f for k, f in committed().items() if k.startswith("mnist fc1 plain mpt-1-1"))
    net, bits = ticket.load(path), ticket.load(path, engine="bits")
    net.fc1.weight[0] *= -1
    images = load_data("mnist5k").test.x[:300]
    found = compare(net, bits, images, SOURCES["mnist5k"])
    assert found["differ"] > found["tied"] + found["rounded"]


def compiled(text, place, *flags):
    (place / "net.c").write_text(text)
    command = [*infer.compiler(), "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-DMPLT_MAIN"]
    command += [*flags, place / "net.c", "-o", place / "net"]
    subprocess.run(command, check=True, capture_output=True)
    return place / "net"


SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]


@pytest.mark.parametrize("flags", [["-march=native"], [PORTABLE]])
@pytest.mark.parametrize(
    "arch, method, sparsity, width, skips",
    [
        ("conv4", "mpt-1-1", 0.5, 0.2, False),
        ("conv4", "mpt-1-1", 0.95, 0.3, True),
        ("alexnet", "mpt-1-32", 0.9, 0.05, False),
        ("lenet5", "imp", 0.9, 1, False),
        ("resnet20", "mpt-1-1", 0.8, 0.5, False),
    ],
)
def test_sanitizers(arch, method, sparsity, width, skips, flags, tmp_path):
    "One file, compiled without a warning, that reads and writes nothing it should not"
    net, header = saved(
        drawn(arch, method, sparsity, "learned", width, skips=skips), tmp_path / "t"
    )
    text = c_source(net, header, seed_only=METHODS[method].weights == "frozen")
    try:
        program = compiled(text, tmp_path, *flags, *SANITIZE)
    except subprocess.CalledProcessError as e:
        if b"cannot find" in e.stderr or b"unsupported option" in e.stderr:
            pytest.skip("the compiler has no sanitizers")
        raise AssertionError(e.stderr.decode()[:2000])
    x = torch.randint(
        256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    ran = subprocess.run([program], input=x.numpy().tobytes(), capture_output=True)
    assert ran.returncode == 0, ran.stderr.decode()
    assert [int(o) for o in ran.stdout.split()] == Bits(net, header)(x).argmax(1).tolist()


def test_sanitizers_would_tell(tmp_path):
    "A row too far is noticed"
    net, header = saved(drawn("lenet5", "mpt-1-32", 0.5, in_shape=(3, 32, 32)), tmp_path / "t")
    text = c_source(net, header).replace("memory_reals[", "memory_reals[1], unused[", 1)
    program = compiled(text, tmp_path, "-Wno-unused-variable", *SANITIZE)
    assert subprocess.run([program], input=bytes(3072), capture_output=True).returncode


def test_one_file(tmp_path):
    "By the command; nothing of a ticket's text is code, and a program needs no more than libc"
    evil = ["*/ int main(void) { return 9; } /*", "\\\n#include <stdlib.h>", "??/", *"3456789"]
    saved(
        drawn("lenet5", "mpt-1-1", 0.5),
        tmp_path / "t.safetensors",
        classes=evil,
        dataset="\n#error",
    )
    out = tmp_path / "net.c"
    assert main(["ticket", "export", str(tmp_path / "t.safetensors"), str(out)]) == 0
    text = out.read_text()
    comment, program = text.split("*/", 1)
    assert "alloc" not in program and "#error" not in text and program.count("int main") == 1
    assert "method: mpt-1-1" in comment and "??" not in comment and "\\" not in comment
    program = compiled(text, tmp_path)
    for pixels, classes, status in (
        (3072, 1, 0),
        (2 * 3072, 2, 0),
        (0, 0, 0),
        (3073, 1, 1),
        (9, 0, 1),
    ):
        p = subprocess.run([program], input=bytes(pixels), capture_output=True)
        assert (len(p.stdout.split()), p.returncode) == (classes, status)


@pytest.mark.skipif(not infer.find_spec("ziglang"), reason="no compiler for other processors")
@pytest.mark.parametrize(
    "target, look_up",
    [
        (["aarch64-linux-musl"], "tbl"),
        (["wasm32-wasi", "-msimd128"], "i8x16.swizzle"),
    ],
)
def test_other_processors(target, look_up, tmp_path):
    "Compiled for ARM and WebAssembly, with their lookups; not run here (wasm is, in test_site.py)"
    out, flags = tmp_path / "net.s", ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-S"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", *target, *flags, "-o", out]
    subprocess.run([*command, infer.__file__.replace(".py", ".c")], check=True)
    assert re.search(rf"\s{re.escape(look_up)}\s", out.read_text())


@pytest.mark.parametrize("flags", [["-march=native"], [PORTABLE]])
@pytest.mark.parametrize(
    "arch, method, sparsity, more",
    [
        ("fc1", "mpt-1-1", 0.5, {}),
        ("lenet5", "mpt-1-32", 0.8, {}),
        ("lenet5", "edge-popup", 0.5, dict(init="signed_constant")),
        ("conv4", "mpt-1-1", 0.5, dict(seed=7)),
        ("conv4", "mpt-1-1", 0.95, dict(skips=True)),  # some layers are lists
        ("conv6", "mpt-1-32", 0.9, {}),  # some layers are several chunks
        ("resnet20", "mpt-1-1", 0.5, {}),
    ],
)
def test_seed_only(arch, method, sparsity, more, flags, tmp_path):
    "The same logits, to the bit, with signs that are drawn when the program starts"
    net = drawn(arch, method, sparsity, "learned", **more)
    ticket.save(tmp_path / "t.safetensors", net, **STATISTICS)
    x = torch.randint(256, (3, 3072), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = []
    for flag in [], ["--seed-only"]:
        words = ["ticket", "export", tmp_path / "t.safetensors", tmp_path / f"{len(flag)}.c", *flag]
        assert main(list(map(str, words))) == 0
        command = [*infer.compiler(), "-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", *flags]
        command += ["-shared", "-fPIC", words[3], "-o", out := tmp_path / f"{len(flag)}.so"]
        subprocess.run(command, check=True)
        library, logits = ctypes.CDLL(str(out)), np.zeros((3, 10), np.float32)
        for image, row in zip(x.numpy(), logits):
            library.mplt_classify(image.ctypes, row.ctypes)
        found.append(logits)
    assert (found[0] == found[1]).all() and len({*found[0].argmax(1), *found[0][0]}) > 5
    for stored, file in (True, "0.c"), (False, "1.c"):
        text = (tmp_path / file).read_text()
        assert bool(re.search(r"(tables|planes|counts|gaps)_\d+\[\] =", text)) == stored


def test_seeds_that_do_not_say_all(tmp_path):
    path = tmp_path / "t"
    for method, says in [
        ("imp", "are trained"),
        ("bnn-1-1", "trained"),
        ("edge-popup", "more than signs"),
    ]:
        ticket.save(path, drawn("lenet5", method, 0.5), **STATISTICS)
        assert says in refusal(export, path, tmp_path / "net.c", None, True)
    assert "only a .c file" in refusal(export, path, tmp_path / "net.md", None, True)
    assert not (tmp_path / "net.c").exists()


def test_classify(tmp_path, capsys):
    "A PNG, a JPEG of another size, and arrays"
    net, header = saved(
        drawn("lenet5", "mpt-1-1", 0.5), tmp_path / "t", classes=[f"thing {i}" for i in range(10)]
    )
    x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8).numpy()
    np.save(tmp_path / "two.npy", x)
    Image.fromarray(x[0].transpose(1, 2, 0)).save(tmp_path / "one.png")
    Image.fromarray(x[0].transpose(1, 2, 0)).resize((100, 60)).save(tmp_path / "other.jpg")
    files = [str(tmp_path / o) for o in ("two.npy", "one.png", "other.jpg")]
    assert main(["ticket", "classify", str(tmp_path / "t"), *files]) == 0
    said = capsys.readouterr().out.splitlines()
    chances = ticket.load(tmp_path / "t")(torch.from_numpy(infer_normalised(x))).softmax(1)
    best = chances.max(1)
    assert len(said) == 4
    for line, c, p in zip(said[:2], best.indices, best.values):
        assert line.endswith(f'"thing {c}", {p:.1%}')
    assert said[2].split(": ")[1] == said[0].split(": ")[1]


def infer_normalised(x):
    mean, std = (255 * torch.tensor(STATISTICS[k]).numpy()[:, None, None] for k in ("mean", "std"))
    return (x - mean) / std


def refusal(f, *args):
    with pytest.raises(UserError) as e:
        f(*args)
    return str(e.value)


def test_refusals(tmp_path, monkeypatch):
    net = as_subnet(build("fc1", (1, 28, 28), 10), "dense", 0)
    ticket.save(tmp_path / "dense", net)
    assert "dense network does not run in bits" in refusal(
        ticket.load, tmp_path / "dense", None, "bits"
    )
    assert "dense network" in refusal(export, tmp_path / "dense", tmp_path / "net.c")
    ticket.save(tmp_path / "t", drawn("lenet5", "mpt-1-1", 0.5))
    assert "mean and std" in refusal(export, tmp_path / "t", tmp_path / "net.c")
    bits = ticket.load(tmp_path / "t", engine="bits")
    assert "mean and std" in refusal(bits, np.zeros((1, 3, 32, 32), np.uint8))
    assert "do not fit" in refusal(bits, np.zeros((1, 3, 32, 31), np.float32))
    assert "do not fit" in refusal(bits, np.zeros((1, 3, 32, 32)))
    assert "unknown engine" in refusal(ticket.load, tmp_path / "t", None, "bit")
    (tmp_path / "no.png").write_text("nothing")
    assert "cannot be read as an image" in refusal(
        infer.read_images, tmp_path / "no.png", (3, 32, 32)
    )
    raw = bytearray((tmp_path / "t").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "t").write_bytes(raw)
    monkeypatch.setattr(
        infer, "compiler", lambda: pytest.fail("a damaged ticket reached the compiler")
    )
    assert "is damaged" in refusal(ticket.load, tmp_path / "t", None, "bits")


@pytest.mark.parametrize(
    "what, net",
    [
        ("groups", nn.Conv2d(4, 4, 3, groups=2)),
        ("square", nn.Conv2d(4, 4, (3, 1))),
        ("no step is known", nn.GELU()),
        ("mean of all pixels", nn.AdaptiveAvgPool2d(2)),
        ("in front of one convolution", nn.ZeroPad2d(1)),
    ],
)
def test_networks_that_cannot_be_run(what, net):
    net = nn.Sequential(net, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    net(torch.randn(1, 4, 8, 8))
    assert what in refusal(infer.Program, net, (4, 8, 8))


def test_sums_that_cannot_be_run():
    class Broadcast(nn.Module):
        def forward(self, x):
            return x + x.mean()

    class One(nn.Module):
        def forward(self, x):
            return x + 1

    for net in Broadcast(), One():
        assert "cannot be run in C" in refusal(infer.Program, net, (4, 8, 8))


class Net(nn.Module):
    "A convolution, then what `how` makes of it and of two linear layers"

    def __init__(self, how, activation=nn.ReLU):
        super().__init__()
        self.conv, self.act, self.flat = nn.Conv2d(3, 4, 3), activation(), nn.Flatten()
        self.same, self.how = nn.Conv2d(4, 4, 3, padding=1), how
        self.a, self.b = nn.Linear(144, 5), nn.Linear(144, 5)

    def forward(self, x):
        return self.how(self, self.conv(x))


def read_again(n, x):
    y = n.same(n.act(x))
    return n.a(n.flat(y + x))


def changed_in_place(n, x):
    y = n.same(x)
    z = y
    z += x
    return n.a(n.flat(n.act(y) + y))


REFUSED = {
    "two results": (Net(lambda n, x: (n.a(n.flat(x)), n.b(n.flat(x)))), "one result"),
    "a list": (Net(lambda n, x: [n.a(n.flat(x))]), "one result"),
    "no layer": (nn.Sequential(nn.Flatten()), "expected layers"),
    "an answer before the last": (
        Net(lambda n, x: (n.a(n.flat(x)), n.b(n.flat(x)))[0]),
        "one result",
    ),
    "a sum in place": (Net(changed_in_place), "it gives another answer"),
    "a method in place": (Net(lambda n, x: (x.relu_(), n.a(n.flat(x)))[1]), "no step is known"),
    "in place": (Net(read_again, lambda: nn.ReLU(inplace=True)), "what another layer reads"),
    "linear on planes": (
        nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Linear(8, 6), nn.Flatten()),
        "expected a linear layer on a flat input",
    ),
    "linear on planes of signs": (
        nn.Sequential(nn.Conv2d(3, 8, 1), Sign(), nn.Linear(8, 6), nn.Flatten()),
        "expected a linear layer on a flat input",
    ),
    "no statistics": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        "no statistics of its own",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_networks_that_would_be_wrong(what):
    net, says = REFUSED[what]
    assert says in refusal(infer.Program, net.eval(), (3, 8, 8))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(64, 5)
        ),
        Net(lambda n, x: (n.a(n.flat(x)), n.b(n.flat(x)))[1]),
        Net(read_again),
    ],
    ids=["zeros right and below", "a branch that leads nowhere", "read again"],
)
def test_networks_of_ones_own(net, tmp_path):
    "As PyTorch answers"
    torch.manual_seed(0)
    masked = as_subnet(deepcopy(net), "mpt-1-32", 0.5, in_shape=(3, 8, 8)).eval()
    ticket.save(tmp_path / "t", masked)
    x = torch.randn(7, 3, 8, 8)
    bits = ticket.load(tmp_path / "t", deepcopy(net), engine="bits")(x)
    exact = ticket.load(tmp_path / "t", deepcopy(net))(x)
    assert (bits - exact).abs().max() < 1e-4 * exact.std()


def test_a_layer_named_output():
    net = nn.Sequential()
    net.add_module("flatten", nn.Flatten())
    net.add_module("output", nn.Linear(12, 3))
    assert len(infer.Program(net.eval(), (3, 2, 2)).steps) == 1


def test_no_compiler(tmp_path, monkeypatch):
    "One sentence; without it the wheel ziglang would do"
    ticket.save(tmp_path / "t", drawn("lenet5", "mpt-1-1", 0.5))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(infer, "find_spec", lambda name: None)
    assert "no C compiler was found" in refusal(ticket.load, tmp_path / "t", None, "bits")
    monkeypatch.setattr(infer, "find_spec", lambda name: True)
    assert infer.compiler() == [sys.executable, "-m", "ziglang", "cc"]


def test_a_compiler_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "compiler", lambda: ["false"])
    assert "false could not compile infer.c" in refusal(infer.library)


def test_thresholds():
    "Of every sign of scale and shift, also where the sum falls on the border"
    scale = np.array([0.3, -0.3, 0.0, 0.0, 1.0, -1.0, 0.1, 1e-30])
    shift = np.array([-0.9, 0.9, 1.0, -1.0, 0.0, 0.0, -0.7, 1.0])
    t, k = infer.thresholds(scale, shift), np.arange(-50, 51)[:, None]
    assert (((k >= t["threshold"]) != t["flip"]) == (scale * k + shift >= 0)).all()
