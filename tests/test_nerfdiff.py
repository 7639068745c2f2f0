"""The system: its losses against closed forms, its rays, its randomness."""

import math

import pytest
import torch

from vcgen.cameras import orbit, pinhole
from vcgen.encoders.base import Encoder
from vcgen.encoders.pixelnerf import PixelNerf
from vcgen.encoders.triplane import TriplaneEncoder
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.metrics.base import PSNR_CAP
from vcgen.optim.optimizer import OptimizerOptions
from vcgen.rendering.ray_batches import draw_rays, gather_pixels, squared_error
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Example, RayRendering, Views


class EmptySpace(Encoder):
    """An encoder whose field is empty: every ray shows the background."""

    def forward(self, context):
        return self

    center, radius, proposal = torch.zeros(2, 3), torch.full((2,), 0.5), None

    def __call__(self, *arguments):
        if len(arguments) == 1:
            return self
        points, _ = arguments
        return torch.zeros(points.shape[:-1]), torch.zeros(points.shape)


def views(batch=2, n=3, size=16, alpha=True):
    cameras = orbit(torch.rand(batch * n) * 360, torch.rand(batch * n) * 40, 1.3, pinhole(1.0254), 0.8, 1.8).reshape(
        batch, n
    )
    return Views(torch.rand(batch, n, 3, size, size), cameras, torch.rand(batch, n, 1, size, size) if alpha else None)


def example(alpha=True):
    made = views(alpha=alpha)
    return Example(made[:, :1], made[:, 1:], ("a", "b"))


def test_loss_of_empty_space_is_the_distance_of_the_images_from_the_background():
    """Over white, the premultiplied truth a c + (1 - a) differs from white by a (1 - c): the loss is the mean of its
    square over hit pixels.
    """
    system = NerfDiff(EmptySpace(), RenderOptions(4), rays_per_view=4096, background="white")
    batch = example()
    made = Views(
        torch.full_like(batch.target.images, 0.25), batch.target.cameras, torch.full_like(batch.target.alpha, 0.5)
    )
    loss = system.losses(Example(batch.context, made, batch.keys), torch.Generator().manual_seed(0))
    assert float(loss["rgb"]) == pytest.approx((0.5 * 0.75) ** 2, rel=1e-5)


def test_random_backgrounds_make_the_loss_see_opacity():
    """White images on white: with a white background the empty field is perfect, with random ones it is not."""
    batch = example()
    white = Example(
        batch.context,
        Views(torch.ones_like(batch.target.images), batch.target.cameras, torch.ones_like(batch.target.alpha)),
        batch.keys,
    )
    losses = {
        name: float(
            NerfDiff(EmptySpace(), RenderOptions(4), rays_per_view=64, background=name).losses(
                white, torch.Generator().manual_seed(0)
            )["rgb"]
        )
        for name in ("white", "random")
    }
    assert losses["white"] == pytest.approx(0, abs=1e-12) and losses["random"] > 0.05


def test_the_random_background_loss_is_the_mean_over_colors():
    torch.manual_seed(0)
    rendering, truth = (RayRendering(torch.rand(2, 40, 3), torch.rand(2, 40), torch.zeros(2, 40)) for _ in range(2))
    # Simpson's rule is exact: the error is quadratic in the background.
    at = [(rendering.over(b) - truth.over(b)).square().mean() for b in (0.0, 0.5, 1.0)]
    expected = (at[0] + 4 * at[1] + at[2]) / 6
    torch.testing.assert_close(squared_error(rendering, truth, spread=True), expected)


def test_the_learned_background_gets_the_gradient():
    system = NerfDiff(EmptySpace(), RenderOptions(4), rays_per_view=32, background="learned")
    system.losses(example(alpha=False), torch.Generator().manual_seed(0))["rgb"].backward()
    assert system.background_logit.grad.abs().min() > 0


def test_a_view_without_an_error_counts_as_much_as_in_an_evaluation():
    """One beside the object is white, and rendered so. As infinite it would be the mean, and no checkpoint the best."""
    system, batch = NerfDiff(EmptySpace(), RenderOptions(4)), example()
    system.log = lambda *_, **__: None
    batch.target.alpha[:, 0] = 0
    system.validation_step(batch, 0)
    other = -10 * (1 - batch.target.on(1.0)[:, 1]).square().mean((1, 2, 3)).log10()
    assert float(system.val_psnr.compute()) == pytest.approx((PSNR_CAP + float(other.mean())) / 2)


