"What README and the chapter results say of our runs, with the numbers that the runs have left."

import csv
import json
import re
from functools import cache

import pandas as pd
import pytest
import torch
from conftest import REPO

from mplt.command import main
from mplt.models import build
from mplt.pipeline import run_folders, suite_configs
from mplt.report import gather, over_seeds, variants
from mplt.subnet import as_subnet

BETTER = "init signed_constant, lr 3.0"  # than the recipe, on CIFAR-10
WORDS = "no one two three four five six seven eight nine ten eleven".split()


@cache
def rows(suite, file="levels.csv"):
    return gather(run_folders(suite), file)


def controls_of(suite):
    return gather([f for f in run_folders(suite) if (f / "controls.csv").exists()], "controls.csv")


@cache
def settings(suite):
    "A row for each setting of a suite, accuracies in percent"
    o = over_seeds(variants(rows(suite)))
    return o.assign(**100 * o[["val_accuracy", "test_accuracy", "test_std"]])


def row(suite, arch, method, sparsity=0, bn="plain", width=1, variant=""):
    "The only row of such a setting"
    o = settings(suite)
    o = o[(o.arch == arch) & (o.method == method) & ((o.sparsity - sparsity).abs() < 0.005)]
    o = o[(o.bn == bn) & (o.width == width) & (o.variant == variant)]
    assert len(o) == 1
    return o.iloc[0]


def test(*names, **more):
    return row(*names, **more).test_accuracy


test.__test__ = False  # it is no test


def points(difference):
    n = round(difference)
    return "a point" if n == 1 else f"{WORDS[n]} points"


def prose(notebook):
    cells = json.loads((REPO / "nbs" / notebook).read_text())["cells"]
    return "\n\n".join("".join(o["source"]) for o in cells if o["cell_type"] == "markdown")


def of_the_quick_suite():
    runs = suite_configs("quick")
    dense, imp = runs["fc1-dense"], runs["fc1-imp"]
    yield f"3,600 training digits; {dense[0].epochs} epochs, for imp {imp[0].epochs} in each of "
    yield f"{imp[0].epochs} in each of {imp[0].cycles + 1} trainings"
    seeds = [len({c.seed for c in o}) for o in (dense, imp)]
    yield f"over {seeds[0]} seeds (imp {seeds[1]})"


def of_cifar10_in_short():
    o = settings("cifar10")
    short, long = sorted(o[o.method == "mpt-1-32"].epochs.unique())
    assert {*o[o.epochs == long].arch} == {"conv6"}
    cycle = o[o.method == "imp"].epochs.unique().item()
    said = f"{short} epochs, Conv-6 {long} as well (imp: {cycle} in each of its trainings); "
    yield f"*Figure F1 of the suite `cifar10`: {said}"
    ticket, dense = (
        best_by_hand(o, long, arch="conv6", method=k).test_accuracy for k in ("mpt-1-32", "dense")
    )
    yield f"after {long} epochs Conv-6's ticket is {dense - ticket:.1f} points behind its dense network, "
    claims = pd.read_csv(REPO / "results/cifar10/tables/claims.csv").set_index("claim")
    row = claims.loc[f"prize 1, {long} epochs: as accurate as trained"]
    assert -row.difference <= row["seeds alone"] < 1 - row.difference
    assert row.verdict.startswith("not decided")
    yield f"{dense - ticket:.1f} points behind its dense network, and seeds alone may make as much"


