"""The five test cars of cars64 as .glb files, each in its own paint and dark, for ``vcgen data render``: see README.md
beside this file.

    python data/cars64_foreign.py CARS OUT

CARS has the files MAKER_NAME.npz of the kits, see kits64.py.
"""

import sys
from pathlib import Path

import numpy as np
import trimesh

from vcgen.folders import replacing_folder

NAMES = (
    "kaykit_police",
    "kenney1_taxi",
    "kenney2_hatchback-sports",
    "kenneyracing_truck-green",
    "quaternius_real_normalcar2",
)
#: Factors of the linear color, about: 2.2 stands for sRGB's curve.
PAINTS = {"plain": 1.0, "dark": 0.4}


def main(source: Path, out: Path) -> None:
    """Write the files."""
    with replacing_folder(out) as folder:
        for name in NAMES:
            with np.load(source / f"{name}.npz") as kit:
                corners, colors = kit["vertices"][kit["faces"].astype(int)], kit["corner_rgb"]
            for paint, factor in PAINTS.items():
                rgb = np.round(255 * ((colors.reshape(-1, 3) / 255) ** 2.2 * factor) ** (1 / 2.2)).astype(np.uint8)
                rgba = np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], 1)
                faces = np.arange(len(rgb)).reshape(-1, 3)
                mesh = trimesh.Trimesh(corners.reshape(-1, 3), faces, vertex_colors=rgba, process=False)
                mesh.export(folder / f"{name}_{paint}.glb")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
