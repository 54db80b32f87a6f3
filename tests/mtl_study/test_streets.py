"""Synthetic streets: Cityscapes' files, a camera's geometry, every class, whole or not at all."""

import math
import multiprocessing
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_array_equal
from PIL import Image
from torchvision.datasets import Cityscapes

from mtl_core import files
from mtl_core.datasets import cityscapes
from mtl_study import streets
from mtl_study.streets import BASELINE, FOCAL, HEIGHT, ID, Camera, Face, Light, Material, Thing

SMALL = (128, 64)
LIGHT = Light((0.0, 1.0, 0.0), 0.5, 0.5, (210, 215, 220), (90, 130, 190), 0.5, 300.0)  # the sun overhead


@pytest.fixture(scope="module")
def some():
    """Forty small streets."""
    return [streets.street(index, 0, SMALL) for index in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return streets.write(tmp_path_factory.mktemp("data") / "streets", {"train": 4, "val": 2}, SMALL, seed=7)


def pixels(disparity):
    """Cityscapes' coding to pixels; NaN where invalid."""
    return np.where(disparity > 0, (disparity.astype(float) - 1) / 256, np.nan)


def painted(*faces, camera, depth=1.0):
    return streets.paint([Thing(depth, list(faces))], camera, LIGHT, np.random.default_rng(0))


def horizon(street):
    """The row where the ground vanishes, from the disparity of the road by least squares, and the slope per row."""
    rows, columns = np.nonzero((street.label_ids == ID["road"]) & (street.disparity > 0))
    slope, intercept = np.polyfit(rows + 0.5, pixels(street.disparity)[rows, columns], 1)
    return -intercept / slope, slope


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("val", 2)])
def test_torchvision_reads_what_was_painted(folder, split, count):
    """Every picture, label map and instance map, bit for bit and in the right modes; disparity is next to them."""
    dataset = Cityscapes(folder, split=split, mode="fine", target_type=["semantic", "instance"])
    assert len(dataset) == count
    seen = set()
    for file, (image, (labels, instances)) in zip(dataset.images, dataset, strict=True):
        city, index, frame, _ = file.rsplit("/", 1)[1].split("_")
        street = streets.street(streets.FIRST[split] + int(index), 7, SMALL)
        disparity = Image.open(folder / "disparity" / split / city / f"{city}_{index}_{frame}_disparity.png")
        assert (image.mode, labels.mode, instances.mode, disparity.mode) == ("RGB", "L", "I;16", "I;16")
        for written, map_ in zip((image, labels, instances, disparity), street, strict=True):
            np.testing.assert_array_equal(np.asarray(written), map_)
        seen.add(int(index))
    assert seen == set(range(count))


