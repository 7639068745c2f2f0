"""RealFusion: every loss against a closed form, and gradients through encoder and scaler."""

import math
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from small_realfusion import losses, photo, system
from vcgen.cameras import focal_from_fov, orbit, pinhole
from vcgen.diffusion.base import Denoised
from vcgen.diffusion.schedule import noise_schedule
from vcgen.errors import UserError
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC
from vcgen.losses.scene import LossWeights, distance_to_targets, normal_smoothness, opacity_cost, opacity_entropy
from vcgen.rendering.shading import ShadedRendering
from vcgen.systems.realfusion.photo import outside
from vcgen.systems.text_to_3d.draws import draw_shading
from vcgen.systems.text_to_3d.options import Prompt
from vcgen.types import RayRendering


class Identity(nn.Module):
    """A prior whose latents are the images, whose noise estimate is a fraction of what it sees, and which notes what it
    is told.
    """

    def __init__(self, fraction: float = 0.3):
        super().__init__()
        self.fraction, self.schedule, self.told, self.scales = fraction, noise_schedule(), [], []

    def embed(self, prompts):
        return torch.tensor([crc32(prompt.encode()) % 9973 for prompt in prompts])[:, None, None].float()

    def encode(self, images, generator=None):
        return images

    def denoise(self, noisy, times, condition, scale):
        self.told.append(tuple(condition))
        self.scales.append(scale)
        return Denoised(noisy, self.fraction * noisy)


def test_the_weights_fit_the_reduction_and_follow_the_run():
    mean, total = LossWeights().at(0.0), LossWeights(sds_reduction="sum").at(0.0)
    assert (mean["rgb"], mean["mask"]) == (5, 0.5) and (total["rgb"], total["mask"]) == (1000, 500)
    assert LossWeights(rgb=7.0, mask=0.0).at(0.5)["rgb"] == 7 and LossWeights(rgb=7.0, mask=0.0).at(0.5)["mask"] == 0
    course = [LossWeights(orientation=0.01, entropy=0.4).at(fraction) for fraction in (0, 0.5, 0.75, 1)]
    assert [w["orientation"] for w in course] == pytest.approx([1e-4, 1e-3, 10**-2.5, 1e-2])
    assert [w["entropy"] for w in course] == pytest.approx([0, 0, 0.2, 0.4])
    with pytest.raises(ValueError, match=r"rgb: expected float >= 0.0"):
        LossWeights(rgb=-1.0)


@pytest.mark.parametrize(("reduction", "fraction"), [("sum", 2), ("mean", 2 * 4 * 3 * 3)])
def test_the_gradient_towards_targets_is_the_difference(reduction, fraction):
    latents, targets = torch.randn(2, 4, 3, 3).requires_grad_(), torch.randn(2, 4, 3, 3).requires_grad_()
    distance_to_targets(latents, targets, reduction).backward()
    torch.testing.assert_close(latents.grad, (latents - targets).detach() / fraction)
    assert targets.grad is None


@pytest.mark.parametrize(("reduction", "entries"), [("sum", 2), ("mean", 2 * 3 * 8 * 8)])
def test_through_an_identity_encoder_the_images_gradient_is_score_distillations(reduction, entries):
    """omega (eps_hat - eps) with omega = sigma^2, twice, as images in [0, 1] become [-1, 1]."""
    prior = Identity()
    made = system(prior, weights=LossWeights(sds_reduction=reduction), options={"views": 2, "noise_end": None})
    cameras, _, _ = made.random_views(made.field(made.reference), 0.0, torch.Generator().manual_seed(1))
    images = torch.rand(2, 3, 8, 8, requires_grad=True)
    made.distill(images, cameras, 0.0, torch.Generator().manual_seed(2)).backward()
    generator = torch.Generator().manual_seed(2)
    times = torch.randint(20, 981, (2,), generator=generator)
    noise = torch.randn(2, 3, 8, 8, generator=generator)
    survival = prior.schedule.alphas_cumprod[times].reshape(2, 1, 1, 1)
    noisy = survival.sqrt() * (2 * images - 1) + (1 - survival).sqrt() * noise
    expected = (1 - survival) * (0.3 * noisy - noise)
    torch.testing.assert_close(images.grad, (2 * expected / entries).detach(), atol=1e-6, rtol=1e-4)


