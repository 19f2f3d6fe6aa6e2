"What the package has beside its code: the digits of data/mnist5k, and the zoo, the smallest tickets first"

from csv import DictReader
from itertools import accumulate
from pathlib import Path

from setuptools import setup

SUITES = [f"{suite}/runs/*/summary.csv" for suite in ("mnist", "cifar10")]
MOST = 1_500_000  # bytes of tickets

results = Path(__file__).parent / "results"
rows = [row for pattern in SUITES for f in results.glob(pattern) for row in DictReader(f.open())]
rows = [row for row in rows if row["seed"] == "0" and row["method"] != "random"]
tickets = {results / "runs" / row["config_hash"] / "ticket.safetensors" for row in rows}
sizes = sorted((f.stat().st_size, f"runs/{f.parent.name}/{f.name}") for f in tickets if f.exists())
small = [f for (_, f), sum in zip(sizes, accumulate(n for n, _ in sizes)) if sum <= MOST]

setup(
    packages=["mplt", "mplt.mnist5k", "mplt.zoo"],
    package_dir={"mplt.mnist5k": "data/mnist5k", "mplt.zoo": "results"},
    package_data={"mplt": ["infer.c"], "mplt.mnist5k": ["*.gz"], "mplt.zoo": [*SUITES, *small]},
)