def test_a_street_depends_on_seed_and_index_alone():
    one = streets.street(5, 3, SMALL)
    np.random.seed(0)
    for a, b in zip(one, streets.street(5, 3, SMALL), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (streets.street(6, 3, SMALL), streets.street(5, 4, SMALL)):
        assert (other.label_ids != one.label_ids).mean() > 0.1


def test_the_same_street_at_every_size():
    """Twice as many pixels show the same things: labels agree except at their borders, and disparity doubles."""
    small, large = streets.street(2, 0, (192, 96)), streets.street(2, 0, (384, 192))
    same = small.label_ids == large.label_ids[::2, ::2]
    assert same.mean() > 0.95
    ratio = pixels(large.disparity)[::2, ::2][same] / pixels(small.disparity)[same]
    assert np.nanmedian(ratio) == pytest.approx(2, rel=0.02)


def test_types_and_codes(some):
    """Instance ids are 1000 · label + n for what is counted and the plain label for all else."""
    counted = {c.id for c in Cityscapes.classes if c.has_instances}
    for street in some:
        assert [m.dtype for m in street] == [np.uint8, np.uint8, np.uint16, np.uint16]
        assert street.image.shape == (64, 128, 3) and all(m.shape == (64, 128) for m in street[1:])
        label, instance = street.label_ids, street.instance_ids.astype(int)
        single = instance >= 1000
        assert (instance[single] // 1000 == label[single]).all() and (instance[~single] == label[~single]).all()
        assert set(np.unique(label[single])) <= counted
        assert (street.disparity[(label == ID["sky"]) | (label == ID["ego vehicle"])] == 0).all()


def test_all_classes_occur_and_rare_ones_are_rarer(some):
    share = np.mean([np.bincount(s.label_ids.ravel(), minlength=34) for s in some], axis=0) / (64 * 128)
    evaluated = [c.id for c in Cityscapes.classes if not c.ignore_in_eval]
    assert len(evaluated) == 19 and (share[evaluated] > 0).all()
    assert share[ID["road"]] > 10 * share[ID["person"]] and share[ID["car"]] > 10 * share[ID["motorcycle"]]


def test_instances_overlap_and_crowds_occur(some):
    """Neighbouring pixels of two instances at different depths, in most streets; and groups that nobody counted."""
    overlapping = 0
    for street in some:
        a, b = street.instance_ids[:, :-1], street.instance_ids[:, 1:]
        depths = street.disparity[:, :-1].astype(int) - street.disparity[:, 1:]
        overlapping += bool(((a >= 1000) & (b >= 1000) & (a != b) & (np.abs(depths) > 256 // 4)).any())
    assert overlapping > len(some) / 2
    assert {24, 33} & set(np.concatenate([np.unique(s.instance_ids) for s in some]))


def test_disparity_of_the_ground(some):
    """f B / Z on a plane at depth f h / (v − row) is B (v − row) / h: its slope needs no other number."""
    for street in some[:10]:
        row, slope = horizon(street)
        assert slope == pytest.approx(BASELINE / HEIGHT, rel=2e-3)
        assert 0.4 * 64 - 0.3 < row < 0.45 * 64 + 0.3
        rows, _ = np.nonzero(ground := (street.label_ids == ID["sidewalk"]) & (street.disparity > 0))
        np.testing.assert_allclose(pixels(street.disparity)[ground], BASELINE / HEIGHT * (rows + 0.5 - row), atol=0.01)


def test_disparity_of_a_face_across_the_street():
    """2 m × 3 m at 10 m: f B / 10 on all of its 2 f / 10 by 3 f / 10 pixels."""
    camera = Camera(512, 256, 200.0, 150.0)
    focal = FOCAL / 4
    place = streets.Place(1.0, 10.0)
    street = painted(streets.across(place, streets.rect(-1, 1, 0, 3), Material(ID["car"], (200, 0, 0))), camera=camera)
    rows, columns = np.nonzero(street.instance_ids == 26000)
    assert np.ptp(columns) + 1 == pytest.approx(2 * focal / 10, abs=1)
    assert columns.min() == pytest.approx(200, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(3 * focal / 10, abs=1)
    found = pixels(street.disparity)[street.instance_ids == 26000]
    np.testing.assert_allclose(found[np.isfinite(found)], focal * BASELINE / 10, atol=1 / 256)
    assert np.isfinite(found).mean() > 0.95


def test_disparity_of_a_face_along_the_street():
    """On a wall at x the point in column u is at depth f x / (u − column): disparity is B (u − column) / x."""
    camera = Camera(512, 256, 250.0, 110.0)
    wall = Face([(4, 0, 8), (4, 0, 60), (4, 3, 60), (4, 3, 8)], Material(ID["wall"], (90, 90, 90)))
    street = painted(wall, camera=camera)
    _, columns = np.nonzero(valid := (street.label_ids == ID["wall"]) & (street.disparity > 0))
    assert len(columns) > 1000
    expected = BASELINE * (columns + 0.5 - 250) / 4
    np.testing.assert_allclose(pixels(street.disparity)[valid], expected, atol=BASELINE / 4 + 1 / 256)


def test_people_stand_where_their_feet_are():
    """A person has one disparity, and it is the ground's at their feet, where one sees them."""
    stood = 0
    for index in range(12):
        street = streets.street(index, 0, (512, 256))
        row, _ = horizon(street)
        for person in np.unique(street.instance_ids[street.instance_ids // 1000 == ID["person"]]):
            rows, columns = np.nonzero(street.instance_ids == person)
            found = pixels(street.disparity)[rows, columns]
            found = found[np.isfinite(found)]
            if len(found) == 0:
                continue
            assert np.ptp(found) == 0
            foot = rows.max()
            beneath = street.label_ids[foot + 1, columns[rows == foot]] if foot < 255 else np.array([0])
            if np.ptp(rows) > 20 and np.isin(beneath, [ID["road"], ID["sidewalk"]]).all():
                assert found[0] == pytest.approx(BASELINE / HEIGHT * (foot + 1 - row), abs=2 * BASELINE / HEIGHT)
                stood += 1
    assert stood > 5


def test_the_nearer_thing_hides_the_farther_one():
    """Painting follows depth in whole scenes: what is drawn later is nearer, except for the ground."""
    things = streets.scene(np.random.default_rng(1))
    depths = [thing.depth for thing in things]
    assert depths == sorted(depths, reverse=True) and math.isinf(depths[0])
    assert all(abs(y) == 0 for face in things[0].faces for _, y, _ in face.points)


def test_stereo_finds_no_match_beside_what_is_nearer():
    """A square of disparity 8 before a wall of 2 hides the 6 columns to its left from the right camera, whose picture
    begins 2 columns later."""
    disparity = np.full((40, 60), 2.0, dtype=np.float32)
    disparity[10:30, 30:45] = 8
    coded = streets.stereo(disparity, np.ones((40, 60), dtype=bool), np.random.default_rng(0))
    assert (coded[:, :2] == 0).all() and (coded[10:30, 24:30] == 0).all()
    matched = np.ones((40, 60), dtype=bool)
    matched[:, :2], matched[10:30, 24:30] = False, False
    assert (coded[matched] > 0).mean() > 0.9
    np.testing.assert_array_equal(coded[(coded > 0)], (256 * disparity + 1)[coded > 0])


def test_pictures_say_more_than_one_colour_per_class(some):
    """Light, paint and texture vary: classes overlap in colour, and none has one colour."""
    colours = {name: np.concatenate([s.image[s.label_ids == ID[name]] for s in some[:10]]).astype(float) for name in ID}
    for name in ("road", "sidewalk", "building", "vegetation", "car", "person"):
        assert colours[name].std(axis=0).min() > 12
    gap = np.abs(colours["road"].mean(0) - colours["sidewalk"].mean(0)).max()
    assert gap < 2 * colours["road"].std(0).max()


def test_a_finished_folder_is_left_as_it_is(folder):
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    assert streets.write(folder, {"val": 2, "train": 4}, SMALL, seed=7) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    assert files.manifest(folder)["about"] == {
        "version": cityscapes.STREETS_VERSION,
        "train": 4,
        "val": 2,
        "size": [128, 64],
        "seed": 7,
    }


@pytest.mark.parametrize(
    ("counts", "size", "seed"),
    [({"train": 5, "val": 2}, SMALL, 7), ({"train": 4, "val": 2}, (64, 32), 7), ({"train": 4, "val": 2}, SMALL, 8)],
)
def test_other_streets_in_the_same_folder_are_refused(folder, counts, size, seed):
    with pytest.raises(FileExistsError, match=r"holds .* asked for .* Name another folder"):
        streets.write(folder, counts, size, seed)


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"mine holds no files\.json"):
        streets.write(tmp_path / "mine", {"train": 1}, SMALL)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("counts", "size", "seed", "what"),
    [
        ({"training": 3}, SMALL, 0, "training"),
        ({"train": -1}, SMALL, 0, "counts"),
        ({}, SMALL, 0, "at least one"),
        ({"train": 1}, (8, 4), 0, "size"),
        ({"train": 1}, SMALL, -1, "seed"),
    ],
)
def test_senseless_requests_are_refused(tmp_path, counts, size, seed, what):
    with pytest.raises(ValueError, match=what):
        streets.write(tmp_path / "streets", counts, size, seed)
    assert not any(tmp_path.iterdir())


def test_a_killed_writer_leaves_no_folder(tmp_path):
    """Killed while it writes: nothing is there under the folder's name, and the next writer is not disturbed."""
    target = tmp_path / "streets"
    fork = multiprocessing.get_context("fork")
    writer = fork.Process(target=streets.write, args=(target, {"train": 100_000}, (64, 32)))
    writer.start()
    deadline = time.monotonic() + 60
    while not (begun := any(tmp_path.glob(".streets-*/**/*_disparity.png"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.kill()
    writer.join()
    assert begun and writer.exitcode == -signal.SIGKILL
    assert not target.exists()
    assert len(list(streets.write(target, {"train": 2}, (64, 32)).rglob("*_disparity.png"))) == 2


def test_two_writers_at_once(tmp_path):
    """Both are served, the folder is whole, and no draft stays behind."""
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: streets.write(tmp_path / "streets", {"train": 6}, (64, 32)), range(2)))
    assert folders[0] == folders[1] and [file.name for file in tmp_path.iterdir()] == ["streets"]
    assert len(list(folders[0].rglob("*.png"))) == 4 * 6


def test_streets_that_were_damaged_are_written_anew(tmp_path):
    """One lost, one cut, one altered: the folder is as it was, and says so. In the cache also where its manifest is
    lost, for that folder is ours."""
    folder = streets.write(tmp_path / "streets", {"train": 2}, (64, 32))
    whole = {file: file.read_bytes() for file in folder.rglob("*.png")}
    lost, cut, altered, *_ = sorted(whole)
    lost.unlink()
    cut.write_bytes(whole[cut][:-9])
    altered.write_bytes(whole[altered][::-1])
    with pytest.warns(UserWarning, match=f"{folder} is damaged"):
        streets.write(folder, {"train": 2}, (64, 32))
    assert {file: file.read_bytes() for file in folder.rglob("*.png")} == whole
    (folder / files.MANIFEST).unlink()
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="is damaged"):
        patch.setenv("MTL_DATA", str(tmp_path))
        streets.write(folder, {"train": 2}, (64, 32))
    assert files.manifest(folder)["about"]["train"] == 2


# -- read as any folder


def test_torchvision_reads_the_same_maps_from_streets(tmp_path):
    """At full size: image, label ids and instance ids as torchvision has them, and classes by its own table."""
    path = streets.write(tmp_path / "streets", {"train": 3, "val": 1}, size=(128, 64))
    listed = cityscapes.list_folder(path)
    theirs = torchvision.datasets.Cityscapes(path, "train", target_type=["semantic", "instance"])
    order = np.argsort(theirs.images)
    assert len(listed.train) == len(theirs) == 3
    classes = {c.id: c.train_id if 0 <= c.train_id < 19 else cityscapes.IGNORED for c in theirs.classes}
    for name, i in zip(listed.train, order, strict=True):
        ours = cityscapes.read(listed, name)
        image, (labels, instances) = theirs[i]
        assert_array_equal(ours.image, np.asarray(image))
        assert_array_equal(ours.labels, np.asarray(labels))
        assert_array_equal(ours.instances, np.asarray(instances))
        assert_array_equal(cityscapes.reduce(ours, 128).labels, np.vectorize(classes.get)(np.asarray(labels)))


def test_the_embedded_source(tmp_path):
    """Streets are written once and read like any folder; their disparity is that of the resized image."""
    dataset, sizes = cityscapes.Cityscapes(64, 19), (2, 1, 1)
    dataset.check("embedded", sizes, None)
    splits = dataset.load("embedded", sizes, None, torch.device("cpu"), torch.float32)
    assert tuple(len(split) for split in splits.values()) == sizes
    x, (labels, disparity, instances) = splits["train"].batch(torch.tensor([0, 1]), ("S", "D", "I"))
    assert x.shape == (2, 3, 32, 64) and x.isfinite().all()
    assert labels.max() > 5 and disparity.min() >= 0 and 0 < disparity.max() < 64
    assert (instances[:, 2] > 0).any() and (labels[instances[:, 2] > 0] >= 11).all()
    again = cityscapes.Cityscapes(64, 7).load("embedded", sizes, None, torch.device("cpu"), torch.float32)
    assert again["val"].maps.images.data_ptr() == splits["val"].maps.images.data_ptr()  # one copy serves all
