"""Synthetic streets, written to disk in Cityscapes' own folder layout and file formats.

A street is a list of flat faces in the world (x right, y up, z ahead, in metres; the camera at x = 0, z = 0, HEIGHT
above the ground), each of one material: one class, colour and texture. A pinhole camera with Cityscapes' focal length
and baseline paints them from far to near. That gives one map, the face that each pixel shows, in which the rest is
looked up:

    label, instance     those of the face
    disparity           f B / Z, where 1 / Z is affine in the pixel (u, v) on any plane; 0 where stereo finds no match
    image               colour in the light of the sun, texture at the point (x, y, z) that the pixel sees, shadow, haze

Street i of a seed is a function of (seed, i) alone, and the same street at every size. It shows no real place: it
has all 19 classes where one expects them, and lets class, depth and instance be learnt from the picture.

Importing this module makes it the drawer of the embedded source in `mtl_core.datasets.cityscapes`. Who changes what is
drawn raises STREETS_VERSION there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from mtl_core import progress
from mtl_core.datasets.cityscapes import CLASSES, KINDS, STREETS_VERSION, WRITERS
from mtl_core.files import prepared

FOCAL, FULL_WIDTH = 2262.52, 2048  # Cityscapes' focal length in pixels, of a picture of this width
BASELINE, HEIGHT = 0.209313, 1.2  # between the two cameras, and of both above the ground, in metres
NEAR, FAR = 2.0, 400.0  # where the ground begins and ends, in metres
FIRST = {"train": 0, "val": 1_000_000}  # index of a split's first street
CITIES = {"train": ("ahausen", "birkstadt", "corbach"), "val": ("ufeld", "wiesbrunn")}  # none is on a map

ID = {c.name: c.id for c in CLASSES}
COUNTED = {c.id for c in CLASSES if c.has_instances}

Colour = Sequence[float] | np.ndarray
Outline = list[tuple[float, float]]  # corners of a polygon in a plane, in metres
T = TypeVar("T")


class Street(NamedTuple):
    """image uint8 [H, W, 3]; label_ids uint8 [H, W]; instance_ids uint16 [H, W], 1000 · label + n for what is counted,
    the plain label for all else and for crowds; disparity uint16 [H, W], 256 · pixels + 1, or 0 where it is invalid."""

    image: np.ndarray
    label_ids: np.ndarray
    instance_ids: np.ndarray
    disparity: np.ndarray


class Camera(NamedTuple):
    """Size in pixels, and the pixel (column, row) where the street vanishes."""

    width: int
    height: int
    column: float
    row: float

    @property
    def focal(self) -> float:
        return FOCAL * self.width / FULL_WIDTH


class Material(NamedTuple):
    """A class and its look: colour, strength and fineness (per metre) of its grain, and a grid of cells of an inner
    colour (windows, slabs, gaps between bars): period and share of the cell, first along and then up or ahead."""

    label: int
    colour: Colour
    rough: float = 0.06
    fine: float = 40.0
    grid: tuple[float, float, float, float] = (1, 0, 1, 0)
    inner: Colour = (0, 0, 0)


class Face(NamedTuple):
    points: list[tuple[float, float, float]]
    material: Material


class Thing(NamedTuple):
    """Faces that are painted together, in this order. Things are painted by falling depth. All its faces of one class
    are one instance, or a crowd, in which nobody is counted."""

    depth: float
    faces: list[Face]
    crowd: bool = False


class Place(NamedTuple):
    """Where a thing is and which way it faces: 0 is away from the camera, π / 2 to the right."""

    x: float
    z: float
    angle: float = 0.0

    def world(self, points: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
        """Points (ahead, right, up) as seen from here."""
        sin, cos = math.sin(self.angle), math.cos(self.angle)
        return [(self.x + a * sin + r * cos, up, self.z + a * cos - r * sin) for a, r, up in points]

    def viewer(self) -> tuple[float, float]:
        """The camera's (ahead, right) as seen from here."""
        sin, cos = math.sin(self.angle), math.cos(self.angle)
        return -self.x * sin - self.z * cos, self.z * sin - self.x * cos


# Chance and shapes


def pick(rng: Generator, choices: Sequence[T], shares: Sequence[float] | None = None) -> T:
    return choices[int(rng.choice(len(choices), p=shares) if shares is not None else rng.integers(len(choices)))]


def tint(rng: Generator, colour: Colour | str, spread: float = 0.12) -> Colour:
    """A colour near this one or one of the palette's: lighter or darker, and a little of another hue."""
    colour = pick(rng, PALETTE[colour]) if isinstance(colour, str) else colour
    light, *hue = (1 + spread * rng.uniform(-1, 1, 4)).tolist()
    return [c * light * (2 + h) / 3 for c, h in zip(colour, hue, strict=True)]


def spaced(rng: Generator, start: float, stop: float, low: float, high: float) -> Iterator[float]:
    """Positions from start to stop, low to high metres apart."""
    at = start + rng.uniform(0, high)
    while at < stop:
        yield at
        at += rng.uniform(low, high)


def rect(left: float, right: float, low: float, high: float) -> Outline:
    return [(left, low), (right, low), (right, high), (left, high)]


@lru_cache
def circle(corners: int) -> Outline:
    """Of radius 1, from its top."""
    turns = [2 * math.pi * (k / corners + 0.25) for k in range(corners)]
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def disc(x: float, y: float, radius: float, corners: int = 12) -> Outline:
    return [(x + radius * u, y + radius * v) for u, v in circle(corners)]


def blob(rng: Generator, x: float, y: float, radius: float) -> Outline:
    """A disc with a ragged edge, nowhere below the ground."""
    radii = rng.uniform(0.75, 1.15, 16).tolist()
    return [(x + r * u, max(0, y + r * v)) for r, (u, v) in zip(radii, disc(0, 0, radius, 16), strict=True)]


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Outline:
    """A thick line."""
    half = width / 2 / math.hypot(x1 - x0, y1 - y0)
    dx, dy = (y1 - y0) * half, (x0 - x1) * half
    return [(x0 - dx, y0 - dy), (x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy)]


