"""The bundled cars: what their page says of them, and that its recipe makes them again."""

import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vcgen.cli.main import main
from vcgen.data.shards.files import read_index
from vcgen.data.shards.record import decode_views


def test_bundled_cars_hold_what_their_page_says():
    folder = Path(__file__).parents[1] / "data" / "cars64"
    for split, models, variants, views in (("train", 31, 5, 20), ("test", 5, 3, 40)):
        index = read_index(folder / split)
        index.verify_checksums()
        assert len({s.group for _, s in index.samples}) == models and len(index.samples) == models * variants
        assert {s.views for _, s in index.samples} == {views} and index.image_size == (64, 64)
        record = index.read(0)
        assert np.allclose(np.linalg.norm(record.c2w[:, :3, 3], axis=-1), 1.3, atol=1e-4)
        assert np.allclose(record.K[0], [[131.25 / 128, 0, 0.5], [0, 131.25 / 128, 0.5], [0, 0, 1]])


@pytest.mark.integration
@pytest.mark.parametrize(
    ("split", "keys"), [("test", ["kaykit_police_0", "kenney1_taxi_2"]), ("train", ["kaykit_sedan_1"])]
)
def test_the_bundled_cars_are_made_again_by_the_recipe_of_their_page(shared_data, tmp_path, split, keys):
    page = (Path(__file__).parents[1] / "data" / "README.md").read_text().replace("\\\n", " ")
    command = f"vcgen data pack srn cars_{split} data/cars64/{split} "
    options = next(line for line in page.splitlines() if line.strip().startswith(command)).partition(command)[2]
    with tarfile.open(shared_data / "cars128" / f"cars_{split}.tar") as tar:
        wanted = [member for member in tar if member.isfile() and Path(member.name).parts[1] in keys]
        tar.extractall(tmp_path, wanted, filter="data")
    assert (
        main(["data", "pack", "srn", str(tmp_path / f"cars_{split}"), str(tmp_path / "out"), *shlex.split(options)])
        == 0
    )
    made, bundled = read_index(tmp_path / "out"), read_index(Path(__file__).parents[1] / "data" / "cars64" / split)
    places = {sample.key: number for number, (_, sample) in enumerate(bundled.samples)}
    assert [sample.key for _, sample in made.samples] == keys
    for number, key in enumerate(keys):
        ours, theirs = made.read(number), bundled.read(places[key])
        assert ours.cameras_json() == theirs.cameras_json()
        # Pixels, not files: another release of the PNG encoder may pack them otherwise.
        views = range(len(theirs.images))
        assert all(
            np.array_equal(mine, its)
            for mine, its in zip(decode_views(ours, views), decode_views(theirs, views), strict=True)
        )


@pytest.mark.integration
def test_the_foreign_cars_are_the_test_cars_and_are_made_again_by_the_recipe_of_their_page(shared_data, tmp_path):
    root = Path(__file__).parents[1]
    index, test = (read_index(root / "data" / "cars64" / split) for split in ("foreign", "test"))
    index.verify_checksums()
    assert {s.group for _, s in index.samples} == {s.group for _, s in test.samples}
    assert len(index.samples) == 10 and {s.views for _, s in index.samples} == {20}
    page = (root / "data" / "README.md").read_text().replace("\\\n", " ")
    recipe = [line.strip() for line in page.splitlines() if "unpacked_foreign" in line]
    unpacked, made = tmp_path / "unpacked_foreign", tmp_path / "foreign"
    cars = shared_data / "meshes_lowpoly_cc0" / "cars"
    program = recipe[0].replace("CARS", str(cars)).replace("unpacked_foreign", str(unpacked)).split()
    subprocess.run([sys.executable, *program[1:]], check=True, cwd=root)
    for file in unpacked.iterdir():
        if file.stem != "kenney1_taxi_dark":
            file.unlink()
    options = shlex.split(recipe[1])[5:]
    assert main(["data", "render", str(unpacked), str(made), *options]) == 0
    number = [sample.key for _, sample in index.samples].index("kenney1_taxi_dark")
    ours, bundled = read_index(made).read(0), index.read(number)
    assert ours.cameras_json() == bundled.cameras_json()
    assert all(map(np.array_equal, decode_views(ours, range(20)), decode_views(bundled, range(20))))
