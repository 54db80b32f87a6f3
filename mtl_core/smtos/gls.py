"""GLS: the geometric mean of the losses, in which the unit of a loss is no more than a common factor.

    minimise (Π_k L_k)^(1/K)                           w_k = (Π_j L_j)^(1/K) / (K L_k)

The direction on the shared parameters is that of SI, which minimises the logarithm. Its length is not: the step gets
shorter as the losses fall.

Source: Chennupati, Sistu, Yogamani, Rawashdeh 2019, "MultiNet++: multi-stream feature aggregation and geometric loss
strategy for multi-task learning", arXiv:1904.08492.
Differs:
1. The source can raise some losses to a power ("focused" losses); that is not offered.
2. Public code multiplies the K losses first, which leaves the range of floating-point numbers for many tasks. Here the
   mean of the logarithms is taken. The weights that LibMTL reports, L_k / (K Π L), are not those that it applies.
3. No code guards a loss of 0. Here it counts as 1e-12, with the flag "floored_loss"; a negative loss is an error.
"""

from torch import Tensor

from mtl_core.smtos.base import LossWeighting, register


@register
class GLS(LossWeighting):
    key = "gls"
    native_scale = "geometric mean of the losses times the mean of g_k / L_k"
    positive_losses = True

    def weights(self, losses: Tensor) -> Tensor:
        """Positive losses [K] to their geometric mean over K L, > 0."""
        return losses.log().mean().exp() / (self.num_tasks * losses)
