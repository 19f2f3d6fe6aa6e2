"Networks of one's own: by name, with layers that are skipped and parameters that stay trained"

import json
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models as zoo

from mplt import ticket
from mplt.command import main
from mplt.config import config
from mplt.errors import UserError
from mplt.experiment import config_hash, run
from mplt.models import build, own_network
from mplt.report import gather, over_seeds
from mplt.subnet import as_subnet, masks, originals, set_sparsity, thaw, weighted
from mplt.sweep import expected_seconds

SMALL = {  # torchvision's own classes, tiny
    "vit": lambda: zoo.VisionTransformer(32, 16, 1, 2, 16, 32, num_classes=10),
    "convnext": lambda: zoo.ConvNeXt(
        [zoo.convnext.CNBlockConfig(8, 16, 1), zoo.convnext.CNBlockConfig(16, None, 1)],
        num_classes=10,
    ),
    "swin": lambda: zoo.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=10),
    "groupnorm": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.PReLU(), nn.Flatten(), nn.Linear(7200, 10)
    ),
}
HEAD = dict(vit="heads", convnext="classifier", swin="head", groupnorm="4")


def trained(net, steps=2, side=32):
    torch.manual_seed(0)
    opt = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        x, y = torch.randn(4, 3, side, side), torch.arange(4)
        opt.zero_grad()
        F.cross_entropy(net.train()(x), y).backward()
        opt.step()
    return net.eval()


@pytest.mark.parametrize("method", ["mpt-1-32", "edge-popup", "imp"])
@pytest.mark.parametrize("name", SMALL)
def test_what_no_method_knows_stays_trained(name, method, tmp_path):
    with pytest.raises(UserError, match="cannot freeze it, others='train' keeps it trained"):
        as_subnet(SMALL[name](), "mpt-1-32", 0.5)
    head, first = HEAD[name], dict(SMALL[name]().named_parameters())
    torch.manual_seed(1)
    net = SMALL[name]()
    before = {k: v.clone() for k, v in net.named_parameters()}
    net = trained(as_subnet(net, method, 0.5, skip=[head], others="train"))
    after, found = dict(net.named_parameters()), masks(net)
    layers = [k for k in weighted(net) if k.split(".")[0] != head]
    assert list(found) == layers and len(weighted(net)) == len(layers) + 1
    ours = {f"{k}.{o}" for k in layers for o in ("weight", "bias")}
    kept = [k for k in first if k not in ours]
    assert any(k.startswith(head) for k in kept) and any(not k.startswith(head) for k in kept)
    assert sum(not torch.equal(before[k], after[k]) for k in kept) > len(kept) / 2
    size = ticket.save(tmp_path / "t.safetensors", net, why="test")
    torch.manual_seed(2)  # other numbers where the ticket has to bring them
    plain = ticket.load(tmp_path / "t.safetensors", SMALL[name]())
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(x), net(x))
    said = ticket.info(tmp_path / "t.safetensors")
    assert said["subnet"]["skip"] == [head] and said["subnet"]["others"] == "train"
    assert size > 4 * sum(before[k].numel() for k in kept)
    if method == "imp":
        with pytest.raises(UserError, match="the seed cannot give it back"):
            ticket.save(tmp_path / "i.safetensors", net, initial=True)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_torchvision_in_full_size(name, tmp_path):
    "By name: converted, trained a step, saved, loaded to the same logits"
    arch = f"torchvision.models:{name}"
    net = as_subnet(own_network(arch, (3, 64, 64), 10), "mpt-1-32", 0.5, others="train")
    first = {k: v.clone() for k, v in net.named_parameters() if v.requires_grad}
    net = trained(net, 1, 64)
    moved = [not torch.equal(v, first[k]) for k, v in net.named_parameters() if k in first]
    assert sum(moved) > len(moved) / 2
    size = ticket.save(tmp_path / "t.safetensors", net)
    plain, x = ticket.load(tmp_path / "t.safetensors", arch, large=True), torch.randn(2, 3, 64, 64)
    weights = sum(v.numel() for v in plain.parameters())
    assert weights > 27e6 and size < weights / 6
    with torch.no_grad():
        assert torch.equal(plain(x), net(x))


def test_what_is_not_asked_for_is_not_in_the_file(tmp_path):
    net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1), "mpt-1-32", 0.5)
    ticket.save(tmp_path / "t.safetensors", net)
    assert not {"skip", "others"} & {*ticket.info(tmp_path / "t.safetensors")["subnet"]}


