"""Nothing in a step assumes a CPU: one step of every SMTO, and whole epochs, run on PyTorch's meta device: its tensors
have shapes and no numbers. What would have the host wait for a GPU is counted there: nothing in a step of a method that
reads losses, one transfer of a K×K Gramian in one that solves a problem on the host, and none for a batch."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_core.smtos.base import SMTO, GramianWeighting, LossWeighting, ProblemInfo
from mtl_core.smtos.gated import Gated
from mtl_core.smtos.registry import build, keys
from mtl_core.step import MultiTaskModel, Step
from mtl_study.artifacts import REPOSITORY
from mtl_study.experiments import inner
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.training import Training
from mtl_study.experiments.waits import Waits

NOWHERE = torch.device("meta")
COMBINATIONS = [
    ("rotograd", {"inner": "edm"}),
    ("rotograd", {"inner": "nash_mtl", "start": "haar"}),
    ("auto_lambda", {"inner": "cagrad"}),
    ("auto_lambda", {"inner": "gated", "inner_options": {"by": "cosine"}}),
    ("gated", {"inner": "famo"}),
    ("gated", {"inner": "mgda_ub"}),
    ("gated", {"inner": "sdmgrad"}),
    ("auto_lambda", {"gradients": "finite_difference", "inner": "rotograd"}),
    ("graddrop", {"space": "parameters", "leak": [0.1, 0.2, 0.3]}),
    ("graddrop", {"mode": "random"}),
    ("famo", {"masks": "fresh", "max_norm": 1.0}),
    ("gradnorm", {"start": "first_epoch"}),
]
CASES = [
    (key, {"fixed": {"weights": [1.0, 2.0, 3.0]}, "bayesagg_mtl": {"warm_up": 0}}.get(key, {})) for key in keys()
] + COMBINATIONS


K = 3
GRAMIAN = (K + 1, K)  # with the losses below it
#: what the host waits for where it is neither nothing nor that
READ = {
    "rotograd": [()],  # how many terms the exponential takes
    "excess_mtl": [(K,)],
    "sdmgrad": [()],
}
#: and the linear algebra that it waits for: a posterior per task, from which one with classes draws
CHECKED = {"bayesagg_mtl": ["cholesky"] * K}


def read_by(smto: SMTO | None) -> list[tuple[int, ...]]:
    """What a method and those inside it should read, one after the other: the Gramian of each space once."""
    found, spaces = [], set[str]()
    while smto is not None:
        found += READ.get(smto.key, [])
        if isinstance(smto, GramianWeighting | Gated) and smto.space not in spaces:
            found.append(GRAMIAN)
            spaces.add(smto.space)
        smto = getattr(smto, "inner", None)
    return found


def test_a_step_waits_for_nothing_but_a_gramian() -> None:
    """Of every method, and of combinations. What is sent to the device is not waited for."""
    encoder = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    heads = {"a": nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)), "b": nn.Linear(5, 4), "c": nn.Linear(5, 4)}
    found = {}
    for key, options in CASES:
        model = copy.deepcopy(MultiTaskModel(encoder, heads)).to("meta")
        smto = build(key, K, **options)
        smto.set_up(ProblemInfo(("softmax", "gaussian", "gaussian"), (5,), lr=0.01, weight_decay=0.0), seed=1)
        smto.to("meta")
        optimizer = torch.optim.Adam([{"params": list(model.parameters())}, *smto.parameter_groups(0.01)], lr=0.01)
        x = torch.empty(6, 1, 6, 6, device=NOWHERE)
        classes, values = torch.empty(6, dtype=torch.long, device=NOWHERE), torch.empty(6, 4, device=NOWHERE)
        batch = x, [classes, values, values]
        smto.begin_epoch(0, None, 0.01)
        with Waits() as waits:
            step = Step(
                model,
                [F.nll_loss, F.mse_loss, F.mse_loss],
                *batch,
                transform_features=smto.transform_features,
                second_batch=lambda batch=batch: batch,
                replay=smto.replay,
            )
            applied = smto.backward(step)
            optimizer.step()
            smto.after_step(step)
        expected = read_by(smto)
        found[key, str(options)] = (waits.read, waits.sent, waits.checked), (expected, [], CHECKED.get(key, []))
        assert not expected or not isinstance(smto, LossWeighting)
        with Waits():
            smto.begin_epoch(1, torch.ones(K, device=NOWHERE), 0.01)
        assert applied.weights.is_meta and applied.weights.shape == (K,), key
        assert all(p.grad.is_meta and p.grad.shape == p.shape for p in [*model.parameters(), *smto.parameters()]), key
    assert {case: was for case, (was, _) in found.items()} == {case: expected for case, (_, expected) in found.items()}


def test_the_page_names_every_exception() -> None:
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    named = page.split("exceptions:")[1].split("`python -m")[0]
    assert set(re.findall(r"`(\w+)`", named)) == {*READ, *CHECKED, "gated"} and "a second wait" in named


def test_waits_are_seen() -> None:
    """Every way of looking at a number, and of sending some; a stand-in answers."""
    matrix, number = torch.empty(2, 2, device=NOWHERE), torch.empty((), device=NOWHERE)
    with Waits() as waits:
        assert matrix.tolist() == [[2.0, 1.0], [1.0, 2.0]] == matrix.cpu().numpy().tolist()
        assert float(number) == number.item() == 1.0 and bool(number > 0)
        assert torch.zeros(2, 2).copy_(matrix).sum() == 6.0
    assert waits.read == [(2, 2), (2, 2), (), (), (), (2, 2)] and not waits.sent
    with Waits() as waits:
        torch.ones(2).to(matrix, non_blocking=True)
        matrix.copy_(torch.ones(2, 2), non_blocking=True)
        assert waits.count == 0
        torch.ones(3).to(matrix)
        matrix.copy_(torch.ones(2))
    assert waits.sent == [(3,), (2,)]
    with Waits(), pytest.raises(NotImplementedError):
        matrix[matrix > 0]


@pytest.mark.parametrize("optimizer", ["signsgd", "muon", "adam_per_task"])
def test_optimizers_that_skip_on_the_host_ask_once_per_step(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the answer is that a gradient was infinite (1), or that all are finite (0), so that parameters move."""
    settings = {"problem": "multimnist/CL_RR", "smto": "unit_scal", "seed": 1, "epochs": 1, "batch_size": 4, "lr": 0.01}
    config = RunConfig.of(**settings, optimizer=optimizer)
    built = inner.build(config, config.definition.build_model(0).to("meta"), [])
    built.found_inf = torch.empty((), device=NOWHERE)
    for group in built.param_groups:
        group |= (
            {"fused": None} if "fused" in group else {}
        )  # that kernel, which needs a device, reads `found_inf` there
    everyone = [p for group in built.param_groups for p in group["params"]]
    for p in everyone:
        p.grad = torch.empty_like(p)
    for part in getattr(built, "parts", []):
        if isinstance(part, inner.PerTaskAdam):
            part.rows = [[torch.empty_like(p) for p in part.param_groups[0]["params"]] for _ in range(2)]
    for answer in (1.0, 0.0):
        monkeypatch.setattr(Waits, "stand_in", lambda _, x, n=answer: torch.full(x.shape, n, dtype=x.dtype))
        before = [p._version for p in everyone]
        with Waits() as waits:
            built.step()
        assert (waits.read, waits.sent) == ([()], [])
        assert [p._version > old for p, old in zip(everyone, before, strict=True)] == [not answer] * len(everyone)


