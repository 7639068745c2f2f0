"""Smooth outlines, and their gradient: a pixel that an outline cuts is blended by where it is cut.

An outline is an edge whose faces all lie on one side of it in the image. Where it passes between the centers of two
neighboring pixels, at distance d from the first, the pixel that it cuts takes |0.5 - d| of the other's color: the exact
area for an edge that runs along the pixels' sides, and the exact sum over a straight one. The blend is that of
nvdiffrast (Laine et al., SIGGRAPH Asia 2020, arXiv 2011.03277), which looks for outlines among the edges of visible
faces; here all outlines of a mesh are listed, so faces smaller than a pixel have them, too."""

import torch
from jaxtyping import Float
from torch import Tensor

from vcgen.rendering.meshes import Instances
from vcgen.rendering.rasterizer import Raster
from vcgen.rendering.visibility import Keys, centers_between, chunks, cut_at, portions, ragged
from vcgen.types import Rendering

#: Pixels from a center within which an edge may belong to the pixel on either side.
CLOSE = 1e-9


def compose(raster: Raster, colors: Float[Tensor, "m 3"], background: Tensor | float = 1.0) -> Rendering:
    """A rendering with smooth outlines. colors: (m, 3) of the covered pixels; background: a number or what broadcasts
    to the image.

    Depth is that of the pixels' centers: blended with what lies behind, it would be nowhere.
    """
    solid = raster.image(torch.ones_like(colors[:, :1]))
    both = antialias(raster, torch.cat([raster.image(colors, background), solid], -3))
    return Rendering(both[..., :3, :, :], both[..., 3:, :, :], raster.depth())


def antialias(raster: Raster, image: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "*batch C H W"]:
    """The image (..., C, height, width) of a raster with smooth outlines; differentiable in the image, vertices and
    cameras.

    Put the background in, and masks on, before: what an outline separates is blended as it is in ``image``. Where
    surfaces pass through each other without an edge the border stays hard; what the image's own border cuts is not
    blended. Values stay in the image's range."""
    channels, width = image.shape[-3], raster.size[1]
    out = image.movedim(-3, -1).reshape(-1, channels)
    nearness = torch.zeros(len(out), dtype=torch.float64, device=out.device)
    nearness[raster.pixels] = 1 / raster.z.detach()
    view, edge, side = _outlines(raster)
    # first along rows, then along columns of what that gave: blends of blends are means, so values stay between those
    # of the image
    for down in (False, True):
        pixels, ends = _pairs(raster, view, edge, side, nearness, down)
        beside = pixels + (width if down else 1)
        place = _crossing(raster, pixels, ends, down).to(out.dtype)
        change = out.index_select(0, beside) - out.index_select(0, pixels)
        # each sum has a pixel once at most, so that its result does not depend on the order
        out = out.index_add(0, pixels, torch.where(place < 0.5, 0.5 - place, 0)[:, None] * change)
        out = out.index_add(0, beside, torch.where(place < 0.5, 0, 0.5 - place)[:, None] * change)
    return out.reshape(*raster.face.shape, channels).movedim(-1, -3)


@torch.no_grad()
def _outlines(raster: Raster) -> tuple[Tensor, Tensor, Tensor]:
    """View, edge and side of every outline: 1 where its faces lie, seen along the edge, to the right in the image, else
    -1.
    """
    meshes, points = raster.meshes, raster.points.detach()
    views = len(raster.clip) // len(meshes)
    face, edge = (Instances.of(counts, views, points.device) for counts in (meshes.face_counts, meshes.edges.counts))
    most = torch.zeros(edge.total, dtype=torch.int8, device=points.device)
    least = torch.zeros_like(most)
    for numbers in chunks(face.total, points.device):
        view, number = face.locate(numbers)
        corners = meshes.faces.index_select(0, number) + raster.instances.shift.index_select(0, view)[:, None]
        a, b, c = (points.index_select(0, corner).unbind(1) for corner in corners.unbind(1))
        turn = (
            c[0] * (a[1] * b[2] - a[2] * b[1]) + c[1] * (a[2] * b[0] - a[0] * b[2]) + c[2] * (a[0] * b[1] - a[1] * b[0])
        )
        turn = turn.sign().to(torch.int8)
        if raster.culled:
            turn.clamp_(max=0)
        sides = torch.where(meshes.edges.forward.index_select(0, number), turn[:, None], -turn[:, None]).reshape(-1)
        edges = (meshes.edges.of_faces.index_select(0, number) + edge.shift.index_select(0, view)[:, None]).reshape(-1)
        most.scatter_reduce_(0, edges, sides, "amax")
        least.scatter_reduce_(0, edges, sides, "amin")
    found = ((most > 0) != (least < 0)).nonzero()[:, 0]
    return *edge.locate(found), (most + least).index_select(0, found)


