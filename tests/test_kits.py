"""``data/kits64.py``: kits as .ply files of the same shapes and colors, parted by maker, near-copies listed."""

import importlib.util
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from vcgen.cli.main import main
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views
from vcgen.errors import UserError
from vcgen.meshes.parts import read_surface
from vcgen.meshes.surface import to_linear

DATA = Path(__file__).parents[1] / "data"
spec = importlib.util.spec_from_file_location("kits64", DATA / "kits64.py")
kits64 = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kits64)


def kit(path: Path, height: float = 1.0) -> dict[str, np.ndarray]:
    """Write a pyramid on a square, every corner of every face of a color of its own; returns its arrays."""
    vertices = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1], [0, height, 0]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [0, 4, 1], [1, 4, 2], [2, 4, 3], [3, 4, 0]], np.uint16)
    colors = np.random.default_rng(0).integers(0, 256, (6, 3, 3)).astype(np.uint8)
    arrays = {"vertices": vertices, "faces": faces, "corner_rgb": colors}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return arrays


def test_shapes_and_colors_stay_makers_are_parted_and_near_copies_listed(tmp_path, capsys):
    arrays = kit(tmp_path / "kits" / "food" / "kenney_apple.npz")
    for name in ("food/kenney_apple-half", "food/kenney_pear", "seats/kaykitf_chair", "seats/kaykitr_chair_b"):
        kit(tmp_path / "kits" / f"{name}.npz")
    for name in ("fish/quaternius_goldfish", "fish/quaternius_bluegoldfish", "seats/quaternius_pear"):
        kit(tmp_path / "kits" / f"{name}.npz")
    kit(tmp_path / "kits" / "food" / "kenney_plate.npz", height=0.05)
    kit(tmp_path / "kits" / "buildings" / "kenney_house.npz")
    kits64.main(tmp_path / "kits", tmp_path / "out")
    made = {
        split: {p.relative_to(tmp_path / "out" / split).as_posix() for p in (tmp_path / "out" / split).rglob("*.ply")}
        for split in ("train", "test")
    }
    assert made["test"] == {"seats/kaykitf_chair.ply", "seats/kaykitr_chair_b.ply"}
    assert len(made["train"]) == 6 and "food/kenney_plate.ply" not in made["train"]
    assert capsys.readouterr().out.splitlines()[0].endswith("out: 8 models")
    assert json.loads((tmp_path / "out" / "families.json").read_text()) == [
        ["fish_quaternius_bluegoldfish", "fish_quaternius_goldfish"],
        ["food_kenney_apple", "food_kenney_apple-half"],
        ["seats_kaykitf_chair", "seats_kaykitr_chair_b"],
    ]
    surface = read_surface(tmp_path / "out" / "train" / "food" / "kenney_apple.ply", "z", 100)
    assert np.array_equal(surface.triangles.numpy(), arrays["vertices"][arrays["faces"]].astype(np.float64))
    assert torch.allclose(surface.rgba[..., :3], to_linear(torch.tensor(arrays["corner_rgb"] / 255).float()), atol=1e-6)


def test_models_that_are_flat_or_have_two_colors_in_one_place_are_left_out(tmp_path, capsys):
    arrays = kit(tmp_path / "food" / "kenney_apple.npz")
    kit(tmp_path / "food" / "kenney_plate.npz", height=0.05)
    other = {**arrays, "faces": np.concatenate([arrays["faces"], arrays["faces"][:, ::-1]])}
    for name, colors in (("glass", 255 - arrays["corner_rgb"]), ("cup", arrays["corner_rgb"][:, ::-1])):
        np.savez(
            tmp_path / "food" / f"kenney_{name}.npz", **{**other, "corner_rgb": np.r_[arrays["corner_rgb"], colors]}
        )
    kits64.main(tmp_path, tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out").rglob("*.ply")} == {"kenney_apple", "kenney_cup"}
    said = capsys.readouterr().out.splitlines()[1:]
    assert said == ["left out 1, flat: kenney_plate", "left out 1, drawn twice: kenney_glass"]


def test_what_is_no_kit_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="has no models"):
        kits64.main(tmp_path, tmp_path / "out")
    kit(tmp_path / "food" / "kenney_apple.npz")
    (tmp_path / "food" / "kenney_pear.npz").write_bytes(b"spoiled")
    with pytest.raises(UserError, match=r"kenney_pear\.npz: cannot be read"):
        kits64.main(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("split", "model"), [("train", "fish/quaternius_koi"), ("test", "seats/kaykitc_bench")])
def test_the_bundled_kits_are_made_again_by_the_recipe_of_their_page(shared_data, tmp_path, split, model):
    (tmp_path / "kits" / model).parent.mkdir(parents=True)
    shutil.copy(shared_data / "meshes_lowpoly_cc0" / f"{model}.npz", tmp_path / "kits" / f"{model}.npz")
    kits64.main(tmp_path / "kits", tmp_path / "unpacked")
    command = f"vcgen data render unpacked_kits/{split} data/kits64/{split} "
    lines = (DATA / "README.md").read_text().splitlines()
    options = next(line for line in lines if line.strip().startswith(command)).partition(command)[2]
    made, bundled = tmp_path / "made", read_index(DATA / "kits64" / split)
    assert main(["data", "render", str(tmp_path / "unpacked" / split), str(made), *shlex.split(options)]) == 0
    mine = read_index(made).read(0)
    its = bundled.read([sample.key for _, sample in bundled.samples].index(mine.key))
    assert mine.cameras_json() == its.cameras_json()
    # Pixels, not files: another release of the PNG encoder may pack them otherwise.
    views = range(len(its.images))
    pairs = zip(decode_views(mine, views), decode_views(its, views), strict=True)
    assert all(np.abs(one - other).max() < 1.5 / 255 for one, other in pairs)
