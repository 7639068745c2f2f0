"""Guidance against closed forms: hand-computed steps, Gaussian priors, the clip of the guidance weight."""

import math

import pytest
import torch

from vcgen.diffusion.base import Denoised
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.guidance.base import ConditionedPrior, Round
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC

SCHEDULE = noise_schedule()


def gaussian(mean, deviation):
    """The exact denoiser of images whose pixels are N(mean, deviation^2), independent."""

    def denoise(noisy, times):
        alpha, sigma = signal_and_noise(SCHEDULE, times, noisy)
        gain = alpha * deviation**2 / (alpha.square() * deviation**2 + sigma.square())
        image = mean + gain * (noisy - alpha * mean)
        return Denoised(image, (noisy - alpha * image) / sigma)

    return denoise


def walk(guidance, renderings, denoise, fit=lambda targets, renderings: renderings, seed=0):
    """All rounds; ``fit`` makes the next renderings of the targets."""
    generator = torch.Generator().manual_seed(seed)
    state = guidance.begin(renderings, generator)
    for number in range(guidance.rounds):
        state = guidance.step(number, state, renderings, ConditionedPrior(denoise, SCHEDULE), generator)
        renderings = fit(state.targets, renderings)
    return state, renderings


def test_one_step_of_two_views_by_hand():
    guidance = NGD(gamma=0.5, max_weight=10.0, start=0.4, end=0.1, rounds=4, eta=0.0)
    images, noise = torch.tensor([0.2, -0.4]).reshape(2, 1, 1, 1), torch.tensor([1.0, 1.0]).reshape(2, 1, 1, 1)
    renderings = torch.tensor([0.3, 0.1]).reshape(2, 1, 1, 1)
    predicted = torch.tensor([0.8, 0.6]).reshape(2, 1, 1, 1)  # the noise that the prior sees

    def denoise(noisy, times):
        alpha, sigma = signal_and_noise(SCHEDULE, times, noisy)
        return Denoised((noisy - sigma * predicted) / alpha, predicted)

    step = guidance.step(
        2, Round(images, noise, 0, 0, 0), renderings, ConditionedPrior(denoise, SCHEDULE), torch.Generator()
    )
    alpha = math.sqrt(float(SCHEDULE.alphas_cumprod[200]))  # 0.4 + (0.1 - 0.4) * 2 / 3 = 0.2
    sigma = math.sqrt(1 - alpha**2)
    for view, (x, e, i, p) in enumerate(zip((0.2, -0.4), (1.0, 1.0), (0.3, 0.1), (0.8, 0.6))):
        z = alpha * x + sigma * e
        x_prior = (z - sigma * p) / alpha
        guided = p + 0.5 * sigma / alpha * (x_prior - i)  # the paper's form: guidance on the noise
        assert float(step.noise[view]) == pytest.approx(guided, abs=1e-4)
        assert float(step.targets[view]) == pytest.approx((z - sigma * guided) / alpha, abs=1e-4)
    assert step.timestep == 200 and step.weight == pytest.approx(0.5 * (sigma / alpha) ** 2, rel=1e-4)


