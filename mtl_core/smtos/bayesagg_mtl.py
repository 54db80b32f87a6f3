"""BayesAgg-MTL: how sure is each task of its gradient? Average the feature gradients, entry by entry, by precision.

The last layer of head k, W_k, gets a Gaussian posterior; through it the gradient of sample n on its features is
random:
    squared error, mean over D outputs: g = (2/D) Σ_d w_d (w_dᵀh − y_d)      cross-entropy: g = Wᵀ(softmax(Wh) − onehot)
    μ_nk, s²_nk = mean and variance of g, entry by entry
    direction on z_n = (1/B) Σ_k μ_nk s_nk^(−2s) / Σ_k s_nk^(−2s)

Posterior: precision Λ = I/γ + Σ H, mean Λ⁻¹ Σ b, where a batch adds, for squared error, H = hᵀh and b = hᵀy, and for
cross-entropy the second-order expansion around the present W, H = Gauss-Newton matrix, b = H W − ∇. Squared error has
closed moments with Λ⁻¹ = S, residual a = mᵀh − y, v = hᵀSh, c = Sh, for one output:
    mean 2(m a + c)            variance 4(S_ii a² + m_i² v + S_ii v + 2 m_i a c_i + c_i²)
cross-entropy takes them from samples of W.

Source: Achituve, Diamant, Netzer, Chechik, Fetaya 2024, arXiv:2402.04005. The text was not at hand in full when this
page was written; posterior, moments and aggregation follow its released code, the constants that code's UTKFace
experiment.
Differs:
1. As in the released code, an epoch's features are collected while it is trained and serve in the next one, without a
   further pass; a batch comes on top. That code keeps the features and takes their evidence at the start of the next
   epoch, here it is added up batch by batch: for squared error the same in less memory; for cross-entropy each batch is
   expanded around the weights of its own step, there all are around those at the start of the next epoch.
2. The released code contracts fourth-order moments; the closed form above is the same at a fraction of the cost.
3. There every output of a regression counts as a task of its own in the average, and a regression has no bias. Here a
   task counts once, however many outputs it has, and a bias is part of W (a feature that is always 1), as it is in the
   released code for classification.
4. As in the source, z must be what the last layers take in: every head is one linear layer, perhaps followed by
   modules without parameters that belong to the loss (log-softmax, a change of shape). Anything else, or an absolute
   error, is refused.
5. During the warm-up the update is the mean of the task gradients; in the released code it is their sum.
6. The released UTKFace experiment evaluates the regression with the posterior mean over the last epoch's features, in
   place of the weights that were trained, which moves its metric. It also clips gradients: at length 10 on the heads,
   and, after the warm-up, at 5 on the encoder. Here the trained weights are evaluated, and nothing is clipped.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mtl_core.options import BadOption
from mtl_core.smtos.base import SMTO, ProblemInfo, StepResult, register
from mtl_core.step import MultiTaskModel, Step, in_float64
from mtl_core.tasks import Likelihood

Evidence = tuple[Tensor, Tensor]


@register
class BayesAggMTL(SMTO):
    """Options:
    gamma: variance of the prior of every weight of a last layer.
    power: s, how much the precision counts; 0.3 for squared error and 0.1 for cross-entropy by default.
    warm_up: epochs of plain averaging, at the start.
    samples: drawn of a last layer, for cross-entropy.
    """

    key = "bayesagg_mtl"
    space = "features and last layers"
    head_policy = "plain"
    native_scale = "weighted mean of the feature gradients"
    remembered = ("epoch", "evidence", "collected")
    needs = ("likelihoods", "feature_shape", "heads", "begin_epoch", "targets")

    def __init__(
        self,
        num_tasks: int,
        gamma: Annotated[float, Field(gt=0)] = 0.005,
        power: Annotated[float, Field(ge=0)] | None = None,
        warm_up: Annotated[int, Field(ge=0)] = 10,
        samples: Annotated[int, Field(ge=2)] = 512,
    ) -> None:
        super().__init__(num_tasks)
        self.gamma, self.power, self.warm_up, self.samples = gamma, power, warm_up, samples
        self.likelihoods: tuple[Likelihood, ...] = ()
        self.epoch = 0
        self.evidence: dict[int, Evidence] = {}  # of the last epoch, per task
        self.collected: dict[int, Evidence] = {}  # in this one so far

    def set_up(self, info: ProblemInfo, seed: int) -> None:
        super().set_up(info, seed)
        self.likelihoods = info.likelihoods
        if "laplace" in self.likelihoods:
            words = "has an absolute error; this method knows squared error and cross-entropy only."
            raise BadOption(f"bayesagg_mtl: task {self.likelihoods.index('laplace')} {words}")
        if len(info.feature_shape) != 1:
            words = "it must be a vector of features that every head's one linear layer takes in."
            raise BadOption(f"bayesagg_mtl: the representation has shape {info.feature_shape}; {words}")

    def begin_epoch(self, epoch: int, mean_losses: Tensor | None, lr: float) -> None:
        self.epoch = epoch
        self.evidence, self.collected = self.collected, {}

    def check_model(self, model: MultiTaskModel) -> None:
        for name, head in model.heads.items():
            last_layer(name, head)

    def backward(self, step: Step) -> StepResult:
        heads = [last_layer(name, head) for name, head in step.model.heads.items()]
        step.feature_gradients  # fills the heads' gradients  # noqa: B018
        warm = self.epoch >= self.warm_up
        means, precisions = [], []
        for k, (layer, y) in enumerate(zip(heads, step.targets, strict=True)):
            classes = self.likelihoods[k] == "softmax"
            if y.shape[:1] != step.z.shape[:1] or (classes and y.is_floating_point()):
                words = f"expected {'a class (integer)' if classes else 'a number'} for each of {len(step.z)} samples."
                raise ValueError(f"bayesagg_mtl: the targets of task {k} are {y.dtype} {list(y.shape)}; {words}")
            h, w = with_bias(in_float64(step.z), layer)
            if not warm and self.epoch < self.warm_up - 1:
                continue  # nothing collected now would be used
            evidence = softmax_evidence(h, w, y) if classes else square_evidence(h, y)
            self.collected[k] = add(self.collected.get(k), evidence)
            if warm:
                mean, variance = self.moments(k, h, w, y, add(self.evidence.get(k), evidence))
                means.append(mean[:, : layer.in_features])
                precisions.append(variance[:, : layer.in_features].clamp(min=1e-8) ** -self.exponent(k))
        if not warm:
            weights = torch.full_like(step.losses, 1 / self.num_tasks)
            step.apply(weights)
        else:
            mean, precision = torch.stack(means), torch.stack(precisions)
            direction = (mean * precision).sum(0) / precision.sum(0) / len(step.z)
            step.apply_features(direction.to(step.z))
            weights = torch.full_like(step.losses, torch.nan)
        return StepResult(weights, torch.ones_like(step.losses))

    def exponent(self, k: int) -> float:
        return self.power if self.power is not None else (0.1 if self.likelihoods[k] == "softmax" else 0.3)

    def moments(self, k: int, h: Tensor, w: Tensor, target: Tensor, evidence: Evidence) -> Evidence:
        """Mean and variance of the gradient on every sample's features, [B, m] each."""
        precision, linear = evidence
        eye = torch.eye(len(precision), device=precision.device).to(precision)
        factor = torch.linalg.cholesky(precision + eye / self.gamma)
        mean = torch.cholesky_solve(linear, factor)
        if self.likelihoods[k] == "softmax":
            noise = torch.randn(len(mean), self.samples, generator=self.generator).to(mean, non_blocking=True)
            drawn = mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True)
            return softmax_moments(h, drawn.T.reshape(self.samples, *w.shape), target)
        return square_moments(h, mean, torch.cholesky_inverse(factor), outputs(target))


