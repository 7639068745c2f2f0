"""Perp-Neg: its geometry and its weights against closed forms, and what a text prior and a system make of it."""

import math

import pytest
import torch

import small_realfusion
import small_text_to_3d
from test_fake_gpu import FakeGpu, attended, places, step
from test_realfusion import Identity
from text_folder import tiny_prior
from vcgen.cameras import orbit, pinhole
from vcgen.diffusion.perp_neg import OtherViews, combined, perpendicular, view_weights
from vcgen.diffusion.text_prior import TextCondition
from vcgen.guidance.clip import ClipGuidance
from vcgen.systems.text_to_3d.options import Prompt, refuse_guidance

DRAWS = torch.Generator().manual_seed(0)
#: threestudio's weights of front and side, (a, b, c) of a e^(-b r) + c, of which c is rounded to three digits.
PUBLISHED = {"fs": (4, 0.5, -2.426), "sf": (4, 0.5, -2.426), "fsb": (1, 0.5, 0.967), "sb": (1, 0.5, -0.606)}


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=DRAWS, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_part_is_perpendicular_and_what_is_left_is_parallel(dtype):
    vectors, direction = drawn(3, 2, 4, 8, 8, dtype=dtype), drawn(3, 4, 8, 8, dtype=dtype)
    part = perpendicular(vectors, direction)
    cosine = torch.cosine_similarity(part.flatten(2), direction.flatten(1)[:, None], dim=-1)
    assert float(cosine.abs().max()) < 1e-6
    along = torch.cosine_similarity((vectors - part).flatten(2), direction.flatten(1)[:, None], dim=-1)
    torch.testing.assert_close(along.abs(), torch.ones_like(along))
    assert torch.equal(perpendicular(vectors, torch.zeros_like(direction)), vectors)


def test_prompts_whose_prediction_is_parallel_to_the_main_one_change_nothing():
    without, given, weights = drawn(2, 4, 8, 8), drawn(2, 4, 8, 8), drawn(2, 2).abs()
    main = given - without
    parallel = without[:, None] + torch.stack([main, -3 * main], 1)
    plain = without + 7.5 * main
    torch.testing.assert_close(combined(without, given, parallel, weights, 7.5), plain, atol=1e-9, rtol=0)
    others = drawn(2, 2, 4, 8, 8)
    torch.testing.assert_close(combined(without, given, others, 0 * weights, 7.5), plain, atol=1e-12, rtol=0)
    moved = combined(without, given, others, weights, 7.5) - plain
    assert float(moved.abs().min(0).values.max()) > 0.1
    cosine = torch.cosine_similarity(moved.flatten(1), main.flatten(1))  # the main direction keeps its length
    assert float(cosine.abs().max()) < 1e-6


def test_noise_and_v_lead_the_same_way():
    """v = (e - sigma z) / alpha: differences of outputs are those of noise by a factor of each image."""
    alpha, sigma = torch.tensor([0.9, 0.2]).reshape(2, 1, 1, 1).double(), torch.tensor([0.4, 0.98]).reshape(2, 1, 1, 1)
    noisy, outputs, weights = drawn(2, 4, 8, 8), [drawn(2, 4, 8, 8) for _ in range(4)], drawn(2, 2).abs()
    found = []
    for scale, shift in ((1, 0), (1 / alpha, -sigma / alpha * noisy)):
        without, given, *others = (scale * e + shift for e in outputs)
        result = combined(without, given, torch.stack(others, 1), weights, 20.0)
        found.append((result - shift) / scale)
    torch.testing.assert_close(*found)


def published(azimuth: float) -> tuple[float, float]:
    """Of front and side, as threestudio computes them, by their absolute value."""
    turn = abs((azimuth + 180) % 360 - 180) / 90
    ahead = turn < 1
    front = ("fs", 1 - turn) if ahead else ("fsb", 2 - turn)
    side = ("sf", turn) if ahead else ("sb", 2 - turn)
    return tuple(a * math.exp(-b * r) + c for (a, b, c), r in ((PUBLISHED[name], r) for name, r in (front, side)))  # type: ignore[return-value]


def test_weights_are_the_published_ones_but_for_their_rounding():
    azimuths = torch.arange(-180.0, 540.0, 7.5, dtype=torch.float64)
    mixture, weights = view_weights(azimuths)
    expected = torch.tensor([published(float(azimuth)) for azimuth in azimuths], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, atol=1e-3, rtol=0)
    last = math.exp(-0.5)
    corners = {
        0: (0, 4 * (1 - last)),
        90: (4 * (1 - last), 0),
        -90: (4 * (1 - last), 0),
        180: (5 * (1 - last), 1 - last),
    }
    for azimuth, pair in corners.items():
        found = view_weights(torch.tensor([float(azimuth)], dtype=torch.float64))[1][0]
        assert found.tolist() == pytest.approx(pair, abs=1e-12), azimuth
    assert float(weights.min()) >= 0
    torch.testing.assert_close(mixture.sum(1), torch.ones(len(azimuths), dtype=torch.float64))


def test_weights_are_continuous_round_the_circle():
    azimuths = torch.linspace(-200, 200, 400_001, dtype=torch.float64)
    for values in view_weights(azimuths):
        assert float(values.diff(dim=0).abs().max()) < 3e-5  # a thousandth of a degree
    sides = view_weights(torch.tensor([-30.0, 30.0, 330.0]))
    assert all(torch.allclose(values[0], values[i]) for values in sides for i in (1, 2))


