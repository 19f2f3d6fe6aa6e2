"Data sets: found in order, refused by name, nothing half-written"

import gzip
import hashlib
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from mplt import data, names
from mplt.data import SOURCES, fetch, load, verify
from mplt.errors import UserError
from mplt.models import build
from mplt.train import evaluate


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    "A small CIFAR-10 lookalike in the official format, as a mirror, and an empty data folder beside it"
    rng, files = np.random.RandomState(0), {}
    folder = tmp_path / "mirror/cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, f in enumerate(data.SOURCES["cifar10"].files):
        content = {
            b"data": rng.randint(0, 256, (20, 3072)).astype(np.uint8),
            b"labels": [(i + j) % 10 for j in range(20)],
        }
        (tmp_path / "mirror" / f).write_bytes(pickle.dumps(content, protocol=3))
        files[f] = hashlib.md5((tmp_path / "mirror" / f).read_bytes()).hexdigest()
    monkeypatch.setitem(data.SOURCES, "cifar10", replace(data.SOURCES["cifar10"], files=files))
    monkeypatch.setenv("MPLT_DATA_MIRROR", str(tmp_path / "mirror"))
    return tmp_path


def left(root):
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


def test_from_mirror(mirror):
    d = load("CIFAR10", mirror / "data")
    assert d.train.x.shape == (100, 3, 32, 32) and d.test.x.shape == (20, 3, 32, 32)
    raw = pickle.loads((mirror / "mirror/cifar-10-batches-py/data_batch_2").read_bytes())
    x, y = (o[20:40] for o in d.train)
    assert (x.numpy().reshape(20, -1) == raw[b"data"]).all() and y.tolist() == raw[b"labels"]
    assert left(mirror / "data") == ["cifar10"]


def test_damaged_mirror_is_refused_by_name(mirror):
    bad = mirror / "mirror/cifar-10-batches-py/data_batch_3"
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"data_batch_3 is damaged: its MD5 is \w+, expected"):
        fetch("cifar10", mirror / "data")
    assert left(mirror / "data") == []


def test_incomplete_mirror_is_refused_by_name(mirror):
    (mirror / "mirror/cifar-10-batches-py/test_batch").unlink()
    with pytest.raises(UserError, match="test_batch is missing"):
        fetch("cifar10", mirror / "data")
    assert left(mirror / "data") == []


def test_missing_file_comes_back_and_damaged_one_is_kept_for_the_user(mirror):
    place = fetch("cifar10", mirror / "data") / "cifar-10-batches-py"
    (place / "data_batch_1").unlink()
    fetch("cifar10", mirror / "data")
    (place / "data_batch_4").write_bytes(b"x")
    with pytest.raises(UserError, match="data_batch_4 is damaged"):
        fetch("cifar10", mirror / "data")
    with pytest.raises(UserError, match="data_batch_4 is damaged"):
        verify("cifar10", mirror / "data/cifar10")
    assert (place / "data_batch_4").read_bytes() == b"x"


def test_mirror_that_is_no_folder(mirror, monkeypatch):
    monkeypatch.setenv("MPLT_DATA_MIRROR", str(mirror / "nowhere"))
    with pytest.raises(UserError, match="nowhere .* is not a folder"):
        fetch("cifar10", mirror / "data")


def test_a_copy_for_an_experiment_takes_the_projects_data(mirror, monkeypatch):
    monkeypatch.setenv("MPLT_DATA_MIRROR", "")
    shutil.move(mirror / "mirror", mirror / "data/cifar10")
    copy = mirror / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    (copy / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.chdir(copy)
    assert fetch("cifar10", ".").samefile(copy / "cifar10")
    assert len(load("cifar10", copy).train.y) == 100 and left(mirror / "data") == ["cifar10"]


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_no_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLT_DATA_MIRROR", "")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz"
    )
    with pytest.raises(UserError, match=f"{name} could not be downloaded .* check the network"):
        fetch(name, tmp_path / "data")
    assert left(tmp_path / "data") == []


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fetch("mnist", tmp_path / "file")


def test_mnist5k_is_found_from_any_folder(tmp_path, monkeypatch):
    here = fetch("mnist5k")
    assert fetch("mnist5k", tmp_path) == here
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLT_DATA_MIRROR", "")
    assert fetch("mnist5k") == here and len(load("mnist5k").train.y) == 4000
    assert not left(tmp_path)
    monkeypatch.setattr(names, "PACKAGE", tmp_path / "mplt")
    with pytest.raises(UserError, match="it comes with mplt: `git checkout"):
        fetch("mnist5k")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(UserError, match="check the network"):
        fetch("mnist")
    assert not left(tmp_path)


def wrong_sets():
    x, y = torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    return [
        (x / 255, y, "train images are torch.float32: expected torch.uint8, pixels from 0 to 255"),
        (x.permute(0, 2, 3, 1), y, r"shape \(20, 8, 8, 3\): expected \(n, 3, 8, 8\): channels"),
        (x[:, 0], y, r"shape \(20, 8, 8\)"),
        (x, y + 1, "train labels go from 1 to 2: expected 0 to 1, one for each class"),
        (x, y - 1, "labels go from -1 to 0"),
        (x, y.float(), "labels are torch.float32 of shape"),
        (x, y[:9], r"labels are torch.int64 of shape \(9,\): expected torch.int64, one for each"),
        (x[:0], y[:0], "labels are none"),
    ]


