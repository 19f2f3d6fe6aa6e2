"The documentation site (`make docs`) in a real browser"

import inspect
import io
import json
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import numpy as np
import pandas as pd
import pytest
import torch
from agreement import turned_over
from axe_playwright_python.sync_playwright import Axe
from conftest import REPO
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from mplt import ticket
from mplt.data import SOURCES, load, normalise
from mplt.errors import UserError

SITE = REPO / "_docs"
BROWSER = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)
PAGES = sorted(str(f.relative_to(SITE)) for f in SITE.rglob("*.html"))
SUITES = sorted(f.parent.name for f in SITE.glob("results/*/index.html"))
KINDS = [
    "index.html",
    "try.html",
    "binarize.html",
    "lab.html",
    "explore.html",
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
    "No error, no other host asked, no broken link, no id twice, a text for every image, a telephone wide"
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
            twice: [...document.querySelectorAll('[id]')].map(o => o.id)
                .filter((o, i, all) => all.indexOf(o) < i),
            nameless: [...document.querySelectorAll('article code')].map(o => o.textContent)
                .filter(o => /^(def|class) \\w+\\.__call__\\(/.test(o)),
            links: [...document.querySelectorAll('a[href]')].map(o => o.getAttribute('href')),
            dumb: [...document.images].filter(o => !o.alt).map(o => o.src),
            raw: [...document.querySelectorAll('article p')].map(o => o.textContent)
                .filter(o => /^:::|\\{\\.|<!--|^([-*]|\\d+\\.) /m.test(o)),
            tex: document.querySelectorAll('.katex-error').length,
            width: document.documentElement.scrollWidth})""")
        ids[name] = seen["ids"]
        links += [(name, o) for o in seen["links"]]
        # raw: Markdown that was not understood; nameless: a signature of an object's class, not of its own
        kinds = "dumb", "raw", "tex", "twice", "nameless"
        bad += [(name, what, seen[what]) for what in kinds if seen[what]]
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


@pytest.mark.parametrize(
    "words, first",
    [
        ("own network", "guide_own.html"),
        ("own images", "guide_own.html"),
        ("quickstart", "index.html#quickstart"),
    ],
)
def test_a_question_finds_its_guide(page, host, words, first):
    page.goto(host)
    page.keyboard.press("/")
    page.keyboard.type(words)
    found = page.locator(".md-search-result__link")
    expect(found.first).to_be_visible()
    page.wait_for_timeout(500)  # results of the whole query, not of its first letters
    found = found.nth(int("#" in first))  # a page comes before the sections of it
    url = re.sub(r"\?[^#]*", "", found.get_attribute("href")).removeprefix(host)
    assert url == first


def test_search_leaves_executed_runs_out():
    pages = json.loads((SITE / "search/search_index.json").read_text())["docs"]
    places = {o["location"].split("#")[0] for o in pages}
    assert "results/cifar10/index.html" in places
    assert not [o for o in places if re.fullmatch("results/[^/]+/(?!index).*", o)]


def test_navigation_asks_the_chapters_questions(page, host):
    "… and what happens when something is wrong comes last"
    page.goto(host + "mask.html")
    asked = page.locator(
        ".md-nav--primary .md-nav__item--active.md-nav__item--nested a.md-nav__link"
    )
    said = [o.strip() for o in asked.all_inner_texts() if o.strip().endswith("?")]
    assert "Which weights stay?" in said and "when something is wrong" in said[-1]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", SUITES)
def test_accuracy_in_sight(page, host, name, width):
    "Nobody has to scroll sideways to see it; numbers stand at the right, what never changes in the caption"
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{host}results/{name}/index.html#t1-accuracy")
    table = page.locator("#t1-accuracy ~ * table").first
    in_sight(table, "test %", width)
    if "variant" in heads(table):  # what tells rows of a method apart stands beside it
        assert heads(table).index("variant") == heads(table).index("method") + 1
        in_sight(table, "variant", width)
    column = heads(table).index("test %") + 1
    for cell in table.locator(f"tbody td:nth-child({column})").all():
        assert cell.evaluate("o => getComputedStyle(o).textAlign") == "right"
    for n, head in enumerate(heads(table)):
        values = set(table.locator(f"td:nth-child({n + 1})").all_inner_texts())
        assert len(values) > 1 or "%" in head, f"{head} is always {values}"
    empty = """tables => tables.flatMap(o => [...o.tHead.rows[0].cells].filter((_, i) =>
        [...o.tBodies[0].rows].every(row => !row.cells[i].innerText.trim())).map(o => o.innerText))"""
    assert page.locator("article table:not(.highlighttable)").evaluate_all(empty) == []
    if width == 1400:
        box = table.bounding_box()
        assert box["x"] + box["width"] <= page.locator("article").evaluate(
            "o => o.getBoundingClientRect().right"
        )


@pytest.mark.parametrize("width", [400, 1400])
def test_verdicts_in_sight(page, host, width):
    "… with the accuracies that they come from"
    page.set_viewport_size({"width": width, "height": 900})
    for name, which in (
        ("results/cifar10/index.html", "#claims ~ * table"),
        (
            "index.html",
            "table:has(th:text-is('claim'))",
        ),
    ):
        page.goto(host + name)
        for column in "claim", "verdict", "test %", "its test %":
            in_sight(page.locator(f"article {which}").first, column, width)


def test_controls_in_sight(page, host):
    "… of a telephone beside their ticket, and both networks' accuracies on MNIST"
    page.set_viewport_size({"width": 400, "height": 900})
    for name in SUITES:
        page.goto(f"{host}results/{name}/index.html")
        table = page.locator("h2[id^='c1-'] ~ * table").first
        for head in "ticket %", "mask shuffled %":
            in_sight(table, head, 400)
    page.goto(host)
    for head in "fc1: test %", "lenet5: test %":
        in_sight(page.locator("table:has(th:text-is('lenet5: test %'))"), head, 400)


ACCURACIES = {"test %", "its test %", "ticket %", "published %", "test_accuracy"}


def test_accuracies_of_the_chapter_in_sight(page, host):
    "… of a telephone, in each table of it that has some"
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto(host + "results.html")
    seen = set()
    for table in page.locator("article table:not(.highlighttable)").all():
        for head in ACCURACIES & {*heads(table)}:
            in_sight(table, head, 400)
            seen.add(head)
    assert seen == ACCURACIES


def heads(table):
    return [o.strip() for o in table.locator("th").all_inner_texts()]


def in_sight(table, head, width):
    for cell in table.locator(f"td:nth-child({heads(table).index(head) + 1})").all():
        box = cell.bounding_box()
        assert 0 <= box["x"] and box["x"] + box["width"] <= width, head


LETTERS = """async image => {   // the sizes of its letters in pixels, which are drawn 100 large
    const text = await (await fetch(image.src)).text()
    const svg = new DOMParser().parseFromString(text, 'image/svg+xml').documentElement
    svg.setAttribute('width', image.offsetWidth)
    svg.removeAttribute('height')
    document.body.append(svg)
    const letters = [...svg.querySelectorAll('use')].filter(o => o.href.baseVal.startsWith('#DejaVu'))
    const sizes = letters.map(o => o.getCTM()).map(m => 100 * Math.hypot(m.c, m.d))
    svg.remove()
    return sizes
}"""


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(
    "name", ["index.html", "results.html", *(f"results/{o}/index.html" for o in SUITES)]
)
def test_figures_can_be_read(page, host, name, width):
    "At most two columns, letters of 9 pixels, exponents among them"
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(host + name)
    for image in page.locator("article img[src$='.svg']").all():
        image.scroll_into_view_if_needed()
        assert min(image.evaluate(LETTERS)) > 8.9, image.get_attribute("src")
        svg = page.request.get(urljoin(page.url, image.get_attribute("src"))).text()
        left = re.findall(r'<g id="axes_\d+">\s*<g id="patch_\d+">\s*<path d="M ([\d.]+) ', svg)
        assert len({round(float(o) / 280) for o in left}) <= 2


@pytest.mark.parametrize("name", ["explore.html", "lab.html"])
def test_pictures_of_the_lab_can_be_read(page, host, name):
    "A letter of 8 points has 8 pixels at least, on a telephone, too, where a picture is scrolled by itself"
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto(host + name)
    pictures = page.locator("article img[src$='.png']")
    assert pictures.count() > 5
    for image in pictures.all():
        png = Image.open(io.BytesIO(page.request.get(image.evaluate("o => o.src")).body()))
        points = 72 * png.width / png.info["dpi"][0]
        assert image.evaluate("o => o.offsetWidth") >= points, image.get_attribute("src")


IN_THE_DARK = ["index.html", "binarize.html", "data.html", "report.html"]


@pytest.mark.parametrize("name", [*IN_THE_DARK, *(f"results/{o}/index.html" for o in SUITES)])
def test_figures_are_dark_in_the_dark(page, host, name):
    "… all but photographs, digits and masks"
    page.emulate_media(color_scheme="dark")
    page.goto(host + name)
    for image in page.locator("article img").all():
        image.scroll_into_view_if_needed()
        light = np.array(Image.open(io.BytesIO(image.screenshot())).convert("L")).mean()
        as_it_is = image.evaluate("o => o.matches(`.picture, [src$='ticket.svg']`)")
        assert (light < 100) != as_it_is, image.get_attribute("src")


def test_a_ticket_has_its_colours_in_the_dark(page, host):
    "What is kept of a mask is bright"
    page.goto(host + "explore.html")
    shots = []
    for scheme in "light", "dark":
        page.emulate_media(color_scheme=scheme)
        picture = page.locator("code:has-text('live(ticket_picture') >> nth=0").locator(
            "xpath=following::img[1]"
        )
        picture.scroll_into_view_if_needed()
        shots.append(np.array(Image.open(io.BytesIO(picture.screenshot())).convert("L")).mean())
    assert min(shots) > 180


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_methods_have_colours_of_their_own(page, host, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto(host + "results/mnist/index.html")
    colours = {}
    for line in page.locator(".chart .lines label").all():
        shot = np.array(Image.open(io.BytesIO(line.locator(".mark").screenshot())).convert("RGB"))
        colours[line.inner_text().split(",")[0]] = shot[shot.shape[0] // 2, shot.shape[1] // 2]
    assert {"dense", "bnn-1-1", "mpt-1-1"} < {*colours}
    for (a, one), (b, other) in combinations(colours.items(), 2):
        assert np.linalg.norm(one.astype(float) - other) > 45, (a, b)


def test_api_shows_arguments(page, host):
    page.goto(host + "api/index.html")
    calls = page.locator("article td:first-child a")
    seen = {}
    for href, said in calls.evaluate_all(
        "all => all.map(o => [o.getAttribute('href'), o.innerText])"
    ):
        seen.setdefault(Path(urldefrag(href)[0]).stem, []).append(said)
    assert len(seen) > 15
    for chapter in "mask", "binarize", "ticket", "prune":
        module = import_module(f"mplt.{chapter}")
        for said in seen[chapter]:
            name, _, arguments = said.rstrip(")").partition("(")
            wanted = inspect.signature(getattr(module, name)).parameters
            assert [o for o in wanted if not re.search(rf"\b{o}\b", arguments)] == [], said
    page.goto(host + "mask.html")
    shown = page.locator("#topk_mask ~ .highlight").first
    expect(shown).to_contain_text("def topk_mask(")
    expect(shown).to_contain_text("sparsity")


def test_code_needs_no_scrolling(page, host):
    page.set_viewport_size({"width": 400, "height": 900})
    for name in "index ticket command explore watch api/ticket".split():
        page.goto(f"{host}{name}.html")
        wide = "all => all.filter(o => o.scrollWidth > o.clientWidth + 1).map(o => o.innerText)"
        assert page.locator("article :is(pre, pre code)").evaluate_all(wide) == []


@pytest.mark.parametrize("width", [400, 1400])
def test_chart(page, host, width):
    "Each dot says a run's accuracy; by bytes and by sparsity; lines can be taken away"
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(host + "results/cifar10/index.html")
    chart = page.locator(".chart")
    chart.locator("select").select_option("conv6")
    dot = chart.locator("circle[aria-label*='mpt-1-32']").first
    dot.hover()
    rows = pd.read_csv(REPO / "results/cifar10/summary.csv")
    ours = 100 * rows.query("arch == 'conv6' and method == 'mpt-1-32'").test_accuracy
    said = chart.locator(".told").inner_text()
    shown = float(re.search(r": ([\d.]+)", said)[1])
    assert ours.min() - 0.05 <= shown <= ours.max() + 0.05, said
    assert dot.bounding_box()["x"] < width
    line = chart.locator(".lines label", has_text="mpt-1-32").first
    line.scroll_into_view_if_needed()
    line.hover()  # the others, of the same colour some of them, step back
    lit = chart.locator("g.line:not(.back)")
    assert lit.count() == 1 < chart.locator("g.line").count()
    assert line.inner_text().strip() in lit.locator("circle").first.get_attribute("aria-label")
    page.mouse.move(0, 0)
    expect(chart.locator("g.back")).to_have_count(0)
    line.locator("input").focus()
    assert lit.count() == 1
    chart.get_by_label("against bytes of the file").check()
    expect(chart.locator("svg")).to_contain_text("bytes of the file")
    dots = chart.locator("circle").count()
    chart.locator(".lines input").first.uncheck()
    assert 0 < chart.locator("circle").count() < dots


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_first_sight(page, host, scheme, width):
    "What a ticket is, what was measured, with the evidence, where one runs, two commands: on two screens"
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(host)
    seen = [
        page.get_by_role("heading", name="mplt"),
        page.locator("article img[src$='ticket.svg']"),
        page.locator("article p", has_text=re.compile(r"\d ± \d.* %")).first,
        page.locator("article img[src$='conv4.svg']"),
        page.locator("article img[src$='try.png']"),
        page.locator("article table", has_text="mpt-1-32").first,
        page.locator("article .highlight", has_text="pip install").first,
        page.locator("article .highlight", has_text="mplt run").first,
    ]
    places = [o.bounding_box() for o in seen]
    tops = [o["y"] for o in places if o != places[4]]
    assert tops == sorted(tops) and places[4]["y"] > places[2]["y"]
    assert all(0 <= o["x"] and o["x"] + o["width"] <= width for o in places)
    assert places[1]["y"] + places[1]["height"] < 900
    full = "o => getComputedStyle(o).objectFit == 'none' || o.offsetWidth > 0.8 * o.naturalWidth"
    assert seen[4].evaluate(full)  # shrunk, its letters could not be read
    assert places[-1]["y"] + places[-1]["height"] < 2 * 900
    assert page.locator(".four li").count() == 4
    page.locator(".hero a", has_text="Try it").click()
    page.wait_for_url("**/try.html")


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
    heads = page.locator("#t1-accuracy ~ * table").first.locator("th")
    n = [o.strip() for o in heads.all_inner_texts()].index("weights kept")
    column, head = f"#t1-accuracy ~ * table tbody tr td:nth-child({n + 1})", heads.nth(n)
    head.focus()
    for reverse in (False, True):
        head.press("Enter")
        numbers = [int(o.replace(",", "")) for o in page.locator(column).all_inner_texts()[:10]]
        assert numbers == sorted(numbers, reverse=reverse)
    page.locator("a.glightbox").first.press("Enter")
    page.wait_for_function("document.querySelector('.gslide.current img')?.offsetWidth > 1200")
    assert page.locator(".gslide.current img").get_attribute("alt")
    page.keyboard.press("Escape")
    page.locator(".glightbox-container").wait_for(state="detached")
    with page.expect_navigation():
        page.locator(".md-footer__link--next").click()
    first = min({f.name for f in (SITE / "results/mnist").glob("*.html")} - {"index.html"})
    assert page.url.endswith(f"/results/mnist/{first}")


TICKETS = sorted(f.stem for f in (SITE / "try").glob("*-*.js"))
compiled = pytest.mark.skipif(
    not TICKETS, reason="no compiler for WebAssembly: pip install ziglang"
)


@compiled
@pytest.mark.parametrize("name", TICKETS)
def test_tickets_that_run_in_a_page(page, name):
    "Python's logits of 200 test images, but where the sign of a tiny sum is another; ties may be either"
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
    net, x, logits = ticket.zoo(name), normalise(images, SOURCES[dataset]), torch.tensor(logits)
    with torch.no_grad():
        exact = net(x)
        off = ((logits - exact).abs().amax(1) > 1e-4 * exact.std()).nonzero()[:, 0].tolist()
        assert all(turned_over(net, x[i, None], logits[i]) for i in off)
    behind = exact.amax(1) - exact.gather(1, logits.argmax(1)[:, None])[:, 0]
    assert all(i in off for i in (behind > 1e-5 * exact.std()).nonzero()[:, 0].tolist())


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
    for cell in page.locator("#try table:visible tbody tr").first.locator("td").all()[2:]:
        assert cell.evaluate("o => getComputedStyle(o).textAlign") == "right"
    assert int(cells[5].replace(",", "")) == len(code(cells[0])) and 0 < float(cells[7]) < 1000
    pictures = page.locator("#try .cards:visible section").first.locator("canvas")
    assert pictures.count() == 6  # weights, and what five layers see
    assert len({o.screenshot() for o in pictures.all()}) == 6
    page.get_by_label("Photographs").check()
    expect(shown.first).to_have_text("airplane", timeout=60_000)


@compiled
def test_try_it_by_finger(browser, host):
    "A digit drawn by touch on a telephone; the page stays where it is, and outside of the board it scrolls"
    with browser.new_page(viewport={"width": 400, "height": 800}, has_touch=True) as page:
        page.goto(host + "try.html")
        shown = page.locator("#try .cards:visible .answer").first
        expect(shown).to_have_text("0", timeout=60_000)  # the first test image
        board = page.get_by_role("application")
        board.scroll_into_view_if_needed()
        box, finger = board.bounding_box(), page.context.new_cdp_session(page)
        left, top, side = (box[k] for k in ("x", "y", "width"))

        def touch(kind, *points):
            points = [dict(x=x, y=y) for x, y in points]
            finger.send("Input.dispatchTouchEvent", dict(type=kind, touchPoints=points))

        def swipe(x, start, end):
            touch("touchStart", (x, start))
            for i in range(1, 13):
                touch("touchMove", (x, start + (end - start) * i / 12))
            touch("touchEnd")

        before = page.evaluate("scrollY")
        swipe(left + side / 2, top + 0.85 * side, top + 0.15 * side)
        expect(shown).to_have_text("1", timeout=60_000)
        assert page.evaluate("scrollY") == before
        swipe(left + side / 2, top - 10, top - 10 - side)
        page.wait_for_function("y => scrollY > y", arg=before)


def code(name):
    return re.search("'(.*)'", (SITE / f"try/{name}.js").read_text())[1]