def last_layer(name: str, head: nn.Module) -> nn.Linear:
    """The one linear layer of a head. Raises BadOption if the head has parameters of anything else."""
    owners = [module for module in head.modules() if any(True for _ in module.parameters(recurse=False))]
    if len(owners) != 1 or not isinstance(owners[0], nn.Linear):
        held = ", ".join(type(m).__name__ for m in owners) or "no parameters"
        words = "this method needs every head to be one linear layer on the representation."
        raise BadOption(f"bayesagg_mtl: head {name!r} holds {held}; {words}")
    return owners[0]


def with_bias(z: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Features [B, m] and weights [C, m] of a last layer, with a feature of ones and the bias where it has one."""
    w = in_float64(layer.weight.detach())
    if layer.bias is None:
        return z, w
    return torch.cat([z, torch.ones_like(z[:, :1])], 1), torch.cat([w, in_float64(layer.bias.detach())[:, None]], 1)


def add(a: Evidence | None, b: Evidence) -> Evidence:
    return b if a is None else (a[0] + b[0], a[1] + b[1])


def outputs(target: Tensor) -> Tensor:
    """Targets of a regression [B, …] as [B, D]."""
    return in_float64(target).reshape(len(target), -1)


def square_evidence(h: Tensor, target: Tensor) -> Evidence:
    """Features [B, m] and targets to H [m, m] and b [m, D]."""
    return h.T @ h, h.T @ outputs(target)


def square_moments(h: Tensor, m: Tensor, s: Tensor, y: Tensor) -> Evidence:
    """Features [B, m], posterior means [m, D] and covariance [m, m], targets [B, D] to mean and variance of the
    gradient of every sample's mean squared error on its features, [B, m] each."""
    count = y.shape[1]
    a = h @ m - y
    c = h @ s
    v = (h * c).sum(1, keepdim=True)
    ma = a @ m.T  # Σ_d m_d a_d
    diagonal = s.diagonal()
    spread = a.square().sum(1, keepdim=True) + count * v
    variance = diagonal * spread + m.square().sum(1) * v + 2 * ma * c + count * c.square()
    return 2 / count * (ma + count * c), 4 / count**2 * variance


def softmax_evidence(h: Tensor, w: Tensor, target: Tensor) -> Evidence:
    """Features [B, m], present weights [C, m] and classes [B] to H [Cm, Cm] and b [Cm, 1]."""
    p = (h @ w.T).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]  # [B, C, C]
    hessian = torch.einsum("bcd,bi,bj->cidj", curvature, h, h).reshape(w.numel(), w.numel())
    gradient = (p - in_float64(nn.functional.one_hot(target, len(w)))).T @ h
    return hessian, hessian @ w.reshape(-1, 1) - gradient.reshape(-1, 1)


def softmax_moments(h: Tensor, drawn: Tensor, target: Tensor) -> Evidence:
    """Features [B, m], sampled weights [S, C, m] and classes [B] to mean and variance of the gradient of every
    sample's cross-entropy on its features, [B, m] each."""
    hot = in_float64(nn.functional.one_hot(target, drawn.shape[1]))
    total, squares = torch.zeros_like(h), torch.zeros_like(h)
    for part in drawn.split(64):
        gradients = ((h @ part.mT).softmax(2) - hot) @ part  # [64, B, m]
        total += gradients.sum(0)
        squares += gradients.square().sum(0)
    mean = total / len(drawn)
    return mean, (squares / len(drawn) - mean.square()).clamp(min=0) * (len(drawn) / (len(drawn) - 1))
