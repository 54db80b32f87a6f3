"""Made-up results that several files of tests draw; every figure is closed afterwards."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from mtl_core import problems
from mtl_study.analysis import delta
from mtl_study.experiments.runs import Gradients
from mtl_study.look import GREY
from mtl_study.paper import published

CL_RR, CL_CR, RL_RR = "multimnist/CL_RR", "multimnist/CL_CR", "multimnist/RL_RR"
TABLE_3 = published.table("table_3")
KEPT = ["auto_lambda", "cagrad", "cdtt", "edm", "famo", "imtl", "nash_mtl", "rotograd"]
EPOCHS = 4
WAYS = ("better", "best", "faster", "flatters", "within the epoch")  # what an axis with Δm says of its direction


@pytest.fixture(autouse=True)
def figures():
    """Every figure is closed; captions have at most 60 words, as what holds for all figures is said elsewhere; legends
    show what is drawn; an axis with Δm says which way is good."""
    yield
    captions = plt.get_figlabels()
    drawn = [plt.figure(number) for number in plt.get_fignums()]
    wrong = [entry for figure in drawn for entry in wrong_entries(figure)]
    axes = [text for figure in drawn for ax in figure.axes for text in (ax.get_xlabel(), ax.get_ylabel())]
    plt.close("all")
    assert [text for text in captions if len(text.split()) > 60] == []
    assert wrong == []
    assert [text for text in axes if "Δm" in text and not any(way in text for way in WAYS)] == []


def wrong_entries(figure):
    """Entries of legends that show another dash or colour than the lines of their name, or of their colour and
    marker; those in a colour that is nowhere drawn; those with a dash that their marker hides."""
    legends = [*figure.legends, *filter(None, (ax.get_legend() for ax in figure.axes))]
    drawn = [line for ax in figure.axes for line in ax.lines if len(line.get_xdata())]
    found = []
    for legend in legends:
        for text, sample in zip(legend.get_texts(), legend.legend_handles, strict=True):
            if isinstance(sample, Line2D):
                named = [line for line in drawn if line.get_label() == text.get_text()]
                alike = [line for line in drawn if looks(line)[:2] == looks(sample)[:2] and has_marker(line)]
                if any(looks(line)[::2] != looks(sample)[::2] for line in named) or (
                    alike and not named and looks(sample)[2] not in [looks(line)[2] for line in alike]
                ):
                    found.append((text.get_text(), "is not what is drawn"))
                if sample.get_linestyle() != "None" and looks(sample)[0] not in {
                    GREY,
                    *colours_of(figure),
                }:  # a sample in grey is of all colours
                    found.append((text.get_text(), "has a colour in which nothing is drawn"))
                if not shows_its_dash(sample, legend.handlelength * text.get_fontsize()):
                    found.append((text.get_text(), "has a dash that cannot be seen"))
    return found


def colours_of(figure):
    """Of all lines, marks and areas that are drawn, without their opacity."""
    lines = [line for ax in figure.axes for line in ax.lines if len(line.get_xdata())]
    areas = [patch for ax in figure.axes for patch in ax.patches]
    marks = [to_hex(colour) for ax in figure.axes for c in ax.collections for colour in c.get_facecolor()]
    edges = [to_hex(colour) for ax in figure.axes for c in ax.collections for colour in c.get_edgecolor()]
    return {*marks, *edges, *(to_hex(c) for line in lines for c in (line.get_color(), line.get_markerfacecolor())
            if not isinstance(c, str) or c != "none"), *(to_hex(patch.get_facecolor()) for patch in areas)}  # fmt: skip


def looks(line):
    """Colour, marker and dash of a line."""
    marker = line.get_marker() if has_marker(line) else ""
    return to_hex(line.get_color()), marker, "" if line.get_linestyle() == "None" else line._unscaled_dash_pattern[1]


def has_marker(line):
    return line.get_marker() not in ("", "None", None)


def shows_its_dash(sample, length):
    """Whether there is a whole gap on both sides of the marker in the middle; lengths in points."""
    dashes = sample._dash_pattern[1]
    if dashes is None or not has_marker(sample):
        return dashes is None or sum(dashes) <= length
    ends = np.cumsum(np.tile(dashes, 1 + int(length / sum(dashes))))
    reach = (sample.get_markersize() + sample.get_markeredgewidth()) / 2
    gaps = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b <= length]
    return any(b < length / 2 - reach for _, b in gaps) and any(a > length / 2 + reach for a, _ in gaps)


@pytest.fixture
def experiment(make_run):
    """Made-up records of one problem, and their table: `experiment(problem, {smto: (gain, gain)}, seeds)`."""

    def make(problem, gains, seeds=3):
        rng, runs = np.random.default_rng(0), []
        names = problem.split("/")[1].split("_")
        for smto, means in gains.items():
            for seed in range(1, seeds + 1):
                epochs = []
                for epoch in range(EPOCHS):
                    gain = np.array(means) - (EPOCHS - 1 - epoch) + rng.normal(0, 0.2, 2)
                    values = zip(names, gain, strict=True)
                    epochs.append({t: 0.95 * (1 + g / 100) if t[0] == "C" else 0.4 * (1 - g / 100) for t, g in values})
                first = rng.uniform(0.3, 0.7, EPOCHS)
                weights = [[None, None] if smto == "rotograd" else [w, 1 - w] for w in first]
                own = [{"alpha_0": w, "alpha_1": 1 - w} if smto == "imtl" else {} for w in first]
                lie = Gradients(cosine_to_mean=0.7, pairwise_cosine=0.1 * seed, norms=[1.0, 2.0], norm_ratio=2.0)
                logged = {"features": lie, "parameters": lie}
                runs.append(
                    make_run(
                        epochs,
                        problem=problem,
                        smto=smto,
                        seed=seed,
                        weights=weights,
                        gradients=logged,
                        diagnostics=own,
                    )
                )
        alone = [make_run([{name: 0.95 if name[0] == "C" else 0.4}]) for name in names]
        tasks = problems.get(problem).tasks
        return runs, delta.selected(runs, delta.single_task_baselines(alone, tasks), tasks)

    return make


@pytest.fixture
def all_methods(experiment):
    return experiment(CL_RR, {smto: (row.CL, row.RR) for smto, row in TABLE_3.iterrows()})


@pytest.fixture
def two_problems(experiment):
    gains = {smto: (-1, -1) for smto in ["unit_scal", *KEPT]}
    one, other = experiment(CL_CR, gains), experiment(RL_RR, {smto: (-20, -20) for smto in gains})
    return [*one[0], *other[0]], pd.concat([one[1], other[1]], ignore_index=True)


@pytest.fixture
def rows():
    """Rows as of `delta.selected`: (gain on CL, gain on RR) per seed."""

    def make(smto, gains, config=None, problem="multimnist/CL_RR", **columns):
        found = [
            {"problem": problem, "smto": smto, "config": json.dumps(config or {"lr": 0.001}), "seed": seed, "epoch": 0}
            | {"CL": cl, "RR": rr, "delta_m": (cl + rr) / 2, "val_delta_m": (cl + rr) / 2, "diverged": False}
            for seed, (cl, rr) in enumerate(gains, 1)
        ]
        return pd.DataFrame(found).assign(**columns)

    return make
