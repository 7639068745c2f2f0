"""Photos to poses: what is asked of pycolmap, what is said of photos that it cannot place, and fox from its photos."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from colmap_files import C2W, POINTS, WIDTH, parameters, write_scene, write_text
from training import refusal
from vcgen.cli.main import main
from vcgen.data import structure_from_motion
from vcgen.data.shards.files import read_index
from vcgen.data.structure_from_motion import pairs, unplaced

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from pose_agreement import compare, similarity

NAMES = [f"cam/view_{number}.png" for number in range(6)]


@pytest.fixture
def photos(tmp_path) -> Path:
    """Six of the dots."""
    write_scene(tmp_path / "scene")
    return (tmp_path / "scene" / "images").rename(tmp_path / "mug")


@pytest.fixture
def solver(monkeypatch) -> list[str]:
    """Stands for pycolmap: places all photos but the last. What it was called for."""
    called = []

    def place(pycolmap, photos, names, work, solver, report):
        called.append("map")
        (work / "sparse" / "0").mkdir(parents=True)
        write_text(work / "sparse" / "0", "PINHOLE", parameters("PINHOLE", ()), names[:5], C2W[:5], POINTS)

    monkeypatch.setattr(structure_from_motion, "_pycolmap", lambda: None)
    monkeypatch.setattr(structure_from_motion, "_extract", lambda *rest: called.append("extract"))
    monkeypatch.setattr(structure_from_motion, "_match", lambda *rest: called.append("match"))
    monkeypatch.setattr(structure_from_motion, "_map", place)
    counts = Counter(dict.fromkeys(NAMES, 1000)), Counter(dict.fromkeys(NAMES[:5], 4))
    monkeypatch.setattr(structure_from_motion, "_counts", lambda pycolmap, database: counts)
    return called


def poses(photos, out, *options: str) -> int:
    return main(["data", "poses", str(photos), str(out), *options])


def test_photos_are_placed_and_packed_and_those_left_out_are_named(tmp_path, photos, solver, capsys):
    assert poses(photos, tmp_path / "out", "--up", "z") == 0
    said = capsys.readouterr().out
    assert "5 of 6 photos placed" in said and "cam/view_5.png: matches no other photo" in said
    record = read_index(tmp_path / "out").read(0)
    assert (record.key, record.source, len(record.views)) == ("mug", "poses", 5)
    assert np.allclose(record.c2w, C2W[:5], atol=1e-9) and record.t_near > 0
    assert poses(photos, tmp_path / "out", "--up", "z") == 0
    assert solver == ["extract", "match", "map"], "what is done is not done again"
    assert "nothing to do" in capsys.readouterr().out
    Image.new("RGB", (9, 9)).save(photos / "more.png")
    line = refusal(capsys, poses(photos, tmp_path / "out", "--up", "z"))
    assert "is of other photos or options" in line


def test_masks_are_given_or_made_by_removing_backgrounds(tmp_path, photos, solver, monkeypatch, capsys):
    def remover():
        return lambda color: np.where(np.arange(WIDTH) < 60, 0, 255).astype(np.uint8) * np.ones_like(color[..., 0])

    monkeypatch.setattr("vcgen.data.images.photo.background_remover", remover)
    assert poses(photos, tmp_path / "out", "--cutout") == 0
    assert read_index(tmp_path / "out").read(0).background == "alpha"
    assert "give one of them" in refusal(capsys, poses(photos, tmp_path / "o", "--cutout", "--masks", "x"))
    monkeypatch.setattr("vcgen.data.images.photo.background_remover", lambda: None)
    assert "vcgen[cutout]" in refusal(capsys, poses(photos, tmp_path / "o", "--cutout"))


def test_without_pycolmap_the_line_says_how_to_install_it(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert "pip install 'vcgen[poses]'" in refusal(capsys, poses(photos, tmp_path / "out"))
    assert not (tmp_path / "out.colmap").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--lens", "FISH"], "--lens must be one of"), (["--features", "3"], "--features must lie between")],
)
def test_wrong_options_are_refused(tmp_path, photos, solver, capsys, options, words):
    assert words in refusal(capsys, poses(photos, tmp_path / "out", *options))


def test_too_few_or_damaged_photos_and_a_folder_in_use_are_refused(tmp_path, photos, solver, capsys):
    (photos / "cam" / "view_0.png").write_bytes(b"no image")
    assert "view_0.png" in refusal(capsys, poses(photos, tmp_path / "out"))
    assert "poses need 3" in refusal(capsys, poses(tmp_path / "scene", tmp_path / "out"))
    assert "not a folder" in refusal(capsys, poses(tmp_path / "nowhere", tmp_path / "out"))
    (photos / "cam" / "view_0.png").unlink()
    (tmp_path / "w" / "mug").mkdir(parents=True)
    (tmp_path / "w" / "mug" / "letter.txt").touch()
    assert "holds something else" in refusal(capsys, poses(photos, tmp_path / "out", "--work", str(tmp_path / "w")))


def test_every_photo_left_out_has_its_reason(tmp_path, monkeypatch):
    for number, names in enumerate((["a", "b", "c"], ["d", "e"])):
        (tmp_path / "sparse" / str(number)).mkdir(parents=True)
        write_text(
            tmp_path / "sparse" / str(number), "PINHOLE", parameters("PINHOLE", ()), names, C2W[: len(names)], POINTS
        )
    features = Counter({**dict.fromkeys("abcdegh", 900), "f": 12})
    matches = Counter({"d": 1, "e": 1, "h": 2})
    monkeypatch.setattr(structure_from_motion, "_counts", lambda pycolmap, database: (features, matches))
    left = {photo.name: photo.reason for photo in unplaced(None, list("abcdefgh"), tmp_path)}
    assert list(left) == ["d", "e", "f", "g", "h"]
    assert "another part of 2 photos" in left["d"] and "12 features: blurred" in left["f"]
    assert left["g"] == "matches no other photo" and "matches 2 other photos" in left["h"]


def test_pairs_are_all_or_those_of_a_film():
    names = [str(number) for number in range(40)]
    assert len(list(pairs(names, "exhaustive"))) == 40 * 39 // 2
    film = set(pairs(names, "sequential"))
    assert {("0", "1"), ("0", "10"), ("0", "16"), ("0", "32"), ("29", "39")} <= film
    assert ("0", "11") not in film and len(film) < 600


def test_the_similarity_between_two_worlds_is_found():
    points = np.random.default_rng(0).normal(size=(9, 3))
    turn = Rotation.from_rotvec([0.3, -2.0, 1.0]).as_matrix()
    scale, rotation, shift = similarity(points, 2.5 * points @ turn.T + [1.0, 2.0, 3.0])
    assert scale == pytest.approx(2.5) and np.allclose(rotation, turn) and np.allclose(shift, [1, 2, 3])


@pytest.mark.integration
def test_photos_without_texture_are_refused_with_what_was_found(tmp_path, capsys):
    pytest.importorskip("pycolmap")
    (tmp_path / "flat").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (90, 100 + number, 110)).save(tmp_path / "flat" / f"photo {number}.png")
    line = refusal(capsys, poses(tmp_path / "flat", tmp_path / "out", "--threads", "1"))
    assert "no photos could be placed: 0 pairs match, of 0 features" in line and "--lens" in line


@pytest.mark.slow
def test_fox_from_its_photos_alone_has_the_poses_that_came_with_it(shared_data, tmp_path):
    """Fourteen of the photos, shrunk to 640 pixels; given: COLMAP's poses, of all of them at full size."""
    pytest.importorskip("pycolmap")
    (tmp_path / "fox").mkdir()
    for path in sorted((shared_data / "fox" / "images").iterdir())[1:28:2]:
        (tmp_path / "fox" / path.name).symlink_to(path)
    options = ["--size", "96x54", "--feature-size", "640", "--features", "1500"]
    assert poses(tmp_path / "fox", tmp_path / "found", *options) == 0
    given = ["data", "pack", "transforms", str(shared_data / "fox"), str(tmp_path / "given"), "--size", "96x54"]
    assert main([*given, "--near", "0.5", "--far", "20"]) == 0
    found = compare(tmp_path / "found", tmp_path / "given")
    assert found.views == 14
    assert np.median(found.rotation) < 0.5 and found.rotation.max() < 1.0
    assert np.median(found.center) < 0.01 and found.center.max() < 0.03
    assert np.abs(found.focal).max() < 0.03


@pytest.mark.integration
def test_the_program_that_compares_fits_on_found_and_on_given_poses_works(shared_data, tmp_path):
    pytest.importorskip("pycolmap")
    command = [sys.executable, "benchmarks/fox_poses.py", str(shared_data / "fox"), "--quick", "--out", str(tmp_path)]
    root = Path(__file__).parents[1]
    for _ in range(2):  # the second reads what the first has made
        output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = json.loads(output.splitlines()[-1])
    assert figures["photos"] == 20 and figures["rotation_degrees"]["largest"] < 2
    assert {row["poses"] for row in figures["rows"]} == {"given", "found"} and abs(figures["difference_db"]) < 2
