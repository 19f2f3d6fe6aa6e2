"""A suite on many workers: whatever happens to them, the runs end with the bits of a serial run.

Hosts are network namespaces, disks are mounts of a namespace of its own: both need root."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import dask
import distributed  # noqa: F401, its settings are then in dask.config
import pytest
from conftest import REPO

import mplt
from mplt import command
from mplt import sweep as chapter
from mplt.config import config
from mplt.errors import UserError
from mplt.experiment import NUMERICS, config_hash, find, reserved, run
from mplt.pipeline import suite_configs
from mplt.sweep import expected_seconds, import_runs, left_files, share, sweep, take_in, work

SUITE = """\
suite: tiny
root: ../../
defaults: {limit: 200, batch_size: 30, bn: plain}
runs:
  few: {dataset: mnist5k, arch: lenet5, method: mpt-1-32, epochs: [8, 40, 9, 10]}
"""
MPLT = [sys.executable, "-c", "import sys; from mplt.command import main; sys.exit(main())"]
ENV = os.environ | dict(
    MPLT_DATA=str(REPO / "data"),
    MPLT_THREADS="1",
    PYTHONPATH=str(REPO),
    DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP="12s",  # when a silent link is given up
    DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION="1.0",
)


def make_project(folder):
    (folder / "suites/tiny").mkdir(parents=True)
    (folder / "settings.ini").write_text("[DEFAULT]\n")
    (folder / "suites/tiny/params.yaml").write_text(SUITE)
    return folder


def content(folder):
    return {k: v for k, v in left_files(folder).items() if k != "record.json"}


def until(condition, seconds=300):
    "Wait for it"
    end = time.time() + seconds
    while not (found := condition()):
        assert time.time() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    "What the runs of the suite leave, by hash, when they are computed one after the other"
    home = make_project(tmp_path_factory.mktemp("serial"))
    env = dict(MPLT_DATA=ENV["MPLT_DATA"], MPLT_THREADS="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for k, v in env.items():
            patch.setenv(k, v)
        configs = suite_configs("tiny")["few"]
        for c in configs:
            run(c)
        return {config_hash(c): content(find(c)) for c in configs}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLT_DATA", ENV["MPLT_DATA"])
    monkeypatch.setenv("MPLT_THREADS", "1")
    monkeypatch.chdir(make_project(tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture
def processes():
    "Ends with the test"
    started = []
    yield started
    for p in started:
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
        p.wait()


@pytest.fixture
def start(project, processes):
    def begin(*words, cwd=project, prefix=()):
        "A process with a group of its own; what it says is in its `said`"
        file = project / f"said-{len(processes)}.txt"
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also below `nohup … &`
        how = dict(cwd=cwd, env=ENV, start_new_session=True, preexec_fn=heard)
        with file.open("w") as out:
            p = subprocess.Popen([*prefix, *words], stdout=out, stderr=subprocess.STDOUT, **how)
        p.said = file
        processes.append(p)
        return p

    return begin


def assert_like(serial, project):
    "Every run is there, with the same bits, and nothing else is"
    assert {f.name: content(f) for f in (project / "runs").glob("*/")} == serial
    assert not list(project.rglob("*.tmp"))


def finish(p, status=0):
    p.wait(timeout=600)
    said = p.said.read_text()
    assert p.returncode == status and "Traceback" not in said, said
    return said


def half_done(home, project, host=""):
    "Wait for a run that has saved a state (on this host): its worker's process, and its name"
    begins = re.compile(r"^(\S+):(\d+) begins .*\((\w+)\)$", re.M)

    def found():
        for said in project.glob("said-*.txt"):
            for where, pid, name in begins.findall(said.read_text())[::-1]:
                folder = home / "runs" / name
                if where == (host or where) and (folder / "state.pt").exists():
                    if not (folder / "summary.csv").exists():
                        return int(pid), name

    return until(found)


def test_killed_worker(serial, project, start):
    p = start(*MPLT, "sweep", "tiny", "--jobs", "2")
    pid, name = half_done(project, project)
    os.kill(pid, signal.SIGKILL)
    said = finish(p)
    assert_like(serial, project)
    begun = [line for line in said.splitlines() if " begins " in line]
    assert len(begun) == 5 and sum(name in line for line in begun) == 2, said


def test_all_killed_and_started_again(serial, project, start):
    p = start(*MPLT, "sweep", "tiny", "--jobs", "2")
    until(lambda: list(project.glob("runs/*/summary.csv")))
    half_done(project, project)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()
    before = {f: f.stat().st_mtime_ns for f in project.glob("runs/*/summary.csv")}
    assert 0 < len(before) < 4
    finish(start(*MPLT, "sweep", "tiny", "few", "--jobs", "2"))
    assert {f: f.stat().st_mtime_ns for f in before} == before
    for mark in (project / "runs").glob(".sweep-*.tmp"):
        mark.unlink()  # of the sweep that could not clear it away
    assert_like(serial, project)
    assert "0 of 4 runs are missing" in finish(start(*MPLT, "sweep", "tiny"))


def test_interrupted(serial, project, start):
    "Ctrl-C reaches all processes of the terminal; they end, and the runs go on from where they were"
    p = start(*MPLT, "sweep", "tiny", "--jobs", "2")
    half_done(project, project)
    os.killpg(p.pid, signal.SIGINT)
    assert "stopped" in finish(p, 130)
    until(lambda: not alive(p.pid))
    finish(start(*MPLT, "sweep", "tiny", "--jobs", "2"))
    assert_like(serial, project)


def alive(group):
    groups = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True).stdout
    rows = (line.split() for line in groups.splitlines())
    return any(int(pgid) == group and not stat.startswith("Z") for pgid, stat in rows)


def test_two_sweeps_at_once(serial, project, start):
    both = [start(*MPLT, "sweep", "tiny", "--jobs", "1") for _ in range(2)]
    for p in both:
        assert "4 runs computed" in finish(p)
    assert_like(serial, project)


# Other hosts: dask's own commands, as they are started anywhere

SCHEDULER = [
    sys.executable,
    "-m",
    "distributed.cli.dask_scheduler",
    "--no-dashboard",
    "--port",
    "0",
]
WORKER = [sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard", "--nthreads", "1"]
WORKER += ["--memory-limit", "0"]


def sh(words):
    subprocess.run(words.split(), check=True, capture_output=True)


def on_host(name, project, home=None, size=None, network=()):
    """What stands before a command so that it runs on a host of that name: with the project's
    folder, or with a home of its own in which this is not to be seen"""
    script = f"hostname {name}"
    if home:
        (home / "settings.ini").parent.mkdir(exist_ok=True)
        disk = f"mount -t tmpfs -o size={size} none '{home}' && " if size else ""
        script += f" && {disk}touch '{home}/settings.ini'"
        script += f" && mount -t tmpfs none '{project}' && cd '{home}'"
    return [*network, "unshare", "--mount", "--uts", "sh", "-c", f'{script} && exec "$@"', "sh"]


@pytest.fixture
def mounts():
    "Skips where a process may not have mounts and a host name of its own"
    words = ["unshare", "--mount", "--uts", "true"]
    if not shutil.which("unshare") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("needs root: hosts with disks of their own (unshare --mount) are not permitted")


@pytest.fixture
def hosts(mounts):
    "Two hosts, a and b, at a switch with this machine, as prefixes of commands"
    if not shutil.which("ip"):
        pytest.skip("needs iproute2: ip is missing")
    links = ["ip link del mplt-a", "ip link del mplt-b", "ip link del mplt"]
    clear = [*links, "ip netns del mplt-a", "ip netns del mplt-b"]
    for words in clear:
        subprocess.run(words.split(), capture_output=True)
    try:
        sh("ip netns add mplt-a")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root and iproute2: network namespaces (ip netns) are not permitted")
    sh("ip netns add mplt-b")
    sh("ip link add mplt type bridge")
    sh("ip addr add 10.77.0.1/24 dev mplt")
    sh("ip link set mplt up")
    for i, o in enumerate("ab"):
        sh(f"ip link add mplt-{o} type veth peer name eth0 netns mplt-{o}")
        sh(f"ip link set mplt-{o} master mplt up")
        sh(f"ip -n mplt-{o} addr add 10.77.0.{i + 2}/24 dev eth0")
        sh(f"ip -n mplt-{o} link set eth0 up")
        sh(f"ip -n mplt-{o} link set lo up")
    yield {o: ["ip", "netns", "exec", f"mplt-{o}"] for o in "ab"}
    for words in clear:
        subprocess.run(words.split(), capture_output=True)


def start_scheduler(start, project, host):
    file = project / "scheduler.json"
    start(*SCHEDULER, "--host", host, "--scheduler-file", str(file))
    until(lambda: file.exists() and file.stat().st_size)
    return json.loads(file.read_text())["address"]


@pytest.mark.parametrize("shared", [True, False])
def test_a_link_is_cut_for_good(shared, serial, project, hosts, start):
    address, homes = start_scheduler(start, project, "10.77.0.1"), {}
    for o in "ab":
        homes[o] = project if shared else project.with_name(f"home-{o}")
        prefix = on_host(o, project, None if shared else homes[o], network=hosts[o])
        start(*WORKER, address, prefix=prefix)
    p = start(*MPLT, "sweep", "tiny", "--on", str(project / "scheduler.json"))
    half_done(homes["a"], project, "a")
    sh("ip link set mplt-a down")
    finish(p)
    assert_like(serial, project)


def test_full_disk(serial, project, mounts, start):
    "A worker without space is left out, and another takes its runs"
    address = start_scheduler(start, project, "127.0.0.1")
    for name, size in ("large", None), ("small", "300k"):
        home = project.with_name(f"home-{name}")
        worker = start(*WORKER, address, prefix=on_host(name, project, home, size))
        until(lambda: "Registered to" in worker.said.read_text())
    said = finish(start(*MPLT, "sweep", "tiny", "--on", address))
    assert re.search(r"small:\d+ cannot compute: .* could not be written", said), said
    assert_like(serial, project)


# Slurm, for real

SLURM = """\
ClusterName=mplt
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobRequeue=1
MpiDefault=none
KillWait=1
NodeName={host} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as s:
        s.bind(("", 0))
        return s.getsockname()[1]