def of_mnist():
    assert set(settings("mnist").seeds) == {3}
    yield "the suite `mnist`: 3 seeds"
    lenet5, fc1 = ("mnist", "lenet5"), ("mnist", "fc1")
    dense, ticket = row(*lenet5, "dense"), row(*lenet5, "mpt-1-32", 0.5)
    assert abs(dense.test_accuracy - ticket.test_accuracy) < dense.test_std
    yield "On LeNet-5 random weights with a learned mask equal trained ones"
    assert f"{test(*fc1, 'dense') - test(*fc1, 'mpt-1-32', 0.5):.1f}" == "0.5"
    yield "on fc1 they stay half a point below"
    assert row(*fc1, "mpt-1-32", 0.5).ticket_bytes > 0.99 * row(*fc1, "bnn-1-32").ticket_bytes
    yield "these tickets are no smaller than a trained binary network"
    yield f"fc1 at 90 % takes {round(row(*fc1, 'mpt-1-32', 0.9).ticket_bytes, -2):,.0f} bytes"
    small = row("mnist", "conv6", "mpt-1-32", 0.5, width=0.125, variant=f"{BETTER}, precision bf16")
    yield f"half pruned and trained for {small.epochs} epochs, is right about "
    size = round(small.ticket_bytes, -1)
    yield f"about {small.test_accuracy:.1f} ± {small.test_std:.1f} % in {size:,.0f} bytes"
    t4 = pd.read_csv(REPO / "results/mnist/tables/T4.csv")
    assert t4.iloc[-1].network == "conv6" and t4.iloc[-1]["% pruned"] == 50

    whole, tenth = row(*fc1, "imp", bn="none"), row(*fc1, "imp", 0.898, bn="none")
    lost = whole.test_accuracy - tenth.test_accuracy
    yield f"keeps the accuracy of the whole network but for {lost:.1f} points, "
    scores = row(*fc1, "imp-score", 0.898, bn="none")
    assert abs(whole.test_accuracy - scores.test_accuracy) < whole.test_std
    yield "where scores choose (imp-score) there is no difference at all; "
    cycles = dict(bn="none", variant="cycles 9")
    small = row(*lenet5, "imp", **cycles)
    yield f"which has {WORDS[round(whole.weights_total / small.weights_total)]} times fewer weights"
    lost = small.test_accuracy - test(*lenet5, "imp", 0.903, **cycles)
    quarter = row(*lenet5, "imp", 0.736, **cycles)
    assert abs(small.test_accuracy - quarter.test_accuracy) < quarter.test_std
    yield f"loses {points(lost)} at a tenth and nothing at a quarter"
    for network, sparsity, how in ((fc1, 0.898, dict(bn="none")), (lenet5, 0.903, cycles)):
        for method in "imp-reinit", "imp-random":
            ours = row(*network, "imp", sparsity, **how)
            assert ours.test_accuracy - test(*network, method, sparsity, **how) > 2


