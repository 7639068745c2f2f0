"""Distillation: virtual cameras, an oracle prior that must lead to the true field, and what must not change."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from stand_in import Balls
from vcgen.cameras import view_angles
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.diffusion.base import Condition, Denoised
from vcgen.diffusion.prior import ViewPrior
from vcgen.diffusion.schedule import noise_schedule, signal_and_noise
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.scene_hashgrid import SceneHashGrid
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.errors import UserError
from vcgen.fields.hashgrid import HashGrid
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.guidance.ngd import NGD
from vcgen.guidance.sds import SDS
from vcgen.guidance.sjc import SJC
from vcgen.rendering.ray_batches import ray_losses
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.systems.distillation import loop as distillation
from vcgen.systems.distillation.distilled import Distilled
from vcgen.systems.distillation.loop import Distillation, DistillOptions, distill, virtual_cameras
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Views


class Oracle(nn.Module):
    """A prior that knows the true images (n, 3, H, W) in [-1, 1], whatever it is asked."""

    def __init__(self, images):
        super().__init__()
        self.images, self.schedule, self.size = images, noise_schedule(), images.shape[-1]

    def condition(self, rendering, context, near, far):
        return Condition(rendering.rgb.flatten(0, 1), None, torch.ones(len(self.images)))

    def denoise(self, noisy, times, condition, scale):
        alpha, sigma = signal_and_noise(self.schedule, times, noisy)
        return Denoised(self.images, (noisy - alpha * self.images) / sigma)


def system(prior=None) -> NerfDiff:
    torch.manual_seed(0)
    encoder = TriplaneEncoder(TriplaneDecoder(8, 16), 16, 8, channels=(32, 32), layers=1, attention=(False, False))
    return NerfDiff(encoder, RenderOptions(16), prior=prior).eval()


@pytest.fixture(scope="module")
def example():
    return FixedScenes(read_index("data/cars64/test"), 3, 3)[1]


def small_prior() -> ViewPrior:
    return ViewPrior(channels=(32, 32), attention=(False, False), input_attention=False, patch=4)


FEW = DistillOptions(views=4, rays=512, input_rays=64)


def test_virtual_cameras_look_at_the_object_from_the_inputs_distance(example):
    camera = example.context.cameras[:, 0]
    center = torch.tensor([[0.1, -0.05, 0.02]])
    cameras = virtual_cameras(camera, center, 40, (-5.0, 70.0))
    assert cameras.shape == (1, 40)
    uv, depth = cameras.project(center[:, None, None].expand(1, 40, 1, 3))
    torch.testing.assert_close(uv, torch.full_like(uv, 0.5))
    torch.testing.assert_close(depth, (camera.centers - center).norm().expand_as(depth))
    _, elevation = view_angles(cameras.centers - center[:, None])
    assert elevation.min() > -5 and elevation.max() < 70
    # Equal areas: the mean height is the middle of the zone's.
    low, high = torch.deg2rad(torch.tensor([-5.0, 70.0])).sin()
    torch.testing.assert_close(torch.deg2rad(elevation).sin().mean(), (low + high) / 2)
    first = view_angles(cameras.centers[0, 0] - center[0])[0]
    torch.testing.assert_close(first, view_angles(camera.centers[0] - center[0])[0])


@pytest.mark.integration
@pytest.mark.parametrize(
    "guidance",
    [
        pytest.param(NGD(rounds=8, updates=40), id="ngd"),
        pytest.param(NGD(gamma=0.0, rounds=8, updates=40), id="ngd_gamma0"),
        pytest.param(SDS(rounds=160, start=0.5), id="sds", marks=pytest.mark.slow),
    ],
)
def test_with_a_prior_that_knows_the_truth_the_field_becomes_the_truth(example, guidance):
    """The true field has other planes; the input view is shown by it, too. Every guidance must bring it back from all
    virtual views.
    """
    model = system()
    with torch.no_grad():
        field = model.field(example.context)
        truth = replace(
            field,
            planes=field.planes + 0.5 * torch.randn(field.planes.shape, generator=torch.Generator().manual_seed(1)),
        )
        cameras = virtual_cameras(example.context.cameras[:, 0], field.center, 4, FEW.elevations)
        images = model.render(truth, cameras, (64, 64)).rgb[0]
        seen = model.render(truth, example.context.cameras, (64, 64))
        context = replace(example.context, images=seen.rgb, alpha=None)
        before = (model.render(field, cameras, (64, 64)).rgb[0] - images).square().mean()
        model.prior = Oracle(images * 2 - 1)
        model.field = lambda views: field
    state = distill(model, context, guidance, replace(FEW, scene_lr=0.03))
    with torch.no_grad():
        after = (model.render(state.field, cameras, (64, 64)).rgb[0] - images).square().mean()
    assert after < 0.15 * before


SCENES = {
    "triplane": lambda: SceneTriplane(TriplaneDecoder(8, 16), 16, 8, half_size=0.56, radius=0.51),
    "hashgrid": lambda: SceneHashGrid(
        HashGrid(levels=4, log2_size=12, coarsest=4, finest=16), 0.56, 0.51, hidden=16, depth=1
    ),
}


def test_opaque_images_stand_before_the_color_that_the_model_has_learned(example):
    """Where the prior and the input view show the field as it is, before that color, there is nothing to distill."""
    torch.manual_seed(0)
    model = NerfDiff(SCENES["triplane"](), RenderOptions(8), background="learned").eval()
    model.background_logit.data = torch.tensor([-1.0, 0.5, 2.0])
    cameras = virtual_cameras(example.context.cameras[:, 0], torch.zeros(1, 3), 4, FEW.elevations)
    with torch.no_grad():
        before = model.background_logit.sigmoid()[:, None, None]
        images, seen = (
            model.render(model.field(example.context), views, (16, 16), before).rgb
            for views in (cameras, example.context.cameras)
        )
    model.prior = Oracle(images[0] * 2 - 1)
    opaque = Views(seen, example.context.cameras)
    state = Distillation(model, opaque, NGD(), FEW)
    losses = state.losses(0, torch.Generator().manual_seed(0))
    assert losses["virtual"] < 1e-4 and losses["input"] < 1e-4
    torch.testing.assert_close(Distilled(model, NGD(), FEW).behind(opaque), before)
    # the prior of images with alpha has them over white
    assert Distillation(model, replace(opaque, alpha=torch.ones_like(seen[:, :, :1])), NGD(), FEW).backdrop is None


@pytest.mark.integration
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(
    "guidance",
    [NGD(rounds=8, updates=15), SDS(rounds=120, start=0.8, end=0.3), SJC(rounds=120, start=0.8, end=0.3)],
    ids=["ngd", "sds", "sjc"],
)
def test_any_guidance_brings_any_field_to_what_the_prior_knows(example, scene, guidance):
    """The prior knows a ball that shows its normals as colors, in closed form; the input view shows it, too."""
    torch.manual_seed(0)
    model = NerfDiff(SCENES[scene](), RenderOptions(8)).eval()
    ball = Balls(torch.zeros(1, 3), torch.tensor([0.3]), density=60.0, bound=0.51, skin=0.02)
    cameras = virtual_cameras(example.context.cameras[:, 0], torch.zeros(1, 3), 4, FEW.elevations)
    images, seen = (
        render_image(ball, views, (16, 16), RenderOptions(48)).rgb for views in (cameras, example.context.cameras)
    )
    model.prior = Oracle(images[0] * 2 - 1)
    options = replace(FEW, rays=128, input_rays=16, scene_lr=0.02, decoder_lr=0.01)
    state = distill(model, Views(seen, example.context.cameras), guidance, options)
    with torch.no_grad():
        before, after = (
            (model.render(field, cameras, (16, 16)).rgb - images).square().mean()
            for field in (state.first, state.field)
        )
    assert after < 0.25 * before


def test_distillation_leaves_the_model_as_it_was(example):
    model = system(small_prior())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = distill(model, example.context, NGD(rounds=2, updates=2), replace(FEW, decoder_lr=1e-3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not torch.equal(state.field.planes, state.first.planes)
    assert any(
        not torch.equal(a, b) for a, b in zip(state.field.decoder.parameters(), state.first.decoder.parameters())
    )


@pytest.mark.parametrize(
    ("rates", "changed"),
    [({"scene_lr": None, "decoder_lr": 1e-3}, "decoder"), ({"scene_lr": 1e-2, "decoder_lr": None}, "scene")],
    ids=["decoder", "scene"],
)
def test_a_part_without_a_learning_rate_is_kept_to_the_bit(example, rates, changed):
    state = distill(system(small_prior()), example.context, NGD(rounds=2, updates=2), replace(FEW, **rates))
    before, after = state.first.weights().state_dict(), state.result.weights().state_dict()
    parts = {part: [name for name in before if name.startswith(part)] for part in ("scene", "decoder")}
    assert sum(map(len, parts.values())) == len(before) and all(parts.values())
    assert {
        part for part, names in parts.items() if any(not torch.equal(before[name], after[name]) for name in names)
    } == {changed}


def test_the_same_seed_gives_the_same_field_and_another_one_another(example):
    model = system(small_prior())
    fields = [distill(model, example.context, NGD(rounds=2, updates=2), FEW, seed).field.planes for seed in (0, 0, 1)]
    assert torch.equal(fields[0], fields[1]) and not torch.equal(fields[0], fields[2])


def test_objects_distilled_together_keep_apart(example):
    """Only one object's targets pull at its planes: an object's gradient does not reach its neighbor."""
    model = system(small_prior())
    both = replace(
        example.context,
        images=example.context.images.repeat(2, 1, 1, 1, 1),
        alpha=example.context.alpha.repeat(2, 1, 1, 1, 1),
        cameras=example.context.cameras[[0, 0]],
    )
    state = Distillation(model, both, NGD(), FEW)
    state.advance(0, torch.Generator().manual_seed(0))
    with torch.no_grad():
        state.targets[4:] = 1.0
    gradients, planes = [], state.weights.scene["planes"]
    for target in (state.targets.clone(), torch.cat([state.targets[:4], -state.targets[4:]])):
        state.targets.copy_(target)
        planes.grad = None
        torch.stack(list(state.losses(1, torch.Generator().manual_seed(0)).values())).sum().backward()
        gradients.append(planes.grad.clone())
    assert torch.equal(gradients[0][0], gradients[1][0]) and not torch.equal(gradients[0][1], gradients[1][1])
    with pytest.raises(UserError, match="one at a time"):
        Distillation(model, both, NGD(), replace(FEW, decoder_lr=1e-3))


def test_the_condition_is_the_first_rendering_or_the_current_one(example):
    model = system(small_prior())
    shown = []
    original = model.prior.denoise
    model.prior.denoise = lambda noisy, times, condition, scale: (
        shown.append(condition.maps.clone()),
        original(noisy, times, condition, scale),
    )[1]
    for condition in ("first", "current"):
        shown.clear()
        distill(model, example.context, NGD(rounds=2, updates=3), replace(FEW, condition=condition))
        assert torch.equal(shown[0], shown[1]) == (condition == "first")


def test_what_cannot_be_distilled_is_refused(example):
    with pytest.raises(UserError, match="no diffusion prior"):
        distill(system(), example.context, NGD())
    with pytest.raises(UserError, match="64 x 64 pixels, the prior knows 32 x 32"):
        distill(
            system(ViewPrior(channels=(32, 32), attention=(False, False), input_attention=False, size=32)),
            example.context,
            NGD(),
        )
    pixelnerf = NerfDiff(PixelNerf(width=16, first_pool=False), prior=small_prior())
    with pytest.raises(UserError, match="PixelField cannot be finetuned"):
        distill(pixelnerf, example.context, NGD())


@pytest.mark.parametrize(("samples", "used"), [(None, 12), (5, 5)])
def test_the_field_is_fitted_as_it_will_be_shown(example, monkeypatch, samples, used):
    model = system(small_prior())
    model.render_eval = RenderOptions(12)
    seen = []
    monkeypatch.setattr(distillation, "ray_losses", lambda *a, **k: (seen.append(a[3].samples), ray_losses(*a, **k))[1])
    distill(model, example.context, NGD(rounds=1, updates=1), replace(FEW, samples=samples))
    assert seen == [used, used]


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 0},
        {"views": 0},
        {"rays": 3, "views": 4},
        {"elevations": (20.0, 10.0)},
        {"elevations": (0.0, 90.0)},
        {"scene_lr": 0.0},
        {"input_weight": -1.0},
        {"scene_lr": None, "decoder_lr": -1.0},
        {"scene_lr": float("nan")},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ValueError):
        DistillOptions(**wrong)


def test_a_distillation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="both null: nothing is left to finetune"):
        DistillOptions(scene_lr=None)
