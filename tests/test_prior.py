"""The view prior: its algebra against known noise, its condition, its range."""

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, UNet2DModel
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from vcgen.cameras import orbit, pinhole
from vcgen.diffusion.base import Condition, to_signed, to_unit
from vcgen.diffusion.prior import ViewPrior
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise, snr_weight
from vcgen.errors import UserError
from vcgen.types import Rendering, Views

SMALL = dict(channels=(16, 32), attention=(False, True), size=16)


def cameras(count):
    return orbit(torch.linspace(0, 300, count), torch.full((count,), 20.0), 1.3, pinhole(1.0254), 0.8, 1.8).reshape(
        1, count
    )


def rendering(views=2, size=16):
    torch.manual_seed(0)
    depth = torch.rand(1, views, 1, size, size) + 0.8
    return Rendering(torch.rand(1, views, 3, size, size), torch.rand(1, views, 1, size, size), depth)


def condition(prior, views=2, size=16):
    context = Views(torch.rand(1, 1, 3, size, size), cameras(1), None)
    near, far = torch.full((1, views), 0.8), torch.full((1, views), 1.8)
    return prior.condition(rendering(views, size), context, near, far)


class Oracle(ViewPrior):
    """Knows the clean images, so its output is exact."""

    def forward(self, noisy, timesteps, condition):
        alpha, sigma = signal_and_noise(self.schedule, timesteps, noisy)
        noise = (noisy - alpha * self.clean) / sigma
        return noise if self.schedule.config.prediction_type == "epsilon" else alpha * noise - sigma * self.clean


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_image_and_noise_follow_from_the_output(prediction):
    prior = Oracle(prediction=prediction, **SMALL)
    prior.clean, noise = torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 3, 16, 16)
    times = torch.tensor([100, 800])
    alpha, sigma = signal_and_noise(prior.schedule, times, noise)
    found = prior.denoise(alpha * prior.clean + sigma * noise, times, condition(prior))
    torch.testing.assert_close(found.image, prior.clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.noise, noise, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_an_oracle_returns_its_image(prediction, sampler):
    prior = Oracle(prediction=prediction, **SMALL)
    prior.clean = torch.rand(2, 3, 16, 16) * 1.8 - 0.9
    for start, strength in ((None, 1.0), (torch.rand(2, 3, 16, 16), 0.6)):
        images = prior.sample(
            condition(prior), torch.Generator().manual_seed(0), 12, sampler=sampler, start=start, strength=strength
        )
        torch.testing.assert_close(images, to_unit(prior.clean), atol=0.02, rtol=0)


def test_sampling_with_little_strength_stays_near_the_start():
    torch.manual_seed(0)
    prior = ViewPrior(**SMALL).eval()
    start = torch.rand(2, 3, 16, 16)
    near, far = (
        prior.sample(condition(prior), torch.Generator().manual_seed(0), 20, start=start, strength=s)
        for s in (0.05, 0.9)
    )
    assert (near - start).square().mean() < 0.1 * (far - start).square().mean()


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
@pytest.mark.parametrize("strength", [0.0, 0.02])
def test_sampling_without_strength_returns_the_start_clamped(sampler, strength):
    prior = ViewPrior(**SMALL).eval()
    start = torch.rand(2, 3, 16, 16) * 1.1 - 0.05
    images = prior.sample(condition(prior), torch.Generator(), 20, sampler=sampler, start=start, strength=strength)
    assert torch.equal(images, start.clamp(0, 1))


def test_an_unknown_sampler_is_refused():
    prior = ViewPrior(**SMALL).eval()
    with pytest.raises(UserError, match="no sampler 'euler': the samplers are ddim, dpm"):
        prior.sample(condition(prior), torch.Generator(), 2, sampler="euler")


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_that_is_no_fraction_is_refused(strength):
    prior = ViewPrior(**SMALL).eval()
    with pytest.raises(UserError, match=r"strength is a fraction .* must lie in \[0, 1\]"):
        prior.sample(condition(prior), torch.Generator(), 2, start=torch.rand(2, 3, 16, 16), strength=strength)


def test_both_predictions_weigh_the_error_of_the_image_alike():
    times = torch.tensor([50, 500, 950])
    epsilon, velocity = (snr_weight(noise_schedule(p), times, 5.0) for p in ("epsilon", "v_prediction"))
    alpha, sigma = signal_and_noise(noise_schedule(), times, times)
    per_image = (alpha / sigma).square().clamp(max=5.0)
    # An error d of the image is (alpha / sigma) d of the noise, and d / sigma of v.
    torch.testing.assert_close(epsilon * (alpha / sigma).square(), per_image)
    torch.testing.assert_close(velocity / sigma.square(), per_image)
    torch.testing.assert_close(snr_weight(noise_schedule("epsilon"), times, None), torch.ones(3))


def test_guidance_one_is_conditional_zero_is_unconditional_and_between_is_linear():
    torch.manual_seed(0)
    prior = ViewPrior(**SMALL).eval()
    given, noisy, times = condition(prior), torch.randn(2, 3, 16, 16), torch.tensor([400, 700])
    nothing = Condition(torch.zeros_like(given.maps), torch.zeros_like(given.tokens), torch.zeros(2))
    with torch.no_grad():
        conditional, unconditional = prior(noisy, times, given), prior(noisy, times, nothing)
        torch.testing.assert_close(prior.guided(noisy, times, given, 1.0), conditional)
        torch.testing.assert_close(prior.guided(noisy, times, given, 0.0), unconditional, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            prior.guided(noisy, times, given, 3.0), 3 * conditional - 2 * unconditional, atol=1e-4, rtol=1e-3
        )
    assert (conditional - unconditional).abs().max() > 1e-3


def test_samples_are_guided_unless_the_prior_cannot_be():
    prior, blind = ViewPrior(**SMALL).eval(), ViewPrior(condition_dropout=0.0, **SMALL).eval()
    blind.load_state_dict(prior.state_dict())
    given = condition(prior)

    def drawn(of: ViewPrior, **options):
        return of.sample(given, torch.Generator().manual_seed(0), 2, **options)

    assert torch.equal(drawn(prior), drawn(prior, guidance_scale=1.5)) and not torch.equal(
        drawn(prior), drawn(prior, guidance_scale=1.0)
    )
    assert torch.equal(drawn(blind), drawn(prior, guidance_scale=1.0))
    with pytest.raises(UserError, match="condition_dropout 0: guidance_scale must be 1"):
        drawn(blind, guidance_scale=1.5)


def test_the_fraction_without_condition_is_as_asked():
    prior = ViewPrior(condition_dropout=0.25, **SMALL)
    seen = []
    prior.forward = lambda noisy, times, given: seen.append(given.maps.abs().amax((1, 2, 3)) > 0) or noisy
    given = Condition(torch.ones(400, 4, 4, 4), None, torch.ones(400))
    prior.loss(torch.rand(400, 3, 4, 4), given, torch.Generator().manual_seed(0))
    assert 0.18 < 1 - seen[0].float().mean() < 0.32


def test_timesteps_of_a_batch_are_spread_over_the_schedule():
    prior = ViewPrior(**SMALL)
    prior.forward = lambda noisy, times, given: noisy
    _, times = prior.loss(
        torch.rand(8, 3, 4, 4),
        Condition(torch.zeros(8, 4, 4, 4), None, torch.ones(8)),
        torch.Generator().manual_seed(0),
    )
    assert sorted((times // 125).tolist()) == list(range(8)) or len(set((times // 125).tolist())) >= 7


@pytest.mark.integration
def test_the_loss_learns_the_condition():
    torch.manual_seed(0)
    prior = ViewPrior(condition_dropout=0.0, **SMALL)
    given = condition(prior)
    images = to_unit(given.maps[:, :3])
    optimizer = torch.optim.Adam(prior.parameters(), 2e-3)
    losses = []
    for step in range(60):
        given = condition(prior)
        loss = prior.loss(images, given, torch.Generator().manual_seed(step))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert all(p.grad is not None for p in prior.tokens.parameters())


def test_images_in_another_range_are_refused_and_the_ranges_invert_each_other():
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        to_signed(torch.tensor([-1.0, 1.0]))
    image = torch.rand(10)
    torch.testing.assert_close(to_unit(to_signed(image)), image)


def test_values_that_are_not_finite_are_left_to_the_training_step():
    assert to_signed(torch.tensor([0.5, float("nan")])).isnan().any()


def test_the_range_is_checked_without_waiting_for_the_gpu():
    """Fake tensors refuse whatever needs their values, as bool(), which would wait."""
    with FakeTensorMode():
        images = torch.empty(4, device="cuda")
        with pytest.raises(DataDependentOutputException):
            bool(images.amax() > 1)
        assert to_signed(images).is_cuda


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_accepts_images_in_range():
    torch.testing.assert_close(
        to_signed(torch.tensor([0.0, 0.5, 1.0], device="cuda")).cpu(), torch.tensor([-1.0, 0.0, 1.0])
    )
    torch.cuda.synchronize()


@pytest.mark.parametrize(("depth", "channels"), [(False, 4), (True, 5)])
def test_the_condition_holds_what_was_asked_for(depth, channels):
    prior = ViewPrior(depth=depth, **SMALL)
    given = condition(prior)
    assert given.maps.shape == (2, channels, 16, 16) and given.tokens.shape == (2, 4, 64)
    seen = rendering()
    torch.testing.assert_close(given.maps[:, :3], seen.rgb[0] * 2 - 1)
    if depth:
        torch.testing.assert_close(given.maps[:, 4:], (seen.depth[0] - 0.8) / 1.0 * 2 - 1)


@pytest.mark.parametrize(("input_attention", "kind"), [(True, UNet2DConditionModel), (False, UNet2DModel)])
def test_diffusers_opens_the_saved_network_by_itself(tmp_path, input_attention, kind):
    prior = ViewPrior(input_attention=input_attention, **SMALL).eval()
    prior.unet.save_pretrained(tmp_path / "unet")
    prior.schedule.save_pretrained(tmp_path / "scheduler")
    unet, schedule = (
        kind.from_pretrained(tmp_path / "unet").eval(),
        DDPMScheduler.from_pretrained(tmp_path / "scheduler"),
    )
    noisy, times = torch.randn(1, 7, 16, 16), torch.tensor([300])
    extra = {"encoder_hidden_states": torch.randn(1, 4, 64)} if input_attention else {}
    with torch.no_grad():
        torch.testing.assert_close(
            unet(noisy, times, **extra).sample, prior.unet(noisy, times, **extra).sample, atol=1e-5, rtol=1e-4
        )
    assert torch.equal(schedule.alphas_cumprod, prior.schedule.alphas_cumprod)


@pytest.mark.parametrize("patch", [0, 3, 16])
def test_patches_that_do_not_divide_the_image_are_refused(patch):
    with pytest.raises(ValueError, match=r"size 16 is no multiple of|patch must be at least 1"):
        ViewPrior(**SMALL, patch=patch)


@pytest.mark.parametrize(
    ("millions", "options"),
    [
        (5, {}),
        (100, dict(channels=(128, 224, 320, 416), layers=2, attention=(False, True, True, True), size=128)),
        (400, dict(channels=(208, 208, 416, 624, 832), layers=2, attention=(False, False, True, True, True), size=128)),
    ],
)
def test_the_presets_have_about_the_parameters_they_claim(millions, options):
    with torch.device("meta"):
        prior = ViewPrior(**options)
    assert 0.9 * millions < sum(p.numel() for p in prior.parameters()) / 1e6 < 1.1 * millions


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_before_it_learns_anything_a_prior_with_spread_is_the_gaussian_about_the_rendering(prediction):
    """x ~ N(m, s^2), z = alpha x + sigma e: the posterior mean of x is m + s^2 alpha (z - alpha m) / (alpha^2 s^2 +
    sigma^2).
    """
    prior = ViewPrior(prediction=prediction, sigma_data=0.3, **SMALL)
    prior.network = lambda images, timesteps, condition: torch.zeros_like(images)
    given = condition(prior)
    noisy, times = torch.randn(2, 3, 16, 16), torch.tensor([30, 700])
    alpha, sigma = signal_and_noise(prior.schedule, times, noisy)
    for shown, mean, s in (
        (given, given.maps[:, :3], 0.3),
        (given.where(torch.zeros(2)), torch.zeros(2, 3, 16, 16), 1.0),
    ):
        expected = mean + s**2 * alpha * (noisy - alpha * mean) / (alpha**2 * s**2 + sigma**2)
        torch.testing.assert_close(prior.denoise(noisy, times, shown).image, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_with_spread_the_loss_is_the_networks_own_error_at_every_noise_level(prediction):
    """Images that do scatter about the rendering with the given spread: a network that answers nothing is off by 1,
    whatever the noise.
    """
    torch.manual_seed(0)
    prior = ViewPrior(prediction=prediction, sigma_data=0.1, condition_dropout=0.0, **SMALL)
    prior.network = lambda images, timesteps, condition: torch.zeros_like(images)
    mean = torch.rand(64, 3, 16, 16) * 0.5 + 0.25
    given = Condition(torch.cat([mean * 2 - 1, torch.ones(64, 1, 16, 16)], 1), None, torch.ones(64))
    images = mean + 0.05 * torch.randn(mean.shape)  # 0.1 in [-1, 1]
    losses, times = prior.loss(images, given, torch.Generator().manual_seed(0))
    torch.testing.assert_close(losses, torch.ones(64), atol=0.2, rtol=0)
