"The pipeline on a tiny suite: each run is computed once, whoever asks, whatever changes around it. In order"

import json
import os
import re
import shlex
import shutil
import time
from dataclasses import replace

import pandas as pd
import pytest
from conftest import REPO

from mplt.experiment import NUMERICS, config_hash, finished, published_folder, read_rows, run
from mplt.pipeline import run_folders, suite_configs, suites

COLUMNS = (
    "suite dataset arch width method bn scope sparsity seed epochs val_accuracy test_accuracy "
    "weights_total weights_kept ticket_bytes config_hash"
).split()
OWN = """\
suite: own
root: ../../
defaults: {limit: 60, batch_size: 20, epochs: 1, others: train}
runs:
  mine: {dataset: mnist5k, arch: ["our_nets:convs", "our_nets:rows"], method: mpt-1-32}
"""
NETS = """
from torch import nn
def convs(num_classes):
    return nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
                         nn.Linear(5 * 26 * 26, num_classes))
def rows(num_classes):  # a linear layer, but not on the whole image
    return nn.Sequential(nn.Linear(28, 3), nn.LayerNorm(3), nn.Flatten(), nn.Linear(84, num_classes))
"""
RUNS = ["run@fc1-imp", "run@fc1-mpt-1-32", "run@lenet5-dense"]
ALL = ["check", "figures", *RUNS, "tables"]
TIMED = ("timings.csv", "record.json")  # differ from time to time
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")


def ran(p):
    return sorted(re.findall(r"Running stage '([^']+)'", p.stdout))


def content(place):
    return {
        str(f.relative_to(place)): f.read_bytes()
        for f in sorted(place.rglob("*"))
        if f.is_file() and f.name not in TIMED
    }


def edit(repo, file, old, new):
    text = (repo.path / file).read_text()
    assert text.count(old) == 1
    (repo.path / file).write_text(text.replace(old, new))


def runs_of(repo, folder="runs"):
    return {f.name for f in (repo.path / folder).glob("*") if f.is_dir()}


def clean(repo):
    return repo.sh("git", "status", "--porcelain", cwd=repo.path).stdout == ""


def commit(repo, message):
    repo.sh("git", "add", "-A", cwd=repo.path)
    repo.sh(*GIT, "commit", "-qm", message, cwd=repo.path)


def guided(command):
    "A command's words, as the guide has them"
    cells = json.loads((REPO / "nbs/guide_scale.ipynb").read_text())["cells"]
    lines = (line for c in cells for line in c["source"] if line.startswith(command))
    return shlex.split(next(lines), comments=True)


