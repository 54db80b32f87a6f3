"""The records that a preset rests on: which, in which order, and that they come to be."""

import functools
import json
import os
from pathlib import Path

import pytest
import yaml

from mtl_core import problems
from mtl_study import parameters
from mtl_study.analysis import balance
from mtl_study.experiments import evidence, protocol, runner, sweeps
from mtl_study.experiments.evidence import Tier
from mtl_study.experiments.runs import BadConfig, Epoch, Run, RunConfig
from mtl_study.experiments.store import RunStore
from mtl_study.paper import rules
from mtl_study.publishing import planned

PARAMS = Path(__file__).parents[3] / "params"
CL_RR = "multimnist/CL_RR"
TINY = {"train_size": 128, "val_size": 64, "test_size": 40}


def tier(**settings):
    """Two methods on one problem, in two sizes of one epoch each."""
    given = {"says": "tiny", "of": {CL_RR: ["unit_scal", "edm"]}, "seeds": [1, 2], "batch_size": [64], "epochs": [1]}
    return Tier(**{**given, "settings": TINY, **settings})


@functools.cache
def overnight():
    """The first seed of every problem of every tier."""
    nothing = RunStore("/nowhere")
    tiers = [one.model_copy(update={"seeds": one.seeds[:1]}) for one in evidence.tiers("overnight")]
    return {one.says: evidence.blocks(one, nothing) for one in tiers}


# -- which -------------------------------------------------------------------------------------------------------------


def needed(notebook):
    """The runs of a notebook's experiments under the preset overnight, of its first seed."""
    values = yaml.safe_load((PARAMS / "overnight" / f"{notebook}.yaml").read_text())
    details = values["details"]
    assert details["search"] == "published"
    names = ("train_size", "val_size", "test_size", "epochs", "batch_size", "lr_decay", "schedule", "problem_options")
    settings = {"source": values["source"], **{name: details[name] for name in names if name in details}}
    pairs = ["multimnist/CL_CR", "multimnist/RL_RR", CL_RR]
    of = {"01_mnist_selection": [CL_RR], "04_qm9": ["qm9"]}.get(notebook, pairs)
    for problem in of:
        pairs = [(problem, smto) for smto in values["methods"]]
        pairs += [(single, "unit_scal") for single in problems.get(problem).single_tasks]
        for name, smto in pairs:
            yield from protocol.as_published(name, smto, values["seeds"][0], **settings)


@pytest.mark.parametrize("notebook", ["01_mnist_selection", "02_two_similar_tasks", "04_qm9"])
def test_the_records_are_those_that_the_notebooks_ask_for(notebook):
    """Every run of their experiments is there, and long enough; the seeds are the same."""
    trained = {c.key: c for blocks in overnight().values() for block in blocks for c in block.configs}
    for config in needed(notebook):
        assert trained[config.key].epochs >= config.epochs, config.title
    published = [one for one in evidence.tiers("overnight")[1:] if not one.lr or one.published_too]
    seeds = {tuple(one.seeds) for one in published}
    assert seeds == {tuple(yaml.safe_load((PARAMS / "overnight" / f"{notebook}.yaml").read_text())["seeds"])}


@pytest.mark.parametrize("notebook", ["01_mnist_selection", "02_two_similar_tasks", "02b_cosine", "04_qm9"])
def test_where_the_tiers_are_complete_these_notebooks_train_nothing(notebook):
    """What they ask for besides their experiments is in a tier, too, for every seed."""
    values = yaml.safe_load((PARAMS / "overnight" / f"{notebook}.yaml").read_text())
    trained = {c.key: c.epochs for blocks in overnight().values() for block in blocks for c in block.configs}
    asked = [c for c in planned.runs(notebook, values) if c.seed == values["seeds"][0]]
    assert asked and [c.title for c in asked if trained.get(c.key, 0) < c.epochs] == []


@functools.cache
def quick(notebook):
    values = yaml.safe_load((PARAMS / "quick" / f"{notebook}.yaml").read_text())
    return {**values, **values["details"]}


