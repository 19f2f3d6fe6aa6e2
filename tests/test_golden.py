"The numbers that short runs give: a change of what is computed does not pass unnoticed"

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mplt import ticket
from mplt.config import SETTINGS, Config, config
from mplt.data import SOURCES, Images, batches
from mplt.experiment import NUMERICS, run
from mplt.names import Interval

GOLDEN = Path(__file__).with_name("golden.csv")
ADVICE = """What is computed has changed ({}). If that was not meant, mend the code. If it was, raise
NUMERICS in nbs/12_experiment.ipynb, write the numbers anew with `python tests/test_golden.py --write`, read
`git diff tests/golden.csv`, and compute the suites again: results made before are not of this code."""

COMMON = dict(dataset="mnist5k", arch="conv4", width=0.0625, limit=110)
COMMON |= dict(batch_size=25, epochs=2, test_freq=2)
CYCLES = dict(cycles=2, epochs=1, sparsity=0.6, lr=0.003)
# Of constant weights most have about the same magnitude: only a few are told apart
FEW = dict(sparsity=0.02)
REWIND = CYCLES | dict(epochs=2, rewind_epoch=1)
FAST, PLAIN = dict(epochs=2, lr=0.3), dict(bn="none", lr=0.1)
FC, LENET = dict(arch="fc1", width=0.02), dict(arch="lenet5", width=0.25)
SGD = dict(optimizer="sgd", lr=0.1)
# Binary activations, with seeds for which none is nearly 0; some are just 0 in 'mpt-1-1'. Where equal sums
# of signs meet in a pool, the gradient depends on the processor: convolutions learn too little to show it.
SIGNS = dict(arch="vgg-small", width=0.03, epochs=1, optimizer="sgd", lr=1e-7)
SIGNS_FC = SGD | FC | dict(limit=90, batch_size=43)
BF16 = dict(precision="bf16", epochs=1, test_freq=1) | FC
RESNET = dict(arch="resnet20", limit=12, batch_size=6, epochs=1, test_freq=1)
CASES = {
    "dense": dict(method="dense") | LENET,
    "bnn-1-32": dict(method="bnn-1-32"),
    "bnn-1-1": dict(method="bnn-1-1", seed=10) | SIGNS_FC,
    "imp": dict(method="imp") | CYCLES | LENET,
    "imp-reinit": dict(method="imp-reinit") | CYCLES,
    "imp-random": dict(method="imp-random") | CYCLES | LENET,
    "imp-score": dict(method="imp-score") | CYCLES,
    "imp-binary": dict(method="imp-binary", seed=1) | CYCLES | FC,
    "imp-score-binary": dict(method="imp-score-binary") | CYCLES | FC,
    "edge-popup": dict(method="edge-popup", epochs=1) | LENET,
    "binarised": dict(method="edge-popup", epochs=4, lr=0.3) | LENET,
    "mpt-1-32": dict(method="mpt-1-32", epochs=1, seed=4),
    "mpt-1-1": dict(method="mpt-1-1", sparsity=0.9, seed=10) | SIGNS_FC | dict(lr=1.0),
    "mpt-1-1 conv": dict(method="mpt-1-1", seed=35) | SIGNS,
    "random": dict(method="random"),
    "plain": dict(method="mpt-1-32", bn="plain", sparsity=0.33) | FC,
    "learned": dict(method="mpt-1-32", bn="learned", seed=1) | FC,
    "none": dict(method="mpt-1-32", bn="none", lr=0.1) | FC,
    "global": dict(method="mpt-1-32", scope="global", sparsity=0.8) | FC,
    "global conv": dict(method="edge-popup", scope="global", sparsity=0.9, seed=1) | LENET | FAST,
    "global cycles": dict(method="imp", scope="global", seed=1) | CYCLES,
    "scaled": dict(method="edge-popup", scale_fan=True, sparsity=0.7) | FC,
    "signed": dict(method="mpt-1-32", init="signed_constant") | FC,
    "signed scaled": dict(method="edge-popup", init="signed_constant", scale_fan=True) | PLAIN | FC,
    "signed cycles": dict(method="imp-reinit", init="signed_constant") | CYCLES | SGD | FC | FEW,
    "mini-batch": dict(method="imp", mini_batch=True, seed=1) | CYCLES,
    "rewind": dict(method="imp", bn="learned") | REWIND | LENET,
    "rewind mini-batch": dict(method="imp-score", mini_batch=True, seed=2) | REWIND,
    "cycles learned": dict(method="imp-binary", bn="learned") | CYCLES | FC | SGD,
    "sgd": dict(method="dense", optimizer="sgd", lr=0.05, momentum=0.8, weight_decay=0.01) | FC,
    "adam": dict(method="dense", optimizer="adam", momentum=0.8, weight_decay=0.01, lr=0.01) | FC,
    "smoothing warmup": dict(method="dense", label_smoothing=0.1, warmup=1, epochs=3, lr=0.01) | FC,
    "frozen sgd": dict(method="mpt-1-32", momentum=0.5, weight_decay=0.01, warmup=1, epochs=3) | FC,
    "bf16": dict(method="mpt-1-32", bn="plain", lr=0.1, seed=1) | BF16,
    "bf16 dense": dict(method="dense", seed=1) | SGD | BF16,
    "resnet20": dict(method="dense", seed=4, optimizer="sgd", lr=1e-4) | RESNET,
    "augmentation": {},
    **{
        k: dict(method="mpt-1-1", surrogate=k, sparsity=0.9, seed=10) | SIGNS_FC | dict(lr=1.0)
        for k in ("clipped", "ede", "exste", "reste")
    },
    "skips": dict(method="mpt-1-32", skips=True, bn="plain", epochs=1, lr=0.1),
    "shift": dict(method="dense", shift=1, seed=1) | FC,
}
ACCURACIES = ["val_accuracy", "test_accuracy", "binarised_test_accuracy"]
CURVES = ["train_loss", "val_loss"]
LEVELS = [*ACCURACIES, "sparsity", "weights_total", "weights_kept"]
LAYERS = ["weights", "kept", "kept_global", "kept_global_start"]
TOLERANCE = dict(fp32=1e-4, bf16=5e-4)  # of losses and weights; counts are exact
IMAGES = 2.5 / COMMON["limit"]  # of accuracies: two images may be close to call