def test_first_repro(repo):
    before = runs_of(repo, "results/runs")
    assert ran(repo.sh("dvc", "repro")) == ALL
    wanted = {"summary.csv", "metrics.json"}
    wanted |= {f"runs/fc1-mpt-1-32/{o}" for o in ("run.ipynb", "summary.csv")}
    wanted |= {f"tables/{o}.{s}" for o in ("T1", "T2", "T4", "C1") for s in ("md", "csv")}
    wanted |= {f"figures/{i}.svg" for i in ("F1", "F5", "F6", "F7", "S1", "S2")}
    assert not wanted - content(repo.results).keys()
    summary = pd.read_csv(repo.results / "summary.csv")
    assert list(summary)[: len(COLUMNS)] == COLUMNS and len(summary) == 6
    assert {"lr", "batch_size", "init", "precision", "limit"} <= set(summary)
    kept = summary.weights_kept[summary.sparsity == 0.8].item()
    assert kept == sum(n - n * 8 // 10 for n in (784 * 30, 30 * 10, 10 * 10))
    assert len(pd.read_csv(repo.results / "timings.csv")) == 6
    new = runs_of(repo, "results/runs") - before
    assert new == set(summary.config_hash) == runs_of(repo)
    whole = "config.json record.json summary.csv levels.csv curves.csv layers.csv".split()
    for name, method in zip(summary.config_hash, summary.method):
        folder = repo.path / "results/runs" / name
        files = {f.name for f in folder.iterdir()}
        assert files - {"ticket.safetensors", "controls.csv"} == {*whole}
        assert ("controls.csv" in files) == (method == "mpt-1-32")
        assert ("ticket.safetensors" in files) == (method != "dense")
    record = json.loads((folder / "record.json").read_text())
    with_what = "date commit numerics device cpu instructions threads torch"
    assert record["computed"][0].keys() == {*with_what.split()} and record["seconds"] > 0


def test_no_machine_in_results(repo):
    for name, text in (content(repo.results) | content(repo.path / "results/runs")).items():
        assert str(repo.path).encode() not in text, name


def test_no_machine_in_notebooks():
    "Saved outputs hold no warnings (which come with a path of the machine) and no home or working folder"
    machine = re.compile(r"(?<![\w.])/(home|root|work|tmp|Users)/")
    for f in (*REPO.glob("nbs/*.ipynb"), *REPO.glob("nbs/pipeline/*.ipynb")):
        for output in (o for c in json.loads(f.read_text())["cells"] for o in c.get("outputs", [])):
            assert output.get("name") != "stderr", f"{f.name}: {output}"
            data = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
            assert not machine.search(json.dumps(data) + str(output.get("text", ""))), f.name


def test_second_repro_computes_nothing(repo):
    p = repo.sh("dvc", "repro")
    assert not ran(p) and "up to date" in p.stdout


def test_byte_stable(repo):
    before = content(repo.results) | content(repo.path / "results/runs")
    for name in runs_of(repo):
        shutil.rmtree(repo.path / "results/runs" / name)
    shutil.rmtree(repo.path / "runs")
    assert ran(repo.sh("dvc", "repro", "-f")) == ALL
    after = content(repo.results) | content(repo.path / "results/runs")
    assert before.keys() == after.keys()
    assert [k for k in before if before[k] != after[k]] == []


def test_clone_computes_nothing(repo):
    "Who has the commits has the runs: without runs/ nothing is stale, and doing all again trains nothing"
    commit(repo, "results")
    shutil.rmtree(repo.path / "runs")
    assert not ran(repo.sh("dvc", "repro")) and clean(repo)
    assert ran(repo.sh("dvc", "repro", "-f")) == ALL
    assert not runs_of(repo) and clean(repo)


def test_one_more_seed_is_one_more_run(repo):
    edit(repo, "suites/tiny/params.yaml", "seed: [0, 1]", "seed: [0, 1, 2]")
    assert ran(repo.sh("dvc", "repro")) == ["check", "figures", "run@lenet5-dense", "tables"]
    assert len(runs_of(repo)) == 1 and len(pd.read_csv(repo.results / "summary.csv")) == 7


def test_same_run_in_two_suites(repo):
    other = repo.path / "suites/other"
    shutil.copytree(repo.path / "suites/tiny", other)
    (other / "dvc.lock").unlink()
    edit(repo, "suites/other/params.yaml", "suite: tiny", "suite: other")
    before = runs_of(repo)
    assert len(ran(repo.sh("dvc", "repro", cwd=other))) == len(ALL)
    assert runs_of(repo) == before
    tables = (repo.path / f"results/{o}/tables/T1.csv" for o in ("other", "tiny"))
    assert len({f.read_bytes() for f in tables}) == 1
    shutil.rmtree(other)
    shutil.rmtree(repo.path / "results/other")


def test_code_is_free(repo):
    "Words, names and layout of code make nothing stale; what shows results is done again, and trains nothing"
    before = runs_of(repo)
    edit(repo, "mplt/errors.py", "Refuse a name that", "Refuse any name that")
    edit(repo, "mplt/errors.py", "nearest = get_close_matches(", "nearest=get_close_matches(")
    assert not ran(repo.sh("dvc", "repro"))
    edit(repo, "nbs/pipeline/run.ipynb", "How they learned", "How did they learn")
    assert ran(repo.sh("dvc", "repro", "-s", RUNS[0])) == RUNS[:1]
    assert b"How did they learn" in (repo.results / "runs/fc1-imp/run.ipynb").read_bytes()
    edit(repo, "nbs/pipeline/run.ipynb", "How did they learn", "How they learned")
    edit(repo, "mplt/report.py", "dpi=130", "dpi=131")
    repo.sh("dvc", "repro", "-s", RUNS[0])
    assert ran(repo.sh("dvc", "repro")) == ["figures", "tables"]
    assert runs_of(repo) == before


def test_numerics_makes_all_runs_anew(repo):
    "and leaves the old ones where they are"
    repo.sh("git", "checkout", "-q", "--", "mplt", cwd=repo.path)
    repo.sh("dvc", "repro")
    commit(repo, "a seed")
    before, rows = content(repo.path / "results/runs"), pd.read_csv(repo.results / "summary.csv")
    edit(repo, "mplt/experiment.py", f"NUMERICS = {NUMERICS}\n", f"NUMERICS = {NUMERICS + 1}\n")
    assert ran(repo.sh("dvc", "repro", RUNS[1])) == [RUNS[1]]
    after = content(repo.path / "results/runs")
    now = pd.read_csv(repo.results / "runs/fc1-mpt-1-32/summary.csv")
    assert before.items() <= after.items() and not set(now.config_hash) & set(rows.config_hash)
    assert list(now.test_accuracy) == list(rows.test_accuracy[rows.method == "mpt-1-32"])
    repo.sh("git", "stash", "-qu", cwd=repo.path)
    repo.sh("git", "stash", "drop", "-q", cwd=repo.path)


BAD = [
    ("sparsity: [0.5, 0.8]", "sparsity: [0.5, 1.0]", "sparsity 1.0 is out of range"),
    ("fc1, width: 0.1, method: mpt", "fc11, width: 0.1, method: mpt", "did you mean 'fc1'?"),
    ("batch_size: 30", "batch_size: 0", "batch_size 0"),
    ("limit: 120", "limmit: 120", "did you mean 'limit'?"),
    ("{dataset: mnist5k, arch: lenet5, ", "{arch: lenet5, ", "among them one dataset"),
    ("defaults:", "defualts:", "did you mean 'defaults'?"),
    ("root: ../../", "root: ..", "root of suite tiny is '..'"),
    ("suite: tiny", "suite: tony", "a suite has the name of its folder, 'tiny'"),
    ("suite: tiny", "suite: ../mydata", "a suite has the name of its folder, 'tiny'"),
    ("suite: tiny", "suite: ../../mydata", "a suite has the name of its folder, 'tiny'"),
    ("root: ../../", "root: ../../mydata/", "root of suite tiny is '../../mydata/'"),
    ("root: ../../", "root: ../../../", "root of suite tiny is '../../../'"),
    ("limit: 120", "7: 120", "7 is no name"),
    ("lenet5-dense:", "fc1-mpt-1-32:", "'fc1-mpt-1-32' is there twice"),
    ("lenet5-dense:", "FC1-mpt-1-32:", "names that differ in more than case"),
    ("lenet5-dense:", "lenet5.dense:", "'lenet5.dense' is no name"),
    ("lenet5-dense:", "1e5:", "'1e5' is no name"),
    ("lenet5-dense:", '"a;touch X":', "'a;touch X' is no name"),
    ("lenet5-dense:", '"$(touch X)":', "is no name"),
    ("lenet5-dense:", "../../../mydata:", "'../../../mydata' is no name"),
    ("lenet5-dense:", "-rf:", "is no name"),
    ("lenet5-dense:", "7:", "7 is no name"),
]


LEFT = (
    "check.txt summary.csv metrics.json tables/T1.md figures/F1.svg runs/fc1-imp/run.ipynb".split()
)


@pytest.mark.parametrize("old, new, says", BAD)
def test_bad_parameter_stops_with_a_sentence(repo, old, new, says):
    before, mine = content(repo.results), repo.path / "mydata"
    stands = [f"{d}{f}" for d in ("", "results/tiny/") for f in LEFT]
    for file in stands:
        (mine / file).parent.mkdir(parents=True, exist_ok=True)
        (mine / file).write_text("mine")
    edit(repo, "suites/tiny/params.yaml", old, new)
    p = repo.sh("mplt", "check", ok=False)
    assert p.returncode == 2 and says in p.stderr and len(p.stderr.splitlines()) == 1
    if "no name" in says or "range" in says or new.startswith(("suite", "root")):
        p = repo.sh("dvc", "repro", ok=False)
        assert p.returncode and "Traceback" not in p.stderr and ran(p) in ([], ["check"])
        for stage in "tables", "figures", RUNS[0], "run@" + new.rstrip(":").strip('"'):
            p = repo.sh("dvc", "repro", "-f", "-s", stage, ok=False)
            assert p.returncode or new.startswith("sparsity"), stage
    repo.sh("git", "checkout", "-q", "--", "suites", cwd=repo.path)
    assert content(repo.results) == before and not list(repo.path.rglob("X"))
    assert all((mine / file).read_text() == "mine" for file in stands)
    shutil.rmtree(mine)


def test_suites_have_the_same_stages(repo):
    for name, folder in suites().items():
        stages = folder / "dvc.yaml"
        assert stages.read_bytes() == (REPO / "dvc.yaml").read_bytes(), name
        assert not stages.is_symlink(), name
    edit(repo, "suites/tiny/dvc.yaml", "stages:", "stages: ")
    p = repo.sh("mplt", "check", ok=False)
    assert p.returncode == 2 and "copy that file to it" in p.stderr
    repo.sh("git", "checkout", "-q", "--", "suites", cwd=repo.path)


def test_a_run_that_is_no_longer_named(repo):
    "Its rows leave the tables, its stage's folder goes; what it computed stays"
    before, lines = runs_of(repo, "results/runs"), (repo.tiny / "params.yaml").read_text()
    (old,) = (o for o in lines.splitlines(True) if "lenet5-dense:" in o)
    edit(repo, "suites/tiny/params.yaml", old, "")
    assert ran(repo.sh("dvc", "repro")) == ["check", "figures", "tables"]
    assert not (repo.results / "runs/lenet5-dense").exists()
    assert "lenet5" not in (repo.results / "summary.csv").read_text()
    assert runs_of(repo, "results/runs") == before
    repo.sh("git", "checkout", "-q", "--", ".", cwd=repo.path)


def test_dvc_tells_the_story(repo):
    edit(repo, "suites/tiny/params.yaml", "seed: [0, 1, 2]", "seed: [0, 1]")
    metrics = repo.results / "metrics.json"
    assert [*json.loads(metrics.read_text())][-1] == "mnist5k lenet5 x1 dense plain"
    metrics.write_text(metrics.read_text().replace('"validation": 0', '"validation": 1'))
    changed = json.loads(repo.sh("dvc", "metrics", "diff", "--json").stdout)
    assert {*changed} == {"../../results/tiny/metrics.json"}
    changed = json.loads(repo.sh("dvc", "params", "diff", "--json").stdout)
    assert {k: [*v] for k, v in changed.items()} == {"params.yaml": ["runs.lenet5-dense.seed"]}
    stages = repo.sh("dvc", "dag", "dvc.yaml").stdout
    assert "run@fc1-mpt-1-32" in stages and max(map(len, stages.splitlines())) <= 120
    plots = json.loads(repo.sh("dvc", "plots", "show", "--json", "suite-tiny").stdout)["data"]
    ((name, drawn),) = plots.items()
    assert (
        "suite-tiny" in name and "0.8" in json.dumps(drawn) and "cifar10" not in json.dumps(drawn)
    )
    repo.sh("git", "checkout", "-q", "--", ".", cwd=repo.path)


def test_an_experiment(repo):
    "Two at a time, in copies of the project that share its runs: one that is there is not computed again"
    repo.sh("dvc", "repro")
    commit(repo, "before") if not clean(repo) else None
    before, (old,) = runs_of(repo), repo.results.glob("runs/lenet5-dense/summary.csv")
    for name, seed in dict(lucky=7, unlucky=8).items():
        settings = "-S", f"runs.lenet5-dense.seed=[1, {seed}]", "run@lenet5-dense", "tables"
        repo.sh("dvc", "exp", "run", "--queue", "-n", name, *settings)
    repo.sh("dvc", "queue", "start", "-j", "2")
    for _ in range(300):
        time.sleep(2)
        status = repo.sh("dvc", "queue", "status").stdout
        if not re.search("Queued|Running", status):
            break
    assert status.count("Success") == 2, status
    assert clean(repo) and len(runs_of(repo) - before) == 2
    diff = repo.sh(
        "dvc", "plots", "diff", "--json", "--targets", "suite-tiny", "--", "HEAD", "lucky"
    )
    ((drawn,),) = json.loads(diff.stdout)["data"].values()
    rows = [o for o in drawn["content"]["data"]["values"] if o["method"] == "dense"]
    assert drawn["revisions"] == ["HEAD", "lucky"] == [*dict.fromkeys(o["rev"] for o in rows)]
    assert {o["seed"] for o in rows if o["rev"] == "lucky"} == {"1", "7"}
    columns, *rows = repo.sh(*guided("dvc exp show"), "--csv").stdout.splitlines()
    assert len(columns.split(",")) <= 12 and "runs.lenet5-dense.seed" in columns
    assert any("lucky" in row for row in rows)
    repo.sh("dvc", "exp", "apply", "lucky")
    assert pd.read_csv(old).seed.tolist() == [1, 7]
    summary = pd.read_csv(repo.results / "summary.csv")
    assert summary.seed[summary.method == "dense"].tolist() == [1, 7]
    repo.sh("git", "checkout", "-q", "--", ".", cwd=repo.path)
    repo.sh("git", "clean", "-qfd", "results", cwd=repo.path)


def test_an_experiment_here_and_now(repo):
    "In the work tree itself: what was changed stays changed there, and one run is new"
    commit(repo, "before") if not clean(repo) else None
    before, settings = runs_of(repo), ("-S", "runs.lenet5-dense.seed=[1, 9]")
    p = repo.sh("dvc", "exp", "run", "-n", "here", *settings, "run@lenet5-dense")
    assert ran(p) == ["check", "run@lenet5-dense"]
    rows = pd.read_csv(repo.results / "runs/lenet5-dense/summary.csv")
    assert rows.seed.tolist() == [1, 9]
    assert rows.config_hash[1] in runs_of(repo) - before
    assert "here" in repo.sh("dvc", "exp", "list").stdout
    repo.sh("git", "checkout", "-q", "--", ".", cwd=repo.path)
    repo.sh("git", "clean", "-qfd", "results", cwd=repo.path)


def test_real_suites_fit_a_screen(repo):
    "The guide's lines: stages of a long suite within 120 columns, the quick suite's metrics in few"
    stages = repo.sh(*guided("dvc dag"), cwd=repo.path / "suites/cifar10").stdout
    assert "run" in stages and max(map(len, stages.splitlines())) <= 120
    file = repo.path / "results/quick/metrics.json"
    file.parent.mkdir(exist_ok=True)
    configs = (c for configs in suite_configs("quick").values() for c in configs)
    found = {f"{c.dataset} {c.arch} x{c.width:g} {c.method} {c.bn}" for c in configs}
    file.write_text(json.dumps({k: dict(sparsity=0.5, validation=0.9, test=0.9) for k in found}))
    edit(repo, "params.yaml", "epochs: 8", "epochs: 9")
    shown = repo.sh(*guided("dvc exp show"), "--csv", cwd=repo.path).stdout
    columns = shown.splitlines()[0].split(",")
    assert len(found) == 26 and len(columns) <= 12
    wanted = {"params.yaml:defaults.epochs", "mnist5k fc1 x1 mpt-1-32 plain.test"}
    assert wanted <= {*columns}
    shutil.rmtree(file.parent)
    repo.sh("git", "checkout", "-q", "--", "params.yaml", cwd=repo.path)


def test_a_remote(repo, tmp_path):
    "A clone misses nothing, with a remote or without; data sets and trained weights travel by `dvc push`"
    home = tmp_path / "origin"
    repo.sh("git", "clone", "-q", str(repo.path), str(home), cwd=tmp_path)
    for command in "pull", "checkout":
        repo.sh("dvc", command, cwd=home)
    dense = next((repo.path / "runs").glob("*/ticket.safetensors"))
    (home / "results/weights").mkdir()
    shutil.copy(dense, home / "results/weights")
    stages = home / "data/dvc.yaml"
    stages.write_text(stages.read_text().replace(": {cache: false}", ""))  # as the guide says
    for name in "mnist", "cifar10", "fashion_mnist":
        (home / "data" / name).mkdir()
        (home / "data" / name / "images").write_text(name)
    repo.sh("dvc", "commit", "-f", "data/dvc.yaml", cwd=home)
    repo.sh("dvc", "add", "results/weights", cwd=home)
    repo.sh("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"), cwd=home)
    repo.sh("git", "add", "-A", cwd=home)
    repo.sh(*GIT, "commit", "-qm", "what others need", cwd=home)
    repo.sh("dvc", "push", cwd=home)
    repo.sh("git", "clone", "-q", str(home), str(tmp_path / "clone"), cwd=tmp_path)
    for command in "pull", "checkout":
        repo.sh("dvc", command, cwd=tmp_path / "clone")
    assert (tmp_path / "clone/data/cifar10/images").read_text() == "cifar10"
    brought = tmp_path / "clone/results/weights" / dense.name
    assert brought.read_bytes() == dense.read_bytes()


