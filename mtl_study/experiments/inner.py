"""The inner optimizer of a run: what moves the parameters once the SMTO has left its gradients.

    adam            torch's Adam; weight decay is added to the gradient
    adamw           the same, with decay apart from the gradient
    sgd             θ ← θ − γ m,  m ← μ m + g
    signsgd         θ ← θ − γ sign(m),  m ← μ m + (1 − μ) g
    muon            torch's Muon for matrices, Adam for the rest; one step size serves both ("match_rms_adamw")
    adam_per_task   on the shared parameters one Adam per task, whose steps are added: θ ← θ − γ Σ_k m̂_k / (√v̂_k + ε);
                    Adam for the rest

Sources: Bernstein et al. 2018, arXiv:1802.04434 (signsgd); Jordan et al. 2024 (muon); Yang et al. 2023, AdaTask,
arXiv:2211.15055 (adam_per_task, which keeps moments per task in the same way).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mtl_core.step import Step
from mtl_study.experiments.runs import RunConfig

Groups = list[dict[str, Any]]


def build(config: RunConfig, model: nn.Module, of_smto: Groups) -> Optimizer:
    """The optimizer that a configuration asks for, over the model's parameters and what the SMTO learns itself.

    An attribute `found_inf`, set to a tensor that is not 0, has the next step leave all parameters as they are.
    """
    groups: Groups = [{"params": list(model.parameters())}, *of_smto]
    rates: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    betas: Any = tuple(config.betas)
    adam = {**rates, "betas": betas, "eps": config.eps}
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, **adam, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, **adam, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, **rates, momentum=config.momentum, fused=True)
        case "signsgd":
            return SignSGD(groups, **rates, momentum=config.momentum)
        case "muon":
            matrices = [p for p in model.parameters() if p.dim() == 2]
            others = [p for p in model.parameters() if p.dim() != 2]
            muon = torch.optim.Muon(matrices, **rates, momentum=config.momentum, adjust_lr_fn="match_rms_adamw")
            return Together([muon, torch.optim.Adam([{"params": others}, *of_smto], **adam, fused=True)])
        case "adam_per_task":
            shared = list(model.get_submodule("encoder").parameters())
            rest = [p for p in model.parameters() if all(p is not q for q in shared)]
            alone = torch.optim.Adam([{"params": rest}, *of_smto], **adam, fused=True)
            return Together([PerTaskAdam(shared, **adam), alone])


class _Skipping(Optimizer):
    """One that reads `found_inf` on the host; a GPU is waited for."""

    found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if self.found_inf is None or not bool(self.found_inf):
            self._move()

    def _move(self) -> None:
        raise NotImplementedError


class SignSGD(_Skipping):
    """Every coordinate moves by the step size, however long the gradient is; one with gradient 0 does not move.

    Args:
        momentum: of an average of the gradients, whose sign counts; 0 is the gradient itself.
        weight_decay: added to the gradient.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def _move(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                if group["momentum"]:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    gradient = mean.lerp_(gradient, 1 - group["momentum"])
                p.sub_(gradient.sign(), alpha=group["lr"])


class PerTaskAdam(_Skipping):
    """One Adam per task on shared parameters, whose steps are added. Each sees its own task's gradient alone, so a
    constant weight of a task cancels (up to ε and weight decay). `see` hands over the gradients.

    Args:
        params: the shared ones, in the order of `Step.shared`.
        weight_decay: added to every task's gradient.
    """

    def __init__(
        self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.rows: list[list[Tensor]] = []

    def see(self, step: Step, jacobian: Tensor, weights: Tensor) -> None:
        """The task gradients [K, P] of the step, and the SMTO's weights [K] on them."""
        self.rows = [step.unflatten(row) for row in jacobian * weights.to(jacobian)[:, None]]

    def _move(self) -> None:
        (group,) = self.param_groups
        (beta, beta_square), lr, decay = group["betas"], group["lr"], group["weight_decay"]
        for i, p in enumerate(p for p in group["params"] if p.requires_grad):
            gradients = torch.stack([row[i] for row in self.rows])  # [K, …]
            if decay:
                gradients = gradients + decay * p
            state = self.state[p]
            mean = state.setdefault("mean", torch.zeros_like(gradients)).lerp_(gradients, 1 - beta)
            square = state.setdefault("square", torch.zeros_like(gradients)).lerp_(gradients.square(), 1 - beta_square)
            state["count"] = count = state.get("count", 0) + 1
            root = (square / (1 - beta_square**count)).sqrt() + group["eps"]
            p.sub_((mean / (1 - beta**count) / root).sum(0), alpha=lr)


class Together(_Skipping):
    """Several optimizers, each for its own parameters, as one: the step size of all its groups can be scheduled."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        """Groups are the parts' own, so that a step size that is set here is set there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def _move(self) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def per_task(optimizer: Optimizer) -> PerTaskAdam | None:
    """That part of an optimizer which wants to see the gradients task by task, if there is one."""
    parts = optimizer.parts if isinstance(optimizer, Together) else [optimizer]
    return next((part for part in parts if isinstance(part, PerTaskAdam)), None)
