"Tickets leave the house: cards, pictures, stores, and what the exported programs carry"

import json
import re
import shutil
import sys
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
import yaml
from conftest import REPO
from PIL import Image
from safetensors import safe_open
from torch import nn

from mplt import ticket
from mplt.command import main
from mplt.errors import UserError
from mplt.export import export, pull, push
from mplt.models import build, own_network
from mplt.subnet import as_subnet, weighted

FACTS = dict(dataset="mnist", mean=[0.1307], std=[0.3081], classes=list("abcdefghij"))
FACTS |= dict(test_accuracy=0.75)


@pytest.fixture
def path(tmp_path):
    net = as_subnet(build("lenet5", (1, 28, 28), 10, 0.5, "plain"), "mpt-1-32", 0.8)
    ticket.save(tmp_path / "t.safetensors", net, **FACTS)
    return tmp_path / "t.safetensors"


def front_matter(card):
    return yaml.safe_load(re.match("---\n(.*?)---\n", card, re.S)[1])


def test_a_card_with_front_matter_and_its_picture(path, tmp_path):
    export(path, tmp_path / "my card.md")
    card = (tmp_path / "my card.md").read_text()
    said = front_matter(card)
    assert said["library_name"] == "mplt" and said["datasets"] == ["mnist"]
    [result] = said["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.75 and result["dataset"]["type"] == "mnist"
    assert 'src="my%20card.png"' in card and "base64" not in card
    assert Image.open(tmp_path / "my card.png").size[0] == 800
    export(path, tmp_path / "card.html")
    assert "base64" in (tmp_path / "card.html").read_text()


@pytest.mark.parametrize("dataset", ["<b>", "a\n---\nlicense: mit", 3, None])
def test_the_front_matter_is_harmless(dataset, path, tmp_path):
    net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1), "dense", 0.0)
    ticket.save(path, net, **FACTS | dict(dataset=dataset))
    export(path, tmp_path / "card.md")
    said = front_matter((tmp_path / "card.md").read_text())
    assert not {"datasets", "model-index", "license"} & {*said}
    assert not (tmp_path / "card.png").exists()  # a dense network has no masks


def test_programs_say_how_to_feed_them(path, tmp_path):
    import onnxruntime

    for kind in "onnx", "pt2", "safetensors":
        export(path, tmp_path / f"out.{kind}")
    wanted = {k: json.dumps(FACTS[k]) for k in ("mean", "std", "classes")}
    onnx = onnxruntime.InferenceSession(tmp_path / "out.onnx")
    assert onnx.get_modelmeta().custom_metadata_map.items() >= wanted.items()
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == wanted
    extra = dict.fromkeys(wanted, "")
    program = torch.export.load(tmp_path / "out.pt2", extra_files=extra)
    assert extra == wanted
    x = torch.randn(5, 1, 28, 28)
    assert torch.allclose(program.module()(x), ticket.load(path)(x), atol=1e-5)


def test_a_program_with_signs(tmp_path):
    net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1, "plain", "sign"), "mpt-1-1", 0.5)
    ticket.save(tmp_path / "t", net)
    export(tmp_path / "t", tmp_path / "out.pt2")
    program, x = torch.export.load(tmp_path / "out.pt2").module(), torch.randn(7, 1, 28, 28)
    assert torch.allclose(program(x), ticket.load(tmp_path / "t")(x), atol=1e-5)