@pytest.fixture
def slurm(tmp_path, processes):
    "munged, slurmctld and slurmd on this machine; calls a command of Slurm's and returns what it says"
    missing = [o for o in ("munged", "slurmctld", "slurmd", "srun") if not shutil.which(o)]
    if missing or os.geteuid():
        pytest.skip(f"needs root and Slurm: {', '.join(missing) or 'root'} is missing")
    place = tmp_path / "slurm"
    place.mkdir()
    said = dict(place=place, host=socket.gethostname(), ports=[free_port(), free_port()])
    (place / "slurm.conf").write_text(SLURM.format(**said))
    (place / "key").write_bytes(os.urandom(128))
    (place / "key").chmod(0o600)
    files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid"}
    files |= {"seed-file": "seed", "log-file": "munged.log"}
    munged = [
        "munged",
        "--foreground",
        "--force",
        *(f"--{k}={place / v}" for k, v in files.items()),
    ]
    env = ENV | dict(SLURM_CONF=str(place / "slurm.conf"))
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    how = dict(env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    how |= dict(start_new_session=True)
    processes.append(subprocess.Popen(munged, **how))
    until((place / "munge.socket").exists)
    processes.extend(subprocess.Popen([daemon, "-D"], **how) for daemon in ("slurmctld", "slurmd"))

    def call(*words, cwd=place):
        p = subprocess.run(words, env=env, cwd=cwd, capture_output=True, text=True)
        assert p.returncode == 0, p.stderr
        return p.stdout.strip()

    until(
        lambda: "idle" in subprocess.run(["sinfo"], env=env, capture_output=True, text=True).stdout
    )
    yield call
    call("scancel", "--me")
    until(lambda: not call("squeue", "--noheader"))


def batch_script():
    "That of the guide"
    cells = json.loads((REPO / "nbs/guide_scale.ipynb").read_text())["cells"]
    text = "\n".join("".join(c["source"]) for c in cells)
    return re.search(r"^```sh\n(#!/bin/bash\n.*?)^```$", text, re.M | re.S)[1]


def test_slurm(serial, project, slurm):
    "A job is cancelled in the middle of a run, and the next one requeued"
    (project / "sweep.sh").write_text(batch_script())

    def submit():
        words = "sbatch --parsable --ntasks=2 --output=said-%j.txt sweep.sh tiny".split()
        return slurm(*words, cwd=project)

    def state(job):
        return slurm("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T")

    job = submit()
    half_done(project, project)
    slurm("scancel", job)
    until(lambda: state(job) == "CANCELLED")
    assert "CANCELLED" in (project / f"said-{job}.txt").read_text()
    left = 4 - len(list(project.glob("runs/*/summary.csv")))
    job = submit()
    said = project / f"said-{job}.txt"
    until(lambda: said.exists() and f"{left} of 4 runs are missing" in said.read_text())
    half_done(project, project)
    slurm("scontrol", "requeue", job)
    until(lambda: state(job) == "PENDING")
    slurm("scontrol", "update", f"jobid={job}", "StartTime=now")
    until(lambda: state(job) in ("COMPLETED", "FAILED"))
    assert state(job) == "COMPLETED", said.read_text()
    assert said.read_text().count("runs are missing") == 2
    for mark in (project / "runs").glob(".sweep-*.tmp"):
        mark.unlink()
    assert_like(serial, project)


# Without a cluster

TINY = config(arch="lenet5", epochs=1, limit=60, batch_size=20)
VERSION = mplt.__version__, NUMERICS


@pytest.fixture
def pool():
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor


def test_expected_seconds(project):
    "By the recorded timings of what is alike, else by multiplications"
    wide, slow = replace(TINY, arch="fc1"), replace(TINY, method="edge-popup")
    seconds = expected_seconds([TINY, wide, slow])
    assert seconds[wide] / seconds[TINY] == pytest.approx(266_200 / 416_520)  # by hand
    done = replace(slow, seed=1)
    run(done)
    file = find(done) / "record.json"
    record = json.loads(file.read_text())
    file.write_text(
        json.dumps(dict(computed=record["computed"]))
    )  # as of a run that is not finished
    assert expected_seconds([slow])[slow] > 0
    file.write_text(json.dumps(record | dict(seconds=1000)))
    assert expected_seconds([replace(slow, epochs=2)]).popitem()[1] == pytest.approx(2000)
    assert expected_seconds([wide])[wide] == pytest.approx(1000 * 266_200 / 416_520)


def test_a_run_that_fails_is_told_and_the_others_go_on(project, pool):
    diverges = replace(TINY, bn="none", weight_decay=1.0, lr=1e30)
    with pytest.raises(UserError, match="1 of 2 runs failed, the first: .*not all numbers"):
        sweep([diverges, TINY], pool)
    assert find(TINY) and not find(diverges)


@pytest.mark.parametrize("other", [("0.0", NUMERICS), (mplt.__version__, NUMERICS + 1)])
def test_another_version_refuses(other, project):
    said = work(asdict(TINY), 1, other, "no mark")
    assert "install the same" in said["unfit"] and not (project / "runs").exists()


def test_an_unfit_worker_is_excluded_if_others_are_left(project, pool, monkeypatch):
    asked = []

    def unfit_at_first(*given):
        asked.append(given)
        return dict(where="a:1", unfit="no space") if len(asked) == 1 else work(*given)

    monkeypatch.setattr(chapter, "work", unfit_at_first)
    with pytest.raises(UserError, match="a:1 cannot compute: no space"):
        sweep([TINY], pool)
    asked.clear()
    with pytest.raises(UserError, match="a:1 cannot compute: no space"):
        sweep([TINY], pool, exclude=lambda worker: 0)
    asked.clear()
    excluded = []
    sweep([TINY], pool, exclude=lambda worker: excluded.append(worker) or 1)
    assert excluded == ["a:1"] and find(TINY)


def test_a_worker_without_the_data_is_unfit(project, monkeypatch):
    monkeypatch.setenv("MPLT_DATA", "nowhere")
    chapter.loaded.cache_clear()
    photographs = asdict(replace(TINY, dataset="imagenet", arch="resnet18"))
    assert "imagenet" in work(photographs, 1, VERSION, "no mark")["unfit"]


def test_a_run_in_use_is_tried_again(project, pool, monkeypatch):
    at_work = reserved(project / "runs" / config_hash(TINY), TINY)
    at_work.__enter__()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        at_work.__exit__(None, None, None)

    monkeypatch.setattr(time, "sleep", sleep)
    rows = sweep([TINY], pool)
    assert slept == [1] and list(rows.config_hash) == [config_hash(TINY)]


def test_what_is_not_whole_is_not_taken_in(project, pool):
    folder = project / "elsewhere"
    run(TINY, folder)
    files = left_files(folder)
    spoilt = [{k: v for k, v in files.items() if k != name} for name in files if "csv" in name]
    spoilt.append(files | {"ticket.safetensors": files["ticket.safetensors"][:-1]})
    spoilt.append(files | {"summary.csv": files["summary.csv"].replace(b"lenet5", b"fc1")})
    spoilt = [o for o in spoilt if "controls.csv" in o]  # which an old run may lack
    for o in spoilt:
        with pytest.raises(UserError, match="is not finished|damaged|another config"):
            take_in(o, TINY)
        assert not [f for f in (project / "runs").iterdir() if f.name != "lock"]
    assert take_in(files, TINY) and not take_in(files, TINY)
    assert left_files(project / "runs" / config_hash(TINY)) == files


def test_import(project, capsys, monkeypatch):
    there = project / "from a box"
    for seed in range(4):
        run(replace(TINY, seed=seed), there / "runs" / str(seed))
    (there / "runs/1/summary.csv").unlink()
    (there / "runs/2/levels.csv").write_text("")
    file = there / "runs/3/config.json"
    file.write_text(file.read_text().replace(f'"numerics": {NUMERICS}', '"numerics": 0'))
    became = import_runs(there).became.to_list()
    assert became[:2] == ["taken in", "not finished"]
    assert "levels.csv is missing or damaged" in became[2] and "numerics differ" in became[3]
    assert find(TINY) and not find(replace(TINY, seed=1))
    assert command.main(["runs", "import", str(there / "runs/0")]) == 0
    assert "here before" in capsys.readouterr().out
    assert command.main(["runs", "import", str(there)]) == 2
    assert "2 of 4 folders were refused" in capsys.readouterr().err
    assert command.main(["runs", "import", str(project / "suites")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_workers_and_threads_never_need_more_than_the_cores():
    assert share(cores=8) == (8, 1) and share(cores=8, threads=3) == (2, 3)
    assert share(cores=8, jobs=3) == (3, 2) and share(cores=32, gpus=4) == (4, 8)
    assert share(cores=2, threads=2, jobs=1) == (1, 2)
    for asked in dict(jobs=9), dict(jobs=2, threads=5), dict(threads=9):
        with pytest.raises(UserError, match="cores, and there are 8"):
            share(**asked, cores=8)


@pytest.mark.parametrize(
    "words, says",
    [
        ("tiny --on here.json", "neither an address nor the file of a scheduler"),
        ("tiny --on tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        ("tiny --on tcp://127.0.0.1:1 --jobs 2", "--jobs does not fit --on"),
        ("tiny --jobs 0", "0 is not in the range"),
        ("tiny fwe", "unknown run 'fwe': did you mean 'few'?"),
        ("tiyn", "unknown suite 'tiyn': did you mean 'tiny'?"),
    ],
)
def test_sentences(words, says, project, capsys):
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert command.main(["sweep", *words.split()]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_without_the_extra(project, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert command.main(["sweep", "tiny"]) == 2
    assert "distributed is not installed: pip install 'mplt[sweep]'" in capsys.readouterr().err
