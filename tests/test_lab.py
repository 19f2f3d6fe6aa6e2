"nbs/explore.ipynb in a real JupyterLab and browser: it runs from a fresh clone, and its widgets answer"

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import copy_tree

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'mplt[test]'"
)
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"
SHOTS = os.environ.get("MPLT_SHOTS")  # a folder for screenshots
OPEN = """() => {
    const shown = window.jupyterapp?.shell.currentWidget
    return shown?.context?.path == 'explore.ipynb' && shown.sessionContext.session?.kernel?.status == 'idle'
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
    "The address of a JupyterLab, started as `make lab` starts it in a copy of git's working tree"
    copy_tree(clone := tmp_path_factory.mktemp("a clone") / "mplt")
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
    yield f"http://127.0.0.1:{port}/lab/tree/{Path(command[-1]).name}?token=test"
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="module")
def page(browser, lab):
    "The notebook, all of its cells run"
    page = browser.new_page(viewport=dict(width=1400, height=1000), has_touch=True)
    page.set_default_timeout(60_000)
    page.goto(lab)
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
    "Another run and another ticket: accuracy, size and pictures are theirs; the menus' other view follows"
    outputs = cell(page, "live(show_ticket", "ticket")
    says(outputs, r"12,294 of 61,470.*[\d.]+% of 1,000 images, training digits of MNIST")
    run, ticket = outputs.locator("select").all()
    run.select_option("mnist: fc1, mpt-1-1")
    says(outputs, "266,200")
    label = ticket.locator(
        "option", has_text="80 % pruned, seed 1"
    ).inner_text()  # its hash follows
    ticket.select_option(label.replace("\xa0", " "))
    says(outputs, r"53,240 of 266,200.*[\d.]+% of 1,000 images")
    sync_api.expect(outputs.locator("img")).to_have_count(1)
    cell(page, "live(show_ticket", "ticket-fc1")
    says(cell(page, "live(show_bits", "bits"), "235,200.*7,526,400")


def test_ticket_without_images(page):
    outputs = cell(page, "live(show_ticket")
    runs = outputs.locator("select").first
    cifar = [o for o in runs.locator("option").all_inner_texts() if o.startswith("cifar10")]
    runs.select_option(cifar[0])
    says(outputs, "the images of cifar10 are not here, mplt data fetch cifar10 brings them")
    cell(page, "live(show_ticket", "ticket-cifar10")


def test_sparsity_slider(page):
    outputs = cell(page, "live(show_pruned", "slider")
    says(outputs, "80 % pruned: [\\d.]+% right as it is")
    for _ in range(15):
        outputs.locator(".noUi-handle").press("ArrowRight")
    says(outputs, "95 % pruned: [\\d.]+% right as it is, [\\d.]+% with new")
    cell(page, "live(show_pruned", "slider-moved")


def test_drawing(page):
    "A 1 in the place of the 2, with the mouse; then a 7, with a finger"
    outputs = cell(page, "live(show_answers", "drawing")
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
    cell(page, "live(show_answers", "drawing-1")
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
    cell(page, "live(show_answers", "drawing-7")


def test_estimators(page):
    outputs = cell(page, "live(show_estimators", "estimators")
    says(outputs, r"activation: 1.00, gradient 1.20\s.*score: 0.00, gradient 1.00")
    for _ in range(8):
        outputs.locator(".noUi-handle").press("ArrowRight")
    says(outputs, r"activation: 1.00, gradient 0.00\s.*score: 1.00, gradient 1.00")
