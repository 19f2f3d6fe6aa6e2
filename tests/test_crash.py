"A run that is killed, stopped, or runs out of disk ends with the bits of one that never was"

import os
import random
import resource
import signal
import subprocess
import sys
import time
from itertools import product

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image

KILLS = int(os.environ.get("MPLT_KILLS", 5))  # `make crashes` sets 20
STEPS = 60  # in an epoch: 3,600 digits, 60 in a batch
SHARED = "run --arch lenet5 --sparsity 0.8 --bn learned --batch_size 60"
RUNS = dict(
    steps=f"{SHARED} --method mpt-1-32 --epochs 6",
    cycles=f"{SHARED} --method imp-score --cycles 3 --epochs 2 --rewind_epoch 1 --test_freq 20",
)
PLAIN = "import sys; from mplt.command import main; sys.exit(main())"
TOLD = """
import sys
from mplt import train
from mplt.command import main
real = train.step
def step(*args):
    print("a step", file=sys.stderr, flush=True)
    return real(*args)
train.step = step
sys.exit(main())
"""  # the same, and says when a step begins

DOOMED = """
import os, signal, sys
from mplt import train
from mplt.command import main
real, train.SAVE_EVERY, steps = train.step, 0, []
def step(*args):
    steps.append(args)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
train.step = step
main()
"""  # saves its state after each step, and is killed in the middle of the second epoch
BROKEN = """
from mplt import train
from mplt.command import main
def step(*args):
    raise RuntimeError("a defect")
train.step = step
main()
"""


def start(out, limit=None, args=RUNS["steps"], program=PLAIN):
    "The command, in its own process; at most `limit` bytes in a file"
    set_limit = limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    command = [sys.executable, "-c", program, *args.split(), "--out", str(out)]
    how = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=set_limit)
    return subprocess.Popen(command, cwd=REPO, **how)


def finish(out, args=RUNS["steps"]):
    p = start(out, args=args)
    said = p.communicate()
    assert p.returncode == 0, said


def content(out):
    files = (f for f in out.rglob("*") if f.is_file())
    found = {str(f.relative_to(out)): f.read_bytes() for f in files}
    return {k: v for k, v in found.items() if k not in ("state.pt", "record.json", "lock")}


def wait_for(p, text):
    "Reads what it says up to the first line with this text; False if there is none"
    return any(text in line for line in p.stderr)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    "What runs leave that were never stopped, and how long they took"
    found = {}
    for name, args in RUNS.items():
        out = tmp_path_factory.mktemp(name) / "run"
        begin = time.time()
        finish(out, args)
        found[name] = content(out), time.time() - begin
    return found


@pytest.fixture
def reference(references):
    return references["steps"]


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_random_moments(name, references, tmp_path):
    "Two thirds of the kills in some step of its first epoch and a half, the others at any moment"
    wanted, duration = references[name]
    moments, within_an_epoch = random.Random(0), 0
    for i in range(KILLS):
        p = start(tmp_path / "run", args=RUNS[name], program=TOLD)
        steps = 0
        if 3 * i < 2 * KILLS:
            for _ in range(moments.randint(1, STEPS + STEPS // 2)):
                steps += wait_for(p, "a step")
            time.sleep(moments.uniform(0, 0.05))
        else:
            time.sleep(moments.uniform(0, duration))
        p.send_signal(signal.SIGKILL)
        steps += p.stderr.read().count("a step")
        p.communicate()
        within_an_epoch += p.returncode == -signal.SIGKILL and steps % STEPS > 0
    print(f"{within_an_epoch} of {KILLS} kills met a running epoch")
    assert within_an_epoch >= KILLS // 2
    finish(tmp_path / "run", RUNS[name])
    assert content(tmp_path / "run") == wanted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(number, reference, tmp_path):
    p = start(tmp_path / "run")
    wait_for(p, "epoch 2/6:")
    time.sleep(random.Random(number).uniform(0, 0.2))
    p.send_signal(number)
    _, said = p.communicate()
    assert p.returncode == 128 + number and "Traceback" not in said
    assert "state saved: the same command goes on" in said
    finish(tmp_path / "run")
    assert content(tmp_path / "run") == reference[0]


def test_second_process_is_refused(reference, tmp_path):
    first = start(tmp_path / "run")
    wait_for(first, "epoch 1/6:")
    first.send_signal(signal.SIGSTOP)
    second = start(tmp_path / "run")
    _, said = second.communicate()
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2 and "is in use" in said
    first.communicate()
    assert first.returncode == 0 and content(tmp_path / "run") == reference[0]


def test_full_disk_keeps_the_last_good_state(reference, tmp_path):
    p = start(tmp_path / "run")
    wait_for(p, "epoch 2/6:")
    p.send_signal(signal.SIGTERM)
    p.communicate()
    before = (tmp_path / "run/state.pt").read_bytes()
    p = start(tmp_path / "run", limit=len(before) // 2)
    _, said = p.communicate()
    assert p.returncode == 2 and "state.pt could not be written" in said, said
    assert "Traceback" not in said and not list((tmp_path / "run").glob("*.tmp"))
    assert (tmp_path / "run/state.pt").read_bytes() == before
    finish(tmp_path / "run")
    assert content(tmp_path / "run") == reference[0]


@pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="needs a folder that not even root can write to"
)
def test_read_only_folder():
    p = start("/proc/run")
    _, said = p.communicate()
    assert p.returncode == 2 and "/proc/run cannot be written" in said


def test_killed_while_it_wrote_its_config(reference, tmp_path):
    (tmp_path / "run").mkdir()
    for f in "lock", ".config.json.mplt-1.tmp":
        (tmp_path / "run" / f).write_text("{")
    finish(tmp_path / "run")
    assert content(tmp_path / "run") == reference[0] and not list((tmp_path / "run").glob(".*.tmp"))


def test_damaged_state(tmp_path):
    p = start(tmp_path / "run")
    wait_for(p, "epoch 1/6:")
    p.kill()
    p.communicate()
    (tmp_path / "run/state.pt").write_bytes(b"x" * 1000)
    p = start(tmp_path / "run")
    _, said = p.communicate()
    assert p.returncode == 2 and "state.pt is damaged" in said and "Traceback" not in said


def test_photographs_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    "They are read ahead by other processes, which leaves no trace in the result, nor do these stay"
    rng = np.random.RandomState(0)
    for part, name, n in product(("train", "val"), ("blue", "red"), range(16)):
        (folder := tmp_path / "imagenet" / part / name).mkdir(parents=True, exist_ok=True)
        x = rng.randint(0, 256, (rng.randint(60, 300), rng.randint(60, 300), 3))
        Image.fromarray(x.astype(np.uint8)).save(folder / f"{n}.jpg")
    monkeypatch.setenv("MPLT_DATA", str(tmp_path))
    args = "run --dataset imagenet --arch resnet18 --method mpt-1-32 --recipe paper --width 0.1"
    args += " --epochs 2 --warmup 1 --batch_size 7"  # of 29 images: 4 steps
    finish(tmp_path / "whole", args)
    p = start(tmp_path / "run", args=args, program=DOOMED)
    assert p.wait() == -signal.SIGKILL
    state = torch.load(tmp_path / "run/state.pt", weights_only=True)["run"]
    assert (state["epoch"], state["step"]) == (1, 1)
    finish(tmp_path / "run", args)
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    p = start(tmp_path / "broken", args=args, program=BROKEN)
    said = p.communicate(timeout=120)[1]  # it ends, and so do those that read ahead
    assert p.returncode == 1 and "RuntimeError: a defect" in said
