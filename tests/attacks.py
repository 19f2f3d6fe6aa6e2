"""Hostile inputs by class, each made from draws that a seed repeats: `python tests/attacks.py 200` tries so
many of each class and prints how many break the rule, which is one: any input ends in one line that names
it and status 2, or it works; nothing is lost or half-written"""

import ctypes
import errno
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import stat
import string
import struct
import sys
import time
import traceback
import zlib
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as tensor_bytes

from mplt import ticket
from mplt.command import cli, main
from mplt.config import SETTINGS
from mplt.errors import shown
from mplt.mask import removed
from mplt.models import ARCHS, build
from mplt.subnet import METHODS, Subnet, as_subnet, make_bare, originals

REPO = Path(__file__).parent.parent
SECONDS, MIB = 1.0, 300  # of CPU and of memory, for any ticket under 1 MB


# what is tried


def bits_of(draw, raw):
    "The bytes with some of them changed, left out, or put in"
    raw = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        at, junk = draw(st.integers(0, max(0, len(raw) - 1))), draw(st.binary(max_size=9))
        raw[at : at + draw(st.sampled_from([0, 1, 4, len(raw)]))] = junk
    return bytes(raw)


ZEROS = [b"", bytes(2**14), bytes(2**27)]
DEEP = "[" * 800 + "]" * 800
NUMBERS = [0, -1, 2**31, 2**64, -(10**400), 0.5, 1e-80, 1e300, float("inf"), float("nan"), -0.0]
WORDS = "\0 \x1b[31m\x07 \u202e \n \r é ☃ \ud800 /dev/zero .. -- ~nouser 1e5 ² ٣ 0x10 + none null".split(
    " "
)
leaves = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from([*WORDS, "", "x" * 5000, "mpt-1-32", "dense"])
)
values = st.recursive(
    leaves,
    lambda o: st.lists(o, max_size=3) | st.dictionaries(st.sampled_from(WORDS), o, max_size=2),
    max_leaves=4,
) | st.just(json.loads(DEEP))
words = st.sampled_from(WORDS) | st.text(max_size=5)


def changed(draw, tree):
    "Nested dicts and lists with something else somewhere"
    at = tree
    while True:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not (isinstance(at[key], (dict, list)) and at[key] and draw(st.booleans())):
            break
        at = at[key]
    what = draw(st.sampled_from(["else", "else", "gone", "more"]))
    if what == "gone":
        del at[key]
    elif what == "more" and isinstance(at, dict):
        at[draw(words)] = draw(values)
    else:
        at[key] = draw(values)
    return tree


# tickets


def example(method="mpt-1-32", arch="lenet5", bn="plain"):
    torch.manual_seed(0)
    net = as_subnet(build(arch, (1, 28, 28), 10, 0.5, bn=bn, act="relu"), method, 0.5, seed=3)
    net.train()(torch.randn(16, 1, 28, 28))
    with TemporaryDirectory() as folder:
        facts = dict(classes=list(string.digits), mean=[0.1307], std=[0.3081], dataset="mnist5k")
        ticket.save(f"{folder}/t", net.eval(), **facts)
        return ticket.read_file(f"{folder}/t")


def packed(header, content=b""):
    "A sealed file of format 2 that says and holds what is given"
    squeeze = zlib.compressobj(wbits=-15, zdict=ticket.USUAL)
    raw = squeeze.compress(json.dumps(header).encode()) + squeeze.flush() + content
    t = dict(ticket=torch.frombuffer(bytearray(raw), dtype=torch.uint8))
    return tensor_bytes(t, {"mplt": f"2 {ticket.sealed({}, t)[:16]}"})


def sound_plan(draw):
    "A header whose network could be, of any size; it may well hold nothing"
    arch, method = draw(st.sampled_from([*ARCHS])), draw(st.sampled_from([*METHODS]))
    side, channels = (
        draw(st.sampled_from([512, 1, 28, 64, 224, 500])),
        draw(st.sampled_from([1, 3])),
    )
    classes = draw(st.sampled_from([1, 10, 1000, 10**6]))
    width = draw(st.sampled_from([0.01, 0.5, 1.0, 4.0]))
    spec = dict(arch=arch, in_shape=[channels, side, side], num_classes=classes, width=width)
    spec |= dict(bn="plain", act="sign" if METHODS[method].activation_bits == 1 else "relu")
    choices = Subnet(method, of_any_sparsity(draw, method))
    kept = {}
    try:
        with torch.device("meta"):
            net = build(**spec)
        if method != "dense":
            sizes = {k: w.numel() for k, w in originals(net).items()}
            kept = {k: n - removed(n, choices.sparsity) for k, n in sizes.items()}
    except ValueError:
        pass
    return said_of(spec, choices, kept, draw(st.booleans()) and choices.row.cycles)


