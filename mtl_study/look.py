"""What a method or a problem looks like, everywhere: label, colour, dash, marker and place.

A method keeps them in all figures. The uniform loss is black, and so is the dashed line at its median; zero, the
single-task model, is thin grey. Fixed weights are brown, and nothing else is. The six other hues stay apart for readers
who see few colours, and within a hue every method has a dash and a marker of its own. Problems are not methods: they
take `viridis`, those with streets `plasma`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

INK, GREY, FAINT = "#000000", "#8a8a8a", "#c8c8c8"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BROWN = "#7A4A1E"  # of fixed weights alone
Dash = tuple[float, ...] | str
SOLID: Dash = ""
LONG, DOT, DASHDOT, SHORT = (5, 1.5), (1, 1.2), (4, 1.2, 1, 1.2), (2.2, 1.2)
DASHDOTDOT: Dash = (4, 1.2, 1, 1.2, 1, 1.2)
DOTS: Dash = (1, 2.5)


class Style(NamedTuple):
    """How a method is drawn."""

    label: str
    colour: str
    dash: Dash
    marker: str


LOOK = {  # in order of display: that of the paper, then what it does not have
    "unit_scal": Style("Unit. Scal.", INK, SOLID, "o"),
    "auto_lambda": Style("Auto-Lambda", SKY, SOLID, "o"),
    "cagrad": Style("CAGrad", BLUE, SOLID, "s"),
    "cdtt": Style("CDTT", GREEN, SOLID, "^"),
    "edm": Style("EDM", VERMILION, SOLID, "D"),
    "famo": Style("FAMO", ORANGE, SOLID, "v"),
    "graddrop": Style("GradDrop", SKY, LONG, "P"),
    "imtl": Style("IMTL", PURPLE, SOLID, "X"),
    "mgda_ub": Style("MGDA-UB", GREEN, LONG, "p"),
    "nash_mtl": Style("Nash-MTL", BLUE, LONG, "h"),
    "pcgrad": Style("PCGrad", ORANGE, LONG, "o"),
    "rlw_dirichlet": Style("RLW-Dirichlet", PURPLE, LONG, "s"),
    "rlw_normal": Style("RLW-Normal", PURPLE, DOT, "D"),
    "rotograd": Style("RotoGrad", VERMILION, LONG, "P"),
    "si": Style("SI", SKY, DOT, "^"),
    "uw": Style("UW", GREEN, DOT, "v"),
    "fixed": Style("Fixed weights", BROWN, DOT, "*"),
    "aligned_mtl": Style("Aligned-MTL", VERMILION, DOT, "o"),
    "bayesagg_mtl": Style("BayesAgg-MTL", ORANGE, DOT, "s"),
    "db_mtl": Style("DB-MTL", SKY, DASHDOT, "D"),
    "dwa": Style("DWA", BLUE, DASHDOT, "^"),
    "fairgrad": Style("FairGrad", GREEN, DASHDOT, "X"),
    "go4align": Style("GO4Align", VERMILION, DASHDOT, "p"),
    "gradnorm": Style("GradNorm", ORANGE, DASHDOT, "h"),
    "imgrad": Style("IMGrad", PURPLE, DASHDOT, "v"),
    "imtl_g": Style("IMTL-G", PURPLE, SHORT, "P"),
    "imtl_l": Style("IMTL-L", SKY, SHORT, "*"),
    "mgda": Style("MGDA", GREEN, SHORT, "o"),
    "stch": Style("STCH", BLUE, SHORT, "v"),
    "upgrad": Style("UPGrad", VERMILION, SHORT, "s"),
    "config": Style("ConFIG", VERMILION, DASHDOTDOT, "h"),
    "excess_mtl": Style("ExcessMTL", GREEN, DASHDOTDOT, "D"),
    "gls": Style("GLS", SKY, DASHDOTDOT, "s"),
    "gradvac": Style("GradVac", ORANGE, DASHDOTDOT, "D"),
    "ldc_mtl": Style("LDC-MTL", BLUE, DASHDOTDOT, "D"),
    "gated": Style("Gated", ORANGE, SHORT, "^"),
    "modo": Style("MoDo", BLUE, DOTS, "X"),
    "sdmgrad": Style("SDMGrad", GREEN, DOTS, "P"),
    "moco": Style("MoCo", SKY, DOTS, "h"),
    "imtl_transposed": Style("IMTL, transposed", PURPLE, DASHDOTDOT, "p"),  # imtl with form = "transposed" (D24)
}
PROBLEMS = {  # label, place on the family's colour map, marker; in order of display
    "multimnist/CL_CR": ("CL_CR: two classifications", 0.08, "o"),
    "multimnist/RL_RR": ("RL_RR: two reconstructions", 0.42, "s"),
    "multimnist/CL_RR": ("CL_RR: one of each", 0.74, "^"),
    "cityscapes/R50": ("Cityscapes R50", 0.0, "P"),
    "cityscapes/R18": ("Cityscapes R18", 0.22, "X"),
    "cityscapes/inst_seg": ("Cityscapes Inst. Seg.", 0.44, "v"),
    "cityscapes/HR": ("Cityscapes HR", 0.62, "p"),
    "cityscapes/19C": ("Cityscapes 19C", 0.8, "D"),
    "qm9": ("QM9: eleven properties", 0.1, "h"),
}
FAMILIES = {"multimnist": "viridis", "cityscapes": "plasma", "qm9": "gray"}  # their colour maps
SHORT_NAMES = {"inst_seg": "Inst. Seg.", "qm9": "QM9"}  # of problems; the others' are the last part of their names
NAMES = {  # what a column is called in figures and tables
    "delta_m": "Δm",
    "cosine_to_mean": "cosine to the mean gradient C",
    "normalised_cosine": "(K C² − 1)/(K − 1)",
    "pairwise_cosine": "pairwise cosine",
    "norm_ratio": "longest over shortest gradient",
    "weight_distance": "mean |w₁ − ½|",
}


#: inner optimizers in words
OPTIMIZERS = {
    "adam": "Adam",
    "sgd": "SGD with momentum",
    "signsgd": "signSGD with momentum",
    "muon": "Muon",
    "adamw": "AdamW",
    "adam_per_task": "one Adam per task",
}


def label(smto: str) -> str:
    """A method's name in figures and tables; its key where it has no look of its own."""
    return LOOK[smto].label if smto in LOOK else smto


