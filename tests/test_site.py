"The documentation site (`make docs`) in a real browser"

import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from conftest import REPO
from playwright.sync_api import expect, sync_playwright

from mplt import ticket
from mplt.data import SOURCES, load, normalise
from mplt.errors import UserError

SITE = REPO / "_docs"
BROWSER = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
PAGES = sorted(str(f.relative_to(SITE)) for f in SITE.rglob("*.html"))
KINDS = [
    "index.html",
    "try.html",
    "binarize.html",
    "results/mnist/index.html",
    "results/mnist/fc1-imp.html",
    "api/index.html",
    "api/errors.html",
]

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="there is no site: run make docs first"),
    pytest.mark.skipif(
        not BROWSER,
        reason="there is no browser: install chromium (Debian: apt-get install chromium)",
    ),
]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def host():
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with (
        sync_playwright() as p,
        p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"]) as b,
    ):
        yield b


@pytest.fixture
def page(browser):
    with browser.new_page(viewport={"width": 1400, "height": 900}) as p:
        p.set_default_timeout(60_000)
        yield p


def test_every_page(page, host):
    "No error, no other host asked, no broken link, a text for every image, no page wider than a telephone"
    bad, ids, links = [], {}, []
    page.on("console", lambda o: o.type == "error" and bad.append((page.url, o.text)))
    page.on("pageerror", lambda o: bad.append((page.url, str(o))))
    page.on(
        "request",
        lambda o: (
            o.url.startswith((host, "data:", "blob:")) or bad.append((page.url, "asks " + o.url))
        ),
    )
    page.on("response", lambda o: o.ok or o.status == 304 or bad.append((o.url, o.status)))
    page.set_viewport_size({"width": 400, "height": 800})
    for name in PAGES:
        page.goto(host + name)
        seen = page.evaluate("""() => ({
            ids: [...document.querySelectorAll('[id]')].map(o => o.id),
            links: [...document.querySelectorAll('a[href]')].map(o => o.getAttribute('href')),
            dumb: [...document.images].filter(o => !o.alt).map(o => o.src),
            raw: [...document.querySelectorAll('article p')].map(o => o.textContent)
                .filter(o => /^:::|\\{\\.|<!--|^([-*]|\\d+\\.) /m.test(o)),
            tex: document.querySelectorAll('.katex-error').length,
            width: document.documentElement.scrollWidth})""")
        ids[name] = seen["ids"]
        links += [(name, o) for o in seen["links"]]
        bad += [
            (name, what, seen[what]) for what in ("dumb", "raw", "tex") if seen[what]
        ]  # raw: Markdown that was not understood
        if seen["width"] > 400:
            bad.append((name, f"{seen['width']} pixels wide"))
    for name, href in links:
        url, anchor = urldefrag(urljoin(host + name, href))
        if not url.startswith(host):
            continue
        to = unquote(url.removeprefix(host)) or "index.html"
        if to.endswith("/"):
            to += "index.html"
        if not (SITE / to).is_file() or anchor and to in ids and unquote(anchor) not in ids[to]:
            bad.append((name, "broken link", href))
    assert not bad


@pytest.mark.parametrize("where", ["server", "disk"])
def test_search(page, host, where):
    page.goto(host if where == "server" else (SITE / "index.html").as_uri())
    page.keyboard.press("/")
    page.keyboard.type("topk_mask")
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url(lambda url: url.split("?")[0].split("#")[0].endswith("/mask.html"))
    page.locator("#topk_mask").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_accessible(page, host, scheme, width):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    bad = []
    for name in KINDS:
        page.goto(host + name)
        found = Axe().run(page).response["violations"]
        bad += [
            (name, o["id"], n["html"], n["failureSummary"])
            for o in found
            if o["impact"] in ("serious", "critical")
            for n in o["nodes"]
        ]
    assert not bad