def projected(name, x):
    "A tensor as a number or two"
    v = x.double().numpy().ravel()
    out = {f"projection of {name}": v @ np.random.RandomState(0).standard_normal(len(v))}
    return out | ({f"norm of {name}": (v @ v) ** 0.5} if x.ndim > 1 else {})


def augmented():
    "CIFAR-10's way with images, on made ones"
    rng = np.random.RandomState(0)
    x = torch.tensor(rng.randint(256, size=(11, 3, 32, 32)), dtype=torch.uint8)
    images = Images(x, torch.arange(11))
    ways = dict(shifted=dict(seed=0), less=dict(seed=1, epoch=1, start=1, shift=2), plain={})
    for way, given in ways.items():
        for i, (x, y) in enumerate(batches(images, SOURCES["cifar10"], 4, **given)):
            yield from projected(f"{way} {i}", x).items()
            yield f"labels of {way} {i}", " ".join(map(str, y.tolist()))


def settings_of(case):
    given = COMMON | CASES[case]
    shift = given.pop("shift", Config.shift)  # `config` allows it where images are shifted
    return replace(config(**given), shift=shift)


@contextmanager
def sources(case):
    "For the case 'shift', digits are shifted and mirrored in training, as CIFAR-10's images are"
    still = SOURCES["mnist5k"]
    try:
        SOURCES["mnist5k"] = replace(still, crop_flip=case == "shift")
        yield
    finally:
        SOURCES["mnist5k"] = still


def measured(case):
    "Everything that is compared of a case, by name"
    if case == "augmentation":
        return dict(augmented())
    c = settings_of(case)
    with tempfile.TemporaryDirectory() as folder, sources(case):
        run(c, folder := Path(folder) / "run", "cpu")
        out = {}
        for file, columns in dict(curves=CURVES, levels=LEVELS, layers=LAYERS).items():
            rows = pd.read_csv(folder / f"{file}.csv")[columns]
            out |= {f"{k}, row {i}": v for k in columns for i, v in rows[k].dropna().items()}
        trained = torch.load(folder / "state.pt", weights_only=True)["model"]
        for path in folder / "ticket.safetensors", *sorted(folder.glob("cycles/*.safetensors")):
            for k, v in ticket.load(path).state_dict().items():
                if path.stem == "ticket":
                    v = trained.get(k, v)  # batch normalisation, before it is rounded
                if v.is_floating_point():
                    out |= projected(f"{k} in {path.stem}", v)
    return out


