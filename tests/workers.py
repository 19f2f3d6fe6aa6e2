"""What does handing out runs cost?  python tests/workers.py

Two workers of one thread: 1,000 tasks that do nothing, then 24 runs on MNIST in a home of their own,
cut to one pass over a part of the images. The busy share is the time in runs over that of the workers,
from when they stand ready to when the last run is in."""

import os
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from mplt.config import config
from mplt.data import machine
from mplt.sweep import crew, sweep

METHODS = "dense bnn-1-32 edge-popup mpt-1-32".split()


def main():
    os.environ |= dict(MPLT_DATA=str(machine().data), MPLT_THREADS="1")
    home = tempfile.TemporaryDirectory()
    (Path(home.name) / "settings.ini").touch()
    cut = dict(dataset="mnist", bn="plain", epochs=1)
    configs = [
        config(**cut | dict(arch=arch, method=method, seed=seed, limit=limit))
        for arch in ("fc1", "lenet5")
        for method in METHODS
        for seed, limit in enumerate((2000, 6000, 20000))
    ]
    with chdir(home.name), crew(jobs=2) as how:
        begin = time.time()
        futures = [how["executor"].submit(int) for _ in range(1000)]
        for future in futures:
            future.result()
        print(f"1,000 empty tasks: {time.time() - begin:.1f} ms each", flush=True)
        begin = time.time()
        rows = sweep(configs, **how)
        span = time.time() - begin
    share = rows.seconds.sum() / (2 * span)
    print(
        f"{len(rows)} runs of {rows.seconds.min():.1f} to {rows.seconds.max():.1f} s: busy {share:.3f}"
    )


if __name__ == "__main__":
    sys.exit(main())
