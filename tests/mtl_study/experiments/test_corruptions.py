"""Ten families of corruptions: how much they do, that they can be repeated, and what theory says of each."""

import math

import pytest
import torch
from torch.testing import assert_close

from mtl_study.experiments import corruptions
from mtl_study.experiments.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(channels=3, size=32, count=4):
    """Smooth blobs with a sharp edge, from 0.1 to 0.9."""
    y, x = torch.meshgrid(torch.linspace(0, 3, size), torch.linspace(0, 3, size), indexing="ij")
    blob = 0.5 + 0.4 * torch.sin(2 * x + y) * torch.cos(x - 2 * y)
    blob[size // 2 :] = 1 - blob[size // 2 :]
    return blob.repeat(count, channels, 1, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_climb_and_a_seed_repeats_them(name, channels):
    """The mean distance to the clean picture grows with the severity (of pixelate the share of rows that are lost), and
    everything stays within 0 and 1."""
    clean = torch.rand(4, channels, 32, 32, generator=generator()) if name == "pixelate" else pictures(channels)
    before, distances = clean.clone(), []
    for severity in range(1, 6):
        found = corrupt(clean, name, severity, generator())
        assert found.shape == clean.shape and found.dtype == clean.dtype and found.min() >= 0 and found.max() <= 1
        assert torch.equal(found, corrupt(clean, name, severity, generator()))
        lost = 1 - len(found[0, 0].unique(dim=0)) / 32
        distances.append(lost if name == "pixelate" else float((found - clean).abs().mean()))
    assert torch.equal(clean, before)
    assert distances[0] > 1e-4 and distances[0] < distances[2] < distances[4], distances
    assert len(SEVERITIES[name]) == 5


@pytest.mark.parametrize("name", ["gaussian noise", "shot noise", "impulse noise", "motion", "fog"])
def test_another_seed_is_another_corruption(name):
    clean = pictures()
    one, other = (corrupt(clean, name, 3, generator(seed)) for seed in (0, 1))
    assert not torch.equal(one, other) and not torch.equal(one[0], one[1])


def test_noise_has_the_size_that_is_asked_for():
    grey = torch.full((8, 1, 64, 64), 0.5)
    assert corrupt(grey, "gaussian noise", 3, generator()).std().item() == pytest.approx(0.12, rel=0.03)
    assert corrupt(grey, "shot noise", 3, generator()).std().item() == pytest.approx(math.sqrt(0.5 / 50), rel=0.03)
    struck = corrupt(grey, "impulse noise", 5, generator())
    assert (struck != 0.5).float().mean().item() == pytest.approx(0.14, rel=0.1)
    assert set(struck.unique().tolist()) == {0.0, 0.5, 1.0}


def test_blurs_keep_what_is_even_and_its_mean():
    even = torch.full((2, 3, 20, 20), 0.3)
    for name in ("defocus", "motion"):
        assert_close(corrupt(even, name, 5, generator()), even)
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1.0
    for name in ("defocus", "motion"):
        spread = corrupt(point, name, 4, generator())
        assert spread.sum().item() == pytest.approx(1, abs=1e-5) and spread.max() < 0.5
    disk = corrupt(point, "defocus", 5, generator())
    assert disk[..., 20, 16].item() < 1e-6 < disk[..., 20, 17].item()  # a radius of 3


def test_contrast_and_brightness_by_hand():
    picture = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2)
    assert_close(corrupt(picture, "contrast", 1, generator()).flatten(), torch.tensor([0.32, 0.48]))
    colour = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
    assert_close(corrupt(colour, "brightness", 4, generator()).flatten(), torch.tensor([0.8, 0.4, 0.0]))
    assert_close(corrupt(torch.zeros(1, 3, 1, 1), "brightness", 1, generator()).flatten(), torch.full((3,), 0.1))


def test_plasma_is_noise_that_is_smoother_the_faster_it_decays():
    rough, smooth = (corruptions._plasma(6, 60, decay, generator()) for decay in (1.2, 3.0))
    assert rough.shape == (6, 64, 64) and rough.amin() == 0 and rough.amax() == 1
    step = [float((x - x.roll(1, 2)).abs().mean()) for x in (rough, smooth)]
    assert step[1] < step[0] / 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fogg"}, r"no corruption 'fogg' \(did you mean 'fog'"),
        ({"severity": 6}, "severity = 6"),
        ({"images": torch.full((1, 1, 4, 4), 1.5)}, "undo the normalisation"),
        ({"images": torch.zeros(4, 4)}, r"shape \(4, 4\)"),
    ],
    ids=str,
)
def test_what_cannot_be_corrupted_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        corrupt(**{"images": pictures(), "name": "fog", "severity": 1, "generator": generator()} | change)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("contrast", "contrast"),
        ("brightness", "brightness"),
        ("defocus", "defocus_blur"),
        ("pixelate", "pixelate"),
        ("jpeg", "jpeg_compression"),
    ],
)
def test_those_without_chance_are_those_of_the_maintained_package(ours, theirs, monkeypatch):
    """At its severities, for larger pictures; away from the border, and to the rounding of its bytes."""
    package = pytest.importorskip("imagecorruptions")
    picture = pictures(size=64, count=1)
    larger = {"defocus": (3, 4, 6, 8, 10), "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25), "jpeg": (25, 18, 15, 10, 7)}
    monkeypatch.setitem(SEVERITIES, ours, larger.get(ours, SEVERITIES[ours]))
    monkeypatch.setattr(corruptions, "ALIAS", (0.1, 0.5, 0.5, 0.5, 0.5))
    expected = package.corrupt(
        (255 * picture[0]).round().byte().permute(1, 2, 0).numpy(), corruption_name=theirs, severity=2
    )
    found = corrupt(picture, ours, 2, generator())[0].permute(1, 2, 0)
    inner = slice(12, -12)
    assert_close(found[inner, inner], torch.tensor(expected)[inner, inner].float() / 255, atol=0.007, rtol=0)
