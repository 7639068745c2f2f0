"""Color words against the names that people gave to colors, and objects in other colors."""

import colorsys
from dataclasses import replace

import pytest
import torch

from vcgen.cameras import orbit, pinhole
from vcgen.data.color_names import COLORS, color_numbers, color_words, hue_of
from vcgen.data.recoloring import recolored, rgb
from vcgen.types import Views

#: All names of a basic word, alone or with one of seven adjectives, in XKCD's survey of 222,500 people
#: (xkcd.com/color/rgb, CC0).
SURVEY = {
    "black": "000000",
    "blue": "0343df",
    "bright blue": "0165fc",
    "dark blue": "00035b",
    "deep blue": "040273",
    "dull blue": "49759c",
    "light blue": "95d0fc",
    "medium blue": "2c6fbb",
    "pale blue": "d0fefe",
    "brown": "653700",
    "dark brown": "341c02",
    "deep brown": "410200",
    "dull brown": "876e4b",
    "light brown": "ad8150",
    "medium brown": "7f5112",
    "pale brown": "b1916e",
    "dark gray": "363737",
    "gray": "929591",
    "light gray": "d8dcd6",
    "medium gray": "7d7f7c",
    "pale gray": "fdfdfe",
    "bright green": "01ff07",
    "dark green": "033500",
    "deep green": "02590f",
    "dull green": "74a662",
    "green": "15b01a",
    "light green": "96f97b",
    "medium green": "39ad48",
    "pale green": "c7fdb5",
    "bright orange": "ff5b00",
    "dark orange": "c65102",
    "deep orange": "dc4d01",
    "dull orange": "d8863b",
    "light orange": "fdaa48",
    "orange": "f97306",
    "pale orange": "ffa756",
    "bright pink": "fe01b1",
    "dark pink": "cb416b",
    "deep pink": "cb0162",
    "dull pink": "d5869d",
    "light pink": "ffd1df",
    "medium pink": "f36196",
    "pale pink": "ffcfdc",
    "pink": "ff81c0",
    "bright purple": "be03fd",
    "dark purple": "35063e",
    "deep purple": "36013f",
    "dull purple": "84597e",
    "light purple": "bf77f6",
    "medium purple": "9e43a2",
    "pale purple": "b790d4",
    "purple": "7e1e9c",
    "bright red": "ff000d",
    "dark red": "840000",
    "deep red": "9a0200",
    "dull red": "bb3f3f",
    "light red": "ff474c",
    "pale red": "d9544d",
    "red": "e50000",
    "white": "ffffff",
    "bright yellow": "fffd01",
    "dark yellow": "d5b60a",
    "dull yellow": "eedc5b",
    "light yellow": "fffe7a",
    "pale yellow": "ffff84",
    "yellow": "ffff14",
}


def words_of(colors: torch.Tensor) -> list[str]:
    return [list(COLORS)[number] for number in color_numbers(colors).tolist()]


def test_color_words_are_those_that_people_use():
    colors = torch.tensor([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in SURVEY.values()])
    wrong = [(name, word) for name, word in zip(SURVEY, words_of(colors), strict=True) if name.split()[-1] != word]
    assert len(wrong) == 7, wrong
    nearest = torch.cdist(colors, torch.tensor(list(COLORS.values()))).argmin(1).tolist()
    assert sum(name.split()[-1] != list(COLORS)[word] for name, word in zip(SURVEY, nearest, strict=True)) == 30


@pytest.mark.parametrize("word", ["red", "green", "blue", "purple"])
def test_a_shaded_side_keeps_its_word(word):
    shades = torch.linspace(0.45, 1, 12)[:, None] * torch.tensor(COLORS[word])
    assert words_of(shades) == [word] * 12


def test_hue_and_its_inverse_are_those_of_the_standard_library():
    colors = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    colors = torch.cat([colors, torch.eye(3), 1 - torch.eye(3), torch.ones(1, 3), torch.zeros(1, 3)])
    expected = torch.tensor([colorsys.rgb_to_hsv(*color) for color in colors.tolist()])
    torch.testing.assert_close(hue_of(colors) / 360, expected[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(rgb(360 * expected[:, 0], expected[:, 1], expected[:, 2]), colors, atol=1e-5, rtol=0)


def views(color: tuple[float, float, float], scenes: int) -> Views:
    """Two images of each scene: a square of a color on nothing."""
    turns = torch.tensor([0.0, 90.0]).repeat(scenes)
    cameras = orbit(turns, torch.zeros_like(turns), 1.3, pinhole(1.0), 0.8, 1.8).reshape(scenes, 2)
    images, alpha = torch.zeros(scenes, 2, 3, 8, 8), torch.zeros(scenes, 2, 1, 8, 8)
    images[..., 2:6, 2:6], alpha[..., 2:6, 2:6] = torch.tensor(color)[:, None, None], 1
    return Views(images, cameras, alpha)


def test_recoloring_changes_whole_scenes_and_as_many_as_asked_for():
    shown = views(COLORS["blue"], 400)
    changed = recolored(shown, 0.5, torch.Generator().manual_seed(0))
    assert changed.images.min() >= 0 and changed.images.max() <= 1
    assert torch.equal(changed.images[:, 0], changed.images[:, 1])  # both views of a scene alike
    same = (changed.images - shown.images).abs().amax((1, 2, 3, 4)) < 1e-6
    assert 160 < int(same.sum()) < 240
    words = color_words(changed)
    assert set(words) >= {"red", "green", "blue", "purple", "brown", "black"}
    assert words.count("blue") < 280


def test_recoloring_of_none_changes_nothing_and_tints_white():
    shown = views(COLORS["white"], 200)
    assert torch.equal(recolored(shown, 0.0, torch.Generator()).images, shown.images)
    words = color_words(recolored(shown, 1.0, torch.Generator().manual_seed(1)))
    assert words.count("white") < 140 and set(words) >= {"red", "green", "blue", "yellow", "white"}


def test_opaque_views_are_not_recolored():
    """Their white background would become colored, and they have no color word."""
    opaque = replace(views(COLORS["red"], 3), alpha=None)
    assert torch.equal(recolored(opaque, 1.0, torch.Generator().manual_seed(0)).images, opaque.images)
    assert color_words(opaque) == ["", "", ""]


def test_recoloring_keeps_shading():
    """The brightest pixel of an object of one hue stays the brightest."""
    shown = views((1.0, 0.5, 0.2), 50)
    shown.images[..., 2:4, :] *= 0.5
    changed = recolored(shown, 1.0, torch.Generator().manual_seed(2)).images.amax(2)
    assert bool((changed[..., 2:4, 2:6] <= changed[..., 4:6, 2:6] + 1e-6).all())