def test_linear_algebra_that_torch_says_waits_is_seen() -> None:
    """By its documentation; functions that end in _ex wait where they are asked to check. What bayesagg_mtl calls apart
    from `cholesky` looks at nothing."""
    matrix, right = torch.empty(3, 3, device=NOWHERE), torch.empty(3, 2, device=NOWHERE)
    said = [name for name in dir(torch.linalg) if "synchronizes" in (getattr(torch.linalg, name).__doc__ or "")]
    assert {"cholesky", "cholesky_ex", "eigh", "inv", "solve", "svd"} <= {*said} and len(said) > 15
    for name in said:
        given = (matrix, right) if name.startswith("solve") else (matrix,)
        for check in (False, True) if name.endswith("_ex") else (None,):
            with Waits() as waits:
                getattr(torch.linalg, name)(*given, **({} if check is None else {"check_errors": check}))
            assert waits.count == len(waits.checked) == (check is not False), (name, check)
            assert name not in ("cholesky", "eigh", "inv", "solve", "svd") or waits.checked == [name]
    with Waits() as waits:
        torch.cholesky_solve(right, matrix)
        torch.cholesky_inverse(matrix)
        torch.linalg.solve_triangular(matrix, right, upper=True)
        torch.linalg.cholesky(torch.eye(3))  # on the host
    assert waits.count == 0


