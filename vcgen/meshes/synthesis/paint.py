"""Colors, sRGB in [0, 1], of synthesized objects: any hue, those of cars on the road, or gray."""

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vcgen.meshes.synthesis.draws import Draws

Paint = Literal["vivid", "natural", "gray"]
#: Hues and how often they are painted: reds, oranges, yellows and blues more often than greens and purples (ours).
HUES = {0.0: 5, 0.06: 3, 0.13: 3, 0.3: 1, 0.4: 1, 0.52: 2, 0.6: 5, 0.68: 1, 0.8: 0.5, 0.93: 1}
#: Colors as most cars on the road have them, and roughly how often (ours).
ROAD = {
    (242, 243, 244): 28,
    (24, 25, 28): 20,
    (96, 100, 105): 16,
    (176, 180, 184): 11,
    (38, 66, 120): 8,
    (86, 132, 178): 3,
    (160, 28, 32): 7,
    (104, 22, 30): 2,
    (32, 66, 48): 2,
    (118, 96, 74): 2,
    (206, 190, 160): 2,
    (222, 176, 40): 1,
    (214, 98, 34): 1,
}
GRAYS = (0.12, 0.2, 0.55, 0.72, 0.78, 0.9, 0.96)
#: The least difference of brightness between windows and what surrounds them.
CONTRAST = 0.18


def rgb(red: int, green: int, blue: int) -> np.ndarray:
    """A color of 8-bit numbers."""
    return np.array([red, green, blue]) / 255


GLASS = [
    rgb(*color)
    for color in (
        (160, 232, 248),
        (90, 210, 230),
        (153, 217, 234),
        (27, 27, 27),
        (40, 42, 47),
        (228, 230, 240),
        (213, 237, 255),
        (121, 131, 136),
        (36, 47, 51),
        (120, 170, 220),
    )
]
TRIM = [
    rgb(*color)
    for color in ((82, 82, 82), (46, 46, 46), (103, 103, 124), (134, 134, 134), (117, 112, 143), (27, 27, 27))
]
TIRE = [
    rgb(*color) for color in ((82, 82, 82), (54, 54, 58), (27, 27, 33), (41, 41, 29), (39, 39, 39), (103, 103, 124))
]
HUB = [
    rgb(*color)
    for color in ((165, 165, 165), (112, 112, 112), (255, 255, 255), (180, 166, 0), (126, 130, 152), (60, 60, 66))
]
LAMP = [rgb(*color) for color in ((255, 255, 255), (255, 252, 247), (243, 230, 65), (255, 200, 90), (209, 149, 90))]
TAIL_LAMP = [rgb(*color) for color in ((209, 77, 69), (255, 120, 100), (200, 30, 30), (222, 44, 70))]
UNDER = [rgb(*color) for color in ((30, 30, 32), (54, 54, 58), (70, 70, 74))]
BLUE, ORANGE, WOOD, EARTH = rgb(58, 111, 209), rgb(255, 150, 60), rgb(140, 95, 60), rgb(120, 85, 60)
PALE, STEEL, BLACK = rgb(243, 243, 238), rgb(190, 190, 195), rgb(30, 30, 30)


def paint(draws: Draws, kind: Paint) -> np.ndarray:
    """A color (3,) for what may have any."""
    if kind == "gray":
        return np.full(3, draws.between(0.35, 0.85))
    if kind == "natural":
        colors, weights = np.array(list(ROAD)) / 255, np.array(list(ROAD.values()), float)
        color = colors[draws.random.choice(len(colors), p=weights / weights.sum())]
        return (color * draws.between(0.85, 1.12) + draws.random.normal(0, 0.015, 3)).clip(0, 1)
    if draws.chance(0.25):
        return (draws.pick(*GRAYS) * draws.between(0.9, 1.03) + draws.random.normal(0, 0.02, 3)).clip(0, 1)
    weights = np.array(list(HUES.values()), float)
    hue = list(HUES)[draws.random.choice(len(HUES), p=weights / weights.sum())] + draws.random.normal(0, 0.02)
    return np.array(colorsys.hsv_to_rgb(hue % 1, draws.between(0.25, 0.95), draws.between(0.35, 1)))


def brightness(color: np.ndarray) -> float:
    """Between black, 0, and white, 1, as eyes weigh red, green and blue."""
    return float(color @ [0.299, 0.587, 0.114])


@dataclass(frozen=True)
class CarPaint:
    """The colors of one car. second: of what may differ from the body. stripe: along hood and roof, or None."""

    kind: Paint
    body: np.ndarray
    second: np.ndarray
    glass: np.ndarray
    trim: np.ndarray
    tire: np.ndarray
    hub: np.ndarray
    under: np.ndarray
    lamp: np.ndarray
    tail_lamp: np.ndarray
    sill: np.ndarray
    roof: np.ndarray
    tail: np.ndarray
    bed: np.ndarray
    stripe: np.ndarray | None

    def other(self, draws: Draws) -> np.ndarray:
        """A further color."""
        return paint(draws, self.kind)


def car_paint(draws: Draws, kind: Paint) -> CarPaint:
    """Colors that go together: windows stand out from the body."""
    body = paint(draws, kind)
    second = body if draws.chance(0.5) else paint(draws, kind)
    glasses = [glass for glass in GLASS if abs(brightness(glass) - brightness(body)) > CONTRAST]
    trim, under = draws.pick(*TRIM, 0.6 * body), draws.pick(*UNDER)
    return CarPaint(
        kind,
        body,
        second,
        (draws.pick(*glasses) + draws.random.normal(0, 0.015, 3)).clip(0, 1),
        trim,
        draws.pick(*TIRE),
        draws.pick(*HUB, body),
        under,
        draws.pick(*LAMP),
        draws.pick(*TAIL_LAMP),
        sill=draws.pick(body, body, trim, trim, second),
        roof=body if draws.chance(0.75) else draws.pick(second, trim, PALE),
        tail=body if draws.chance(0.85) else second,
        bed=draws.pick(under, body, trim, WOOD),
        stripe=paint(draws, kind) if draws.chance(0.12) else None,
    )