def is_float(quantity):
    return quantity.startswith(("train_loss", "val_loss", *ACCURACIES, "projection", "norm"))


def deviation(quantity, now, then, tolerance):
    "In tolerances; infinite for a count or a label that differs, and for what is missing"
    if now is None or then is None or not is_float(quantity):
        return 0.0 if str(now) == then else np.inf
    far = abs(now - float(then))
    scale = IMAGES if quantity.startswith((*ACCURACIES,)) else (1 + abs(float(then))) * tolerance
    return np.nan_to_num(far / scale, nan=np.inf)


def worst(case):
    "The largest deviation of a case, and what it is of"
    golden = pd.read_csv(GOLDEN, dtype=str)
    then = dict(golden[golden.case == case][["quantity", "value"]].itertuples(index=False))
    now, tolerance = measured(case), TOLERANCE[CASES[case].get("precision", "fp32")]
    return max((deviation(k, now.get(k), then.get(k), tolerance), k) for k in {**then, **now})


@pytest.fixture(scope="module")
def one_thread():
    threads = torch.get_num_threads()
    yield torch.set_num_threads(1)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_numbers(case, one_thread):
    far, what = worst(case)
    assert far < 1, ADVICE.format(f"case {case!r}: {what} is off by {far:.3g} tolerances")


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("onednn, aten", [("AVX2", "avx2"), ("SSE41", "default")])
def test_numbers_on_lesser_processors(onednn, aten, threads):
    "The tolerances are wide enough for what a processor can change"
    env = dict(ONEDNN_MAX_CPU_ISA=onednn, ATEN_CPU_CAPABILITY=aten, MPLT_THREADS=threads)
    env = os.environ | env | dict(OMP_NUM_THREADS=threads, OMP_WAIT_POLICY="PASSIVE")
    p = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    lines = p.stdout.splitlines()
    off = [line for line in lines if float(line.split(";")[1]) >= 1]
    assert p.returncode == 0 and not off, "\n".join([*off, p.stderr, ADVICE.format("see above")])
    assert [line.split(";")[0] for line in lines] == [*CASES]


def test_golden_numbers_are_of_the_cases():
    assert [*dict.fromkeys(pd.read_csv(GOLDEN).case)] == [*CASES]


def test_golden_numbers_are_of_this_numerics():
    "Whoever raises it writes them anew"
    now = pd.read_csv(GOLDEN, dtype=str).numerics.unique().tolist()
    assert now == [str(NUMERICS)], ADVICE.format(f"NUMERICS is {NUMERICS}, of these numbers {now}")


OWN = ("side", "digest", "others")  # of data and networks of one's own (test_own, test_networks)
CHOICES = [f.name for f in fields(Config) if f.name not in ("dataset", "arch", *OWN)]


@pytest.mark.parametrize("field", CHOICES)
def test_every_choice_has_a_case(field):
    "Of names and of yes and no: each; of numbers: more than one"
    used = {getattr(settings_of(case), field) for case in CASES}
    allowed = SETTINGS[field].metadata["allowed"]
    assert len(used) > 1 if isinstance(allowed, Interval) else set(allowed) <= used


def write():
    "Make the present numbers the golden ones"
    found = [(case, k, v) for case in CASES for k, v in measured(case).items()]
    rows = [(case, k, f"{v:.7g}" if is_float(k) else v) for case, k, v in found]
    rows = pd.DataFrame(rows, columns=["case", "quantity", "value"]).assign(numerics=NUMERICS)
    rows.to_csv(GOLDEN, index=False, lineterminator="\n")


if __name__ == "__main__":  # --write, or the cases to compare (all if none is named)
    if sys.argv[1:] == ["--write"]:
        sys.exit(write())
    for case in sys.argv[1:] or CASES:
        print(case, *worst(case), sep=";", flush=True)
