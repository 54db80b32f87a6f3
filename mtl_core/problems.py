"""The paper's problems by name: dataset + model + tasks.

For instance:

    "multimnist/CL_RR"   classify the left digit, reconstruct the right one
    "multimnist/CL"      the same, one task alone: the single-task baseline
    "cityscapes/19C"     segment a street into 19 classes, tell disparity, point to the middle of each object
    "qm9"                eleven properties of a molecule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from mtl_core import tasks
from mtl_core.datasets.base import Dataset
from mtl_core.names import nearest
from mtl_core.options import BadOption, check_options, parameters
from mtl_core.step import MultiTaskModel
from mtl_core.tasks import Task

try:
    from mtl_core.datasets import cityscapes, multimnist, qm9
    from mtl_core.models import deeplab, lenet, mpnn
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'mtl_core.problems needs {error.name}, which is not there: pip install "mtl_core[data]"', name=error.name
    ) from None


@dataclass(frozen=True)
class Problem:
    """What is learnt: tasks in order, a model for them, and where the samples come from.

    feature_shape: of z for one sample. build_model(dropout): a fresh model, initialised from torch's default generator.
    single_tasks: names of the problems that hold one of these tasks alone, in task order.
    sample_every: steps between two looks at the gradients. evaluation_batch: samples; a matter of memory only, as
    metrics are exact over the split. smallest_batch: that the model can be trained on.
    """

    name: str
    tasks: tuple[Task, ...]
    feature_shape: tuple[int, ...]
    build_model: Callable[[float], MultiTaskModel]
    data: Dataset
    code_versions: dict[str, int]  # of dataset and model
    single_tasks: tuple[str, ...]
    sample_every: int = 100
    evaluation_batch: int = 1000
    smallest_batch: int = 1

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)


# -- Multi-MNIST -------------------------------------------------------------------------------------------------------

_MNIST_TASKS = {
    "CL": tasks.classification("CL", "class of the left digit"),
    "CR": tasks.classification("CR", "class of the right digit"),
    "RL": tasks.reconstruction("RL", "reconstruction of the left digit"),
    "RR": tasks.reconstruction("RR", "reconstruction of the right digit"),
}
_MNIST_HEADS = {"C": lenet.ClassificationHead, "R": lenet.ReconstructionHead}


def _multimnist(names: tuple[str, ...]) -> Callable[..., Problem]:
    def build(width: Annotated[float, Field(ge=0.1)] = 1) -> Problem:
        """Options:
        width: multiplies the network's channels, features and hidden units.
        """

        def build_model(dropout: float) -> MultiTaskModel:
            encoder = lenet.Encoder(dropout, width)
            return MultiTaskModel(encoder, {name: _MNIST_HEADS[name[0]](dropout, width) for name in names})

        return Problem(
            name=f"multimnist/{'_'.join(names)}",
            tasks=tuple(_MNIST_TASKS[name] for name in names),
            feature_shape=(lenet.features(width),),
            build_model=build_model,
            data=multimnist,
            code_versions={"dataset": multimnist.CODE_VERSION, "model": lenet.CODE_VERSION},
            single_tasks=tuple(f"multimnist/{name}" for name in names),
        )

    return build


@dataclass(frozen=True)
class _Step:
    """A step of the ladder: what the model is and what it sees."""

    tasks: str = "SDI"  # one letter each
    classes: Literal[7, 19] = 7
    depth: deeplab.Depth = 18
    high: bool = False  # twice the width
    singles: tuple[str, ...] = ()  # where its single-task baselines are, in task order


def _cityscapes(name: str, step: _Step) -> Callable[..., Problem]:
    def build(
        width: Annotated[int, Field(ge=16, multiple_of=16)] = 256,
        pretrained: bool = False,
        slim: Literal[1, 2, 4, 8, 16, 32] = 1,
        reduction: Literal["per_image", "pooled"] = "per_image",
        aligned: bool = False,
        upsampling: Literal["kernel", "products"] = "kernel",
    ) -> Problem:
        """Options:
        width: of the images in pixels, at the lower of the ladder's two resolutions; they are half as high.
        pretrained: start the encoder from ImageNet's weights (D6).
        slim: divides the channels of encoder and heads.
        reduction: of the losses over pixels (D14).
        aligned: disparity is read at the same source pixels as the other maps (D16).
        upsampling: of the predictions, by torch's kernel or as products of matrices; equal to rounding.
        """
        members = {"S": tasks.segmentation(step.classes), "D": tasks.disparity(), "I": tasks.instances()}
        chosen = [replace(members[letter], loss=members[letter].reduced(reduction)) for letter in step.tasks]
        pixels = width * (2 if step.high else 1)
        features = deeplab.FEATURES[step.depth] // slim
        versions = {"dataset": cityscapes.CODE_VERSION, "streets": cityscapes.STREETS_VERSION}

        def build_model(dropout: float) -> MultiTaskModel:
            encoder = deeplab.Encoder(step.depth, pretrained, dropout, slim)
            how = dropout, slim, upsampling == "products"
            heads: dict[str, Callable[[], nn.Module]] = {
                "S": lambda: deeplab.SegmentationHead(features, step.classes, *how),
                "D": lambda: deeplab.Head(features, 1, *how),
                "I": lambda: deeplab.Head(features, 2, *how),
            }
            return MultiTaskModel(encoder, {letter: heads[letter]() for letter in step.tasks})

        return Problem(
            name=name,
            tasks=tuple(chosen),
            feature_shape=(features, pixels // 2 // deeplab.STRIDE, pixels // deeplab.STRIDE),
            build_model=build_model,
            data=cityscapes.Cityscapes(pixels, step.classes, aligned),
            code_versions={**versions, "model": deeplab.code_version(step.depth, slim)},
            single_tasks=tuple(f"cityscapes/{single}" for single in step.singles or [name.split("/", 1)[1]]),
            evaluation_batch=32,
            smallest_batch=deeplab.MINIMUM_BATCH,
        )

    return build


# Disparity and instances are the same tasks whatever the classes: they share their baselines (D37).
_STEPS = {
    "R50": _Step("SD", depth=50, singles=("R50/S", "R50/D")),
    "R18": _Step("SD", singles=("R18/S", "R18/D")),
    "inst_seg": _Step(singles=("R18/S", "R18/D", "R18/I")),
    "HR": _Step(high=True, singles=("HR/S", "19C/D", "19C/I")),
    "19C": _Step(classes=19, high=True, singles=("19C/S", "19C/D", "19C/I")),
    # ours: the corners that the ladder leaves out
    "SD_19": _Step("SD", classes=19, singles=("SD_19/S", "R18/D")),
    "SDI_19": _Step(classes=19, singles=("SD_19/S", "R18/D", "R18/I")),
    "HR_SD_7": _Step("SD", high=True, singles=("HR/S", "19C/D")),
    "HR_SD_19": _Step("SD", classes=19, high=True, singles=("19C/S", "19C/D")),
    # single tasks
    "R50/S": _Step("S", depth=50),
    "R50/D": _Step("D", depth=50),
    "R18/S": _Step("S"),
    "R18/D": _Step("D"),
    "R18/I": _Step("I"),
    "SD_19/S": _Step("S", classes=19),
    "HR/S": _Step("S", high=True),
    "19C/S": _Step("S", classes=19, high=True),
    "19C/D": _Step("D", high=True),
    "19C/I": _Step("I", high=True),
}


def _qm9(name: str, properties: tuple[str, ...]) -> Callable[..., Problem]:
    def build(
        max_atoms: Annotated[int, Field(ge=3, le=29)] | None = None,
        slim: Literal[1, 2, 4] = 1,
        released_features: bool = False,
    ) -> Problem:
        """Options:
        max_atoms: take only molecules of at most so many atoms, hydrogens included.
        released_features: as torch-geometric's files have them, with the flags of aromaticity and hybridisation at 0.
        slim: divides the features of the network.
        """

        def build_model(dropout: float) -> MultiTaskModel:
            if dropout:
                raise BadOption(f"{name}: dropout is {dropout}, but this network has none; set dropout: 0.")
            return MultiTaskModel(mpnn.Encoder(slim), {key: mpnn.Head(slim) for key in properties})

        chosen = {key: qm9.PROPERTIES[key] for key in properties}
        return Problem(
            name=name,
            tasks=tuple(tasks.regression(key, p.label, p.unit, p.std * p.factor) for key, p in chosen.items()),
            feature_shape=(mpnn.FEATURES // slim,),
            build_model=build_model,
            data=qm9.QM9(max_atoms, released_features),
            code_versions={"dataset": qm9.CODE_VERSION, "model": mpnn.CODE_VERSION},
            single_tasks=tuple(f"qm9/{key}" for key in properties),
            evaluation_batch=500,
        )

    return build


# -- by name -----------------------------------------------------------------------------------------------------------

_PAIRS_AND_SINGLES = [("CL", "CR"), ("CL", "RR"), ("RL", "RR"), ("CL",), ("CR",), ("RL",), ("RR",)]
_MORE_TASKS = [("CL", "CR", "RR"), ("CL", "CR", "RL", "RR")]  # ours: what the number of tasks does
PROBLEMS: dict[str, Callable[..., Problem]] = {
    **{f"multimnist/{'_'.join(names)}": _multimnist(names) for names in _PAIRS_AND_SINGLES + _MORE_TASKS},
    **{f"cityscapes/{name}": _cityscapes(f"cityscapes/{name}", step) for name, step in _STEPS.items()},
    "qm9": _qm9("qm9", tuple(qm9.PROPERTIES)),
    **{f"qm9/{key}": _qm9(f"qm9/{key}", (key,)) for key in qm9.PROPERTIES},
}


def canonical(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of a problem say, in one spelling: see `check_options`.

    Raises:
        BadOption: unknown name or option (the nearest is named), or a value of the wrong type or out of range.
    """
    if name not in PROBLEMS:
        raise BadOption(f"there is no problem called {name!r}{nearest(name, PROBLEMS)}. Known: {', '.join(PROBLEMS)}.")
    return check_options(name, parameters(PROBLEMS[name]), options)


def get(name: str, **options: Any) -> Problem:
    """The problem of that name, with its options. Raises what `canonical` raises."""
    said = canonical(name, options)
    return PROBLEMS[name](**said)
