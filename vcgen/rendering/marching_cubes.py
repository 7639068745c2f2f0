"""From a density field to a colored triangle mesh.

Marching cubes (Lorensen & Cline, SIGGRAPH 1987; Lewiner et al., 2003), not on density but on how deep a point lies in
it: a field that was fitted to images is as dense as its outside needs to look right, and thin, thick or empty inside,
where no image reaches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vcgen.errors import UserError
from vcgen.types import Field, RayScene, Scene

if TYPE_CHECKING:
    import trimesh

#: Optical depths: of a line that loses half of its light, where a rendering's outline lies, and of the skin, which
#: takes a tenth.
OUTLINE, SKIN = float(np.log(2)), float(-np.log(0.9))
#: With a density threshold: opacity is measured over radius / PIXELS, one pixel of an image, 64 pixels wide, that the
#: sphere just fills.
PIXELS = 32


@dataclass(frozen=True)
class Surface:
    """A mesh and how it was found.

    mesh: world coordinates, normals outward, uint8 sRGB vertex colors. threshold: the density (per world unit) of the
    surface where one was asked for, else None. density_range: lowest and highest density on the grid, in the field's
    sphere. spacing: of the grid, world units.
    """

    mesh: "trimesh.Trimesh"
    threshold: float | None
    density_range: tuple[float, float]
    spacing: float


@torch.no_grad()
def extract_mesh(
    field: Scene, resolution: int = 128, threshold: float | None = None, radius: float | None = None, chunk: int = 2**17
) -> Surface:
    """The largest connected surface of the first scene of ``field``, colored as seen from outside.

    resolution: grid points along each edge of a cube around ``field.center``. threshold: density per world unit of the
    surface; None puts it where :func:`solidity` is 1. radius: half the cube's edge; None takes the field's own, which
    must then be finite.
    chunk: points per query, which bounds memory. Raises UserError when there is nothing to extract."""
    import trimesh
    from skimage.measure import marching_cubes

    if isinstance(field, RayScene):
        raise UserError(
            f"{type(field).__name__} has no density, and so no surface to extract a mesh from; leave the mesh out"
            " (--mesh-resolution 0)"
        )
    if resolution < 8:
        raise UserError(f"a mesh needs a grid of at least 8 points along each edge, not {resolution}")
    if threshold is not None and threshold <= 0:
        raise UserError(f"the density threshold must be positive, not {threshold}")
    radius = float(field.radius[0]) if radius is None else radius
    density = density_grid(field, resolution, radius, chunk)
    inside = _sphere(resolution, float(field.radius[0]) / radius)
    seen = density[inside] if inside.any() else np.zeros(1)  # a cube so large that all points miss the sphere
    density_range = float(seen.min()), float(seen.max())
    _refuse_empty(density_range, radius, threshold)
    density, spacing = np.where(inside, density, 0), 2 * radius / (resolution - 1)  # no camera sees what is outside
    if threshold is None:
        # Of a hard surface all that counts is on which side a sample lies; how far beyond the level must not pull the
        # surface.
        values, level = solidity(density, spacing).clip(max=2), 1.0
        if values.max() <= level:
            raise _transparent(density_range)
    else:
        # Density is unbounded: interpolated, it would push the surface to the empty side.
        values, level = 1 - np.exp(-density * radius / PIXELS), 1 - float(np.exp(-threshold * radius / PIXELS))
    # A shell of empty samples closes the surface where the object touches the cube.
    vertices, faces, _, _ = marching_cubes(np.pad(values, 1), level, gradient_direction="ascent")
    corner = field.center[0].double().cpu().numpy() - radius
    mesh = _largest(trimesh.Trimesh((vertices - 1) * spacing + corner, faces))
    mesh.visual.vertex_colors = surface_colors(field, mesh, spacing, chunk)
    return Surface(mesh, threshold, density_range, spacing)


def density_grid(field: Field, resolution: int, radius: float, chunk: int = 2**17) -> NDArray[np.float32]:
    """Density of the first scene at (resolution, resolution, resolution) points, x first, of the cube ``field.center``
    +- ``radius``.
    """
    axis = torch.linspace(-radius, radius, resolution, device=field.center.device, dtype=field.center.dtype)
    return density_at(field, [axis + middle for middle in field.center[0]], chunk)


def density_at(field: Field, axes: Sequence[Float[Tensor, " n"]], chunk: int = 2**17) -> NDArray[np.float32]:
    """Density of the first scene at all points whose x, y and z are on three axes, x first; chunk: points per query."""
    x, y, z = axes
    slabs = []
    for xs in x.split(max(1, chunk // (len(y) * len(z)))):
        points = torch.cartesian_prod(xs, y, z)
        slabs.append(torch.cat([_density(field, part) for part in points.split(chunk)]).float().cpu())
    return torch.cat(slabs).reshape(*map(len, axes)).numpy()


def solidity(density: NDArray[np.float32], spacing: float) -> NDArray[np.float32]:
    """How far each point is from being outside; it is inside where this exceeds 1.

    Along each axis the line through the point must lose half of its light, as inside the outline of a rendering, and a
    tenth of it on either side of the point: what a camera looks into is not solid, however far. The least of these
    optical depths, over the one demanded. density: per world unit, on a cubic grid whose points are ``spacing`` apart;
    outside of it there is nothing. Trapezoidal rule."""
    least = np.full(density.shape, np.inf, np.float32)
    for axis in range(3):
        before = spacing * (density.cumsum(axis, dtype=np.float32) - density / 2)
        whole = spacing * density.sum(axis, keepdims=True)
        for depth, demanded in ((before, SKIN), (whole - before, SKIN), (whole, OUTLINE)):
            np.minimum(least, depth / demanded, out=least)
    return least


def surface_colors(
    field: Field, mesh: "trimesh.Trimesh", spacing: float, chunk: int = 2**17, samples: int = 8
) -> NDArray[np.uint8]:
    """uint8 (vertices, 3): those of :func:`colors_from_outside` at the vertices, against their normals. chunk: points
    per query.
    """
    device, dtype = field.center.device, field.center.dtype
    vertices = torch.as_tensor(mesh.vertices, dtype=dtype, device=device)
    inward = -torch.as_tensor(np.array(mesh.vertex_normals), dtype=dtype, device=device)
    parts = zip(vertices.split(chunk // samples), inward.split(chunk // samples), strict=True)
    colors = torch.cat([colors_from_outside(field, *part, spacing, samples) for part in parts])
    return (colors.clamp(0, 1) * 255).round().byte().cpu().numpy()


def colors_from_outside(
    field: Field, points: Float[Tensor, "n 3"], inward: Float[Tensor, "n 3"], spacing: float, samples: int = 8
) -> Float[Tensor, "n 3"]:
    """What rays of the directions ``inward`` see of the first scene, composited from one ``spacing`` before points of
    its surface to two behind.

    Light that passes all samples takes the color of the last one, so thin opacity does not darken the result.
    """
    offsets = torch.linspace(-spacing, 2 * spacing, samples, device=points.device, dtype=points.dtype)
    step = 3 * spacing / (samples - 1)
    places = points[:, None] + offsets[:, None] * inward[:, None]
    density, color = field(*(_batch(x.reshape(-1, 3), field) for x in (places, inward[:, None].expand_as(places))))
    alpha = 1 - torch.exp(-density[0].reshape(-1, samples) * step)
    alpha[:, -1] = 1
    transmittance = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], 1), 1)
    return ((alpha * transmittance)[..., None] * color[0].reshape(-1, samples, 3)).sum(1)


def _sphere(resolution: int, fraction: float) -> NDArray[np.bool_]:
    """Which points of a cube's grid lie in the sphere around its middle whose radius is ``fraction`` of half the cube's
    edge.
    """
    square = np.linspace(-1, 1, resolution) ** 2
    return square[:, None, None] + square[:, None] + square <= fraction**2


def _batch(points: Float[Tensor, "n 3"], field: Field) -> Float[Tensor, "batch n 3"]:
    return points.expand(len(field.center), -1, -1)


def _density(field: Field, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    return field.density(_batch(points, field))[0]


def _refuse_empty(density_range: tuple[float, float], radius: float, threshold: float | None) -> None:
    low, high = density_range
    found = f"the density on the grid lies between {low:.3g} and {high:.3g}"
    if not np.isfinite(low) or not np.isfinite(high):
        raise UserError(f"no surface: {found}, so the model has diverged; use an earlier checkpoint")
    if threshold is not None and not low < threshold < high:
        raise UserError(
            f"no surface at density {threshold:g}: {found}; choose a threshold between them or leave it out"
        )


def _transparent(density_range: tuple[float, float]) -> UserError:
    low, high = density_range
    found = (
        f"the density on the grid lies between {low:.3g} and {high:.3g}, and no straight line loses half of its light"
    )
    return UserError(f"no surface: {found}; train for longer, or set a threshold below {high:.3g}")


def _largest(mesh: "trimesh.Trimesh") -> "trimesh.Trimesh":
    """Only the component with the largest area: floaters go, and so do the inner walls of hollow objects."""
    import trimesh

    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    areas = np.bincount(labels, weights=mesh.area_faces)
    mesh.update_faces(labels == areas.argmax())
    mesh.remove_unreferenced_vertices()
    return mesh
