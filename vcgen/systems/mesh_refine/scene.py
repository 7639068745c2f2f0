"""What is refined: signed distances on tetrahedra, moves of the grid's points, and the coarse field's colors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vcgen.cameras import Cameras
from vcgen.errors import UserError
from vcgen.rendering.antialias import compose
from vcgen.rendering.meshes import Meshes
from vcgen.rendering.rasterizer import Raster, rasterize
from vcgen.rendering.shading import Shading, lit
from vcgen.rendering.signed_distance import signed_distances
from vcgen.rendering.tetrahedra import surface
from vcgen.types import Finetunable, Rendering

#: Distances at the grid's border are kept at least this, in cells, so that the surface is closed.
BORDER = 0.5
#: Distances beyond this many cells are cut off: the surface moves on as soon as it has reached a point, instead of
#: waiting until the large distance there is unlearned. Along the axes' edges they stay exact at the start.
FARTHEST = 1.0
ALBEDO = Shading()


class SceneTetrahedra(nn.Module):
    """A surface of signed distances (Magic3D, arXiv 2211.10440, section 4.2), colored by a field. It has what a system
    asks of an :class:`OptimizedScene`, and is no encoder, since a mesh is no field.

    cells: along the longest edge of the box around the coarse scene. ``start_from`` makes its parameters.
    """

    distances: nn.Parameter
    moves: nn.Parameter
    center: Tensor
    radius: float
    latent = False

    def __init__(self, cells: int):
        super().__init__()
        self.cells = cells

    def start_from(self, field: Finetunable) -> None:
        """Begin with a field of one scene. Raises UserError where it has no surface, or no colors."""
        probe = field.center[:1, None]
        if (channels := field(probe, F.normalize(torch.ones_like(probe), dim=-1))[1].shape[-1]) != 3:
            raise UserError(f"the coarse scene has features of {channels} channels, no colors: refine one with colors")
        self.grid, distances = signed_distances(field, self.cells)
        self.distances = nn.Parameter((distances / self.grid.spacing).clamp(-FARTHEST, FARTHEST))
        self.moves = nn.Parameter(torch.zeros(*distances.shape, 3, device=distances.device))
        self.colors, self.coarse = field.weights(), field
        self.center, self.radius = field.center[0], float(field.radius[0])

    def scene(self, batch: int = 1) -> Finetunable:
        """The coarse field with the colors as they are now; its density is not refined."""
        return self.coarse.with_weights(self.colors)

    def entries(self) -> list[nn.Parameter]:
        """Distances, in cells, and moves."""
        return [self.distances, self.moves]

    @torch.no_grad()
    def cut_distances(self) -> None:
        """Cut distances off again, where a step has led them too far."""
        self.distances.clamp_(-FARTHEST, FARTHEST)

    def mesh(self) -> Meshes:
        """The surface as it is now, closed, in the world; differentiable. Raises UserError where nothing is left."""
        inner = F.pad(torch.ones_like(self.distances[1:-1, 1:-1, 1:-1]), (1,) * 6) > 0
        distances = torch.where(inner, self.distances, self.distances.clamp(min=BORDER))
        mesh = surface(distances, self.grid.moved(self.moves))
        if not len(mesh.faces):
            raise UserError("nothing is left of the mesh: lower model.options.grid_lr, or raise model.consistency")
        return mesh

    def colors_at(self, points: Tensor, inward: Tensor) -> Tensor:
        """(n, 3) in [0, 1] at points (n, 3) of the surface, seen along ``inward`` (n, 3)."""
        return self.scene()(points[None], inward[None])[1][0]

    def draw(
        self,
        mesh: Meshes,
        camera: Cameras,
        size: tuple[int, int],
        shading: Shading = ALBEDO,
        background: Tensor | float = 1.0,
    ) -> tuple[Rendering, Raster]:
        """What cameras (n,) see, with smooth outlines, over a color that broadcasts to (n, 3, H, W)."""
        raster = rasterize(mesh, camera, size)
        normals = raster.normals(smooth=True)
        colors = self.colors_at(raster.interpolate(mesh.vertices), -normals.detach())
        return compose(raster, lit(colors, normals, shading), background), raster
