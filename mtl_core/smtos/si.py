"""SI: the mean of the logarithms of the losses, so that the unit in which a loss is measured does not matter.

    minimise (1/K) Σ_k log L_k                         w_k = 1 / (K L_k)

Source: a baseline of Navon et al. 2022, arXiv:2202.01017.
Differs:
1. The source sums the logarithms; the released code of the main paper takes their mean (D23). The mean is the default;
   `scale="sum"` is the sum.
2. Neither code guards a loss of 0. Here it counts as 1e-12, with the flag "floored_loss"; a negative loss is an error.
"""

from typing import Literal

from torch import Tensor

from mtl_core.smtos.base import LossWeighting, register


@register
class SI(LossWeighting):
    """Options:
    scale: "mean" of the logarithms, or their "sum".
    """

    key = "si"
    native_scale = "mean of g_k / L_k"
    positive_losses = True

    def __init__(self, num_tasks: int, scale: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(num_tasks)
        self.scale = scale

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to 1 / (K L), > 0."""
        return losses.reciprocal() / (self.num_tasks if self.scale == "mean" else 1)