def of_any_sparsity(draw, method):
    return 0.0 if METHODS[method].mask == "none" else draw(st.sampled_from([0.0, 0.5, 0.9, 0.999]))


def said_of(spec, choices, kept, initial, seed_sha256="0" * 16):
    subnet = asdict(choices) | dict(in_shape=spec["in_shape"])
    del subnet["surrogate"], subnet["draw"]
    header = dict(initial=initial, kept=kept, spec=spec, subnet=subnet, exact=[])
    return header | dict(seed_sha256=seed_sha256)


def about_as_large(target, **spec):
    "What to build, and the network without numbers, of some width"
    low, high = 0.01, 100.0
    for _ in range(20):
        spec["width"] = width = (low * high) ** 0.5
        with torch.device("meta"):
            net = build(**spec)
        low, high = (
            (low, width)
            if sum(w.numel() for w in originals(net).values()) > target
            else (width, high)
        )
    return spec, net


def mask_of(draw, shape, kept, bits, trained):
    "What a file holds of a layer whose first weights are kept, coded in one of both ways"
    mask = (np.arange(np.prod(shape)) < kept).reshape(shape[0], -1)
    listed = len(mask) < 2**16 and draw(st.booleans())
    counts = mask.sum(0) if listed else np.array([kept])
    code = ticket.compressed(mask, ticket.chances(counts, mask.shape))
    held = dict(mask=torch.from_numpy(code))
    held |= dict(inputs=torch.from_numpy((counts if listed else counts[:0]).astype(np.uint16)))
    if bits == 1:
        held |= dict(gain=torch.tensor(float(kept > 0)))
    if trained:
        held |= dict(signs=torch.zeros(-(-kept // 8), dtype=torch.uint8))
    return held


def whole(draw):
    "A ticket that lacks nothing, of a network about as large as a small file may have, and its weights"
    method = draw(st.sampled_from(["mpt-1-32", "mpt-1-1", "bnn-1-32", "imp"]))
    choices, row = Subnet(method, of_any_sparsity(draw, method)), METHODS[method]
    arch, classes = draw(st.sampled_from("fc1 conv2 conv8 resnet20".split())), [1, 10, 10**5]
    spec = dict(
        arch=arch, in_shape=[1, 28, 28], num_classes=draw(st.sampled_from(classes)), bn="plain"
    )
    spec |= dict(act="sign" if row.activation_bits == 1 else "relu")
    spec, net = about_as_large(draw(st.floats(0.5, 1.2)) * 2**23, **spec)
    make_bare(net, choices)
    shapes = {k: w.shape for k, w in originals(net).items()}
    kept = {k: n.numel() - removed(n.numel(), choices.sparsity) for k, n in shapes.items()}
    _, sha256 = ticket.from_seed(net, choices, row.cycles)
    header, norms = said_of(spec, choices, kept, row.cycles, sha256[:16]), ticket.norms(net)
    dtype, codes = ticket.GRIDS[row.activation_bits]
    own, tensors = ticket.own_tensors(net, kept), {}
    if not row.cycles:
        tensors = {
            k: torch.zeros(v.shape) for k, v in own.items() if k.rpartition(".")[0] not in norms
        }
        for k, m in norms.items():
            tensors[f"{k}.grid"] = torch.zeros(2, 2, dtype=dtype)
            tensors[f"{k}.codes"] = torch.zeros(2, m.num_features, dtype=codes)
    bits = 32 if row.cycles else row.weight_bits
    for k, shape in shapes.items():
        held = mask_of(draw, shape, kept[k], bits, row.weights == "trained")
        tensors |= {f"{k}.{o}": v for o, v in held.items()}
    return header, tensors, sum(n.numel() for n in shapes.values())


def sizes(draw, folder):
    "Sound tickets near the bound of what a small file may ask for: rebuilt or refused, each by the rule"
    header, tensors, weights = whole(draw)
    size = ticket.write_file(folder / "bad", header, tensors)

    def do():
        status, few = main("ticket verify bad".split()), size >= 10**6 or weights <= 2**23
        assert (status == 0) == few, f"{weights} weights, {size} bytes: {header['spec']}"
        return status

    small = size < 10**6
    return do, dict(names=["bad"], seconds=SECONDS if small else 20, mib=MIB if small else 600)


def with_tail(draw, header, content):
    "Words that mean nothing after the code of the first mask"
    with torch.device("meta"):
        norms = ticket.norms(build(**header["spec"])).values()
    size = 2 if METHODS[header["subnet"]["method"]].activation_bits == 1 else 1  # bytes of a code
    start = sum(8 * size + 2 * size * m.num_features for m in norms)
    n, more = int.from_bytes(content[start : start + 3], "little"), draw(st.integers(1, 9))
    end = start + 3 + 4 * n
    code = (n + more).to_bytes(3, "little") + content[start + 3 : end] + bytes(range(4 * more))
    return content[:start] + code + content[end:]


TYPES = [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64, torch.int64]
TYPES += [torch.bool, torch.float16, torch.complex64, torch.uint16, torch.uint32]
ACTS = ["verify bad", "info bad", "classify bad digit.png", "export bad out.md"]
ACTS += ["export bad out.html", "export bad out.c", "export bad out.safetensors"]


def other_facts(draw, header, content):
    for k in draw(st.lists(st.sampled_from(["classes", "mean", "std"]), min_size=1)):
        header[k] = draw(values)
    return packed(header, content)


def other_fan(draw, header, content):
    fans = [1e-80, 5e-324, 1e-30, 0.0, 1, 1e300]
    header["subnet"]["scale_fan"] = draw(st.sampled_from(fans))
    return packed(header, content)


def other_types(draw, header, content):
    "A file of format 1 with tensors of any type, and another header"
    kinds = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))
    t = {draw(words) or "x": torch.zeros(draw(st.integers(0, 3))).to(k) for k in kinds}
    said = dict(format=1) | changed(draw, header)
    try:
        said["sha256"] = ticket.sealed(said, t)
        return tensor_bytes(t, {"mplt": json.dumps(said)})
    except Exception:  # such a file cannot be
        return b""


FORGERS = dict(
    raw=lambda draw, header, content: bits_of(draw, packed(header, content)),
    header=lambda draw, header, content: packed(changed(draw, header), content),
    plan=lambda draw, header, content: packed(sound_plan(draw), draw(st.binary(max_size=99))),
    content=lambda draw, header, content: packed(header, bits_of(draw, content)),
    tail=lambda draw, header, content: packed(header, with_tail(draw, header, content)),
    facts=other_facts,
    fan=other_fan,
    types=other_types,
)


def tickets(draw, folder):
    "A resealed file that says and holds something else; some have to be refused"
    header, tensors = EXAMPLES[draw(st.sampled_from(sorted(EXAMPLES)))]
    said = {k: v for k, v in header.items() if k not in ("format", "sha256")}
    kind = draw(st.sampled_from([*FORGERS]))
    content = tensors[""].numpy().tobytes()
    (folder / "bad").write_bytes(FORGERS[kind](draw, json.loads(json.dumps(said)), content))
    Image.new("L", (28, 28), 128).save(folder / "digit.png")
    refused = kind in ("plan", "tail", "types")
    act = ACTS[0] if refused or kind == "fan" else draw(st.sampled_from(ACTS))

    def do():
        status = main(["ticket", *act.split()])
        if status == 0 and act == ACTS[0]:
            net = ticket.load("bad")
            assert all(v.isfinite().all() for v in net.state_dict().values()), "not finite"
            assert not refused, f"a {kind} that has to be refused is taken"
        return status

    return do, dict(names=act.split()[1:], seconds=SECONDS if act in ACTS[:2] else 20, mib=MIB)


# runs, parameters, settings, the command line


TINY = "--arch fc1 --width 0.1 --limit 60 --batch_size 20 --epochs 1"
CYCLES = f"{TINY} --method imp --cycles 1 --sparsity 0.5"


def runs(draw, folder):
    "A file of a run folder changed; the same run asked for again, or taken in"
    said = draw(st.sampled_from([TINY, CYCLES]))
    shutil.copytree(RUNS[said], folder / "run")
    names = sorted(str(f.relative_to(folder / "run")) for f in (folder / "run").rglob("*.*"))
    file = folder / "run" / draw(st.sampled_from(names))
    what = draw(st.sampled_from(["bits", "bits", "json", "gone", "folder", "empty", "huge"]))
    raw = file.read_bytes()
    if what == "bits":
        file.write_bytes(bits_of(draw, raw))
    elif what == "json" and file.suffix == ".json":
        file.write_text(json.dumps(changed(draw, json.loads(raw))))
    elif what == "huge" and file.suffix == ".csv":
        file.write_bytes(
            raw.replace(b"0.5", draw(st.sampled_from([b"1e999", b"9" * 5000, b'"'])), 1)
        )
    else:
        file.unlink()
        if what == "folder":
            file.mkdir()
        elif what == "empty":
            file.write_bytes(b"")
    if draw(st.booleans()):
        return lambda: main(f"run {said} --out run".split()), dict(
            names=["run", "run/"], keeps=False
        )
    return lambda: main(["runs", "import", "."]), dict(names=["run"], keeps=False, lines=None)


PARAMS = "suite: tiny\nroot: ''\ndefaults: {limit: 60}\nruns:\n"
PARAMS += "  a: {dataset: mnist5k, arch: fc1, seed: [0, 1]}\n"
YAML = ["\xff\xfe", "? [a, b]\n: 1\n", "runs: {1: {dataset: mnist5k}}\n", "a: &a [*a]\n"]
YAML += [
    f"defaults: {{seed: {'9' * 5000}}}\n",
    "x: " + "[" * 3000 + "\n",
    "x: " + DEEP + "\n",
    "\0",
]
YAML += [
    "<<: 1\n",
    "!!python/object:os.system x\n",
    "--- a\n--- b\n",
    "suite: 1e5\n",
    "a: \x1b[31m\n",
]
BOMB = ", ".join(
    ["&a0 [x, x]"] + [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
YAML += [f"runs: {{a: {{dataset: mnist5k, seed: [{BOMB}]}}}}\n", f"defaults: {{lr: [{BOMB}]}}\n"]
YAML += [
    f"suite: [{BOMB}]\n",
    f"[{BOMB}]: 1\n",
    f"{{a: {{[{BOMB}]: 1}}}}\n",
    f"publish: [{BOMB}]\n",
]
WIDE = (
    "{"
    + ", ".join(
        f"{k}: [{', '.join(['0.5'] * 99)}]" for k in ("sparsity", "lr", "momentum", "width", "seed")
    )
    + "}"
)
YAML += [f"defaults: {WIDE}\n"]


def instead_of(text, line):
    "The text, with this line in the place of what it says of the same"
    lines = text.splitlines(True)
    kept = [o for o in lines if o.split(":")[0] != line.split(":")[0]]
    return "".join(kept if line[:4] != "runs" else kept[:-1]) + line


def params(draw, folder):
    (folder / "settings.ini").write_text("[DEFAULT]\n")
    shutil.copyfile(REPO / "dvc.yaml", folder / "dvc.yaml")
    text = draw(st.sampled_from(["some", "some", "bits", "tree", "folder"]))
    file = folder / "params.yaml"
    if text == "bits":
        file.write_bytes(bits_of(draw, PARAMS.encode()))
    elif text == "some":
        file.write_bytes(instead_of(PARAMS, draw(st.sampled_from(YAML))).encode("latin-1"))
    elif text == "folder":
        file.mkdir()
    else:
        tree = dict(
            suite="tiny",
            root="",
            defaults=dict(limit=60),
            runs=dict(a=dict(dataset="mnist5k", seed=[0, 1])),
        )
        file.write_text(json.dumps(changed(draw, tree)))
    what = draw(st.sampled_from([["check"], ["check", "tiny"], ["sweep", "tiny", "no"]]))
    return lambda: main(what), dict(keeps=False, names=["params.yaml", "suite"])


THREADS = [
    "²",
    "3000000000",
    "20000",
    "-1",
    "1.5",
    "",
    "x",
    "\0",
    "٣",
    "9" * 5000,
    "1e3",
    " 2 ",
    "é",
]
INI = [
    b"[DEFAULT]\nthreads = %s\n",
    b"[DEFAULT]\ndata = %s\n",
    b"[DEFAULT]\ndata_mirror = %s\n",
    b"%s",
]
ODD = [
    b"\xe9",
    b"\0",
    b"~nouser",
    b"~nouser/x",
    b"x" * 5000,
    b"\xff\xfe",
    b"3000000000",
    b"/dev/null",
    b"[",
]


def machine_settings(draw, folder):
    "settings.ini and the environment"
    env, command = (
        {},
        draw(st.sampled_from(["data verify mnist5k", f"run {TINY} --out run", "ticket list"])),
    )
    if draw(st.booleans()):
        name = draw(
            st.sampled_from(
                ["MPLT_THREADS", "MPLT_DATA", "MPLT_DATA_MIRROR", "MPLT_DEVICE", "WORLD_SIZE"]
            )
        )
        env[name] = draw(
            st.sampled_from([o for o in THREADS + WORDS if "\0" not in o and "\ud800" not in o])
        )
        if name in ("MPLT_THREADS", "WORLD_SIZE"):
            command = f"run {TINY} --out run"
    else:
        raw = draw(st.sampled_from(INI)).replace(b"%s", draw(st.sampled_from(ODD)))
        (folder / "settings.ini").write_bytes(raw if draw(st.booleans()) else bits_of(draw, raw))
        for k in "MPLT_THREADS", "MPLT_DATA":
            env[k] = None

    def do():
        for k, v in env.items():
            os.environ.pop(k, None)
            if v is not None:
                os.environ[k] = v
        status = main(command.split())
        assert torch.get_num_threads() <= 256, "too many threads"
        return status

    return do, dict(keeps=False, names=["settings.ini", *env])


def command_line(draw, folder):
    names = draw(
        st.sampled_from(
            [[k] for k in cli.commands] + [["ticket", k] for k in cli.commands["ticket"].commands]
        )
    )
    if names == ["sweep"]:
        names = ["sweep", "quick", "no"]
    flags = [f"--{k}" for k in SETTINGS] + [
        "--out",
        "--device",
        "--root",
        "--jobs",
        "--on",
        "--seed-only",
    ]
    rest = [
        draw(st.sampled_from(flags) | words | st.sampled_from(["dense", "0.5", "mnist5k", "3"]))
        for _ in range(draw(st.integers(0, 4)))
    ]
    said = [
        *names,
        *rest,
        *(["--limit", "20", "--batch_size", "5"] if names[0] in ("run", "imp") else []),
    ]
    # no NUL gets into a command line
    said = [o.replace("\0", "") for o in said]
    return lambda: main(said), dict(
        keeps=False, names=said, lines=None if names[0] == "runs" else 1
    )


# paths, disks, streams


def odd_paths(folder):
    "Paths that are not what a command hopes for"
    (folder / "file").write_text("x")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "closed").mkdir()
    (folder / "closed/file").write_text("x")
    os.mkfifo(folder / "fifo")
    for o in "closed/file", "closed":
        (folder / o).chmod(0)
    odd = ["n" * 300, "d/" * 2100 + "x", "a\nb", "a\0b", "\x1b[31mnew\x07", "\udcff", ""]
    odd += "file file/x folder dangling loop closed closed/file fifo".split()
    return odd + "/dev/zero /dev/full /dev/null /proc/self/mem".split()


USES = ["ticket info {}", "ticket verify {}", "ticket export good {}", "ticket export good {}/x.md"]
USES += [
    "ticket export good {}.md",
    "ticket classify good {}",
    "runs import {}",
    f"run {TINY} --out {{}}",
]
USES += [
    "data verify mnist5k --root {}",
    "data fetch mnist5k --root {}",
    "sweep quick --on {}",
    f"run {TINY} --out {{}}/x",
]
USES += ["data verify imagenet --root {}"]


def become_anyone():
    "Even root may then not read what nobody may read (Linux's capset with an empty set)"
    if os.geteuid() == 0:
        head, none = struct.pack("Ii", 0x20080522, 0), bytes(24)
        assert ctypes.CDLL(None).capset(head, none) == 0


def paths(draw, folder):
    path = draw(st.sampled_from(odd_paths(folder)))
    use = draw(st.sampled_from(USES))
    shutil.copyfile(GOOD, folder / "good")
    gone = draw(st.integers(0, 9)) == 0

    def do():
        become_anyone()
        if gone:
            os.mkdir("gone")
            os.chdir("gone")
            os.rmdir("../gone")
        return main([o.replace("{}", path) for o in use.split(" ")])

    lines = None if "import" in use else 1
    return do, dict(
        names=["working folder"]
        if gone
        else [path or use.split()[-2], "quick", *["NUL"] * ("\0" in path)],
        keeps="run" not in use and "export" not in use,
        lines=lines,
    )


def disks(draw, folder):
    "A disk that is full after some bytes, or on which nothing can be written any more"
    shutil.copyfile(GOOD, folder / "good")
    (folder / "old.md").write_text("old")
    words = draw(
        st.sampled_from(
            [
                "ticket export good new.md",
                f"run {TINY} --out run",
                f"run {CYCLES} --out run",
                "check tiny",
            ]
        )
    )
    room, readonly = draw(st.sampled_from([0, 1, 100, 1000, 5000, 20000])), draw(st.booleans())
    if "check" in words:
        (folder / "settings.ini").write_text("[DEFAULT]\n")
        (folder / "params.yaml").write_text(PARAMS)
        shutil.copyfile(REPO / "dvc.yaml", folder / "dvc.yaml")

    def do():
        if readonly:

            def refuse(path, *_, **__):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

            writes = io.open

            def only_reading(file, mode="r", *args, **kwargs):
                inside = not isinstance(file, int) and "/dev" not in str(file)
                return (
                    refuse(file)
                    if inside and set(mode) & set("wax+")
                    else writes(file, mode, *args, **kwargs)
                )

            for name in "mkdir", "unlink", "replace", "rename", "rmdir", "remove":
                setattr(os, name, refuse)
            io.open = only_reading
            import builtins

            builtins.open = only_reading
        else:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            # stderr and stdout are files as well, so they are pipes here
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
            )
        return main(words.split())

    return do, dict(
        keeps=False,
        names=[words.split()[-1], "new.png", folder.name, "run"],
        whole=["good", "old.md"],
        pipes=True,
    )


STREAMS = ["closed", "full", "gone", "ascii", "fine"]


def streams(draw, folder):
    "Output that cannot be written, in a terminal that knows few letters"
    shutil.copyfile(GOOD, folder / "good")
    shutil.copyfile(GOOD, folder / "gööd☃")
    use = draw(st.sampled_from([
        "methods", "ticket info good", "ticket verify gööd☃", "ticket verify \udcff", "ticket list", "--help",
        "rum", "ticket verify ☃", f"run {TINY} --out ☃", "run --sparsity 80", "runs import ☃",
        f"run {TINY} --out \udcff",
    ]))  # fmt: skip
    out, err = (draw(st.sampled_from(STREAMS)) for _ in range(2))

    def do():
        for number, kind in (1, out), (2, err):
            name = {1: "stdout", 2: "stderr"}[number]
            if kind == "closed":
                os.close(number)
                setattr(sys, name, None)
            elif kind == "full":
                os.dup2(os.open("/dev/full", os.O_WRONLY), number)
                setattr(sys, name, open(number, "w", (-1, 1)[number - 1], closefd=False))
            elif kind == "gone":
                end, beginning = os.pipe()
                os.dup2(beginning, number)
                os.close(end)
                os.close(beginning)
                setattr(sys, name, open(number, "w", (-1, 1)[number - 1], closefd=False))
            elif kind == "ascii":
                how = dict(errors="backslashreplace") if number == 2 else {}
                setattr(
                    sys,
                    name,
                    open(number, "w", (-1, 1)[number - 1], encoding="ascii", closefd=False, **how),
                )
        return main(use.split())

    lines = None if err in ("closed", "full", "gone") else 1
    names = ["output", *use.split()]
    return do, dict(keeps=False, names=names, lines=lines, statuses=(0, 2, 141))


def memory(draw, folder):
    "Too little of it"
    shutil.copyfile(GOOD, folder / "good")
    use = draw(st.sampled_from([
        "ticket verify good", "ticket export good out.md", f"run {TINY} --out run", "ticket info good",
        "run --arch vgg16 --limit 60 --batch_size 50 --epochs 1 --out run",
        "ticket export good out.safetensors",
    ]))  # fmt: skip
    room = draw(st.integers(0, 40)) * 2**20

    def do():
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(
            resource.RLIMIT_AS, (now + room, resource.getrlimit(resource.RLIMIT_AS)[1])
        )
        return main(use.split())

    return do, dict(keeps=False, names=["memory"])


# pictures


def picture(draw):
    "A file's content"
    x, f = np.random.RandomState(0).randint(0, 256, (30, 40, 3)).astype(np.uint8), io.BytesIO()
    kind = draw(st.sampled_from("png jpeg ppm gif tiff bmp webp npy bomb header".split()))
    if kind == "npy":
        np.save(f, x.transpose(2, 0, 1)[:1, :28, :28])
    elif kind == "bomb":
        raw = b"P5 20000 20000 255\n" + bytes(10)
        return draw(st.sampled_from([raw, HUGE]))
    elif kind == "header":
        return draw(
            st.sampled_from(
                [b"P6 -1 3 255\n", b"P6 9999999999 1 255\n", b"P6\n", b"P5 3 x", b"\x89PNG", b""]
            )
        )
    else:
        Image.fromarray(x).save(f, kind)
    return bits_of(draw, f.getvalue())


def a_huge_png():
    "20,000 pixels squared, in a few hundred kB"
    f = io.BytesIO()
    Image.new("1", (20000, 20000)).save(f, "png")
    return f.getvalue()


def pictures(draw, folder):
    shutil.copyfile(GOOD, folder / "good")
    name = draw(st.sampled_from(["x.png", "x.jpg", "x.ppm", "x.npy"]))
    if draw(st.booleans()):
        (folder / name).write_bytes(picture(draw))
        return lambda: main(["ticket", "classify", "good", name]), dict(names=[name], mib=MIB)
    name = name.replace("npy", "png")
    for part in "train", "val":
        for i in "ab":
            (folder / "imagenet" / part / i).mkdir(parents=True)
            for k in range(10):
                Image.new("RGB", (40, 50), (9 * k, 99, 50)).save(
                    folder / f"imagenet/{part}/{i}/{k}.jpg"
                )
    part = draw(st.sampled_from(["train", "val"]))
    (folder / f"imagenet/{part}/a/{name}").write_bytes(picture(draw))
    own = draw(st.booleans())  # decoded as a whole before, and not when it is its turn
    dataset = "folder:imagenet --side 12" if own else "imagenet"
    given = f"run --dataset {dataset} --arch fc1 --width 0.1 --epochs 1 --batch_size 9 --out run"
    os.environ["MPLT_DATA"] = str(folder)
    return lambda: main(given.split()), dict(names=[name, "imagenet"], keeps=False)


def packed_data(draw, folder):
    "A data set's files that are right by their checksum, as of a set one has added, and wrong all the same"
    import gzip
    import hashlib
    from dataclasses import replace

    from mplt import data

    place = folder / "mnist5k"
    shutil.copytree(REPO / "data/mnist5k", place)
    file = draw(st.sampled_from(sorted(f.name for f in place.iterdir() if f.suffix == ".gz")))
    raw = (place / file).read_bytes()
    what = draw(st.sampled_from(["bits", "inside", "bomb"]))
    if what == "bits":
        raw = bits_of(draw, raw)
    elif what == "inside":
        raw = gzip.compress(bits_of(draw, gzip.decompress(raw)[:3000]), 1)
    else:
        shape = draw(
            st.lists(st.sampled_from([28, 1, 0, -1, 10**4, 2**20]), min_size=1, max_size=4)
        )
        head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape)
        raw = gzip.compress(head + draw(st.sampled_from(ZEROS)))
    (place / file).write_bytes(raw)

    def do():
        files = {
            f: hashlib.md5((place / f).read_bytes()).hexdigest()
            for f in data.SOURCES["mnist5k"].files
        }
        data.SOURCES["mnist5k"] = replace(data.SOURCES["mnist5k"], files=files)
        os.environ["MPLT_DATA"] = str(folder)
        return main(f"run {TINY} --out run".split())

    return do, dict(keeps=False, names=[file.split("-")[0]], mib=600)


