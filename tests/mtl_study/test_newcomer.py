"""Your own method against all others."""

import functools
import math

import pandas as pd
import pytest

import mtl_study
from mtl_core import problems, smtos
from mtl_core.options import BadOption
from mtl_core.smtos.base import REGISTRY
from mtl_study import artifacts, newcomer, parameters
from mtl_study.analysis import inference
from mtl_study.checking import ChecksFailed
from mtl_study.experiments import protocol, runner
from mtl_study.experiments.fingerprints import fingerprint
from mtl_study.experiments.runs import BadConfig, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.look import label
from mtl_study.paper import published
from mtl_study.publishing import compare

CL_RR = "multimnist/CL_RR"
RESULTS = RunStore(artifacts.REPOSITORY / "results")
TINY = {"train_size": 60, "val_size": 100, "test_size": 100, "batch_size": 30, "epochs": 2}
MINE = """
import numpy as np
from mtl_core.smtos.base import GramianWeighting, register

@register
class InverseNorms(GramianWeighting):
    key = "inverse_norms_of_mine"
    native_scale = "weights sum to 1"

    def weights(self, gramian):
        weights = 1 / np.sqrt(gramian.diagonal())
        return weights / weights.sum()
"""
ALPHA = MINE.replace(
    "    def weights",
    "    def __init__(self, num_tasks: int, alpha: float = 1.0) -> None:\n"
    "        super().__init__(num_tasks)\n        self.alpha = alpha\n\n    def weights",
)
DRAWN = MINE.replace("1 / np.sqrt(gramian.diagonal())", "1.0 + np.arange(len(gramian))")


@pytest.fixture(autouse=True)
def forgotten():
    """What a test makes known is unknown to the next."""
    smtos.keys()  # all of the package's are known
    before = dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@functools.cache
def of_preset(preset):
    experiment = protocol.stored(CL_RR, ["edm", "famo"], RESULTS, **parameters.settings_of(preset, CL_RR))
    return [*experiment.runs, *experiment.baselines]


def shipped(preset="quick", seeds=(1,)):
    """Some of the shipped runs, and those of the single tasks."""
    return [run for run in of_preset(preset) if run.config.seed in seeds]


def again(run, **changes):
    """A run under another configuration."""
    return run.model_copy(update={"config": RunConfig.of(**run.config.model_dump() | changes)})


def kept(folder, runs):
    store = RunStore(folder)
    for run in runs:
        store.put(run)
    return store


@pytest.fixture
def planned(monkeypatch):
    """What would be trained. Nothing is: a run of a new method is the shipped one of the uniform loss with its seed."""
    runs = (run for run in shipped(seeds=(1, 2, 3, 4, 5)) if run.config.problem == CL_RR)
    uniform = {run.config.seed: run for run in runs if run.config.smto == "unit_scal"}
    found = []

    def run(plan, *_, **__):
        found.extend(plan)
        return [again(uniform.get(config.seed, uniform[1]), **config.model_dump()) for config in plan]

    monkeypatch.setattr(runner, "run", run)
    return found


def test_at_quick_five_seeds_count_and_the_methods_of_the_paper(tmp_path, mine, planned):
    """Whatever else ships at the same settings: overnight has seeds from 6 on, some of them begun only."""
    found = newcomer.against_shipped(mine, CL_RR, store=tmp_path)
    assert {config.seed for config in planned} == {1, 2, 3, 4, 5, *newcomer.SEARCH_SEEDS}
    paper = set(published.methods(CL_RR)) - {"fixed"}
    assert len(paper) == 16 and set(found.table.index) == paper | {found.smto}
    assert set(found.table.n.dropna()) == {5} and set(found.selected.seed) == {1, 2, 3, 4, 5}
    assert set(found.absent) == set(smtos.keys()) - set(published.methods(CL_RR)) - {found.smto} and found.absent
    assert found.table.cost["unit_scal"] == 1 < found.table.cost["nash_mtl"] and found.table.cost.notna().all()
    said = found._repr_markdown_()
    absent = ", ".join(map(label, found.absent[:-1]))
    assert f"Without records here: {absent} and {label(found.absent[-1])}; `mtl_study.compare` trains them" in said
    assert "are the paper's methods" in said and "Fixed weights are left out" in said
    (row,) = (line for line in said.splitlines() if line.startswith(f"| {label('nash_mtl')} |"))
    assert row.endswith(f"| {found.table.cost['nash_mtl']:.2f} |")


