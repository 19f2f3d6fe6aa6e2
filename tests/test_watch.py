"A run can be watched: its files grow, a bar shows its length, loggers are told, runs are listed and compared"

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPO
from filelock import FileLock

from mplt import command, experiment, train
from mplt.config import config
from mplt.errors import Stopped
from mplt.experiment import config_hash, run
from mplt.watch import LOGGERS, age, curves_of, run_folder, runs_in, state, telling

SETTINGS = dict(
    arch="lenet5", method="imp", sparsity=0.9, cycles=2, epochs=2, limit=200, batch_size=50
)
C = config(**SETTINGS)
ARGS = " ".join(f"--{k} {v}" for k, v in SETTINGS.items())


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setenv("MPLT_DATA", str(REPO / "data"))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    "A finished run, and what was told of it"
    folder, told = tmp_path_factory.mktemp("runs") / config_hash(C), []
    run(C, folder, told=told.append)
    return folder, sum(told, [])


def test_curves_and_levels_grow(done, tmp_path, monkeypatch):
    "An epoch more, a row more; a run that is stopped leaves its rows, and ends with the same bytes"
    whole, real, seen = done[0], train.save_state, []
    monkeypatch.setattr(train, "save_state", lambda *args: (real(*args), seen.append(rows()))[0])

    def rows():
        files = (tmp_path / "run" / f"{o}.csv" for o in ("curves", "levels"))
        found = [len(pd.read_csv(f)) if f.exists() else 0 for f in files]
        if len(seen) == 4:  # so many epochs are done and written
            raise Stopped("enough", 2)
        return found

    with pytest.raises(Stopped):
        run(C, tmp_path / "run")
    assert seen == [[0, 0], [1, 0], [2, 1], [3, 1]]
    assert state(tmp_path / "run") == "stopped" and not experiment.finished(tmp_path / "run", C)
    monkeypatch.setattr(train, "save_state", real)
    run(C, tmp_path / "run")
    for f in "curves.csv", "levels.csv", "summary.csv", "ticket.safetensors":
        assert (tmp_path / "run" / f).read_bytes() == (whole / f).read_bytes(), f


def test_told_once(done, tmp_path, monkeypatch):
    "Each row of the curves, and the result; a run that is taken up tells the rest, with the same numbers"
    folder, rows = done
    curves = pd.read_csv(folder / "curves.csv")
    assert [o["iteration"] for o in rows[:-1]] == [*curves.iteration]
    result = pd.read_csv(folder / "summary.csv").iloc[0]
    assert rows[-1]["test_accuracy"] == result.test_accuracy
    assert rows[-1]["iteration"] == curves.iteration.max()
    told, real = [], train.end_epoch

    def stop(run):
        real(run)
        if len(run.rows) == 3 and len(told) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "end_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(C, tmp_path / "run", told=told.extend)
    monkeypatch.setattr(train, "end_epoch", real)
    run(C, tmp_path / "run", told=told.extend)
    alike = "iteration train_loss val_accuracy test_accuracy".split()
    assert [[o.get(k) for k in alike] for o in told] == [[o.get(k) for k in alike] for o in rows]


def logged(name, folder, capsys):
    "A run by the command, with a logger; its folder"
    assert command.main([*f"run {ARGS} --log {name} --out".split(), str(folder)]) == 0
    assert config_hash(C) == json.loads((folder / "config.json").read_text())["config_hash"]
    return pd.read_csv(folder / "curves.csv"), pd.read_csv(folder / "summary.csv").iloc[0]


def needs(package):
    why = f"{package} is not installed: pip install 'mplt[{package}]'"
    return pytest.mark.skipif(find_spec(package) is None, reason=why)


