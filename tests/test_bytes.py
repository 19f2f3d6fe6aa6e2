"Accuracy for its bytes: table T4 and figure F7; what figures and tables are made of"

import re
from dataclasses import fields

import pandas as pd
import pytest
from conftest import REPO
from test_numbers import controls_of, rows

from mplt.config import Config, config
from mplt.experiment import config_hash
from mplt.pipeline import run_folders
from mplt.report import (
    TEST,
    accuracy_vs_bytes,
    accuracy_vs_pruned,
    accuracy_vs_width,
    against_controls,
    gather,
    leading,
    learning_curves,
    survivors,
    table4,
    variants,
)

PUBLISHED = pd.read_csv(REPO / "data/published_bytes.csv", keep_default_na=False)


def runs():
    "Of six networks a smaller one beats the second, one as small the fifth; two seeds of the first"
    settings = [(0.95, 0), (0.95, 1), (0.9, 0), (0.8, 0), (0.5, 0), (0.3, 0), (0.2, 0)]
    val, size = [0.8, 0.82, 0.7, 0.9, 0.9, 0.92, 0.95], [1000, 1001, 2000, 3000, 4000, 5000, 5000]
    rows = []
    for (sparsity, seed), accuracy, n in zip(settings, val, size):
        c = config(dataset="mnist", sparsity=sparsity, seed=seed)
        row = vars(c) | dict(config_hash=config_hash(c), cycle=0, ticket_bytes=n, weights_kept=1)
        rows.append(row | dict(val_accuracy=accuracy, test_accuracy=1 - accuracy))
    other = dict(dataset="mnist5k", ticket_bytes=9000, val_accuracy=0.5, config_hash="0" * 12)
    return pd.DataFrame([*rows, rows[0] | other])


def test_files_that_none_as_small_beats():
    t4 = table4(runs())
    assert list(t4["data set"]) == ["mnist"] * 3 + ["mnist5k"]
    assert list(t4["file, bytes"]) == [1000, 3000, 5000, 9000]
    assert list(t4["validation %"]) == ["81.0", "90.0", "95.0", "50.0"]
    assert t4["test %"][0] == "19.0 ± 1.4"


def test_each_file_is_a_point():
    ours, theirs = runs(), PUBLISHED[PUBLISHED.dataset == "mnist"]
    assert len(accuracy_vs_bytes(ours, PUBLISHED).axes) == 1  # a single point is no panel
    more = ours.tail(1).assign(sparsity=0.97, ticket_bytes=9500, config_hash="1" * 12)
    first, second = accuracy_vs_bytes(pd.concat([ours, more]), PUBLISHED).axes
    marks = [o.get_xydata() for o in first.lines if o.get_marker()[0] in ".D$"]
    drawn = {(x, round(y, 6)) for points in marks for x, y in points}
    test = [19, 30, 10, 10, 8, 5]
    assert drawn == {*zip([1000.5, 2000, 3000, 4000, 5000, 5000], test)} | {
        (o.bytes, round(100 * o.test_accuracy, 6)) for o in theirs.itertuples()
    }
    named = {o.get_label(): o.get_marker() for o in first.lines if o.get_marker()[0] == "$"}
    assert named == {name: f"${n}$" for n, name in enumerate(theirs.name, 1)}
    said = [o.get_text() for o in first.get_legend().get_texts()]
    assert {*named} < {*said} and not first.texts  # nothing is written over a point
    assert not {*named} & {o.get_text() for o in second.get_legend().get_texts()}
    assert first.get_xscale() == second.get_xscale() == "log"
    assert (first.get_ylabel(), first.get_title()) == (TEST, "mnist")


def test_what_others_report_has_a_source():
    assert (PUBLISHED.bytes > 0).all() and PUBLISHED.test_accuracy.between(0.5, 1).all()
    assert (PUBLISHED.source != "").all() and {*PUBLISHED.dataset} == {"mnist", "cifar10"}


