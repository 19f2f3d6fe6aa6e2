"What is there stays, and whatever a command stumbles over is named in one line"

import os

import pytest
from conftest import REPO

from mplt import engine, ticket
from mplt.command import ending, main
from mplt.config import config
from mplt.data import SOURCES, picture
from mplt.errors import UserError
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


@pytest.mark.parametrize("mine", ["t2.safetensors", "notes.md"])
def test_what_is_there_is_written_over_only_by_force(mine, here, capsys):
    (here / "notes.md").write_text("mine")
    words, before = ["ticket", "export", "t1.safetensors", mine], (here / mine).read_bytes()
    sentence(capsys, main(words), f"{mine} is there already and would be lost")
    assert (here / mine).read_bytes() == before and not (here / "notes.png").exists()
    assert main([*words, "--force"]) == 0 and (here / mine).read_bytes() != before


def test_pull_writes_over_a_file_only_by_force(here, capsys):
    assert main("ticket push t1.safetensors there".split()) == 0
    (here / "mine").write_text("mine")
    capsys.readouterr()
    sentence(capsys, main("ticket pull there mine".split()), "mine is there already")
    assert (here / "mine").read_text() == "mine"
    assert pull("there", "mine", force=True) == (here / "t1.safetensors").stat().st_size


def test_a_card_and_its_picture_are_written_both_or_neither(here, capsys):
    (here / "card.png").write_text("mine")
    (here / "other.md").mkdir()
    for name, lost in ("card.md", "card.png"), ("other.md", "other.md"):
        sentence(
            capsys, main(["ticket", "export", "t1.safetensors", name]), f"{lost} is there already"
        )
    assert (here / "card.png").read_text() == "mine" and not (here / "card.md").exists()
    words = "ticket export t1.safetensors other.md --force".split()
    sentence(capsys, main(words), "other.md could not be written")
    assert not (here / "other.png").exists()
    assert main("ticket export t1.safetensors card.md --force".split()) == 0
    assert (here / "card.png").read_bytes()[1:4] == b"PNG"


def test_ones_own_hidden_folders_stay_beside_data(tmp_path, monkeypatch, capsys):
    wrong = tmp_path / "mirror" / next(iter(SOURCES["mnist"].files))
    wrong.parent.mkdir(parents=True)
    wrong.write_text("wrong")
    monkeypatch.setenv("MPLT_DATA_MIRROR", str(tmp_path / "mirror"))
    for name in ".mnist-backup", ".mnist.mplt-killed":
        (tmp_path / "data" / name).mkdir(parents=True)
        os.utime(tmp_path / "data" / name, (0, 0))
    sentence(capsys, main(["data", "fetch", "mnist", "--root", str(tmp_path / "data")]), wrong.name)
    assert [o.name for o in (tmp_path / "data").iterdir()] == [".mnist-backup"]


def test_a_picture_is_not_given_to_another_program(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(UserError, match="x.png cannot be read as an image .*cannot identify"):
        picture(tmp_path / "x.png")


def test_settings_that_are_no_file(tmp_path, monkeypatch, capsys):
    os.mkfifo(tmp_path / "settings.ini")
    monkeypatch.chdir(tmp_path)
    sentence(
        capsys, main(["data", "verify", "mnist5k"]), "settings.ini cannot be read (it is no file)"
    )


@pytest.mark.parametrize("given", [{}, dict(COMP_WORDS="mplt ru", COMP_CWORD="x")])
def test_completion_that_is_asked_nonsense(given, monkeypatch, capsys):
    monkeypatch.setenv("_MPLT_COMPLETE", "bash_complete")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main() == 0 and capsys.readouterr() == ("", "")


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
