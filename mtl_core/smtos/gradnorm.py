"""GradNorm: learn the weights so that all tasks train at the same relative rate, judged by gradient norms on one layer.

    n_k = |∂L_k/∂W|, W the weight of the last shared layer         G_k = w_k n_k         Ḡ = mean_k G_k
    r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0))                    (> 1: this task lags behind)
    w learns to minimise Σ_k |G_k − Ḡ r_k^α|, the targets held fixed:   ∂/∂w_k = sign(G_k − Ḡ r_k^α) n_k
    Adam on w, then w ← K w / Σ_j w_j

At α = 0 it comes to rest where all w_k n_k are equal.

Source: Chen, Badrinarayanan, Lee, Rabinovich 2018, arXiv:1711.02257. Only parts of the text could be consulted: α =
1.5 and the form above are from it; the step size 0.025 and Adam are a common choice.
Differs:
1. L_k(0) is the loss of the first step, as in the source's text; `start="first_epoch"` takes the mean over the first
   epoch, with w = 1 until then, as LibMTL does. (The source also allows log C for the cross-entropy over C classes.)
2. The model's step uses w from before its update, as both gradients come from the same w in the source. LibMTL learns
   the logits of a softmax instead, by the main optimizer and with the norms on all shared parameters.
3. A large step can make a weight negative: weights are kept above 1e-6 before they are brought to sum K.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.adam import VectorAdam
from mtl_core.smtos.base import SMTO, StepResult, floored, register
from mtl_core.step import MultiTaskModel, Step


@register
class GradNorm(SMTO):
    """Options:
    alpha: strength of the pull towards equal training rates; 0 asks for equal gradient norms.
    w_lr: learning rate of the weights.
    start: losses that count as L(0), those of the "first_step" or the mean of the "first_epoch".
    """

    key = "gradnorm"
    space = "losses and gradient norms on the last shared layer"
    native_scale = "weights sum to K"
    remembered = ("begun",)

    def __init__(
        self,
        num_tasks: int,
        alpha: Annotated[float, Field(ge=0)] = 1.5,
        w_lr: Annotated[float, Field(gt=0)] = 0.025,
        start: Literal["first_step", "first_epoch"] = "first_step",
    ) -> None:
        super().__init__(num_tasks)
        self.alpha, self.start = alpha, start
        self.needs = ("begin_epoch",) if start == "first_epoch" else ("every_task",)
        self.begun = False  # whether L(0) is known
        self.w: Tensor = nn.Buffer(torch.ones(num_tasks))
        self.initial: Tensor = nn.Buffer(torch.ones(num_tasks))
        self.optimizer = VectorAdam(num_tasks, lr=w_lr)

    def check_model(self, model: MultiTaskModel) -> None:
        last_matrix([p for p in model.encoder.parameters() if p.requires_grad])

    def begin(self, losses: Tensor) -> None:
        """From now on `losses` [K] are L(0)."""
        self.initial.copy_(losses)
        self.begun = True

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        if self.start == "first_epoch" and not self.begun and mean_losses is not None:
            self.begin(self.floored_means(mean_losses))

    def weight_gradient(self, norms: Tensor, losses: Tensor) -> Tensor:
        """Gradient norms n and losses [K] to the gradient on w [K]."""
        scaled = self.w * norms
        rates = losses / self.initial
        target = scaled.mean() * (rates / rates.mean()) ** self.alpha
        return (scaled - target).sign() * norms

    def backward(self, step: Step) -> StepResult:
        losses, met = floored(self.key, step.losses, self.floor)
        flags = tuple(dict.fromkeys(self.take_pending() + met))
        if not self.begun and self.start == "first_step":
            self.begin(losses)
        weights = self.w.to(step.losses, copy=True)
        if self.begun:
            matrix = last_matrix(step.shared)
            if matrix not in getattr(step, "reached", {matrix}):
                words = "no loss reaches it. Leave out of the shared parameters what no task uses."
                raise BadOption(f"gradnorm: the last matrix of the shared part is {list(matrix.shape)}, and {words}")
            norms = step.gradients_on(matrix).norm(dim=1)
            self.optimizer.step(self.w, self.weight_gradient(norms.to(self.w), losses.to(self.w)))
            self.w.clamp_(min=1e-6).mul_(self.num_tasks / self.w.sum())
        step.apply(weights, weights)
        return StepResult(weights, weights, flags=flags)


def last_matrix(shared: Sequence[nn.Parameter]) -> nn.Parameter:
    """The last of the encoder's trainable parameters that is a weight, not a bias or a scale.

    Raises:
        BadOption: there is none.
    """
    for parameter in reversed(shared):
        if parameter.dim() > 1:
            return parameter
    shapes = [tuple(p.shape) for p in shared]
    raise BadOption(
        "gradnorm judges gradients on the weight of the last shared layer, a trainable parameter of the encoder with "
        f"two dimensions or more. This encoder's trainable parameters have the shapes {shapes}; give it a linear or a "
        "convolutional layer that is not frozen, or take another SMTO."
    )