@pytest.mark.parametrize("suite", ["cifar10", "mnist", "recipe"])
def test_a_point_is_trained_in_one_way(suite):
    "What is drawn of a method at a sparsity differs in nothing but the seed; none has a higher mean"
    every = gather(run_folders(suite), "levels.csv")
    rows, point = leading(every), ["dataset", "arch", "width", "method", "bn", "scope", "epochs"]
    point += ["sparsity", "cycle"]
    settings = [f.name for f in fields(Config) if f.name in rows and f.name != "seed"]
    ways = rows[[*settings, "cycle"]].drop_duplicates()
    assert not ways.duplicated(point).any() and len(ways) == len(every.drop_duplicates(point))
    means = every.groupby([*settings, "cycle"], dropna=False).val_accuracy.mean()
    highest = means.groupby(point).max()
    drawn = rows.groupby(point).val_accuracy.mean()
    pd.testing.assert_series_equal(drawn, highest)


def test_a_line_of_widths_is_trained_in_one_way():
    "… though Conv-6, 90 % pruned, was trained in two ways at its full width"
    rows = gather(run_folders("cifar10"), "levels.csv")
    wide = rows.query('arch == "conv6" and method == "mpt-1-32" and sparsity == 0.9 and width == 1')
    assert wide.init.nunique() == 2
    axes = next(o for o in accuracy_vs_width(rows).axes if o.get_title().startswith("conv6"))
    drawn = next(o for o in axes.get_lines() if 0.75 in o.get_xdata())
    right = wide[wide.init == "signed_constant"].test_accuracy.item()
    assert drawn.get_ydata()[list(drawn.get_xdata()).index(1)] == pytest.approx(100 * right)


def test_the_dense_network_beside_widths_is_the_best_one():
    "… by validation, once for each network: Conv-4 was trained at two rates"
    rows = gather(run_folders("cifar10"), "levels.csv")
    dense = rows.query('arch == "conv4" and method == "dense" and width == 1 and epochs == 12')
    assert dense.lr.nunique() == 2
    best = dense[dense.lr == dense.loc[dense.val_accuracy.idxmax()].lr].test_accuracy.mean()
    axes = next(o for o in accuracy_vs_width(rows).axes if o.get_title().startswith("conv4"))
    drawn = [o for o in axes.containers if o.get_label().startswith("dense")]
    assert [o.lines[0].get_ydata().tolist() for o in drawn] == [pytest.approx([100 * best])]


def panels(fig):
    return [o.get_title().split(",")[0] for o in fig.axes]


def test_which_networks_are_drawn():
    "Where survivors are: all that have a ticket of the recipe; beside binary activations: who has some"
    wide = variants(rows("cifar10")).query("width == 1")
    usual = wide[(wide.method == "mpt-1-32") & (wide.variant == "")]
    assert panels(survivors(wide, rows("cifar10", "layers.csv"))) == sorted({*usual.arch})
    drawn = (REPO / "results/cifar10/figures/F6.svg").read_text()
    assert re.findall(r"<!-- (\w+), cifar10 -->", drawn) == sorted({*usual.arch})
    binary = wide[wide.method == "mpt-1-1"]
    published = pd.read_csv(REPO / "data/published.csv", keep_default_na=False)
    fig = accuracy_vs_pruned(leading(wide), ["dense", "bnn-1-1", "mpt-1-1"], published)
    assert panels(fig) == sorted({*binary.arch}) != sorted({*wide.arch})


@pytest.mark.parametrize("suite", ["cifar10", "mnist", "recipe"])
def test_a_recipe_is_told_from_all_runs(suite):
    "… also in a table that shows some of them only, the first of which has another one"
    rows = gather(run_folders(suite), "levels.csv")
    controls = controls_of(suite)
    told = variants(rows)[rows.config_hash.isin(controls.config_hash)]
    assert {*against_controls(rows, controls).variant} == {*told.variant} != {""}


@pytest.mark.parametrize("suite", ["cifar10", "mnist", "recipe"])
def test_a_method_learns_once(suite):
    "Of a method one curve is drawn for each network, normalisation, scope and length: the best one's"
    rows = leading(gather(run_folders(suite), "levels.csv").query('method != "random"'))
    rows = rows[(rows.sparsity > 0) | (rows.cycles == 0)]
    kinds = rows.groupby(["dataset", "arch", "width", "method", "bn", "scope", "epochs"])
    axes = learning_curves(rows, gather(run_folders(suite), "curves.csv")).axes[::2]
    assert sum(len(o.containers) for o in axes) == kinds.ngroups