def of_cifar10():
    "What the ledger's sections say in words"
    o = settings("cifar10")
    conv4 = o.query('arch == "conv4" and width == 1')
    short, long = sorted(o.query('method in ("mpt-1-32", "dense")').epochs.unique())
    yield f"They were trained for {short} epochs, Conv-6 for {long} as well, where"
    pairs = [
        [best_by_hand(o, n, arch="conv6", method=k).test_accuracy for k in ("mpt-1-32", "dense")]
        for n in (short, long)
    ]
    gained = [longer - shorter for shorter, longer in zip(*pairs)]
    gaps = [dense - ticket for ticket, dense in pairs]
    yield f"On Conv-6, {long} epochs instead of {short} make the ticket {gained[0]:.1f} points better "
    yield f"and the dense network {gained[1]:.1f} points better: "
    yield f"{gaps[1]:.1f} points lie between them instead of {gaps[0]:.1f} (one seed each)."
    better = [
        best_by_hand(o, arch=k, method="mpt-1-32").test_accuracy
        - test("cifar10", k, "mpt-1-32", 0.9)
        for k in ("conv4", "conv6")
    ]
    yield f"are {better[0]:.1f} and {better[1]:.1f} points better than with that. "
    ticket, dense = (best_by_hand(o, arch="conv8", method=k) for k in ("mpt-1-32", "dense"))
    assert (ticket.variant, ticket.sparsity) == ("", 0.9)
    behind = dense.test_accuracy - ticket.test_accuracy
    several = o[(o.seeds == 3) & (o.method != "random")]
    alone, without = (  # what seeds make between two single ones
        2 * (k.test_std.pow(2).mean() * 2) ** 0.5 for k in (several, several[several.width == 1])
    )
    assert behind - min(better) < alone
    yield f"Of the {behind:.1f} points that Conv-8's is behind, what such a one would leave may be chance."
    assert several.arch.tolist() == ["conv4"] * 3 and several.width.nunique() == 2
    assert several.width[several.test_std.idxmax()] == several.width.min()
    yield f"the narrowest Conv-4, which differ most, seeds would make {without:.1f} points."
    depth = [
        [best_by_hand(o, arch=n, method=k).test_accuracy for n in ("conv4", "conv6")]
        for k in ("mpt-1-32", "dense")
    ]
    assert abs(depth[1][1] - depth[1][0] - (depth[0][1] - depth[0][0])) < 0.2
    yield f"gains as much from Conv-4 to Conv-6, {depth[1][1] - depth[1][0]:.1f} points: "
    behind = [dense - ticket for ticket, dense in zip(*depth)]
    yield f"a ticket is {behind[0]:.1f} points behind on the one and {behind[1]:.1f} on the other. "
    conv2 = o.query('arch == "conv2" and method == "mpt-1-32" and sparsity == 0.9').config_hash
    layers = rows("cifar10", "layers.csv").query(f"config_hash == '{conv2.iloc[0]}'")
    assert layers.weights.max() > 0.97 * layers.weights.sum()
    first = layers.weights[layers.layer.str.startswith("conv")]
    yield f"its {WORDS[len(first)]} convolutions have only {first.sum():,} to choose from"
    random = 100 * rows("cifar10").query('method == "random" and bn == "plain"').test_accuracy
    assert 9 < random.min() and random.max() < 11
    yield "is right about one image in ten"

    edge, ticket = (
        conv4[conv4.method == k].test_accuracy.max() for k in ("edge-popup", "mpt-1-32")
    )
    after = 100 * conv4.binarised_test_accuracy.max()
    assert ticket - after > 10 > abs(ticket - edge)
    yield "Its signs taken afterwards are worth far less than"
    alike, fast = (
        conv4[(conv4.sparsity == 0.5) & (conv4.variant == k)].set_index("method")
        for k in ("", "lr 3.0")
    )
    both = 100 * alike.binarised_test_accuracy["edge-popup"], alike.test_accuracy["mpt-1-32"]
    yield f"With the same ones, the recipe's, {both[1] - both[0]:.1f} points lie between them; "
    yield f"with a rate of 3 edge-popup is right about {fast.test_accuracy['edge-popup']:.1f} %, "
    signs = 100 * fast.binarised_test_accuracy["edge-popup"]
    yield f"and with its signs about {signs:.1f} %"
    trained, random = (
        conv4[(conv4.method == k) & (conv4.bn == "plain")] for k in ("bnn-1-1", "mpt-1-1")
    )
    assert random.test_accuracy.min() > trained.test_accuracy.item()
    assert {*random.lr} == {0.003} and len(random) == 2
    yield f"with one setting at Adam's {trained.lr.item()}, where the random ones were tried in two at 0.003"
    yield f"which are better with plain batch normalisation only ({random.test_accuracy.max():.1f} %, "
    alone = conv4.query('method == "random" and bn == "learned"').test_accuracy.item()
    yield f"(with 32-bit activations) is right about {alone:.1f} %. "
    whole = test("cifar10", "conv4", "mpt-1-1", 0.5, "learned")
    yield f"What the mask has learned is worth {whole - alone:.1f} points more. "
    best = best_by_hand(o, arch="conv4", method="mpt-1-32").test_accuracy
    yield f"here they cost {best - whole:.1f} points, although learned batch normalisation is on their side"
    tests = controls_of("cifar10").query('control == "ticket"')
    lost = rows("cifar10").groupby("config_hash").test_accuracy.last()
    lost = 100 * (tests.config_hash.map(lost) - tests.test_accuracy).max()
    yield f"is up to {lost:.1f} points worse for that than in the tables above"
    tried = conv4.query('sparsity == 0.5 or method in ("dense", "imp", "bnn-1-32")')
    tried = tried.groupby("method").variant.nunique()
    assert tried[["mpt-1-32", "dense", "bnn-1-32", "edge-popup", "imp"]].tolist() == [3, 2, 2, 2, 1]
    yield "three settings of mpt-1-32 were tried, of dense, bnn-1-32 and edge-popup two, and of imp one"
    plain = test("cifar10", "conv4", "mpt-1-32", 0.5)
    yield f"with edge-popup's settings, mpt-1-32 is right about {plain:.1f} %"
    imp = o.query('method == "imp"')
    how = [imp[k].unique().item() for k in ("epochs", "batch_size", "lr")]
    yield "`imp` trains for {} epochs at a time here, in batches of {} at Adam's {}, ".format(*how)
    assert imp.test_accuracy.iloc[0] < conv4[conv4.method == "dense"].test_accuracy.min()
    yield "so that its whole network is behind the dense one of 12"

    curves = rows("cifar10", "curves.csv").groupby("config_hash")
    first, last = curves.first().val_accuracy, curves.last().train_loss
    dense, tickets = (conv4[conv4.method == k].config_hash for k in ("dense", "mpt-1-32"))
    assert first[dense].min() > first[tickets].max()
    assert last[dense].max() < 0.8 * last[tickets].min()
    yield "dense training is ahead from the first epoch, and it has fitted its training images far "
    drawn = o.query('method == "mpt-1-32" and variant == "" and sparsity == 0.9').set_index("arch")
    fewer = {}
    for arch, name in drawn.config_hash.items():
        layers = rows("cifar10", "layers.csv").query(f"config_hash == '{name}'")
        fewer[arch] = layers.layer[layers.kept_global < layers.kept].tolist()
    assert fewer["conv2"] == fewer["conv4"] == ["fc1"]
    assert (fewer["conv6"], fewer["conv8"]) == (["conv6", "fc1"], ["conv7", "conv8", "fc1"])
    yield "it would keep fewer of fc1 and of the last convolutions (in Conv-6 of one, in Conv-8 of two)"
    assert (layers.kept_global_start / layers.weights)[layers.layer == "fc1"].item() > 0.11
    yield "not so with Conv-8's fc1, of which more than a tenth would have been kept"
    for sparsity, bits in (0.5, "1.0"), (0.9, "0.5"):
        some = conv4.query(f'method == "mpt-1-32" and sparsity == {sparsity}')
        assert {f"{8 * o.ticket_bytes / o.weights_total:.1f}" for o in some.itertuples()} == {bits}
    yield "A ticket of which half the weights are kept takes one bit a weight"
    yield "At 90 % it takes half a bit."


