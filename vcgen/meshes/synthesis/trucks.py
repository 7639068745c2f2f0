"""Trucks: a cab before a box, a tank, a tipper, a flat bed or a fire engine's lockers."""

from dataclasses import replace

import numpy as np

from vcgen.meshes.synthesis.car_body import Car, cabin, lower_body
from vcgen.meshes.synthesis.car_parts import bumpers, cargo, roof_parts, wheels
from vcgen.meshes.synthesis.car_shape import Glass, Shape
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.paint import STEEL
from vcgen.meshes.synthesis.polygons import Range


def truck(car: Car) -> None:
    """The whole of one."""
    car = replace(car, shape=_with_hood(car.shape, car.draws))
    shape, paint, out, u = car.shape, car.paint, car.out, car.draws.between
    ends = lower_body(car, back=shape.glass.rear - 0.02)
    roof_parts(car, cabin(car, 1))
    bumpers(car, ends)
    low, tail = shape.ground + u(0.15, 0.35), -shape.length / 2
    out.box(
        (-0.35 * shape.width, 0.35 * shape.width), (0.9 * shape.ground, low), (tail + 0.1, -tail - 0.3), paint.under
    )
    style = car.draws.pick("box", "box", "flat", "tank", "tipper", "fire")
    deck = max(low, shape.radius * (2.05 if style in ("flat", "tank") else u(1.2, 2.05)))
    x, z, top = (
        shape.width / 2 * u(0.92, 1.06),
        (tail, shape.glass.rear - 0.02 - u(0.02, 0.15)),
        shape.height * u(0.85, 1.15),
    )
    out.box((-x, x), (deck - 0.12, deck), z, paint.trim)
    if style in ("box", "fire"):
        _lockers(car, x, (deck, top), z, style == "fire")
    elif style == "tank":
        radius = min(0.95 * x, (top - deck) / 2 + 0.1)
        out.bar((0, deck + 0.9 * radius, z[0]), (0, deck + 0.9 * radius, z[1]), radius, 12, paint.other(car.draws))
    else:
        _walls(car, x, (deck, deck + (u(0.15, 0.35) if style == "flat" else u(0.5, 0.9))), z)
    end = [(side * x, y, z[0]) for side, y in ((1, deck - 0.12), (-1, deck - 0.12), (-1, deck), (1, deck))]
    for at in (0.1, 0.9):
        out.panel(end, (at - 0.07, at + 0.07), (0.1, 0.9), paint.tail_lamp)
    third = shape.axles[1] + 2.15 * shape.radius
    wheels(car, (*shape.axles, third) if car.draws.chance(0.35) else shape.axles)


def _with_hood(shape: Shape, draws: Draws) -> Shape:
    """The same, or with a hood before the cab."""
    glass = shape.glass
    if draws.chance(0.35):
        screen, roof, end = (z - draws.between(0.10, 0.16) * shape.length for z in glass[:3])
        end = min(end, roof - 0.5)
        glass = Glass(screen, roof, end, end)
    nose = shape.belt - draws.between(0.02, 0.2)
    half = shape.length / 2
    top = ((-half, shape.belt), (glass.rear, shape.belt), (glass.screen, shape.belt), (half, nose))
    return replace(shape, glass=glass, top=top)


def _lockers(car: Car, x: float, y: Range, z: Range, fire: bool) -> None:
    """A closed box with a door at the end; of a fire engine with shutters and a ladder."""
    paint, out, draws = car.paint, car.out, car.draws
    color = paint.body if fire else paint.other(draws)
    out.box((-x, x), y, z, color, top=(draws.between(0.9, 1), 1))
    flank = [(x, y[0], z[1]), (x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1])]
    end = [(x, y[0], z[0]), (-x, y[0], z[0]), (-x, y[1], z[0]), (x, y[1], z[0])]
    out.panel(end, (0.06, 0.94), (0.06, 0.92), draws.pick(0.85 * color, paint.trim), lift=0.02)
    if not fire:
        if draws.chance(0.5):
            low = draws.between(0.1, 0.6)
            band = (low, low + draws.between(0.1, 0.3))
            out.panel(flank, (0, 1), band, paint.other(draws), lift=0.02, mirror=True)
        return
    for i in range(3):
        out.panel(flank, (0.05 + 0.31 * i, 0.33 + 0.31 * i), (0.2, 0.8), paint.trim, lift=0.02, mirror=True)
    out.box((0.15, 0.25), (y[1], y[1] + 0.12), (z[0], z[1] + 0.5), STEEL, mirror=True)
    for place in np.linspace(z[0] + 0.1, z[1] + 0.4, 7):
        out.box((-0.2, 0.2), (y[1] + 0.03, y[1] + 0.08), (place - 0.03, place + 0.03), STEEL)


def _walls(car: Car, x: float, y: Range, z: Range) -> None:
    """Low walls around a bed with cargo."""
    color = car.paint.other(car.draws)
    car.out.box((x - 0.08, x), y, z, color, mirror=True)
    for place in (z[0], z[1] - 0.08):
        car.out.box((-x, x), y, (place, place + 0.08), color)
    cargo(car, 0.85 * x, y[0], (z[0] + 0.15, z[1] - 0.15))
