"""UPGrad: the mean of the task gradients, each first turned as little as needed to hurt no task.

    update = (1/K) Σ_i π(g_i),   π: projection on the dual cone {d: g_k·d ≥ 0 for all k}

For two tasks it is PCGrad; for more, unlike PCGrad, no task gets worse.

Source: Quinton, Rey 2024, "Jacobian descent for multi-objective optimization", arXiv:2406.16232.
Differs:
1. The source's library divides G by its trace, takes it for zero below a trace of 1e-4 (the update is then the plain
   mean), and adds 1e-4 to the diagonal. Both depend on the scale of the gradients. Here the problem is solved for unit
   gradients, which is the same problem, and `reg`, added to the diagonal of their cosines, is 1e-8; 0 is allowed.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from mtl_core.smtos.base import GramianWeighting, register
from mtl_core.smtos.solvers import dual_cone_projection


@register
class UPGrad(GramianWeighting):
    """Options:
    reg: added to the diagonal of the cosines; it makes the weights unique where gradients are dependent.
    """

    key = "upgrad"
    native_scale = "mean of the gradients, or less"
    averages = True

    def __init__(self, num_tasks: int, reg: Annotated[float, Field(ge=0)] = 1e-8) -> None:
        super().__init__(num_tasks)
        self.reg = reg

    def weights(self, gramian: np.ndarray) -> np.ndarray:
        """Gramian of the task gradients [K, K] to task weights [K], ≥ 1/K."""
        return self.record(dual_cone_projection(gramian, self.reg))