def test_a_gradient_scaler_does_not_change_what_is_learned():
    """The release bypasses the scaler with its distillation, which is then 65536 times too weak."""
    found = []
    for scale in (1.0, 65536.0):
        made = system(weights=LossWeights(sds_reduction="sum"))
        parts = losses(made)
        (scale * sum(made.loss_weights[name] * value for name, value in parts.items())).backward()
        assert float(parts["sds"]) > 0
        found.append([p.grad / scale for p in made.parameters() if p.grad is not None])
    for one, scaled in zip(*found):
        torch.testing.assert_close(one, scaled, rtol=1e-4, atol=1e-8)
    assert any(bool((g != 0).any()) for g in found[0])


def test_the_prior_is_told_the_side_that_is_seen():
    prior = Identity()
    made = system(
        prior,
        prompt=Prompt(subject="<e>", negative="blurred", negative_views={"back": "face"}),
        options={"guidance_scale": (8.0, 4.0)},
    )
    assert made.prompt.of("side") == "a photo of a <e>, side view"
    assert (made.prompt.against("back"), made.prompt.against("front")) == ("face", "blurred")
    K, full = pinhole(1.2), torch.ones(1)
    for azimuth, word in ((0.0, "front"), (29.0, "front"), (90.0, "side"), (180.0, "back"), (-31.0, "side")):
        camera = orbit(full * azimuth, full * 15, 1.8, K, 1.0, 2.6)
        made.distill(torch.rand(1, 3, 8, 8), camera, 0.5, torch.Generator().manual_seed(0))
        text, negative, others = prior.told[-1]
        assert torch.equal(text, made.text[word]) and torch.equal(negative, made.negative[word]) and others is None
    assert len({float(text) for text in made.text.values()}) == 5 and prior.scales == [6.0] * 5
    with pytest.raises(ValueError, match="template"):
        Prompt(template="a {thing}")
    with pytest.raises(ValueError, match="left"):
        Prompt(negative_views={"left": "x"})


def test_levels_light_and_noise_follow_the_run():
    made = system(options={"shading": (0.0, 0.5, 0.5)})
    eye = made.reference.cameras.centers[0, 0]
    for at, shown in ((0, 2), (4, 2), (5, 4), (9, 4)):
        made.at = at
        losses(made)
        assert made.scene.grid.active_levels == shown
    kinds = {
        fraction: {draw_shading(made.options, eye, fraction, torch.Generator().manual_seed(i)).kind for i in range(30)}
        for fraction in (0.1, 0.3)
    }
    assert kinds == {0.1: {"albedo"}, 0.3: {"lambertian", "textureless"}}
    assert [made.annealed(fraction).start for fraction in (0.0, 0.5, 1.0)] == pytest.approx([0.98, 0.74, 0.5])
    assert system(options={"noise_end": None}).annealed(1.0).start == 0.98
    with pytest.raises(ValueError, match="end < start"):
        system(options={"noise_end": 0.01})


def test_the_background_acts():
    """An empty scene shows it: white, one color that changes from step to step, or the network's, which then learns."""
    seen = {}
    for kind in ("white", "random", "network"):
        made = system(options={"background": kind})
        with torch.no_grad():
            made.scene.decoder[-1].bias[0] -= 100
            made.occupancy.refresh(made.whole_field)
        draws = [
            made.random_views(made.field(made.reference), 0.0, torch.Generator().manual_seed(seed))[2]
            for seed in (0, 1)
        ]
        seen[kind] = draws
        if kind == "network":
            draws[0].sum().backward()
            assert float(made.background.layers[0].weight.grad.abs().sum()) > 0
    assert bool((seen["white"][0] == 1).all())
    assert float(seen["random"][0].std((2, 3)).max()) < 1e-6 and not torch.allclose(
        seen["random"][0], seen["random"][1]
    )
    assert float(seen["network"][0].std()) > 1e-3


