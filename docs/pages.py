"Makes the pages of the site: a hook of MkDocs that turns notebooks, modules and results into Markdown"

import ast
import base64
import io
import json
import re
from html import escape
from importlib import import_module
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from textwrap import shorten
from xml.etree import ElementTree

import nh3
import numpy as np
import pandas as pd
import yaml
from matplotlib.colors import to_hex
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from nbdev.showdoc import show_doc
from PIL import Image

from mplt.pipeline import run_folders
from mplt.report import PRUNED, TEST, _points, gather, over_seeds

ROOT = Path(__file__).parent.parent
VENDORED = ["katex/dist", "tablesort/dist", "iframe-worker/shim"]
CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.M | re.S)
NAMES = ["claim", "verdict", "of", "network", "method"]  # what a row of a table is about
FIRST = [
    "run",
    "claim",
    "verdict",
    "network",
    "method",
    "variant",
    "test %",
    "its test %",
    "ticket %",
    "mask shuffled %",
    "weights redrawn %",
    "scores inverted %",
    "random mask %",
    "published %",
    "validation %",
]  # columns, in this order, before others
ACCURACIES = {o for o in FIRST if o.endswith(" %")}
PAGE = 860  # pixels: as wide as a page's text on a wide screen
HERO = """
<div class="hero" markdown>
{said}

[Try it](try.md){{ .md-button .md-button--primary }} [Quickstart](#quickstart){{ .md-button }}
</div>
"""
CARDS = """
<div class="four" markdown>
- [**Try it**](try.md)\n  Draw a digit, or take an image: tickets answer in the page.
- [**Results**](results/index.md)\n  Accuracy against sparsity and bytes, what holds and what does not.
- [**Your own**](guide_own.md)\n  Find a ticket in your own network, or for your own images.
- [**The book**](data.md)\n  How it works, a question a chapter, every line explained and run.
</div>
"""
SYMBOL = re.compile(
    r"---\n\n(?:\[source\]\((.*?)\)\{.*?\}\n\n)?### (\S+)\n\n(```python\n.*?\n```)(.*)", re.S
)


def on_config(config):
    "The addresses of the repository and of the site are those of pyproject.toml, `[project.urls]`, if any"
    cfg = get_config()
    config.site_description = cfg.description
    config.site_url = cfg.doc_host and cfg.doc_host + cfg.doc_baseurl
    config.repo_url, config.repo_name = cfg.git_url, "Repository"


def on_files(files, config):
    "Add a page for each notebook, module, suite of results and executed run, and put them in order"
    site = Site(files, config)
    notebooks = {re.sub(r"^\d+_", "", f.stem): f for f in sorted((ROOT / "nbs").glob("*.ipynb"))}
    modules = [f for name in notebooks if (f := ROOT / "mplt" / f"{name}.py").exists()]
    runs = [
        f
        for f in sorted((ROOT / "results").glob("*/runs/*/run.ipynb"))
        if (f.parent / "summary.csv").exists()
    ]
    site.pages |= {f"nbs/{f.name}": f"{name}.md" for name, f in notebooks.items()}
    site.pages["docs/try_it.py"] = "try.md"
    site.pages |= {f"mplt/{f.name}": f"api/{f.stem}.md" for f in modules}
    site.pages |= {
        str(f.relative_to(ROOT)): f"results/{f.parts[-4]}/{f.parts[-2]}.md" for f in runs
    }

    for name in VENDORED:
        for f in (ROOT / "docs/node_modules" / name).rglob("*.*"):
            if f.suffix in (".js", ".css", ".woff2"):
                site.copy(f, f"vendor/{f.relative_to(ROOT / 'docs/node_modules')}")

    proc_nbs()  # takes out what is hidden, puts in signatures and links; does again only what has changed
    for name, f in notebooks.items():
        boost = {"search": {"boost": 10}} if name == "index" or name.startswith("guide_") else {}
        site.notebook(ROOT / "_proc" / f.name, f"nbs/{f.name}", boost, home=name == "index")
    for f in modules:
        head = f"---\nsearch: {{exclude: true}}\n---\n\n# mplt/{f.name}"
        site.add(f"api/{f.stem}.md", f'{head}\n\n```python linenums="1"\n{f.read_text()}\n```\n')
    site.add(
        "api/index.md", "\n\n".join(["# API", "> Every function and class, by chapter", *site.api])
    )
    names = sorted({f.parts[-4] for f in runs})
    suites = [suite(site, name, [f for f in runs if f.parts[-4] == name]) for name in names]
    found = (f"## [{name}]({name}/index.md)\n\n{about(name)}\n\n{chart(name)}" for name in names)
    head = "# Results\n\n> What the suites of experiments found"
    site.add("results/index.md", "\n\n".join([head, *found]))

    chapters = [{question(f): f"{name}.md"} for name, f in notebooks.items() if f.name[0].isdigit()]
    chapters = chapters[2:] + chapters[1::-1]  # names and errors last: what a reader needs least
    lab = [f"{name}.md" for name in notebooks if name == "explore"]
    guides = [f"{name}.md" for name in notebooks if name.startswith("guide_")]
    sections = {
        "Book": chapters,
        "Guides": guides,
        "Lab": lab,
        "Results": ["results/index.md", *suites],
        "API": ["api/index.md", {"Source": [f"api/{f.stem}.md" for f in modules]}],
    }
    config.nav = [{"Home": "index.md"}, *({k: v} for k, v in sections.items() if v)]


