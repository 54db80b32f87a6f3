"""Auto-Lambda: learn the weights λ so that a step on the weighted training losses lowers the losses on another batch.

    virtual step: θ' = θ − lr (Σ_k λ_k ∇L_k(θ) + weight decay · θ)           over all parameters
    v = ∇ Σ_k L_k(other batch) at θ'
    ∂/∂λ_k = −lr ⟨∇L_k(θ), v⟩, followed by Adam on λ; then w = λ

θ' is linear in λ, so this gradient is exact and of first order.

Source: Liu, James, Davison, Johns 2022, arXiv:2202.03091.
Differs:
1. Source and released code replace the K inner products by a central difference of the losses along v, under fresh
   dropout masks in every pass. The inner products are exact and cost no further pass: the Jacobian that they need
   serves the update as well. `gradients="finite_difference"` is the difference, with step 0.01/|v|, but under the same
   masks and with the statistics of batch normalisation left alone (D42). With `masks="fresh"` its two looks meet new
   masks and move the statistics, as in both codes; the gradients of the virtual step remain those of the update.
2. The other batch comes from a second shuffle of the training set, as in the source. The released code of the main
   paper takes it from the validation split, which also picks epoch and hyperparameters (D10):
   `meta_split="validation"`.
3. The virtual step is plain gradient descent although the model is trained by Adam, as in the source and the released
   code (D44). The learning rate in it follows the schedule; that of λ is `lr_ratio` times the initial one and stays
   (D43).
4. λ starts at 0.1 each and is not bounded; it can turn negative, as in both codes.
5. With an `inner` SMTO the inner method works on the losses λ_k L_k, as in the source's code. A method whose direction
   does not depend on the scale of a loss (EDM, Nash-MTL) then sees λ only through its sign; the heads still get λ.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.adam import VectorAdam
from mtl_core.smtos.base import ProblemInfo, StepResult, register
from mtl_core.smtos.wrapping import Wrapping
from mtl_core.step import ScaledStep, Step


@register
class AutoLambda(Wrapping):
    """Options:
    lr_ratio: learning rate of λ over the initial one of the model.
    start: λ at the start.
    meta_split: where the other batch comes from.
    gradients: of λ, "exact" or by "finite_difference".
    masks: dropout masks of the difference's two looks at the batch, "replay" those of the first or "fresh".
    """

    key = "auto_lambda"
    space = "parameters"
    native_scale = "weights are 0.1 each at the start, then free"
    not_inside = ("auto_lambda", "bayesagg_mtl")
    remembered = ("lr",)
    needs: tuple[str, ...] = ("lr", "second_batch")

    def __init__(
        self,
        num_tasks: int,
        lr_ratio: Annotated[float, Field(ge=0)] = 0.1,
        start: float = 0.1,
        meta_split: Literal["train", "validation"] = "train",
        gradients: Literal["exact", "finite_difference"] = "exact",
        masks: Literal["replay", "fresh"] = "replay",
        inner: str | None = None,
        inner_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_tasks, inner, inner_options)
        if masks == "fresh" and gradients == "exact":
            words = 'without gradients = "finite_difference"; exact ones take no second look.'
            raise BadOption(f'auto_lambda: masks = "fresh" {words}')
        self.lr_ratio, self.meta_split, self.gradients, self.masks = lr_ratio, meta_split, gradients, masks
        self.needs = (*AutoLambda.needs, *(["trainer"] if gradients == "finite_difference" else []))
        self.replay = self.replay or (gradients == "finite_difference" and masks == "replay")
        self.lr, self.weight_decay = 0.0, 0.0
        self.lambdas: Tensor = nn.Buffer(torch.full((num_tasks,), start))
        self.optimizer = VectorAdam(num_tasks, lr=0.0)

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.lr, self.weight_decay = info.lr, info.weight_decay
        self.optimizer.lr = self.lr_ratio * info.lr

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        super().begin_epoch(epoch, mean_losses, lr)
        self.lr = lr

    def virtual(self, step: Step) -> dict[nn.Parameter, Tensor]:
        """θ': every parameter after one step of gradient descent on Σ_k λ_k L_k."""
        lambdas = self.lambdas.to(step.losses)
        gradients = dict(zip(step.shared, step.unflatten(lambdas.to(step.jacobian) @ step.jacobian), strict=True))
        for weight, head in zip(lambdas, step.head_gradients, strict=True):
            gradients |= {p: gradients[p] + weight * g if p in gradients else weight * g for p, g in head.items()}
        with torch.no_grad():
            return {p: (p - self.lr * (g + self.weight_decay * p)).to(p) for p, g in gradients.items()}

    def slopes(self, step: Step, v: dict[nn.Parameter, Tensor]) -> Tensor:
        """⟨∇L_k, v⟩ [K], exactly or by a central difference along v."""
        if self.gradients == "finite_difference":
            epsilon: Tensor = 0.01 / torch.stack([x.norm() for x in v.values()]).norm().clamp(min=1e-12)
            ahead, behind = (
                step.reevaluate({p: p + s * epsilon * x for p, x in v.items()}, fresh=self.masks == "fresh")
                for s in (1, -1)
            )
            return (ahead - behind) / (2 * epsilon)
        slopes = (step.jacobian.conj() @ step.flatten([v[p] for p in step.shared])).real
        for k, head in enumerate(step.head_gradients):
            for p, gradient in head.items():
                slopes[k] += (gradient.conj() * v[p]).sum().real
        return slopes

    def backward(self, step: Step) -> StepResult:
        if step.second_batch is None:
            raise RuntimeError("auto_lambda needs a second batch in every step: make the Step with second_batch=….")
        v = step.elsewhere(self.virtual(step), step.second_batch())
        self.optimizer.step(self.lambdas, -self.lr * self.slopes(step, v))
        lambdas = self.lambdas.to(step.losses, copy=True)
        if self.inner is None:
            step.apply(lambdas, lambdas)
            return StepResult(lambdas, lambdas)
        if self.inner.positive_losses and lambdas.device.type == "cpu" and lambdas.min() <= 0:
            words = "needs positive losses λ_k L_k. Take a smaller lr_ratio or an inner method that reads no losses."
            raise ValueError(f"auto_lambda: λ has become {lambdas.tolist()}, and the inner {self.inner.key} {words}")
        result = self.inner.backward(ScaledStep(step, lambdas))
        result.weights = result.weights.to(lambdas) * lambdas  # on the losses themselves
        result.head_weights = result.head_weights.to(lambdas) * lambdas
        return result

    def after_step(self, step: Step) -> None:
        super().after_step(step if self.inner is None else ScaledStep(step, self.lambdas))