def of_bytes():
    "Table T4, and who is better at equal bytes"
    t4 = pd.read_csv(REPO / "results/cifar10/tables/T4.csv")
    t4["test %"] = t4["test %"].astype(str).str.split().str[0].astype(float)
    methods = t4.method.tolist()
    assert {*methods} == {"mpt-1-32", "dense"} and methods == sorted(methods, reverse=True)
    published = pd.read_csv(REPO / "data/published_bytes.csv").set_index("bytes")
    theirs = 100 * published[published.dataset == "cifar10"].test_accuracy
    for size in 12200, 66000:
        assert theirs[size] > t4["test %"][t4["file, bytes"] <= 2 * size].max()
        yield f"{size / 1000:g} kB hold {theirs[size]:.1f} %"
    sized = settings("cifar10").query('arch == "conv6" and width < 1')
    assert sized.width.tolist() == [0.5, 0.75, 0.85] and set(sized.seeds) == {1}
    yield "Three were sized for this table, Conv-6 at a half, three quarters and 0.85 of its width"
    held = [
        f"{o.ticket_bytes / 1000:.1f} kB hold {o.test_accuracy:.1f} %" for o in sized.itertuples()
    ]
    yield f"{held[0]} and {held[2]}. "
    yield f"three quarters of Conv-6, 90 % pruned, hold {sized.test_accuracy.iloc[1]:.1f} %, "
    whole, half = (
        row("cifar10", "conv6", "mpt-1-32", 0.95, variant=BETTER),
        row("cifar10", "conv4", "mpt-1-32", 0.5, width=0.5),
    )
    yield f"all of it, 95 % pruned, {whole.test_accuracy:.1f} %, "
    yield f"and a half of Conv-4, half pruned, {half.test_accuracy:.1f} %. "
    for o in (sized.iloc[1], whole, half):
        assert abs(o.ticket_bytes - 80_000) < 5000
    dense, ticket = (
        row("mnist", "lenet5", "dense"),
        row("mnist", "conv6", "mpt-1-32", 0.5, width=0.125, variant=f"{BETTER}, precision bf16"),
    )
    yield f"the dense LeNet-5 in {dense.ticket_bytes / 1000:.1f} kB as well"
    assert ticket.test_accuracy > settings("mnist").query('arch != "conv6"').test_accuracy.max()
    yield f"with {ticket.weights_total:,} weights, less than half of LeNet-5's {dense.weights_total:,}, "
    yield f"and {ticket.epochs} epochs instead of {dense.epochs}. "
    size, other = next(published.query('dataset == "mnist"').test_accuracy.items())
    yield f"A third party's {size / 1000:.1f} kB hold {100 * other:.1f} % (MIRACLE, a LeNet-5"


