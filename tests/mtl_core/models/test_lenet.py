"""The paper's LeNet."""

import pytest
import torch

from mtl_core import problems
from mtl_core.models import lenet


def test_parameter_counts(count_parameters):
    """Encoder 21,330, classification head 3,060, reconstruction head 214,544."""
    assert count_parameters(lenet.Encoder()) == 21_330
    assert count_parameters(lenet.ClassificationHead()) == 3_060
    assert count_parameters(lenet.ReconstructionHead()) == 214_544


@pytest.mark.parametrize(
    ("width", "encoder", "classifier", "decoder"),
    [
        # conv 1→20, conv 20→40, linear 640→100; linear 100→100, 100→10; linear 100→512, 512→784
        (2, 20 * 26 + 40 * 501 + 100 * 641, 100 * 101 + 10 * 101, 512 * 101 + 784 * 513),
        # conv 1→14, conv 14→28, linear 448→70; linear 70→70, 70→10; linear 70→358 (of 358.4), 358→784
        (1.4, 14 * 26 + 28 * 351 + 70 * 449, 70 * 71 + 10 * 71, 358 * 71 + 784 * 359),
    ],
)
def test_parameter_counts_at_other_widths(count_parameters, width, encoder, classifier, decoder):
    assert count_parameters(lenet.Encoder(width=width)) == encoder
    assert count_parameters(lenet.ClassificationHead(width=width)) == classifier
    assert count_parameters(lenet.ReconstructionHead(width=width)) == decoder


def test_width_one_is_the_paper_network_bit_for_bit():
    """The same weights from the same seed, whether width is named or not."""
    models = []
    for options in ({}, {"width": 1}, {"width": 1.0}):
        torch.manual_seed(3)
        models.append(problems.get("multimnist/CL_RR", **options).build_model(0.1).state_dict())
    for other in models[1:]:
        assert all(torch.equal(models[0][name], other[name]) for name in models[0])


@pytest.mark.parametrize("width", [1, 1.4, 2])
@pytest.mark.parametrize("name", [name for name in problems.PROBLEMS if name.startswith("multimnist/")])
def test_shapes(name, width):
    """Log-probabilities [B, 10] that sum to one, images [B, 28, 28], features [B, 50·width] that are not negative."""
    problem = problems.get(name, width=width)
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
