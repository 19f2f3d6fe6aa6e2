"""One network on many processes, started by torchrun: the same network but for rounding, whatever happens."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pandas as pd
import pytest
import torch
from conftest import REPO

from mplt import ticket
from mplt.subnet import weighted

COMMAND = "import sys; from mplt.command import main; sys.exit(main())"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENV = os.environ | dict(
    MPLT_DATA=str(REPO / "data"),
    MPLT_THREADS="1",
    OMP_NUM_THREADS="1",
    PYTHONPATH=str(REPO),
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",  # else a restart of torch 2.14 finds the old store
)
TINY = "--arch lenet5 --bn none --init signed_constant --lr 0.1 --batch_size 128 --limit 2560 --epochs 1"


def start(folder, processes, *words, restarts=0):
    "`mplt`, alone or on many processes"
    python, how = [sys.executable], dict(cwd=folder, env=ENV, text=True)
    if processes > 1:
        python = [*TORCHRUN, f"--max-restarts={restarts}", "--no-python", sys.executable]
    how |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    return subprocess.Popen([*python, "-c", COMMAND, *words], **how)


def mplt(folder, processes, words):
    return ended(start(folder, processes, *words.split()))


def ended(p, seconds=300):
    "Status, what it printed, what it told; nothing of it lives on"
    try:
        said, told = p.communicate(timeout=seconds)
        return p.returncode, said, told
    finally:
        with suppress(ProcessLookupError):
            os.killpg(p.pid, signal.SIGKILL)


def scores(run):
    state = torch.load(run / "state.pt", weights_only=True)["model"]
    return {k: v for k, v in state.items() if k.endswith("scores")}


def masks(run):
    return {k: m.weight != 0 for k, m in weighted(ticket.load(run / "ticket.safetensors")).items()}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Runs of one and of two processes, 20 steps each"
    folder = tmp_path_factory.mktemp("home")
    (folder / "settings.ini").write_text("[DEFAULT]\n")
    for n, out in (1, "one"), (2, "two"):
        status, said, told = mplt(folder, n, f"run --method mpt-1-32 {TINY} --out {out}")
        assert status == 0 and "Traceback" not in told, told
        assert said.count("test accuracy") == 1 and told.count("epoch 1/1: loss") == 1, said + told
    return folder


def test_two_halves_are_one_whole(home):
    one, two = (scores(home / o) for o in ("one", "two"))
    assert len(one) == 5 and max((one[k] - two[k]).abs().max() for k in one) < 1e-6
    one, two = (masks(home / o) for o in ("one", "two"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    rows = [pd.read_csv(home / o / "curves.csv").loc[0] for o in ("one", "two")]
    for column in "train_loss", "train_accuracy", "val_loss", "val_accuracy":
        assert abs(rows[0][column] - rows[1][column]) < 1e-6, column
    assert '"processes": 2' in (home / "two/record.json").read_text()


def begun(run, what="state.pt", seconds=120):
    end = time.time() + seconds
    while not (run / what).exists():
        assert time.time() < end, "it has not begun"
        time.sleep(0.02)


def ranks(p):
    "The processes that torchrun has started"
    return sorted(map(int, subprocess.check_output(["pgrep", "-P", str(p.pid)], text=True).split()))


LONGER = TINY.replace("--epochs 1", "--epochs 12") + " --method mpt-1-1 --bn learned --lr 0.01"


def test_killed_and_stopped(home):
    "A process that is killed is started again; after SIGTERM another number of them goes on"
    whole = start(home, 2, *f"run {LONGER} --out whole".split())
    killed = start(home, 2, *f"run {LONGER} --out killed".split(), restarts=1)
    begun(home / "killed")
    os.kill(ranks(killed)[1], signal.SIGKILL)
    status, _, told = ended(killed)
    assert status == 0 and ended(whole)[0] == 0, told
    assert told.count("epoch 1/12: loss") == 1, told  # and not from the start
    for file in "ticket.safetensors", "curves.csv", "levels.csv":
        assert (home / "whole" / file).read_bytes() == (home / "killed" / file).read_bytes(), file

    stopped = start(home, 2, *f"run {LONGER} --out stopped".split())
    begun(home / "stopped")
    stopped.terminate()
    status, _, told = ended(stopped)
    assert len(re.findall(r"^mplt: stopped in epoch .*, state saved", told, re.M)) == 1, told
    assert status and not (home / "stopped/summary.csv").exists()
    status, said, told = mplt(home, 1, f"run {LONGER} --out stopped")
    assert status == 0 and "processes 1 (before: 2)" in told, told
    accuracy = [
        pd.read_csv(home / o / "summary.csv").test_accuracy[0] for o in ("whole", "stopped")
    ]
    assert abs(accuracy[0] - accuracy[1]) < 0.1


@pytest.mark.parametrize("shared", ["0", "1"])
@pytest.mark.parametrize(
    "words, sentence",
    [
        ("--batch_size 127", "batch_size 127 cannot be shared equally by 2 processes"),
        ("--sparcity 0.5", "did you mean"),
    ],
)
def test_errors_are_told_once(words, sentence, shared, home, monkeypatch):
    "Whether torchrun keeps the store of the processes, or one of these"
    monkeypatch.setitem(ENV, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", shared)
    status, said, told = mplt(home, 2, f"run {TINY} --method mpt-1-32 --out refused {words}")
    assert not (home / "refused").exists()
    own = [o for o in told.splitlines() if o.startswith("mplt:")]
    assert status and len(own) == 1 and sentence in own[0], told


METHODS = """
import torch
import torch.distributed as dist
from mplt.config import config
from mplt.data import load, split
from mplt.experiment import new_model
from mplt.subnet import METHODS
from mplt.train import anywhere, fit, joined, processes

digits = load("mnist5k")
parts = split(digits, 0, 60)
with joined(torch.device("cpu")):
    for method, row in METHODS.items():
        for scope in ("layer", "global") if row.mask in ("learned", "magnitude", "score") else ("layer",):
            cycles = dict(cycles=2) if row.cycles else {}
            c = config(arch="lenet5", method=method, scope=scope, epochs=1, batch_size=20, limit=60, **cycles)
            model = new_model(c, digits.source)
            fit(model, parts, digits.source, c)
            state = {k: v for k, v in model.state_dict().items() if "running" not in k}
            mine = torch.cat([v.double().flatten() for v in state.values()])
            first = mine.clone()
            dist.broadcast(first, 0)
            assert not anywhere(not torch.equal(mine, first)), (method, scope)
            if processes()[0] == 0:
                print(method, scope, flush=True)
"""


def test_all_methods_stay_equal(home):
    "Parameters, scores and masks of all processes, after training with each method and scope"
    python = "--no-python", sys.executable
    p = subprocess.run(
        [*TORCHRUN, *python, "-c", METHODS], cwd=home, env=ENV, text=True, capture_output=True
    )
    assert p.returncode == 0, p.stderr
    from mplt.subnet import METHODS as table

    both = [k for k, row in table.items() if row.mask in ("learned", "magnitude", "score")]
    trained = {(k, "layer") for k in table} | {(k, "global") for k in both}
    assert {tuple(o.split()) for o in p.stdout.splitlines()} == trained
