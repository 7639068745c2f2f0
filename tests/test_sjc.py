"""Score Jacobian chaining: the guidance against score distillation, a scene of latents, and the losses of its
release.
"""

import math

import pytest
import torch

from gaussian_text import SameLatents
from small_text_to_3d import losses, system
from text_folder import tiny_prior
from vcgen.cameras import view_angles
from vcgen.data.viewpoints import VIEWS, ViewpointOptions, random_cameras, relative_angles, view_word
from vcgen.diffusion.base import Denoised
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.errors import UserError
from vcgen.fields.background import BackgroundTexture
from vcgen.guidance.base import ConditionedPrior, Guidance, Round
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC
from vcgen.systems.text_to_3d.latents import colored_scene
from vcgen.types import Rendering

LATENTS = {"render_size": 8, "albedo_only": 1.0, "grid_lr": 0.05}


class Brighter(Guidance):
    """Wants white images, whatever the prior denoises."""

    shown, rounds, updates = "images", 1, 1

    def step(self, number, last, renderings, prior, generator):
        assert renderings.shape[1:] == (3, 16, 16)
        return Round(torch.ones_like(renderings), renderings, 0, 0.0, 0.0)


def voxels(colors="latent", size: int = 8) -> SceneVoxels:
    torch.manual_seed(0)
    return SceneVoxels(size, 0.75, 0.75, colors=colors, blob=(4.0, 0.2))


def latent_system(**changes):
    return system(scene=voxels(), options={**LATENTS, **changes.pop("options", {})}, **changes)


def test_it_is_score_distillation_with_weight_one_for_any_denoiser():
    schedule, network = noise_schedule("epsilon"), torch.nn.Conv2d(4, 4, 3, padding=1).double()

    def denoise(noisy, times):
        alpha, sigma = signal_and_noise(schedule, times, noisy)
        noise = network(noisy).sin() * 3
        return Denoised((noisy - sigma * noise) / alpha, noise)

    renderings, prior = torch.randn(4, 4, 8, 8).double(), ConditionedPrior(denoise, schedule)
    with torch.no_grad():
        found = [
            guidance.step(0, guidance.begin(renderings, noise), renderings, prior, noise).targets - renderings
            for guidance in (SJC(), SDS(weighting="one"))
            for noise in [torch.Generator().manual_seed(3)]
        ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_sigma2"])
def test_the_weightings_are_those_of_their_names(weighting):
    schedule = noise_schedule("epsilon")
    prior = ConditionedPrior(lambda noisy, times: Denoised(noisy, torch.zeros_like(noisy)), schedule)
    renderings, generators = torch.zeros(3, 3, 4, 4), [torch.Generator().manual_seed(1) for _ in range(2)]
    targets = SDS(weighting=weighting).step(0, None, renderings, prior, generators[0]).targets
    times = SDS().draw_times(renderings, schedule, generators[1])
    noise = torch.randn(renderings.shape, generator=generators[1])
    alpha, sigma = signal_and_noise(schedule, times, renderings)
    omega = {"sigma2": sigma**2, "one": sigma**0, "alpha_sigma2": alpha * sigma**2}[weighting]
    torch.testing.assert_close(targets, omega * noise)


def test_the_word_from_the_pose_is_the_samplers():
    """Of cameras at random, by the angles that were drawn."""
    generator, options = torch.Generator().manual_seed(0), ViewpointOptions(elevation=(-80.0, 85.0))
    made, words = system(), set()
    reference, center = made.reference.cameras[0], made.scene.center
    for seed in range(400):
        state = generator.get_state()
        camera = random_cameras(reference, center, 0.75, options, generator)
        after = generator.get_state()
        generator.set_state(state)
        drawn = torch.rand(4, generator=generator)
        generator.set_state(after)
        low, high = (math.sin(math.radians(angle)) for angle in options.elevation)
        elevation = math.degrees(math.asin(low + (high - low) * float(drawn[0])))
        azimuth = 360 * float(drawn[1]) + 90 - float(view_angles(reference.centers - center)[0])
        turn = abs((azimuth + 180) % 360 - 180)
        if min(abs(abs(elevation) - 60), abs(turn - 30), abs(turn - 150)) < 1e-2:
            continue
        found = view_word(*(float(angle) for angle in relative_angles(camera, reference, center)))
        assert found == view_word(azimuth, elevation), seed
        words.add(found)
    assert words == set(VIEWS)


def test_a_scene_of_latents_learns_without_an_encoder_and_is_decoded_to_be_seen():
    made = latent_system(guidance=SJC())
    made.text_prior.vae.encode = None
    parts = losses(made)
    parts["sds"].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.scene.parameters())
    assert float(made.background.texture.grad.abs().sum()) > 0
    with torch.no_grad():
        seen = made.render(made.field(made.reference), made.reference.cameras, (12, 12), background=0.5)
        lit, normals = made.shaded(made.field(made.reference), made.reference.cameras[0], (16, 16))
    assert seen.rgb.shape == (1, 1, 3, 12, 12) and lit.rgb.shape == normals.shape == (1, 1, 3, 16, 16)
    assert float(seen.rgb.min()) >= 0 and float(seen.rgb.max()) <= 1
    torch.testing.assert_close(seen.rgb[..., 0, 0], (0 * seen.rgb + 0.5)[..., 0, 0], atol=0.1, rtol=0)  # nearly empty
    del made.text_prior
    with pytest.raises(UserError, match="use field/ in the run's folder"):
        made.render(made.field(made.reference), made.reference.cameras, (4, 4))
    images = latent_system(guidance=Brighter())
    losses(images)["sds"].backward()
    assert float(images.scene.voxels.features.grad.abs().sum()) > 0