def test_the_photos_losses_are_those_of_its_pixels():
    """An empty scene over white misses the photo by its own color, and its opacity."""
    made = system(options={"background": "white", "reference_rays": 200})
    with torch.no_grad():
        made.scene.decoder[-1].bias[0] -= 100
    found = made.photo_losses(made.whole_field, photo().context, torch.Generator().manual_seed(0))
    # Rays are drawn among those that meet the sphere, here nearly all.
    fraction = float(found["mask"])
    assert fraction == pytest.approx(float(photo().context.alpha.mean()), abs=0.1)
    assert float(found["rgb"]) == pytest.approx(fraction * (0.1**2 + 0.9**2 + 0.9**2) / 3, rel=1e-3)
    full = system(options={"background": "random", "reference_rays": 200})
    with torch.no_grad():
        full.scene.decoder[-1].bias[0] -= 100
    spread = full.photo_losses(full.whole_field, photo().context, torch.Generator().manual_seed(0))
    color = torch.tensor([0.9, 0.1, 0.1])
    assert float(spread["rgb"]) == pytest.approx(fraction * float((color.square() - color + 1 / 3).mean()), rel=1e-3)


def test_regularizers_against_closed_forms():
    assert float(opacity_entropy(torch.full((10,), 0.5))) == pytest.approx(1)
    assert float(opacity_entropy(torch.tensor([0.0, 1.0]))) < 1e-3 and bool(
        opacity_entropy(torch.tensor([0.0, 1.0])).isfinite()
    )
    assert float(opacity_entropy(torch.tensor([0.25]))) == pytest.approx(0.8112781, rel=1e-4)
    assert float(opacity_cost(torch.tensor([0.0, 1.0]))) == pytest.approx((0.1 + math.sqrt(1.01)) / 2)
    flat = torch.tensor([0.0, 0.6, 0.8])[None, :, None, None].expand(1, 3, 20, 20)
    assert float(normal_smoothness(flat)) < 1e-12
    edge = flat.clone()
    edge[..., 10:] *= -1
    slope = torch.linspace(-1, 1, 20).expand(1, 3, 20, 20)
    assert float(normal_smoothness(edge)) > 20 * float(normal_smoothness(slope))
    assert math.isfinite(float(normal_smoothness(torch.rand(1, 3, 4, 4))))


def test_smoothness_is_the_distance_from_scipys_gaussian_blur():
    """Nine pixels, sigma 9 / 6, the rim repeated."""
    normals = torch.randn(2, 3, 20, 14)
    blurred = gaussian_filter(normals.numpy(), (0, 0, 1.5, 1.5), mode="nearest", radius=(0, 0, 4, 4))
    assert float(normal_smoothness(normals)) == pytest.approx(
        float(np.square(normals.numpy() - blurred).mean()), rel=1e-5
    )


