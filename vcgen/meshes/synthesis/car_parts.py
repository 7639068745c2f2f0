"""What is fastened to the body of a car: wheels, bumpers, lamps, stripes, things on the roof, cargo."""

from collections.abc import Sequence

import numpy as np

from vcgen.meshes.synthesis.car_body import Car, Ends
from vcgen.meshes.synthesis.paint import BLACK, BLUE, EARTH, ORANGE, PALE, STEEL, WOOD, rgb
from vcgen.meshes.synthesis.polygons import Range


def wheels(car: Car, axles: Sequence[float]) -> None:
    """At the body's sides, some under flares."""
    shape, paint, draws = car.shape, car.paint, car.draws
    hub = Hub(car)
    flare = draws.pick(None, None, paint.trim, paint.body, paint.second) if shape.cut else None
    thick, out = draws.between(0.05, 0.13), draws.between(0.01, 0.09)
    angle, near = np.linspace(-0.15, np.pi + 0.15, 8), shape.arch * shape.radius
    for z in axles:
        x = shape.half(z) + shape.poke
        hub.wheels(x, z, shape.radius, shape.wheel_width)
        if flare is not None:
            inner, outer = 0.8 * shape.half(z), max(shape.half(z) + out, x)
            places = ((near, inner), (near, outer), (near + thick, outer - 0.01), (near + thick, inner))
            arcs = [
                np.stack([np.full(8, at), shape.radius + far * np.sin(angle), z + far * np.cos(angle)], 1)
                for far, at in places
            ]
            car.out.strip(arcs, flare, mirror=True)


class Hub:
    """How the wheels of a car look: all alike."""

    def __init__(self, car: Car, bulges: Sequence[float] = (0.008, 0.02, 0.05)):
        paint = car.paint
        self.car = car
        self.fraction, self.bulge = car.draws.between(0.42, 0.75), car.draws.pick(*bulges)
        self.nut = car.draws.pick(None, None, paint.tire, paint.trim, STEEL)

    def wheels(self, x: float, z: float, radius: float, width: float) -> None:
        """Both of an axle: tire, hub, sometimes a nut. x: of the outer side."""
        out, paint, sides = self.car.out, self.car.paint, self.car.shape.sides
        at, side = np.array([x, radius, z]), np.array([1.0, 0, 0])
        out.bar(at - side * width, at - side * 0.05 * width, radius, sides, paint.tire, mirror=True)
        out.bar(at - side * 0.06 * width, at, radius, sides, paint.tire, taper=0.9, mirror=True)
        inner = radius * self.fraction
        out.bar(at - side * 0.01, at + side * self.bulge, inner, sides, paint.hub, taper=0.92, mirror=True)
        if self.nut is not None:
            out.bar(at, at + side * (self.bulge + 0.012), inner / 2, 6, self.nut, mirror=True)


def spare_wheel(car: Car, z: float, y: float) -> None:
    """On the tail at z, its middle at height y."""
    radius, sides = 0.85 * car.shape.radius, car.shape.sides
    car.out.bar((0, y, z + 0.02), (0, y, z - 0.18), radius, sides, car.paint.tire)
    car.out.bar((0, y, z - 0.1), (0, y, z - 0.2), radius / 2, 8, car.paint.hub)


