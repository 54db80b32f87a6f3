# ruff: noqa: E501, E731, I001
# fmt: off
"""Every verdict that rests on trained runs, those of notebooks 07 and 08 apart, once more: from results/**/*.jsonl, the rules in claims.yaml, the settings in params/ and
the paper's tables; with pandas and scipy, and nothing of the packages that are checked. Prints {id: verdict}; argument: the preset."""
import json
import math
import sys
from pathlib import Path
import pandas as pd
import yaml
from scipy import optimize, stats
ROOT, PRESET = Path(__file__).resolve().parents[2], (*sys.argv[1:], "quick")[0]
CLAIMS, PAPER, RESULTS = (yaml.safe_load((ROOT / f"mtl_study/paper/data/{n}.yaml").read_text()) for n in ("claims", "paper_hyperparameters", "paper_results"))
PARAMS = {path.stem.partition("_")[0]: {**(given := yaml.safe_load(path.read_text())), **given["details"]} for path in (ROOT / "params" / PRESET).glob("*.yaml")}
LINES = [(path.stem, json.loads(text)["record"]) for path in (ROOT / "results").rglob("*.jsonl") if path.stem not in ("looks", "strides", "transfers") for text in path.open()]
DIGITS, MOLECULES = ({**PARAMS["05"][family], **{name: PARAMS["05"][name][family] for name in ("seeds", "source")}} for family in ("digits", "molecules"))
SWEPT, EVERY, CL_RR, ALIKE = {**DIGITS, "seeds": DIGITS["sweep_seeds"]}, {**DIGITS, "seeds": range(1, 99)}, "multimnist/CL_RR", ("source", "train_size", "val_size", "test_size", "batch_size", "precision", "lr_decay")
members, tasks_of = lambda names: [smto for name in names for smto in CLAIMS["groups"].get(name, [name])], lambda problem: problem.split("/")[1].split("_")
def runs(problem, smto, given, method=None, **changed):  # records of a notebook's seeds and length with the paper's settings but for changes; `method` with those of `smto`
    single, known = PAPER["single_tasks"].get(problem), PAPER["problems"].get(problem, {"smtos": {}})["smtos"]
    want = {"dropout": 0.0, "weight_decay": 0.0, "options": {}, "problem_options": given.get("problem_options", {}), "schedule": given.get("schedule", "exponential"),
            **(next(iter(single.values())) if single else known[smto]), **{name: given[name] for name in ALIKE}, "smto": method or smto, "problem": problem, **changed}
    own, found = want.pop("options"), {}
    for c, run in ((run["config"], run) for stem, run in LINES if stem != "populations"):
        same = all(c[name] == value for name, value in want.items()) and {**own, **c["options"]} == own
        if same and c["seed"] in given["seeds"] and c["epochs"] >= given["epochs"] and given.get("stop", 1):
            found[c["seed"]] = {**run, "history": run["history"][: min(given["epochs"], given.get("stop", math.inf))], "pace": run["seconds"] / len(run["history"])}
    return [found[seed] for seed in sorted(found)]
def shares(run):  # normalised weights by epoch, as the paper logs them: Nash-MTL's before its clip, IMTL's without its scales
    logged = {"nash_mtl": lambda e: e["head_weights"], "imtl": lambda e: [e["diagnostics"][f"alpha_{k}"] for k in (0, 1)]}
    table = pd.DataFrame(map(logged.get(run["config"]["smto"], lambda e: e["weights"]), run["history"]), dtype=float)
    return table.div(table.sum(axis=1, skipna=False), axis=0)
COLUMNS = ["problem", "smto", "seed", "lr", "val_delta_m", "delta_m", "cosine_to_mean", "pairwise_cosine", "weight_distance", "cv", "similarity", "config", "seconds_per_epoch"]
def single_tasks(problem, given):  # by (split, task): the single-task models at their own best epochs, by seed
    singles = {}
    for task in tasks_of(problem):
        best = {run["config"]["seed"]: max(run["history"], key=lambda e: (-1) ** (task[0] == "R") * sum(e["val"][task].values()))
                for run in runs(f"multimnist/{task}", "unit_scal", {**given, "seeds": DIGITS["seeds"], "stop": given["epochs"]}, **given.get("alone", {}))}
        singles |= {(split, task): pd.Series({seed: sum(e[split][task].values()) for seed, e in best.items()}, dtype=float) for split in ("val", "test")}
    return singles
