"The command, as the shell sees it"

import ast
import itertools
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import REPO
from PIL import Image

from mplt import command, experiment, ticket
from mplt.config import COMMON, RECIPES, SETTINGS, config, script_settings
from mplt.data import SOURCES, DataSet, Images
from mplt.errors import UserError
from mplt.mask import SCOPES
from mplt.models import ARCHS, BNS, INITS
from mplt.subnet import METHODS

RUN = (
    "run --method mpt-1-32 --dataset mnist5k --arch_type conv2 --width 0.1 --sparsity 0.8 "
    "--bn learned --epochs 2 --limit 100 --batch_size 20"
)


def mplt(args, cwd):
    code = "import sys; from mplt.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *args.split()]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setenv("MPLT_DATA", str(REPO / "data"))


def test_run_leaves_its_results_and_repeats_them(tmp_path):
    for out in "a", "b":
        p = mplt(f"{RUN} --out {out}", tmp_path)
        assert p.returncode == 0, p.stderr
        assert "test accuracy" in p.stdout and "epoch 2/2:" in p.stderr
    same = (
        "controls.csv curves.csv levels.csv layers.csv summary.csv ticket.safetensors config.json"
    )
    same += " S1.svg S1.png"
    left = {f.name for f in (tmp_path / "a").iterdir()}
    assert left == {*same.split(), "state.pt", "record.json", "lock"}
    for f in same.split():
        assert (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes(), f
    row = pd.read_csv(tmp_path / "a/summary.csv").iloc[0]
    sizes = 6 * 9, 6 * 6 * 9, 6 * 14 * 14 * 26, 26 * 26, 260
    assert row.weights_kept == sum(n - int(n * 0.8) for n in sizes)
    assert len(pd.read_csv(tmp_path / "a/curves.csv")) == 2
    assert json.loads((tmp_path / "a/config.json").read_text())["config"]["bn"] == "learned"


@pytest.mark.parametrize(
    "args, says",
    [
        ("run --sparsity 80", "sparsity 80.0 is out of range"),
        ("run --sparsity x", "sparsity 'x' is not valid"),
        ("run --method mpt-1-33", "did you mean 'mpt-1-32'"),
        ("run --epochs -1", "epochs -1 is out of range"),
        ("run --method mpt-1-32 --batch_size 1000 --limit 50", "batch_size 1000 does not fit"),
        ("run --device tpu", "unknown device 'tpu'"),
        ("run --sparcity .5", "unknown flag '--sparcity': did you mean '--sparsity'?"),
        ("run --method mpt-1-32 --out file/x", "file/x cannot be written"),
        ("data fetch cifar", "did you mean 'cifar10'"),
        ("data verify mnist --root .", "is missing"),
        ("run --method dense --sparsity .5", "removes no weights"),
        ("run --method mpt-1-1 --bn none", "bn 'none' does not fit"),
        ("run --score", "run has no flag --score: it is one of `mplt imp`"),
        ("run --method imp --reinit False", "run has no flag --reinit"),
        ("run --epochs_per_cycle 2", "run has no flag --epochs_per_cycle"),
        ("run --mini_batch maybe", "unknown mini_batch 'maybe': it is one of True, False"),
        ("run --prune_percent 5", "prune_percent 5.0 does not fit method 'mpt-1-32'"),
        ("run --method imp --cycles 0", "it needs at least one"),
        ("run --LR .1", "No such option '--LR': see `mplt run --help`"),
        ("run --seed", "requires an argument: see `mplt"),
        ("run extra", "unexpected extra argument (extra): see `mplt run --help`"),
        ("imp --method imp-score", "imp has no flag --method: it is one of `mplt run`"),
        ("imp --cycles 3", "imp has no flag --cycles"),
        ("imp --recipe paper", "imp has no flag --recipe"),
        ("imp --epochs 0", "epochs 0 is out of range"),
        ("imp --epochs_per_cycle 1.5", "epochs_per_cycle '1.5' is not valid"),
        ("imp --score maybe", "unknown score 'maybe': it is one of True, False"),
        ("imp --reinit --binarize", "--reinit does not fit --binarize"),
        ("imp --reinit --score", "--reinit does not fit --score"),
        ("imp --sparsity .9 --prune_percent 5", "give one of them"),
        ("imp --rewind_epoch 1", "nothing is left to train"),
        ("imp --prune_percent 0", "prune_percent 0.0 is out of range"),
        ("imp --resume", "unknown flag '--resume'"),
        ("run --arch_type resnet18 --bn none", "its shortcuts need batch normalisation"),
        ("imp --prune_percent 50 --epochs 99", "nothing would be left"),
        ("run --method mpt-1-32 --arch conv2 --dataset mnist5k --width 30", "take a smaller width"),
        ("--versoin", "unknown flag '--versoin': did you mean '--version'?"),
        ("completion csh", "unknown shell 'csh': did you mean 'zsh'?"),
        ("rum", "unknown command 'rum': did you mean 'run'?"),
        ("ticket inf x", "unknown command 'inf': did you mean 'info'?"),
        ("ticket export x", "Missing argument 'OUT': see `mplt ticket export --help`"),
        ("data bring mnist", "unknown command 'bring'"),
        ("--sparsity .5", "mplt has no flag --sparsity: it is one of `mplt run`"),
    ],
)
def test_mistakes(args, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    assert command.main(args.split()) == 2
    said = capsys.readouterr().err
    assert says in said and len(said.strip().splitlines()) == 1
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_mistake_in_the_shell(tmp_path):
    p = mplt("run --method mpt-1-33", tmp_path)
    assert p.returncode == 2 and len(p.stderr.strip().splitlines()) == 1
    assert p.stderr.startswith("mplt: unknown method 'mpt-1-33'")


def noise(name, side=0):
    "A data set of random images with the shape of `name`"
    rng = torch.Generator().manual_seed(0)

    def images(n):
        shape = (n, *SOURCES[name].in_shape)
        return Images(
            torch.randint(256, shape, dtype=torch.uint8, generator=rng), torch.arange(n) % 10
        )

    return DataSet(SOURCES[name], images(100), images(30))


GRID = [
    (d, a, flags)
    for d, a in itertools.product(
        ("mnist", "cifar10"), ("fc1", "lenet5", "AlexNet", "resnet18", "vgg16")
    )
    for flags in ("", "--score", "--binarize True", "--score --binarize")
]
GRID += [
    ("mnist", "fc1", "--mini_batch"),
    ("cifar10", "fc1", "--mini_batch --reinit"),
    ("mnist", "fc1", "--score False --rewind_epoch 1 --epochs_per_cycle 2"),
]


@pytest.mark.parametrize("dataset, arch, flags", GRID)
def test_the_script_before(dataset, arch, flags, tmp_path, monkeypatch, capsys):
    "Every network, data set and modifier of the script that `mplt imp` stands for"
    monkeypatch.setattr(experiment, "load", noise)
    args = f"imp --dataset {dataset} --arch_type {arch} {flags} --epochs 2 --test_freq 1"
    args += " --batch_size 12 --limit 30" + " --width 0.1" * (arch not in ("fc1", "lenet5"))
    assert command.main([*args.split(), "--out", str(tmp_path / "run")]) == 0
    words = {"--reinit": "-reinit", "--score": "-score", "--binarize": "-binary"}
    method = "imp" + "".join(
        v for k, v in words.items() if k in flags and f"{k} False" not in flags
    )
    levels, curves = (pd.read_csv(tmp_path / f"run/{o}.csv") for o in ("levels", "curves"))
    assert set(levels.method) == {method} and levels.sparsity.tolist() == [0, 0.05, 0.0975]
    assert "3 trainings" in capsys.readouterr().out
    assert curves.iteration.is_monotonic_increasing
    assert len(curves) == 2 * (4 if "--rewind_epoch" in flags else 3)
    tickets = {f.name for f in (tmp_path / "run/cycles").iterdir()}
    assert tickets == {f"0{i}.safetensors" for i in range(3)}
    for f in "S1.svg", "S1.png", "S2.svg", "S2.png", "summary.csv", "config.json":
        assert (tmp_path / "run" / f).stat().st_size > 100
    net = ticket.load(tmp_path / "run/ticket.safetensors")
    assert net(torch.zeros(1, *SOURCES[dataset].in_shape)).shape == (1, 10)


def test_the_script_in_other_words():
    "`mplt imp` with its defaults is the same run as `mplt run` that says it all"
    said = dict(method="imp", dataset="mnist", arch="fc1", prune_percent=5, cycles=50, epochs=1)
    c = config(**said, lr=1.2e-3, batch_size=60, test_freq=50)
    assert config(**script_settings()) == c
    assert c.sparsity == pytest.approx(1 - 0.95**50)
    flags = dict(epochs="10", prune_percent="20", lr="0.01", binarize="True", score="false")
    own = config(**script_settings(**flags))
    assert (own.method, own.cycles, own.lr) == ("imp-binary", 10, 0.01)
    assert own.sparsity == pytest.approx(1 - 0.8**10)


def test_help_is_true(capsys):
    "A default that --help shows is the one that an empty command line gets"
    assert command.main(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    shown = {}
    for part in text.split(" --"):
        if default := re.search(r"\(default: (.*?)\)", part):
            shown[part.split()[0]] = default[1]
    c = config()
    said = {k: v for k, v in shown.items() if hasattr(c, k)}
    assert len(said) > 5 and said == {k: str(getattr(c, k)) for k in said}
    left_out = {k for k, f in SETTINGS.items() if f"--{k} " in text and k not in shown}
    assert {*COMMON} <= left_out and config(dataset="cifar10").shift == 2
    assert not any(SETTINGS[k].default for k in left_out - {*COMMON})


@pytest.mark.parametrize("command_line", ["run", "imp"])
def test_help_is_at_most_a_screen_and_a_half(command_line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert command.main([command_line, "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 72 and max(map(len, text.splitlines())) <= 80
    assert "\nThe network:\n" in text and "--arch_type" in text and "none, plain or learned" in text


@pytest.mark.parametrize("group", ["", "ticket", "data"])
def test_a_group_alone_lists_its_commands(group, capsys):
    assert command.main(group.split()) == 0
    said = capsys.readouterr().out
    names = command.cli.commands[group].commands if group else command.cli.commands
    assert (
        all(f"\n  {name} " in said for name in names) and "...\n" not in said.split("Commands:")[1]
    )


QUICK = ["--help", "--version", "methods", "", "ticket", "rum", "--versoin", "ticket inf x"]
QUICK += ["networks", "data list", "data fetch minst", "run --help", "run --archh x", "imp --help"]
QUICK += ["run --method mtp", "run --dataset cifra10", "run --arch cnov4", "run --lr x"]
QUICK += ["run --device gpu", "run --log mlfow", "run --bn none --method mpt-1-1", "imp --score 2"]
QUICK += ["check quik", "sweep mnits"]


@pytest.mark.parametrize("args", QUICK)
def test_what_computes_nothing_is_quick(args, tmp_path):
    "PyTorch, pandas and pyplot are not loaded for it"
    code = "import sys; from mplt.__main__ import main; status = main(); "
    code += "print({'torch', 'pandas', 'matplotlib', 'numpy'} & {*sys.modules}, status)"
    p = subprocess.run([sys.executable, "-c", code, *args.split()], capture_output=True, text=True)
    assert p.stdout.splitlines()[-1] == f"set() {2 if p.stderr else 0}", p.stderr


def test_a_chapter_is_loaded_when_it_is_named():
    code = "import sys, mplt; print('mplt.errors' in sys.modules, mplt.errors.UserError.__name__); "
    code += "print(hasattr(mplt, 'tickett')); mplt.tickett"
    p = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert p.stdout.splitlines() == ["False UserError", "False"]
    assert p.stderr.endswith("AttributeError: module 'mplt' has no attribute 'tickett'\n")


@pytest.mark.parametrize("loading", ["click", "torch", "pandas"])
def test_ctrl_c_while_it_loads(loading):
    code = f"""
import sys
class CtrlC:
    def find_spec(self, name, *args):
        if name == {loading!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
from mplt.__main__ import main
sys.exit(main())"""
    p = subprocess.run(
        [sys.executable, "-c", code, "ticket", "list"], capture_output=True, text=True
    )
    assert (p.returncode, p.stdout, p.stderr) == (130, "", "mplt: stopped\n")


@pytest.mark.parametrize(
    "words, wanted",
    [
        ("mplt ru", "run runs"),
        ("mplt ticket ve", "verify"),
        ("mplt run --me", "--method"),
        ("mplt run --method mpt", "mpt-1-32 mpt-1-1"),
        ("mplt rum x", ""),
    ],
)
def test_a_shell_completes(words, wanted, monkeypatch, capsys):
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    monkeypatch.setenv("_MPLT_COMPLETE", "bash_complete")
    assert command.main([]) == 0
    said = capsys.readouterr()
    assert [o.split(",")[1] for o in said.out.split()] == wanted.split() and not said.err


def test_lists_of_names(capsys):
    for words, names in {"networks": ARCHS, "methods": METHODS, "data list": SOURCES}.items():
        assert command.main(words.split()) == 0
        said = capsys.readouterr().out.splitlines()
        assert [o.split()[0] for o in said][-len(names) :] == [*names]
    assert command.main(["completion", "bash"]) == 0
    assert "_MPLT_COMPLETE=bash_complete" in capsys.readouterr().out


@pytest.mark.parametrize("method", METHODS)
def test_axes_are_independent(method, tmp_path, monkeypatch):
    "Whatever combination of the axes a config takes runs, and its ticket is of that combination"
    monkeypatch.setattr(experiment, "load", noise)
    small = dict(dataset="mnist", arch="lenet5", epochs=1, batch_size=15, limit=30, width=0.5)
    axes = dict(bn=BNS, scope=SCOPES, init=INITS, scale_fan=(False, True))
    accepted = {name: set() for name in axes}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values))
        try:
            c = config(**small, **chosen, method=method, cycles=int(METHODS[method].cycles) or None)
        except UserError as e:
            assert "does not fit" in str(e)
            continue
        experiment.run(c, folder := tmp_path / f"{len(list(tmp_path.iterdir()))}")
        subnet, spec = (ticket.info(folder / "ticket.safetensors")[k] for k in ("subnet", "spec"))
        assert spec["bn"] == chosen["bn"] and subnet["method"] == method
        assert {k: subnet[k] for k in ("scope", "init")} == {
            k: chosen[k] for k in ("scope", "init")
        }
        assert bool(subnet["scale_fan"]) == chosen["scale_fan"]
        for name, value in chosen.items():
            accepted[name].add(value)
    assert accepted["init"] == set(INITS) and "plain" in accepted["bn"]


def test_every_recipe():
    for name, method, arch, dataset in itertools.product(RECIPES, METHODS, ARCHS, SOURCES):
        given = dict(recipe=name, method=method, arch=arch, dataset=dataset)
        if name == "short" or method in ("dense", "edge-popup", "mpt-1-32", "mpt-1-1"):
            config(**given)
        else:
            with pytest.raises(UserError, match="recipe 'paper' does not fit method"):
                config(**given)
    assert config(recipe="paper", arch="conv4", lr=0.3).lr == 0.3
    assert config(recipe="paper", arch="conv4").epochs == 100


def test_photographs(tmp_path, monkeypatch):
    "ImageNet is a folder of folders; here a tiny one, of two classes that differ in colour"
    rng = np.random.RandomState(0)
    for part, n in ("train", 40), ("val", 8):
        for i, name in enumerate(("blue", "red")):
            (folder := tmp_path / "imagenet" / part / name).mkdir(parents=True)
            for k in range(n):
                x = rng.randint(0, 90, (rng.randint(60, 300), rng.randint(60, 300), 3))
                x[..., 2 - 2 * i] += 150
                Image.fromarray(x.astype(np.uint8)).save(folder / f"{k}.jpg")
    monkeypatch.setenv("MPLT_DATA", str(tmp_path))
    args = "run --dataset imagenet --arch resnet18 --method mpt-1-32 --recipe paper"
    args += " --width 0.1 --epochs 2 --warmup 1 --batch_size 9"
    assert command.main([*args.split(), "--out", str(tmp_path / "run")]) == 0
    assert pd.read_csv(tmp_path / "run/summary.csv").test_accuracy.item() > 0.9
    info = ticket.info(tmp_path / "run/ticket.safetensors")
    assert info["classes"] == ["blue", "red"] and info["spec"]["in_shape"] == [3, 224, 224]
    (tmp_path / "imagenet/val/red").rename(tmp_path / "imagenet/val/green")
    with pytest.raises(UserError, match="class 'green' is in only one of train and val"):
        experiment.run(dict(dataset="imagenet", arch="resnet18"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_closed_pipe(tmp_path):
    "`mplt methods | head`: a reader who goes away is no error to show"
    code = "import sys; from mplt.command import main; sys.exit(main(['methods']))"
    pipe = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | true; echo ${{PIPESTATUS[0]}}"
    p = subprocess.run(["bash", "-c", pipe], cwd=tmp_path, capture_output=True, text=True)
    assert (p.stdout, p.stderr) == ("141\n", "")


def test_chapters_rest_on_those_before_them():
    "Each module imports modules of earlier chapters only, so that none needs another to be imported first"
    before = set()
    for chapter in sorted((REPO / "nbs").glob("[0-9]*.ipynb")):
        module = REPO / "mplt" / f"{chapter.stem[3:]}.py"
        nodes = ast.walk(ast.parse(module.read_text() if module.exists() else ""))
        for o in (o for o in nodes if isinstance(o, ast.ImportFrom) and o.level):
            needed = [o.module] if o.module else [name.name for name in o.names]
            later = (
                {"infer"} if module.stem == "ticket" else set()
            )  # where a ticket is to run by it
            assert before | later >= {*needed}, (chapter.name, needed)
        before.add(module.stem)
