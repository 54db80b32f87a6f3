"""Cityscapes: one street scene, up to three tasks: what is where, how far away, and where the centre of each object is.

    S  semantic segmentation, 7 or 19 classes
    D  disparity, in pixels of the resized image; 0 = not measured
    I  instances: the offset of every pixel of a person or vehicle from the centroid of its instance

A folder holds Cityscapes' own layout, `leftImg8bit/`, `gtFine/` (labelIds and instanceIds) and `disparity/`, each with
`train/CITY/*.png` and `val/CITY/*.png`. The official validation images are our test split; the official training images
are divided into train and val by a fixed draw, which for all 2,975 of them is the paper's. PNG files are read once:
they are reduced to the working resolution and kept on disk as memory-mapped arrays.

Sources:
    embedded  synthetic streets, written to disk in that layout and those formats by mtl_study.streets, where imported
    full      the user's Cityscapes folder: 2,380 / 595 / 500 images of 2048×1024

Source: Cordts et al. 2016, arXiv:1604.01685.
Differs from our paper's code: 1. A pixel without an instance is told by a mask, not by an offset of −1 (D15). 2. Images
are kept as they are and normalised in the run's own precision, not kept normalised in half precision (D18).
As released: disparity is read half a step away from the other maps (D16; `aligned` puts them on the same pixels), and
its raw value 1 counts as not measured (D17).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import joblib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mtl_core import progress
from mtl_core.datasets.base import DataNotFound, Sizes, SplitName
from mtl_core.files import cache_folder, is_whole, prepared

CODE_VERSION = 1  # raise when the numbers a dataset produces change
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue in [0, 1]
SIZES: dict[str, Sizes] = {"embedded": (320, 80, 100), "full": (2_380, 595, 500)}  # scenes in train, val and test
STREETS_VERSION = 1  # raise when mtl_study.streets draws others
STREETS_SIZE = (512, 256)  # width and height of the embedded source's images
MAX_DEGREES = 10  # of the rotation that augments training images
IGNORED = -1  # class of pixels that are neither learnt nor judged
FIRST_OBJECT_CLASS = 11  # of the 19: persons and vehicles, which come as instances

KINDS = {  # what a scene consists of: folder, end of the file name, Pillow's names of the pixel format
    "image": ("leftImg8bit", "_leftImg8bit.png", ("RGB",)),
    "labels": ("gtFine", "_gtFine_labelIds.png", ("L",)),
    "instances": ("gtFine", "_gtFine_instanceIds.png", ("I;16", "I")),
    "disparity": ("disparity", "_disparity.png", ("I;16", "I")),
}
#: who writes the embedded source, by folder, counts and size: mtl_study.streets enters itself as "streets"
WRITERS: dict[str, Callable[[Path, Mapping[str, int], tuple[int, int]], object]] = {}
ARRAYS = {"images": "u1", "labels": "i1", "instances": "i2", "disparity": "f4", "counts": "i2", "valid": "?"}
WHAT = {"S": "of a class that is learnt", "D": "with a measured disparity", "I": "of an instance"}  # a valid pixel is
HOW = (
    "Unpack leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip and disparity_trainvaltest.zip (from "
    "cityscapes-dataset.com, after registration) into one folder and give that folder as `data_dir`, or use "
    "`source: embedded`."
)

_TABLE = Path(__file__).parent / "data/cityscapes_classes.json"  # as torchvision has it, whose import takes seconds
CLASSES = [SimpleNamespace(**row) for row in json.loads(_TABLE.read_bytes())]
_EVALUATED = [c for c in CLASSES if 0 <= c.train_id < 19]
TO_19 = np.full(256, IGNORED, dtype=np.int8)  # raw label id to the 19 evaluated classes; everything else is ignored
TO_19[[c.id for c in _EVALUATED]] = [c.train_id for c in _EVALUATED]
TO_7 = torch.tensor([c.category_id - 1 for c in _EVALUATED] + [IGNORED])  # the 19 by category; index −1 is ignored


class Scene(NamedTuple):
    """The maps of one scene. As read from PNG files: image uint8 [H, W, 3], the others raw [H, W]. As reduced: image
    uint8 [3, h, w], labels of 19 classes int8 [h, w], instances int16 [h, w], disparity float32 [h, w]."""

    image: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    disparity: np.ndarray


class Folder(NamedTuple):
    """A source folder: its scenes' file names (e.g. "train/ulm/ulm_000000_000019"), sorted, and a hash of its files."""

    path: Path
    train: tuple[str, ...]
    val: tuple[str, ...]
    digest: str

    def file(self, scene: str, kind: str) -> Path:
        name, suffix, _ = KINDS[kind]
        return self.path / name / f"{scene}{suffix}"


