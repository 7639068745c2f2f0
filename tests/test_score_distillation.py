"""Score distillation through a text prior, against closed forms: prompts that mean Gaussians, an autoencoder that
changes nothing.
"""

import math

import pytest
import torch

from gaussian_text import gaussian_text_prior, one_level
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.diffusion.text_prior import TextCondition
from vcgen.guidance.base import ConditionedPrior
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC

#: alpha, the deviation of the prior, its mean and the pixels of the rendering.
ALPHA, DEVIATION, MEAN, VALUE = 0.6, 0.5, 0.3, 1.1
SIGMA = math.sqrt(1 - ALPHA**2)
#: E of sigma^2 (e_hat - e): sigma^2 alpha sigma (value - mean) / (alpha^2 deviation^2 + sigma^2)
EXPECTED = SIGMA**3 * ALPHA * (VALUE - MEAN) / ((ALPHA * DEVIATION) ** 2 + SIGMA**2)

both_predictions = pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])


def targets(guidance, prior, latents, prompt, scale=1.0, seed=0):
    """One round: from latents and a prompt to what the latents are pulled to."""
    generator = torch.Generator().manual_seed(seed)
    condition = TextCondition(prior.embed([prompt]).expand(len(latents), -1, -1), prior.embed([""]))
    given = ConditionedPrior(lambda z, t: prior.denoise(z, t, condition, scale), prior.schedule)
    return guidance.step(0, guidance.begin(latents, generator), latents, given, generator).targets


def gradient(guidance, prior, value, prompt="0.3", scale=1.0, count=700, loss_scale=1.0):
    """Mean and standard error, over ``count`` images of one value, of the gradient that reaches their pixels, from the
    half squared error between what the autoencoder makes of them and the targets."""
    images = torch.full((count, 3, prior.size, prior.size), value, requires_grad=True)
    latents = prior.encode(images)
    goal = targets(guidance, prior, latents.detach(), prompt, scale)
    (loss_scale * 0.5 * (latents - goal).square().sum()).backward()
    found = images.grad / loss_scale
    return float(found.mean()), float(found.std()) / math.sqrt(found.numel()), found


def test_the_expectation_is_the_number_known_for_it():
    assert pytest.approx(0.3367, abs=5e-5) == EXPECTED


@both_predictions
def test_the_mean_gradient_of_sds_is_the_closed_form(prediction):
    prior = gaussian_text_prior(one_level(ALPHA, prediction), DEVIATION)
    mean, error, _ = gradient(SDS(start=1.0, end=0.0), prior, VALUE)
    assert error < 1e-3 and mean == pytest.approx(EXPECTED, abs=4 * error)


def test_sds_has_the_variance_of_its_noise():
    """sigma^2 (e_hat - e) = closed form + sigma^2 e (sigma^2 / (alpha^2 s^2 + sigma^2) - 1): what is left after
    subtracting e.
    """
    prior = gaussian_text_prior(one_level(ALPHA), DEVIATION)
    _, _, found = gradient(SDS(start=1.0, end=0.0), prior, VALUE)
    left = SIGMA**2 * (ALPHA * DEVIATION) ** 2 / ((ALPHA * DEVIATION) ** 2 + SIGMA**2)
    assert float(found.std()) == pytest.approx(left, rel=0.01)


@both_predictions
def test_the_mean_direction_of_sjc_is_the_closed_form(prediction):
    """s (mean - value) / (deviation^2 + s^2) with s = sigma / alpha, as a gradient."""
    prior, scale = gaussian_text_prior(one_level(ALPHA, prediction), DEVIATION), SIGMA / ALPHA
    mean, error, _ = gradient(SJC(start=1.0, end=0.0, draws=8), prior, VALUE, count=200)
    assert error < 1e-3 and mean == pytest.approx(scale * (VALUE - MEAN) / (DEVIATION**2 + scale**2), abs=4 * error)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5, 100.0])
def test_classifier_free_guidance_comes_to_rest_beyond_the_conditional_mean(scale):
    """At unconditional + scale (conditional - unconditional) = 0.3 scale, with gradients on both sides that lead
    there.
    """
    prior, rest = gaussian_text_prior(one_level(ALPHA), DEVIATION), MEAN * scale
    for away in (-1.0, 0.0, 1.0):
        mean, error, _ = gradient(SDS(start=1.0, end=0.0), prior, rest + away, scale=scale, count=200)
        assert mean == pytest.approx(EXPECTED / (VALUE - MEAN) * away, abs=4 * error)


@pytest.mark.parametrize(
    ("scale", "prompt", "lowest", "highest"),
    [(1.0, "0.3", 0.2, 0.4), (100.0, "0.3", 0.97, 1.0), (100.0, "-0.3", -1.0, -0.97)],
)
def test_a_large_scale_saturates_images(scale, prompt, lowest, highest):
    """Bounded images cannot come to rest at 30 and go to the edge of what they can show."""
    prior = gaussian_text_prior(noise_schedule("epsilon"), 0.1)
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        latents = prior.encode(logits.tanh())
        goal = targets(SDS(), prior, latents.detach(), prompt, scale, seed=step)
        (0.5 * (latents - goal).square().sum()).backward()
        optimizer.step()
    assert lowest < float(logits.detach().tanh().mean()) <= highest


def test_the_gradient_does_not_depend_on_the_scale_of_the_loss():
    """As with mixed precision, where the loss is multiplied by 65,536 and all gradients are divided by it."""
    prior = gaussian_text_prior(one_level(ALPHA), DEVIATION)
    plain, scaled = (
        gradient(SDS(start=1.0, end=0.0), prior, VALUE, count=2, loss_scale=scale)[2] for scale in (1.0, 65_536.0)
    )
    assert torch.equal(plain, scaled)


def test_samples_spread_where_score_distillation_collapses():
    """Samples of a prior, here cut off at black and white, have its deviation; SDS seeks its mode, wherever it
    starts.
    """
    prior = gaussian_text_prior(noise_schedule("epsilon"), DEVIATION, size=16)
    samples = (
        2 * prior.sample(["0.3"] * 8, torch.Generator().manual_seed(0), steps=100, guidance_scale=1.0, sampler="ddim")
        - 1
    )
    exact = (MEAN + DEVIATION * torch.randn(100_000)).clamp(-1, 1)
    latents = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for step in range(400):
        latents = latents + 0.1 * (targets(SDS(), prior, latents, "0.3", seed=step) - latents)
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.02) and float(latents.std()) < 0.15
    assert float(samples.mean()) == pytest.approx(float(exact.mean()), abs=0.03)
    assert float(samples.std()) == pytest.approx(float(exact.std()), rel=0.05)


def test_the_disagreement_is_the_distance_to_the_mean_at_high_noise():
    """Where alpha is 0 a prior answers with its mean."""
    schedule = noise_schedule("epsilon")
    alpha, _ = signal_and_noise(schedule, torch.tensor([999]), torch.zeros(1))
    assert float(alpha) < 0.01
    prior = gaussian_text_prior(schedule, DEVIATION)
    latents = torch.full((4, 3, 8, 8), VALUE)
    generator = torch.Generator().manual_seed(0)
    guidance, text = SDS(start=1.0, end=0.999), prior.embed(["0.3"] * 4)
    step = guidance.step(
        0,
        guidance.begin(latents, generator),
        latents,
        ConditionedPrior(lambda z, t: prior.denoise(z, t, TextCondition(text, text)), schedule),
        generator,
    )
    assert step.disagreement == pytest.approx(VALUE - MEAN, rel=0.05)