def test_a_block_that_was_begun_neither_adds_a_seed_nor_drops_a_method(tmp_path, mine, planned):
    """Seed 3 lacks a method, seed 4 all but the single tasks; what is reported is as without them."""
    runs = shipped(seeds=(1, 2, 3, 4))
    begun = {3: lambda config: config.smto != "edm", 4: lambda config: config.problem != CL_RR}
    some = [run for run in runs if begun.get(run.config.seed, bool)(run.config)]
    whole = [run for run in runs if run.config.seed < 3]
    tables = []
    for name, held in (("some", some), ("whole", whole)):
        store = kept(tmp_path / name, held)
        planned.clear()
        tables.append(newcomer.against_shipped(mine, CL_RR, shipped=store, store=tmp_path / "new").table)
        assert {config.seed for config in planned} == {1, 2, *newcomer.SEARCH_SEEDS}
    assert set(tables[0].index) == {"unit_scal", "edm", "famo", "inverse_norms_of_mine"} and tables[0].n["edm"] == 2
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize(("preset", "command"), [("quick", "reproduce"), ("overnight", "records")])
def test_one_seed_gives_no_interval_and_nothing_is_trained(
    preset, command, tmp_path, mine, planned, capsys, monkeypatch
):
    monkeypatch.setattr(artifacts, "REPOSITORY", tmp_path)
    asked = ["--method", str(mine), "--preset", preset, "--data", str(tmp_path)]
    assert compare.main(asked) == 2
    assert f"no records of the uniform loss and its single tasks on '{CL_RR}'" in capsys.readouterr().err
    runs = shipped(preset)
    kept(tmp_path / "results", runs)
    assert compare.main(asked) == 2
    said = capsys.readouterr().err
    assert f"records of 1 seed of {preset}'s 5 on '{CL_RR}'" in said and f"`make {command} PRESET={preset}`" in said
    with pytest.raises(BadConfig, match=r"1 seed on .* takes at least two\.$"):
        newcomer.against_shipped(mine, CL_RR, shipped=kept(tmp_path / "own", runs))
    assert not planned
    kept(tmp_path / "results", [again(run, seed=2) for run in runs])
    monkeypatch.undo()  # of what is pretended
    monkeypatch.setattr(artifacts, "REPOSITORY", tmp_path)
    if preset == "overnight":
        assert compare.main(asked) == 2
        assert "train-images" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.training
def test_a_new_method_is_trained_beside_all_others(tmp_path, mine):
    """EDM's weights for two tasks under another name: at its rate as good as EDM, seed by seed."""
    shipped, store = RunStore(tmp_path / "shipped"), RunStore(tmp_path / "store")
    experiment = protocol.experiment(
        CL_RR, ["unit_scal", "edm", "famo"], seeds=[1, 2], store=shipped, workers=0, **TINY
    )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shipped").rglob("*.json")}
    found = newcomer.against_shipped(mine, CL_RR, search_seeds=[7], shipped=shipped, store=store, workers=0, **TINY)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "shipped").rglob("*.json")}
    rates = sorted({run.config.lr for run in experiment.runs})
    assert found.rates == rates and found.lr in rates
    trained = {(run.config.smto, run.config.lr, run.config.seed) for run in found.runs}
    uniform_lr = next(run.config.lr for run in experiment.runs if run.config.smto == "unit_scal")
    assert trained == {(found.smto, lr, seed) for lr in rates for seed in (7, 1, 2)} | {("unit_scal", uniform_lr, 7)}

    table = found.table
    assert set(table.index) == {"unit_scal", "edm", "famo", found.smto}
    edm = experiment.selected().query("smto == 'edm'").set_index("seed").delta_m
    assert table.delta_m["edm"] == pytest.approx(edm.mean())
    assert table.difference_at_rate["edm"] == pytest.approx(0, abs=0.5)  # EDM for two tasks, up to rounding
    own = found.selected[found.selected.smto == found.smto].set_index("seed").delta_m
    interval = inference.t_interval(own - edm)
    assert tuple(table.loc["edm", ["difference", "low", "high"]]) == pytest.approx(interval[:3])
    assert math.isnan(table.difference[found.smto]) and found.table.cost[found.smto] > 0

    page = compare.write(found, tmp_path / "page")
    text = page.read_text()
    assert "inverse_norms_of_mine" in text and "EDM" in text and ">nan" not in text
    assert found.earlier == 0 and f"all {len(found.runs)} runs were trained now" in text
    again = newcomer.against_shipped(mine, CL_RR, search_seeds=[7], shipped=shipped, store=store, workers=0, **TINY)
    assert f"{len(found.runs)} of the {len(found.runs)} runs were trained earlier" in again._repr_markdown_()
    assert (tmp_path / "page" / "differences.png").stat().st_size > 5000
    assert pd.read_csv(tmp_path / "page" / "methods.csv").smto.tolist() == table.index.tolist()