def own_arrays(draw, folder):
    "A file of arrays of one's own: damaged, of other types and shapes, or one that grows"
    arrays = {}
    for part, n in ("train", 40), ("test", 20):
        arrays[f"x_{part}"] = np.arange(n * 64, dtype=np.uint8).reshape(n, 1, 8, 8)
        arrays[f"y_{part}"] = np.arange(n) % 4
    what = draw(st.sampled_from(["bits", "else", "grows", "gone"]))
    name = draw(st.sampled_from(sorted(arrays)))
    if what == "else":
        kinds = [np.float32, np.int8, np.uint64, np.complex64, bool, "S3", "M8[s]"]
        arrays[name] = arrays[name].astype(draw(st.sampled_from(kinds)))[: draw(st.integers(0, 40))]
    elif what == "grows":
        shape = draw(st.sampled_from([(2**28,), (2**16, 1, 64, 64), (1, 2**14, 2**14), (2**25,)]))
        arrays[name] = np.zeros(shape, np.uint8)
    elif what == "gone":
        del arrays[name]
    np.savez_compressed(folder / "own.npz", **arrays)
    if what == "bits":
        (folder / "own.npz").write_bytes(bits_of(draw, (folder / "own.npz").read_bytes()))
    given = "run --dataset npz:own.npz --arch fc1 --width 0.1 --epochs 1 --batch_size 9 --out run"
    return lambda: main(given.split()), dict(keeps=False, names=["own.npz"], mib=600)


