"""Section 3.4 of the paper, eleven properties of molecules: Figures 8 and 9, Tables 1 and 5, and how IMTL diverges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType
from torch import Tensor

from mtl_core.datasets.qm9 import PROPERTIES, SYMBOLS, MoleculeSplit, scales
from mtl_core.molecules import Group, Molecules
from mtl_core.smtos.imtl import released_system, transposed
from mtl_core.smtos.solvers import equal_projections
from mtl_core.tasks import Task
from mtl_study import look
from mtl_study.analysis import comparisons, frames, rankings
from mtl_study.analysis.delta import LEVEL
from mtl_study.experiments.runs import LAST_STEPS, Run, RunConfig
from mtl_study.look import GREY, LOOK
from mtl_study.paper import published
from mtl_study.plots import canvas, captions
from mtl_study.words import listed, number, percent

SIGNS = dict(
    zip(PROPERTIES, ("μ", "α", "HOMO", "LUMO", "R²", "ZPVE", "U₀", "U", "H", "G", "Cᵥ"), strict=True)
)  # as the paper writes them
ENERGIES = ("U0Atom", "UAtom", "HAtom", "GAtom")  # of one quantity, nearly
CPK = {1: "#f2f2f2", 6: "#4d4d4d", 7: "#3b6fd4", 8: "#d8352a", 9: "#4caf50"}  # colours that chemists are used to
LETTERS = {atom: symbol for symbol, atom in SYMBOLS.items()}
LEGIBLE = {1: look.INK, 6: "white", 7: "white", 8: "white", 9: look.INK}

# -- the data ----------------------------------------------------------------------------------------------------------


def molecules(batch: Molecules) -> np.ndarray:
    """The molecules of a batch as the network sees them, drawn flat: atoms, bonds, and the distances between all atoms.

    A batch holds distances only, so each molecule is laid out by them (classical scaling, its two widest directions).

    Returns:
        The axes [B].
    """
    _, axes = canvas.figure(2.1 * batch.size, 2.3, columns=batch.size, squeeze=False)
    for group in batch.groups:
        for row, place in enumerate(group.index.tolist()):
            _molecule(axes[0, place], group, row)
    canvas.caption(
        axes,
        "Atoms (white hydrogen, grey carbon, blue nitrogen, red oxygen, green fluorine) and bonds (dashed: aromatic), "
        "seen from the side on which the molecule is widest. The network also sees the distance between any two atoms.",
    )
    return axes[0]


def _molecule(ax: Axes, group: Group, row: int) -> None:
    numbers = group.nodes[row, :, 5].int().tolist()
    edges = group.edges[row].double().numpy(force=True)
    at = flat(edges[..., 4])
    kinds = edges[..., :4].argmax(-1)
    for i, j in zip(*np.nonzero(np.triu(edges[..., :4].any(-1))), strict=True):
        along = at[j] - at[i]
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9)
        offsets = {0: [0.0], 1: [-0.09, 0.09], 2: [-0.15, 0.0, 0.15], 3: [-0.09, 0.09]}[int(kinds[i, j])]
        for n, offset in enumerate(offsets):
            ends = np.array([at[i], at[j]]) + offset * across
            dashed = kinds[i, j] == 3 and n
            ax.plot(*ends.T, color="#7a7a7a", linewidth=1.6, linestyle=(0, (2, 1.2)) if dashed else "-", zorder=1)
    for (x, y), atom in zip(at, numbers, strict=True):
        size = 60 if atom == 1 else 190
        ax.scatter(x, y, s=size, color=CPK[atom], edgecolor="#7a7a7a", linewidth=0.8, zorder=2)
        if atom > 1:
            colour = LEGIBLE[atom]
            ax.text(x, y, LETTERS[atom], ha="center", va="center", color=colour, fontsize=8, zorder=3)
    ax.set_title(formula(numbers), fontsize=10)
    ax.set_aspect("equal", adjustable="datalim")  # axes of one size, so that the titles are at one height
    ax.margins(0.18)
    ax.axis("off")


def flat(distances: np.ndarray) -> np.ndarray:
    """Distances between points [n, n] to places in the plane of their two widest directions [n, 2]."""
    n = len(distances)
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ distances**2 @ centre / 2)
    found = vectors[:, ::-1][:, :2] * np.sqrt(np.maximum(values[::-1][:2], 0))
    found *= np.where(found[np.abs(found).argmax(0), range(found.shape[1])] < 0, -1, 1)  # of two mirror images, one
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def formula(numbers: Sequence[int]) -> str:
    """Atomic numbers to a formula: carbon, hydrogen, then the others, with small digits."""
    order = ("C", "H", "N", "O", "F")
    count = {symbol: list(numbers).count(SYMBOLS[symbol]) for symbol in order}
    small = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    return "".join(s + (str(n).translate(small) if n > 1 else "") for s, n in count.items() if n)


def physical(split: MoleculeSplit) -> pd.DataFrame:
    """The targets of a split in the units of `PROPERTIES`: a row per molecule, a column per property."""
    normalised = split.targets.double().numpy(force=True)
    rows = {key: (normalised[:, k] * p.std + p.mean) * p.factor for k, (key, p) in enumerate(PROPERTIES.items())}
    return pd.DataFrame(rows)


def with_size(split: MoleculeSplit) -> pd.Series:
    """Pearson's correlation of each property with the number of atoms, over the molecules of a split."""
    return physical(split).corrwith(pd.Series(split.atoms))


