"""pixelNeRF: parameter counts, pixel alignment, invariance, gradients, and an independent reading of the encoding."""

import logging
import math

import pytest
import torch

from vcgen.cameras import Cameras, orbit, pinhole
from vcgen.encoders.pixelnerf import PixelField, PixelNerf, ResnetFC, SpatialEncoder, octave_encoding
from vcgen.errors import UserError
from vcgen.types import Field, Views


def context(
    batch: int = 2, views: int = 1, height: int = 32, width: int = 48, dtype: torch.dtype = torch.float32
) -> Views:
    count = batch * views
    angles = torch.linspace(15, 200, count, dtype=dtype)
    cameras = orbit(angles, angles / 9, 1.3, pinhole(1.2, 1.7, 0.51, 0.48), 0.8, 1.8).reshape(batch, views)
    return Views(torch.rand(batch, views, 3, height, width, dtype=dtype), cameras)


@pytest.fixture(scope="module")
def model() -> PixelNerf:
    """A small network, in evaluation mode, whose residual blocks and last layer are not at their zero
    initialization.
    """
    torch.manual_seed(1)
    network = PixelNerf(first_pool=False, width=32).eval()
    for mlp in (network.mlp_coarse, network.mlp_fine):
        for block in mlp.blocks:
            torch.nn.init.normal_(block.fc_1.weight, std=0.1)
        torch.nn.init.normal_(mlp.lin_out.weight, std=0.2)
    return network


