"""Which face is seen at every pixel center: an exact z-buffer without gradients.

Faces become spans of pixels, row by row. Where an edge crosses a row is computed from its two ends alone, the upper one
first, so faces that share an edge agree on it to the last bit: what one leaves out, the other covers, and no center is
covered by both. All is computed in float64. The nearest face is found by one reduction of int64 keys, the bits of 1 / z
above those of the face's number, whose result does not depend on the order in which it is computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from vcgen.rendering.meshes import Instances

#: Faces, rows or pixels that a CPU works on at once: about 500 bytes each, so that they stay in its cache. A GPU takes
#: GPU_CHUNKS times as many, since each portion costs it a wait. Results do not depend on it.
CHUNK, GPU_CHUNKS = 1 << 15, 32


def chunks(total: int, device: torch.device) -> Iterator[Tensor]:
    """The numbers below ``total``, in portions."""
    size = _chunk(device)
    return (torch.arange(start, min(start + size, total), device=device) for start in range(0, total, size))


@dataclass(frozen=True)
class Keys:
    """int64 that hold a positive float64, rounded towards zero, and a number below ``count``: the larger is nearer, or
    numbered lower.
    """

    count: int

    @property
    def mask(self) -> int:
        """The bits that hold the number."""
        return (1 << max(self.count - 1, 0).bit_length()) - 1

    def pack(self, nearness: Float64[Tensor, " n"], number: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """nearness: float64, zero or more. What is not positive counts as least."""
        bits = nearness.clamp(min=torch.finfo(nearness.dtype).tiny).view(torch.int64)
        return (bits & ~self.mask) | (self.mask - number)

    def numbers(self, keys: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The numbers that were packed; -1 for keys of -1, which stand for nothing."""
        return torch.where(keys < 0, -1, self.mask - (keys & self.mask))


@dataclass(frozen=True)
class Layer:
    """The key of what is nearest at every pixel, -1 where nothing is. before: of the layer before this one, behind
    which it lies.
    """

    keys: Keys
    nearest: Tensor
    before: Tensor | None

    def enter(self, pixels: Tensor, nearness: Tensor, number: Tensor) -> None:
        """Faces that meet centers of pixels."""
        key = self.keys.pack(nearness, number)
        if self.before is not None:
            key = torch.where(key < self.before.index_select(0, pixels), key, -1)
        self.nearest.scatter_reduce_(0, pixels, key, "amax")


def ragged(counts: Int[Tensor, " n"], total: int) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """For counts (2, 0, 3): the owner (0, 0, 2, 2, 2) and the place (0, 1, 0, 1, 2) of each of ``total`` items."""
    owner = torch.repeat_interleave(counts, output_size=total)
    first = counts.cumsum(0) - counts
    return owner, torch.arange(total, device=counts.device) - first.index_select(0, owner)


def portions(counts: Int[Tensor, " n"]) -> Iterator[tuple[slice, int]]:
    """Runs of owners with a chunk of items at most and those of one owner more, and how many those are. The CPU waits
    for the sums.
    """
    ends, size = counts.cumsum(0), _chunk(counts.device)
    total = int(ends[-1]) if len(counts) else 0
    if total <= size:
        yield slice(0, len(counts)), total
        return
    cuts = torch.searchsorted(ends, torch.arange(size, total, size, device=counts.device)) + 1
    cuts = cuts.unique()
    start = done = 0
    for stop, end in zip([*cuts.tolist(), len(counts)], [*ends[cuts - 1].tolist(), total], strict=True):
        yield slice(start, stop), end - done
        start, done = stop, end


def _chunk(device: torch.device) -> int:
    return CHUNK * (1 if device.type == "cpu" else GPU_CHUNKS)