@pytest.mark.parametrize("where", ["{}/shelf/one", "file://{}/shelf/one", "memory://shelf/one"])
def test_there_and_back(where, path, tmp_path, monkeypatch, capsys):
    where = where.format(tmp_path)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # again is as good as once
        assert main(["ticket", "push", str(path), where]) == 0
    store, place = fsspec.url_to_fs(where)
    names = {o.rpartition("/")[2] for o in store.ls(place, detail=False)}
    assert names == {"README.md", "README.png", "ticket.safetensors"}
    assert b"library_name: mplt" in store.cat_file(f"{place}/README.md")
    assert main(["ticket", "pull", where, "back"]) == 0
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    store.pipe_file(f"{place}/ticket.safetensors", bytes(raw))
    with pytest.raises(UserError, match="one/ticket.safetensors is damaged"):
        pull(where, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    store.rm(place, recursive=True)


def test_addresses_that_lead_nowhere(path, tmp_path):
    for where in "nosuch://x/y", str(tmp_path / "nowhere"):
        with pytest.raises(UserError, match="cannot be used .* expected hf://USER/NAME"):
            pull(where, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        push(path, f"{tmp_path}/file/x")
    assert not (tmp_path / "out").exists()


def test_hugging_face(path, tmp_path, monkeypatch):
    "Its library is told the repository and gets the folder; here a folder stands for the hub"
    hub = SimpleNamespace()
    hub.create_repo = lambda repo, exist_ok: (tmp_path / repo).mkdir(
        parents=True, exist_ok=exist_ok
    )
    hub.upload_folder = lambda *, repo_id, folder_path: shutil.copytree(
        folder_path, tmp_path / repo_id, dirs_exist_ok=True
    )
    hub.hf_hub_download = lambda repo, file: str(tmp_path / repo / file)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    push(path, "hf://me/digits")
    assert (tmp_path / "me/digits/README.md").read_text().startswith("---\nlibrary_name: mplt\n")
    assert pull("hf://me/digits", tmp_path / "back") == path.stat().st_size
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        UserError, match=r"hf://me/digits needs a library .*pip install 'mplt\[hub\]"
    ):
        push(path, "hf://me/digits")


@pytest.mark.parametrize("method", ["mpt-1-32", "edge-popup", "imp", "dense"])
def test_summary(method, tmp_path, capsys):
    net = as_subnet(build("lenet5", (1, 28, 28), 10), method, 0.0 if method == "dense" else 0.8)
    size = ticket.save(tmp_path / "t", net)
    table = ticket.summary(tmp_path / "t")
    layers = table.loc[list(weighted(net))]
    assert table.bytes["total"] == size and (table.bytes > 0).all()
    total = sum(m.weight.numel() for m in weighted(net).values())
    assert table.weights["total"] == total
    assert table.kept["total"] == (total if method == "dense" else ticket_kept(tmp_path / "t"))
    assert layers.multiplications["conv1"] == 6 * 25 * 28 * 28  # a border makes the image 32 x 32
    assert layers.multiplications["fc1"] == 400 * 120
    if method == "mpt-1-32":
        assert layers.bits_a_weight.between(0.7, 0.9)[["conv2", "fc1", "fc2"]].all()
    if method == "dense":
        assert (layers.bits_a_weight == 32).all()
    left = layers.multiplications_left / layers.multiplications
    assert np.allclose(left, layers.kept / layers.weights)
    assert main(["ticket", "summary", str(tmp_path / "t")]) == 0
    assert "header and the rest" in capsys.readouterr().out


def ticket_kept(path):
    return sum(ticket.info(path)["kept"].values())


def test_summary_of_a_skipped_layer_and_of_tokens(tmp_path):
    class Tokens(nn.Sequential):
        def forward(self, x):
            return super().forward(x.flatten(2)).mean(1)

    def new():
        return Tokens(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))

    net = as_subnet(new(), "mpt-1-32", 0.5, in_shape=(3, 8, 8), skip=("2",))
    size = ticket.save(tmp_path / "t", net)
    table = ticket.summary(tmp_path / "t", new())
    assert table.bytes["total"] == size and table.bytes["2"] == 4 * 32
    assert table.multiplications.to_dict()["0"] == 3 * 64 * 8  # once for each of three tokens


def test_summary_of_attention_and_of_a_layer_that_is_not_called(tmp_path, capsys, monkeypatch):
    (tmp_path / "attentive.py").write_text("""
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix, self.last, self.aside = nn.MultiheadAttention(8, 2), nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2).reshape(-1, 2, 8)
        x = self.mix(x, x, x)[0].mean((0, 1))[None]
        return self.last(x) + self.last(x) + nn.functional.linear(x, self.aside.weight)
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    arch = "attentive:Net"
    net = as_subnet(
        own_network(arch, (1, 8, 8), 4), "mpt-1-32", 0.5, in_shape=(1, 8, 8), others="train"
    )
    ticket.save("t", net)
    count = ticket.summary("t", arch).multiplications
    assert count["mix.out_proj"] == 8 * 8 * 8  # for each of eight tokens, that lie two by two
    assert count["last"] == 2 * 8 * 4 and np.isnan(count[["aside", "total"]]).all()
    assert main(["ticket", "summary", "t", "--arch", arch]) == 0
    assert [row.split()[-1] for row in capsys.readouterr().out.splitlines() if "aside" in row] == [
        "–"
    ]


def test_torch_hub():
    net = torch.hub.load(str(REPO), "ticket", "lenet5-mpt-1-32-80", source="local")
    assert torch.equal(next(net.parameters()), next(ticket.zoo("lenet5-mpt-1-32-80").parameters()))
