"""Rays keep what belongs together."""

import torch

from vcgen.cameras import orbit, pinhole


def cameras():
    return orbit(torch.tensor([0.0, 40.0, 200.0]), torch.tensor([5.0, 30.0, -20.0]), 2.0, pinhole(1.1), 1.2, 2.8)


def test_rays_are_picked_reshaped_and_cut_whole():
    rays = cameras().rays(4, 5)
    index = torch.randint(20, (3, 7))
    picked = rays.gather(index)
    for batch in range(3):
        for name, tensor in vars(rays[batch][index[batch]]).items():
            assert torch.equal(getattr(picked, name)[batch], tensor)
    for name, tensor in vars(rays.reshape(3, 2, 10)).items():
        assert torch.equal(tensor.flatten(1, 2), getattr(rays, name))


def test_points_lie_at_their_distance_along_the_ray():
    rays = cameras().rays(4, 5)
    points = rays.at(torch.stack([rays.near, rays.far], -1))
    assert points.shape == (3, 20, 2, 3)
    offsets = points - rays.origins[..., None, :]
    torch.testing.assert_close(
        (offsets * rays.directions[..., None, :]).sum(-1), torch.stack([rays.near, rays.far], -1)
    )