def test_two_branches_add_runs(repo):
    "Their merge conflicts in nothing but dvc.lock, and `dvc repro` afterwards trains nothing"
    start = repo.sh("git", "rev-parse", "HEAD", cwd=repo.path).stdout.strip()
    for branch, entry in dict(
        mine="fc1-random: {dataset: mnist5k, arch: fc1, width: 0.1, method: random, sparsity: 0.5}",
        theirs="fc1-bnn: {dataset: mnist5k, arch: fc1, width: 0.1, method: bnn-1-32}",
    ).items():
        repo.sh("git", "checkout", "-qb", branch, start, cwd=repo.path)
        with open(repo.tiny / "params.yaml", "a") as f:
            f.write(f"  {entry}\n")
        assert len(ran(repo.sh("dvc", "repro"))) == 4
        commit(repo, branch)
    p = repo.sh(*GIT, "merge", "-q", "mine", cwd=repo.path, ok=False)
    assert re.findall(r"CONFLICT .* in (.*)", p.stdout) == ["suites/tiny/dvc.lock"]
    repo.sh("git", "checkout", "-q", "--ours", "suites/tiny/dvc.lock", cwd=repo.path)
    shutil.rmtree(repo.path / "runs")
    assert ran(repo.sh("dvc", "repro")) == ["check", "figures", "run@fc1-random", "tables"]
    assert not runs_of(repo)
    summary = pd.read_csv(repo.results / "summary.csv")
    assert {"random", "bnn-1-32"} <= set(summary.method) and len(summary) == 9
    commit(repo, "merged")


