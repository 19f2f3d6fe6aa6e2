"Images of one's own: named, measured, told apart, and refused where they would be misunderstood"

import json
import re
from collections import UserList
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from mplt import data, ticket
from mplt.command import main
from mplt.config import config
from mplt.data import Images, collect, digest, load, own_set, save_npz
from mplt.errors import UserError
from mplt.experiment import config_hash, read_row, run


@pytest.fixture
def pets(tmp_path, monkeypatch):
    "Cats are light above, dogs below; 40 of each to train and 10 to test, of many sizes"
    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    for part, n in ("train", 40), ("val", 10):
        for label, name in enumerate(("cat", "dog")):
            (folder := tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(n):
                x = rng.randint(0, 120, (24 + i % 3, 30)).astype(np.uint8)
                x[:12] += 100 * (1 - label)
                Image.fromarray(x).save(folder / f"{i}.png")
    return tmp_path / "pets"


ASKED = dict(arch="fc1", width=0.1, epochs=2, batch_size=8, side=12)
WORDS = (
    "run --dataset folder:pets --side 12 --arch fc1 --width 0.1 --epochs 2 --batch_size 8".split()
)


def test_a_folder_is_run_named_and_told_apart(pets, capsys):
    assert main(WORDS) == 0
    [folder] = (pets.parent / "runs").iterdir()
    assert read_row(folder)["test_accuracy"] == 1
    said = ticket.info(folder / "ticket.safetensors")
    train = load("folder:pets", side=12).train.x
    assert train.shape == (80, 1, 12, 12)
    facts = [said[k] for k in ("dataset", "classes", "digest")]
    assert facts == ["pets", ["cat", "dog"], digest("folder:pets")]
    assert said["mean"] == pytest.approx([(train / 255).mean().item()], abs=1e-4)
    assert said["std"] == pytest.approx([(train / 255).std().item()], abs=1e-3)
    assert main(WORDS) == 0 and "finished before" in capsys.readouterr().out

    hashes = {config_hash(before := config(dataset="folder:pets", **ASKED))}
    (pets / "train/cat/0.png").unlink()  # an image is deleted …
    hashes.add(config_hash(config(dataset="folder:pets", **ASKED)))
    for part in "train", "val":  # … and a class is renamed
        (pets / part / "dog").rename(pets / part / "cow")
    hashes.add(config_hash(config(dataset="folder:pets", **ASKED)))
    assert len(hashes) == 3 and folder.name in hashes
    for given in dict(before.__dict__, dataset="folder:pets/"), dict(before.__dict__):
        with pytest.raises(UserError, match=f"folder:pets has digest .*, not {before.digest}: it"):
            run(given)
    with pytest.raises(UserError, match="it was changed, or is another set"):
        run(before, pets.parent / "elsewhere")
    assert main(WORDS) == 0 and "finished before" not in capsys.readouterr().out
    assert len(list((pets.parent / "runs").iterdir())) == 2


def test_a_folder_of_the_data_sets(pets, monkeypatch):
    here = digest("folder:pets")
    (pets.parent / "data").mkdir()
    pets.rename(pets.parent / "data/pets")
    assert digest("folder:pets") == here
    (pets.parent / "data/pets/val/cat/.DS_Store").write_bytes(b"x")
    assert digest("folder:pets") == here


def test_what_is_loaded_tells_folders_apart(pets):
    "Folders that are links, and images whose names begin with a dot, are loaded as well"
    cats = pets / "train/cat"
    cats.rename(pets.parent / "cats")
    cats.symlink_to(pets.parent / "cats")
    seen = {digest("folder:pets")}
    (pets.parent / "cats/3.png").unlink()
    seen.add(digest("folder:pets"))
    (cats / "4.png").rename(cats / ".4.png")
    seen.add(digest("folder:pets"))
    assert len(seen) == 3 and len(load("folder:pets", side=12).train.y) == 79


def test_one_folder_has_one_name(pets):
    given = "folder:pets", "folder:./pets", "folder:pets/", "folder:pets/../pets"
    assert len({config_hash(config(dataset=o, **ASKED)) for o in given}) == 1


def test_colour_and_a_broken_image(pets):
    Image.new("RGBA", (30, 9), "red").save(pets / "val/cat/3.png")
    assert load("folder:pets", side=12).train.x.shape == (80, 3, 12, 12)
    (pets / "val/cat/3.png").write_bytes(b"x")
    with pytest.raises(UserError, match="3.png cannot be read as an image"):
        load("folder:pets", side=12)
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(pets / "val/cat/3.png")
    with pytest.raises(UserError, match="mode I;16: expected at most 8 bits"):
        load("folder:pets", side=12)


@pytest.mark.parametrize(
    "given, says",
    [
        (dict(dataset="folder:pets"), "side 0 does not fit dataset 'folder:pets': each of its"),
        (dict(side=12), "side 12 does not fit dataset 'mnist5k': its images keep their size"),
        (dict(digest="0123456789ab"), "digest '0123456789ab' does not fit dataset 'mnist5k'"),
        (dict(digest="abc"), "digest 'abc' is not valid: expected 12 hexadecimal digits"),
        (
            dict(dataset="folder:cats", side=12),
            "folder:cats: there is no folder cats, neither here",
        ),
        (dict(dataset="npz:pets"), "npz:pets: there is no file pets"),
        (dict(dataset="foldr:pets"), "unknown kind of data set 'foldr'"),
        (dict(dataset="folder:pets", side=1000), "side 1000 is out of range"),
        (dict(dataset="pets"), "unknown dataset 'pets'"),
    ],
)
def test_wrong_names(pets, given, says):
    with pytest.raises(UserError, match=says):
        config(**given)


def test_no_run_of_the_sets_with_checksums_has_another_name():
    assert config_hash(config()) == "adf5aca1450a" and config(side=0, digest="").digest == ""


def arrays(**changed):
    rng = np.random.RandomState(0)
    x, y = rng.randint(0, 256, (40, 3, 8, 8)).astype(np.uint8), np.arange(40) % 4
    return dict(x_train=x, y_train=y, x_test=x[:8], y_test=y[:8]) | changed


def test_an_npz_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("own.npz", **arrays())
    data = load("npz:own.npz")
    assert data.source.classes == tuple("0123") and data.source.in_shape == (3, 8, 8)
    assert data.source.mean == pytest.approx(arrays()["x_train"].mean((0, 2, 3)) / 255, abs=1e-4)
    for name in "a.npz", "b.npz":
        save_npz(name, data)
    assert digest("npz:a.npz") == digest("npz:b.npz") != digest("npz:own.npz")
    again = load("npz:a.npz")
    assert again.source == data.source and torch.equal(again.test.y, data.test.y)
    np.savez("grey.npz", **{k: v[:, 0] if v.ndim == 4 else v for k, v in arrays().items()})
    assert load("npz:grey.npz").train.x.shape == (40, 1, 8, 8)
    row = run(dict(dataset="npz:a.npz", arch="fc1", width=0.1, epochs=1, batch_size=8), "out")
    assert row["dataset"] == "npz:a.npz" and row["digest"] == digest("npz:a.npz")
    assert json.loads((tmp_path / "out/config.json").read_text())["config"]["digest"]


FEW = arrays()
WRONG = [
    (dict(x_train=FEW["x_train"] / 255), "train images are torch.float64: expected torch.uint8"),
    (dict(x_train=FEW["x_train"].transpose(0, 2, 3, 1)), "(40, 8, 8, 3): expected (n, channels"),
    (dict(y_train=FEW["y_train"] + 1), "train labels are [1, 2, 3, 4] …, up to 4: expected 0 to 3"),
    (
        dict(y_train=FEW["y_train"] + 1, classes=list("abcd")),
        "labels go from 1 to 4: expected 0 to",
    ),
    (dict(y_train=FEW["y_train"] + 1, classes=list("abcde")), "labels go from 1 to 4: expected 0"),
    (dict(y_train=FEW["y_train"] / 2), "train labels are torch.float64 of shape (40,)"),
    (dict(y_test=FEW["y_test"] + 1), "test labels go from 1 to 4"),
    (dict(y_train=FEW["y_train"][:, None]), "train labels are torch.int64 of shape (40, 1)"),
    (dict(x_test=FEW["x_test"][..., :7]), "test images have shape (8, 3, 8, 7)"),
    (dict(y_train=np.array([None] * 40)), "expected an .npz file with the arrays x_train"),
    (dict(y_train=FEW["y_train"] * 1j), "train labels are torch.complex128 of shape (40,)"),
]


@pytest.mark.parametrize("changed, says", WRONG, ids=[o[1][:24] for o in WRONG])
def test_wrong_arrays(tmp_path, changed, says):
    np.savez(tmp_path / "own.npz", **arrays(**changed))
    with pytest.raises(UserError, match=re.escape(says)) as e:
        load(f"npz:{tmp_path}/own.npz")
    assert f"{tmp_path}/own.npz" in str(e.value)


@pytest.mark.parametrize("grows", ["x_train", "y_test", "something else"])
def test_a_file_that_would_grow_beyond_measure_is_not_unpacked(tmp_path, grows, monkeypatch):
    np.savez_compressed(tmp_path / "own.npz", **arrays() | {grows: np.zeros(2**25, np.uint8)})
    monkeypatch.setattr(data, "MAX_BYTES", 2**25)
    size = (tmp_path / "own.npz").stat().st_size
    with pytest.raises(
        UserError, match=f"own.npz cannot be read .*its {size} bytes would grow to 33"
    ):
        load(f"npz:{tmp_path}/own.npz")


def test_no_arrays(tmp_path):
    (tmp_path / "own.npz").write_bytes(b"x")
    with pytest.raises(UserError, match="own.npz cannot be read"):
        load(f"npz:{tmp_path}/own.npz")


class HuggingFace(UserList):
    "What a Hugging Face data set looks like from here"

    features = dict(label=SimpleNamespace(names=["cat", "dog"]))


def test_any_data_set():
    fakes = [FakeData(n, (3, 12, 12), 2) for n in (40, 10)]
    data = collect(*fakes, side=8)
    assert data.train.x.shape == (40, 3, 8, 8) and data.source.classes == ("0", "1")
    items = HuggingFace(
        dict(image=x.convert("L"), label=int(y)) for x, y in (fakes[0][i] for i in range(40))
    )
    data = collect(items, items, side=8)
    assert data.train.x.shape == (40, 1, 8, 8) and data.source.classes == ("cat", "dog")
    fine = HuggingFace(dict(img=o["image"], fine_label=o["label"]) for o in items)
    fine.features = {"fine_label": items.features["label"]}
    assert collect(fine, fine, side=8).source.classes == ("cat", "dog")
    data = collect(items, fakes[1], side=8)  # grey and colour
    assert data.train.x.shape[1] == data.test.x.shape[1] == 3
    with pytest.raises(UserError, match="train images are torch.float32"):
        collect(*[FakeData(n, (3, 12, 12), 2, transform=ToTensor()) for n in (40, 10)])
    with pytest.raises(UserError, match="sizes 12 x 12 and 14 x 14: expected images of one size"):
        collect(fakes[0], FakeData(9, (3, 14, 14), 2))
    with pytest.raises(UserError, match="a part has no images"):
        collect(fakes[0], [])
    for item in ("x",), (torch.zeros(3, 9, 9), "cat"), {}:
        with pytest.raises(UserError, match="cannot be read as an image|does not fit"):
            collect([item], [item])
    x = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    with pytest.raises(
        UserError, match="does not fit .its label is 0.5.: expected an image and a whole"
    ):
        collect([(x[0], 0), (x[0], 0.5)], [(x[0], 0)])
    assert own_set(Images(x, torch.arange(4)), Images(x, torch.arange(4))).source.std == (1.0,)
