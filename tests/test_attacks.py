"Any input ends in one line that names it, or works: hostile inputs by class (attacks.py)"

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from attacks import attempt, verdict
from bs4 import BeautifulSoup
from conftest import REPO
from markdown import markdown


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks use what Linux has")
def test_hostile_input():
    "In a process of its own: the attacks are children of it, and it may have no threads"
    env = os.environ | dict(OMP_NUM_THREADS="1", MPLT_THREADS="1")
    command = [sys.executable, REPO / "tests/attacks.py", os.environ.get("MPLT_ATTACKS", "8")]
    p = subprocess.run(command, env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr


@pytest.mark.parametrize(
    "end, after, says",
    [
        (dict(), {"a": b"1"}, ""),
        (dict(status=0, err=""), {"a": b"1"}, ""),
        (dict(status=1), {"a": b"1"}, "status 1"),
        (dict(status=-11), {"a": b"1"}, "status -11"),
        (dict(err=""), {"a": b"1"}, "no sentence"),
        (dict(err="mplt: one\nmplt: two\n"), {"a": b"1"}, "no sentence"),
        (dict(err="mplt: something is wrong\n"), {"a": b"1"}, "names none of ['one', 'other']"),
        (dict(err="mplt: someone is wrong\n"), {"a": b"1"}, "names none of"),
        (dict(err="Traceback …\nmplt: one\n"), {"a": b"1"}, "traceback"),
        (dict(out="\x1b[31m"), {"a": b"1"}, "raw '\\x1b' on the terminal"),
        (dict(seconds=31), {"a": b"1"}, "31.0 s of CPU"),
        (dict(mib=2000), {"a": b"1"}, "2000 MiB"),
        (dict(), {"a": b"2"}, "left or lost a"),
        (dict(), {}, "left or lost a"),
        (dict(status=0), {"a": b"1", ".b.7.tmp": b""}, "left .b.7.tmp"),
    ],
)
def test_the_judge_notices(end, after, says):
    how = dict(status=2, out="", err="mplt: one\n", seconds=0, mib=0)
    said = verdict(SimpleNamespace(**how | end), {"a": b"1"}, after, ["one", "other"])
    assert says in said and bool(said) == bool(says)


@pytest.mark.skipif(sys.platform != "linux", reason="the attacks use what Linux has")
def test_memory_of_an_attempt_is_counted(tmp_path):
    for mib in 0, 300:
        found = attempt(lambda mib=mib: len(bytearray(mib * 2**20)) % 2, tmp_path).mib
        assert mib <= found < mib + 100


def test_html_of_a_notebook_is_text_and_tables_on_the_site(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "docs")
    from pages import OUTPUT_HTML

    table = '<div><style>td {color: red}</style><table border="1"><tr style="x"><td colspan="2">1 &lt; 2'
    whole = '<div><table><tbody><tr><td colspan="2">1 &lt; 2</td></tr></tbody></table></div>'
    assert OUTPUT_HTML.clean(table) == whole
    evil = '<script>alert(1)</script><p onclick="x()">a<img src=x onerror=y><a href="javascript:z">b</a>'
    assert OUTPUT_HTML.clean(evil) == "<p>ab</p>"
    assert OUTPUT_HTML.clean("&lt;script&gt;<iframe src='//x'></iframe>") == "&lt;script&gt;"


@pytest.mark.parametrize(
    "evil",
    [
        "<script>x()</script>",
        "<g onload='x()'/>",
        "<a xlink:href='//x'/>",
        "<a href='javascript:x'/>",
    ]
    + ["<foreignObject/>", "<x:script xmlns:x='http://www.w3.org/2000/svg'/>"],
)
def test_an_svg_that_runs_is_not_shown(evil, monkeypatch):
    monkeypatch.syspath_prepend(REPO / "docs")
    from mkdocs.exceptions import PluginError
    from pages import still

    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    fine = (
        f"<svg {names}><use xlink:href='#a'/><image xlink:href='data:image/png;base64,'/>%s</svg>"
    )
    assert still(fine % "", "a.svg") == fine % ""
    with pytest.raises(PluginError, match="a.svg: "):
        still(fine % evil, "a.svg")


SCHEMES = [
    "javascript:x()",
    "JaVaScript:x()",
    "java\tscript:x()",
    "&#106;avascript:x()",
    "\x01javascript:x()",
]
SCHEMES += ["vbscript:x", "data:text/html,x", "javascript&colon;x()"]
CARRIERS = [
    "[a]({})",
    "[a](<{}>)",
    "[a]({} 'title')",
    "[a][b]\n\n[b]: {}",
    "<{}>",
    "![a]({})",
    "<a href='{}'>a",
]
CARRIERS += [
    '<img src="{}"/>',
    "<svg><a xlink:href={}>a</a></svg>",
    "<form action='{}'><button>",
    "<base href={}>",
]
CARRIERS += [
    "<iframe src={}>",
    "<iframe srcdoc='<a href={}>'>",
    "<object data={}>",
    "<a\nhref\n=\n{}>",
    "<math href={}>",
]
HANDLERS = [
    "<p onclick='x()'>a</p>",
    "a\n{{ onclick=x() }}",
    "# a {{ onmouseover='x()' }}",
    "<script>x()</script>",
]
HANDLERS += [
    "<img src=a onerror=x()>",
    "<ScRiPt src=//x></sCrIpT>",
    "<div markdown onload=x>\n*a*\n</div>",
]
HANDLERS += [
    "<script type=module>x()</script>",
    "<details open ontoggle=x()>",
    "<p/onclick=x()>",
    "<style>@import'x'",
    "<script type='text/javascript' type='application/json'>x()</script>",
    "<iframe type='application/json' src='//x'></iframe>",
    "<div>\n<img src=x onerror=x() ",
    "<a title='<img src=x onerror=x()>'>a</a>",
]
PLACES = [
    "{}",
    "- {}",
    "> {}",
    "| a | b |\n|---|---|\n| {} | c |",
    "/// note\n{}\n///",
    "text *with {}* more",
]


def test_markdown_of_a_notebook_runs_nothing_on_the_site(monkeypatch):
    "Rendered as MkDocs does, then looked through by another parser"
    monkeypatch.syspath_prepend(REPO / "docs")
    from pages import PAGE_HTML

    names = "admonition attr_list md_in_html footnotes tables pymdownx.superfences".split()
    names += ["pymdownx.blocks.admonition", "pymdownx.arithmatex"]
    how = dict(extensions=names, extension_configs={names[-1]: dict(generic=True)})
    evil = [o.format(s) for o in CARRIERS for s in SCHEMES] + [o.format() for o in HANDLERS]
    found = 0
    for said in (place.replace("{}", o) for place in PLACES for o in evil):
        html = markdown(said, **how)
        found += bool(list(runs(html)))
        clean = PAGE_HTML.clean(html)
        assert not list(runs(clean + "</article>")), said
    assert found > 100  # which the test would see
    fine = markdown(
        "# T {#t}\n[a](b.md) <https://c.org> $x<y$ &lt; 2\n\n```\n<script>\n```\n\n| a |\n|---|\n| 1 |",
        **how,
    )
    fine += '<div data-rows="[{&quot;a&quot;:1}]"><img src="x.png"></div>'
    assert PAGE_HTML.clean(fine) == fine


def runs(html):
    "What in HTML runs, posts or frames"
    for tag in BeautifulSoup(html, "html.parser").find_all(True):
        if tag.name in "script style iframe object base form svg math".split():
            yield tag.name
        for name, value in tag.attrs.items():
            value = "".join(o for o in str(value).lower().strip() if o >= " ")
            if (
                name.startswith("on")
                or (name == "title" and "<" in value)
                or value.startswith(("javascript:", "vbscript:", "data:"))
            ):
                yield name
