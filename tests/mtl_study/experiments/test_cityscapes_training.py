"""Training on what folders in the wild hold: batches that lack a task's target, and the user's own Cityscapes."""

import numpy as np
import pytest
import torch
from PIL import Image

from mtl_core import problems
from mtl_core.datasets.cityscapes import IGNORED, list_folder, split_positions
from mtl_study import artifacts, parameters, streets
from mtl_study.experiments.runs import RunConfig
from mtl_study.experiments.training import train
from mtl_study.parameters import schemas

pytestmark = pytest.mark.training

LAST = "cityscapes/19C"
NINE = parameters.preset_values(artifacts.REPOSITORY / "params" / "paper" / "03_cityscapes_ladder.yaml")["all_methods"]
SIZES = (6, 2, 2)
SMALLEST = {"width": 16, "slim": 32}
UNKNOWN = 200  # a label id that Cityscapes does not have
ROAD = 7  # label id of a class without instances


@pytest.fixture(scope="module", autouse=True)
def data_elsewhere(tmp_path_factory):
    """Streets and arrays go to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_DATA", str(tmp_path_factory.mktemp("data")))
        yield


def fill(folder, scene, kind, value):
    """One value in all pixels of one map of one scene."""
    file = folder.file(scene, kind)
    Image.fromarray(np.full_like(np.asarray(Image.open(file)), value)).save(file)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory):
    """A folder whose first three batches under seed 1 have, in turn: label ids that nobody knows, no instance, no
    measured disparity. Its path, and the samples in each batch."""
    path = streets.write(tmp_path_factory.mktemp("gaps") / "streets", {"train": 8, "val": 2}, size=(64, 32))
    folder = list_folder(path)
    batches = torch.randperm(6, generator=torch.Generator().manual_seed(1)).split(2)
    positions = split_positions(len(folder.train), len(folder.val), SIZES)["train"]
    lacking = ((("labels", "instances"), UNKNOWN), (("labels", "instances"), ROAD), (("disparity",), 0))
    for samples, (kinds, value) in zip(batches, lacking, strict=True):
        for sample in samples:
            for kind in kinds:
                fill(folder, folder.train[positions[sample]], kind, value)
    return str(path), batches


def test_each_batch_lacks_what_it_is_meant_to_lack(gaps):
    path, batches = gaps
    data = problems.get(LAST, **SMALLEST).data.load("full", SIZES, path, torch.device("cpu"), torch.float32)["train"]
    present = []
    for samples in batches:
        _, (labels, disparity, offsets) = data.batch(samples, ("S", "D", "I"))
        present.append([bool((labels != IGNORED).any()), bool(disparity.any()), bool(offsets[:, 2].any())])
    assert present == [[False, True, False], [True, True, False], [True, False, True]]


@pytest.mark.parametrize("smto", NINE)
def test_batches_that_lack_a_target_train_like_others(gaps, smto):
    """One epoch is these three batches: every method finishes it, with finite losses and a model that can be used."""
    path, _ = gaps
    settings = {"source": "full", "problem_options": SMALLEST, "epochs": 2, "batch_size": 2, "lr": 1e-3, "seed": 1}
    settings |= zip(("train_size", "val_size", "test_size"), SIZES, strict=True)
    run = train(RunConfig.of(problem=LAST, smto=smto, **settings), "cpu", path)
    assert run.ended == "finished"
    for epoch in run.history:
        values = [value for split in (epoch.val, epoch.test) for task in split.values() for value in task.values()]
        assert None not in [*epoch.train_losses, *values] and min(epoch.train_losses) > 0


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_a_preset_on_the_users_own_folder(tmp_path, preset):
    """As in the README: another source, data_dir and store than the preset's, all else unchanged. The folder has as
    many scenes as smoke takes."""
    path = streets.write(tmp_path / "city", {"train": 24, "val": 8}, size=(128, 64))
    values = parameters.preset_values(artifacts.REPOSITORY / "params" / preset / "03_cityscapes_ladder.yaml")
    values |= {"source": "full", "data_dir": str(path), "store": "runs/cityscapes"}
    assert parameters.misfits("03_cityscapes_ladder", values) == []
    names = ("train_size", "val_size", "test_size", "epochs", "batch_size", "lr_decay", "problem_options")
    settings = {name: values["details"][name] for name in names} | {"source": "full", "seed": 1, "lr": 1e-3}
    for step in schemas.LADDER:
        config = RunConfig.of(problem=step, **settings)
        config.definition.data.check("full", (16, 8, 8), str(path))
        if preset == "smoke":
            assert train(config, "cpu", str(path)).ended == "finished"