def of_others():
    "What others report, ours beside it"
    theirs = pd.read_csv(REPO / "data/published.csv", keep_default_na=False)
    binary = (
        theirs.query('arch == "vgg-small" and method == "mpt-1-1"').set_index("bn").test_accuracy
    )
    yield f"{100 * binary['']:.1f} % become {100 * binary['learned']:.1f} % on VGG-Small"
    beside = pd.read_csv(REPO / "results/cifar10/tables/published.csv")
    ours = beside["test %"].astype(str).str.split().str[0].astype(float)
    assert (ours > beside["published %"]).all()
    yield "a dozen epochs on a CPU are enough to be in the range of published results"


def of_the_recipe():
    o = settings("recipe")
    found = {k: g.set_index(["bn", "variant"]).val_accuracy for k, g in o.groupby("method")}
    real, binary = (found[k]["plain", ""] - found[k] for k in ("mpt-1-32", "mpt-1-1"))
    seeds = variants(rows("recipe")).query(
        'method == "mpt-1-32" and bn == "plain" and variant == ""'
    )
    spread = 100 * seeds.val_accuracy.max() - 100 * seeds.val_accuracy.min()
    yield f"without it the same settings lose {real['none', '']:.0f} points. "
    bare = o.query('method == "mpt-1-32" and bn == "none"').set_index(["lr", "scale_fan"])
    bare, best = bare.val_accuracy, found["mpt-1-32"]["plain", ""]
    yield f"about {bare[0.1, False]:.1f} % of the validation images after 4, which is chance, "
    yield f"and about {bare[0.1, True]:.1f} % with scaled weights; at the recipe's rate of 1 it is "
    yield f"it is {bare[1, False]:.1f} % without and {bare[1, True]:.1f} % with them. "
    assert bare.max() < best - 20
    yield f"None comes near batch normalisation's {best:.1f} %. "
    x, begin = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(0)), []
    for fan in False, 0.1:
        net = build("conv4", (3, 32, 32), 10, width=0.5, bn="none")
        net = as_subnet(net, "mpt-1-32", 0.9, scale_fan=fan)
        begin.append(f"{net(x).std().item():.1g}")
    yield f"begin with a deviation of {begin[0]} where nothing normalises, and with {begin[1]} if "
    rate, adam_rate = real["plain", "lr 0.1"], binary["plain", "lr 0.01"]
    yield f"SGD's 0.1 instead of 1 costs nearly {points(rate)}, Adam's 0.01 instead of 0.003 one and"
    assert 3.5 < rate < 4 and 1.4 < adam_rate < 1.7
    yield "Adam's 0.01 instead of 0.003 one and a half. "
    yield f"costs {points(real['plain', 'shift 4'])} in so short a training. "
    assert 1.5 < real["plain", "optimizer adam, lr 0.003"] < 2
    yield "Adam instead of SGD costs nearly two. "
    small = "weight_decay 0.0001", "label_smoothing 0.1", "batch_size 64", "lr 3.0", "shift 0"
    assert real["plain"][list(small)].abs().max() < spread > abs(real["learned", ""])
    yield f"make less than the difference between the two seeds, {spread:.1f} points"
    constant = "init signed_constant"
    whole = [
        row("cifar10", "conv4", "mpt-1-32", 0.5, variant=o).val_accuracy for o in (constant, "")
    ]
    yield f"which are {-real['plain', constant]:.1f} points better here and {whole[0] - whole[1]:.1f}"
    yield f"{whole[0] - whole[1]:.1f} on the whole Conv-4"
    yield f"Adam is {points(binary['plain', 'optimizer sgd, lr 1.0'])} better than SGD, and learned"
    assert f"{-binary['learned', '']:.1f}" == "4.5"
    yield "learned batch normalisation is worth four and a half"
    skips = "surrogate clipped, skips True"
    better = [-binary["plain", f"{skips}, lr 0.01"]]
    better.append(binary["learned", ""] - binary["learned", f"{skips}, lr 0.01"])
    yield f"are together {better[0]:.1f} points better with plain batch normalisation and "
    yield f"and {better[1]:.1f} with learned (no run tells which of the three does it); but on the whole"
    gains = []
    for bn in "plain", "learned":
        o = [row("cifar10", "conv4", "mpt-1-1", 0.5, bn, variant=v) for v in (skips, "")]
        gains.append(o[0].val_accuracy - o[1].val_accuracy)
    yield f"at 0.003, {gains[0]:.1f} points are left of that with plain, and with learned it is "
    yield f"with learned it is {-gains[1]:.1f} points worse. "
    assert min(binary["plain"][[constant, f"{constant}, lr 0.01"]]) > 0
    yield "Signed constant weights are no better."
    dense = found["dense"]["plain"]
    assert 4.4 < dense["lr 0.003"] - dense[""] < 4.7
    yield "instead of 0.0012 makes it four and a half points better here"
    slow, fast = (test("cifar10", "conv4", "dense", variant=v) for v in ("", "lr 0.003"))
    yield f"it is right about {fast:.1f} % of the test images instead of {slow:.1f} %. "
    assert dense["lr 0.003"] == dense.max()
    for sparsity, words in (0.5, "half pruned, hardly a difference"), (0.9, "90 % pruned"):
        two = BETTER, ""
        a, b = (row("cifar10", "conv4", "mpt-1-32", sparsity, variant=v).val_accuracy for v in two)
        of = " of the validation images" if sparsity == 0.5 else ""
        yield f"{a:.1f} %{of} instead of {b:.1f} % ({words})"


