import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geometry import epipolar_errors
from scenes import looking_inwards, make_record, noise, png
from vcgen.cli.main import main
from vcgen.data.drawing import COLORS, choose_points, draw_epipolar_lines, object_mask
from vcgen.data.epipolar import epipolar_lines, fundamental_matrix
from vcgen.data.shards import maps
from vcgen.data.shards.files import write_shards


def project(points: np.ndarray, c2w: np.ndarray, K: np.ndarray) -> np.ndarray:
    """World points (n, 3) -> normalized image points (n, 2), written out from the definition of a pinhole camera."""
    image = (np.linalg.inv(c2w) @ np.concatenate([points, np.ones((len(points), 1))], -1).T)[:3].T @ K.T
    return image[:, :2] / image[:, 2:]


def test_projections_of_one_point_lie_on_each_others_epipolar_lines():
    c2w = looking_inwards(2)
    K = np.array([[[1.2, 0, 0.45], [0, 0.9, 0.55], [0, 0, 1]], [[1.5, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]])
    points = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
    a, b = (project(points, c2w[i], K[i]) for i in range(2))
    F = fundamental_matrix(c2w[0], K[0], c2w[1], K[1])
    assert epipolar_errors(F, a, b, (48, 64)).max() < 1e-9
    wrong = fundamental_matrix(c2w[0] @ np.diag([1.0, -1, -1, 1]), K[0], c2w[1], K[1])
    assert np.median(epipolar_errors(wrong, a, b, (48, 64))) > 2


def test_a_shift_across_the_line_is_the_error_in_pixels():
    # Sideways motion: lines are rows of the image, so a point 0.1 lower is 0.1 * 48 pixels off.
    c2w = np.stack([np.eye(4), np.eye(4)])
    c2w[1, 0, 3] = 1
    K = np.array([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])
    F = fundamental_matrix(c2w[0], K, c2w[1], K)
    assert epipolar_errors(F, np.array([[0.4, 0.3]]), np.array([[0.7, 0.4]]), (48, 64)) == pytest.approx(4.8)
    assert np.abs(epipolar_lines(F, np.array([[0.4, 0.3]]), (48, 64))[0]) == pytest.approx([0, 1, 14.4])


def test_marked_points_lie_on_the_object():
    pixels = np.zeros((32, 32, 4), dtype=np.uint8)
    pixels[10:20, 5:15] = noise(0, 10, 10)
    pixels[10:20, 5:15, 3] = 255
    record = make_record(images=[png(pixels)] * 3, size=(32, 32))
    mask = object_mask(record, 0)
    assert mask.sum() == 100 and mask[10:20, 5:15].all()
    column, row = (choose_points(record, 0, 3)[0] * 32).astype(int)
    assert mask[row, column]


def test_the_object_stands_out_from_a_white_background():
    pixels = np.full((8, 6, 3), 255, dtype=np.uint8)
    pixels[2:4, 1:3] = 40
    mask = object_mask(make_record(images=[png(pixels)] * 3, background="white"), 0)
    assert mask.sum() == 4 and mask[2:4, 1:3].all()


@pytest.fixture
def folder(tmp_path):
    records = [make_record(f"car_{i}", count=4, group="car", licence="CC0") for i in range(3)]
    return write_shards(
        records, tmp_path / "shards", (8, 6), samples_per_shard=2, source="toy", split="test", licence="CC0"
    ).folder


def test_the_summary_states_what_was_packed(folder, capsys):
    assert main(["data", "inspect", str(folder), "--out", "none"]) == 0
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["scenes"].strip() == "3 in 1 groups, 2 shards, checksums good"
    assert lines["views"].strip() == "12 (4 a scene)"
    assert lines["image size"].strip().startswith("8 x 6")
    assert lines["near, far"].strip().startswith("0.8, 1.8")
    assert lines["camera distance"].strip().startswith("1.3 ")
    assert lines["background"].strip().startswith("alpha")
    centers = looking_inwards(4)[:, 2, 3] / 1.3
    low, high = np.degrees(np.arcsin([centers.min(), centers.max()]))
    assert lines["elevation"].strip().startswith(f"{low:.4g} to {high:.4g}")


def summary_of(folder: Path, capsys, **kinds: list[bytes]) -> str:
    """What is printed of two scenes, one of which has maps."""
    records = [make_record("a", count=2, maps=kinds), make_record("b", count=2)]
    assert main(["data", "inspect", str(write_shards(records, folder, (8, 6)).folder), "--out", "none"]) == 0
    return "".join(capsys.readouterr())


def test_the_summary_states_which_maps_there_are(folder, tmp_path, capsys):
    hit = np.arange(48).reshape(8, 6) % 3 > 0
    depth, mask = maps.encode_depth(np.where(hit, 1.2, 0), 1.8), maps.encode_mask(hit)
    printed = summary_of(tmp_path / "good", capsys, depth=[depth] * 2, mask=[mask] * 2)
    assert (
        re.search(r"^maps: +depth of 1 scene, mask of 1 scene$", printed, re.MULTILINE) and "different" not in printed
    )
    assert main(["data", "inspect", str(folder), "--out", "none"]) == 0
    assert re.search(r"^maps: +none$", capsys.readouterr().out, re.MULTILINE)


def test_maps_that_do_not_fit_together_are_remarked_upon(tmp_path, capsys):
    hit = np.arange(48).reshape(8, 6) % 3 > 0
    near = [maps.encode_depth(np.where(hit, 0.5, 0), 1.8)] * 2
    other = [maps.encode_mask(~hit)] * 2
    printed = summary_of(tmp_path / "odd", capsys, depth=near, mask=other)
    assert "maps of depth and mask cover different pixels, 48 of 48" in printed
    assert "32 pixels of the map of depth lie before near, 0.8" in printed


def test_a_map_that_is_damaged_is_one_line(tmp_path, capsys):
    whole = maps.encode_mask(np.ones((8, 6), bool))
    record = make_record("a", count=2, maps={"mask": [whole[:45] + bytes([whole[45] ^ 1]) + whole[46:], whole]})
    folder = write_shards([record], tmp_path / "shards", (8, 6)).folder
    assert main(["data", "inspect", str(folder), "--out", "none"]) == 2
    line = capsys.readouterr().err
    assert "scene a, view 000000: the map of mask is damaged (a checksum is wrong)" in line and line.count("\n") == 1


def test_images_are_drawn(folder, tmp_path, capsys):
    assert main(["data", "inspect", str(folder), "--out", str(tmp_path / "images"), "--scene", "car_1"]) == 0
    printed = capsys.readouterr().out
    for name in ("contact_sheet.png", "cameras.png", "epipolar.png"):
        assert str(tmp_path / "images" / name) in printed
        pixels = np.asarray(Image.open(tmp_path / "images" / name).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 5


IMAGES = ["cameras.png", "contact_sheet.png", "epipolar.png"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_without_a_place_the_images_go_to_outputs_under_the_datas_names(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    before = files(folder)
    assert main(["data", "inspect", str(folder)]) == 0
    place = Path("outputs", "inspect", tmp_path.name, "shards")
    assert files(Path()) == [str(place / name) for name in IMAGES] and files(folder) == before
    last = capsys.readouterr().out.splitlines()[-1]
    assert all(str(place / name) in last for name in IMAGES)
    assert main(["data", "inspect", "../shards", "--out", "none"]) == 0
    assert files(folder) == before and files(Path()) == [str(place / name) for name in IMAGES]


@pytest.mark.parametrize("options", [[], ["--out", "."], ["--out", "images"]])
def test_nothing_is_written_into_the_data_folder(folder, monkeypatch, capsys, options):
    monkeypatch.chdir(folder)
    before = files(folder)
    assert main(["data", "inspect", ".", *options]) == 2
    line = capsys.readouterr().err
    assert "lies in the data folder" in line and line.count("\n") == 1 and files(folder) == before


def crosses_the_dot(sheet: np.ndarray, tile: int, uv: np.ndarray) -> bool:
    """Whether a line of the first color passes within a pixel of the white dot at ``uv`` of the 64-pixel view drawn at
    a tile, times 8.
    """
    x, y = (np.floor(uv * 64) * 8 + 4 + [tile * (64 * 8 + 4), 0]).astype(int)
    patch = sheet[y - 8 : y + 9, x - 8 : x + 9].reshape(-1, 3)
    return bool((patch == COLORS[0]).all(-1).any() and (patch == 255).all(-1).any())


@pytest.mark.parametrize("convention", ["right", "wrong"])
def test_lines_cross_the_marked_spot_only_where_the_cameras_are_right(convention):
    c2w, point = looking_inwards(4), np.array([[0.15, -0.1, 0.2]])
    K = np.array([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]])
    spots = [project(point, pose, K)[0] for pose in c2w]
    images = []
    for u, v in spots:
        pixels = np.zeros((64, 64, 4), dtype=np.uint8)
        pixels[int(v * 64), int(u * 64)] = 255
        images.append(png(pixels))
    stored = c2w if convention == "right" else c2w @ np.diag([1.0, -1, -1, 1])
    record = make_record(count=4, images=images, c2w=stored, K=np.tile(K, (4, 1, 1)), size=(64, 64))
    sheet = np.asarray(Image.open(io.BytesIO(draw_epipolar_lines(record))).convert("RGB"))
    crossed = [any(crosses_the_dot(sheet, tile, spot) for tile in (1, 2, 3)) for spot in spots[1:]]
    assert all(crossed) == (convention == "right")


def test_damage_and_unknown_scenes_are_one_line(folder, capsys):
    assert main(["data", "inspect", str(folder), "--scene", "bus"]) == 2
    assert "no scene 'bus'" in capsys.readouterr().err
    shard = folder / "000001.tar"
    data = bytearray(shard.read_bytes())
    data[2000] ^= 255
    shard.write_bytes(data)
    assert main(["data", "inspect", str(folder), "--out", "none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["data", "inspect", str(folder / "nowhere")]) == 2
