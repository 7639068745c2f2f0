"""The body of a car: a loft of sections from tail to nose with arches cut out, and the cabin with its windows on it."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vcgen.meshes.synthesis.car_shape import Shape
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.paint import CarPaint
from vcgen.meshes.synthesis.polygons import MIRROR, Polygons

#: Half the thickness of a step in the loft.
STEP = 1e-3


@dataclass(frozen=True)
class Car:
    """A car that is being made: its shape and colors, what is there of it, and the choices still to come."""

    shape: Shape
    paint: CarPaint
    out: Polygons
    draws: Draws


class Ends(NamedTuple):
    """Quads (lower left, lower right, upper right, upper left, from outside) that lamps and plates go on."""

    front_low: list[np.ndarray]
    front: list[np.ndarray]
    rear_low: list[np.ndarray]
    rear: list[np.ndarray]


def lower_body(car: Car, back: float | None = None) -> Ends:
    """Everything below the windows. back: z at which it ends, unless at the tail."""
    shape, paint, out = car.shape, car.paint, car.out
    tail = -shape.length / 2 if back is None else back
    rings, in_bed = _sections(shape, tail)
    stripe = paint.body if paint.stripe is None else paint.stripe
    for p, q, inside in zip(rings, rings[1:], (a and b for a, b in itertools.pairwise(in_bed)), strict=False):
        behind = p[0, 2] < shape.glass.rear - 0.01
        side = paint.tail if behind else paint.body
        colors = [
            paint.under,
            paint.sill,
            side,
            side,
            *([paint.bed] * 2 if inside else [side, side if behind else stripe]),
        ]
        for i, color in enumerate(colors):
            out.face([p[i], q[i], q[i + 1], p[i + 1]], color, mirror=True)
    if shape.floor is not None:
        _bed_walls(car)
    w, z = 0.72 * shape.half(0), (tail + 0.15, shape.length / 2 - 0.15)
    lid = min(shape.top_at(z[0]), shape.top_at(z[1]), np.inf if shape.floor is None else shape.floor)
    out.box((-w, w), (0.9 * shape.ground, min(1.6 * shape.radius, lid - 0.08)), z, paint.under)
    return _ends(car, rings[0], rings[-1])


def _bed(shape: Shape) -> tuple[float, float]:
    """Along z, where a pickup's bed begins and ends; nowhere for others."""
    return (np.inf, np.inf) if shape.floor is None else (-shape.length / 2 + 0.1, shape.glass.rear - 0.02)


def _sections(shape: Shape, tail: float) -> tuple[list[np.ndarray], list[bool]]:
    """Half sections (7, 3) from tail to nose, and whether each is of the bed."""
    reach, bed = shape.arch * shape.radius, _bed(shape)
    places = {tail, shape.length / 2, *(z for z, _ in shape.top), *(z for z, _ in shape.plan)}
    if shape.cut:
        arcs = [axle + reach * np.cos(np.linspace(0, np.pi, 7)) for axle in shape.axles]
        places |= {*np.concatenate(arcs), *(axle + side * (reach + STEP) for axle in shape.axles for side in (-1, 1))}
    places |= {bed[0], bed[0] + STEP, bed[1], bed[1] - STEP}
    rings, in_bed = [], []
    for z in sorted(z for z in places if tail <= z <= shape.length / 2):
        inside = bed[0] + STEP / 2 < z < bed[1] - STEP / 2
        top, bottom = shape.floor if inside and shape.floor else shape.top_at(z), shape.ground
        for room in (reach**2 - (z - axle) ** 2 for axle in shape.axles if shape.cut):
            bottom = max(bottom, shape.radius + np.sqrt(max(room, 0)) if room >= -1e-9 else bottom)
        lift = 0.3 * shape.slant[int(z < 0)] if abs(z) == shape.length / 2 else 0
        rings.append(shape.ring(z, min(bottom, top - 0.03) + lift, top, 0 if inside else shape.crown))
        in_bed.append(inside)
    for ring, lean in ((rings[-1], shape.slant[0]), (rings[0], -shape.slant[1])):  # upper points lie further in
        ring[3:, 2] -= lean
        ring[:2, 2] -= 0.5 * lean
    return rings, in_bed


