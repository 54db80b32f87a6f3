"""What every figure has to be: a fixture around each test of `mtl_study`. Notebooks draw in processes of their own."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from mtl_study.look import GREY

WAYS = ("better", "best", "faster", "flatters", "within the epoch")  # what an axis with Δm says of its direction


@pytest.fixture(autouse=True)
def figures():
    """Every figure that a test draws is closed; its caption has at most 60 words, as what holds for all figures is said
    elsewhere; its legend shows what is drawn; an axis with Δm says which way is good."""
    plt.close("all")
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