def queries(batch: int = 2, count: int = 7, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    points = 0.4 * torch.randn(batch, count, 3, dtype=dtype)
    return points, torch.nn.functional.normalize(torch.randn(batch, count, 3, dtype=dtype), dim=-1)


def test_each_mlp_has_the_published_number_of_weights():
    assert sum(p.numel() for p in ResnetFC().parameters()) == 3_438_596


def test_encoder_has_resnet34_without_its_last_stage():
    # torchvision documents 21,797,672 for ResNet-34; layer4 holds 13,114,368 and the classifier 512 * 1000 + 1000.
    assert sum(p.numel() for p in SpatialEncoder().parameters()) == 21_797_672 - 13_114_368 - 513_000


@pytest.mark.parametrize("first_pool", [True, False])
def test_features_are_512_channels_at_half_resolution(first_pool):
    features = SpatialEncoder(first_pool).eval()(torch.rand(1, 3, 32, 48))
    assert features.shape == (1, 512, 16, 24)


def test_field_shapes_and_ranges(model):
    field = model(context())
    density, color = field(*queries())
    assert isinstance(field, Field) and isinstance(field.proposal, Field) and field.proposal.proposal is None
    assert density.shape == (2, 7) and color.shape == (2, 7, 3)
    assert (density >= 0).all() and (density > 0).any() and (color > 0).all() and (color < 1).all()
    assert torch.equal(field.center, torch.zeros(2, 3)) and torch.equal(field.radius, torch.full((2,), math.inf))


def test_radius_is_the_constructors():
    assert torch.equal(PixelNerf(width=8, radius=0.7)(context()).radius, torch.full((2,), 0.7))
    with pytest.raises(UserError, match="radius"):
        PixelNerf(radius=0.0)
    with pytest.raises(UserError, match="null for no limit"):
        PixelNerf(radius=math.inf)  # JSON, in which models and results are written, has no infinity


def test_octave_encoding_against_the_formula():
    x = torch.randn(5, 3, dtype=torch.float64)
    rows = []
    for point in x.tolist():
        row = list(point)
        for k in range(6):
            row += [math.sin(1.5 * 2**k * c) for c in point] + [math.cos(1.5 * 2**k * c) for c in point]
        rows.append(row)
    torch.testing.assert_close(octave_encoding(x), torch.tensor(rows, dtype=torch.float64))


def test_point_on_a_pixels_ray_samples_the_feature_of_that_pixel():
    # Full-resolution features that name their pixel: channel 0 the row, channel 1 the column.
    views = context(height=5, width=8, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij")
    features = torch.stack([rows, columns]).double().expand(2, 1, 2, 5, 8)
    field = PixelField(torch.zeros(2, 3), torch.ones(2), None, None, features, views.cameras, views.size)
    rays = views.cameras.rays(5, 8)[:, 0]
    sampled = field.features_at(rays.origins + 1.37 * rays.directions)[:, 0]
    expected = torch.stack([rows, columns], -1).double().reshape(1, 40, 2).expand(2, 40, 2)
    torch.testing.assert_close(sampled, expected)


def test_points_outside_the_view_sample_its_border_and_its_center_stays_finite():
    views = context(height=4, width=4)
    features = torch.arange(16.0).reshape(1, 1, 1, 4, 4).expand(2, 1, 1, 4, 4)
    field = PixelField(torch.zeros(2, 3), torch.ones(2), None, None, features, views.cameras, views.size)
    directions = views.cameras.rays_at(torch.tensor([[-3.0, -3.0], [4.0, 4.0]])).directions
    points = torch.cat([views.cameras.centers + directions[:, 0], views.cameras.centers], 1)
    sampled = field.features_at(points)[:, 0, :, 0]
    torch.testing.assert_close(sampled[:, :2], torch.tensor([[0.0, 15.0]]).expand(2, 2))
    assert sampled.isfinite().all()


def test_receptive_field_of_the_first_convolution_is_centered_on_the_pixel(model):
    # End to end: the conv1 channels at pixel (8, 12) depend on a 7 x 7 window of the image, centered there.
    views = context(batch=1)
    images = views.images.clone().requires_grad_()
    field = model(Views(images, views.cameras))
    uv = torch.tensor([[(12 + 0.5) / 48, (8 + 0.5) / 32]])
    rays = views.cameras.rays_at(uv)[:, 0]
    field.features_at(rays.origins + rays.directions)[..., :64].sum().backward()
    # float32 rounding of the projection lets a millionth of the neighboring window in
    strength = images.grad[0, 0].abs().sum(0)
    touched = (strength > 1e-4 * strength.max()).nonzero()
    assert touched.min(0).values.tolist() == [5, 9] and touched.max(0).values.tolist() == [11, 15]


def test_rotating_the_world_changes_nothing(model):
    double = PixelNerf(first_pool=False, width=32).double().eval()
    double.load_state_dict(model.state_dict())
    views, (points, directions) = context(dtype=torch.float64), queries(dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = rotation
    cameras = Cameras(turn @ views.cameras.c2w, views.cameras.K, views.cameras.near, views.cameras.far)
    before = double(views)(points, directions)
    after = double(Views(views.images, cameras))(points @ rotation.T, directions @ rotation.T)
    torch.testing.assert_close(after, before, atol=1e-10, rtol=0)
    moved = double(views)(points + 0.1, directions)
    assert (moved[0] - before[0]).abs().max() > 1e-3  # the comparison above is not of constants


def test_axes_are_opengls_in_the_source_camera(model):
    # From the camera: +x right, +y up, and what lies ahead has negative z; the world's origin stays the origin.
    views = context(batch=1)
    c2w = views.cameras.c2w[0, 0]
    right, down, forward = c2w[:3, :3].unbind(-1)
    local = model(views).rotate_to_view(torch.stack([right, -down, forward, torch.zeros(3)])[None])[0, 0]
    torch.testing.assert_close(local, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, -1], [0, 0, 0]]), atol=1e-6, rtol=0)


def test_gradients_reach_encoder_and_both_mlps():
    network = PixelNerf(width=32)
    for mlp in (network.mlp_coarse, network.mlp_fine):
        torch.nn.init.normal_(mlp.lin_out.weight)  # it starts at zero, too
    field, (points, directions) = network(context()), queries()
    loss = sum(
        density.sum() + color.sum()
        for density, color in (field(points, directions), field.proposal(points, directions))
    )
    loss.backward()
    # fc_1 starts at zero, so fc_0, before it, learns from the second step on
    missing = [
        name
        for name, p in network.named_parameters()
        if "fc_0" not in name and not (p.grad is not None and p.grad.abs().max() > 0)
    ]
    assert missing == []