def papermill(repo, notebook, *args):
    "What it says of a mistake"
    command = ("papermill", "--engine", "mplt", "-k", "python3", *args)
    out = str(repo.path / "out.ipynb")
    p = repo.sh(*command, str(notebook), out, cwd=repo.path, ok=False)
    assert p.returncode == 2 and "Traceback" not in p.stderr
    return p.stderr


def test_unknown_parameter(repo):
    said = papermill(repo, "nbs/pipeline/run.ipynb", "-p", "kye", "x")
    assert "unknown parameter 'kye': did you mean 'key'?" in said


def test_missing_tag(repo):
    nb = json.loads((repo.path / "nbs/pipeline/tables.ipynb").read_text())
    for c in nb["cells"]:
        c["metadata"].pop("tags", None)
    (repo.path / "untagged.ipynb").write_text(json.dumps(nb))
    said = papermill(repo, "untagged.ipynb", "-p", "suite", "tiny")
    assert "no cell tagged 'parameters'" in said


needs_mirror = pytest.mark.skipif(
    not os.environ.get("MPLT_DATA_MIRROR"), reason="MPLT_DATA_MIRROR names no folder with CIFAR-10"
)
COMPUTED = [k for k, f in suites().items() if k != "quick" and (f / "dvc.lock").exists()]


