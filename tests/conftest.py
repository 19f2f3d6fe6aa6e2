import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

REPO = Path(__file__).parent.parent
TINY = """\
suite: tiny
root: ../../
defaults: {limit: 120, batch_size: 30, bn: plain, epochs: 2}
runs:
  fc1-mpt-1-32: {dataset: mnist5k, arch: fc1, width: 0.1, method: mpt-1-32, sparsity: [0.5, 0.8]}
  lenet5-dense: {dataset: mnist5k, arch: lenet5, method: dense, seed: [0, 1]}
  fc1-imp: {dataset: mnist5k, arch: fc1, width: 0.1, method: [imp, imp-reinit], sparsity: 0.9,
            cycles: 3, epochs: 1}
"""


def copy_tree(place):
    "The working tree as git sees it, without what it ignores"
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    said = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    for f in said.splitlines():
        if (REPO / f).exists():
            (place / f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / f, place / f, follow_symlinks=False)


@pytest.fixture(scope="session")
def repo(tmp_path_factory):
    "The working tree, committed afresh in a folder with a space in its name, with a tiny suite"
    place = tmp_path_factory.mktemp("a clone") / "mplt"
    copy_tree(place)
    tiny = place / "suites/tiny"
    tiny.mkdir(parents=True)
    (tiny / "params.yaml").write_text(TINY)
    shutil.copyfile(place / "dvc.yaml", tiny / "dvc.yaml")
    env = os.environ | dict(
        PYTHONPATH=str(place),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        DVC_NO_ANALYTICS="1",
    )

    def sh(*command, cwd=tiny, ok=True):
        p = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
        if ok:
            assert p.returncode == 0, p.stdout + p.stderr
        return p

    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    sh("git", "init", "-q", cwd=place)
    sh("git", "add", "-A", cwd=place)
    sh(*git, "commit", "-qm", "tiny", cwd=place)
    return SimpleNamespace(path=place, tiny=tiny, results=place / "results/tiny", sh=sh)
