"""The random changes of a photo: each by its closed form, and what none of them may do."""

import pytest
import torch

from vcgen.data.images.photo_augment import PLAIN, PhotoAugmentation

NONE = {"rotation": 0, "crop": 0, "jitter": 0, "grayscale": 0, "blur": 0}
RED = torch.tensor([0.8, 0.1, 0.1])


def square(side: int = 16, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square in the middle; around it a bright green that must never be seen, since nothing covers there."""
    low, high = (size - side) // 2, (size + side) // 2
    color, alpha = torch.tensor([0.0, 1.0, 0.0])[:, None, None].repeat(1, size, size), torch.zeros(1, size, size)
    color[:, low:high, low:high], alpha[:, low:high, low:high] = RED[:, None, None], 1
    return color, alpha


def changed(seed: int = 0, size: int = 64, photo=None, **options) -> torch.Tensor:
    return PhotoAugmentation(**{**NONE, **options})(*(photo or square()), size, torch.Generator().manual_seed(seed))


def box(image: torch.Tensor) -> tuple[int, ...]:
    """(left, top, right, bottom) of what is not white."""
    rows, columns = (torch.nonzero((image[1] < 0.55).any(axis)).flatten().tolist() for axis in (1, 0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_without_changes_the_object_lies_on_white():
    color, alpha = square()
    torch.testing.assert_close(PLAIN(color, alpha, 64, torch.Generator()), color * alpha + 1 - alpha)
    assert box(changed(size=32)) == (12, 12, 20, 20)


@pytest.mark.parametrize("options", [{}, dict.fromkeys(NONE, 1.0)], ids=["none", "all"])
def test_mixed_precision_changes_nothing(options):
    """In bfloat16 torchvision would round colors to 0 and 1."""
    expected = changed(**options)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(changed(**options), expected)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_is_drawn_images_are_in_range_and_show_nothing_of_the_background(seed):
    image = changed(seed, **dict.fromkeys(NONE, 1.0) | {"grayscale": 0.0})
    assert image.shape == (3, 64, 64) and float(image.min()) >= 0 and float(image.max()) == 1.0
    assert float((image[1] - image[0]).max()) < 1e-5  # nowhere greener than red
    assert image[:, [0, 0, -1, -1], [0, -1, 0, -1]].min() == 1.0  # turned corners are white, not black


def test_a_zoom_scales_the_object():
    assert box(changed(crop=1, zoom=(2.0, 2.0), shift=0.0)) == (16, 16, 48, 48)
    assert box(changed(crop=1, zoom=(0.5, 0.5), shift=0.0)) == (28, 28, 36, 36)


def test_shifts_stay_within_their_fraction_and_reach_it():
    lefts = [box(changed(seed, crop=1, zoom=(1.0, 1.0), shift=0.125))[0] - 24 for seed in range(60)]
    assert -8 <= min(lefts) < -6 and 6 < max(lefts) <= 8


def test_a_turn_keeps_the_middle_and_turns_within_its_limit():
    corners = [box(changed(seed, rotation=1, degrees=45.0)) for seed in range(40)]
    widths = [right - left for left, _, right, _ in corners]
    assert (
        all(abs(left + right - 64) <= 1 for left, _, right, _ in corners)
        and 16 <= min(widths) <= 17
        and 21 <= max(widths) <= 23
    )


def test_gray_has_no_color_and_blur_keeps_the_mean():
    gray = changed(grayscale=1.0)
    assert float(gray.std(0).max()) < 1e-6 and 0.25 < float(gray[0, 32, 32]) < 0.35  # 0.299 * 0.8 + 0.701 * 0.1
    sharp, soft = changed(), changed(blur=1.0, sigma=(16.0, 16.0))  # 2 pixels at 64
    torch.testing.assert_close(soft.mean((1, 2)), sharp.mean((1, 2)), atol=1e-4, rtol=0)
    assert (sharp[1, 32, 23:25] - soft[1, 32, 23:25]).abs().min() > 0.2


def test_jitter_is_within_its_strength():
    photo = torch.full((3, 64, 64), 0.5), torch.ones(1, 64, 64)
    values = torch.stack([changed(seed, photo=photo, jitter=1.0, strength=0.1)[:, 0, 0] for seed in range(60)])
    assert 0.45 <= float(values.min()) < 0.46 and 0.54 < float(values.max()) <= 0.55


def test_images_are_never_mirrored_unless_asked():
    color, alpha = square()
    color[2, :, 32:] = 1.0  # its right half is blue
    sides = [changed(seed, photo=(color, alpha), rotation=1, crop=1)[2] for seed in range(30)]
    assert all(float(blue[24:40, 33:38].mean()) > float(blue[24:40, 26:31].mean()) for blue in sides)
    assert torch.equal(changed(photo=(color, alpha), mirror=1.0), changed(photo=(color, alpha)).flip(-1))


def test_the_background_may_be_any_one_color():
    images = [changed(seed, background="random") for seed in range(3)]
    assert len({tuple(image[:, 0, 0].tolist()) for image in images}) == 3
    assert all(float((image - image[:, :1, :1])[:, :20].abs().max()) == 0 for image in images)


def test_the_generator_alone_decides():
    everything = dict.fromkeys(NONE, 0.5) | {"background": "random"}
    state = torch.get_rng_state()
    first, second = changed(3, **everything), changed(3, **everything)
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, changed(4, **everything))
    ends = set()
    for options in (NONE, everything):  # as many numbers are drawn with every option
        generator = torch.Generator().manual_seed(0)
        PhotoAugmentation(**{**options, "background": "white"})(*square(), 64, generator)
        ends.add(float(torch.rand((), generator=generator)))
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grayscale": 1.5}, "grayscale"),
        ({"zoom": (1.2, 0.8)}, "zoom"),
        ({"sigma": (0.0, 1.0)}, "sigma"),
        ({"strength": 0.7}, "strength"),
    ],
)
def test_impossible_changes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PhotoAugmentation(**options)