@pytest.mark.parametrize("suite", COMPUTED)
def test_published_suite_is_whole(suite):
    "Every run of it is published, and is what its name says"
    for c in (c for configs in suite_configs(suite).values() for c in configs):
        assert finished(published_folder(c), c)
        row = read_rows(published_folder(c) / "summary.csv", config_hash(c)).iloc[0]
        for name in "lr", "batch_size", "epochs", "seed":
            assert row[name] == getattr(c, name)
    rows = pd.read_csv(REPO / f"results/{suite}/summary.csv", dtype=str)
    assert {f.name for f in run_folders(suite)} == set(rows.config_hash)


@pytest.mark.parametrize("suite", COMPUTED)
def test_published_suite_is_up_to_date(repo, suite):
    "Nothing is stale in a clone; data sets that were not fetched are all that may be missing"
    place = repo.path / "suites" / suite
    missing = json.loads(repo.sh("dvc", "status", "--json", "dvc.yaml", cwd=place).stdout)
    for stage, changes in missing.items():
        for what in changes:
            assert what.keys() == {"changed deps"}, stage
            for file, how in what["changed deps"].items():
                assert "/data/" in file and how == "deleted", stage


@needs_mirror
@pytest.mark.parametrize("suite", COMPUTED)
def test_published_suite_in_a_clone(repo, suite):
    "With the data at hand: nothing to do, and the work tree stays clean"
    commit(repo, "before") if not clean(repo) else None
    place = repo.path / "suites" / suite
    p = repo.sh("dvc", "repro", cwd=place)
    assert set(ran(p)) <= {f"../../data/dvc.yaml:data@{o}" for o in ("mnist", "cifar10")}, p.stdout
    assert "up to date" in repo.sh("dvc", "status", "dvc.yaml", cwd=place).stdout and clean(repo)