def in_order(smtos: Iterable[str]) -> list[str]:
    """Methods in order of display, each once; raises KeyError, naming those that have no look."""
    found = set(smtos)
    if strangers := sorted(found - set(LOOK)):
        raise KeyError(f"{', '.join(strangers)}: no look; give one in mtl_study/look.py.")
    return [smto for smto in LOOK if smto in found]


def look(smtos: Sequence[str]) -> dict[str, Any]:
    """Arguments that make seaborn draw these methods as in every other figure."""
    return {
        "hue": "smto",
        "style": "smto",
        "hue_order": smtos,
        "style_order": smtos,
        "palette": {s: LOOK[s].colour for s in smtos},
        "dashes": {s: LOOK[s].dash for s in smtos},
        "markers": {s: LOOK[s].marker for s in smtos},
    }


def line(smto: str) -> dict[str, Any]:
    """Arguments of matplotlib's `plot` that draw this method as in every other figure."""
    _, colour, dash, marker = LOOK[smto]
    return {"color": colour, "linestyle": (0, dash) if dash else "-", "marker": marker, "label": label(smto)}


def problems_in_order(problems: Iterable[str]) -> list[str]:
    """Problems in order of display, each once; those without a look of their own come last."""
    found = list(dict.fromkeys(problems))
    return [*(p for p in PROBLEMS if p in found), *(p for p in found if p not in PROBLEMS)]


def problem_label(problem: str) -> str:
    """The short name of a problem, as the paper writes it."""
    name = problem.split("/")[-1]
    return SHORT_NAMES.get(name, name)
