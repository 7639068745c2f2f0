"""What trimesh holds of a material -> base color, texture and kind of alpha; and textures as tensors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vcgen.data.images.reading import image_to_array
from vcgen.meshes.gltf import Header
from vcgen.meshes.surface import BLEND, MASK, OPAQUE, to_linear
from vcgen.terminal import one_line

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

#: Linear base color of what has none, as Blender's.
GRAY = (0.8, 0.8, 0.8)
#: Textures are shrunk until no side has more texels.
MOST_TEXELS = 2048
MODES = {"OPAQUE": OPAQUE, "MASK": MASK, "BLEND": BLEND}


class Look(NamedTuple):
    """How a mesh of V vertices and F faces is colored. rgba: base color in linear light: (4,) for all, (V, 4) of
    vertices or (F, 1, 4) of faces. uv: (V, 2) texture coordinates, v down. image: Pillow's. mode: kind of alpha, None
    where nothing is said: MASK if the image has any. cutoff: alpha from which MASK shows. double: whether
    double-sided."""

    rgba: Tensor
    uv: Tensor | None = None
    image: "Image.Image | None" = None
    mode: int | None = None
    cutoff: float = 0.5
    double: bool = True


def look_of(mesh: "trimesh.Trimesh", header: Header) -> Look:
    """See :class:`Look`. header: of the glTF file the mesh comes from, an empty one for other kinds."""
    visual = mesh.visual
    if visual.kind in ("vertex", "face"):
        rgba = _unit(np.asarray(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors))
        if not header.accessors:  # of glTF they are linear, and opaque without a material that says otherwise
            rgba = torch.cat([to_linear(rgba[:, :3]), rgba[:, 3:]], 1)
        mode = BLEND if not header.accessors and bool((rgba[:, 3] < 1).any()) else OPAQUE
        return Look(rgba if visual.kind == "vertex" else rgba[:, None], mode=mode)
    if visual.kind != "texture":
        return Look(torch.tensor([*GRAY, 1.0]))
    uv = visual.uv
    if uv is not None and np.shape(uv) == (len(mesh.vertices), 2):
        uv = torch.tensor(np.asarray(uv), dtype=torch.float32)
        uv = torch.stack([uv[:, 0], 1 - uv[:, 1]], 1)
    else:
        uv = None
    if hasattr(visual.material, "baseColorTexture"):
        return _metallic(visual.material, uv, header, visual.vertex_attributes.get("color"))
    return _simple(visual.material, uv)


def _metallic(material: Any, uv: Tensor | None, header: Header, colors: np.ndarray | None) -> Look:
    """The look of glTF's materials: factor times colors of vertices, in linear light."""
    factor: Any = header.factor(material.name)
    if factor is None and material.baseColorFactor is not None:
        factor = np.asarray(material.baseColorFactor) / 255
    rgba = torch.tensor([1.0] * 4 if factor is None else np.asarray(factor), dtype=torch.float32)
    if colors is not None:
        rgba = rgba * _unit(np.asarray(colors))
    uv = None if uv is None else header.texture_transform(material.name)(uv)
    cutoff = 0.5 if material.alphaCutoff is None else float(material.alphaCutoff)
    return Look(
        rgba, uv, material.baseColorTexture, MODES[material.alphaMode or "OPAQUE"], cutoff, bool(material.doubleSided)
    )


def _simple(material: Any, uv: Tensor | None) -> Look:
    """The look of a .mtl file's materials: Kd in sRGB, unless there is an image; d, or 1 - Tr, as alpha."""
    entries = getattr(material, "kwargs", {})  # trimesh's own fields have colors where the file has none
    alpha = _fraction(entries.get("d"), 1 - _fraction(entries.get("tr"), 0.0))
    kd = entries.get("kd")
    known = isinstance(kd, list) and len(kd) == 3
    color = to_linear(torch.tensor(kd, dtype=torch.float32).clamp(0, 1)) if known else torch.tensor(GRAY)
    color = torch.ones(3) if material.image is not None else color
    return Look(torch.cat([color, torch.tensor([alpha])]), uv, material.image, BLEND if alpha < 1 else None)


def decode(image: "Image.Image", path: Path) -> Tensor:
    """(height, width, 4) uint8 of an image that Pillow has opened, its sides halved, thirded ... until none exceeds
    MOST_TEXELS.
    """
    pixels = image_to_array(image, one_line(f"{path}: a texture"))
    factor = -(-max(pixels.shape[:2]) // MOST_TEXELS)
    if factor > 1:
        pixels = np.pad(pixels, [(0, -side % factor) for side in pixels.shape[:2]] + [(0, 0)], mode="edge")
        total = sum(pixels[i::factor, j::factor].astype(np.uint32) for i in range(factor) for j in range(factor))
        pixels = ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    if pixels.shape[2] == 3:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], -1)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def _unit(colors: np.ndarray) -> Tensor:
    """(V, 4) in [0, 1] of colors as glTF stores them: (V, 3) or (V, 4), floating point or whole numbers that stand for
    fractions.
    """
    most = np.iinfo(colors.dtype).max if np.issubdtype(colors.dtype, np.integer) else 1
    values = torch.tensor(colors.astype(np.float32) / most).clamp(0, 1)[:, :4]
    return torch.cat([values, torch.ones(len(values), 4 - values.shape[1])], 1)


def _fraction(words: Any, default: float) -> float:
    """What a line of an .mtl file says, its last word or a number."""
    try:
        return min(max(float(words[-1] if isinstance(words, list) else words), 0.0), 1.0)
    except (TypeError, ValueError, IndexError):
        return default
