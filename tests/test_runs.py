"A finished run is whole, found wherever it lies, and computed once; what is damaged ends in a sentence"

import json
import shutil

import pytest
from conftest import REPO

from mplt import experiment, pipeline, ticket
from mplt.config import config
from mplt.errors import UserError
from mplt.experiment import find, finished, publish, published_folder, read_row, run

SETTINGS = dict(
    arch="lenet5", method="imp", sparsity=0.9, cycles=2, epochs=1, limit=200, batch_size=50
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "run"
    run(SETTINGS, folder)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def root(tmp_path, monkeypatch):
    "Somebody's project folder"
    (tmp_path / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.setenv("MPLT_DATA", str(REPO / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(place):
    files = (f for f in place.iterdir() if f.is_file() and f.name not in ("record.json", "lock"))
    return {f.name: f.read_bytes() for f in files}


def test_finished(folder):
    c = config(**SETTINGS)
    assert finished(folder, c) and not finished(folder.with_name("other"), c)
    with pytest.raises(UserError, match="holds a run of another config .seed differ"):
        finished(folder, config(**SETTINGS, seed=1))


def spoil(file, how):
    if how == "missing":
        file.unlink()
    if how == "empty":
        file.write_bytes(b"")
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-7])
    if how == "a row short":
        file.write_bytes(b"".join(file.read_bytes().splitlines(True)[:-1]))
    if how == "noise":
        file.write_bytes(bytes(range(256)) * 8)
    if how == "a folder":
        file.unlink(), file.mkdir()
    if how == "of another run" and file.suffix == ".safetensors":
        header, packed = ticket.read_file(file)
        header = {k: v for k, v in header.items() if k not in ("format", "sha256")}
        ticket.write_file(file, header | dict(config_hash="0" * 12), packed)
    elif how == "of another run":
        file.write_bytes(file.read_bytes().replace(config_hash().encode(), b"0" * 12))


def config_hash():
    return experiment.config_hash(config(**SETTINGS))


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "noise", "of another run"])
def test_without_its_ticket_it_is_not_finished(folder, how):
    "It goes on from its state, and ends with the same bytes"
    before = content(folder)
    spoil(folder / "ticket.safetensors", how)
    assert not finished(folder, config(**SETTINGS))
    run(SETTINGS, folder)
    assert content(folder) == {**before, "state.pt": content(folder)["state.pt"]}


@pytest.mark.parametrize("file", ["ticket.safetensors", "summary.csv"])
def test_a_folder_is_no_file(folder, file):
    spoil(folder / file, "a folder")
    assert not finished(folder, config(**SETTINGS))
    with pytest.raises(UserError, match=f"{file} could not be written"):
        run(SETTINGS, folder)


@pytest.mark.parametrize(
    "file", ["summary.csv", "levels.csv", "curves.csv", "layers.csv", "config.json"]
)
@pytest.mark.parametrize("how", ["empty", "cut", "noise", "of another run"])
def test_damaged_file_is_a_sentence(folder, file, how):
    spoil(folder / file, how)
    says = f"{file} is missing or damaged|holds a run of another config"
    with pytest.raises(UserError, match=says) as e:
        run(SETTINGS, folder)
    assert str(folder) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("file", ["config.json", "record.json"])
@pytest.mark.parametrize("says", ["{}", "[]", '{"config": 1, "computed": [1]}', '{"computed": []}'])
def test_json_that_says_nothing(folder, file, says):
    (folder / file).write_text(says)
    with pytest.raises(UserError, match=f"{file} is missing or damaged"):
        finished(folder, config(**SETTINGS))


@pytest.mark.parametrize("how", ["empty", "cut", "noise"])
@pytest.mark.parametrize("file", ["state.pt", "record.json", "levels.csv", "layers.csv"])
def test_damaged_file_of_an_unfinished_run(folder, file, how):
    (folder / "summary.csv").unlink()
    spoil(folder / file, how)
    with pytest.raises(UserError, match=f"{file} is (missing or )?damaged"):
        run(SETTINGS, folder)


