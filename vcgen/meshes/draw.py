"""Images of a surface: several samples a pixel, colors added up in linear light, alpha the fraction of them that meets
the object.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vcgen.cameras import Cameras
from vcgen.meshes.light import MATTE, STANDARD, Lamps, Light, gloss, shine_on
from vcgen.meshes.surface import MASK, OPAQUE, Surface, to_linear, to_srgb
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import Raster, rasterize
from vcgen.rendering.textures import Mipmaps, bilinear, mip_level
from vcgen.tensors import sum_of

#: Edges are halved to this, unless the faces become more than MOST: light is computed at corners, the level of textures
#: once a face.
LONGEST, MOST = 0.11, 300_000
#: Faces one behind the other that are looked through, at most.
LAYERS = 12


@dataclass(frozen=True, eq=False)
class Drawable:
    """A surface ready to be drawn. mesh: its faces, welded, in float64. textures: in linear light, color times alpha.
    light: None for the base color alone. cull: whether the backs of single-sided faces are left out."""

    surface: Surface
    mesh: Meshes
    textures: tuple[Mipmaps, ...]
    light: Light | None
    cull: bool


def drawable(surface: Surface, lamps: Lamps | None = STANDARD, cull: bool = False) -> Drawable:
    """Prepare a surface around the origin: refine its faces, and compute its light. lamps: None for the base color
    alone.
    """
    surface = surface.refined(LONGEST, max(MOST, len(surface)))
    mesh = Meshes(surface.triangles.reshape(-1, 3), torch.arange(3 * len(surface)).reshape(-1, 3)).welded()
    textures = tuple(Mipmaps.of(_linear(texture)) for texture in surface.textures)
    if lamps is None:
        return Drawable(surface, mesh, textures, None, cull)
    corners = torch.arange(len(surface)).repeat_interleave(3)
    base = _base(textures, surface, corners, surface.uv.reshape(-1, 2), surface.rgba.reshape(-1, 4), None)
    return Drawable(surface, mesh, textures, shine_on(surface, base[:, :3].reshape(-1, 3, 3), lamps), cull)


def draw(scene: Drawable, camera: Cameras, size: tuple[int, int], samples: int = 4) -> Tensor:
    """(height, width, 4) uint8, straight sRGB color and alpha, of one camera (shape ()), by ``samples`` x ``samples``
    samples a pixel.
    """
    fine = (size[0] * samples, size[1] * samples)
    total = torch.zeros(fine[0] * fine[1], 4)
    visible, raster = shown(scene, camera), None
    for _ in range(LAYERS if bool((scene.surface.mode != OPAQUE).any()) else 1):
        raster = rasterize(*visible, fine, behind=raster)
        rgba, before = colors(scene, raster, camera), total[raster.pixels]
        left = (1 - before[:, 3:]) * rgba[:, 3:]
        total[raster.pixels] = before + torch.cat([rgba[:, :3] * left, left], 1)
        if not len(raster.pixels) or bool((total[raster.pixels, 3] > 0.999).all()):
            break
    pixels = total.reshape(size[0], samples, size[1], samples, 4).mean((1, 3))
    color = to_srgb(pixels[..., :3] / pixels[..., 3:].clamp(min=1e-6))
    return (torch.cat([color, pixels[..., 3:]], -1) * 255 + 0.5).to(torch.uint8)


def shown(scene: Drawable, camera: Cameras) -> tuple[Meshes, Cameras]:
    """What is drawn, and the camera as a batch of one, in float64. A face that is left out becomes one without area."""
    mesh, camera = scene.mesh, Cameras(*(x.double()[None] for x in (camera.c2w, camera.K, camera.near, camera.far)))
    if not scene.cull:
        return mesh, camera
    kept = scene.surface.double | ~backs(scene.surface, camera.centers[0], torch.arange(len(scene.surface)))
    return Meshes(mesh.vertices, torch.where(kept[:, None], mesh.faces, 0)), camera


def backs(surface: Surface, eye: Tensor, faces: Tensor) -> Tensor:
    """Whether faces show their back to a point."""
    a, b, c = surface.triangles[faces].unbind(1)
    return (torch.linalg.cross(b - a, c - a) * (eye - a)).sum(1) < 0


def colors(scene: Drawable, raster: Raster, camera: Cameras) -> Tensor:
    """(m, 4) color in linear light and alpha of the samples that meet a face."""
    surface, found = scene.surface, raster.faces
    met = torch.zeros(len(surface), dtype=torch.bool).index_fill(0, found, True)
    faces = met.nonzero()[:, 0]
    place = (met.cumsum(0) - 1).index_select(0, found)
    values = [surface.rgba[faces], surface.uv[faces]]
    if scene.light:
        values += _lit(scene.light, surface, faces, camera.centers.double())
    table = torch.cat(values, -1)
    weights = raster.weights.float()
    mixed = sum_of(weights[:, k, None] * table[:, k].index_select(0, place) for k in range(3))
    slopes = (_slopes(raster, surface, len(faces), place), place) if scene.textures else None
    rgba = _base(scene.textures, surface, found, mixed[:, 4:6], mixed[:, :4], slopes)
    mode = surface.mode.index_select(0, found)
    alpha = torch.where(mode == MASK, (rgba[:, 3] >= surface.cutoff.index_select(0, found)).float(), rgba[:, 3])
    alpha = torch.where(mode == OPAQUE, 1, alpha)
    color = MATTE * rgba[:, :3] * mixed[:, 6:9] + mixed[:, 9:] if scene.light else rgba[:, :3]
    return torch.cat([color, alpha[:, None]], 1)


def _slopes(raster: Raster, surface: Surface, count: int, place: Tensor) -> Tensor:
    """(count, 2, 2) change of uv per sample right and down of each of the faces that are met, at one of its samples.
    place: (m,) which.
    """
    one = torch.zeros(count, dtype=torch.int64).scatter_reduce(0, place, torch.arange(len(place)), "amax")
    parts = {name: getattr(raster, name).index_select(0, one) for name in ("pixels", "weights", "z", "vertices")}
    return replace(raster, **parts).slopes(surface.uv)


def _lit(light: Light, surface: Surface, faces: Tensor, eye: Tensor) -> list[Tensor]:
    """Diffuse light (n, 3, 3) and gloss (n, 3, 1) at the corners of faces, on the side that is seen from a point."""
    back = backs(surface, eye, faces).long()
    normals = torch.where(back[:, None, None] == 1, -1, 1) * surface.normals[faces]
    to_eye = torch.nn.functional.normalize(eye - surface.triangles[faces], dim=-1).float()
    shine = gloss(light.lamps, normals, to_eye, light.sky[back, faces], [sun[back, faces] for sun in light.suns])
    return [light.diffuse[back, faces], shine[..., None]]


def _base(
    textures: tuple[Mipmaps, ...],
    surface: Surface,
    faces: Tensor,
    uv: Tensor,
    factor: Tensor,
    slopes: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """(m, 4) base color in linear light and alpha of points on faces (m,), at uv (m, 2), where the factor is (m, 4).

    slopes: of faces, and which each point is on. They choose one level of a texture, the nearest: the samples of a
        pixel are averaged.
    """
    texture = surface.texture.index_select(0, faces)
    out = factor.clone()
    for number, mipmaps in enumerate(textures):
        here = (texture == number).nonzero()[:, 0]
        level = torch.zeros_like(here)
        if slopes is not None:
            levels = mip_level(slopes[0], mipmaps.sizes[0]).round().clamp(max=len(mipmaps.sizes) - 1).long()
            level = levels.index_select(0, slopes[1].index_select(0, here))
        texel = bilinear(mipmaps, level, uv.index_select(0, here), torch.zeros_like(here), ("repeat", "repeat"))
        straight = texel[:, :3] / texel[:, 3:].clamp(min=1e-6)
        out[here] *= torch.cat([straight, texel[:, 3:]], 1)
    return out


def _linear(texture: Tensor) -> Tensor:
    """(1, 4, H, W) float32 of (H, W, 4) uint8: linear light, color times alpha."""
    levels = torch.arange(256, dtype=torch.float32) / 255
    color, alpha = to_linear(levels)[texture[..., :3].long()], levels[texture[..., 3:].long()]
    return torch.cat([color * alpha.clamp(min=1e-3), alpha.clamp(min=1e-3)], -1).permute(2, 0, 1)[None]
