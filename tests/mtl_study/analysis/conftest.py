import pytest

from mtl_core import problems
from mtl_study.analysis import delta


@pytest.fixture
def baselines(make_run):
    """CL: accuracy 0.8 on validation and test; RR: mse 0.5."""
    singles = [make_run([{"CL": 0.8}], problem="p/CL"), make_run([{"RR": 0.5}], problem="p/RR")]
    return delta.single_task_baselines(singles, problems.get("multimnist/CL_RR").tasks)