def across(place: Place, outline: Outline, material: Material, ahead: float = 0.0) -> Face:
    """An upright face as one sees it who looks along the heading: the outline is (right, up)."""
    return Face(place.world([(ahead, right, up) for right, up in outline]), material)


def along(place: Place, outline: Outline, material: Material, right: float = 0.0) -> Face:
    """An upright face as one sees it from the side: the outline is (ahead, up)."""
    return Face(place.world([(ahead, right, up) for ahead, up in outline]), material)


def flat(x0: float, x1: float, z0: float, z1: float, material: Material) -> Face:
    return Face([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], material)


# Vehicles and people


class Body(NamedTuple):
    """A solid: its outline from the side (ahead, up), clockwise from the foot of its tail, swept over its width. Which
    edges are of glass; windows on the flanks; axles, radius of the wheels and height of the lamps; its
    colours in the palette."""

    outline: Outline
    glass: tuple[int, ...]
    width: float
    windows: Outline
    axles: tuple[float, ...]
    radius: float
    lamp: float
    paint: str


# fmt: off
GLASS, TYRE, METAL, WHITE = (38, 46, 56), (24, 24, 26), (105, 108, 112), (228, 228, 225)
PALETTE = {
    "skin": ((225, 180, 150), (150, 105, 80), (95, 65, 50)),
    "hair": ((40, 32, 28), (90, 65, 45), (150, 145, 140), (165, 130, 80)),
    "cloth": ((30, 32, 40), (45, 60, 100), (120, 30, 35), (200, 200, 195), (90, 80, 65), (60, 95, 70), (190, 150, 60)),
    "paint": (WHITE, (30, 31, 34), (150, 153, 157), (88, 92, 98), (35, 60, 120), (140, 25, 28), (40, 70, 50)),
    "load": ((205, 205, 200), (200, 110, 40), (60, 90, 150), (70, 110, 80), (120, 120, 115)),
    "livery": ((190, 30, 35), (215, 170, 40), (225, 225, 225), (40, 80, 140), (60, 120, 90)),
    "facade": ((190, 175, 150), (170, 120, 95), (205, 200, 190), (150, 148, 142), (185, 160, 110), (140, 85, 70)),
    "pane": (GLASS, (70, 84, 100), (110, 122, 134)),
    "roof": ((130, 65, 50), (85, 80, 82), (105, 75, 60)),
    "leaf": ((58, 84, 38), (72, 96, 44), (46, 70, 36), (96, 104, 48)),
    "stone": ((120, 118, 112), (110, 80, 66), (150, 146, 138)),
    "bars": ((52, 66, 56), (90, 90, 92), (112, 88, 62), (150, 150, 150)),
}
RED, BLUE, YELLOW = (190, 30, 35), (30, 70, 150), (230, 180, 40)
SIGNS = ((RED, WHITE), (BLUE, BLUE), (WHITE, YELLOW), (RED, RED))
BULBS = ((60, 230, 120), (250, 190, 50), (240, 50, 40))
BODIES = {
    "car": (
        Body([(0, 0.3), (0, 0.95), (0.45, 1.45), (2.5, 1.45), (3.3, 0.98), (4.1, 0.72), (4.1, 0.3)], (1, 3), 1.75,
             [(0.3, 0.98), (0.65, 1.36), (2.45, 1.36), (3.1, 0.98)], (0.75, 3.3), 0.32, 0.72, "paint"),
        Body([(0, 0.3), (0, 0.95), (0.75, 1), (1.35, 1.42), (2.5, 1.45), (3.3, 0.98), (4.5, 0.72), (4.5, 0.3)],
             (2, 4), 1.8, [(1, 1), (1.5, 1.36), (2.45, 1.36), (3.1, 0.98)], (0.9, 3.6), 0.32, 0.72, "paint"),
        Body([(0, 0.3), (0, 1), (0.15, 1.8), (3.3, 1.85), (4, 1.05), (4.5, 0.8), (4.5, 0.3)], (1, 3), 1.85,
             [(2.4, 1.1), (2.4, 1.7), (3.2, 1.7), (3.75, 1.1)], (0.8, 3.7), 0.32, 0.75, "paint"),
    ),
    "truck": (
        Body([(0, 0.7), (0, 3.3), (5.6, 3.3), (5.6, 2.6), (6.9, 2.6), (7.3, 1.5), (7.3, 0.5)], (4,), 2.4,
             [(6, 1.5), (6, 2.4), (6.8, 2.4), (7.1, 1.5)], (1.2, 2.2, 6.2), 0.48, 0.6, "load"),
    ),
    "bus": (
        Body([(0, 0.35), (0, 1.5), (0, 2.5), (0, 3), (11, 3), (11, 2.7), (11, 1.1), (11, 0.35)], (1, 5), 2.5,
             rect(0.3, 10.7, 1.3, 2.5), (2.2, 8.6), 0.48, 0.75, "livery"),
    ),
    "train": (
        Body([(0, 0.3), (0, 1.4), (0, 2.6), (0, 3.4), (24, 3.4), (24, 2.8), (24, 1.2), (24, 0.3)], (1, 5), 2.4,
             rect(0.5, 23.5, 1.4, 2.7), (), 0.4, 0.9, "livery"),
    ),
}
# fmt: on


