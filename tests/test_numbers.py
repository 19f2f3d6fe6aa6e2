"What README and the chapter results say of our runs, with the numbers that the runs have left."

import json
import re
from functools import cache

import pandas as pd
import pytest
from conftest import REPO

from mplt.pipeline import run_folders, suite_configs
from mplt.report import gather, over_seeds, variants

WORDS = "no one two three four five six seven eight nine ten eleven".split()


@cache
def rows(suite, file="levels.csv"):
    return gather(run_folders(suite), file)


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
    conv4 = "cifar10", "conv4"
    yield f"the suite `cifar10`: {row(*conv4, 'dense').epochs} epochs, one seed"
    assert settings("cifar10").seeds.max() == 1
    yield f"Half pruned, Conv-4 comes to {test(*conv4, 'mpt-1-32', 0.5):.1f} %. "
    yield f"Trained, the same network has {test(*conv4, 'dense'):.1f} %, "
    yield f"at a higher learning rate {test(*conv4, 'dense', variant='lr 0.003'):.1f} %, "
    yield f"trained signs {test(*conv4, 'bnn-1-32'):.1f} %, "
    yield f"a random mask {test(*conv4, 'random', 0.5):.0f} %. "
    yield f"With binary activations as well (mpt-1-1) it is {test(*conv4, 'mpt-1-1', 0.5):.1f} %, "
    learned = test(*conv4, "mpt-1-1", 0.5, bn="learned")
    yield f"with learned batch normalisation {learned:.1f} %"


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

    whole, tenth = row(*fc1, "imp", bn="none"), row(*fc1, "imp", 0.898, bn="none")
    lost = whole.test_accuracy - tenth.test_accuracy
    yield f"keeps the accuracy of the whole network but for {lost:.1f} points, "
    scores = row(*fc1, "imp-score", 0.898, bn="none")
    assert abs(whole.test_accuracy - scores.test_accuracy) < whole.test_std
    yield "where scores choose (imp-score) there is no difference at all; "
    small = row(*lenet5, "imp", bn="none")
    yield f"which has {WORDS[round(whole.weights_total / small.weights_total)]} times fewer weights"
    lost = small.test_accuracy - test(*lenet5, "imp", 0.903, bn="none")
    quarter = row(*lenet5, "imp", 0.736, bn="none")
    assert abs(small.test_accuracy - quarter.test_accuracy) < quarter.test_std
    yield f"loses {points(lost)} at a tenth and nothing at a quarter"
    for network, sparsity in ((fc1, 0.898), (lenet5, 0.903)):
        for method in "imp-reinit", "imp-random":
            ours = row(*network, "imp", sparsity, bn="none")
            assert ours.test_accuracy - test(*network, method, sparsity, bn="none") > 2


