"""Mean cosines of a Gramian's gradients, against the definitions."""

import math

import numpy as np
import pytest

from mtl_study.cosines import cosine_to_mean, pairwise_cosine


def test_cosine_to_mean_is_its_definition_on_random_gradients():
    gradients = np.random.default_rng(0).normal(size=(5, 20)) * [[1], [10], [0.1], [1], [3]]
    mean = gradients.mean(axis=0)
    expected = np.mean([g @ mean / (np.linalg.norm(g) * np.linalg.norm(mean)) for g in gradients])
    assert cosine_to_mean(gradients @ gradients.T) == pytest.approx(expected)


def test_unequal_lengths_lower_the_cosine_without_any_conflict():
    """Two orthogonal gradients: from 0.71 at equal length towards ½ as one grows."""
    values = [cosine_to_mean(np.diag([1.0, ratio**2])) for ratio in [1, 3, 10, 1000]]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.5**0.5) and values[-1] == pytest.approx(0.5, abs=1e-3)


def test_cosines_with_a_zero_gradient_or_a_zero_mean_are_nan():
    assert math.isnan(cosine_to_mean(np.diag([1.0, 0.0])))
    assert math.isnan(pairwise_cosine(np.diag([1.0, 0.0])))
    assert math.isnan(cosine_to_mean(np.array([[1.0, -1.0], [-1.0, 1.0]])))