def test_opaque_images_are_validated_over_the_learned_background():
    """Empty space over the very color of the images is without an error; images with alpha are compared over white."""
    system, batch = NerfDiff(EmptySpace(), RenderOptions(4), background="learned"), example(alpha=False)
    system.log = lambda *_, **__: None
    batch.target.images[:] = 0.25
    system.background_logit.data.fill_(math.log(0.25 / 0.75))
    with torch.no_grad():
        system.validation_step(batch, 0)
        assert float(system.val_psnr.compute()) > 60
        assert system.behind(views()) == 1.0
        torch.testing.assert_close(system.behind(batch.target, 0.0), torch.full((3, 1, 1), 0.25))


def test_drawn_rays_meet_the_sphere_and_carry_their_pixels_color():
    target = views(size=32)
    rays, pixels = draw_rays(EmptySpace(), target, 40, torch.Generator().manual_seed(0))
    closest = (rays.origins - rays.directions * (rays.origins * rays.directions).sum(-1, keepdim=True)).norm(dim=-1)
    assert (closest < 0.5).float().mean() > 0.97
    whole = target.cameras.rays(32, 32)
    for name, drawn in vars(rays).items():
        torch.testing.assert_close(drawn, vars(whole.gather(pixels))[name])
    truth = gather_pixels(target, pixels)
    expected = (target.images * target.alpha).flatten(-2)[1, 2, :, pixels[1, 2, 5]]
    torch.testing.assert_close(truth.rgb[1, 2 * 40 + 5], expected)


def small_encoder():
    return TriplaneEncoder(
        TriplaneDecoder(4, 16), plane_size=16, plane_channels=4, channels=(16, 32), layers=1, attention=(False, True)
    )


@pytest.mark.integration
@pytest.mark.parametrize(
    ("make", "names"), [(small_encoder, {"rgb"}), (lambda: PixelNerf(width=16, first_pool=False), {"rgb", "coarse"})]
)
def test_both_fields_train_on_the_same_system(make, names):
    """The seams: an encoder is all that differs between NerfDiff and the pixelNeRF baseline. Twenty steps on one batch
    lower the loss.
    """
    system = NerfDiff(
        make(), RenderOptions(8, importance=8 if "coarse" in names else 0, keep_coarse=True), rays_per_view=32
    )
    batch, optimizer = example(), torch.optim.Adam(system.parameters(), 3e-3)
    history = []
    for _ in range(20):
        losses = system.losses(batch, torch.Generator().manual_seed(0))
        assert set(losses) == names
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(float(losses["rgb"].detach()))
    assert history[-1] < 0.9 * history[0]
    seen = system.render(system.field(batch.context), batch.target.cameras, (8, 8))
    assert seen.rgb.shape == (2, 2, 3, 8, 8) and seen.alpha.shape == seen.depth.shape == (2, 2, 1, 8, 8)


def test_schedule_follows_its_definition():
    options = OptimizerOptions(warmup_steps=10, schedule="cosine", final=0.1)
    assert options.factor(0, 0.0) == pytest.approx(0.1) and options.factor(9, 0.0) == pytest.approx(1.0)
    assert options.factor(100, 0.5) == pytest.approx(0.55) and options.factor(100, 1.0) == pytest.approx(0.1)
    assert options.factor(100, 0.25) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert OptimizerOptions(warmup_steps=0, schedule="constant").factor(0, 0.7) == 1
    options = OptimizerOptions(warmup_steps=0, schedule="wsd", final=0.1, decay_fraction=0.2)
    assert options.factor(0, 0.0) == 1 and options.factor(9, 0.8) == pytest.approx(1.0)
    assert options.factor(9, 0.9) == pytest.approx(0.55) and options.factor(9, 1.1) == pytest.approx(0.1)
    assert OptimizerOptions(warmup_steps=0, schedule="wsd", decay_fraction=0.0).factor(9, 1.0) == 1
