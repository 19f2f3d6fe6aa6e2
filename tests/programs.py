"""How fast and how small is a ticket as a program?  python tests/programs.py [FILE.csv]

Exports tickets as C, compiles each in several ways, gives a program one image and then more, and reads from
/proc (of Linux) what it took: processor time until the first answer has been found, resident memory, and time
for each further image. Every program in turn, medians. Tickets are untrained: time does not depend on what
they have learned. Writes a CSV if told where.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from speed import processor

from mplt import infer, ticket
from mplt.export import export
from mplt.models import build
from mplt.subnet import as_subnet

TICKETS = [
    ("conv4", "mpt-1-1", 0.5, False),
    ("conv4", "mpt-1-1", 0.5, True),
    ("vgg-small", "mpt-1-1", 0.5, False),
    ("vgg-small", "mpt-1-1", 0.9, False),
    ("conv4", "mpt-1-32", 0.9, False),
]
AVX2 = "-O3 -march=native -mno-avx512f"
WAYS = [AVX2, "-O3 -mssse3", "-O3", "-O2"]
MORE = 20  # images after the first one


def compiled(arch, method, sparsity, seed_only, folder):
    "Way: program"
    torch.manual_seed(0)
    act = "sign" if method == "mpt-1-1" else "relu"
    net = as_subnet(build(arch, (3, 32, 32), 10, bn="plain", act=act), method, sparsity)
    net.train()(torch.randn(16, 3, 32, 32))
    path, source = folder / "ticket", folder / "net.c"
    ticket.save(path, net, mean=[0.5] * 3, std=[0.25] * 3)
    export(path, source, None, seed_only)
    made = {}
    for way in WAYS:
        made[way] = folder / f"{arch} {method} {sparsity} {seed_only} {way}".replace(" ", "_")
        command = [*infer.compiler(), "-std=c99", *way.split(), "-DMPLT_MAIN", source]
        subprocess.run([*command, "-o", made[way]], check=True)
    return made


def spent(pid):
    "Milliseconds of processor time, once it waits for more"
    ms = None
    while True:
        now = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6
        if now == ms:
            return ms
        ms = now
        time.sleep(0.2)


def run(program, images):
    "Milliseconds until the first answer, MB, and milliseconds of each further image"
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as p:
        p.stdin.write(images[0].tobytes())
        p.stdin.flush()
        first = spent(p.pid)
        lines = Path(f"/proc/{p.pid}/status").read_text().splitlines()
        (kilobytes,) = (int(o.split()[1]) for o in lines if o.startswith("VmHWM"))
        p.stdin.write(images[1:].tobytes())
        p.stdin.flush()
        return first, kilobytes / 1000, (spent(p.pid) - first) / (len(images) - 1)


def main(out=None):
    images = np.random.RandomState(0).randint(256, size=(1 + MORE, 3, 32, 32)).astype("u1")
    with tempfile.TemporaryDirectory() as folder:
        programs = {(*o, way): p for o in TICKETS for way, p in compiled(*o, Path(folder)).items()}
        found = {k: [] for k in programs}
        for _ in range(7):
            for k, program in programs.items():
                found[k].append(run(program, images))
    rows = []
    for (arch, method, sparsity, seed_only, way), measured in found.items():
        first, size, each = (statistics.median(o) for o in zip(*measured))
        row = dict(network=arch, method=method, zeros=f"{sparsity:.0%}", seed_only=seed_only)
        row |= {"compiled with": way, "first answer ms": round(first, 1)}
        rows.append(row | {"resident MB": round(size, 1), "ms": round(each, 2)})
    table = pd.DataFrame(rows)
    best = table.ms.where(table["compiled with"] == AVX2).ffill()
    cc = subprocess.run([*infer.compiler(), "--version"], capture_output=True, text=True).stdout
    table["x AVX2"] = (table.ms / best).round(1)
    table["machine"] = f"{processor()}; {cc.splitlines()[0]}"
    print(table.drop(columns="machine").to_string(index=False))
    if out:
        table.to_csv(out, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