def motor(rng: Generator, x: float, z: float, angle: float, name: str) -> Thing:
    """A car, truck, bus or train, whose nearer end is at z: the faces that the camera sees."""
    body, label = pick(rng, BODIES[name]), ID[name]
    long, tall = rng.uniform(0.92, 1.1), rng.uniform(0.95, 1.08)
    paint, glass = Material(label, tint(rng, body.paint, 0.15), 0.03), Material(label, GLASS, 0.03)
    tyre, hub = Material(label, TYRE), Material(label, METAL)
    outline = [(a * long, up * tall) for a, up in body.outline]
    length, side = outline[-1][0], body.width / 2
    place = Place(x, z + length * (math.cos(angle) < -0.5), angle)
    ahead, right = place.viewer()
    edges = []
    for k, ((a, low), (b, high)) in enumerate(zip(outline, outline[1:] + outline[:1], strict=True)):
        if (b - a) * (HEIGHT - low) > (high - low) * (ahead - a):  # the camera is on the outer side of this edge
            points = place.world([(a, -side, low), (a, side, low), (b, side, high), (b, -side, high)])
            edges.append((-abs((a + b) / 2 - ahead), Face(points, glass if k in body.glass else paint)))
    faces = [face for _, face in sorted(edges, key=lambda edge: edge[0])]
    if abs(right) > side:
        panes = glass._replace(grid=(1.5, 0.06, 9, 1), inner=paint.colour) if length > 8 else glass
        flank = [(outline, paint), ([(a * long, up * tall) for a, up in body.windows], panes)]
        for axle in body.axles:
            flank += [(disc(axle * long, body.radius, r), m) for r, m in ((body.radius, tyre), (body.radius / 2, hub))]
        faces += [along(place, shape, m, math.copysign(side, right)) for shape, m in flank]
    lamp = Material(label, (190, 25, 20) if ahead < 0 else (250, 246, 225))
    end = [(rect(s - 0.12, s + 0.12, 0, 0.4), tyre) for s in (-0.7 * side, 0.7 * side)]
    end += [(rect(s - 0.16, s + 0.16, body.lamp, body.lamp + 0.17), lamp) for s in (-0.8 * side, 0.8 * side)]
    end += [(rect(-0.26, 0.26, 0.5, 0.62), Material(label, WHITE))]
    faces += [across(place, shape, m, 0 if ahead < 0 else length) for shape, m in end]
    return Thing(min(point[2] for face in faces for point in face.points), faces)


def two_wheeler(rng: Generator, place: Place, name: str) -> list[Face]:
    """A bicycle or a motorcycle: its silhouette from the side, and that from behind."""
    label = ID[name]
    tyre, frame, spokes = (Material(label, c) for c in (TYRE, tint(rng, "paint", 0.3), METAL))
    if name == "bicycle":
        side = [(disc(a, 0.34, r), m) for a in (-0.52, 0.52) for r, m in ((0.34, tyre), (0.27, spokes))]
        tubes = ((-0.52, 0.34, -0.15, 0.85), (-0.1, 0.3, 0.4, 0.85), (-0.15, 0.85, 0.4, 0.8), (0.52, 0.34, 0.35, 1.05))
        side += [(bar(*tube, 0.07), frame) for tube in tubes] + [(rect(-0.3, 0, 0.86, 0.95), tyre)]
        back = [(rect(-0.05, 0.05, 0, 0.68), tyre), (rect(-0.06, 0.06, 0.6, 0.95), frame)]
        back += [(rect(-0.28, 0.28, 0.98, 1.05), tyre)]
    else:
        tank = [(-0.95, 0.8), (-0.2, 0.75), (0.3, 1.0), (0.65, 0.95), (0.45, 0.4), (-0.4, 0.3)]
        side = [(disc(a, 0.32, 0.32), tyre) for a in (-0.7, 0.7)]
        side += [(tank, frame), (bar(0.7, 0.32, 0.45, 1.1, 0.12), spokes)]
        lamp = Material(label, (200, 30, 25) if place.viewer()[0] < 0 else (250, 245, 220))
        back = [(rect(-0.1, 0.1, 0, 0.64), tyre), (disc(0, 0.8, 0.27), frame)]
        back += [(rect(-0.42, 0.42, 1.02, 1.1), tyre), (disc(0, 0.85, 0.1), lamp)]
    return [along(place, shape, m) for shape, m in side] + [across(place, shape, m) for shape, m in back]


def person(rng: Generator, place: Place, name: str = "person") -> list[Face]:
    """Someone on foot, or a rider in the saddle, turned to the camera or away from it."""
    rides = name == "rider"
    foot, height = (0.3, 1.35) if rides else (0.0, rng.uniform(1.5, 1.9) * pick(rng, (1, 1, 1, 1, 0.7)))
    colours = (tint(rng, choice, 0.2) for choice in ("cloth", "cloth", "skin", "hair"))
    trousers, top, skin, hair = (Material(ID[name], colour) for colour in colours)
    stride, swing = rng.uniform(0.02, 0.14), rng.uniform(0.02, 0.1)
    chest = [(-0.1, 0.46), (0.1, 0.46), (0.14, 0.82), (0.06, 0.86), (-0.06, 0.86), (-0.14, 0.82)]
    parts = [(bar(s * 0.05, 0.52, s * stride, 0, 0.11), trousers) for s in (-1, 1)]
    parts += [(bar(s * 0.12, 0.8, s * (0.14 + swing), 0.45, 0.06), top) for s in (-1, 1)]
    parts += [(chest, top), (disc(0, 0.93, 0.07), skin), (disc(0, 0.965, 0.066), hair)]
    turned = place._replace(angle=0)
    return [across(turned, [(x * height, foot + y * height) for x, y in shape], m) for shape, m in parts]


def vehicle(rng: Generator, x: float, z: float, angle: float, name: str) -> Thing:
    """Any vehicle on the road. A two-wheeler has its rider."""
    if name in BODIES:
        return motor(rng, x, z, angle, name)
    place = Place(x, z, angle)
    return Thing(z, two_wheeler(rng, place, name) + person(rng, place, "rider"))


# What lines the street


