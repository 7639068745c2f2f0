"""Captions for posed images: what a thing is called, which color it has, from which side it is seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import torch
from msgspec import Meta, Struct

from vcgen.cameras import view_angles
from vcgen.data.color_names import COLORS, color_words
from vcgen.data.viewpoints import VIEWS, view_word
from vcgen.errors import UserError
from vcgen.io import read_json
from vcgen.schema import Key, Label
from vcgen.types import Views

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


def refuse_mirrored(things: dict[str, Thing]) -> None:
    """Raise UserError for things of which mirror images (:func:`vcgen.data.datamodules.augment.mirror`) have their
    front elsewhere: they would be called after another side.
    """
    odd = [(key, thing.front) for key, thing in things.items() if thing.front is not None and thing.front % 180]
    if odd:
        key, front = odd[0]
        raise UserError(
            f"data.mirror changes left and right, and scene {key} has its front at {front:g} degrees, which its mirror"
            " image has at the other side: captions would be wrong; set data.mirror to false"
        )


def sentence(name: str, color: str = "", view: str = "") -> str:
    """A caption, as "a photo of a red car, side view"."""
    words = f"{color} {name}".strip()
    article = "an" if words[:1] in "aeiou" else "a"
    return f"a photo of {article} {words}" + (f", {view} view" if view else "")


def all_sentences(things: dict[str, Thing]) -> list[str]:
    """Every caption that can occur, for a tokenizer to learn."""
    names = sorted({name for thing in things.values() for name in thing.names})
    return [sentence(name, color, view) for name in names for color in ("", *COLORS) for view in ("", *VIEWS)]


class Caption(NamedTuple):
    """What a caption says: a name and, unless they are "", a color and a view word."""

    name: str
    color: str = ""
    view: str = ""

    @property
    def text(self) -> str:
        """The sentence."""
        return sentence(*self)


class Shown(NamedTuple):
    """What can be said of an image: its thing's names, its color and from where it is seen; "" for what is unknown."""

    names: tuple[str, ...]
    color: str
    view: str

    def fits(self, caption: Caption) -> bool:
        """Whether the caption holds for the image: its name is one of the thing's; color and view agree if said."""
        return caption.name in self.names and caption.color in ("", self.color) and caption.view in ("", self.view)

    def draw(self, pick: float, with_color: float, with_view: float) -> Caption:
        """One of the captions that hold, by three numbers uniform in [0, 1): one of the names; the color in half of
        them, the view in four of five.
        """
        name = self.names[int(pick * len(self.names))]
        return Caption(name, self.color if with_color < 0.5 else "", self.view if with_view < 0.8 else "")


def shown(things: dict[str, Thing], keys: Sequence[str], views: Views) -> list[Shown]:
    """What can be said of each image of ``views`` (scenes, n), scene by scene. A thing without a front is only seen
    from above or below. Raises UserError for a scene without entry.
    """
    angles = torch.stack(view_angles(views.cameras.centers), -1).tolist()
    colors, found = color_words(views), []
    for key, color, seen_from in zip(keys, colors, angles, strict=True):
        if key not in things:
            raise UserError(f"scene {key} has no caption: add it to the captions file")
        thing = things[key]
        for azimuth, elevation in seen_from:
            view = view_word(azimuth - (thing.front or 0.0), elevation)
            known = thing.front is not None or view in ("overhead", "bottom")
            found.append(Shown(thing.names, color, view if known else ""))
    return found


def draw_captions(images: Sequence[Shown], generator: torch.Generator) -> list[Caption]:
    """One caption per image, see :meth:`Shown.draw`."""
    draws = torch.rand((len(images), 3), generator=generator, device=generator.device).tolist()
    return [image.draw(*numbers) for image, numbers in zip(images, draws, strict=True)]


def captions(things: dict[str, Thing], keys: Sequence[str], views: Views, generator: torch.Generator) -> list[str]:
    """One caption per image of ``views`` (scenes, n), scene by scene. Raises UserError for a scene without entry."""
    return [caption.text for caption in draw_captions(shown(things, keys, views), generator)]