@pytest.mark.parametrize("file", ["levels.csv", "curves.csv", "layers.csv"])
def test_a_row_short_is_not_finished(folder, file):
    "It goes on from its state, and ends with the same bytes"
    before = content(folder)
    if file == "layers.csv":
        lines = (folder / file).read_text().splitlines(True)
        (folder / file).write_text("".join(o for o in lines if ",2," not in o))
    else:
        spoil(folder / file, "a row short")
    assert content(folder) != before
    assert not finished(folder, config(**SETTINGS))
    run(SETTINGS, folder)
    assert content(folder) == {**before, "state.pt": content(folder)["state.pt"]}


def test_rows_stay_until_there_are_new_ones(folder, monkeypatch):
    for f in "ticket.safetensors", "state.pt":
        (folder / f).unlink()
    before = content(folder)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "leave_level", killed)
    with pytest.raises(KeyboardInterrupt):
        run(SETTINGS, folder)
    after = content(folder)
    curves, old = (o.pop("curves.csv").splitlines() for o in (after, before))
    assert {f: after[f] for f in before} == before and curves == old[:2]  # an epoch of the new ones


def test_begun_again_is_not_finished(folder, monkeypatch):
    "Killed in a later cycle, after ticket and state were lost: what it had before does not make it finished"
    for f in "ticket.safetensors", "state.pt":
        (folder / f).unlink()
    leave = experiment.leave_level

    def killed(folder, c, source, parts, model, cycle):
        leave(folder, c, source, parts, model, cycle)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "leave_level", killed)
    with pytest.raises(KeyboardInterrupt):
        run(SETTINGS, folder)
    assert not finished(folder, config(**SETTINGS))


def test_nothing_is_computed_where_git_keeps_runs(root, folder):
    c = config(**SETTINGS)
    place = publish(folder, c)
    (place / "ticket.safetensors").unlink()
    with pytest.raises(UserError, match="is for finished runs"):
        run(c, f"results/runs/{place.name}")


def test_lost_levels_are_noticed(folder):
    (folder / "summary.csv").unlink()
    lines = (folder / "levels.csv").read_text().splitlines(True)
    (folder / "levels.csv").write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(UserError, match="levels.csv lacks cycles"):
        run(SETTINGS, folder)


def test_published_run_is_found(root, folder):
    c = config(**SETTINGS)
    assert find(c) is None
    place = publish(folder, c)
    assert place == published_folder(c) == find(c) == root / "results/runs" / config_hash()
    assert run(SETTINGS) == read_row(folder) and not (root / "runs").exists()
    before = content(place)
    (place / "ticket.safetensors").write_bytes(b"")
    assert find(c) is None
    assert publish(folder, c) == place and content(place) == before
    assert [f.name for f in place.parent.iterdir()] == [place.name]


def test_a_copy_for_an_experiment_shares_the_runs(root, folder, monkeypatch):
    c = config(**SETTINGS)
    copy = root / ".dvc/tmp/exps/standalone/tmp1"
    copy.mkdir(parents=True)
    (copy / "settings.ini").write_text("[DEFAULT]\n")
    monkeypatch.chdir(copy)
    assert experiment.folder_of(c) == root / "runs" / config_hash()
    mine = shutil.copytree(folder, root / "runs" / config_hash())
    assert find(c) == mine and published_folder(c).is_relative_to(copy)


def test_a_stage_waits_for_a_run_of_another(monkeypatch):
    tries = []

    def busy(c):
        tries.append(c)
        if len(tries) < 3:
            raise experiment.InUse("in use")
        return "a row"

    monkeypatch.setattr(pipeline, "run", busy)
    monkeypatch.setattr(pipeline.time, "sleep", lambda seconds: None)
    assert pipeline.run_or_wait("c") == "a row" and tries == ["c"] * 3


def test_the_other_copy_of_a_damaged_one(root, folder):
    "A damaged published run is passed over for the whole one in runs/, and replaced by it"
    c, before = config(**SETTINGS), content(folder)
    mine = shutil.copytree(folder, root / "runs" / config_hash())
    place = publish(mine, c)
    spoil(place / "levels.csv", "noise")
    assert find(c) == mine
    assert publish(mine, c) == place == find(c) and content(place).items() <= before.items()
    spoil(place / "levels.csv", "noise"), shutil.rmtree(mine)
    with pytest.raises(UserError, match="levels.csv is missing or damaged"):
        find(c)