def house(rng: Generator, x: float, z0: float, z1: float, floors: int) -> list[Face]:
    """A house with its front along the street at x, from z0 to z1; it reaches 11 m back from there."""
    storey, bay, back = rng.uniform(2.8, 3.4), rng.uniform(1.8, 3.2), x + math.copysign(11, x)
    height, share = floors * storey + 0.7, rng.uniform(0.35, 0.65)
    colour, pane = tint(rng, "facade", 0.2), tint(rng, "pane", 0.2)
    front = Material(ID["building"], colour, 0.06, 30, (bay, share, storey, rng.uniform(0.4, 0.6)), pane)
    side = front._replace(grid=(bay * 2, 0.25, storey, 0.45))
    faces = [
        Face([(x, 0, z0), (x, 0, z1), (x, height, z1), (x, height, z0)], front),
        Face([(x, 0, z0), (back, 0, z0), (back, height, z0), (x, height, z0)], side),
    ]
    if rng.random() < 0.5:
        tiles = Material(ID["building"], tint(rng, "roof", 0.2), 0.15, 60)
        ridge, top = (x + back) / 2, height + rng.uniform(2, 4)
        faces.append(Face([(x, height, z0), (x, height, z1), (ridge, top, z1), (ridge, top, z0)], tiles))
        faces.append(Face([(x, height, z0), (back, height, z0), (ridge, top, z0)], side))
    return faces


def tree(rng: Generator, x: float, z: float) -> list[Face]:
    """A trunk and a crown of blobs that overlap, all of it vegetation."""
    place, size, leaves = Place(x, z), rng.uniform(0.7, 1.25), np.array(tint(rng, "leaf", 0.2))
    trunk = Material(ID["vegetation"], tint(rng, (72, 60, 48)), 0.3, 80)
    faces = [across(place, bar(0, 0, 0, 3.5 * size, 0.32 * size), trunk)]
    for k in range(5):  # from below and dark to above and light
        crown = Material(ID["vegetation"], tint(rng, leaves * (0.8 + 0.08 * k)), 0.5, 30)
        dx, up = rng.uniform(-1.5, 1.5) * (k < 4), 4.2 + 0.3 * k + rng.uniform(-0.9, 1.1)
        faces.append(across(place, blob(rng, dx * size, up * size, rng.uniform(1.2, 1.9) * size), crown))
    return faces


def barrier(rng: Generator, x: float, z0: float, z1: float, name: str) -> list[Face]:
    """A wall of concrete or brick, a fence of bars or boards, or a hedge."""
    if name == "wall":
        joint, height = np.array(tint(rng, "stone")), rng.uniform(1.4, 3.2)
        material = Material(ID["wall"], joint, 0.14, 50, (1.6, 0.97, 0.42, 0.92), tint(rng, joint * 1.15, 0.05))
    elif name == "fence":
        grid, height = (rng.uniform(0.25, 0.5), 0.6, 1.3, 0.85), rng.uniform(1.0, 1.9)
        material = Material(ID["fence"], tint(rng, "bars"), 0.08, 50, grid, tint(rng, (64, 70, 50)))
    else:
        material, height = Material(ID["vegetation"], tint(rng, "leaf", 0.2), 0.5, 30), rng.uniform(1.1, 1.9)
    ragged = 0.2 * (name == "hedge")
    tops = [(x, height + rng.uniform(-ragged, ragged), z) for z in np.linspace(z1, z0, 9).tolist()]
    return [Face([(x, 0, z0), (x, 0, z1), *tops], material)]


def pole(rng: Generator, x: float, z: float, kind: str) -> Thing:
    """A lamp post, or a pole with a traffic light or with signs."""
    steel, arm = Material(ID["pole"], tint(rng, METAL, 0.25)), -math.copysign(1.8, x)
    if kind == "lamp":
        parts = [(rect(-0.09, 0.09, 0, 7), steel), (bar(0, 6.95, arm, 7.3, 0.12), steel)]
        parts += [(bar(0.6 * arm, 7.28, arm, 7.28, 0.25), steel)]
    elif kind == "light":
        housing, lit = Material(ID["traffic light"], (32, 34, 33)), int(rng.integers(3))
        parts = [(rect(-0.08, 0.08, 0, 3.6), steel), (rect(-0.22, 0.22, 2.6, 3.7), housing)]
        for k, colour in enumerate(np.array(BULBS)):
            bulb = housing._replace(colour=colour * (1.0 if k == lit else 0.25))
            parts.append((disc(0, 2.82 + 0.33 * k, 0.13), bulb))
    else:
        parts = [(rect(-0.05, 0.05, 0, 2.9), steel)]
        for up in (2.5, 1.75)[: int(rng.integers(1, 3))]:
            shape = pick(rng, (disc(0, 0, 0.34), disc(0, 0, 0.38, 3), disc(0, 0, 0.4, 4), rect(-0.3, 0.3, -0.3, 0.3)))
            for scale, colour in zip((1, 0.68), pick(rng, SIGNS), strict=True):
                plate = Material(ID["traffic sign"], tint(rng, colour, 0.05))
                parts.append(([(scale * u, up + scale * v) for u, v in shape], plate))
    return Thing(z, [across(Place(x, z), shape, m) for shape, m in parts])


# The street

TRAFFIC, TRAFFIC_SHARES = ("car", "truck", "bus", "motorcycle", "bicycle"), (0.68, 0.07, 0.07, 0.08, 0.1)


class Plan(NamedTuple):
    """How far the road reaches to the left and right, whether there are rails on its left, where a cross street begins
    (∞: nowhere) and ends, the share of houses along the street, how busy it is, and its ground."""

    left: float
    right: float
    rails: bool
    crossing: tuple[float, float]
    town: float
    busy: float
    road: Material
    paving: Material
    grass: Material

    def free(self, z: float, margin: float) -> bool:
        return not self.crossing[0] - margin < z < self.crossing[1] + margin


