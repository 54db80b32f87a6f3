"""RotoGrad: rotate what each head sees, so that the heads ask the encoder for the same direction; scale, so that they
ask equally loudly.

    head k sees R_k z, with R_k a rotation that the loss of head k does not move
    G_k = ∂L_k/∂z over the whole batch       v = m · mean_k G_k/|G_k|,  m = |mean_k G_k|
    R_k learns to minimise (1/B) Σ_n |R_k v_n − ∂L_k/∂(R_k z_n)|²
    w_k = C / |G_k|,  C = Σ_k α_k |G_k|,  α_k ∝ |G_k| / |G_k at the start|          direction on z = Σ_k w_k G_k

R_k = Q_k exp(A_k − A_kᵀ), and what is learnt of A_k is the triangle below the diagonal (0 at the start; the rest stays
0), as in the authors' package. Were all of A_k learnt, R_k would turn twice as fast at the same rate. As R_k keeps
lengths, the rotation loss is const − (2/B) tr(R_kᵀ M_k) with M_k = Σ_n ∂L_k/∂(R_k z_n) v_nᵀ: its gradient on R_k is
−(2/B) M_k, and only the exponential is differentiated.

Source: Javaloy and Valera 2022, arXiv:2103.02631 (scaling and rotation, as in the authors' package since 0.1.5).
Differs:
1. Q is the identity. The authors' package asks for that too, but the geometry library below it puts a random rotation
   in its place, uniform on SO(m), and so did the main paper's runs: `start="haar"`.
2. The rotation loss is the mean over the batch. Release 0.1.6 of the package sums it over the batch for feature vectors
   and takes the mean for feature maps: `reduction="package"`. The two losses differ by a factor B, in the log as well.
   Adam takes the same steps with both, the ε below its root aside; plain gradient descent turns B times as far.
3. The rotations never decay: the weight decay of their group is 0. (The released code of the main paper drops the
   weight decay of all other parameters as well, D13; that is the trainer's business.)
4. Where a map has height and width, one rotation turns the channels at every position, as in the package. `size`
   rotates the first channels only; the default is all of them.
5. With an `inner` SMTO the rotations stay as they are and the inner method's update replaces the scaled sum.
6. A task without a gradient at the start (its targets are missing in that batch) starts where it first has one. The
   package takes 1e-15 for its length.
"""

import itertools
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.base import ProblemInfo, StepResult, register
from mtl_core.smtos.wrapping import Wrapping
from mtl_core.step import Step, without_autocast


def exponential(skew: Tensor) -> Tensor:
    """exp of skew-symmetric matrices [K, m, m]: halve to norm ½, take the Taylor terms that precision asks for, square.

    Automatic differentiation of these few products costs a tenth of torch.matrix_exp's, whose derivative works on
    matrices of twice the size.
    """
    norm = float(skew.detach().norm(dim=(1, 2)).max()) / 2**0.5  # bounds the spectral norm
    if not math.isfinite(norm):
        return skew * math.nan
    squarings = max(0, math.ceil(math.log2(2 * norm))) if norm > 0 else 0
    small, norm = skew / 2**squarings, norm / 2**squarings
    terms = next(j for j in itertools.count(1) if norm**j / math.factorial(j) < torch.finfo(skew.dtype).eps)
    eye = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    result: Tensor = eye + small / terms
    for j in range(terms - 1, 0, -1):
        result = torch.baddbmm(eye, small, result, alpha=1 / j)
    for _ in range(squarings):
        result = result @ result
    return result