def test_coarse_and_fine_use_their_own_mlp(model):
    field, (points, directions) = model(context()), queries()
    assert not torch.equal(field(points, directions)[1], field.proposal(points, directions)[1])


def test_density_is_the_full_calls_seen_from_the_source_camera(model):
    views, (points, _) = context(), queries()
    field = model(views)
    directions = torch.nn.functional.normalize(points - views.cameras.centers, dim=-1)
    assert torch.equal(field.density(points), field(points, directions)[0])


def test_repeating_a_view_changes_nothing(model):
    views, (points, directions) = context(batch=1), queries(batch=1)
    once, twice = model(views), model(views[:, [0, 0]])
    torch.testing.assert_close(twice(points, directions), once(points, directions))


def test_fields_keep_their_own_state(model):
    first, second = context(), context()
    points, directions = queries()
    field = model(first)
    before = field(points, directions)[0]
    model(second)
    assert torch.equal(field(points, directions)[0], before)


def test_transparent_views_are_seen_on_white(model):
    views, (points, directions) = context(), queries()
    clear = Views(views.images, views.cameras, torch.zeros(2, 1, 1, 32, 48))
    white = Views(torch.ones_like(views.images), views.cameras)
    torch.testing.assert_close(model(clear)(points, directions), model(white)(points, directions))


def test_random_initialization_is_announced(caplog):
    with caplog.at_level(logging.INFO):
        SpatialEncoder()
    assert "random weights" in caplog.text


def test_pretrained_weights_are_loaded_whole_or_refused(tmp_path, caplog):
    resnet34 = pytest.importorskip("torchvision.models").resnet34(weights=None)
    torch.save(resnet34.state_dict(), tmp_path / "resnet34.pth")
    encoder = SpatialEncoder(pretrained=str(tmp_path / "resnet34.pth"))
    assert torch.equal(encoder.model["layer3"][5].conv2.weight, resnet34.layer3[5].conv2.weight)
    assert "random" not in caplog.text
    incomplete = {key: value for key, value in resnet34.state_dict().items() if "layer2" not in key}
    torch.save(incomplete, tmp_path / "incomplete.pth")
    (tmp_path / "noise.pth").write_bytes(b"no weights at all")
    for name in ("incomplete.pth", "noise.pth", "absent.pth"):
        with pytest.raises(UserError, match=name) as raised:
            SpatialEncoder(pretrained=str(tmp_path / name))
        assert "\n" not in str(raised.value)


def test_image_batches_without_a_view_dimension_are_refused(model):
    with pytest.raises(ValueError, match="batch, views"):
        model(context()[:, 0])


@torch.no_grad()
def test_mixed_precision_does_not_round_colors_to_eight_bits():
    """Of an output of 2, which bfloat16 knows, the color is exact: near 1 bfloat16 has steps of 1 / 256."""
    network = PixelNerf(first_pool=False, width=8).eval()
    torch.nn.init.constant_(network.mlp_fine.lin_out.bias, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        density, color = network(context())(*queries())
    torch.testing.assert_close(density, torch.full((2, 7), math.log1p(math.e)))
    torch.testing.assert_close(color, torch.full((2, 7, 3), 1 / (1 + math.exp(-2))))


def test_rendering_from_many_views_takes_no_more_memory_than_from_one(model):
    views, (points, directions) = context(batch=1), queries(batch=1, count=12)
    field, sizes = model(views[:, [0] * 4]), []
    hook = field.mlp.register_forward_pre_hook(lambda mlp, inputs: sizes.append(inputs[0].numel()))
    found = field(points, directions)
    with torch.no_grad():
        parts = field(points, directions)
    hook.remove()
    torch.testing.assert_close(parts, found)
    assert sizes == [4 * 12 * 512] + [12 * 512] * 4
