"""Critiques read off stored runs: gradients of equal length, equal training loss, the size of the batch, the rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mtl_study import look
from mtl_study.analysis import balance, inference, slopes, terms
from mtl_study.analysis.frames import RUN
from mtl_study.look import label, problem_label
from mtl_study.plots import canvas, captions
from mtl_study.words import number, spanned


def similarity(selected: pd.DataFrame, found: pd.DataFrame) -> Axes:
    """Test Δm of a sweep of fixed weights over how alike the lengths of the weighted gradients were: a point per
    configuration, the mean over seeds; black: the uniform loss.

    Args:
        selected: runs of the sweep on one problem, the uniform loss among them. found: `balance.of_runs` of the same.
    """
    both = selected.merge(found, on=RUN)
    means = both.groupby(["smto", "config"], sort=False)[["similarity", "delta_m"]].mean().reset_index()
    _, ax = canvas.figure(5.6, 3.8)
    for smto, points in means.groupby("smto"):
        style = look.line(str(smto)) | {"linestyle": "none", "markersize": 8 if smto == "fixed" else 7}
        ax.plot(points["similarity"], points["delta_m"], **style)
    ax.set(xlim=(-0.02, 1.02), xlabel="similarity of the weighted gradients' lengths (1: equally long)")
    ax.set_ylabel("test Δm, % (higher is better)")
    canvas.legend(ax, fontsize=8.5)
    canvas.despine(ax, grid="both")
    rho = inference.t_interval(balance.agreement(selected, found)["rho"])
    said = f"Rank correlation, one per seed: {number(rho.mean, 2)}"
    said += f" ({number(max(rho.low, -1), 2)} to {number(min(rho.high, 1), 2)})." if rho.n > 1 else "."
    canvas.caption(
        ax,
        f"{problem_label(both.problem.iloc[0])}, one point per weights, the mean over {captions.seeds(both)}. "
        "Similarity: the mean over epochs of the gradient magnitude similarity of w_k g_k on the shared weights.",
        said,
    )
    return ax


def parts(table: pd.DataFrame, against: str) -> Axes:
    """What part of each method's difference in test Δm is there at equal training loss: two bars and their sum, a dot,
    means over seeds; thin lines: 95 % intervals of generalisation.

    Args:
        table: `generalisation.parts` of one problem. against: what the runs are compared with, in words.
    """
    smtos = look.in_order(table.dropna(subset="difference").smto)
    _, ax = canvas.figure(7.5, 1.1 + 0.32 * max(len(smtos), 1))
    columns = {"generalisation": (-0.17, look.BLUE), "optimisation": (0.17, look.ORANGE)}
    for place, smto in enumerate(smtos):
        rows = table[table.smto == smto]
        for column, (offset, colour) in columns.items():
            bar = column if place == 0 else None
            ax.barh(place + offset, rows[column].mean(), height=0.3, color=colour, label=bar)
        spread = inference.t_interval(rows["generalisation"])
        if math.isfinite(spread.low):
            ax.plot([spread.low, spread.high], [place - 0.17] * 2, color=look.INK, linewidth=1)
        ax.plot(rows["difference"].mean(), place, "o", color=look.INK, markersize=5, label=None if place else "both")
    ax.set_yticks(range(len(smtos)), [label(smto) for smto in smtos])
    ax.set_ylim(len(smtos) - 0.4, -0.6)
    canvas.zero_line(ax, "x")
    ax.set_xlabel("difference in test Δm, points (to the right: better)")
    canvas.legend_right(ax)
    canvas.despine(ax, grid="x")
    canvas.caption(
        ax,
        f"{problem_label(table.problem.iloc[0])}: every method against {against}, mean of {captions.seeds(table)}. "
        "Generalisation: the difference where both have the same training loss on a task, the lowest that both reach. "
        "Optimisation: the rest. Black dot: both together; thin line: 95 % interval of generalisation.",
    )
    return ax


def leads_by_batch(gains: pd.DataFrame) -> pd.DataFrame:
    """`slopes.leads` by batch, with lr and steps, of `sweeps.gains_by_batch`: at rates that have several batches."""
    found = [
        slopes.leads(dict(iter(rows.groupby("batch")))).assign(lr=lr)
        for lr, rows in gains.groupby("lr")
        if rows.batch.nunique() > 1
    ]
    table = pd.concat(found, ignore_index=True) if found else slopes.leads({}).assign(lr=[])
    return table.assign(steps=table["value"].map(gains.groupby("batch").steps.first()))


def batches(gains: pd.DataFrame, lr: float, batch: float) -> pd.DataFrame:
    """The uniform loss by learning rate and batch.

    Args:
        gains: of `sweeps.gains_by_batch`. lr, batch: those that it has in the paper.

    Returns:
        A row per learning rate and batch; the caption in `.attrs["caption"]`.
    """
    table = gains[gains.smto == "unit_scal"].pivot_table(index="seed", columns=["lr", "batch"], values="delta_m")
    rows = []
    for rate, size in table:
        own = table[rate, size].dropna()
        gap = inference.t_interval((table[rate, size] - table[lr, batch]).dropna())
        same = (rate, size) == (lr, batch)
        rows.append(
            {"learning rate": f"{rate:g}", "batch": f"{size:g}", "seeds": len(own), "Δm": own.mean()}
            | {"± Δm": own.std(ddof=1), "minus the paper's": "–" if same else number(gap.mean, 1, sign=True)}
            | {"95 % interval": "–" if same else captions.interval(gap.low, gap.high, 1)}
        )
    found = pd.DataFrame(rows).set_index("learning rate")
    found.attrs["decimals"] = {"Δm": 1, "± Δm": 1}
    canvas.caption(
        found,
        f"Δm of the uniform loss on CL_RR in percent, higher is better, for {spanned(gains.steps, 'step')}, in whole "
        f"epochs; and the difference to the paper's setting ({lr:g}, {batch:g}) at the same seed, in points.",
    )
    return found


def leads(table: pd.DataFrame, setting: str) -> np.ndarray:
    """Each method's lead over the uniform loss by a setting that both share: a line through the means, a dot per seed;
    a panel per learning rate.

    Args:
        table: `slopes.leads`, with columns lr and steps. setting: its name, for the axis.
    """
    smtos, rates = look.in_order(table.smto), sorted(table.lr.unique())
    _, axes = canvas.figure(2.2 + 3.4 * len(rates), 3.8, len(rates), sharey=True, squeeze=False)
    for ax, lr in zip(axes[0], rates, strict=True):
        there = table[table.lr == lr]
        values = sorted(there["value"].unique())
        for place, smto in enumerate(smtos):
            rows = there[there.smto == smto]
            shift = 1 + 0.02 * (place - (len(smtos) - 1) / 2)
            canvas.lines(ax, rows.assign(value=rows["value"] * shift), "value", "lead", markersize=4, markevery=1)
            canvas.dots(ax, rows["value"] * shift, rows["lead"], look.LOOK[smto].colour, "o", size=2.5, alpha=0.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(values, [f"{value:g}" for value in values])
        ax.minorticks_off()
        ax.axhline(0, color=look.INK, linestyle="--", linewidth=1)
        ax.set(xlabel=setting, title=f"learning rate {lr:g}")
        canvas.despine(ax)
    axes[0, 0].set_ylabel("Δm minus the uniform loss's, points (higher is better)")
    canvas.legend_right(axes[0, -1])
    seeds = np.unique(table.groupby(["lr", "smto", "value"])["seed"].nunique())
    canvas.caption(
        axes,
        f"Lead over the uniform loss at the same {setting}, learning rate and seed: line through the means over "
        f"{' to '.join(map(str, seeds))} seeds, each seed a dot. The dashed line: the uniform loss. All have "
        f"{spanned(table.steps, 'step')}, in whole epochs.",
    )
    return axes


SHOWN = 15  # points below the lowest of the best rates that a figure of rates shows


def rates(tables: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Test Δm by learning rate: a line per method through the means, a dot per seed, a ring at the rate that validation
    prefers; a row of panels per table, a panel per batch.

    Args:
        tables: `terms.gains` by what its row is called, all of the same batches.
    """
    batches = [sorted(table.batch.unique()) for table in tables.values()]
    wide = len(batches[0])
    size = (2.4 + 2.9 * wide, 3.2) if wide > 1 else (6.6, 3.8)
    _, axes = canvas.grid_of_axes(len(tables), [1] * wide, *size)
    below = ""
    for row, (name, table) in zip(axes, tables.items(), strict=True):
        best = terms.rates(table)
        rings = table.merge(best, on=["batch", "smto", "lr"]).groupby(["batch", "smto"])["delta_m"].mean()
        floor = max(float(table.delta_m.min()), float(rings.min()) - SHOWN)
        top = max(float(table.delta_m.max()), 0)
        for ax, batch in zip(row, batches[0], strict=True):
            of_batch = table[table.batch == batch]
            _rates(ax, of_batch, best[best.batch == batch], rings)
            ax.set_ylim(floor - 0.04 * (top - floor), top + 0.06 * (top - floor))
            ax.set_title(f"batch {batch:g}, {spanned(of_batch.epochs, 'epoch')}", loc="left", fontsize=10)
        row[0].set_ylabel(
            "test Δm, % (higher is better)" if len(tables) == 1 else f"{name}\ntest Δm, % (higher is better)"
        )
        below = below or ("What is far below is left out." if table.delta_m.min() < floor else "")
    for ax in axes[-1]:
        ax.set_xlabel("learning rate")
    canvas.legend_right(axes[0, -1])
    every = pd.concat(tables.values())
    canvas.caption(
        axes,
        f"{problem_label(every.problem.iloc[0])}, all methods at the same rates: lines through the means over "
        f"{captions.seeds(every)}, each seed a dot; no line where a seed left nothing. Ring: a method's best rate, by "
        f"mean validation Δm. Single-task models have the same batch and length. {below}",
    )
    return axes