@needs("dvclive")
def test_dvclive(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    stages = (REPO / "dvc.yaml").read_bytes()
    curves, summary = logged("dvclive", tmp_path / "run", capsys)
    place = tmp_path / "run/dvclive"
    rows = pd.read_csv(place / "plots/metrics/val_accuracy.tsv", sep="\t")
    assert [*rows.step] == [*curves.iteration]
    assert rows.val_accuracy.tolist() == pytest.approx(curves.val_accuracy.tolist())
    assert json.loads((place / "metrics.json").read_text())["test_accuracy"] == pytest.approx(
        summary.test_accuracy
    )
    assert "method: imp" in (place / "params.yaml").read_text()
    assert (REPO / "dvc.yaml").read_bytes() == stages


@needs("mlflow")
def test_mlflow(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    curves, summary = logged("mlflow", tmp_path / "run", capsys)
    from mlflow import MlflowClient, search_runs

    (only,) = search_runs(experiment_names=["mplt"], output_format="list")
    assert only.info.run_name == config_hash(C) and only.data.params["method"] == "imp"
    assert only.data.metrics["test_accuracy"] == pytest.approx(summary.test_accuracy)
    rows = MlflowClient().get_metric_history(only.info.run_id, "val_accuracy")
    assert [(o.step, o.value) for o in rows] == [*zip(curves.iteration, curves.val_accuracy)]


@needs("tensorboard")
def test_tensorboard(tmp_path, capsys):
    curves, _ = logged("tensorboard", tmp_path / "run", capsys)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    rows = events.Scalars("val_accuracy")
    assert [o.step for o in rows] == [*curves.iteration]
    assert [o.value for o in rows] == pytest.approx([*curves.val_accuracy])


@pytest.mark.parametrize("name", LOGGERS)
def test_a_logger_that_is_missing_is_a_sentence(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, LOGGERS[name][0], None)
    assert command.main([*f"run {ARGS} --log {name} --out".split(), str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert f"pip install 'mplt[{name}]'" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_logger_that_fails_loses_nothing(done, tmp_path, monkeypatch, capsys):
    from contextlib import contextmanager

    @contextmanager
    def full(library, folder, c):
        yield lambda numbers, step: 1 / (step < 8)

    monkeypatch.setitem(LOGGERS, "wandb", ("builtins", full))
    args = [*f"run {ARGS} --out".split(), str(tmp_path / "run")]
    assert command.main([*args, "--log", "wandb"]) == 2
    assert "wandb failed (ZeroDivisionError: " in capsys.readouterr().err.splitlines()[-1]
    assert len(pd.read_csv(tmp_path / "run/curves.csv")) == 2
    assert command.main(args) == 0
    assert (tmp_path / "run/curves.csv").read_bytes() == (done[0] / "curves.csv").read_bytes()


def test_finished_before(done, monkeypatch, capsys):
    "The same command says so, computes nothing and tells nobody"
    monkeypatch.setattr(experiment, "fit", None)
    monkeypatch.setitem(LOGGERS, "wandb", None)
    args = [*f"run {ARGS} --log wandb --out".split(), str(done[0])]
    assert command.main(args) == 0
    assert f"finished before, in {done[0]}" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_the_bar(tmp_path):
    "One bar for the whole run, at most 80 columns; a line stays after each epoch, as in a file"
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    code = "import sys; from mplt.command import main; sys.exit(main())"
    args = [
        *f"run {ARGS} --epochs 9 --limit 2000 --batch_size 20 --out".split(),
        str(tmp_path / "run"),
    ]
    p = subprocess.Popen(
        [sys.executable, "-c", code, *args], stdout=subprocess.DEVNULL, stderr=theirs, cwd=REPO
    )
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 4096):
            said += part
    except OSError:  # how Linux says that the other end was closed
        pass
    assert p.wait() == 0
    frames = [o for o in re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", said.decode())) if o.strip()]
    frames = [o for o in frames if "it will take longer" not in o]  # on a busy machine
    assert max(map(len, frames)) <= 80
    bars, lines = ([o for o in frames if ("%|" in o) == bar] for bar in (True, False))
    assert [o.split(":")[0] for o in lines] == [
        f"cycle {c}/2, epoch {e}/9" for c in range(3) for e in range(1, 10)
    ]
    parts = [int(re.search(r"(\d+)%\|", o)[1]) for o in bars]
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] > 90
    assert any(re.search(r"\| \d\d:\d\d<\d\d:\d\d, loss \d\.\d{3}, val 0\.\d{3}$", o) for o in bars)


@pytest.fixture
def two(done, tmp_path):
    "A finished run, and one with another seed and a cycle less that was stopped"
    shutil.copytree(done[0], tmp_path / "runs" / done[0].name)
    other = config(**SETTINGS | dict(seed=1, cycles=1))
    folder = tmp_path / "runs" / config_hash(other)
    with pytest.raises(KeyboardInterrupt):
        with pytest.MonkeyPatch.context() as m:
            m.setattr(experiment, "leave_level", lambda *args: 1 / 0)
            try:
                run(other, folder)
            except ZeroDivisionError:
                raise KeyboardInterrupt
    return tmp_path / "runs"


def test_runs_are_listed(two, monkeypatch, capsys):
    (two / "broken").mkdir()
    (two / "broken/config.json").write_text("{")
    table = runs_in(two).set_index("folder")
    assert {*table.state} == {"finished", "stopped", "damaged"}
    row = table[table.state == "stopped"].iloc[0]
    assert (row.epoch, row.method, row.sparsity) == ("0.2/2", "imp", 0.9) and 0 < row.val_accuracy
    assert pd.isna(row.test_accuracy) and table.epoch[table.state == "finished"].item() == "2.2/2"
    with FileLock(Path(row.name) / "lock"):
        assert runs_in(two).state[0] == "running"
    (two.parent / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.chdir(two.parent)
    for words in ["runs"], ["runs", "list", "runs"]:
        assert command.main(words) == 0
        said = capsys.readouterr().out.splitlines()
        assert len(said) == 4 and said[1].split()[0] == "stopped" and "runs/broken" in said[3]
    assert [age(o) for o in (5, 61, 7200, 3e6)] == ["5 s", "1 min", "2 h", "34 d"]


def test_two_runs_are_compared(two, monkeypatch, capsys):
    (two.parent / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.chdir(two.parent)
    first, second = sorted(two.iterdir(), key=lambda f: f.name != config_hash(C))
    assert run_folder(first.name[:6]) == run_folder(str(first)) == first
    assert command.main(["runs", "compare", str(first), second.name]) == 0
    said = capsys.readouterr().out
    rows = [o.split() for o in said.splitlines() if o]
    assert ["seed", "0", "1"] in rows and ["cycles", "2", "1"] in rows
    assert not any(o[0] in ("lr", "arch") for o in rows) and "test_accuracy" in said
    table = curves_of(first, second, most=3)
    assert [*table.index] == [2, 4, 6]
    curves = pd.read_csv(first / "curves.csv")
    assert [*table[first.name, "val_accuracy"]] == [*curves.val_accuracy[1::2]]
    for name in "nothing", "**", "/nowhere/at/all", "[", "":
        assert command.main(["runs", "compare", str(first), name]) == 2
        assert f"run {name!r}: there is no such run" in capsys.readouterr().err
    assert command.main(["runs", "compare", str(first), str(first)]) == 0
    assert "they differ in nothing" in capsys.readouterr().out


def test_runs_of_one_name_are_compared(two, monkeypatch, capsys):
    monkeypatch.chdir(two.parent)
    for place, folder in zip("ab", two.iterdir()):
        (two.parent / place).mkdir()
        shutil.copytree(folder, two.parent / place / "out")
    assert command.main("runs compare a/out b/out".split()) == 0
    said = capsys.readouterr().out
    assert said.count("a/out") == said.count("b/out") == 2 and "seed" in said
    monkeypatch.chdir("a/out")
    assert command.main("runs compare . ../../b/out".split()) == 0
    assert "seed" in capsys.readouterr().out


def test_telling_nobody(tmp_path):
    with telling(None, tmp_path, C) as told:
        told([dict(iteration=1)])
    assert not list(tmp_path.iterdir())
