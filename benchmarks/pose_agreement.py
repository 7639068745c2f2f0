"""How well do recovered poses agree with given ones? Two shard folders of one scene, compared view by view.

A solver's world has its own place, turn and unit: the similarity that brings the camera centers together best (Umeyama
1991) is taken out first. Rotations are then compared in degrees, centers in percent of the given cameras' median
distance from the point they look at.

``python benchmarks/pose_agreement.py FOUND GIVEN``
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcgen.data.formats.plausible import aim_of
from vcgen.data.shards.files import read_index


@dataclass(frozen=True)
class Agreement:
    """Of the views that both have. rotation: degrees; center: fraction of the distance from what the cameras look at;
    focal: found over given, minus 1.
    """

    views: int
    rotation: np.ndarray
    center: np.ndarray
    focal: np.ndarray


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation (3, 3) and shift (3,) that bring points (n, 3) nearest to others, in the least-squares sense."""
    middles = source.mean(0), target.mean(0)
    a, b = source - middles[0], target - middles[1]
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation, scale = (u * signs) @ vt, float((s * signs).sum() / (a**2).sum())
    return scale, rotation, middles[1] - scale * rotation @ middles[0]


def compare(found: Path, given: Path) -> Agreement:
    """Views are matched by the last part of their names."""
    records = [read_index(folder).read(0) for folder in (found, given)]
    places = [{Path(view).name: i for i, view in enumerate(record.views)} for record in records]
    common = sorted(places[0].keys() & places[1].keys())
    (ours, theirs), (K, other_K) = (
        [
            getattr(record, field)[[place[name] for name in common]]
            for record, place in zip(records, places, strict=True)
        ]
        for field in ("c2w", "K")
    )
    scale, rotation, shift = similarity(ours[:, :3, 3], theirs[:, :3, 3])
    centers = scale * ours[:, :3, 3] @ rotation.T + shift
    between = np.einsum("vij,vik->vjk", rotation @ ours[:, :3, :3], theirs[:, :3, :3])
    cosine = np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1)
    distance = aim_of(theirs).distance
    return Agreement(
        len(common),
        np.degrees(np.arccos(cosine)),
        np.linalg.norm(centers - theirs[:, :3, 3], axis=-1) / distance,
        K[:, 0, 0] / other_K[:, 0, 0] - 1,
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("found", type=Path)
    parser.add_argument("given", type=Path)
    chosen = parser.parse_args()
    found = compare(chosen.found, chosen.given)
    for name, values, unit in (("rotation", found.rotation, "deg"), ("center", 100 * found.center, "%")):
        print(f"{name:9} median {np.median(values):.3f} {unit}, largest {values.max():.3f} {unit}")
    print(f"focal     {100 * np.median(found.focal):+.2f} %, over {found.views} views")


if __name__ == "__main__":
    main()