def _rates(ax: Axes, table: pd.DataFrame, best: pd.DataFrame, rings: pd.Series) -> None:
    """One panel of `rates`."""
    smtos = look.in_order(table.smto)
    at_all_seeds = table.groupby(["smto", "lr"])["delta_m"].transform(lambda of: of.notna().all())
    for place, smto in enumerate(smtos):
        style, shift = look.LOOK[smto], 1.035 ** (place - (len(smtos) - 1) / 2)
        rows = table[table.smto == smto].assign(lr=lambda found, by=shift: found.lr * by)
        canvas.lines(ax, rows[at_all_seeds[rows.index]], "lr", "delta_m", markersize=4, markevery=1)
        canvas.dots(ax, rows["lr"], rows["delta_m"], style.colour, "o", size=2.5, alpha=0.5)
        for row in best[best.smto == smto].itertuples():
            ax.plot(row.lr * shift, rings[row.batch, smto], "o", color=style.colour, fillstyle="none", markersize=11)
    ax.set_xscale("log")
    ax.set_xlabel("")
    ax.set_ylabel("")
    canvas.plain_log_ticks(ax.xaxis)
    canvas.zero_line(ax)
    canvas.despine(ax)


def equal_terms(tables: Mapping[str, pd.DataFrame], published: Mapping[str, float]) -> pd.DataFrame:
    """Who leads the uniform loss at which rates: each method at its own best, all at one, all as published.

    Args:
        tables: `terms.gains` by the name of their digits; a size that occurs twice in one of them is shown once.
        published: by method the learning rate that the paper chose.

    Returns:
        A row per digits, batch, epochs and method; the caption in `.attrs["caption"]`.
    """
    rows = []
    for digits, table in tables.items():
        table = table.drop_duplicates(["batch", "epochs", "smto", "lr", "seed"])
        for (batch, epochs), gains in table.groupby(["batch", "epochs"]):
            best, one = terms.rates(gains), terms.one_rate(gains)
            theirs = one.assign(lr=one.smto.map(dict(published)))
            own, same, paper = (terms.leads(gains, at).groupby("smto")["lead"] for at in (best, one, theirs))
            for smto in look.in_order(gains.smto):
                row = {"digits": digits, "batch": f"{batch:g}", "epochs": f"{epochs:g}", "method": label(smto)}
                for found in best[best.smto == smto].itertuples():
                    place = "inside" if found.inside else "at the edge"
                    row |= {"best rate": f"{found.lr:g}", "of those tried": place}
                for name, leads in {"lead, each at its best": own, "at one rate": same, "as published": paper}.items():
                    if smto in leads.groups:
                        lead = inference.t_interval(leads.get_group(smto))
                        row |= {name: number(lead.mean, 1, sign=True)}
                        row |= {f"{name}: 95 % interval": captions.interval(lead.low, lead.high, 1)}
                rows.append(row | {"one rate": f"{one.lr.iloc[0]:g}"} if len(one) else row)
    columns = ["digits", "batch", "epochs", "method", "best rate", "of those tried", "lead, each at its best"]
    columns += ["lead, each at its best: 95 % interval", "at one rate", "at one rate: 95 % interval", "one rate"]
    found = pd.DataFrame(rows, columns=[*columns, "as published"]).fillna("–").set_index("digits")
    every = pd.concat(tables.values())
    canvas.caption(
        found,
        f"{problem_label(every.problem.iloc[0])}, {captions.seeds(every)}: test Δm minus that of Unit. Scal. at the "
        "same seed, in points. Each at its best: both have their own best rate, by mean validation Δm. One rate: Unit. "
        "Scal.'s best of those that all have. As published: each at the paper's rate. At the edge: no lower rate, or "
        "no higher one, was tried.",
    )
    return found
