"""Scene representation networks: laws of the march, penalties, published sizes and formulas."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from coded import cameras, context, generator, srn
from vcgen.encoders.image_code import CodeEncoder, canonical
from vcgen.encoders.srn import SrnDecoder
from vcgen.errors import UserError
from vcgen.fields.srn import RayMarcher, behind, march
from vcgen.rendering.marching_cubes import extract_mesh
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.types import RayScene


def codes(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 8, generator=generator())


def seen(count: int = 2):
    """Rays (count, 16) of one camera for each scene."""
    return cameras([10.0 + 60 * i for i in range(count)]).reshape(count, 1).rays(4, 4).reshape(count, -1)


def test_with_the_distance_to_a_sphere_one_step_lands_on_it():
    origins, radius = torch.tensor([[1.3, 0.0, 0.0], [0.0, -2.0, 0.0]]), 0.5
    landed = march(
        lambda p, memory: (p.norm(dim=-1) - radius, memory), origins, -F.normalize(origins), 0 * origins[:, 0], 1
    )
    torch.testing.assert_close(landed, origins.norm(dim=-1) - radius)


def test_each_step_begins_where_the_last_one_ended_with_the_memory_it_left():
    def advance(points, memory):
        passed = [*(memory or []), points[0, 0].item()]
        return points[:, 0] + 1, passed

    last = march(advance, torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]]), torch.ones(1), 3)
    assert last.tolist() == [15.0]  # 1, 3, 7, 15


@pytest.mark.parametrize("start", [None, 0.05])
def test_without_lengths_of_steps_the_march_stays_at_its_start(start):
    made = srn(start=start)
    nn.init.zeros_(made.marcher.length.weight)
    nn.init.zeros_(made.marcher.length.bias)
    scene = made(codes(), canonical(2, 0.51, codes()))
    rays = replace(seen(), near=torch.full_like(seen().near, 0.9))
    shot = scene.shoot(rays)
    expected = torch.full_like(rays.near, 0.9 if start is None else start)
    torch.testing.assert_close(shot.depth, shot.alpha * expected, rtol=0, atol=0)


def test_ends_behind_the_camera_cost_their_squared_distance():
    torch.testing.assert_close(behind(torch.tensor([-0.1])), torch.tensor(0.01))
    torch.testing.assert_close(behind(torch.tensor([-0.1, 2.0])), torch.tensor(0.005))


def test_the_march_learns_not_to_end_behind_the_camera():
    made = srn(start=0.05)
    nn.init.constant_(made.marcher.length.bias, -1.0)
    shot = made(codes(), canonical(2, 0.51, codes())).shoot(seen(), generator())
    shot.penalties["behind"].backward()
    assert shot.penalties["behind"] > 0 and made.marcher.length.bias.grad < 0


def test_renderings_repeat_bitwise_and_scenes_do_not_see_each_other():
    made = srn()
    pictures = [
        render_image(made(code, canonical(2, 0.51, code)), cameras([0.0, 0.0]).reshape(2, 1), (8, 8), RenderOptions())
        for code in (codes(), codes(), torch.stack([codes()[0], -codes()[1]]))
    ]
    assert isinstance(made(codes(), canonical(2, 0.51, codes())), RayScene)
    for first, again, other in zip(*pictures, strict=True):
        assert torch.equal(first, again)
        torch.testing.assert_close(first[0], other[0])
    assert (pictures[0].rgb[1] - pictures[2].rgb[1]).abs().max() > 1e-4


def test_gradients_reach_encoder_hypernetwork_marcher_and_colors():
    made = CodeEncoder(srn(), (8, 8))
    shot = made(context()).shoot(seen(), generator())
    (shot.rgb.sum() + shot.alpha.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_the_gradient_of_the_marchers_memory_is_clamped():
    marcher = RayMarcher(4, 2)
    length, (memory, _) = marcher(torch.ones(1, 4), None)
    memory.retain_grad()
    (1e6 * length).sum().backward()
    assert memory.grad.abs().max() == 10


def test_it_is_the_published_network():
    """Against the formulas of https://github.com/vsitzmann/scene-representation-networks, written out for one scene:
    linear layers with normalization and ReLU, an LSTM whose forget gate starts open, steps along the ray."""
    made = srn()
    marcher = made.marcher
    assert all((b[16:32] == 1).all() for b in (marcher.lstm.bias_ih, marcher.lstm.bias_hh))
    rays, code = seen(1), codes(1)
    weights = made.hypernetwork(code)

    def phi(x):
        for matrix, bias in weights:
            x = x @ matrix[0].T + bias[0]
            x = ((x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()).clamp(min=0)
        return x

    x, h, c = rays.at(rays.near[..., None])[0, :, 0], torch.zeros(16, 16), torch.zeros(16, 16)
    for _ in range(3):
        gates = phi(x) @ marcher.lstm.weight_ih.T + marcher.lstm.bias_ih + h @ marcher.lstm.weight_hh.T
        i, f, g, o = (gates + marcher.lstm.bias_hh).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        x = x + rays.directions[0] * (h @ marcher.length.weight.T + marcher.length.bias)
    out = made.colors(phi(x)).sigmoid()
    shot = made(code, canonical(1, 0.51, code)).shoot(rays)
    torch.testing.assert_close(shot.rgb[0], out[:, :3] * out[:, 3:], rtol=1e-4, atol=1e-5)
    distance = ((x - rays.origins[0]) * rays.directions[0]).sum(-1)
    torch.testing.assert_close(shot.depth[0], distance * out[:, 3], rtol=1e-4, atol=1e-5)


def test_published_sizes():
    """51,869,076 weights (its code, counted), of which 198,400 of an object's network are predicted; the opacity's
    output is ours."""
    with torch.device("meta"):
        made = SrnDecoder()
    assert sum(head.out_features for head in made.hypernetwork.heads) == 198_400
    assert sum(p.numel() for p in made.parameters()) - (256 + 1) == 51_869_076


def test_no_mesh_is_made_of_it():
    with pytest.raises(UserError, match="SrnScene has no density"):
        extract_mesh(srn()(codes(1), canonical(1, 0.51, codes(1))))