def plan(rng: Generator) -> Plan:
    start = rng.uniform(16, 55) if rng.random() < 0.5 else math.inf
    return Plan(
        left=pick(rng, (5.0, 5.0, 8.3)),
        right=pick(rng, (1.75, 1.75, 1.75, 5.1)),
        rails=rng.random() < 0.22,
        crossing=(start, start + 8),
        town=rng.uniform(0.25, 0.85),
        busy=rng.uniform(0.3, 1),
        road=Material(ID["road"], tint(rng, (92, 91, 93)), 0.1, 60),
        paving=Material(
            ID["sidewalk"], tint(rng, (112, 108, 104)), 0.1, 60, (0.8, 0.95, 0.8, 0.95), tint(rng, (132, 127, 122))
        ),
        grass=Material(ID["terrain"], tint(rng, (104, 112, 62)), 0.28, 50),
    )


def fronts(rng: Generator, plan: Plan, x: float) -> Iterator[Thing]:
    """What lines the street at x: houses in rows; walls, fences, hedges or nothing, and what is behind them."""
    shares = [plan.town, *((1 - plan.town) * np.array([0.25, 0.4, 0.2, 0.15]))]
    z, floors, way = 3.0, int(rng.integers(2, 6)), math.copysign(1, x)
    while z < 150:
        end, kind = z + rng.uniform(9, 22), pick(rng, ("house", "wall", "fence", "hedge", "open"), shares)
        if z < plan.crossing[0] < end + 3:
            end = plan.crossing[0]
        elif not plan.free(z, 0.1):
            z = plan.crossing[1] + 0.1
            continue
        faces = []
        if kind == "house":
            faces += house(rng, x, z, end, max(1, floors + int(rng.integers(-1, 2))))
        else:
            if rng.random() < 0.6:
                faces += house(rng, x + way * rng.uniform(5, 14), z, end, int(rng.integers(1, 4)))
            for at in sorted(rng.uniform(z, end, int(rng.integers(0, 3))), reverse=True):
                faces += tree(rng, x + way * rng.uniform(2.5, 5), float(at))
            if kind != "open":
                faces += barrier(rng, x, z, end, kind)
        yield Thing(end, faces)
        z = end


def people(rng: Generator, plan: Plan, x0: float, x1: float) -> Iterator[Thing]:
    """On a sidewalk from x0 to x1: people, alone, in groups, at times a crowd; bicycles and motorcycles at rest."""
    for z in spaced(rng, 7, 60, 5, 22 / plan.busy):
        for _ in range(int(rng.integers(1, 4))):
            place = Place(rng.uniform(x0, x1), z + rng.uniform(-1.5, 1.5))
            yield Thing(place.z, person(rng, place))
    if rng.random() < 0.15 * plan.busy:
        depths = np.sort(rng.uniform(14, 35) + rng.uniform(-1, 1, 7))[::-1].tolist()
        crowd = [person(rng, Place(rng.uniform(x0, x1), z)) for z in depths]
        yield Thing(depths[-1], [face for someone in crowd for face in someone], crowd=True)
    for z in spaced(rng, 5, 90, 12, 45):
        name, number = pick(rng, ("bicycle", "bicycle", "motorcycle")), int(rng.integers(1, 6))
        places = [Place(x0 + rng.uniform(-0.2, 0.2), z + 0.7 * k, rng.uniform(1, 2)) for k in range(number)]
        parked = [Thing(place.z, two_wheeler(rng, place, name)) for place in places[::-1]]
        if number > 3:  # nobody can tell them apart
            yield Thing(z, [face for thing in parked for face in thing.faces], crowd=True)
        else:
            yield from parked


def roadside(rng: Generator, plan: Plan, way: int, edge: float) -> tuple[list[Face], list[Thing]]:
    """Ground and things along the road, from its edge outwards; way is −1 on the left and 1 on the right."""
    parking, verge = 2.3 * (rng.random() < 0.5), rng.uniform(1.2, 3) * (rng.random() < 0.4)
    walk, garden, kerb = rng.uniform(2, 4.5), rng.uniform(2, 6) * (rng.random() < 0.3), edge + parking
    bay = pick(rng, (plan.road, Material(ID["parking"], tint(rng, (112, 104, 98)), 0.12, 60)))
    stone = plan.paving._replace(inner=(165, 163, 158))
    strips: tuple[tuple[float, Material], ...]
    strips = ((parking, bay), (0.2, stone), (verge, plan.grass), (walk, plan.paving), (garden, plan.grass))
    strips = (*strips, (250, pick(rng, (plan.grass, plan.paving))))
    ends = np.cumsum([edge, *(width for width, _ in strips)]).tolist()
    ground = [
        flat(way * a, way * b, NEAR, FAR, m) for a, b, (_, m) in zip(ends, ends[1:], strips, strict=False) if b > a
    ]
    things = [pole(rng, way * (kerb + 0.6), z, "lamp") for z in spaced(rng, 8, 130, 18, 40)]
    things += [pole(rng, way * (kerb + 0.5), z, "sign") for z in spaced(rng, 9, 70, 12, 40)]
    things += people(rng, plan, *sorted((way * (ends[3] + 0.5), way * (ends[4] - 0.3))))
    if parking:
        angle = math.pi * (way < 0)
        things += [motor(rng, way * (edge + 1.25), z, angle, "car") for z in spaced(rng, 6, 110, 5.6, 14)]
    if verge or rng.random() < 0.4:
        shift = kerb + 0.3 + max(verge / 2, 0.6)
        things += [Thing(z, tree(rng, way * shift, z)) for z in spaced(rng, 10, 120, 7, 16)]
    things = [thing for thing in things if plan.free(thing.depth, 5)]
    if plan.crossing[0] < math.inf:
        things += [pole(rng, way * (kerb + 0.5), z, "light") for z in (plan.crossing[0] - 1, plan.crossing[1] + 0.5)]
    return ground, things + list(fronts(rng, plan, way * (ends[5] + 0.1)))


