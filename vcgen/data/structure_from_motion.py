"""Poses from photographs alone: features, matches, and a COLMAP model of them, by pycolmap.

Everything lies in a folder of its own, ``database.db`` and ``sparse/``, where an interrupted run goes on: photos whose
features are known and pairs that were matched are not looked at again.
"""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vcgen.data.formats.colmap_model import read_model
from vcgen.data.formats.files import visible
from vcgen.data.images.reading import SUFFIXES, read_header
from vcgen.data.shards.record import natural_order
from vcgen.errors import UserError
from vcgen.folders import create_own_folder, put_in_place
from vcgen.io import read_json, write_bytes
from vcgen.terminal import one_line

Matching = Literal["exhaustive", "sequential"]
LensModel = Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"]
NOTE = "photos.json"
#: Photos, and pairs of them, that the solver is given at once: progress is shown between.
PHOTOS, PAIRS = 8, 64
#: Neighbors in the order of names that sequential matching compares; beyond them those a power of two apart.
NEIGHBORS = 10
#: Matches that two photos must have in common to be compared at all, and features of one that is worth matching.
FEWEST_MATCHES, FEWEST_FEATURES = 15, 100
#: Photos that tell where the optical axis meets the image: assumed in the middle, it turns every camera by as much.
ENOUGH = 10
#: (stage, done, of how many).
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Solver:
    """How poses are found. lens: model of the cameras; photos of one size share one. matching: which pairs are
    compared. feature_size: longer side in pixels to which photos are shrunk to look for features. features: at most, of
    a photo. threads: 0 takes all cores.
    """

    lens: LensModel = "OPENCV"
    matching: Matching = "exhaustive"
    feature_size: int = 1600
    features: int = 8192
    threads: int = 0


@dataclass(frozen=True)
class Unplaced:
    """A photo that has no pose, and why."""

    name: str
    reason: str