def changed(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_what_it_says_of_itself_is_compared(folder):
    "Settings in row and config.json with what was asked for, the row with the last of the levels"
    c, row = config(**SETTINGS), read_row(folder)
    changed(folder / "config.json", '"lr": 0.0012', '"lr": 0.0013')
    with pytest.raises(UserError, match="holds a run of another config .lr differ"):
        finished(folder, c)
    changed(folder / "config.json", '"lr": 0.0013', '"lr": 0.0012')
    changed(folder / "config.json", '"config_hash"', '"hash"')
    with pytest.raises(UserError, match="holds a run of another config .config_hash differ"):
        finished(folder, c)
    changed(folder / "config.json", '"hash"', '"config_hash"')
    changed(folder / "summary.csv", ",0.0012,", ",0.0013,")
    with pytest.raises(UserError, match="summary.csv is of another config .lr differ"):
        finished(folder, c)
    changed(folder / "summary.csv", ",0.0013,", ",0.0012,")
    assert finished(folder, c)
    for file in "summary.csv", "levels.csv":
        changed(folder / file, f",{row['test_accuracy']},", ",0.999,")
        assert not finished(folder, c), "neither the row alone, nor against its ticket"


def test_layers_are_those_of_the_row(folder):
    c, file = config(**SETTINGS), folder / "layers.csv"
    lines = file.read_text().splitlines(True)
    for fewer in lines[:-1], [*lines[:-1], lines[-1].replace(",84", ",85", 1)]:
        assert "".join(fewer) != "".join(lines)
        file.write_text("".join(fewer))
        assert not finished(folder, c)


def test_a_lost_record_is_told(folder, caplog):
    for f in "summary.csv", "record.json":
        (folder / f).unlink()
    run(SETTINGS, folder)
    assert "record.json is lost" in caplog.text and finished(folder, config(**SETTINGS))


def test_without_its_record_it_is_not_finished(folder):
    (folder / "record.json").unlink()
    assert not finished(folder, config(**SETTINGS))


@pytest.mark.parametrize(
    "make",
    [
        lambda f: ((f / "cycles").rename(f / "old"), (f / "cycles").touch()),
        lambda f: (f / ".x.mplt-1.tmp").mkdir(),
    ],
)
def test_what_is_in_the_way_is_a_sentence(folder, make):
    (folder / "summary.csv").unlink()
    make(folder)
    with pytest.raises(UserError, match="cannot be written") as e:
        run(SETTINGS, folder)
    assert str(folder) in str(e.value) and "\n" not in str(e.value)


def test_dense_weights_are_not_published(root):
    c = config(arch="fc1", width=0.1, method="dense", epochs=1, limit=100, batch_size=50)
    run(c)
    assert find(c) == root / "runs" / experiment.config_hash(c) and ticket.info(
        find(c) / "ticket.safetensors"
    )
    place = publish(find(c), c)
    assert find(c) == place and not (place / "ticket.safetensors").exists()
    (root / "runs" / place.name / "ticket.safetensors").unlink()
    assert not finished(root / "runs" / place.name, c)


def test_another_numerics_is_another_run(folder, monkeypatch):
    "What was finished stays, and its folder is not taken"
    before = content(folder)
    monkeypatch.setattr(experiment, "NUMERICS", experiment.NUMERICS + 1)
    with pytest.raises(UserError, match="holds a run of another config .numerics differ"):
        run(SETTINGS, folder)
    assert content(folder) == before
    assert config_hash() != json.loads((folder / "config.json").read_text())["config_hash"]


def test_taken_up_elsewhere(folder, caplog, monkeypatch):
    "It says so, and keeps both in its record"
    (folder / "summary.csv").unlink()
    here = experiment.provenance
    other = dict(threads=64, cpu="another")
    monkeypatch.setattr(experiment, "provenance", lambda where: here(where) | other)
    run(SETTINGS, folder)
    assert "is taken up with cpu another (before: " in caplog.text
    assert "threads 64 (before: " in caplog.text
    record = json.loads((folder / "record.json").read_text())
    assert [o["threads"] for o in record["computed"]][1:] == [64] and record["seconds"] > 0
    caplog.clear()
    (folder / "summary.csv").unlink()
    run(SETTINGS, folder)
    assert "taken up" not in caplog.text
    assert len(json.loads((folder / "record.json").read_text())["computed"]) == 2
