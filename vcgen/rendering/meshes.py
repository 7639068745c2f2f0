"""Triangle meshes, one or several packed one after another, and the numbering of their parts over the views that show
them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Edges(NamedTuple):
    """The edges of packed meshes, each once, ordered by their ends, so that they do not depend on the order of the
    faces.

    ends: (E, 2) vertices, the lower number first. of_faces: (F, 3) the edge opposite each corner. forward: (F, 3)
    whether the face runs along that edge from its first end to its second. counts: edges of each mesh.
    """

    ends: Int[Tensor, "E 2"]
    of_faces: Int[Tensor, "F 3"]
    forward: Bool[Tensor, "F 3"]
    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Meshes:
    """Triangle meshes that share no vertices, packed one after another.

    vertices: (V, 3) world positions. faces: (F, 3) int64 numbers of vertices; the front is the side from which they run
        counterclockwise.
    vertex_counts, face_counts: how many of each belong to each mesh; left out for a single mesh. Corners at one place
    should be one vertex, as :meth:`welded` makes them: an edge whose ends are doubled counts as a border."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    vertex_counts: tuple[int, ...] = ()
    face_counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3 or self.faces.ndim != 2 or self.faces.shape[1] != 3:
            raise ValueError(
                f"vertices must be (V, 3) and faces (F, 3), not {tuple(self.vertices.shape)} and"
                f" {tuple(self.faces.shape)}"
            )
        if self.faces.dtype != torch.int64 or not self.vertices.is_floating_point():
            raise ValueError(
                f"vertices must be floating point and faces int64, not {self.vertices.dtype} and {self.faces.dtype}"
            )
        if not self.vertex_counts and not self.face_counts:
            object.__setattr__(self, "vertex_counts", (len(self.vertices),))
            object.__setattr__(self, "face_counts", (len(self.faces),))
        if (sum(self.vertex_counts), sum(self.face_counts)) != (len(self.vertices), len(self.faces)):
            raise ValueError(
                f"counts {self.vertex_counts} and {self.face_counts} do not add up to the vertices and faces"
            )

    def __len__(self) -> int:
        return len(self.vertex_counts)

    @classmethod
    def pack(cls, meshes: "Sequence[Meshes]") -> "Meshes":
        """One object that holds all of the given ones in order, with vertices and faces numbered on."""
        starts = accumulate((len(mesh.vertices) for mesh in meshes), initial=0)
        return cls(
            torch.cat([mesh.vertices for mesh in meshes]),
            torch.cat([mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)]),
            tuple(count for mesh in meshes for count in mesh.vertex_counts),
            tuple(count for mesh in meshes for count in mesh.face_counts),
        )

    def moved(self, vertices: Float[Tensor, "V 3"]) -> "Meshes":
        """The same faces between other vertices (V, 3). The table of edges is kept, which a loop that fits vertices
        need not make anew.
        """
        other = Meshes(vertices, self.faces, self.vertex_counts, self.face_counts)
        if "edges" in self.__dict__:
            other.__dict__["edges"] = self.edges
        return other

    def welded(self) -> "Meshes":
        """The same faces, with vertices of a mesh that lie in exactly one place joined, as files double them along
        seams of textures.

        The vertices that stay are not the old ones: values at those become values at corners, (F, 3, C), by
        ``values[meshes.faces]``."""
        device = self.vertices.device
        owner = torch.repeat_interleave(
            torch.arange(len(self), device=device), torch.tensor(self.vertex_counts, device=device)
        )
        _, places = torch.unique(
            torch.cat([owner[:, None], self.vertices.detach() + 0.0], 1), dim=0, return_inverse=True
        )
        count = int(places.max()) + 1 if len(places) else 0
        numbers = torch.arange(len(places), device=device)
        first = numbers.new_full((count,), len(places)).scatter_reduce(0, places, numbers, "amin")
        counts = torch.bincount(owner[first], minlength=len(self)).tolist()
        return Meshes(self.vertices.index_select(0, first), places[self.faces], tuple(counts), self.face_counts)

    @cached_property
    def edges(self) -> Edges:
        """Made when first asked for: a sort of 3 F numbers."""
        count = len(self.vertices)
        after, before = self.faces.roll(-1, 1), self.faces.roll(-2, 1)
        keys, of_faces = torch.unique(
            torch.minimum(after, before) * count + torch.maximum(after, before), return_inverse=True
        )
        ends = torch.stack([keys // max(count, 1), keys % max(count, 1)], 1)
        # a mesh's edges lie together, as its vertices do
        bounds = torch.tensor(list(accumulate(self.vertex_counts, initial=0)), device=keys.device)
        firsts = torch.searchsorted(ends[:, 0].contiguous(), bounds).tolist()
        return Edges(ends, of_faces, after < before, tuple(end - start for start, end in pairwise(firsts)))

    def face_normals(self) -> Float[Tensor, "F 3"]:
        """(F, 3) unit normals on the front; zero for a face without area."""
        return _unit(self._areas())

    def vertex_normals(self) -> Float[Tensor, "V 3"]:
        """(V, 3) unit normals: means over the faces around each vertex, weighted by area; zero where they cancel or
        there are none.
        """
        areas = self._areas()[:, None].expand(-1, 3, -1).reshape(-1, 3)
        sums = torch.zeros_like(self.vertices).index_add(0, self.faces.reshape(-1), areas)
        return _unit(sums)

    def edge_cosines(self) -> Float[Tensor, " E"]:
        """(E,) cosine of the angle between the normals of the faces at each edge, 1 where all is flat; of more than two
        faces the first and the last, of one it and itself.
        """
        edges = self.edges.of_faces.reshape(-1)
        faces = torch.arange(len(self.faces), device=edges.device).repeat_interleave(3)
        blank = torch.zeros(len(self.edges.ends), dtype=torch.int64, device=edges.device)
        normals = self.face_normals()
        first, last = (
            normals.index_select(0, blank.scatter_reduce(0, edges, faces, end, include_self=False))
            for end in ("amin", "amax")
        )
        return (first * last).sum(1)

    def _areas(self) -> Float[Tensor, "F 3"]:
        """(F, 3) normals as long as twice the area."""
        a, b, c = (self.vertices.index_select(0, corner) for corner in self.faces.unbind(1))
        return torch.linalg.cross(b - a, c - a)


def _unit(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Vectors (n, 3) of length 1, however short they are; zero for zero, with a finite gradient."""
    scale = vectors.detach().abs().amax(1, keepdim=True)
    return torch.nn.functional.normalize(vectors / torch.where(scale > 0, scale, 1), dim=1, eps=0.5)


@dataclass(frozen=True)
class Instances:
    """Parts of one kind (vertices, faces or edges) of packed meshes, numbered view after view: a view has those of the
    mesh it shows.

    shift: (n,) from a part's own number to its number in each view. ends: (n,) the first number of the next view.
        total: of all views.
    """

    shift: Int[Tensor, " n"]
    ends: Int[Tensor, " n"]
    total: int

    @classmethod
    def of(cls, counts: Sequence[int], views: int, device: torch.device) -> "Instances":
        """counts: parts of each mesh; each is shown by ``views`` views, mesh after mesh."""
        sizes = [count for count in counts for _ in range(views)]
        firsts = [first for first in list(accumulate(counts, initial=0))[:-1] for _ in range(views)]
        ends = list(accumulate(sizes))
        table = torch.tensor(
            [[end - size - first for end, size, first in zip(ends, sizes, firsts, strict=True)], ends], device="cpu"
        )
        shift, until = table.to(device, non_blocking=True)
        return cls(shift, until, sum(sizes))

    def locate(self, numbers: Int[Tensor, " m"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """View and the part's own number."""
        views = torch.searchsorted(self.ends, numbers, right=True)
        return views, numbers - self.shift.index_select(0, views)