def table_of_targets(batch: Molecules, targets: Sequence[Tensor], split: MoleculeSplit) -> pd.DataFrame:
    """What is asked about a few molecules: a row per property, a column per molecule; and over all molecules of a split
    the property's spread and its correlation with the number of atoms."""
    numbers: dict[int, list[int]] = {}
    for group in batch.groups:
        numbers |= {place: group.nodes[row, :, 5].int().tolist() for row, place in enumerate(group.index.tolist())}
    spread, r = physical(split).std(), with_size(split)
    rows = {}
    for (key, known), target in zip(PROPERTIES.items(), targets, strict=True):
        values = (target.double().flatten().numpy(force=True) * known.std + known.mean) * known.factor
        row = {"": known.label, "unit": known.unit}
        row |= {formula(numbers[i]): _significant(value, spread[key]) for i, value in enumerate(values)}
        rows[SIGNS[key]] = row | {"spread": _significant(spread[key], spread[key]), "r with atoms": r[key]}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")
    table.attrs["decimals"] = {"r with atoms": 2}
    canvas.caption(
        table,
        f"The eleven targets of these molecules. Spread: the standard deviation over the {len(split):,} training "
        "molecules. r with atoms: the property's correlation with the number of atoms over the same molecules.",
    )
    return table


def _significant(value: float, scale: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(scale))) if scale > 0 else 2
    return number(value, min(digits, 3))


def correlations(split: MoleculeSplit) -> Axes:
    """How alike the eleven targets are: Pearson's correlation over the molecules of a split."""
    values = physical(split).corr().to_numpy()
    _, ax = canvas.figure(6.4, 5.4)
    shown = ax.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    for i, j in np.ndindex(values.shape):
        text = number(values[i, j], 2).replace("0.", ".") if i != j else ""
        ax.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if abs(values[i, j]) > 0.6 else "black")
    ax.set_xticks(range(len(SIGNS)), list(SIGNS.values()), rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(SIGNS)), list(SIGNS.values()))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = canvas.figure_of(ax).colorbar(shown, ax=ax, shrink=0.8)
    bar.outline.set_visible(False)
    canvas.caption(
        ax,
        f"Pearson's correlation of the properties over the {len(split):,} training molecules. Blue: both rise "
        "together; red: one falls where the other rises.",
    )
    return ax


# -- errors ------------------------------------------------------------------------------------------------------------


