"""``vcgen data render MESHES OUT``: the command line of rendered meshes; the work is in ``views.py`` and the packing
loop.
"""

from collections import Counter
from functools import partial
from typing import Any, Literal

from vcgen.cli import usage
from vcgen.cli.drawn import run
from vcgen.meshes.loading import KINDS
from vcgen.meshes.surface import Fit
from vcgen.meshes.views import MeshFile, MeshSettings, list_scenes, read_scene, up_axis


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data render``) and render."""
    usage.run(render, arguments, "vcgen data render", positional=True, shared=(run,))


def render(
    meshes: str,
    out: str,
    up: Literal["auto", "x", "y", "z"] = "auto",
    fit: Fit = "sphere",
    variants: int = 1,
    kinds: str = ",".join(KINDS),
    plain: bool = False,
    cull: bool = False,
    max_faces: int = 1_000_000,
    name: str = "meshes",
    licence: str = "",
    group_pattern: str = "",
    skip_broken: bool = False,
    **options: Any,
) -> None:
    """Render mesh files (.glb, .gltf, .obj, .ply, .stl) into shards of posed images with transparent background.

    An interrupted run continues when the same command is given again. The world has z up; objects stand in its middle.
    The light, the camera sets and the limits are described in docs/meshes.md.

    Args:
        meshes: a mesh file, or a folder of them; each file is one object, named after its path.
        out: shard folder to make; it appears under this name only when complete.
        up: axis of the files that points up; auto takes y for .glb, .gltf and .obj, z for .ply and .stl.
        fit: sphere puts the object into a sphere of radius 0.5 around the origin; box makes the longest side of its
            bounding box 1; none leaves it as it is.
        variants: of each object, 1 to 100: itself, and others with permuted color channels, axes stretched by up to 15
            %, some mirrored.
        kinds: of files that are taken from a folder, separated by commas.
        plain: draw shapes alone, in gray, without materials and the files they need.
        cull: leave out the backs of faces that are not double-sided.
        max_faces: faces of an object allowed, 1 to 20000000.
        name: data set name stored with every scene.
        licence: licence stored with every scene.
        group_pattern: regular expression whose first group, matched against an object's name, names the model that it
            is a variant of, e.g. "(.+)_[0-9]+".
        skip_broken: leave out broken meshes (listed at the end) instead of refusing.
    """
    usage.within("--variants", variants, 1, 100)
    usage.within("--max-faces", max_faces, 1, 20_000_000)
    chosen = usage.chosen("--kinds", kinds, KINDS)
    make = partial(
        MeshSettings,
        source=name,
        licence=licence,
        group_pattern=usage.pattern("--group-pattern", group_pattern),
        up=up,
        fit=fit,
        kinds=chosen,
        variants=variants,
        plain=plain,
        cull=cull,
        max_faces=max_faces,
    )
    run(list_scenes, read_scene, explain, meshes, out, make, skip_broken, **options)


def explain(scenes: list[MeshFile], settings: MeshSettings, views: str) -> str:
    """One line: what will be rendered, and which axis was taken to point up."""
    kinds = Counter(
        (scene.folder.suffix[1:].lower(), up_axis(scene.folder, settings.up)) for scene in scenes if scene.variant == 0
    )
    reason = "as --up says" if settings.up != "auto" else "of glTF by its standard, else guessed: --up sets it"
    axes = ", ".join(f"{axis} of {count} .{kind}" for (kind, axis), count in sorted(kinds.items()))
    each = f"{settings.variants} variants of " if settings.variants > 1 else ""
    return f"{sum(kinds.values())} meshes, {each}{views}; up is {axes} ({reason})"