CHAPTERS = {
    "index.ipynb": [of_the_quick_suite, of_cifar10_in_short, of_mnist],
    "21_results.ipynb": [of_cifar10, of_bytes, of_others, of_the_recipe],
}


POINTS = "|".join([r"\d+(?:\.\d+)?", *WORDS[2:], "half a"])
NUMBER = rf"\d+\.\d+ %|\b(?:{POINTS}) points?\b"


@pytest.mark.parametrize("notebook", CHAPTERS)
def test_prose_has_the_numbers_of_the_runs(notebook):
    "Each phrase stands in the chapter; what it says in points or in tenths of a percent is in one"
    text = prose(notebook)
    phrases = [phrase for claims in CHAPTERS[notebook] for phrase in claims()]
    missing = [phrase for phrase in phrases if phrase not in text]
    assert not missing, f"{notebook} should say: {missing}"
    checked = set()
    for phrase in phrases:
        checked.update(range(text.index(phrase), text.index(phrase) + len(phrase)))
    numbers = [o for o in re.finditer(NUMBER, text) if o.start() not in checked]
    assert not numbers, [text[o.start() - 40 : o.end() + 20] for o in numbers]


def test_the_first_command(tmp_path):
    "… makes the ticket of README's picture (but for a few images, on another kind of CPU)"
    readme = (REPO / "README.md").read_text()
    command = re.search(r"^mplt (run .*) --out my-run", readme, re.M)[1].split()
    assert main([*command, "--out", str(tmp_path / "my-run")]) == 0
    right = 1000 * pd.read_csv(tmp_path / "my-run/summary.csv").test_accuracy.item()
    said = re.search(r"(\d+) of 1,000 test digits are right", readme)[1]
    assert abs(right - int(said)) <= 5
    assert readme.index("images/ticket.svg") < readme.index(said) < readme.index("mplt run --")


def test_the_first_commands_of_a_reader():
    "PyPI is not replaced, a run is not git's, links to the page Try it lead to what explains it"
    readme = (REPO / "README.md").read_text()
    commands = readme.split("## Quickstart")[1].split("##")[0]
    assert "--extra-index-url" in commands and " --index-url" not in commands
    out = re.search(r"--out (\S+)", commands)[1]
    assert f"/{out}/" in (REPO / ".gitignore").read_text().split()
    assert "](#the-book)" in readme and "try_it.py" not in readme
    assert "npm" in readme.split("\n## The book\n")[1].split("\n## ")[0]


def test_a_column_is_in_a_table_once():
    for table in sorted((REPO / "results").glob("*/tables/*.csv")):
        head = next(csv.reader(table.open()))
        assert len(head) == len({*head}), table


def best_by_hand(o, epochs=12, width=1, **alike):
    "The setting with the highest validation accuracy; None if there is none"
    o = o[(o.epochs == epochs) & (o.width == width) & ((o.sparsity > 0) | (o.cycle == 0))]
    for k, v in alike.items():
        o = o[o[k] == v]
    return o.loc[o.val_accuracy.idxmax()] if len(o) else None