def find_photos(folder: Path) -> list[str]:
    """Names of the images at and below a folder, in natural order. Raises UserError for fewer than three, or damaged
    ones.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; give one of photos")
    found = [path for path in _below(folder) if path.suffix.lower() in SUFFIXES]
    if len(found) < 3:
        raise UserError(f"{folder}: {len(found)} photos ({', '.join(SUFFIXES)}); poses need 3, better 20 and more")
    for path in found:
        read_header(path)
    return sorted((path.relative_to(folder).as_posix() for path in found), key=natural_order)


def solve(photos: Path, work: Path, solver: Solver, report: Report) -> list[Unplaced]:
    """Make a model of the photos in ``work/sparse``, unless it is there; returns the photos that the largest part of it
    lacks.

    Raises UserError where pycolmap is absent, where ``work`` is of other photos or options, and where no two photos
    could be placed.
    """
    pycolmap = _pycolmap()
    names = find_photos(photos)
    create_own_folder(work)
    _claim(work, {"photos": [[name, (photos / name).stat().st_size] for name in names], **asdict(solver)})
    try:
        if not (work / "sparse").is_dir():
            _extract(pycolmap, photos, names, work / "database.db", solver, report)
            _match(pycolmap, names, work, solver, report)
            _map(pycolmap, photos, names, work, solver, report)
    except KeyboardInterrupt as interrupt:
        raise UserError(f"interrupted; {work} keeps what is done, the same command continues") from interrupt
    except RuntimeError as error:
        raise UserError(one_line(f"pycolmap: {error}", f"try again, or without {work}")) from error
    return unplaced(pycolmap, names, work)


def unplaced(pycolmap: Any, names: list[str], work: Path) -> list[Unplaced]:
    """The photos without a pose in the largest model, and why. Raises UserError where there is no model."""
    models = [{view.name for view in read_model(folder).views} for folder in visible(work / "sparse")]
    features, matches = _counts(pycolmap, work / "database.db")
    if not models:
        pairs, most = sum(matches.values()) // 2, max(features.values(), default=0)
        raise UserError(
            f"no photos could be placed: {pairs} pairs match, of {most} features at most in a photo; give sharp photos"
            f" that overlap by two thirds and are taken from different places, or another --lens ({work} has the rest)"
        )
    placed = max(models, key=len)
    return [
        Unplaced(name, _reason(features[name], matches[name], [len(model) for model in models if name in model]))
        for name in names
        if name not in placed
    ]


def _reason(features: int, matches: int, others: list[int]) -> str:
    if features < FEWEST_FEATURES:
        return f"{features} features: blurred, or without texture"
    if not matches:
        return "matches no other photo"
    if others:
        return f"belongs to another part of {max(others)} photos, which has too little in common with this one"
    return f"matches {matches} other photos, but too few of the points that they place"


def _pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise UserError("poses are found by pycolmap, which is not installed: pip install 'vcgen[poses]'") from error
    pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL)  # what fails is said by its exceptions and its results
    pycolmap.set_random_seed(0)
    return pycolmap


def _claim(work: Path, note: dict[str, Any]) -> None:
    """Raise UserError where a folder is of other photos or options, else note them."""
    if (path := work / NOTE).exists():
        if read_json(path, dict[str, Any]) != note:
            raise UserError(f"{work}: is of other photos or options; remove it, or give another --work")
    elif any(visible(work)):
        raise UserError(f"{work}: holds something else than a search for poses; give another --work")
    else:
        write_bytes(path, json.dumps(note).encode())


def _extract(pycolmap: Any, photos: Path, names: list[str], database: Path, solver: Solver, report: Report) -> None:
    """Features of all photos; those of one size share a camera."""
    options = pycolmap.FeatureExtractionOptions(num_threads=solver.threads or -1, use_gpu=False)
    options.max_image_size, options.sift.max_num_features = solver.feature_size, solver.features
    sizes: dict[tuple[int, int], list[str]] = {}
    for name in names:
        sizes.setdefault(read_header(photos / name)[0], []).append(name)
    done = 0
    for alike in sizes.values():
        for start in range(0, len(alike), PHOTOS):
            report("features", done, len(names))
            batch = alike[start : start + PHOTOS]
            camera = _camera_of(pycolmap, database, alike[0]) if start else -1
            pycolmap.extract_features(
                database,
                photos,
                image_names=batch,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=pycolmap.ImageReaderOptions(camera_model=solver.lens, existing_camera_id=camera),
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            done += len(batch)
    report("features", done, len(names))


def _camera_of(pycolmap: Any, database: Path, name: str) -> int:
    with pycolmap.Database.open(database) as opened:
        if not opened.exists_image(name):
            raise UserError(f"{name}: pycolmap cannot read this photo; save it as PNG or JPEG again")
        return int(opened.read_image_with_name(name).camera_id)


def pairs(names: list[str], matching: Matching) -> Iterator[tuple[str, str]]:
    """The pairs to compare: all, or of a film each photo with its ``NEIGHBORS`` and those 2, 4, 8, ... places on."""
    if matching == "exhaustive":
        yield from itertools.combinations(names, 2)
        return
    steps = sorted({*range(1, NEIGHBORS + 1), *(1 << power for power in range(len(names).bit_length()))})
    yield from ((first, names[i + step]) for i, first in enumerate(names) for step in steps if i + step < len(names))


def _match(pycolmap: Any, names: list[str], work: Path, solver: Solver, report: Report) -> None:
    """Compare the features of pairs, some pairs at a time; all at once where names hold spaces, which no list of pairs
    can.
    """
    options = pycolmap.FeatureMatchingOptions(num_threads=solver.threads or -1, use_gpu=False)
    common = {"matching_options": options, "device": pycolmap.Device.cpu}
    chosen, listed = list(pairs(names, solver.matching)), work / "pairs.txt"
    report("matches", 0, len(chosen))
    if any(" " in name for name in names):
        if solver.matching == "exhaustive":
            pycolmap.match_exhaustive(work / "database.db", **common)
        else:
            film = pycolmap.SequentialPairingOptions(overlap=NEIGHBORS, quadratic_overlap=True)
            pycolmap.match_sequential(work / "database.db", pairing_options=film, **common)
    else:
        for start in range(0, len(chosen), PAIRS):
            write_bytes(listed, "".join(f"{a} {b}\n" for a, b in chosen[start : start + PAIRS]).encode())
            some = pycolmap.ImportedPairingOptions(match_list_path=listed)
            pycolmap.match_image_pairs(work / "database.db", pairing_options=some, **common)
            report("matches", min(start + PAIRS, len(chosen)), len(chosen))
    report("matches", len(chosen), len(chosen))


def _map(pycolmap: Any, photos: Path, names: list[str], work: Path, solver: Solver, report: Report) -> None:
    """Place photo after photo, then let the principal points move, too, where ``ENOUGH`` photos can tell them; the
    models appear in ``sparse`` when all are there.
    """
    made, placed = work / "sparse.partial", itertools.count(2)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    options = pycolmap.IncrementalPipelineOptions(
        num_threads=solver.threads or -1, min_model_size=min(10, max(3, len(names) // 2)), random_seed=0
    )
    models = pycolmap.incremental_mapping(
        work / "database.db",
        photos,
        made,
        options=options,
        initial_image_pair_callback=lambda: report("poses", 2, len(names)),
        next_image_callback=lambda: report("poses", min(next(placed) + 1, len(names)), len(names)),
    )
    refine = pycolmap.BundleAdjustmentOptions(refine_principal_point=True, print_summary=False)
    refine.ceres.solver_options.num_threads = solver.threads or -1
    for number, model in models.items():
        if model.num_reg_images() >= ENOUGH:
            config = pycolmap.BundleAdjustmentConfig()
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
            for image in model.reg_image_ids():
                config.add_image(image)
            pycolmap.create_default_bundle_adjuster(refine, config, model).solve()
            model.write(made / str(number))
    put_in_place(made, work / "sparse")


def _counts(pycolmap: Any, database: Path) -> tuple[Counter[str], Counter[str]]:
    """By name: features, and how many other photos match."""
    with pycolmap.Database.open(database) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        features = Counter({name: opened.num_keypoints_for_image(number) for number, name in names.items()})
        matches: Counter[str] = Counter()
        for pair, count in zip(*opened.read_two_view_geometry_num_inliers(), strict=True):
            if count >= FEWEST_MATCHES:
                matches.update(names[number] for number in pycolmap.pair_id_to_image_pair(pair))
    return features, matches


def _below(folder: Path, depth: int = 8) -> Iterator[Path]:
    """Files at any depth; folders that are links are not entered."""
    for path in visible(folder):
        if path.is_file():
            yield path
        elif path.is_dir() and not path.is_symlink() and depth:
            yield from _below(path, depth - 1)