@pytest.mark.parametrize("time", [100, 300, 500, 700, 900])
def test_the_weight_is_noise_over_signal(time):
    """On the cosine schedule sigma / alpha is a tangent."""
    alpha, sigma = signal_and_noise(SCHEDULE, torch.tensor([time]), torch.zeros(1))
    ratio = math.tan(((time + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    weigh = lambda **options: NGD(**options).weight(float(alpha), float(sigma))
    assert weigh(gamma=0.5, max_weight=1e12) == pytest.approx(0.5 * ratio, rel=0.01)
    assert weigh(gamma=1.0, max_weight=0.85) == pytest.approx(min(0.85, ratio), rel=0.01)
    assert weigh(gamma=0.0) == 0
    # alpha sigma is half the sine of twice the angle
    assert weigh(gamma=None, max_weight=0.0) == pytest.approx(1 - math.sqrt(ratio) / (1 + ratio), rel=0.01)


@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.8, 0.98])
def test_a_step_without_gamma_is_one_of_score_distillation(fraction):
    """From the rendering, at one noise level and with one noise, both have the same target."""
    renderings, generators = torch.rand(3, 3, 8, 8) * 2 - 1, [torch.Generator().manual_seed(1) for _ in range(2)]
    sds = SDS(start=fraction, end=fraction - 1e-6)
    other = sds.step(
        0,
        sds.begin(renderings, generators[0]),
        renderings,
        ConditionedPrior(gaussian(0.1, 0.4), SCHEDULE),
        generators[0],
    )
    own = NGD(start=fraction).step(
        0, other._replace(targets=renderings), renderings, ConditionedPrior(gaussian(0.1, 0.4), SCHEDULE), generators[1]
    )
    assert own.timestep == other.timestep and float((own.targets - renderings).abs().max()) > 1e-3
    torch.testing.assert_close(own.targets, other.targets, atol=1e-5, rtol=0)


def test_without_guidance_the_walk_is_the_closed_form_of_a_gaussian_prior():
    """The probability flow keeps (z - alpha mean) / sqrt(alpha^2 s^2 + sigma^2) (arXiv 2011.13456, eq. 13)."""
    mean, deviation = 0.3, 0.5
    guidance = NGD(gamma=0.0, start=0.9, end=0.0, rounds=500, eta=0.0)
    renderings = torch.full((4, 3, 2, 2), -0.2)
    start = guidance.begin(renderings, torch.Generator().manual_seed(0))
    alpha, sigma = signal_and_noise(SCHEDULE, torch.tensor([900]), torch.zeros(1))
    score = (alpha * -0.2 + sigma * start.noise - alpha * mean) / (alpha**2 * deviation**2 + sigma**2).sqrt()
    state, _ = walk(guidance, renderings, gaussian(mean, deviation))
    torch.testing.assert_close(state.targets, mean + deviation * score, atol=0.02, rtol=0)


def test_without_guidance_the_walk_is_diffusers_ddim():
    from diffusers import DDIMScheduler

    guidance = NGD(gamma=0.0, start=0.8, end=0.1, rounds=8, eta=0.0)
    denoise, renderings = gaussian(0.1, 0.4), torch.rand(2, 3, 4, 4)
    state, _ = walk(guidance, renderings, denoise)
    solver = DDIMScheduler.from_config(SCHEDULE.config, prediction_type="epsilon")
    solver.set_timesteps(10)
    sample = solver.add_noise(
        renderings, guidance.begin(renderings, torch.Generator().manual_seed(0)).noise, torch.tensor([800, 800])
    )
    # diffusers' step goes 100 timesteps down, as ours does
    for time in range(800, 0, -100):
        image, noise = denoise(sample, torch.full((2,), time))
        sample = solver.step(noise, time, sample).prev_sample
    torch.testing.assert_close(state.targets, image, atol=1e-4, rtol=1e-3)


def test_fresh_noise_replaces_a_fraction_of_the_walks_own():
    """After a step: none with eta 0, and no draw; else unit variance and sqrt(1 - eta^2) of correlation."""
    renderings = torch.rand(8, 3, 64, 64)
    steps = {}
    for eta in (0.0, 0.6, 1.0):
        guidance = NGD(start=0.4, rounds=4, eta=eta)
        generator = torch.Generator().manual_seed(0)
        # the prior sees this very noise, so the step would keep it
        noise = torch.randn(renderings.shape, generator=generator)
        before = generator.get_state()
        step = guidance.step(
            0,
            Round(renderings, noise, -1, 0, 0),
            renderings,
            ConditionedPrior(lambda noisy, times, noise=noise: Denoised(renderings, noise), SCHEDULE),
            generator,
        )
        assert torch.equal(generator.get_state(), before) == (not eta)
        steps[eta] = step
    torch.testing.assert_close(steps[0.0].noise, noise, atol=1e-5, rtol=0)
    for eta, step in steps.items():
        assert torch.equal(step.targets, steps[0.0].targets)
        both = torch.stack([step.noise.flatten(), noise.flatten()])
        # 5 standard deviations
        assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(math.sqrt(1 - eta**2), abs=0.016)
        assert float(step.noise.std()) == pytest.approx(1, abs=0.01)
    one, other = steps[1.0].noise[:2].flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05  # views have noise of their own


def test_full_weight_returns_exactly_the_rendering():
    guidance = NGD(gamma=1e9, max_weight=1.0, rounds=5)
    renderings = torch.rand(2, 3, 4, 4)
    assert torch.equal(walk(guidance, renderings, gaussian(0.0, 0.3))[0].targets, renderings)


def test_a_brighter_rendering_makes_a_brighter_estimate():
    for gamma in (0.05, 1.0):
        guidance = NGD(gamma=gamma, rounds=1)
        empty = lambda noisy, times: Denoised(torch.zeros_like(noisy), noisy)
        dark, bright = (walk(guidance, torch.full((1, 3, 2, 2), v), empty)[0].targets for v in (0.1, 0.6))
        assert (bright > dark).all()


def test_noise_is_shared_by_all_views():
    state = NGD().begin(torch.rand(5, 3, 4, 4), torch.Generator().manual_seed(0))
    assert all(torch.equal(state.noise[0], other) for other in state.noise) and state.noise[0].std() > 0.5


def disagreeing_views(guidance):
    """Two views whose priors want -0.5 and 0.5; the scene is one number, fitted to the mean of the targets. Returns its
    largest error.
    """
    mean = torch.tensor([-0.5, 0.5]).reshape(2, 1, 1, 1)
    fit = lambda targets, _: targets.mean(0, keepdim=True).expand_as(targets)
    state, _ = walk(guidance, torch.zeros(2, 1, 1, 1), gaussian(mean, 0.2), fit)
    return float(state.targets.abs().max())


def test_weights_above_one_diverge_and_the_clip_prevents_it():
    options = dict(gamma=1.0, eta=0.0, start=0.98, rounds=40)
    unclipped, clipped = (disagreeing_views(NGD(**options, max_weight=clip)) for clip in (1e12, 0.85))
    assert unclipped > 100 and clipped < 1.0


@pytest.mark.parametrize("gamma", [0.0, None])
def test_without_gamma_low_noise_does_not_let_the_views_go(gamma):
    """Two views whose priors, without spread, want -0.5 and 0.5. Left alone they get it; else each target keeps only
    the last step's fraction, alpha sigma, from the scene, which is the mean of the targets, and leaves its start as the
    product of the weights does.
    """
    means, start = torch.tensor([-0.5, 0.5]).reshape(2, 1, 1, 1), 0.3
    certain = lambda noisy, times: Denoised(means.expand_as(noisy), noisy)
    fit = lambda targets, _: targets.mean(0, keepdim=True).expand_as(targets)
    guidance = NGD(gamma=gamma, start=0.2, end=0.02, rounds=4)
    state, renderings = walk(guidance, torch.full((2, 1, 1, 1), start), certain, fit)
    cosine = lambda time: math.cos((time / 1000 + 0.008) / 1.008 * math.pi / 2)  # arXiv 2102.09672, eq. 17
    alphas = [cosine(t + 1) / cosine(0) for t in (200, 140, 80, 20)]
    weights = [0.0 if gamma == 0 else 1 - alpha * math.sqrt(1 - alpha**2) for alpha in alphas]
    torch.testing.assert_close(renderings, torch.full_like(renderings, start * math.prod(weights)), atol=1e-5, rtol=0)
    last = (1 - weights[-1]) * means + start * math.prod(weights)
    torch.testing.assert_close(state.targets, last, atol=1e-5, rtol=0)


def test_an_oracle_prior_leads_the_field_to_the_truth():
    truth = torch.rand(3, 3, 4, 4)
    fit = lambda targets, renderings: renderings + 0.5 * (targets - renderings)
    state, renderings = walk(NGD(rounds=40), torch.zeros(3, 3, 4, 4), lambda z, t: Denoised(truth, z), fit)
    torch.testing.assert_close(renderings, truth, atol=0.01, rtol=0)


def test_the_gradient_of_sds_is_the_closed_form_of_a_gaussian_prior():
    """E over noise of sigma^2 (e_phi - e) = sigma alpha (1 - gain alpha) (I - mean), averaged over timesteps."""
    mean, deviation, value, count = 0.2, 0.4, -0.5, 4000
    renderings = torch.full((count, 1, 2, 2), value)
    guidance = SDS(start=0.9, end=0.1, rounds=1)
    generator = torch.Generator().manual_seed(0)
    state = guidance.step(
        0,
        guidance.begin(renderings, generator),
        renderings,
        ConditionedPrior(gaussian(mean, deviation), SCHEDULE),
        generator,
    )
    times = torch.arange(100, 901)
    alpha, sigma = signal_and_noise(SCHEDULE, times, torch.zeros(len(times)))
    gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
    expected = (sigma * alpha * (1 - gain * alpha)).mean() * (value - mean)
    assert float((renderings - state.targets).mean()) == pytest.approx(float(expected), rel=0.03)


def test_the_gradient_of_score_jacobian_chaining_is_the_closed_form_of_a_gaussian_prior():
    """E over n of (D(I + s n) - I) / s = s (mean - I) / (deviation^2 + s^2): s times the score of the prior blurred by
    s.
    """
    guidance = SJC(start=0.6, end=0.5999, rounds=1, draws=64)
    renderings, mean, deviation = torch.full((64, 1, 8, 8), 1.1), 0.3, 0.5
    last = guidance.begin(renderings, torch.Generator())
    result = guidance.step(
        0, last, renderings, ConditionedPrior(gaussian(mean, deviation), SCHEDULE), torch.Generator().manual_seed(0)
    )
    alpha, sigma = (float(x) for x in signal_and_noise(SCHEDULE, torch.tensor([600]), torch.zeros(1)))
    scale = sigma / alpha
    direction = (result.targets - renderings).flatten()
    error = direction.std() / math.sqrt(len(direction))
    assert float(direction.mean()) == pytest.approx(
        scale * (mean - 1.1) / (deviation**2 + scale**2), abs=5 * float(error)
    )
    assert float(error) < 0.01


def test_averaging_perturbations_takes_noise_out_of_the_direction():
    renderings = torch.zeros(8, 1, 16, 16)
    spread = []
    for draws in (1, 16):
        guidance = SJC(start=0.5, end=0.4999, rounds=1, draws=draws)
        last = guidance.begin(renderings, torch.Generator())
        spread.append(
            float(
                guidance.step(
                    0, last, renderings, ConditionedPrior(gaussian(0, 0.5), SCHEDULE), torch.Generator().manual_seed(0)
                ).targets.std()
            )
        )
    assert spread[0] / spread[1] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("kind", [NGD, SDS, SJC])
@pytest.mark.parametrize(
    "wrong",
    [
        dict(start=0.1, end=0.2),
        dict(start=0.5, end=0.5),
        dict(start=1.5),
        dict(end=-0.1),
        dict(start=math.nan),
        dict(rounds=0),
        dict(updates=0),
    ],
)
def test_impossible_rounds_are_refused(kind, wrong):
    with pytest.raises(ValueError, match=r"need end < start|expected (float|int) [<>]= |must be finite"):
        kind(**wrong)


@pytest.mark.parametrize(
    "wrong", [dict(gamma=-1.0), dict(gamma=math.nan), dict(max_weight=-0.1), dict(eta=1.1), dict(eta=-0.1)]
)
def test_impossible_weights_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^NGD\.(gamma|max_weight|eta)(: expected float [<>]= | must be finite)"):
        NGD(**wrong)