@pytest.mark.parametrize("x, y, says", wrong_sets(), ids=[o[2][:20] for o in wrong_sets()])
def test_what_would_be_misunderstood_is_refused(x, y, says):
    good = data.Images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    source = data.Source({}, ("a", "b"), (0.5,) * 3, (0.5,) * 3, in_shape=(3, 8, 8))
    with pytest.raises(UserError, match=says):
        data.split(data.DataSet(source, data.Images(x, y), good), seed=0)


def test_numbers_that_are_not_pixels_are_not_evaluated():
    "0 to 1 taken for 0 to 255 would cost a network all that it knows, in silence"
    x, y = torch.rand(6, 1, 28, 28), torch.arange(6)
    net = build("fc1", (1, 28, 28), 10, 0.1)
    says = r"the images are torch.float32: expected torch.uint8, pixels from 0 to 255: .255 \* x"
    for images in data.Images(x, y), data.Images(255 * x, y):
        with pytest.raises(UserError, match=says):
            evaluate(net, images, SOURCES["mnist"])
        with pytest.raises(UserError, match=says):
            next(data.batches(images, SOURCES["mnist"], 3, seed=0))
        with pytest.raises(UserError, match=says):
            data.normalise(images.x, SOURCES["mnist"])


@pytest.mark.skipif(
    not os.environ.get("MPLT_DATA_MIRROR"),
    reason="MPLT_DATA_MIRROR names no folder with MNIST and CIFAR-10",
)
@pytest.mark.parametrize(
    "name, shape, n",
    [("mnist", (1, 28, 28), (60000, 10000)), ("cifar10", (3, 32, 32), (50000, 10000))],
)
def test_the_real_sets(name, shape, n, tmp_path):
    d = load(name, tmp_path)
    assert (len(d.train.y), len(d.test.y)) == n
    assert d.train.x.shape[1:] == shape == d.source.in_shape
    assert d.train.y.bincount().min() >= 5000 and len(d.source.classes) == 10
    pixels = d.train.x[::7].float() / 255
    assert np.allclose(pixels.mean((0, 2, 3)), d.source.mean, atol=0.01)
    assert np.allclose(pixels.transpose(0, 1).flatten(1).std(1), d.source.std, atol=0.01)


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    "A tiny Fashion-MNIST lookalike, no network, and an `apt-get` that has it as a package"
    rng, share = np.random.RandomState(0), tmp_path / "deb/usr/share/datasets/fashion-mnist"
    (tmp_path / "deb/DEBIAN").mkdir(parents=True)
    (tmp_path / "deb/DEBIAN/control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: test\n"
    )
    share.mkdir(parents=True)
    files = {}
    for f in data.SOURCES["fashion_mnist"].files:
        a = rng.randint(0, 10, (30, 28, 28) if "images" in f else 30).astype(np.uint8)
        shape = np.array(a.shape, ">i4").tobytes()
        raw = bytes([0, 0, 8, a.ndim]) + shape + a.tobytes()
        files[f] = hashlib.md5(raw).hexdigest()
        (share / (f.split("/")[-1] + ".gz")).write_bytes(gzip.compress(raw))
    own = replace(data.SOURCES["fashion_mnist"], files=files)
    monkeypatch.setitem(data.SOURCES, "fashion_mnist", own)
    monkeypatch.setenv("MPLT_DATA_MIRROR", "")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apt-get").write_text(f'#!/bin/sh\nexec dpkg-deb -b "{tmp_path}/deb" .\n')
    (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")


@needs_dpkg
def test_fashion_mnist_from_debians_package(fashion):
    d = load("fashion_mnist", fashion / "data")
    assert d.train.x.shape == (30, 1, 28, 28) and len(d.test.y) == 30
    assert left(fashion / "data") == ["fashion_mnist"]


@needs_dpkg
def test_wrong_package_is_refused_by_name(fashion):
    f = next((fashion / "deb").glob("usr/share/datasets/fashion-mnist/t10k-labels*"))
    f.write_bytes(gzip.compress(b"something else"))
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is damaged.*try again later"):
        fetch("fashion_mnist", fashion / "data")
    assert left(fashion / "data") == []


def test_fashion_mnist_without_network_or_package(fashion):
    (fashion / "bin/apt-get").write_text("#!/bin/sh\nexit 100\n")
    with pytest.raises(UserError, match="fashion_mnist could not be .* check the network"):
        fetch("fashion_mnist", fashion / "data")
    assert left(fashion / "data") == []


def test_half_finished_download(tmp_path, monkeypatch):
    def broken(root, train, download):
        (Path(root) / "MNIST/raw").mkdir(parents=True)
        (Path(root) / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"half")
        raise RuntimeError("connection reset")

    monkeypatch.setenv("MPLT_DATA_MIRROR", "")
    monkeypatch.setattr(torchvision.datasets, "MNIST", broken)
    with pytest.raises(UserError, match="connection reset"):
        fetch("mnist", tmp_path / "data")
    assert left(tmp_path / "data") == []


def test_full_disk(mirror, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError, match="could not be written .No space left on device."):
        fetch("cifar10", mirror / "data")
    assert left(mirror / "data") == []
