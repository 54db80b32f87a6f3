"""A whole epoch without a device: no training step of a method that reads losses waits for it, nor does any batch; what
a GPU is waited for is read when the epoch ends."""

import pytest
import torch
from torch import Tensor

from mtl_study.experiments import inner
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.training import Training
from mtl_study.experiments.waits import Waits

NOWHERE = torch.device("meta")
STREETS = {"problem_options": {"width": 32, "slim": 32}, "train_size": 8, "val_size": 3, "test_size": 3}
MOLECULES = {"problem_options": {"max_atoms": 9, "slim": 4}, "train_size": 20, "val_size": 6, "test_size": 6}
DIGITS = {"train_size": 20, "val_size": 6, "test_size": 6}


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
    for size in (20, 40):
        run, in_steps, count = epochs(
            monkeypatch, "multimnist/CL_RR", "famo", **DIGITS | {"train_size": size}, schedule=schedule
        )
        assert not run.diverged and len(run.history) == 2 and len(in_steps) == 2 * size // 4
        assert set(in_steps) == {0} and set(run.history[0].gradients) == {"features", "parameters"}
        assert run.record().ended == "finished"
        counts.add(count)
    assert len(counts) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("problem", "settings"), [("cityscapes/19C", STREETS), ("qm9", MOLECULES)], ids=str)
def test_no_batch_and_no_loss_is_waited_for(monkeypatch, problem, settings):
    """With augmentation, and with molecules sorted by their atoms; a Gramian is read once per step."""
    for smto, once in (("uw", 0), ("cagrad", 1)):
        run, in_steps, _ = epochs(monkeypatch, problem, smto, **settings)
        assert len(run.history) == 2 and set(in_steps) == {once}
