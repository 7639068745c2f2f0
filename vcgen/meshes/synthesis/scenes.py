"""Synthesized objects as scenes for the packing loop: each is a function of its kind, the seed and its number."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.shards.record import SceneRecord
from vcgen.meshes.posed import DrawnScene, DrawSettings, draw_record, single_thread
from vcgen.meshes.synthesis.car_shape import KINDS
from vcgen.meshes.synthesis.cars import make_car
from vcgen.meshes.synthesis.objects import MOST_PARTS, make_object
from vcgen.meshes.synthesis.paint import Paint


@dataclass(frozen=True, kw_only=True)
class SynthesisSettings(DrawSettings):
    """What is synthesized. kind: "car" or "object". count: how many. seed: of the whole set. bodies: kinds of
    cars. most_parts: primitives in an object.
    """

    kind: str
    count: int
    seed: int
    paint: Paint = "vivid"
    bodies: tuple[str, ...] = tuple(KINDS)
    most_parts: int = MOST_PARTS


@dataclass(frozen=True)
class Synthesized(DrawnScene):
    """An object that is there when it is drawn. number: in its set."""

    number: int = 0

    def files(self) -> list[tuple[str, int]]:
        """None."""
        return []


def list_scenes(source: Path, settings: SynthesisSettings, cameras: str = "sphere") -> list[Synthesized]:
    """All of them; ``source`` does not exist."""
    numbers = range(settings.count)
    return [Synthesized(f"{settings.kind}_{settings.seed}_{n:06d}", source, cameras, n) for n in numbers]


def read_scene(scene: Synthesized, settings: SynthesisSettings) -> SceneRecord:
    """Make the object and draw all its views. Those of a longer set of the same seed are the same."""
    with single_thread():
        random = np.random.default_rng([settings.seed, scene.number])
        if settings.kind == "car":
            surface = make_car(random, settings.paint, settings.bodies)
        else:
            surface = make_object(random, settings.paint, settings.most_parts)
        return draw_record(scene, settings, surface, random)