def rows(problem, smto, given, more=None, **changed):  # runs at their best validation epoch: gains in percent, Δm their mean; and what weights and gradients did
    found, tasks, singles = [], tasks_of(problem), single_tasks(problem, given)
    means = {at: of_seed.mean() for at, of_seed in singles.items()}
    for run in runs(problem, smto, given, **changed):
        gain = pd.DataFrame([{at: sum(e[at[0]][at[1]].values()) / one - 1 for at, one in means.items()} for e in run["history"]])
        gain = (100 * gain * [(-1) ** (task[0] == "R") for _, task in means]).set_axis(pd.MultiIndex.from_tuples(means), axis=1)
        best, share, angles = gain.loc[gain["val"].mean(axis=1).idxmax()], shares(run), [e["gradients"]["parameters"] for e in run["history"]]
        lengths = pd.DataFrame([e["weights"] for e in run["history"]], dtype=float) * pd.DataFrame([of["norms"] for of in angles])
        found.append({**{name: run["config"][name] for name in ("problem", "smto", "seed", "lr")}, **(more or {}), **best["test"], **{f"val {task}": x for task, x in best["val"].items()}, "val_delta_m": best["val"].mean(),
                      **{f"loss {task}": -x for task, x in zip(tasks, run["history"][-1]["train_losses"], strict=True)}, **pd.DataFrame(angles)[["cosine_to_mean", "pairwise_cosine"]].mean(), "delta_m": best["test"].mean(),
                      "weight_distance": (share[0] - 0.5).abs().mean(), "cv": ((late := share[-math.ceil(0.8 * len(share)) :]).std(ddof=0) / late.mean()).mean(), "config": json.dumps({**run["config"], "seed": 0, "epochs": 0}),
                      "similarity": (2 * lengths[0] * lengths[1] / (lengths**2).sum(axis=1)).mean(), "seconds_per_epoch": run["pace"]})
    table = pd.DataFrame(found) if found else pd.DataFrame(columns=[*COLUMNS, *(more or {}), *(before + task for before in ("", "val ", "loss ") for task in tasks)], dtype=float)
    for task in tasks:  # a level: with what the seed's own single-task model does to the mean gain
        table[f"level {task}"] = table[task] - (100 * (-1) ** (task[0] == "R") + table[task].mean()) * (table.seed.map(singles["test", task]) / means["test", task] - 1)
    return table.assign(**{"level delta_m": table[[f"level {task}" for task in tasks]].mean(axis=1)})
def angles(problem, given):  # of the uniform loss's gradients, on average over training
    by_run = {run["config"]["seed"]: [e["gradients"]["parameters"] for e in run["history"]] for run in runs(problem, "unit_scal", given)}
    return pd.DataFrame({seed: pd.DataFrame(of)[["cosine_to_mean", "pairwise_cosine"]].mean() for seed, of in by_run.items()}).T.rename_axis("seed").reset_index().assign(problem=problem, smto="unit_scal")
def fixed(problem, given, weights, more=None, **changed):  # runs with these weights and else like the uniform loss, which has equal ones
    weights = [round(weight / sum(weights), 6) for weight in weights]
    return rows(problem, "unit_scal", given, more, **({} if len({*weights}) == 1 else {"method": "fixed", "options": {"weights": weights}}), **changed)
def epsilons(table, columns, name):  # the additive ε of every other run against the sweep at its seed, in standard deviations between seeds
    by, sweep, others = (configs := table[table.sweep].groupby("config")[columns]).mean(), table[table.sweep], table[~table.sweep]
    front = [config for config, one in by.iterrows() if not ((by >= one).all(axis=1) & (by > one).any(axis=1)).any()]
    sd = configs.var().loc[front].median() ** 0.5
    return others[["problem", "smto", "seed"]].assign(**{name: [
        ((run[columns] - sweep[sweep.seed == run.seed][columns]) / sd).max(axis=1).min() for _, run in others.iterrows()]})
def utility_lead(problem, table):  # the sweep minus the best method at the u where validation puts the sweep furthest behind, by seed
    tasks, ends = tasks_of(problem), []
    for u in (i / 100 for i in range(101)):
        means = (u * table[f"val {tasks[0]}"] + (1 - u) * table[f"val {tasks[1]}"]).groupby([table.sweep, table.config]).mean()
        ends.append((means[True].max() - means[False].max(), u, means[True].idxmax(), means[False].idxmax()))
    _, u, *configs = min(ends, key=lambda end: end[0])
    ours, theirs = (table[table.config == config].set_index("seed")[tasks] @ [u, 1 - u] for config in configs)
    return (ours - theirs).rename("least_lead").reset_index().assign(problem=problem, smto="fixed")
