"""Objects of textured primitives: shapes whose size is known, textures without seams, cuts that are exact."""

import math

import numpy as np
import pytest
import torch

from vcgen.meshes.surface import Surface, joined
from vcgen.meshes.synthesis import objects
from vcgen.meshes.synthesis.cuts import cutter, rotation, without
from vcgen.meshes.synthesis.draws import Draws
from vcgen.meshes.synthesis.patterns import PATTERNS, SIDE, pattern, texture, waves
from vcgen.meshes.synthesis.primitives import TUBE, edges, patch_surface, primitive, raised

SLANT = math.sqrt(5)  # of a cone of radius 1 and height 2
AREAS = {
    "cube": 24.0, "sphere": 4 * math.pi, "cylinder": 6 * math.pi, "cone": math.pi * (1 + SLANT),
    "torus": 4 * math.pi**2 * (1 - TUBE) * TUBE,
}  # fmt: skip
VOLUMES = {
    "cube": 8.0, "sphere": 4 / 3 * math.pi, "cylinder": 2 * math.pi, "cone": 2 / 3 * math.pi,
    "torus": 2 * math.pi**2 * (1 - TUBE) * TUBE**2,
}  # fmt: skip


def whole(kind: str, detail: int = 20) -> Surface:
    """A primitive in white."""
    return joined([patch_surface(patch, torch.ones(3), None, (1, 1)) for patch in primitive(kind, detail)])


def draws(seed: int = 0) -> Draws:
    """Of a seed."""
    return Draws(np.random.default_rng(seed))


def volume(surface: Surface) -> float:
    """Enclosed, positive where faces show their front outwards."""
    a, b, c = surface.triangles.unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum()) / 6


@pytest.mark.parametrize("kind", list(AREAS))
def test_primitives_have_their_area_and_volume_and_normals_that_face_outwards(kind):
    surface = whole(kind)
    assert objects._area(surface) == pytest.approx(AREAS[kind], rel=0.01)
    assert volume(surface) == pytest.approx(VOLUMES[kind], rel=0.015), "closed, with its front outside"
    agreement = (surface.normals.double() * surface.face_normals()[:, None]).sum(-1)
    assert float(agreement.min()) > 0.4 and float(surface.normals.norm(dim=-1).sub(1).abs().max()) < 1e-5


@pytest.mark.parametrize("kind", list(AREAS))
def test_height_fields_move_the_inside_of_patches_and_leave_borders_together(kind):
    for patch in primitive(kind, 6):
        other = raised(patch, lambda u, v: np.full_like(u, 0.1))
        moved = np.linalg.norm(other.points - patch.points, axis=-1)
        assert moved.max() == pytest.approx(0.1, abs=0.01)
        assert moved[[0, -1]].max() < 1e-9 and (patch.round or moved[:, [0, -1]].max() < 1e-9)
        assert (other.points[:, 0] == other.points[:, -1]).all() or not patch.round


def test_edges_are_those_of_the_shape():
    assert len(edges("cube")) == 48 and np.abs(edges("cube")).max() == 1  # two quads along a side: twelve edges halved
    lines = edges("sphere")
    assert len({tuple(map(tuple, line)) for line in lines.tolist()}) == len(lines)
    assert np.linalg.norm(lines, axis=-1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_repeat_without_a_seam(name):
    line, other = np.linspace(0, 1, 50, endpoint=False) + 0.003, np.full(50, 0.377)
    there, again, above = (pattern(draws(), name, line + du, other + dv) for du, dv in ((0, 0), (1, 0), (0, 1)))
    assert np.allclose(there, again) and np.allclose(there, above) and np.ptp(there) > 0.1


def test_textures_are_opaque_and_gray_where_asked():
    pixels = texture(draws(), "gray")
    assert pixels.shape == (SIDE, SIDE, 4) and bool((pixels[..., 3] == 255).all())
    assert bool((pixels[..., 0] == pixels[..., 2]).all()) and float(pixels[..., 0].float().std()) > 5
    assert np.abs(waves(draws(), np.zeros(9), np.linspace(0, 1, 9), 3)).max() == pytest.approx(1)


def test_a_cut_takes_away_exactly_what_lies_inside():
    cube = whole("cube", 4)
    planes = torch.tensor([[1.0, 0, 0, 0.5], [-1, 0, 0, 0.5], [0, 1, 0, 0.25], [0, -1, 0, 0.25]], dtype=torch.float64)
    rest = without(cube, planes)  # a shaft along z
    assert objects._area(rest) == pytest.approx(24 - 2 * 1.0 * 0.5)
    middle = rest.triangles.mean(1)
    assert not bool(((middle[:, 0].abs() < 0.5) & (middle[:, 1].abs() < 0.25)).any())
    assert torch.allclose(rest.normals.double(), rest.face_normals()[:, None].expand(-1, 3, -1), atol=1e-6)
    assert without(cube, torch.tensor([[1.0, 0, 0, -3]], dtype=torch.float64)).triangles.shape == cube.triangles.shape


def test_cutters_hold_their_center_and_rotations_are_rigid():
    for seed in range(20):
        center = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
        planes = cutter(draws(seed), center, 0.2)
        assert torch.allclose(planes[:, :3] @ center - planes[:, 3], torch.tensor(-0.2, dtype=torch.float64))
        matrix = rotation(draws(seed))
        assert torch.allclose(matrix @ matrix.T, torch.eye(3, dtype=torch.float64)) and torch.linalg.det(matrix) > 0


def test_objects_are_whole_textured_and_bounded(monkeypatch):
    monkeypatch.setattr(objects, "WIRED", 1.0)
    monkeypatch.setattr(objects, "CUT", 1.0)
    for seed in range(6):
        surface = objects.make_object(np.random.default_rng(seed))
        assert 100 < len(surface) < 12_000 and 1 <= len(surface.textures) <= 5
        assert bool(surface.triangles.isfinite().all()) and float(surface.triangles.norm(dim=-1).max()) < 1
        assert float(surface.normals.norm(dim=-1).sub(1).abs().max()) < 0.1
        assert int(surface.texture.max()) < len(surface.textures)
    one = objects.make_object(np.random.default_rng(3), "natural", 1)
    assert len(one) < len(objects.make_object(np.random.default_rng(3), "natural", 9)) + 1
