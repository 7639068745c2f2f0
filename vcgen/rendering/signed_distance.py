"""From a density field to signed distances on tetrahedra: where the refinement of a mesh begins."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vcgen.errors import UserError
from vcgen.rendering.marching_cubes import density_at, extract_mesh, solidity
from vcgen.rendering.tetrahedra import TetrahedralGrid
from vcgen.types import Field

#: The box around what is found is wider than it by this part of its longest edge, on every side.
MARGIN = 0.1
#: Whether a point is inside is asked for at so many points along a cell's edge.
FINER = 2
#: Standard deviation of the Gaussian that takes the steps of these points off the distances, in units of their spacing.
SMOOTH = 1.0
#: Grid points along the cube in which the object is looked for first.
SEARCH = 64
#: Of points along the cube, at the finer spacing: half a gigabyte of densities.
MOST = 512


@torch.no_grad()
def signed_distances(
    field: Field, cells: int, radius: float | None = None, chunk: int = 2**17
) -> tuple[TetrahedralGrid, Float[Tensor, "X Y Z"]]:
    """A grid around the largest solid part of the first scene, and how far its points are from that part's surface, in
    world units, negative inside.

    Solid is what :func:`vcgen.rendering.marching_cubes.solidity` calls so, and what it encloses. Distances are
    Euclidean: a density cut off at both ends in their place would start every vertex in the middle of its edge.

    cells: along the box's longest edge. radius: half the edge of the cube that is searched; None takes the field's own.
    chunk: points per query, which bounds memory. Raises UserError where nothing is solid, all is thinner than a
    cell, or cells are so small beside the cube that it would have too many."""
    low, high = extract_mesh(field, SEARCH, radius=radius, chunk=chunk).mesh.bounds
    edges = high - low + 2 * MARGIN * (high - low).max()
    spacing = float(edges.max()) / cells
    x, y, z = (int(np.ceil(edge / spacing - 1e-6)) for edge in edges)
    first = (low + high - spacing * np.array([x, y, z])) / 2
    grid = TetrahedralGrid((x, y, z), (float(first[0]), float(first[1]), float(first[2])), spacing)
    fine, reach = spacing / FINER, float(field.radius[0]) if radius is None else radius
    if (points := 2 * reach / fine) > MOST:
        found = f"the solid part is {edges.max():.3g} world units long in a scene of {2 * reach:.3g}"
        raise UserError(f"{found}, and {cells} cells along it are too fine: take at most {int(cells * MOST / points)}")
    # Straight lines lose light on all of their way, not only in the box.
    middle = np.array(field.center[0].tolist())
    before = np.ceil((first - middle + reach) / fine).astype(int).clip(0)
    after = np.ceil((middle + reach - first) / fine).astype(int)
    axes = [
        start + fine * np.arange(-early, max(late, FINER * count) + 1)
        for start, early, late, count in zip(first, before, after, grid.cells, strict=True)
    ]
    density = density_at(field, [torch.as_tensor(axis).to(field.center) for axis in axes], chunk)
    square = sum(np.square(axis) for axis in np.ix_(*(axis - at for axis, at in zip(axes, middle, strict=True))))
    inside = solidity(np.where(square > float(field.radius[0]) ** 2, 0, density), fine) > 1
    box = tuple(slice(early, early + FINER * n + 1) for early, n in zip(before, grid.cells, strict=True))
    distances = _distances(_largest(inside[box]))[::FINER, ::FINER, ::FINER]
    if not (distances < 0).any():
        raise UserError(
            f"what is solid in the scene is thinner than a cell ({spacing:.3g} world units): raise the number of cells"
        )
    return grid, torch.as_tensor(distances * fine).to(field.center)


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part, with what it encloses."""
    from scipy.ndimage import binary_fill_holes, label

    parts, count = label(inside)
    sizes = np.bincount(parts.reshape(-1), minlength=count + 1)
    return binary_fill_holes(parts == 1 + sizes[1:].argmax()) if count else inside


def _distances(inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distances to the surface, which is halfway between neighbors of which one is inside, in units of the spacing."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    found = np.where(inside, 0.5 - distance_transform_edt(inside), distance_transform_edt(~inside) - 0.5)
    return gaussian_filter(found, SMOOTH)