def test_a_suite_of_networks_of_ones_own(repo):
    "Checked, swept from the root, and shown: their module lies there, and nothing is computed twice"
    commit(repo, "before") if not clean(repo) else None
    place = repo.path / "suites/own"
    place.mkdir()
    shutil.copyfile(repo.path / "dvc.yaml", place / "dvc.yaml")
    (place / "params.yaml").write_text(OWN)
    said = repo.sh("mplt", "check", cwd=place, ok=False).stderr
    assert "'our_nets:convs' makes no network (ModuleNotFoundError" in said
    (repo.path / "our_nets.py").write_text(NETS)
    said = repo.sh("mplt", "sweep", "own", "--jobs", "1", cwd=repo.path)
    assert "2 runs computed" in said.stdout
    before = content(repo.path / "runs")
    p = repo.sh("dvc", "repro", "tables", cwd=place)
    assert ran(p) == ["check", "run@mine", "tables"]
    assert content(repo.path / "runs") == before
    assert "image/png" in (repo.path / "results/own/runs/mine/run.ipynb").read_text()
    table = (repo.path / "results/own/tables/T1.md").read_text()
    assert "our_nets:convs" in table and "our_nets:rows" in table
    repo.sh("git", "clean", "-qfd", cwd=repo.path)


def test_paper_suite(repo):
    "Every cell of the published settings is sound, and DVC knows what it would do"
    place = repo.path / "suites/paper"
    repo.sh("mplt", "check", cwd=place)
    folders = (repo.path / "data" / o for o in ("cifar10", "imagenet"))
    stand_ins = [d for d in folders if not d.exists()]
    for d in stand_ins:
        d.mkdir()
    two = "run@conv2-mpt-1-32", "run@imagenet-mpt-1-32"
    said = repo.sh("dvc", "repro", "--dry", "-s", *two, cwd=place).stdout
    for d in stand_ins:
        d.rmdir()
    assert said.count("mplt-stage") == 2


@needs_mirror
def test_smallest_cell_of_the_paper(tmp_path):
    "One epoch of it instead of 100, on all of CIFAR-10"
    cells = (c for configs in suite_configs("paper").values() for c in configs)
    c = min(cells, key=lambda c: (c.arch, c.width, c.seed, c.sparsity))
    settings = c.arch, c.width, c.epochs, c.optimizer, c.lr, c.bn
    assert settings == ("conv2", 0.25, 100, "sgd", 0.1, "none")
    row = run(replace(c, epochs=1), tmp_path / "run")
    assert row["test_accuracy"] > 0.15 and row["epochs"] == 1
