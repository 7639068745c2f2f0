"""``vcgen data poses PHOTOS OUT``: structure from motion, then the pack of the COLMAP model that it makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vcgen.cli import usage
from vcgen.cli.pack import Backdrop, run
from vcgen.data.formats.colmap import Colmap
from vcgen.data.formats.upright import Up
from vcgen.data.structure_from_motion import LensModel, Matching, Report, Solver, find_photos, solve
from vcgen.errors import UserError
from vcgen.io import write_bytes
from vcgen.terminal import say


def main(arguments: list[str]) -> None:
    """Parse ``arguments`` (everything after ``vcgen data poses``), find the poses and pack."""
    usage.run(poses, arguments, "vcgen data poses", positional=True, shared=(run,))


def poses(
    photos: str,
    out: str,
    near: float | None = None,
    far: float | None = None,
    background: Backdrop = "none",
    name: str = "poses",
    masks: str = "",
    cutout: bool = False,
    up: Up = "auto",
    lens: LensModel = "OPENCV",
    matching: Matching = "exhaustive",
    feature_size: int = 1600,
    features: int = 8192,
    threads: int = 0,
    work: str = "",
    **options: Any,
) -> None:
    """Find the cameras of photos by structure from motion (pycolmap), and pack the photos with them.

    Features, matches and the model are kept in OUT.colmap/PHOTOS, where an interrupted run goes on, and which other
    programs read. Photos that could not be placed are named with the reason.

    Args:
        photos: folder of photos of one thing that stands still, from all sides, neighbors overlapping by two thirds.
        out: shard folder to make; it appears under this name only when complete.
        near: nearest ray distance from the camera, in stored units. By default the sparse points tell.
        far: farthest ray distance. By default the sparse points tell.
        background: what lies behind the object in images without transparency.
        name: data set name stored with the scene.
        masks: folder of masks, white where the object is, named IMAGE.png or as the image; they become transparency.
        cutout: make the masks by removing backgrounds, by rembg, whose weights are fetched when it is first used.
        up: axis of the model that becomes z; auto guesses it by how the camera was held, and says what it guessed.
        lens: model of the cameras; photos of one size share one.
        matching: which pairs are compared: all, or those that are near in the order of names, as in a film.
        feature_size: longer side in pixels to which photos are shrunk to look for features, 100 to 10000.
        features: features of a photo at most, 100 to 100000.
        threads: of the solver; 0 takes all cores.
        work: folder for features, matches and the model, each in a folder named as that of the photos; OUT.colmap by
            default.
    """
    usage.within("--feature-size", feature_size, 100, 10_000)
    usage.within("--features", features, 100, 100_000)
    usage.within("--threads", threads, 0, 1024)
    if masks and cutout:
        raise UserError("--masks and --cutout both say what the object is; give one of them")
    source = Path(photos).resolve()
    folder = Path(work or f"{out.rstrip('/')}.colmap") / source.name
    with showing() as report:
        left_out = solve(source, folder, Solver(lens, matching, feature_size, features, threads), report)
        if cutout:
            masks = str(cut_out(source, folder / "masks", report))
    total = len(find_photos(source))
    say(f"{folder}: {total - len(left_out)} of {total} photos placed", *(f"  {p.name}: {p.reason}" for p in left_out))
    own = {"images": str(source), "masks": masks and str(Path(masks).resolve()), "up": up}
    run(Colmap(), own, str(folder), out, near, far, background, name, **options)


def cut_out(photos: Path, masks: Path, report: Report) -> Path:
    """Write a mask of every photo that has none yet. Raises UserError where rembg is absent."""
    from vcgen.data.images.photo import background_remover
    from vcgen.data.images.reading import encode_png, read_image

    if (remove := background_remover()) is None:
        raise UserError("--cutout removes backgrounds by rembg, which is not installed: pip install 'vcgen[cutout]'")
    names = find_photos(photos)
    for number, name in enumerate(names):
        report("masks", number, len(names))
        if not (path := masks / f"{name}.png").exists():
            color = np.ascontiguousarray(read_image(photos / name, upright=True)[..., :3])
            write_bytes(path, encode_png(remove(color)))
    report("masks", len(names), len(names))
    return masks


@contextmanager
def showing() -> Iterator[Report]:
    """A progress bar for each stage, on standard error."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        yield report
