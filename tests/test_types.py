"""Views, Example and the Field protocol."""

import pytest
import torch

from vcgen.cameras import Cameras, pinhole
from vcgen.types import Example, Field, Position, Views


def some_views(batch: int = 2, count: int = 3, height: int = 4, width: int = 6) -> Views:
    shape = (batch, count)
    cameras = Cameras(
        torch.randn(*shape, 4, 4), pinhole(1.0).expand(*shape, 3, 3), torch.ones(shape), 2 * torch.ones(shape)
    )
    return Views(torch.rand(*shape, 3, height, width), cameras, torch.rand(*shape, 1, height, width))


def test_compositing_is_linear_between_background_and_color():
    views = some_views()
    color = torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    clear, solid = torch.zeros_like(views.alpha), torch.ones_like(views.alpha)
    torch.testing.assert_close(Views(views.images, views.cameras, clear).on(color), color.expand_as(views.images))
    torch.testing.assert_close(Views(views.images, views.cameras, solid).on(color), views.images)
    torch.testing.assert_close(Views(views.images, views.cameras, solid / 4).on(1.0), 0.75 + views.images / 4)


def test_opaque_views_ignore_the_background():
    views = some_views()
    assert Views(views.images, views.cameras).on(0.3) is views.images


def test_size_is_height_then_width():
    assert some_views(height=4, width=6).size == (4, 6)


def test_indexing_takes_images_alpha_and_cameras_alike():
    views = some_views()
    part = views[:, 1:]
    assert torch.equal(part.images, views.images[:, 1:]) and torch.equal(part.alpha, views.alpha[:, 1:])
    assert torch.equal(part.cameras.c2w, views.cameras.c2w[:, 1:])
    assert Views(views.images, views.cameras)[0].alpha is None
    with pytest.raises(IndexError):
        views[..., 0]


def test_moving_converts_every_tensor_and_keeps_the_rest():
    example = Example(some_views(), some_views(), ("a", "b"), cursor=Position(2, 7)).to(torch.float64)
    views = example.target
    tensors = (views.images, views.alpha, views.cameras.c2w, views.cameras.K, views.cameras.near, views.cameras.far)
    assert {x.dtype for x in (*tensors, example.context.images)} == {torch.float64}
    assert (example.keys, example.cursor) == (("a", "b"), Position(2, 7))


def test_field_protocol_asks_for_bounds_and_density():
    class Ball:
        center, radius, proposal = torch.zeros(1, 3), torch.ones(1), None

        def __call__(self, points, directions):
            return self.density(points), points

        def density(self, points):
            return (points.norm(dim=-1) < 1).float()

    class Unbounded:
        proposal = None
        __call__ = Ball.__call__
        density = Ball.density

    assert isinstance(Ball(), Field)
    assert not isinstance(Unbounded(), Field)


def test_renderers_only_read_a_field_so_that_frozen_fields_and_narrower_proposals_are_fields():
    """A type checker takes no field with ``proposal: None`` for one whose proposal may be set."""
    for name in ("center", "radius", "proposal"):
        assert isinstance(getattr(Field, name), property) and getattr(Field, name).fset is None