def question(path):
    "What a chapter answers: the line below its title"
    first = next(c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown")
    return re.search("^> (.*)", "".join(first["source"]), re.M)[1]


def about(name):
    "The comment at the top of a suite's params.yaml"
    params = ROOT / "suites" / name / "params.yaml"
    if not params.exists():  # the quick suite's is at the top
        params = ROOT / "params.yaml"
    text = params.read_text()
    return " ".join(re.match(r"(#.*\n)*", text)[0].replace("#", "").split())


def suite(site, name, runs):
    "The page of a suite: tables, figures, runs, and what is said of them; returns its part of the navigation"
    folder, here = ROOT / "results" / name, f"results/{name}"
    notes = {}  # T1, F1, …: the cell that says what it is
    for f in folder.glob("*/*.ipynb"):
        for c in json.loads(f.read_text())["cells"]:
            said = "".join(c["source"])
            if m := re.match(r"## (\w+):", said):
                notes[m[1]] = said
    text = [f"# {name}", about(name), chart(name)]
    first = ["claims", "T1"]
    for f in sorted(folder.glob("tables/*.csv"), key=lambda f: (f.stem not in first, f.stem)):
        site.copy(f, f"{here}/{f.name}")
        caption = f.with_suffix(".md").read_text().partition("\n")[0]
        text += [
            notes.get(f.stem, f"## {f.stem.capitalize()}"),
            table(pd.read_csv(f, dtype=str, keep_default_na=False), caption),
            f"[{f.name}]({f.name})",
        ]
    for f in sorted(folder.glob("figures/*.svg")):
        site.copy(f, f"{here}/{f.name}")
        said = notes.get(f.stem, f"## {f.stem}")
        text += [said, f"![{plain(said)}]({f.name}){readable(f.read_bytes())}"]
    rows = []
    for f in runs:
        no_search = {"search": {"exclude": True}}
        site.notebook(f, str(f.relative_to(ROOT)), no_search, title=f.parts[-2])
        o = pd.read_csv(f.parent / "summary.csv")
        extremes = [f"{100 * a:.1f}" for a in (o.test_accuracy.min(), o.test_accuracy.max())]
        rows.append(
            {
                "run": f"[{f.parts[-2]}]({f.parts[-2]}.md)",
                "data set": o.dataset[0],
                "network": o.arch[0],
                "methods": ", ".join(o.method.unique()),
                "experiments": len(o),
                "test %": " to ".join(dict.fromkeys(extremes)),
            }
        )
    text += [
        "## Runs",
        table(
            pd.DataFrame(rows).astype(str),
            "Executed notebooks: what was run, how it learned, what is left of the networks.",
        ),
    ]
    site.add(f"{here}/index.md", "\n\n".join(text))
    return {name: [f"{here}/index.md", *(f"{here}/{f.parts[-2]}.md" for f in runs)]}


def table(rows, caption):
    "Markdown of a table of strings: accuracy early, what all rows share in the caption"
    if {"network", "width"} <= {*rows}:
        width = rows.pop("width").str.rstrip("0").str.rstrip(".")
        rows["network"] += (" × " + width).mask(width.isin(["", "1"]), "")
    rows = rows.loc[:, (rows != "").any()]
    shared = {
        k: o.iloc[0]
        for k, o in rows.items()
        if (k in ("network", "method") or k not in NAMES)
        and not k.endswith(" %")
        and o.nunique() == 1 < len(o)
    }
    said = ", ".join(f"{k} {o}" for k, o in shared.items() if o)
    order = [k for k in FIRST if k in rows] + [k for k in rows if k not in FIRST]
    rows = rows[[k for k in order if k not in shared]]
    rows = rows.map(lambda o: f"{int(o):,}" if o.isdigit() else o)
    caption += f" In all rows: {said}." if said else ""
    return f"{caption}\n\n{rows.to_markdown(index=False, disable_numparse=True)}"


def accuracies(html):
    "The rows of a notebook's table that has accuracies, without their numbers; None for other HTML"
    found = re.search("<table.*</table>", html, re.S)
    if not found or "dataframe" not in found[0]:
        return None
    lines = ElementTree.fromstring(found[0]).iter("tr")
    head, *rows = ([cell.text or "" for cell in line] for line in lines)
    if not ACCURACIES & {*head} or head[0]:
        return None
    return pd.DataFrame([row[1:] for row in rows], columns=head[1:])


def chart(name):
    "The accuracies of a suite, for js/chart.js to draw against sparsity or bytes"
    settings = over_seeds(gather(run_folders(name), "levels.csv")).query('method != "random"')
    points = _points(settings)
    width = points.width.map(lambda o: "" if o == 1 else f" × {o:g}")
    shown = pd.DataFrame(
        {
            "network": points.arch + width,
            "line": points.label,
            "color": points.color.map(to_hex),
            "level": points.marker == "",
            "pruned": points[PRUNED].round(1),
            "bytes": points.ticket_bytes.round(),
            "test": points[TEST].round(2),
            "spread": points.spread.round(2),
            "seeds": points.seeds,
        }
    )
    rows = escape(shown.to_json(orient="records"))
    return f'<div class="chart" data-name="{name}" data-rows="{rows}"></div>'


def calls(module):
    "The functions and classes of a module: name → a call with its arguments, without types"
    found = {}
    for o in ast.parse(module.read_text()).body:
        if isinstance(o, ast.FunctionDef):
            args = o.args
        elif isinstance(o, ast.ClassDef):
            args = ast.arguments([], [], None, [], [], None, [])
            for member in o.body:
                if isinstance(member, ast.AnnAssign):  # a field of a dataclass
                    args.args.append(ast.arg(member.target.id))
                    args.defaults += [member.value] if member.value else []
                elif isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    args = member.args
                    del args.args[0]
        else:
            continue
        for arg in ast.walk(args):
            if isinstance(arg, ast.arg):
                arg.annotation = None
        found[o.name] = f"{o.name}({ast.unparse(args)})"
    return found


def plain(section):
    "A heading and what is said below it, without Markdown: describes an image"
    heading, _, text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", section).lstrip("# ").partition("\n")
    said = re.sub(r'\$.*?\$|^\|.*|[`*"\[\]]', "", f"{heading}. {text}", flags=re.M)
    return shorten(said, 300, placeholder=" …")


def readable(content, kind=""):
    "A figure's attributes in Markdown: so wide that its smallest letters have 9 pixels, if a page is"
    if content.startswith(b"\x89PNG"):
        png = Image.open(io.BytesIO(content))
        letter, width = 8, 72 * png.width / png.info.get("dpi", (200, 200))[0]
    else:
        svg = ElementTree.fromstring(content)
        letter, width = 100 * smallest(svg), float(svg.get("width").removesuffix("pt"))
    return f'{{ {kind} style="min-width: {min(9 / letter * width, PAGE):.0f}px" }}'


def smallest(part, scale=1.0):
    "By how much the letters of a part of an SVG, which are drawn 100 points large, are scaled"
    if factor := re.search(r"scale\(([\d.]+)", part.get("transform", "")):
        scale *= float(factor[1])  # exponents are scaled within what is scaled
    own = scale if part.tag.endswith("}use") else 1.0
    return min([own, *(smallest(o, scale) for o in part)])


def lines_on_white(png):
    "Is it a plot, whose colours may be turned around in the dark? Images and masks may not"
    return (np.array(Image.open(io.BytesIO(png)).convert("L")) > 250).mean() > 0.87


# What may be on a page, whoever wrote its Markdown or its notebook's outputs; everything else is taken out.
# A title is text to a browser, but HTML to the viewer of pictures.
PAGE_HTML = nh3.Cleaner(
    attributes={
        "*": {"class", "id", "style", "title"},
        "a": {"href", "data-type", "data-width", "data-height", "data-desc-position"},
        "img": {"src", "alt", "loading"},
        "ol": {"start"},
        "span": {"data-linenos"},
        "div": {"data-name", "data-rows"},
        "td": {"colspan", "rowspan"},
        "th": {"colspan", "rowspan"},
    },
    attribute_filter=lambda tag, name, value: None if name == "title" and "<" in value else value,
    filter_style_properties={"min-width", "text-align"},
    url_schemes={"http", "https", "mailto"},
    link_rel=None,
)
OUTPUT_HTML = nh3.Cleaner(
    tags=set("div table thead tbody tr th td p pre code b i em strong".split()),
    attributes={o: {"colspan", "rowspan"} for o in ("td", "th")},
)


def still(svg, name):
    "An SVG as it is; raises where something in it could run or lead elsewhere"
    for part in ElementTree.fromstring(svg).iter():
        for key, value in part.attrib.items():
            leads = key.endswith("href") and not value.startswith(("#", "data:image/png"))
            if leads or key.startswith("on"):
                raise PluginError(
                    f"{name}: its attribute {key} may run or lead elsewhere: {shorten(value, 60)}"
                )
        if part.tag.rpartition("}")[2] in ("script", "foreignObject"):
            raise PluginError(f"{name}: it has a {part.tag.rpartition('}')[2]}, which may run")
    return svg


def on_page_content(html, page, **_):
    "What is shown of notebooks and their outputs is read and not run; the page Try it runs our own"
    return html if page.file.src_uri == "try.md" else PAGE_HTML.clean(html)


class Site:
    "Collects pages; `pages`: which page shows which file of the repository; `api`: what chapters document"

    def __init__(self, files, config):
        self.files, self.config, self.pages, self.api = files, config, {}, []

    def add(self, uri, content):
        self.files.append(File.generated(self.config, uri, content=content))

    def copy(self, path, uri):
        if uri not in self.files.src_uris:
            if uri.endswith(".svg"):
                still(path.read_text(), uri)
            self.files.append(File.generated(self.config, uri, abs_src_path=str(path)))

    def notebook(self, path, source, front, title=None, home=False):
        "The page of a notebook that lies at `source` in the repository; `front`: what MkDocs is told of it"
        page, said, symbols = self.pages[source], "", []
        front = front | ({"hide": ["navigation", "toc"]} if home else {})
        text = [f"---\n{yaml.safe_dump(front)}---"] if front else []
        for n, cell in enumerate(json.loads(path.read_text())["cells"]):
            src = "".join(cell["source"])
            if cell["cell_type"] == "raw":  # nbdev's front matter
                meta = yaml.safe_load(src.strip().strip("-"))
                text.append(f"# {meta['title']}\n\n> {meta.get('description', '')}")
                if home:
                    text[-1] = HERO.format(said=text[-1])
            elif cell["cell_type"] == "markdown":
                if title:
                    src = re.sub("^# .*", f"# {title}", src)
                outside_code = "\n" + re.sub("```.*?```", "", src, flags=re.S)
                _, mark, section = outside_code.rpartition("\n#")
                said = section if mark else said.split("\n")[0] + "\n" + src
                text.append(self.linked(src, page, source))
                if home and "## Quickstart" in src:
                    text.append(CARDS)
            else:
                shown = re.sub(r"^#\|.*\n", "", src, flags=re.M)
                if not home and shown.strip() and "#| echo: false" not in src:
                    text.append(f"```python\n{shown}\n```")
                for i, o in enumerate(cell["outputs"]):
                    text.append(self.output(o, src, page, source, f"{n}-{i}", said, symbols))
        if symbols:
            head = f"## [{Path(page).stem}](../{page})\n\n| name | what it is |\n|:--|:--|"
            self.api.append("\n".join([head, *symbols]))
        self.add(page, "\n\n".join(text))

    def output(self, output, src, page, source, number, said, symbols):
        "Markdown of an output of the cell `src`"
        data = {k: "".join(v) for k, v in output.get("data", {}).items()}
        if m := SYMBOL.match(data.get("text/markdown", "")):
            at, name, signature, doc = m.groups()
            module, anchor = ROOT / "mplt" / f"{Path(page).stem}.py", name.lower()
            known = calls(module) if module.exists() else {}
            if "__call__(" in signature:  # a command of click: what is documented is its function
                anchor = name = re.search(r"show_doc\((\w+)\)", src)[1]
                function = getattr(import_module(f"mplt.{module.stem}"), name).callback
                at = f"/blob/main/mplt/{module.name}#L{function.__code__.co_firstlineno}"
                signature = SYMBOL.match(show_doc(function)._repr_markdown_())[3]
            elif name[0].isupper():
                signature = signature.replace("def ", "class ", 1)
                anchor += "-class" if anchor in known else ""
            first_line = doc.strip().split("\n")[0].strip("*")
            what = self.linked(first_line, "api/index.md", source)
            symbols.append(f"| [`{known.get(name, name)}`](../{page}#{anchor}) | {what} |")
            heading = f'### {name} {{ id="{anchor}" }}\n\n'
            if at:
                heading += f"[source]({at}){{ .source }}\n\n"
            return self.linked(heading + signature + doc, page, source)
        if "text/markdown" in data:
            return self.linked(data["text/markdown"], page, source)
        if "image/png" in data:
            return self.image(f"{number}.png", base64.b64decode(data["image/png"]), page, said)
        if "image/svg+xml" in data:
            svg = still(data["image/svg+xml"], f"{source}, output {number}")
            return self.image(f"{number}.svg", svg.encode(), page, said)
        if "text/html" in data:
            rows = accuracies(data["text/html"])
            return OUTPUT_HTML.clean(data["text/html"]) if rows is None else table(rows, "")
        said = data.get("text/plain") or "".join(output.get("text", ""))
        return f'<pre class="output"><code>{escape(said.strip(chr(10)))}</code></pre>'

    def image(self, number, content, page, said):
        "Markdown of an image that becomes a file beside its page"
        name = f"{Path(page).stem}-{number}"
        self.add(join(dirname(page), name), content)
        kind = "" if name.endswith(".svg") or lines_on_white(content) else ".picture"
        return f"![{plain(said)}]({name}){readable(content, kind)}"

    def linked(self, text, page, source):
        "Markdown whose links lead from `page` to other pages; nbdev's callouts become admonitions"
        cfg = get_config()
        host = cfg.doc_host + cfg.doc_baseurl.rstrip("/") if cfg.doc_host else ""

        def link(m):
            url, anchor, style = m[1].removeprefix(host), m[2] or "", ""
            if url.startswith("/blob/"):
                to, anchor = self.pages[url.split("/", 3)[3]], anchor.replace("#L", "#line-0-")
            elif url.startswith("/"):
                # private names and methods have no place of their own
                to, anchor = url[1:].replace(".html", ".md"), re.sub(r"#_.*|\..*", "", anchor)
            elif re.match(r"\w+:", url) or not url:
                return m[0]
            else:
                file = normpath(join(dirname(source), url))
                to = self.pages.get(file) or f"files/{file}"
                if (ROOT / file).is_file() and file not in self.pages:
                    self.copy(ROOT / file, to)
                if file.endswith((".svg", ".png")):
                    style = readable((ROOT / file).read_bytes())
            return f"]({relpath(to, dirname(page) or '.')}{anchor}){style}"

        parts = CODE.split(text)
        parts[::2] = (re.sub(r"\]\(([^)\s#]*)(#[^)\s]*)?\)", link, o) for o in parts[::2])
        callout = r"^:::+ *\{\.callout-(\w+).*?\}\n(.*?)\n:::+$"
        text = re.sub(callout, r"/// \1\n\2\n///", "".join(parts), flags=re.M | re.S)
        return re.sub(r"^(:::.*|<!-- WARNING: THIS FILE.*)$", "", text, flags=re.M)