def mean_predictor(train: MoleculeSplit, split: MoleculeSplit) -> pd.Series:
    """Mean absolute error, by property and in its unit, of a model that answers with the mean of the training set."""
    answers = train.targets.double().mean(0)
    errors = (split.targets.double() - answers).abs().mean(0).tolist()
    return pd.Series({key: error * scales[key] for key, error in zip(PROPERTIES, errors, strict=True)})


def against_mean(runs: Iterable[Run], mean: pd.Series) -> pd.DataFrame:
    """Test error over that of the mean predictor, per run and epoch: mean over the properties that the run learns.

    Returns:
        problem, smto, config, seed, epoch, error (1: nothing learnt; lower is better).
    """
    table = frames.tidy(runs)
    table = table[table.split == "test"]
    error = table.value / table.task.map(mean)
    return table.assign(error=error).groupby([*frames.RUN, "epoch"], sort=False).error.mean().reset_index()


def learning(runs: Sequence[Run], baselines: Sequence[Run], mean: pd.Series) -> Axes:
    """Test error over that of the mean predictor after every epoch: each method, and the single-task models."""
    found, alone = against_mean(runs, mean), against_mean(baselines, mean)
    _, ax = canvas.figure(8, 4.2)
    smtos = canvas.lines(ax, found.assign(epoch=found.epoch + 1), "epoch", "error", markersize=4, markevery=1)
    last = {smto: line.get_ydata()[-1] for smto, line in zip(smtos, ax.lines, strict=True)}
    curve = alone.groupby("epoch").error.mean()
    ax.plot(curve.index + 1, curve, color=GREY, linewidth=2.2, zorder=1)
    ax.axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    ax.set_yscale("log")
    canvas.plain_log_ticks(ax.yaxis)
    canvas.counting_axis(ax, "epochs trained")
    ax.set_ylabel("test error, mean predictor = 1")
    handles = [canvas.legend_entry(smto) for smto in sorted(last, key=lambda smto: -last[smto])]
    handles.append(Line2D([], [], color=GREY, linewidth=2.2, label="single-task models"))
    canvas.legend_right(ax, handles=handles)
    canvas.despine(ax)
    canvas.caption(
        ax,
        "Mean absolute error over that of answering with the training set's mean (dotted: 1), mean over the properties "
        f"and {captions.seeds(found)}; lower is better. Grey: eleven single-task models.",
        captions.learning_rates({run.config.smto: run.config.lr for run in runs}),
    )
    return ax


def errors(selected: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """Test errors in physical units at the chosen epoch: a row per run, a column per property."""
    at = baselines["value"].xs("test", level="split").droplevel("metric")
    found = selected[["smto", "seed"]].copy()
    for key in PROPERTIES:
        found[key] = at[key] * (1 - selected[key] / 100)  # the gain, undone
    return found


def per_property(selected: pd.DataFrame, baselines: pd.DataFrame, mean: pd.Series) -> np.ndarray:
    """Every property in its own unit: a bar per method, a stroke per seed, and the gain over the single-task model.

    Args:
        mean: errors of the mean predictor, by property.

    Returns:
        The axes [3, 4], the last of which holds the key.
    """
    found, smtos = errors(selected, baselines), look.in_order(selected.smto)
    at = baselines["value"].xs("test", level="split").droplevel("metric")
    _, axes = canvas.grid_of_axes(3, [1, 1, 1, 1], 12, 0.55 + 0.25 * len(smtos))
    for ax, (key, known) in zip(axes.flat, PROPERTIES.items(), strict=False):
        for y, smto in enumerate(smtos):
            values = found[found.smto == smto][key].dropna()
            if values.empty:
                continue
            ax.barh(y, values.mean(), height=0.7, color=LOOK[smto].colour, alpha=0.35)
            ax.plot(values, np.full(len(values), y), "|", color=LOOK[smto].colour, markersize=7)
            gain = 100 * (at[key] - values.mean()) / at[key]
            ax.annotate(
                percent(gain, 0, sign=True), (max(values), y), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=7.5, annotation_clip=False,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
        ax.axvline(at[key], color=GREY, linewidth=1.4)
        most = max(np.nanmax(found[key]), at[key])
        if mean[key] < 1.6 * most:
            ax.axvline(mean[key], color=GREY, linewidth=1, linestyle=(0, (1, 1.5)))
        ax.set_xlim(0, 1.3 * most)
        ax.set_ylim(len(smtos) - 0.4, -0.6)
        ax.set_yticks(range(len(smtos)), [look.label(s) for s in smtos], fontsize=8)
        if ax not in axes[:, 0]:
            ax.set_yticklabels([])
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(f"{SIGNS[key]} in {known.unit}", loc="left", fontsize=9.5)
        canvas.despine(ax, grid="x")
    last = axes[-1, -1]
    last.axis("off")
    key_lines = [
        Line2D([], [], color=GREY, linewidth=1.4, label="single-task model"),
        Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), label="mean predictor,\nwhere it is near"),
    ]
    canvas.legend(last, handles=key_lines, loc="center", fontsize=9)
    canvas.caption(
        axes,
        f"Mean absolute error on test molecules (lower is better): bar, mean of {captions.seeds(selected)}; strokes, "
        "the seeds. Next to it: the gain over the single-task model, which is what Δm averages.",
        captions.diverged(selected),
        captions.elsewhere(selected),
    )
    return axes


