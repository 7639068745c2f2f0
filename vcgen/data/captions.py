"""Captions for posed images: what a thing is called, which color it has, from which side it is seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import torch
from msgspec import Meta, Struct

from vcgen.cameras import view_angles
from vcgen.data.viewpoints import VIEWS, view_word
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.schema import Key, Label
from vcgen.types import Views

#: Color words and an RGB color in [0, 1] that each stands for.
COLORS = {
    "red": (0.75, 0.15, 0.12),
    "orange": (0.9, 0.5, 0.15),
    "yellow": (0.9, 0.8, 0.25),
    "green": (0.25, 0.6, 0.25),
    "blue": (0.2, 0.4, 0.75),
    "purple": (0.5, 0.3, 0.6),
    "pink": (0.9, 0.55, 0.65),
    "brown": (0.45, 0.3, 0.2),
    "white": (0.92, 0.92, 0.92),
    "gray": (0.55, 0.55, 0.55),
    "black": (0.12, 0.12, 0.12),
}
ADVICE = 'give entries such as "KEY": {"names": ["taxi", "car"], "front": 0}'


class Thing(Struct, frozen=True, forbid_unknown_fields=True):
    """names: what it may be called, such as ("taxi", "car"). front: azimuth in degrees (see
    :func:`vcgen.cameras.orbit`) from which its front is seen; None where it has none."""

    names: Annotated[tuple[Label, ...], Meta(min_length=1)]
    front: Annotated[float, Meta(ge=-360, le=360)] | None = None


Things = Annotated[dict[Key, Thing], Meta(min_length=1)]


def read_things(path: Path) -> dict[str, Thing]:
    """``{"SCENE KEY": {"names": ["taxi", "car"], "front": 0}, ...}`` as JSON. Raises UserError naming the entry that is
    wrong.
    """
    if not Path(path).exists():
        raise UserError(f"{path}: no captions here; give a JSON file of scene keys and their names")
    return read_json(path, cast(type[dict[str, Thing]], Things), ADVICE)


def sentence(name: str, color: str = "", view: str = "") -> str:
    """A caption, as "a photo of a red car, side view"."""
    words = f"{color} {name}".strip()
    article = "an" if words[:1] in "aeiou" else "a"
    return f"a photo of {article} {words}" + (f", {view} view" if view else "")


def all_sentences(things: dict[str, Thing]) -> list[str]:
    """Every caption that can occur, for a tokenizer to learn."""
    names = sorted({name for thing in things.values() for name in thing.names})
    return [sentence(name, color, view) for name in names for color in ("", *COLORS) for view in ("", *VIEWS)]


def captions(things: dict[str, Thing], keys: Sequence[str], views: Views, generator: torch.Generator) -> list[str]:
    """One caption per image of ``views`` (scenes, n), scene by scene. One of the names at random; the color in half of
    them, the view in four of five. Raises UserError for a scene without entry."""
    angles = torch.stack(view_angles(views.cameras.centers), -1)
    color = color_words(views)
    draws = torch.rand((*angles.shape[:-1], 3), generator=generator, device=generator.device).tolist()
    seen_from, found = angles.tolist(), []
    for i, key in enumerate(keys):
        if key not in things:
            raise UserError(f"scene {key} has no caption: add it to the captions file")
        thing = things[key]
        for (azimuth, elevation), (pick, with_color, with_view) in zip(seen_from[i], draws[i], strict=True):
            view = ""
            if with_view < 0.8:
                view = view_word(azimuth - (thing.front or 0.0), elevation)
                if thing.front is None and view not in ("overhead", "bottom"):
                    view = ""
            found.append(
                sentence(thing.names[int(pick * len(thing.names))], color[i] if with_color < 0.5 else "", view)
            )
    return found


def color_words(views: Views) -> list[str]:
    """The word whose color most of a scene's object pixels, of all its views (scenes, n), are nearest to; "" for opaque
    images.
    """
    if views.alpha is None:
        return [""] * len(views.images)
    words = torch.tensor(list(COLORS.values())).to(views.images.device, non_blocking=True)
    pixels = views.images.movedim(-3, -1).flatten(1, -2)
    nearest = (pixels[:, :, None] - words).square().sum(-1).argmin(-1)
    votes = torch.zeros(len(pixels), len(words), device=pixels.device).scatter_add_(1, nearest, views.alpha.flatten(1))
    names = list(COLORS)
    return [names[best] for best in votes.argmax(1).tolist()]