def _bed_walls(car: Car) -> None:
    shape, bed = car.shape, _bed(car.shape)
    assert shape.floor is not None, "pickups have one"
    w, y = shape.half(0) * shape.section[1], (shape.floor - 0.02, shape.belt + car.draws.between(-0.02, 0.08))
    car.out.box((0.86 * w, w), y, bed, car.paint.tail, mirror=True)
    car.out.box((-w, w), y, (-shape.length / 2 + 0.01, -shape.length / 2 + 0.12), car.paint.tail)


def _ends(car: Car, rear: np.ndarray, front: np.ndarray) -> Ends:
    """Close nose and tail."""
    quads = []
    for ring, sign in ((front, 1), (rear, -1)):
        other = ring * MIRROR
        for i, color in ((1, car.paint.sill), (2, car.paint.body), (3, car.paint.body), (4, car.paint.body)):
            quad = [other[i], ring[i], ring[i + 1], other[i + 1]]
            car.out.face(quad[::sign], color)
            if i < 3:
                quads.append(quad if sign > 0 else [quad[1], quad[0], quad[3], quad[2]])
        car.out.face([other[5], ring[5], ring[6]], car.paint.body)
    return Ends(*quads)


def cabin(car: Car, windows: int = 2, closed: bool = False) -> float:
    """Roof, posts and windows. windows: on each side; closed: none in the rear half. Returns half the roof's width."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    base = shape.belt - 0.03
    low = shape.half(0) * shape.section[2] * draws.between(0.94, 1.0)
    high, rise = low * shape.tumble, draws.between(0, 0.05)
    front = base - max(0.0, shape.belt - shape.top_at(shape.glass.screen))
    corners = zip(
        (low, high, high, low), (front, shape.height - rise / 2, shape.height - rise, base), shape.glass, strict=True
    )
    a, b, c, d = np.array(list(corners))  # the corners of a side: windshield below, above, rear window above, below
    ridge = [b, 0.75 * b + 0.25 * c + [0, rise, 0], 0.3 * b + 0.7 * c + [0, 1.1 * rise, 0], c]
    screen, rear, side = [a * MIRROR, a, b, b * MIRROR], [d, d * MIRROR, c * MIRROR, c], [a, d, c, b]
    out.face(side, paint.body, mirror=True)
    out.face([b, c, ridge[2], ridge[1]], paint.body, mirror=True)
    out.face(screen, paint.body)
    out.face(rear, paint.tail)
    for p, q in itertools.pairwise(ridge):
        out.face([p * MIRROR, p, q, q * MIRROR], paint.roof)
        if paint.stripe is not None:
            p, q = (point * [0.28, 1, 1] + [0, 0.012, 0] for point in (p, q))
            out.face([p * MIRROR, p, q, q * MIRROR], paint.stripe)
    post, sill, lintel = draws.between(0.02, 0.1), draws.between(0.04, 0.16), 1 - draws.between(0.06, 0.18)
    out.panel(screen, (post, 1 - post), (sill, lintel + 0.03), paint.glass)
    if (not closed and shape.kind != "bus") or draws.chance(0.5):
        out.panel(rear, (post + 0.02, 0.98 - post), (sill + 0.05, lintel), paint.glass)
    last = draws.between(0.25, 0.45) if closed else 1 - draws.between(0.04, 0.12)
    edges = np.linspace(draws.between(0.04, 0.1), last, windows + 1)
    if windows == 2:
        edges[1] += draws.between(-0.1, 0.08)
    gap = 0 if draws.chance(0.15) else draws.between(0.012, 0.035)
    for start, end in itertools.pairwise(edges):
        out.panel(side, (start + gap, end - gap), (sill, lintel), paint.glass, mirror=True)
    return high