def test_rules_that_came_after_a_look_get_seeds_that_nobody_had_looked_at(tmp_path):
    """The first tier: quick's runs with the seeds that these rules count, for all that notebooks 02 and 05c look up."""
    fresh = evidence.tiers("overnight")[0]
    after = {part.needs.after for name in ("Time-to-target", "AutoScale", "Mueller") for part in rules.parts(name)}
    assert fresh.seeds == list(range(max(after) + 1, max(after) + 6)) and set(quick("01_mnist_selection")["seeds"]) == {
        *range(1, max(after) + 1)
    }
    settings = {"epochs": fresh.epochs[0], "batch_size": fresh.batch_size[0], **fresh.settings}
    assert settings.items() <= quick("02_two_similar_tasks").items()
    assert settings.items() <= parameters.settings_of("quick", CL_RR).items()
    ratios = quick("05c_other_ways")["ratios"]
    assert {problem: ratio.model_dump() for problem, ratio in fresh.ratios.items()} == ratios

    trained = {c.key for c in evidence.blocks(fresh.model_copy(update={"seeds": [6]}), RunStore(tmp_path))[0].configs}
    methods = quick("01_mnist_selection")["methods"]
    reported = [c for smto in methods for c in protocol.as_published(CL_RR, smto, 1, **settings)]
    assert {c.key for c in sweeps.with_uniform(reported, [6])} < trained
    uniform = next(c for c in reported if c.smto == "unit_scal")
    assert {c.key for c in sweeps.front(uniform, sweeps.ratios(**ratios[CL_RR]), [6])} < trained
    alone = [
        c for name in problems.get(CL_RR).single_tasks for c in protocol.as_published(name, "unit_scal", 6, **settings)
    ]
    assert {c.key for c in alone} < trained


def test_inverse_norms_wait_for_the_run_that_they_come_from():
    """The shipped run of the uniform loss on quick's digits tells their lengths; notebook 05c asks for them."""
    [fresh] = [one for one in evidence.tiers("overnight") if one.inverse_norms]
    fresh = fresh.model_copy(update={"seeds": [6], "of": {CL_RR: ["unit_scal"]}, "ratios": {}})
    shipped = RunStore(PARAMS.parent / "results")
    [without], [with_them] = evidence.blocks(fresh, Stand(lambda config: None)), evidence.blocks(fresh, shipped)
    [added] = with_them.configs[len(without.configs) :]
    assert added.smto == "fixed" and sum(added.options["weights"]) == pytest.approx(1) and added.seed == 6
    run = shipped.get(next(c for c in with_them.configs if c.problem == CL_RR).model_copy(update={"seed": 1}))
    assert [added.key] == [c.key for c in sweeps.fixed(run.config, balance.inverse_norms(run), [6])]


def test_what_is_varied_has_baselines_in_the_same_settings(tmp_path):
    def trained(vary):
        [block] = evidence.blocks(
            tier(vary=vary, lr=[0.001], seeds=[1], batch_size=[256], epochs=[40]), RunStore(tmp_path)
        )
        return block.configs[len(problems.get(CL_RR).single_tasks) :]  # after those of the tier

    of_batch = [(c.problem.split("/")[1], c.smto, c.batch_size) for c in trained("batches") if c.batch_size == 64]
    assert of_batch == [
        ("CL", "unit_scal", 64),
        ("RR", "unit_scal", 64),
        ("CL_RR", "unit_scal", 64),
        ("CL_RR", "edm", 64),
    ]
    assert {c.lr for c in trained("batches")} == {0.001}
    widths = {c.problem_options.get("width", 1) for c in trained("features")}
    assert widths == set(sweeps.WIDTHS)
    assert {c.problem for c in trained("more_tasks") if c.smto == "edm"} == set(sweeps.MORE_TASKS)


