"""Cityscapes: the split, how maps are reduced, targets, augmentation, the cache, and what is refused."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.testing import assert_close
from torchvision import datasets as torchvision_datasets
from torchvision.transforms.functional import InterpolationMode, rotate

from mtl_core import files
from mtl_core.datasets import cityscapes
from mtl_core.datasets.base import DataNotFound
from mtl_core.datasets.cityscapes import (
    IGNORED,
    MEAN,
    STD,
    TO_7,
    TO_19,
    Cityscapes,
    Scene,
    list_folder,
    offsets,
    read,
    reduce,
    split_positions,
    transform,
)

CPU = torch.device("cpu")
CAR, PERSON, ROAD, SKY = 26, 24, 7, 23  # raw label ids


@pytest.fixture(autouse=True)
def data_elsewhere(monkeypatch, tmp_path_factory):
    """Caches of tests go to a temporary folder, the same for this file."""
    monkeypatch.setenv("MTL_DATA", str(tmp_path_factory.getbasetemp() / "data"))


def random_scene(seed, width=32):
    """Noise in every map; all raw label ids occur, some of them nobody knows."""
    draw = np.random.RandomState(seed)
    shape = (width // 2, width)
    labels = draw.randint(0, 40, shape).astype(np.uint8)
    instances = np.where(labels >= 24, labels * np.uint16(1000) + draw.randint(0, 3, shape), labels).astype(np.uint16)
    image = draw.randint(0, 256, (*shape, 3)).astype(np.uint8)
    return Scene(image, labels, instances, draw.randint(0, 40_000, shape).astype(np.uint16))


def write_scene(path, name, scene):
    for kind, values in scene._asdict().items():
        folder, suffix, _ = cityscapes.KINDS[kind]
        file = Path(path) / folder / f"{name}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)


@pytest.fixture
def folder(tmp_path):
    """Five training scenes in two cities and two validation scenes of 32×16."""
    names = [f"train/{city}/{city}_{n:06}_000019" for city, count in (("ulm", 3), ("aachen", 2)) for n in range(count)]
    for seed, name in enumerate([*names, "val/lindau/lindau_000000_000019", "val/lindau/lindau_000001_000019"]):
        write_scene(tmp_path / "city", name, random_scene(seed))
    return tmp_path / "city"


def load(path, width=16, classes=19, sizes=(3, 2, 2), dtype=torch.float32, **options):
    return Cityscapes(width, classes, **options).load("full", sizes, str(path), CPU, dtype)


# Split and classes


def test_the_table_of_classes_is_torchvisions():
    theirs = torchvision_datasets.Cityscapes.classes
    assert [(*vars(one).values(),) for one in cityscapes.CLASSES] == [(*one[:-1], list(one[-1])) for one in theirs]
    assert list(vars(cityscapes.CLASSES[0])) == list(theirs[0]._fields)


@pytest.mark.parametrize(
    ("split", "size", "starts", "sha256"),
    [
        (
            "train",
            2380,
            [1, 2, 4, 5, 6, 8, 9, 10, 11, 12],
            "6a68c9102034d7ed83b554ceb3a3b188155cff4e06a1cbe6dd281fa0064cc03a",
        ),
        (
            "val",
            595,
            [0, 3, 7, 21, 24, 25, 26, 63, 67, 84],
            "f941b386848576ec0ed97478c887d890de80cfd0d0ceb8e75b625b82b3f72928",
        ),
    ],
)
def test_the_split_is_the_papers(split, size, starts, sha256):
    positions = sorted(split_positions(2975, 500, (2380, 595, 500))[split])
    assert len(positions) == size
    assert positions[:10] == starts
    assert hashlib.sha256("\n".join(map(str, positions)).encode()).hexdigest() == sha256


@pytest.mark.parametrize(("train", "val"), [(2975, 500), (40, 10)])
def test_splits_are_disjoint_and_smaller_sizes_are_their_beginnings(train, val):
    most = (2380, 595, 500) if train == 2975 else (30, 10, 10)
    whole = split_positions(train, val, most)
    assert sorted([*whole["train"], *whole["val"]]) == list(range(train))
    assert sorted(whole["test"]) == list(range(val))
    part = split_positions(train, val, (most[0], 5, 4))
    assert_array_equal(part["val"], whole["val"][:5])
    assert_array_equal(part["test"], whole["test"][:4])
    if train == 2975:  # the paper's draw does not depend on how much of it is used
        assert_array_equal(split_positions(train, val, (100, 595, 1))["train"], whole["train"][:100])
        assert_array_equal(split_positions(train, val, (100, 595, 1))["val"], whole["val"])


def test_classes():
    """19 evaluated classes, 7 categories of them; parking (9), caravan (29), the licence plate (−1 as a byte) and ids
    that nobody knows are ignored."""
    order = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert TO_19[order].tolist() == list(range(19))
    assert (np.delete(TO_19, order) == IGNORED).all()
    assert TO_7[torch.arange(19)].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6]
    assert TO_7[IGNORED] == IGNORED


# Reducing the maps


@pytest.mark.parametrize("step", [1, 2, 4])
def test_labels_and_instances_are_reduced_as_pillow_does_and_disparity_by_the_first_pixel(step):
    scene = random_scene(0, 32)
    small = reduce(scene, 32 // step)
    size = (32 // step, 16 // step)
    labels = np.asarray(Image.fromarray(scene.labels).resize(size, Image.Resampling.NEAREST))
    assert_array_equal(small.labels, TO_19[labels])
    assert small.labels[1, 2] == TO_19[scene.labels[step + step // 2, 2 * step + step // 2]]
    ids = np.asarray(Image.fromarray(scene.instances.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    known = np.unique(ids[small.labels >= 11])
    assert_array_equal(small.instances, np.where(small.labels >= 11, np.searchsorted(known, ids) + 1, 0))
    image = Image.fromarray(scene.image).resize(size, Image.Resampling.BILINEAR)
    assert_array_equal(small.image, np.asarray(image).transpose(2, 0, 1))
    assert_array_equal(small.disparity, np.maximum(scene.disparity[::step, ::step] - 1.0, 0) / (256 * step))
    middle = step // 2
    aligned = scene.disparity[middle::step, middle::step]
    assert_array_equal(reduce(scene, 32 // step, True).disparity, np.maximum(aligned - 1.0, 0) / (256 * step))


def test_disparity_is_in_pixels_of_the_resized_image():
    """64 pixels at full size, stored as 64·256 + 1, are 16 at a quarter; raw 0 and 1 are not measured (D17)."""
    raw = np.full((8, 16), 64 * 256 + 1, dtype=np.uint16)
    raw[0, 0], raw[0, 4], raw[0, 8] = 0, 1, 2
    disparity = reduce(random_scene(0, 16)._replace(disparity=raw), 4).disparity
    assert disparity.tolist() == [[0, 0, 1 / 1024, 16], [16, 16, 16, 16]]


def test_an_image_is_averaged_not_sampled():
    """Stripes one pixel wide become grey."""
    image = np.zeros((16, 32, 3), dtype=np.uint8)
    image[:, ::2] = 255
    small = reduce(random_scene(0)._replace(image=image), 8).image
    assert abs(small[:, 1:-1, 1:-1].astype(float) - 127.5).max() < 4


def test_which_pixels_belong_to_instances():
    """Persons and vehicles with an id, a group included (its id is the class); not the road, not id 0, not a class that
    is ignored (caravan, 29)."""
    labels = np.array([[CAR, CAR, CAR, ROAD], [PERSON, 29, CAR, CAR]], dtype=np.uint8)
    ids = np.array([[26_001, 26_000, CAR, ROAD], [24_000, 29_000, 0, 26_001]], dtype=np.uint16)
    scene = reduce(random_scene(0, 4)._replace(labels=labels, instances=ids), 4)
    assert scene.instances.tolist() == [[4, 3, 1, 0], [2, 0, 0, 4]]  # ids 26 < 24,000 < 26,000 < 26,001


def test_a_scene_full_of_one_instance():
    labels, ids = np.full((2, 4), CAR, dtype=np.uint8), np.full((2, 4), 26_007, dtype=np.uint16)
    assert (reduce(random_scene(0, 4)._replace(labels=labels, instances=ids), 4).instances == 1).all()


# Instance offsets


def test_offsets_by_hand():
    """Instance 1 fills three pixels of a column: rows −1, 0, +1 from its centroid; the −1 is valid like the rest (D15).
    Instance 2 is an L: mean row 2/3, mean column 7/3. The second image has the same numbers elsewhere."""
    first = torch.tensor([[1, 0, 2, 0], [1, 0, 2, 2], [1, 0, 0, 0]])
    second = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    got = offsets(torch.stack([first, second]), most=3)
    row = [[-1, 0, -2 / 3, 0], [0, 0, 1 / 3, 1 / 3], [1, 0, 0, 0]]
    column = [[0, 0, -1 / 3, 0], [0, 0, -1 / 3, 2 / 3], [0, 0, 0, 0]]
    assert_close(got[0], torch.stack([torch.tensor(row), torch.tensor(column), (first > 0).float()]))
    assert_close(got[1, 1, 1], torch.tensor([0, -1.0, 0, 1]))
    assert_array_equal(got[1, 2], second > 0)
    assert got[1, 0].abs().max() == 0


def test_an_image_without_any_instance():
    assert_array_equal(offsets(torch.zeros(2, 3, 4, dtype=torch.int64), most=0), torch.zeros(2, 3, 3, 4))


def test_offsets_agree_with_a_loop():
    instances = torch.from_numpy(np.random.RandomState(0).randint(0, 6, (3, 8, 16)))
    got = offsets(instances, 5, torch.float64)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(16.0), indexing="ij")
    for image, target in zip(instances, got, strict=True):
        for number in range(1, 6):
            here = image == number
            assert_close(target[0][here], (rows[here] - rows[here].mean()).double(), atol=1e-5, rtol=0)
            assert_close(target[1][here], (columns[here] - columns[here].mean()).double(), atol=1e-5, rtol=0)


# Augmentation


def test_nothing_happens_at_angle_zero():
    x = torch.rand(2, 3, 16, 32)
    maps = torch.randint(0, 34_000, (2, 2, 16, 32)).float()
    image, same = transform(x, maps, torch.zeros(2), torch.zeros(2))
    assert_close(image, x, atol=1e-5, rtol=0)
    assert_array_equal(same, maps)


def test_flipping_mirrors_and_flipping_twice_gives_everything_back():
    x = torch.rand(3, 3, 16, 32)
    maps = torch.randint(0, 34_000, (3, 2, 16, 32)).float()
    flip = torch.tensor([1.0, 0, 1])
    once = transform(x, maps, torch.zeros(3), flip)
    assert_array_equal(once[1][[0, 2]], maps[[0, 2]].flip(3))
    assert_array_equal(once[1][1], maps[1])
    twice = transform(*once, torch.zeros(3), flip)
    assert_close(twice[0], x, atol=1e-4, rtol=0)
    assert_array_equal(twice[1], maps)


def test_rotation_turns_about_the_centre_in_pixels_and_fills_with_zero():
    """A quarter turn of a 2:1 canvas: what was right of the centre is above it, what was far right has left the canvas,
    and what was outside is 0. Then mirrored."""
    maps = torch.zeros(2, 1, 8, 16)
    maps[:, 0, 3, 10] = 7  # half a pixel above the middle, 2.5 pixels right of it
    maps[:, 0, 3, 15] = 9
    maps[:, 0, 1, 7] = 5  # 2.5 pixels above the middle, half a pixel left of it
    x = torch.ones(2, 3, 8, 16)
    image, turned = transform(x, maps, torch.full((2,), 90.0), torch.tensor([0.0, 1.0]))
    expected = torch.zeros(8, 16)
    expected[1, 7] = 7  # half a pixel left, 2.5 pixels above
    expected[4, 5] = 5  # 2.5 pixels left, half a pixel below
    assert_array_equal(turned[0, 0], expected)
    assert_array_equal(turned[1, 0], expected.flip(1))
    assert image[0, :, :, :3].abs().max() == 0 and image[0, :, :, 5:11].min() > 0.99


@pytest.mark.parametrize("degrees", [-10.0, -3.3, 7.0])
def test_rotation_agrees_with_torchvision(degrees):
    x, maps = torch.rand(1, 3, 16, 32), torch.randint(1, 34_000, (1, 2, 16, 32)).float()
    image, turned = transform(x, maps, torch.tensor([degrees]), torch.zeros(1))
    assert_close(image, rotate(x, degrees, InterpolationMode.BILINEAR), atol=1e-4, rtol=0)
    assert_array_equal(turned, rotate(maps, degrees, InterpolationMode.NEAREST))
    assert (turned == 0).any()


def test_all_maps_move_together(tmp_path):
    """The same pattern in image, labels, instances and disparity is the same pattern after augmentation."""
    draw = np.random.RandomState(0)
    blocks = np.kron(draw.randint(0, 2, (4, 8)), np.ones((8, 8))).astype(bool)
    scene = Scene(
        image=np.where(blocks[..., None], 255, 0).astype(np.uint8).repeat(3, 2),
        labels=np.where(blocks, CAR, SKY).astype(np.uint8),
        instances=np.where(blocks, 26_003, SKY).astype(np.uint16),
        disparity=np.where(blocks, 257, 513).astype(np.uint16),
    )
    for name in ("train/ulm/a", "train/ulm/b", "val/ulm/a"):
        write_scene(tmp_path, name, scene)
    split = load(tmp_path, 64, sizes=(1, 1, 1))["train"]
    index = torch.zeros(8, dtype=torch.int64)
    x, (labels, disparity, instances) = split.batch(index, ("S", "D", "I"), torch.Generator().manual_seed(1))
    car = labels == 13
    assert_array_equal(disparity[:, 0] == 1, car)
    assert_array_equal(instances[:, 2] == 1, car)
    assert_array_equal(disparity[:, 0] == 0, labels == IGNORED)
    red = x[:, 0] * STD[0] + MEAN[0]
    sky = labels == 10
    assert (red[sky] < 0.751).all() and (red[car] > 0.249).all()  # the nearest of four pixels weighs at least a quarter
    assert red[sky].mean() < 0.1 and red[car].mean() > 0.9
    assert not all(torch.equal(labels[0], other) for other in labels)
    assert (labels == IGNORED).any()
    assert (x[:, :, 0, 0][labels[:, 0, 0] == IGNORED].abs() < 2.5).all()
    for image, target in zip(instances[:, 2] == 1, instances, strict=True):
        assert target[:2, image].mean(1).abs().max() < 1e-3  # centroids are those of what is still to be seen


def test_augmentation_is_a_function_of_its_seed_and_not_of_the_tasks(folder):
    split = load(folder)["train"]
    index = torch.tensor([2, 0, 1])

    def batch(tasks, seed):
        return split.batch(index, tasks, torch.Generator().manual_seed(seed))

    x, (labels, disparity, instances) = batch(("S", "D", "I"), 3)
    same, (again,) = batch(("I",), 3)
    assert torch.equal(x, same) and torch.equal(instances, again)
    other, (depth, classes) = batch(("D", "S"), 4)
    assert not torch.equal(x, other) and not torch.equal(labels, classes) and not torch.equal(disparity, depth)


def test_rotation_stays_within_ten_degrees_and_half_of_the_images_are_mirrored(tmp_path):
    """Disparity is the column's number, so that the slope along the middle row is ± cos and down the middle column sin
    of the angle."""
    columns = np.tile(np.arange(1, 65), (32, 1))
    for name in ("train/ulm/a", "train/ulm/b", "val/ulm/a"):
        write_scene(tmp_path, name, random_scene(0, 64)._replace(disparity=(256 * columns + 1).astype(np.uint16)))
    split = load(tmp_path, 64, sizes=(1, 1, 1))["train"]
    _, (disparity,) = split.batch(torch.zeros(500, dtype=torch.int64), ("D",), torch.Generator().manual_seed(0))
    along = disparity[:, 0, 16, 52] - disparity[:, 0, 16, 12]
    down = disparity[:, 0, 28, 32] - disparity[:, 0, 4, 32]
    assert set(along.tolist()) <= {-40.0, -39.0, -38.0, 38.0, 39.0, 40.0}
    assert abs((along < 0).float().mean() - 0.5) < 0.07
    assert set(down.tolist()) == {float(d) for d in range(-4, 5)}  # 24 sin 10° = 4.2


# Batches


def test_batches_hold_what_the_files_hold(folder):
    """Shapes, types, normalisation and order, against the files; and 7 classes from the same cache."""
    listed = list_folder(folder)
    assert listed.train[0] == "train/aachen/aachen_000000_000019" and len(listed.train) == 5
    for name, split in load(folder).items():
        sevens = load(folder, classes=7)[name]
        scenes = [(listed.val if name == "test" else listed.train)[i] for i in split_positions(5, 2, (3, 2, 2))[name]]
        assert len(split) == len(scenes)
        x, (labels, disparity, instances) = split.batch(torch.arange(len(split)), ("S", "D", "I"))
        _, (grouped,) = sevens.batch(torch.arange(len(split)), ("S",))
        assert x.shape == instances.shape == (len(split), 3, 8, 16) and disparity.shape == (len(split), 1, 8, 16)
        assert labels.dtype == torch.int64 and x.dtype == disparity.dtype == instances.dtype == torch.float32
        for i, scene in enumerate(scenes):
            small = reduce(read(listed, scene), 16)
            colours = (torch.from_numpy(small.image.copy()) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(
                STD
            ).view(3, 1, 1)
            assert_close(x[i], colours)
            assert_array_equal(labels[i], small.labels)
            assert_array_equal(grouped[i], TO_7[labels[i]])
            assert_array_equal(disparity[i, 0], small.disparity)
            assert_close(instances[i : i + 1], offsets(torch.from_numpy(small.instances[None]).long(), 100))


def test_streamed_batches_are_the_same(folder, monkeypatch):
    """To the last bit. Maps that are asked for elsewhere stay on the host, and only what a batch holds goes there."""
    index, tasks = torch.arange(3), ("S", "D", "I")

    def batch():
        x, targets = load(folder)["train"].batch(index, tasks, torch.Generator().manual_seed(1))
        return [x, *targets]

    held = batch()
    monkeypatch.setenv("MTL_STREAM", "1")
    assert all(torch.equal(one, other) for one, other in zip(batch(), held, strict=True))
    split = Cityscapes(16, 19).load("full", (3, 2, 2), str(folder), torch.device("meta"), torch.float32)["train"]
    assert split.maps.images.device == split.rows.device == CPU
    x, targets = split.batch(index, tasks, torch.Generator().manual_seed(1))
    assert all(here.is_meta and here.shape == there.shape for here, there in zip([x, *targets], held, strict=True))


def test_the_precision_is_the_runs(folder):
    split = load(folder, dtype=torch.float64)["train"]
    x, (labels, disparity, instances) = split.batch(torch.arange(3), ("S", "D", "I"), torch.Generator().manual_seed(0))
    assert x.dtype == disparity.dtype == instances.dtype == torch.float64 and labels.dtype == torch.int64


# Cache


def caches(where):
    return sorted(path.name for path in where.iterdir())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepare(path, width=16, **options):
    Cityscapes(width, 19, **options).prepare("full", (3, 2, 2), str(path))


def test_the_cache_is_made_once(folder, cache):
    prepare(folder)
    (made,) = cache.iterdir()
    dates = {file.name: file.stat().st_mtime_ns for file in made.iterdir()}
    prepare(folder)
    Cityscapes(16, 7).prepare("full", (1, 1, 1), str(folder))  # other classes and sizes read the same arrays
    assert dates == {file.name: file.stat().st_mtime_ns for file in made.iterdir()} and len(caches(cache)) == 1


def test_another_width_alignment_version_or_file_makes_another_cache(folder, cache, monkeypatch):
    prepare(folder)
    prepare(folder, width=8)
    prepare(folder, aligned=True)
    assert len(caches(cache)) == 3
    monkeypatch.setattr(cityscapes, "CODE_VERSION", cityscapes.CODE_VERSION + 1)
    prepare(folder)
    assert len(caches(cache)) == 4
    write_scene(folder, "val/lindau/lindau_000002_000019", random_scene(9))
    prepare(folder)
    assert len(caches(cache)) == 5
    write_scene(folder, "val/lindau/lindau_000002_000019", random_scene(10))  # the same names, other contents
    prepare(folder)
    assert len(caches(cache)) == 6


def test_nothing_is_left_of_a_cache_that_failed(folder, cache):
    """The last file is damaged in the middle, so that only reading it whole tells."""
    file = folder / "disparity/val/lindau/lindau_000001_000019_disparity.png"
    content = bytearray(file.read_bytes())
    content[60:80] = bytes(20)
    file.write_bytes(content)
    with pytest.raises(DataNotFound, match=r"lindau_000001_000019_disparity\.png is damaged"):
        prepare(folder)
    assert caches(cache) == []


def test_two_at_once_make_one_cache(folder, cache, monkeypatch):
    """Another process finishes while this one is still at work."""
    dataset = Cityscapes(16, 19)
    reduced: list[bool] = []

    def slow(*given):
        if not reduced:
            reduced.append(True)
            prepare(folder)
        return reduce(*given)

    monkeypatch.setattr(cityscapes, "reduce", slow)
    dataset.prepare("full", (3, 2, 2), str(folder))
    assert reduced and len(caches(cache)) == 1
    monkeypatch.undo()


def test_a_damaged_cache_is_made_anew(folder, cache):
    """A file lost, one cut, one altered with its size kept: the arrays are as they were, bit for bit."""
    prepare(folder)
    (made,) = cache.iterdir()
    whole = {file.name: file.read_bytes() for file in made.glob("*.npy")}
    assert set(whole) == {f"{name}.npy" for name in cityscapes.ARRAYS}
    for damage in (
        lambda: (made / "labels.npy").unlink(),
        lambda: (made / "images.npy").write_bytes(whole["images.npy"][:-7]),
        lambda: (made / "disparity.npy").write_bytes(whole["disparity.npy"][:-1] + b"\x55"),
        lambda: (made / files.MANIFEST).unlink(),
    ):
        damage()
        with pytest.warns(UserWarning, match=f"{made.name} is damaged"):
            load(folder)
        assert {file.name: file.read_bytes() for file in made.glob("*.npy")} == whole


# What is refused


def check(path, sizes=(3, 2, 2), width=16):
    Cityscapes(width, 19).check("full", sizes, None if path is None else str(path))


def test_a_whole_folder_passes(folder):
    check(folder)


def test_no_folder(tmp_path):
    with pytest.raises(DataNotFound, match="`data_dir` is not set"):
        check(None)
    with pytest.raises(DataNotFound, match=r"leftImg8bit/train does not exist.*disparity_trainvaltest\.zip"):
        check(tmp_path)


def test_disparity_was_not_unpacked(folder):
    (folder / "disparity").rename(folder / "elsewhere")
    with pytest.raises(DataNotFound, match="disparity/train does not exist"):
        check(folder)


def test_one_file_is_missing(folder):
    (folder / "gtFine/train/ulm/ulm_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(DataNotFound, match=r"1 of 28 files .*ulm_000001_000019_gtFine_instanceIds\.png"):
        check(folder)


def test_a_file_is_cut_short(folder):
    file = folder / "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-200])
    with pytest.raises(DataNotFound, match=r"ulm_000001_000019_leftImg8bit\.png is cut short"):
        check(folder)
    file.write_bytes(whole[:11] + b"\5" + whole[12:])  # the length of its header
    with pytest.raises(DataNotFound, match=r"ulm_000001_000019_leftImg8bit\.png is not a whole PNG"):
        check(folder)
    file.write_bytes(b"")
    with pytest.raises(DataNotFound, match=r"ulm_000001_000019_leftImg8bit\.png is not a whole PNG"):
        check(folder)


def test_sizes_of_images(folder):
    with pytest.raises(ValueError, match=r"aachen_000000_000019_leftImg8bit\.png is 32 pixels wide.*working width 12"):
        check(folder, width=12)
    write_scene(folder, "train/ulm/ulm_000001_000019", random_scene(0, 64))
    with pytest.raises(ValueError, match=r"ulm_000001_000019_leftImg8bit\.png has 64×32 pixels, expected 32×16"):
        check(folder)
    square = Image.new("RGB", (32, 32))  # the first of all: what most files have is what is expected
    square.save(folder / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png")
    with pytest.raises(ValueError, match=r"aachen_000000_000019_leftImg8bit\.png has 32×32 .*like 23 of 28 files"):
        check(folder)
    for name in list_folder(folder).train + list_folder(folder).val:
        scene = random_scene(0)
        write_scene(folder, name, Scene(*(np.concatenate([values, values]) for values in scene)))
    with pytest.raises(ValueError, match="32×32 pixels, expected twice as wide as high"):
        check(folder)


def test_colours_in_place_of_labels(folder):
    Image.new("RGB", (32, 16)).save(folder / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png")
    with pytest.raises(ValueError, match=r"labelIds\.png has pixels of format RGB, expected L"):
        check(folder)


def test_a_jpeg_is_named_as_such(folder):
    Image.new("RGB", (32, 16)).save(folder / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png", "JPEG")
    with pytest.raises(ValueError, match=r"lindau_000000_000019_leftImg8bit\.png is a JPEG file, expected PNG"):
        check(folder)


def test_the_preprocessed_files_of_mtan_are_refused_by_name(tmp_path):
    for part in ("image", "label_7", "depth"):
        for split in ("train", "val"):
            (tmp_path / split / part).mkdir(parents=True)
            np.save(tmp_path / split / part / "0.npy", np.zeros((4, 8)))
    with pytest.raises(DataNotFound, match=r"\.npy files that come with MTAN.*not read here.*leftImg8bit_trainvaltest"):
        check(tmp_path)


ULM = "train/ulm/ulm_000001_000019"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (  # train ids, where something is ignored
            lambda s: s._replace(labels=np.where(TO_19[s.labels] < 0, 255, TO_19[s.labels]).astype(np.uint8)),
            r"ulm_000001_000019_gtFine_labelIds\.png holds 255, which train ids have",
        ),
        (  # train ids, where nothing is
            lambda s: s._replace(labels=np.maximum(TO_19[s.labels], 0).astype(np.uint8)),
            r"labelIds\.png and .*instanceIds\.png are of different classes in \d\d\.\d% of the pixels",
        ),
        (lambda s: s._replace(instances=random_scene(99).instances), "are of different classes in 9"),
        (lambda s: s._replace(instances=s.instances[::-1].copy()), "are of different classes in 9"),
        (lambda s: s._replace(disparity=s.disparity // 256), r"disparity\.png goes up to 156, expected 256 times"),
    ],
)
def test_maps_that_contradict_each_other_are_refused_before_training(folder, cache, change, says):
    write_scene(folder, ULM, change(read(list_folder(folder), ULM)))
    check(folder)  # which looks at names, first and last bytes only
    with pytest.raises(ValueError, match=says):
        prepare(folder)
    assert caches(cache) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": 0, "instances": 0}, r"the 2 scenes of test have no pixel of a class that is learnt \(task S\)"),
        ({"disparity": 1}, r"the 2 scenes of test have no pixel with a measured disparity \(task D\)"),
        ({"labels": ROAD, "instances": ROAD}, r"the 2 scenes of test have no pixel of an instance \(task I\)"),
    ],
)
def test_a_split_without_a_valid_pixel_for_a_task_is_refused(folder, cache, change, says):
    listed = list_folder(folder)
    for name in listed.val:
        scene = read(listed, name)
        write_scene(folder, name, scene._replace(**{k: np.full_like(getattr(scene, k), v) for k, v in change.items()}))
    for _ in range(2):  # also where the arrays are there
        with pytest.raises(ValueError, match=says):
            prepare(folder)


def test_too_few_scenes(folder):
    with pytest.raises(DataNotFound, match=r"train has 5 images.*need 6 there"):
        check(folder, (4, 2, 2))
    with pytest.raises(DataNotFound, match=r"val has 2 images.*need 3 there"):
        check(folder, (3, 2, 3))
    with pytest.raises(ValueError, match="at least 1"):
        check(folder, (3, 0, 2))


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="width is 15"):
        Cityscapes(15, 7)
    with pytest.raises(ValueError, match="known: 7, 19"):
        Cityscapes(16, 8)
    with pytest.raises(ValueError, match="working width 48"):
        Cityscapes(48, 7).check("embedded", (3, 2, 2), None)


def test_streets_that_nobody_draws_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(cityscapes, "WRITERS", {})
    with pytest.raises(DataNotFound, match="import mtl_study"):
        Cityscapes(64, 7).check("embedded", (3, 2, 2), None)
