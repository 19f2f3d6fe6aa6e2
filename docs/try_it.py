"Makes the page Try it (`make docs`, then open _docs/try.html): a hook of MkDocs, after that of pages.py"

import base64
import gzip
import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from mkdocs.structure.files import File
from PIL import Image

from mplt import ticket
from mplt.data import SOURCES, load
from mplt.infer import KINDS, Program, c_source
from mplt.subnet import weighted

ROOT = Path(__file__).parent.parent
SETS = dict(  # what a reader chooses from: data set, tickets, the dense network to compare with
    Digits=(
        "mnist",
        ["lenet5-mpt-1-32-80", "lenet5-mpt-1-1-80", "fc1-mpt-1-32-90"],
        "lenet5-dense",
    ),
    Photographs=(
        "cifar10",
        ["conv4-width-0.25", "conv4-mpt-1-1-50", "conv6-mpt-1-32-90"],
        "conv4-dense",
    ),
)
FLAGS = (
    "-target wasm32-freestanding -std=c99 -Os -s -msimd128 -mbulk-memory -nostdlib -Wl,--no-entry"
)
STRING_H = """
#define memcpy __builtin_memcpy
#define memmove __builtin_memmove
#define memset __builtin_memset
"""  # without a libc: instructions of the machine
HEAD = """---
hide: [navigation, toc]
---

# Try it

> Tickets of a few kilobytes to a few hundred, in this page

"""
PAGE = """Draw a digit, or take an image that no ticket has been trained on. Each ticket is the C file that
`mplt ticket export --seed-only` writes ([how it computes](infer.md)), compiled to WebAssembly: its masks,
and code that draws the signs of the weights from the seed. Nothing leaves this page. What is loaded is the
module, compressed, as text: a bit a weight, and the code. Blue is positive, orange negative.

<div id="try"></div>
<noscript>This page needs JavaScript.</noscript>
<script src="try/page.js"></script>
<script src="js/try.js"></script>
"""
NO_COMPILER = """The tickets of this page are compiled when the site is built, and there was no compiler
for WebAssembly: `pip install ziglang`, then build the site again.
"""


def on_files(files, config):
    def add(uri, content):
        files.append(File.generated(config, uri, content=content))

    config.nav.insert(1, {"Try it": "try.md"})
    if not find_spec("ziglang"):
        return add("try.md", HEAD + NO_COMPILER)
    add("try.md", HEAD + PAGE)
    sets = [dict(name=name, **choice(*said)) for name, said in SETS.items()]
    add("try/page.js", f"const TRY = {json.dumps(dict(sets=sets))}\n")
    for t in (t for s in sets for t in s["tickets"]):
        code = base64.b64encode(gzip.compress(wasm(t["name"]), mtime=0)).decode()
        add(f"try/{t['name']}.js", f"TRY.arrived({json.dumps(t['name'])}, '{code}')\n")


def choice(dataset, names, dense):
    "What the page says of a data set and its tickets"
    row = pd.read_csv(ROOT / f"results/{dataset}/runs/{dense}/summary.csv").iloc[-1]
    return dict(
        shape=SOURCES[dataset].in_shape,
        classes=SOURCES[dataset].classes,
        images=base64.b64encode(some_images(dataset).tobytes()).decode(),
        tickets=[about(name) for name in names],
        dense=dict(name=dense, accuracy=row.test_accuracy, fp32=4 * int(row.weights_total)),
    )


def some_images(dataset):
    "A test image of each class, uint8 (classes, channels, height, width)"
    if dataset == "mnist":
        test = load("mnist5k", ROOT / "data").test
        return test.x[[(test.y == c).int().argmax().item() for c in range(10)]].numpy()
    strip = np.array(Image.open(ROOT / f"docs/{dataset}.png"))  # side by side
    return np.stack(np.split(strip, 10, 1)).transpose(0, 3, 1, 2)


def about(name):
    path = ticket.zoo_file(name)
    header, net = ticket.info(path), ticket.load(path)
    program = Program(net, header["subnet"]["in_shape"])
    layers = []
    for layer, step in program.layers.items():
        signs = KINDS[step["kind"]].endswith("SIGNS")
        seen = {k: step[k] for k in ("channels", "height", "width", "from", "outputs")}
        at = next(i for i, o in enumerate(program.steps) if o is step)
        places = step["kernel"] ** 2 if "kernel" in step else seen["height"] * seen["width"]
        layers.append(dict(name=layer, step=at, signs=signs, places=places) | seen)
    return dict(
        name=name,
        arch=header["spec"]["arch"],
        method=header["subnet"]["method"],
        sparsity=header["subnet"]["sparsity"],
        accuracy=header["test_accuracy"],
        file=path.stat().st_size,
        fp32=sum(4 * m.weight.numel() for m in weighted(net).values()),
        layers=layers,
    )


def wasm(name):
    "A ticket as a module of WebAssembly; compiled again only if something has changed"
    path, glue = ticket.zoo_file(name), ROOT / "docs/try.c"
    source = c_source(ticket.load(path), ticket.info(path), seed_only=True)
    key = hashlib.sha256(repr((source, glue.read_text(), FLAGS)).encode()).hexdigest()[:16]
    out = ROOT / f"_proc/try/{key}.wasm"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "net.c").write_text(source)
            (place / "string.h").write_text(STRING_H)
            command = [sys.executable, "-m", "ziglang", "cc", *FLAGS.split(), f"-I{place}", glue]
            subprocess.run([*command, "-o", place / "net.wasm"], check=True)
            (place / "net.wasm").replace(out)
    return out.read_bytes()
