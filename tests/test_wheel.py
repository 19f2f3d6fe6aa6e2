"The installed package works without the repository."

import os
import shutil
import subprocess
import sys

from conftest import REPO


def test_wheel(tmp_path):
    "A wheel, unpacked far from the repository, runs an experiment on its own digits and reads the ticket"
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    for part in "mplt", "data/mnist5k":
        shutil.copytree(REPO / part, source / part)
    for file in "pyproject.toml", "README.md", "LICENSE":
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
