"Any input ends in one line that names it, or works: hostile inputs by class (attacks.py)"

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from attacks import attempt, verdict
from conftest import REPO


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks use what Linux has")
def test_hostile_input():
    "In a process of its own: the attacks are children of it, and it may have no threads"
    env = os.environ | dict(OMP_NUM_THREADS="1", MPLT_THREADS="1")
    command = [sys.executable, REPO / "tests/attacks.py", os.environ.get("MPLT_ATTACKS", "8")]
    p = subprocess.run(command, env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr


@pytest.mark.parametrize(
    "end, after, says",
    [
        (dict(), {"a": b"1"}, ""),
        (dict(status=0, err=""), {"a": b"1"}, ""),
        (dict(status=1), {"a": b"1"}, "status 1"),
        (dict(status=-11), {"a": b"1"}, "status -11"),
        (dict(err=""), {"a": b"1"}, "no sentence"),
        (dict(err="mplt: one\nmplt: two\n"), {"a": b"1"}, "no sentence"),
        (dict(err="Traceback …\nmplt: one\n"), {"a": b"1"}, "traceback"),
        (dict(out="\x1b[31m"), {"a": b"1"}, "raw '\\x1b' on the terminal"),
        (dict(seconds=31), {"a": b"1"}, "31.0 s of CPU"),
        (dict(mib=2000), {"a": b"1"}, "2000 MiB"),
        (dict(), {"a": b"2"}, "left or lost a"),
        (dict(), {}, "left or lost a"),
        (dict(status=0), {"a": b"1", ".b.7.tmp": b""}, "left .b.7.tmp"),
    ],
)
def test_the_judge_notices(end, after, says):
    how = dict(status=2, out="", err="mplt: one\n", seconds=0, mib=0)
    said = verdict(SimpleNamespace(**how | end), {"a": b"1"}, after)
    assert says in said and bool(said) == bool(says)


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks use what Linux has")
def test_memory_of_an_attempt_is_counted(tmp_path):
    for mib in 0, 300:
        found = attempt(lambda mib=mib: len(bytearray(mib * 2**20)) % 2, tmp_path).mib
        assert mib <= found < mib + 100


def test_html_of_a_notebook_is_text_and_tables_on_the_site(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "docs")
    from pages import cleaned

    table = '<div><style>td {color: red}</style><table border="1"><tr style="x"><td colspan="2">1 &lt; 2'
    assert cleaned(table) == '<div><table><tr><td colspan="2">1 &lt; 2'
    evil = '<script>alert(1)</script><p onclick="x()">a<img src=x onerror=y><a href="javascript:z">b</a>'
    assert cleaned(evil) == "<p>ab"
    assert (
        cleaned("&lt;script&gt;<iframe src='//x'></iframe><sty<style>le>") == "&lt;script&gt;le&gt;"
    )