def of_cifar10():
    conv4, conv2 = ("cifar10", "conv4"), ("cifar10", "conv2")
    half, tenth = test(*conv4, "mpt-1-32", 0.5), test(*conv4, "mpt-1-32", 0.9)
    dense, signs = test(*conv4, "dense"), test(*conv4, "bnn-1-32")
    yield f"They were trained for {row(*conv4, 'dense').epochs} epochs"
    assert settings("cifar10").seeds.max() == 1
    yield "There is one seed of each."

    yield f"is right about {half:.1f} % of the test images; trained, with all its weights in "
    yield f"trained, with all its weights in 32 bits, about {dense:.1f} %. "
    size = row(*conv4, "dense").ticket_bytes / row(*conv4, "mpt-1-32", 0.5).ticket_bytes
    yield f"{points(dense - half).capitalize()} are the price here of training no weight, and of a "
    yield f"of a file {size:.0f} times smaller. "
    constant = test(*conv4, "mpt-1-32", 0.5, variant="init signed_constant")
    yield f"(signed constant, {constant:.1f} %) and trained signs (bnn-1-32, {signs:.1f} %)"
    assert max(abs(constant - half), abs(signs - half)) < 1

    lost = test(*conv2, "dense") - test(*conv2, "mpt-1-32", 0.9)
    yield f"Conv-4 is {points(dense - tenth)} below its trained self, Conv-2 {WORDS[round(lost)]}. "
    layers = rows("cifar10", "layers.csv").query(
        f"config_hash == '{row(*conv2, 'mpt-1-32', 0.9).config_hash}'"
    )
    kept = layers.kept[layers.layer.str.startswith("conv")].sum()
    millions = layers.weights.max() / 1e6, layers.weights.sum() / 1e6
    yield f"{millions[0]:.1f} of its {millions[1]:.1f} million weights are in one layer, and its "
    yield f"and its two convolutions keep {kept:,} weights. "

    imp = settings("cifar10").query('method == "imp"').set_index("cycle")
    top = imp.loc[imp.val_accuracy.idxmax()]
    yield f"up to {top.test_accuracy:.1f} % at {100 * top.sparsity:.1f} % pruned"
    last = imp.test_accuracy.iloc[-1]
    yield f"it has {last:.1f} %, {tenth - last:.1f} points less than mpt-1-32. "
    yield f"so that its whole network ({imp.test_accuracy.loc[0]:.1f} %) is behind"

    binary = test(*conv4, "mpt-1-1", 0.5)
    learned = test(*conv4, "mpt-1-1", 0.5, bn="learned")
    yield f"They cost {points(half - binary)} on Conv-4 ({binary:.1f} %), with learned batch "
    yield f"with learned batch normalisation {WORDS[round(half - learned)]} ({learned:.1f} %). "
    yield f"(bnn-1-1) have {test(*conv4, 'bnn-1-1'):.1f} %, so the random ones do not come off worse"
    chance = [test(*conv4, "random", o) for o in (0.5, 0.9)]
    assert 9 < min(chance) and max(chance) < 11
    yield "is right about one image in ten"

    deep = {n: test("cifar10", f"conv{n}", "mpt-1-32", 0.9) for n in (2, 4, 6, 8)}
    a, b, c, d = (f"{o:.1f}" for o in deep.values())
    yield "To prune 90 % of Conv-4's weights instead of 50 %, so that a fifth as many are left, "
    yield f"so that a fifth as many are left, costs {points(half - tenth)}. "
    yield f"Conv-2, 4, 6 and 8 have {a}, {b}, {c} and {d} % (the last step is no larger than"
    narrow, quarter = (test(*conv4, "mpt-1-32", 0.5, width=o) for o in (0.5, 0.25))
    yield f"At half its width Conv-4 loses {points(half - narrow)}, at a quarter "
    yield f"at a quarter {WORDS[round(half - quarter)]}."
    edge = row(*conv4, "edge-popup", 0.5)
    yield f"with its random weights in 32 bits: {edge.test_accuracy:.1f} %. "
    yield f"Take their signs afterwards, and {100 * edge.binarised_test_accuracy:.1f} % are left. "
    yield f"A ticket that has learned with signs has {half:.1f} %, more than"
    assert half > edge.test_accuracy

    curves = rows("cifar10", "curves.csv").groupby("config_hash").last()
    loss = [curves.train_loss[row(*conv4, *o).config_hash] for o in (["dense"], ["mpt-1-32", 0.5])]
    yield f"(training loss {loss[0]:.2f} against {loss[1]:.2f} for mpt-1-32 on Conv-4)"
    layers = rows("cifar10", "layers.csv").query(
        f"config_hash == '{row(*conv4, 'mpt-1-32', 0.9).config_hash}'"
    )
    share = 100 * (layers.kept_global / layers.weights).set_axis(layers.layer)
    rest = share.drop("fc1")
    yield f"it would keep {share.fc1:.0f} % of Conv-4's large layer fc1 instead of 10 %, and "
    yield f"and {rest.min():.0f} to {rest.max():.0f} % of the others"
    bits = [
        8 * o.ticket_bytes / o.weights_total
        for o in (row(*conv4, "mpt-1-32", 0.5), row(*conv4, "mpt-1-32", 0.9))
    ]
    assert [f"{o:.1f}" for o in bits] == ["1.0", "0.5"]
    yield "A ticket of which half the weights are kept takes one bit a weight"
    yield "At 90 % it takes half a bit."