@torch.no_grad()
def _pairs(
    raster: Raster, view: Tensor, edge: Tensor, side: Tensor, nearness: Tensor, down: bool
) -> tuple[Tensor, Tensor]:
    """The pixels whose center an outline separates from the next one's, to the right or below, and the nearest such
    outline's edge.

    Edges steeper than 45 degrees separate pixels in a row, others those in a column. An outline that something hides is
    none: its edge, and what the pixel on the faces' side sees, must not lie behind what the other pixel sees."""
    height, width = raster.size
    along, across, step = (height, width, width) if down else (width, height, 1)
    a, b = _ends(raster, raster.points.detach(), view, edge, down)
    plane = raster.clip.index_select(0, view)
    (xa, ya), (xb, yb) = ((end[:, :2] / end[:, 2:]).unbind(1) for end in _in_front(a, b, plane))
    run, rise = (xb - xa).abs(), (yb - ya).abs()
    row0, rows = centers_between(torch.minimum(ya, yb), torch.maximum(ya, yb), across)
    rows = torch.where(((rise > run) if down else (rise >= run)) & (torch.maximum(a[:, 2], b[:, 2]) > plane), rows, 0)
    faces_right = (side > 0) != ((yb > ya) != down)
    face, keys = raster.face.reshape(-1), Keys(len(raster.meshes.edges.ends))
    buffer = torch.full_like(face, -1)
    for some, total in portions(rows):
        owner, place = ragged(rows[some], total)
        row = row0[some].index_select(0, owner) + place
        x, z = _meets_row(a[some].index_select(0, owner), b[some].index_select(0, owner), row + 0.5)
        item, column = _columns(x, along)
        owner, row, n = owner.index_select(0, item), row.index_select(0, item), 1 / z.index_select(0, item)
        first = view[some].index_select(0, owner) * (height * width) + (
            column * width + row if down else row * width + column
        )
        right = faces_right[some].index_select(0, owner)
        near, far = (nearness.index_select(0, first + step * second.long()) for second in (right, ~right))
        differ = face.index_select(0, first) != face.index_select(0, first + step)
        key = keys.pack(n, edge[some].index_select(0, owner))
        buffer.scatter_reduce_(0, first, torch.where(differ & (near > 0) & (near >= far) & (n >= far), key, -1), "amax")
    pixels = (buffer >= 0).nonzero()[:, 0]
    return pixels, keys.numbers(buffer.index_select(0, pixels))


def _columns(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Which of the places x, in pixels, lie between two centers, and the column of the first of those.

    As with spans, a center at x belongs to what begins there; but for an edge close to a center rounding decides, so
    both sides are tried."""
    column = torch.ceil(x - 0.5) - 1
    place = x - 0.5 - column
    close = ((place - 0.5).abs() > 0.5 - CLOSE).nonzero()[:, 0]
    item = torch.cat([torch.arange(len(x), device=x.device), close])
    column = torch.cat([column, (column + torch.where(place < 0.5, -1, 1)).index_select(0, close)])
    kept = ((column >= 0) & (column + 1 < count)).nonzero()[:, 0]
    return item.index_select(0, kept), column.index_select(0, kept).long()


def _crossing(raster: Raster, pixels: Tensor, edge: Tensor, down: bool) -> Tensor:
    """(p,) float64 distance, 0 to 1, from a pixel's center towards the next one's to where the edge passes;
    differentiable.
    """
    height, width = raster.size
    view = pixels // (height * width)
    row, column = (pixels // width) % height + 0.5, pixels % width + 0.5
    a, b = _ends(raster, raster.points, view, edge, down)
    x, y = (row, column) if down else (column, row)
    first, second = (torch.stack([end[:, 0] - x * end[:, 2], end[:, 1], end[:, 2]], 1) for end in (a, b))
    return _meets_row(first, second, y)[0]


def _ends(raster: Raster, points: Tensor, view: Tensor, edge: Tensor, down: bool) -> tuple[Tensor, Tensor]:
    """Rows of ``points`` of the two ends of edges, (s, 3) each; x and y change places where pixels of a column are
    compared.
    """
    ends = raster.meshes.edges.ends.index_select(0, edge) + raster.instances.shift.index_select(0, view)[:, None]
    a, b = (points.index_select(0, end) for end in ends.unbind(1))
    return (a[:, [1, 0, 2]], b[:, [1, 0, 2]]) if down else (a, b)


def _in_front(a: Tensor, b: Tensor, plane: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of edges, the one before the plane moved onto it."""
    first, second = (end[:, 2] >= plane for end in (a, b))
    return torch.where(first[:, None], a, cut_at(b, a, plane)), torch.where(second[:, None], b, cut_at(a, b, plane))


def _meets_row(a: Tensor, b: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x and z where lines between points (x z, y z, z) pass the row y; needs no division by the ends' z, which may be
    negative.
    """
    above, below = a[:, 1] - y * a[:, 2], b[:, 1] - y * b[:, 2]
    x, z = (below * a[:, axis] - above * b[:, axis] for axis in (0, 2))
    return x / z, z / (below - above)