def carriageway(rng: Generator, plan: Plan) -> list[Face]:
    """The road with its lines, rails, and a cross street with its zebra."""
    line = plan.road._replace(colour=(205, 205, 200))
    bed = Material(ID["rail track"], tint(rng, (112, 104, 96)), 0.2, 60)
    faces = [flat(-plan.left, plan.right, NEAR, FAR, plan.road)]
    for x in (-5.0, -1.7, 1.7):
        if -plan.left < x < plan.right - 1:
            faces += [flat(x - 0.07, x + 0.07, z, z + 3, line) for z in np.arange(rng.uniform(2, 11), 90, 9)]
    if plan.rails:
        faces.append(flat(-plan.left - 3, -plan.left, NEAR, FAR, bed))
        rail = bed._replace(colour=(150, 150, 152))
        faces += [flat(-plan.left - a - 0.07, -plan.left - a, NEAR, FAR, rail) for a in (0.75, 2.2)]
    start, end = plan.crossing
    if start < math.inf:
        faces.append(flat(-250, 250, start, end, plan.road))
        faces += [flat(x, x + 0.5, start - 3.6, start - 1, line) for x in np.arange(0.3 - plan.left, plan.right - 0.5)]
    return faces


def traffic(rng: Generator, plan: Plan) -> Iterator[Thing]:
    """Vehicles in their lanes, ours at x = 0 among them; crossing ones, and people on the zebra."""
    for x, angle in ((0.0, 0.0), (3.4, 0.0), (-3.35, math.pi), (-6.65, math.pi)):
        if -plan.left < x < plan.right:
            for z in spaced(rng, 10, 130, 14, 50):
                name = pick(rng, TRAFFIC, TRAFFIC_SHARES)
                shift = rng.uniform(-0.2, 0.2) + math.copysign(0.9, x) * (name == "bicycle")
                yield vehicle(rng, x + shift, z, angle + rng.uniform(-0.06, 0.06), name)
    for z in spaced(rng, 6, 60, 12, 60):
        yield vehicle(rng, plan.right - rng.uniform(0.3, 0.6), z, 0.0, "bicycle")
    if plan.rails:
        yield motor(rng, -plan.left - 1.5, rng.uniform(9, 40), 0.0, "train")
    if plan.crossing[0] < math.inf:
        for x in spaced(rng, -25, 25, 12, 40):
            way = pick(rng, (-1, 1))
            yield vehicle(rng, x, plan.crossing[0] + 4 - 2 * way, way * math.pi / 2, pick(rng, TRAFFIC, TRAFFIC_SHARES))
        for x in rng.uniform(-plan.left, plan.right, int(rng.integers(0, 5))).tolist():
            z = plan.crossing[0] - rng.uniform(1.2, 3.4)
            yield Thing(z, person(rng, Place(x, z)))


def horizon(rng: Generator) -> Iterator[Thing]:
    """Houses and trees far away."""
    for x in range(-110, 110, 12):
        place = Place(x, rng.uniform(190, 260))
        windows, leaves = (3, 0.4, 3, 0.5), tint(rng, "leaf", 0.2)
        house = Material(ID["building"], tint(rng, "facade", 0.2), 0.1, 20, windows, GLASS)
        shapes = (
            (rect(-8, 8, 0, rng.uniform(6, 20)), house),
            (blob(rng, 0, 2, rng.uniform(7, 12)), Material(ID["vegetation"], leaves, 0.5, 10)),
        )
        yield Thing(place.z, [across(place, *pick(rng, shapes))])


def bonnet() -> Thing:
    """The front of the car that carries the camera."""
    edge = [(x, 0.82, 1.75 - 0.12 * x * x) for x in np.linspace(-1, 1, 15).tolist()]
    return Thing(0.0, [Face([(-1, 0.82, 0.6), *edge, (1, 0.82, 0.6)], Material(ID["ego vehicle"], (58, 62, 68), 0.02))])


def scene(rng: Generator) -> list[Thing]:
    """A whole street, from far to near; its ground comes first."""
    design = plan(rng)
    sides = [roadside(rng, design, -1, design.left + 3 * design.rails), roadside(rng, design, 1, design.right)]
    ground = [face for strips, _ in sides for face in strips] + carriageway(rng, design)
    things = [thing for _, standing in sides for thing in standing] + [*traffic(rng, design), *horizon(rng), bonnet()]
    return [Thing(math.inf, ground), *sorted(things, key=lambda thing: -thing.depth)]


# From faces to pixels


class Light(NamedTuple):
    """Direction of the sun, its strength and that of the sky, the sky's colours at the horizon and above, clouds from 0
    to 1, and how far one sees, in metres."""

    sun: tuple[float, float, float]
    direct: float
    ambient: float
    low: Colour
    high: Colour
    clouds: float
    sight: float


def weather(rng: Generator) -> Light:
    clear, turn, rise = rng.uniform(0, 1), rng.uniform(0, 2 * math.pi), rng.uniform(0.45, 1.1)
    sun = (math.cos(rise) * math.sin(turn), math.sin(rise), math.cos(rise) * math.cos(turn))
    low, grey, blue = np.array([214, 219, 222]) * rng.uniform(0.93, 1.07), np.array([178, 184, 190]), (84, 132, 196)
    high = (grey + clear * (blue - grey)).tolist()
    return Light(sun, 0.25 + 0.45 * clear, 0.85 - 0.25 * clear, low.tolist(), high, 1 - clear, rng.uniform(180, 500))


@lru_cache(maxsize=1)
def grain() -> np.ndarray:
    """Noise with detail at every scale, which repeats without a seam: float32 [1024, 1024], mean 0, deviation 1."""
    white = np.fft.rfft2(np.random.default_rng(0).standard_normal((1024, 1024)))
    frequency = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024))
    noise = np.fft.irfft2(white / np.maximum(frequency, 8 / 1024) ** 0.9)
    standard: np.ndarray = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return standard