def list_folder(path: Path) -> Folder:
    """The scenes of a folder in Cityscapes' layout. Looks at names, sizes and dates of the files, not into them.

    Raises:
        DataNotFound: a folder or a file is missing.
    """
    if (path / "train" / "image").is_dir() and not (path / "leftImg8bit").exists():
        raise DataNotFound(
            f"Cityscapes: {path} holds the preprocessed .npy files that come with MTAN (image, label and depth at "
            f"256×128). They have no instances and another resolution, and are not read here. {HOW}"
        )
    scenes: dict[str, tuple[str, ...]] = {}
    missing, digest, place = [], hashlib.sha256(), Folder(path, (), (), "")
    for split in ("train", "val"):
        for name in ("leftImg8bit", "gtFine", "disparity"):
            if not (path / name / split).is_dir():
                raise DataNotFound(f"Cityscapes: the folder {path / name / split} does not exist. {HOW}")
        images, suffix = path / "leftImg8bit", KINDS["image"][1]
        found = images.glob(f"{split}/*/[!.]*{suffix}")
        scenes[split] = tuple(sorted(image.relative_to(images).as_posix().removesuffix(suffix) for image in found))
        if not scenes[split]:
            raise DataNotFound(f"Cityscapes: no file {images / split}/CITY/*{suffix}. {HOW}")
        for scene in scenes[split]:
            for kind in KINDS:
                file = place.file(scene, kind)
                try:
                    stat = os.stat(file)
                    digest.update(f"{scene} {kind} {stat.st_size} {stat.st_mtime_ns}\n".encode())
                except FileNotFoundError:
                    missing.append(file)
    if missing:
        total = len(KINDS) * (len(scenes["train"]) + len(scenes["val"]))
        raise DataNotFound(
            f"Cityscapes: {len(missing):,} of {total:,} files are missing, the first is {missing[0]}. Every image "
            f"needs its labelIds, instanceIds and disparity. {HOW}"
        )
    return Folder(path, scenes["train"], scenes["val"], digest.hexdigest()[:16])


def split_positions(train: int, val: int, sizes: Sizes) -> dict[SplitName, np.ndarray]:
    """Which scenes belong to which split: positions in the sorted lists of training (train, val) and validation scenes.

    Each split is in random order, always the same, so that its first scenes come from all cities.

    Args:
        train, val: scenes in the folder's train and val. sizes: of our splits; the first so many of each are taken.
    """
    draw = np.random.RandomState(0)
    ours = SIZES["full"][0] if train == sum(SIZES["full"][:2]) else sizes[0]  # the paper's draw, whatever is used of it
    chosen = draw.choice(train, ours, replace=False)
    rest = draw.permutation(np.setdiff1d(np.arange(train), chosen))
    return {"train": chosen[: sizes[0]], "val": rest[: sizes[1]], "test": draw.permutation(val)[: sizes[2]]}


def _open(file: Path, kind: str) -> Image.Image:
    """Opens a PNG file and looks at its header."""
    try:
        image = Image.open(file)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataNotFound(f"Cityscapes: {file} is not a whole PNG file ({error}). Unpack it again.") from error
    modes = KINDS[kind][2]
    if image.format != "PNG":
        raise ValueError(f"Cityscapes: {file} is a {image.format} file, expected PNG. {HOW}")
    if image.mode not in modes:
        raise ValueError(f"Cityscapes: {file} has pixels of format {image.mode}, expected {modes[0]}. {HOW}")
    return image


def read(folder: Folder, scene: str) -> Scene:
    """The raw maps of one scene, at full size: image uint8 [H, W, 3], label ids, instance ids and disparity [H, W].

    Raises:
        DataNotFound: a file is damaged. ValueError: a file has another format. Both name the file.
    """
    maps = []
    for kind in KINDS:
        file = folder.file(scene, kind)
        with _open(file, kind) as image:
            try:
                maps.append(np.array(image))
            except (OSError, SyntaxError, ValueError) as error:
                raise DataNotFound(f"Cityscapes: {file} is damaged ({error}). Unpack it again.") from error
    return Scene(*maps)


