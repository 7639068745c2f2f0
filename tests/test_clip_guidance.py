"""Guidance by CLIP: exact gradients of its two losses, composed images, and a scene that follows a linear scorer."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from small_text_to_3d import CONFIG, hash_grid, losses, system
from text_folder import tiny_clip
from training import assert_same_end, vcgen
from vcgen.cameras import orbit, pinhole
from vcgen.encoders.scene_voxels import SceneVoxels
from vcgen.errors import UserError
from vcgen.guidance.clip import ClipGuidance, draw_backgrounds, draw_crops
from vcgen.rendering.shading import Shading, render_shaded
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.text_to_3d.guided import losses_of_views
from vcgen.systems.text_to_3d.system import TextTo3D


class Linear:
    """A scorer of whose images the score is their product with a direction of color."""

    direction = torch.tensor([1.0, -1.0, 0.0])

    def embed_images(self, images):
        return images.mean((1, 2))

    def embed_texts(self, texts):
        return self.direction.expand(len(texts), 3)


def linear(**options) -> ClipGuidance:
    made = ClipGuidance("unused", **{"crops": 1, "crop": 1.0, "backgrounds": ["white"], **options})
    made.scorer = Linear()
    return made


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("opacity", "per_ray"), [(0.1, 0.0), (0.6, 0.5)])
def test_a_ray_pulls_towards_emptiness_below_the_target_and_not_at_all_above(opacity, per_ray):
    alpha = torch.full((2, 1, 4, 4), opacity, requires_grad=True)
    found = linear(transmittance=0.8).view_losses(torch.zeros(2, 3, 4, 4), alpha, ["a", "b"], 0.0, noise())
    found["transmittance"].backward()
    torch.testing.assert_close(alpha.grad, torch.full_like(alpha, per_ray / 32))
    clear, rising = torch.zeros(1, 4, 4, 4).split((3, 1), 1), linear(transmittance=[(0.0, 0.2), (1.0, 0.8)])
    found = rising.view_losses(*clear, ["a"], 0.5, noise())
    assert float(found["transmittance"]) == pytest.approx(-0.5 * 0.5)


def test_the_color_of_a_linear_score_pulls_by_its_weights():
    color = torch.rand(2, 3, 4, 4, requires_grad=True)
    linear(crops=3).view_losses(color, torch.ones(2, 1, 4, 4), ["a", "b"], 0.0, noise())["clip"].backward()
    torch.testing.assert_close(color.grad, (-Linear.direction[:, None, None] / 32).expand(2, 3, 4, 4))


def test_a_crop_has_a_pixel_at_least():
    color, alpha = torch.rand(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
    assert linear(crop=0.05).view_losses(color, alpha, ["a"], 0.0, noise())["clip"].isfinite()


def test_the_background_shows_as_far_as_the_view_is_clear_and_no_more():
    """Color is premultiplied: to weigh it again would darken thin matter twice."""
    seen, color, alpha = [], torch.rand(1, 3, 4, 4) * 0.3, torch.full((1, 1, 4, 4), 0.3)
    made = linear(backgrounds=["white", "flat"], crops=2)
    made.scorer.embed_images = lambda images: (seen.append(images), images.mean((1, 2)))[1]
    made.view_losses(color, alpha, ["a"], 0.0, noise())
    behind = draw_backgrounds(["white", "flat"], color.expand(2, -1, -1, -1), noise())
    white, flat = seen[0].movedim(-1, 1)
    torch.testing.assert_close(white - flat, 0.7 * (behind[0] - behind[1]))
    torch.testing.assert_close(white, color[0] + 0.7)


def test_backgrounds_are_colors_and_crops_are_squares_of_the_image():
    kinds = ["white", "flat", "noise", "checkerboard", "smooth"]
    drawn = draw_backgrounds(kinds, torch.zeros(5, 3, 16, 16), noise())
    assert bool(((drawn >= 0) & (drawn <= 1)).all()) and bool((drawn[0] == 1).all())
    white, flat, pixels, checks, smooth = (image.flatten(1).unique(dim=1).shape[1] for image in drawn)
    assert (white, flat, pixels, checks) == (1, 1, 256, 2) and smooth > 100
    steps = [image.diff(dim=-1).abs().mean() for image in drawn]
    assert 0 < steps[4] < 0.5 * steps[2]
    image = torch.arange(100.0).reshape(1, 1, 10, 10).expand(20, 3, 10, 10)
    crops = draw_crops(image, 7, noise())
    corners = crops[:, 0, 0, 0]
    assert len(corners.unique()) > 5
    torch.testing.assert_close(crops[:, 0] - corners[:, None, None], image[:, 0, :7, :7])


class Uniform:
    """The same density everywhere, black."""

    def __init__(self, density):
        self.value, self.center, self.radius = density, torch.zeros(1, 3), torch.full((1,), 10.0)

    def density(self, points):
        return points.new_full(points.shape[:-1], self.value)

    def __call__(self, points, directions):
        return self.density(points), torch.zeros_like(points)


@pytest.mark.parametrize("density", [0.1, 0.7])
def test_the_transmittance_of_uniform_density_falls_exponentially_with_the_length(density):
    """exp(-density length): only what is below the target pays."""
    rays = orbit(torch.zeros(1), torch.zeros(1), 2.0, pinhole(1.2), 1.0, 3.0).rays(8, 8)
    seen = render_shaded(Uniform(density), rays, RenderOptions(16), Shading(), noise(), with_normals=False)
    found = losses_of_views(linear(transmittance=0.6, weight=1.0), [seen], ["a"], 0.0, noise())
    assert float(found["transmittance"]) == pytest.approx(-min(0.6, math.exp(-2 * density)), abs=1e-5)


@pytest.mark.parametrize("scene", ["hash grid", "voxels"])
def test_a_scene_takes_on_the_color_that_a_linear_score_wants(scene):
    """Red for green's opposite: the same steps uphill are the control."""
    ends = {}
    for sign in (1, -1):
        torch.manual_seed(0)
        field = SceneVoxels(size=8, half_size=0.75, radius=0.75, blob=(6.0, 0.2)) if scene == "voxels" else None
        made = system(guidance=linear(), scene=field)
        optimizer = made.configure_optimizers()
        for _ in range(12):
            found = losses(made)
            assert "sds" not in found
            optimizer.zero_grad()
            (sign * found["clip"]).backward()
            optimizer.step()
        ends[sign] = float(losses(made)["clip"].detach())
    assert ends[1] < -0.005 < 0.005 < ends[-1]