class Mesh(NamedTuple):
    """All faces at once: corners [V, 3], and where the corners of each face begin [F + 1]."""

    points: np.ndarray
    starts: np.ndarray

    def planes(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Unit normals towards the camera [F, 3], and inverse depth [5, F]: a, b, c of 1 / Z = a u + b v + c at pixel
        (u, v), and its least and greatest value on the face."""
        first, count = self.starts[:-1], np.diff(self.starts)
        points = self.points - (0, HEIGHT, 0)
        following = np.arange(1, len(points) + 1)
        following[self.starts[1:] - 1] = first
        normals = np.add.reduceat(np.cross(points, points[following]), first)  # of a flat polygon: twice its area
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        offset = (normals * np.add.reduceat(points, first)).sum(1) / count
        offset[np.abs(offset) < 1e-3] = 1e-3  # a plane through the camera shows nothing but its edge
        a, b = normals[:, 0] / offset / camera.focal, -normals[:, 1] / offset / camera.focal
        c = normals[:, 2] / offset - a * camera.column - b * camera.row
        inverse = 1 / points[:, 2]
        bounds = np.minimum.reduceat(inverse, first), np.maximum.reduceat(inverse, first)
        return -normals * np.sign(offset)[:, None], np.stack([a, b, c, *bounds])

    def draw(self, canvas: Image.Image, camera: Camera, fills: Sequence[int]) -> np.ndarray:
        """Paints each face with its number, on a canvas of the picture's size or a multiple of it."""
        x, y, z = self.points.T
        scale = canvas.width / camera.width
        u, v = camera.column + camera.focal * x / z, camera.row + camera.focal * (HEIGHT - y) / z
        corners = (np.stack([u, v], axis=1) * scale - 0.5).ravel().tolist()  # the first pixel's centre is at 0.5
        bounds, pen = (2 * self.starts).tolist(), ImageDraw.Draw(canvas)
        for start, end, fill in zip(bounds, bounds[1:], fills, strict=False):
            pen.polygon(corners[start:end], fill=fill)
        return np.asarray(canvas)

    def laid_down(self, sun: tuple[float, float, float]) -> Mesh:
        """The shadows of all faces on the ground, along the sun's rays."""
        shadow = self.points - self.points[:, 1:2] / sun[1] * np.array(sun)
        shadow[:, 2] = np.maximum(shadow[:, 2], NEAR)
        return Mesh(shadow, self.starts)


def cells(at: np.ndarray, share: np.ndarray, sharpness: np.ndarray) -> np.ndarray:
    """How much of a pixel is in cells, one per unit of `at`, that take this share of it: blurred over the width of the
    pixel (sharpness: pixels per unit)."""
    edge = (share / 2 - np.abs(at - np.floor(at) - 0.5)) * sharpness + 0.5
    covered: np.ndarray = share + (np.clip(edge, 0, 1) - share) * np.clip(sharpness - 1, 0, 1)
    return covered


def shade(
    plain: np.ndarray, number: np.ndarray, inverse: np.ndarray, looks: np.ndarray, shadow: np.ndarray,
    camera: Camera, light: Light, rng: Generator,
) -> np.ndarray:  # fmt: skip
    """The picture, uint8 [H, W, 3], from plain colours [H, W, 3], the face of each pixel [H, W], its inverse depth
    [H, W], the looks of all faces [12, F + 1] and the shadow on the ground [H, W]."""
    noise, focal, low = grain(), camera.focal, light.low
    gain = (rng.uniform(0.85, 1.1) * rng.uniform(0.96, 1.04, 3)).tolist()
    top, left = rng.integers(900, size=2)
    sky = noise[top : top + 96, left : left + 48]  # stretched, so that clouds are wider than high
    clouds = np.asarray(Image.fromarray(sky).resize((camera.width, camera.height), Image.Resampling.BICUBIC))

    def at(s: np.ndarray, t: np.ndarray) -> np.ndarray:
        values: np.ndarray = noise[s.astype(np.int32) & 1023, t.astype(np.int32) & 1023]
        return values

    image = np.empty((*number.shape, 3), dtype=np.uint8)
    u = np.arange(camera.width, dtype=np.float32) + 0.5
    for first in range(0, camera.height, 32):  # what fits into the processor's cache
        rows = slice(first, min(first + 32, camera.height))
        v = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
        a, b, ground, rough, fine, period, share, rise, tall, *inner = np.take(looks, number[rows], axis=1)
        z = 1 / np.maximum(inverse[rows], 1e-3)
        x, y = (u - camera.column) / focal * z, HEIGHT - (v - camera.row) / focal * z
        s, t = x + z * (1 - ground), np.where(ground > 0, z, y)  # along the face, and up or ahead
        wide, high = z / focal + z * z * np.abs(a), z / focal + z * z * np.abs(b)  # metres that the pixel spans
        inside = cells(s / period, share, period / wide) * cells(t / rise, tall, rise / high)
        own = 1 + 0.12 * at(np.floor(s / period) * 37, np.floor(t / rise) * 91)  # some cells are lighter than others
        tone = 1 + rough * at(s * fine, t * fine) / (1 + fine * np.maximum(wide, high) / 64)
        tone *= 1 - 0.85 * light.direct / (light.direct + light.ambient) * (shadow[rows] > 0) * ground
        open_sky = number[rows] == 0
        clear = np.where(open_sky, 1, np.exp(-z / light.sight))
        up = np.clip(1 - v / camera.row, 0, 1) ** 0.7
        cloud = np.clip(0.4 * clouds[rows] - 0.4 + light.clouds, 0, 0.8)
        speck = 2.5 * rng.standard_normal(z.shape, dtype=np.float32)
        for k in range(3):
            colour = plain[rows, :, k] + inside * (inner[k] * own - plain[rows, :, k])
            colour = low[k] + (colour * tone - low[k]) * clear
            blue = low[k] + (light.high[k] - low[k]) * up
            colour += open_sky * (blue + (237 - blue) * cloud - low[k])
            image[rows, :, k] = np.clip(colour * gain[k] + speck, 0, 255)
    return image


def stereo(disparity: np.ndarray, seen: np.ndarray, rng: Generator) -> np.ndarray:
    """Disparity in pixels [H, W] in Cityscapes' coding, 256 d + 1; 0 where nothing is matched: outside of what is seen
    [H, W], where the right camera's picture has ended or something nearer hides the point from it, and in specks."""
    right = np.arange(disparity.shape[1], dtype=np.float32) - disparity  # the column where the right camera sees it
    nearest = np.minimum.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    seen = seen & (right >= 0)
    seen[:, :-1] &= right[:, :-1] < nearest[:, 1:]
    rows, columns = ((np.arange(n) * 512 // len(right[0]) + rng.integers(1024)) % 1024 for n in right.shape)
    seen &= grain()[np.ix_(rows, columns)] < 2.2
    return np.where(seen, np.clip(disparity * 256 + 1.5, 1, 65535), 0).astype(np.uint16)


def instance_numbers(things: Sequence[Thing]) -> list[int]:
    """An instance id for each face."""
    ids: list[int] = []
    counts: Counter[int] = Counter()
    for thing in things:
        labels = {face.material.label for face in thing.faces}
        names = {label: label * 1000 + counts[label] for label in labels & COUNTED if not thing.crowd}
        counts.update(names.keys())
        ids += [names.get(face.material.label, face.material.label) for face in thing.faces]
    return ids


def paint(things: Sequence[Thing], camera: Camera, light: Light, rng: Generator) -> Street:
    """What the camera sees of things that are painted in this order. Face 0 is the sky."""
    faces = [face for thing in things for face in thing.faces]
    materials = [face.material for face in faces]
    mesh = Mesh(
        np.array([point for face in faces for point in face.points], dtype=float),
        np.cumsum([0, *(len(face.points) for face in faces)]),
    )
    normals, planes = mesh.planes(camera)
    size, double_size = (camera.width, camera.height), (2 * camera.width, 2 * camera.height)
    double = mesh.draw(Image.new("I", double_size), camera, range(1, len(faces) + 1))
    level = np.abs(normals[:, 1]) > 0.99
    shadow = mesh.laid_down(light.sun).draw(Image.new("L", size), camera, np.where(level, 0, 255).tolist())
    lit = light.ambient + light.direct * np.maximum(normals @ light.sun, 0)
    colours = np.clip([light.low, *(lit[:, None] * [m.colour for m in materials])], 0, 255).astype(np.uint8)
    packed = np.concatenate([colours, colours[:, :1]], axis=1).view(np.uint32)[:, 0]  # one lookup for all channels
    smooth = Image.frombuffer("RGBX", double_size, packed[double], "raw", "RGBX", 0, 1).reduce(2)
    number = double[::2, ::2].astype(np.intp)
    looks = np.array(
        [(0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0), *((0, 0, 0, m.rough, m.fine, *m.grid, *m.inner) for m in materials)]
    )
    looks[1:, :3] = np.stack([*planes[:2], level], axis=1)
    a, b, c, least, most = (np.append(0, row).astype(np.float32)[number] for row in planes)
    u, v = np.arange(camera.width, dtype=np.float32) + 0.5, np.arange(camera.height, dtype=np.float32)[:, None] + 0.5
    inverse = np.clip(a * u + b * v + c, least, most)
    labels = np.array([ID["sky"], *(m.label for m in materials)], dtype=np.uint8)[number]
    instances = np.array([ID["sky"], *instance_numbers(things)], dtype=np.uint16)[number]
    image = shade(np.asarray(smooth), number, inverse, looks.T.astype(np.float32), shadow, camera, light, rng)
    seen = (number > 0) & (labels != ID["ego vehicle"])
    return Street(image, labels, instances, stereo(inverse * np.float32(camera.focal * BASELINE), seen, rng))


def street(index: int, seed: int = 0, size: tuple[int, int] = (512, 256)) -> Street:
    """Street `index` of a seed, at a size (width, height) in pixels."""
    rng = np.random.default_rng((seed, index))
    width, height = size
    camera = Camera(width, height, width * rng.uniform(0.44, 0.56), height * rng.uniform(0.4, 0.45))
    return paint(scene(rng), camera, weather(rng), rng)


# Files


def write(folder: str | Path, counts: Mapping[str, int], size: tuple[int, int] = (512, 256), seed: int = 0) -> Path:
    """Writes streets in Cityscapes' layout, whole or not at all; a finished folder is left as it is, a damaged one is
    written again (see `files.prepared`).

    Args:
        folder: where to put leftImg8bit, gtFine and disparity. counts: streets in "train" and in "val".
        size: width and height in pixels. seed: another seed, other streets.

    Raises:
        ValueError: counts, size or seed make no sense. FileExistsError: the folder holds something else.
    """
    if unknown := set(counts) - set(FIRST):
        raise ValueError(f"streets: `counts` names {sorted(unknown)}; splits are 'train' and 'val'")
    counts = {split: int(counts.get(split, 0)) for split in FIRST}
    if min(counts.values()) < 0 or max(counts.values()) == 0 or max(counts.values()) > FIRST["val"]:
        raise ValueError(f"streets: `counts` is {counts}; expected 0 to {FIRST['val']:,} in each, and at least one")
    if min(size) < 16 or seed < 0:
        raise ValueError(f"streets: size {size} and seed {seed}; expected (width, height) of 16 or more, and seed ≥ 0")
    stamp = {"version": STREETS_VERSION, **counts, "size": [*map(int, size)], "seed": int(seed)}

    def fill(draft: Path) -> None:
        for split, count in counts.items():
            for index in progress.bar(range(count), desc=f"streets, {split}", unit="image", delay=2):
                _save(draft, split, index, street(FIRST[split] + index, seed, size))

    return prepared(Path(folder).resolve(), fill, stamp)


def _save(root: Path, split: str, index: int, street: Street) -> None:
    city = CITIES[split][index % len(CITIES[split])]
    for (folder, suffix, _), array in zip(KINDS.values(), street, strict=True):
        file = root / folder / split / city / f"{city}_{index:06d}_000019{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file, compress_level=3)


WRITERS["streets"] = write
