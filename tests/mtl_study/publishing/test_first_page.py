"""The first page of REPORT.md as it is committed, against the sections that it sums up: nothing in it was typed."""

import json
import re

from mtl_study import artifacts, parameters
from mtl_study.paper import answer, conclusions
from mtl_study.publishing import report

NUMBER = r"(?:[+−]?\d[\d,]*(?:\.\d+)?|none)"
INTERVAL = rf"{NUMBER} points(?: \({NUMBER} to {NUMBER}\))?"
#: what the sections of REPORT.md say that its first page says again: a pattern per sentence, by notebook; `no_gain` is
#: `rate_gain` in the other form of its sentence, where a larger rate is not shown to help
FOUND = {
    "01": (
        r"(?P<better>N) of (?P<methods>N) SMTOs surely .*; the (?P<kept>N) that the paper keeps are (?P<lead>N)",
        r"rate (?:of )?(?P<larger>N) in place of (?P<own>N)"
        r"(?:, .* gains (?P<rate_gain>I) over (?P<rate_seeds>N) seeds, | does not surely help .*: (?P<no_gain>I)\.)"
        r".* where both have one learning rate, "
        r"(?P<sure_at_one_rate>N) of (?P<compared_at_one_rate>N) SMTOs still .*, by (?P<lead_at_one_rate>N) points",
    ),
    "02": (
        r"(?P<small>N) of (?P<pairs>N) differences .* smaller than (?P<margin>N) points .* (?P<larger>N) (?:is|are) "
        r"surely larger, (?P<different>N) (?:is|are) surely not .*, (?P<unknown>N) cannot be told, and (?P<name>.*) "
        r"differs by (?P<apart>N) points",
        r"(?P<reach>N) of (?P<of>N) SMTOs reach .* the first, (?P<first>.*), after (?P<share>N) % of its epochs",
    ),
    "02b": (
        r"Over (?P<problems>N) problems .* of (?P<rho>N) with .*p = (?P<p>N); .*\*\*But\*\* (?P<rival>.*?) has "
        r"(?P<has>N)",
        r"only the number of tasks, has (?P<rho_of_floor>N)",
    ),
    "03": (r"On (?P<on>.*) (?P<holds>N) of (?P<statements>N) statements of the section hold",),
    "04": (
        r"(?P<better>N) of (?P<methods>N) SMTOs are surely better than the uniform loss, (?P<worse>N) surely worse",
    ),
    "05": (r"held fixed are (?P<fixed>I) ahead",),
    "05b": (
        r"A sweep of (?P<sweep>N) runs .* comes to (?P<sweep_delta_m>N) % .*, the best SMTO, (?P<best>.*), to "
        r"(?P<best_delta_m>N) %: (?P<gap_to_sweep>I) between",
        r"choosing (?:it|the SMTO) took (?P<price_of_all>N)",
    ),
    "05c": (
        r"other batch \((?P<sizes>[^)]*)\) .*: (?P<best>N) in place of (?P<batch>N) gives it (?P<alone>I), .* on "
        r"validation \((?P<rate>N), (?P<size>N)\) (?P<led>.*) lead by (?P<left>N) points",
    ),
}


def read(text):
    """A number as pages write it, or a mean with its interval; a text as it is."""
    values = [0.0 if x == "none" else float(x.replace("−", "-").replace(",", "")) for x in re.findall(NUMBER, text)]
    if re.fullmatch(NUMBER, text):
        return int(values[0]) if values[0].is_integer() and "." not in text else values[0]
    return values if re.fullmatch(INTERVAL, text) else text


