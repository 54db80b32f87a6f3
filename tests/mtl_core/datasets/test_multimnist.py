"""Multi-MNIST: composition, pairing and splits, bit for bit."""

import hashlib
import struct

import numpy as np
import pytest
import torch

from mtl_core.datasets import multimnist
from mtl_core.datasets.multimnist import MEAN, STD, DataNotFound, compose, embedded_pairs, full_pairs

CPU = torch.device("cpu")


def digest(indices):
    return hashlib.sha256("\n".join(map(str, indices)).encode()).hexdigest()


@pytest.mark.parametrize(
    ("split", "starts", "sha256"),
    [
        (
            "train",
            [2732, 43567, 42613, 45891, 21243],
            "6fae9085e1f419502c8b7bb0a0dae555210e48ab0e584638f7816b1807e6fff4",
        ),
        (
            "val",
            [51506, 54752, 50596, 58279, 55267],
            "f2dd63ffe7255c7c9b67bb3bbd46dd868562e5fc5a98bb7929218212f2075110",
        ),
        ("test", [1811, 4362, 9774, 1707, 5747], "37fe47c9246d51f40c5335493e43d304d5ae862556f26d3fe7b4dbd1c0a61a67"),
    ],
)
def test_full_pairs_are_the_papers(split, starts, sha256):
    """The right digits of the paper's released code, whole; the left ones run through the files in order."""
    left, right = full_pairs()[split]
    assert right[:5].tolist() == starts
    assert digest(right) == sha256
    first = 50_000 if split == "val" else 0
    assert left.tolist() == list(range(first, first + len(right)))


def test_composition_by_hand():
    """Each output pixel is the brighter of the two digits' pixels at the canvas position that nearest neighbour
    reads."""
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 256, (2, 3, 28, 28), dtype=np.uint8)
    image = compose(left, right)
    rows = [0, 1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 16, 17, 18, 19, 21, 22, 23, 25, 26, 27, 28, 30, 31, 32, 34, 35]
    for r in (0, 4, 5, 14, 21, 22, 25, 26, 27):
        for c in (0, 4, 6, 15, 21, 22, 25, 26, 27):
            y, x = rows[r], rows[c]
            a = left[:, y, x] if y < 28 and x < 28 else np.zeros(3)
            b = right[:, y - 6, x - 6] if 6 <= y < 34 and 6 <= x < 34 else np.zeros(3)
            assert (image[:, r, c] == np.maximum(a, b)).all()
    assert rows == multimnist.ROWS


def test_no_digit_crosses_a_split():
    """The embedded digits are split before they are paired, with equally many of each class, and pairing is fixed."""
    labels = np.repeat(np.arange(10), 500)
    pairs = embedded_pairs(labels, (12_000, 2_000, 2_000))
    used = {name: set(left) | set(right) for name, (left, right) in pairs.items()}
    assert not used["train"] & used["val"] and not used["train"] & used["test"] and not used["val"] & used["test"]
    assert [len(left) for left, _ in pairs.values()] == [12_000, 2_000, 2_000]
    for name, per_class in zip(("train", "val", "test"), multimnist.DIGITS_PER_CLASS, strict=True):
        digits = np.unique(pairs[name].left)
        assert np.bincount(labels[digits]).tolist() == [per_class] * 10
    again = embedded_pairs(labels, (12_000, 2_000, 2_000))
    assert all((pairs[s].right == again[s].right).all() for s in pairs)


def test_embedded_digits_are_real_and_targets_are_the_originals():
    """5,000 digits; the input is the composition, the targets are the undisturbed digits and their classes."""
    data = multimnist.load("embedded", (64, 16, 16), None, CPU, torch.float32)
    train = data["train"]
    assert train.digits.shape == (5000, 28, 28) and len(data["test"]) == 16
    index = torch.tensor([5, 3])
    x, (cl, cr, rl, rr) = train.batch(index, ("CL", "CR", "RL", "RR"))
    assert x.shape == (2, 1, 28, 28) and rl.shape == rr.shape == (2, 28, 28)

    def pixels(images):
        return (images * STD + MEAN).mul(255).round().to(torch.uint8).numpy()

    assert (compose(pixels(rl), pixels(rr)) == pixels(x)[:, 0]).all()
    assert (cl == train.labels[train.left[index]]).all() and (cr == train.labels[train.right[index]]).all()
    assert pixels(train.digits).max() == 255


@pytest.fixture
def mnist_folder(tmp_path, monkeypatch):
    """Files in MNIST's format and of MNIST's size, filled with a pattern, that pass for MNIST's."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        images = (np.arange(count, dtype=np.uint32)[:, None] + np.arange(784, dtype=np.uint32)).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    md5 = {name: hashlib.md5((raw / name).read_bytes()).hexdigest() for name in multimnist.FILES}
    monkeypatch.setattr(multimnist, "FILES", {name: (multimnist.FILES[name][0], md5[name]) for name in md5})
    return tmp_path


def test_full_source_reads_mnists_own_files(mnist_folder):
    """Train and val come from the training file, test from the test file, paired by the paper's indices."""
    data = multimnist.load("full", (100, 50, 50), str(mnist_folder), CPU, torch.float32)
    assert [len(split) for split in data.values()] == [100, 50, 50]
    _, (left, right) = data["val"].batch(torch.tensor([0, 1]), ("CL", "CR"))
    assert left.tolist() == [50_000 % 10, 50_001 % 10] and right.tolist() == [51_506 % 10, 54_752 % 10]
    assert len(data["test"].digits) == 10_000


def test_missing_truncated_and_foreign_files_are_named(mnist_folder):
    """Before training: which file, where, what was expected, how to get it."""
    with pytest.raises(DataNotFound, match="data_dir"):
        multimnist.check("full", (9, 9, 9), None)
    with pytest.raises(DataNotFound, match=r"nowhere/MNIST/raw/train-images.*torchvision"):
        multimnist.check("full", (9, 9, 9), str(mnist_folder / "nowhere"))
    raw = mnist_folder / "MNIST" / "raw"
    (raw / "t10k-labels-idx1-ubyte").write_bytes(bytes(10_008))  # as FashionMNIST has
    with pytest.raises(
        DataNotFound, match=r"t10k-labels-idx1-ubyte has the size .* but not its contents .*FashionMNIST"
    ):
        multimnist.check("full", (9, 9, 9), str(mnist_folder))
    file = raw / "t10k-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataNotFound, match=r"t10k-images-idx3-ubyte has 1,000 bytes, expected 7,840,016"):
        multimnist.check("full", (9, 9, 9), str(mnist_folder))