def slopes(methods, lr):  # of a method's lead over the uniform loss at its seed, per doubling of the batch, with about as many steps in whole epochs
    epochs = {batch: max(1, round(DIGITS["epochs"] * batch / DIGITS["batch_size"])) for batch in (32, 64, 128, 256)}
    alone = {"dropout": 0.0, "weight_decay": 0.0, "lr": lr}  # the settings of the single-task models, trained with the same batch
    of_batch = {b: {**DIGITS, "alone": alone, "batch_size": b, "epochs": n, "lr_decay": round(DIGITS["lr_decay"] ** (DIGITS["epochs"] / n), 6)} for b, n in epochs.items()}
    table = pd.concat([rows(CL_RR, smto, given, {"doublings": math.log2(b)}, lr=lr) for b, given in of_batch.items() for smto in ("unit_scal", *methods)])
    by = table.pivot(index=["smto", "seed"], columns="doublings", values="delta_m")
    leads = pd.concat({smto: by.loc[smto] - by.loc["unit_scal"] for smto in methods}, names=["smto"]).dropna()
    x = leads.columns.to_series() - leads.columns.to_series().mean()
    return (leads @ x / (x @ x)).rename("slope").reset_index().assign(problem=CL_RR)
def plain(problem, smto, of=rows):  # the uniform loss with all settings of a method but its own
    return of(problem, smto, EVERY, method="unit_scal", options={})
def stopped(smto):  # a method after three quarters of the uniform loss's epochs, or of its seconds, minus the uniform loss at its end
    own, theirs = (table.set_index("seed") for table in (rows(CL_RR, smto, EVERY), plain(CL_RR, smto)))
    costs = {"lead_in_epochs": 1, "lead_in_seconds": (own.seconds_per_epoch / theirs.seconds_per_epoch).median()}
    early = {name: rows(CL_RR, smto, {**EVERY, "stop": int(0.75 * EVERY["epochs"] / cost) if cost > 0 else 0}).set_index("seed") for name, cost in costs.items()}
    return pd.DataFrame({name: table.delta_m - theirs.delta_m for name, table in early.items()}).reset_index().assign(problem=CL_RR, smto=smto)
def equal_loss(problem, smto, single):  # against the seed's single-task models or its uniform loss: test gains at the lowest training loss that both reach, and last losses
    tasks, means, found = tasks_of(problem), {at: of_seed.mean() for at, of_seed in single_tasks(problem, EVERY).items()}, []
    others = [{one["config"]["seed"]: one for one in (runs(f"multimnist/{task}", "unit_scal", EVERY) if single else plain(problem, smto, runs))} for task in tasks]
    for run in (run for run in runs(problem, smto, EVERY) if all(run["config"]["seed"] in of for of in others)):
        gaps, further = [], []
        for k, task in enumerate(tasks):
            curves = [[(math.log(e["train_losses"][i]), sum(e["test"][task].values())) for e in one["history"]] for one, i in ((run, k), (others[k][run["config"]["seed"]], 0 if single else k))]
            level, there = max(min(curve)[0] for curve in curves), []
            for curve in curves:  # straight lines between epochs, of the loss's logarithm
                i = next(i for i, (x, _) in enumerate(curve) if x <= level)
                (x, y), (z, w) = curve[max(i - 1, 0)], curve[i]
                there.append(w if z == level else math.nan if i == 0 else y + (x - level) / (x - z) * (w - y))
            gaps.append(100 * (-1) ** (task[0] == "R") * (there[0] - there[1]) / means["test", task])
            further.append(curves[0][-1][0] - curves[1][-1][0])
        found.append((problem, smto, run["config"]["seed"], sum(gaps) / len(tasks), sum(further) / len(tasks)))
    return pd.DataFrame(found, columns=["problem", "smto", "seed", "gap", "log_loss"]).astype({"seed": int})
def split(smto):  # a method's lead over the uniform loss: what remains at equal training loss, and the rest
    ours, theirs = (table.set_index("seed").delta_m for table in (rows(CL_RR, smto, EVERY), plain(CL_RR, smto)))
    table = equal_loss(CL_RR, smto, single=False).rename(columns={"gap": "generalisation"})
    return table.assign(optimisation=table.seed.map(ours - theirs) - table.generalisation)