def bumpers(car: Car, ends: Ends) -> None:
    """Bumpers, lamps, grille, plates, exhaust."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    u, nose = draws.between, shape.length / 2
    color = draws.pick(paint.trim, paint.trim, paint.body, rgb(170, 178, 214), paint.second)
    for end, sign in ((nose, 1), (-nose, -1)):
        if draws.chance(0.7):
            w, y = shape.half(end) * u(0.94, 1.06), shape.ground + u(-0.03, 0.08)
            low, high = sorted((end - sign * 0.12, end + sign * u(0.01, 0.1)))
            out.box((-w, w), (y, y + u(0.12, 0.26)), (low, high), color, top=(1, u(0.75, 1)))
    _front_lamps(car, ends.front)
    height, wide = u(0.3, 0.8), u(0.1, 0.28)
    for at in (0.02, 0.98 - wide):
        out.panel(ends.rear, (at, at + wide), (0.5 - height / 2, 0.5 + height / 2), paint.tail_lamp)
    for quad, probability, lift in ((ends.front_low, 0.4, 0.13), (ends.rear_low, 0.4, 0.13), (ends.rear, 0.3, 0.02)):
        if draws.chance(probability):
            out.panel(quad, (0.38, 0.62), (0.25, 0.75), PALE, lift)
    if draws.chance(0.2):
        x, y = 0.5 * shape.half(0), shape.ground + 0.04
        out.bar((x, y, -nose + 0.1), (x, y, -nose - 0.06), 0.05, 6, paint.trim)


def _front_lamps(car: Car, front: list[np.ndarray]) -> None:
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    wide, along = draws.between(0.14, 0.28), (draws.between(0.1, 0.4), draws.between(0.65, 0.95))
    if shape.kind == "offroader" or draws.chance(0.1):
        x, (_, y, z) = 0.68 * shape.half(shape.length / 2), np.mean(front, 0)
        radius = draws.between(0.08, 0.14)
        out.bar((x, y, z - 0.08), (x, y, z + 0.05), radius, 10, paint.trim, cap=paint.lamp, mirror=True)
    else:
        for at in (0.02, 0.98 - wide):
            out.panel(front, (at, at + wide), along, paint.lamp)
        for at in (0.02, 0.93) if draws.chance(0.3) else ():
            out.panel(front, (at, at + 0.05), along, ORANGE, lift=0.02)
    if draws.chance(0.6):
        edge = wide + draws.between(0.02, 0.1)
        out.panel(front, (edge, 1 - edge), along, draws.pick(paint.under, paint.trim, STEEL))


def livery(car: Car) -> None:
    """On the flanks between the axles: doors of another color, a stripe, checks; handles."""
    shape, draws, out = car.shape, car.draws, car.out
    reach = shape.arch * shape.radius + 0.03
    start, end = shape.axles[1] + reach, shape.axles[0] - reach
    if end - start < 0.4:
        return
    a, b = (shape.ring(z, shape.ground, shape.top_at(z), shape.crown) for z in (end, start))
    flank = [a[2], b[2], b[3], a[3]]  # from waist to shoulder
    style, second = draws.between(0, 1), car.paint.other(draws)
    if style < 0.12:
        out.panel(flank, (0, 1), (0, 0.95), second, mirror=True)
    elif style < 0.22:
        low = draws.between(0.1, 0.7)
        out.panel(flank, (0, 1), (low, low + 0.25), second, mirror=True)
    elif style < 0.27:
        color = draws.pick(BLACK, second)
        for i, j in ((i, j) for i in range(10) for j in range(2) if (i + j) % 2):
            out.panel(flank, (i / 10, i / 10 + 0.1), (0.3 + j / 4, 0.55 + j / 4), color, mirror=True)
    for at in (0.35, 0.85) if draws.chance(0.4) else ():
        out.panel(flank, (at, at + 0.08), (0.6, 0.8), car.paint.trim, lift=0.03, mirror=True)


def roof_parts(car: Car, w: float) -> None:
    """Light bar, sign, or rack with load, on a roof of half width w; mirrors."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    u, high, glass = draws.between, shape.height, shape.glass
    middle, span, style = (glass.roof + glass.roof_end) / 2, glass.roof - glass.roof_end, draws.between(0, 1)
    if style < 0.14:
        half, y, z = min(0.2, span / 3) / 2, (high - 0.03, high + u(0.08, 0.16)), middle + u(0, 0.3) * span
        other = draws.pick(rgb(209, 60, 60), BLUE, ORANGE)
        for x, color in (((0.1, 0.8), other), ((-0.8, -0.1), BLUE), ((-0.1, 0.1), PALE)):
            out.box((x[0] * w, x[1] * w), y, (z - half, z + half), color, top=(0.95, 0.8))
    elif style < 0.26:
        half, y = u(0.15, 0.3), (high - 0.03, high + u(0.12, 0.22))
        color = draws.pick(PALE, paint.trim, BLACK, rgb(250, 210, 60))
        out.box((-half, half), y, (middle - 0.1, middle + 0.1), color, top=(0.9, 0.6))
    elif style < 0.40:
        for z in (glass.roof_end + 0.15 * span, glass.roof - 0.15 * span):
            out.box((-0.9 * w, 0.9 * w), (high - 0.04, high + 0.06), (z - 0.03, z + 0.03), paint.trim)
        half, ends = u(0.3, 0.8) * w, (glass.roof_end + 0.1 * span, glass.roof - 0.1 * span)
        if draws.chance(0.6):
            out.box((-half, half), (high + 0.05, high + u(0.12, 0.3)), ends, paint.other(draws), top=(0.85, 0.9))
        else:
            board = (glass.roof_end - 0.2, glass.roof + 0.3)
            out.box((0.55 * w, 0.75 * w), (high + 0.05, high + 0.13), board, paint.other(draws), mirror=True)
    if draws.chance(0.5):
        side, low, z = shape.half(glass.screen) * shape.section[1], shape.belt + 0.03, glass.screen
        color = draws.pick(paint.body, paint.trim)
        out.box((0.9 * side, side + u(0.1, 0.2)), (low, low + 0.13), (z - 0.3, z - 0.2), color, mirror=True)


def cargo(car: Car, x: float, y: float, z: Range) -> None:
    """Crates, earth, logs or nothing, between -x and x, from y up."""
    draws, style = car.draws, car.draws.between(0, 1)
    u = draws.between
    if style < 0.35:
        for _ in range(draws.whole(1, 4)):
            a, b, half = u(-0.6, 0.6) * x, u(*z), u(0.15, 0.35)
            sides = (max(a - half, -x), min(a + half, x)), (max(b - half, z[0]), min(b + half, z[1]))
            car.out.box(sides[0], (y, y + u(0.2, 0.7)), sides[1], car.paint.other(draws))
    elif style < 0.5:
        color = draws.pick(EARTH, rgb(150, 140, 110), rgb(90, 90, 90))
        car.out.box((-x, x), (y, y + u(0.15, 0.5)), z, color, top=(0.5, 0.6))
    for at in (-0.6, 0, 0.6) if 0.5 <= style < 0.65 else ():
        start, end = ((at * x, y + 0.15, place) for place in z)
        car.out.bar(start, end, 0.3 * x, 7, WOOD, cap=rgb(215, 180, 130))
