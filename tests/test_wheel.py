"The installed package works without the repository."

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import REPO
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mplt import ticket


def test_wheel(tmp_path):
    "A wheel, unpacked far from the repository, runs an experiment on its own digits and reads the ticket"
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    for part in "mplt", "data/mnist5k", "results":
        shutil.copytree(REPO / part, source / part, ignore=shutil.ignore_patterns("*.ipynb"))
    for file in "setup.py", "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(REPO / file, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(wheel, check=True)
    install = [*pip, "install", "--no-deps", "--target", site, *tmp_path.glob("*.whl")]
    subprocess.run(install, check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("MPLT_")}
    env["PYTHONPATH"] = str(site)

    def sh(code, *words):
        command = [sys.executable, "-c", code, *words]
        how = dict(check=True, capture_output=True, text=True)
        return subprocess.run(command, cwd=empty, env=env, **how).stdout

    assert sh("import mplt; print(mplt.__file__)").startswith(str(site))
    mplt = "import sys; from mplt.command import main; sys.exit(main())"
    run = "run --dataset mnist5k --method mpt-1-32 --sparsity 0.5 --epochs 1 --out out"
    sh(mplt, *run.split())
    assert "mpt-1-32" in sh(mplt, "ticket", "info", "out/ticket.safetensors")
    assert "imp" in sh(mplt, "methods")

    shipped = {f.parent.name for f in (site / "mplt/zoo").rglob("*.safetensors")}
    sizes = [(REPO / f"results/runs/{o}/ticket.safetensors").stat().st_size for o in shipped]
    assert sum(sizes) <= 1_500_000
    listed = {o.split()[0]: o for o in sh(mplt, "ticket", "list").splitlines()[1:]}
    assert list(listed) == list(rows := ticket.zoo_rows())
    assert sh("from mplt import ticket; print(len(ticket.zoo('conv6-mpt-1-32-90')))")
    assert '"arch": "fc1"' in sh(mplt, "ticket", "info", "fc1-imp")
    for name, row in rows.items():
        assert (row["config_hash"] in shipped) != ("in the repository" in listed[name])
    with pytest.raises(subprocess.CalledProcessError) as e:
        sh("from mplt import ticket; ticket.zoo('conv4-imp')")
    assert "ticket 'conv4-imp' is too large for the package" in e.value.stderr


def test_hashes_are_of_the_tested_versions():
    "hashes.txt pins what constraints.txt pins, and every requirement has the hash of a file or more"

    def pins(lines):  # What this Python on this machine needs
        needs = [r for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()]
        return {canonicalize_name(r.name): str(r.specifier) for r in needs}

    hashed = (REPO / "hashes.txt").read_text().replace("\\\n", " ").splitlines()
    assert all(re.fullmatch(r"[^#]+?( +--hash=sha256:[0-9a-f]{64})+", line) for line in hashed)
    tested = (REPO / "constraints.txt").read_text().splitlines()
    hashed = pins(line.split("--hash")[0] for line in hashed)
    tested = pins(line for line in tested if not line.startswith("#"))
    common = hashed.keys() & tested.keys()
    assert {name: hashed[name] for name in common} == {name: tested[name] for name in common}
    needed = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    needed = [*needed["dependencies"], *needed["optional-dependencies"]["test"]]
    needed = {canonicalize_name(Requirement(r).name) for r in needed} - {"mplt"}
    assert needed <= common
