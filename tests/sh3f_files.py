"""Furniture libraries of Sweet Home 3D, made by the tests: boxes of a known size, one color each."""

import zipfile
from pathlib import Path

FACES = "f 1 3 4 2\nf 5 6 8 7\nf 1 2 6 5\nf 3 7 8 4\nf 1 5 7 3\nf 2 4 8 6\n"
ENTRY = {"width": "40", "depth": "50", "height": "100", "movable": "true", "doorOrWindow": "false"}


def box(width: float, height: float, depth: float) -> str:
    """An .obj file of a box on the ground, y up, with its material beside it."""
    corners = [(x * width, y * height, z * depth) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    return "mtllib box.mtl\nusemtl paint\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in corners) + FACES


def library(path: Path, licence: str, pieces: list[dict[str, str]], files: dict[str, str] = {}) -> Path:
    """Write one. pieces: entries of its catalogue each with an id; files: more, or others."""
    lines, content = ["# a comment", "id=Test#Library", f"license={licence}"], {}
    for number, own in enumerate(pieces, 1):
        entry = {**ENTRY, "model": f"/test/{own['id']}/{own['id']}.obj", "name": own["id"], "creator": "Ann", **own}
        entry["id"] = f"Test#{own['id']}"
        lines += [f"{name}#{number}={value}" for name, value in entry.items()]
        content[entry["model"].lstrip("/")] = box(40, 100, 50)
        content[f"test/{own['id']}/box.mtl"] = "newmtl paint\nKd 0.8 0.1 0.1\n"
    content["PluginFurnitureCatalog.properties"] = "\n".join(lines) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**content, **files}.items():
            archive.writestr(name, text)
    return path
