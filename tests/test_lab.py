"nbs/explore.ipynb in a real JupyterLab and browser: it runs from a fresh clone, and its widgets answer"

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import REPO, copy_tree

from mplt.lab import tickets

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'mplt[test]'"
)
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
SHOTS = os.environ.get("MPLT_SHOTS")  # a folder for screenshots
OPEN = """() => {
    const shown = window.jupyterapp?.shell.currentWidget
    return shown?.context?.path == '_explore.ipynb' && shown.sessionContext.session?.kernel?.status == 'idle'
}"""
DONE = """() => {
    const shown = jupyterapp.shell.currentWidget
    const cells = [...shown.content.model.cells].filter(c => c.type == 'code')
    const outputs = cells.flatMap(c => c.outputs.toJSON())
    const errors = outputs.filter(o => o.output_type == 'error' || o.name == 'stderr')
    if (errors.length) return JSON.stringify(errors)
    const idle = shown.sessionContext.session.kernel.status == 'idle'
    return idle && cells.every(c => c.executionCount) && 'done'
}"""
FIND = """source => {
    const notebook = jupyterapp.shell.currentWidget.content
    const index = notebook.widgets.findIndex(c => c.model.sharedModel.source.includes(source))
    notebook.scrollToItem(index, 'start')
    return index
}"""


def test_what_one_has_changed_stays(tmp_path):
    "… also when a newer notebook has come"
    shutil.copy(REPO / "Makefile", tmp_path)
    theirs, mine = tmp_path / "nbs/explore.ipynb", tmp_path / "nbs/_explore.ipynb"
    theirs.parent.mkdir()
    theirs.write_text("first")
    make = partial(subprocess.run, ["make", "nbs/_explore.ipynb"], cwd=tmp_path, check=True)
    make()
    assert mine.read_text() == "first"
    mine.write_text("changed")
    theirs.write_text("second")
    os.utime(theirs, (time.time() + 60,) * 2)
    make()
    assert mine.read_text() == "changed"


@pytest.fixture(scope="module")
def browser():
    "Chromium: the system's, or else playwright's own"
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as p:
        if not found and not Path(p.chromium.executable_path).exists():
            pytest.skip(
                "no browser is installed: apt-get install chromium, or playwright install chromium"
            )
        b = p.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield b
        b.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "The address and the folder of a JupyterLab, as `make lab` starts it, in a copy of the working tree"
    copy_tree(clone := tmp_path_factory.mktemp("a clone") / "mplt")
    git = "git", "-c", "user.name=t", "-c", "user.email=t@example.org"
    for command in (*git, "init", "-q"), (*git, "add", "-A"), (*git, "commit", "-qm", "all"):
        subprocess.run(command, cwd=clone, check=True)
    subprocess.run(["make", "nbs/_explore.ipynb"], cwd=clone, check=True)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    quiet = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    env = os.environ | dict(
        PYTHONPATH=str(clone),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        JUPYTER_CONFIG_DIR=str(home / "config"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "workspaces"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "settings"),
        JUPYTER_RUNTIME_DIR=str(home / "runtime"),
    )
    command = re.search(r"^\tjupyter (lab .*)$", (clone / "Makefile").read_text(), re.M)[1].split()
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter",
                *command,
                "--no-browser",
                f"--ServerApp.port={port}",
                "--ServerApp.port_retries=0",
                "--IdentityProvider.token=test",
                "--allow-root",
                "--expose-app-in-browser",
            ],
            cwd=clone,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    for _ in range(600):
        if "is running at" in (home / "log").read_text():
            break
        assert server.poll() is None, (home / "log").read_text()
        time.sleep(0.1)
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{port}/lab/tree/{Path(command[-1]).name}?token=test", path=clone
    )
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def page(browser, lab):
    "The notebook, all of its cells run"
    page = browser.new_page(viewport=dict(width=1400, height=1000), has_touch=True)
    page.set_default_timeout(60_000)
    page.goto(lab.url)
    page.wait_for_function(OPEN)
    start = time.time()
    page.evaluate("jupyterapp.commands.execute('runmenu:run-all')")
    said = page.wait_for_function(DONE, timeout=120_000).json_value()
    page.seconds = time.time() - start
    assert said == "done", said
    return page


