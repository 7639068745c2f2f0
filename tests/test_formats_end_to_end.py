"""Every format: packed, inspected, trained on for two steps, and evaluated, by the commands that a user gives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import abo_files
import co3d_files
import colmap_files
import re10k_files
import test_clevr3d
import test_nmr
import test_posed_folder
import test_zero123plus
from scenes import looking_inwards, noise, png, posed_frames, write_srn_object, write_transforms
from training import CONFIG, vcgen
from vcgen.cli.main import main
from vcgen.cli.pack import FORMATS
from vcgen.evaluation.protocol import SUPPORTED_METRICS, SUPPORTED_QUANTISATION
from vcgen.evaluation.results import load_results

SIZE = 16
PROTOCOL = {
    "version": 2,
    "name": "tiny",
    "context": [0],
    "targets": "all others",
    "size": [SIZE, SIZE],
    "background": 1.0,
    "quantisation": SUPPORTED_QUANTISATION,
    "metrics": SUPPORTED_METRICS,
}


def folder(place: Path) -> list[str]:
    for name in "ab":
        test_posed_folder.write_scene(place / name)
    return []


def srn(folder: Path) -> list[str]:
    for number in range(2):
        write_srn_object(folder / f"car_{number}", seed=number, height=SIZE, width=SIZE)
    return []


def transforms(folder: Path) -> list[str]:
    for name in "ab":
        (folder / name / "images").mkdir(parents=True)
        for number in range(3):
            (folder / name / "images" / f"r_{number}.png").write_bytes(png(noise(number, SIZE, SIZE)))
        write_transforms(folder / name, posed_frames(looking_inwards(3, distance=4)), camera_angle_x=0.8)
    return ["--near", "2", "--far", "6"]


def colmap(folder: Path) -> list[str]:
    for name in "ab":
        colmap_files.write_scene(folder / name)
    return []


def nmr(folder: Path) -> list[str]:
    for name in "ab":
        test_nmr.write_object(folder / test_nmr.CAR / name)
    return ["--lists", "", "--masks"]


def co3d(folder: Path) -> list[str]:
    co3d_files.write_category(folder)
    return ["--subset", ""]


def re10k(folder: Path) -> list[str]:
    re10k_files.write_clip(folder / "train", "a", folder / "frames")
    re10k_files.write_clip(folder / "train", "b", folder / "frames")
    return ["--frames", str(folder / "frames"), "--square"]


def abo(folder: Path) -> list[str]:
    abo_files.write_benchmark(folder / "a", ("0",))
    abo_files.write_renderings(folder / "b", "b")
    return []


def clevr3d(folder: Path) -> list[str]:
    test_clevr3d.write_scenes(folder, (0, 1))
    return ["--scale", "0.1"]


def zero123plus(folder: Path) -> list[str]:
    for name in "ab":
        test_zero123plus.write_sheet(folder / f"{name}.png")
    return []


#: Name of a format -> what writes two scenes into a folder, and returns the options that they are packed with.
WRITERS: dict[str, Callable[[Path], list[str]]] = {
    "folder": folder,
    "srn": srn,
    "transforms": transforms,
    "colmap": colmap,
    "nmr": nmr,
    "co3d": co3d,
    "re10k": re10k,
    "abo": abo,
    "clevr3d": clevr3d,
    "zero123plus": zero123plus,
}


def test_every_format_is_here():
    assert WRITERS.keys() == {form.name for form in FORMATS}


@pytest.mark.integration
@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_packed_inspected_trained_on_and_evaluated(tmp_path, name):
    options = WRITERS[name](tmp_path / "in")
    shards = str(tmp_path / "shards")
    assert main(["data", "pack", name, str(tmp_path / "in"), shards, "--size", str(SIZE), *options]) == 0
    assert main(["data", "inspect", shards, "--out", str(tmp_path / "inspect")]) == 0
    assert (tmp_path / "inspect" / "epipolar.png").is_file()
    (tmp_path / "config.yaml").write_text(CONFIG)
    data = {"data__train": shards, "data__val": shards}
    assert vcgen("fit", tmp_path / "config.yaml", tmp_path / "run", trainer__max_steps=2, **data) == 0
    checkpoint, model = str(tmp_path / "run" / "checkpoints" / "last.ckpt"), str(tmp_path / "model")
    assert main(["export", "--checkpoint", checkpoint, "--out", model]) == 0
    (tmp_path / "protocol.json").write_text(json.dumps(PROTOCOL))
    words = ["evaluate", "--model", model, "--data", shards, "--protocol", str(tmp_path / "protocol.json")]
    assert main([*words, "--out", str(tmp_path / "eval"), "--lpips", "none", "--device", "cpu"]) == 0
    results = load_results(tmp_path / "eval")
    assert len(results.objects) == 2 and results.mean["psnr"] > 0