@torch.no_grad()
def nearest_faces(
    points: Float64[Tensor, "P 3"],
    faces: Int[Tensor, "F 3"],
    vertex: Instances,
    face: Instances,
    clip: Float64[Tensor, " n"],
    size: tuple[int, int],
    cull: bool,
    cuts: bool,
    before: Int[Tensor, " p"] | None = None,
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """(n * height * width,) the number of the nearest face at each pixel center of n views, -1 where there is none; and
    its key.

    points: (P, 3) float64 (x z, y z, z), x and y in pixels: vertices, view after view. faces: (F, 3) numbers of
    vertices in their packed meshes. vertex, face: how both are numbered over the views. clip: (n,) depth z of the plane
    at which faces are cut.
    cull: leave out faces that show their back. cuts: whether any vertex lies before the plane. before: keys behind
    which to look."""
    keys = Keys(len(faces))
    layer = Layer(
        keys, torch.full((len(clip) * size[0] * size[1],), -1, dtype=torch.int64, device=points.device), before
    )
    projected = _projected(points)
    cells = _cells(projected, size)
    for numbers in chunks(face.total, points.device):
        view, number = face.locate(numbers)
        corners = (faces.index_select(0, number) + vertex.shift.index_select(0, view)[:, None]).unbind(1)
        shown = _meets_a_center([cells.index_select(0, corner) for corner in corners])
        pieces: list[list[Tensor]] = []
        owners: list[Tensor] = []
        if cuts:
            plane = clip.index_select(0, view)
            first, second, third = (points[:, 2].index_select(0, corner) >= plane for corner in corners)
            cut = ((first | second | third) & ~(first & second & third)).nonzero()[:, 0]
            shown &= first & second & third
            parts, parent = _clipped([points.index_select(0, corner[cut]) for corner in corners], plane[cut])
            pieces.append(parts)
            owners.append(cut[parent])
        shown = shown.nonzero()[:, 0]
        pieces.append([projected.index_select(0, corner.index_select(0, shown)) for corner in corners])
        triangles, owner = [torch.cat(parts) for parts in zip(*pieces, strict=True)], torch.cat([*owners, shown])
        if cull:
            kept = _is_front(triangles).nonzero()[:, 0]
            triangles, owner = [corner.index_select(0, kept) for corner in triangles], owner.index_select(0, kept)
        _draw(triangles, view.index_select(0, owner) * (size[0] * size[1]), number.index_select(0, owner), size, layer)
    return keys.numbers(layer.nearest), layer.nearest


def _projected(points: Float64[Tensor, "P 3"]) -> Float64[Tensor, "P 3"]:
    """(x z, y z, z) -> (x, y, 1 / z)."""
    return torch.cat([points[:, :2] / points[:, 2:], 1 / points[:, 2:]], 1)


def _cells(projected: Float64[Tensor, "P 3"], size: tuple[int, int]) -> Int[Tensor, "P 4"]:
    """(P, 4) int32: the first column and row whose centers lie at a vertex or beyond, and both again with a little
    slack upward.

    The slack is there because rounding may lead past an edge's ends where it crosses a row.
    """
    place, slack = projected[:, :2] - 0.5, 1e-12 * projected[:, :2].abs()
    x, y = torch.ceil(torch.stack([place - slack, place + slack], 1)).unbind(2)
    return torch.stack([x.clamp(0, size[1]), y.clamp(0, size[0])], 2).to(torch.int32).reshape(-1, 4)


def _meets_a_center(corners: list[Tensor]) -> Tensor:
    """Whether the bounding box of a triangle may hold a pixel's center, by its corners' cells: drops most of a fine
    mesh.
    """
    a, b, c = corners
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    return (low[:, 0] < high[:, 2]) & (low[:, 1] < high[:, 3])


def centers_between(low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First pixel and number of the pixels whose centers lie in [low, high), of ``count`` pixels; coordinates in
    pixels.
    """
    first = torch.ceil(low - 0.5).clamp_(0, count).long()
    return first, (torch.ceil(high - 0.5).clamp_(0, count).long() - first).clamp_(min=0)


def _is_front(triangles: list[Tensor]) -> Tensor:
    """Counterclockwise as seen: y points down in images, so the signed area is negative."""
    a, b, c = triangles
    return (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])


def _clipped(corners: list[Tensor], plane: Tensor) -> tuple[list[Tensor], Tensor]:
    """Faces that cross the plane z = ``plane``, cut there and projected: corners (x, y, 1 / z) of the pieces, and each
    piece's face.

    What is left of a face is a triangle or two. An edge that two faces share is cut by both in the same place.
    """
    beyond = torch.stack([corner[:, 2] >= plane for corner in corners])
    # the corner that is alone on its side
    lone = torch.where(beyond.sum(0) == 1, beyond.int().argmax(0), beyond.int().argmin(0))
    stacked = torch.stack(corners)
    row = torch.arange(len(lone), device=lone.device)
    p, q, r = (stacked[(lone + k) % 3, row] for k in range(3))
    keeps_one = beyond[lone, row]
    pq, pr = (torch.where(keeps_one[:, None], cut_at(p, end, plane), cut_at(end, p, plane)) for end in (q, r))
    first = [torch.where(keeps_one[:, None], a, b) for a, b in ((p, pq), (pq, q), (pr, r))]
    two = (~keeps_one).nonzero()[:, 0]
    pieces = [torch.cat([a, b[two]]) for a, b in zip(first, (pq, r, pr), strict=True)]
    return [_projected(piece) for piece in pieces], torch.cat([row, two])


def cut_at(
    beyond: Float64[Tensor, "n 3"], before: Float64[Tensor, "n 3"], plane: Float64[Tensor, " n"]
) -> Float64[Tensor, "n 3"]:
    """Where the line between two points (n, 3) meets the plane, from the one beyond it."""
    fraction = (beyond[:, 2] - plane) / (beyond[:, 2] - before[:, 2])
    return torch.cat([(beyond + fraction[:, None] * (before - beyond))[:, :2], plane[:, None]], 1)


def _draw(triangles: list[Tensor], base: Tensor, number: Tensor, size: tuple[int, int], layer: Layer) -> None:
    """Enter triangles, corners (m, 3) of (x, y, 1 / z), into a layer. base: (m,) first pixel of the view that shows
    each.
    """
    height, width = size
    table = torch.cat(_by_height(*triangles), 1)
    row0, rows = centers_between(table[:, 1], table[:, 7], height)
    for some, total in portions(rows):
        owner, place = ragged(rows[some], total)
        row = row0[some].index_select(0, owner) + place
        x0, y0, n0, x1, y1, n1, x2, y2, n2 = table[some].index_select(0, owner).unbind(1)
        y = row + 0.5
        # the long edge is on one side; on the other the upper one, and then the lower one
        above = y < y1
        one = _along(y, (x0, y0, n0), (x2, y2, n2))
        two = _along(
            y,
            *(
                [torch.where(above, p, q) for p, q in pairs]
                for pairs in (((x0, x1), (y0, y1), (n0, n1)), ((x1, x2), (y1, y2), (n1, n2)))
            ),
        )
        swap = one[0] > two[0]
        left, right = (
            [torch.where(swap, b, a) for a, b in zip(*pair, strict=True)] for pair in ((one, two), (two, one))
        )
        column0, columns = centers_between(left[0], right[0], width)
        first = base[some].index_select(0, owner) + row * width
        spans = torch.stack([left[0] - 0.5, left[1], (right[1] - left[1]) / (right[0] - left[0])], 1)
        _fill(spans, column0, columns, first, number[some].index_select(0, owner), layer)


def _along(y: Tensor, upper: Sequence[Tensor], lower: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """x and 1 / z where edges between points (x, y, 1 / z) cross rows."""
    fraction = (y - upper[1]) / (lower[1] - upper[1])
    return upper[0] + fraction * (lower[0] - upper[0]), upper[2] + fraction * (lower[2] - upper[2])


def _fill(spans: Tensor, column0: Tensor, columns: Tensor, first: Tensor, number: Tensor, layer: Layer) -> None:
    """Enter spans of pixels in a row. spans: (rows, 3) column at which each begins, 1 / z there, and its slope."""
    whole = torch.stack([column0, first, number], 1)
    for some, total in portions(columns):
        owner, place = ragged(columns[some], total)
        x, nearness, slope = spans[some].index_select(0, owner).unbind(1)
        column, row, face = whole[some].index_select(0, owner).unbind(1)
        column = column + place
        layer.enter(row + column, nearness + (column - x) * slope, face)


def _by_height(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three corners (m, 3), the one with the least y first."""

    def ordered(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        swap = (p[:, 1] > q[:, 1])[:, None]
        return torch.where(swap, q, p), torch.where(swap, p, q)

    a, b = ordered(a, b)
    b, c = ordered(b, c)
    return *ordered(a, b), c