def test_a_text_prior_asks_for_all_texts_at_once_and_answers_as_one_by_one():
    prior = tiny_prior()
    noisy, times = torch.randn((2, *prior.latent_shape)), torch.tensor([100, 700])
    text, without = prior.embed(["a red car", "a blue fish"]), prior.embed([""])
    others = torch.stack([prior.embed(["a car", "a fish"]), prior.embed(["a red fish", "a blue car"])], 1)
    weights = torch.tensor([[0.5, 1.5], [0.0, 2.0]])
    condition = TextCondition(text, without, OtherViews(others, weights))
    outputs = [prior(noisy, times, x) for x in (without.expand_as(text), text, others[:, 0], others[:, 1])]
    expected = combined(*outputs[:2], torch.stack(outputs[2:], 1), weights, 7.5)
    torch.testing.assert_close(prior.guided(noisy, times, condition, 7.5), expected, atol=1e-4, rtol=1e-4)
    plain = prior.guided(noisy, times, TextCondition(text, without), 7.5)
    none = condition._replace(others=OtherViews(others, 0 * weights))
    torch.testing.assert_close(prior.guided(noisy, times, none, 7.5), plain, atol=1e-4, rtol=1e-4)
    same = condition._replace(others=OtherViews(text[:, None].expand_as(others), weights))
    torch.testing.assert_close(prior.guided(noisy, times, same, 7.5), plain, atol=1e-3, rtol=1e-3)


class Listener(Identity):
    """Keeps whole conditions."""

    conditions: list[TextCondition]

    def denoise(self, noisy, times, condition, scale=1.0):
        self.conditions = [*getattr(self, "conditions", []), condition]
        return super().denoise(noisy, times, condition, scale)


def told(perp_neg: float, *angles: tuple[float, float]) -> tuple[list[TextCondition], dict[str, torch.Tensor]]:
    """What a system tells its prior of cameras at azimuth and elevation, and its texts by view."""
    prior = Listener()
    made = small_realfusion.system(prior, prompt=Prompt(subject="<e>", perp_neg=perp_neg))
    for azimuth, elevation in angles:
        camera = orbit(torch.tensor([azimuth]), torch.tensor([elevation]), 1.8, pinhole(1.2), 1.0, 2.6)
        made.distill(torch.rand(1, 3, 8, 8), camera, 0.5, torch.Generator().manual_seed(0))
    return prior.conditions, made.text


def test_a_camera_is_told_the_mixture_of_its_sides_and_led_away_from_the_others():
    (oblique, behind, above), text = told(0.5, (-45.0, 15.0), (180.0, 15.0), (45.0, 75.0))
    torch.testing.assert_close(oblique.text, (text["front"] + text["side"]) / 2)
    torch.testing.assert_close(behind.text, text["back"], atol=1e-5, rtol=0)
    for condition in (oblique, behind):
        assert torch.equal(condition.others.text[0], torch.cat([text["front"], text["side"]]))
    expected = 0.5 * torch.tensor([published(-45.0), published(180.0)])
    torch.testing.assert_close(torch.cat([oblique.others.weights, behind.others.weights]), expected, atol=1e-3, rtol=0)
    assert torch.equal(above.text, text["overhead"]) and not above.others.weights.any()


def test_without_it_the_prior_is_told_what_it_was_told_before():
    conditions, text = told(0.0, (29.0, 15.0), (90.0, 15.0), (180.0, 15.0), (0.0, 75.0))
    for condition, word in zip(conditions, ("front", "side", "back", "overhead"), strict=True):
        assert condition.others is None and torch.equal(condition.text, text[word])
    prior = tiny_prior()
    noisy, times = torch.randn((2, *prior.latent_shape)), torch.tensor([100, 700])
    text, without = prior.embed(["a red car", "a blue fish"]), prior.embed(["", ""])
    plain, given = prior(noisy.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([without, text])).chunk(2)
    assert torch.equal(prior.guided(noisy, times, TextCondition(text, without), 7.5), plain + 7.5 * (given - plain))


def test_what_it_needs_is_asked_for_in_one_line():
    with pytest.raises(ValueError, match=r"perp_neg needs the prompts of other views, and 'a car' has no {view}"):
        Prompt(template="a car", perp_neg=1.0)
    with pytest.raises(ValueError, match=r"perp_neg: expected float >= 0.0; not -1"):
        Prompt(perp_neg=-1.0)
    clip = ClipGuidance.__new__(ClipGuidance)
    with pytest.raises(ValueError, match=r"ClipGuidance asks no diffusion prior.*perp_neg to 0"):
        refuse_guidance(clip, "folder", latent=False, perp_neg=1.0)


@pytest.mark.integration
def test_a_gpu_is_not_waited_for_any_more_than_without_it():
    batch = small_realfusion.photo()
    found = []
    for perp_neg in (0.0, 1.0):
        made = small_text_to_3d.system(prompt=Prompt(subject="car", perp_neg=perp_neg))
        with FakeGpu(answer=0) as gpu:
            there, made = batch.to("cuda"), small_text_to_3d.with_text_on_gpu(attended(made))
            found.append(places(gpu, lambda made=made, there=there: step(made, there)))
    assert found[0] == found[1]