def test_light_a_color_behind_and_another_size_are_refused_for_latents():
    with pytest.raises(ValueError, match="latents can neither be lit"):
        latent_system(options={"albedo_only": 0.5})
    with pytest.raises(ValueError, match="latents can neither be lit"):
        latent_system(options={"background": "white"})
    with pytest.raises(UserError, match=r"are 8 pixels wide with 4 channels, random views 16 with 4: set .* to 8"):
        latent_system(options={"render_size": 16})


def test_colors_that_are_linear_in_the_latents_are_found_exactly():
    class Linear(SameLatents):
        def decode(self, latents):
            pixels = torch.einsum("nchw,cd->ndhw", latents, matrix) + 0.1
            return type("Decoded", (), {"sample": pixels})

    matrix, scene, prior = 0.1 * torch.randn(4, 3), voxels(), tiny_prior()
    prior.vae = Linear()
    prior.vae.register_parameter("place", torch.nn.Parameter(torch.zeros(())))
    latents = 0.5 * torch.randn(1, 2, 4, 8, 8)
    seen = Rendering(latents, torch.rand(1, 2, 1, 8, 8), torch.zeros(1, 2, 1, 8, 8))
    made = colored_scene(scene, seen, prior)
    points = torch.rand(1, 40, 3) - 0.5
    (density, color), (same, features) = made.scene()(points, points), scene.scene()(points, points)
    torch.testing.assert_close(density, same)
    expected = ((features @ matrix + 0.1) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(color, expected, atol=1e-4, rtol=1e-3)


def test_voxels_are_linear_between_their_centers_and_the_texture_is_round():
    scene = voxels("clamp")
    with torch.no_grad():
        places = (torch.arange(8) + 0.5) / 8
        scene.voxels.features.copy_(torch.stack(torch.meshgrid(places, places, places, indexing="ij")))
    points = torch.rand(1, 30, 3) * 1.2 - 0.6
    inside = (points.abs() < 0.65).all(-1)
    torch.testing.assert_close(scene.scene()(points, points)[1][inside], (points[inside] / 1.5 + 0.5))
    texture = BackgroundTexture(3)
    edge = torch.tensor([[-1.0, 1e-6, 0.1], [-1.0, -1e-6, 0.1]])
    left, right = texture(torch.nn.functional.normalize(edge, dim=-1))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)
