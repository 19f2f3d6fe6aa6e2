"nbs/explore.ipynb in a real JupyterLab, in a real browser: it runs from a fresh clone, and its menus, sliders and drawing field answer"
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import REPO

sync_api = pytest.importorskip('playwright.sync_api', reason="playwright is not installed: pip install 'mplt[test]'")
BROWSERS = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'
SHOTS = os.environ.get('MPLT_SHOTS')  # a folder for screenshots
DONE = '''() => {
    const cells = [...jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type == 'code')
    const errors = cells.flatMap(c => c.outputs.toJSON()).filter(o => o.output_type == 'error' || o.name == 'stderr')
    return errors.length ? JSON.stringify(errors) : cells.every(c => c.executionCount) && 'done'
}'''


@pytest.fixture(scope='module')
def browser():
    "Chromium: the system's, or else playwright's own"
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_api.sync_playwright() as p:
        if not found and not Path(p.chromium.executable_path).exists(): pytest.skip('no browser is installed: apt-get install chromium, or playwright install chromium')
        b = p.chromium.launch(executable_path=found, args=['--no-sandbox'])
        yield b
        b.close()


@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "What git has of the working tree, and nothing else"
    place = tmp_path_factory.mktemp('a clone') / 'mplt'
    files = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard'], cwd=REPO, check=True, capture_output=True, text=True).stdout.splitlines()
    for f in files:
        if (REPO / f).exists():
            (place / f).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / f, place / f, follow_symlinks=False)
    return place


@pytest.fixture(scope='module')
def lab(clone, tmp_path_factory):
    "The address of a JupyterLab that was started as `make lab` starts it"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    home = tmp_path_factory.mktemp('home')
    env = os.environ | dict(PYTHONPATH=str(clone), PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}', JUPYTER_CONFIG_DIR=str(home / 'config'), JUPYTERLAB_WORKSPACES_DIR=str(home / 'workspaces'),
                            JUPYTERLAB_SETTINGS_DIR=str(home / 'settings'), JUPYTER_RUNTIME_DIR=str(home / 'runtime'))
    command = re.search(r'^\tjupyter (lab .*)$', (clone / 'Makefile').read_text(), re.M)[1].split()
    with open(home / 'log', 'w') as log:
        server = subprocess.Popen([sys.executable, '-m', 'jupyter', *command, '--no-browser', f'--ServerApp.port={port}', '--ServerApp.port_retries=0', '--IdentityProvider.token=test', '--allow-root', '--expose-app-in-browser'],
                                  cwd=clone, env=env, stdout=log, stderr=subprocess.STDOUT)
    for _ in range(600):
        if 'is running at' in (home / 'log').read_text(): break
        assert server.poll() is None, (home / 'log').read_text()
        time.sleep(.1)
    yield f'http://127.0.0.1:{port}/lab/tree/{Path(command[-1]).name}?token=test'
    server.terminate()
    server.wait(30)


@pytest.fixture(scope='module')
def page(browser, lab):
    "The notebook, all of its cells run"
    page = browser.new_page(viewport=dict(width=1400, height=1000))
    page.set_default_timeout(60_000)
    page.goto(lab)
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.path == 'explore.ipynb' && jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status == 'idle'")
    start = time.time()
    page.evaluate("jupyterapp.commands.execute('runmenu:run-all')")
    said = page.wait_for_function(DONE, timeout=120_000).json_value()
    page.seconds = time.time() - start
    assert said == 'done', said
    return page


def cell(page, source, shot=''):
    "The outputs of the cell that holds this source, as they are shown, scrolled to"
    index = page.evaluate("s => { const n = jupyterapp.shell.currentWidget.content; const i = n.widgets.findIndex(c => c.model.sharedModel.source.includes(s)); n.scrollToItem(i, 'start'); return i }", source)
    outputs = page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-Cell-outputArea')
    outputs.wait_for()
    if SHOTS and shot:
        outputs.scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        outputs.screenshot(path=f'{SHOTS}/{shot}.png')
    return outputs


def changes(outputs, act, pattern):
    "What the outputs say after an action, once it is something else than before"
    said = lambda: re.search(pattern, outputs.inner_text(), re.S)
    before = said()[0]
    act()
    for _ in range(300):
        if said() and said()[0] != before: return said()[0]
        outputs.page.wait_for_timeout(100)
    raise AssertionError(f'still {before}')


def test_runs_in_less_than_a_minute(page):
    print(f'{page.seconds:.0f} s')
    assert page.seconds < 60


def test_ticket(page):
    "Another run and another ticket: accuracy, size and pictures are theirs; the other view of the same menus follows"
    outputs = cell(page, 'live(show_ticket', 'ticket')
    assert 'training digits of MNIST' in outputs.inner_text()
    run, ticket = outputs.locator('select').all()
    here = r'here\s+[\d.]+%'
    changes(outputs, lambda: run.select_option('mnist: fc1-mpt-1-1'), here)
    assert '266,200' in outputs.inner_text()
    changes(outputs, lambda: ticket.select_option('mpt-1-1, 80 % pruned, seed 1'), here)
    assert '53,240 of 266,200' in outputs.inner_text() and outputs.locator('img').count() == 1
    cell(page, 'live(show_ticket', 'ticket-fc1')
    assert '235,200' in cell(page, 'live(show_bits', 'bits').inner_text()


def test_ticket_without_images(page):
    outputs = cell(page, 'live(show_ticket')
    cifar = [o for o in outputs.locator('select').first.locator('option').all_inner_texts() if o.startswith('cifar10')]
    if not cifar: pytest.skip('no ticket of CIFAR-10 is published yet')
    assert 'mplt data fetch cifar10' in changes(outputs, lambda: outputs.locator('select').first.select_option(cifar[0]), r'here\s+.*')
    cell(page, 'live(show_ticket', 'ticket-cifar10')


def test_sparsity_slider(page):
    outputs = cell(page, 'live(show_pruned', 'slider')
    handle = outputs.locator('.noUi-handle')
    said = changes(outputs, lambda: [handle.press('ArrowRight') for _ in range(15)], r'9\d % pruned: .*statistics')
    cell(page, 'live(show_pruned', 'slider-moved')
    assert re.match(r'95 % pruned: [\d.]+% right as it is, [\d.]+% with new', said)


def test_drawing(page):
    "A 1 in the place of the 2, then nothing"
    outputs = cell(page, 'live(show_answers', 'drawing')
    answers = r'dense says .*|Draw a digit.*'
    changes(outputs, outputs.get_by_role('button', name='clear').click, answers)
    box = outputs.locator('canvas').bounding_box()

    def draw():
        page.mouse.move(box['x'] + 150, box['y'] + 50)
        page.mouse.down()
        page.mouse.move(box['x'] + 130, box['y'] + 230, steps=12)
        page.mouse.up()
    assert len(re.findall(r'says 1 ', changes(outputs, draw, answers))) >= 2
    cell(page, 'live(show_answers', 'drawing-1')


def test_estimators(page):
    outputs = cell(page, 'live(show_estimators', 'estimators')
    said = changes(outputs, lambda: [outputs.locator('.noUi-handle').press('ArrowRight') for _ in range(8)], r'sign of an activation: .*')
    assert 'activation: 1.00, gradient 0.00' in said and 'score: 1.00, gradient 1.00' in said