def table_of_errors(selected: pd.DataFrame, baselines: pd.DataFrame, mean: pd.Series) -> pd.DataFrame:
    """Errors of the mean predictor, the single-task models and each method, in physical units."""
    at = baselines["value"].xs("test", level="split").droplevel("metric")
    means = errors(selected, baselines).groupby("smto", sort=False)[list(PROPERTIES)].mean()
    rows = {}
    for key, known in PROPERTIES.items():
        row: dict[str, Any] = {"unit": known.unit, "mean predictor": mean[key], "single task": at[key]}
        rows[SIGNS[key]] = row | {look.label(smto): means[key][smto] for smto in look.in_order(selected.smto)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")
    canvas.caption(
        table,
        f"Mean absolute error on test molecules, lower is better: means over {captions.seeds(selected)}, at the epoch "
        "that validation chose. The paper reports no errors in physical units.",
    )
    return table


# -- Tables 1 and 5 ----------------------------------------------------------------------------------------------------


def table_1(selected: pd.DataFrame, tasks: Sequence[Task], settings: pd.DataFrame | None = None) -> pd.DataFrame:
    """Table 1: Δm and mean rank, ours and the paper's, with the interval of the level of Δm where the table has it
    (`delta.with_levels`) and the places that both may have; among the methods of the paper's table.

    Returns:
        One row per method in order of display; its caption in `.attrs["caption"]`.
    """
    theirs = published.table("table_1")
    selected = selected[selected.smto.isin(theirs.index)]
    ranks = rankings.mean_rank(selected, tasks)
    places = rankings.places(comparisons.by_seed(selected))
    by_rank = rankings.places(-comparisons.by_seed(rankings.over_tasks(selected, tasks), "mr"))
    rows, with_levels = {}, f"{LEVEL}delta_m" in selected
    for smto in look.in_order(selected.smto):
        runs = selected[selected.smto == smto]
        values = runs.delta_m
        row = {
            "n": int(values.notna().sum()),
            "Δm": values.mean(),
            "± Δm": values.std(ddof=1),
            "paper Δm": theirs.delta_m[smto],
        }
        if with_levels:
            row["Δm, 95 % interval"] = captions.level(runs[f"{LEVEL}delta_m"], decimals=0)
        row |= captions.place(places.loc[smto]) | {"MR": ranks[smto], "paper MR": theirs.mr[smto]}
        rows[look.label(smto)] = row | {f"{k} by MR": v for k, v in captions.place(by_rank.loc[smto]).items()}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").astype({"n": int})
    table.attrs["decimals"] = 2
    canvas.caption(
        table,
        f"""Δm in percent, higher is better. MR: rank among these {len(rows)} by the mean over n seeds, averaged
        over the 11 properties; 1 is best; who lost a run is last. Paper: 3 runs.
        {captions.diverged(selected)} {captions.elsewhere(selected)} {captions.chosen(settings, selected.smto)}""",
    )
    return table


def table_5(selected: pd.DataFrame, tasks: Sequence[Task]) -> pd.DataFrame:
    """Table 5: how the gains spread over the properties, over 11 values and, as the paper printed it, over 12 (D32)."""
    theirs = published.table("table_5")
    selected = selected[selected.smto.isin(theirs.index)]
    ours = rankings.task_statistics(selected, tasks)
    with_average = rankings.task_statistics(selected, tasks, as_released=True)
    rows = {}
    for smto in look.in_order(selected.smto):
        row: dict[str, float] = {}
        for column, words in (("min", "min"), ("max", "max"), ("med", "median"), ("std", "std"), ("avg", "avg")):
            row[words] = ours[column][smto]
            if column in ("med", "std"):
                row[f"{words} of 12"] = with_average[column][smto]
            row[f"paper {words}"] = theirs[column][smto]
        rows[look.label(smto)] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
    table.attrs["decimals"] = 1
    canvas.caption(
        table,
        f"""Gain per property over the single-task model in percent, {captions.seeds(selected)}: its least,
        greatest, median and mean value over the 11 properties, and its standard deviation over them (divided by 11).
        "of 12" takes the average in as a twelfth value, which is how the paper's median and standard deviation were
        made (D32): compare these two with the paper's.""",
    )
    return table


# -- the two that the paper dropped ------------------------------------------------------------------------------------


def as_transposed(runs: Iterable[Run]) -> list[Run]:
    """Runs of IMTL in its transposed form under the name "imtl_transposed", to be shown with the other form."""
    name = {"smto": "imtl_transposed"}  # which is not a method's
    return [run.model_copy(update={"config": RunConfig.model_construct(**dict(run.config) | name)}) for run in runs]


def rotation_losses(runs: Iterable[Run]) -> pd.DataFrame:
    """RotoGrad's rotation loss, per run and epoch.

    Returns:
        problem, smto, config, seed, epoch, progress (percent of training), rotation_loss (mean over tasks), relative:
        the same in units of the mean squared length of the task gradients, (|v|² + |G_k|² − 2 tr R_kᵀM_k) / mean |G|².
        The loss itself is a squared gradient and falls with the square of the batch, as a batch's loss is a mean. The
        lengths are those of the sampled steps.
    """
    rows = []
    for run in (run for run in runs if run.config.smto == "rotograd"):
        for epoch, record in enumerate(run.history):
            loss = frames.as_float(record.diagnostics.get("rotation_loss"))
            lengths = np.square(record.gradients["features"].norms) if "features" in record.gradients else [math.nan]
            rows.append(
                {
                    "problem": run.config.problem,
                    "smto": "rotograd",
                    "config": frames.configuration(run.config),
                    "seed": run.config.seed,
                    "epoch": epoch,
                    "progress": 100 * epoch / max(len(run.history) - 1, 1),
                    "rotation_loss": loss,
                    "relative": loss * run.config.batch_size / np.mean(lengths),
                }
            )
    return pd.DataFrame(rows)


def figure_9(losses: pd.DataFrame, batches: Mapping[str, int]) -> np.ndarray:
    """Figure 9: RotoGrad's rotation loss on several problems, as the paper has it and in units of the gradients.

    Args:
        batches: samples in a batch, by problem: the rotation loss falls with their square.
    """
    figure, axes = canvas.figure(10, 3.7, columns=2)
    problems = look.problems_in_order(losses.problem)
    for ax, column in zip(axes, ("rotation_loss", "relative"), strict=True):
        canvas.lines(ax, losses, "progress", column, "problem", canvas.one_sd(lambda mean: mean / 10))
        ax.set(xlabel="training, %", xlim=(-3, 103))
        canvas.despine(ax)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[1].axhline(1, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    axes[0].set_title("rotation loss", loc="left", fontsize=10)
    axes[1].set_title("over the squared length of the gradients", loc="left", fontsize=10)
    handles, names = axes[0].get_legend_handles_labels()
    canvas.legend_above(figure, handles=handles, labels=names, ncols=max(len(problems), 1))
    canvas.caption(
        axes,
        f"RotoGrad's rotation loss, means over tasks and epochs, {captions.seeds(losses)}. Left: as in the paper, "
        "falling with the square of the batch: "
        f"{listed(f'{batches[name]} on {look.problem_label(name)}' for name in problems)}. Right: over the mean "
        "squared gradient length; about 1 (dotted): rotations achieve nothing.",
    )
    return axes


def imtl_course(runs: Iterable[Run]) -> pd.DataFrame:
    """What IMTL went through: a row per run and epoch, and for a run that diverged one per step of its last steps.

    Returns:
        seed; epochs (trained, 1 after the first; a fraction within one); last_steps (whether the row is a step on the
        way to a divergence); peak (the largest |α| of any step), condition (decimal logarithm of the condition number
        of M, mean over steps), scale (the largest e^s over tasks, mean over steps), at_rest (the largest 1/L, where the
        scales come to rest). A row of a step has that step's numbers. NaN: not in the record, or not finite.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        seed = {"seed": run.config.seed}
        for epoch, record in enumerate(run.history, 1):
            loss = min((value for value in record.train_losses if value), default=math.nan)
            found = {
                "peak": frames.as_float(record.diagnostics.get("peak_alpha")),
                "condition": frames.as_float(record.diagnostics.get("log10_condition_of_M")),
                "scale": max((w for w in record.head_weights if w is not None), default=math.nan),
            }
            rows.append({**seed, "epochs": float(epoch), "last_steps": False, **found, "at_rest": 1 / loss})
        rows += [{**seed, "last_steps": True, **row} for row in _last_steps(run)]
    columns = ["seed", "epochs", "last_steps", "peak", "condition", "scale", "at_rest"]
    return pd.DataFrame(rows, columns=columns).astype({"last_steps": bool})


def _last_steps(run: Run) -> list[dict[str, float]]:
    """What was kept of the steps before a divergence, the very last at the end."""
    names = {"peak_alpha": "peak", "log10_condition_of_M": "condition", "largest_scale": "scale"}
    kept = {column: run.before_divergence.get(name, []) for name, column in names.items()}
    count = max(map(len, kept.values()))
    if not count:
        return []
    epoch, step = _ended(run.ended)
    per_epoch = math.ceil(run.config.sizes[0] / run.config.batch_size)
    columns = {
        name: [math.nan] * (count - len(values)) + [*map(frames.as_float, values)] for name, values in kept.items()
    }
    return [
        {"epochs": epoch + (step - count + i + 1) / per_epoch, **{name: values[i] for name, values in columns.items()}}
        for i in range(count)
    ]


def imtl(groups: Mapping[str, Sequence[Run]]) -> np.ndarray:
    """IMTL on the way: condition number, largest |α| and largest scale e^s, a line per seed, a cross where it diverged.

    Args:
        groups: runs to compare, by name.
    """
    figure, axes = canvas.figure(11, 3.6, columns=3)
    titles = {
        "condition": "condition number of M",
        "peak": "largest |α|",
        "scale": "largest scale exp(s)",
    }
    handles = []
    for i, (name, runs) in enumerate(groups.items()):
        colour = mpl.colormaps["viridis"](0.05 + 0.8 * i / max(len(groups) - 1, 1))
        style: dict[str, Any] = {"color": colour, "marker": "os^Dv"[i % 5], "markersize": 3, "linewidth": 1.2}
        course = imtl_course(runs)
        if len(course):
            handles.append(Line2D([], [], label=name, **style))
        course["condition"] = 10**course.condition
        for run in runs:
            of_seed = course[course.seed == run.config.seed]
            for ax, column in zip(axes, titles, strict=True):
                seen = of_seed[of_seed[column].notna()]
                ax.plot(seen.epochs, seen[column], **style, markevery=np.flatnonzero(~seen.last_steps).tolist())
                if run.diverged and len(seen):
                    ax.plot(seen.epochs.iloc[-1], seen[column].iloc[-1], "X", color=colour, markersize=9, zorder=4)
    for ax, (_, title) in zip(axes, titles.items(), strict=True):
        ax.set_title(title, loc="left", fontsize=10)
        bottom, top = ax.dataLim.intervaly
        ax.set_yscale("log" if top > 10 * bottom > 0 else "linear")
        canvas.counting_axis(ax, "epochs trained")
        canvas.despine(ax)
    canvas.legend(figure, handles=handles, loc="outside lower center", ncols=min(len(groups), 3), fontsize=9)
    canvas.caption(
        axes,
        "IMTL, a line per seed, a marker per epoch. Left: condition number of M, the matrix of the closed form (Mᵀ in "
        "the correct one). Middle: the largest |α| in any step; 1/11: equal weights. Right: the largest learnt scale. "
        f"A cross ends a run that diverged; before it, without markers, up to {LAST_STEPS} single steps.",
    )
    return axes


def imtl_table(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """The numbers behind `imtl`: a row per group; the caption in `.attrs["caption"]`."""
    rows = {}
    for name, runs in groups.items():
        course = imtl_course(runs)
        flags = [epoch.flags for run in runs for epoch in run.history]
        epochs = course[~course.last_steps]
        last = epochs[epochs.epochs == epochs.epochs.max()]
        rows[name] = {
            "runs": len(runs),
            "diverged": sum(run.diverged for run in runs),
            "where": "; ".join(f"seed {r.config.seed}: {_where(r.ended)}" for r in runs if r.diverged) or "–",
            "largest |α|": course.peak.max(),
            "condition number of M": 10 ** course.condition.max(),
            "largest e^s": course.scale.max(),
            "e^s at rest": last.at_rest.mean(),
            "steps with the guard": sum(found.get("guard", 0) for found in flags),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("IMTL")
    table.attrs["decimals"] = {"largest |α|": 2, "largest e^s": 2, "e^s at rest": 1}
    canvas.caption(
        table,
        "Largest |α|: of any step. Condition number of M, largest e^s: the largest mean of an epoch (of M's, "
        f"geometric); of diverged runs, each of the last steps, too (up to {LAST_STEPS}). e^s at rest: 1/L of the "
        "property with the least training loss in the last epoch. Where: from 1. Steps with the guard: of full epochs.",
    )
    return table


def _ended(ended: str) -> tuple[int, int]:
    """ "diverged at epoch e, step s", both from 0, as numbers."""
    epoch, step = (int("".join(filter(str.isdigit, part))) for part in ended.split(","))
    return epoch, step


def _where(ended: str) -> str:
    """The same as words that count from 1."""
    epoch, step = _ended(ended)
    return f"epoch {epoch + 1}, step {step + 1}"


def collinear(num_tasks: int, alike: int, cosine: float, seed: int, dimensions: int = 200) -> np.ndarray:
    """Gramian [K, K] of random gradients of random lengths; the first `alike` have this cosine with each other."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(num_tasks + 1, dimensions)) / math.sqrt(dimensions)
    common, own = directions[-1], directions[:-1]
    own[:alike] = math.sqrt(cosine) * common + math.sqrt(1 - cosine) * own[:alike]
    jacobian = own * rng.lognormal(0, 1, (num_tasks, 1))
    return jacobian @ jacobian.T


def both_forms(gramian: np.ndarray) -> dict[str, float]:
    """IMTL's two closed forms on one Gramian [K, K]: the largest |α|, and how unequal the projections are (their spread
    over the largest of them), of each; and the condition number of M, which is that of Mᵀ."""
    right, released = equal_projections(gramian).weights, transposed(gramian)
    lengths = np.sqrt(gramian.diagonal())
    found = {}
    for name, alpha in (("correct", right), ("transposed", released)):
        projections = gramian @ alpha / lengths
        found[f"{name}: largest |α|"] = float(np.abs(alpha).max())
        found[f"{name}: unequal"] = float(np.ptp(projections) / np.abs(projections).max())
    found["condition"] = float(np.linalg.cond(released_system(gramian)[0]))
    return found


def forms_by_cosine(num_tasks: int = 11, alike: int = 4, draws: int = 60) -> np.ndarray:
    """What four nearly parallel gradients among eleven do to IMTL's two forms; computed on random gradients."""
    columns, rows = ["largest |α|", "unequal"], []
    for angle in np.geomspace(90, 0.1, 19):  # between two of the four
        for draw in range(draws):
            found = both_forms(collinear(num_tasks, alike, math.cos(math.radians(angle)), draw))
            for smto, form in (("imtl", "correct"), ("imtl_transposed", "transposed")):
                rows.append((angle, smto, *(found[f"{form}: {column}"] for column in columns)))
    table = pd.DataFrame(rows, columns=["angle", "smto", *columns])
    _, axes = canvas.figure(10, 3.5, columns=2)
    for ax, column in zip(axes, columns, strict=True):
        canvas.lines(ax, table, "angle", column, errorbar=("pi", 50), estimator="median", markevery=1)
        ax.set_xscale("log")
        ax.set_yscale("log")
        canvas.plain_log_ticks(ax.xaxis)
        ax.set_xlabel(f"angle between any two of {alike} gradients, degrees")
        canvas.despine(ax)
    axes[0].set_title("largest |α|", loc="left", fontsize=10)
    axes[1].set_title("spread of the projections over the largest", loc="left", fontsize=10)
    canvas.legend(axes[0], fontsize=9)
    canvas.caption(
        axes,
        f"Computed, not measured: {num_tasks} random gradients of random lengths, {alike} of them the closer to each "
        f"other the farther to the left. Median and quartiles over {draws} draws. IMTL asks for equal projections, a "
        "spread of 0.",
    )
    return axes


# -- the schedule ------------------------------------------------------------------------------------------------------


def schedules(groups: Mapping[str, Sequence[Run]]) -> Axes:
    """The step size from epoch to epoch, relative to the first, a line per seed, for schedules with other signals.

    Args:
        groups: runs, by the name of the schedule and method.
    """
    _, ax = canvas.figure(7.5, 3.4)
    lines: list[LineStyleType] = ["-", (0, (4, 1.5))]
    smtos = look.in_order({run.config.smto for runs in groups.values() for run in runs})
    for i, runs in enumerate(groups.values()):
        for run in runs:
            lr = np.array([epoch.lr for epoch in run.history])
            lifted = lr / lr[0] * (1 + 0.012 * (smtos.index(run.config.smto) - 0.5 + 0.3 * (run.config.seed % 3)))
            colour = LOOK[run.config.smto].colour
            ax.plot(np.arange(1, len(lr) + 1), lifted, color=colour, linestyle=lines[i % 2], linewidth=1.3)
    handles = [Line2D([], [], color=LOOK[smto].colour, label=look.label(smto)) for smto in smtos]
    handles += [Line2D([], [], color=GREY, linestyle=lines[i % 2], label=name) for i, name in enumerate(groups)]
    canvas.legend_right(ax, handles=handles)
    canvas.counting_axis(ax)
    ax.set(ylabel="learning rate, first epoch = 1", ylim=(0, 1.1))
    canvas.despine(ax)
    canvas.caption(
        ax,
        "The learning rate of every run, relative to its first; a line per seed, drawn a little apart where they fall "
        "together. Reduced in "
        + listed(
            f"{sum(run.history[-1].lr < run.history[0].lr for run in runs)} of {len(runs)} runs {name}"
            for name, runs in groups.items()
        )
        + ".",
    )
    return ax
