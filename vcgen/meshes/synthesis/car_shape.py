"""The proportions of cars, by kind: side profile, plan and sections of the body, and where windows and wheels go.

Lengths are about meters: x is to the side, y up, z forward, the middle of the wheelbase near z = 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.polygons import Range


class Kind(NamedTuple):
    """Ranges of a kind of car. weight: how often it is made. wheel: radius of the wheels. belt: height at which windows
    begin, as a fraction of the whole height. screen: where the windshield meets the hood, from the tail, in lengths of
    the car; rake: how far behind that its upper edge lies. roof_end: where the roof ends; slope: how far behind that
    the rear window meets the body.
    """

    weight: float
    length: Range
    width: Range
    height: Range
    wheel: Range
    belt: Range
    screen: Range
    rake: Range
    roof_end: Range
    slope: Range


SEDAN = Kind(5, (3.2, 4.6), (1.6, 2.0), (1.2, 1.6), (0.28, 0.40), (0.52, 0.66),
             (0.66, 0.76), (0.07, 0.17), (0.24, 0.34), (0.05, 0.14))  # fmt: skip
KINDS = {
    "sedan": SEDAN,
    "hatchback": Kind(5, (2.8, 3.9), (1.5, 1.9), (1.25, 1.65), (0.28, 0.40), (0.52, 0.66),
                      (0.68, 0.80), (0.08, 0.18), (0.10, 0.24), (0.05, 0.15)),
    "wagon": Kind(3, (3.4, 4.6), (1.6, 1.9), (1.25, 1.6), (0.28, 0.40), (0.52, 0.66),
                  (0.66, 0.76), (0.08, 0.16), (0.05, 0.12), (0.02, 0.08)),
    "coupe": Kind(4, (3.3, 4.5), (1.65, 2.05), (1.05, 1.35), (0.30, 0.42), (0.55, 0.68),
                  (0.60, 0.72), (0.12, 0.2), (0.28, 0.4), (0.12, 0.28)),
    "suv": Kind(5, (3.2, 4.4), (1.75, 2.1), (1.55, 1.95), (0.34, 0.50), (0.52, 0.66),
                (0.66, 0.78), (0.04, 0.14), (0.05, 0.14), (0.0, 0.08)),
    "pickup": Kind(5, (3.4, 4.8), (1.7, 2.1), (1.45, 1.9), (0.34, 0.50), (0.52, 0.66),
                   (0.66, 0.80), (0.04, 0.13), (0.40, 0.50), (-0.02, 0.04)),
    "van": Kind(4, (3.4, 4.6), (1.7, 2.0), (1.7, 2.2), (0.30, 0.42), (0.42, 0.55),
                (0.84, 0.98), (0.05, 0.16), (0.01, 0.04), (0.0, 0.02)),
    "truck": Kind(5, (3.8, 5.2), (1.8, 2.2), (1.9, 2.5), (0.36, 0.50), (0.45, 0.6),
                  (0.88, 0.98), (0.0, 0.08), (0.62, 0.70), (0.0, 0.0)),
    "bus": Kind(2, (4.2, 5.6), (1.8, 2.2), (1.9, 2.5), (0.34, 0.46), (0.38, 0.5),
                (0.97, 0.995), (0.01, 0.05), (0.01, 0.03), (0.005, 0.005)),
    "offroader": Kind(4, (2.9, 3.8), (1.6, 2.0), (1.5, 1.9), (0.38, 0.52), (0.52, 0.66),
                      (0.62, 0.72), (0.01, 0.06), (0.04, 0.3), (0.0, 0.03)),
    "racer": Kind(2, (3.3, 4.4), (1.6, 2.1), (0.9, 1.2), (0.34, 0.46), (0.52, 0.66),
                  (0.55, 0.55), (0.05, 0.05), (0.25, 0.25), (0.02, 0.02)),
    "vintage": Kind(2, (3.0, 4.0), (1.5, 1.8), (1.5, 1.8), (0.36, 0.46), (0.52, 0.66),
                    (0.55, 0.55), (0.05, 0.05), (0.25, 0.25), (0.02, 0.02)),
}  # fmt: skip
HIGH, BOXY = ("suv", "offroader", "pickup", "truck"), ("van", "bus")


class Glass(NamedTuple):
    """Along z: where the windshield meets the hood, the roof begins, ends, and the rear window meets the body."""

    screen: float
    roof: float
    roof_end: float
    rear: float


@dataclass(frozen=True)
class Shape:
    """One car. ground: height of the sills. belt: of the body's upper edge. axles: z of the front and the rear wheels.
    top: the profile, (z, y) from tail to nose. floor: height of a pickup's bed, else None. arch: radius of the wheel
    arches in wheels; cut: whether they are cut out of the body. plan: (z, fraction of the width). section: widths at
    sill, shoulder and upper edge as fractions. waist: height of the widest place between sill and belt. slant: by how
    much nose and tail lean. tumble: width of the roof over that of the belt. sides: of the polygons that wheels are.
    poke: by how much wheels stand out.
    """

    kind: str
    length: float
    width: float
    height: float
    radius: float
    ground: float
    belt: float
    axles: tuple[float, float]
    glass: Glass
    top: tuple[tuple[float, float], ...]
    floor: float | None
    arch: float
    cut: bool
    plan: tuple[tuple[float, float], ...]
    section: tuple[float, float, float]
    waist: float
    chamfer: float
    crown: float
    slant: tuple[float, float]
    tumble: float
    sides: int
    wheel_width: float
    poke: float

    def top_at(self, z: float) -> float:
        """Height of the body without the cabin."""
        return float(np.interp(z, *np.array(self.top).T))

    def half(self, z: float) -> float:
        """Half the width at the widest height."""
        return self.width / 2 * float(np.interp(z, *np.array(self.plan).T))

    def ring(self, z: float, bottom: float, top: float, crown: float = 0.0) -> np.ndarray:
        """(7, 3) half a section: middle below, sill, waist, shoulder, upper edge, edge of a stripe, middle above."""
        w, (sill, shoulder, edge) = self.half(z), self.section
        waist = min(max(self.ground + (self.belt - self.ground) * self.waist, bottom), top - 0.02)
        low, high = min(bottom, waist), max(top - self.chamfer, waist + 0.01)
        x = (0, w * sill, w, w * shoulder, w * edge, w * 0.28, 0)
        y = (low, low, waist, high, top, top + 0.8 * crown, top + crown)
        return np.stack([x, y, np.full(7, z)], 1)


def draw_shape(draws: Draws, kind: str) -> Shape:
    """A car of that kind."""
    u, ranges = draws.between, KINDS[kind]
    length, width, height, radius = (u(*pair) for pair in (ranges.length, ranges.width, ranges.height, ranges.wheel))
    ground = radius * (u(0.75, 1.15) if kind in HIGH else u(0.35, 0.8))
    belt = max(height * u(*ranges.belt), 2.1 * radius, ground + 0.35)
    height = max(height, belt + 0.38)
    ends = length * u(0.14, 0.22), length * u(0.14, 0.24)
    axles = (length / 2 - max(ends[0], 1.12 * radius), -length / 2 + max(ends[1], 1.12 * radius))
    glass = _glass(draws, ranges, length)
    top = _profile(draws, kind, length, glass, belt, ground)
    if kind not in ("racer", "vintage"):  # whose wheels stand free; those of others must not show through a low hood
        over = [np.interp(z + side * radius / 2, *np.array(top).T) for z in axles for side in (-1, 0, 1)]
        radius = min(radius, float(min(over)) / 2.08)
    cut, taper = draws.chance(0.8), (u(0.0, 0.12), u(0.0, 0.1))
    plan = ((-length / 2, 1 - taper[1]), (-0.38 * length, 1.0), (0.35 * length, 1.0), (length / 2, 1 - taper[0]))
    upright = kind in BOXY or kind in ("truck", "offroader")
    return Shape(
        kind,
        length,
        width,
        height,
        radius,
        ground,
        belt,
        axles,
        glass,
        top,
        floor=belt - u(0.25, 0.45) if kind == "pickup" else None,
        arch=1.0 if draws.chance(0.2) or kind == "racer" else u(1.08, 1.28),
        cut=cut,
        plan=plan,
        section=(u(0.9, 1.0), u(0.93, 1.0), u(0.82, 0.95)),
        waist=u(0.25, 0.6),
        chamfer=u(0.02, 0.14),
        crown=u(0, 0.05),
        slant=(0.0 if upright else u(0.0, 0.16), u(0.0, 0.12)),
        tumble=u(0.9, 0.99) if kind in (*BOXY, "truck") else u(0.78, 0.97),
        sides=draws.pick(8, 10, 12, 14, 16),
        wheel_width=u(0.18, 0.34),
        poke=u(-0.08, 0.08) if cut else u(0.02, 0.1),
    )


def _glass(draws: Draws, ranges: Kind, length: float) -> Glass:
    screen, end = draws.between(*ranges.screen), draws.between(*ranges.roof_end)
    places = (screen, screen - draws.between(*ranges.rake), end, max(end - draws.between(*ranges.slope), 0.005))
    return Glass(*(place * length - length / 2 for place in places))


def _profile(
    draws: Draws, kind: str, length: float, glass: Glass, belt: float, ground: float
) -> tuple[tuple[float, float], ...]:
    """(z, y) of trunk, belt and hood from tail to nose; some hoods bend down to the nose."""
    u = draws.between
    nose = belt - (belt - ground) * u(0.05, 0.4)
    hood = belt if kind in BOXY else belt - u(0, 0.12)
    end = hood - 0.05 if kind in BOXY or kind == "offroader" else nose
    top = [(-length / 2, belt - u(-0.04, 0.15)), (glass.rear, belt), (glass.screen, hood), (length / 2, end)]
    if kind in ("sedan", "coupe", "hatchback", "suv", "wagon") and draws.chance(0.6):
        bend = u(0.4, 0.75)
        z = glass.screen + bend * (length / 2 - glass.screen)
        top.insert(3, (z, hood + (nose - hood) * bend * u(0.1, 0.8)))
    return tuple(top)
