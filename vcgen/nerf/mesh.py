"""From a density field to a coloured triangle mesh.

Marching cubes (Lorensen & Cline, SIGGRAPH 1987; Lewiner et al., 2003) on *opacity* rather than density: density is unbounded, so linear
interpolation between an empty and a dense sample would push the surface to the empty one; opacity over a fixed length is bounded by one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcgen.errors import UserError
from vcgen.types import Field

if TYPE_CHECKING:
    import trimesh

#: Opacity is measured over radius / PIXELS: one pixel of a picture, 64 pixels wide, that the bounding sphere just fills.
PIXELS = 32
#: A threshold is good enough if it misjudges no more rays than the best, plus this share of those that meet the object.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Surface:
    """A mesh and how it was found.

    mesh: world coordinates, normals outward, uint8 sRGB vertex colours. threshold: the density (per world unit) of the surface.
    density_range: lowest and highest density on the grid.
    """

    mesh: "trimesh.Trimesh"
    threshold: float
    density_range: tuple[float, float]


@torch.no_grad()
def extract_mesh(
    field: Field, resolution: int = 128, threshold: float | None = None, radius: float | None = None, chunk: int = 2**17
) -> Surface:
    """The largest connected surface of the first scene of ``field``, coloured as seen from outside.

    resolution: grid points along each edge of a cube around ``field.center``. threshold: density per world unit; None finds it
    (:func:`automatic_opacity`, put right by :func:`outline_threshold`). radius: half the cube's edge; None takes the field's own, which
    must then be finite. chunk: points per query, which bounds memory. Raises UserError when there is nothing to extract.
    """
    import trimesh
    from skimage.measure import marching_cubes

    if resolution < 8:
        raise UserError(f"a mesh needs a grid of at least 8 points along each edge, not {resolution}")
    if threshold is not None and threshold <= 0:
        raise UserError(f"the density threshold must be positive, not {threshold}")
    radius = float(field.radius[0]) if radius is None else radius
    density = density_grid(field, resolution, radius, chunk)
    density_range = float(density.min()), float(density.max())
    length = radius / PIXELS
    _refuse_empty(density_range, radius, threshold)
    opacity = 1 - np.exp(-density * length)
    spacing = 2 * radius / (resolution - 1)
    if threshold is None:
        level = automatic_opacity(opacity)
        seen = density * _sphere(resolution, float(field.radius[0]) / radius)
        threshold = outline_threshold(seen, spacing, float(-np.log1p(-level) / length))
    level = float(1 - np.exp(-threshold * length))
    # A shell of empty samples closes the surface where the object touches the cube.
    vertices, faces, _, _ = marching_cubes(np.pad(opacity, 1), level, gradient_direction="ascent")
    corner = field.center[0].double().cpu().numpy() - radius
    mesh = _largest(trimesh.Trimesh((vertices - 1) * spacing + corner, faces))
    mesh.visual.vertex_colors = surface_colours(field, mesh, spacing, chunk)
    return Surface(mesh, threshold, density_range)


def density_grid(field: Field, resolution: int, radius: float, chunk: int = 2**17) -> NDArray[np.float32]:
    """Density of the first scene at (resolution, resolution, resolution) points, x first, of the cube ``field.center`` +- ``radius``."""
    axis = torch.linspace(-radius, radius, resolution, device=field.center.device, dtype=field.center.dtype)
    slabs = []
    per_slab = max(1, chunk // resolution**2)
    for xs in axis.split(per_slab):
        points = torch.cartesian_prod(xs, axis, axis) + field.center[0]
        slabs.append(torch.cat([_density(field, part) for part in points.split(chunk)]).float().cpu())
    return torch.cat(slabs).reshape(resolution, resolution, resolution).numpy()


def automatic_opacity(opacity: NDArray[np.float32]) -> float:
    """The opacity that best separates empty from full samples: Otsu's threshold (IEEE Trans. SMC 9(1), 1979).

    Otsu's criterion is flat wherever a histogram is empty, so of all equal thresholds the midpoint of the two class means is returned; at
    the optimum both agree (Ridler & Calvard, IEEE Trans. SMC 8(8), 1978). It adapts to models whose surfaces are soft, where a fixed level
    of 0.5 would find nothing, and gives 0.5 for a hard surface.
    """
    from skimage.filters import threshold_otsu

    split = threshold_otsu(opacity)
    return float(opacity[opacity > split].mean() + opacity[opacity <= split].mean()) / 2


def outline_threshold(density: NDArray[np.float32], spacing: float, preferred: float) -> float:
    """The density whose surface has the outline that renderings have: ``preferred`` where that is good enough, else the lowest that is.

    density: on a cubic grid, ``spacing`` apart. Its lines are rays along the three axes: a rendering shows those that it stops by more than
    half, a surface is met by those whose largest density exceeds the threshold, and about few of them may the two disagree.
    A field that was fitted to pictures may be thin inside and hard in places, which no histogram of densities tells from its outline; the
    lowest density keeps what is thin inside.
    """
    solid = np.concatenate([(density.sum(axis) * spacing > np.log(2)).ravel() for axis in range(3)])
    if not solid.any():
        return preferred
    largest = np.concatenate([density.max(axis).ravel() for axis in range(3)])
    order = np.argsort(largest, kind="stable")
    largest, solid = largest[order].astype(np.float64), solid[order]
    # a threshold between entries i and i + 1 misses the solid rays up to i and meets the empty ones after it
    wrong = (solid.cumsum() + (~solid).sum() - (~solid).cumsum())[:-1]
    between = largest[:-1] < largest[1:]
    most = wrong[between].min() + TOLERANCE * solid.sum()
    if (solid != (largest > preferred)).sum() <= most:
        return preferred
    first = np.flatnonzero(between & (wrong <= most))[0]
    return float(largest[first] + largest[first + 1]) / 2


def surface_colours(field: Field, mesh: "trimesh.Trimesh", spacing: float, chunk: int = 2**17, samples: int = 8) -> NDArray[np.uint8]:
    """uint8 (vertices, 3): what a ray from outside sees along each inward normal, composited from one grid spacing outside to two inside.

    Light that passes all samples takes the colour of the last one, so thin opacity does not darken the result.
    """
    device, dtype = field.center.device, field.center.dtype
    vertices = torch.as_tensor(mesh.vertices, dtype=dtype, device=device)
    inward = -torch.as_tensor(np.array(mesh.vertex_normals), dtype=dtype, device=device)
    offsets = torch.linspace(-spacing, 2 * spacing, samples, device=device, dtype=dtype)
    step = 3 * spacing / (samples - 1)
    colours = []
    for start, direction in zip(vertices.split(chunk // samples), inward.split(chunk // samples), strict=True):
        points = start[:, None] + offsets[:, None] * direction[:, None]
        density, colour = field(*(_batch(x.reshape(-1, 3), field) for x in (points, direction[:, None].expand_as(points))))
        alpha = 1 - torch.exp(-density[0].reshape(-1, samples) * step)
        alpha[:, -1] = 1
        transmittance = torch.cumprod(torch.cat([torch.ones_like(alpha[:, :1]), 1 - alpha[:, :-1]], 1), 1)
        colours.append(((alpha * transmittance)[..., None] * colour[0].reshape(-1, samples, 3)).sum(1))
    return (torch.cat(colours).clamp(0, 1) * 255).round().byte().cpu().numpy()


def _sphere(resolution: int, share: float) -> NDArray[np.bool_]:
    """Which points of a cube's grid lie in the sphere around its middle whose radius is ``share`` of half the cube's edge."""
    square = np.linspace(-1, 1, resolution) ** 2
    return square[:, None, None] + square[:, None] + square <= share**2


def _batch(points: Tensor, field: Field) -> Tensor:
    return points.expand(len(field.center), -1, -1)


def _density(field: Field, points: Tensor) -> Tensor:
    return field.density(_batch(points, field))[0]


def _refuse_empty(density_range: tuple[float, float], radius: float, threshold: float | None) -> None:
    low, high = density_range
    found = f"the density on the grid lies between {low:.3g} and {high:.3g}"
    if not np.isfinite(low) or not np.isfinite(high):
        raise UserError(f"no surface: {found}, so the model has diverged; use an earlier checkpoint")
    if threshold is not None and not low < threshold < high:
        raise UserError(f"no surface at density {threshold:g}: {found}; choose a threshold between them or leave it out")
    # Half of the light must be stopped by the densest matter along the longest path, or even that looks more empty than full.
    if threshold is None and high * 2 * radius < np.log(2):
        raise UserError(f"no surface: {found}, nearly transparent; train for longer, or set a threshold below {high:.3g}")


def _largest(mesh: "trimesh.Trimesh") -> "trimesh.Trimesh":
    """Only the component with the largest area: floaters go, and so do the inner walls of hollow objects."""
    import trimesh

    labels = trimesh.graph.connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    areas = np.bincount(labels, weights=mesh.area_faces)
    mesh.update_faces(labels == areas.argmax())
    mesh.remove_unreferenced_vertices()
    return mesh
