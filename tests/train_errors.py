"""On how many of its training images is a ticket wrong?  python tests/train_errors.py [HASH …]

Rebuilds each ticket of results/runs from its file, in fp32, and counts on the very images that its network
was trained on, those of its seed's split. Takes seconds a ticket on MNIST and minutes on CIFAR-10, and writes
data/train_errors.csv after each. Rows that are there are kept; those of the hashes that are given are counted
anew, as they have to be when a ticket's file holds another network.
"""

import sys
from functools import cache

import pandas as pd
import torch

from mplt import ticket
from mplt.data import load, machine, split
from mplt.errors import replacing
from mplt.experiment import read_rows
from mplt.train import evaluate

ROOT = machine().root
TABLE = ROOT / "data/train_errors.csv"
data_set = cache(load)  # read once


def count(folder):  # Of a run
    "A row of the table"
    run = read_rows(folder / "summary.csv").iloc[0]
    data = data_set(run.dataset)
    images = split(data, int(run.seed), int(run.limit)).train
    _, accuracy = evaluate(ticket.load(folder / "ticket.safetensors"), images, data.source)
    n = len(images.y)
    return dict(config_hash=folder.name, images=n, errors=n - round(accuracy * n))


def main(given):
    torch.set_num_threads(1)
    rows = pd.read_csv(TABLE, dtype=dict(config_hash=str)) if TABLE.exists() else pd.DataFrame()
    rows = {row["config_hash"]: row for row in rows.to_dict("records")}
    files = sorted((ROOT / "results/runs").glob("*/ticket.safetensors"))
    folders = [f.parent for f in files if f.parent.name in (given or {f.parent.name} - {*rows})]
    for i, folder in enumerate(folders, 1):
        row = count(folder)
        rows[folder.name] = row
        with replacing(TABLE) as tmp:
            pd.DataFrame(rows.values()).sort_values("config_hash").to_csv(tmp, index=False)
        print(f"{i}/{len(folders)} {folder.name}: {row['errors']} of {row['images']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