@pytest.mark.parametrize(
    "method, scope", [("mpt-1-32", "global"), ("imp", "global"), ("imp", "layer")]
)
def test_a_skipped_layer_of_a_built_network(method, scope, tmp_path):
    new = build("fc1", (1, 28, 28), 10, 0.1)
    last = new.fc3.weight.clone()
    net = as_subnet(new, method, 0.5, scope=scope, skip=("fc3",))
    set_sparsity(net, 0.7)
    assert torch.equal(net.fc3.weight, last) and net.fc3.bias is not None
    total = sum(originals(net)[k].numel() for k in ("fc1", "fc2"))
    assert sum(m.sum() for m in masks(net).values()) == total - total * 7 // 10
    ticket.save(tmp_path / "t.safetensors", net)
    x = torch.randn(3, 1, 28, 28)
    assert torch.equal(ticket.load(tmp_path / "t.safetensors")(x), net.eval()(x))


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(skip="head"), "skip 'head' does not fit: it is a tuple of layers' names"),
        (dict(skip=("fc4",)), "unknown layer to skip 'fc4': did you mean 'fc3'"),
        (dict(skip=("fc1", "fc2", "fc3")), "has no convolution and no linear layer"),
        (dict(others="keep"), "unknown others 'keep'"),
    ],
)
def test_wrong_choices(given, says):
    with pytest.raises(UserError, match=says):
        as_subnet(build("fc1", (1, 28, 28), 10, 0.1), "mpt-1-32", 0.5, **given)


