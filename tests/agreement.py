"""Does a ticket in C give the classes that PyTorch gives?  python tests/agreement.py [HASH …]

Classifies the whole test set with each ticket of results/runs that runs in C, in both ways, and counts the
images whose classes `differ`. Of these,
tied: PyTorch gives both classes the same logit, to 1e-5 of the logits' standard deviation;
rounded: a sum of real numbers (in the first layer, or where skips add them) is so near to its threshold (1e-6
of the sums' standard deviation) that its sign depends on the order of the additions. With it, or some such,
turned over, PyTorch gives the logits of C. Anything else would be an error.

Takes seconds a ticket on MNIST and half a minute on CIFAR-10, and writes data/agreement.csv after each. Rows
that are there are kept while the ticket's file is the same; those of the hashes given are counted anew.
"""

import sys
from contextlib import ExitStack
from functools import cache
from itertools import product

import pandas as pd
import torch

from mplt import ticket
from mplt.binarize import Sign
from mplt.data import load, machine, normalise
from mplt.errors import replacing

ROOT = machine().root
TABLE = ROOT / "data/agreement.csv"
data_set = cache(load)  # read once


def files():  # Hash: ticket that runs in C
    found = sorted((ROOT / "results/runs").glob("*/ticket.safetensors"))
    return {f.parent.name: f for f in found if ticket.info(f)["subnet"]["method"] != "dense"}


def turned_over(net, x, expected):
    "Does the image give these logits if signs that rounding decides are turned over?"
    signs, sums = [m for m in net.modules() if isinstance(m, Sign)], []
    with ExitStack() as hooks:
        for m in signs:
            hooks.enter_context(
                m.register_forward_hook(lambda m, given, made: sums.append(given[0]))
            )
        net(x)
    near = [(s.abs() <= 1e-6 * s.std()).flatten().nonzero()[:, 0] for s in sums]
    turns = [torch.ones(s.numel()) for s in sums]
    places = [(turn, i) for turn, o in zip(turns, near) for i in o][:8]
    for chosen in product((1.0, -1.0), repeat=len(places)):
        for (turn, i), v in zip(places, chosen):
            turn[i] = v
        with ExitStack() as hooks:
            for m, turn in zip(signs, turns):
                over = lambda m, given, made, turn=turn: made * turn.view(made.shape)  # noqa: E731
                hooks.enter_context(m.register_forward_hook(over))
            if (net(x) - expected).abs().max() <= 1e-4 * expected.std():
                return True
    return False


@torch.no_grad()
def compare(net, bits, images, source):  # uint8 images of a data set
    "How many images' classes differ, and of these are tied, or rounded"
    logits = torch.cat([net(normalise(x, source)) for x in images.split(500)])
    mine = bits(images)
    best = mine.argmax(1)
    behind = logits.amax(1) - logits.gather(1, best[:, None])[:, 0]
    differ, tied = best != logits.argmax(1), behind <= 1e-5 * logits.std()
    rest = (differ & ~tied).nonzero()[:, 0].tolist()
    rounded = [turned_over(net, normalise(images[i, None], source), mine[i]) for i in rest]
    return dict(differ=differ.sum().item(), tied=(differ & tied).sum().item(), rounded=sum(rounded))


def count(path):
    "A row of the table"
    header = ticket.info(path)
    data = data_set(header["dataset"])
    net, bits = ticket.load(path), ticket.load(path, engine="bits")
    row = dict(config_hash=path.parent.name, sha256=header["sha256"], dataset=header["dataset"])
    row |= dict(arch=header["spec"]["arch"], method=header["subnet"]["method"])
    return row | dict(images=len(data.test.y)) | compare(net, bits, data.test.x, data.source)


def main(given):
    torch.set_num_threads(1)
    rows = pd.read_csv(TABLE, dtype=dict(config_hash=str)) if TABLE.exists() else pd.DataFrame()
    rows = {row["config_hash"]: row for row in rows.to_dict("records")}
    seals, found = {k: row["sha256"] for k, row in rows.items()}, files()
    todo = [k for k in found if k in given or seals.get(k) != ticket.info(found[k])["sha256"]]
    for i, name in enumerate(todo, 1):
        rows[name] = row = count(found[name])
        with replacing(TABLE) as tmp:
            pd.DataFrame(rows.values()).sort_values("config_hash").to_csv(tmp, index=False)
        print(f"{i}/{len(todo)} {name}: {row['differ']} of {row['images']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