def test_regularizers_are_means_over_all_rays_of_all_views():
    """Orientation 0.1 on a quarter of one view's rays, 0.3 on all of the other's; opacities 0.5 and 1."""
    made, rays = system(), 16 * 16
    few = torch.cat([torch.full((1, rays // 4), 0.1), torch.zeros(1, rays - rays // 4)], 1)
    seen = [
        ShadedRendering(
            RayRendering(torch.zeros(1, rays, 3), torch.full((1, rays), alpha), torch.zeros(1, rays)),
            normals,
            orientation,
        )
        for alpha, normals, orientation in (
            (0.5, torch.ones(1, rays, 3), few),
            (1.0, -torch.ones(1, rays, 3), torch.full((1, rays), 0.3)),
        )
    ]
    found = {name: float(value) for name, value in made.regularizers(seen).items()}
    assert found["orientation"] == pytest.approx((0.1 / 4 + 0.3) / 2)
    assert found["opacity"] == pytest.approx((math.sqrt(0.26) + math.sqrt(1.01)) / 2)
    assert found["entropy"] == pytest.approx(0.5, abs=1e-3)
    assert found["smoothness"] == pytest.approx(0, abs=1e-10)  # each view by itself is flat


@pytest.mark.parametrize("guidance", [SDS(), SJC(draws=2)], ids=lambda g: type(g).__name__)
def test_every_guidance_moves_the_scene(guidance):
    made = system(
        guidance=guidance,
        weights=LossWeights(rgb=0.0, mask=0.0, smoothness=0.0, orientation=0.0, opacity=0.0, entropy=0.0),
    )
    loss = losses(made)["sds"]
    loss.backward()
    assert math.isfinite(float(loss)) and float(made.scene.grid.table.grad.abs().sum()) > 0
    assert all(p.grad is None for p in made.text_prior.parameters())


def test_the_field_is_computed_in_float32_under_bfloat16():
    plain = losses(system())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = losses(system())
    for name in ("rgb", "mask", "smoothness", "orientation", "opacity", "entropy"):
        assert torch.equal(plain[name], mixed[name]), name
    assert float(mixed["sds"]) == pytest.approx(float(plain["sds"]), rel=0.2)


def test_without_a_weight_a_loss_costs_nothing():
    made = system(weights=LossWeights(sds=0.0, smoothness=0.0, orientation=0.0), options={"albedo_only": 1.0})
    made.text_prior = None
    assert set(losses(made)) == {"rgb", "mask", "opacity", "entropy"}


@pytest.mark.integration
def test_the_photo_alone_is_learned():
    made = system(weights=LossWeights(sds=0.0), options={"background": "white", "reference_rays": 200})
    optimizer = made.configure_optimizers()
    course = []
    for step in range(90):
        parts = losses(made, step)
        optimizer.zero_grad()
        sum(made.loss_weights[name] * value for name, value in parts.items()).backward()
        optimizer.step()
        course.append(float(parts["rgb"].detach()))
    assert course[-1] < 0.2 * course[0]


def test_a_photo_needs_alpha():
    made, view = system(), photo().context
    with pytest.raises(UserError, match="cut out"):
        made.use_reference(replace(view, alpha=None))


def test_an_object_that_reaches_out_of_the_sphere_is_told():
    """The ray of a pixel at the image distance r from the middle passes the origin at 1.8 sin(atan(r / f))."""
    made, view = system(), photo(64).context
    assert outside(view[0, 0], made.scene.center, 0.75) == 0  # the disc's edge passes at 0.49
    steps = (torch.arange(64) + 0.5) / 64 - 0.5
    ratio = torch.cartesian_prod(steps, steps).norm(dim=-1) / focal_from_fov(40)
    missed = (view.alpha.flatten() * (1.8 * ratio.atan().sin() > 0.3)).sum() / view.alpha.sum()
    assert 0.3 < missed < 0.9
    assert outside(view[0, 0], made.scene.center, 0.3) == pytest.approx(float(missed), abs=1e-6)
    made.scene.radius = 0.3
    with pytest.warns(UserWarning, match=f"{missed:.1%} of the object .* model.scene.radius \\(0.3\\)"):
        made.use_reference(view)


def test_memory_is_saved_without_another_gradient():
    """Recomputed activations give the same gradient, weights in bfloat16 about the same under mixed precision."""
    found = {}
    for name, options in (("plain", {}), ("recomputed", {"checkpoint_encoder": True}), ("half", {"half_prior": True})):
        made = system(**options)
        images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=name == "half"):
            loss = made.distill(images, made.reference.cameras[0], 0.0, torch.Generator().manual_seed(3))
        loss.backward()
        found[name] = images.grad
    torch.testing.assert_close(found["recomputed"], found["plain"])
    assert float(torch.nn.functional.cosine_similarity(found["half"].flatten(), found["plain"].flatten(), dim=0)) > 0.9
    assert next(made.text_prior.unet.parameters()).dtype == torch.bfloat16
