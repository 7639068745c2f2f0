"""Low-poly cars of twelve kinds, by the thousand: 500 to 2,000 faces each, no two alike."""

from collections.abc import Sequence

import numpy as np

from vcgen.meshes.surface import Surface
from vcgen.meshes.synthesis.car_body import Car, cabin, lower_body
from vcgen.meshes.synthesis.car_parts import bumpers, cargo, livery, roof_parts, spare_wheel, wheels
from vcgen.meshes.synthesis.car_shape import KINDS, draw_shape
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.odd_cars import racer, vintage
from vcgen.meshes.synthesis.paint import Paint, car_paint
from vcgen.meshes.synthesis.polygons import Polygons
from vcgen.meshes.synthesis.trucks import truck

#: Windows on each side, (fewest, most); two where nothing is said.
WINDOWS = {"bus": (4, 7), "wagon": (3, 3), "coupe": (1, 2), "suv": (2, 3), "van": (1, 3), "pickup": (1, 2)}


def make_car(random: np.random.Generator, paint: Paint = "vivid", kinds: Sequence[str] = tuple(KINDS)) -> Surface:
    """A car of one of the kinds, drawn by their weights; z up, its front to -y."""
    draws = Draws(random)
    weights = np.array([KINDS[kind].weight for kind in kinds], float)
    kind = kinds[random.choice(len(kinds), p=weights / weights.sum())]
    car = Car(draw_shape(draws, kind), car_paint(draws, paint), Polygons(), draws)
    {"racer": racer, "truck": truck, "vintage": vintage}.get(kind, ordinary)(car)
    return car.out.surface(draws.between(0.05, 0.25) if draws.chance(0.4) else 0.0)


def ordinary(car: Car) -> None:
    """A body with a cabin on four wheels, and what goes with its kind."""
    shape, draws = car.shape, car.draws
    ends = lower_body(car)
    w = shape.half(0) * shape.section[2]
    if shape.kind == "offroader" and draws.chance(0.5):
        _open_top(car, w)
    else:
        windows = draws.whole(*WINDOWS.get(shape.kind, (2, 2)))
        roof_parts(car, cabin(car, windows, closed=shape.kind == "van" and windows < 2))
    bumpers(car, ends)
    livery(car)
    wheels(car, shape.axles)
    if shape.kind in ("coupe", "sedan", "hatchback", "suv", "wagon") and draws.chance(0.3):
        _spoiler(car, w)
    if shape.kind in ("suv", "offroader") and draws.chance(0.45):
        spare_wheel(car, -shape.length / 2, shape.ground + 0.6 * (shape.belt - shape.ground))
    if shape.kind in ("offroader", "pickup", "suv") and draws.chance(0.25):
        _bull_bar(car, w)
    if shape.kind == "pickup":
        _load(car, w)


def _open_top(car: Car, w: float) -> None:
    """Windshield, seats, roll bar."""
    shape, paint, out, glass = car.shape, car.paint, car.out, car.shape.glass
    y, top = shape.belt, shape.height
    x, xs = np.array([-w, w, 0.95 * w, -0.95 * w]), (y - 0.05, y - 0.05, top, top)
    quad = np.stack([x, xs, [glass.screen, glass.screen, glass.roof, glass.roof]], 1)
    out.face(quad, paint.body)
    for side in (quad, quad[[1, 0, 3, 2]]):
        out.panel(side, (0.06, 0.94), (0.12, 0.88), paint.glass)
    out.box((-0.9 * w, 0.9 * w), (y - 0.1, y + 0.015), (-shape.length / 2 + 0.15, glass.screen - 0.1), paint.under)
    for z in (glass.roof_end + 0.3, glass.roof_end + 0.3 + car.draws.between(0.4, 0.8)):
        out.bar((0.85 * w, y, z), (0.8 * w, top, z), 0.05, 6, paint.trim, mirror=True)
        out.bar((-0.85 * w, top, z), (0.85 * w, top, z), 0.05, 6, paint.trim)
    seats = glass.screen - 0.75, glass.screen - 0.6
    out.box((0.1 * w, 0.8 * w), (y, y + 0.3), seats, paint.trim, mirror=True)


def _spoiler(car: Car, w: float) -> None:
    """A wing on the trunk, or a lip at the end of the roof."""
    shape, paint, out, draws = car.shape, car.paint, car.out, car.draws
    color = draws.pick(paint.body, paint.trim, paint.second)
    if shape.kind not in ("coupe", "sedan"):
        end = shape.glass.roof_end
        out.box((-0.75 * w, 0.75 * w), (shape.height - 0.06, shape.height + 0.01), (end - 0.22, end + 0.05), color)
        return
    z, y, lift = -shape.length / 2 + 0.2 + shape.slant[1], shape.top_at(-shape.length / 2), draws.between(0.05, 0.28)
    out.box((0.6 * w, 0.7 * w), (y - 0.05, y + lift), (z - 0.06, z + 0.06), color, mirror=True)
    out.box((-0.95 * w, 0.95 * w), (y + lift, y + lift + 0.05), (z - 0.14, z + 0.12), color)


def _bull_bar(car: Car, w: float) -> None:
    y, z, color = car.shape.ground + 0.1, car.shape.length / 2 + 0.1, car.paint.trim
    car.out.box((-0.7 * w, 0.7 * w), (y + 0.28, y + 0.36), (z - 0.04, z + 0.04), color)
    car.out.box((0.5 * w, 0.6 * w), (y - 0.1, y + 0.36), (z - 0.16, z + 0.04), color, mirror=True)


def _load(car: Car, w: float) -> None:
    """The load in a pickup's bed; sometimes a bar behind the cabin."""
    shape, out, color, z = car.shape, car.out, car.paint.trim, car.shape.glass.rear - 0.12
    assert shape.floor is not None, "pickups have one"
    cargo(car, 0.75 * w, shape.floor, (-shape.length / 2 + 0.2, z + 0.02))
    if car.draws.chance(0.3):
        out.bar((0.8 * w, shape.belt, z), (0.75 * w, shape.height, z), 0.05, 6, color, mirror=True)
        out.box((-0.8 * w, 0.8 * w), (shape.height - 0.08, shape.height), (z - 0.04, z + 0.04), color)