def check_contents(folder: Folder, scene: str, maps: Scene) -> None:
    """Holds the raw maps of a scene against each other and against what Cityscapes can have.

    Raises:
        ValueError: label ids and instance ids (without their last three digits) are of different classes in more than
            a thousandth of the pixels; label ids are train ids; disparity is in another unit. The file is named.
    """
    _, labels, instances, disparity = (folder.file(scene, kind) for kind in KINDS)
    classes = np.where(maps.instances < 1000, maps.instances, maps.instances // 1000)
    if (maps.labels == 255).any():
        wrong = f"{labels} holds 255, which train ids have for what is ignored; label ids, from 0 to 33, are expected"
    elif (share := (classes != maps.labels).mean()) > 0.001:
        wrong = f"{labels} and {instances} are of different classes in {share:.1%} of the pixels (train ids?)"
    elif 1 < (most := maps.disparity.max()) <= 256:
        wrong = f"{disparity} goes up to {most}, expected 256 times the pixels of disparity plus 1"
    else:
        return
    raise ValueError(f"Cityscapes: {wrong}. {HOW}")


def reduce(scene: Scene, width: int, aligned: bool = False) -> Scene:
    """A raw scene at the working resolution; with s source pixels to each of ours along an axis:

    image      Pillow's bilinear filter, which averages over the s × s source pixels and their surroundings
    labels     source pixel s·i + s/2 (rounded down), as one of 19 classes, −1 = ignored
    instances  the same pixels; numbered 1, 2, … within the image in order of their ids; 0 = none, which is where the
               id is 0 or the class is none of persons and vehicles
    disparity  source pixel s·i (`aligned`: s·i + s/2, D16), raw value d to (d − 1) / (256 s); 0 where d ≤ 1 (D17)
    """
    step = scene.labels.shape[1] // width
    middle = step // 2
    image = Image.fromarray(scene.image).resize((width, width // 2), Image.Resampling.BILINEAR)
    labels = TO_19[scene.labels[middle::step, middle::step]]
    ids = np.where(labels >= FIRST_OBJECT_CLASS, scene.instances[middle::step, middle::step], 0)
    kinds, instances = np.unique(ids, return_inverse=True)
    if kinds[0] != 0:  # every pixel belongs to an instance
        instances = instances + 1
    start = middle if aligned else 0
    raw = scene.disparity[start::step, start::step].astype(np.float32)
    disparity = np.maximum(raw - 1, 0) / np.float32(256 * step)
    return Scene(np.asarray(image).transpose(2, 0, 1), labels, instances.reshape(labels.shape), disparity)


def transform(x: Tensor, maps: Tensor, degrees: Tensor, flip: Tensor) -> tuple[Tensor, Tensor]:
    """Rotates about the centre, counter-clockwise, on the same canvas, then mirrors left and right where `flip` is 1.

    Args:
        x: [B, C, H, W], read bilinearly. maps: [B, M, H, W], nearest pixel, so that values stay what they are.
        degrees, flip: [B]. What comes from outside is 0 in both; in a normalised image that is ImageNet's mean colour.
    """
    height, width = x.shape[-2:]
    angle, mirror = degrees.deg2rad(), 1 - 2 * flip
    theta = x.new_zeros(len(x), 2, 3)  # in coordinates from −1 to 1 on both axes, so a pixel is wider than high
    theta[:, 0, 0] = angle.cos() * mirror
    theta[:, 0, 1] = -angle.sin() * height / width
    theta[:, 1, 0] = angle.sin() * mirror * width / height
    theta[:, 1, 1] = angle.cos()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return x, F.grid_sample(maps, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def offsets(instances: Tensor, most: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Instance numbers int64 [B, H, W] from 0 (none) to `most`, to offsets from their centroids [B, 3, H, W].

    Channel 0: row − mean row of the instance. Channel 1: column − mean column. In pixels, 0 where there is no
    instance. Channel 2: 1 where there is one, else 0 (D15).
    """
    batch, height, width = instances.shape
    device = instances.device
    axes = [torch.arange(length, device=device) for length in (height, width)]
    places = torch.stack(torch.meshgrid(axes, indexing="ij")).expand(batch, 2, height, width)
    key = (instances + (most + 1) * torch.arange(batch, device=device).view(batch, 1, 1)).flatten()
    sums = torch.zeros(3, batch * (most + 1), dtype=torch.int64, device=device)  # exact, in whatever order it adds
    sums[0].scatter_add_(0, key, torch.ones_like(key))
    for axis in (0, 1):
        sums[1 + axis].scatter_add_(0, key, places[:, axis].flatten())
    centroids = (sums[1:].double() / sums[0].clamp(min=1)).to(dtype)
    offset = places - centroids[:, key].view(2, batch, height, width).transpose(0, 1)
    valid = (instances > 0).unsqueeze(1)
    return torch.cat([offset.masked_fill(~valid, 0), valid.to(dtype)], dim=1)


class Maps(NamedTuple):
    """All scenes of a folder at the working resolution, on one device.

    images uint8 [N, 3, H, W], labels int8 [N, H, W], instances int16 [N, H, W], disparity float32 [N, H, W], counts of
    instances int16 [N], and whether there is a valid pixel for S, D and I bool [N, 3]. The folder's train comes first,
    then its val.
    """

    images: Tensor
    labels: Tensor
    instances: Tensor
    disparity: Tensor
    counts: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Scenes:
    """The scenes of one split, batched by index on a device, wherever the maps are. rows: where they are in the maps
    [N]. most: instances in a scene."""

    device: torch.device
    maps: Maps
    rows: Tensor
    classes: int
    most: int
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, index: Tensor, tasks: tuple[str, ...], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Normalised images [B, 3, H, W] and one target per task.

        S: classes int64 [B, H, W], −1 = ignored. D: disparity [B, 1, H, W] in pixels, 0 = not measured. I: offsets and
        their mask [B, 3, H, W], see `offsets`.

        Args:
            index: which samples [B]. tasks: any of S, D, I, in any order.
            generator: of random numbers on the CPU, for training: rotates by up to 10° either way and mirrors every
                second image, all maps alike. The draws do not depend on the tasks. None: no augmentation.
        """
        rows = self.rows[index.to(self.rows.device, non_blocking=True)]
        x = self._normalised(self._taken(self.maps.images, rows))
        maps = torch.stack([self._map(task, rows) for task in tasks], dim=1)
        if generator is not None:
            draws = torch.rand(2, len(rows), generator=generator).to(x, non_blocking=True)
            x, maps = transform(x, maps, MAX_DEGREES * (2 * draws[0] - 1), (draws[1] < 0.5).to(x))
        return x, [self._target(task, maps[:, k]) for k, task in enumerate(tasks)]

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = torch.tensor([MEAN, STD], dtype=self.dtype).view(2, 3, 1, 1).to(images.device, non_blocking=True)
        return images.to(self.dtype).div_(255).sub_(mean).div_(std)

    def _map(self, task: str, rows: Tensor) -> Tensor:
        """What a task's target is made of [B, H, W], such that 0 is right for what comes from outside the image."""
        if task == "S":
            labels = self._taken(self.maps.labels, rows)
            if self.classes == 7:
                labels = TO_7.to(labels.device, non_blocking=True)[labels.long()]
            return labels.to(self.dtype) - IGNORED
        return self._taken(self.maps.disparity if task == "D" else self.maps.instances, rows).to(self.dtype)

    def _taken(self, values: Tensor, rows: Tensor) -> Tensor:
        """From maps on the host to a GPU they go by memory that it reads while the host goes on."""
        taken = values.index_select(0, rows)
        pinned = taken.pin_memory() if self.device.type == "cuda" and not taken.is_cuda else taken
        return pinned.to(self.device, non_blocking=True)

    def _target(self, task: str, values: Tensor) -> Tensor:
        if task == "S":
            return values.long() + IGNORED
        return values.unsqueeze(1) if task == "D" else offsets(values.long(), self.most, self.dtype)


@dataclass(frozen=True)
class Cityscapes:
    """The dataset at one working resolution.

    Args:
        width: of the images that a model sees; they are half as high. The source's width must be a multiple of it.
        classes: of S, 7 or 19; 7 are the 19 grouped by category.
        aligned: disparity is read at the same source pixels as the other maps (D16).
    """

    width: int
    classes: int
    aligned: bool = False
    sources: ClassVar[tuple[str, ...]] = tuple(SIZES)

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2:
            raise ValueError(f"Cityscapes: width is {self.width}; it must be even: images are half as high as wide.")
        if self.classes not in (7, 19):
            raise ValueError(f"Cityscapes: classes is {self.classes}; known: 7, 19.")

    def sizes(self, source: str) -> Sizes:
        """Scenes in train, val and test."""
        return SIZES[source]

    def check(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Refuses missing or damaged files, by their names, first and last bytes; nothing is decoded yet.

        Raises:
            DataNotFound: a folder or file is missing or cut short, or there are too few. ValueError: images of another
            size or format, or sizes that the source does not have. Messages name the file and how to mend it.
        """
        if source == "embedded":
            self._check_sizes(source, sizes)  # the streets are written by prepare()
            return
        folder = self._folder(source, sizes, data_dir)
        if not is_whole(self._cache(folder)):
            self._check_files(folder)

    def prepare(self, source: str, sizes: Sizes, data_dir: str | None) -> None:
        """Writes the streets (embedded source) and reduces all PNG files once to arrays in `cache_folder()`.

        A folder whose files have changed (size or date), or another version of this code, makes new arrays.

        Raises:
            DataNotFound: a file is damaged. ValueError: maps that contradict each other, or a split without a single
                valid pixel for a task.
        """
        folder = self._folder(source, sizes, data_dir)
        valid = np.load(self._prepare(folder) / "valid.npy")
        for split, rows in self._rows(folder, sizes).items():
            for task, found in zip(WHAT, valid[rows].any(0), strict=True):
                if not found:
                    words = f"have no pixel {WHAT[task]} (task {task}). {HOW}"
                    raise ValueError(f"Cityscapes: {folder.path}: the {len(rows):,} scenes of {split} {words}")

    def load(
        self, source: str, sizes: Sizes, data_dir: str | None, device: torch.device, dtype: torch.dtype
    ) -> Mapping[SplitName, Scenes]:
        """Train, val and test. On the CPU the maps stay on disk, memory-mapped; on another device they are there whole
        (1.1 GB at width 256, 4.5 GB at 512 for all of Cityscapes), unless the environment variable MTL_STREAM is set:
        then every batch is copied there, and is the same."""
        folder = self._folder(source, sizes, data_dir)
        place = torch.device("cpu") if os.environ.get("MTL_STREAM") else device
        maps = _open_maps(self._prepare(folder), place)
        most = int(maps.counts.max())
        return {
            name: Scenes(device, maps, torch.from_numpy(rows).to(place), self.classes, most, dtype)
            for name, rows in self._rows(folder, sizes).items()
        }

    def _rows(self, folder: Folder, sizes: Sizes) -> dict[SplitName, np.ndarray]:
        """Where the scenes of each split are in the maps."""
        positions = split_positions(len(folder.train), len(folder.val), sizes)
        return {**positions, "test": positions["test"] + len(folder.train)}

    def _check_sizes(self, source: str, sizes: Sizes) -> None:
        if min(sizes) < 1:
            raise ValueError(f"Cityscapes: sizes of train, val and test are {sizes}; each must be at least 1.")
        if source == "embedded":
            self._check_size(STREETS_SIZE, "the embedded source")
            if "streets" not in WRITERS:
                raise DataNotFound("Cityscapes: nobody draws the embedded source: import mtl_study.streets.")

    def _folder(self, source: str, sizes: Sizes, data_dir: str | None) -> Folder:
        """The source folder, listed; the embedded one is written first if it is not there."""
        self._check_sizes(source, sizes)
        if source == "embedded":
            counts = {"train": sizes[0] + sizes[1], "val": sizes[2]}
            path = cache_folder() / f"streets-v{STREETS_VERSION}-{counts['train']}-{counts['val']}"
            WRITERS["streets"](path, counts, STREETS_SIZE)
            return list_folder(path)
        if not data_dir:
            raise DataNotFound(f"source 'full' needs the Cityscapes files, but `data_dir` is not set. {HOW}")
        folder = list_folder(Path(data_dir))
        if len(folder.train) == sum(SIZES["full"][:2]):
            for name, size, most in zip(("train", "val"), sizes, SIZES["full"], strict=False):
                if size > most:
                    raise ValueError(f"Cityscapes: {name}_size is {size:,}; the paper's split has {most:,} scenes.")
        for name, size, scenes in (("train", sizes[0] + sizes[1], folder.train), ("val", sizes[2], folder.val)):
            if size > len(scenes):
                place = f"{folder.path / 'leftImg8bit' / name} has {len(scenes):,} images"
                words = f"{size:,} there. Complete the folder, or give smaller train_size, val_size and test_size."
                raise DataNotFound(f"Cityscapes: {place}, but the sizes {sizes} of train, val and test need {words}")
        return folder

    def _check_size(self, size: tuple[int, int], what: str) -> None:
        width, height = size
        if width != 2 * height:
            raise ValueError(f"Cityscapes: {what} has {width}×{height} pixels, expected twice as wide as high.")
        if width % self.width:
            words = f"no multiple of the working width {self.width}. Choose a width that divides {width}."
            raise ValueError(f"Cityscapes: {what} is {width} pixels wide, which is {words}")

    def _check_files(self, folder: Folder) -> None:
        """Looks at the first and last bytes of every file: all are PNG files of one size."""
        sizes = {}
        for scene, kind in itertools.product((*folder.train, *folder.val), KINDS):
            file = folder.file(scene, kind)
            with _open(file, kind) as image:
                sizes[file] = image.size
            with file.open("rb") as stream:
                stream.seek(-min(1024, file.stat().st_size), os.SEEK_END)
                if b"IEND" not in stream.read():
                    raise DataNotFound(f"Cityscapes: {file} is cut short: a PNG file ends with IEND. Unpack it again.")
        ((size, most),) = Counter(sizes.values()).most_common(1)
        for file, found in sizes.items():
            if found != size:
                words = f"{size[0]}×{size[1]} like {most:,} of {len(sizes):,} files. All must have the same size."
                raise ValueError(f"Cityscapes: {file} has {found[0]}×{found[1]} pixels, expected {words}")
        self._check_size(size, str(folder.file(folder.train[0], "image")))

    def _cache(self, folder: Folder) -> Path:
        aligned = "-aligned" if self.aligned else ""
        return cache_folder() / f"cityscapes-v{CODE_VERSION}-{self.width}{aligned}-{folder.digest}"

    def _prepare(self, folder: Folder) -> Path:
        """The folder of reduced arrays; made, after all files were looked into, if it is not there (files.prepared)."""

        def write(making: Path) -> None:
            self._check_files(folder)
            scenes = (*folder.train, *folder.val)
            shape = (self.width // 2, self.width)
            shapes = {"images": (3, *shape), "counts": (), "valid": (len(WHAT),)}
            needed, free = 10 * len(scenes) * shape[0] * shape[1], shutil.disk_usage(making).free  # bytes
            if needed > free:
                words = "Make room, or set the environment variable MTL_DATA to another folder."
                place = f"{needed / 1e9:.1f} GB in {cache_folder()}, which has {free / 1e9:.1f} GB left"
                raise OSError(f"Cityscapes at width {self.width} needs {place}. {words}")
            memmap, count = np.lib.format.open_memmap, len(scenes)
            arrays = {
                name: memmap(making / f"{name}.npy", "w+", dtype, (count, *shapes.get(name, shape)))
                for name, dtype in ARRAYS.items()
            }

            def convert(row: int) -> None:
                raw = read(folder, scenes[row])
                check_contents(folder, scenes[row], raw)
                scene = reduce(raw, self.width, self.aligned)
                most = scene.instances.max()
                valid = (scene.labels.max() > IGNORED, scene.disparity.max() > 0, most > 0)
                for array, values in zip(arrays.values(), (*scene, most, valid), strict=True):
                    array[row] = values

            jobs = (joblib.delayed(convert)(row) for row in range(len(scenes)))
            done = joblib.Parallel(n_jobs=-1, prefer="threads", return_as="generator")(jobs)
            title = f"Cityscapes at {self.width}×{self.width // 2}"
            for _ in progress.bar(done, title, len(scenes), delay=2, unit="scene"):
                pass
            for array in arrays.values():
                array.flush()

        return prepared(self._cache(folder), write)


@lru_cache(maxsize=2)
def _open_maps(cache: Path, device: torch.device) -> Maps:
    arrays = (np.load(cache / f"{name}.npy", mmap_mode="c") for name in ARRAYS)
    return Maps(*(torch.from_numpy(array).to(device) for array in arrays))
