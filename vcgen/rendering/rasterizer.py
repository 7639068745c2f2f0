"""Images of triangle meshes with gradients: which face each pixel's center sees, where on it, and what lies there.

Coverage has no gradient: a pixel's center sees one face or another. Everything on a face has: barycentric weights are
functions of the vertices and cameras. The gradient of outlines comes from :mod:`vcgen.rendering.antialias`. Inside,
geometry is float64."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from vcgen.cameras import Cameras, rotate
from vcgen.errors import UserError
from vcgen.rendering.meshes import Instances, Meshes
from vcgen.rendering.visibility import nearest_faces
from vcgen.tensors import sum_of

#: Where faces are cut if nobody says: this fraction of a camera's ``near`` in front of it.
CLIP = 0.01


@dataclass(frozen=True, eq=False)
class Raster:
    """What n cameras see of meshes, at the centers of pixels. ``...`` is the batch shape of the cameras; m is the
    number of covered pixels.

    face: (..., height, width) packed number of the nearest face, -1 where there is none. pixels: (m,) their places in
        ``face``, flattened.
    weights: (m, 3) barycentric coordinates, perspective-correct, differentiable. z: (m,) float64 depth along the
    camera's axis in world units, differentiable. vertices: (m, 3) packed numbers of the faces' corners. points: (P, 3)
    float64 (x z, y z, z), x and y in pixels, of every view's vertices, differentiable; numbered by ``instances``. clip:
    (n,) depth z at which faces are cut. culled: whether faces that show their back are left out. keys: of the faces at
    all pixels, for what lies behind them."""

    meshes: Meshes
    cameras: Cameras
    face: Int[Tensor, "*batch H W"]
    pixels: Int[Tensor, " m"]
    weights: Float[Tensor, "m 3"]
    z: Float64[Tensor, " m"]
    vertices: Int[Tensor, "m 3"]
    points: Float64[Tensor, "P 3"]
    instances: Instances
    clip: Float64[Tensor, " n"]
    culled: bool
    keys: Int[Tensor, " p"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.face.shape[-2], self.face.shape[-1]

    @property
    def views(self) -> Int[Tensor, " m"]:
        """(m,) the view, 0 ... n - 1, of each covered pixel."""
        return self.pixels // (self.size[0] * self.size[1])

    @property
    def faces(self) -> Int[Tensor, " m"]:
        """(m,) packed number of the face that each covered pixel sees."""
        return self.face.reshape(-1).index_select(0, self.pixels)

    def interpolate(self, values: Float[Tensor, "*V C"]) -> Float[Tensor, "m C"]:
        """(m, C) of values at vertices (V, C), or at corners of faces (F, 3, C); differentiable in the values, vertices
        and cameras.
        """
        weights = self.weights.to(values.dtype).unbind(1)
        return sum_of(weight[:, None] * value for weight, value in zip(weights, self._corners(values), strict=True))

    def slopes(self, values: Float[Tensor, "*V C"]) -> Float[Tensor, "m 2 C"]:
        """(m, 2, C) change of :meth:`interpolate` per pixel to the right and per pixel down; no gradient."""
        with torch.no_grad():
            shift = self.instances.shift.index_select(0, self.views)
            positions = [self.points.index_select(0, vertex + shift) for vertex in self.vertices.unbind(1)]
            slopes = _weight_slopes(positions, _centers(self.pixels, self.size)).to(values.dtype)
            return sum_of(
                slope[..., None] * value[:, None]
                for slope, value in zip(slopes.unbind(2), self._corners(values), strict=True)
            )

    def distance(self) -> Float[Tensor, " m"]:
        """(m,) Euclidean distance along the ray, in world units."""
        x, y = _centers(self.pixels, self.size).unbind(1)
        K = self.cameras.K.reshape(-1, 9).double().index_select(0, self.views).unbind(1)
        right, down = (x / self.size[1] - K[2]) / K[0], (y / self.size[0] - K[5]) / K[4]
        return (self.z * (1 + right * right + down * down).sqrt()).to(self.weights.dtype)

    def depth(self) -> Float[Tensor, "*batch 1 H W"]:
        """(..., 1, height, width) distances as in a :class:`vcgen.types.Rendering`: the camera's ``far`` where nothing
        is hit.
        """
        far = self.cameras.far.to(self.weights.dtype)[..., None, None, None]
        return self.image(self.distance()[:, None], far)

    def normals(self, smooth: bool = False) -> Float[Tensor, "m 3"]:
        """(m, 3) unit normals in the world, turned to the camera: of the faces, or interpolated between those of
        vertices.
        """
        flat = self.meshes.face_normals().index_select(0, self.faces)
        normals = (
            torch.nn.functional.normalize(self.interpolate(self.meshes.vertex_normals()), dim=-1) if smooth else flat
        )
        # the back shows where the flat normal points away, also where an interpolated one would say otherwise
        sight = self.interpolate(self.meshes.vertices) - self.cameras.centers.reshape(-1, 3).to(
            normals.dtype
        ).index_select(0, self.views)
        return torch.where(((sight * flat).sum(1, keepdim=True) > 0).detach(), -normals, normals)

    def image(self, values: Float[Tensor, "m C"], background: Tensor | float = 0.0) -> Float[Tensor, "*batch C H W"]:
        """(..., C, height, width) with values (m, C) at the covered pixels, and elsewhere a number or what broadcasts
        to that shape.
        """
        channels = values.shape[1]
        behind = background.to(values) if isinstance(background, Tensor) else values.new_full((), background)
        table = behind.expand(*self.face.shape[:-2], channels, *self.size).movedim(-3, -1).reshape(-1, channels)
        return table.index_put((self.pixels,), values).reshape(*self.face.shape, channels).movedim(-1, -3)

    def _corners(self, values: Tensor) -> list[Tensor]:
        """Values at the three corners of the faces seen, (m, C) each."""
        if values.ndim == 3:
            return list(values.index_select(0, self.faces).unbind(1))
        return [values.index_select(0, vertex) for vertex in self.vertices.unbind(1)]


def rasterize(
    meshes: Meshes,
    cameras: Cameras,
    size: tuple[int, int],
    cull: bool = False,
    clip: Tensor | float | None = None,
    behind: Raster | None = None,
) -> Raster:
    """Find what each pixel's center sees: the nearest face, and of those at the same depth the one with the lowest
    number.

    cameras: of shape (views,) for one mesh, (meshes, views) for several, each mesh seen by its own row. size: (height,
    width). cull: leave out faces that show their back; else both sides are drawn. clip: depth z, in world units, of the
    plane at which faces are cut; what lies nearer is not drawn. Default: CLIP times each camera's ``near``. ``far``
    cuts nothing. behind: what this call gave without it; now the next face behind that is found at each pixel, and so
    on from layer to layer. Raises UserError for vertices or cameras that are not finite, numbers of vertices that do
    not exist, and a clip that is not positive."""
    batch = cameras.shape
    if batch[:-1] != (len(meshes),) and (len(batch) != 1 or len(meshes) != 1):
        raise ValueError(
            f"cameras must be of shape (views,) for one mesh or ({len(meshes)}, views), not {tuple(batch)}"
        )
    rows = cameras.reshape(len(meshes), -1)
    points = torch.cat(
        [_seen(vertices, rows[i], size) for i, vertices in enumerate(meshes.vertices.split(meshes.vertex_counts))]
    )
    plane = CLIP * rows.near if clip is None else torch.zeros_like(rows.near) + clip
    plane = plane.detach().double().reshape(-1)
    cuts = _check(meshes, points, plane)
    vertex, face = (
        Instances.of(counts, rows.shape[1], points.device) for counts in (meshes.vertex_counts, meshes.face_counts)
    )
    before = None if behind is None else behind.keys
    number, keys = nearest_faces(points.detach(), meshes.faces, vertex, face, plane, size, cull, cuts, before)
    pixels = (number >= 0).nonzero()[:, 0]
    corners = meshes.faces.index_select(0, number.index_select(0, pixels))
    shift = vertex.shift.index_select(0, pixels // (size[0] * size[1]))
    triangles = [points.index_select(0, corner + shift) for corner in corners.unbind(1)]
    weights = barycentric(triangles, _centers(pixels, size))
    z = sum_of(weight * corner.unbind(1)[2] for weight, corner in zip(weights.unbind(1), triangles, strict=True))
    return Raster(
        meshes,
        cameras,
        number.reshape(*batch, *size),
        pixels,
        weights.to(meshes.vertices.dtype),
        z,
        corners,
        points,
        vertex,
        plane,
        cull,
        keys,
    )


def barycentric(corners: list[Float[Tensor, "m 3"]], centers: Float[Tensor, "m 2"]) -> Float[Tensor, "m 3"]:
    """(m, 3) weights of a face's corners (x z, y z, z), (m, 3) each, at image points (m, 2): of the point on the face,
    not of its image.

    They need no division by z, so corners behind the camera do no harm.
    """
    areas = _areas(corners, centers)
    whole = areas[0] + areas[1] + areas[2]
    return torch.stack(areas, 1) / torch.where(whole == 0, 1, whole)[:, None]


def _areas(corners: list[Tensor], centers: Tensor) -> list[Tensor]:
    """(m,) for each corner: the double area, times z of both others, that they make with the image point."""
    x, y = centers.unbind(1)
    a, b, c = ((xz - x * z, yz - y * z) for xz, yz, z in (corner.unbind(1) for corner in corners))
    return [p[0] * q[1] - p[1] * q[0] for p, q in ((b, c), (c, a), (a, b))]


def _weight_slopes(corners: list[Tensor], centers: Tensor) -> Tensor:
    """(m, 2, 3) derivatives of :func:`barycentric` by x and y of the image point."""
    areas = torch.stack(_areas(corners, centers), 1)
    whole = areas.sum(1, keepdim=True)
    whole = torch.where(whole == 0, 1, whole)
    a, b, c = corners
    # areas are bilinear in the image point: their derivatives by it are those of the triple product (x, y, 1) . (b x c)
    slopes = torch.stack([torch.linalg.cross(p, q)[:, :2] for p, q in ((b, c), (c, a), (a, b))], 2)
    return (slopes - (areas / whole)[:, None] * slopes.sum(2, keepdim=True)) / whole[:, None]


def _centers(pixels: Int[Tensor, " m"], size: tuple[int, int]) -> Float64[Tensor, "m 2"]:
    """(m, 2) float64 x and y in pixels."""
    row = pixels // size[1]
    return torch.stack([pixels - row * size[1] + 0.5, row % size[0] + 0.5], 1).double()


def _seen(vertices: Float[Tensor, "V 3"], cameras: Cameras, size: tuple[int, int]) -> Float64[Tensor, "P 3"]:
    """(views * V, 3) float64 (x z, y z, z), x and y in pixels, of vertices (V, 3), view after view."""
    c2w, K = cameras.c2w.double(), cameras.K.double()
    local = rotate(vertices.double() - c2w[:, None, :3, 3], c2w[:, :3, :3].mT)
    x, y, z = local.unbind(-1)
    u = K[:, :1, 0] * x + K[:, :1, 2] * z
    v = K[:, 1:2, 1] * y + K[:, 1:2, 2] * z
    return torch.stack([u * size[1], v * size[0], z], -1).reshape(-1, 3)


def _check(meshes: Meshes, points: Tensor, clip: Tensor) -> bool:
    """Refuse what would give wrong images, and tell whether any vertex may lie before the clip: one wait of the CPU for
    a GPU.
    """
    exist = ((meshes.faces >= 0) & (meshes.faces < len(meshes.vertices))).all()
    positive = ((clip > 0) & clip.isfinite()).all()
    near = (points[:, 2] < clip.max()).any() if len(clip) else torch.zeros_like(exist)
    finite, known, positive, near = torch.stack([points.isfinite().all(), exist, positive, near]).tolist()
    if not known:
        raise UserError(
            f"faces name vertices beyond the {len(meshes.vertices)} that there are; check the file, or how parts were"
            " packed"
        )
    if not finite:
        raise UserError(
            "a mesh or a camera to be drawn has coordinates that are not finite; check the file, or lower the learning"
            " rate"
        )
    if not positive:
        raise UserError("faces must be cut at a positive depth: give cameras a positive `near`, or a positive clip")
    return near