def balanced(swept):  # sweeps at the uniform loss's rate: do points with equally long gradients do well? The best point, and weights from the lengths in one run
    rho = [(problem, "fixed", seed, t.similarity.corr(t.delta_m, "spearman")) for problem, of in swept.items() for seed, t in of.groupby("seed")]
    lengths = stats.gmean([e["gradients"]["parameters"]["norms"] for e in runs(CL_RR, "unit_scal", DIGITS)[0]["history"]])
    inverse, sweep = fixed(CL_RR, EVERY, [round(1 / x / sum(1 / lengths), 3) for x in lengths]).assign(smto="inverse_norms"), swept[CL_RR]
    best = sweep.pivot(index="seed", columns="config", values="val_delta_m").dropna().mean().idxmax()  # over the seeds that all points have
    return pd.DataFrame(rho, columns=["problem", "smto", "seed", "rho"]).merge(pd.concat([sweep[sweep.smto == "unit_scal"], sweep[sweep.config == best].assign(smto="fixed"), inverse]), on=["problem", "smto", "seed"], how="outer")
def evidence():  # the tables of notebooks 01 to 04, and of what they have on seeds that nobody had looked at
    one, two, rotated, similar = PARAMS["01"], PARAMS["02"], [], ("multimnist/CL_CR", "multimnist/RL_RR")
    c1 = pd.concat([rows(CL_RR, smto, one) for smto in one["methods"]])
    c3 = pd.concat([rows(problem, smto, two) for problem in (CL_RR, *similar) for smto in two["methods"]])
    for run in [*runs("qm9", "rotograd", MOLECULES), *runs(CL_RR, "rotograd", two)]:
        config, loss = run["config"], pd.Series([e["diagnostics"]["rotation_loss"] for e in run["history"]])
        squares, batch = [sum(x * x for x in e["gradients"]["features"]["norms"]) / len(e["weights"]) for e in run["history"]], config["batch_size"]
        rotated.append({**{name: config[name] for name in ("problem", "smto", "seed")}, "relative": (loss * batch / squares).mean(), "rotation_loss": loss.mean() * (batch / PAPER["training"][config["problem"].split("/")[0]]["batch_size"]) ** 2})
    alike = pd.concat([equal_loss(CL_RR, smto, single=True).merge(rows(CL_RR, smto, EVERY)[["seed", "pairwise_cosine"]], on="seed") for smto in one["methods"]])
    tied = [(CL_RR, "unit_scal", seed, *(t.pairwise_cosine.corr(x, "spearman") for x in (t.gap, -t.log_loss))) for seed, t in alike.groupby("seed")]
    tied = pd.DataFrame(tied, columns=["problem", "smto", "seed", "rho_generalisation", "rho_optimisation"]).astype({"seed": int})
    gaps = pd.concat([alike[alike.smto == "unit_scal"], equal_loss("multimnist/RL_RR", "unit_scal", single=True)])
    return {"C1": c1, "C2": c1, "C3": c3, "C10": c3, "C11": pd.DataFrame(rotated), "C13": c1, "C10-QM9": pd.concat([angles("qm9", MOLECULES), *(angles(problem, two) for problem in (CL_RR, *similar))]),
            "Time-to-target": pd.concat(map(stopped, members(["kept"]))), "Mueller": pd.concat([gaps.merge(tied, on=["problem", "smto", "seed"], how="left"), *map(split, ("cagrad", "edm", "imtl"))])}
