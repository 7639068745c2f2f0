"""Losses of patches: against closed forms and other programs, their gradients, and patches as parts of images."""

import pytest
import torch
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from test_nerfdiff import EmptySpace, small_encoder, views
from vcgen.errors import UserError
from vcgen.losses.gradients import gradient_difference
from vcgen.losses.patches import NAMES
from vcgen.losses.structure import structural_dissimilarity
from vcgen.metrics import lpips
from vcgen.metrics.gradients import T, gmsd
from vcgen.rendering.patches import PatchOptions, as_images, draw_patches
from vcgen.rendering.ray_batches import gather_pixels
from vcgen.rendering.volume import RenderOptions
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Example, Views

OPTIONS = PatchOptions(side=32, network="squeeze")


@pytest.fixture
def weights(shared_data, monkeypatch):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(shared_data / "weights"))


def system(encoder, *losses, patches=OPTIONS, **options):
    weights = {"rgb": 1.0} | dict.fromkeys(losses, 0.5)
    return NerfDiff(encoder, RenderOptions(4), loss_weights=weights, patches=patches, **options)


def example():
    made = views(size=48)
    return Example(made[:, :1], made[:, 1:], ("a", "b"))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_patch_is_a_part_of_the_image_around_a_ray_that_meets_the_sphere(stride):
    torch.manual_seed(0)
    target, side = views(size=80), 32
    rays, pixels = draw_patches(EmptySpace(), target, PatchOptions(side, stride), torch.Generator().manual_seed(0))
    patches = as_images(gather_pixels(target, pixels).rgb, side)
    premultiplied, top, left = (target.images * target.alpha).flatten(0, 1), pixels[..., 0] // 80, pixels[..., 0] % 80
    for patch, image, y, x in zip(patches, premultiplied, top.flatten(), left.flatten(), strict=True):
        last = (side - 1) * stride + 1
        torch.testing.assert_close(patch, image[:, y : y + last : stride, x : x + last : stride])
    whole = target.cameras.rays(80, 80).gather(pixels)
    for name, drawn in vars(rays).items():
        torch.testing.assert_close(drawn, vars(whole)[name])
    assert min(top.unique().numel(), left.unique().numel()) >= 3


def test_losses_over_white_of_empty_space_are_distances_from_a_white_image():
    """A truth of gray 0.25 and opacity 0.5 differs from white by 0.375 everywhere: no gradient, and an SSIM whose
    structure term is 1.
    """
    batch = example()
    gray = Views(
        torch.full_like(batch.target.images, 0.25), batch.target.cameras, torch.full_like(batch.target.alpha, 0.5)
    )
    made = system(EmptySpace(), "absolute", "structure", "gradients", background="white")
    losses = made.losses(Example(batch.context, gray, batch.keys), torch.Generator().manual_seed(0))
    luminance = (2 * 0.625 + 1e-4) / (1 + 0.625**2 + 1e-4)
    expected = {"rgb": 0.375**2, "absolute": 0.375, "structure": 1 - luminance, "gradients": 0.0}
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(expected, abs=1e-5)
    assert made.work["rays"] == 4 * 32**2


def test_the_structural_loss_is_that_of_scikit_image():
    first, second = torch.rand(2, 1, 3, 20, 24, dtype=torch.float64)
    arrays = [image[0].permute(1, 2, 0).numpy() for image in (first, second)]
    expected = structural_similarity(*arrays, channel_axis=-1, data_range=1.0, use_sample_covariance=False)
    assert float(structural_dissimilarity(first, second)) == pytest.approx(1 - expected, abs=1e-10)


def test_the_gradients_of_a_ramp_are_its_slope_at_each_scale():
    """Slope a per pixel along one of two axes is a, 2 a and 4 a at three scales; a constant is not seen."""
    ramp = 0.01 * torch.arange(16.0).expand(2, 3, 8, 16)
    assert float(gradient_difference(ramp + 0.3, torch.zeros_like(ramp))) == pytest.approx(0.01 * (1 + 2 + 4) / 6)
    assert float(gradient_difference(ramp.mT + 0.3, ramp.mT)) == pytest.approx(0, abs=1e-7)


