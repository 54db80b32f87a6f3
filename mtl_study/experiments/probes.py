"""Looks at a training run that do not change it: gradients sample by sample and task by task, and what Adam makes of
conflicts.

    watch(config, looks=20)    the run's record, and a Look at each of so many steps, evenly spaced
    watch_all(configs)         several runs side by side

A look is taken before the method's backward pass, on the parameters as they are then. Gradients of single samples are
those on the shared parameters in evaluation mode: with batch normalisation, or dropout, in training mode the gradient
of a "sample" would hold its whole batch, or chance.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from mtl_core.step import Step, inner_products
from mtl_study.experiments import training
from mtl_study.experiments.runs import Run, RunConfig
from mtl_study.experiments.training import Training

SAMPLES = 8  # of a batch, and tasks, as Elich et al. have them


@dataclass(frozen=True)
class Look:
    """One look.

    epoch, step: from 0. gramian: inner products of the gradients of all tasks on all samples, [K, S, K, S], task
    first. of_batch: of the K gradients on the whole batch, J Jᵀ [K, K]. preconditioned: the same as Adam measures
    them, J P Jᵀ with P = 1/(√v̂ + ε); NaN where there is no Adam, or not yet.
    """

    epoch: int
    step: int
    gramian: np.ndarray
    of_batch: np.ndarray
    preconditioned: np.ndarray


def watch(
    config: RunConfig, looks: int = 20, samples: int = SAMPLES, device: str = "auto", data_dir: str | None = None
) -> tuple[Run, list[Look]]:
    """Train a run and look at it. The record is that of the run that nobody looks at, bit for bit.

    Args:
        looks: so many, at most one per step, evenly spaced over all of them, the last step included.
        samples: the first of each batch, at most so many.
    """
    with training.determinism(1, config.precision):
        run = _Watched(config, training.find_device(device), data_dir, looks, samples)
        while run.unfinished:
            run.epoch()
        return run.record(), run.looks


def watch_all(
    configs: Sequence[RunConfig], looks: int = 20, samples: int = SAMPLES, workers: int | None = None, **how: Any
) -> list[tuple[Run, list[Look]]]:
    """`watch` for several runs, in processes side by side; nothing is stored.

    Args:
        workers: processes; None is MTL_WORKERS, or one per core. how: device and data_dir.
    """
    workers = int(os.environ.get("MTL_WORKERS") or joblib.cpu_count()) if workers is None else workers
    jobs = (joblib.delayed(watch)(config, looks, samples, **how) for config in configs)
    return list(joblib.Parallel(n_jobs=max(1, min(workers, len(configs))))(jobs)) if configs else []


class _Watched(Training):
    def __init__(self, config: RunConfig, device: torch.device, data_dir: str | None, looks: int, samples: int) -> None:
        super().__init__(config, device, data_dir)
        self.samples, self.done, self.looks = samples, 0, list[Look]()
        steps = config.epochs * math.ceil(len(self.data["train"]) / config.batch_size)
        self.wanted = {int(step) for step in np.linspace(0, steps - 1, min(looks, steps) + 1)[1:]}

    def before_backward(self, step: Step) -> None:
        if self.done in self.wanted:
            per_epoch = math.ceil(len(self.data["train"]) / self.config.batch_size)
            jacobian = step.jacobian.detach()
            self.looks.append(
                Look(
                    epoch=self.done // per_epoch,
                    step=self.done % per_epoch,
                    gramian=per_sample(self.model, self.loss_functions, step, self.samples),
                    of_batch=inner_products(jacobian).cpu().numpy(),
                    preconditioned=self._preconditioned(step, jacobian),
                )
            )
        self.done += 1

    def _preconditioned(self, step: Step, jacobian: Tensor) -> np.ndarray:
        roots = []
        for parameter in step.shared:
            state = self.optimizer.state.get(parameter, {})
            if "exp_avg_sq" not in state:
                return np.full((len(jacobian), len(jacobian)), np.nan)
            group = self.optimizer.param_groups[0]
            correction = 1 - group["betas"][1] ** float(state["step"])
            roots.append((state["exp_avg_sq"] / correction).sqrt() + group["eps"])
        return inner_products(jacobian / step.flatten(roots).sqrt()).cpu().numpy()


def per_sample(model: nn.Module, loss_functions: Sequence[training.Loss], step: Step, samples: int) -> np.ndarray:
    """Inner products of the gradients of every task on each of the step's first samples, [K, S, K, S]. Model, running
    statistics, .grad and random generators stay as they are."""
    was_training = model.training
    model.eval()
    rows = []
    try:
        inputs, count = step.x, min(samples, len(step.targets[0]))
        for i in range(count):
            predictions = model(inputs[i : i + 1], step.transform_features)
            for loss, prediction, target in zip(loss_functions, predictions, step.targets, strict=True):
                found = torch.autograd.grad(
                    loss(prediction, target[i : i + 1]), step.shared, retain_graph=True, materialize_grads=True
                )
                rows.append(torch.cat([g.flatten() for g in found]))
    finally:
        model.train(was_training)
    K = len(loss_functions)
    products = inner_products(torch.stack(rows)).cpu().numpy().reshape(count, K, count, K)
    return np.ascontiguousarray(products.transpose(1, 0, 3, 2))
