"""`check_smto`: every shipped method passes, and for every check there is a method that it catches."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, GramianWeighting, LossWeighting, StepResult
from mtl_core.smtos.registry import build, keys
from mtl_study import check_smto
from mtl_study.checking import CHECKS, ChecksFailed

OPTIONS: dict[str, dict] = {
    "fixed": {"weights": [0.2, 0.5, 0.3]},
    "bayesagg_mtl": {"warm_up": 1},
    "stch": {"warm_up": 0},
}
DRAWS = "the order in which tasks meet is drawn"
DICE = "the weights are drawn, whatever the tasks"
#: what a method does not promise, and why
NOT_PROMISED: dict[str, dict[str, str]] = {
    "auto_lambda": {"scaling": "λ moves by Adam's steps, and the virtual step is one on the losses as they are"},
    "cdtt": {"scaling": "the tension is a number, added to a direction as long as the gradients"},
    "excess_mtl": {"scaling": "1e-7 is added under the root"},
    "fixed": {"permutation": "the weights belong to the tasks, here in the order 0, 1, 2"},
    "go4align": {"scaling": "a loss of 64 loses weight faster than a loss of 1"},
    "gradvac": {"permutation": DRAWS},
    "imtl_l": {"scaling": "the scales are learned from 1 on, step by step"},
    "ldc_mtl": {
        "permutation": "a task is compared with its neighbours",
        "scaling": "the weights are learned on the losses as they are",
    },
    "moco": {"scaling": "γ is a step size on inner products of gradients as they are"},
    "modo": {
        "scaling": "γ is a step size on inner products of gradients as they are",
        "cost": "K passes for each of two further batches",
    },
    "pcgrad": {"permutation": DRAWS},
    "rlw_dirichlet": {"permutation": DICE},
    "rlw_normal": {"permutation": DICE},
    "rotograd": {"scaling": "the rotations are learned on the gradients as they are"},
    "sdmgrad": {"cost": "K passes for each of two further batches"},
    "uw": {"scaling": "the scales are learned from 1 on, step by step"},
}


@pytest.mark.parametrize("key", keys())
def test_every_shipped_method_keeps_its_promises(key) -> None:
    """Without a waiver that it does not need."""
    report = check_smto(key, NOT_PROMISED.get(key), **OPTIONS.get(key, {}))
    assert list(report.found) == list(CHECKS)
    assert set(report.of("waived")) == set(NOT_PROMISED.get(key, {}))
    assert "kept here" not in str(report), report


# -- for every check a method that it catches --------------------------------------------------------------------------


class ForgetsToWeigh(LossWeighting):
    """Says that its weights sum to 1 and applies the sum."""

    key = "forgets"

    def backward(self, step) -> StepResult:
        step.apply(torch.ones_like(step.losses), torch.ones_like(step.losses))
        third = torch.full_like(step.losses, 1 / 3)
        return StepResult(third, third)


class FirstComesFirst(LossWeighting):
    key = "first"

    def weights(self, losses):
        return torch.arange(self.num_tasks, 0, -1).to(losses)


class AddsOne(LossWeighting):
    key = "adds_one"

    def weights(self, losses):
        return 1 / (1 + losses)


class GoesAround(AddsOne):
    """Its update is an attribute of the object, so that nothing looks at the losses before it."""

    key = "around"

    def __init__(self, num_tasks):
        super().__init__(num_tasks)
        self.backward = functools.partial(inspect.unwrap(LossWeighting.backward), self)


class DividesByLengths(SMTO):
    """A silent task is divided by 0."""

    key = "divides"
    space = "parameters"

    def backward(self, step) -> StepResult:
        weights = 1 / step.jacobian.norm(dim=1)
        step.apply(weights, weights)
        return StepResult(weights, weights)


class CountsInSecret(LossWeighting):
    """A counter that state_dict does not hold."""

    key = "counts"

    def weights(self, losses):
        self.steps = getattr(self, "steps", 0) + 1
        return torch.full_like(losses, 1 / self.steps)


class LooksTwice(GramianWeighting):
    """Says that it reads features, and has the Jacobian computed."""

    key = "twice"
    space = "features"

    def backward(self, step) -> StepResult:
        step.jacobian  # noqa: B018
        return super().backward(step)

    def weights(self, gramian):
        return gramian.diagonal() ** -0.5


@pytest.mark.parametrize(
    ("smto", "check", "words"),
    [
        (ForgetsToWeigh, "gradients", "as by plain autograd.*off by [67]"),
        (FirstComesFirst, "permutation", "another order.*off by"),
        (AddsOne, "scaling", "64 times as large.*off by"),
        (DividesByLengths, "silent", "1 of 3 tasks without gradient: the update is not finite"),
        (GoesAround, "nan", r"NaN raises nothing; the weights are \[0.\d+, nan"),
        (CountsInSecret, "state", "restored in a new object.*off by"),
        (LooksTwice, "cost", "1 forward, 3 backward; for a method that reads features at most 1"),
    ],
    ids=lambda value: getattr(value, "key", None),
)
def test_a_broken_promise_is_found(smto, check, words) -> None:
    """With all others waived the report is the message of the error; with this one waived, too, there is no error."""
    others = dict.fromkeys(set(CHECKS) - {check}, "another matter")
    with pytest.raises(ChecksFailed, match=rf"(?s){smto.key}: {smto.__name__} on 3 tasks.*broken +{check} +.*{words}"):
        check_smto(smto, others)
    report = check_smto(smto, others | {check: "known"})
    assert report.of("broken") == [] and f"waived  {check:13}known" in str(report)


def test_an_error_in_the_method_is_in_the_report() -> None:
    class Refuses(LossWeighting):
        key = "refuses"

        def weights(self, losses):
            raise RuntimeError("not today")

    with pytest.raises(ChecksFailed, match=r"broken +gradients +RuntimeError: not today"):
        check_smto(Refuses)


def test_a_waiver_of_no_check_is_refused() -> None:
    with pytest.raises(BadOption, match=r"no check 'permutations'.*did you mean 'permutation'"):
        check_smto("edm", {"permutations": "why not"})


def test_an_object_is_no_class_of_methods() -> None:
    for given in (build("edm", 3), torch.nn.Linear, 3):
        with pytest.raises(BadOption, match=r"is no class of SMTOs; give the class itself, without \(\), or a key"):
            check_smto(given)