def test_the_gradient_of_each_loss_points_uphill(weights):
    """Along its gradient a loss changes as much as its derivative says, at images like those of training."""
    torch.manual_seed(0)
    truth = torch.rand(2, 3, 32, 32)
    for name, loss in system(EmptySpace(), *NAMES).patch_losses.items():
        images = (truth + 0.1 * torch.randn_like(truth)).requires_grad_()
        (slope,) = torch.autograd.grad(loss(images, truth), images)
        step = 1e-3 * slope / slope.norm()
        with torch.no_grad():
            change = loss(images + step, truth) - loss(images - step, truth)
        assert float(change) == pytest.approx(2e-3 * float(slope.norm()), rel=0.05), name


def test_the_perceptual_loss_is_lpips_and_no_part_of_the_model(weights):
    made = system(small_encoder(), "perceptual")
    before, images, truth = set(made.state_dict()), *torch.rand(2, 2, 3, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        value = made.patch_losses["perceptual"](images, truth)
    assert float(value) == pytest.approx(float(lpips.load_lpips("squeeze", offline=True)(images, truth).mean()))
    made.losses(example(), torch.Generator().manual_seed(0))["perceptual"].backward()
    assert float(made.encoder.skip[0].weight.grad.abs().max()) > 0
    assert (
        set(made.state_dict()) == before
        and made.patch_losses["perceptual"].load().model.lin0.model[1].weight.grad is None
    )


def test_only_losses_with_a_weight_are_computed():
    made = system(EmptySpace(), "absolute")
    assert set(made.losses(example(), torch.Generator().manual_seed(0))) == {"rgb", "absolute"}
    made = NerfDiff(EmptySpace(), patches=OPTIONS, loss_weights={"structure": 0.0})
    assert set(made.losses(example(), torch.Generator().manual_seed(0))) == {"rgb"}


def test_losses_of_patches_need_patches():
    with pytest.raises(UserError, match=r"has structure; the losses are rgb.*; with model.patches also absolute, str"):
        system(EmptySpace(), "structure", patches=None)


def test_a_patch_larger_than_the_image_is_refused():
    PatchOptions(32, 2).check((63, 64))
    with pytest.raises(UserError, match=r"spans 63 pixels, the images have 62 x 64; lower model.patches.side or"):
        PatchOptions(32, 2).check((62, 64))


def test_gmsd_is_the_authors_program():
    """Their steps with scipy, which like theirs begins a 2 x 2 average at the first whole window."""
    torch.manual_seed(0)
    pair, maps = torch.rand(2, 1, 3, 22, 31), []
    for image in pair:
        luma = 255 * sum(
            w * channel for w, channel in zip((0.299, 0.587, 0.114), image[0].double().numpy(), strict=True)
        )
        half = convolve2d(luma, [[0.25, 0.25], [0.25, 0.25]])[1::2, 1::2]
        across = [[1 / 3, 0, -1 / 3]] * 3
        squares = [convolve2d(half, kernel, "same") ** 2 for kernel in (across, list(zip(*across, strict=True)))]
        maps.append(sum(squares) ** 0.5)
    similarity = (2 * maps[0] * maps[1] + T) / (maps[0] ** 2 + maps[1] ** 2 + T)
    assert gmsd(*pair).tolist() == pytest.approx([similarity.std(ddof=1)], rel=1e-6)
    assert gmsd(pair[0], pair[0]).tolist() == [0.0]


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (2, 2)])
def test_gmsd_refuses_images_whose_similarity_has_one_place(size):
    with pytest.raises(
        UserError, match=rf"^GMSD needs images with a side of at least 3 pixels, they are \({size[0]}, "
    ):
        gmsd(*torch.rand(2, 1, 3, *size))
    assert gmsd(*torch.rand(2, 1, 3, size[0], 3)).isfinite().all()