def test_every_batch_has_as_many_epochs_and_as_many_steps():
    """Rate × batch: at least 20 epochs each, and 1,880 steps, up to the smaller batch at the end of an epoch."""
    [one] = [one for one in evidence.tiers("overnight") if len(one.batch_size) > 1]
    assert min(epochs for _, epochs in one.sizes) == 20
    for batch, epochs in one.sizes:
        per_epoch = -(-one.settings["train_size"] // batch)
        assert epochs * per_epoch >= 1880 and 1880 % per_epoch <= 0.03 * 1880


def test_baselines_come_first_and_seed_after_seed(tmp_path):
    found = evidence.blocks(tier(lr=[0.001, 0.01], published_too=True), RunStore(tmp_path))
    assert [(block.problem, block.seed) for block in found] == [(CL_RR, 1), (CL_RR, 2)]
    ours = [(c.problem, c.smto, c.lr) for c in found[0].configs]
    assert ours == [
        ("multimnist/CL", "unit_scal", 0.0025),  # published
        ("multimnist/RR", "unit_scal", 0.0025),
        *((f"multimnist/{task}", "unit_scal", lr) for task in ("CL", "RR") for lr in (0.001, 0.01)),
        (CL_RR, "unit_scal", 0.001),  # published, and one of the rates
        (CL_RR, "unit_scal", 0.01),
        (CL_RR, "edm", 0.001),
        (CL_RR, "edm", 0.01),
    ]


def test_further_runs_are_changes_to_published_ones(tmp_path):
    """Of their own problem only, once per seed, behind the methods."""
    both = {CL_RR: ["unit_scal", "edm"], "multimnist/CL_CR": ["unit_scal"]}
    further = [{"problem": CL_RR, "smto": "edm", "changes": {"dropout": 0.25}}]
    plain, more = (evidence.blocks(tier(of=both, further=some), RunStore(tmp_path)) for some in ([], further))
    assert [block.configs for block in more[1::2]] == [block.configs for block in plain[1::2]]
    for one, block in zip(plain[::2], more[::2], strict=True):
        assert block.configs[:-1] == one.configs and one.configs[-1].dropout == 0
        assert block.configs[-1] == one.configs[-1].model_copy(update={"dropout": 0.25})


class Stand:
    """A store whose runs have the validation accuracy that a function of their configuration gives; None: no run."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def get(self, config):
        accuracy = self.accuracy(config)
        if accuracy is None:
            return None
        metrics = {"CL": {"accuracy": accuracy}, "RR": {"mse": 1.0}}
        metrics = {task: metrics[task] for task in config.definition.task_names}
        none = [0.0] * len(metrics)
        epoch = Epoch(
            lr=config.lr, train_losses=none, val=metrics, test=metrics, weights=none, head_weights=none,
            diagnostics={}, flags={}, gradients={},
        )  # fmt: skip
        return Run(
            config=config,
            code_versions={},
            ended="finished",
            history=[epoch],
            seconds=1.0,
            environment={"device": "cpu"},
        )


@pytest.mark.parametrize(
    "best, ends",
    [
        (0.002, [0.001, 0.002, 0.004]),  # inside: nothing more
        (0.001, [0.0005, 0.001, 0.002, 0.004]),  # at the lower edge: one more, and it is worse
        (0.1, [0.001, 0.002, 0.004, 0.01, 0.1]),  # outwards until there is no further one
    ],
)
def test_a_grid_grows_until_the_best_rate_lies_inside(best, ends):
    """Outwards from the best rate only, one at a time."""
    store = Stand(lambda config: 0.9 - 0.1 * abs(config.lr - best) ** 0.5)
    given = tier(lr=[0.001, 0.002, 0.004], wider=[0.0001, 0.0005, 0.01, 0.1])
    [block, _] = evidence.blocks(given, store)
    assert [c.lr for c in block.configs if c.smto == "edm"] == ends


def test_a_grid_waits_for_its_last_run():
    def lacks_one(config):
        return None if (config.smto, config.lr, config.seed) == ("edm", 0.004, 2) else 0.5 + config.lr

    [block, _] = evidence.blocks(tier(lr=[0.001, 0.004], wider=[0.01]), Stand(lacks_one))
    assert [c.lr for c in block.configs if c.smto == "edm"] == [0.001, 0.004]
    assert [c.lr for c in block.configs if c.smto == "unit_scal" and c.problem == CL_RR] == [0.001, 0.004, 0.01]


def test_what_is_wrong_with_a_list_is_said(tmp_path):
    (tmp_path / "long").mkdir()
    (tmp_path / "long.yaml").write_text("tiers: [{says: x, of: {}, seeds: [1], batch_size: [64, 128], epochs: [1]}]")
    with pytest.raises(BadConfig, match="one is needed per batch size"):
        evidence.tiers("long", tmp_path)
    with pytest.raises(BadConfig, match="did you mean 'long'"):
        evidence.tiers("lon", tmp_path)
    with pytest.raises(BadConfig, match=r"no list of records for the preset 'shipped'.* with one: overnight;"):
        evidence.tiers("shipped")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"of": {CL_RR: ["cagard"]}}, "did you mean 'cagrad'"),
        ({"of": {"multimnist/CL_R": ["unit_scal"]}}, "did you mean 'multimnist/CL_RR'"),
        ({"settings": {"sorce": "full"}}, "did you mean 'source'"),
        (
            {"further": [{"problem": "multimnist/CL_R", "smto": "edm", "changes": {}}]},
            "did you mean 'multimnist/CL_RR'",
        ),
        ({"further": [{"problem": CL_RR, "smto": "edm", "changes": {"dropuot": 0.1}}]}, "did you mean 'dropout'"),
        ({"lr": [-1.0]}, "greater than 0"),
        ({"lr": [float("inf")]}, "finite"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(change, hint, tmp_path, capsys, monkeypatch):
    (tmp_path / "params" / "bad").mkdir(parents=True)
    (tmp_path / "params" / "bad.yaml").write_text(yaml.safe_dump({"tiers": [tier().model_dump() | change]}))
    monkeypatch.setattr(evidence.artifacts, "REPOSITORY", tmp_path)
    assert evidence.main(["--preset", "bad", "--store", str(tmp_path / "store")]) == 2
    assert "Nothing was trained" in (said := capsys.readouterr().err) and hint in said


def test_it_says_what_is_decided_and_what_would_settle_the_rest(tmp_path, monkeypatch):
    """The preset's own verdicts where its notebooks ran, else those of it that ship, else all that ship."""
    monkeypatch.setattr(evidence.artifacts, "REPOSITORY", tmp_path)
    monkeypatch.setenv("MTL_ARTIFACTS", str(tmp_path / "artifacts"))
    assert evidence.verdicts("night").startswith("No verdicts yet")
    rows = [
        {"id": "C1", "verdict": "reproduced", "preset": "quick", "settles": ""},
        {"id": "C2a", "verdict": "open", "preset": "quick", "settles": "12 more seeds, 40 minutes"},
    ]
    last = [rows[1] | {"preset": "night"}]
    ships, ran = "docs/report/claims.json", "artifacts/night/claims.json"
    for place, some, says in (
        (ships, rows, "at quick, 1 reproduced and 1 open."),
        (ships, [rows[0], *last], "at night, 1 open."),
        (ran, last, "at night, 1 open."),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(json.dumps(some))
        said = evidence.verdicts("night").splitlines()
        at, counts = says.split(", ")
        assert said[0].startswith(f"Verdicts {at}, ") and said[0].endswith(f": {counts}") and place in said[0]
        assert said[1:] == ["C2a, open: 12 more seeds, 40 minutes."]


class Lengthening:
    """A store of runs of nine epochs whose validation and test accuracy a function of seed, method and epoch gives."""

    def __init__(self, accuracy):
        self.accuracy = accuracy

    def get(self, config):
        first = Stand(lambda config: 0.5).get(config)
        history = []
        for epoch in range(config.epochs):
            metrics = {task: dict(values) for task, values in first.history[0].test.items()}
            if "CL" in metrics:
                metrics["CL"]["accuracy"] = self.accuracy(config.seed, config.smto, epoch)
            history.append(first.history[0].model_copy(update={"val": metrics, "test": metrics}))
        return first.model_copy(update={"history": history})


def test_a_length_is_enough_where_the_last_third_moves_less_than_the_error():
    """Accuracies that rise to the end move gap and baseline; those that rise for two thirds do not."""

    def accuracy(until):
        def of(seed, smto, epoch):
            return 0.5 + 0.01 * seed + (0.02 if smto == "unit_scal" else 0.04) * min(epoch, until)

        return of

    given = tier(epochs=[9], batch_size=[64], settings=TINY)
    [short] = evidence.lengths(given, Lengthening(accuracy(9)))
    assert (
        "From epoch 6 to 9, 1 of 3 gaps to the uniform loss and baselines moved" in short
    )  # the constant one, RR alone
    assert "standard error over 2 seeds; of the others, most in its own errors: EDM by" in short
    assert short.endswith("and CL alone, accuracy by 0.06 (error 0.005).")
    [enough] = evidence.lengths(given, Lengthening(accuracy(5)))
    assert "3 of 3 gaps" in enough and enough.endswith("over 2 seeds.")
    assert evidence.lengths(tier(epochs=[9], lr=[0.001]), Lengthening(accuracy(9))) == []  # published settings only
    assert evidence.lengths(given.model_copy(update={"seeds": [1]}), Lengthening(accuracy(9))) == []


# -- training it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A preset of two blocks of four runs each, and where its records go."""
    given = tier().model_dump()
    (tmp_path / "params" / "tiny").mkdir(parents=True)
    (tmp_path / "params" / "tiny.yaml").write_text(yaml.safe_dump({"tiers": [given]}))
    monkeypatch.setattr(evidence.artifacts, "REPOSITORY", tmp_path)
    return ["--preset", "tiny", "--store", str(tmp_path / "store"), "--workers", "0"], RunStore(tmp_path / "store")


@pytest.mark.training
def test_it_trains_what_is_missing_in_order_and_says_what_is_there(tiny, capsys, monkeypatch):
    arguments, store = tiny
    monkeypatch.setenv("MTL_KEEP", "")
    assert evidence.main([*arguments, "--look"]) == 0
    assert "tiny: 0 of 8 runs, 0 of 2 blocks complete; nothing is known" in capsys.readouterr().out
    trained = []
    put = RunStore.put
    monkeypatch.setattr(RunStore, "put", lambda self, run: trained.append(run.config) or put(self, run))
    assert evidence.main(arguments) == 0
    assert "tiny: 8 of 8 runs, 2 of 2 blocks complete." in capsys.readouterr().out
    wanted = [c for block in evidence.blocks(tier(), store) for c in block.configs]
    assert [c.key for c in trained] == [c.key for c in wanted]
    assert evidence.main(arguments) == 0 and len(trained) == 8  # nothing twice


@pytest.mark.training
def test_it_stops_at_the_hour_and_goes_on_from_there(tiny, capsys, monkeypatch):
    arguments, store = tiny
    real, setitimer, asked = runner.run, evidence.signal.setitimer, []

    def three_runs_and_the_hour_is_there(configs, *args, **settings):
        real(configs[:3], *args, **settings)
        setitimer(evidence.signal.ITIMER_REAL, 0.01)
        evidence.signal.pause()

    monkeypatch.setattr(evidence.runner, "run", three_runs_and_the_hour_is_there)
    monkeypatch.setattr(evidence.signal, "setitimer", lambda _, seconds: asked.append(seconds))
    assert evidence.main([*arguments, "--hours", "2"]) == 0
    assert asked == [7200, 0]
    assert "The time is up" in (said := capsys.readouterr().out) and "tiny: 3 of 8 runs" in said
    monkeypatch.undo()
    states = evidence.train([tier()], store, workers=0)
    assert [len(one.held) for one in states] == [4, 4]


@pytest.mark.training
def test_a_block_stays_on_one_kind_of_machine(tmp_path, monkeypatch):
    """One that another kind began is left to it, unless asked; the other block is trained."""
    store = RunStore(tmp_path)
    [first, _] = evidence.blocks(tier(), store)
    [run] = runner.run(first.configs[2:3], store, workers=0)
    os.remove(store.path(run.config))
    store.put(run.model_copy(update={"environment": run.environment | {"instruction_set": "another"}}))
    states = evidence.train([tier()], store, workers=0)
    assert [len(one.missing) for one in states] == [3, 0]
    said = evidence.outlook(states, store)
    assert "begun on cpu" in said and "another" in said
    states = evidence.train([tier()], store, anywhere=True, workers=0)
    assert [len(one.missing) for one in states] == [0, 0]
    assert len(states[0].kinds) == 2


def test_how_long_it_takes_is_read_off_records_of_the_same_method():
    config = RunConfig.of(problem=CL_RR, smto="edm", seed=1, lr=0.1, epochs=4, **TINY)
    run = Stand(lambda config: 0.9).get(config.model_copy(update={"epochs": 1}))  # one epoch, one second
    other = run.model_copy(update={"config": config.model_copy(update={"smto": "uw"}), "seconds": 9.0})
    assert evidence.seconds(config, [run, other]) == pytest.approx(4.0)
    slow = run.model_copy(update={"seconds": 90.0})  # it had no core of its own
    assert evidence.seconds(config, [slow, run, slow, other]) == pytest.approx(4.0)
    assert evidence.seconds(config.model_copy(update={"smto": "si"}), [run, other]) == pytest.approx(20.0)
    assert evidence.seconds(config, []) != evidence.seconds(config, [])  # not known


def test_where_a_tier_has_no_run_shorter_ones_in_the_store_say_how_long_it_takes(tmp_path):
    """Eight runs of two epochs, where one epoch of each method took 30 seconds."""
    store, nothing = RunStore(tmp_path), Stand(lambda config: None)
    states = evidence.look([tier(epochs=[2])], nothing)
    assert "0 of 8 runs" in (said := evidence.outlook(states, store)) and "nothing is known of how long" in said
    for config in states[0].missing:
        run = Stand(lambda config: 0.9).get(config.model_copy(update={"epochs": 1, "seed": 9}))
        store.put(run.model_copy(update={"code_versions": run.config.identity["numerics"], "seconds": 30.0}))
    assert "about 8 minutes on one core to go" in evidence.outlook(states, store)


def test_what_is_held_of_a_tier_is_read_once_a_method_has_all_of_it(tmp_path):
    """Runs and baselines by size; no method with a gap, nothing without all baselines; a wrong name is refused."""
    (tmp_path / "night").mkdir()
    (tmp_path / "night.yaml").write_text(yaml.safe_dump({"tiers": [tier(seeds=[1, 2]).model_dump()]}))
    store = RunStore(tmp_path / "store")
    configs = [config for block in evidence.blocks(tier(), store) for config in block.configs]
    last = next(c for c in configs if c.smto == "edm" and c.seed == 2)
    single = next(c for c in configs if c.problem == "multimnist/RR" and c.seed == 2)

    def put(config):
        run = Stand(lambda config: 0.9).get(config)
        store.put(run.model_copy(update={"code_versions": config.identity["numerics"]}))

    def read():
        return evidence.held("night", "tiny", tmp_path / "store", tmp_path)

    for config in configs:
        if config not in (last, single):
            put(config)
    assert read() == {}
    put(single)
    ((size, (runs, alone)),) = read().items()
    assert size == (64, 1) and [(r.config.smto, r.config.seed) for r in runs] == [("unit_scal", 1), ("unit_scal", 2)]
    assert {r.config.problem for r in alone} == {"multimnist/CL", "multimnist/RR"} and len(alone) == 4
    put(last)
    assert {r.config.smto for r in read()[size][0]} == {"unit_scal", "edm"}
    assert evidence.held("day", "tiny", store, tmp_path) == {}
    with pytest.raises(BadConfig, match="did you mean 'tiny'"):
        evidence.held("night", "tinny", store, tmp_path)