def of_others():
    "What others report, ours beside it"
    theirs = pd.read_csv(REPO / "data/published.csv", keep_default_na=False)
    binary = (
        theirs.query('arch == "vgg-small" and method == "mpt-1-1"').set_index("bn").test_accuracy
    )
    yield f"{100 * binary['']:.1f} % become {100 * binary['learned']:.1f} % on VGG-Small"
    beside = pd.read_csv(REPO / "results/cifar10/tables/published.csv")
    beside = beside[beside.variant.isna()]
    more = (beside["test %"] - beside["published %"]).set_axis(beside.network)
    assert (more.idxmin(), more.idxmax()) == ("conv8", "conv2")
    yield f"by {more.min():.1f} points (Conv-8) to {more.max():.1f} (Conv-2)"
    yield "its ResNet-18 ticket is 1.8 points *above* the trained network"  # arXiv 2103.09377


def of_the_recipe():
    o = settings("recipe")
    found = {k: g.set_index(["bn", "variant"]).val_accuracy for k, g in o.groupby("method")}
    real, binary = (found[k]["plain", ""] - found[k] for k in ("mpt-1-32", "mpt-1-1"))
    seeds = variants(rows("recipe")).query(
        'method == "mpt-1-32" and bn == "plain" and variant == ""'
    )
    spread = 100 * seeds.val_accuracy.max() - 100 * seeds.val_accuracy.min()
    yield f"differ by {spread:.1f} points of validation accuracy after {o.epochs.max()} epochs"
    yield f"without it the same settings lose {real['none', '']:.0f} points. "
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
    yield f"are {better[0]:.1f} points better with plain batch normalisation and {better[1]:.1f} with"
    yield f"and {better[1]:.1f} with learned; but on the whole"
    gains = []
    for bn in "plain", "learned":
        o = [row("cifar10", "conv4", "mpt-1-1", 0.5, bn, variant=v) for v in (skips, "")]
        gains.append(o[0].val_accuracy - o[1].val_accuracy)
    yield f"at 0.003, {gains[0]:.1f} points are left of that with plain, and with learned it is "
    yield f"with learned it is {-gains[1]:.1f} points worse. "
    assert min(binary["plain"][[constant, f"{constant}, lr 0.01"]]) > 0
    yield "Signed constant weights are no better."
    dense = found["dense"]["plain"]
    yield f"instead of 0.0012 makes it {dense['lr 0.003'] - dense['']:.1f} points better here"
    slow, fast = (test("cifar10", "conv4", "dense", variant=v) for v in ("", "lr 0.003"))
    yield f"it is right about {fast:.1f} % of the test images instead of {slow:.1f} %. "
    ticket = test("cifar10", "conv4", "mpt-1-32", 0.5, variant=f"{constant}, lr 3.0")
    yield f"half-pruned ticket ({ticket:.1f} % of the test images) is {fast - ticket:.1f} points behind."
    assert dense["lr 0.003"] == dense.max()
    for sparsity, words in (0.5, "half pruned"), (0.9, "90 % pruned"):
        two = f"{constant}, lr 3.0", ""
        a, b = (row("cifar10", "conv4", "mpt-1-32", sparsity, variant=v).val_accuracy for v in two)
        of = " of the validation images" if sparsity == 0.5 else ""
        yield f"{a:.1f} %{of} instead of {b:.1f} % ({words})"


CHAPTERS = {
    "index.ipynb": [of_the_quick_suite, of_cifar10_in_short, of_mnist],
    "18_results.ipynb": [of_cifar10, of_others, of_the_recipe],
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