@pytest.mark.slow
@pytest.mark.training
def test_the_command_writes_a_page(tmp_path, mine, monkeypatch, capsys):
    """From records in the repository's folder to the page; whose settings they have is the preset's to say."""
    monkeypatch.setattr(artifacts, "REPOSITORY", tmp_path)
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(parameters, "settings_of", lambda preset, problem: TINY)
    monkeypatch.setattr(parameters, "seeds_of", lambda preset, problem: [1, 2])
    results = RunStore(tmp_path / "results")
    protocol.experiment(CL_RR, ["unit_scal", "edm", "famo"], seeds=[1, 2], store=results, workers=0, **TINY)
    assert compare.main(["--method", str(mine), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    page = tmp_path / "artifacts" / "compare" / "inverse_norms_of_mine-multimnist-CL_RR-quick" / "index.html"
    assert "# inverse_norms_of_mine on multimnist/CL_RR" in said and f"The page: {page}" in said
    assert "FAMO" in page.read_text() and len(list(RunStore(tmp_path / "runs" / "compare"))) > 4


def test_a_class_serves_as_well_as_a_file(mine):
    smto = newcomer.load(mine)
    assert mtl_study.against_shipped is newcomer.against_shipped and smto.key == "inverse_norms_of_mine"
    with pytest.raises(BadConfig, match="no records of the uniform loss"):
        newcomer.against_shipped(smto, CL_RR, shipped=RunStore("/nowhere"), **TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(problems.PROBLEMS, "mine", problems.PROBLEMS[CL_RR])
        with pytest.raises(
            BadConfig, match=r"on 'mine' with these settings.*use mtl_study\.compare, which trains the others, too\.$"
        ):
            newcomer.against_shipped(smto, "mine")


def test_a_file_may_take_over_a_method_of_torchjd(tmp_path):
    path = tmp_path / "theirs.py"
    path.write_text(
        "from torchjd.aggregation import UPGrad\nfrom mtl_core.smtos.base import register\n"
        "from mtl_study import from_torchjd\nMine = register(from_torchjd(UPGrad(), key='theirs'))\n"
    )
    one = fingerprint(newcomer.load(path))
    again = newcomer.load(path)
    assert again.key == "theirs" and fingerprint(again) == one
    path.write_text(path.read_text() + "SCALE = 2\n")
    assert fingerprint(newcomer.load(path)) != one


def test_a_method_that_was_edited_is_another_one(tmp_path, mine):
    """Its whole file counts: a dict beside the class is no part of its code."""
    keys = []
    for alpha in (0.5, 3.0, 0.5):
        mine.write_text(MINE.replace("@register", f'CONFIG = {{"alpha": {alpha}}}\n\n@register'))
        keys.append(RunConfig.of(problem=CL_RR, smto=newcomer.load(mine).key, seed=1, lr=0.01, **TINY).key)
    assert keys[0] == keys[2] != keys[1]


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_is_found_again_wherever_it_was_made(tmp_path, mine, workers):
    """In another process there is neither the file nor its source; the record is that of the method all the same."""
    mine.write_text(f"CONFIG = {{}}\n{ALPHA}")
    (tmp_path / "theirs.py").write_text(
        "from torchjd.aggregation import UPGrad\nfrom mtl_core.smtos.base import register\n"
        "from mtl_study import from_torchjd\nMine = register(from_torchjd(UPGrad(), key='theirs'))\n"
    )
    methods = [newcomer.load(path).key for path in (mine, tmp_path / "theirs.py")]
    configs = [RunConfig.of(problem=CL_RR, smto=key, seed=1, lr=0.01, **TINY) for key in methods]
    store = RunStore(tmp_path / "store")
    runs = runner.run(configs, store, workers=workers)
    assert [run.key for run in runs] == [config.key for config in configs]
    assert len(list(store)) == 2 and all(store.get(config) for config in configs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers 0 methods, not one; those with a key: none\\."),
        (
            MINE + MINE.replace("InverseNorms", "Other").replace("of_mine", "of_another"),
            "registers 2 methods, not one.*: InverseNorms with the key 'inverse_norms_of_mine' and Other",
        ),
        (MINE.replace("@register", ""), "registers 0 methods, not one.*'inverse_norms_of_mine'. Put @register above"),
        (MINE.replace("inverse_norms_of_mine", "edm"), "two SMTOs are called 'edm'; give InverseNorms another key"),
        (MINE.replace("inverse_norms_of_mine", "../x"), r"InverseNorms: key = '\.\./x'; give it one in lower-case"),
        (MINE.replace('    key = "inverse_norms_of_mine"\n', ""), "InverseNorms: no key; give it one in lower-case"),
        (MINE.replace("gramian.diagonal()", "gramian[0]"), r"Mend it.* UNLESS=.*permutation"),
        (
            ALPHA.replace(" = 1.0", ""),
            r"^inverse_norms_of_mine needs alpha and got no value.*OPTIONS='{\"alpha\": …}'\.$",
        ),
        (ALPHA.replace("self.alpha = alpha", "1 / 0"), r"^[^\n]*InverseNorms\(3\) raises ZeroDivisionError: [^\n]*$"),
        (MINE.replace("gramian.diagonal()", "gramian[0]"), "broken"),
    ],
)
def test_what_is_no_method_is_refused_before_any_training(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises((newcomer.BadMethod, BadOption, ChecksFailed), match=message):
        newcomer.against_shipped(path, CL_RR, shipped=RunStore("/nowhere"), **TINY)


def test_the_command_says_what_is_wrong(tmp_path, mine, capsys):
    assert compare.main(["--method", str(tmp_path / "mien.py")]) == 2
    assert "did you mean 'mine.py'" in capsys.readouterr().err
    assert compare.main(["--method", str(mine), "--problem", "multimnist/CL_RX"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert compare.main(["--method", str(mine), "--preset", "quik"]) == 2
    assert "quik" in capsys.readouterr().err
    for wrong in ("{alpha: 1}", "[1]"):
        assert compare.main(["--method", str(mine), "--options", wrong]) == 2
        assert "expected" in capsys.readouterr().err
    assert compare.main(["--method", str(mine), "--unless", "permutatoin"]) == 2
    assert "did you mean 'permutation'" in capsys.readouterr().err


def test_the_command_passes_on_what_a_method_needs(tmp_path, monkeypatch, capsys):
    """UNLESS and OPTIONS get as far as the first run."""
    planned = []

    def stop(plan, *_, **__):
        planned.extend(plan)
        raise runner.RunFailed("no further")

    monkeypatch.setattr(runner, "run", stop)
    path = tmp_path / "mine.py"
    path.write_text(DRAWN)
    assert compare.main(["--method", str(path)]) == 2
    assert 'UNLESS="permutation"' in capsys.readouterr().err and not planned
    assert compare.main(["--method", str(path), "--unless", "permutation, scaling"]) == 1
    planned.clear()
    path.write_text(ALPHA)
    assert compare.main(["--method", str(path), "--options", '{"alpha": 0.5}']) == 1
    assert {str(config.options) for config in planned if config.smto != "unit_scal"} == {"{'alpha': 0.5}"}
    assert capsys.readouterr().err.splitlines()[-1] == "no further"
