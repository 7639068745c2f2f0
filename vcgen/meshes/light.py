"""The light of rendered meshes: a white sky all round, hidden by the object itself where it stands in the way, and
suns.

What a face sees of sky and suns is looked up in depth maps, drawn from many directions once per object, at points near
the corners of both sides. Where sky is hidden other parts of the object are seen, which are taken to have its mean
color, lit by about half as much."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vcgen.cameras import Cameras, look_at, pinhole
from vcgen.meshes.surface import BLEND, Surface
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import rasterize
from vcgen.tensors import sum_of

#: Directions in which the sky is looked for.
SKY_DIRECTIONS = 40
#: Where on a soft sun's disc shadows are looked for, in units of the disc's radius of SUN_RADIUS radians.
SOFT, HARD = ((0.6, 0.3), (-0.3, 0.6), (-0.6, -0.3), (0.3, -0.6)), ((0.0, 0.0),)
SUN_RADIUS = 0.15
#: Radiance of the object's own parts where they hide the sky, times their color.
BOUNCE = 0.55
#: Pixels of a depth map; how far what it shows may lie before a point that still counts as seen, as a fraction of the
#: object's radius.
MAP, BIAS = 112, 0.024
#: Distance of the depth maps' cameras in radii: rays are parallel within a third of a degree.
FAR = 200.0
#: The faint gloss of all materials: roughness, and reflectance seen straight on.
ROUGHNESS, REFLECTANCE = 0.55, 0.034
#: Of the base color, what is left beside the gloss.
MATTE = 0.96


class Sun(NamedTuple):
    """irradiance: on a face that faces it. angles: Euler angles about x, y and z that turn the world's z to it. spots:
    SOFT or HARD.
    """

    irradiance: float
    angles: tuple[float, float, float]
    spots: tuple[tuple[float, float], ...]

    def frame(self) -> Tensor:
        """(3, 3) rotation; the third column points to its middle."""
        return _turn(*self.angles)


class Lamps(NamedTuple):
    """sky: its radiance; it shines from below, too. suns: what shines besides."""

    sky: float
    suns: tuple[Sun, ...]


#: The light of the bundled cars.
STANDARD = Lamps(0.6, (Sun(2.4, (0.9, 0.15, 0.6), SOFT), Sun(0.7, (1.1, 0.0, -2.2), HARD)))


def varied_lamps(random: np.random.Generator) -> Lamps:
    """The lamps of an object: a sky of radiance 0.3 to 0.8; a soft sun of irradiance 1 to 3 from any side, 15 to 75
    degrees from the zenith, and a fainter one that is not on the same side.
    """
    sky, strong, faint = (random.uniform(*ends) for ends in ((0.3, 0.8), (1.0, 3.0), (0.0, 1.0)))
    tilts, turn = np.radians(random.uniform(15, 75, 2)), random.uniform(0, 2 * math.pi)
    other = turn + random.uniform(0.5, 1.5) * math.pi
    suns = Sun(strong, (float(tilts[0]), 0.0, turn), SOFT), Sun(faint, (float(tilts[1]), 0.0, other), HARD)
    return Lamps(sky, suns)


@dataclass(frozen=True, eq=False)
class Light:
    """What corners of the front (0) and back (1) of F faces see of lamps. sky: (2, F, 3) fraction of it. suns: (2, F,
    3) fraction of each. diffuse: (2, F, 3, 3) radiance of a white matte face."""

    lamps: Lamps
    sky: Tensor
    suns: tuple[Tensor, ...]
    diffuse: Tensor


def shine_on(surface: Surface, base: Tensor, lamps: Lamps = STANDARD) -> Light:
    """Light on a surface around the origin. base: (F, 3, 3) color at corners in linear light, which tints what the
    object gives back.
    """
    radius = float(surface.triangles.norm(dim=-1).max())
    casts = surface.mode != BLEND  # glass casts no shadow
    mesh = Meshes(surface.triangles[casts].reshape(-1, 3), torch.arange(3 * int(casts.sum())).reshape(-1, 3)).welded()
    faces = surface.face_normals()
    offset = BIAS / 2 * radius * torch.stack([faces, -faces])[:, :, None]
    points = 0.75 * surface.triangles + 0.25 * surface.triangles.mean(1, keepdim=True) + offset
    normals = torch.stack([surface.normals, -surface.normals])
    open_sky, total = torch.zeros(points.shape[:3]), torch.zeros(points.shape[:3])
    for direction in _sphere(SKY_DIRECTIONS):
        weight = (normals @ direction.float()).clamp(min=0)
        total += weight
        open_sky += weight * _sees(mesh, points, direction, radius)
    sky = open_sky / total.clamp(min=1e-9)
    suns = []
    diffuse = lamps.sky * sky[..., None] + BOUNCE * (1 - sky)[..., None] * (base.mean((0, 1)) + base) / 2
    for sun in lamps.suns:
        frame = sun.frame()
        aims = [frame @ torch.tensor([x * SUN_RADIUS, y * SUN_RADIUS, 1.0], dtype=torch.float64) for x, y in sun.spots]
        part = sum_of(_sees(mesh, points, aim / aim.norm(), radius) for aim in aims) / len(aims)
        suns.append(part)
        diffuse = diffuse + (part * sun.irradiance / math.pi * (normals @ frame[:, 2].float()).clamp(min=0))[..., None]
    return Light(lamps, sky, tuple(suns), diffuse)


def gloss(lamps: Lamps, normals: Tensor, to_eye: Tensor, sky: Tensor, suns: list[Tensor]) -> Tensor:
    """(n, 3) white reflection at corners (n, 3, 3) of faces: of a dielectric by Schlick and GGX, of the sky by a fit to
    Blender's.

    normals, to_eye: unit vectors on the side that is seen. sky, suns: (n, 3) what each sees of them.
    """
    mu = (normals * to_eye).sum(-1).clamp(0.02, 1)
    out = (0.028 + 0.10 * (1 - mu) ** 3) * lamps.sky * sky
    for sun, visible in zip(lamps.suns, suns, strict=False):
        aim = sun.frame()[:, 2].float()
        half = torch.nn.functional.normalize(to_eye + aim, dim=-1)
        cosine, nh, vh = (
            (normals @ aim).clamp(min=0),
            (normals * half).sum(-1).clamp(0, 1),
            (to_eye * half).sum(-1).clamp(0, 1),
        )
        lobe = ROUGHNESS**4 / (math.pi * (nh**2 * (ROUGHNESS**4 - 1) + 1) ** 2)
        out = out + visible * sun.irradiance * lobe * (REFLECTANCE + (1 - REFLECTANCE) * (1 - vh) ** 5) * cosine / (
            4 * (mu * cosine).clamp(min=0.08)
        )
    return out


def _sees(mesh: Meshes, points: Tensor, direction: Tensor, radius: float) -> Tensor:
    """(...) 1 where nothing hides points (..., 3) from a direction, else 0, by a depth map."""
    if not len(mesh.faces):
        return torch.ones(points.shape[:-1])
    eye = FAR * radius * direction
    c2w = look_at(eye, torch.zeros_like(eye), torch.tensor([0.31, 0.55, 0.77], dtype=torch.float64))
    one = torch.ones(1, dtype=torch.float64)
    camera = Cameras(c2w[None], pinhole(FAR / 2.12).double()[None], one * radius, one * 2 * FAR * radius)
    raster = rasterize(mesh, camera, (MAP, MAP))
    depth = torch.full((MAP * MAP,), math.inf, dtype=torch.float64).index_put((raster.pixels,), raster.z)
    uv, z = camera.project(points.reshape(1, -1, 3))
    column, row = (uv[0] * MAP).long().clamp(0, MAP - 1).unbind(1)
    return (z[0] <= depth[row * MAP + column] + BIAS * radius).float().reshape(points.shape[:-1])


def _sphere(count: int) -> Tensor:
    """(count, 3) directions, evenly all round."""
    k = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * k / count, math.pi * (1 + 5**0.5) * k
    flat = (1 - z * z).sqrt()
    return torch.stack([flat * angle.cos(), flat * angle.sin(), z], 1)


def _turn(x: float, y: float, z: float) -> Tensor:
    """The rotation by Euler angles about x, then y, then z."""
    (a, b, c), (s, t, u) = ([function(angle) for angle in (x, y, z)] for function in (math.cos, math.sin))
    about = ([[c, -u, 0], [u, c, 0], [0, 0, 1]], [[b, 0, t], [0, 1, 0], [-t, 0, b]], [[1, 0, 0], [0, a, -s], [0, s, a]])
    first, second, third = (torch.tensor(rows, dtype=torch.float64) for rows in about)
    return first @ second @ third