def cell(page, source, shot=""):
    "The outputs of the cell that holds this source, as they are shown, scrolled to"
    index = page.evaluate(FIND, source)
    outputs = page.locator(
        f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-Cell-outputArea'
    )
    outputs.wait_for()
    if SHOTS and shot:
        outputs.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        outputs.screenshot(path=f"{SHOTS}/{shot}.png")
    return outputs


def says(outputs, pattern):
    sync_api.expect(outputs).to_contain_text(re.compile(pattern, re.S), timeout=30_000)


def test_runs_in_less_than_a_minute(page):
    print(f"{page.seconds:.0f} s")
    assert page.seconds < 60


def test_ticket(page):
    "Another run and another ticket: accuracy, size and pictures are theirs; what each layer costs follows"
    outputs = cell(page, "live(show_ticket", "ticket")
    says(outputs, r"12,294 of 61,470.*[\d.]+% of 1,000 images, training digits of MNIST")
    run, ticket = outputs.locator("select").all()
    run.select_option("mnist: fc1, mpt-1-1")
    says(outputs, "266,200")
    label = ticket.locator(
        "option", has_text="80 % pruned, 10 epochs, seed 1"
    ).inner_text()  # its hash follows
    ticket.select_option(label.replace("\xa0", " "))
    says(outputs, r"53,240 of 266,200.*[\d.]+% of 1,000 images")
    sync_api.expect(outputs.locator("img")).to_have_count(1)
    cell(page, "live(show_ticket", "ticket-fc1")
    says(cell(page, "live(show_bits", "bits"), "235,200.*7,526,400")


def test_photographs(page):
    "Of CIFAR-10 a fresh clone has ten images, and the ticket's answers to them"
    outputs = cell(page, "live(show_ticket")
    outputs.locator("select").first.select_option("cifar10: conv4 × 0.25, mpt-1-32")
    says(outputs, r"[\d.]+% of 10 images")
    cell(page, "live(show_ticket", "ticket-cifar10")


def test_any_file(page):
    "By its path and by upload; a file that is no ticket ends in a sentence"
    outputs = cell(page, "live(show_ticket")
    file = tickets().query("run == 'mnist: lenet5, mpt-1-1' and sparsity == 0.8").file.iloc[0]
    path = outputs.get_by_placeholder("path of a ticket")
    path.fill("/nowhere/ticket.safetensors")
    path.press("Enter")
    says(outputs, "/nowhere/ticket.safetensors")
    path.fill(str(file))
    path.press("Enter")
    says(outputs, f"12,294 of 61,470.*{file.stat().st_size:,} bytes")
    other = tickets().query("run == 'mnist: fc1, mpt-1-32' and sparsity == 0.9").file.iloc[0]
    with page.expect_file_chooser() as chooser:
        outputs.get_by_role("button", name="upload").click()
    chooser.value.set_files(other)
    says(outputs, f"26,620 of 266,200.*{other.stat().st_size:,} bytes")
    run = "mnist: fc1, mpt-1-32"  # another than was chosen: its first ticket is shown
    outputs.locator("select").first.select_option(run)
    first = tickets().query("run == @run").file.iloc[0]
    says(outputs, f"of 266,200.*{first.stat().st_size:,} bytes")
    path.fill(str(file))
    path.press("Enter")
    says(outputs, f"12,294 of 61,470.*{file.stat().st_size:,} bytes")


def test_two_tickets(page):
    outputs = cell(page, "live(show_two", "two")
    says(outputs, r"by chance.*The same answer to [\d.]+% of 10 images")
    for i in (0, 2):
        outputs.locator("select").nth(i).select_option("mnist: fc1, mpt-1-32")
    says(outputs, r"fc3.*The same answer to [\d.]+% of 1,000 images")
    outputs.locator("select").first.select_option("mnist: lenet5, mpt-1-32")
    says(outputs, "the two networks differ in shape")