def searches():  # the tables of notebooks 05b and 05c, which begin with a sweep of fixed weights at every rate that a method has
    params, fronts, swept = {**PARAMS["05b"], **PARAMS["05c"]}, {}, {}
    for problem, span in params["ratios"].items():
        methods = pd.concat([rows(problem, smto, SWEPT, {"sweep": False}) for smto in PARAMS["05"]["methods"][problem]])
        odds = [span["lowest"] * (span["highest"] / span["lowest"]) ** (i / (span["points"] - 1)) for i in range(span["points"])]
        sweep = [fixed(problem, SWEPT, [x, 1], {"sweep": True}, lr=lr) for lr in methods.lr.unique() for x in odds]
        fronts[problem] = pd.concat([*sweep, methods[methods.smto != "unit_scal"]], ignore_index=True).astype({"sweep": bool})
        swept[problem] = pd.concat([fixed(problem, EVERY, [x, 1]) for x in odds])
    if not (runs(CL_RR, "cagrad", SWEPT) and all("fixed" in {*table.smto} for table in fronts.values())):  # not trained yet
        return {claim: pd.DataFrame() for claim in CLAIMS["claims"] if claim.startswith(("AutoScale", "Royer-population", "VarGrad", "Xin"))}
    sweep, others, source, uniform = fronts[CL_RR][fronts[CL_RR].sweep], fronts[CL_RR][~fronts[CL_RR].sweep], runs(CL_RR, "cagrad", DIGITS)[0], rows(CL_RR, "unit_scal", SWEPT)
    settled = fixed(CL_RR, SWEPT, shares(source).ewm(alpha=0.1, adjust=False).mean().iloc[-1], lr=source["config"]["lr"])
    replaced = settled.merge(others[others.smto == "cagrad"], on=["problem", "seed"], suffixes=("", "_source")).assign(smto="fixed")
    wide = [rows(CL_RR, "unit_scal", SWEPT, lr=lr, problem_options={"width": params["widths"][0]}) for lr in sweep.lr.unique()]
    tried = pd.concat([sweep, *(rows(CL_RR, "unit_scal", SWEPT, dropout=d, weight_decay=w) for d, w in params["kurin"])])
    tried = tried.drop_duplicates(["config", "seed"]).reset_index(drop=True).assign(bias=lambda t: t.val_delta_m - t.delta_m)
    n, total = (tried.groupby("config").bias.transform(how) for how in ("count", "sum"))
    tried["luck"], random, size = tried.bias - (total - tried.bias) / (n - 1), [], params["population"]["size"]
    bases = [(run["config"]["base"], run["best"]) for stem, run in LINES if stem == "populations" and run["best"] and run["config"]["size"] == size]
    found = [fixed(CL_RR, {**SWEPT, "seeds": [of["seed"]]}, best["weights"]) for of, best in bases if of["problem"] == CL_RR and all(of[name] == SWEPT[name] for name in (*ALIKE, "epochs"))]
    for seed, table in sweep[sweep.lr == uniform.lr[0]].sort_values("val_delta_m").groupby("seed"):
        chance = [math.comb(r, size - 1) / math.comb(len(table), size) for r in range(len(table))]  # to be the best of `size`
        random.append({"problem": CL_RR, "smto": "random_search", "seed": seed, "delta_m": (table.delta_m * chance).sum()})
    return {"AutoScale": balanced(swept), "VarGrad": slopes(["cagrad", "edm", "imtl", "famo"], uniform.lr[0]),
            "Xin-learning-rate": pd.concat([rows(CL_RR, s, SWEPT, lr=lr) for s in params["lr_methods"] for lr in params["lr_grid"]]),
            "Xin-front": pd.concat([epsilons(table, tasks_of(problem), "epsilon") for problem, table in fronts.items()]).merge(epsilons(fronts[CL_RR], ["loss CL", "loss RR"], "epsilon_of_loss"), how="left"),
            "Xin-static": pd.concat([others, replaced.assign(minus_source=replaced.delta_m - replaced.delta_m_source)]),
            "Xin-utility": pd.concat([utility_lead(*item) for item in fronts.items()]), "Xin-compute": others.merge(pd.concat(wide)[["lr", "seed", "delta_m"]].rename(columns={"delta_m": "wide"})),
            "Xin-optimism": tried.loc[tried.groupby("seed").val_delta_m.idxmax()].assign(smto="fixed"), "Royer-population": pd.concat([uniform, pd.DataFrame(random), *(table.assign(smto="population") for table in found)])}