def by_hand():
    "Each claim of the ledger, and its two sides: settings, or test accuracies and numbers of seeds"
    o = settings("cifar10")
    ticket, half = (dict(arch="conv4", method="mpt-1-32") | k for k in ({}, dict(sparsity=0.5)))
    for network, epochs in (
        ("conv2", 12),
        ("conv4", 12),
        ("conv6", 12),
        ("conv6", 40),
        ("conv8", 12),
    ):
        pair = [best_by_hand(o, epochs, arch=network, method=k) for k in ("mpt-1-32", "dense")]
        if any(side is not None for side in pair):
            yield f"prize 1, {epochs} epochs: as accurate as trained", *pair
    first = best_by_hand(o, **ticket)
    yield "depth helps the ticket", best_by_hand(o, arch="conv6", method="mpt-1-32"), first
    yield (
        "width helps the ticket",
        *(best_by_hand(o, width=k, variant="", **half) for k in (1, 0.5)),
    )
    edge = best_by_hand(o, arch="conv4", method="edge-popup")
    yield "prize 3: signs are as good as 32 bits", first, edge
    signs = edge.copy()
    signs["test_accuracy"] = 100 * edge.binarised_test_accuracy
    yield "signs must be learned with", first, signs
    bnn, imp = (
        best_by_hand(o, n, arch="conv4", method=k) for k, n in (("bnn-1-32", 12), ("imp", 3))
    )
    yield "choosing signs is as good as training them", first, bnn
    yield "as accurate as a lottery ticket", first, imp
    binary = dict(arch="conv4", method="mpt-1-1")
    yield "binary activations cost accuracy", first, best_by_hand(o, **binary)
    learned, plain = (best_by_hand(o, bn=k, variant="", **binary) for k in ("learned", "plain"))
    yield "learned BN helps", learned, plain
    alone = best_by_hand(o, arch="conv4", method="random", bn="learned")
    yield "learned BN alone (32-bit activations) is not enough", learned, alone
    controls = controls_of("cifar10").set_index(["control", "config_hash"]).test_accuracy
    measured = o[o.config_hash.isin(controls["ticket"].index) & (o.epochs == 12)]
    name = measured.loc[measured.val_accuracy.idxmax()].config_hash
    sides = [o[o.config_hash == name].iloc[0].copy() for _ in range(2)]
    for side, control in zip(sides, ("ticket", "shuffled")):
        side["test_accuracy"] = 100 * controls[control, name]
    yield "the mask decides", *sides


def test_the_ledger_by_hand():
    "All of its numbers from the settings' means, and its verdicts from its own numbers"
    claims = pd.read_csv(REPO / "results/cifar10/tables/claims.csv", keep_default_na=False)
    o = settings("cifar10")
    several = o[(o.seeds > 1) & (o.method != "random")]
    freedom = several.seeds - 1
    std = ((several.test_std**2 * freedom).sum() / freedom.sum()) ** 0.5
    assert freedom.sum() == 6
    student = 2.447  # its 97.5 % quantile; the ledger takes twice the standard error
    expected = list(by_hand())
    assert [claim for claim, _, _ in expected] == claims.claim.tolist()
    for (_, ours, its), row in zip(expected, claims.to_dict("records")):
        for side, test, of in (ours, "test %", "of"), (its, "its test %", "against"):
            said = "" if side is None else f"{side.test_accuracy:.1f}"
            assert row[test].split(" ±")[0] == said
            assert row[of].endswith(f", n = {0 if side is None else side.seeds}")
            if side is not None:
                assert side.variant in row[of] and row[of].startswith(side.arch)
        if ours is None or its is None:
            assert row["verdict"] == "not run"
            continue
        difference = ours.test_accuracy - its.test_accuracy
        alone = 2 * std * (1 / ours.seeds + 1 / its.seeds) ** 0.5
        assert abs(float(row["difference"]) - difference) < 0.06
        assert abs(float(row["seeds alone"]) - alone) < 0.06
        as_good = re.search("as (good|accurate) as", row["claim"])
        said = {row["verdict"]}
        for error in alone, alone * student / 2:
            if difference < -error:
                said.add(f"holds not, by {-difference:.1f} points")
            elif not as_good and difference > error:
                said.add(f"holds, by {difference:.1f} points")
            elif as_good and difference - error > -1:
                said.add("holds: not a point behind")
            else:
                said.add("not decided: no clear difference")
        assert len(said) == 1, said
