"""The paper's LeNet."""

import pytest
import torch

from mtl_core import problems
from mtl_core.models import lenet
from mtl_core.models.lenet import count_parameters


def test_parameter_counts():
    """Encoder 21,330, classification head 3,060, reconstruction head 214,544."""
    assert count_parameters(lenet.Encoder()) == 21_330
    assert count_parameters(lenet.ClassificationHead()) == 3_060
    assert count_parameters(lenet.ReconstructionHead()) == 214_544


@pytest.mark.parametrize("name", [name for name in problems.PROBLEMS if name.startswith("multimnist/")])
def test_shapes(name):
    """Log-probabilities [B, 10] that sum to one, images [B, 28, 28], features [B, 50] that are not negative."""
    problem = problems.get(name)
    model = problem.build_model(0.3)
    z = model.encoder(torch.randn(5, 1, 28, 28))
    assert z.shape == (5, *problem.feature_shape) and (z >= 0).all()
    for task, head in zip(problem.tasks, model.heads.values(), strict=True):
        prediction = head(z)
        if task.likelihood == "softmax":
            torch.testing.assert_close(prediction.exp().sum(1), torch.ones(5))
        else:
            assert prediction.shape == (5, 28, 28)


def test_one_dropout_probability_everywhere():
    """Encoder and heads drop with the same probability."""
    model = problems.get("multimnist/CL_RR").build_model(0.4)
    dropouts = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    assert len(dropouts) == 3 and all(m.p == 0.4 for m in dropouts)


def test_unknown_problem_names_the_nearest():
    with pytest.raises(problems.UnknownProblem, match="did you mean 'multimnist/CL_RR'"):
        problems.get("multimnist/CLRR")