CLASSES = [
    tickets,
    sizes,
    runs,
    params,
    machine_settings,
    command_line,
    paths,
    disks,
    streams,
    memory,
    pictures,
]
CLASSES += [packed_data, own_arrays]
MORE = {tickets: 4, paths: 4, streams: 2}  # so many times as often: they are of many kinds


# how it ends


def snapshot(folder):
    "Name: content of what lies in a folder, as far as it is files"
    files = {}
    for f in folder.rglob("*"):
        mode = f.lstat().st_mode
        files[str(f.relative_to(folder))] = (
            f.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
        )
    return files


def attempt(do, folder, pipes=False):
    "Do it in a process of its own: status, what it says, seconds of CPU, MiB more than before"
    out, err = TemporaryFile(), TemporaryFile()
    ends = [os.pipe(), os.pipe()] if pipes else []
    # what a child begins with: pages of files are not among it
    before = int(re.search(r"RssAnon:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    pid = os.fork()
    if not pid:
        status = 70
        try:
            signal.alarm(60)
            for number, file in (1, out), (2, err):
                os.dup2(ends[number - 1][1] if pipes else file.fileno(), number)
            sys.stdout = open(1, "w", closefd=False)
            sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")
            logging.root.handlers.clear()
            os.chdir(folder)
            status = do()
            if sys.stdout:
                sys.stdout.flush()  # as Python does at its end
        except BaseException:
            status = 70
            try:
                print(traceback.format_exc(), file=sys.stderr, flush=True)
            except Exception:
                pass
        finally:
            os._exit(status)
    said = ["", ""]
    if pipes:
        for i, (end, beginning) in enumerate(ends):
            os.close(beginning)
            with open(end, "rb") as f:
                said[i] = f.read().decode(errors="surrogateescape")
    _, code, used = os.wait4(pid, 0)
    if not pipes:
        for i, f in enumerate((out, err)):
            f.seek(0)
            said[i] = f.read().decode(errors="surrogateescape")
    seconds, mib = used.ru_utime + used.ru_stime, (used.ru_maxrss - before) / 1024
    return SimpleNamespace(
        status=os.waitstatus_to_exitcode(code), out=said[0], err=said[1], seconds=seconds, mib=mib
    )


def named(names, said):
    "Does a sentence say one of these words, as a terminal may have them? Of a long one the beginning"
    beginnings = {shown(o.replace("\n", " ")).strip("- ")[:20] for o in names} - {""}
    return any(re.search(rf"(?<!\w){re.escape(o)}", said) for o in beginnings)


def verdict(
    end, before, after, names, lines=1, keeps=True, statuses=(0, 2), seconds=30, mib=1500, whole=()
):
    "What is wrong with how it ended; '' if nothing is"
    said = [o for o in end.err.strip("\n").split("\n") if o]
    odd = [o for o in end.out + end.err if not (o.isprintable() or o == "\n")]
    last = [o for o in said if o.startswith("mplt: ")]
    if end.status not in statuses:
        return f"status {end.status}: {said[-1] if said else ''}"
    if end.status == 2 and lines and (len(last) != lines or said[-1] != last[-1]):
        return f"no sentence: {said}"
    if end.status == 2 and said and not named(names, said[-1] if lines else end.out + end.err):
        return f"names none of {[str(o)[:40] for o in names]}: {said[-1]}"
    if "Traceback" in end.err or "Error ignored" in end.err or "Exception ignored" in end.err:
        return f"traceback: {said[-1]}"
    if odd:
        return f"raw {odd[0]!r} on the terminal"
    if end.seconds > seconds or end.mib > mib:
        return f"{end.seconds:.1f} s of CPU, {end.mib:.0f} MiB"
    if keeps and end.status == 2 and before != after:
        return f"left or lost {sorted({*before.items()} ^ {*after.items()})[0][0]}"
    if lost := [k for k in before if (k in whole) and before[k] != after.get(k)]:
        return f"lost {lost[0]}"
    if tmp := [k for k in after if k.endswith(".tmp") and k not in before]:
        return f"left {tmp[0]}"
    return ""


def tried(attack, n):
    "Attack so often: what was wrong each time, '' for nothing"
    wrong = []

    @settings(
        max_examples=n,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    @given(st.data())
    def once(data):
        with TemporaryDirectory() as place:
            folder = Path(place)
            do, how = attack(data.draw, folder)
            before = snapshot(folder)
            end = attempt(do, folder, how.pop("pipes", False))
            if (folder / "closed").exists():
                (folder / "closed").chmod(0o700)
            wrong.append(verdict(end, before, snapshot(folder), **how))

    once()
    return wrong


def prepare(folder):
    "What the attacks begin with"
    global EXAMPLES, RUNS, GOOD, HUGE

    os.environ |= dict(MPLT_THREADS="1", MPLT_DATA=str(REPO / "data"), MPLT_DATA_MIRROR="")
    folder.chmod(0o755)
    EXAMPLES = {
        f"{m} {bn}": example(m, bn=bn) for m, bn in (("mpt-1-32", "plain"), ("mpt-1-1", "learned"))
    }
    header, tensors = EXAMPLES["mpt-1-32 plain"]
    GOOD = folder / "good"
    said = {k: v for k, v in header.items() if k not in ("format", "sha256")}
    GOOD.write_bytes(packed(said, tensors[""].numpy().tobytes()))
    GOOD.chmod(0o644)
    RUNS = {}
    for i, words in enumerate((TINY, CYCLES)):
        RUNS[words] = folder / f"run{i}"
        end = attempt(lambda: main(f"run {words} --out {RUNS[words]}".split()), folder)
        assert end.status == 0, end
    HUGE = a_huge_png()


def attacked(n, names=()):  # Attacks a class; names of classes, none: all
    "How many trials each class had, and what went wrong"
    with TemporaryDirectory() as place:
        prepare(Path(place))
        some = [a for a in CLASSES if not names or a.__name__ in names]
        return {a.__name__: tried(a, n * MORE.get(a, 1)) for a in some}


if __name__ == "__main__":
    torch.set_num_threads(1)
    number, *some = sys.argv[1:] or ["200"]
    begin, found = time.time(), attacked(int(number), some)
    print("class | trials | failures\n--- | --- | ---")
    for name, wrong in found.items():
        print(f"{name} | {len(wrong)} | {sum(map(bool, wrong))}")
    for name, wrong in found.items():
        for o in sorted(filter(None, wrong)):
            print(f"{name}: {o[:300]}")
    print(f"{time.time() - begin:.0f} s")
    sys.exit(any(any(o) for o in found.values()))