def test_training(page):
    "It runs while one looks, its picture changes, and the button stops it"
    outputs = cell(page, "Trainer(", "train")
    button = outputs.get_by_role("button")
    button.click()
    says(outputs, r"[1-9] s: [\d.]+% right, [1-9][\d.]*% of the mask changed")
    picture = outputs.locator("img")
    before = picture.get_attribute("src")
    sync_api.expect(picture).not_to_have_attribute("src", before, timeout=30_000)
    cell(page, "Trainer(", "train-running")
    button.click()
    sync_api.expect(button).to_have_text("train for 60 s", timeout=30_000)


def test_sparsity_slider(page):
    outputs = cell(page, "live(pruner.show", "slider")
    says(outputs, "80 % pruned: [\\d.]+% right as it is")
    for _ in range(15):
        outputs.locator(".noUi-handle").press("ArrowRight")
    says(outputs, "95 % pruned: [\\d.]+% right as it is, [\\d.]+% with new")
    cell(page, "live(pruner.show", "slider-moved")


def test_drawing(page):
    "A 1 in the place of the 2, with the mouse; then a 7, with a finger"
    outputs = cell(page, "live(asked.show", "drawing")
    says(outputs, "says 2.*says 2.*says 2")
    clear, canvas, touch = (
        outputs.get_by_role("button", name="clear"),
        outputs.locator("canvas"),
        page.context.new_cdp_session(page),
    )

    def at(x, y):
        box = canvas.bounding_box()
        return dict(x=box["x"] + x, y=box["y"] + y)

    clear.click()
    says(outputs, "Draw a digit")
    page.mouse.move(**at(150, 50))
    page.mouse.down()
    page.mouse.move(**at(130, 230), steps=12)
    page.mouse.up()
    says(outputs, "says 1.*says 1.*says 1")
    cell(page, "live(asked.show", "drawing-1")
    clear.click()
    says(outputs, "Draw a digit")

    def finger(kind, *points):
        touch.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))

    finger("touchStart", at(80, 60))
    for x, y in (
        (120, 60),
        (160, 60),
        (200, 60),
        (185, 90),
        (170, 120),
        (155, 150),
        (140, 185),
        (130, 220),
    ):
        finger("touchMove", at(x, y))
    finger("touchEnd")
    says(outputs, "says 7.*says 7.*says 7")
    cell(page, "live(asked.show", "drawing-7")


def test_estimators(page):
    outputs = cell(page, "live(show_estimators", "estimators")
    says(outputs, r"activation: 1.00, gradient 1.20\s.*score: 0.00, gradient 1.00")
    for _ in range(8):
        outputs.locator(".noUi-handle").press("ArrowRight")
    says(outputs, r"activation: 1.00, gradient 0.00\s.*score: 1.00, gradient 1.00")


def test_pen_waits_for_nobody(page):
    "While the kernel is busy, strokes are on the canvas as they are drawn"
    canvas = cell(page, "live(asked.show").locator("canvas")
    canvas.scroll_into_view_if_needed()
    ink = "o => o.getContext('2d').getImageData(0, 0, 280, 280).data.filter(v => v).length"
    kernel = "jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    sleep = "{code: 'import time; time.sleep(60)'}"
    page.evaluate(f"() => {{ {kernel}.requestExecute({sleep}).done.catch(() => {{}}) }}")
    page.wait_for_function(f"{kernel}.status == 'busy'")
    before, box = canvas.evaluate(ink), canvas.bounding_box()
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 250, steps=5)
    drawn = canvas.evaluate(ink)
    assert page.evaluate(f"{kernel}.status") == "busy" and drawn > before + 1000
    page.mouse.up()
    page.evaluate(f"{kernel}.interrupt()")


def test_playing_leaves_git_clean(page, lab):
    "… when the notebook is saved, too"
    page.evaluate("jupyterapp.commands.execute('docmanager:save')")
    saved, source = (lab.path / f"nbs/{o}.ipynb" for o in ("_explore", "explore"))
    for _ in range(100):
        if saved.read_bytes() != source.read_bytes():
            break
        time.sleep(0.1)
    assert saved.read_bytes() != source.read_bytes()
    command = ["git", "status", "--porcelain"]
    said = subprocess.run(command, cwd=lab.path, check=True, capture_output=True, text=True).stdout
    assert said == ""