def test_tables_sort_and_figures_grow(page, host):
    "… by keyboard, too"
    page.goto(host + "results/mnist/index.html")
    column = "#t1-accuracy ~ * table tbody tr td:nth-child(8)"
    head = page.locator("#t1-accuracy ~ * table th:nth-child(8)").first
    head.focus()
    for reverse in (False, True):
        head.press("Enter")
        numbers = [int(o) for o in page.locator(column).all_inner_texts()[:10]]
        assert numbers == sorted(numbers, reverse=reverse)
    page.locator("a.glightbox").first.press("Enter")
    page.wait_for_function("document.querySelector('.gslide.current img')?.offsetWidth > 1200")
    assert page.locator(".gslide.current img").get_attribute("alt")
    page.keyboard.press("Escape")
    page.locator(".glightbox-container").wait_for(state="detached")
    with page.expect_navigation():
        page.locator(".md-footer__link--next").click()
    assert page.url.endswith("/results/mnist/fc1-bnn.html")


TICKETS = sorted(f.stem for f in (SITE / "try").glob("*-*.js"))
compiled = pytest.mark.skipif(
    not TICKETS, reason="no compiler for WebAssembly: pip install ziglang"
)


@compiled
@pytest.mark.parametrize("name", TICKETS)
def test_tickets_that_run_in_a_page(page, name):
    "Python's classes of 200 test images, and its logits; where a sign of a tiny sum differs, few"
    dataset = ticket.info(ticket.zoo_file(name))["dataset"]
    try:
        images = load({"mnist": "mnist5k"}.get(dataset, dataset)).test.x[:200]
    except UserError as e:
        pytest.skip(str(e))
    page.goto((SITE / "try.html").as_uri())
    logits = page.evaluate(
        """async ([name, images]) => {
            const ticket = TRY.sets.flatMap(s => s.tickets).find(t => t.name == name)
            const module = await load(ticket), size = images.length / 200
            const answer = i => classify(module, images.slice(i * size, (i + 1) * size), 10)
            const all = Array.from({length: 200}, (_, i) => answer(i))
            if (all.some(o => o.logits[o.best] != Math.max(...o.logits))) throw 'not the best'
            return all.map(o => o.logits)
        }""",
        [name, images.flatten().tolist()],
    )
    exact = ticket.zoo(name)(normalise(images, SOURCES[dataset]))
    off = (torch.tensor(logits) - exact).abs().amax(1) / exact.std()
    binary = "mpt-1-1" in name
    assert (off > 1e-4).sum() <= 6 * binary
    best = exact.gather(1, torch.tensor(logits).argmax(1)[:, None])[:, 0]
    assert (exact.amax(1) - best > 1e-5 * exact.std()).sum() <= binary


@compiled
@pytest.mark.parametrize("where", ["server", "disk"])
def test_try_it(page, host, where):
    "A digit by mouse and one by keyboard, a test image; every ticket says which, and shows what it sees"
    page.goto(host + "try.html" if where == "server" else (SITE / "try.html").as_uri())
    shown = page.locator("#try .cards:visible .answer")
    says = lambda *o: expect(shown).to_have_text(o, timeout=60_000)  # noqa: E731
    says("0", "0", "0")  # the first test image
    page.get_by_role("button", name="Test image: 7").press("Enter")
    says("7", "7", "7")
    board = page.get_by_role("application")
    box = board.bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 135, box["y"] + 240, steps=12)
    page.mouse.up()
    says("1", "1", "1")
    page.locator("#try button", has_text="Clear").click()
    board.focus()
    for keys, times in ("ArrowLeft", 4), (" ", 1), ("ArrowRight", 9), ("ArrowDown", 1), (" ", 1):
        for _ in range(times):
            page.keyboard.press(keys)
    for _ in range(5):
        page.keyboard.press(" ")
        for key in "ArrowDown", "ArrowDown", "ArrowDown", "ArrowLeft":
            page.keyboard.press(key)
        page.keyboard.press(" ")
    expect(shown.first).to_have_text("7", timeout=60_000)
    cells = page.locator("#try table:visible tbody tr").first.locator("td").all_inner_texts()
    assert int(cells[5].replace(",", "")) == len(code(cells[0])) and 0 < float(cells[7]) < 1000
    pictures = page.locator("#try .cards:visible section").first.locator("canvas")
    assert pictures.count() == 6  # weights, and what five layers see
    assert len({o.screenshot() for o in pictures.all()}) == 6
    page.get_by_label("Photographs").check()
    expect(shown.first).to_have_text("airplane", timeout=60_000)


def code(name):
    return re.search("'(.*)'", (SITE / f"try/{name}.js").read_text())[1]
