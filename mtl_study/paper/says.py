"""What the papers say, in a sentence or two per notebook; each section of the report begins with it.

    says("01")      Says("section 3.1, figure 1, table 3", "On CL_RR 10 of 15 SMTOs …")

Where the paper has a section of its own the numbers are its own (`published`); elsewhere the words are those of the
claims (`rules`).
"""

from __future__ import annotations

from typing import NamedTuple

from mtl_study.look import label, problem_label
from mtl_study.paper import published, rules
from mtl_study.words import counted, listed, percent


class Says(NamedTuple):
    """Where somebody says it, and what."""

    where: str
    text: str


#: of the notebooks that go beyond the paper's own section, the claims that they are about
CLAIMS = {
    "05b": ("Xin-front a", "Xin-compute"),
    "05c": ("Kurin-regularisation a", "Xin-learning-rate"),
    "06": ("C12",),
    "07": ("Elich-adam a", "Elich-angle a", "Elich-magnitude a"),
    "08": ("Zhou-balance-harmless a", "Zhou-imbalance-blocks a", "Zhou-gates e", "Zhou-better a"),
}


def says(notebook: str) -> Says | None:
    """What is said in the section of the paper that a notebook follows, by the notebook's number, or in the other
    papers that it is about; None for another number."""
    if notebook in CLAIMS:
        known = {id_: part for claim in rules.names() for id_, part in rules.named_parts(claim)}
        parts = [known[id_] for id_ in CLAIMS[notebook]]
        sources = (", ".join(part.where.partition(";")[0].split(", ")[:2]) for part in parts)  # name, year, number
        return Says("; ".join(dict.fromkeys(sources)), " ".join(part.says for part in parts))
    of = {"00": _all, "01": _different, "02": _alike, "02b": _cosine, "03": _streets, "04": _molecules, "05": _fixed}
    return of[notebook]() if notebook in of else None


def _all() -> Says:
    smtos = published.table("table_3").drop(index="unit_scal")
    return Says("section 3.1, table 3", f"The paper compares {len(smtos)} SMTOs with the plain sum of the losses.")


def _different() -> Says:
    of = published.table("table_3").delta_m
    smtos, uniform = of.drop(index="unit_scal"), of["unit_scal"]
    best = "but none reaches the single-task models" if of.max() < 0 else "and some beat the single-task models"
    return Says(
        "section 3.1, figure 1, table 3",
        f"On CL_RR {(smtos > uniform).sum()} of {len(smtos)} SMTOs have a higher Δm than the uniform loss "
        f"({percent(uniform)}); the best, {label(str(of.idxmax()))}, comes to {percent(of.max())}, {best}. The first "
        f"{len(rules.expand(['kept']))} are kept for all that follows.",
    )


def _alike() -> Says:
    level = published.text("rl_rr_delta_m").value
    return Says(
        "section 3.2, figure 2",
        "Where two tasks are alike (CL_CR, RL_RR) every SMTO is close to the uniform loss, and the learnt weights stay "
        f"near ½, except FAMO's on CL_CR. On RL_RR all methods have a Δm of about {percent(level, 0)} even so.",
    )


def _cosine() -> Says:
    high, middle, low = (f"{published.text(f'cosine_{name}').value:g}" for name in ("high", "middle", "low"))
    return Says(
        "section 3.2, appendix, figures 3a and 7",
        f"C, the mean cosine between the tasks' gradients and their average, is about {high} where the uniform loss is "
        f"competitive, about {middle} on Cityscapes with three tasks and about {low} on QM9: the lower it is, the more "
        "SMTOs gain.",
    )


def _streets() -> Says:
    of = published.table("table_4").delta_m
    smtos, uniform = of.drop(index="unit_scal"), of["unit_scal"]
    positive = listed(label(str(smto)) for smto in smtos.index[smtos > 0])
    return Says(
        "section 3.3, figures 3 and 4, table 4",
        "With two tasks IMTL and the uniform loss cannot be told apart; a third task and 19 classes open a gap. With "
        f"19 classes {(smtos > uniform).sum()} of {len(smtos)} SMTOs beat the uniform loss ({percent(uniform)}), and "
        f"{positive} beat the single-task models.",
    )


def _molecules() -> Says:
    of = published.table("table_1").delta_m
    best, worst = str(of.idxmax()), str(of.idxmin())
    return Says(
        "section 3.4, figure 8, table 1",
        f"QM9 is the hardest: of {counted(len(of), 'method')} the best, {label(best)}, has a Δm of "
        f"{percent(of[best])}, the worst, {label(worst)}, {percent(of[worst])}, the uniform loss "
        f"{percent(of['unit_scal'])}. IMTL overflows in most runs, and RotoGrad does not converge.",
    )


def _fixed() -> Says:
    each = [
        f"{percent(row.fixed)} on {problem_label(str(problem))} (the best SMTO {percent(row.best_smto)}, the uniform "
        f"loss {percent(row.unit_scal)})"
        for problem, row in published.table("table_2").iterrows()
    ]
    return Says(
        "section 3.5, figures 5 and 6, table 2",
        "The weights of SMTOs settle to constants during training, and constant weights taken from them are "
        f"competitive: {listed(each)}.",
    )
