"""What the benchmark programs compute from others' results, and the demo from start to end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import trimesh
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import common  # noqa: E402
import fewshot_tables  # noqa: E402
import limits  # noqa: E402
import pretrain  # noqa: E402
import prior_colors  # noqa: E402
import which_ssim  # noqa: E402
from field_parts import learning_times  # noqa: E402
from options import OPTIONS  # noqa: E402


def filed(path: Path, *runs: tuple[str, float]) -> Path:
    """Results of benchmarks/learning.py: PSNR by name on 15 images, better ones on 585, and a method without training
    time.
    """
    rows = [
        {"name": name, "images": images, "psnr": psnr + images / 585} for name, psnr in runs for images in (15, 585)
    ]
    path.write_text(json.dumps({"rows": [{"name": "copy_input", "images": 15, "psnr": 99.0}, *rows]}))
    return path


@pytest.mark.parametrize(
    ("runs", "minutes", "words"),
    [
        (
            (
                ("vcgen_2.5min", 15.0),
                ("vcgen_10min", 18.0),
                ("vcgen_60min", 19.0),
                ("pixelnerf_10min", 14.0),
                ("pixelnerf_60min", 16.0),
            ),
            10,
            "after at most 10 minutes (18.03 dB), and pixelNeRF's training was 6 times as long",
        ),
        (
            (("vcgen_10min", 18.0), ("pixelnerf_10min", 14.0), ("pixelnerf_60min", 20.0)),
            None,
            "no filed training of vcgen is as good",
        ),
        ((("vcgen_60min", 20.0), ("pixelnerf_10min", 14.0)), 60, "at most 60 minutes (20.03 dB), which is no shorter"),
    ],
)
def test_the_time_to_a_quality_is_said_in_words(tmp_path, runs, minutes, words):
    found = {}
    text = "\n".join(learning_times(filed(tmp_path / "learning.json", *runs), found))
    assert words in text and found["time_to_quality"]["vcgen_minutes_at_most"] == minutes
    assert "99.0" not in text and all(f"{psnr + 15 / 585:.2f}" in text for _, psnr in runs)


def test_without_pixelnerf_there_is_only_the_table(tmp_path):
    lines = learning_times(filed(tmp_path / "learning.json", ("vcgen_10min", 18.0)), found := {})
    assert (
        "18.03" in "\n".join(lines)
        and "pixelNeRF" not in "\n".join(lines)
        and set(found["time_to_quality"]) == {"runs"}
    )


def test_every_choice_that_the_configuration_marks_has_an_alternative_to_measure():
    marked = re.findall(r"^ *(\w+):.*# \*", (ROOT / "configs" / "cars64.yaml").read_text(), re.MULTILINE)
    varied = {word for changes in OPTIONS.values() for option in changes[::2] for word in option.lstrip("-").split(".")}
    assert len(marked) >= 9 and set(marked) <= varied


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        (None, "2x_Intel_Xeon_CPU_2.20GHz"),
        ("NVIDIA RTX 4090/D", "NVIDIA_RTX_4090_D"),
        ("NVIDIA H200 (MIG)", "NVIDIA_H200_MIG"),
    ],
)
def test_results_are_filed_under_names_that_links_can_bear(tmp_path, monkeypatch, gpu, name):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    figures = {"hardware": {"cores": 2, "processor": "Intel(R) Xeon(R) CPU @ 2.20GHz", "gpu": gpu}}
    common.save_results("costs", figures, ["| a |"])
    assert {file.name.split("_", 1)[1] for file in tmp_path.iterdir()} == {f"costs_{name}.json", f"costs_{name}.md"}


def test_forms_of_ssim_are_compared_on_two_folders_of_images(tmp_path):
    for folder in ("prediction", "truth"):
        (tmp_path / folder).mkdir()
        for name in ("a.png", f"only_{folder}.png"):
            pixels = np.random.default_rng(len(folder)).integers(0, 256, (24, 24, 4), np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / name)
    rows = which_ssim.folders(tmp_path / "prediction", tmp_path / "truth")
    assert len(rows) == 1 and rows[0].keys() == {*which_ssim.PSNRS, *which_ssim.FORMS}
    lines = which_ssim.table({name: np.array([value, value]) for name, value in rows[0].items()})
    apart = rows[0]["ssim_gauss"] - rows[0]["ssim"]
    line = f"| `ssim_gauss` | {rows[0]['ssim_gauss']:.4f} | {apart:+.4f} | {apart:+.4f} to {apart:+.4f} |"
    assert line in lines and {line.count("|") for line in lines} == {5}


def test_a_summary_and_a_model_card_do_without_lpips(tmp_path):
    row = {"name": "pixelnerf", "minutes": 10, "views": 1, "psnr": 18.0, "ssim": 0.75, "lpips": None}
    assert "| pixelnerf | 10 | 18.00 |" in fewshot_tables.summary([row], [])[-1]
    for name in ("field", "model", "evaluation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"training": {"step": 7}}')
    (tmp_path / "evaluation" / "results.json").write_text('{"mean": {"psnr": 18.0, "ssim": 0.75}}')
    pretrain.write_card(tmp_path / "model", tmp_path / "field", tmp_path / "evaluation", (None, None))
    assert "PSNR 18.000, SSIM 0.750" in (tmp_path / "model" / "README.md").read_text()


def test_the_map_of_limits_shows_what_evaluations_found(tmp_path):
    """Of an evaluation the named groups count; a gap needs both of its sides; filed rows can be read again."""
    images = [{"group": group, "psnr": psnr, "ssim": 0.5} for group, psnr in (("a", 20.0), ("b", 22.0), ("c", 40.0))]
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "results.json").write_text(json.dumps({"images": images}))
    first = {"name": "one", "data": "kit", "core_hours": 1, "steps": 9, "trained": "eval", "trained_groups": ["a", "b"]}
    first |= {"held_out": None, "test": {"psnr": 20.5, "lpips_squeeze": 0.2}}
    second = {**first, "name": "two", "data": "mix", "core_hours": 2, "trained": None, "test": {"psnr": 21.5}}
    (tmp_path / "runs.json").write_text(json.dumps([first, second]))
    runs = limits.read(tmp_path / "runs.json")
    (tmp_path / "filed.json").write_text(json.dumps({"rows": runs}))
    assert limits.read(tmp_path / "filed.json") == runs and runs[0]["trained"]["psnr"] == 21.0
    *_, one, two = limits.table(runs)
    assert [cell.strip() for cell in one.split("|")[5:9]] == ["20.50", "", "0.200", ""] and one.endswith(
        "21.00 | +0.50 |"
    )
    assert two.endswith("| 21.50 |  |  |  |  |  |  |  |  |  |") and {one.count("|"), two.count("|")} == {15}
    circles = [node.attrib for node in ET.fromstring(limits.figure(runs)).iter() if node.tag.endswith("circle")]
    assert len(circles) == 2 + 3 + 1  # keys, PSNR of three evaluations, LPIPS of one
    best = min((circle for circle in circles[:3]), key=lambda circle: float(circle["cy"]))
    assert float(best["cy"]) == 20 and float(best["cx"]) == limits.WIDTH


def test_redness_is_that_of_the_color_and_of_the_fraction_that_bears_it():
    red, gray = (prior_colors.ball(prior_colors.BALLS[name], 64) for name in ("red", "gray"))
    covered = float((1 - gray).mean()) / 0.5
    assert float(prior_colors.redness(red)) == pytest.approx((0.9 - 0.15) * covered, rel=1e-4)
    assert float(prior_colors.redness(gray)) == pytest.approx(0, abs=1e-6) and 0.1 < covered < 0.2


@pytest.mark.slow
def test_the_demo_runs_from_start_to_end_and_writes_what_it_promises(tmp_path):
    """The program of `make demo`, trained for seconds: no word about what it learns."""
    command = [sys.executable, "benchmarks/demo.py", "--quick", "--out", str(tmp_path / "demo")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "VCGEN_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    *lines, last = done.stdout.splitlines()
    figures, out = json.loads(last), tmp_path / "demo"
    assert figures["images"] == 15 and figures["hardware"]["cores"] >= 1
    assert set(figures["rows"]) == {"vcgen", "copy_input", "mean_image"}
    assert figures["rows"]["copy_input"]["psnr"] == pytest.approx(13.62, abs=0.01)
    assert json.loads((out / "results.json").read_text())["mean"] == figures["rows"]["vcgen"]
    assert not [line for line in lines if line.endswith(": missing")]
    for name in (
        "report.html",
        "turntable.mp4",
        "loss.png",
        "car/turntable.gif",
        "run/config.yaml",
        "model/model.safetensors",
        "log.txt",
    ):
        assert (out / name).stat().st_size > 0
    assert Image.open(out / "turntable.gif").n_frames > 1 and Image.open(out / "shipped.png").size[0] > 64
    assert len(trimesh.load(out / "mesh.glb", force="mesh").faces) > 0


@pytest.mark.slow
def test_the_demo_of_a_text_writes_what_it_promises(tmp_path):
    """The program of `make demo-text`, for a few steps: no word about what it draws."""
    command = [sys.executable, "benchmarks/demo_text.py", "--steps", "4", "--prompt", "a blue seat"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "demo")], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    *lines, last = done.stdout.splitlines()
    figures, scene = json.loads(last), tmp_path / "demo" / "scene"
    assert figures["prompt"] == "a blue seat" and {"turntable.gif", "views.png", "mesh.glb"} <= set(figures["files"])
    assert not [line for line in lines if line.endswith(": missing")]
    assert all((scene / name).stat().st_size > 0 for name in figures["files"])
    assert Image.open(scene / "turntable.gif").n_frames > 1
    assert len(trimesh.load(scene / "mesh.glb", force="mesh").faces) > 0