# -- whole epochs ------------------------------------------------------------------------------------------------------

SLIM = {"width": 32, "slim": 32}
STREETS = {"problem_options": SLIM, "train_size": 8, "val_size": 3, "test_size": 3}
MOLECULES = {"problem_options": {"max_atoms": 9, "slim": 4}, "train_size": 8, "val_size": 6, "test_size": 6}
DIGITS = {"train_size": 8, "val_size": 6, "test_size": 6}


class Healthy(Waits):
    """The first step that was not finite is step −1: there is none."""

    def stand_in(self, tensor: Tensor) -> Tensor:
        return super().stand_in(tensor) * (-1 if tensor.dtype == torch.int64 else 1)


class Unfused(torch.optim.Adam):
    """As the trainer has it, whose fused step has no shapes alone."""

    def __init__(self, model, groups) -> None:
        super().__init__([{"params": list(model.parameters())}, *groups], lr=0.01)

    def step(self) -> None:
        self.found_inf = None
        super().step()


def epochs(monkeypatch, problem: str, smto: str, **settings) -> tuple[Training, list[int], int]:
    """Two epochs: the run, the waits in each of its steps, and those in all."""
    monkeypatch.setattr(inner, "build", lambda config, model, groups: Unfused(model, groups))
    config = RunConfig.of(problem=problem, smto=smto, seed=1, epochs=2, batch_size=4, lr=0.01, **settings)
    in_steps: list[int] = []
    with Healthy():  # reading data waits
        run = Training(config, NOWHERE, None)
    taken = run._step

    def step(*args) -> None:
        before = waits.count
        taken(*args)
        in_steps.append(waits.count - before)

    run._step = step
    with Healthy() as waits:
        while run.unfinished:
            run.epoch()
    return run, in_steps, waits.count


@pytest.mark.parametrize("schedule", ["exponential", "plateau", "plateau_on_validation"])
def test_an_epoch_waits_for_its_end(monkeypatch, schedule):
    """Evaluation, log, schedule and record included. Waits are as many however many steps there are."""
    counts = set()
    for size in (8, 12):
        run, in_steps, count = epochs(
            monkeypatch, "multimnist/CL_RR", "famo", **DIGITS | {"train_size": size}, schedule=schedule
        )
        assert not run.diverged and len(run.history) == 2 and len(in_steps) == 2 * size // 4
        assert set(in_steps) == {0} and set(run.history[0].gradients) == {"features", "parameters"}
        assert run.record().ended == "finished"
        counts.add(count)
    assert len(counts) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "settings", "streamed"),
    [
        ("cityscapes/19C", STREETS, ""),
        ("cityscapes/19C", STREETS | {"problem_options": {**SLIM, "upsampling": "products"}}, "1"),
        ("qm9", MOLECULES, ""),
    ],
    ids=["streets", "streets that stay on the host", "molecules"],
)
def test_no_batch_and_no_loss_is_waited_for(monkeypatch, problem, settings, streamed):
    """With augmentation, with maps that are copied batch by batch, and with molecules sorted by their atoms; a Gramian
    is read once per step."""
    monkeypatch.setenv("MTL_STREAM", streamed)
    for smto, once in (("uw", 0), ("cagrad", 1)):
        run, in_steps, _ = epochs(monkeypatch, problem, smto, **settings)
        assert len(run.history) == 2 and set(in_steps) == {once}
