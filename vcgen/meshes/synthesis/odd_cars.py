"""Cars with another build: racers with open wheels and wings, vintage cars with separate fenders."""

from dataclasses import replace

import numpy as np

from vcgen.meshes.synthesis.car_body import Car, cabin
from vcgen.meshes.synthesis.car_parts import Hub, spare_wheel
from vcgen.meshes.synthesis.car_shape import Glass
from vcgen.meshes.synthesis.paint import STEEL


def racer(car: Car) -> None:
    """A narrow body, wings in front and behind, a cockpit with a helmet in it."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    u, length, width, tail = draws.between, shape.length, shape.width, -shape.length / 2
    low, deck, w, mid = shape.ground, shape.ground + u(0.3, 0.5), width * u(0.2, 0.3), u(-0.2, 0.1) * length
    out.box((-w, w), (low, deck), (-0.42 * length, mid + 0.25 * length), paint.body, top=(0.85, 0.95))
    nose = (mid + 0.2 * length, -tail)
    out.box(
        (-0.9 * w, 0.9 * w), (low, 0.95 * deck), nose, paint.second, top=(0.5, 0.5), lean=-0.25 * (nose[1] - nose[0])
    )
    pods = (mid - 0.25 * length, mid + 0.1 * length)
    out.box((0.9 * w, w * u(1.5, 1.8)), (low, 0.9 * deck), pods, paint.second, top=(0.8, 0.7), mirror=True)
    cover = (-0.4 * length, mid - 0.02 * length)
    out.box((-0.6 * w, 0.6 * w), (deck - 0.02, shape.height), cover, paint.body, top=(0.5, 0.35), lean=0.06 * length)
    cockpit = (mid + 0.02 * length, mid + 0.16 * length)
    out.box((-0.55 * w, 0.55 * w), (deck - 0.02, deck + 0.16), cockpit, paint.glass, top=(0.7, 0.6), lean=-0.03)
    helmet = mid + 0.03 * length
    out.bar((0, deck, helmet), (0, deck + 0.3, helmet), 0.14, 8, paint.other(draws))
    color, wing = draws.pick(paint.trim, paint.body, paint.second), shape.height * u(0.75, 1.0)
    out.box((-0.48 * width, 0.48 * width), (low, low + 0.07), (-tail - 0.35, -tail), color)
    out.box((-0.42 * width, 0.42 * width), (wing, wing + 0.06), (tail, tail + 0.35), color)
    out.box((0.38 * width, 0.42 * width), (low + 0.2, wing + 0.15), (tail, tail + 0.4), color, mirror=True)
    hub = Hub(car, bulges=(0.03,))
    for z, radius, wide in zip(
        shape.axles, (0.9 * shape.radius, u(1.0, 1.2) * shape.radius), (0.34, 0.42), strict=True
    ):
        hub.wheels(width / 2, z, radius, wide)
        out.bar((-0.45 * width, shape.radius, z), (0.45 * width, shape.radius, z), 0.05, 6, paint.trim)


def vintage(car: Car) -> None:
    """An upright cabin, a narrow hood, fenders and running boards, round lamps."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    u, length, width, nose = draws.between, shape.length, shape.width, shape.length / 2 - 0.12
    low, belt, w = shape.ground + 0.1, max(shape.belt, 2.2 * shape.radius), width * u(0.30, 0.36)
    screen, rear = u(0.02, 0.12) * length, -length / 2 + u(0.05, 0.15) * length
    out.box((-w, w), (low, belt), (rear, screen), paint.body)
    out.box((-0.85 * w, 0.85 * w), (low, belt - 0.03), (screen, nose), paint.second, top=(0.8, 1))
    grille = [(-0.8 * w, low, nose), (0.8 * w, low, nose), (0.68 * w, belt, nose), (-0.68 * w, belt, nose)]
    out.panel(grille, (0.1, 0.9), (0.15, 0.9), draws.pick(STEEL, paint.trim))
    glass = Glass(screen, screen - u(0.02, 0.12), rear + u(0, 0.25), rear)
    narrow = replace(
        shape,
        glass=glass,
        belt=belt,
        height=max(shape.height, belt + 0.5),
        width=2 * w,
        section=(1, 1, 0.98),
        top=((-length / 2, belt), (length / 2, belt)),
    )
    cabin(replace(car, shape=narrow), draws.whole(1, 2))
    out.box((w, width / 2), (low, low + 0.07), (shape.axles[1], shape.axles[0]), paint.trim, mirror=True)
    angle, far = np.linspace(-0.1 * np.pi, 1.1 * np.pi, 8), 1.2 * shape.radius
    for z in shape.axles:
        sides = (0.8 * w, width / 2 + 0.04)
        arcs = [
            np.stack([np.full(8, x), shape.radius + far * np.sin(angle), z + far * np.cos(angle)], 1) for x in sides
        ]
        out.strip(arcs[::-1], paint.second, mirror=True)
    x, y, z = 0.95 * w, belt - 0.15, length / 2 - 0.3
    out.bar((x, y, z), (x, y, z + 0.2), 0.1, 10, paint.trim, cap=paint.lamp, mirror=True)
    out.box((-0.45 * width, 0.45 * width), (low, low + 0.1), (length / 2 - 0.05, length / 2), paint.trim)
    hub = Hub(car, bulges=(0.02,))
    for z in shape.axles:
        hub.wheels(width / 2 + 0.02, z, shape.radius, 0.8 * shape.wheel_width)
    if draws.chance(0.5):
        spare_wheel(car, rear, low + 0.4)