def numbers_of(text):
    """What the first page is made of (`answer.answer`), read in the sections of the report that it sums up."""
    said = text.partition("\n## What we found\n")[2].partition("\n## ")[0]
    by_notebook = dict(re.findall(r"^### Notebook (\w+)\n(.*?)(?=^### |\Z)", said, re.DOTALL | re.MULTILINE))
    found = {}
    for notebook, patterns in FOUND.items():
        for pattern in patterns:
            whole = pattern.replace(">N)", f">{NUMBER})").replace(">I)", f">{INTERVAL})")
            match = re.search(whole, by_notebook[notebook])
            assert match, f"notebook {notebook} no longer says: {pattern}"
            given = {name: read(text) for name, text in match.groupdict().items() if text is not None}
            found.setdefault(notebook, {}).update(given)
    one, two, cosine, ways = (found[notebook] for notebook in ("01", "02", "02b", "05c"))
    one |= {"rates": [one["own"], one["larger"]]} | ({"rate_gain": one["no_gain"]} if "no_gain" in one else {})
    two |= {"largest": [two["name"], two["apart"]], "first_share": two["share"] / 100}
    name_of = {called: name for name, called in conclusions.CALLED.items()}
    cosine["rival"] = [name_of[cosine["rival"]], cosine["has"]]
    found["03"]["drawn"] = found["03"]["on"] == "synthetic streets"
    edges = re.search(r"; (no (?:rate|batch) above [^;]*) was tried", by_notebook["05c"].partition("other batch")[2])
    suits = {"suits": [f"{ways['rate']:g}", ways["size"]], "edges": edges[1].split(" and ") if edges else []}
    ways["by_batch"] = ways | suits | {"sizes": [int(size) for size in re.findall(r"\d+", ways["sizes"])]}
    table = text.partition("\n### An SMTO, or a sweep?\n")[2]
    price = re.search(r"^\| CL_RR \|.*?\| (.*?) \|", table, re.MULTILINE)[1]
    figure = text.partition("\n### Every method and the sweep on the two tasks of CL_RR\n")[2]
    for named, digits in re.findall(r"^\* Digits in notebooks? (.*?): (.*)\.$", text, re.MULTILINE):
        for notebook in found.keys() & set(re.findall(r"\w+", named)):
            found[notebook]["basis"] = {"multimnist": digits}
    found["05b"] |= {"price": float(price), "seeds": int(re.search(r"mean of (\d+) seeds", figure)[1])}
    return found


def test_the_first_page_of_the_report_says_what_its_sections_say():
    """Word by word: the answer and the guide as they are written from the numbers of the sections, and the basis."""
    text = (artifacts.REPOSITORY / "REPORT.md").read_text()
    verdicts = {row["id"]: row for row in json.loads((artifacts.REPOSITORY / "docs/report/claims.json").read_text())}
    found = numbers_of(text)
    found["04"]["rho_by_seed"] = verdicts["C10-ranking a"]["estimate"]
    page = text.partition("\n## Contents\n")[0]
    told = [re.sub(r" \(\[.*\)$", "", line) for line in re.findall(r"^(?:\d\.|\* \*\*.*?\*\*) .*", page, re.MULTILINE)]
    answered = [f"{i}. {report.words(said.says)}" for i, said in enumerate(answer.answer(found), 1)]
    advised = [f"* **{one.topic}.** {report.words(one.says)}" for one in answer.guide(found, verdicts)]
    assert told == [*answered, *advised]
    basis = re.findall(r"^\* (.*)\.$", page.partition("**What it rests on.**")[2].partition("\n## ")[0], re.MULTILINE)
    assert f"\nThey rest on: {'; '.join(basis)}.\n" in text
    for notebook, kind, name in (
        *((one, "Digits", "") for one in ("01_mnist_selection", "02_two_similar_tasks", "02b_cosine", "07_optimizers")),
        *((one, "Digits", "") for one in ("05b_sweep_or_smto", "05c_other_ways")),
        ("03_cityscapes_ladder", "Streets", ""),
        ("04_qm9", "Molecules", ""),
        *(("05_fixed_weights", kind, kind.lower()) for kind in ("Digits", "Streets", "Molecules")),
        *(("08_imbalance", kind, kind.lower()) for kind in ("Digits", "Streets")),
    ):
        details = parameters.preset_values(parameters.file_of(parameters.SHIPPED, notebook))["details"]
        of_runs = details[name] if name else details
        number = re.escape(artifacts.number_of(notebook))
        (line,) = (line for line in basis if re.match(rf"{kind}(:| in notebooks? ([^:]* )?{number}\b)", line))
        assert f": {of_runs['train_size']:,} " in line
        assert f"{of_runs['epochs']} epochs (the paper: " in line and f"batch {of_runs['batch_size']}, " in line