def test_what_lacks_a_prior_or_opacity_is_refused():
    with pytest.raises(UserError, match="ClipGuidance needs the opacity"):
        linear().step(0, None, torch.zeros(1), None, noise())
    with pytest.raises(ValueError, match=r"scores colors: set model\.scene\.colors to sigmoid"):
        system(guidance=linear(), scene=SceneVoxels(size=8, colors="latent"))
    with pytest.raises(ValueError, match=r"model\.learned changes a text prior"):
        TextTo3D(None, hash_grid(), linear(), learned=Path("outputs/word"))
    with pytest.raises(ValueError, match="need crop > 0"):
        linear(crop=0.0)


@pytest.mark.integration
def test_a_run_needs_no_prior_and_goes_on_bitwise(tmp_path):
    given = yaml.safe_load(CONFIG)
    clip = str(tiny_clip(tmp_path / "clip"))
    given["model"]["init_args"] |= {
        "prior": None,
        "guidance": {"class_path": "ClipGuidance", "init_args": {"clip": clip, "crops": 2}},
    }
    (tmp_path / "given.yaml").write_text(yaml.safe_dump(given))
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "whole") == 0
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "parts", trainer__callbacks="training.Witness",
                 trainer__callbacks__stop=2) == 0  # fmt: skip
    assert vcgen("fit", tmp_path / "given.yaml", tmp_path / "parts", ckpt_path="last") == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
