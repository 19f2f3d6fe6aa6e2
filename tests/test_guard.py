"What is there stays, and whatever a command stumbles over is named in one line"

import os

import pytest
from conftest import REPO

from mplt import engine, ticket
from mplt.command import ending, main
from mplt.config import config
from mplt.data import SOURCES
from mplt.experiment import threads
from mplt.export import pull
from mplt.models import build
from mplt.subnet import as_subnet

CYCLES = "--arch fc1 --width 0.1 --limit 60 --batch_size 20 --epochs 1 --method imp --cycles 1 --sparsity 0.5"


@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder with two tickets in it"
    monkeypatch.chdir(tmp_path)
    for seed in 1, 2:
        net = as_subnet(build("fc1", (1, 28, 28), 10, 0.1), "mpt-1-32", 0.5, seed)
        ticket.save(f"t{seed}.safetensors", net)
    return tmp_path


def sentence(capsys, status, says, command="mplt"):
    "One line that names it, status 2"
    said = capsys.readouterr().err.strip().split("\n")
    assert status == 2 and len(said) == 1 and said[0].startswith(f"{command}: "), said
    assert says in said[0]


def test_another_ticket_is_written_over_only_by_force(here, capsys):
    words = "ticket export t1.safetensors t2.safetensors".split()
    before = (here / "t2.safetensors").read_bytes()
    sentence(capsys, main(words), "t2.safetensors is a ticket, which would be lost")
    assert (here / "t2.safetensors").read_bytes() == before
    assert main([*words, "--force"]) == 0 and (here / "t2.safetensors").read_bytes() != before


def test_pull_writes_over_a_file_only_by_force(here, capsys):
    assert main("ticket push t1.safetensors there".split()) == 0
    (here / "mine").write_text("mine")
    capsys.readouterr()
    sentence(capsys, main("ticket pull there mine".split()), "mine is there already")
    assert (here / "mine").read_text() == "mine"
    assert pull("there", "mine", force=True) == (here / "t1.safetensors").stat().st_size


def test_a_picture_that_is_no_cards_is_written_over_only_by_force(here, capsys):
    (here / "card.png").write_text("mine")
    words = "ticket export t1.safetensors card.md".split()
    sentence(capsys, main(words), "card.png is there already")
    assert (here / "card.png").read_text() == "mine" and not (here / "card.md").exists()
    assert main([*words, "--force"]) == 0 and (here / "card.png").read_bytes()[1:4] == b"PNG"
    assert main(words) == 0  # its own


def test_ones_own_hidden_files_stay_and_leftovers_go(tmp_path):
    again = f"run {CYCLES} --out {tmp_path}/run".split()
    assert main(again) == 0
    (tmp_path / "run/summary.csv").unlink()
    mine = [tmp_path / f"run/{o}" for o in (".mine.tmp", ".notes.7.tmp", "cycles/.x.tmp")]
    left = [tmp_path / f"run/{o}.mplt-77.tmp" for o in (".state.pt", "cycles/.00.safetensors")]
    for f in mine + left:
        f.write_text("x")
    assert main(again) == 0
    assert [f.exists() for f in mine + left] == [True] * 3 + [False] * 2


def test_a_machine_with_too_much_to_do_is_said_so(monkeypatch, caplog):
    for load, said in (0, 0), (99 * os.cpu_count(), 1):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0, 0))
        with threads(config(arch="fc1", dataset="mnist5k"), SOURCES["mnist5k"]):
            assert caplog.text.count(f"a load of {load}") == said


def test_a_working_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status = main(["methods"])
    os.chdir(REPO)
    sentence(capsys, status, "the working folder is gone")


@pytest.mark.parametrize("size", ["x", "", "²", "-1", "1.5", "9" * 50])
def test_what_torchrun_sets_is_a_number(size, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", size)
    status = main(f"run {CYCLES} --out {tmp_path}/run".split())
    sentence(capsys, status, f"WORLD_SIZE is {size!r} in the environment")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    status = main(f"run {CYCLES} --out {tmp_path}/run".split())
    sentence(capsys, status, "LOCAL_RANK is '' in the environment")


@pytest.mark.parametrize("stage", ["", "run@a", "run@\x1b[31m", "tables", "rum"])
def test_a_stage_stumbles_as_the_command_does(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DVC_STAGE", stage)
    monkeypatch.setattr("sys.argv", ["mplt-stage"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").mkdir()
    sentence(capsys, engine.main(), "params.yaml is no suite", "mplt-stage")
    (tmp_path / "params.yaml").rmdir()
    (tmp_path / "params.yaml").write_text("suite: x\nroot: ''\n")
    status, said = engine.main(), capsys.readouterr().err
    assert status == 2 and said.startswith("mplt-stage: ") and "\x1b" not in said


@pytest.mark.parametrize(
    "error, says",
    [
        (ImportError("ft2font.so: failed to map segment from shared object"), "too little memory"),
        (ImportError("No module named 'torchvision'"), "install mplt anew"),
    ],
)
def test_a_library_that_does_not_load(error, says):
    assert says in ending(error)[0]