@register
class RotoGrad(Wrapping):
    """Options:
    lr_ratio: learning rate of the rotations over that of the model; the theory wants them slower.
    size: number of features (channels) that are rotated, from the first; all by default.
    burn_in: the step at which "the start" is measured again.
    start: Q, the "identity" or uniformly random ("haar").
    reduction: of the rotation loss over the batch.
    """

    key = "rotograd"
    code_version = 2
    space = "features"
    head_policy = "plain"
    native_scale = "K unit vectors times one common length"
    remembered = ("steps",)
    needs = ("lr", "feature_shape", "parameters", "transform")
    not_inside = ("rotograd", "auto_lambda", "bayesagg_mtl")

    def __init__(
        self,
        num_tasks: int,
        lr_ratio: Annotated[float, Field(gt=0)] = 0.1,
        size: Annotated[int, Field(ge=1)] | None = None,
        burn_in: Annotated[int, Field(ge=0)] = 20,
        start: Literal["identity", "haar"] = "identity",
        reduction: Literal["mean", "package"] = "mean",
        inner: str | None = None,
        inner_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_tasks, inner, inner_options)
        self.lr_ratio, self.size, self.burn_in, self.start, self.reduction = lr_ratio, size, burn_in, start, reduction
        self.steps = 0
        self.angles = nn.Parameter(torch.zeros(num_tasks, 0, 0))  # A, below the diagonal; sized by set_up
        self.base: Tensor = nn.Buffer(torch.zeros(num_tasks, 0, 0))  # Q
        self.norms_at_start: Tensor = nn.Buffer(torch.ones(num_tasks))
        self._rotations: Tensor | None = None
        self._moved = 0  # the version of the angles that they were computed from

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.channels = info.feature_shape[0]
        size = self.channels if self.size is None else self.size
        if size > self.channels:
            raise BadOption(f"rotograd: size is {size}, but the representation has {self.channels} features.")
        self.angles = nn.Parameter(torch.zeros(self.num_tasks, size, size))
        drawn, eye = self.start == "haar", torch.eye(size, dtype=torch.float64)
        self.base = torch.stack([haar(size, self.generator) if drawn else eye for _ in range(self.num_tasks)])
        self._rotations = None

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self._rotations = None

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        rotations = {"params": [self.angles], "lr": self.lr_ratio * lr, "weight_decay": 0.0}
        return [rotations, *super().parameter_groups(lr)]

    def rotations(self, k: int | None = None) -> Tensor:
        """R [K, m, m], or that of task k alone [1, m, m]."""
        tasks = slice(None) if k is None else slice(k, k + 1)
        angles = self.angles[tasks].tril(-1)
        with without_autocast(angles.device):
            return self.base[tasks].to(angles) @ exponential(angles - angles.mT)

    def transform_features(self, z: Tensor, k: int) -> Tensor:
        """R_k z. In training the rotations are kept until `backward` has used them, or the optimizer moved them."""
        if z.shape[1:2] != (self.channels,):
            raise BadOption(f"rotograd: features {[*z.shape]}: axis 1 must have the {self.channels} of feature_shape.")
        if self._moved != self.angles._version:
            self._rotations, self._moved = None, self.angles._version
        if self._rotations is None and torch.is_grad_enabled():
            self._rotations = self.rotations()
        rotation = self.rotations(k)[0] if self._rotations is None else self._rotations[k]
        return self.rotated(super().transform_features(z, k), rotation.detach().to(z))

    def rotated(self, z: Tensor, rotation: Tensor) -> Tensor:
        """Features [B, C, …] with the first m channels rotated."""
        size = len(rotation)
        turned = nn.functional.linear(z[:, :size].movedim(1, -1), rotation).movedim(-1, 1)
        return turned if size == z.shape[1] else torch.cat([turned, z[:, size:]], dim=1)

    def scaling(self, norms: Tensor) -> Tensor:
        """Norms of the task gradients on z [K] to weights that give every task the same length C."""
        growth = torch.where(self.norms_at_start > 0, norms / self.norms_at_start, 0)
        common = (growth / growth.sum()) @ norms
        return torch.where(norms > 0, common / norms, 0)

    def backward(self, step: Step) -> StepResult:
        gradients = step.feature_gradients
        norms = gradients.flatten(1).norm(dim=1)
        if self.steps in (0, self.burn_in):
            self.norms_at_start = norms
        else:  # a task without a gradient there starts where it first has one
            self.norms_at_start = torch.where(self.norms_at_start > 0, self.norms_at_start, norms)
        self.steps += 1
        if self.inner is None:
            weights = self.scaling(norms)
            step.apply(weights)
            result = StepResult(weights, torch.ones_like(weights))
        else:
            result = self.inner.backward(step)
        losses = self.turn(gradients, self.target(gradients, norms))
        result.diagnostics |= {"rotation_loss": losses.mean(), "rotation_loss_sum": losses.sum()}
        return result

    def target(self, gradients: Tensor, norms: Tensor) -> Tensor:
        """Task gradients on z [K, B, …] and their norms [K] to v [B, …]: the mean of the gradients, each brought to the
        length of the plain mean."""
        scales = gradients.flatten(1).mean(0).norm() / norms.clamp(min=1e-15) / self.num_tasks
        v: Tensor = torch.tensordot(scales, gradients, 1)
        return v

    def turn(self, gradients: Tensor, target: Tensor) -> Tensor:
        """Put the gradient of the rotation losses on A: task gradients on z [K, B, …] and v [B, …] to losses [K]."""
        rotations = self.rotations() if self._rotations is None else self._rotations
        self._rotations = None
        size, batch = rotations.shape[1], gradients.shape[1]
        per = batch if self.reduction == "mean" or gradients.dim() > 3 else 1
        rows = gradients[:, :, :size].movedim(2, -1).flatten(1, -2)  # R_kᵀ ∂L_k/∂(R_k z), at every sample [K, …, m]
        target = target[:, :size].movedim(1, -1).flatten(0, -2)  # v […, m]
        products = (rows.mT @ target).to(rotations)  # R_kᵀ M_k
        (self.angles.grad,) = torch.autograd.grad(rotations, self.angles, -2 / per * (rotations.detach() @ products))
        inner = products.diagonal(dim1=1, dim2=2).sum(1)
        losses: Tensor = (target.square().sum() + rows.square().sum((1, 2)) - 2 * inner) / per
        return losses


def haar(size: int, generator: torch.Generator) -> Tensor:
    """A rotation [m, m], uniformly distributed on SO(m), float64."""
    q: Tensor = nn.init.orthogonal_(torch.empty(size, size, dtype=torch.float64), generator=generator)
    q[:, 0] *= torch.linalg.det(q).sign()
    return q
