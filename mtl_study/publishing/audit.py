"""A verdict, followed back to the records; or shipped records, trained once more.

    python -m mtl_study.publishing.audit --claim C3b     as does `make audit CLAIM=C3b`
    python -m mtl_study.publishing.audit --runs 3        as does `make audit RUNS=3`; `retrain` says how they are held
                                                         against the shipped ones

A verdict is decided again, by those cells of its notebook that it rests on, from records that are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mtl_core.names import nearest
from mtl_study import artifacts, commands, parameters
from mtl_study.analysis.frames import configuration
from mtl_study.experiments.store import RunStore
from mtl_study.paper import claims, rules
from mtl_study.parameters import SHIPPED
from mtl_study.publishing import excerpts, reproduce, retrain
from mtl_study.publishing.reproduce import BadRequest, need_preset
from mtl_study.publishing.running import NotebookFailed
from mtl_study.words import counted

Names = defaultdict[tuple[Any, ...], list[str]]  # of records, by what a row of evidence says of its run


def find(name: str) -> tuple[str, list[tuple[str, rules.Part]]]:
    """The claim that "C3" or "C3b" names, and its parts with their ids. Raises NotThere, with the nearest."""
    for claim in rules.names():
        parts = list(rules.named_parts(claim))
        if name == claim:
            return claim, parts
        if chosen := [(id_, part) for id_, part in parts if id_ == name or id_.replace(" ", "") == name]:
            return claim, chosen
    known = [id_ for claim in rules.names() for id_, _ in rules.named_parts(claim)]
    raise excerpts.NotThere(f"there is no claim {name!r}{nearest(name, known)}. Claims: {', '.join(known)}.")


def trail(
    claim: str, parts: list[tuple[str, rules.Part]], folder: Path, store: RunStore, notebook: str
) -> Iterator[str]:
    """From the records to the verdict, line by line, of a claim that was judged into this folder."""
    place = folder / "claims" / notebook / claim
    evidence = pd.read_csv(place.with_suffix(".csv"))
    records = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))["records"]
    verdicts = {row["id"]: row for row in json.loads((folder / "claims" / f"{notebook}.json").read_text("utf-8"))}
    names = named(store, records)
    for id_, part in parts:
        yield f"{id_}: {' '.join(part.says.split())} ({part.where})"
        yield from _numbers(part.rule, evidence, names, records)
        verdict = verdicts[id_]
        yield f"Rule: {verdict['rule']}"
        yield from _intervals(verdict["details"])
        yield f"Measured: {verdict['ours']}; the paper: {verdict['paper']}."
        yield f"Verdict: {verdict['verdict']}, {'; '.join(claims.remarks(verdict))}.\n"
    yield (
        f"{counted(len(records), 'record')} in all were read for it: these, those of the single-task models that gains "
        f"are measured against, and those of other readings. {place.with_suffix('.json')} names each with its checksum."
    )


def _numbers(rule: Any, evidence: pd.DataFrame, names: Names, records: Mapping[str, str]) -> Iterator[str]:
    """The rows that a rule looks at: the record of each, its checksum, its numbers."""
    if isinstance(rule, rules.Checks):
        rows = evidence[evidence.proposition.isin(rule.propositions)]
        yield rows.to_string(index=False)
        return
    extra = [rule.over, rule.best_by] if isinstance(rule, rules.Count) and rule.over else []
    columns = [*([rule.column] if isinstance(rule, rules.Rank) else rule.value), *extra]
    yield f"{'record':17}{'checksum':10}{'problem':26}{'method':16}{'seed':>5}  " + "  ".join(columns)
    looked_at = rules.named(rule)
    for row in evidence.sort_values(["problem", "smto", "seed"]).to_dict("records"):
        if (row["problem"], row["smto"]) in looked_at:
            keys = names[row["problem"], row["smto"], row.get("seed"), _settings(row.get("config"))]
            key = keys[0].rpartition("/")[2] if len(keys) == 1 else f"{len(keys)} records"
            checksum = records[keys[0]][:8] if len(keys) == 1 else ""
            values = "  ".join(f"{row[column]:>{max(len(column), 10)}.6g}" for column in columns)
            yield f"{key:17}{checksum:10}{row['problem']:26}{row['smto']:16}{row['seed']:>5}  {values}"


def _intervals(details: list[dict[str, Any]]) -> Iterator[str]:
    for row in details:
        if "mean" in row:
            ends = ", ".join("–" if row[end] is None else f"{row[end]:.4g}" for end in ("low", "high"))
            mean = "–" if row["mean"] is None else f"{row['mean']:.4g}"
            pair = f"{row['problem']} {row['smto']}"
            yield f"  {pair}: mean {mean} over {row['n']} seeds, interval {ends}: {row['outcome']}"


def named(store: RunStore, records: Mapping[str, str]) -> Names:
    """The names of these records by problem, method, seed and settings, and by the first three alone."""
    found: Names = defaultdict(list)
    wanted = {place for place in records if not place.endswith("populations")}
    for folder in sorted({place.rpartition("/")[0] for place in wanted}):
        for run in store.records(folder):
            place = f"{run.config.folder}/{run.key}"
            if place in wanted:
                of = run.config.problem, run.config.smto, run.config.seed
                found[*of, _settings(configuration(run.config))].append(place)
                found[*of, None].append(place)
    return found


def _settings(config: Any) -> str | None:
    """A configuration without its length: a longer run serves a shorter one."""
    if not isinstance(config, str):
        return None
    settings = json.loads(config)
    settings.pop("epochs", None)
    return json.dumps(settings, sort_keys=True)


def audit(repository: Path, preset: str, name: str, store: Path | None) -> None:
    """Decide one claim, or a part of it, and print how. Raises NotThere, BadRequest, NotebookFailed."""
    begin = time.monotonic()
    claim, parts = find(name)
    path, _ = excerpts.of_claim(repository, claim)
    folder = excerpts.run(repository, preset, lambda: excerpts.of_claim(repository, claim), store)
    held = RunStore(reproduce.store_at(store) if store else repository / "results")
    for line in trail(claim, parts, folder, held, path.stem):
        print(line)
    own = parameters.file_of(preset, path.stem, repository / "params").parent.name
    print(f"Decided again by {path.stem} at {own} in {time.monotonic() - begin:.0f} s.")


@commands.ends((excerpts.NotThere, BadRequest, retrain.TooMany), failed=(NotebookFailed,))
def main(arguments: list[str] | None = None, repository: Path = artifacts.REPOSITORY) -> int:
    """The command. Returns the exit code: 0; 1 where a cell or a run failed; 2 where there is no such claim or preset;
    3 where a run that was trained again drifted from the shipped one."""
    parser = argparse.ArgumentParser(prog="python -m mtl_study.publishing.audit", description="Follow a verdict back.")
    parser.add_argument("--claim", help="C3 or C3b: prints records, numbers per seed, rule and verdict")
    parser.add_argument("--runs", type=int, help="trains so many random shipped records again")
    parser.add_argument("--seed", type=int, help="which ones; default: others each time")
    parser.add_argument("--data", type=Path, default=repository / "data", help="the folder above MNIST")
    parser.add_argument("--preset", default=SHIPPED, help="default: the one whose numbers ship")
    parser.add_argument("--store", type=Path, help="the folder of the run records, instead of the shipped ones")
    given = parser.parse_args(arguments)
    if not given.claim and not given.runs:
        raise BadRequest("Say what to audit: CLAIM=C3b, or RUNS=3.")
    need_preset(repository, given.preset)
    if given.claim:
        audit(repository, given.preset, given.claim, given.store)
    folder = given.store or repository / "results"
    return retrain.again(folder, given.runs, given.seed, str(given.data)) if given.runs else 0


if __name__ == "__main__":
    commands.run(main)