class Calling(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.one, self.two, self.call = nn.Linear(4, 3), nn.Linear(3, 2), call

    def forward(self, x):
        return self.two(self.call(self.one(x)))


@pytest.mark.parametrize("call", [F.relu, torch.relu, lambda x: x.relu(), F.gelu, nn.GELU()])
def test_a_hidden_relu_is_named(call):
    with pytest.raises(UserError, match="layer 'two' sees activations that are not ±1") as e:
        as_subnet(Calling(call), "mpt-1-1", 0.5, in_shape=(4,))
    hidden = call is not F.gelu and not isinstance(call, nn.GELU)
    assert ("calls relu as a function" in str(e.value)) == hidden


@pytest.mark.parametrize("new", [torch.optim.SGD, torch.optim.AdamW])
def test_thaw_keeps_the_zeros(new, tmp_path):
    net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1, "plain"), "mpt-1-32", 0.8)
    ticket.save(tmp_path / "t.safetensors", net)
    with pytest.raises(UserError, match="the network has masks"):
        thaw(net)
    plain = thaw(ticket.load(tmp_path / "t.safetensors"))
    before = {k: m.weight.detach().clone() for k, m in weighted(plain).items()}
    opt = new(plain.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(3):
        opt.zero_grad()
        plain(torch.randn(8, 1, 28, 28)).square().mean().backward()
        opt.step()
    for k, m in weighted(plain).items():
        assert torch.equal(m.weight == 0, before[k] == 0) and (m.weight == 0).float().mean() > 0.79
        assert (m.weight != before[k]).sum() > 0.9 * (before[k] != 0).sum()


def test_thaw_goes_on_from_the_ticket(tmp_path):
    "Learned batch normalisation is in training what it is in evaluation, in a copy as well"
    net = as_subnet(build("lenet5", (1, 28, 28), 10, bn="learned"), "mpt-1-32", 0.5)
    for _ in range(3):
        net(3 + 2 * torch.randn(16, 1, 28, 28))  # statistics
    ticket.save(tmp_path / "t.safetensors", net)
    plain, x = ticket.load(tmp_path / "t.safetensors"), torch.randn(8, 1, 28, 28)
    wanted = plain(x)
    thawed = thaw(plain)
    assert thawed.training and torch.equal(thawed(x), wanted)
    assert torch.equal(deepcopy(thawed).train()(x), wanted)


CODE = """
from torch import nn
print("the code runs")
def net(in_shape, num_classes):
    c = in_shape[0]
    return nn.Sequential(nn.Conv2d(c, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.LazyLinear(num_classes) if c == 9 else nn.Linear(2704, num_classes))
def normed(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.LayerNorm(8), nn.Linear(8, num_classes))
def nothing():
    return 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    "A module of one's own in the current folder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [o for o in sys.path if o])
    (tmp_path / "my_nets.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("my_nets", None)


FEW = "run --limit 60 --epochs 1 --batch_size 20 --out out".split()


def test_a_network_by_name(mine, capsys):
    assert main([*FEW, "--arch", "my_nets:net"]) == 0
    capsys.readouterr()
    file = "out/ticket.safetensors"
    assert ticket.info(file)["builder"] == dict(arch="my_nets:net", num_classes=10)
    sys.modules.pop("my_nets")
    assert main(["ticket", "verify", file]) == 2  # the file's word is not enough …
    said = capsys.readouterr()
    assert "if you trust the code 'my_nets:net', name it by --arch" in said.err and not said.out
    assert main(["ticket", "verify", file, "--arch", "my_nets:net"]) == 0  # … the user's is
    assert "the code runs" in capsys.readouterr().out
    for out in "net.safetensors", "net.md":
        assert main(["ticket", "export", file, out, "--arch", "my_nets:net"]) == 0
    net = ticket.load(file, "my_nets:net")
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert config_hash(config(arch="my_nets:net")) != config_hash(config())

    sys.modules.pop("my_nets")  # nor is the word of a run's record
    (mine / "runs").mkdir()
    (mine / "out").rename(mine / "runs/old")
    expected_seconds([config()])
    assert "my_nets" not in sys.modules
    [seconds] = expected_seconds([config(arch="my_nets:net")]).values()
    assert "my_nets" in sys.modules and seconds > 0


def test_an_edited_function_is_not_shown_the_old_run(mine, capsys):
    words = [*FEW, "--arch", "my_nets:net"]
    assert main(words) == 0
    before = {f: f.read_bytes() for f in Path("out").iterdir() if f.suffix != ".png"}
    for edited in "nn.Conv2d(c, 4, 3), nn.ReLU()", "nn.Conv2d(c, 4, 5, padding=1)":
        (mine / "my_nets.py").write_text(CODE.replace("nn.Conv2d(c, 4, 3)", edited))
        sys.modules.pop("my_nets")
        assert main(words) == 2
        says = "out holds a run of another network than 'my_nets:net' makes now: delete that"
        assert says in capsys.readouterr().err
    (mine / "my_nets.py").write_text(CODE + "# a comment")
    sys.modules.pop("my_nets")
    assert main(words) == 0 and "finished before" in capsys.readouterr().out
    assert before == {f: f.read_bytes() for f in before}

    (mine / "my_nets.py").write_text(CODE.replace("4, 3)", "4, 3, bias=False)"))
    sys.modules.pop("my_nets")
    file = mine / "out/config.json"
    said = json.loads(file.read_text())
    del said["network"]  # as those of before have none
    file.write_text(json.dumps(said))
    assert main(words) == 0 and "finished before" in capsys.readouterr().out


def test_no_file_makes_code_run(mine, capsys):
    net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1), "mpt-1-32", 0.5)
    net.spec = replace(net.spec, arch="my_nets:net")
    header = ticket.describe(net, masks(net), False)
    with pytest.raises(UserError, match="unknown architecture 'my_nets:net'"):
        ticket.check_plan(header)
    with pytest.raises(UserError, match="unknown architecture"):
        build(**header["spec"])
    assert "my_nets" not in sys.modules and not capsys.readouterr().out


def test_a_network_by_name_with_others(mine, capsys):
    words = [*FEW, "--arch", "my_nets:normed"]
    assert main(words) == 2 and "parameter '2.weight' belongs to" in capsys.readouterr().err
    assert main([*words, "--others", "train"]) == 0
    row = run(dict(arch="my_nets:normed", others="train", limit=60, epochs=1, batch_size=20), "out")
    assert over_seeds(gather(["out"], "levels.csv")).arch.to_list() == ["my_nets:normed"]
    assert row["arch"] == "my_nets:normed" and row["weights_total"] == 784 * 8 + 80
    words = [*words, "--others", "train", "--method", "imp", "--out", "imp"]
    assert main(words) == 2
    assert "the seed cannot give back '2.weight'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(arch="my_nets:nothing"), "'my_nets:nothing' makes a int: expected an nn.Module"),
        (dict(arch="my_nets:nobody"), "'my_nets:nobody' makes no network .AttributeError"),
        (dict(arch="no_nets:net"), "'no_nets:net' makes no network .ModuleNotFoundError"),
        (dict(arch="my_nets:net", width=2), "width 2.0 does not fit arch 'my_nets:net': a network"),
        (dict(arch="my_nets:net", skips=True), "skips True does not fit arch 'my_nets:net'"),
    ],
)
def test_wrong_functions(mine, given, says):
    with pytest.raises(UserError, match=says):
        run(dict(given, limit=60, batch_size=20, epochs=1), "out")
    assert not (mine / "out").exists()


def test_torchvision_by_name():
    net = own_network("torchvision.models:resnet18", (3, 32, 32), 7)
    again = own_network("torchvision.models:resnet18", (3, 32, 32), 7)
    own_network("torchvision.models:resnet18", None, 7)  # of a ticket that does not say
    assert net.fc.out_features == 7 and torch.equal(net.fc.weight, again.fc.weight)
