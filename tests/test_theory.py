"What a ticket's size proves: the bound against other ways to compute it, and who gets a certificate"

import math
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from train_errors import TABLE, count

from mplt import ticket
from mplt.command import main
from mplt.experiment import read_rows
from mplt.export import certificate, error_bound, export, training_errors
from mplt.models import build
from mplt.subnet import as_subnet

COUNTED = pd.read_csv(TABLE, dtype=dict(config_hash=str))


@pytest.mark.parametrize("errors", [0, 1, 540, 5400, 48_600, 53_999, 54_000])
@pytest.mark.parametrize("size", [1, 700, 6000, 30_000])
def test_bound_inverts_kl(size, errors):
    "Against a search through two million error rates"
    q, p = errors / 54_000, np.linspace(0, 1, 2_000_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(q > 0, q * np.log(q / p), 0) + np.where(
            q < 1, (1 - q) * np.log((1 - q) / (1 - p)), 0
        )
    length = len(f"{size:b}")
    nats = (8 * size + 2 * length - 1) * math.log(2) - math.log(0.05)
    allowed = p[(p >= q) & (kl <= nats / 54_000)]
    assert abs(error_bound(size, errors, 54_000) - max(allowed, default=q)) < 1e-6


def test_all_files_together_have_probability_one():
    "The bound without errors gives away how many bits a file of each size has: 2^bits files share 2^-bits"
    images = 10**6
    nats = [-images * math.log1p(-error_bound(s, 0, images)) - math.log(20) for s in range(1, 4096)]
    bits = [o / math.log(2) - 8 * size for size, o in enumerate(nats, 1)]
    assert 0.999 < sum(2**-o for o in bits) < 1


@pytest.mark.parametrize("size, images, errors", [(1, 30, 0), (1, 60, 20), (2, 200, 100)])
def test_bound_holds(size, images, errors):
    "If the error rate were the bound, so few errors would have at most this file's part of 5 %"
    p, bits = error_bound(size, errors, images), 8 * size + 2 * len(f"{size:b}") - 1
    tail = [math.comb(images, k) * p**k * (1 - p) ** (images - k) for k in range(errors + 1)]
    assert 0 < math.fsum(tail) <= 0.05 * 2.0**-bits


def test_known_values():
    "54,000 images: bytes, training error and bound"
    for size, error, bound in (1000, 0.03, 0.174), (5600, 0.013, 0.475), (11_832, 0.008, 0.719):
        assert round(error_bound(size, round(54_000 * error), 54_000), 3) == bound


@pytest.fixture
def net():
    return as_subnet(build("lenet5", (1, 28, 28), 10), "mpt-1-32", 0.8)


def test_facts_are_certified(net, tmp_path, capsys):
    size = ticket.save(tmp_path / "t", net, train_errors=54, train_images=54_000)
    bound = error_bound(size, 54, 54_000)
    assert training_errors(tmp_path / "t") == (54, 54_000)
    percent = float(certificate(tmp_path / "t").split()[2])
    assert 0 <= percent - 100 * bound < 0.1001
    main(["ticket", "info", str(tmp_path / "t")])
    export(tmp_path / "t", tmp_path / "card.md")
    for said in capsys.readouterr().out, (tmp_path / "card.md").read_text():
        assert f"at most {percent} " in said and f"{size} bytes" in said


@pytest.mark.parametrize(
    "facts",
    [
        {},
        dict(train_errors=3),
        dict(train_errors=-1, train_images=9),
        dict(train_errors=10, train_images=9),
        dict(train_errors=0, train_images=0),
        dict(train_errors=0.0, train_images=9),
        dict(train_errors="0", train_images="9"),
        dict(train_errors=False, train_images=True),
        dict(train_errors=1, train_images=10**400),
        dict(certificate="at most 0 % errors"),
        dict(config_hash=["../.."], cycle=0),
    ],
)
def test_no_certificate(facts, net, tmp_path, capsys):
    ticket.save(tmp_path / "t", net, **facts)
    assert training_errors(tmp_path / "t") is None
    assert main(["ticket", "info", str(tmp_path / "t")]) == 0
    export(tmp_path / "t", tmp_path / "card.md")
    for said in capsys.readouterr().out, (tmp_path / "card.md").read_text():
        assert "none, since its errors" in said and "at most" not in said


def test_numbers_belong_to_a_file(net, tmp_path):
    "A copy of a committed ticket has its certificate, another ticket of the same config has not"
    row = COUNTED.iloc[0]
    shutil.copy(REPO / "results/runs" / row.config_hash / "ticket.safetensors", tmp_path / "copy")
    ticket.save(tmp_path / "other", net, config_hash=row.config_hash)
    assert training_errors(tmp_path / "copy") == (row.errors, row.images)
    assert training_errors(tmp_path / "other") is None


def test_table_is_of_the_committed_tickets():
    assert not COUNTED.config_hash.duplicated().any()
    sizes = dict(mnist=54_000, cifar10=45_000)
    for row in COUNTED.itertuples():
        folder = REPO / "results/runs" / row.config_hash
        run = read_rows(folder / "summary.csv").iloc[0]
        assert (folder / "ticket.safetensors").exists() and row.images == sizes[run.dataset]
        assert abs(row.errors / row.images - (1 - run.test_accuracy)) < 0.25


@pytest.mark.skipif(
    not os.environ.get("MPLT_DATA_MIRROR"), reason="MPLT_DATA_MIRROR names no folder with MNIST"
)
def test_errors_were_counted_right(tmp_path, monkeypatch):
    "Anew, of the smallest ticket: another processor may see an image or two on the other side"
    monkeypatch.setenv("MPLT_DATA", str(tmp_path))
    files = {o: REPO / "results/runs" / o / "ticket.safetensors" for o in COUNTED.config_hash}
    smallest = min(files, key=lambda o: files[o].stat().st_size)
    now, before = count(files[smallest].parent), COUNTED.set_index("config_hash").loc[smallest]
    assert now["images"] == before.images and abs(now["errors"] - before.errors) <= 3