def numbers(rule, table):  # what a rule compares with its lines: by comparison one number per seed, or a function from level to interval
    if rule["kind"] == "rank":
        theirs = pd.DataFrame((printed := RESULTS["tables"]["table_3"])["rows"], printed["columns"]).loc[rule["column"]]
        by, groups = table.pivot(index="seed", columns="smto", values=rule["column"]), [members(group) for group in rule["groups"]]
        by = by.reindex(columns=[smto for group in groups for smto in group]).dropna()
        ahead = by[groups[0]].apply(lambda of: sum((x > y) * 2 - 1 for x in of for y in by.loc[of.name, groups[1]]) / 64, axis=1)
        return {("", "order"): sum(by[group].corrwith(theirs[group], axis=1, method="spearman") for group in groups) / 2, ("", "split"): ahead}
    pairs = [(problem, smto) for problem, names in rule["of"].items() for smto in members(names)]
    if rule.get("statistic") == "choice":
        return {pair: lambda level, of=table[table.smto == pair[1]]: choice(of.pivot(index="seed", columns="lr"), level) for pair in pairs}
    number = table[[*rule["value"]]].map((lambda x: math.log(x) if x > 0 else math.nan) if rule.get("log") else float) @ pd.Series(rule["value"])
    by, found = {pair: of.set_index("seed").number for pair, of in table.assign(number=number).groupby(["problem", "smto"])}, {}
    of = lambda *pair: by.get(pair, pd.Series(dtype=float))
    for problem, smto in pairs:
        minus = of(rule.get("minus_problem", problem), rule.get("minus_smto", smto)) if {"minus_smto", "minus_problem"} & {*rule} else None
        found[problem, smto] = of(problem, smto) if minus is None else (of(problem, smto) - minus)[of(problem, smto).index.intersection(minus.index)]
        if rule.get("exceeds"):
            group = pd.DataFrame({other: of(problem, other) for other in members(rule["exceeds"])}).mean(axis=1)
            found[problem, smto] = pd.DataFrame([of(problem, smto), of(problem, smto) - group]).min()
    means = {(p, ""): pd.DataFrame({s: x for (q, s), x in found.items() if q == p}).mean(axis=1) for p in rule["of"]}
    return means if rule.get("together") else found
def choice(table, level):  # the logarithm of the spread over settings over that between seeds: bounds from the noncentral F distribution
    n, k, spread = len(table), table.delta_m.shape[1], table.delta_m.iloc[:, table.val_delta_m.mean().argmax()].var()
    f = n * table.delta_m.mean().var() / spread
    excess = lambda x, p: stats.ncf.cdf(f, k - 1, n - 1, n * (k - 1) * math.exp(2 * x)) - p
    return [optimize.brentq(excess, -12, 12 + math.log(f), args=(p,)) if excess(-12, p) > 0 else -math.inf for p in ((1 + level) / 2, (1 - level) / 2)]
def interval(x, level, alike=()):  # a t interval; among four comparisons or more its variance is the average of its own and of theirs
    variance = (x.var() + sum(other.var() for other in alike) / len(alike)) / 2 if (many := len(alike) > 3) else x.var()
    return [x.mean() + sign * stats.t.isf((1 - level) / 2, (len(x) - 1) * (1 + many)) * math.sqrt(variance / len(x)) for sign in (-1, 1)]
def verdict(rule, seeds, table):
    n, least, holds, fails = len(values := numbers(rule, table)), rule.get("at_least", len(values)), 0, 0
    support, against = 1 - 0.05 / (n - least + 1), 1 - 0.05 / least
    above, below = (math.log(x) if rule.get("log") and x > 0 else x for x in (rule.get("above", -math.inf), rule.get("below", math.inf)))
    for (problem, _), x in values.items():
        if table.seed.nunique() >= seeds if callable(x) else len(x) >= seeds and x.notna().all():
            alike = [y for (p, _), y in values.items() if p == problem]
            inner, outer = (x(support), x(against)) if callable(x) else (interval(x, support), interval(x, against, alike))
            holds, fails = holds + (above < inner[0] and inner[1] < below), fails + (outer[1] <= above or outer[0] >= below)
    return "reproduced" if holds >= least else "not reproduced" if fails > n - least else "open"
found, tables = {}, evidence() | searches()
for claim, parts in CLAIMS["claims"].items():
    for letter, part in zip("abcdefghijklmnop", parts, strict=False):
        name = claim + (" " * (not claim[-1].isdigit()) + letter) * (len(parts) > 1)
        if PRESET not in part["needs"]["presets"] or part["needs"].get("sources"):
            found[name] = "cannot be judged"
        elif part["rule"]["kind"] != "checks" and claim in tables and name != "Time-to-target d":  # of one setting for several problems, of which there are no runs
            table, after = tables[claim], part["needs"].get("after", 0)  # the seeds up to it were looked at before the rule was fixed
            found[name] = "open" if table.empty else verdict(part["rule"], part["needs"]["seeds"], table[table.seed > after])
print(json.dumps(found, indent=1))
