"""``vcgen data synthesize KIND OUT``: the command line of synthesized objects; the work is in ``meshes/synthesis/``."""

from collections.abc import Callable
from functools import partial
from typing import Any

from vcgen.cli import usage
from vcgen.cli.drawn import run
from vcgen.errors import UserError, suggestion
from vcgen.meshes.synthesis.car_shape import KINDS as BODIES
from vcgen.meshes.synthesis.objects import MOST_PARTS
from vcgen.meshes.synthesis.paint import Paint
from vcgen.meshes.synthesis.scenes import SynthesisSettings, Synthesized, list_scenes, read_scene

#: Of everything that is synthesized: nobody has rights in it.
LICENCE = "CC0-1.0"


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data synthesize``) and synthesize."""
    kinds: dict[str, Callable[..., None]] = {"cars": cars, "objects": objects}
    first = arguments[0] if arguments else ""
    if first not in kinds and not first.startswith("-"):
        what = f"unknown kind {first!r}{suggestion(first, kinds)}" if first else "no kind given"
        raise UserError(f"{what}: the kinds are {', '.join(kinds)}; write vcgen data synthesize KIND OUT --count N")
    usage.run(kinds, arguments, "vcgen data synthesize", positional=True, shared=(make, run))


def cars(
    out: str, paint: Paint = "vivid", bodies: str = ",".join(BODIES), name: str = "synthesized_cars", **options: Any
) -> None:
    """Synthesize low-poly cars of twelve kinds into shards of posed images with transparent background, under CC0.

    An interrupted run continues when the same command is given again. The world has z up; cars face -y.

    Args:
        out: shard folder to make; it appears under this name only when complete.
        paint: vivid takes any hue, natural the colors of cars on the road, gray none.
        bodies: kinds of cars, separated by commas.
        name: data set name stored with every scene.
    """
    own = {"kind": "car", "paint": paint, "bodies": usage.chosen("--bodies", bodies, tuple(BODIES)), "source": name}
    make(out, own, **options)


def objects(
    out: str, paint: Paint = "vivid", most_parts: int = MOST_PARTS, name: str = "synthesized_objects", **options: Any
) -> None:
    """Synthesize objects of textured primitives, as Zeroverse has them, into shards of posed images, under CC0.

    An interrupted run continues when the same command is given again. The world has z up.

    Args:
        out: shard folder to make; it appears under this name only when complete.
        paint: of textures: vivid takes any hue, natural the colors of cars on the road, gray none.
        most_parts: primitives in an object, 1 to 50: each has between one and so many.
        name: data set name stored with every scene.
    """
    usage.within("--most-parts", most_parts, 1, 50)
    make(out, {"kind": "object", "paint": paint, "most_parts": most_parts, "source": name}, **options)


def make(out: str, own: dict[str, Any], count: int | None = None, seed: int = 0, **options: Any) -> None:
    """Synthesize with the options that all kinds share.

    Args:
        count: how many objects, 1 to 1000000; must be given.
        seed: of the set, 0 or more: the same seed gives the same bytes, and a larger count only adds objects.
    """
    if count is None:
        raise UserError("say how many objects to make: --count 1000")
    usage.within("--count", count, 1, 1_000_000)
    usage.within("--seed", seed, 0, usage.LARGEST_SEED)
    settings = partial(SynthesisSettings, licence=LICENCE, count=count, seed=seed, **own)
    run(list_scenes, read_scene, explain, f"synthesized {own['kind']}s", out, settings, False, **options)


def explain(scenes: list[Synthesized], settings: SynthesisSettings, views: str) -> str:
    """One line: what will be made."""
    return f"{settings.count} {settings.kind}s of seed {settings.seed}, {views}; licence {settings.licence}"
